"""Trajectories as series of collective variables: streamed, checked, cut and divided into independent blocks."""

import itertools
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from .collective_variables import CollectiveVariable, parse_cv
from .errors import InputError, quiet
from .units import FloatArray, IntArray

CHUNK_ATOMS = 400_000
"""Atoms read at a time, over all frames: what bounds the memory."""

BLOCK_LENGTH = 3.0
"""Statistical inefficiencies in a block, at least."""

TIMED = {".xtc", ".trr", ".nc", ".ncdf", ".h5", ".hdf5"}
"""Formats whose frames have a time."""

MOST_BLOCKS = 200
LONGEST_SERIES = 20_000
"""Frames, at most, that the search for equilibration looks at; a longer series is thinned out for it."""


@contextmanager
def silent_readers() -> Iterator[None]:
    """Mdtraj's C code talks on stdout, which belongs to results."""
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def load_topology(path: Path) -> Any:
    """The mdtraj.Topology of a structure file."""
    import mdtraj

    if not path.is_file():
        raise InputError(f"there is no file {path}: check --top")
    try:
        return mdtraj.load_topology(str(path))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"cannot read a topology from {path} ({_first_line(error)}): give a PDB file, say") from None


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__


def _check_dcd(path: Path) -> None:
    """Refuse a DCD file that ends within a frame; readers go on without a word."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(92)
        if len(head) < 92 or head[4:8] != b"CORD":
            raise InputError(f"{path} is no DCD file: check its name")
        order = "<" if struct.unpack("<i", head[:4])[0] == 84 else ">"
        control = struct.unpack(f"{order}20i", head[8:88])
        title = struct.unpack(f"{order}i", file.read(4))[0]
        file.seek(title + 4 + 4, os.SEEK_CUR)
        n_atoms = struct.unpack(f"{order}i", file.read(4))[0]
        begin = file.seek(4, os.SEEK_CUR)
    if control[8]:
        return  # fixed atoms: the first frame is longer than the others
    frame = 3 * (4 * n_atoms + 8) + (56 if control[10] else 0)
    whole, rest = divmod(size - begin, frame)
    if rest:
        raise InputError(f"{path} is cut off within frame {whole}: repair it, or copy it again")


@dataclass(frozen=True)
class Series:
    """Collective variables of the frames of one or more trajectories.

    Attributes:
        names: of the collective variables.
        periods: shape=(d,), ``inf`` where there is none.
        units: radians or nm; empty where it is not known.
        values: shape=(n, d), single precision.
        file: shape=(n,), the trajectory that each frame is from.
        n_files: how many trajectories.
        time: shape=(n,), ps; None where the files hold none.
    """

    names: tuple[str, ...]
    periods: FloatArray
    units: tuple[str, ...]
    values: Any
    file: IntArray
    n_files: int
    time: FloatArray | None = None


def _chunks(path: Path, top: Path, topology: Any, stride: int) -> Iterator[Any]:
    import mdtraj

    if not path.is_file():
        raise InputError(f"there is no file {path}: check the trajectories' names")
    if path.suffix == ".dcd":
        _check_dcd(path)
    # whole multiples of the stride: mdtraj starts each chunk anew
    frames = max(CHUNK_ATOMS // max(topology.n_atoms, 1) // stride, 1) * stride
    keyword = {} if path.suffix in {".h5", ".hdf5"} else {"top": topology}
    other = f"{path} does not have the {topology.n_atoms} atoms of {top}: give the topology of these frames"
    begun = 0
    try:
        for chunk in mdtraj.iterload(str(path), chunk=frames, stride=stride, **keyword):
            if chunk.n_atoms != topology.n_atoms:
                raise InputError(other)
            begun += len(chunk)
            yield chunk
    except InputError:
        raise
    except (OSError, ValueError, TypeError, RuntimeError, KeyError, ImportError) as error:
        if "must be shape" in str(error):
            raise InputError(other) from None
        where = f"after frame {begun * stride}" if begun else "at its beginning"
        raise InputError(
            f"cannot read {path} with {top}, {where} ({_first_line(error)}): give matching, whole files"
        ) from None


def read_series(
    paths: Sequence[Path],
    top: Path,
    cvs: Sequence[str],
    *,
    stride: int = 1,
    progress: Callable[[], None] | None = None,
) -> Series:
    """Stream trajectories; the memory in use grows with the number of frames only by their values.

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
        raise InputError(f"--stride is {stride}: give at least 1")
    if not paths:
        raise InputError("no trajectory is given: name at least one file")
    topology = load_topology(top)
    variables = [parse_cv(cv, topology) for cv in cvs]
    columns: list[Any] = []
    times: list[Any] = []
    lengths = []
    with silent_readers():
        for path in paths:
            done = 0
            for chunk in _chunks(path, top, topology, stride):
                times.append(chunk.time)
                columns.append(_values(chunk, variables, path, done, stride))
                done += len(chunk)
            if not done:
                raise InputError(f"{path} holds no frame: leave it out")
            lengths.append(done)
            if progress is not None:
                progress()
    return Series(
        names=tuple(variable.name for variable in variables),
        periods=np.array([variable.period for variable in variables]),
        units=tuple(variable.unit for variable in variables),
        values=np.concatenate(columns),
        file=np.repeat(np.arange(len(paths), dtype=np.int32), lengths),
        n_files=len(paths),
        time=np.concatenate(times) if all(path.suffix in TIMED for path in paths) else None,
    )


