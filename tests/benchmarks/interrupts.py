"""Faults in the middle of runs, one table: what was tried, what survived, what was lost.

    python -m tests.benchmarks.interrupts [--faults kill main worker ctrl-c first-second disk two] [--table]

A chain is one run whose every stage is interrupted several times at random moments, begun again after each, and at last
compared byte by byte with a run that nobody touched. Trials are written to tests/benchmarks/results/interrupts as they
are made; a killed command goes on where it was. ``loop`` is the quick preset of alanine dipeptide in one process,
``product`` the tiny one of tests/tiny_run.py with relaxed lifts in two workers.

- ``kill``: SIGKILL to the whole process group; ``main``: to the main process alone (``seconds`` until its workers are
  gone); ``worker``: to one worker, the run goes on; ``ctrl-c``: SIGINT to the process group, as a terminal sends it.
- ``first-second`` and ``start``: Ctrl-C in the first second of ``gancl run``, and in the first hundredths. What comes
  before Python has read our first line is Python's own (``before us``): no line of its traceback is ours, and nothing
  has begun.
- ``disk``: a file system that is full in each stage (needs the right to mount a tmpfs).
- ``two``: a second process in the folder of a running one.
- ``tasks``: SIGKILL to the process group when half of a stage's tasks are recorded, one of them then cut and one with a
  bit turned; ``evaluations`` of the attempts that were killed, of the last one, and of a run that nobody touched. The
  runs are quick presets of alanine dipeptide with relaxed lifts, of the card's labels and of learned ones.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from openmm_gancl.files import write_atomically
from openmm_gancl.workflow.folder import RunFolder

RESULTS = Path(__file__).parent / "results" / "interrupts"
SCRATCH = Path(tempfile.gettempdir()) / "gancl-interrupts"
COMPARED = ("fes.npz", "lifts.npz", "model.safetensors")
EARLY = {"first-second": (20, 1.0), "start": (40, 0.16)}
"""Moments, and seconds over which they are spread."""
LONGEST = 300.0


@dataclass(frozen=True)
class Kind:
    """A run, and how often each of its stages meets each fault."""

    module: str
    arguments: tuple[str, ...]
    times: dict[str, int]

    def command(self, folder: Path) -> list[str]:
        return [sys.executable, "-m", self.module, "run", *self.arguments, "-o", str(folder)]


QUICK = ("--preset", "quick", "--platform", "Reference")
KINDS = {
    "loop": Kind("openmm_gancl.cli", ("alanine_dipeptide_vacuum", *QUICK), {"kill": 4, "ctrl-c": 2}),
    "product": Kind(
        "tests.tiny_run",
        ("double_well_oscillators", *QUICK, "--generator", "product", "--workers", "2"),
        {"kill": 5, "main": 3, "worker": 7, "ctrl-c": 4},
    ),
}


class Trials:
    """What was tried, in a file."""

    def __init__(self, name: str):
        self.path = RESULTS / f"{name}.json"
        self.rows = json.loads(self.path.read_text()) if self.path.exists() else []

    def add(self, **row) -> None:
        self.rows.append(row)
        RESULTS.mkdir(parents=True, exist_ok=True)
        text = ",\n ".join(json.dumps(row) for row in self.rows)
        write_atomically(self.path, f"[{text}]\n")
        print(self.path.stem, row, flush=True)


def start(command: list[str], stderr: int = subprocess.PIPE) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=stderr, text=True, start_new_session=True, env=environment
    )


def finished_run(kind: str) -> Path:
    """A run of a kind that nobody touched."""
    folder = SCRATCH / kind / "whole"
    process = start(KINDS[kind].command(folder))
    message = process.communicate()[1]
    assert process.returncode in (0, 3), message
    return folder


def stages_of(whole: Path) -> dict[str, float]:
    """Seconds of each stage."""
    return RunFolder.load(whole).seconds()


def group(pid: int) -> list[int]:
    """Processes of a session, the one that began it left out."""
    found = subprocess.run(["ps", "-o", "pid=,stat=", "--sid", str(pid)], capture_output=True, text=True).stdout
    rows = [line.split() for line in found.splitlines()]
    return [int(one) for one, state in rows if int(one) != pid and not state.startswith("Z")]


def workers_of(pid: int) -> list[int]:
    named = [one for one in group(pid) if b"popen_loky" in Path(f"/proc/{one}/cmdline").read_bytes()]
    return sorted(named)


def semaphores_of(pid: int) -> int:
    return len([name for name in os.listdir("/dev/shm") if f"-{pid}-" in name])


def seconds_until_gone(pid: int) -> float:
    begin = time.monotonic()
    while (group(pid) or semaphores_of(pid)) and time.monotonic() - begin < 30:
        time.sleep(0.05)
    return round(time.monotonic() - begin, 2)


def interrupt(fault: str, process: subprocess.Popen) -> dict:
    """The fault, and what followed at once."""
    if fault == "worker":
        workers = workers_of(process.pid)
        if workers:
            os.kill(workers[0], signal.SIGKILL)
        return {"hit": bool(workers)}
    if process.poll() is not None:
        return {"hit": False, "code": process.returncode, "ended": 0.0, "gone": 0.0, "lines": 0, "last": []}
    if fault == "main":
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGKILL if fault == "kill" else signal.SIGINT)
    begin = time.monotonic()
    process.wait(timeout=60)
    ended = round(time.monotonic() - begin, 2)
    gone = seconds_until_gone(process.pid) if fault in ("main", "ctrl-c") else 0.0
    message = process.stderr.read()
    frames = [line for line in message.splitlines() if line.startswith("  File ")]
    errors = [line for line in message.splitlines() if not line.endswith("begun") and " after " not in line]
    errors = [line for line in errors if not line.startswith("note: ")]
    row = {"code": process.returncode, "ended": ended, "gone": gone, "lines": len(errors), "last": errors[-1:]}
    return row | ({"frames": frames} if frames else {})


def ok(fault: str, row: dict) -> bool:
    """Whether a fault ended as it should."""
    if fault == "ctrl-c":
        sentence = row["lines"] == 1 and row["last"][0].startswith("error: interrupted: ")
        return bool(row["code"] == 130 and sentence and row["gone"] < 10)
    return fault != "main" or row["gone"] < 10


def chain(kind: str, fault: str, trials: Trials) -> None:
    """Interrupt every stage of a run several times; the last row says whether a byte was lost."""
    if any(row.get("stage") == "compared" for row in trials.rows):
        return
    whole = finished_run(kind)
    seconds, folder, rng = stages_of(whole), SCRATCH / kind / fault, np.random.default_rng(len(trials.rows))
    if fault == "worker":
        seconds.pop("surface")  # has no tasks
    for stage in seconds:
        done = sum(row["stage"] == stage and row.get("hit", True) for row in trials.rows)
        for _ in range(KINDS[kind].times[fault] - done):
            # a run that was interrupted too late has it, and computes it once more
            shutil.rmtree(folder / stage, ignore_errors=True)
            process = start(KINDS[kind].command(folder))
            limit = time.monotonic() + LONGEST
            while not (folder / f"{stage}.tmp").exists() and process.poll() is None and time.monotonic() < limit:
                time.sleep(0.005)
            while fault == "worker" and not workers_of(process.pid) and process.poll() is None:
                time.sleep(0.05)
            time.sleep(delay := rng.uniform(0, 0.9 * max(seconds[stage], 0.1)))
            at = [path.name for path in folder.rglob("*.tmp") if path.is_dir()]
            row = interrupt(fault, process)
            if fault == "worker":
                process.stderr.read()
                row["code"] = process.wait()
            good = ok(fault, row) if row.get("hit", True) else row["code"] in (0, 3)
            trials.add(stage=stage, delay=round(delay, 2), at=at, **row, ok=good)
    process = start(KINDS[kind].command(folder))
    process.communicate()
    same = all((folder / name).read_bytes() == (whole / name).read_bytes() for name in COMPARED)
    trials.add(stage="compared", code=process.returncode, ok=same and process.returncode in (0, 3))


def early(trials: Trials, n: int, span: float) -> None:
    """Ctrl-C at moments of the first second, evenly: Python's own traceback has frames of ours, or has none."""
    for number in range(len(trials.rows), n):
        folder = SCRATCH / trials.path.stem
        shutil.rmtree(folder, ignore_errors=True)
        process = start(KINDS["loop"].command(folder))
        time.sleep(delay := (number + 0.5) / n * span)
        row = interrupt("ctrl-c", process)
        frames = [line for line in row.pop("frames", []) if "/openmm_gancl/" in line]
        good = ok("ctrl-c", row)
        trials.add(delay=round(delay, 4), before_us=not good and not frames, **row, ok=good or not frames)


