"""Smooth functions of labels: a truncated product of Fourier or cosine series; scriptable."""

import math

import numpy as np
import torch
from torch import Tensor, nn

from ..coordinates.slow_coordinates import Axes
from ..units import FloatArray, IntArray

MAX_BASIS_ORDER, MAX_BASIS_FUNCTIONS = 5, 250
"""Of the baseline's label basis: the order falls with the number of labels so that the functions stay few."""


class LabelBasis(nn.Module):
    """Smooth functions of the label: a truncated product of Fourier (periodic) or cosine series.

    Beyond the domain of a coordinate without a period they are constant.

    Args:
        axes: the coordinates.
        order: highest total order of a product.
    """

    products: Tensor
    orders_of_axes: Tensor
    total_orders: Tensor
    roughness: Tensor
    origin: Tensor
    frequency: Tensor
    is_periodic: Tensor
    is_open: Tensor
    orders: Tensor
    half_orders: Tensor

    def __init__(self, axes: Axes, order: int):
        super().__init__()
        d = len(axes.names)
        periodic = np.isfinite(axes.periods)
        span = axes.domain[:, 1] - axes.domain[:, 0]
        orders = np.concatenate([[0], np.repeat(np.arange(1, order + 1), 2)])
        # one axis after the other: of ten axes the whole grid of order two has ten million products
        chosen = np.empty((1, 0), dtype=np.int64)
        for _ in range(d):
            waves = np.tile(np.arange(len(orders)), len(chosen))[:, None]
            grid = np.concatenate([np.repeat(chosen, len(orders), axis=0), waves], axis=1)
            chosen = grid[orders[grid].sum(axis=1) <= order]
        self.register_buffer("products", torch.as_tensor(chosen))
        self.register_buffer("orders_of_axes", torch.as_tensor(orders[chosen]))
        self.register_buffer("total_orders", torch.as_tensor(orders[chosen].sum(axis=1)))
        self.register_buffer("roughness", torch.as_tensor((orders[chosen] ** 2.0).sum(axis=1)))
        self.register_buffer("origin", torch.tensor(axes.domain[:, 0]))
        self.register_buffer("frequency", torch.as_tensor(np.where(periodic, 2 * np.pi, np.pi) / span))
        self.register_buffer("is_periodic", torch.as_tensor(periodic))
        self.register_buffer("is_open", torch.as_tensor(~periodic[:, None]))
        self.register_buffer("orders", torch.arange(1, order + 1, dtype=torch.float64))
        self.register_buffer("half_orders", self.orders - 0.5)
        self.size = len(chosen)

    def forward(self, labels: Tensor) -> Tensor:
        """Labels, shape=(n, d), to basis functions, shape=(n, size); the first is constant."""
        phase = (labels - self.origin) * self.frequency
        phase = torch.where(self.is_periodic, phase, torch.clamp(phase, 0.0, math.pi)).unsqueeze(2)
        # a cosine series has no slope at its ends: half-integer waves supply it where there is no period
        waves = torch.where(self.is_open, self.half_orders * (phase - 0.5 * math.pi), self.orders * phase)
        pairs = torch.stack([torch.cos(self.orders * phase), torch.sin(waves)], dim=3).flatten(2)
        table = torch.cat([torch.ones_like(phase), pairs], dim=2)
        product = table.select(1, 0).index_select(1, self.products.select(1, 0))
        for i in range(1, labels.shape[1]):
            product = product * table.select(1, i).index_select(1, self.products.select(1, i))
        return product

    @torch.jit.unused
    def wave_numbers(self) -> IntArray:
        """Of each function in each axis' phase, shape=(size, d): of cosines and sines alike."""
        products, orders = self.products.numpy(), self.orders_of_axes.numpy()
        # half-integer waves where there is no period
        halves = 2 * orders - ((products > 0) & (products % 2 == 0))
        return np.asarray(np.where(self.is_periodic.numpy(), orders, halves))

    @torch.jit.unused
    def phases(self, labels: Tensor) -> Tensor:
        """In which the functions are waves of whole numbers, shape=(n, d)."""
        phase = (labels - self.origin) * self.frequency
        half = 0.5 * (torch.clamp(phase, 0.0, math.pi) - 0.5 * math.pi)
        return torch.where(self.is_periodic, phase, half)

    @torch.jit.unused
    def places(self, n: int, rng: np.random.Generator) -> FloatArray:
        """Labels at random all over the domain, shape=(n, d)."""
        span = torch.where(self.is_periodic, 2 * math.pi, math.pi) / self.frequency
        return self.origin.numpy() + span.numpy() * rng.random((n, len(span)))


def n_functions(d: int, order: int) -> int:
    """How many functions a basis of d coordinates has."""
    # of j coordinates at work, each cosine or sine, orders that add up to at most the highest
    return sum(2**j * math.comb(d, j) * math.comb(order, j) for j in range(d + 1))


def highest_order(d: int, most: int) -> int:
    """The highest order, at least one, with at most so many products of d coordinates."""
    order = 1
    while d and n_functions(d, order + 1) <= most:
        order += 1
    return order


def baseline_order(d: int) -> int:
    """The highest order, up to `MAX_BASIS_ORDER`, with at most `MAX_BASIS_FUNCTIONS` products of d coordinates."""
    return min(MAX_BASIS_ORDER, highest_order(d, MAX_BASIS_FUNCTIONS))
