"""Files that are the old one or the new one at any moment, whatever is killed; reading of files that may be hostile."""

import faulthandler
import gc
import json
import math
import os
import pickle
import select
import shutil
import signal
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from .errors import InputError, first_line

T = TypeVar("T")

MAX_ARRAY_BYTES = 2**32
"""Of all arrays of an npz file, which a small one can hold compressed."""

MAX_EXPANSION_OF_ARRAYS = 300
"""Bytes that arrays hold for each of their file, beyond `FREE_ARRAY_BYTES`; noise takes about one, constants 1,000."""

FREE_ARRAY_BYTES = 2**26
"""Of an npz file, however well they are compressed."""

MAX_JSON_BYTES = 2**28
"""Of a file with JSON text."""

MAX_CPU_SECONDS, MIN_RATE = 5, 20_000
"""Of the processor, that a child may take, and bytes a second of its files beyond that."""

MAX_MEMORY, MAX_EXPANSION = 2**30, 60
"""Bytes that a child may take, and times the size of its files beyond that: text becomes so many objects."""

PATIENCE = 20.0
"""Times its processor seconds, that a child may take on a busy machine."""


def check_archive(path: Path) -> None:
    """See that an npz file does not unpack to what it cannot hold.

    Raises:
        InputError: it would.
    """
    with zipfile.ZipFile(path) as archive:
        held = sum(member.file_size for member in archive.infolist())
    if held > FREE_ARRAY_BYTES + MAX_EXPANSION_OF_ARRAYS * path.stat().st_size:
        raise InputError(f"{path} would unpack to {held // 2**20} MiB: give the file as it was written")


def _plain(path: Path, values: Any) -> Any:
    """An array of real numbers or text: complex ones would lose their imaginary parts, with no more than a warning."""
    if getattr(values, "dtype", None) is None or values.dtype.kind not in "biufSU":
        raise InputError(f"{path} holds what is no array of real numbers or text: give the file as it was written")
    return values


def load_arrays(path: Path) -> Any:
    """The arrays of an npz file by name, or the array of an npy file; nothing of it is run.

    Raises:
        InputError: it cannot be read, or states sizes that it has not.
    """
    import numpy as np

    try:
        with open(path, "rb") as file:
            is_zip = file.read(2) == b"PK"
        if not is_zip:
            return _plain(path, np.array(np.load(path, allow_pickle=False, mmap_mode="r")))  # no larger than the file
        check_archive(path)
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > MAX_ARRAY_BYTES:
                raise InputError(f"{path} holds more than {MAX_ARRAY_BYTES // 2**30} GiB: give a smaller file")
        with np.load(path, allow_pickle=False) as arrays:
            return {name: _plain(path, arrays[name]) for name in arrays.files}
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"there is no file {path}: check its name") from None
    except Exception as error:  # numpy and zlib stumble over broken files in any way
        raise InputError(f"cannot read {path} ({first_line(error)}): give the file as it was written") from None


def load_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        InputError: it cannot be read, or is too large or too deep.
    """
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise ValueError(f"it is larger than {MAX_JSON_BYTES // 2**20} MiB")
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"there is no file {path}: check its name") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"cannot read {path} ({first_line(error)}): give the file as it was written") from None


def limit_process(seconds: int, n_bytes: int) -> None:
    """Bound the processor time of this process, and the memory that it may still take."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
    with suppress(OSError, ValueError):  # without /proc the memory has no bound
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + n_bytes, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _fork() -> int:
    """Fork; the parent's objects are not collected in the child, also by what other libraries run in it at first.

    Collecting a Context of the parent's waits for threads that the child has not, or crashes it.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of threads: the child uses none
            process = os.fork()
        if not process:
            gc.freeze()
        return process
    finally:
        if collects:
            gc.enable()


def _begin_child() -> None:
    """What comes first in a child: readers that talk, warn or crash do so unheard."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    warnings.simplefilter("ignore")
    faulthandler.disable()


def _run_child(work: Callable[[], None], seconds: int, n_bytes: int) -> NoReturn:
    try:
        _begin_child()
        limit_process(seconds, n_bytes)
        work()
    finally:
        os._exit(0)


