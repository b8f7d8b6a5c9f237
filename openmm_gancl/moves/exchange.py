"""The lifts of moves: fresh ones, made in batches, and reverse relaxations of a chain's configuration."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..engine.random_numbers import named_rng
from ..errors import InputError
from ..free_energy.surface import FreeEnergySurface, load_surface
from ..lifting.label_proposals import LabelProposal, TabulatedProposal
from ..lifting.lifter import Lifter
from ..lifting.lifts import Lifts
from ..lifting.relaxation import TASK_SIZE, Relaxer
from ..lifting.weights import accepts
from ..sampling.langevin import maxwell_boltzmann
from ..system.molecular_system import MolecularSystem
from ..units import FloatArray

LIFTS_PER_BATCH = TASK_SIZE
"""Lifts that are made in one batch."""


def labels_of(surface: FreeEnergySurface | str | Path | None, system: MolecularSystem) -> LabelProposal | None:
    """Where a surface is low."""
    if surface is None:
        return None
    if not isinstance(surface, FreeEnergySurface):
        surface = load_surface(surface)
    if surface.names != system.slow.names:
        raise InputError(
            f"the surface is over {', '.join(surface.names)}, the model's labels are {', '.join(system.slow.names)}: "
            "give a surface over these"
        )
    return TabulatedProposal.from_energies(
        system.slow, system.force_constants, system.kT, surface.edges, surface.energy
    )


@dataclass(frozen=True)
class Attempt:
    """A fresh lift, and whether a chain takes it.

    Attributes:
        lift: one.
        log_weight_before: of the configuration that the chain was at; None of a chain that has none yet.
        reason_before: why that has no weight, as in `Lifts.reason`; empty where it was not relaxed back.
        accepted: whether the lift is taken.
        velocities: shape=(n_atoms, 3), nm/ps, to go on with if it is; else None.
        force_evaluations: of the lift, and of the reverse relaxation.
    """

    lift: Lifts
    log_weight_before: float | None
    reason_before: str
    accepted: bool
    velocities: FloatArray | None
    force_evaluations: int

    @property
    def log_weight(self) -> float:
        """Of the lift."""
        return float(self.lift.log_weights[0])


class LiftSource:
    """Fresh unrestrained lifts, made in batches, and reverse relaxations of a chain's configuration.

    Args:
        lifter: of unrestrained lifts.
        seed: of all of them.
        stream: of copies that must not repeat each other's lifts.
    """

    def __init__(self, lifter: Lifter, seed: int, stream: tuple[int, ...] = ()):
        self.lifter, self.seed, self.stream = lifter, seed, stream
        self._relaxer = Relaxer()
        self._lifts: Lifts | None = None
        self._batch = -1

    def exchange(self, number: int, positions: FloatArray) -> Attempt:
        """An attempt by its number, with any dynamics before it: the chain's configuration is relaxed back.

        Args:
            number: of the attempt.
            positions: shape=(n_atoms, 3), nm, that the chain is at.
        """
        lift, rng = self._forward(number), self._rng(number)
        back = self.backward(positions, rng)
        before = float(back.log_weights[0])
        return self._decided(lift, rng, before, str(back.reason[0]), back.force_evaluations)

    def metropolis(self, number: int, log_weight: float | None) -> Attempt:
        """An attempt by its number, with nothing before it, against the weight that the chain carries."""
        return self._decided(self._forward(number), self._rng(number), log_weight, "", 0)

    def _decided(
        self, lift: Lifts, rng: np.random.Generator, before: float | None, reason_before: str, evaluations: int
    ) -> Attempt:
        accepted = accepts(float(lift.log_weights[0]), before, rng)
        return Attempt(
            lift=lift,
            log_weight_before=before,
            reason_before=reason_before,
            accepted=accepted,
            velocities=self._velocities(lift.positions[0], rng) if accepted else None,
            force_evaluations=evaluations + lift.force_evaluations,
        )

    def _forward(self, number: int) -> Lifts:
        """The lift of an attempt by its number."""
        batch, index = divmod(number, LIFTS_PER_BATCH)
        if self._batch != batch:
            rng = named_rng(self.seed, "move", *self.stream, "lifts", batch)
            self._lifts, self._batch = self._relax(rng, self.lifter.label_proposal.sample(LIFTS_PER_BATCH, rng)), batch
        assert self._lifts is not None
        return self._lifts.select(np.array([index]))

    def _rng(self, number: int) -> np.random.Generator:
        """Of all else that an attempt draws."""
        return named_rng(self.seed, "move", *self.stream, "attempt", number)

    def _velocities(self, positions: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Fresh ones that keep the constraints, shape=(n_atoms, 3), nm/ps."""
        system = self.lifter.system
        drawn = maxwell_boltzmann(system.masses, 1, system.kT, rng)
        return system.constraints.tangent(drawn, positions[None], system.masses)[0]

    def backward(self, positions: FloatArray, rng: np.random.Generator) -> Lifts:
        """Of one configuration, shape=(n_atoms, 3), nm; its label is drawn from r(s | x)."""
        return self._relax(rng, np.zeros((1, 0)), positions[None])

    def _relax(self, rng: np.random.Generator, labels: FloatArray, frames: FloatArray | None = None) -> Lifts:
        return self.lifter.run(self._relaxer, rng, labels, frames)
