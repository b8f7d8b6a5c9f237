"""LiftMove: lifts as Monte Carlo moves of a user's own Simulation, between stretches of its ordinary dynamics.

The current configuration has a weight w, a proposal w'; it is taken with probability min(1, w'/w), which leaves the
Boltzmann distribution of the Simulation's System invariant for any generator. An invertible generator is inverted for
the current configuration: one evaluation each. Relaxed lifts are exchanges (nonequilibrium candidate Monte Carlo,
Nilmeier et al. 2011, doi 10.1073/pnas.1106094108): the current configuration is relaxed back, which gives its weight.
"""

import csv
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, TextIO
from weakref import WeakKeyDictionary

import numpy as np
import openmm

from ..engine.platform_rng import preserve_platform_rng
from ..engine.platforms import PotentialEnergy
from ..engine.random_numbers import named_rng
from ..errors import InputError
from ..files import check_writable, write_atomically
from ..free_energy.surface import FreeEnergySurface
from ..generator.invertible import InvertibleGenerator
from ..generator.model import LiftingModel
from ..lifting.label_proposals import LabelProposal
from ..lifting.requirements import check_integrator, system_of_simulation
from ..system.simulation import positions_of
from ..units import FloatArray, number
from .exchange import Attempt, Exchange
from .sources import FORCE_CONSTANT, FRICTION, MoveOptions, MovesOrShares, source_for

MoveAcceptance = Literal["exchange", "metropolis"]

ENERGY_TOLERANCE = 0.1
"""kT by which the Simulation's energy and its copy's may differ, single precision included."""

POSITION_TOLERANCE = 1e-5
"""nm; farther apart, positions are not those that the last attempt left (single precision included)."""


@dataclass(frozen=True)
class LiftRecord:
    """One attempt.

    Attributes:
        attempt: its number, from 0.
        step: the Simulation's step count.
        move: its kind: ``independent``, ``local`` or ``relaxed``.
        accepted: whether the lift is the configuration now.
        log_weight: log w' of the lift; minus infinity where it failed, NaN where it was not needed, as the
            configuration before has none.
        log_weight_before: log w of the configuration before, likewise; NaN where it has none yet.
        reason: of the lift, one of `openmm_gancl.lifting.lifts.REASONS`.
        reason_before: of the configuration before, one of these, or ``label`` where p(s) is zero there; empty where it
            was not weighed.
        label: of the lift.
        before: labels of the configuration before.
        after: labels of the configuration now.
        force_evaluations: that the attempt cost.
    """

    attempt: int
    step: int
    move: str
    accepted: bool
    log_weight: float
    log_weight_before: float
    reason: str
    reason_before: str
    label: tuple[float, ...]
    before: tuple[float, ...]
    after: tuple[float, ...]
    force_evaluations: int


Report = Callable[[LiftRecord], None]

_moves_made: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
"""Of each Simulation: two moves of one seed must not propose the same lifts."""


def _record(row: dict[str, Any]) -> LiftRecord:
    """A record as read from JSON, which has no tuples."""
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in row.items()}
    return LiftRecord(**values)


class LiftReporter:
    """Writes one line an attempt, comma-separated, in the manner of OpenMM's StateDataReporter.

    Args:
        file: a path, or a stream.
        append: whether to go on with a file that exists.
    """

    def __init__(self, file: str | Path | TextIO, append: bool = False):
        self._stream: Any = file
        if isinstance(file, str | Path):
            check_writable(Path(file))
            self._stream = Path(file).open("a" if append else "w", encoding="utf-8", newline="")  # noqa: SIM115
        self._headed = append

    def __call__(self, record: LiftRecord) -> None:
        """Write a record."""
        table = csv.writer(self._stream)
        if not self._headed:
            table.writerow(field.name for field in fields(LiftRecord))
            self._headed = True
        table.writerow(" ".join(map(str, cell)) if isinstance(cell, tuple) else cell for cell in vars(record).values())
        self._stream.flush()