@dataclass
class Child:
    """A process of `child_process`.

    Attributes:
        process: its number.
        pipe: descriptor from which this process reads what it writes.
    """

    process: int
    pipe: int
    _status: int | None = None

    def end(self) -> int:
        """End it, if it has not ended; its status, or zero where the caller's program has SIGCHLD ignored."""
        if self._status is None:  # afterwards its number may be another's
            with suppress(ProcessLookupError):
                os.kill(self.process, signal.SIGKILL)
            try:
                self._status = os.waitpid(self.process, 0)[1]
            except ChildProcessError:
                self._status = 0
        return self._status


@contextmanager
def child_process(work: Callable[[int], None], seconds: int, n_bytes: int) -> Iterator[Child]:
    """A child process that runs a function within limits; it does not outlive the block.

    Args:
        work: takes the descriptor of a pipe that it writes to.
        seconds: of the processor.
        n_bytes: of memory, beyond this process's.
    """
    read, write = os.pipe()
    process = _fork()
    if not process:
        os.close(read)
        _run_child(partial(work, write), seconds, n_bytes)
    os.close(write)
    child = Child(process, read)
    try:
        yield child
    finally:
        os.close(read)
        child.end()


def in_child(work: Callable[[], T], name: str, n_bytes: int) -> T:
    """What a function returns that a child process runs within limits of time and memory.

    What it reads may crash, keep busy or fill the child in place of this process. Where processes cannot fork, it is
    run here.

    Args:
        work: returns what can be pickled; in the child the current folder is the root.
        name: of what is read, for messages.
        n_bytes: size of all that it reads.

    Raises:
        InputError: that of ``work``, or where it raises something else, crashes or does not end.
    """
    if not hasattr(os, "fork"):
        return work()
    seconds = MAX_CPU_SECONDS + n_bytes // MIN_RATE
    with child_process(partial(_answer, work), seconds, MAX_MEMORY + MAX_EXPANSION * n_bytes) as child:
        answer = _everything(child.pipe, time.monotonic() + PATIENCE * seconds)
        status = child.end()
    try:
        value, refused = pickle.loads(answer)  # of our own child
    except (EOFError, pickle.UnpicklingError):
        busy = os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL)
        how = f"keeps its reader busy for more than {seconds} s" if busy else "crashes its reader"
        raise InputError(f"{name} {how}: it is damaged, or made to do so") from None
    if refused is not None:
        raise InputError(refused)
    return value


def _answer(work: Callable[[], Any], pipe: int) -> None:
    """Of the child: write the pickled result, or why there is none."""
    os.chdir("/")
    try:
        answer = pickle.dumps((work(), None))
    except InputError as error:
        answer = pickle.dumps((None, str(error)))
    except MemoryError:
        answer = pickle.dumps((None, "it takes more memory than files of this size should: it is damaged"))
    except Exception as error:
        answer = pickle.dumps((None, f"it cannot be used ({first_line(error)}): correct it"))
    write_whole(pipe, answer)


def write_whole(pipe: int, content: Any) -> None:
    """Write all bytes of an object to a pipe."""
    view = memoryview(content).cast("B")
    while len(view):
        view = view[os.write(pipe, view) :]


def _everything(pipe: int, until: float) -> bytes:
    """What comes through a pipe until it is closed; nothing where that takes too long."""
    parts = list[bytes]()
    while (left := until - time.monotonic()) > 0 and select.select([pipe], [], [], left)[0]:
        if not (part := os.read(pipe, 2**16)):
            return b"".join(parts)
        parts.append(part)
    return b""


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace a file as a whole, or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as stream:
            stream.write(content.encode() if isinstance(content, str) else content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def copy_atomically(source: Path, target: Path) -> None:
    """Copy a file's content; the target is the old one or the new one at any moment."""
    check_writable(target)
    temporary = target.with_name(target.name + ".tmp")
    try:
        shutil.copyfile(source, temporary)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """See that a file can be written, before the work that goes into it.

    Raises:
        InputError: it cannot, and why.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder: name a file in it")
    if not path.parent.is_dir():
        raise InputError(f"there is no folder {path.parent}: make it, or write elsewhere")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"{path.parent} is not yours to write: name another folder")


def finite(value: Any) -> Any:
    """With None in place of numbers that are not finite, as JSON wants it."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
