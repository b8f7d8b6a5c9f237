"""Coverage-guided fuzzing of the readers of files, resumable.

    python -m tests.fuzz.run FORMAT... --minutes 3

needs ``pip install atheris`` and runs one process after the other, a format each (all of them by default), for so many
minutes. Inputs that reach new code stay in ``--work`` (``runs/fuzz`` by default), where the next run goes on. One that
breaks a reader is written there as ``FORMAT/crash-...`` (or ``timeout-``, ``oom-``): mend the reader, and put the input
into ``tests/fuzz/corpus/FORMAT``, whose files the ordinary tests read. Minutes of the processor and inputs tried are
added up in ``tests/fuzz/minutes.json``.
"""

import argparse
import hashlib
import importlib.util
import json
import re
import resource
import subprocess
import sys
from pathlib import Path

CORPUS, MINUTES = Path(__file__).parent / "corpus", Path(__file__).parent / "minutes.json"
MAX_SECONDS, MAX_MIB, MAX_LENGTH = 30, 3000, 16_384
"""Of one input."""

LONGER = {"model": 65_536}
"""Of formats whose smallest whole file is longer."""

READERS = ["openmm_gancl.trajectories", "openmm_gancl.coordinates.residues", "openmm_gancl.files"]
READERS += ["openmm_gancl.free_energy.surface", "mdtraj.formats", "numpy.lib._format_impl", "zipfile"]
READERS += [f"openmm_gancl.system.{name}" for name in ("card", "build", "force_field_files", "molecular_system")]
READERS += [f"openmm_gancl.generator.{name}" for name in ("model", "model_file", "invertible", "trained_for")]
READERS += ["openmm_gancl.workflow.manifest", "openmm_gancl.engine.serialization", "openmm_gancl.reference.chart"]
READERS += ["tomllib"]
"""Modules whose branches guide the fuzzer."""


def fuzz(name, arguments):
    """Run libFuzzer in this process; never returns."""
    import atheris

    with atheris.instrument_imports(include=READERS):
        from openmm_gancl.trajectories import (  # noqa: F401  # imported where it is needed, too late
            colvar,
            files,
            frame_rows,
            frames,
            hills,
            plumed_opes,
            restrained_windows,
            undone,
            window_checks,
        )

        from . import targets
    prefix = next(one.partition("=")[2] for one in arguments if one.startswith("-artifact_prefix="))

    def read(content):
        try:
            targets.outcome(name, content)
        except BaseException:  # libFuzzer does not write it where Python raises
            Path(f"{prefix}crash-{hashlib.sha1(content).hexdigest()}").write_bytes(content)
            raise

    atheris.Setup([sys.argv[0], *arguments], read)
    atheris.Fuzz()


def _record(name, minutes, executions):
    found = json.loads(MINUTES.read_text()) if MINUTES.exists() else {}
    before = found.get(name, {"minutes": 0.0, "inputs": 0})
    found[name] = {"minutes": round(before["minutes"] + minutes, 2), "inputs": before["inputs"] + executions}
    MINUTES.write_text(json.dumps(dict(sorted(found.items())), indent=1) + "\n")


def _processor_minutes():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (used.ru_utime + used.ru_stime) / 60


def run(name, minutes, work):
    """One format in a process of its own: whether it found nothing."""
    kept = work / name
    kept.mkdir(parents=True, exist_ok=True)
    options = [f"-max_total_time={int(60 * minutes)}", f"-timeout={MAX_SECONDS}", f"-rss_limit_mb={MAX_MIB}"]
    options += [f"-max_len={LONGER.get(name, MAX_LENGTH)}", f"-artifact_prefix={kept}/", "-print_final_stats=1"]
    command = [sys.executable, "-m", "tests.fuzz.run", "--inside", name, *options, str(kept), str(CORPUS / name)]
    begun = _processor_minutes()
    finished = subprocess.run(command, capture_output=True, text=True, errors="replace")
    ended = f"ended with code {finished.returncode}\n"
    (work / f"{name}.log").write_text(finished.stdout + finished.stderr + ended)
    executions = re.findall(r"^#(\d+)\t", finished.stderr, re.M) or ["0"]
    _record(name, _processor_minutes() - begun, int(executions[-1]))
    return finished.returncode == 0


def main():
    if sys.argv[1:2] == ["--inside"]:
        fuzz(sys.argv[2], sys.argv[3:])
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    formats = sorted(path.name for path in CORPUS.iterdir())
    parser.add_argument("formats", nargs="*", default=formats, help="formats to fuzz; all by default")
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--work", type=Path, default=Path("runs/fuzz"))
    given = parser.parse_args()
    if unknown := sorted(set(given.formats) - set(formats)):
        sys.exit(f"no format {unknown[0]}: give some of {', '.join(formats)}")
    if importlib.util.find_spec("atheris") is None:
        sys.exit("cannot run: pip install atheris")
    for name in given.formats:
        print(name, "found nothing" if run(name, given.minutes, given.work) else "BROKE", flush=True)


if __name__ == "__main__":
    main()
