"""Where a series is equilibrated, and blocks of it that are independent."""

import itertools
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.special import fdtrc

from ..errors import InputError, quiet
from ..units import FloatArray, IntArray
from .series import Series

MIN_BLOCK_LENGTH = 3.0
"""Statistical inefficiencies in a block, at least."""

MAX_BLOCKS = 200
MAX_BLOCKS_PER_WINDOW = 20

MAX_SERIES_LENGTH = 20_000
"""Frames, at most, that the search for equilibration uses; a longer series is thinned out for it."""

MIN_RESOLVED_INEFFICIENCY = 5.0
"""Statistical inefficiency above which a thinned series still shows how its correlations decay."""

CHANCE = 1e-4
"""That trajectories spread so by themselves, below which their spread tells their inefficiency."""

ROUNDING = 1e-9
"""Of a standard deviation, below which there is none."""


@dataclass(frozen=True)
class Blocks:
    """Frames after equilibration, divided for the bootstrap.

    Attributes:
        start: shape=(n_blocks,), first frame of each block.
        stop: shape=(n_blocks,), the frame after its last.
        stride: every so many frames of a block are used.
        stratum: shape=(n_blocks,), 0 throughout, or the trajectory where each is a window of its own.
        spans: shape=(n_blocks, 2), where each block begins and ends, as fractions of its trajectory.
        discarded: frames cut from each file's beginning, at most half.
        equilibrating: whether each would have more independent samples if more than half were cut.
        inefficiency: statistical inefficiency of each file, frames.
        correlation: shape=(n_strata,), the largest inefficiency over its block's length.
        n_independent: frames over their inefficiency, summed over files.
    """

    start: IntArray
    stop: IntArray
    stride: int
    stratum: IntArray
    spans: FloatArray
    discarded: list[int]
    equilibrating: list[bool]
    inefficiency: list[float]
    correlation: FloatArray
    n_independent: float

    @property
    def sizes(self) -> IntArray:
        """Frames used of each block, shape=(n_blocks,)."""
        return np.asarray(-(-(self.stop - self.start) // self.stride))

    @property
    def n_frames(self) -> int:
        """Frames used."""
        return int(self.sizes.sum())

    def frames(self, first: int = 0, last: int | None = None) -> IntArray:
        """Indices of the frames used, in order, of the blocks from ``first`` to before ``last``; all by default."""
        sizes, start = self.sizes[first:last], self.start[first:last]
        return np.asarray(np.repeat(start, sizes) + self.stride * self._within(sizes))

    @staticmethod
    def _within(sizes: IntArray) -> IntArray:
        """0, 1, ... anew for each block."""
        return np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)


def _observables(values: Any, periods: FloatArray) -> list[FloatArray]:
    columns = []
    for column, period in zip(np.asarray(values, dtype=float).T, periods, strict=True):
        if np.isfinite(period):
            columns += [np.cos(2 * np.pi / period * column), np.sin(2 * np.pi / period * column)]
        else:
            columns.append(column)
    return [column for column in columns if column.std() > ROUNDING]


def _largest_inefficiency(values: Any, periods: FloatArray) -> float:
    with quiet("pymbar"):
        from pymbar.timeseries import ParameterError, statistical_inefficiency

    largest = 1.0
    for column in _observables(values, periods):
        try:
            largest = max(largest, float(statistical_inefficiency(column, fast=True)))
        except ParameterError:
            continue
    return largest


def _inefficiency(values: Any, periods: FloatArray) -> float:
    """The largest over the collective variables, in frames (Chodera et al. 2007, doi 10.1021/ct0502864).

    A long series is analysed twice: thinned out for slow decays, and a consecutive part for fast ones.
    """
    thinning = -(-len(values) // MAX_SERIES_LENGTH)
    if thinning == 1:
        return _largest_inefficiency(values, periods)
    thinned = _largest_inefficiency(values[::thinning], periods)
    if thinned > MIN_RESOLVED_INEFFICIENCY:
        return thinned * thinning
    return min(_largest_inefficiency(values[-MAX_SERIES_LENGTH:], periods), thinned * thinning)


def series_inefficiency(series: FloatArray) -> float:
    """Of one series, shape=(n,): how many of its values count as one."""
    return _inefficiency(series[:, None], np.array([np.inf]))


def _independent_from(column: FloatArray, starts: IntArray) -> FloatArray:
    """Independent samples that are left of a series from each start, shape=starts.shape."""
    with quiet("pymbar"):
        from pymbar.timeseries import ParameterError, statistical_inefficiency

    found = np.ones(len(starts))
    for i, start in enumerate(starts.tolist()):
        with suppress(ParameterError):  # constant from here on
            found[i] = (len(column) - start) / statistical_inefficiency(column[start:], fast=True)
    return found


def equilibration(values: Any, periods: FloatArray) -> tuple[int, bool]:
    """Where in the first half the most independent samples are left (Chodera 2016, doi 10.1021/acs.jctc.5b00784).

    A last piece that is too short for any slow change looks as if nothing in it were correlated: half of the series
    stays, correlated as it is.

    Args:
        values: shape=(n, d).
        periods: shape=(d,).

    Returns:
        frames to cut, and whether cutting more than half would leave more: it is not equilibrated.
    """
    thinning = -(-len(values) // MAX_SERIES_LENGTH)
    thin = np.asarray(values[::thinning], dtype=float)
    starts = np.arange(0, max(len(thin) - 1, 1), max(len(thin) // 40, 1))
    found = [_independent_from(column, starts) for column in _observables(thin, periods)]
    if not found:
        return 0, False
    slowest = min(found, key=lambda one: one.max())
    early = starts <= len(thin) // 2
    return int(starts[early][slowest[early].argmax()]) * thinning, bool(slowest.argmax() >= early.sum())


def _equilibrated(
    values: FloatArray, periods: FloatArray, discard: int | Literal["auto"]
) -> tuple[int, bool, int, float]:
    """Frames of a trajectory to cut, whether it still equilibrates, frames left, and their statistical inefficiency."""
    cut, still = equilibration(values, periods) if discard == "auto" else (discard, False)
    if cut >= len(values):
        raise InputError(f"`discard` of {cut} leaves nothing of a trajectory of {len(values)} frames: give less")
    return int(cut), still, len(values) - cut, _inefficiency(values[cut:], periods)


def _spread_inefficiency(values: Any, periods: FloatArray, inefficiency: FloatArray, sizes: IntArray) -> float:
    """The inefficiency that the means of trajectories tell, where they spread more than each tells by itself, else 1.

    A trajectory that is shorter than its slowest motion shows little of it. From others it is apart by it.

    Args:
        values: shape=(n, d), of the frames left of all trajectories, one after the other.
        periods: shape=(d,).
        inefficiency: shape=(n_trajectories,), of each by itself.
        sizes: shape=(n_trajectories,), frames left of each.
    """
    largest, trajectory = 1.0, np.repeat(np.arange(len(sizes)), sizes)
    n_within = float((sizes / inefficiency).sum()) - len(sizes)
    if n_within < 1.0:
        return largest
    for column in _observables(values, periods):
        deviations = (column - column.mean()) / column.std()
        squares = deviations**2  # states may differ in nothing but their width
        for moved in (deviations, squares - squares.mean()):
            means = np.bincount(trajectory, moved) / sizes
            variances = np.bincount(trajectory, moved**2) / sizes - means**2
            between = float(sizes @ means**2) / (len(sizes) - 1)
            within = float(sizes @ (variances * inefficiency)) / len(values)
            chance = fdtrc(len(sizes) - 1, n_within, between / max(within, ROUNDING))
            if moved.std() > ROUNDING and chance < CHANCE:
                largest = max(largest, between / float(moved.var()))
    return largest


def _of_files(
    series: Series, discard: int | Literal["auto"], together: bool
) -> tuple[list[int], list[bool], list[int], list[float]]:
    """As `_equilibrated`, of each file; ``together`` are those that are of one ensemble."""
    parts = [
        _equilibrated(series.values[begin:end], series.periods, discard)
        for begin, end in itertools.pairwise(series.starts)
    ]
    discarded, equilibrating, sizes, inefficiencies = map(list, zip(*parts, strict=True))
    if together and series.n_files > 1:
        left = [series.values[end - n : end] for end, n in zip(series.starts[1:], sizes, strict=True)]
        least = _spread_inefficiency(np.concatenate(left), series.periods, np.array(inefficiencies), np.array(sizes))
        inefficiencies = [max(inefficiency, least) for inefficiency in inefficiencies]
    return discarded, equilibrating, sizes, inefficiencies


def _check_enough(blocks: IntArray, windows: bool) -> None:
    """Two blocks, of each window or of all."""
    if (blocks < 2).any():
        which = f" of trajectory {int(blocks.argmin()) + 1}" if windows else ""
        raise InputError(
            f"all frames{which} make one independent block, so there is no error bar: give longer trajectories"
        )


def independent_blocks(
    series: Series,
    discard: int | Literal["auto"] = "auto",
    *,
    windows: bool = False,
    most_frames: int | None = None,
) -> Blocks:
    """Cut each trajectory's equilibration and divide the rest into blocks of several correlation times.

    Args:
        series: the series.
        discard: frames to cut from each trajectory, or ``auto``.
        windows: each trajectory is an umbrella window, with blocks of its own that are resampled by themselves.
        most_frames: to use in all, by taking every so many frames.

    Raises:
        InputError: nothing is left of a trajectory, or too little for a second block.
    """
    if discard != "auto" and not (
        isinstance(discard, int | np.integer) and not isinstance(discard, bool) and discard >= 0
    ):
        raise InputError(f"`discard` is {discard}: give auto or a number of frames")
    start, stop, stratum = list[int](), list[int](), list[int]()
    spans: list[FloatArray] = []
    discarded, equilibrating, sizes, inefficiencies = _of_files(series, discard, together=not windows)
    correlation = np.zeros(series.n_files if windows else 1)
    n_independent = 0.0
    for file, (begin, cut, n, inefficiency) in enumerate(
        zip(series.starts, discarded, sizes, inefficiencies, strict=False)
    ):
        shortest = n // MAX_BLOCKS_PER_WINDOW if windows else len(series.values) // MAX_BLOCKS
        count = max(int(n / max(MIN_BLOCK_LENGTH * inefficiency, shortest, 1)), min(2, n) if windows else 1)
        edges = begin + cut + np.arange(count + 1) * n // count
        start += edges[:-1].tolist()
        stop += edges[1:].tolist()
        stratum += [file if windows else 0] * count
        spans.append(np.stack([np.arange(count), np.arange(1, count + 1)], axis=1) / count)
        mine = file if windows else 0
        if count > 1:  # what is a block by itself correlates with no other
            correlation[mine] = max(correlation[mine], inefficiency * count / n)
        n_independent += n / inefficiency
    _check_enough(np.bincount(stratum), windows)
    n_kept = int(np.subtract(stop, start).sum())
    return Blocks(
        start=np.array(start),
        stop=np.array(stop),
        stride=1 if most_frames is None else -(-n_kept // most_frames),
        stratum=np.array(stratum),
        spans=np.concatenate(spans),
        discarded=discarded,
        equilibrating=equilibrating,
        inefficiency=inefficiencies,
        correlation=correlation,
        n_independent=n_independent,
    )
