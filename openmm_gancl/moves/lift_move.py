"""LiftMove: lifts as Monte Carlo moves of a user's own Simulation, between stretches of its ordinary dynamics.

Exchange (nonequilibrium candidate Monte Carlo, Nilmeier et al. 2011, doi 10.1073/pnas.1106094108): the current
configuration is relaxed back to a reference, which gives its weight w; a fresh lift gives w'; the lift is taken with
probability min(1, w'/w). That leaves the Boltzmann distribution of the Simulation's System invariant for any generator
and any number of steps. Both weights are of unrestrained lifts, labels drawn too.
"""

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, TextIO
from weakref import WeakKeyDictionary

import numpy as np

from ..engine.platform_rng import preserve_platform_rng
from ..engine.platforms import PotentialEnergy
from ..engine.random_numbers import named_rng
from ..errors import InputError
from ..files import check_writable, write_atomically
from ..free_energy.surface import FreeEnergySurface
from ..generator.model import LiftingModel
from ..lifting.label_proposals import LabelProposal
from ..lifting.lifter import Lifter
from ..lifting.requirements import check_integrator, system_of_simulation
from ..system.simulation import positions_of
from ..units import FloatArray, number
from .exchange import LiftSource, labels_of

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
        accepted: whether the lift is the configuration now.
        log_weight: log w' of the lift; minus infinity where it failed.
        log_weight_before: log w of the configuration before; NaN where it has none yet.
        reason: of the lift, one of `openmm_gancl.lifting.lifts.REASONS`.
        reason_before: of the reverse relaxation of the configuration before; empty where there was none.
        label: of the lift.
        before: labels of the configuration before.
        after: labels of the configuration now.
        force_evaluations: that the attempt cost.
    """

    attempt: int
    step: int
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


class LiftMove:
    """Lifts as moves of a Simulation.

    Guarantee: with ``exchange`` the Boltzmann distribution of the Simulation's System stays invariant, whatever runs
    between attempts, if that leaves it invariant; with ``metropolis`` nothing may run in between, and the chain of
    attempts alone is exact once a first lift is accepted. A mode that the generator never proposes is left to the
    dynamics.

    The Simulation's System, integrator, force groups, reporters and step count are not changed; lifts run in a Context
    of their own, on a copy. On acceptance the Simulation gets the positions and fresh velocities.

    Args:
        simulation: an ``openmm.app.Simulation`` whose Context has positions.
        model: a lifting model for its atoms and its temperature.
        relax_steps: of each relaxation.
        acceptance: ``exchange``, or ``metropolis`` for a chain of lifts alone.
        force_constants: of labels during relaxations, one number or one a label: kJ/mol (torsions) or kJ/mol/nm^2.
        surface: over the labels, if one is known (a run's fes.npz): lifts are then proposed where it is low, which
            is accepted far more often. It need not be right.
        label_proposal: p(s) and r(s | x) instead; uniform over the domain by default.
        time_step: of the relaxation, ps; 0.002 by default, 0.001 where light particles are without constraints.
        friction: of the relaxation, 1/ps.
        platform: of the lifts; ``auto`` measures.
        seed: the same seed gives the same attempts from the same configurations.

    Attributes:
        history: a record of every attempt.
        reporters: called with each record.

    Raises:
        InputError: what cannot be lifted exactly, and what to use instead.
    """

    def __init__(
        self,
        simulation: Any,
        model: LiftingModel,
        *,
        relax_steps: int = 500,
        acceptance: MoveAcceptance = "exchange",
        force_constants: float | FloatArray = 200.0,
        surface: FreeEnergySurface | str | Path | None = None,
        label_proposal: LabelProposal | None = None,
        time_step: float | None = None,
        friction: float = 1.0,
        platform: str = "auto",
        seed: int = 0,
    ):
        if acceptance not in ("exchange", "metropolis"):
            raise InputError(f"acceptance is {acceptance!r}: choose exchange or metropolis")
        if surface is not None and label_proposal is not None:
            raise InputError("surface and label_prior both say where to propose: give one")
        self.simulation, self.model, self.acceptance, self.seed = simulation, model, acceptance, seed
        self.history: list[LiftRecord] = []
        self.reporters: list[Report] = []
        with preserve_platform_rng():
            self.system = system_of_simulation(simulation, model, force_constants, time_step, friction)
            self.lifter = Lifter(
                self.system,
                model,
                relax_steps=relax_steps,
                mode="unrestrained",
                label_proposal=label_proposal or labels_of(surface, self.system),
                platform=platform,
            )
            self._energy = PotentialEnergy(self.system.system, self.lifter.platform)
        number = _moves_made.get(simulation, 0)
        _moves_made[simulation] = number + 1
        self._source = LiftSource(self.lifter, seed, (number,))
        self._parameters = dict(simulation.context.getParameters())
        self._attempts = 0
        self._log_weight: float | None = None
        self._last_positions: FloatArray | None = None

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
        with preserve_platform_rng():
            if self.acceptance == "exchange":
                attempt = self._source.exchange(number, positions)
            else:
                attempt = self._source.metropolis(number, self._log_weight)
        labels = self.system.slow.transform(positions[None])[0]
        if attempt.velocities is not None:
            self._go_to(attempt.lift.positions[0], attempt.velocities)
            self._log_weight = attempt.log_weight
        self._last_positions, self._attempts = positions_of(self.simulation), number + 1
        before = attempt.log_weight_before
        record = LiftRecord(
            attempt=number,
            step=int(self.simulation.currentStep),
            accepted=attempt.accepted,
            log_weight=attempt.log_weight,
            log_weight_before=float("nan") if before is None else before,
            reason=str(attempt.lift.reason[0]),
            reason_before=attempt.reason_before,
            label=tuple(map(float, attempt.lift.labels[0])),
            before=tuple(map(float, labels)),
            after=tuple(map(float, attempt.lift.cv_values[0] if attempt.accepted else labels)),
            force_evaluations=attempt.force_evaluations,
        )
        self.history.append(record)
        for report in self.reporters:
            report(record)
        return record

    def _go_to(self, positions: FloatArray, velocities: FloatArray) -> None:
        """Take a lift, unless the Simulation has another energy there than its copy."""
        context = self.simulation.context
        state = context.getState(positions=True, velocities=True)
        context.setPositions(positions)
        try:
            self._check_energy(positions)
        except InputError:
            context.setPositions(state.getPositions(asNumpy=True))
            context.setVelocities(state.getVelocities(asNumpy=True))
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
            "stream": self._source.stream,
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
        self._source = LiftSource(self.lifter, self.seed, stream)

    def _identity(self) -> dict[str, Any]:
        return {
            "acceptance": self.acceptance,
            "seed": self.seed,
            "relax_steps": self.lifter.protocol.relax_steps,
            "n_atoms": self.system.n_atoms,
            "time_step": self.lifter.protocol.time_step,
            "friction": self.lifter.protocol.friction,
            "temperature": self.system.temperature,
            "force_constants": self.lifter.force_constants.tolist(),
            "force field": self.system.force_field_hash,
            "model": self.model.fingerprint,
            "first label": self.lifter.label_proposal.sample(1, named_rng(0, "fixed", "first label"))[0].tolist(),
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
        state = self.simulation.context.getState(energy=True)
        theirs, ours = number(state.getPotentialEnergy()), self._energy(positions)
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
