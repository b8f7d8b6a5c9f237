"""Gradients in a chart: Cartesian forces pulled back to internal coordinates, with the volume's own gradient."""

import numpy as np
import torch

from ..system.constraints import Constraints
from ..units import FloatArray
from .chart import Chart, InternalCoordinates
from .torch_chart import ChartPositions, LogFixman

ROWS_AT_ONCE = 4000


def in_chart_frame(chart: Chart, positions: FloatArray, vectors: FloatArray) -> FloatArray:
    """Vectors at the atoms of structures, turned as `Chart.to_cartesian` would place the structures.

    Args:
        chart: the chart.
        positions: shape=(n, n_atoms, 3), nm.
        vectors: shape=(n, n_atoms, 3), forces for example.
    """
    if not isinstance(chart, InternalCoordinates):
        return vectors
    first, second, third = (positions[:, atom] for atom in chart.z_matrix[:3, 0])
    along = second - first
    along = along / np.linalg.norm(along, axis=1, keepdims=True)
    across = third - first
    across = across - np.sum(across * along, axis=1, keepdims=True) * along
    # a third atom on the second lies above the first axis, one on the first below it
    above = 1.0 if chart.z_matrix[2, 1] == chart.z_matrix[1, 0] else -1.0
    across = above * across / np.linalg.norm(across, axis=1, keepdims=True)
    axes = np.stack([along, across, np.cross(along, across)], axis=1)
    return np.einsum("nij,naj->nai", axes, vectors)


def log_density_gradients(
    chart: Chart, coordinates: FloatArray, forces: FloatArray, kT: float, constraints: Constraints, masses: FloatArray
) -> FloatArray:
    """Gradient of ``log pi = -U/kT + log J + 0.5 log det Z`` in the chart, shape=(n, n_coordinates).

    Args:
        chart: the chart.
        coordinates: shape=(n, n_coordinates), nm and radians.
        forces: shape=(n, n_atoms, 3), kJ/mol/nm, of structures as `Chart.to_cartesian` places them.
        kT: kJ/mol.
        constraints: bonds with a fixed length, whose Fixman term is ``0.5 log det Z``.
        masses: shape=(n_atoms,), amu.
    """
    to_positions, log_fixman = ChartPositions(chart), LogFixman(constraints, masses)
    result = np.empty(coordinates.shape)
    for i in range(0, len(coordinates), ROWS_AT_ONCE):
        rows = slice(i, i + ROWS_AT_ONCE)
        at = torch.tensor(coordinates[rows], requires_grad=True)
        with torch.enable_grad():
            positions = to_positions(at)
            total = (positions * torch.as_tensor(forces[rows] / kT)).sum()
            total = total + (to_positions.log_jacobian(at) + log_fixman(positions)).sum()
        result[rows] = torch.autograd.grad(total, at)[0].numpy()
    return result
