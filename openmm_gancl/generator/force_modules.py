"""The parts of a lifting model as torch modules of positions: reference energy, proposal, bias."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..reference.chart import Chart
from ..reference.torch_chart import ChartCoordinates
from ..trajectories.static_bias import TabulatedBias
from ..units import FloatArray

MIN_LOG_PROBABILITY = -1e30
"""log-probability of a proposal that is not finite."""


class ReferenceModule(nn.Module):
    """What the generator writes at a label and a latent: the reference's energy, and a proposal drawn from it.

    Args:
        generator: G(s, z).
        chart: the chart.
        kT: kJ/mol.
        label_widths: shape=(d,), of the labels' own coordinates where their restraint is their reference; none where
            it is not.
    """

    folds: Tensor
    periodic: Tensor
    label_indices: Tensor
    label_widths: Tensor

    def __init__(self, generator: Any, chart: Chart, kT: float, label_widths: FloatArray):
        super().__init__()
        self.generator, self.kT, self.n_atoms, self.floor = generator, kT, chart.n_atoms, MIN_LOG_PROBABILITY
        self.coordinates = ChartCoordinates(chart)
        restrained = chart.label_indices if len(label_widths) else np.empty(0, dtype=np.int64)
        for name, array in {
            "folds": chart.folds.astype(float),
            "periodic": chart.periodic,
            "label_indices": restrained,
            "label_widths": np.asarray(label_widths, dtype=float),
        }.items():
            self.register_buffer(name, torch.as_tensor(array))

    def written(self, labels: Tensor, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Centres and widths, each of shape=(n_coordinates,)."""
        centres, widths = self.generator(labels.unsqueeze(0), latents.unsqueeze(0))
        centres, widths = centres.squeeze(0), widths.squeeze(0)
        if len(self.label_indices):
            centres = centres.index_copy(0, self.label_indices, labels)
            widths = widths.index_copy(0, self.label_indices, self.label_widths)
        return centres, widths

    @torch.jit.export
    def energy(self, positions: Tensor, labels: Tensor, latents: Tensor) -> Tensor:
        """U_B, kJ/mol."""
        centres, widths = self.written(labels, latents)
        deviation = self.coordinates(positions.to(torch.float64)) - centres
        normal = 0.5 * (deviation / widths).square()
        torsion = (1.0 - torch.cos(self.folds * deviation)) / (self.folds * widths).square()
        return self.kT * torch.where(self.periodic, torsion, normal).sum()

    @torch.jit.export
    def proposal(self, positions: Tensor, labels: Tensor, latents: Tensor) -> tuple[Tensor, Tensor]:
        """log q(x0 | s, z) and the displacement from standard normal numbers, the positions, to x0 (Cartesian charts).

        Where as many rows again follow those of the atoms, their displacement is the width of each coordinate.
        """
        centres, widths = self.written(labels, latents)
        noise = positions[: self.n_atoms].to(torch.float64).reshape(-1)
        log_q = -(0.5 * noise.square() + torch.log(widths)).sum() - 0.5 * len(noise) * math.log(2 * math.pi)
        rows = torch.stack([centres + (widths - 1.0) * noise, widths]).reshape(-1, 3)[: len(positions)]
        finite = torch.isfinite(log_q) & torch.isfinite(rows).all()
        bounded = torch.where(finite, log_q, torch.full_like(log_q, self.floor))
        return bounded, torch.where(finite, rows, torch.zeros_like(rows)).to(positions.dtype).contiguous()


class TabulatedBiasModule(nn.Module):
    """A `TabulatedBias` of coordinates: positions and one factor to an energy, kJ/mol; a cubic B-spline.

    Args:
        coordinates: a module of positions, shape=(n_atoms, 3), to shape=(d,).
        bias: over these coordinates.
    """

    coefficients: Tensor
    low: Tensor
    width: Tensor

    def __init__(self, coordinates: Any, bias: TabulatedBias):
        super().__init__()
        self.coordinates, self.periodic = coordinates, bias.periodic
        low, high = bias.limits.T
        self.register_buffer("coefficients", torch.as_tensor(bias.coefficients))
        self.register_buffer("low", torch.as_tensor(low.copy()))
        self.register_buffer("width", torch.as_tensor((high - low) / bias.n_intervals))

    @torch.jit.export
    def energy(self, positions: Tensor, factor: Tensor) -> Tensor:
        """The bias times a factor."""
        places = (self.coordinates(positions.to(torch.float64)) - self.low) / self.width
        table = self.coefficients
        inside = torch.ones_like(places[0])
        for i in range(len(places)):
            n = table.shape[0]
            floor = torch.floor(places[i].detach())
            t = places[i] - floor
            # the four B-splines that are not zero here
            weights = torch.stack(
                [
                    (1.0 - t) ** 3,
                    3.0 * t**3 - 6.0 * t**2 + 4.0,
                    -3.0 * t**3 + 3.0 * t**2 + 3.0 * t + 1.0,
                    t**3,
                ]
            )
            nodes = floor.long() + torch.arange(-1, 3, device=places.device)
            if self.periodic:
                nodes = torch.remainder(nodes, n)
            else:
                inside = inside * (places[i] >= 0.0) * (places[i] <= n - 1.0)
                # mirrored at the first and the last node
                nodes = torch.clamp(torch.minimum(nodes.abs(), 2 * (n - 1) - nodes), 0, n - 1)
            # each turn of the loop uses up the table's first axis
            table = (weights / 6.0 @ table[nodes].reshape(4, -1)).reshape(table.shape[1:])
        return factor.sum() * inside * table
