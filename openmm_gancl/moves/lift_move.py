"""LiftMove: lifts as Monte Carlo moves of a user's own Simulation, between stretches of its ordinary dynamics.

The current configuration has a weight w, a proposal w'; it is taken with probability min(1, w'/w), which leaves the
Boltzmann distribution of the Simulation's System invariant for any generator. An invertible generator is inverted for
the current configuration: one evaluation each. Relaxed lifts are exchanges (nonequilibrium candidate Monte Carlo,
Nilmeier et al. 2011, doi 10.1073/pnas.1106094108): the current configuration is relaxed back, which gives its weight.
"""

import json
import warnings
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal
from weakref import WeakKeyDictionary

import numpy as np

from ..engine.platform_rng import preserve_platform_rng
from ..engine.platforms import named_failures
from ..engine.random_numbers import fresh_seed, named_rng
from ..errors import InputError, checked
from ..files import check_writable, write_atomically
from ..free_energy.surface import FreeEnergySurface
from ..generator.invertible import InvertibleGenerator
from ..generator.model import LiftingModel
from ..generator.torsion_windows import over_torsions
from ..lifting.label_proposals import LabelProposal
from ..lifting.requirements import (
    check_integrator,
    fitted_to,
    molecule_of_model,
    placed_atoms,
    system_of_simulation,
)
from ..system.context_check import check_is_simulation, positions_of
from ..system.thermostat import KineticTemperatures, degrees_of_freedom, heating, temperature_of
from ..units import FloatArray, IntArray, number, thermal_energy, whole_number
from .exchange import Attempt, Exchange, Weighed
from .hints import other_isomer, why_hardly_accepted
from .inverted import InvertedProposals
from .records import LiftRecord, Report, record_of
from .simulation_energy import SimulationEnergy
from .sources import FORCE_CONSTANT, FRICTION, MoveOptions, MovesOrShares, source_for
from .velocities import go_to

MoveAcceptance = Literal["exchange", "metropolis"]

ENERGY_TOLERANCE = 0.1
"""kT by which the energy of a configuration that carries its weight may change, single precision included."""

POSITION_TOLERANCE = 1e-5
"""nm; farther apart, positions are not those that the last attempt left (single precision included)."""


FIRST_DOUBTS = 64
"""Attempts after which a run looks for doubts."""

_moves_made: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
"""Of each Simulation: two moves of one seed must not propose the same lifts."""


@dataclass(frozen=True)
class _Carried:
    """What a chain of lifts alone knows of the configuration it is at.

    Attributes:
        log_weight: of it.
        energy: in the Simulation then, kJ/mol.
        positions: shape=(n_atoms, 3), nm.
    """

    log_weight: float
    energy: float
    positions: FloatArray

    def as_json(self) -> dict[str, Any]:
        return {"log_weight": self.log_weight, "energy": self.energy, "positions": self.positions.tolist()}

    @classmethod
    def of_json(cls, found: dict[str, Any]) -> "_Carried":
        return cls(float(found["log_weight"]), float(found["energy"]), np.array(found["positions"], dtype=float))


