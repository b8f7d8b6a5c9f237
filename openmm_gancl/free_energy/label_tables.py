"""Label functions at many places, kept as tables of their factors: sums over places without a row for each function.

A product of two functions is again a sum of cosines and sines, of at most twice the order:
``cos(a) cos(b) = (cos(a + b) + cos(a - b)) / 2``. So all sums over places of products of two functions follow from
those of single waves, which are one matrix product of two narrow tables. Of many axes there are more of these waves
than products of functions: then functions are written out, some places at a time.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from ..units import FloatArray, IntArray
from .label_functions import LabelFunctions, products_up_to

ROWS_AT_ONCE = 1000

MOST_KEPT = 10_000_000
"""Numbers of a table that is kept, of products over all axes but the first: 80 MB."""


MOST_KEPT_WAVES = 20_000_000
"""Numbers of the tables of single waves, 160 MB; more are made anew whenever they are needed."""


MOST_KEYS = 10_000_000
"""Of columns that are found by a table, 40 MB, of seven axes say; of more they are searched for."""


GATHERED, COLUMN = 100, 50
"""Multiplications of a matrix product that take as long as to look up a number, and to write out a function's value."""


class LabelTables:
    """Label functions and their slopes at n places.

    A wave of one axis is ``cos(m phase - q pi / 2)``, m not negative; column 0 of its table is one, column 2 m - 1 the
    cosine and column 2 m the sine.

    Args:
        functions: the functions.
        places: shape=(n, d).
    """

    def __init__(self, functions: LabelFunctions, places: FloatArray):
        self.functions = functions
        self._numbers, self._quarters = functions.waves()
        self._scales = np.where(self._numbers > 0, np.sqrt(2.0), 1.0)
        most = 2 * self._numbers.max(axis=0)
        self._n_places, self._most = len(places), most
        kept = len(places) * int((2 * most + 1).sum()) <= MOST_KEPT_WAVES
        self._tables = self._waves_at(places) if kept else None
        self._at = places
        # of all axes but the first, products up to twice the order; functions need the first of them alone
        twice = 2 * (self._numbers * functions.steps).sum(axis=1).max() + 1e-9
        orders = [step * ((np.arange(2 * m + 1) + 1) // 2) for m, step in zip(most, functions.steps, strict=True)]
        self._rest = products_up_to(twice, orders[1:])
        self._radix = np.concatenate([[1], np.cumprod(2 * most[1:-1] + 1)])[: len(most) - 1]
        self._column_of = _Columns(self._rest @ self._radix)
        self._places: dict[int | None, tuple[IntArray, IntArray, FloatArray]] = {}

    def _waves_at(self, places: FloatArray) -> list[FloatArray]:
        return [_waves(self.functions.phases(places, axis), m) for axis, m in enumerate(self._most)]

    def _blocks(self, n_left: int, n_right: int) -> Iterator[tuple[slice, FloatArray, FloatArray]]:
        """The first columns of both tables: of the first axis, and of products of the others."""
        for i in range(0, self._n_places, ROWS_AT_ONCE):
            rows = slice(i, i + ROWS_AT_ONCE)
            left, *others = (
                self._waves_at(self._at[rows]) if self._tables is None else [table[rows] for table in self._tables]
            )
            if len(others) == 1:
                # in the order of the table itself
                yield rows, left[:, :n_left], others[0][:, :n_right]
                continue
            kept = self._kept if others else None
            if kept is not None and n_right <= kept.shape[1]:
                yield rows, left[:, :n_left], kept[rows, :n_right]
            else:
                yield rows, left[:, :n_left], self._products_of(len(left), others, n_right)

    def _products_of(self, n_rows: int, others: list[FloatArray], n: int) -> FloatArray:
        """Of some rows of the tables of all axes but the first, the first n columns."""
        right = np.ones((n_rows, n))
        for table, columns in zip(others, self._rest[:n].T, strict=True):
            right *= table[:, columns]
        return right

    @cached_property
    def _kept(self) -> FloatArray | None:
        """The products that functions and slopes need, at all places; None where they are too many to keep."""
        n = 1 + max(int(self._found(axis)[1].max()) for axis in (None, *range(len(self._most))))
        if self._tables is None or n * self._n_places > MOST_KEPT:
            return None
        return self._products_of(self._n_places, self._tables[1:], n)

    def _found(self, axis: int | None) -> tuple[IntArray, IntArray, FloatArray]:
        """Where the functions, or their slopes along an axis, stand in both tables, and their factors."""
        if axis not in self._places:
            self._places[axis] = self._find(axis)
        return self._places[axis]

    def _find(self, axis: int | None) -> tuple[IntArray, IntArray, FloatArray]:
        columns, factors = zip(
            *(
                _column(self._numbers[:, i], self._quarters[:, i] - (i == axis), self._factors(i, axis))
                for i in range(len(self._most))
            ),
            strict=True,
        )
        return columns[0], self._right_columns(columns), np.prod(factors, axis=0)

    def _factors(self, i: int, axis: int | None) -> FloatArray:
        rate = self._numbers[:, i] * self.functions.rates[i] if i == axis else 1.0
        return np.asarray(self._scales[:, i] * rate)

    def _right_columns(self, columns: tuple[IntArray, ...]) -> IntArray:
        key = np.zeros(columns[0].shape, dtype=np.int64)
        for one, radix in zip(columns[1:], self._radix, strict=True):
            key += one * radix
        return self._column_of(key)

    def combine(self, coefficients: FloatArray, axis: int | None = None) -> FloatArray:
        """The sum of functions, or of their slopes along an axis, times coefficients at each place, shape=(n,)."""
        left, right, factors = self._found(axis)
        table = np.zeros((left.max() + 1, right.max() + 1))
        np.add.at(table, (left, right), factors * coefficients)
        result = np.empty(self._n_places)
        for rows, of_first, of_rest in self._blocks(*table.shape):
            result[rows] = np.einsum("ij,ij->i", of_first @ table, of_rest)
        return result

    def project(self, weights: FloatArray, axis: int | None = None) -> FloatArray:
        """The sum over places of weights times each function, or its slope, shape=(n_functions,).

        Args:
            weights: shape=(n,).
            axis: of the slopes; functions without one.
        """
        left, right, factors = self._found(axis)
        return np.asarray(factors * self._sums(weights, left.max() + 1, right.max() + 1)[left, right])

    def gram(self, weights: FloatArray, axes: Sequence[int | None] = (None,)) -> FloatArray:
        """Sums over places of weights times products of two functions, shape=(n_functions, n_functions).

        Args:
            weights: shape=(n,).
            axes: of the slopes whose sums are added up; functions without one.
        """
        n = len(self.functions)
        if self._writes_out(n_sums=1, n_products=len(axes), n_columns=len(axes), n_grams=len(axes)):
            parts = (
                np.multiply(values.T, weights[rows]) @ values for rows, *kinds in self._values(axes) for values in kinds
            )
        else:
            sums = self._wave_sums(weights)
            parts = (self._products(sums, axis, axis) for axis in axes)
        return sum(parts, np.zeros((n, n)))

    def scatter(self, pulls: FloatArray, axes: Sequence[int | None] = (None,)) -> FloatArray:
        """Sums over places of ``v v^T``, v the sum of pulls times functions there, shape=(n_functions, n_functions).

        Args:
            pulls: shape=(n_axes, n).
            axes: of the slopes; functions without one.
        """
        n, k = len(self.functions), len(axes)
        if self._writes_out(n_sums=k * (k + 1) // 2, n_products=k**2, n_columns=k, n_grams=1):
            vectors = (
                sum(values * pulls[kind, rows, None] for kind, values in enumerate(kinds))
                for rows, *kinds in self._values(axes)
            )
            return sum((part.T @ part for part in vectors), np.zeros((n, n)))
        result = np.zeros((n, n))
        for i, first in enumerate(axes):
            for j, second in enumerate(axes[: i + 1]):
                part = self._products(self._wave_sums(pulls[i] * pulls[j]), first, second)
                result += part if i == j else part + part.T
        return result

    def _writes_out(self, *, n_sums: int, n_products: int, n_columns: int, n_grams: int) -> bool:
        """Whether so many columns and grams of functions written out cost less than sums and products of waves."""
        n, (k, d) = self._n_places, self._numbers.shape
        each_wave = 2 * int(self._most[0]) + 1 + 2 * COLUMN * (d - 1)
        of_waves = n_sums * n * each_wave * len(self._rest) + n_products * 2**d * k**2 * GATHERED
        return n * k * (n_grams * k + n_columns * COLUMN) < of_waves

    def _values(self, axes: Sequence[int | None]) -> Iterator[tuple[Any, ...]]:
        """Rows, and functions or slopes written out at them, shape=(n_rows, n_functions) each."""
        found = [self._found(axis) for axis in axes]
        n_left, n_right = (1 + max(int(one[side].max()) for one in found) for side in (0, 1))
        for rows, of_first, of_rest in self._blocks(n_left, n_right):
            yield rows, *(of_first[:, left] * of_rest[:, right] * factors for left, right, factors in found)

    def _wave_sums(self, weights: FloatArray) -> FloatArray:
        """What `_products` needs: sums over places of weights times all waves, of weights shape=(n,)."""
        return self._sums(weights, 2 * int(self._most[0]) + 1, len(self._rest))

    def _sums(self, weights: FloatArray, n_left: int, n_right: int) -> FloatArray:
        sums = np.zeros((n_left, n_right))
        for rows, of_first, of_rest in self._blocks(n_left, n_right):
            sums += of_first.T @ (of_rest * weights[rows, None])
        return sums

    def _products(self, sums: FloatArray, first: int | None = None, second: int | None = None) -> FloatArray:
        """Sums over places of products of two functions, or slopes, shape=(n_functions, n_functions).

        Args:
            sums: from `_wave_sums`.
            first: the axis of the first one's slope; the function itself without one.
            second: the same of the second one.
        """
        n, d = self._numbers.shape
        by_axis = [self._pairs(axis, first == axis, second == axis) for axis in range(d)]
        result = np.zeros((n, n))
        for signs in np.ndindex(*(2,) * d):
            columns, factors = zip(*(pairs[sign] for pairs, sign in zip(by_axis, signs, strict=True)), strict=True)
            term = sums[columns[0], self._right_columns(columns)]
            for factor in factors:
                term *= factor
            result += term
        return result

    def _pairs(self, axis: int, first: bool, second: bool) -> list[tuple[IntArray, FloatArray]]:
        """One axis' factors of any two functions as a sum of two waves: columns and factors, shape=(n, n) each."""
        waves, which = np.unique(
            np.stack([self._numbers[:, axis], self._quarters[:, axis]], axis=1), axis=0, return_inverse=True
        )
        which = which.ravel()
        m, q = waves.T
        scale = np.where(m > 0, np.sqrt(2.0), 1.0)
        rate = m * self.functions.rates[axis]
        factors = 0.5 * np.multiply.outer(scale * (rate if first else 1.0), scale * (rate if second else 1.0))
        q_first, q_second = (q - first)[:, None], (q - second)[None, :]
        apart = m[:, None] - m
        # cos(-m phase - q pi / 2) = cos(m phase + q pi / 2)
        turned = np.where(apart < 0, q_second - q_first, q_first - q_second)
        result = []
        for number, quarters in ((m[:, None] + m, q_first + q_second), (np.abs(apart), turned)):
            column, factor = _column(number, quarters, factors)
            result.append((column[which][:, which], factor[which][:, which]))
        return result


class _Columns:
    """Which column of a table has a key, of any array of keys that are there.

    Args:
        keys: shape=(n,), of the columns, whole numbers from zero on.
    """

    def __init__(self, keys: IntArray):
        self._order = np.argsort(keys)
        self._keys = keys[self._order]
        self._of_key = None
        if len(keys) and self._keys[-1] < MOST_KEYS:
            self._of_key = np.zeros(self._keys[-1] + 1, dtype=np.int32)
            self._of_key[keys] = np.arange(len(keys))

    def __call__(self, keys: IntArray) -> IntArray:
        if self._of_key is not None:
            return np.asarray(self._of_key[keys])
        return np.asarray(self._order[np.searchsorted(self._keys, keys)])


def _column(numbers: IntArray, quarters: IntArray, factors: FloatArray) -> tuple[IntArray, FloatArray]:
    """Columns of waves in an axis' table, and factors with their signs: a sine of no wave is zero."""
    sine = quarters % 2
    signs = np.where(quarters % 4 < 2, 1.0, -1.0) * ((sine == 0) | (numbers > 0))
    return np.where(numbers > 0, 2 * numbers - 1 + sine, 0), factors * signs


def _waves(phases: FloatArray, most: int) -> FloatArray:
    """1, cos(phase), sin(phase), cos(2 phase), ... sin(most phase), shape=(n, 2 most + 1)."""
    # by columns: functions need the first of them, slopes and products more
    result = np.empty((len(phases), 2 * most + 1), order="F")
    turn = np.exp(1j * phases)
    wave = np.ones_like(turn)
    result[:, 0] = 1.0
    for m in range(1, most + 1):
        wave *= turn
        result[:, 2 * m - 1], result[:, 2 * m] = wave.real, wave.imag
    return result
