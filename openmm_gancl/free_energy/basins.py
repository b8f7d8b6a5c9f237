"""Basins and barriers of a surface: found by flooding it, or given as boxes; populations and tables of them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..coordinates.basin import Basin
from ..units import BoolArray, FloatArray, IntArray, thermal_energy
from .block_counts import Rows
from .grid import bin_centres
from .surface import FreeEnergySurface

MIN_BASIN_DEPTH = 1.0
"""kT by which a basin lies below its lowest saddle, at least; and two standard errors of that depth."""

MOST_DECIMALS = 8
"""Of a population."""


@dataclass(frozen=True)
class BasinPopulation:
    """One row of the basin table.

    Attributes:
        name: of the basin.
        population: fraction of the equilibrium ensemble.
        population_error: one sigma.
        free_energy: kJ/mol, relative to the first basin.
        free_energy_error: one sigma, kJ/mol.
    """

    name: str
    population: float
    population_error: float
    free_energy: float
    free_energy_error: float


@dataclass(frozen=True)
class Barrier:
    """The lowest path between two basins; the barriers of a surface form a tree, so they determine every such path.

    Attributes:
        names: of the two basins.
        place: shape=(d,), of the saddle.
        heights: kJ/mol, of the saddle over the minimum of either basin.
        errors: one sigma of each, kJ/mol.
    """

    names: tuple[str, str]
    place: tuple[float, ...]
    heights: tuple[float, float]
    errors: tuple[float, float]


def weighted_populations(
    basins: Sequence[Basin],
    weights: FloatArray,
    places: FloatArray,
    temperature: float,
    error_of_sum: Callable[[FloatArray], float],
) -> list[BasinPopulation]:
    """Populations and free-energy differences of basins from weighted places, errors linearised in the weights.

    Args:
        basins: boxes in the labels.
        weights: shape=(n,), not negative.
        places: shape=(n, d).
        temperature: K.
        error_of_sum: one sigma of the sum of terms, shape=(n,), each proportional to its place's weight.

    Returns:
        One row a basin; infinite errors where no weight lies in it.
    """
    everywhere = weights / weights.sum()
    inside = [np.where(basin.contains(places), everywhere, 0.0) for basin in basins]
    kT = thermal_energy(temperature)

    def relative_error(part: FloatArray, whole: FloatArray) -> float:
        """Of the ratio of their sums."""
        if part.sum() == 0.0 or whole.sum() == 0.0:
            return float("inf")
        return error_of_sum(part / part.sum() - whole / whole.sum())

    rows = []
    for basin, part in zip(basins, inside, strict=True):
        population = float(part.sum())
        with np.errstate(divide="ignore", invalid="ignore"):
            free_energy = float(-kT * np.log(part.sum() / inside[0].sum()))
        against_all, against_first = relative_error(part, everywhere), relative_error(part, inside[0])
        error = population * against_all if population > 0.0 else float("inf")
        rows.append(BasinPopulation(basin.name, population, error, free_energy, kT * against_first))
    return rows


def _neighbours(shape: tuple[int, ...], periods: FloatArray) -> IntArray:
    """Flat indices of the bins next to each bin, shape=(n_bins, 2 d), -1 beyond an end."""
    index, columns = np.arange(int(np.prod(shape))).reshape(shape), []
    for axis, period in enumerate(periods):
        for step in (1, -1):
            shifted = np.roll(index, step, axis)
            if not np.isfinite(period):
                end = [slice(None)] * len(shape)
                end[axis] = slice(0, 1) if step == 1 else slice(-1, None)
                shifted[tuple(end)] = -1
            columns.append(shifted.ravel())
    return np.stack(columns, axis=1)


class _Union:
    """Sets that merge, each known by one of its members."""

    def __init__(self) -> None:
        self.parent: list[int] = []

    def add(self) -> int:
        self.parent.append(len(self.parent))
        return self.parent[-1]

    def root(self, i: int) -> int:
        while self.parent[i] != i:
            self.parent[i] = self.parent[self.parent[i]]
            i = self.parent[i]
        return i


def find_basins(surface: FreeEnergySurface) -> BoolArray:
    """The basins of a surface, deepest first, shape=(n_basins, n_0, ...).

    The surface is flooded from below; a pool that is shallower than `MIN_BASIN_DEPTH` where it meets another one, or
    whose depth is within two standard errors of zero, belongs to the other. An island that is as flat is no basin.
    """
    energy, error = surface.energy.ravel(), surface.error.ravel()
    neighbours = _neighbours(surface.energy.shape, surface.periods)
    pools, minima, label = _Union(), list[int](), np.full(len(energy), -1)
    basins_of_their_own: set[int] = set()

    def is_shallow(minimum: int, top: int) -> bool:
        noise = float(np.hypot(error[top], error[minimum]))
        least = max(MIN_BASIN_DEPTH * thermal_energy(surface.temperature), 2.0 * noise)
        return bool(energy[top] - energy[minimum] < least)

    for cell in np.argsort(energy)[: np.isfinite(energy).sum()]:
        flooded = [n for n in neighbours[cell] if n >= 0 and label[n] >= 0]
        if not flooded:
            label[cell] = pools.add()
            minima.append(int(cell))
            continue
        label[cell] = label[min(flooded, key=lambda n: energy[n])]
        touching = {pools.root(label[n]) for n in flooded}
        deepest = min(touching, key=lambda i: energy[minima[i]])
        for pool in touching - {deepest} - basins_of_their_own:  # the first, lowest meeting decides
            if is_shallow(minima[pool], int(cell)):
                pools.parent[pool] = deepest
            else:
                basins_of_their_own.add(pool)
    roots = np.array([pools.root(i) for i in range(len(minima))])
    of_cell = np.where(label >= 0, roots[label], -1)
    first, *others = sorted(set(roots.tolist()), key=lambda i: energy[minima[i]])
    tops = {i: int(np.where(of_cell == i, energy, -np.inf).argmax()) for i in others}
    basins = [first, *(i for i in others if i in basins_of_their_own or not is_shallow(minima[i], tops[i]))]
    return np.stack([(of_cell == basin).reshape(surface.energy.shape) for basin in basins])


def box_masks(surface: FreeEnergySurface, basins: Sequence[Basin]) -> BoolArray:
    """The bins whose centres lie in each basin, shape=(n_basins, n_0, ...)."""
    places = bin_centres(surface.edges)
    return np.stack([basin.contains(places).reshape(surface.energy.shape) for basin in basins])


def lowest_bins(surface: FreeEnergySurface, masks: BoolArray) -> list[int]:
    """Flat index of the lowest bin of each mask, -1 where nothing is known."""
    lowest = []
    for mask in masks:
        inside = np.where(mask, surface.energy, np.inf).ravel()
        lowest.append(int(inside.argmin()) if np.isfinite(inside).any() else -1)
    return lowest


def find_saddles(surface: FreeEnergySurface, minima: Sequence[int]) -> list[tuple[int, int, int]]:
    """The saddles that join minima, lowest first: two indices into ``minima``, deeper first, and the saddle's bin."""
    energy, neighbours = surface.energy.ravel(), _neighbours(surface.energy.shape, surface.periods)
    pools, lowest, saddles = _Union(), list[int](), []
    label = np.full(len(energy), -1)
    wanted = {cell: i for i, cell in enumerate(minima) if cell >= 0}
    for cell in np.argsort(energy)[: np.isfinite(energy).sum()]:
        touching = {pools.root(label[n]) for n in neighbours[cell] if n >= 0 and label[n] >= 0}
        mine = touching.pop() if touching else pools.add()
        if mine == len(lowest):
            lowest.append(-1)
        label[cell] = mine
        if int(cell) in wanted and lowest[mine] < 0:
            lowest[mine] = wanted[int(cell)]
        elif int(cell) in wanted:  # a way down leads from here to the deeper one
            saddles.append((lowest[mine], wanted[int(cell)], int(cell)))
        for other in touching:
            first, second = lowest[mine], lowest[other]
            pools.parent[other] = mine
            if first >= 0 and second >= 0:
                deeper, higher = sorted((first, second), key=lambda i: energy[minima[i]])
                saddles.append((deeper, higher, int(cell)))
                lowest[mine] = deeper
            else:
                lowest[mine] = max(first, second)
    return saddles