def _values(chunk: Any, variables: Sequence[CollectiveVariable], path: Path, done: int, stride: int) -> Any:
    used = np.unique(np.concatenate([variable.atoms for variable in variables]))
    bad = ~np.isfinite(chunk.xyz[:, used]).all(axis=(1, 2))
    if bad.any():
        frame = (done + int(bad.argmax())) * stride
        raise InputError(f"{path}, frame {frame}: a coordinate is NaN or infinite: cut the trajectory before it")
    values = np.stack([np.asarray(variable.compute(chunk), dtype=np.float32) for variable in variables], axis=1)
    undefined = ~np.isfinite(values).all(axis=1)
    if undefined.any():
        row = int(undefined.argmax())
        name = variables[int(np.isfinite(values[row]).argmin())].name
        raise InputError(f"{path}, frame {(done + row) * stride}: {name} is not defined (atoms in line or on a spot)")
    return values


def read_log_weights(path: Path, n: int) -> FloatArray:
    """Log-weights of n frames from an npy or text file, shape=(n,); minus infinity is a weight of zero."""
    if not path.is_file():
        raise InputError(f"there is no file {path}: check --log-weights")
    try:
        values = np.load(path, allow_pickle=False) if path.suffix == ".npy" else np.loadtxt(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot read log-weights ({error}): give an npy or text file") from None
    values = np.asarray(values, dtype=float).ravel()
    if len(values) != n:
        raise InputError(f"{path} has {len(values)} log-weights for {n} frames: give one a frame")
    if np.isnan(values).any() or (values == np.inf).any() or not np.isfinite(values).any():
        raise InputError(f"{path} holds NaN or infinity: remove those frames")
    return values


@dataclass(frozen=True)
class Blocks:
    """Frames after equilibration, divided for the bootstrap.

    Attributes:
        kept: shape=(m,), indices of the frames.
        block: shape=(m,), the block of each.
        discarded: frames cut from each file's beginning.
        inefficiency: statistical inefficiency of each file, frames.
        correlation: the largest inefficiency over its block's length.
    """

    kept: IntArray
    block: IntArray
    discarded: list[int]
    inefficiency: list[float]
    correlation: float

    @property
    def n_independent(self) -> float:
        """Frames over their inefficiency, summed over files."""
        return float(len(self.kept) / np.mean(self.inefficiency))


def _observables(values: Any, periods: FloatArray) -> list[FloatArray]:
    columns = []
    for column, period in zip(np.asarray(values, dtype=float).T, periods, strict=True):
        if np.isfinite(period):
            columns += [np.cos(2 * np.pi / period * column), np.sin(2 * np.pi / period * column)]
        else:
            columns.append(column)
    return [column for column in columns if column.std() > 1e-9]


def _inefficiency(values: Any, periods: FloatArray) -> float:
    """The largest over the collective variables, in frames (Chodera et al. 2007, doi 10.1021/ct0502864)."""
    with quiet("pymbar"):
        from pymbar.timeseries import ParameterError, statistical_inefficiency

    largest = 1.0
    for column in _observables(values, periods):
        try:
            largest = max(largest, float(statistical_inefficiency(column, fast=True)))
        except ParameterError:
            continue
    return largest


def _equilibrated(values: Any, periods: FloatArray) -> int:
    """Where the most effective samples are left, frames (Chodera 2016, doi 10.1021/acs.jctc.5b00784)."""
    with quiet("pymbar"):
        from pymbar.timeseries import detect_equilibration

    thinning = max(int(np.ceil(len(values) / LONGEST_SERIES)), 1)
    thin = values[::thinning]
    nskip = max(len(thin) // 40, 1)
    found = [detect_equilibration(column, fast=True, nskip=nskip) for column in _observables(thin, periods)]
    start = min(found, key=lambda result: result[2])[0] if found else 0  # the slowest observable decides
    return int(start) * thinning


def independent_blocks(series: Series, discard: int | Literal["auto"] = "auto") -> Blocks:
    """Cut each trajectory's equilibration and divide the rest into blocks of several correlation times.

    Args:
        series: the series.
        discard: frames to cut from each trajectory, or ``auto``.

    Raises:
        InputError: nothing is left of a trajectory.
    """
    starts = np.searchsorted(series.file, np.arange(series.n_files + 1))
    kept, blocks, discarded, inefficiencies, lengths = [], [], [], [], []
    shortest = max(len(series.values) // MOST_BLOCKS, 1)
    n_blocks = 0
    for begin, end in itertools.pairwise(starts):
        values = series.values[begin:end]
        cut = _equilibrated(values, series.periods) if discard == "auto" else discard
        if cut >= len(values):
            raise InputError(f"--discard {cut} leaves nothing of a trajectory of {len(values)} frames: give less")
        n = len(values) - cut
        inefficiency = _inefficiency(values[cut:], series.periods)
        count = max(int(n / max(BLOCK_LENGTH * inefficiency, shortest)), 1)
        kept.append(np.arange(begin + cut, end))
        blocks.append(n_blocks + np.arange(n) * count // n)
        n_blocks += count
        discarded.append(int(cut))
        inefficiencies.append(inefficiency)
        lengths.append(n / count)
    correlation = max(g / length for g, length in zip(inefficiencies, lengths, strict=True))
    return Blocks(np.concatenate(kept), np.concatenate(blocks), discarded, inefficiencies, correlation)
