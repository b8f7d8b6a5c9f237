"""Where moves get their lifts: fresh ones, a few made together, and the way back from where a chain stands."""

from pathlib import Path

import numpy as np

from ..engine.random_numbers import named_rng
from ..errors import InputError
from ..free_energy.surface import FreeEnergySurface, load_surface
from ..lifting.label_proposals import LabelProposal, TabulatedProposal
from ..lifting.lifter import Lifter
from ..lifting.lifts import Lifts
from ..lifting.relaxation import TASK_SIZE, Relaxer
from ..sampling.langevin import maxwell_boltzmann
from ..system.molecular_system import MolecularSystem
from ..units import FloatArray

AHEAD = TASK_SIZE
"""Lifts that are made together."""


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


class LiftSource:
    """Fresh unrestrained lifts, a few made together, and reverse relaxations of where a chain stands.

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

    def forward(self, number: int) -> Lifts:
        """The lift of an attempt by its number."""
        batch, index = divmod(number, AHEAD)
        if self._batch != batch:
            rng = named_rng(self.seed, "move", *self.stream, "lifts", batch)
            self._lifts, self._batch = self._relax(rng, self.lifter.label_proposal.sample(AHEAD, rng)), batch
        assert self._lifts is not None
        return self._lifts.select(np.array([index]))

    def rng(self, number: int) -> np.random.Generator:
        """Of all else that an attempt draws."""
        return named_rng(self.seed, "move", *self.stream, "attempt", number)

    def velocities(self, positions: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Fresh ones that keep the constraints, shape=(n_atoms, 3), nm/ps."""
        system = self.lifter.system
        drawn = maxwell_boltzmann(system.masses, 1, system.kT, rng)
        return system.constraints.tangent(drawn, positions[None], system.masses)[0]

    def backward(self, positions: FloatArray, rng: np.random.Generator) -> Lifts:
        """Of one configuration, shape=(n_atoms, 3), nm; its label is drawn from r(s | x)."""
        return self._relax(rng, np.zeros((1, 0)), positions[None])

    def _relax(self, rng: np.random.Generator, labels: FloatArray, frames: FloatArray | None = None) -> Lifts:
        return self.lifter.run(self._relaxer, rng, labels, frames)
