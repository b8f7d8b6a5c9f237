"""Which row of a COLVAR file belongs to which frame of a trajectory: by time, by count, by what both of them hold.

Where a table holds a collective variable that is also computed from the frames, the two must agree: that decides
between readings, and tells when none of them is right.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from ..coordinates.geometry import wrap
from ..errors import InputError
from ..units import FloatArray, IntArray
from .bias_checks import MAX_ROUGHNESS, MUCH_SMOOTHER, nearest_neighbours, usual_difference
from .colvar import Colvar
from .series import Series
from .tables import is_bias, is_variable

TOLERANCES = {"radians": 0.1, "nm": 0.01}
"""Medians of differences, below which a column is the collective variable that is computed."""

SCALES = {"radians": (1.0, np.pi / 180), "nm": (1.0, 0.1)}
"""Of the units that a column may be in."""

MAX_COMPARED = 5000
"""Frames, evenly taken, that a column is compared at."""

MUCH_BETTER = 0.5
"""Of a difference, that another reading must stay below to be preferred to an earlier one: rows next to each other are
alike."""

MAX_WITHOUT_ROW = 0.01
"""Of a trajectory's frames, at its end, that a run which was killed may have left without a row."""

MIN_SPREAD = 2.5
"""Tolerances that a collective variable must vary by, for an agreement to mean something."""

MIN_SEARCHED, N_CONSECUTIVE = 0.2, 20
"""Tolerances of difference from which on rows are searched by their values, and frames in the middle of a part that are
searched for."""

MIN_INSIDE = 0.9
"""Of a part's frames, that must have rows where these are searched."""

MAX_QUANTILE_DIFFERENCE = 0.1
"""Of the spread over the root of the number of frames, below which two sets of values are the same."""

NAMED_ALIKE = ("phi", "psi", "omega", "chi1", "rg", "rmsd")


@dataclass(frozen=True)
class FrameRows:
    """Rows of frames.

    Attributes:
        rows: shape=(n,), one for each frame; -1 for a frame that has none, and is to be left out.
        notes: how they were found, where that is not by time or one by one.
        doubts: why the two may not belong together.
    """

    rows: IntArray
    notes: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class _Reading:
    """One way to match: its rows, what to say of it, whether it holds without further evidence, and is a doubt."""

    rows: IntArray
    note: str = ""
    sure: bool = True
    odd: bool = False


def _tolerance(times: FloatArray) -> FloatArray:
    """Single precision of the trajectory's times, and no more, ps."""
    return np.asarray(1e-3 + 1e-6 * np.abs(times))


def _nearest(frame_times: FloatArray, row_times: FloatArray) -> tuple[IntArray, int | None]:
    """The row nearest in time to each frame, shape=(n,), and the first frame that has none."""
    right = np.clip(np.searchsorted(row_times, frame_times), 1, max(len(row_times) - 1, 1))
    left, right = right - 1, np.minimum(right, len(row_times) - 1)
    nearest = np.where(frame_times - row_times[left] < row_times[right] - frame_times, left, right)
    missed = np.abs(row_times[nearest] - frame_times) > _tolerance(frame_times)
    return np.asarray(nearest), int(missed.argmax()) if missed.any() else None


def _by_time(rows: IntArray, times: FloatArray, frame_times: FloatArray) -> Iterator[_Reading]:
    """Times that agree, or differ by a constant."""
    if len(rows) == len(frame_times) and np.ptp(frame_times - times) < 2 * _tolerance(frame_times).max():
        yield _Reading(rows)
    if (np.diff(frame_times) >= 0).all() and (np.diff(times) >= 0).all():
        nearest, missed = _nearest(frame_times, times)
        if missed is None:
            yield _Reading(rows[nearest])
            return
        left = len(frame_times) - missed
        if left <= max(1, MAX_WITHOUT_ROW * len(frame_times)) and frame_times[missed] > times[-1] and missed > 1:
            there = np.where(np.arange(len(frame_times)) < missed, rows[nearest], -1)
            yield _Reading(there, f"{left} frames after its last row are left out")


def _counts_frames(times: FloatArray | None) -> bool:
    """Whether a table's times are those of ``plumed driver``, which counts frames."""
    return times is not None and len(times) > 1 and bool(np.allclose(times, np.arange(len(times)) + times[0]))


