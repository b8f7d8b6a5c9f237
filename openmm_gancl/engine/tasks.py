"""Where independent tasks run: in this process, in local processes, or in any `concurrent.futures.Executor`.

A task is a picklable value that carries its own seed; its result depends on nothing else, so neither the workers nor
the order nor a lost worker changes a result, and a task may be run any number of times.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, as_completed
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from traceback import format_exc
from typing import Any, Protocol, TypeVar

from ..errors import InputError, checked, first_line
from ..units import whole_number
from .platforms import PlatformChoice
from .threads import THREAD_VARIABLES, torch_threads

MAX_LOSSES = 3
"""How often workers may be lost without a task being finished in between."""

IDLE_TIMEOUT = 300
"""Seconds after which idle workers end."""

ORPHANED = 0.5
"""Seconds after which a worker sees that the process it works for has ended."""

Task = TypeVar("Task")
Result = TypeVar("Result")

Workers = int | Executor
"""Local processes, 1 for this one; or an executor, of Dask, MPI or Parsl say."""

RunTasks = Callable[..., list[Any]]
"""`run_tasks`, or that with workers of its own."""


class Records(Protocol):
    """Results of finished tasks that are kept somewhere."""

    def take(self, function: Callable[[Any], Any], tasks: Sequence[Any], report: Callable[[], None]) -> dict[int, Any]:
        """Those that are there, by the numbers of their tasks, each reported."""
        ...

    def keep(self, function: Callable[[Any], Any], task: Any, result: Any, seconds: float) -> None:
        """One more, which took so long."""
        ...


_records: ContextVar[Records | None] = ContextVar("records", default=None)


@contextmanager
def recorded_by(records: Records) -> Iterator[None]:
    """What tasks give meanwhile is kept, and taken from there in place of running them."""
    token = _records.set(records)
    try:
        yield
    finally:
        _records.reset(token)


def available_workers() -> int:
    """The number of CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@checked
def run_tasks(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    *,
    workers: Workers = 1,
    progress: Callable[[], None] | None = None,
) -> list[Result]:
    """Apply a function to every task and return the results in the order of the tasks.

    Within `recorded_by` what was finished before is not run again.

    Tasks with a ``platform`` of several devices (``CUDA:0,1``) are distributed over them by their method
    ``on(platform)``; start as many workers.

    Args:
        function: a module-level function of one task.
        tasks: the tasks.
        workers: local processes, or an executor.
        progress: called once for each finished task.

    Raises:
        InputError: workers keep being lost (out of memory, killed), or an argument is none.
    """
    if not isinstance(tasks, Iterable):
        raise InputError(f"`tasks` of run_tasks are {tasks!r}: give a list")
    workers = workers if hasattr(workers, "submit") else whole_number("`workers`", workers)
    report, tasks, records = progress or (lambda: None), _spread(tasks), _records.get()
    done: dict[int, Result] = {} if records is None else records.take(function, tasks, report)

    here = isinstance(workers, int) and (workers == 1 or len(tasks) < 2)
    attempt, losses = partial(_attempt, function), 0
    while missing := {index: task for index, task in enumerate(tasks) if index not in done}:
        reasons = []
        in_turn = ((index, attempt(task)) for index, task in missing.items())
        for index, outcome in in_turn if here else _outcomes(workers, attempt, missing):
            if isinstance(outcome, _Lost):
                reasons.append(outcome.reason)
                continue
            done[index] = outcome.value()
            if records is not None:
                records.keep(function, tasks[index], done[index], outcome.seconds)
            report()
        losses = 0 if len(reasons) < len(missing) else losses + 1
        if losses == MAX_LOSSES:
            raise InputError(
                f"workers were lost {MAX_LOSSES} times over ({reasons[0]}): free memory, or use fewer `workers`"
            )
    return [done[index] for index in range(len(tasks))]


@dataclass(frozen=True)
class _Outcome:
    """What a task returned or raised: what a future raises is then a loss of its worker, and not the task's own."""

    result: Any = None
    seconds: float = 0.0
    error: Exception | None = None

    def value(self) -> Any:
        if self.error is not None:
            raise self.error
        return self.result


