"""What an invertible generator proposes for a Context, as torch modules: normal numbers to configurations, and back.

The density of a proposal per Cartesian volume, that of rigid motion left out, is ``p(s) q(y | s) / (J |Z|^(1/2))``:
labels from p(s), the other coordinates y from the generator, the volume J of the chart, and where bonds are constrained
the Fixman term.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..coordinates.slow_coordinates import SlowCoordinates
from ..coordinates.torchscript import scripted
from ..generator.invertible import InvertibleGenerator
from ..lifting.placement import GridPlacement
from ..reference.torch_chart import ChartCoordinates, ChartPositions, LogFixman
from ..system.molecular_system import MolecularSystem
from ..system.torch_state import InState
from ..units import BoolArray, FloatArray

NO_DENSITY = -1e30
"""In place of the log density of what is outside the chart, the labels' domain or the declared state, or not finite."""


class _LabelCells(nn.Module):
    """One label, given the cells of those before it.

    Args:
        edges: of its cells, even.
        periodic: whether its ends are joined.
        probabilities: shape=(n_rows, n_cells), a row for all cells of the labels before it.
    """

    cumulative: Tensor

    def __init__(self, edges: FloatArray, periodic: bool, probabilities: FloatArray):
        super().__init__()
        self.n_cells, self.low, self.periodic = len(edges) - 1, float(edges[0]), periodic
        self.width = float(edges[-1] - edges[0]) / self.n_cells
        of_rows = probabilities.sum(axis=1, keepdims=True)
        even = np.full(probabilities.shape, 1.0 / self.n_cells)
        given = np.divide(probabilities, of_rows, out=even, where=of_rows > 0)
        below = np.concatenate([np.zeros((len(given), 1)), np.cumsum(given, axis=1)], axis=1)
        self.register_buffer("cumulative", torch.as_tensor(below / below[:, -1:]))

    def forward(self, uniform: Tensor, row: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Uniform numbers, shape=(n,), to labels, the log of their density, and the row of the next label."""
        below = self.cumulative[row]
        cell = torch.clamp(
            torch.searchsorted(below, uniform[:, None].contiguous(), right=True) - 1, 0, self.n_cells - 1
        )
        left = below.gather(1, cell)[:, 0]
        share = below.gather(1, cell + 1)[:, 0] - left
        place = torch.clamp((uniform - left) / share, 0.0, 1.0)
        label = self.low + self.width * (cell[:, 0].to(place.dtype) + place)
        return label, torch.log(share / self.width), row * self.n_cells + cell[:, 0]

    def inverse(self, label: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
        """The log density of labels, minus infinity outside, and the row of the next label."""
        place = (label - self.low) / self.width
        if self.periodic:
            place = torch.remainder(place, float(self.n_cells))
        inside = (place >= 0.0) & (place <= self.n_cells)
        place = torch.where(inside, place, torch.zeros_like(place))
        cell = torch.clamp(place.floor().long(), 0, self.n_cells - 1)[:, None]
        below = self.cumulative[row]
        share = (below.gather(1, cell + 1) - below.gather(1, cell))[:, 0]
        log_density = torch.where(inside, torch.log(share / self.width), torch.full_like(share, -math.inf))
        return log_density, row * self.n_cells + cell[:, 0]


class LabelGrid(nn.Module):
    """Labels from uniform numbers, their density p(s) even in each cell of a grid.

    Args:
        placement: p(s), over any number of labels.
        periodic: shape=(d,).
    """

    def __init__(self, placement: GridPlacement, periodic: BoolArray):
        super().__init__()
        of_all, axes = placement.probabilities, []
        for i, (edges, joined) in enumerate(zip(placement.edges, periodic.tolist(), strict=True)):
            over = of_all.sum(axis=tuple(range(i + 1, of_all.ndim)))
            axes.append(_LabelCells(edges, joined, over.reshape(-1, over.shape[-1])))
        self.axes = nn.ModuleList(axes)

    def forward(self, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """Numbers in [0, 1], shape=(n, d), to labels, shape=(n, d), and log p(s), shape=(n,)."""
        labels: list[Tensor] = []
        log_density = torch.zeros_like(uniform[:, 0])
        row = torch.zeros_like(log_density).long()
        for i, axis in enumerate(self.axes):
            label, part, row = axis(uniform[:, i], row)
            labels.append(label)
            log_density = log_density + part
        return torch.stack(labels, dim=1), log_density

    @torch.jit.export
    def inverse(self, labels: Tensor) -> Tensor:
        """log p(s) of labels, shape=(n,); minus infinity outside the domain."""
        log_density = torch.zeros_like(labels[:, 0])
        row = torch.zeros_like(log_density).long()
        for i, axis in enumerate(self.axes):
            part, row = axis.inverse(labels[:, i], row)
            log_density = log_density + part
        return log_density


class Proposals(nn.Module):
    """Standard normal numbers to configurations of a system, with their density; and the density of any configuration.

    Molecules lie as their chart places them: the first atom at the origin, the second on the first axis.

    Args:
        generator: of the coordinates given the labels.
        placement: p(s).
        system: whose declared state and constraints count.
    """

    def __init__(self, generator: InvertibleGenerator, placement: GridPlacement, system: MolecularSystem):
        super().__init__()
        chart = generator.chart
        self.map, self.coordinates, self.positions = generator.map, ChartCoordinates(chart), ChartPositions(chart)
        self.labels = LabelGrid(placement, np.isfinite(generator.slow.periods))
        self.in_state, self.log_fixman = InState(system.state), LogFixman(system.constraints, system.masses)
        self.no_density = NO_DENSITY
        self.n_labels, self.n_coordinates = len(generator.slow.names), chart.n_coordinates

    def forward(self, normals: Tensor) -> tuple[Tensor, Tensor]:
        """Normals, shape=(n, n_coordinates), to positions, shape=(n, n_atoms, 3), and log densities, shape=(n,).

        Where there is no density it is `NO_DENSITY`, and the positions mean nothing.
        """
        d = self.n_labels
        n_uniform = d + self.map.n_circular
        uniform = 0.5 * torch.special.erfc(-math.sqrt(0.5) * normals[:, :n_uniform])
        labels, log_label = self.labels(uniform[:, :d])
        base = torch.cat([uniform[:, d:], normals[:, n_uniform:]], dim=1)
        coordinates, log_density = self.map(base, labels)
        positions = self.positions(coordinates)
        inside = self.map.inside(coordinates) & self.positions.inside(coordinates)
        return positions, self.per_volume(log_label + log_density, coordinates, positions, inside)

    @torch.jit.export
    def log_density(self, positions: Tensor) -> Tensor:
        """Of any configurations, wherever they lie: shape=(n, n_atoms, 3) to shape=(n,), or `NO_DENSITY`."""
        coordinates = self.coordinates(positions)
        _, log_density = self.map.inverse(coordinates)
        log_label = self.labels.inverse(coordinates[:, self.map.label_indices])
        # torsions read back are within half a turn of any origin
        inside = self.positions.inside(coordinates)
        return self.per_volume(log_label + log_density, coordinates, positions, inside)

    def per_volume(self, log_density: Tensor, coordinates: Tensor, positions: Tensor, inside: Tensor) -> Tensor:
        """The density of coordinates as that of positions."""
        log_volume = self.positions.log_jacobian(coordinates) + self.log_fixman(positions)
        found = log_density - log_volume
        usable = inside & self.in_state(positions) & torch.isfinite(found)
        return torch.where(usable, found, torch.full_like(found, self.no_density))


class ProposalForce(nn.Module):
    """The positions as normal numbers: the log density of what they propose, and the displacement to it as forces."""

    def __init__(self, proposals: Proposals):
        super().__init__()
        self.proposals, self.n = proposals, proposals.n_coordinates

    def forward(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Positions, shape=(n_atoms, 3), to a number and shape=(n_atoms, 3); zero where nothing is proposed."""
        with torch.no_grad():  # a TorchForce asks for gradients, at twice the time
            normals = positions.to(torch.float64).reshape(1, -1)
            proposed, log_density = self.proposals(normals[:, : self.n])
            displacement = proposed[0] - positions
            finite = torch.isfinite(displacement).all()
            displacement = torch.where(finite, displacement, torch.zeros_like(displacement))
            return log_density.sum(), displacement.to(positions.dtype).contiguous()


class DensityForce(nn.Module):
    """The log density with which the positions themselves are proposed, and no forces."""

    def __init__(self, proposals: Proposals):
        super().__init__()
        self.proposals = proposals

    def forward(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Positions, shape=(n_atoms, 3), to a number and zeros."""
        with torch.no_grad():
            log_density = self.proposals.log_density(positions.to(torch.float64).unsqueeze(0))
            return log_density.sum(), torch.zeros_like(positions)


def even_placement(slow: SlowCoordinates) -> GridPlacement:
    """p(s) even over the whole domain of any number of labels."""
    return GridPlacement(tuple(np.array(axis) for axis in slow.domain), np.ones((1,) * len(slow.names)))


def force_modules(proposals: Proposals) -> tuple[Any, Any]:
    """The modules of a proposal and of a configuration's own density, as `module_force` takes them."""
    return scripted(ProposalForce(proposals).eval()), scripted(DensityForce(proposals).eval())
