"""A run folder: stages written to a temporary folder and renamed into place, a manifest, a lock, resume; no science.

A stage is either complete under its name, with its checksums in the manifest, or it does not exist: a process
killed at any moment leaves nothing that a later one could mistake for a result. What it leaves are records of finished
tasks, each under a hash of the work it is the result of.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..engine.interrupts import noticed_interrupts
from ..engine.task_records import TaskRecords
from ..engine.tasks import recorded_by
from ..errors import InputError
from ..files import copy_atomically, load_json, write_atomically
from .manifest import MANIFEST, SCHEMA_VERSION, read_manifest, write_manifest

LOCK = "lock"
BESIDES = ("closures",)
"""Stages whose evaluations are no part of a run's own."""
TASKS = ".tasks"
"""After the name of an unfinished stage, of the folder with its finished tasks."""
HEARTBEAT = 2.0
"""Seconds between two records of the effort spent so far, so that a kill loses no more than that."""


def checksum(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _process_life(pid: int) -> str:
    """What distinguishes two processes of one number; empty if there is no such process."""
    if Path("/proc/self/stat").exists():
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return ""
        return "" if fields[0] in "ZX" else fields[19]
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    return "alive"


def _lock_holder(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        holder = load_json(path)
        return {"pid": int(holder["pid"]), **{key: str(holder[key]) for key in ("host", "started", "life")}}
    except (ValueError, KeyError, TypeError, OverflowError):
        raise InputError(f"{path} cannot be read: remove it if no other program uses {path.parent}") from None


@contextlib.contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Makes reading and taking the lock one step; released by the operating system whatever happens."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without flock still has the lock file
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _remove_semaphores_of(pid: int) -> None:
    """Those of loky, which cleans up unless it is killed too."""
    for path in Path("/dev/shm").glob(f"sem.loky-{pid}-*"):
        with contextlib.suppress(OSError):
            path.unlink()


@contextlib.contextmanager
def locked(folder: Path, note: Callable[[str], None]) -> Iterator[None]:
    """Hold the folder's lock; the lock of a process that has ended on this host is taken over.

    Args:
        folder: an existing folder.
        note: called with a message when a lock is taken over.

    Raises:
        InputError: another process holds it.
    """
    path, host = folder / LOCK, socket.gethostname()
    with _one_at_a_time(folder):
        holder = _lock_holder(path)
        if holder is not None:
            name = f"process {holder['pid']} on {holder['host']} since {holder['started']}"
            alive = holder["host"] != host or _process_life(holder["pid"]) == holder["life"]
            if alive:
                raise InputError(
                    f"{folder} is in use by {name}: wait for it or stop it (remove {path} if it no longer runs)"
                )
            note(f"took over the lock of {name}, which has ended")
            _remove_semaphores_of(holder["pid"])
        ours = {"pid": os.getpid(), "host": host, "started": _now(), "life": _process_life(os.getpid())}
        write_atomically(path, json.dumps(ours))
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def is_writable(path: Path) -> bool:
    """Whether files can be made in a folder; not on a disk that is mounted read-only, whoever asks."""
    return os.access(path, os.W_OK)


def is_run_folder(path: Path) -> bool:
    """Whether there is a manifest."""
    return (path / MANIFEST).is_file()


def prepare_folder(path: Path) -> None:
    """Make the folder, or see that the one there is a run folder or empty.

    Raises:
        InputError: something else is there, or it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise InputError(f"{path} is a file: name a folder for the run") from None
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        raise InputError(f"cannot make the folder {path} ({error.strerror}): name one you may write") from None
    foreign = [entry.name for entry in path.iterdir() if entry.name != LOCK and entry.suffix != ".tmp"]
    if foreign and not is_run_folder(path):
        raise InputError(f"{path} holds other files ({sorted(foreign)[0]}) and no {MANIFEST}: name a new folder")


@contextlib.contextmanager
def prepared_folder(path: Path) -> Iterator[None]:
    """See `prepare_folder`; folders that were made for a run that is refused, and hold nothing, are removed."""
    made = [one for one in (path, *path.parents) if not one.exists()]
    prepare_folder(path)
    try:
        yield
    except InputError:
        with contextlib.suppress(OSError):  # not empty
            for one in made:
                one.rmdir()
        raise


class RunFolder:
    """The stages of one run, under a lock that the caller holds.

    Args:
        path: the folder.
        manifest: its content; `create` and `load` make one.
        read_only: whether its finished stages are shown, and nothing is written.
    """

    def __init__(self, path: Path, manifest: dict[str, Any], read_only: bool = False):
        self.path, self.manifest, self.read_only = path, manifest, read_only
        self._attempt: dict[str, Any] = {}
        self._records = TaskRecords(path)
        self._computed = self._taken = 0
        self._started = self._saved = 0.0
        self._watch: Callable[[int], None] | None = None

    @classmethod
    def create(cls, path: Path, identity: Mapping[str, Any]) -> "RunFolder":
        """A new run; ``identity`` is JSON-ready: card, options, seeds, versions, platform, thread count."""
        folder = cls(path, {"schema_version": SCHEMA_VERSION, "created": _now(), **identity, "stages": {}})
        folder.save()
        return folder

    @classmethod
    def load(cls, path: Path, read_only: bool = False) -> "RunFolder":
        """The run in a folder.

        Raises:
            InputError: there is none, it is not as it was written, or of another schema version.
        """
        return cls(path, read_manifest(path), read_only)

    @contextlib.contextmanager
    def begun(self, system: str) -> Iterator[None]:
        """Of a run that has just begun: where it is refused before anything was computed, nothing of it is left.

        Args:
            system: name of the folder that a run's own system lies in.
        """
        try:
            yield
        except InputError:
            if not self.evaluations_spent() and not any(self.is_done(stage) for stage in self.manifest["stages"]):
                (self.path / MANIFEST).unlink(missing_ok=True)
                for folder in (system, *(stage + TASKS for stage in self.manifest["stages"])):
                    shutil.rmtree(self.path / folder, ignore_errors=True)
            raise

    def check_writable(self) -> None:
        """See that something can be written.

        Raises:
            InputError: it cannot.
        """
        if self.read_only:
            raise InputError(
                f"{self.path} is not yours to write, and not all that you ask for is finished: copy it to where you "
                "may write"
            )

    def save(self) -> None:
        """Write the manifest."""
        self.check_writable()
        write_manifest(self.path, self.manifest)

    def file(self, stage: str, name: str) -> Path:
        """A file of a finished stage."""
        return self.path / stage / name

    def is_lost(self, stage: str) -> bool:
        """Whether a stage was finished and is not there any more."""
        return bool(self.manifest["stages"].get(stage, {}).get("done")) and not (self.path / stage).is_dir()

    def is_done(self, stage: str) -> bool:
        """Whether a stage is finished and still there."""
        return bool(self.manifest["stages"].get(stage, {}).get("done")) and (self.path / stage).is_dir()

    def verify(self, stage: str) -> None:
        """Compare a finished stage's files with their checksums.

        Raises:
            InputError: a file is missing or has changed.
        """
        for name, expected in self.manifest["stages"][stage]["checksums"].items():
            file = self.file(stage, name)
            found = "is missing" if not file.is_file() else "has changed since it was written"
            if not file.is_file() or checksum(file) != expected:
                raise InputError(f"{file} {found}: restore it, or remove {file.parent} to compute that stage again")

    @contextlib.contextmanager
    def watched(self, spent: Callable[[int], None]) -> Iterator[None]:
        """Call with the force evaluations of the stage in progress whenever some are counted."""
        self._watch = spent
        try:
            yield
        finally:
            self._watch = None

    def spend(self, evaluations: int) -> None:
        """Count force evaluations of the stage in progress; what a killed attempt spent stays counted.

        Those of tasks that an earlier attempt has finished are that attempt's.
        """
        if self._records.taking:
            self._taken += int(evaluations)
        else:
            self._computed += int(evaluations)
        if self._watch is not None:
            self._watch(self._computed + self._taken)
        now = time.monotonic()
        if now - self._saved > HEARTBEAT:
            self._saved = now
            self._note_effort(self._computed)
            self.save()

    def _note_effort(self, evaluations: int) -> None:
        seconds = time.monotonic() - self._started
        self._attempt |= {"seconds": round(seconds, 2), "force_evaluations": max(evaluations, 0)}

    def _evaluations_of_attempt(self, entry: dict[str, Any]) -> int:
        """What the attempt in progress adds: at least what its result took and no earlier one has written down."""
        before = sum(attempt["force_evaluations"] for attempt in entry["attempts"][:-1])
        return max(self._computed, self._computed + self._taken - before if self._taken else 0)

    def _begin_attempt(self, stage: str, later: tuple[str, ...]) -> dict[str, Any]:
        """The entry of a stage, of which nothing is there any more but the records of its tasks."""
        stages = self.manifest["stages"]
        for name in (stage, *later):
            if name in stages:
                stages[name] |= {"done": False, "checksums": {}}
        entry: dict[str, Any] = stages.setdefault(stage, {"done": False, "checksums": {}, "attempts": []})
        self._attempt = {"started": _now(), "seconds": 0.0, "force_evaluations": 0}
        entry["attempts"].append(self._attempt)
        self._started = self._saved = time.monotonic()
        self._records, self._computed, self._taken = TaskRecords(self.path / f"{stage}{TASKS}"), 0, 0
        for old in (self.path / f"{stage}.tmp", self.path / stage):
            shutil.rmtree(old, ignore_errors=True)
        return entry

    def _remove_records(self) -> None:
        """Those of finished stages: of one that has just been, and of one whose process was killed at this point."""
        for name in self.manifest["stages"]:
            if self.is_done(name):
                shutil.rmtree(self.path / f"{name}{TASKS}", ignore_errors=True)

    def run_stage(self, stage: str, work: Callable[[Path], None], later: tuple[str, ...] = ()) -> None:
        """Compute a stage into ``<stage>.tmp`` and rename it into place.

        Tasks that an earlier attempt finished, of just the same work, are taken from ``<stage>.tasks``.

        Args:
            stage: its name.
            work: writes the stage's files into the folder it is given.
            later: the stages that depend on this one, forgotten because it changes.

        Raises:
            OSError: with ``ENOSPC`` where a library hid that the disk is full.
        """
        self.check_writable()
        entry = self._begin_attempt(stage, later)
        temporary, target = self.path / f"{stage}.tmp", self.path / stage
        try:
            self.save()
            temporary.mkdir(parents=True)
            with noticed_interrupts() as check, recorded_by(self._records):
                work(temporary)
                check()
            entry["checksums"] = {file.name: checksum(file) for file in sorted(temporary.iterdir())}
            os.rename(temporary, target)
            entry["done"] = True
        except BaseException as error:
            entry["checksums"] = {}
            full = not isinstance(error, OSError) and shutil.disk_usage(self.path).free < 2**16
            shutil.rmtree(temporary, ignore_errors=True)
            if full and isinstance(error, Exception):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(temporary)) from error
            raise
        finally:
            self._note_effort(self._evaluations_of_attempt(entry) if entry["done"] else self._computed)
            with contextlib.nullcontext() if entry["done"] else contextlib.suppress(OSError):
                self.save()
        self._remove_records()

    def publish(self, stage: str, names: Sequence[str]) -> None:
        """Copy files of a finished stage to the top of the folder, where it can be written."""
        for name in names if not self.read_only else ():
            copy_atomically(self.file(stage, name), self.path / name)

    def forget(self, stage: str) -> None:
        """Have a finished stage computed again."""
        self.manifest["stages"][stage] |= {"done": False, "checksums": {}}
        self.save()

    def last_model(self) -> str | None:
        """The stage with the newest model, if one is finished."""
        with_model = [name for name in self.manifest["stages"] if name == "train" or name.split("/")[-1] == "model"]
        return next((name for name in reversed(with_model) if self.is_done(name)), None)

    def seconds(self) -> dict[str, float]:
        """Wall time of each stage, repeated attempts included."""
        return {
            name: round(sum(attempt["seconds"] for attempt in entry["attempts"]), 2)
            for name, entry in self.manifest["stages"].items()
        }

    def evaluations_spent(self, without: Sequence[str] = ()) -> int:
        """Force evaluations of all attempts, those whose result was lost included, of all stages but some."""
        entries = [entry for name, entry in self.manifest["stages"].items() if name not in without]
        return sum(attempt["force_evaluations"] for entry in entries for attempt in entry["attempts"])
