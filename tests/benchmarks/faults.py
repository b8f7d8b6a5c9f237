"""Files that are damaged, or made to do harm, and dynamics that cannot be: what becomes of each.

    python -m tests.benchmarks.faults [--kinds manifest card ...] [--trials 40] [--table]

One kind of fault after the other; each is written under tests/benchmarks/results/faults when it is done, and a killed
command goes on with the next. A trial is *refused* where it ends with one sentence and exit code 2, *unharmed* where
the file still says the same, or says something else that a user may say, and *lost* otherwise: another exception, a
crash, more than 5 s of the processor, 1 GiB more memory, a file written that should not be, or a result that differs
from that of the whole file. ``docs/trust.md`` has the table.
"""

import argparse
import contextlib
import functools
import json
import os
import resource
import shutil
import sys
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
from typer.testing import CliRunner

from openmm_gancl.cli import app
from openmm_gancl.errors import InputError
from openmm_gancl.files import write_atomically
from openmm_gancl.generator.model import load_model
from openmm_gancl.system.library import systems_root
from openmm_gancl.workflow.manifest import MANIFEST, write_manifest
from openmm_gancl.workflow.options import RunOptions
from openmm_gancl.workflow.run import run
from tests import strangers
from tests.fuzz.targets import TARGETS, corpus, folder, outcome

RESULTS = Path(__file__).parent / "results" / "faults"
MAX_SECONDS, MAX_MIB = 5.0, 1024
SYSTEM = "double_well_oscillators"
OPTIONS = RunOptions(preset="quick", generator="triangular", platform="Reference", lifts=400)
VALUES = (None, "x", "", -1, 0, 1e308, 10**30, True, [], [[]], {}, {"a": 1}, "\x1b[2J", "../../x")
MOLECULE = """name = "{name}"
structure = "{structure}"
temperature = 300.0
friction = 1.0
time_step = {step}
force_constants = [{k}, {k}]
[force_field]
files = ["amber14/protein.ff14SB.xml"]
[[labels]]
kind = "torsion"
name = "phi"
torsion = "phi:2"
[[labels]]
kind = "torsion"
name = "psi"
torsion = "psi:2"
"""


class Lost(Exception):
    """What must not happen."""


class Quiet:
    @contextlib.contextmanager
    def step(self, title, total):
        yield lambda count: None

    def note(self, message):
        pass


def shown(path, target=None, options=None):
    """The numbers of a run's surface, gone on with or shown."""
    found = run(path, target, options, reporter=Quiet(), workers=1)
    with np.load(path / "fes.npz") as stored:
        return found.summary.n_lifts, stored["energy"].tobytes(), stored["error"].tobytes()


def gancl(*arguments):
    """Of the command line: refused, or lost."""
    ended = CliRunner().invoke(app, [str(argument) for argument in arguments])
    last = ended.stderr.strip().splitlines()[-1:]
    if ended.exit_code == 0:
        return "unharmed"
    if ended.exit_code != 2 or not last or not last[0].startswith("error: ") or "Traceback" in ended.stderr:
        raise Lost(f"exit code {ended.exit_code}: {last}")
    return "refused"


def refused_or(read, whole=None):
    """Refused, or read, with the same numbers where they are given."""
    try:
        found = read()
    except InputError as error:
        if not str(error).isprintable() or len(str(error)) > 700:
            raise Lost(f"no sentence: {error}") from None
        return "refused"
    if whole is not None and found != whole:
        raise Lost("another result, and nothing said")
    return "unharmed"


