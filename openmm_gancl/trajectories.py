"""Trajectories as series of collective variables: streamed, checked, cut and divided into independent blocks."""

import itertools
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from .collective_variables import CollectiveVariable, parse_cv
from .errors import InputError, first_line, quiet
from .trajectory_files import TIMED, load_topology, read_chunks, silent_readers
from .units import FloatArray, IntArray

BLOCK_LENGTH = 3.0
"""Statistical inefficiencies in a block, at least."""

MOST_BLOCKS = 200
MOST_BLOCKS_OF_A_WINDOW = 20

LONGEST_SERIES = 20_000
"""Frames, at most, that the search for equilibration looks at; a longer series is thinned out for it."""

RESOLVED = 5.0
"""Statistical inefficiency above which a thinned series still shows how its correlations decay."""

BROKEN_BOND = 1.0
"""nm; a longer bond crosses the box."""


@dataclass(frozen=True)
class Series:
    """Collective variables of the frames of one or more trajectories.

    Attributes:
        names: of the collective variables.
        periods: shape=(d,), ``inf`` where there is none.
        units: radians or nm; empty where it is not known.
        values: shape=(n, d), single precision.
        starts: shape=(n_files + 1,), where each trajectory begins; the last entry is n.
        time: shape=(n,), ps; None where the files hold none.
    """

    names: tuple[str, ...]
    periods: FloatArray
    units: tuple[str, ...]
    values: Any
    starts: IntArray
    time: Any = None

    @property
    def n_files(self) -> int:
        """How many trajectories."""
        return len(self.starts) - 1


def read_series(
    paths: Sequence[Path],
    top: Path,
    cvs: Sequence[str],
    *,
    stride: int = 1,
    progress: Callable[[], None] | None = None,
) -> Series:
    """Stream trajectories; what stays in memory is four bytes a frame and collective variable.

    Args:
        paths: files that mdtraj reads.
        top: their topology.
        cvs: as for `parse_cv`.
        stride: take every so many frames.
        progress: called once for each finished file.

    Raises:
        InputError: a file cannot be read, is of another molecule, or holds NaN.
    """
    if stride < 1:
        raise InputError(f"`stride` is {stride}: give at least 1")
    if not paths:
        raise InputError("no trajectory is given: name at least one file")
    topology = load_topology(top)
    variables = [parse_cv(cv, topology) for cv in cvs]
    timed = all(path.suffix in TIMED for path in paths)
    values, times, starts = array("f"), array("f"), [0]
    with silent_readers():
        for path in paths:
            done = 0
            for chunk in read_chunks(path, top, topology, stride):
                values.frombytes(_values(chunk, variables, path, done, stride).tobytes())
                if timed:
                    times.frombytes(np.asarray(chunk.time, dtype=np.float32).tobytes())
                done += len(chunk)
            if not done:
                raise InputError(f"{path} holds no frame: leave it out")
            starts.append(starts[-1] + done)
            if progress is not None:
                progress()
    return Series(
        names=tuple(variable.name for variable in variables),
        periods=np.array([variable.period for variable in variables]),
        units=tuple(variable.unit for variable in variables),
        values=np.frombuffer(values, dtype=np.float32).reshape(-1, len(variables)),
        starts=np.array(starts),
        time=np.frombuffer(times, dtype=np.float32) if timed else None,
    )


def _check_whole(chunk: Any, variable: CollectiveVariable, where: Callable[[int], str]) -> None:
    """Refuse a molecule that the box cuts in two, where the minimum image does not mend it."""
    if not len(variable.bonds) or (chunk.unitcell_lengths is not None and not variable.needs_whole):
        return
    lengths = np.linalg.norm(chunk.xyz[:, variable.bonds[:, 0]] - chunk.xyz[:, variable.bonds[:, 1]], axis=2)
    limit = BROKEN_BOND if chunk.unitcell_lengths is None else 0.5 * chunk.unitcell_lengths.min(axis=1, keepdims=True)
    broken = lengths > limit
    if broken.any():
        frame, bond = np.argwhere(broken)[0]
        a, b = variable.bonds[bond]
        raise InputError(
            f"{where(int(frame))}: the bond between atoms {a} and {b} is {lengths[frame, bond]:.2f} nm long, so the "
            f"molecule is cut by the box: make molecules whole (mdtraj's make_molecules_whole, say) for {variable.name}"
        )


def _values(chunk: Any, variables: Sequence[CollectiveVariable], path: Path, done: int, stride: int) -> Any:
    def where(row: int) -> str:
        return f"{path}, frame {(done + row) * stride}"

    used = np.unique(np.concatenate([variable.atoms for variable in variables]))
    bad = ~np.isfinite(chunk.xyz[:, used]).all(axis=(1, 2))
    if bad.any():
        raise InputError(f"{where(int(bad.argmax()))}: a coordinate is NaN or infinite: cut the trajectory before it")
    for variable in variables:
        _check_whole(chunk, variable, where)
    values = np.stack([np.asarray(variable.compute(chunk), dtype=np.float32) for variable in variables], axis=1)
    undefined = ~np.isfinite(values).all(axis=1)
    if undefined.any():
        row = int(undefined.argmax())
        name = variables[int(np.isfinite(values[row]).argmin())].name
        raise InputError(f"{where(row)}: {name} is not defined (atoms in line or on a spot)")
    return values


def read_log_weights(path: Path, n: int, stride: int = 1) -> FloatArray:
    """Log-weights of n frames, shape=(n,), from an npy or text file, or before a stride; -inf is a weight of zero."""
    return checked_log_weights(read_frame_values(path, n, "log-weights", stride), n, str(path))


