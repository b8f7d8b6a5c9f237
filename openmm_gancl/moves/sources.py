"""What moves of a model draw from, by its kind and the user's options."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from ..errors import InputError
from ..free_energy.surface import FreeEnergySurface, load_surface_over, surface_name
from ..generator.invertible import InvertibleGenerator
from ..generator.model import LiftingModel
from ..lifting.label_proposals import LabelProposal, TabulatedProposal, UniformProposal
from ..lifting.latent_relaxation import PILOT, LatentMoves, choose_step
from ..lifting.lifter import N_MOVES, RELAX_STEPS, Lifter
from ..system.molecular_system import MolecularSystem
from ..units import FloatArray, numbers, whole_number
from .exchange import Energy, ProposalSource
from .inverted import (
    BASE_STEP,
    INDEPENDENT,
    LABEL_STEP,
    LOCAL,
    MOVES,
    Independent,
    InvertedChart,
    InvertedProposals,
    Kernel,
    Local,
    hydrogens_of,
)
from .pilot import MovePilot, run_pilot
from .relaxed_lifts import RELAXED, STEP_OF_RELAXATIONS, ContextPaths, LatentPaths, RelaxedLifts

Moves = Literal["auto", "independent", "local"]
MovesOrShares = Moves | Mapping[str, float]

FORCE_CONSTANT, FRICTION = 200.0, 1.0
"""kJ/mol and 1/ps, of relaxations in a Context."""


@dataclass(frozen=True)
class MoveOptions:
    """What a user says of moves; None where nothing.

    Attributes:
        moves: of an invertible generator: see `openmm_gancl.LiftMove`.
        relax: how lifts are relaxed.
        relax_steps: of each relaxation.
        surface: or its file, where labels are proposed.
        label_proposal: p(s) instead.
        force_constants: of relaxations in a Context.
        time_step: of those, ps.
        friction: of those, 1/ps.
        platform: of relaxations.
    """

    moves: MovesOrShares = "auto"
    relax: str | None = None
    relax_steps: int | None = None
    surface: FreeEnergySurface | str | Path | None = None
    label_proposal: LabelProposal | None = None
    force_constants: float | FloatArray | None = None
    time_step: float | None = None
    friction: float | None = None
    platform: str = "auto"

    def checked_for(self, model: Any) -> "MoveOptions":
        """Themselves, with the defaults of a model's kind.

        Raises:
            InputError: one that has no meaning for it, or two that contradict each other.
        """
        if self.surface is not None and self.label_proposal is not None:
            raise InputError("surface and label_proposal both say where to propose: give one")
        if not isinstance(model, InvertibleGenerator):
            return self._of_product()
        of_contexts = {name: getattr(self, name) for name in ("force_constants", "time_step", "friction")}
        if self.relax in (None, "none"):
            of_contexts["relax_steps"] = self.relax_steps
        elif self.relax != "latent":
            raise InputError(f"relax is {self.relax!r}: choose none or latent for moves of an invertible generator")
        for name, value in of_contexts.items():
            if value is not None:
                raise InputError(f"`{name}` has no meaning with relax={self.relax or 'none'!r}: leave it out")
        shares = _shares(self.moves)
        if self.relax == "latent" and shares.get(LOCAL):
            raise InputError("local moves are of lifts without relaxation: leave relax or moves out")
        return self

    def _of_product(self) -> "MoveOptions":
        if self.moves != "auto":
            raise InputError(
                f"moves={self.moves!r} is of invertible generators, and the model is of the product generator: leave "
                "moves out"
            )
        if self.relax not in (None, "context"):
            raise InputError(
                f"the product generator knows no density of its lifts, so relax={self.relax!r} is not for it: leave it "
                "out, or give an invertible generator"
            )
        return replace(
            self,
            relax_steps=RELAX_STEPS if self.relax_steps is None else self.relax_steps,
            force_constants=FORCE_CONSTANT if self.force_constants is None else self.force_constants,
            friction=FRICTION if self.friction is None else self.friction,
        )


def _shares(moves: Any) -> dict[str, float]:
    """Of each kind of move, sum one; empty where a pilot chooses."""
    if isinstance(moves, str):
        if moves not in get_args(Moves):
            raise InputError(f"moves is {moves!r}: choose {', '.join(get_args(Moves))}, or give shares of the kinds")
        return {} if moves == "auto" else {moves: 1.0}
    kinds = {INDEPENDENT, LOCAL}
    values = numbers(list(moves.values())) if isinstance(moves, Mapping) else np.array([np.nan])
    if not (isinstance(moves, Mapping) and set(moves) <= kinds and (values >= 0).all() and 0 < values.sum() < np.inf):
        raise InputError(f"moves is {moves!r}: give shares, as {{'independent': 0.8, 'local': 0.2}}")
    return dict(zip(moves, (values / values.sum()).tolist(), strict=True))


@dataclass(frozen=True)
class Sourced:
    """A source of proposals, and how it was chosen.

    Attributes:
        source: of the proposals.
        label_proposal: p(s) of independent ones.
        platform: of relaxations; None where there are none.
        pilot: of the choice of moves, where there was one.
        description: of the moves, for people.
        pilot_evaluations: of any pilot.
    """

    source: ProposalSource
    label_proposal: LabelProposal
    platform: str | None
    pilot: MovePilot | None
    description: str
    pilot_evaluations: int


def source_for(
    system: MolecularSystem,
    model: LiftingModel | InvertibleGenerator,
    options: MoveOptions,
    energy: Energy,
    rng: np.random.Generator,
    *,
    changes: bool = False,
    known: Mapping[str, Any] | None = None,
) -> Sourced:
    """What moves of a model draw from.

    Args:
        system: the real system.
        model: of the proposals.
        options: checked for the model.
        energy: of the target.
        rng: of pilots.
        changes: whether the target may become another than the system's while the source is in use.
        known: the identity of a source that was in use, whose steps a pilot found; none is run then.
    """
    now = energy if changes else None
    if isinstance(model, LiftingModel):
        return _relaxed_in_context(system, model, options, now)
    if len(model.chart.label_indices) != len(system.slow.names):
        raise InputError(
            "the model's labels are no coordinates of its chart, and moves need to read them back: give a model over "
            "torsions or particles"
        )
    label_proposal = _label_proposal(options, system, smeared=False)
    label_proposal = label_proposal or UniformProposal(system.slow, system.force_constants, system.kT)
    if options.relax == "latent":
        return _relaxed_in_base(system, model, options, label_proposal, rng, now, known)
    return _inverted(system, model, options, label_proposal, energy, rng, known)


def _label_proposal(options: MoveOptions, system: MolecularSystem, smeared: bool) -> LabelProposal | None:
    if options.label_proposal or options.surface is None:
        return options.label_proposal
    return low_labels(options.surface, system, smeared)


def low_labels(surface: FreeEnergySurface | str | Path, system: MolecularSystem, smeared: bool) -> TabulatedProposal:
    """Labels where a surface is low, with a share everywhere; smeared as those of restrained lifts are."""
    if not isinstance(surface, FreeEnergySurface):
        surface = load_surface_over(Path(surface), system.slow.names)
    if surface.names != system.slow.names:
        raise InputError(
            f"the surface is over {', '.join(surface.names)}, the model's labels are {', '.join(system.slow.names)}: "
            f"give a surface over these (of a run with learned labels {surface_name(system.slow.names)}.npz)"
        )
    return TabulatedProposal.from_energies(
        system.slow, system.force_constants, system.kT, surface.edges, surface.energy, smeared=smeared
    )


def _relaxed_in_context(
    system: MolecularSystem, model: LiftingModel, options: MoveOptions, now: Energy | None
) -> Sourced:
    lifter = Lifter(
        system,
        model,
        relax_steps=options.relax_steps,
        mode="unrestrained",
        label_proposal=_label_proposal(options, system, smeared=True),
        platform=options.platform,
    )
    description = f"{RELAXED} lifts, {options.relax_steps} steps in a Context"
    source = RelaxedLifts(ContextPaths(lifter), now, system.kT)
    return Sourced(source, lifter.label_proposal, lifter.platform, None, description, 0)


def _relaxed_in_base(
    system: MolecularSystem,
    model: InvertibleGenerator,
    options: MoveOptions,
    label_proposal: LabelProposal,
    rng: np.random.Generator,
    now: Energy | None,
    known: Mapping[str, Any] | None,
) -> Sourced:
    lifter = Lifter(system, model, relax="latent", platform=options.platform)  # checks all that a lift needs
    n = whole_number("relax_steps", N_MOVES if options.relax_steps is None else options.relax_steps)
    if known and STEP_OF_RELAXATIONS in known:
        step, cost = float(known[STEP_OF_RELAXATIONS]), 0
    else:
        step, cost = choose_step(system, model, label_proposal.sample(PILOT, rng), rng, platform=lifter.platform)
    drawn = replace(system, positions=model.typical_positions(system.slow.domain.mean(axis=1)[None])[0])
    hydrogens = hydrogens_of(system, model)
    paths = LatentPaths(drawn, model, LatentMoves(n, step), label_proposal, lifter.platform, hydrogens)
    description = f"{RELAXED} lifts, {n} moves of base numbers by steps of {step:g}"
    return Sourced(RelaxedLifts(paths, now, system.kT), label_proposal, lifter.platform, None, description, cost)


def _inverted(
    system: MolecularSystem,
    model: InvertibleGenerator,
    options: MoveOptions,
    label_proposal: LabelProposal,
    energy: Energy,
    rng: np.random.Generator,
    known: Mapping[str, Any] | None,
) -> Sourced:
    chart, independent = InvertedChart(system, model, energy), Independent(model, label_proposal)
    kernels: dict[str, Kernel] = {INDEPENDENT: independent}
    shares, pilot = _shares(options.moves), None
    if known and MOVES in known:
        shares = shares or {name: float(share) for name, share in known[MOVES].items()}
        if LABEL_STEP in known:
            kernels[LOCAL] = Local(model, float(known[LABEL_STEP]), float(known[BASE_STEP]))
    elif set(shares) != {INDEPENDENT}:
        pilot = run_pilot(chart, independent, rng)
        kernels[LOCAL] = Local(model, pilot.label_step, pilot.base_step)
    if set(shares) - set(kernels):
        raise InputError(f"the checkpoint is of a move with {MOVES} {known and known[MOVES]}: give these")
    shares = shares or {(pilot.best if pilot else INDEPENDENT): 1.0}
    kinds = " and ".join(f"{100 * share:.0f} % {name}" for name, share in shares.items() if share)
    description = f"{kinds} moves" + (f"; {pilot.describe()}" if pilot else "")
    cost = pilot.force_evaluations if pilot else 0
    return Sourced(InvertedProposals(chart, kernels, shares), label_proposal, None, pilot, description, cost)