def damaged(content, trials, rng):
    """Contents with one bit turned, and cut anywhere."""
    for place in rng.integers(len(content), size=trials // 2):
        yield content[:place] + bytes([content[place] ^ (1 << rng.integers(8))]) + content[place + 1 :]
    for place in rng.integers(len(content), size=trials - trials // 2):
        yield content[:place]


def changed_values(stored):
    """JSON with each key missing, and each value of another type."""

    def places(content, place=()):
        if place:
            yield place
        if isinstance(content, dict | list):
            for key in content if isinstance(content, dict) else range(min(len(content), 2)):
                yield from places(content[key], (*place, key))

    for place in places(stored):
        for value in (*VALUES, "delete"):
            changed = json.loads(json.dumps(stored))
            parent = functools.reduce(lambda part, key: part[key], place[:-1], changed)
            if value == "delete":
                del parent[place[-1]]
            else:
                parent[place[-1]] = value
            yield changed


@functools.cache
def finished():
    """A small run, in a folder of its own."""
    path = Path(tempfile.mkdtemp(prefix="gancl-faults-")) / "run"
    return path, shown(path, SYSTEM, OPTIONS)


def in_a_copy(trial):
    """Call with a copy of the finished run."""
    path, whole = finished()
    with tempfile.TemporaryDirectory() as place:
        return trial(Path(shutil.copytree(path, Path(place) / "run")), whole)


def _with(file, content, copy, whole):
    (copy / file).write_bytes(content)
    return refused_or(lambda: shown(copy), whole)


def damaged_run(trials, rng):
    """Every file of a finished run's stages, and its manifest."""
    path, _ = finished()
    stages = [file for file in sorted(path.glob("**/*")) if file.is_file() and len(file.relative_to(path).parts) > 1]
    for file in stages:
        for content in damaged(file.read_bytes(), max(trials // 10, 2), rng):
            yield functools.partial(in_a_copy, functools.partial(_with, file.relative_to(path), content))


def damaged_manifest(trials, rng):
    content = (finished()[0] / MANIFEST).read_bytes()
    for damage in damaged(content, trials, rng):
        yield functools.partial(in_a_copy, functools.partial(_with, MANIFEST, damage))


def stranger_s_manifest(trials, rng):
    """With a checksum that is right; what it may say, names and times, changes no surface."""

    def trial(stored, copy, whole):
        write_manifest(copy, stored)
        return refused_or(lambda: shown(copy), whole)

    stored = json.loads((finished()[0] / MANIFEST).read_text())
    every = [one for one in changed_values({k: v for k, v in stored.items() if k != "checksum"})]
    for i in rng.permutation(len(every))[: 5 * trials]:
        yield functools.partial(in_a_copy, functools.partial(trial, every[i]))


def damaged_model(trials, rng):
    path = finished()[0] / "model.safetensors"
    copy = Path(tempfile.mkdtemp()) / "model.safetensors"

    def numbers(file):
        model = load_model(file)
        base = model.sample_base(20, np.random.default_rng(0))
        return [part.tobytes() for part in model.transform(base, np.zeros((20, 1)))]

    whole = numbers(path)

    def trial(content):
        copy.write_bytes(content)
        return refused_or(lambda: numbers(copy), whole)

    for content in damaged(path.read_bytes(), trials, rng):
        yield functools.partial(trial, content)


def of_fuzz(name, trials, rng):
    """Bits and cuts of a format whose files need not be whole to be read."""
    for path in corpus(name):
        for content in damaged(path.read_bytes(), trials, rng):
            yield lambda content=content: "refused" if outcome(name, content) else "unharmed"


def toml(value):
    """Of what JSON can say, as one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value)


def changed_card(trials, rng):
    """Keys missing, and values of other types."""
    import tomllib

    for path in corpus("card"):
        every = list(changed_values(tomllib.loads(path.read_text())))
        for i in rng.permutation(len(every))[: 3 * trials]:
            text = "\n".join(
                f"{json.dumps(key)} = {toml(value)}" for key, value in every[i].items() if value is not None
            )
            yield lambda text=text: "refused" if outcome("card", text.encode()) else "unharmed"


def strangers_files(trials, rng):
    """By the command; in a folder where a file that appears is seen."""

    def trial(files):
        with tempfile.TemporaryDirectory() as place:
            card = strangers.write(files, Path(place) / "theirs")
            before = os.getcwd()
            os.chdir(place)
            try:
                found = gancl("run", card, "-o", Path(place) / "run", "--preset", "quick", "--workers", "1")
            finally:
                os.chdir(before)
            if strangers.owned(place):
                raise Lost("code of a file has run")
            return found

    for files in strangers.strangers().values():
        yield functools.partial(trial, files)


def bad_physics(trials, rng):
    """Steps too long and restraints too stiff or too soft, of both kinds of run."""
    structure = systems_root() / "alanine_dipeptide_vacuum" / "structure.pdb"
    cards = [MOLECULE.format(name="mine", structure=structure, step=step, k=200.0) for step in (0.004, 0.005, 0.01)]
    cards += [MOLECULE.format(name="mine", structure=structure, step=0.001, k=k) for k in (20_000.0, 1e6, 0.1)]
    cards += [strangers.TOY.replace("time_step = 0.015", f"time_step = {step}") for step in (0.15, 0.3, 5.0)]

    def trial(text, generator):
        with tempfile.TemporaryDirectory() as place:
            card, out = Path(place) / "card.toml", Path(place) / "run"
            card.write_text(text)
            found = gancl("run", card, "-o", out, "--preset", "quick", "--workers", "1", "--generator", generator)
            if found != "refused":
                raise Lost("a surface of dynamics that cannot be")
            return found

    for text in cards:
        for generator in ("triangular", "product"):
            yield functools.partial(trial, text, generator)


def moved_and_read_only(trials, rng):
    """A card that has moved, a stage that is gone, a run that cannot be written, other options."""

    def gone(copy, whole):
        shutil.rmtree(copy / "surface")
        return refused_or(lambda: shown(copy), whole)

    def other_options(copy, whole):
        return refused_or(lambda: shown(copy, SYSTEM, replace(OPTIONS, seed=3)))

    def moved(copy, whole):
        stored = json.loads((copy / MANIFEST).read_text())
        stored["system"]["source"] = str(copy / "moved" / "card.toml")
        write_manifest(copy, stored)
        return refused_or(lambda: shown(copy))

    def read_only(copy, whole):
        for path in (*copy.rglob("*"), copy):
            path.chmod(0o555 if path.is_dir() else 0o444)
        try:
            return refused_or(lambda: shown(copy), whole)
        finally:
            for path in (copy, *copy.rglob("*")):
                path.chmod(0o755)

    for trial in (gone, other_options, moved, read_only):
        yield functools.partial(in_a_copy, trial)


KINDS = {
    "a stranger's files": strangers_files,
    "card, values": changed_card,
    "card, bits and cuts": functools.partial(of_fuzz, "card"),
    "force field, bits and cuts": functools.partial(of_fuzz, "force_field"),
    "System, bits and cuts": functools.partial(of_fuzz, "system"),
    "model, bits and cuts": damaged_model,
    "manifest, bits and cuts": damaged_manifest,
    "manifest, values": stranger_s_manifest,
    "files of a run, bits and cuts": damaged_run,
    "moved, gone, read-only, other options": moved_and_read_only,
    "time steps and restraints": bad_physics,
}


def _used():
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def _resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 2**20


def record_of(kind, trials, seed):
    """All trials of a kind, in counts; what was lost, in words."""
    counts, lost, slowest = Counter(), list[str](), 0.0
    for number, trial in enumerate(KINDS[kind](trials, np.random.default_rng(seed))):
        begun = _used()
        try:
            found = trial()
        except Exception as error:
            found, reason = "lost", f"{number}: {type(error).__name__}: {error}"[:300]
            lost.append(reason)
        counts[found] += 1
        slowest = max(slowest, _used() - begun)
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024 - _resident()
    return {
        "kind": kind,
        "tried": sum(counts.values()),
        **{name: counts[name] for name in ("refused", "unharmed", "lost")},
        "most_cpu_seconds": round(slowest, 1),
        "most_mib_more": max(children, 0),
        "reasons": lost,
    }


def table():
    records = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    names = ("kind", "tried", "refused", "unharmed", "lost", "most_cpu_seconds")
    print("| fault | tried | refused | unharmed | lost | CPU seconds at most |\n|---|---|---|---|---|---|")
    for one in records:
        print("| " + " | ".join(str(one[name]) for name in names) + " |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    assert set(TARGETS) >= {"card", "force_field", "system"} and folder().is_dir()
    for kind in () if arguments.table else arguments.kinds:
        path = RESULTS / f"{kind.replace(', ', '_').replace(' ', '_').replace(chr(39), '')}.json"
        if not path.exists():
            record = record_of(kind, arguments.trials, arguments.seed)
            write_atomically(path, json.dumps(record, indent=1) + "\n")
            print(json.dumps(record), flush=True)
    return table()


if __name__ == "__main__":
    sys.exit(main())
