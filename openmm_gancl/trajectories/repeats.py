"""Frames that several files hold: copies are refused, and what a run repeats after a checkpoint counts once."""

import itertools
from collections.abc import Sequence

import numpy as np
from scipy.spatial import cKDTree

from ..coordinates.geometry import wrap
from ..errors import InputError
from ..units import BoolArray, FloatArray
from .frames import counts
from .series import Series

MIN_COPIED, N_PROBED, MAX_SEARCHED = 10, 32, 50_000_000
"""Frames that two files agree in, beyond chance; of the first of a file, that are searched in others; and frames times
files, up to which they are."""

N_COMPARED, MAX_PAIRS, MAX_ROUNDED = 64, 500, 0.1
"""Frames of two files that are compared as one run in two precisions; pairs of files, up to which they are; and how far
such frames may lie apart, over what differs from frame to frame and over how far they spread."""

MAX_ALIKE = 100
"""Frames of another file for one of those, in the coordinates, that tell nothing."""


def check_distinct(series: Series, names: Sequence[str]) -> None:
    """Refuse two files of the same frames: copies, which would count twice and make errors too small.

    Args:
        series: the frames of all files.
        names: of the files, for messages.

    Raises:
        InputError: two of them agree in every frame.
    """
    seen: dict[bytes, int] = {}
    for i, (begin, end) in enumerate(itertools.pairwise(series.starts)):
        values = series.values[begin:end]
        if len(values) < MIN_COPIED or not np.ptp(values, axis=0).any():
            continue
        first = seen.setdefault(np.ascontiguousarray(values).tobytes(), i)
        if first != i:
            raise InputError(f"{names[i]} holds the same frames as {names[first]}: give each run once")
    if series.n_files > 1 and series.n_files * len(series.values) < MAX_SEARCHED:
        for i in range(series.n_files):
            if (other := _holder(series, i)) is not None:
                raise InputError(f"{names[other]} holds frames of {names[i]} again: give each frame once")
    for i, j in _with_a_common_end(series):
        if _is_rounded_copy(series, i, j):
            raise InputError(
                f"{names[i]} and {names[j]} hold the same run, one of them rounded or thinned out: give each run once"
            )


def _with_a_common_end(series: Series) -> list[tuple[int, int]]:
    """Pairs of files whose first or whose last frames are close to each other; none where a coordinate counts."""
    if series.n_files < 2 or any(counts(column, series.starts) for column in series.values.T):
        return []
    spread = MAX_ROUNDED * np.asarray(series.values, dtype=float).std(axis=0).clip(min=1e-12)
    box = np.where(np.isfinite(series.periods), series.periods / spread, 0.0)
    pairs: set[tuple[int, int]] = set()
    for ends in (series.starts[:-1], series.starts[1:] - 1):
        places = series.values[ends] / spread
        places = np.where(box > 0.0, places % np.where(box > 0.0, box, 1.0), places)
        places[(places >= box) & (box > 0.0)] = 0.0  # of a tiny negative one
        pairs |= cKDTree(places, boxsize=box).query_pairs(1.0)
    return sorted(pairs)[:MAX_PAIRS]


def _is_rounded_copy(series: Series, i: int, j: int) -> bool:
    """Whether two files hold one run: one of them a part of the other from an end, or every so many of its frames."""
    longer, shorter = sorted(
        (np.asarray(series.values[series.starts[k] : series.starts[k + 1]], dtype=float) for k in (i, j)),
        key=len,
        reverse=True,
    )
    n = len(shorter)
    if n < 2 * MIN_COPIED:
        return False

    def apart(one: FloatArray, other: FloatArray) -> FloatArray:
        return np.asarray(np.median(np.abs(wrap(one - other, series.periods)), axis=0))

    steps = {len(longer) // n, -(-len(longer) // n)}
    for step, first in {(1, 0), (1, len(longer) - n), *((k, i) for k in steps for i in (0, k - 1))}:
        thinned = longer[first::step][:n]
        if len(thinned) < 0.9 * n:
            continue
        at = np.linspace(0, len(thinned) - 2, N_COMPARED).astype(int)
        places = thinned[at], shorter[at]
        moves = tuple(wrap(part[at + 1] - part[at], series.periods) for part in (thinned, shorter))
        if all(
            (apart(here, there) < MAX_ROUNDED * apart(here, np.roll(there, N_COMPARED // 3, axis=0))).all()
            for here, there in (places, moves)
        ):
            return True
    return False


def _holder(series: Series, i: int) -> int | None:
    """Another file that holds the first frames of a file one after the other, in even steps; None without one.

    A part that begins within the one before it and goes on after its end is no such file: `without_repeats`.
    """
    begin, end = series.starts[i : i + 2]
    probe = np.asarray(series.values[begin : min(end, begin + N_PROBED)])
    if len(np.unique(probe, axis=0)) < MIN_COPIED:
        return None
    places = np.flatnonzero(np.isin(series.values[:, 0], probe[:, 0]))
    places = places[(places < begin) | (places >= end)]
    file = np.searchsorted(series.starts, places, side="right") - 1
    for other in np.unique(file).tolist():
        mine = places[file == other]
        if len(mine) > MAX_ALIKE * len(probe):
            continue  # a coordinate that is counted or rounded
        same = (series.values[mine][None] == probe[:, None]).all(axis=2)
        once = same.sum(axis=1) == 1
        if once.sum() < max(MIN_COPIED, 0.5 * len(probe)):
            continue
        steps = np.diff(mine[same[once].argmax(axis=1)]) / np.diff(np.flatnonzero(once))
        rest = series.starts[other + 1] - mine[same[once].argmax(axis=1)][0]
        goes_on = other == i - 1 and steps[0] == 1 and end - begin >= rest
        if steps[0] > 0 and (steps == steps[0]).all() and not goes_on:
            return int(other)
    return None


def without_repeats(series: Series) -> BoolArray:
    """Frames to keep, shape=(n,): not those at the end of a trajectory with which the next one begins.

    So do parts of a run that went on from a checkpoint, where the program repeats what it did.
    """
    kept = np.ones(len(series.values), dtype=bool)
    parts = list(itertools.pairwise(series.starts.tolist()))
    for (begin, end), (start, stop) in itertools.pairwise(parts):
        same = (series.values[begin:end] == series.values[start]).all(axis=1)
        for first in (begin + np.flatnonzero(same)).tolist():
            repeated = series.values[first:end]
            n = len(repeated)
            if (
                MIN_COPIED <= n <= stop - start
                and np.array_equal(repeated, series.values[start : start + n])
                and len(np.unique(repeated, axis=0)) >= MIN_COPIED  # else a coordinate that hardly moves
            ):
                kept[first:end] = False
                break
    return kept
