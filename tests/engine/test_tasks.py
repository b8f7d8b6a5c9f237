"""Tasks in this process, in others and in executors of other libraries: one conformance test for all of them."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from openmm_gancl.engine.tasks import run_tasks, stop_local_workers
from openmm_gancl.errors import InputError

MAIN = """
import os, sys, time
from openmm_gancl.engine.tasks import run_tasks
from tests.engine.test_tasks import busy
run_tasks(busy, [sys.argv[1]] * 2, workers=2)
"""


@dataclass(frozen=True)
class Task:
    number: int
    folder: str
    lost: int = 0
    """How often the worker of this task is killed."""


def squares(task):
    attempts = Path(task.folder) / f"{task.number}"
    with open(attempts, "a") as stream:
        stream.write("x")
    if len(attempts.read_text()) <= task.lost:
        os.kill(os.getpid(), signal.SIGKILL)
    return np.random.default_rng(task.number).normal(size=3)


def fails(task):
    raise InputError(f"no {task}: give another")


def busy(folder):
    """In a call of a library that a signal does not end."""
    import openmm

    system = openmm.System()
    system.addParticle(1.0)
    integrator = openmm.VerletIntegrator(0.001)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatform(0))
    context.setPositions([[0, 0, 0]])
    (Path(folder) / str(os.getpid())).touch()
    integrator.step(10**9)


@pytest.fixture(autouse=True)
def no_workers_left():
    yield
    stop_local_workers()


def check_conformance(workers, folder, lost=0):
    """What every executor has to do: results in order, one report a task, and a task's own error as it is."""
    reported = []
    tasks = [Task(i, str(folder), lost if i == 3 else 0) for i in range(8)]
    found = run_tasks(squares, tasks, workers=workers, progress=lambda: reported.append(1))
    np.testing.assert_array_equal(found, [np.random.default_rng(i).normal(size=3) for i in range(8)])
    assert len(reported) == 8
    with pytest.raises(InputError, match="no 5: give another"):
        run_tasks(fails, [5, 5], workers=workers)
    assert run_tasks(squares, [], workers=workers) == []


def test_in_this_process(tmp_path):
    check_conformance(1, tmp_path)


def test_in_threads(tmp_path):
    with ThreadPoolExecutor(2) as executor:
        check_conformance(executor, tmp_path)


def test_in_processes_of_which_two_are_killed(tmp_path):
    check_conformance(2, tmp_path, lost=2)


def test_workers_that_keep_dying_are_reported(tmp_path):
    with pytest.raises(InputError, match=r"workers were lost 3 times over .*free memory"):
        run_tasks(squares, [Task(0, str(tmp_path)), Task(1, str(tmp_path), lost=99)], workers=2)
    # the other task may be lost twice with it, and is not done again once it is finished
    assert len((tmp_path / "1").read_text()) <= 6
    assert len((tmp_path / "0").read_text()) <= 3


@pytest.mark.parametrize(
    ("tasks", "options", "words"),
    [
        (5, {}, "^`tasks` of run_tasks are 5: give a list"),
        (None, {}, "^`tasks` of run_tasks are None: give a list"),
        ([1], {"workers": "two"}, "^`workers` is two: give a whole number from 1 up"),
        ([1], {"workers": 0}, "^`workers` is 0: "),
        ([1], {"workers": None}, "^`workers` is None: "),
        ([1], {"progress": True}, "^`progress` of run_tasks is a bool: give a function$"),
    ],
)
def test_arguments_that_are_none_are_refused_before_a_task_is_run(tasks, options, words):
    ran = []
    with pytest.raises(InputError, match=words):
        run_tasks(ran.append, tasks, **options)
    assert not ran


def test_counts_of_numpy_and_any_iterable_are_taken():
    assert run_tasks(abs, (number for number in (-1, 2)), workers=np.int64(1)) == [1, 2]


def ended(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


@pytest.mark.skipif(not Path("/dev/shm").exists(), reason="needs /proc and /dev/shm")
def test_a_killed_main_process_takes_its_workers_along(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", MAIN, str(tmp_path)], stderr=subprocess.PIPE, text=True)
    while len(pids := os.listdir(tmp_path)) < 2 and process.poll() is None:
        time.sleep(0.02)
    process.kill()
    process.wait()
    limit = time.monotonic() + 20
    while not all(ended(pid) for pid in pids) or [n for n in os.listdir("/dev/shm") if f"-{process.pid}-" in n]:
        assert time.monotonic() < limit, "workers or semaphores are left"
        time.sleep(0.05)
    assert len(pids) == 2 and process.stderr.read() == ""  # nor is anything said after its end
