"""The energy of what moves lift, in the Context that it is simulated in."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import openmm

from ..system.one_molecule import AmongOthers
from ..units import FloatArray, IntArray, masses_of, number


class Simulated(Protocol):
    """What of an ``openmm.app.Simulation`` is used."""

    @property
    def context(self) -> Any:
        """Of it."""
        ...

    @property
    def integrator(self) -> Any:
        """Of it."""
        ...

    @property
    def system(self) -> Any:
        """Of it."""
        ...


class SimulationEnergy:
    """U in a Simulation's own Context, whose target is so the Simulation's, whatever that is now.

    Args:
        simulation: an ``openmm.app.Simulation``, or what has its parts; after a call its positions are to be put back.
        molecule: atoms of what is lifted in its place, be it alone; None of particles that have no other coordinates.
    """

    def __init__(self, simulation: Simulated, molecule: IntArray | None = None):
        self.simulation, self._moved = simulation, False
        self.among = None if molecule is None else AmongOthers(molecule, masses_of(simulation.system)[molecule])
        self.kinetic: float | None = None
        self.time = 0.0
        self._positions: FloatArray = np.empty((0, 3))

    def __call__(self, positions: FloatArray) -> float:
        """kJ/mol at positions of what is lifted, shape=(n_atoms, 3), nm; NaN where OpenMM fails."""
        first, context = not self._moved, self.simulation.context
        self._moved = True
        try:
            context.setPositions(self.whole(positions))
            state = context.getState(energy=True)
        except openmm.OpenMMException:
            return float("nan")
        if first:  # of where the Simulation is
            self.kinetic, self.time = number(state.getKineticEnergy()), number(state.getTime())
        return number(state.getPotentialEnergy())

    def lifted(self, positions: FloatArray) -> FloatArray:
        """Of all positions, shape=(n, 3), nm, those of what is lifted."""
        return positions if self.among is None else positions[self.among.atoms]

    def whole(self, positions: FloatArray) -> FloatArray:
        """Positions of what is lifted, and those of the others as they were, shape=(n, 3), nm."""
        return positions if self.among is None else self.among.placed(positions, self._positions)

    @contextmanager
    def put_back(self, positions: FloatArray) -> Iterator[None]:
        """Whatever happens inside, leave the Simulation at positions, shape=(n_atoms, 3), nm, where it is now.

        Afterwards ``kinetic`` is the kinetic energy, kJ/mol, that it had at ``time``, ps; None where nothing was
        evaluated.
        """
        self._moved, self.kinetic, self._positions = False, None, positions
        try:
            yield
        finally:
            if self._moved:
                self.simulation.context.setPositions(positions)
