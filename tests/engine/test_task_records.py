"""Finished tasks are not repeated, and a record that is not as it was written is never used."""

import errno
import json
import pickle
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from openmm_gancl.engine import task_records, versions
from openmm_gancl.engine.interrupts import noticed_interrupts
from openmm_gancl.engine.task_records import HASH, SUFFIX, TaskRecords
from openmm_gancl.engine.tasks import recorded_by, run_tasks
from openmm_gancl.lifting.relaxation import Relaxed
from openmm_gancl.sampling.langevin import Walkers


@dataclass(frozen=True)
class Task:
    number: int
    folder: str
    values: np.ndarray = field(default_factory=lambda: np.arange(3.0))

    def noted(self):
        """That it was run."""
        with open(Path(self.folder) / f"{self.number}", "a") as stream:
            stream.write("x")


def of_numbers(task):
    task.noted()
    x = np.random.default_rng(task.number).normal(size=(4, 3)) + task.values
    return x, x.sum(axis=1), Walkers(x[None], None, np.full((1, 3, 3), np.nan)), None


def others(task):
    return of_numbers(task)


def stops_at(number, task):
    if task.number == number:
        raise KeyboardInterrupt
    return of_numbers(task)


def loses_an_interrupt(task):
    """As a destructor of a library does, and what goes on is then damaged."""
    task.noted()
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        return np.full(3, 666.0)
    return np.zeros(3)


@pytest.fixture(autouse=True)
def every_task_is_recorded(monkeypatch):
    monkeypatch.setattr(task_records, "MIN_SECONDS", 0.0)


@pytest.fixture
def tasks(tmp_path):
    (tmp_path / "ran").mkdir()
    return [Task(i, str(tmp_path / "ran")) for i in range(6)]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "sample.tasks"


def run(folder, function, tasks, **how):
    with recorded_by(records := TaskRecords(folder)):
        return run_tasks(function, tasks, **how), records


def ran(tasks):
    """How often each was run."""
    return [len((Path(task.folder) / str(task.number)).read_text()) for task in tasks]


def same(found, expected):
    return pickle.dumps(found) == pickle.dumps(expected)


@pytest.mark.parametrize("threads", [None, 2])
def test_what_was_finished_is_not_run_again(threads, tasks, folder):
    expected = run_tasks(of_numbers, tasks)
    with ThreadPoolExecutor(2) as pool:
        workers = pool if threads else 1
        run(folder, of_numbers, tasks[:4], workers=workers)
        reported = []
        with recorded_by(records := TaskRecords(folder)):
            found = run_tasks(of_numbers, tasks, workers=workers, progress=lambda: reported.append(records.taking))
    assert same(found, expected)
    assert ran(tasks) == [2, 2, 2, 2, 2, 2] and reported == [True] * 4 + [False] * 2


def test_a_stage_that_is_stopped_keeps_what_came_before(tasks, folder):
    with pytest.raises(KeyboardInterrupt):
        run(folder, partial(stops_at, 4), tasks)
    found, _ = run(folder, partial(stops_at, 4), tasks[:4])
    assert ran(tasks[:4]) == [1, 1, 1, 1]
    assert same(found, [of_numbers(task) for task in tasks[:4]])


def test_other_work_takes_nothing(tasks, folder, monkeypatch):
    """Another function, another input of a single bit, another option of the function, another version."""
    run(folder, of_numbers, tasks[:1])
    last_bit = Task(0, tasks[0].folder, np.nextafter(tasks[0].values, 9.0))
    found, _ = run(folder, of_numbers, [last_bit])
    assert ran(tasks[:1]) == [2] and same(found, [of_numbers(last_bit)])
    run(folder, others, tasks[:1])
    assert ran(tasks[:1]) == [4]
    run(folder, partial(stops_at, 9), tasks[:1])
    run(folder, partial(stops_at, 8), tasks[:1])
    assert ran(tasks[:1]) == [6]
    monkeypatch.setattr(task_records, "package_versions", lambda: {"openmm": "7.0"})
    run(folder, of_numbers, tasks[:1])
    assert ran(tasks[:1]) == [7]


def test_short_tasks_are_not_recorded(tasks, folder, monkeypatch):
    monkeypatch.setattr(task_records, "MIN_SECONDS", 5.0)
    run(folder, of_numbers, tasks)
    assert not folder.exists()


