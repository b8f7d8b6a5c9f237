"""Many lifts in one run, and runs side by side: memory, bytes after a kill, and times, one table.

    python -m tests.benchmarks.load [--system SYSTEM] [--lifts 100000 1000000] [--only lifts resume four] [--table]

- ``lifts``: a run without relaxation of so many lifts (quick preset, Reference platform, one process), whose draws are
  streamed to its folder: the peak of its resident memory, as the operating system counts it;
- ``resume``: the smaller one killed (SIGKILL) in the middle of its last round, and begun again: the same bytes;
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
SPARE = 20_000
"""Evaluations beside the lifts: windows and pilots."""


def start(system: str, lifts: int, folder: Path, seed: int = 0) -> subprocess.Popen:
    options = ("--preset", "quick", "--platform", "Reference", "--lifts", str(lifts), "--seed", str(seed))
    command = [sys.executable, "-m", "openmm_gancl.cli", "run", system, *options]
    command += ["--max-evaluations", str(lifts + SPARE), "-o", str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)


def finish(process: subprocess.Popen) -> tuple[int, float, float]:
    """Exit code, peak of resident memory in MiB, and CPU seconds."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, usage.ru_maxrss / 1024, usage.ru_utime + usage.ru_stime


def of_lifts(system: str, lifts: int) -> dict:
    folder = SCRATCH / f"{system}-{lifts}"
    shutil.rmtree(folder, ignore_errors=True)
    begin = time.monotonic()
    code, peak, cpu = finish(start(system, lifts, folder))
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 2**20
    return {
        "code": code,
        "peak_mib": round(peak),
        "cpu_seconds": round(cpu),
        "seconds": round(time.monotonic() - begin),
        "folder_mib": round(size),
    }


def last_round(folder: Path) -> str:
    return max(path.parent.name for path in (folder / "rounds").glob("*/lifts"))


def of_resume(system: str, lifts: int) -> dict:
    whole, folder = SCRATCH / f"{system}-{lifts}", SCRATCH / f"{system}-{lifts}-killed"
    if not (whole / "fes.npz").exists():
        of_lifts(system, lifts)
    shutil.rmtree(folder, ignore_errors=True)
    process, stage = start(system, lifts, folder), folder / "rounds" / last_round(whole) / "lifts.tmp"
    # some of its parts are there
    while process.poll() is None and not (stage / "coordinates-0000.npy").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    in_round = stage.exists()
    code, _, _ = finish(start(system, lifts, folder))
    same = all((folder / name).read_bytes() == (whole / name).read_bytes() for name in COMPARED)
    return {"code": code, "killed_in_last_round": in_round, "same_bytes": same}


def of_four(system: str) -> dict:
    lifts, places = 4000, [SCRATCH / f"{system}-{kind}" for kind in ("alone", "beside")]
    for place in places:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
    alone = [finish(start(system, lifts, places[0] / str(seed), seed))[0] for seed in range(4)]
    beside = [finish(one)[0] for one in [start(system, lifts, places[1] / str(seed), seed) for seed in range(4)]]
    pairs = [[place / str(seed) / name for place in places] for seed in range(4) for name in COMPARED]
    same = all(one.read_bytes() == other.read_bytes() for one, other in pairs)
    return {"codes": [*alone, *beside], "same_bytes": same}


def table() -> Iterator[str]:
    for path in sorted(RESULTS.glob("*.json")):
        yield f"{path.stem}: {json.loads(path.read_text())}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--system", default="alanine_dipeptide_vacuum")
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
