"""Headers of binary trajectories, whose sizes and counts are checked before a reader trusts them."""

import mmap
import os
import struct
from contextlib import nullcontext
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import InputError

DCD_TITLE_OFFSET = 92
"""Bytes of a DCD file before its title: the control record, with its length at either end."""


def _cut_off(path: Path, frame: int) -> InputError:
    return InputError(f"{path} is cut off within frame {frame}: repair it, or copy it again")


def _broken(path: Path, frame: int, what: str) -> InputError:
    return InputError(f"{path} is broken at frame {frame} ({what}): copy it again, or cut it there")


def other_atoms(path: Any, found: int, n_atoms: int) -> InputError:
    """That a trajectory is of another molecule than its topology."""
    return InputError(
        f"{path} does not have the {n_atoms} atoms of the topology, but {found}: give the topology of these frames"
    )


def _check_dcd(path: Path, file: BinaryIO, n_atoms: int) -> None:
    size = path.stat().st_size
    head = file.read(DCD_TITLE_OFFSET)
    if len(head) < DCD_TITLE_OFFSET or head[4:8] != b"CORD":
        raise InputError(f"{path} is no DCD file: check its name")
    order = "<" if struct.unpack("<i", head[:4])[0] == 84 else ">"
    control = struct.unpack(f"{order}20i", head[8:88])

    def word() -> int:
        read = file.read(4)
        if len(read) < 4:
            raise InputError(f"{path} is cut off within its header: copy it again")
        return int(struct.unpack(f"{order}i", read)[0])

    title = word()
    if not 0 <= title <= size:
        raise InputError(f"{path} has a broken header (a title of {title} bytes): copy it again")
    file.seek(title + 4 + 4, os.SEEK_CUR)
    if (found := word()) != n_atoms:
        raise other_atoms(path, found, n_atoms)
    begin = file.seek(4, os.SEEK_CUR)
    fixed = control[8]
    if fixed:
        if not 0 <= fixed < n_atoms:
            raise InputError(f"{path} has a broken header ({fixed} fixed atoms of {n_atoms}): copy it again")
        return  # the first frame is longer than the others
    charmm = control[19] != 0  # elsewhere these words hold the time step in double precision
    blocks = 4 if charmm and control[11] else 3
    frame = blocks * (4 * n_atoms + 8) + (56 if charmm and control[10] else 0)
    whole, rest = divmod(size - begin, frame)
    if rest:
        raise _cut_off(path, whole)


def _check_trr(path: Path, file: BinaryIO, n_atoms: int) -> None:
    size, frame = path.stat().st_size, 0
    while (begin := file.tell()) < size:
        head = file.read(24)
        if len(head) == 24 and struct.unpack(">i", head[:4])[0] != 1993:
            raise InputError(f"{path} is no TRR file, or broken at frame {frame}: check its name, or copy it again")
        head += file.read(52)
        if len(head) < 76:
            raise _cut_off(path, frame)
        # input record, energies, box, virial, pressure, topology, symbols, positions, velocities, forces
        sizes, found = struct.unpack(">10i", head[24:64]), struct.unpack(">i", head[64:68])[0]
        if struct.unpack(">2i", head[4:12]) != (13, 12) or head[12:24] != b"GMX_trn_file":
            raise _broken(path, frame, "no GMX_trn_file")
        if found != n_atoms:
            raise other_atoms(path, found, n_atoms)
        vectors = [*((size, 9) for size in sizes[2:5]), *((size, 3 * n_atoms) for size in sizes[7:])]
        reals = {part / n for part, n in vectors if part}
        if min(sizes) < 0 or not reals <= {4.0, 8.0} or len(reals) > 1:
            raise _broken(path, frame, "sizes that do not fit each other")
        if not sizes[7]:
            raise _broken(path, frame, "no positions")
        end = begin + 24 + 52 + 2 * int(min(reals)) + sum(sizes)
        if end > size:
            raise _cut_off(path, frame)
        file.seek(end)
        frame += 1


XTC_SMALL, XTC_HEADER = struct.Struct(">2i44xi"), struct.Struct(">2i44xif8i")
"""Of a frame of at most 9 atoms, and of others: magic number, atoms, time and box, atoms; precision, lowest and highest
integers, index of the smallest range, bytes of compressed positions."""

MAX_XTC_FRAMES = 20_000
"""Whose headers are checked; that takes as long as reading them, and the reader sees where a file is cut off."""


def _check_xtc(path: Path, file: BinaryIO, n_atoms: int) -> None:
    """Headers of frames; what is compressed is left to the reader."""
    size, frame, begin = path.stat().st_size, 0, 0
    header = XTC_SMALL if n_atoms <= 9 else XTC_HEADER
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else nullcontext(b"") as content:
        while begin < size and frame < MAX_XTC_FRAMES:
            if begin + header.size > size:
                raise _cut_off(path, frame)
            magic, atoms, again, *rest = header.unpack_from(content, begin)
            if magic != 1995:
                raise InputError(f"{path} is no XTC file, or broken at frame {frame}: check its name, or copy it again")
            if atoms != n_atoms:
                raise other_atoms(path, atoms, n_atoms)
            if n_atoms <= 9:
                length = 12 * n_atoms
            else:
                precision, x0, y0, z0, x1, y1, z1, small, length = rest
                if not (precision > 0.0 and x0 <= x1 and y0 <= y1 and z0 <= z1 and 9 <= small < 73):
                    raise _broken(path, frame, "bounds that do not fit each other")
            if again != n_atoms or not 0 <= length <= 16 * n_atoms + 64:
                raise _broken(path, frame, "sizes that do not fit each other")
            begin += header.size + 4 * -(-length // 4)
            if begin > size:
                raise _cut_off(path, frame)
            frame += 1


FORMAT_CHECKS = {".dcd": _check_dcd, ".trr": _check_trr, ".xtc": _check_xtc}
"""Formats whose readers trust the sizes in a file, or stop at a truncated frame without an error."""


def check_headers(path: Path, kind: str, n_atoms: int) -> None:
    """Check the sizes that a binary trajectory states.

    Args:
        path: the trajectory.
        kind: its suffix, in lower case; of others than `FORMAT_CHECKS` nothing is checked.
        n_atoms: of its topology.

    Raises:
        InputError: it is cut off, broken, of another format or of another molecule.
    """
    if kind in FORMAT_CHECKS:
        with path.open("rb") as file:
            FORMAT_CHECKS[kind](path, file, n_atoms)
