"""Densities on a circle, conditional on labels: of wide torsions and of rotors with symmetric wells; scriptable."""

import math

import torch
from torch import Tensor, nn

N_NODES = 48
"""Of the phase of a circular coordinate, between which its density is linear."""

LOG_RANGE = 30.0
"""Of the logarithm of a fitted density, before its uniform share is added."""


class CircularDensity(nn.Module):
    """A density of an angle with m-fold symmetry, and the map to it from a uniform number.

    ``log f = sum_h a_h(c) cos(h m phi) + b_h(c) sin(h m phi)`` at nodes, normalised, mixed with a uniform share and
    linear between the nodes: it is positive everywhere, its distribution function is quadratic between nodes and so
    inverted in closed form. All m wells are equally probable: ``q(phi)`` is the density of the phase ``m phi``.

    Args:
        functions: shape=(n_features,), which functions of the conditions' basis are the features.
        coefficients: shape=(n_features, 2 n_harmonics), the cosines first.
        fold: m.
        uniform_share: of the probability.
    """

    functions: Tensor
    coefficients: Tensor
    waves: Tensor

    def __init__(self, functions: Tensor, coefficients: Tensor, fold: int, uniform_share: float):
        super().__init__()
        self.fold, self.uniform_share, self.log_range = float(fold), uniform_share, LOG_RANGE
        self.register_buffer("functions", functions)
        self.register_buffer("coefficients", coefficients)
        phase = torch.arange(N_NODES, dtype=torch.float64) * (2 * math.pi / N_NODES)
        angles = torch.arange(1, coefficients.shape[1] // 2 + 1, dtype=torch.float64)[:, None] * phase
        self.register_buffer("waves", torch.cat([torch.cos(angles), torch.sin(angles)]))
        self.n_nodes, self.width = N_NODES, 2 * math.pi / N_NODES

    def nodes(self, basis: Tensor) -> Tensor:
        """The basis, shape=(n, n_functions), to the density of the phase at the nodes, shape=(n, N_NODES + 1)."""
        log_density = (basis.index_select(1, self.functions) @ self.coefficients) @ self.waves
        log_density = log_density - log_density.max(dim=1, keepdim=True)[0]
        fitted = torch.softmax(torch.clamp(log_density, min=-self.log_range), dim=1) / self.width
        density = (1.0 - self.uniform_share) * fitted + self.uniform_share / (2 * math.pi)
        return torch.cat([density, density[:, :1]], dim=1)

    def _cumulative(self, density: Tensor) -> Tensor:
        """The probability below each node, shape=(n, N_NODES + 1)."""
        below = torch.cumsum(0.5 * self.width * (density[:, :-1] + density[:, 1:]), dim=1)
        return torch.cat([torch.zeros_like(below[:, :1]), below], dim=1)

    def forward(self, uniform: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
        """Uniform numbers in [0, 1), shape=(n,), to angles in [-pi, pi) and the log of their density, shape=(n,)."""
        density = self.nodes(basis)
        cumulative = self._cumulative(density)
        turns = self.fold * uniform
        well = torch.clamp(torch.floor(turns), max=self.fold - 1.0)
        aim = (turns - well) * cumulative[:, -1]
        cell = torch.clamp(torch.searchsorted(cumulative, aim[:, None], right=True) - 1, 0, self.n_nodes - 1)
        left, right = density.gather(1, cell)[:, 0], density.gather(1, cell + 1)[:, 0]
        rest = aim - cumulative.gather(1, cell)[:, 0]
        slope = (right - left) / self.width
        beyond = 2 * rest / (left + torch.sqrt(torch.clamp(left * left + 2 * slope * rest, min=0.0)))
        phase = cell[:, 0].to(beyond.dtype) * self.width + beyond + 2 * math.pi * well
        angle = torch.remainder(phase / self.fold + math.pi, 2 * math.pi) - math.pi
        return angle, torch.log(left + slope * beyond)

    def inverse(self, angle: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
        """The uniform numbers of angles, and the log of their density."""
        density = self.nodes(basis)
        cumulative = self._cumulative(density)
        turns = self.fold * torch.remainder(angle, 2 * math.pi) / (2 * math.pi)
        well = torch.clamp(torch.floor(turns), max=self.fold - 1.0)
        position = (turns - well) * self.n_nodes
        cell = torch.clamp(position.floor().long(), 0, self.n_nodes - 1)[:, None]
        beyond = (position - cell[:, 0].to(position.dtype)) * self.width
        left, right = density.gather(1, cell)[:, 0], density.gather(1, cell + 1)[:, 0]
        slope = (right - left) / self.width
        below = cumulative.gather(1, cell)[:, 0] + beyond * (left + 0.5 * slope * beyond)
        return (well + below / cumulative[:, -1]) / self.fold, torch.log(left + slope * beyond)
