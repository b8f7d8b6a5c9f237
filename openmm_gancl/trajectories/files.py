"""Trajectory files, read in pieces; those that are damaged or of another molecule are named."""

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import InputError, first_line

CHUNK_ATOMS = 400_000
"""Atoms read at a time, over all frames: what bounds the memory."""

HDF5 = {".h5", ".hdf5"}
FORMATS_WITH_TIMES = {".xtc", ".trr", ".nc", ".ncdf", *HDF5}
"""Formats whose frames have a time."""


DCD_TITLE_OFFSET = 92
"""Bytes of a DCD file before its title: the control record, with its length at either end."""


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
        raise InputError(f"there is no file {path}: check `top`")
    try:
        return mdtraj.load_topology(str(path))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"cannot read a topology from {path} ({first_line(error)}): give a PDB file, say") from None


def _cut_off(path: Path, frame: int) -> InputError:
    return InputError(f"{path} is cut off within frame {frame}: repair it, or copy it again")


def _check_dcd(path: Path, file: BinaryIO) -> None:
    head = file.read(DCD_TITLE_OFFSET)
    if len(head) < DCD_TITLE_OFFSET or head[4:8] != b"CORD":
        raise InputError(f"{path} is no DCD file: check its name")
    order = "<" if struct.unpack("<i", head[:4])[0] == 84 else ">"
    control = struct.unpack(f"{order}20i", head[8:88])
    title = struct.unpack(f"{order}i", file.read(4))[0]
    file.seek(title + 4 + 4, os.SEEK_CUR)
    n_atoms = struct.unpack(f"{order}i", file.read(4))[0]
    begin = file.seek(4, os.SEEK_CUR)
    if control[8]:
        return  # fixed atoms: the first frame is longer than the others
    charmm = control[19] != 0  # elsewhere these words hold the time step in double precision
    frame = 3 * (4 * n_atoms + 8) + (56 if charmm and control[10] else 0)
    whole, rest = divmod(path.stat().st_size - begin, frame)
    if rest:
        raise _cut_off(path, whole)


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


def _check_trr(path: Path, file: BinaryIO) -> None:
    size, frame = path.stat().st_size, 0
    while (begin := file.tell()) < size:
        head = file.read(24)
        if len(head) == 24 and struct.unpack(">i", head[:4])[0] != 1993:
            raise InputError(f"{path} is no TRR file, or broken at frame {frame}: check its name, or copy it again")
        head += file.read(52)
        if len(head) < 76:
            raise _cut_off(path, frame)
        # input record, energies, box, virial, pressure, topology, symbols, positions, velocities, forces
        sizes, n_atoms = struct.unpack(">10i", head[24:64]), struct.unpack(">i", head[64:68])[0]
        vectors = [size // n for size, n in ((sizes[2], 9), *((size, 3 * n_atoms) for size in sizes[7:])) if size]
        reals = vectors[0] if vectors else 4
        if 24 + 52 + 2 * reals + sum(sizes) > size - begin:
            raise _cut_off(path, frame)
        file.seek(begin + 24 + 52 + 2 * reals + sum(sizes))
        frame += 1


FORMAT_CHECKS = {".dcd": _check_dcd, ".trr": _check_trr}
"""Formats whose readers stop at a truncated frame without an error."""


def read_chunks(path: Path, top: Path, topology: Any, stride: int) -> Iterator[Any]:
    """Pieces of a trajectory, as mdtraj.Trajectory.

    Args:
        path: the trajectory.
        top: file of the topology, for messages.
        topology: an mdtraj.Topology.
        stride: take every so many frames.

    Raises:
        InputError: the file is missing, damaged or of another molecule.
    """
    import mdtraj

    if not path.is_file():
        raise InputError(f"there is no file {path}: check the trajectories' names")
    if path.suffix in FORMAT_CHECKS:
        with path.open("rb") as file:
            FORMAT_CHECKS[path.suffix](path, file)
    # whole multiples of the stride: mdtraj starts each chunk anew
    frames = max(CHUNK_ATOMS // max(topology.n_atoms, 1) // stride, 1) * stride
    keyword = {} if path.suffix in HDF5 else {"top": topology}
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
    except ImportError as error:
        missing = "tables" if path.suffix in HDF5 else error.name or "what it names"
        raise InputError(
            f"{path} needs a package that is missing ({first_line(error)}): pip install {missing}"
        ) from None
    except (OSError, ValueError, TypeError, RuntimeError, KeyError) as error:
        if "must be shape" in str(error):
            raise InputError(other) from None
        where = f"after frame {begun * stride}" if begun else "at its beginning"
        raise InputError(
            f"cannot read {path} with {top}, {where} ({first_line(error)}): give matching, whole files"
        ) from None