def checked_log_weights(log_weights: Any, n: int, where: str) -> FloatArray:
    """Log-weights of n frames, shape=(n,), of which some are finite and none is NaN or plus infinity."""
    values = np.asarray(log_weights, dtype=float)
    if values.shape != (n,):
        raise InputError(f"{where} of shape {values.shape} for {n} frames: give one a frame")
    if np.isnan(values).any() or (values == np.inf).any() or not np.isfinite(values).any():
        raise InputError(f"{where} holds NaN or infinity: remove those frames")
    return values


def read_frame_values(path: Path, n: int | None, what: str = "numbers", stride: int = 1) -> FloatArray:
    """One number a frame from an npy or text file, shape=(n,); of any length if n is None; or one before a stride."""
    if not path.is_file():
        raise InputError(f"there is no file {path}: give the {what} of the frames")
    try:
        values = np.load(path, allow_pickle=False) if path.suffix == ".npy" else np.loadtxt(path)
        values = np.atleast_1d(np.asarray(values, dtype=float))
    except (OSError, ValueError, TypeError, EOFError) as error:
        raise InputError(f"{path}: cannot read {what} ({first_line(error)}): give an npy or text file") from None
    if values.size != values.shape[0]:
        raise InputError(f"{path} holds an array of shape {values.shape}: give one number a frame")
    values = values.ravel()
    if n is not None and len(values) != n and -(-len(values) // stride) == n:
        return values[::stride]
    if n is not None and len(values) != n:
        raise InputError(f"{path} has {len(values)} {what} for {n} frames: give one a frame")
    return values


@dataclass(frozen=True)
class Blocks:
    """Frames after equilibration, divided for the bootstrap.

    Attributes:
        start: shape=(n_blocks,), first frame of each block.
        stop: shape=(n_blocks,), the frame after its last.
        stride: every so many frames of a block are used.
        stratum: shape=(n_blocks,), 0 throughout, or the trajectory where each is a window of its own.
        spans: shape=(n_blocks, 2), where each block begins and ends, as fractions of its trajectory.
        discarded: frames cut from each file's beginning.
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
    return [column for column in columns if column.std() > 1e-9]


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

    A long series is looked at twice: thinned out for slow decays, and a consecutive part for fast ones.
    """
    thinning = -(-len(values) // LONGEST_SERIES)
    if thinning == 1:
        return _largest_inefficiency(values, periods)
    thinned = _largest_inefficiency(values[::thinning], periods)
    if thinned > RESOLVED:
        return thinned * thinning
    return min(_largest_inefficiency(values[-LONGEST_SERIES:], periods), thinned * thinning)


def equilibrated_from(values: Any, periods: FloatArray) -> int:
    """Where the most effective samples are left, frames (Chodera 2016, doi 10.1021/acs.jctc.5b00784)."""
    with quiet("pymbar"):
        from pymbar.timeseries import detect_equilibration

    thinning = -(-len(values) // LONGEST_SERIES)
    thin = values[::thinning]
    nskip = max(len(thin) // 40, 1)
    found = [detect_equilibration(column, fast=True, nskip=nskip) for column in _observables(thin, periods)]
    start = min(found, key=lambda result: result[2])[0] if found else 0  # the slowest observable decides
    return int(start) * thinning


def _equilibrated(values: FloatArray, periods: FloatArray, discard: int | Literal["auto"]) -> tuple[int, int, float]:
    """How many frames of a trajectory to cut, how many are left, and their statistical inefficiency."""
    cut = equilibrated_from(values, periods) if discard == "auto" else discard
    if cut >= len(values):
        raise InputError(f"`discard` of {cut} leaves nothing of a trajectory of {len(values)} frames: give less")
    return int(cut), len(values) - cut, _inefficiency(values[cut:], periods)


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
    if discard != "auto" and discard < 0:
        raise InputError(f"`discard` is {discard}: give auto or a number of frames")
    start: list[int] = []
    stop: list[int] = []
    stratum: list[int] = []
    spans: list[FloatArray] = []
    discarded, inefficiencies = [], []
    correlation = np.zeros(series.n_files if windows else 1)
    n_independent = 0.0
    for file, (begin, end) in enumerate(itertools.pairwise(series.starts)):
        cut, n, inefficiency = _equilibrated(series.values[begin:end], series.periods, discard)
        shortest = n // MOST_BLOCKS_OF_A_WINDOW if windows else len(series.values) // MOST_BLOCKS
        count = max(int(n / max(BLOCK_LENGTH * inefficiency, shortest, 1)), min(2, n) if windows else 1)
        edges = begin + cut + np.arange(count + 1) * n // count
        start += edges[:-1].tolist()
        stop += edges[1:].tolist()
        stratum += [file if windows else 0] * count
        spans.append(np.stack([np.arange(count), np.arange(1, count + 1)], axis=1) / count)
        discarded.append(cut)
        inefficiencies.append(inefficiency)
        mine = file if windows else 0
        correlation[mine] = max(correlation[mine], inefficiency * count / n)
        n_independent += n / inefficiency
    blocks = np.bincount(stratum)
    if (blocks < 2).any():
        which = f" of trajectory {int(blocks.argmin())}" if windows else ""
        raise InputError(
            f"all frames{which} make one independent block, so there is no error bar: give longer trajectories"
        )
    n_kept = int(np.subtract(stop, start).sum())
    return Blocks(
        start=np.array(start),
        stop=np.array(stop),
        stride=1 if most_frames is None else -(-n_kept // most_frames),
        stratum=np.array(stratum),
        spans=np.concatenate(spans),
        discarded=discarded,
        inefficiency=inefficiencies,
        correlation=correlation,
        n_independent=n_independent,
    )