class LiftMove:
    """Lifts as moves of a Simulation.

    Guarantee: with ``exchange`` the Boltzmann distribution of the Simulation's System stays invariant, whatever runs
    between attempts, if that leaves it invariant; with ``metropolis`` nothing may run in between, and the chain of
    attempts alone is exact once a first lift is accepted. A mode that the generator never proposes is left to the
    dynamics.

    The target of each attempt is what the Simulation's own Context has then: a parameter that was set, a bias that has
    grown (Metadynamics, OPES) are followed, for any model. While a bias grows, the chain is as exact as the dynamics
    themselves are: each attempt for the bias of its moment, which no distribution is invariant under for good. Relaxed
    lifts are accepted less often the more the bias has changed since they were relaxed: then `refresh`.

    The Simulation's System, integrator, force groups, reporters and step count are not changed. An attempt with an
    invertible generator costs two evaluations, of the configurations before and after, in the Simulation's own Context;
    relaxed lifts run in a Context of their own, on a copy, and their ends are evaluated in the Simulation's besides. On
    acceptance the Simulation gets the positions, and fresh velocities as its integrator has them half a step before
    (`openmm_gancl.moves.velocities`), which takes two evaluations more.

    What must be equal in model and Simulation: the atoms, in number, order and names, and the constrained bonds; and
    unless ``may_differ`` says otherwise residue numbers and temperature. The force field, masses, bias and time step
    may be others: weights are of the Simulation's energies, and only the acceptance suffers.

    ===============  ================================================================================================
    ``moves``        of an invertible generator
    ===============  ================================================================================================
    ``independent``  a fresh draw, its labels from p(s)
    ``local``        a symmetric step in the labels and in the generator's base numbers, of sizes that a pilot finds
    ``auto``         the one of these whose labels move farther for an evaluation, by a pilot of at most 832 evaluations
                     before the first attempt; ``repr`` says what it measured
    shares           ``{"independent": 0.8, "local": 0.2}``: each attempt is one of them, by chance
    ===============  ================================================================================================

    A molecule's internal coordinates change, and its place is kept (`openmm_gancl.system.one_molecule` has the
    mathematics): a field, a wall or a restraint of its place is weighed as any other energy, except by relaxed lifts,
    which refuse what is there when they are made. Beside other molecules, a partner say, in vacuum or implicit solvent,
    one is lifted, the model's, and the others stay
    where they are: both energies are of the Simulation as it is then, so that others may move between attempts, and the
    joint distribution of all stays invariant. Where the dynamics seldom bring the molecule elsewhere, lifts do not.

    Args:
        simulation: an ``openmm.app.Simulation`` whose Context has positions.
        model: an invertible generator or a lifting model for its atoms and its temperature. Of a run with learned
            labels the invertible generator is over the card's torsions, as the surface beside its own (found by
            itself); a lifting model over learned labels is taken over the torsions that they were learned beside.
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
        temperature: K, of an integrator that does not say; velocities are compared with it.
        may_differ: in what the model may differ from the Simulation: ``residue numbers``, ``temperature``. With the
            latter, moves of lifts without relaxation also follow a temperature that changes (SimulatedTempering).
        seed: the same seed gives the same attempts from the same configurations; a fresh one by default, so that
            replicas differ.
        molecule: an atom of the molecule that is lifted, where several have the model's residue and atom names.

    Attributes:
        seed: also in each record, and in the checkpoint.
        history: a record of every attempt.
        reporters: called with each record.
        pilot_evaluations: what pilots have cost; no record counts them.

    Raises:
        InputError: what cannot be lifted exactly, and what to use instead.
    """

    @checked
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
        temperature: Any = None,
        may_differ: Collection[str] = (),
        seed: int | None = None,
        molecule: int | None = None,
    ):
        check_is_simulation(simulation)
        if acceptance not in ("exchange", "metropolis"):
            raise InputError(f"acceptance is {acceptance!r}: choose exchange or metropolis")
        self._options = MoveOptions(
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
        # learned labels are moved by their torsions, but where a user draws the labels themselves
        if isinstance(model, LiftingModel) and label_proposal is None:
            model = over_torsions(model)
        self.simulation, self.model, self.acceptance = simulation, model, acceptance
        self._temperature, self._may_differ = temperature, tuple(may_differ)
        self._seed_given, self.seed = seed is not None, fresh_seed() if seed is None else seed
        self.history: list[LiftRecord] = []
        self.reporters: list[Report] = []
        number = _moves_made.get(simulation, 0)
        _moves_made[simulation] = number + 1
        self._molecule = molecule_of_model(simulation.topology, model, molecule)
        if self._molecule is not None and acceptance == "metropolis":
            raise InputError("acceptance='metropolis' is of a molecule alone: beside others leave it out")
        self._here = SimulationEnergy(simulation, self._placed())
        self.pilot_evaluations = self._spent_before = self._of_velocities = 0
        self._make((number,))
        if acceptance == "metropolis" and not self._sourced.source.carries_weight:
            raise InputError(
                "acceptance='metropolis' carries the weights of relaxed lifts, and without relaxation every "
                "configuration has its own: leave it out"
            )
        self._attempts = 0
        self._carried: _Carried | None = None
        self._kinetic = KineticTemperatures()
        self._step = int(simulation.currentStep)
        self._said: set[str] = set()

    def _placed(self) -> IntArray | None:
        """Atoms of what is lifted in its place; a chain that carries its weight goes where its lifts are."""
        alone = self.acceptance == "metropolis"
        return None if alone else placed_atoms(self.simulation.system, self.model, self._molecule)

    def _make(self, stream: tuple[int, ...], known: dict[str, Any] | None = None) -> None:
        """All that is made of the Simulation as it is now.

        Args:
            stream: of the random numbers.
            known: the identity of a move whose pilot is not repeated.
        """
        options = self._options
        constants = FORCE_CONSTANT if options.force_constants is None else options.force_constants
        friction = FRICTION if options.friction is None else options.friction
        with preserve_platform_rng(), self._here.put_back(positions_of(self.simulation)):
            self.system = system_of_simulation(
                self.simulation,
                self.model,
                constants,
                options.time_step,
                friction,
                self._temperature,
                self._may_differ,
                self._molecule,
            )
            rng = named_rng(self.seed, "move", *stream, "pilot")
            model = fitted_to(self.model, self.system, self._may_differ)
            self._sourced = source_for(self.system, model, options, self._here, rng, changes=True, known=known)
        self._degrees = degrees_of_freedom(self.simulation.system)
        self._lifted = self._lifted_atoms()
        self._made_of = self._masses_and_constraints()
        self.pilot_evaluations += self._sourced.pilot_evaluations
        self._exchange = Exchange(self._sourced.source, self.system, self.seed, stream)

    def refresh(self) -> None:
        """Make anew what was made of the Simulation's System as it was: relaxed lifts, and the choice of a pilot.

        Of use after a bias has grown, or a parameter was changed. What is exact stays so without it. The choice of
        moves is made of fresh draws, never of the chain's own attempts.
        """
        self._spent_before += self._sourced.source.force_evaluations
        number, *refreshed = self._exchange.stream
        self._make((number, 1 + (refreshed[0] if refreshed else 0)))
        self._carried = None

    def __repr__(self) -> str:
        """The moves, and how they were chosen."""
        return f"LiftMove({self._sourced.description})"

    @property
    def acceptance_rate(self) -> float:
        """Accepted attempts; NaN before the first."""
        return float(np.mean([record.accepted for record in self.history])) if self.history else float("nan")

    @property
    def force_evaluations(self) -> int:
        """All that the move has cost: of pilots, attempts, and lifts that are made ahead, 32 at once, if relaxed."""
        of_lifts = self._spent_before + self._sourced.source.force_evaluations
        return self.pilot_evaluations + of_lifts + self._of_velocities

    @property
    def doubts(self) -> list[str]:
        """Why lifts are hardly accepted and what to change, and that velocities are too hot; empty where all is well.

        `run` warns of each once.
        """
        return list(self._doubts().values())

    def _doubts(self) -> dict[str, str]:
        of_labels = self._options.surface is not None or self._options.label_proposal is not None
        by_pilot = self._options.moves == "auto"
        found = {
            "acceptance": why_hardly_accepted(self.history, of_labels, by_pilot, self._other_isomer),
            "velocities": heating(self._kinetic, self.system.temperature, self.simulation, self._degrees),
        }
        return {kind: doubt for kind, doubt in found.items() if doubt}

    def _other_isomer(self) -> str | None:
        if not isinstance(self.model, InvertibleGenerator):
            return None
        drawn = self.model.typical_positions(self.model.slow.domain.mean(axis=1)[None])[0]
        return other_isomer(self.system.topology, drawn, self._here.lifted(positions_of(self.simulation)))

    def run(self, n: int, md_steps: int = 0) -> list[LiftRecord]:
        """n times: dynamics of so many steps, then an attempt.

        Args:
            n: attempts.
            md_steps: of the Simulation before each; none for ``metropolis``.
        """
        n, md_steps = whole_number("n", n, 0), whole_number("md_steps", md_steps, 0)
        self._check_integrator()
        records = []
        for _ in range(n):
            if md_steps:
                with named_failures("the Simulation's own dynamics"):
                    self.simulation.step(md_steps)
            records.append(self.attempt())
            if self._attempts >= FIRST_DOUBTS and self._attempts.bit_count() == 1:  # each time twice as late
                for kind, doubt in self._doubts().items():
                    if kind not in self._said:
                        self._said.add(kind)
                        warnings.warn(doubt, stacklevel=2)
        return records

    def attempt(self) -> LiftRecord:
        """One move of the Simulation's configuration."""
        self._check_integrator()
        self._check_system()
        number, positions = self._attempts, positions_of(self.simulation)
        if not np.isfinite(positions).all():
            raise InputError("the Simulation's positions are NaN, it has blown up: load its last checkpoint")
        with preserve_platform_rng(), self._here.put_back(positions):
            if self.acceptance == "exchange":
                attempt = self._exchange.attempt(number, self._here.lifted(positions))
            else:
                self._check_carried(positions)
                attempt = self._exchange.attempt_alone(number, self._carried.log_weight if self._carried else None)
        cost = 0 if attempt.velocities is None else self._go_to(attempt.after, attempt.velocities, positions)
        self._note_velocities(attempt.accepted)
        self._attempts = number + 1
        labels = self.system.slow.transform(positions[None])[0] if attempt.before is None else attempt.before.cv_values
        return self._recorded(number, attempt, labels, attempt.force_evaluations + cost)

    def _check_integrator(self) -> None:
        """The temperature must be that of the lifts, or is followed."""
        if "temperature" not in self._may_differ or not isinstance(self._sourced.source, InvertedProposals):
            check_integrator(self.simulation, self.system.temperature, self._temperature)
            return
        kept = temperature_of(self.simulation, self._temperature)
        check_integrator(self.simulation, kept, self._temperature)
        if kept != self.system.temperature:
            self.system = replace(self.system, temperature=kept)
            self._exchange.system = self._sourced.source.chart.system = self.system

    def _lifted_atoms(self) -> tuple[list[int], list[int]]:
        """Those that are lifted, and the numbers of the constraints on them."""
        system = self.simulation.system
        atoms = set(range(system.getNumParticles()) if self._molecule is None else self._molecule.tolist())
        pairs = [system.getConstraintParameters(i)[:2] for i in range(system.getNumConstraints())]
        return sorted(atoms), [i for i, pair in enumerate(pairs) if atoms.intersection(pair)]

    def _masses_and_constraints(self) -> tuple[list[Any], list[Any], int]:
        """Of the atoms that are lifted, as they are now; and how many constraints there are in all."""
        system, (atoms, constraints) = self.simulation.system, self._lifted
        n = int(system.getNumConstraints())
        kept = [system.getConstraintParameters(i) for i in constraints if i < n]
        return [system.getParticleMass(i) for i in atoms], kept, n

    def _check_system(self) -> None:
        """Proposals keep the constraints, and velocities are of the masses, that the System had."""
        if self._masses_and_constraints() != self._made_of:
            raise InputError(
                "the System's masses or constraints have changed since the move was made: call move.refresh(), or make "
                "a new move"
            )

    def _note_velocities(self, accepted: bool) -> None:
        """What they say of the temperature, where dynamics have run since the last attempt."""
        step, kinetic = int(self.simulation.currentStep), self._here.kinetic
        if step != self._step and kinetic is not None and self._degrees > 0:
            ratio = kinetic / (0.5 * self._degrees * thermal_energy(self.system.temperature))
            self._kinetic.add(ratio, self._here.time)
        self._kinetic.drawn += accepted
        self._step = step

    def _recorded(self, number: int, attempt: Attempt, labels: FloatArray, force_evaluations: int) -> LiftRecord:
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
            force_evaluations=force_evaluations,
            seed=self.seed,
        )
        self.history.append(record)
        for report in self.reporters:
            report(record)
        return record

    def _go_to(self, lift: Weighed, velocities: FloatArray, before: FloatArray) -> int:
        """Take a lift, and what its velocities cost."""
        if self.acceptance == "metropolis":
            self.simulation.context.setPositions(lift.positions)
            self.simulation.context.setVelocities(velocities)
            self._carried = _Carried(lift.log_weight, self._energy(), positions_of(self.simulation))
            return 0
        cost = go_to(self.simulation, self.system, self._here.among, lift.positions, velocities, before)
        self._of_velocities += cost
        return cost

    def _energy(self) -> float:
        return number(self.simulation.context.getState(energy=True).getPotentialEnergy())

    def save_checkpoint(self, path: str | Path) -> None:
        """Write the state of the chain, as JSON; the Simulation has a checkpoint of its own.

        With both loaded the chain goes on as if it had not stopped (Reference platform: to the last digit).
        """
        record = {
            "identity": self._identity(),
            "attempts": self._attempts,
            "stream": self._exchange.stream,
            "carried": self._carried and self._carried.as_json(),
            "history": [vars(record) for record in self.history],
        }
        check_writable(Path(path))
        write_atomically(Path(path), json.dumps(record) + "\n")

    def load_checkpoint(self, path: str | Path) -> None:
        """Go on where `save_checkpoint` was called, after the Simulation's own checkpoint is loaded.

        The seed is that of the file, unless the move was made with another; so are the steps that a pilot chose.

        Raises:
            InputError: there is no such file, or it is of another move.
        """
        try:
            record = json.loads(Path(path).read_text())
            identity, attempts, stream = dict(record["identity"]), int(record["attempts"]), tuple(record["stream"])
            carried = None if record["carried"] is None else _Carried.of_json(record["carried"])
            history, seed = [record_of(row) for row in record["history"]], int(identity["seed"])
        except (OSError, ValueError, KeyError, TypeError):
            raise InputError(f"{path} is not a checkpoint of a LiftMove: give one that save_checkpoint wrote") from None
        ours = (self.seed, self._sourced, self._exchange, self.system)
        if not self._seed_given:
            self.seed = seed
        try:
            self._make(stream, known=identity)
            self._check_identity(path, identity)
        except InputError:
            self.seed, self._sourced, self._exchange, self.system = ours
            raise
        self._attempts, self._carried, self.history = attempts, carried, history

    def _check_identity(self, path: str | Path, identity: dict[str, Any]) -> None:
        for name, ours in self._identity().items():
            if identity.get(name) != ours:
                raise InputError(
                    f"{path} is of a move with {name} {identity.get(name)}, this one has {ours}: make the move as then"
                )

    def _identity(self) -> dict[str, Any]:
        return {
            "acceptance": self.acceptance,
            "seed": self.seed,
            "n_atoms": self.system.n_atoms,
            "model": self.model.fingerprint,
            "first label": self._sourced.label_proposal.sample(1, named_rng(0, "fixed", "first label"))[0].tolist(),
            **self._sourced.source.identity(),
        }

    def _check_carried(self, positions: FloatArray) -> None:
        """A chain that carries its weight must be where it was left, and its target the same."""
        if self._carried is None:
            return
        if np.abs(positions - self._carried.positions).max() > POSITION_TOLERANCE:
            raise InputError(
                "the configuration has changed since the last attempt, and a metropolis chain carries the weight of "
                "the old one: run nothing in between, or use acceptance='exchange'"
            )
        if not abs(self._energy() - self._carried.energy) <= ENERGY_TOLERANCE * self.system.kT:
            raise InputError(
                "the Simulation's energy has changed since the last attempt (a bias that grows, a parameter), and a "
                "metropolis chain carries the weight of the old one: use acceptance='exchange', which follows it"
            )
