"""Results of finished tasks on disk: what was interrupted repeats only tasks that had not finished.

A record is found by a hash of all that a worker is sent (function, task, its seed in it) and of the versions of
packages: the same name is the same work, in whatever attempt. It holds arrays and JSON, so that nothing is unpickled,
behind a hash of its name and content: one that is cut, has changed or was renamed is not used, and its task is done
again.
"""

import hashlib
import io
import json
import pickle
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..files import write_atomically
from .interrupts import interrupts
from .versions import package_versions

MIN_SECONDS = 0.1
"""That a recorded task took at least: to write a record takes some thousandths."""

PACKAGE = "openmm_gancl."
HASH = hashlib.sha256
SUFFIX = ".task"


def _plain(value: Any, arrays: list[np.ndarray[Any, Any]]) -> Any:
    """A result as JSON, its arrays in a list.

    Raises:
        TypeError: it holds something else than arrays, numbers, text, tuples, lists and dataclasses of this package.
    """
    if isinstance(value, np.ndarray):
        arrays.append(value)
        return {"array": len(arrays) - 1}
    if isinstance(value, tuple):
        return {"tuple": [_plain(one, arrays) for one in value]}
    if isinstance(value, list):
        return [_plain(one, arrays) for one in value]
    kind = type(value)
    if is_dataclass(value) and kind.__module__.startswith(PACKAGE):
        of = {part.name: _plain(getattr(value, part.name), arrays) for part in fields(value)}
        return {"module": kind.__module__, "class": kind.__name__, "fields": of}
    if value is None or kind in (bool, int, float, str):
        return value
    raise TypeError(f"a {kind.__name__} cannot be recorded")


def _restored(plain: Any, arrays: Sequence[np.ndarray[Any, Any]]) -> Any:
    """What `_plain` was given."""
    if isinstance(plain, list):
        return [_restored(one, arrays) for one in plain]
    if not isinstance(plain, dict):
        return plain
    if "array" in plain:
        return arrays[plain["array"]]
    if "tuple" in plain:
        return tuple(_restored(one, arrays) for one in plain["tuple"])
    kind = getattr(sys.modules[plain["module"]], plain["class"])
    if not (plain["module"].startswith(PACKAGE) and isinstance(kind, type) and is_dataclass(kind)):
        raise TypeError(f"{kind} is none of ours")
    return kind(**{name: _restored(one, arrays) for name, one in plain["fields"].items()})


def _written(result: Any) -> bytes:
    arrays: list[np.ndarray[Any, Any]] = []
    stream = io.BytesIO()
    text = json.dumps(_plain(result, arrays))
    stream.write(f"{len(arrays)} {text}\n".encode())
    for array in arrays:
        np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def _read(content: bytes) -> Any:
    stream = io.BytesIO(content)
    number, _, text = stream.readline().decode().partition(" ")
    arrays = [np.load(stream, allow_pickle=False) for _ in range(int(number))]
    return _restored(json.loads(text), arrays)


class TaskRecords:
    """The records of one piece of work, for `openmm_gancl.engine.tasks.recorded_by`.

    Args:
        folder: theirs; made where there is something to record.

    Attributes:
        taking: whether the task that is reported as finished was taken from here.
    """

    def __init__(self, folder: Path):
        self.folder, self.taking = folder, False
        self._interrupts = interrupts()

    def take(self, function: Callable[[Any], Any], tasks: Sequence[Any], report: Callable[[], None]) -> dict[int, Any]:
        """The recorded results of some tasks by their numbers, each reported."""
        found: dict[int, Any] = {}
        if not self.folder.is_dir():
            return found
        for index, task in enumerate(tasks):
            if (result := self._recorded(function, task)) is not None:
                found[index] = result
                self.taking = True
                try:
                    report()
                finally:
                    self.taking = False
        return found

    def keep(self, function: Callable[[Any], Any], task: Any, result: Any, seconds: float) -> None:
        """Record a result that took some time; none once Ctrl-C came, which a library may have lost inside a task."""
        if seconds < MIN_SECONDS or interrupts() > self._interrupts:
            return
        try:
            name, content = self._name(function, task), _written(result)
        except (TypeError, ValueError, AttributeError, pickle.PicklingError):  # then it is done again
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self.folder / f"{name}{SUFFIX}", HASH(name.encode() + content).digest() + content)

    def _recorded(self, function: Callable[[Any], Any], task: Any) -> Any:
        """None where there is no record as it was written."""
        try:
            name = self._name(function, task)
            stored = (self.folder / f"{name}{SUFFIX}").read_bytes()
            size = HASH().digest_size
            whole = HASH(name.encode() + stored[size:]).digest() == stored[:size]
            return _read(stored[size:]) if whole else None
        except Exception:  # whatever is wrong with it, the task can be done again
            return None

    def _name(self, function: Callable[[Any], Any], task: Any) -> str:
        return HASH(json.dumps(package_versions()).encode() + pickle.dumps((function, task), protocol=5)).hexdigest()
