"""One test run each with the oldest supported and with the newest dependencies, on every Python that is here.

    python -m tests.versions [--pythons python3.11 python3.12 python3.13] [--sets oldest newest] [--tests PATH ...]

Each run has an environment of its own in a temporary folder, into which pip installs the package and what it needs:
``oldest`` are the lower bounds of pyproject.toml themselves. A log goes to tests/benchmarks/results/versions: what was
installed, and how the tests ended. A run whose log is there is not repeated. OpenCL drivers of the machine are hidden:
with PoCL 3.1 OpenMM 8.6.1 crashes when it measures its platforms.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "tests" / "benchmarks" / "results" / "versions"
TESTS = ("tests/test_modules.py", "tests/engine", "tests/cli/test_cli.py", "tests/cli/test_interrupts.py")
TEST_TOOLS = ("pytest>=8.3", "hypothesis>=6.100")


def dependencies() -> list[str]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]


def oldest(requirements: list[str]) -> list[str]:
    """Lower bounds as they are written; ``==2`` is 2.0.0."""
    return [re.sub(r">=([\d.]+).*", r"==\1", one) for one in requirements]


def environment(python: str, kind: str, place: Path) -> Path:
    """A Python with the package and its dependencies; it raises what pip says."""
    subprocess.run([python, "-m", "venv", str(place)], check=True)
    found = place / "bin" / "python"
    wanted = dependencies() if kind == "newest" else oldest(dependencies())
    pip = [str(found), "-m", "pip", "install", "--quiet", "--no-cache-dir"]
    subprocess.run([*pip, *wanted, *TEST_TOOLS], check=True)
    return found


def run(python: str, kind: str, tests: list[str]) -> str:
    """The log of one test run."""
    place = Path(tempfile.mkdtemp(prefix="gancl-versions-"))
    try:
        found = environment(python, kind, place)
        installed = subprocess.run([found, "-m", "pip", "freeze"], capture_output=True, text=True, check=True).stdout
        names = {re.split(r"[><=]", one)[0].lower().replace("_", "-") for one in dependencies()}
        rows = [line for line in installed.splitlines() if line.split("==")[0].lower().replace("_", "-") in names]
        command = [found, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
        path = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OCL_ICD_VENDORS": os.devnull}
        ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=path)
        tested = ended.stdout.splitlines()
        if " in " not in tested[-1]:  # it crashed
            tested.append(f"ended with code {ended.returncode}: {ended.stderr[:2000]}")
        version = subprocess.run([found, "-V"], capture_output=True, text=True, check=True).stdout.strip()
        failed = [line for line in tested if line.startswith(("FAILED", "ERROR"))]
        return "\n".join([version, *rows, f"pytest {' '.join(tests)}", *failed, tested[-1]]) + "\n"
    finally:
        shutil.rmtree(place)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pythons", nargs="+", default=["python3.11", "python3.12", "python3.13"])
    parser.add_argument("--sets", nargs="+", default=["oldest", "newest"], choices=["oldest", "newest"])
    parser.add_argument("--tests", nargs="+", default=list(TESTS))
    arguments = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    for python in arguments.pythons:
        for kind in arguments.sets:
            log = RESULTS / f"{Path(python).name}-{kind}.txt"
            if log.exists() or shutil.which(python) is None:
                print(f"{log.name}: {'is there' if log.exists() else 'no such Python here'}")
                continue
            try:
                log.write_text(run(python, kind, arguments.tests))
            except subprocess.CalledProcessError as error:
                print(f"{log.name}: {' '.join(map(str, error.cmd))} failed", file=sys.stderr)
                continue
            print(log.name, log.read_text().splitlines()[-1])


if __name__ == "__main__":
    main()
