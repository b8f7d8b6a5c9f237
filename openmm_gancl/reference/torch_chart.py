"""Charts as torch modules: positions to coordinates, and coordinates to positions with their volume."""

import numpy as np
import torch
from torch import Tensor, nn

from ..coordinates.torch_modules import torsion_angles
from ..system.constraints import Constraints
from ..units import FloatArray
from .chart import CartesianCoordinates, Chart, InternalCoordinates


def _register_angles(module: nn.Module, chart: Chart) -> None:
    """The Cartesian coordinates of a chart that are angles, as buffers of a module."""
    none = np.empty(0)
    parts = (chart.turned, chart.centres, chart.scales) if isinstance(chart, CartesianCoordinates) else (none,) * 3
    for name, part in zip(("turned", "centres", "scales"), parts, strict=True):
        module.register_buffer(name, torch.as_tensor(np.array(part, dtype=np.int64 if name == "turned" else float)))


class ChartCoordinates(nn.Module):
    """`Chart.to_internal`: positions, shape=(n_atoms, 3) or (n, n_atoms, 3), to shape=(n_coordinates,) or with n."""

    bonds: Tensor
    angles: Tensor
    torsions: Tensor
    turned: Tensor
    centres: Tensor
    scales: Tensor

    def __init__(self, chart: Chart):
        super().__init__()
        _register_angles(self, chart)
        self.is_internal = isinstance(chart, InternalCoordinates)
        for name, columns in (("bonds", 2), ("angles", 3), ("torsions", 4)):
            atoms = getattr(chart, name) if self.is_internal else np.empty((0, columns), dtype=np.int64)
            self.register_buffer(name, torch.as_tensor(np.array(atoms)))

    def forward(self, positions: Tensor) -> Tensor:
        """Nm and radians."""
        if not self.is_internal:
            flat = positions.flatten(-2)
            angles = 2 * torch.atan((flat.index_select(-1, self.turned) - self.centres) / self.scales)
            return flat.index_copy(-1, self.turned, angles)
        bond = self._between(positions, self.bonds[:, 0], self.bonds[:, 1])
        u = self._between(positions, self.angles[:, 1], self.angles[:, 0])
        v = self._between(positions, self.angles[:, 1], self.angles[:, 2])
        sine = torch.linalg.vector_norm(torch.linalg.cross(u, v), dim=-1)
        return torch.cat(
            [
                torch.linalg.vector_norm(bond, dim=-1),
                torch.atan2(sine, (u * v).sum(dim=-1)),
                torsion_angles(positions, self.torsions),
            ],
            dim=-1,
        )

    def _between(self, positions: Tensor, one: Tensor, other: Tensor) -> Tensor:
        return positions.index_select(-2, other) - positions.index_select(-2, one)


def _unit(vectors: Tensor) -> Tensor:
    return vectors / torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)


class ChartPositions(nn.Module):
    """`Chart.to_cartesian` and `Chart.log_jacobian` of n configurations, with gradients.

    Args:
        chart: the chart.
    """

    lengths: Tensor
    free: Tensor
    turned: Tensor
    centres: Tensor
    scales: Tensor

    def __init__(self, chart: Chart):
        super().__init__()
        self.n_atoms = chart.n_atoms
        self.is_internal = isinstance(chart, InternalCoordinates)
        rows: list[list[int]] = [[0, 0, 0, 0]]
        fixed = np.zeros(0)
        self.n_bonds, self.n_angles = 0, 0
        if isinstance(chart, InternalCoordinates):
            rows, fixed = chart.z_matrix.tolist(), chart.fixed_lengths
            self.n_bonds, self.n_angles = chart.n_bonds, chart.n_angles
        self.rows = rows
        self.register_buffer("lengths", torch.as_tensor(np.array(fixed)))
        self.register_buffer("free", torch.as_tensor(np.flatnonzero(fixed == 0)))
        _register_angles(self, chart)

    def forward(self, coordinates: Tensor) -> Tensor:
        """Coordinates, shape=(n, n_coordinates), to positions, shape=(n, n_atoms, 3), nm."""
        if not self.is_internal:
            lines = self.centres + self.scales * torch.tan(0.5 * coordinates[:, self.turned])
            return coordinates.index_copy(1, self.turned, lines).reshape(-1, self.n_atoms, 3)
        nb, na = self.n_bonds, self.n_bonds + self.n_angles
        angles, torsions = coordinates[:, nb:na], coordinates[:, na:]
        bonds = self.lengths.repeat(coordinates.shape[0], 1).index_copy(1, self.free, coordinates[:, :nb])
        placed: list[Tensor] = [torch.zeros_like(coordinates[:, :3])] * self.n_atoms
        zero = torch.zeros_like(coordinates[:, 0])
        placed[self.rows[1][0]] = torch.stack([bonds[:, 0], zero, zero], dim=1)
        for i, row in enumerate(self.rows[2:]):
            atom, b, a, d = row[0], row[1], row[2], row[3]
            along = _unit(placed[b] - placed[a])
            theta, r = angles[:, i : i + 1], bonds[:, i + 1 : i + 2]
            if i == 0:
                normal = torch.stack([zero, zero, zero + 1.0], dim=1)
                across = torch.linalg.cross(normal, along)
            else:
                phi = torsions[:, i - 1 : i]
                normal = _unit(torch.linalg.cross(placed[a] - placed[d], along))
                across = torch.cos(phi) * torch.linalg.cross(normal, along) + torch.sin(phi) * normal
            placed[atom] = placed[b] + r * (torch.sin(theta) * across - torch.cos(theta) * along)
        return torch.stack(placed, dim=1)

    def log_jacobian(self, coordinates: Tensor) -> Tensor:
        """Log of Cartesian volume per volume of coordinates, shape=(n,); NaN or -inf outside the chart."""
        nb, na = self.n_bonds, self.n_bonds + self.n_angles
        cosines = torch.cos(0.5 * coordinates[:, self.turned])
        of_angles = (torch.log(0.5 * self.scales) - 2 * torch.log(torch.abs(cosines))).sum(dim=1)
        if not self.is_internal:
            return of_angles
        lengths, angles = coordinates[:, :nb], coordinates[:, nb:na]
        return 2 * torch.log(lengths).sum(dim=1) + torch.log(torch.sin(angles)).sum(dim=1) + of_angles


def log_fixman(positions: Tensor, constraints: Constraints, masses: FloatArray) -> Tensor:
    """`Constraints.log_fixman` with gradients: positions, shape=(n, n_atoms, 3), to shape=(n,)."""
    pairs = torch.as_tensor(constraints.pairs)
    along = _unit(positions[:, pairs[:, 0]] - positions[:, pairs[:, 1]])
    signs = torch.zeros(len(pairs), positions.shape[1], dtype=positions.dtype)
    row = torch.arange(len(pairs))
    signs[row, pairs[:, 0]], signs[row, pairs[:, 1]] = 1.0, -1.0
    # gradients of two distances overlap at the atoms that they share
    shared = (signs / torch.as_tensor(masses)) @ signs.T
    return 0.5 * torch.linalg.slogdet(shared * (along @ along.transpose(1, 2)))[1]
