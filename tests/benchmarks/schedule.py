"""How many workers a run keeps busy: its tasks' own CPU times, scheduled on paper.

    python -m tests.benchmarks.schedule [--runs product loop] [--workers 2 4 8 16 64] [--price 1] [--table]

A simulation, and no measurement of several workers: the run is computed in one process by an executor that notes the
CPU seconds of every task and of what the run does in between. ``speed-up`` is what they would take in one process over
what they would take if each batch of tasks went to so many workers, in the order in which they are given out, and
everything else stayed as it is; the way to a worker and back costs nothing here. With a ``--price`` an evaluation costs
so many times as much, in tasks and elsewhere, and nothing else does. Results go to tests/benchmarks/results/schedule,
with the CPU seconds and the evaluations of each stage, and of the tasks in it.
"""

import argparse
import heapq
import json
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

from openmm_gancl.cli.reporting import LogReporter
from openmm_gancl.files import write_atomically
from openmm_gancl.workflow.folder import RunFolder
from openmm_gancl.workflow.options import RunOptions
from openmm_gancl.workflow.run import run

RESULTS = Path(__file__).parent / "results" / "schedule"
PRODUCT = RunOptions(preset="quick", generator="product", platform="Reference")
RUNS = {
    "product": ("alanine_dipeptide_vacuum", PRODUCT),
    "product-4000": ("alanine_dipeptide_vacuum", replace(PRODUCT, lifts=4000)),
    "loop": ("alanine_dipeptide_gbsa", RunOptions(preset="quick", platform="Reference")),
}
BETWEEN = 0.002
"""CPU seconds between two tasks, above which the second one waits for the first."""


class Recorder(Executor):
    """Runs each task at once, and notes what it took."""

    def __init__(self) -> None:
        self.batches: list[list[float]] = [[]]
        self.between, self.last = 0.0, time.process_time()

    def submit(self, function, /, *arguments, **keywords) -> Future:
        gap = (begin := time.process_time()) - self.last
        self.between += gap
        if gap > BETWEEN:
            self.batches.append([])
        future: Future = Future()
        future.set_result(function(*arguments, **keywords))
        self.last = time.process_time()
        self.batches[-1].append(self.last - begin)
        return future

    def finish(self) -> None:
        self.between += time.process_time() - self.last


@contextmanager
def staged(recorder: Recorder) -> Iterator[dict[str, dict]]:
    """CPU seconds and evaluations of each stage that is computed meanwhile, and the CPU seconds of its tasks."""
    found, run_stage = {}, RunFolder.run_stage

    def timed(self, stage, *rest):
        begin, before = time.process_time(), sum(map(sum, recorder.batches))
        run_stage(self, stage, *rest)
        seconds, of_tasks = time.process_time() - begin, sum(map(sum, recorder.batches)) - before
        evaluations = self.manifest["stages"][stage]["attempts"][-1]["force_evaluations"]
        found[stage] = {"seconds": round(seconds, 3), "tasks": round(of_tasks, 3), "evaluations": evaluations}

    with patch.object(RunFolder, "run_stage", timed):
        yield found


def makespan(batch: list[float], workers: int) -> float:
    """Of tasks given out in their order, each to the worker that is free first."""
    free = [0.0] * workers
    for seconds in batch:
        heapq.heappush(free, heapq.heappop(free) + seconds)
    return max(free)


def measured(name: str) -> dict:
    system, options = RUNS[name]
    with tempfile.TemporaryDirectory() as folder:
        recorder = Recorder()
        with staged(recorder) as stages:
            run(Path(folder) / "run", system, options, reporter=LogReporter(), workers=recorder)
        recorder.finish()
    batches = [[round(one, 4) for one in batch] for batch in recorder.batches if batch]
    return {"between": round(recorder.between, 2), "batches": batches, "stages": stages}


def evaluated_elsewhere(stages: dict[str, dict]) -> float:
    """CPU seconds of evaluations outside tasks: those of stages without any, for what one costs in a task."""
    with_tasks = [one for one in stages.values() if one["tasks"]]
    each = sum(one["tasks"] for one in with_tasks) / sum(one["evaluations"] for one in with_tasks)
    return each * sum(one["evaluations"] for one in stages.values() if not one["tasks"])


def speed_up(found: dict, workers: int, price: float = 1.0) -> float:
    rest = found["between"] + (0.0 if price == 1 else (price - 1) * evaluated_elsewhere(found["stages"]))
    alone = rest + price * sum(map(sum, found["batches"]))
    return alone / (rest + price * sum(makespan(batch, workers) for batch in found["batches"]))


def table(workers: list[int], price: float) -> Iterator[str]:
    yield "| run | tasks | CPU seconds of tasks | of the rest | " + " | ".join(f"{n} workers" for n in workers) + " |"
    yield "|---" * (4 + len(workers)) + "|"
    for path in sorted(RESULTS.glob("*.json")):
        found = json.loads(path.read_text())
        tasks, n = sum(map(sum, found["batches"])), sum(map(len, found["batches"]))
        row = [path.stem, n, f"{tasks:.1f}", f"{found['between']:.1f}"]
        yield "| " + " | ".join(map(str, row + [f"{speed_up(found, k, price):.2f}" for k in workers])) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", nargs="+", default=list(RUNS), choices=list(RUNS))
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 4, 8, 16, 64])
    parser.add_argument("--price", type=float, default=1.0)
    parser.add_argument("--table", action="store_true", help="print what is there, and run nothing")
    arguments = parser.parse_args()
    for name in [] if arguments.table else arguments.runs:
        path = RESULTS / f"{name}.json"
        if not path.exists():
            found = measured(name)
            RESULTS.mkdir(parents=True, exist_ok=True)
            write_atomically(path, json.dumps(found) + "\n")
    print("\n".join(table(arguments.workers, arguments.price)))


if __name__ == "__main__":
    main()