def relative_free_energies(
    masses: FloatArray, draws: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Populations, -log of them relative to the first, and the errors of both, linearised.

    Args:
        masses: shape=(n + 1,), of basins and of everything.
        draws: shape=(n_bootstrap, n + 1), of replicates.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        populations = masses[:-1] / masses[-1]
        ratios = draws / masses
        free = -np.log(masses[:-1] / masses[0])
        population_errors = populations * (ratios[:, :-1] - ratios[:, -1:]).std(axis=0)
        errors = (ratios[:, :-1] - ratios[:, :1]).std(axis=0)
    known = masses[:-1] > 0.0
    populations = np.where(known, populations, 0.0)
    known_free = known & known[0]
    return (
        populations,
        np.where(known_free, free, np.inf),
        np.where(known, population_errors, np.inf),
        np.where(known_free, errors, np.inf),
    )


def masses_of_basins(rows: Rows, names: Sequence[str], draws: FloatArray, kT: float) -> list[BasinPopulation]:
    """Populations of basins, and free energies relative to the first, with errors from replicates."""
    whole = rows.combine(np.ones((1, draws.shape[1])))[0]
    table = zip(names, *relative_free_energies(whole, rows.combine(draws)), strict=True)
    return [BasinPopulation(name, float(p), float(dp), kT * float(f), kT * float(df)) for name, p, f, dp, df in table]


def basin_barriers(
    surface: FreeEnergySurface, deviations: FloatArray, minima: Sequence[int], names: Sequence[str]
) -> list[Barrier]:
    """The lowest ways between basins, with errors from relative deviations of replicates."""
    kT, places, energy = thermal_energy(surface.temperature), bin_centres(surface.edges), surface.energy.ravel()
    flat, barriers = deviations.reshape(len(deviations), -1), []
    for first, second, saddle in find_saddles(surface, minima):
        ends = [minima[first], minima[second]]
        barriers.append(
            Barrier(
                names=(names[first], names[second]),
                place=tuple(map(float, places[saddle])),
                heights=(float(energy[saddle] - energy[ends[0]]), float(energy[saddle] - energy[ends[1]])),
                errors=(
                    kT * float((flat[:, saddle] - flat[:, ends[0]]).std()),
                    kT * float((flat[:, saddle] - flat[:, ends[1]]).std()),
                ),
            )
        )
    return barriers


def formatted(value: float | None, form: str) -> str:
    """A number as text, or ``unknown``."""
    return "unknown" if value is None or not math.isfinite(value) else format(value, form)


def _fraction(value: float | None, error: float | None) -> str:
    """With four decimals, or as many as two digits of the error take."""
    small = error is not None and 0.0 < error < 1e-3
    decimals = min(1 - math.floor(math.log10(error)), MOST_DECIMALS) if small and error else 4
    return f"{formatted(value, f'.{decimals}f')} +- {formatted(error, f'.{decimals}f')}"


def basin_table(basins: list[dict[str, Any]], unit: str = "kJ/mol", order: str = "") -> list[str]:
    """Lines of a table of basins, as dictionaries of `BasinPopulation` in that unit; none for no basin.

    Args:
        basins: one dictionary each.
        unit: of energies.
        order: that they are in; empty where it goes without saying.
    """
    if not basins:
        return []
    populations = [_fraction(row["population"], row["population_error"]) for row in basins]
    width, wide = max(len("basin"), *(len(row["name"]) for row in basins)), max(19, *map(len, populations))
    lines = [f"{'basin':<{width}}  {'population':<{wide}}  dF ({unit})"]
    for i, (row, population) in enumerate(zip(basins, populations, strict=True)):
        free = f"{formatted(row['free_energy'], '.2f')} +- {formatted(row['free_energy_error'], '.2f')}"
        lines.append(f"{row['name']:<{width}}  {population:<{wide}}  {free if i else 'reference'}")
    if order and len(basins) > 1:
        lines[0] += f"  ({order})"
    return ["", *lines]


def barrier_table(barriers: list[dict[str, Any]], unit: str = "kJ/mol", axis_units: Sequence[str] = ()) -> list[str]:
    """Lines of a table of barriers, as dictionaries of `Barrier` in that unit; none for no barrier.

    Args:
        barriers: one dictionary each.
        unit: of energies.
        axis_units: of the places, one a coordinate.
    """
    if not barriers:
        return []
    rows = [
        (
            " - ".join(row["names"]),
            " / ".join(
                f"{formatted(height, '.2f')} +- {formatted(error, '.2f')}"
                for height, error in zip(row["heights"], row["errors"], strict=True)
            ),
            "(" + ", ".join(f"{x:.4g}" for x in row["place"]) + ")",
        )
        for row in barriers
    ]
    units = dict.fromkeys(axis_units) if len(set(axis_units)) == 1 else list(axis_units)
    places = ", ".join(unit or "unit unknown" for unit in units) if any(axis_units) else ""
    heading = ("barrier", f"from either side ({unit})", f"at ({places})" if places else "at")
    widths = [max(len(row[i]) for row in [heading, *rows]) for i in range(2)]
    return ["", *(f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c}" for a, b, c in [heading, *rows])]
