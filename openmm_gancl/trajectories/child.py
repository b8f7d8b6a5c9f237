"""Frames from a child process, which a damaged file may crash, keep busy or fill in place of this one.

The readers of mdtraj are C code that trusts its input. What a child reads it hands over through a pipe while this
process works on the frames before. Where processes cannot fork, frames are read here.
"""

import os
import select
import signal
import struct
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, first_line
from ..files import MAX_EXPANSION, MAX_MEMORY, Child, child_process, write_whole

MAX_READING_SECONDS, MIN_READING_RATE = 20, 100_000
"""Of the processor, that reading any file may take, and bytes a second beyond that: a reader in circles takes more."""

LEAVING_SECONDS = 1.0
"""That a child which has said all has to end by itself."""

FRAMES, FINISHED, REFUSED = range(3)
"""What a message says: frames follow, there are no more, an `InputError`."""

HEADER = struct.Struct("=iqi")
"""Of a message: what it says, number of frames or bytes of text, whether boxes follow."""


def _send(pipe: int, what: int, count: int, parts: list[Any], boxes: bool = False) -> None:
    for part in (HEADER.pack(what, count, boxes), *parts):
        write_whole(pipe, part)


def _read(path: Path, chunks: Callable[[], Iterator[Any]], pipe: int) -> None:
    """Of the child: send the frames, or why there are none."""
    try:
        for chunk in chunks():
            boxed = chunk.unitcell_lengths is not None
            boxes = [chunk.unitcell_lengths, chunk.unitcell_angles] if boxed else []
            arrays = [np.ascontiguousarray(part, dtype=np.float32) for part in (chunk.xyz, chunk.time, *boxes)]
            _send(pipe, FRAMES, len(chunk), arrays, boxed)
        _send(pipe, FINISHED, 0, [])
    except InputError as error:
        text = str(error).encode()
        _send(pipe, REFUSED, len(text), [text])
    except Exception as error:
        text = f"cannot read {path} ({first_line(error)}): give a whole file".encode()
        _send(pipe, REFUSED, len(text), [text])


class _Stream:
    """What a child sends.

    Args:
        pipe: descriptor of the pipe's end.
    """

    def __init__(self, pipe: int):
        self.file = os.fdopen(pipe, "rb", buffering=0, closefd=False)

    def take(self, n: int) -> bytearray | None:
        """The next n bytes; None if the child has died."""
        content, begun = bytearray(n), 0
        view = memoryview(content)
        while begun < n:
            read = self.file.readinto(view[begun:])
            if not read:
                return None
            begun += read
        return content

    def array(self, *shape: int) -> Any:
        """The next numbers, single precision; None if the child has died."""
        content = self.take(4 * int(np.prod(shape)))
        return None if content is None else np.frombuffer(content, dtype=np.float32).reshape(shape)


def _died(path: Path, status: int, begun: int) -> InputError:
    """Why there is nothing more."""
    where = f"after {begun} frames" if begun else "at its beginning"
    busy = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU
    how = "keeps its reader busy without end" if busy else "crashes its reader"
    return InputError(f"{path} {how}, {where}: it is damaged, copy it again")


def _received(path: Path, topology: Any, child: Child) -> Iterator[Any]:
    import mdtraj

    stream, begun = _Stream(child.pipe), 0
    while (head := stream.take(HEADER.size)) is not None:
        what, count, boxed = HEADER.unpack(head)
        if what != FRAMES:
            text = stream.take(count)
            if text is None:
                break
            select.select([child.pipe], [], [], LEAVING_SECONDS)  # until it is closed
            if what == REFUSED:
                raise InputError(text.decode())
            return
        arrays = [stream.array(count, topology.n_atoms, 3), stream.array(count)]
        arrays += [stream.array(count, 3), stream.array(count, 3)] if boxed else []
        if any(array is None for array in arrays):
            break
        begun += count
        positions, time, *boxes = arrays
        lengths, angles = boxes or (None, None)
        yield mdtraj.Trajectory(positions, topology, time, lengths, angles)
    raise _died(path, child.end(), begun)


def from_child(path: Path, topology: Any, chunks: Callable[[], Iterator[Any]]) -> Iterator[Any]:
    """Pieces of a trajectory, as mdtraj.Trajectory, that a child process reads within limits.

    Args:
        path: the file.
        topology: an mdtraj.Topology.
        chunks: reads it.

    Raises:
        InputError: those of ``chunks``, and where the reader crashes or does not end.
    """
    if not hasattr(os, "fork"):
        yield from chunks()
        return
    size = path.stat().st_size
    seconds, n_bytes = MAX_READING_SECONDS + size // MIN_READING_RATE, MAX_MEMORY + MAX_EXPANSION * size
    with child_process(partial(_read, path, chunks), seconds, n_bytes) as child:
        yield from _received(path, topology, child)
