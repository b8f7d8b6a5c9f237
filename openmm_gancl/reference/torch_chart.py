"""Charts as torch modules: positions to coordinates, and coordinates to positions with their volume."""

import math

import numpy as np
import torch
from torch import Tensor, nn

from ..coordinates.torch_modules import torsion_angles
from ..system.constraints import Constraints
from ..units import FloatArray, IntArray
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


class _Placed(nn.Module):
    """The next atoms of a chart, whose partners stand already, after those.

    Args:
        rows: shape=(k,), of the Z-matrix, from its third.
        partners: shape=(k, 3), places of each row's bond, angle and torsion partner among the atoms that stand.
    """

    rows: Tensor
    partners: Tensor

    def __init__(self, rows: IntArray, partners: IntArray):
        super().__init__()
        self.register_buffer("rows", torch.as_tensor(rows))
        self.register_buffer("partners", torch.as_tensor(partners))

    def forward(self, placed: Tensor, steps: Tensor) -> Tensor:
        """Atoms that stand, shape=(n, m, 3), and components of every row's bond to all, shape=(n, m + k, 3)."""
        b, a = placed.index_select(1, self.partners[:, 0]), placed.index_select(1, self.partners[:, 1])
        along = _unit(b - a)
        normal = _unit(torch.linalg.cross(a - placed.index_select(1, self.partners[:, 2]), along))
        across = torch.linalg.cross(normal, along)
        step = steps.index_select(1, self.rows)
        atoms = b + step[:, :, :1] * across + step[:, :, 1:2] * normal + step[:, :, 2:] * along
        return torch.cat([placed, atoms], dim=1)


def _in_turns(rows: list[list[int]]) -> tuple[list[_Placed], list[int]]:
    """The rows of a Z-matrix from the fourth, those that can be placed at once together, and the atoms' order."""
    order, left, turns = [row[0] for row in rows[:3]], list(enumerate(rows))[3:], []
    while left:
        places = {atom: place for place, atom in enumerate(order)}
        ready = [(number, row) for number, row in left if places.keys() >= set(row[1:])]
        partners = np.array([[places[atom] for atom in row[1:]] for _, row in ready])
        turns.append(_Placed(np.array([number - 2 for number, _ in ready]), partners))
        order += [row[0] for _, row in ready]
        left = [(number, row) for number, row in left if row[0] not in order]
    return turns, order


class ChartPositions(nn.Module):
    """`Chart.to_cartesian` and `Chart.log_jacobian` of n configurations, with gradients.

    Args:
        chart: the chart.
    """

    lengths: Tensor
    free: Tensor
    places: Tensor
    turned: Tensor
    centres: Tensor
    scales: Tensor

    def __init__(self, chart: Chart):
        super().__init__()
        self.n_atoms = chart.n_atoms
        self.is_internal = isinstance(chart, InternalCoordinates)
        rows: list[list[int]] = []
        fixed = np.zeros(0)
        self.n_bonds, self.n_angles = 0, 0
        if isinstance(chart, InternalCoordinates):
            rows, fixed = chart.z_matrix.tolist(), chart.fixed_lengths
            self.n_bonds, self.n_angles = chart.n_bonds, chart.n_angles
        turns, order = _in_turns(rows)
        self.turns = nn.ModuleList(turns)
        # the third atom is bonded to the second, or to the first
        self.third_of_first = len(rows) > 2 and rows[2][1] == rows[0][0]
        self.register_buffer("places", torch.as_tensor(np.argsort(np.array(order, dtype=np.int64))))
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
        zero = torch.zeros_like(coordinates[:, 0])
        placed = [torch.stack([zero, zero, zero], dim=1), torch.stack([bonds[:, 0], zero, zero], dim=1)]
        if self.n_angles == 0:
            return torch.stack(placed, dim=1).index_select(1, self.places)
        along, up = bonds[:, 1] * torch.cos(angles[:, 0]), bonds[:, 1] * torch.sin(angles[:, 0])
        if self.third_of_first:
            placed.append(torch.stack([along, -up, zero], dim=1))
        else:
            placed.append(torch.stack([bonds[:, 0] - along, up, zero], dim=1))
        out = bonds[:, 1:] * torch.sin(angles)
        turned = torch.cat([zero[:, None], torsions], dim=1)
        steps = [out * torch.cos(turned), out * torch.sin(turned), -bonds[:, 1:] * torch.cos(angles)]
        atoms, components = torch.stack(placed, dim=1), torch.stack(steps, dim=2)
        for turn in self.turns:
            atoms = turn(atoms, components)
        return atoms.index_select(1, self.places)

    def inside(self, coordinates: Tensor) -> Tensor:
        """`Chart.inside`, shape=(n,)."""
        inside = torch.isfinite(coordinates).all(dim=1)
        if self.is_internal:
            lengths = coordinates[:, : self.n_bonds]
            angles = coordinates[:, self.n_bonds : self.n_bonds + self.n_angles]
            inside = inside & (lengths > 0.0).all(dim=1) & ((angles > 0.0) & (angles < math.pi)).all(dim=1)
        return inside

    def log_jacobian(self, coordinates: Tensor) -> Tensor:
        """Log of Cartesian volume per volume of coordinates, shape=(n,); NaN or -inf outside the chart."""
        nb, na = self.n_bonds, self.n_bonds + self.n_angles
        cosines = torch.cos(0.5 * coordinates[:, self.turned])
        of_angles = (torch.log(0.5 * self.scales) - 2 * torch.log(torch.abs(cosines))).sum(dim=1)
        if not self.is_internal:
            return of_angles
        lengths, angles = coordinates[:, :nb], coordinates[:, nb:na]
        return 2 * torch.log(lengths).sum(dim=1) + torch.log(torch.sin(angles)).sum(dim=1) + of_angles


class LogFixman(nn.Module):
    """`Constraints.log_fixman` with gradients: positions, shape=(n, n_atoms, 3), to shape=(n,).

    Args:
        constraints: bonds with a fixed length.
        masses: shape=(n_atoms,), amu.
    """

    pairs: Tensor
    shared: Tensor

    def __init__(self, constraints: Constraints, masses: FloatArray):
        super().__init__()
        signs, row = np.zeros((len(constraints), len(masses))), np.arange(len(constraints))
        signs[row, constraints.pairs[:, 0]], signs[row, constraints.pairs[:, 1]] = 1.0, -1.0
        self.register_buffer("pairs", torch.as_tensor(constraints.pairs))
        # gradients of two distances overlap at the atoms that they share
        self.register_buffer("shared", torch.as_tensor((signs / masses) @ signs.T))

    def forward(self, positions: Tensor) -> Tensor:
        """``log det Z / 2``; zero without constraints."""
        if self.pairs.shape[0] == 0:
            return torch.zeros_like(positions[:, 0, 0])
        along = _unit(positions[:, self.pairs[:, 0]] - positions[:, self.pairs[:, 1]])
        return 0.5 * torch.linalg.slogdet(self.shared * (along @ along.transpose(1, 2)))[1]