def _by_count(rows: IntArray, times: FloatArray | None, n: int, stride: int, timeless: bool) -> Iterator[_Reading]:
    """One row a frame, one more at the start, or several a frame; sure where no times could tell better."""
    m = len(rows)
    counts = _counts_frames(times)
    one = "its times count frames, as plumed driver's do: row i is taken for frame i" if counts else ""
    if m == n:
        yield _Reading(rows, "" if timeless else one or "row i is taken for frame i", timeless or counts)
    if stride > 1 and -(-m // stride) == n:
        yield _Reading(rows[::stride], "" if timeless else one, timeless or counts)
    if counts and m > n * stride:
        yield _Reading(rows[: n * stride : stride], f"{one}, and later rows are left out", False)
    if stride == 1 and m == n - 1:
        for there in (np.append(-1, rows), np.append(rows, -1)):
            yield _Reading(there, "one frame has no row and is left out", False)
    if m == n + 1:
        yield _Reading(rows[:-1], "its last row is of after the last frame and is left out", False)
    if -(-(m - 1) // stride) == n:
        note = "its first row is of before the first frame and is left out"
        yield _Reading(rows[1::stride], note, timeless and (times is None or abs(times[0]) < 1e-9))
    if stride > 1 or n < 2:
        return
    every = "it has {} rows a frame: every {}th is taken"
    k, left = divmod(m - 1, n)
    if k > 1 and not left:
        yield _Reading(rows[k::k], f"{every.format(k, k)}, the first row being of before the first frame", timeless)
    k, left = divmod(m, n)
    if k > 1 and not left:
        # the first row at time zero is of before the first frame, which the last rows then lack
        at_zero = times is not None and abs(times[0]) < 1e-9
        yield _Reading(rows[k - 1 :: k], every.format(k, k), timeless and not at_zero and times is not None)
        yield _Reading(rows[::k], f"{every.format(k, k)}, from the first", False)
        yield _Reading(
            np.append(rows[k::k], -1), f"{every.format(k, k)}, and the last frame, which has none, left out", False
        )
    k, left = divmod(m - 1, n - 1)
    if k > 1 and not left:
        yield _Reading(rows[::k], f"{every.format(k, k)}, from the first", timeless)


def _quantile_difference(first: FloatArray, second: FloatArray, moved: int) -> float:
    """Between sorted values, below which nine of ten differ, the second ones moved by some places."""
    n = len(first)
    differences = np.abs(first[max(moved, 0) : n + min(moved, 0)] - second[max(-moved, 0) : n - max(moved, 0)])
    return float(np.quantile(differences, 0.9)) if len(differences) else np.inf


@dataclass(frozen=True)
class _Evidence:
    """Columns of a table that may be collective variables computed from the frames."""

    colvar: Colvar
    series: Series

    def _columns(self, i: int) -> list[int]:
        """Those that could be the i-th computed one."""
        found = []
        for j, name in enumerate(self.colvar.fields):
            if not is_variable(name) or not self.colvar.is_sound(name):
                continue
            periodic = f"min_{name}" in self.colvar.settings[0]
            if periodic == bool(np.isfinite(self.series.periods[i])) or not periodic:
                found.append(j)
        return found

    def _difference(self, rows: IntArray, frames: slice, i: int, j: int) -> float:
        """Median difference between a column and a computed variable, in tolerances."""
        there = np.flatnonzero(rows >= 0)
        there = there[:: max(len(there) // MAX_COMPARED, 1)]
        if not len(there):
            return np.inf
        unit, period = self.series.units[i], self.series.periods[i]
        computed = np.asarray(self.series.values[frames, i], dtype=float)[there]
        values = self.colvar.rows[rows[there], j]
        return min(
            float(np.median(np.abs(wrap(scale * values - computed, period)))) / TOLERANCES[unit]
            for scale in SCALES[unit]
        )

    def _moving(self, frames: slice) -> list[int]:
        """Computed variables that vary enough to be recognised."""
        moving = []
        for i, unit in enumerate(self.series.units):
            values = np.asarray(self.series.values[frames, i], dtype=float)
            spread = np.median(np.abs(wrap(values - values[0], self.series.periods[i])))
            if unit in TOLERANCES and spread > MIN_SPREAD * TOLERANCES[unit]:
                moving.append(i)
        return moving

    def distance(self, rows: IntArray, frames: slice) -> float:
        """How far the column that is nearest to a computed variable is from it; below 1 it is that variable."""
        found = [self._difference(rows, frames, i, j) for i in self._moving(frames) for j in self._columns(i)]
        return min(found, default=np.inf)

    def by_values(self, rows: IntArray, frames: slice, stride: int) -> Iterator[_Reading]:
        """Rows that follow the computed variables from a place that is searched for, frames beyond them left out."""
        n = frames.stop - frames.start
        middle, length = n // 2, min(N_CONSECUTIVE, n - n // 2)
        for i, j in itertools.product(self._moving(frames), range(len(self.colvar.fields))):
            if j not in self._columns(i):
                continue
            wanted = np.asarray(self.series.values[frames, i], dtype=float)[middle : middle + length]
            column, period = self.colvar.rows[rows, j], self.series.periods[i]
            for step, scale in itertools.product(
                dict.fromkeys([stride, max(round(len(rows) / n), 1)]), SCALES[self.series.units[i]]
            ):
                reach = step * (length - 1) + 1
                if reach > len(rows):
                    continue
                there = np.lib.stride_tricks.sliding_window_view(column, reach)[:, ::step]
                begin = int(np.abs(wrap(scale * there - wanted, period)).mean(axis=1).argmin())
                places = begin + step * (np.arange(n) - middle)
                inside = (places >= 0) & (places < len(rows))
                if inside.mean() < MIN_INSIDE:
                    continue
                found = np.where(inside, rows[np.clip(places, 0, len(rows) - 1)], -1)
                name, left = self.colvar.fields[j], int((~inside).sum())
                note = f"its {name} is that of the frames from row {max(int(places[0]), 0)} on"
                yield _Reading(
                    found, f"{note}, {left} frames beyond its rows are left out" * bool(left) or note, False, True
                )

    def roughness(self, rows: IntArray, frames: slice) -> float:
        """Of the smoothest bias column over the computed variables; infinite without one."""
        there = np.flatnonzero(rows >= 0)
        there = there[:: max(len(there) // MAX_COMPARED, 1)]
        names = [name for name in self.colvar.fields if is_bias(name) and self.colvar.is_sound(name)]
        if not names or len(there) < 3:
            return np.inf
        values = np.asarray(self.series.values[frames], dtype=float)[there]
        neighbour = nearest_neighbours(values, self.series.periods)
        found = []
        for name in names:
            bias = self.colvar.column(name)[rows[there]]
            usual = usual_difference(bias)
            found.append(float(np.median(np.abs(bias - bias[neighbour]))) / usual if usual > 0 else np.inf)
        return min(found)

    def check_order(self, rows: IntArray, frames: slice) -> None:
        """Refuse a column that holds the values of a computed variable, in the order of other frames.

        Raises:
            InputError: it does.
        """
        n = frames.stop - frames.start
        if len(rows) != n:
            return
        for i in self._moving(frames):
            computed = np.sort(np.asarray(self.series.values[frames, i], dtype=float))
            for j, scale in itertools.product(self._columns(i), SCALES[self.series.units[i]]):
                values = np.sort(wrap(scale * self.colvar.rows[rows, j], self.series.periods[i]))
                limit = MAX_QUANTILE_DIFFERENCE * float(computed.std()) / np.sqrt(n)
                # a value next to the edge of the period may be rounded to its other side, which moves all between
                if min(_quantile_difference(values, computed, moved) for moved in range(-3, 4)) < limit:
                    raise InputError(
                        f"{self.colvar.fields[j]} of {self.colvar.path} holds the values of {self.series.names[i]} in "
                        "the order of other frames: give trajectories and tables in the order of their times"
                    )

    def contradiction(self, rows: IntArray, frames: slice) -> str:
        """A column that is called as a computed variable, and is another; empty if there is none."""
        for i in self._moving(frames):
            kind = self.series.names[i].partition(":")[0]
            alike = [j for j in self._columns(i) if self.colvar.fields[j].lower().startswith(kind)]
            if kind not in NAMED_ALIKE or not alike:
                continue
            names = ", ".join(self.colvar.fields[j] for j in alike)
            least = min(self._difference(rows, frames, i, j) for j in alike)
            if least > 1:
                size = least * TOLERANCES[self.series.units[i]]
                return (
                    f"{names} of {self.colvar.path} and {self.series.names[i]} of the frames differ by {size:.2g} "
                    f"{self.series.units[i]} in the median: check that rows and frames, or atoms, are the same"
                )
        return ""


def _refusal(message: str, times: FloatArray | None, frame_times: FloatArray | None, readings: int) -> InputError:
    if frame_times is None or times is None:
        if readings:
            return InputError(
                f"{message}, and the trajectories hold no times to match them by, which could be done in several ways: "
                "write both with one stride, or give trajectories that hold times (XTC)"
            )
        return InputError(
            f"{message}, and the trajectories hold no times to match them by: write both with one stride, "
            "or give trajectories that hold times (XTC)"
        )
    if (np.diff(frame_times) < 0).any():
        return InputError(f"{message}, and the times of the frames start anew: give one COLVAR for each trajectory")
    if (np.diff(times) < 0).any():
        return InputError(f"{message}, and its times start anew: give each run's rows in a file of its own")
    missed = _nearest(frame_times, times)[1] or 0
    return InputError(
        f"{message}, and no row at the time of the frame at {frame_times[missed]:g} ps: "
        "give the COLVAR of these trajectories, or one of as many rows"
    )


def _beside(reading: _Reading) -> Iterator[_Reading]:
    """The same, each frame taken for the one before or after."""
    if (reading.rows >= 0).all():
        yield _Reading(
            np.append(reading.rows[1:], -1), "row i + 1 is taken for frame i, the last frame is left out", False, True
        )
        yield _Reading(
            np.append(-1, reading.rows[:-1]), "row i is taken for frame i + 1, the first frame is left out", False, True
        )


def _smoothest(evidence: _Evidence, readings: list[_Reading], frames: slice) -> _Reading | None:
    """The first sure reading, or another one with which a bias is a function of the frames' collective variables."""
    sure = next((reading for reading in readings if reading.sure), None)
    candidates = [*readings, *(_beside(sure) if sure else ())]
    found = [evidence.roughness(reading.rows, frames) for reading in candidates]
    if not found or not min(found) < MAX_ROUGHNESS:
        return sure
    best = candidates[int(np.argmin(found))]
    if sure is not None and found[readings.index(sure)] < MUCH_SMOOTHER * min(found):
        return sure
    reason = "as its bias is a function of the frames' collective variables only so"
    return replace(best, note=f"{best.note}, {reason}" if best.note else reason)


def _matched(evidence: _Evidence, rows: IntArray, frames: slice, stride: int) -> tuple[_Reading, str]:
    """The reading that holds for a part, and a doubt about it."""
    colvar, series = evidence.colvar, evidence.series
    n = frames.stop - frames.start
    times = None if colvar.time is None else colvar.time[rows]
    frame_times = None if series.time is None else np.asarray(series.time[frames], dtype=float)
    if frame_times is not None and n > 1 and np.ptp(frame_times) == 0:
        frame_times = None  # nothing was written
    timeless = times is None or frame_times is None
    readings = list(_by_time(rows, times, frame_times)) if times is not None and frame_times is not None else []
    readings += _by_count(rows, times, n, stride, timeless)
    distances = [evidence.distance(reading.rows, frames) for reading in readings]
    searched: list[_Reading] = []
    if min(distances, default=np.inf) > MIN_SEARCHED:
        searched = list(evidence.by_values(rows, frames, stride))
        distances += [evidence.distance(reading.rows, frames) for reading in searched]
    least, every = min(distances, default=np.inf), readings + searched
    agreeing = (r for r, d in zip(every, distances, strict=True) if d < 1 and MUCH_BETTER * d <= least + 1e-3)
    chosen = next(agreeing, None)
    if chosen is None:
        evidence.check_order(rows, frames)
        chosen = _smoothest(evidence, readings, frames)
    if chosen is None:
        message = f"{colvar.path} has {len(rows)} rows for {n} frames"
        raise _refusal(message, times, frame_times, len(readings))
    if least >= 1 and not timeless and _counts_frames(times) and not _counts_frames(frame_times) and not chosen.note:
        note = "its times, 0, 1, 2 ..., are taken for ps: if they count frames (plumed driver), give these rows alone"
        chosen = replace(chosen, note=note)
    sure = next((reading for reading in readings if reading.sure), None)
    if chosen.odd and sure is not None:
        by_rule = evidence.contradiction(sure.rows, frames) or f"{colvar.path} and the frames do not agree row by row"
        return chosen, f"{by_rule}; {chosen.note}"
    return chosen, evidence.contradiction(chosen.rows, frames)


def _of_one_run(colvar: Colvar, series: Series) -> FrameRows | None:
    """Rows of a run in several trajectories, each begun from a checkpoint before the end of the last; None if not so.

    The rows after the checkpoint are of the later trajectory, so that the frames of the earlier one are left out.
    """
    if series.time is None or colvar.time is None or (np.diff(colvar.time) < 0).any():
        return None
    times = np.asarray(series.time, dtype=float)
    begins = times[series.starts[:-1]]
    if not ((np.diff(begins) > 0).all() and (np.diff(times) < 0).any()):
        return None
    later = np.repeat(np.append(begins[1:], np.inf), np.diff(series.starts))
    kept = times < later - _tolerance(times)
    if kept.mean() < 0.5 or (np.diff(times[kept]) < 0).any():
        return None
    nearest, missed = _nearest(times[kept], colvar.time)
    if missed is not None:
        return None
    rows = np.full(len(times), -1)
    rows[kept] = nearest
    note = f"{int((~kept).sum())} frames after a checkpoint from which the next trajectory begins are left out"
    doubt = _Evidence(colvar, series).contradiction(rows, slice(0, len(times)))
    return FrameRows(rows, (note,), (doubt,) if doubt else ())


def _check_table(evidence: _Evidence, table_of_row: IntArray, table: int, reading: _Reading, frames: slice) -> None:
    """Refuse a table that does not agree with its frames where another one does.

    Raises:
        InputError: the tables are in another order than the trajectories.
    """
    if table_of_row[-1] == 0 or evidence.distance(reading.rows, frames) < 1:
        return
    for other in range(int(table_of_row[-1]) + 1):
        rows = np.flatnonzero(table_of_row == other)
        if other != table and len(rows) == frames.stop - frames.start and evidence.distance(rows, frames) < 1:
            colvar = evidence.colvar
            right, wrong = (colvar.paths[colvar.file[np.flatnonzero(table_of_row == k)[0]]] for k in (other, table))
            raise InputError(
                f"{right} agrees with the frames that {wrong} is given for: give tables in the trajectories' order"
            )


def rows_of_frames(colvar: Colvar, series: Series, stride: int = 1) -> FrameRows:
    """The row of each frame: file by file, run by run, or one table for all of them.

    Args:
        colvar: the tables.
        series: the frames, with the collective variables that are computed.
        stride: that the trajectories were read with.

    Raises:
        InputError: the rows are not one a frame and nothing determines which belong together.
    """
    n_tables, n_runs = len(colvar.paths), int(colvar.run[-1]) + 1
    table_of_row = colvar.file if series.n_files == n_tables else colvar.run
    if series.n_files not in (n_tables, n_runs):
        if n_tables > 1 and series.n_files > 1:
            raise InputError(f"{n_tables} COLVAR files for {series.n_files} trajectories: give one, or one each")
        table_of_row = np.zeros(len(colvar.run), dtype=np.int64)
        if n_runs == 1 and (joined := _of_one_run(colvar, series)) is not None:
            return joined
    ends = series.starts if table_of_row[-1] else series.starts[[0, -1]]
    evidence, chosen = _Evidence(colvar, series), []
    notes: dict[str, None] = {}
    doubts: dict[str, None] = {}
    for table, (begin, end) in enumerate(itertools.pairwise(ends)):
        rows, frames = np.flatnonzero(table_of_row == table), slice(int(begin), int(end))
        reading, doubt = _matched(evidence, rows, frames, stride)
        _check_table(evidence, table_of_row, table, reading, frames)
        chosen.append(reading.rows)
        notes |= {f"{colvar.paths[colvar.file[rows[0]]]}: {reading.note}": None} if reading.note else {}
        doubts |= {doubt: None} if doubt else {}
    return FrameRows(np.concatenate(chosen), tuple(notes), tuple(doubts))
