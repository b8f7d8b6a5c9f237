"""Equal seeds, equal bytes: every file of a run folder and of its results, in processes that share nothing."""

import json
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import mdtraj
import numpy as np
import pytest

from openmm_gancl.trajectories.files import set_dcd_title
from openmm_gancl.workflow.manifest import MANIFEST

TIMES = ("created", "started", "seconds", "checksum")
"""All that the manifests of two runs may differ in."""

SCRIPT = """
import datetime, sys, time
from pathlib import Path

folder, days, workers, system, *options = sys.argv[1:]
clock, shift = time.time, 86400 * int(days)
time.time = lambda: clock() + shift

class Date(datetime.date):
    @classmethod
    def today(cls):
        return cls.fromtimestamp(time.time())

class DateTime(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(time.time(), tz)

datetime.date, datetime.datetime = Date, DateTime

from typer.testing import CliRunner
from openmm_gancl.cli import app
from openmm_gancl.workflow import options as run_options
from tests import tiny_run

def gancl(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code in (0, 3), result.output

if __name__ == "__main__":
    run_options.PRESETS = tiny_run.PRESETS
    run, results = Path(folder) / "run", Path(folder) / "results"
    results.mkdir()
    gancl("run", system, "-o", run, "--preset", "quick", "--platform", "Reference", "--workers", workers, *options)
    gancl("export", run, "-o", results / "exported.pt")
    npy = Path(folder) / "x.npy"
    import mdtraj, numpy as np
    np.save(npy, mdtraj.load(str(run / "lifts.dcd"), top=str(run / "top.pdb")).xyz[:, 0, 0])
    gancl("fes", "--cv", f"npy:{npy}", "--temperature", 300, "-o", results / "fes")
"""


def begin(folder, days, workers, hash_seed, system, *options):
    folder.mkdir(parents=True)
    script = folder / "script.py"
    script.write_text(SCRIPT)
    here = str(Path(__file__).parent.parent)
    environment = os.environ | {
        "PYTHONHASHSEED": str(hash_seed),
        "PYTHONPATH": os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    command = [sys.executable, str(script), str(folder), str(days), str(workers), system, *options]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def without_times(record):
    """A manifest without its dates and wall times."""
    if isinstance(record, dict):
        return {key: without_times(value) for key, value in record.items() if key not in TIMES}
    return [without_times(item) for item in record] if isinstance(record, list) else record


def contents(folder):
    found = {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}
    for name in (name for name in found if Path(name).name == MANIFEST):
        found[name] = json.dumps(without_times(json.loads(found[name])), indent=1).encode()
    return found


def differing(one, other):
    """Files that are not in both folders with the same bytes, times of the manifest left out."""
    a, b = contents(one), contents(other)
    return sorted(name for name in {*a, *b} if a.get(name) != b.get(name))


LEARNED = ("bonded_chain", "--slow", "diffusion-map", "--generator", "product", "--lifts", "96", "--latent", "1")
GIVEN = pytest.param(("double_well_oscillators", "--generator", "product"), marks=pytest.mark.slow)


@pytest.fixture(scope="module", params=[pytest.param(LEARNED, marks=pytest.mark.slow), GIVEN], ids=["learned", "given"])
def runs(request, tmp_path_factory):
    """Two of the same seed: other hashes of strings, another day, other folders, other numbers of workers."""
    top = tmp_path_factory.mktemp("bytes")
    folders = [top / "one", top / "far" / "away" / "two"]
    begun = [
        begin(folder, days, workers, hash_seed, *request.param)
        for folder, days, workers, hash_seed in zip(folders, (0, 400), (1, 2), (1, 2), strict=True)
    ]
    outputs = [process.communicate()[1] for process in begun]
    assert [process.returncode for process in begun] == [0, 0], "".join(outputs)
    return folders


def test_every_file_has_the_same_bytes(runs):
    one, two = runs
    assert differing(one, two) == []
    names = set(contents(one))
    stages = {path.name for path in (one / "run").iterdir() if path.is_dir()}
    assert {"sample", "train", "lift", "surface"} <= stages <= {"sample", "slow", "train", "lift", "surface"}
    for name in ("top.pdb", "model.safetensors", "lifts.dcd", "fes.png", "fes.npz", MANIFEST):
        assert f"run/{name}" in names
    assert {"results/exported.pt", "results/fes.npz", "results/fes.dat", "results/fes.png"} <= names
    assert ("run/slow/slow.pt" in names) == ("slow" in stages)
    # they were made on days of their own
    days = [datetime.fromisoformat(json.loads((run / "run" / MANIFEST).read_text())["created"]) for run in runs]
    assert (days[1] - days[0]).days in (399, 400)


@pytest.mark.parametrize("name", ["top.pdb", "lift/lifts.dcd", "model.safetensors", "fes.png", MANIFEST])
def test_a_date_in_any_file_would_be_noticed(runs, name):
    one, two = runs
    file = two / "run" / name
    kept = file.read_bytes()
    try:
        file.write_bytes(kept[:120] + b"28 November" + kept[131:])
        if name == MANIFEST:
            file.write_text(json.dumps({**json.loads(kept), "written": "28 November"}))
        assert differing(one, two) == [f"run/{name}"]
    finally:
        file.write_bytes(kept)


def test_the_title_of_a_trajectory_has_no_date(tmp_path):
    """Its writer leaves the date and what was in the memory before; frames stay as they are."""
    topology = mdtraj.Topology()
    topology.add_atom("X", mdtraj.element.virtual, topology.add_residue("TOY", topology.add_chain()))
    positions = np.arange(6, dtype=np.float32).reshape(2, 1, 3)
    path = tmp_path / "a.dcd"
    mdtraj.Trajectory(positions, topology).save_dcd(str(path))
    written = path.read_bytes()
    assert str(datetime.now().year).encode() in written[:264]
    set_dcd_title(path, "two frames")
    now = path.read_bytes()
    assert now[100:260] == b"two frames".ljust(160)
    assert (now[:100], now[260:]) == (written[:100], written[260:])
    np.testing.assert_array_equal(mdtraj.load(str(path), top=topology).xyz, positions)
