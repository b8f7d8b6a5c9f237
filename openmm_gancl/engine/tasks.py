"""Where independent tasks run: in this process, in local processes, or in any `concurrent.futures.Executor`.

A task is a picklable value that carries its own seed; its result depends on nothing else, so neither the number
of workers nor the order nor a killed worker changes a result.
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, as_completed
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

from ..errors import InputError
from .platforms import PlatformChoice
from .threads import THREAD_VARIABLES, torch_threads

MAX_RESTARTS = 3

IDLE_TIMEOUT = 300
"""Seconds after which idle workers end."""

Task = TypeVar("Task")
Result = TypeVar("Result")

RunTasks = Callable[..., list[Any]]
"""`run_tasks`, or that with workers or an executor of its own."""


def available_workers() -> int:
    """The number of CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_tasks(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    *,
    workers: int = 1,
    executor: Executor | None = None,
    progress: Callable[[], None] | None = None,
) -> list[Result]:
    """Apply a function to every task and return the results in the order of the tasks.

    Tasks with a ``platform`` of several devices (``CUDA:0,1``) are distributed over them by their method
    ``on(platform)``; start as many workers.

    Args:
        function: a module-level function of one task.
        tasks: the tasks.
        workers: local processes; 1 runs in this process.
        executor: run here instead (Dask's, MPI's and Parsl's executors fit).
        progress: called once for each finished task.

    Raises:
        InputError: if worker processes keep dying (out of memory, killed).
    """
    report, tasks = progress or (lambda: None), _spread(tasks)
    if executor is None and (workers == 1 or len(tasks) < 2):
        results = []
        for task in tasks:
            with _on_one_thread():
                results.append(function(task))
            report()
        return results
    done: dict[int, Result] = {}
    for _ in range(MAX_RESTARTS):
        pool = executor or local_pool(min(workers, len(tasks)))
        try:
            for index, result in _submit(pool, function, tasks, done):
                done[index] = result
                report()
        except BrokenExecutor:
            continue
        return [done[index] for index in range(len(tasks))]
    raise InputError(f"worker processes died {MAX_RESTARTS} times over: free memory, or use fewer `workers`")


def local_pool(workers: int) -> Executor:
    """The pool of worker processes, begun where there is none; each has one thread, since the others share the cores.

    Args:
        workers: processes.
    """
    from loky import get_reusable_executor

    return get_reusable_executor(max_workers=workers, timeout=IDLE_TIMEOUT, env=dict.fromkeys(THREAD_VARIABLES, "1"))


def _on_one_thread() -> AbstractContextManager[None]:
    """For tasks in this process, whose networks must give what they give in a worker; without torch there are none."""
    return torch_threads(1) if "torch" in sys.modules else nullcontext()


def _submit(
    pool: Executor, function: Callable[[Task], Result], tasks: Sequence[Task], done: dict[int, Result]
) -> Iterator[tuple[int, Result]]:
    pending: dict[Future[Result], int] = {}
    try:
        for index, task in enumerate(tasks):
            if index not in done:
                pending[pool.submit(function, task)] = index
        for future in as_completed(pending):
            yield pending[future], future.result()
    finally:
        for future in pending:
            future.cancel()


def _spread(tasks: Sequence[Any]) -> list[Any]:
    """Tasks whose platform has several devices, distributed over them in turn; others have no platform."""
    distributed = []
    for index, task in enumerate(tasks):
        devices = PlatformChoice.read(task.platform).single_devices() if hasattr(task, "platform") else []
        distributed.append(task.on(devices[index % len(devices)]) if len(devices) > 1 else task)
    return distributed