@dataclass(frozen=True)
class _Lost:
    """A worker was lost, or a connection to it, and why."""

    reason: str


_ONE_AT_A_TIME = threading.RLock()
"""Threads of one process share a random generator of OpenMM's: with two tasks at a time each would change the other."""


def _attempt(function: Callable[[Task], Result], task: Task) -> _Outcome:
    try:
        with _ONE_AT_A_TIME, _on_one_thread():
            begun = time.monotonic()
            return _Outcome(function(task), time.monotonic() - begun)
    except Exception as error:
        error.add_note(format_exc())  # frames stay where they are
        return _Outcome(error=error)


def _on_one_thread() -> AbstractContextManager[None]:
    """Networks must give the same in every process; without torch there are none."""
    return torch_threads(1) if "torch" in sys.modules else nullcontext()


def _outcomes(
    workers: Workers, attempt: Callable[[Task], _Outcome], tasks: Mapping[int, Task]
) -> Iterator[tuple[int, _Outcome | _Lost]]:
    """Of each task once, as they are finished."""
    pending: dict[Future[_Outcome], int] = {}
    try:
        with _submitting(workers) as pool:
            for index, task in tasks.items():
                pending[pool.submit(attempt, task)] = index
        for future in as_completed(pending):
            index = pending.pop(future)
            try:
                outcome: _Outcome | _Lost = future.result()
            except Exception as error:  # each library has its own
                outcome = _Lost(first_line(error))
            yield index, outcome
    finally:
        for future in pending:
            with suppress(NotImplementedError):  # Parsl's
                future.cancel()


@contextmanager
def _submitting(workers: Workers) -> Iterator[Executor]:
    """The executor, given or local; processes that are started meanwhile never hear Ctrl-C, this thread hears it later.

    A terminal sends it to all processes. What is masked stays so in the processes that a thread starts.
    """
    if not isinstance(workers, int) or not hasattr(signal, "pthread_sigmask"):
        yield local_pool(workers) if isinstance(workers, int) else workers
        return
    _start_trackers()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield local_pool(workers)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_trackers() -> None:
    """The processes that remove semaphores: before the signal is masked, for when they start they unmask it.

    They say nothing of what they remove after a process has been killed: nobody has anything to do about it.
    """
    from multiprocessing import resource_tracker

    from loky.backend import resource_tracker as loky_tracker

    name = "PYTHONWARNINGS"
    before = os.environ.get(name)
    os.environ[name] = "ignore"
    try:
        resource_tracker.ensure_running()
        loky_tracker.ensure_running()
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


_local_pools: list[Executor] = []


def local_pool(workers: int) -> Executor:
    """The pool of worker processes, begun where there is none; each has one thread, since the others share the cores.

    Args:
        workers: processes.
    """
    from loky import get_reusable_executor

    pool = get_reusable_executor(
        max_workers=workers,
        timeout=IDLE_TIMEOUT,
        env=dict.fromkeys(THREAD_VARIABLES, "1"),
        initializer=_end_with,
        initargs=(os.getpid(),),
    )
    _local_pools[:] = [pool]
    return pool


def stop_local_workers() -> None:
    """End the worker processes without waiting for their tasks."""
    for pool in _local_pools:
        pool.shutdown(wait=True, kill_workers=True)  # type: ignore[call-arg]
    _local_pools.clear()


def _end_with(parent: int) -> None:
    """In a worker: end when the process that it works for has ended, however that was."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(ORPHANED)
        os._exit(1)

    if os.name == "posix":
        threading.Thread(target=watch, name="parent", daemon=True).start()


def _spread(tasks: Sequence[Any]) -> list[Any]:
    """Tasks whose platform has several devices, distributed over them in turn; others have no platform."""
    distributed = []
    for index, task in enumerate(tasks):
        devices = PlatformChoice.read(task.platform).single_devices() if hasattr(task, "platform") else []
        distributed.append(task.on(devices[index % len(devices)]) if len(devices) > 1 else task)
    return distributed
