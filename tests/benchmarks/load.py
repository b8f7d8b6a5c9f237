"""Many lifts in one run, and runs side by side: memory, bytes after a kill, and times, one table.

    python -m tests.benchmarks.load [--system SYSTEM] [--lifts 100000 1000000] [--only lifts resume four] [--table]

- ``lifts``: so many more lifts without relaxation of a finished run (quick preset, Reference platform, one process;
  ``gancl lift RUN --lifts N``), whose coordinates are streamed to its folder: the peak of the resident memory of that
  command, as the operating system counts it;
- ``resume``: the smaller one killed (SIGKILL) among its lifts, and begun again: the same bytes;
- ``four``: four runs at once, each in its own folder: the same bytes as each alone.

Results go to tests/benchmarks/results/load as they are made; a killed command goes on where it was.
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
from pathlib import Path

from openmm_gancl.files import write_atomically

RESULTS = Path(__file__).parent / "results" / "load"
SCRATCH = Path(tempfile.gettempdir()) / "gancl-load"
COMPARED = ("fes.npz", "lifts.npz", "model.safetensors")
FOUR_LIFTS = 4000


def start(*arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "openmm_gancl.cli", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)


def begin(system: str, folder: Path, *more: str) -> subprocess.Popen:
    shutil.rmtree(folder, ignore_errors=True)
    return start("run", system, "--preset", "quick", "--platform", "Reference", *more, "-o", str(folder))


def copy_of_finished(system: str, folder: Path) -> Path:
    whole = SCRATCH / system
    if not (whole / "fes.npz").exists():
        finish(begin(system, whole))
    shutil.rmtree(folder, ignore_errors=True)
    return Path(shutil.copytree(whole, folder))


def finish(process: subprocess.Popen) -> tuple[int, float, float]:
    """Exit code, peak of resident memory in MiB, and CPU seconds."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, usage.ru_maxrss / 1024, usage.ru_utime + usage.ru_stime


def of_lifts(system: str, lifts: int) -> dict:
    folder = copy_of_finished(system, SCRATCH / f"{system}-{lifts}")
    began = time.monotonic()
    code, peak, cpu = finish(start("lift", str(folder), "--lifts", str(lifts)))
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 2**20
    return {
        "code": code,
        "peak_mib": round(peak),
        "cpu_seconds": round(cpu),
        "seconds": round(time.monotonic() - began),
        "folder_mib": round(size),
    }


def of_resume(system: str, lifts: int) -> dict:
    whole, killed = SCRATCH / f"{system}-{lifts}", SCRATCH / f"{system}-{lifts}-killed"
    if not (whole / "lifts").exists():
        of_lifts(system, lifts)
    folder = copy_of_finished(system, killed)
    process, stage = start("lift", str(folder), "--lifts", str(lifts)), folder / "lifts" / "00.tmp"
    # some of its parts are there
    while process.poll() is None and not (stage / "coordinates-0000.npy").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    among_lifts = stage.exists()
    code, _, _ = finish(start("lift", str(folder)))
    same = all((folder / name).read_bytes() == (whole / name).read_bytes() for name in COMPARED)
    return {"code": code, "killed_among_lifts": among_lifts, "same_bytes": same}


def of_four(system: str) -> dict:
    places = [SCRATCH / f"{system}-{kind}" for kind in ("alone", "beside")]
    for place in places:
        place.mkdir(parents=True, exist_ok=True)

    def one(place: Path, seed: int) -> subprocess.Popen:
        return begin(system, place / str(seed), "--lifts", str(FOUR_LIFTS), "--seed", str(seed))

    alone = [finish(one(places[0], seed))[0] for seed in range(4)]
    beside = [finish(process)[0] for process in [one(places[1], seed) for seed in range(4)]]
    pairs = [[place / str(seed) / name for place in places] for seed in range(4) for name in COMPARED]
    same = all(one.read_bytes() == other.read_bytes() for one, other in pairs)
    return {"codes": [*alone, *beside], "same_bytes": same}


def table() -> Iterator[str]:
    for path in sorted(RESULTS.glob("*.json")):
        yield f"{path.stem}: {json.loads(path.read_text())}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--system", default="double_well_oscillators")
    parser.add_argument("--lifts", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--only", nargs="+", default=["lifts", "resume", "four"], choices=["lifts", "resume", "four"])
    parser.add_argument("--table", action="store_true", help="print what is there, and run nothing")
    arguments = parser.parse_args()
    system = arguments.system
    work = {
        f"{system} {n} lifts": lambda n=n: of_lifts(system, n) for n in arguments.lifts if "lifts" in arguments.only
    }
    if "resume" in arguments.only:
        work[f"{system} {min(arguments.lifts)} resume"] = lambda: of_resume(system, min(arguments.lifts))
    if "four" in arguments.only:
        work[f"{system} four"] = lambda: of_four(system)
    for name, measure in {} if arguments.table else work.items():
        path = RESULTS / f"{name.replace(' ', '-')}.json"
        if not path.exists():
            found = measure()
            RESULTS.mkdir(parents=True, exist_ok=True)
            write_atomically(path, json.dumps(found) + "\n")
    print("\n".join(table()))


if __name__ == "__main__":
    main()
