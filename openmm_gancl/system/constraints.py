"""Fixed distances of a System: what they do to its volume (the Fixman term), and whether positions keep them.

Constrained dynamics samples ``exp(-beta U) |Z|^(1/2)`` on the surface where every distance has its length, in the
measure of the free internal coordinates with their Jacobian; ``Z_ij = sum_k (1/m_k) grad_k d_i . grad_k d_j`` (Fixman
1974, doi 10.1073/pnas.71.8.3050).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..units import FloatArray, IntArray, number

MAX_CONSTRAINT_ERROR = 1e-5
"""Relative; a path that ends farther from its constraints has no weight."""


@dataclass(frozen=True, eq=False)
class Constraints:
    """Fixed distances between particles.

    Args:
        pairs: shape=(n_constraints, 2).
        lengths: shape=(n_constraints,), nm.
    """

    pairs: IntArray
    lengths: FloatArray

    def __len__(self) -> int:
        return len(self.lengths)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Constraints) or len(self) != len(other):
            return False
        return bool((self.pairs == other.pairs).all() and np.allclose(self.lengths, other.lengths, rtol=1e-6))

    def violations(self, positions: FloatArray) -> FloatArray:
        """The largest relative deviation of a distance in each configuration, shape=(n,).

        Args:
            positions: shape=(n, n_atoms, 3), nm.
        """
        lengths = np.linalg.norm(self._vectors(positions), axis=-1)
        return np.asarray(np.abs(lengths / self.lengths - 1.0).max(axis=1, initial=0.0))

    def tangent(self, velocities: FloatArray, positions: FloatArray, masses: FloatArray) -> FloatArray:
        """Velocities without their part along the constraints, which drawn Maxwell-Boltzmann stay so.

        Args:
            velocities: shape=(n, n_atoms, 3), nm/ps.
            positions: shape=(n, n_atoms, 3), nm.
            masses: shape=(n_atoms,), amu.
        """
        if not len(self):
            return velocities
        gradients = self._scaled_gradients(positions, masses)
        scaled = (velocities * np.sqrt(masses)[:, None]).reshape(len(velocities), -1, 1)
        along = np.linalg.solve(gradients @ gradients.transpose(0, 2, 1), gradients @ scaled)
        scaled = scaled - gradients.transpose(0, 2, 1) @ along
        return np.asarray(scaled.reshape(velocities.shape) / np.sqrt(masses)[:, None])

    def log_fixman(self, positions: FloatArray, masses: FloatArray) -> FloatArray:
        """``log det Z / 2``, shape=(n,); zero without constraints.

        Args:
            positions: shape=(n, n_atoms, 3), nm.
            masses: shape=(n_atoms,), amu, as integrated.
        """
        if not len(self):
            return np.zeros(len(positions))
        gradients = self._scaled_gradients(positions, masses)
        return np.asarray(0.5 * np.linalg.slogdet(gradients @ gradients.transpose(0, 2, 1))[1])

    def _scaled_gradients(self, positions: FloatArray, masses: FloatArray) -> FloatArray:
        """Gradients of the distances over the roots of the masses, shape=(n, n_constraints, 3 n_atoms)."""
        vectors = self._vectors(positions)
        gradients = np.zeros((len(positions), len(self), *positions.shape[1:]))
        row = np.arange(len(self))
        along = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
        gradients[:, row, self.pairs[:, 0]], gradients[:, row, self.pairs[:, 1]] = along, -along
        return np.asarray((gradients / np.sqrt(masses)[:, None]).reshape(len(positions), len(self), -1))

    def _vectors(self, positions: FloatArray) -> FloatArray:
        return np.asarray(positions[:, self.pairs[:, 0]] - positions[:, self.pairs[:, 1]])


def constraints_of(system: Any) -> Constraints:
    """The constraints of an ``openmm.System``, atoms and pairs in ascending order."""
    found = {}
    for i in range(system.getNumConstraints()):
        a, b, length = system.getConstraintParameters(i)
        found[min(a, b), max(a, b)] = number(length)
    pairs = sorted(found)
    return Constraints(
        np.array(pairs, dtype=np.int64).reshape(-1, 2), np.array([found[pair] for pair in pairs], dtype=float)
    )


UNCONSTRAINED = Constraints(np.empty((0, 2), dtype=np.int64), np.empty(0))
