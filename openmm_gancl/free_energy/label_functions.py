"""Smooth functions of any number of coordinates with their slopes: the basis of a log density, with a Matern prior."""

from collections.abc import Sequence

import numpy as np

from ..coordinates.slow_coordinates import Axes
from ..units import FloatArray, IntArray
from .cox_process import DOMAIN_EXTENSION, prior_precision

ORDERS = {1: 40, 2: 12}
"""Of products of one and of two coordinates."""

FUNCTIONS_BY_AXIS, MAX_FUNCTIONS = 200, 900
"""Of more coordinates, so many products times their number at most, and in all."""


class LabelFunctions:
    """Products of Fourier (periodic) or cosine series up to a total order.

    Args:
        axes: the coordinates; the order falls with their number.
    """

    def __init__(self, axes: Axes):
        d = len(axes.names)
        self.periodic = np.isfinite(axes.periods)
        self.origin, span = axes.domain[:, 0], axes.domain[:, 1] - axes.domain[:, 0]
        self.frequency = 2 * np.pi / span
        self.steps = np.where(self.periodic, 1.0, 1 / (2 * DOMAIN_EXTENSION))
        self.rates = self.frequency * self.steps
        self.order = ORDERS.get(d) or self._highest_order(min(FUNCTIONS_BY_AXIS * d, MAX_FUNCTIONS))
        self.columns = self._columns_up_to(self.order)
        self.products = products_up_to(self.order, self.columns)
        self.wave_numbers = np.stack([c[self.products[:, i]] for i, c in enumerate(self.columns)], axis=1)

    def _highest_order(self, most: int) -> int:
        """At least one, with at most so many products."""
        order = 1
        while len(products_up_to(order + 1, self._columns_up_to(order + 1))) <= most:
            order += 1
        return order

    def _columns_up_to(self, order: int) -> list[FloatArray]:
        """The orders of each axis' functions."""
        # an open axis has cosines of half and whole waves over a longer domain: as many as waves fit into its own
        return [
            np.concatenate([[0], np.repeat(np.arange(1, order + 1), 2)])
            if periodic
            else np.arange(round(2 * order * DOMAIN_EXTENSION) + 1) / (2 * DOMAIN_EXTENSION)
            for periodic in self.periodic
        ]

    def __len__(self) -> int:
        return len(self.products)

    def _tables(self, places: FloatArray, axis: int) -> tuple[FloatArray, FloatArray]:
        """One axis' functions and their slopes, shape=(n, n_columns) each."""
        phase = (places[:, axis] - self.origin[axis]) * self.frequency[axis]
        numbers = self.columns[axis]
        if self.periodic[axis]:
            angles = phase[:, None] * numbers
            is_sine = np.arange(len(numbers)) % 2 == 0
            values = np.where(is_sine, np.sin(angles), np.cos(angles))
            slopes = np.where(is_sine, np.cos(angles), -np.sin(angles)) * numbers
        else:
            angles = (phase[:, None] + np.pi * (DOMAIN_EXTENSION - 1)) * numbers
            values, slopes = np.cos(angles), -np.sin(angles) * numbers
        values, slopes = np.sqrt(2.0) * values, np.sqrt(2.0) * slopes * self.frequency[axis]
        values[:, 0], slopes[:, 0] = 1.0, 0.0
        return values, slopes

    def __call__(self, places: FloatArray) -> FloatArray:
        """Places, shape=(n, d), to functions, shape=(n, n_functions); the first is constant."""
        return self._product([self._tables(places, axis)[0] for axis in range(places.shape[1])])

    def phases(self, places: FloatArray, axis: int) -> FloatArray:
        """Along one axis, whose waves have whole numbers, shape=(n,)."""
        shift = 0.0 if self.periodic[axis] else np.pi * (DOMAIN_EXTENSION - 1)
        phase = (places[:, axis] - self.origin[axis]) * self.frequency[axis]
        return np.asarray((phase + shift) * self.steps[axis])

    def waves(self) -> tuple[IntArray, IntArray]:
        """Numbers m and quarter turns q of the functions, products of ``sqrt(2) cos(m phase - q pi / 2)``.

        Returns:
            numbers, shape=(n_functions, d); quarter turns, shape=(n_functions, d), one for a sine.
        """
        numbers = np.where(self.periodic, (self.products + 1) // 2, self.products)
        return numbers, np.where(self.periodic & (self.products > 0), (self.products + 1) % 2, 0)

    def with_slopes(self, places: FloatArray) -> FloatArray:
        """Functions and their slopes along each axis, shape=(1 + d, n, n_functions)."""
        d = places.shape[1]
        tables = [self._tables(places, axis) for axis in range(d)]
        return np.stack(
            [self._product([tables[axis][int(axis == sloped)] for axis in range(d)]) for sloped in range(-1, d)]
        )

    def _product(self, tables: list[FloatArray]) -> FloatArray:
        product = tables[0][:, self.products[:, 0]]
        for axis in range(1, len(tables)):
            product = product * tables[axis][:, self.products[:, axis]]
        return product

    def prior_precision(self, length: float) -> FloatArray:
        """Inverse prior variances of the coefficients of a Matern process; the constant is almost free.

        Args:
            length: correlation length, as a fraction of the domain.
        """
        return prior_precision(self.wave_numbers, length)


def products_up_to(highest: float, orders: Sequence[FloatArray]) -> IntArray:
    """Which column of each axis every product has, shape=(n, d): those of the lowest total order first.

    Args:
        highest: total order of a product.
        orders: of the columns of each axis.
    """
    found, total = np.empty((1, 0), dtype=np.int64), np.zeros(1)
    for of_axis in orders:
        sums = total[:, None] + of_axis
        row, column = np.nonzero(sums <= highest)
        found, total = np.column_stack([found[row], column]), sums[row, column]
    return found[np.argsort(total, kind="stable")]