class SimulationEnergy:
    """U in a Simulation's own Context, whose target is so the Simulation's, whatever that is now.

    Args:
        simulation: an ``openmm.app.Simulation``; after a call its positions are to be put back.
    """

    def __init__(self, simulation: Any):
        self.simulation, self._moved = simulation, False

    def __call__(self, positions: FloatArray) -> float:
        """kJ/mol at positions, shape=(n_atoms, 3), nm; NaN where OpenMM fails."""
        self._moved, context = True, self.simulation.context
        try:
            context.setPositions(positions)
            return number(context.getState(energy=True).getPotentialEnergy())
        except openmm.OpenMMException:
            return float("nan")

    @contextmanager
    def put_back(self, positions: FloatArray) -> Iterator[None]:
        """Whatever happens inside, leave the Simulation at positions, shape=(n_atoms, 3), nm, where it is now."""
        self._moved = False
        try:
            yield
        finally:
            if self._moved:
                self.simulation.context.setPositions(positions)


class LiftMove:
    """Lifts as moves of a Simulation.

    Guarantee: with ``exchange`` the Boltzmann distribution of the Simulation's System stays invariant, whatever runs
    between attempts, if that leaves it invariant; with ``metropolis`` nothing may run in between, and the chain of
    attempts alone is exact once a first lift is accepted. A mode that the generator never proposes is left to the
    dynamics.

    The Simulation's System, integrator, force groups, reporters and step count are not changed. An attempt with an
    invertible generator costs two evaluations, of the configurations before and after, in the Simulation's own Context;
    relaxed lifts run in a Context of their own, on a copy. On acceptance the Simulation gets the positions and fresh
    velocities.

    ===============  ================================================================================================
    ``moves``        of an invertible generator
    ===============  ================================================================================================
    ``independent``  a fresh draw, its labels from p(s)
    ``local``        a symmetric step in the labels and in the generator's base numbers, of sizes that a pilot finds
    ``auto``         the one of these whose labels move farther for an evaluation, by a pilot of at most 832 evaluations
                     before the first attempt; ``repr`` says what it measured
    shares           ``{"independent": 0.8, "local": 0.2}``: each attempt is one of them, by chance
    ===============  ================================================================================================

    Args:
        simulation: an ``openmm.app.Simulation`` whose Context has positions.
        model: an invertible generator or a lifting model for its atoms and its temperature.
        moves: see the table.
        relax: ``none`` or ``latent`` of an invertible generator, none by default; a product generator's lifts are
            relaxed in a Context.
        relax_steps: of each relaxation: steps in a Context, 500 by default, or moves of base numbers, 10 by default.
        acceptance: ``exchange``, or ``metropolis`` for a chain of relaxed lifts alone.
        force_constants: of labels during relaxations in a Context, one number or one a label: kJ/mol (torsions) or
            kJ/mol/nm^2, 200 by default.
        surface: over the labels, if one is known (a run's fes.npz): lifts are then proposed where it is low, which
            is accepted far more often. It need not be right.
        label_proposal: p(s), and r(s | x) of relaxations in a Context, instead; uniform over the domain by default.
        time_step: of relaxations in a Context, ps; 0.002 by default, 0.001 where light particles are without
            constraints.
        friction: of these, 1/ps, 1 by default.
        platform: of relaxed lifts; ``auto`` measures.
        seed: the same seed gives the same attempts from the same configurations.

    Attributes:
        history: a record of every attempt.
        reporters: called with each record.
        pilot_evaluations: what pilots have cost; no record counts them.

    Raises:
        InputError: what cannot be lifted exactly, and what to use instead.
    """

    def __init__(
        self,
        simulation: Any,
        model: LiftingModel | InvertibleGenerator,
        *,
        moves: MovesOrShares = "auto",
        relax: str | None = None,
        relax_steps: int | None = None,
        acceptance: MoveAcceptance = "exchange",
        force_constants: float | FloatArray | None = None,
        surface: FreeEnergySurface | str | Path | None = None,
        label_proposal: LabelProposal | None = None,
        time_step: float | None = None,
        friction: float | None = None,
        platform: str = "auto",
        seed: int = 0,
    ):
        if acceptance not in ("exchange", "metropolis"):
            raise InputError(f"acceptance is {acceptance!r}: choose exchange or metropolis")
        options = MoveOptions(
            moves=moves,
            relax=relax,
            relax_steps=relax_steps,
            surface=surface,
            label_proposal=label_proposal,
            force_constants=force_constants,
            time_step=time_step,
            friction=friction,
            platform=platform,
        ).checked_for(model)
        self.simulation, self.model, self.acceptance, self.seed = simulation, model, acceptance, seed
        self.history: list[LiftRecord] = []
        self.reporters: list[Report] = []
        number = _moves_made.get(simulation, 0)
        _moves_made[simulation] = number + 1
        with preserve_platform_rng():
            constants = FORCE_CONSTANT if options.force_constants is None else options.force_constants
            friction = FRICTION if options.friction is None else options.friction
            self.system = system_of_simulation(simulation, model, constants, time_step, friction)
            self._here = SimulationEnergy(simulation)
            with self._here.put_back(positions_of(simulation)):
                sourced = source_for(self.system, model, options, self._here, named_rng(seed, "move", number, "pilot"))
            self._copy = None if sourced.platform is None else PotentialEnergy(self.system.system, sourced.platform)
        if acceptance == "metropolis" and not sourced.source.carries_weight:
            raise InputError(
                "acceptance='metropolis' carries the weights of relaxed lifts, and without relaxation every "
                "configuration has its own: leave it out"
            )
        self._sourced, self.pilot_evaluations = sourced, sourced.pilot_evaluations
        self._exchange = Exchange(sourced.source, self.system, seed, (number,))
        self._parameters = dict(simulation.context.getParameters())
        self._attempts = 0
        self._log_weight: float | None = None
        self._last_positions: FloatArray | None = None

    def __repr__(self) -> str:
        """The moves, and how they were chosen."""
        return f"LiftMove({self._sourced.description})"

    @property
    def acceptance_rate(self) -> float:
        """Accepted attempts; NaN before the first."""
        return float(np.mean([record.accepted for record in self.history])) if self.history else float("nan")

    def run(self, n: int, md_steps: int = 0) -> list[LiftRecord]:
        """n times: dynamics of so many steps, then an attempt.

        Args:
            n: attempts.
            md_steps: of the Simulation before each; none for ``metropolis``.
        """
        check_integrator(self.simulation, self.system)
        records = []
        for _ in range(n):
            if md_steps:
                self.simulation.step(md_steps)
            records.append(self.attempt())
        return records

    def attempt(self) -> LiftRecord:
        """One move of the Simulation's configuration."""
        check_integrator(self.simulation, self.system)
        number, positions = self._attempts, positions_of(self.simulation)
        self._check_unchanged(positions)
        self._check_target(positions)
        with preserve_platform_rng(), self._here.put_back(positions):
            if self.acceptance == "exchange":
                attempt = self._exchange.attempt(number, positions)
            else:
                attempt = self._exchange.attempt_alone(number, self._log_weight)
        if attempt.velocities is not None:
            self._go_to(attempt.after.positions, attempt.velocities)
            self._log_weight = attempt.after.log_weight
        self._attempts = number + 1
        if self.acceptance == "metropolis":
            self._last_positions = positions_of(self.simulation)
        labels = self.system.slow.transform(positions[None])[0] if attempt.before is None else attempt.before.cv_values
        return self._recorded(number, attempt, labels)

    def _recorded(self, number: int, attempt: Attempt, labels: FloatArray) -> LiftRecord:
        before = attempt.log_weight_before
        record = LiftRecord(
            attempt=number,
            step=int(self.simulation.currentStep),
            move=attempt.move,
            accepted=attempt.accepted,
            log_weight=attempt.after.log_weight,
            log_weight_before=float("nan") if before is None else before,
            reason=attempt.after.reason,
            reason_before=attempt.before.reason if attempt.before else "",
            label=tuple(map(float, attempt.after.label)),
            before=tuple(map(float, labels)),
            after=tuple(map(float, attempt.after.cv_values if attempt.accepted else labels)),
            force_evaluations=attempt.force_evaluations,
        )
        self.history.append(record)
        for report in self.reporters:
            report(record)
        return record

    def _go_to(self, positions: FloatArray, velocities: FloatArray) -> None:
        """Take a lift, unless the Simulation has another energy there than its copy."""
        context = self.simulation.context
        before = context.getState(positions=True).getPositions(asNumpy=True)
        context.setPositions(positions)
        try:
            self._check_energy(positions)
        except InputError:
            context.setPositions(before)
            raise
        context.setVelocities(velocities)

    def save_checkpoint(self, path: str | Path) -> None:
        """Write the state of the chain, as JSON; the Simulation has a checkpoint of its own.

        With both loaded the chain goes on as if it had not stopped (Reference platform: to the last digit).
        """
        record = {
            "identity": self._identity(),
            "attempts": self._attempts,
            "log_weight": self._log_weight,
            "stream": self._exchange.stream,
            "positions": None if self._last_positions is None else self._last_positions.tolist(),
            "history": [vars(record) for record in self.history],
        }
        check_writable(Path(path))
        write_atomically(Path(path), json.dumps(record) + "\n")

    def load_checkpoint(self, path: str | Path) -> None:
        """Go on where `save_checkpoint` was called, after the Simulation's own checkpoint is loaded.

        Raises:
            InputError: there is no such file, or it is of another move.
        """
        try:
            record = json.loads(Path(path).read_text())
            identity, attempts, log_weight = record["identity"], record["attempts"], record["log_weight"]
            last = None if record["positions"] is None else np.array(record["positions"], dtype=float)
            history, stream = [_record(row) for row in record["history"]], tuple(record["stream"])
        except (OSError, ValueError, KeyError, TypeError):
            raise InputError(f"{path} is not a checkpoint of a LiftMove: give one that save_checkpoint wrote") from None
        for name, ours in self._identity().items():
            if identity.get(name) != ours:
                raise InputError(
                    f"{path} is of a move with {name} {identity.get(name)}, this one has {ours}: make the move as then"
                )
        self._attempts, self._log_weight, self._last_positions, self.history = attempts, log_weight, last, history
        self._exchange = Exchange(self._sourced.source, self.system, self.seed, stream)

    def _identity(self) -> dict[str, Any]:
        return {
            "acceptance": self.acceptance,
            "seed": self.seed,
            "n_atoms": self.system.n_atoms,
            "temperature": self.system.temperature,
            "force field": self.system.force_field_hash,
            "model": self.model.fingerprint,
            "first label": self._sourced.label_proposal.sample(1, named_rng(0, "fixed", "first label"))[0].tolist(),
            **self._sourced.source.identity(),
        }

    def _check_target(self, positions: FloatArray) -> None:
        """A bias that grows, or a parameter that was changed, makes another target than the lifts have."""
        context = self.simulation.context
        if changed := [name for name, value in self._parameters.items() if context.getParameter(name) != value]:
            raise InputError(
                f"the Context's parameter {changed[0]} has changed since the move was made, and with it the target: "
                "make a new LiftMove"
            )
        if not np.isfinite(positions).all():
            raise InputError("the Simulation's positions are NaN, it has blown up: load its last checkpoint")
        self._check_energy(positions)

    def _check_energy(self, positions: FloatArray) -> None:
        if self._copy is None:  # both weights are of the Simulation's own energies
            return
        state = self.simulation.context.getState(energy=True)
        theirs, ours = number(state.getPotentialEnergy()), self._copy(positions)
        if not abs(theirs - ours) <= ENERGY_TOLERANCE * self.system.kT:
            raise InputError(
                f"the Simulation's energy is {theirs:.2f} kJ/mol here, and was {ours:.2f} when the move was made (a "
                "bias that grows, a changed parameter): make a new LiftMove"
            )

    def _check_unchanged(self, positions: FloatArray) -> None:
        if self.acceptance != "metropolis" or self._last_positions is None:
            return
        if np.abs(positions - self._last_positions).max() > POSITION_TOLERANCE:
            raise InputError(
                "the configuration has changed since the last attempt, and a metropolis chain carries the weight of "
                "the old one: run nothing in between, or use acceptance='exchange'"
            )
