"""Trajectory files, read in pieces; those that are damaged or of another molecule are named."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import InputError, first_line
from .arguments import is_trajectory
from .child import from_child
from .headers import DCD_TITLE_OFFSET, check_headers, other_atoms
from .topologies import HDF5, known_to_mdtraj, suffix_of

CHUNK_ATOMS = 400_000
"""Atoms read at a time, over all frames: what bounds the memory."""

FORMATS_WITH_TIMES = {".xtc", ".trr", ".nc", ".ncdf", *HDF5}
"""Formats whose frames have a time."""


def set_dcd_title(path: Path, title: str) -> None:
    """Overwrite the title of a DCD file that mdtraj wrote, where it leaves the date and bytes of unset memory.

    Its writer takes no title. The record is of fixed size: 4 bytes of its length, 4 of the number of lines, and lines
    of 80 characters.

    Args:
        path: the file.
        title: its first line, of at most 80 characters of ASCII; the others become blank.
    """
    with path.open("r+b") as file:
        file.seek(DCD_TITLE_OFFSET)
        size, n_lines = struct.unpack("=2i", file.read(8))
        assert size == 4 + 80 * n_lines, "this DCD file has another title than mdtraj writes"
        file.write(title.encode("ascii").ljust(80 * n_lines))


def _chunks(path: Path, topology: Any, stride: int) -> Iterator[Any]:
    """Pieces of a trajectory as mdtraj reads them, after checks."""
    import mdtraj

    kind = suffix_of(path)
    check_headers(path, kind, topology.n_atoms)
    # whole multiples of the stride: mdtraj starts each chunk anew
    frames = max(CHUNK_ATOMS // max(topology.n_atoms, 1) // stride, 1) * stride
    keyword = {} if kind in HDF5 else {"top": topology}
    begun = 0
    try:
        with known_to_mdtraj(path) as name:
            for chunk in mdtraj.iterload(name, chunk=frames, stride=stride, **keyword):
                if chunk.n_atoms != topology.n_atoms:
                    raise other_atoms(path, chunk.n_atoms, topology.n_atoms)
                if chunk.unitcell_lengths is not None and not chunk.unitcell_lengths.any():
                    chunk.unitcell_lengths = chunk.unitcell_angles = None
                begun += len(chunk)
                yield chunk
    except InputError:
        raise
    except ImportError as error:
        raise InputError(
            f"{path} needs a package that is missing ({first_line(error)}): pip install {error.name or 'what it names'}"
        ) from None
    except Exception as error:  # readers stumble over broken files in any way
        if "must be shape" in str(error):
            raise InputError(
                f"{path} does not have the {topology.n_atoms} atoms of the topology: give the one of these frames"
            ) from None
        where = f"after frame {begun * stride}" if begun else "at its beginning"
        raise InputError(f"cannot read {path}, {where} ({first_line(error)}): give matching, whole files") from None


def _of_memory(frames: Any, topology: Any, stride: int) -> Iterator[Any]:
    """Pieces of an mdtraj.Trajectory."""
    if frames.n_atoms != topology.n_atoms:
        raise other_atoms(frames, frames.n_atoms, topology.n_atoms)
    n = max(CHUNK_ATOMS // max(topology.n_atoms, 1), 1)
    for first in range(0, len(frames), n * stride):
        yield frames[first : first + n * stride : stride]


def read_chunks(path: Any, topology: Any, stride: int = 1) -> Iterator[Any]:
    """Pieces of a trajectory, as mdtraj.Trajectory.

    Args:
        path: the trajectory's file, or an mdtraj.Trajectory.
        topology: an mdtraj.Topology.
        stride: take every so many frames.

    Raises:
        InputError: the file is missing, damaged or of another molecule.
    """
    if is_trajectory(path):
        return _of_memory(path, topology, stride)
    if not path.is_file():
        raise InputError(f"there is no file {path}: check the trajectories' names")
    return from_child(path, topology, lambda: _chunks(path, topology, stride))