def damaged(content, rng):
    """Cut, with a bit turned, with more at its end, and with a piece of zeros."""
    for length in (0, 1, 31, 32, 33, len(content) // 2, len(content) - 1):
        yield content[:length]
    for place in rng.integers(0, len(content), 60):
        yield content[:place] + bytes([content[place] ^ 1 << rng.integers(8)]) + content[place + 1 :]
    yield content + b"\0"
    yield content[:200] + bytes(64) + content[264:]


def test_a_damaged_record_is_not_used(tasks, folder):
    expected = [of_numbers(tasks[0])]
    run(folder, of_numbers, tasks[:1])
    (file,) = folder.iterdir()
    whole, before = file.read_bytes(), ran(tasks[:1])[0]
    trials = [content for content in damaged(whole, np.random.default_rng(1)) if content != whole]
    for content in trials:
        file.write_bytes(content)
        assert same(run(folder, of_numbers, tasks[:1])[0], expected)
        assert file.read_bytes() == whole  # written anew
    assert ran(tasks[:1])[0] == before + len(trials) and len(trials) > 60


def test_a_record_under_another_name_is_not_used(tasks, folder):
    run(folder, of_numbers, tasks[:1])
    (first,) = folder.iterdir()
    run(folder, of_numbers, tasks[1:2])
    (second,) = set(folder.iterdir()) - {first}
    second.write_bytes(first.read_bytes())
    assert same(run(folder, of_numbers, tasks[1:2])[0], [of_numbers(tasks[1])])


def test_without_its_checksum_a_damaged_record_would_be_a_wrong_number(tasks, folder):
    """The twin: the last bytes belong to an array, and reading them says nothing."""
    run(folder, of_numbers, tasks[:1])
    (file,) = folder.iterdir()
    whole = file.read_bytes()
    _, sums, *_ = task_records._read(whole[32:])
    place = whole.index(sums.tobytes()) + 6
    flipped = whole[:place] + bytes([whole[place] ^ 64]) + whole[place + 1 :]
    assert not np.array_equal(task_records._read(flipped[32:])[1], sums)
    file.write_bytes(flipped)
    assert same(run(folder, of_numbers, tasks[:1])[0], [of_numbers(tasks[0])])


CODE = {"module": "os", "class": "system", "fields": {"command": "touch VICTIM"}}
FORGED = {
    "code": json.dumps(CODE),
    "ours, but no result": json.dumps({"module": "openmm_gancl.files", "class": "write_atomically", "fields": {}}),
    "deep": "[" * 100_000,
    "a module that is not loaded": json.dumps({**CODE, "module": "antigravity"}),
    "an array that is not there": json.dumps({"array": 7}),
}


@pytest.mark.parametrize("text", FORGED.values(), ids=FORGED)
def test_a_forged_record_with_a_right_checksum_runs_no_code(text, tasks, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = TaskRecords(folder)._name(of_numbers, tasks[0])
    content = f"0 {text}\n".encode()
    folder.mkdir()
    (folder / f"{name}{SUFFIX}").write_bytes(HASH(name.encode() + content).digest() + content)
    assert same(run(folder, of_numbers, tasks[:1])[0], [of_numbers(tasks[0])])
    assert not (tmp_path / "VICTIM").exists() and ran(tasks[:1]) == [2]


def test_nothing_is_recorded_once_an_interrupt_came(tasks, folder, monkeypatch):
    """Otherwise what a task that lost it has computed would be taken for its result by the next attempt."""
    with pytest.raises(KeyboardInterrupt), noticed_interrupts() as check:
        run(folder, loses_an_interrupt, tasks[:2])
        check()
    assert ran(tasks[:2]) == [1, 1] and not folder.exists()
    monkeypatch.setattr(task_records, "interrupts", lambda: 0)  # the twin
    with noticed_interrupts():
        run(folder, loses_an_interrupt, tasks[:1])
    assert run(folder, loses_an_interrupt, tasks[:1])[0][0].tolist() == [666.0] * 3


def test_a_full_disk_is_said_and_what_was_recorded_stays(tasks, folder, monkeypatch):
    run(folder, of_numbers, tasks[:2])

    def full(path, content):
        raise OSError(errno.ENOSPC, "no space", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(task_records, "write_atomically", full)
        with pytest.raises(OSError, match="no space"):
            run(folder, of_numbers, tasks)
    assert same(run(folder, of_numbers, tasks)[0], [of_numbers(task) for task in tasks])
    assert ran(tasks) == [2, 2, 3, 2, 2, 2]


def test_results_come_back_as_they_were():
    x = np.random.default_rng(0).normal(size=(3, 2, 3))
    x[0, 0, 0], x[1, 1, 1] = -0.0, np.nan
    lost = Relaxed(x, x[:, 0, 0], x[:, 0, 1], x[:, 1, 0], x[:, 1, 1], np.array([True, False, True]))
    results = [x, np.asfortranarray(x[0]), np.empty((0, 3)), np.array("label"), (x, None, (1, 2.5, "a", [x + 1])), lost]
    for result in results:
        back = task_records._read(task_records._written(result))
        assert same(back, pickle.loads(pickle.dumps(result)))
    for result in ({1}, np.array([None]), lambda: 0, np.float64(1.0)):
        with pytest.raises((TypeError, ValueError)):
            task_records._written(result)


def test_packages_that_are_not_installed_have_no_version(monkeypatch):
    monkeypatch.setattr(versions, "PACKAGES", ("numpy", "no-such-package"))
    found = versions.package_versions.__wrapped__()
    assert found["numpy"] == np.__version__ and found["no-such-package"] == "unknown"