def full_disks(kind: str, trials: Trials) -> None:
    """Each stage of a run on a file system that has room for those before, and a little more."""
    whole, place = finished_run(kind), SCRATCH / "disk"
    place.mkdir(parents=True, exist_ok=True)
    names = list(stages_of(whole))
    for number, stage in enumerate(names):
        if any(row["stage"] == stage for row in trials.rows):
            continue
        size = sum(file.stat().st_size + 4096 for file in (whole / stage).iterdir())
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(place)], check=True)
        try:
            shutil.copytree(whole, place / "run")
            for result in ("fes.npz", "fes.dat", "fes.png", "lifts.npz", "lifts.dcd"):
                (place / "run" / result).unlink()
            for later in names[number:]:
                shutil.rmtree(place / "run" / later)
            used = sum(file.stat().st_blocks * 512 for file in place.rglob("*"))
            limit = used + size // 2 + 4096
            subprocess.run(["mount", "-o", f"remount,size={limit}", str(place)], check=True)
            process = start(KINDS[kind].command(place / "run"))
            message = process.communicate()[1].splitlines()
            folder = RunFolder.load(place / "run")
            for kept in names[:number]:
                folder.verify(kept)
            told = message[-1].startswith("error: no space left on the disk") and "terminate" not in "".join(message)
            good, last = process.returncode == 2 and told, message[-1].replace(f"{place}/", "")
            trials.add(stage=stage, code=process.returncode, ok=good, last=[last])
        finally:
            subprocess.run(["umount", str(place)], check=True)


