"""Trajectories as series of collective variables: streamed, and checked."""

import itertools
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError, first_line
from ..files import load_arrays
from ..units import FloatArray, IntArray, numbers
from .arguments import is_trajectory, stride_of, trajectories_of, words_of

if TYPE_CHECKING:
    from ..coordinates.specification import CollectiveVariable
    from .bonds import BondCheck

MAX_LOG_WEIGHT = 50.0
"""Above the median, beyond which numbers are hardly logarithms of weights."""

MIN_TIMES = 3
"""Frames of a trajectory, that tell whether times go with each other."""


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
        labels: of the coordinates, as a paper would print them; empty where they are the names.
        resolved: the atoms that each depends on, as the topology's file names them; empty where they are not known.
        doubts: whether these atoms are the ones that are meant.
    """

    names: tuple[str, ...]
    periods: FloatArray
    units: tuple[str, ...]
    values: Any
    starts: IntArray
    time: Any = None
    labels: tuple[str, ...] = ()
    resolved: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()

    @property
    def n_files(self) -> int:
        """How many trajectories."""
        return len(self.starts) - 1

    def after(self, i: int) -> str:
        """What follows a number of coordinate i in a sentence: a blank and its unit; nothing if unknown."""
        return f" {self.units[i]}" if self.units[i] else ""


def read_series(
    paths: Any,
    top: Any,
    cvs: str | Sequence[str],
    *,
    stride: int = 1,
    progress: Callable[[], None] | None = None,
) -> Series:
    """Stream trajectories; what stays in memory is four bytes a frame and collective variable.

    Args:
        paths: files that mdtraj reads, or mdtraj.Trajectory, one or several.
        top: their topology: a file, mdtraj.Topology or mdtraj.Trajectory.
        cvs: one or several, as for `parse_cv`.
        stride: take every so many frames.
        progress: called once for each finished file.

    Raises:
        InputError: a file cannot be read, is of another molecule, or holds NaN.
    """
    from ..coordinates.specification import parse_cv
    from .bonds import BondCheck, counted_from_one
    from .files import FORMATS_WITH_TIMES, read_chunks
    from .topologies import load_topology, suffix_of

    paths, cvs, stride = trajectories_of("paths", paths), words_of("cvs", cvs), stride_of("stride", stride)
    if not paths:
        raise InputError("no trajectory is given: name at least one file")
    topology = load_topology(top)
    variables = [parse_cv(cv, topology) for cv in cvs]
    check = BondCheck(variables, topology)
    timed = all(not is_trajectory(path) and suffix_of(path) in FORMATS_WITH_TIMES for path in paths)
    values, times, starts = array("f"), array("f"), [0]
    for path in paths:
        done = 0
        for chunk in read_chunks(path, topology, stride):
            values.frombytes(_values(chunk, variables, check, path, done, stride).tobytes())
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
        labels=tuple(variable.label for variable in variables),
        resolved=tuple(variable.resolved for variable in variables),
        doubts=(*counted_from_one(variables, topology), *(check.doubts or ())),
    )


def _values(
    chunk: Any, variables: Sequence["CollectiveVariable"], check: "BondCheck", path: Path, done: int, stride: int
) -> Any:
    def where(row: int) -> str:
        return f"{path}, frame {(done + row) * stride}"

    used = np.unique(np.concatenate([variable.atoms for variable in variables]))
    bad = ~np.isfinite(chunk.xyz[:, used]).all(axis=(1, 2))
    if bad.any():
        raise InputError(f"{where(int(bad.argmax()))}: a coordinate is NaN or infinite: cut the trajectory before it")
    check(chunk, where)
    values = np.stack([np.asarray(variable.compute(chunk), dtype=np.float32) for variable in variables], axis=1)
    undefined = ~np.isfinite(values).all(axis=1)
    if undefined.any():
        row = int(undefined.argmax())
        name = variables[int(np.isfinite(values[row]).argmin())].name
        raise InputError(f"{where(row)}: {name} is not defined (atoms in line or on a spot)")
    return values


@dataclass(frozen=True)
class FrameTimes:
    """Of frames, ps, shape=(n,), by trajectories that begin at ``starts``."""

    times: FloatArray
    starts: IntArray

    def check(self, path: Path, own: FloatArray) -> None:
        """Refuse numbers of the same frames in another order: their times do not go with those of the frames.

        They may count from elsewhere, or in another unit.

        Raises:
            InputError: they are of other frames.
        """
        moved = np.abs(own - self.times) > 1e-3 + 1e-6 * np.abs(own)
        if moved.any() and np.allclose(np.sort(own), np.sort(self.times), rtol=1e-6, atol=1e-3):
            raise self._refusal(path, own, int(moved.argmax()))
        for begin, end in itertools.pairwise(self.starts.tolist()):
            there, mine = np.asarray(self.times[begin:end], dtype=float), own[begin:end]
            if len(there) < MIN_TIMES or not np.ptp(there):
                continue
            slope, first = np.polyfit(there - there[0], mine, 1)
            off = np.abs(mine - first - slope * (there - there[0]))
            step = abs(slope) * np.ptp(there) / (len(there) - 1)
            if slope <= 0 or (off > step).any():
                raise self._refusal(path, own, begin + int(off.argmax()))

    def _refusal(self, path: Path, own: FloatArray, row: int) -> InputError:
        return InputError(
            f"{path}: number {row} is of time {own[row]:g}, frame {row} of {self.times[row]:g}: give them in the order "
            "of the frames, one each"
        )


def read_log_weights(given: Any, n: int, stride: int = 1, frames: FrameTimes | None = None) -> FloatArray:
    """Log-weights of n frames, shape=(n,): an array or a file, of all frames before a stride too; -inf is a zero."""
    of_file = isinstance(given, str | Path)
    where = str(given) if of_file else "log_weights"
    values = checked_log_weights(
        read_frame_values(Path(given), n, "log-weights", stride, frames) if of_file else given, n, where
    )
    if _looks_like_weights(values):
        raise InputError(
            f"{where} holds numbers from {values.min():.3g} to {values.max():.3g}, as weights are, not their "
            "logarithms: give them by `weights`; if they are logarithms, subtract the same number from all of them"
        )
    return values


def checked_log_weights(log_weights: Any, n: int, where: str) -> FloatArray:
    """Log-weights of n frames, shape=(n,), of which some are finite and none is NaN or plus infinity."""
    if (unit := getattr(log_weights, "unit", None)) is not None and not unit.is_dimensionless():
        raise InputError(f"{where} is in {unit}: log-weights are energies over kT: divide by it")
    values = numbers(log_weights)
    if values.shape != (n,):
        raise InputError(f"{where} of shape {values.shape} for {n} frames: give one a frame")
    if np.isnan(values).any() or (values == np.inf).any() or not np.isfinite(values).any():
        raise InputError(f"{where} holds NaN or infinity: remove those frames")
    return values


def read_weights(
    weights: FloatArray | str | Path, n: int, stride: int = 1, frames: FrameTimes | None = None
) -> FloatArray:
    """Log-weights of n frames, shape=(n,), from weights, an array or an npy or text file; some may be zero."""
    where = str(weights) if isinstance(weights, str | Path) else "weights"
    if isinstance(weights, str | Path):
        weights = read_frame_values(Path(weights), n, "weights", stride, frames)
    values = numbers(weights)
    if (values < 0).any():
        raise InputError(f"{where} holds negative numbers, as logarithms do: give them by `log_weights`")
    if values.size and not values.any():
        raise InputError(f"{where}: all weights are zero: give those that undo the bias")
    with np.errstate(divide="ignore"):
        return checked_log_weights(np.log(values), n, where)


def weight_notes(log_weights: FloatArray) -> tuple[str, ...]:
    """That weights may be logarithms: neither normalised nor as uneven as factors exp(V / kT) are."""
    values = np.exp(log_weights)
    normalised = any(np.isclose(size, 1.0, rtol=1e-4) for size in (values.sum(), values.mean(), values.max()))
    if normalised or np.ptp(values) == 0 or values.max() < 1.0 or values.max() > 10 * np.median(values):
        return ()
    return ("the weights are hardly uneven and not normalised: if they are logarithms, give them by `log_weights`",)


def is_normalised(values: FloatArray) -> bool:
    """Whether numbers, none of them negative and not all alike, have a sum, mean or maximum of one."""
    if values.min() < 0 or not np.isfinite(values).all() or np.ptp(values) == 0:
        return False
    return any(np.isclose(size, 1.0, rtol=1e-4) for size in (values.sum(), values.mean(), values.max()))


def _looks_like_weights(values: FloatArray) -> bool:
    """Whether numbers are weights themselves: none negative, and normalised, or too uneven for logarithms."""
    if values.min() < 0 or not np.isfinite(values).all() or np.ptp(values) == 0:
        return False
    small = values.max() < 1.0 and 0.0 < np.median(values) < 0.3 * values.max()
    return bool(is_normalised(values) or small or values.max() - np.median(values) > MAX_LOG_WEIGHT)


def read_frame_values(
    path: Path, n: int | None, what: str = "numbers", stride: int = 1, frames: FrameTimes | None = None
) -> FloatArray:
    """One number a frame from an npy or text file, shape=(n,); of any length if n is None; or one before a stride.

    Where the file and the frames have times, they are compared.
    """
    own = None
    if not path.is_file():
        raise InputError(f"there is no file {path}: give the {what} of the frames")
    if path.suffix == ".npy":
        stored = load_arrays(path)
        try:
            with np.errstate(invalid="ignore"):  # a NaN of single precision may be one that processors signal
                values = np.atleast_1d(np.asarray(stored, dtype=float))
        except (ValueError, TypeError) as error:
            raise InputError(f"{path}: cannot read {what} ({first_line(error)}): give an npy or text file") from None
    else:
        values, own = _text_values(path, what)
    if values.size != values.shape[0] or not values.size:
        raise InputError(f"{path} holds an array of shape {values.shape}: give one number a frame")
    values = values.ravel()
    if n is not None and len(values) != n and -(-len(values) // stride) == n:
        values, own = values[::stride], own if own is None else own[::stride]
    if n is not None and len(values) != n:
        raise InputError(f"{path} has {len(values)} {what} for {n} frames: give one a frame")
    if frames is not None and own is not None:
        frames.check(path, own)
    return values


def _text_values(path: Path, what: str) -> tuple[FloatArray, FloatArray | None]:
    """The only column of a text file, or that beside the time, and the times."""
    from .tables import check_series, read_table

    try:
        table = read_table(path)
    except InputError as error:
        raise InputError(f"{path}: cannot read {what} ({error}): give an npy or text file") from None
    check_series(table)
    columns = [i for i in range(len(table.names)) if i != table.time]
    times = None if table.time is None else table.rows[:, table.time]
    return table.rows[:, columns[0]] if len(columns) == 1 else table.rows, times