def two_processes(trials: Trials) -> None:
    """A second process while a first one is at work."""
    for number in range(len(trials.rows), 5):
        folder = SCRATCH / "two" / str(number)
        first = start(KINDS["product"].command(folder))
        while not (folder / "lock").exists() and first.poll() is None:
            time.sleep(0.01)
        time.sleep(0.3 * number)
        second = start(KINDS["product"].command(folder))
        message = second.communicate()[1]
        first.communicate()
        refused = second.returncode == 2 and "is in use by process" in message
        trials.add(code=second.returncode, first=first.returncode, ok=refused and first.returncode in (0, 3))


def damage(records: list[Path]) -> None:
    """One record cut, one with a bit turned in the middle."""
    cut, turned = (path.read_bytes() for path in records[:2])
    records[0].write_bytes(cut[: len(cut) // 2])
    middle = len(turned) // 2
    records[1].write_bytes(turned[:middle] + bytes([turned[middle] ^ 16]) + turned[middle + 1 :])


def finished_tasks(trials: Trials) -> None:
    """Stages that are killed when half of their tasks are recorded."""
    for labels, more in (("torsions", ()), ("learned", ("--slow", "diffusion-map"))):
        kind = Kind(
            "openmm_gancl.cli",
            ("alanine_dipeptide_vacuum", *QUICK, "--generator", "product", *more, "--workers", "2"),
            {},
        )
        folder, whole = SCRATCH / "tasks" / labels, SCRATCH / "tasks" / f"{labels} whole"
        start(kind.command(whole), subprocess.DEVNULL).wait()
        for stage, half in (("sample", 4), ("lift", 10)):
            if any((row["stage"], row["labels"]) == (stage, labels) for row in trials.rows):
                continue
            process, records = start(kind.command(folder), subprocess.DEVNULL), folder / f"{stage}.tasks"
            while len(kept := list(records.glob("*.task"))) < half and process.poll() is None:
                time.sleep(0.01)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            damage(kept)
            start(kind.command(folder), subprocess.DEVNULL).wait()
            same = all((folder / name).read_bytes() == (whole / name).read_bytes() for name in COMPARED)
            (untouched,), attempts = (
                [one["force_evaluations"] for one in RunFolder.load(place).manifest["stages"][stage]["attempts"]]
                for place in (whole, folder)
            )
            good = same and attempts[-1] < untouched and not list(folder.rglob("*.tasks"))
            row = {"records": len(kept), "evaluations": [*attempts, untouched]}
            trials.add(stage=stage, labels=labels, **row, ok=good)
            shutil.rmtree(folder)


def table() -> Iterator[str]:
    """One line a fault."""
    yield "| fault | tried | as it should | before our first line | lost or wrong | slowest end (s) |"
    yield "|---|---|---|---|---|---|"
    for path in sorted(RESULTS.glob("*.json")):
        rows = json.loads(path.read_text())
        tried = [row for row in rows if row.get("stage") != "compared" and row.get("hit", True)]
        slowest = max((row.get("ended", 0.0) + row.get("gone", 0.0) for row in tried), default=0.0)
        bad = [row for row in rows if not row["ok"]]
        before = sum(row.get("before_us", False) for row in tried)
        good = len(tried) - len(bad) - before
        yield f"| {path.stem} | {len(tried)} | {good} | {before} | {len(bad)} | {slowest:.1f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    faults = ["first-second", "start", "disk", "two", "ctrl-c", "kill", "main", "worker", "tasks"]
    parser.add_argument("--faults", nargs="+", default=faults, choices=faults)
    parser.add_argument("--table", action="store_true", help="print the table of what is there, and run nothing")
    arguments = parser.parse_args()
    # in the background of a shell it is ignored, by all that is started here too
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for fault in [] if arguments.table else arguments.faults:
        if fault in EARLY:
            early(Trials(fault), *EARLY[fault])
        elif fault == "two":
            two_processes(Trials(fault))
        elif fault == "tasks":
            finished_tasks(Trials(fault))
        else:
            for kind, one in KINDS.items():
                if fault == "disk":
                    full_disks(kind, Trials(f"{fault} {kind}"))
                elif fault in one.times:
                    chain(kind, fault, Trials(f"{fault} {kind}"))
    print("\n".join(table()))


if __name__ == "__main__":
    main()
