import contextlib
import errno
import functools
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from openmm_gancl.cli.reporting import LogReporter
from openmm_gancl.coordinates.basin import Basin
from openmm_gancl.engine import task_records
from openmm_gancl.engine.task_records import TaskRecords
from openmm_gancl.errors import InputError
from openmm_gancl.free_energy.plots import plot_surface
from openmm_gancl.free_energy.surface import FreeEnergySurface, load_surface
from openmm_gancl.generator.model import load_model
from openmm_gancl.lifting import surface as lifting_surface
from openmm_gancl.lifting.lifter import Lifter
from openmm_gancl.lifting.lifts import load_lifts
from openmm_gancl.sampling.labels import spread
from openmm_gancl.system.library import copy_system, load_system
from openmm_gancl.workflow import budget
from openmm_gancl.workflow import options as run_options
from openmm_gancl.workflow import run as pipeline
from openmm_gancl.workflow.folder import RunFolder, checksum, locked, prepare_folder
from openmm_gancl.workflow.manifest import MANIFEST, write_manifest
from openmm_gancl.workflow.options import RunOptions, effective, settings_of
from openmm_gancl.workflow.report import write_report
from openmm_gancl.workflow.time_step_check import check_time_step, compared
from tests.tiny_run import PRESETS

SYSTEM = "double_well_oscillators"
QUICK = RunOptions(preset="quick", generator="product", platform="Reference")
STAGES = ("sample", "train", "lift", "surface")
SCRIPT = Path(__file__).parents[1] / "tiny_run.py"


class Notes(LogReporter):
    def __init__(self):
        self.notes = []

    def note(self, message):
        self.notes.append(message)


class Steps(Notes):
    """Also the progress of each step."""

    def __init__(self):
        super().__init__()
        self.steps = []

    @contextlib.contextmanager
    def step(self, title, total):
        reported = []
        self.steps.append((title, total, reported))
        yield reported.append


def reported_often(steps, title):
    """Whether a step goes on in small parts, from the beginning to the end."""
    found = [np.array([0, *reported]) / total for name, total, reported in steps if name == title]
    assert found, title
    return all((np.diff(part) >= 0).all() and np.diff(part).max() < 0.4 and part[-1] == 1.0 for part in found)


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(run_options, "PRESETS", PRESETS)


def run(folder, options=QUICK, target=SYSTEM, **rest):
    return pipeline.run(folder, target, options, **{"reporter": Notes(), "workers": 1, **rest})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_options, "PRESETS", PRESETS)
        folder = tmp_path_factory.mktemp("finished") / "run"
        return run(folder)


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """By a stage's name, or ``end``: a run that has come just before it, its stages asked for one by one."""
    top, folders = tmp_path_factory.mktemp("begun"), {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_options, "PRESETS", PRESETS)
        assert run(top / "run", until="sample").done == STAGES[:1]
        for stage, following in itertools.pairwise([*STAGES, "end"]):
            if stage != "sample":
                outcome = pipeline.run(top / "run", None, None, reporter=Notes(), workers=1, until=stage)
                assert outcome.done == STAGES[: STAGES.index(stage) + 1]
            folders[following] = Path(shutil.copytree(top / "run", top / f"before {following}"))
    return folders


IDENTITY = {
    "system": {"name": "x", "source": "x", "card": {}, "force_field_hash": "0", "positions": []},
    "options": {},
    "settings": {},
    "seed": 0,
    "versions": {},
    "platform": "Reference",
    "threads": 1,
}


def manifest(folder):
    return json.loads((folder / MANIFEST).read_text())


def interrupt(*_):
    raise KeyboardInterrupt


def test_a_run_leaves_the_results_of_the_contract(finished):
    folder = finished.folder
    with np.load(folder / "fes.npz") as fes:
        assert set(fes.files) == {
            *("energy", "error", "edges_0", "units", "names", "periods", "temperature", "force_evaluations")
        }
        assert fes["energy"].shape == fes["error"].shape == (len(fes["edges_0"]) - 1,)
        assert fes["energy"][np.isfinite(fes["energy"])].min() == 0.0
        assert float(fes["temperature"]) == 300.0
    with np.load(folder / "lifts.npz") as lifts, np.load(folder / "reverse.npz") as reverse:
        for name in ("labels", "cv_values", "log_weights", "log_prior", "log_encoder", "work", "reason", "task"):
            assert name in lifts.files and name in reverse.files
        assert str(lifts["mode"]) == "restrained"
    assert (folder / "fes.dat").read_text().startswith("#! FIELDS x free error")
    assert (folder / "fes.png").read_bytes().startswith(b"\x89PNG")
    assert load_model(folder / "model.safetensors").latent_size == 1
    assert finished.done == STAGES
    assert not list(folder.glob("*.tmp")) and not (folder / "lock").exists()


def test_the_trajectory_holds_one_frame_for_each_lift_with_a_weight(finished, capfd):
    import mdtraj

    lifts = load_lifts(finished.folder / "lifts.npz", load_system(SYSTEM).slow)
    frames = mdtraj.load(str(finished.folder / "lifts.dcd"), top=str(finished.folder / "top.pdb"))
    x = frames.xyz[:, 0, 0]
    assert np.allclose(x, lifts.cv_values[lifts.ok, 0], atol=1e-4)


def test_a_report_of_relaxed_lifts(finished):
    page = write_report(finished.folder).path.read_text()
    places = [page.index(f'id="{name}"') for name in ("doubts", "surface", "training", "check", "provenance")]
    assert places == sorted(places) and "Weights of relaxed lifts hold the restraint" in page
    assert f"{finished.summary.basins[0]['population']:.4f}" in page


def test_force_evaluations_are_the_sum_of_what_the_stages_spent(finished):
    spent = [entry["attempts"] for entry in manifest(finished.folder)["stages"].values()]
    assert all(len(attempts) == 1 for attempts in spent)
    with np.load(finished.folder / "fes.npz") as fes:
        assert int(fes["force_evaluations"]) == sum(attempts[0]["force_evaluations"] for attempts in spent)
    assert finished.evaluations_spent == finished.summary.force_evaluations


def test_the_manifest_says_what_the_run_was_made_with(finished):
    stored = manifest(finished.folder)
    assert stored["schema_version"] == 3 and stored["threads"] == 1 and stored["seed"] == 0
    assert stored["platform"] == "Reference" and stored["versions"]["openmm"]
    assert stored["system"]["card"]["name"] == SYSTEM
    for name, entry in stored["stages"].items():
        assert entry["checksums"] == {file.name: checksum(file) for file in sorted((finished.folder / name).iterdir())}


def test_workers_do_not_change_a_byte(finished, tmp_path):
    run(tmp_path / "run", workers=2)
    assert (tmp_path / "run" / "fes.npz").read_bytes() == (finished.folder / "fes.npz").read_bytes()


def test_threads_of_the_calling_process_do_not_change_a_byte(finished, tmp_path):
    """The manifest's thread count holds, whatever the process that calls us is set to."""
    with threadpool_limits(1):
        run(tmp_path / "run")
    assert (tmp_path / "run" / "fes.npz").read_bytes() == (finished.folder / "fes.npz").read_bytes()


def test_surfaces_report_their_progress(finished, tmp_path):
    """A step that only reports its end would fail."""
    folder, reporter = tmp_path / "run", Steps()
    shutil.copytree(finished.folder, folder)
    for stage in ("lift", "surface"):
        shutil.rmtree(folder / stage)
    run(folder, reporter=reporter)
    assert reported_often(reporter.steps, "placing lifts") and reported_often(reporter.steps, "surface")
    assert (folder / "fes.npz").read_bytes() == (finished.folder / "fes.npz").read_bytes()
    assert not reported_often([("surface", 1, [1])], "surface")


def test_parts_of_many_lifts_are_reported_one_by_one(finished, monkeypatch):
    lifts, reported = load_lifts(finished.folder / "lifts.npz", load_system(SYSTEM).slow), []
    alone = lifting_surface.analyse_lifts(lifts).surface
    monkeypatch.setattr(lifting_surface, "CHUNK_SIZE", 16)
    surface = lifting_surface.analyse_lifts(lifts, progress=lambda finished, n: reported.append((finished, n))).surface
    counts, totals = np.array(reported).T
    chunks = 4 * -(-int(lifts.ok.sum()) // 16)
    assert len(set(totals)) == 1 and counts[-1] == totals[0] > chunks and len(counts) > chunks
    assert (np.diff(counts) >= 1).all()
    np.testing.assert_allclose(surface.energy, alone.energy, rtol=1e-9)
    np.testing.assert_allclose(surface.error, alone.error, rtol=1e-9)


def test_another_seed_gives_another_surface(finished, tmp_path):
    run(tmp_path / "run", replace(QUICK, seed=1))
    assert (tmp_path / "run" / "fes.npz").read_bytes() != (finished.folder / "fes.npz").read_bytes()


@pytest.mark.parametrize("stage", STAGES)
def test_interrupted_in_any_stage_it_resumes_to_the_same_bytes(stage, finished, begun, tmp_path, monkeypatch):
    folder, work = tmp_path / "run", pipeline.RELAXED_STAGES[stage]
    if stage in begun:
        shutil.copytree(begun[stage], folder)

    def begin_and_stop(opened, out):
        (out / "half.npz").write_text("half")
        opened.folder.spend(1000)
        interrupt()

    monkeypatch.setitem(pipeline.RELAXED_STAGES, stage, begin_and_stop)
    with pytest.raises(KeyboardInterrupt):
        run(folder)
    kept = STAGES[: STAGES.index(stage)]
    assert [name for name in STAGES if (folder / name).exists()] == list(kept)
    made = {name: (folder / name).stat().st_ctime_ns for name in kept}
    monkeypatch.setitem(pipeline.RELAXED_STAGES, stage, work)
    outcome = run(folder)
    assert {name: (folder / name).stat().st_ctime_ns for name in kept} == made
    assert (folder / "fes.npz").read_bytes() == (finished.folder / "fes.npz").read_bytes()
    assert outcome.evaluations_spent == finished.evaluations_spent + 1000


class Stopping(Notes):
    """Ends the program when so many tasks of a step are finished."""

    def __init__(self, title, n):
        super().__init__()
        self.title, self.n = title, n

    @contextlib.contextmanager
    def step(self, title, total):
        def done(count):
            if title == self.title and count == self.n:
                raise KeyboardInterrupt

        yield done


@pytest.fixture
def recorded(monkeypatch):
    """The functions whose results were recorded, however short; every result can be."""
    keep, names = TaskRecords.keep, []

    def kept(self, function, task, result, seconds):
        before = len(list(self.folder.glob("*")))
        keep(self, function, task, result, seconds)
        assert len(list(self.folder.glob("*"))) == before + 1, function
        names.append(getattr(function, "__name__", type(function).__name__))

    monkeypatch.setattr(task_records, "MIN_SECONDS", 0.0)
    monkeypatch.setattr(TaskRecords, "keep", kept)
    return names


@pytest.mark.parametrize(
    ("stage", "title", "n", "tasks"),
    [("sample", "sampling", 1, {"sample_task": 3}), ("lift", "lifting", 2, {"Relaxer": 8, "evaluate_task": 6})],
)
def test_a_stage_repeats_only_tasks_that_had_not_finished(stage, title, n, tasks, finished, begun, tmp_path, recorded):
    folder = tmp_path / "run"
    if stage in begun:
        shutil.copytree(begun[stage], folder)
    with pytest.raises(KeyboardInterrupt):
        run(folder, reporter=Stopping(title, n))
    assert len(recorded) == len(list((folder / f"{stage}.tasks").iterdir())) == n
    run(folder, until=stage, workers=2)
    assert Counter(recorded) == tasks
    for file in (finished.folder / stage).iterdir():
        assert (folder / stage / file.name).read_bytes() == file.read_bytes()
    attempts = manifest(folder)["stages"][stage]["attempts"]
    (untouched,) = manifest(finished.folder)["stages"][stage]["attempts"]
    assert len(attempts) == 2 and min(one["force_evaluations"] for one in attempts) > 0
    assert sum(one["force_evaluations"] for one in attempts) == untouched["force_evaluations"]
    assert not list(folder.rglob("*.tasks"))


def test_a_finished_run_is_shown_again_and_not_computed_again(finished, monkeypatch):
    for name in STAGES:
        monkeypatch.setitem(pipeline.RELAXED_STAGES, name, interrupt)
    (finished.folder / "fes.png").unlink()
    assert run(finished.folder).summary == finished.summary
    assert (finished.folder / "fes.png").exists()


def test_stages_can_be_asked_for_one_by_one(finished, begun):
    assert (begun["end"] / "fes.npz").read_bytes() == (finished.folder / "fes.npz").read_bytes()


@pytest.fixture
def sampled(begun, tmp_path):
    return Path(shutil.copytree(begun["train"], tmp_path / "run"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 5}, "`seed=0`, now `seed=5`"),
        ({"relax_steps": 77}, "`relax_steps=40`, now `relax_steps=77`"),
        ({"preset": "default"}, "`preset='quick'`, now `preset='default'`"),
        ({"lifts": 99}, "`lifts=128`, now `lifts=99`"),
        ({"latent": 0}, "`latent=1`, now `latent=0`"),
        ({"acceptance": "metropolis"}, "`acceptance='weights'`, now `acceptance='metropolis'`"),
        ({"target_error": 0.5, "lifts": 128}, "no `target_error`, now `target_error=0.5`"),
        ({"platform": "CPU"}, "`platform='Reference'`, now `platform='CPU'`"),
    ],
)
def test_other_options_are_refused_with_both_values(changes, message, sampled):
    with pytest.raises(InputError, match=message):
        run(sampled, replace(QUICK, **changes))


def test_the_platform_chosen_once_stays(sampled):
    assert run(sampled, replace(QUICK, relax_steps=40), until="sample").done == ("sample",)
    assert run(sampled, replace(QUICK, platform="Reference"), until="sample").done == ("sample",)


def test_another_card_is_refused(sampled):
    with pytest.raises(InputError, match=r"begun with double_well_oscillators, now it is narrow_barrier: .*new folder"):
        run(sampled, target="narrow_barrier")


def test_a_changed_card_is_refused(sampled, tmp_path):
    card = copy_system("double_well_oscillators", tmp_path / "copy") / "card.toml"
    card.write_text(card.read_text().replace("temperature = 300.0", "temperature = 310.0"))
    with pytest.raises(
        InputError, match=r"begun with a card whose temperature is 300.0, now it is 310.0: .*new folder"
    ):
        run(sampled, target=str(card))


def test_another_version_is_refused(sampled):
    stored = manifest(sampled)
    (sampled / MANIFEST).write_text(json.dumps({**stored, "schema_version": 99}))
    with pytest.raises(InputError, match="schema version 99, this program reads 3"):
        run(sampled)


def test_a_changed_stage_file_is_noticed(sampled):
    with open(sampled / "sample" / "frames.npz", "r+b") as stream:
        stream.seek(200)
        stream.write(b"\0\1\2")
    with pytest.raises(InputError, match=r"sample/frames.npz has changed.*remove .*sample to compute"):
        run(sampled)


def test_a_missing_stage_file_is_noticed(sampled):
    (sampled / "sample" / "held_out.npz").unlink()
    with pytest.raises(InputError, match=r"held_out.npz is missing"):
        run(sampled)


def test_a_stage_that_is_gone_is_said_to_be_computed_again(begun, finished, tmp_path):
    folder, notes = Path(shutil.copytree(begun["lift"], tmp_path / "run")), Notes()
    shutil.rmtree(folder / "train")
    run(folder, reporter=notes, until="train")
    assert any("train was finished and is not there any more" in note for note in notes.notes)
    assert (folder / "model.safetensors").read_bytes() == (finished.folder / "model.safetensors").read_bytes()


def test_a_moved_card_is_named_and_taken_where_it_is(tmp_path):
    card = copy_system(SYSTEM, tmp_path / "there") / "card.toml"
    run(tmp_path / "run", target=str(card), until="sample")
    (tmp_path / "there").rename(tmp_path / "here")
    with pytest.raises(InputError, match=rf"begun with the card {card}, which is not there any more: put it back, or"):
        run(tmp_path / "run", None, None, until="sample")
    assert run(tmp_path / "run", target=str(tmp_path / "here"), until="sample").done == ("sample",)


def test_a_manifest_with_any_byte_changed_or_cut_is_refused(sampled):
    whole, options = (sampled / MANIFEST).read_bytes(), effective(QUICK)
    rng = np.random.default_rng(0)
    same = 0
    for place in rng.integers(len(whole), size=60):
        (sampled / MANIFEST).write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            same += RunFolder.load(sampled).manifest["options"] == options
        except InputError as error:
            assert str(sampled) in str(error)
        else:
            assert chr(whole[place]) in " \n!", whole[place - 9 : place + 9]
        (sampled / MANIFEST).write_bytes(whole[:place])
        with pytest.raises(InputError, match=r"manifest\.json"):
            RunFolder.load(sampled)
    (sampled / MANIFEST).write_bytes(whole.replace(b'"relax_steps": 40', b'"relax_steps": 41'))
    with pytest.raises(InputError, match="not as it was written"):
        run(sampled)


def places_in(content, place=()):
    """Where values are in JSON, from the outside in."""
    yield place
    if isinstance(content, dict | list):
        for key in content if isinstance(content, dict) else range(min(len(content), 1)):
            yield from places_in(content[key], (*place, key))


def test_a_stranger_s_manifest_says_nothing_that_is_no_run(sampled):
    """With a checksum that is right: each key missing, and of another type, is a sentence or changes nothing."""
    stored, read = manifest(sampled), 0
    for place in [place for place in places_in(stored) if place and "card" not in place and place[0] != "checksum"]:
        for value in (None, "x", -1, [], {"a": [[]]}, "delete"):
            changed = json.loads(json.dumps(stored))
            parent = functools.reduce(lambda part, key: part[key], place[:-1], changed)
            if value == "delete":
                del parent[place[-1]]
            else:
                parent[place[-1]] = value
            write_manifest(sampled, changed)
            try:
                folder = RunFolder.load(sampled)
                pipeline.options_of(folder), folder.seconds(), folder.evaluations_spent(), folder.last_model()
                read += 1
            except InputError as error:
                assert str(error).isprintable() and len(str(error)) < 700
    assert read > 20  # names, versions and defaults may be what they like


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def read_only_disk(tmp_path):
    place = tmp_path / "disk"
    place.mkdir()
    try:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(place)], capture_output=True).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("needs the right to mount a tmpfs")
    yield place, lambda: subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
    subprocess.run(["umount", str(place)], check=True)


def test_a_finished_run_is_shown_from_a_read_only_disk(finished, sampled, read_only_disk):
    place, lock = read_only_disk
    folder = Path(shutil.copytree(finished.folder, place / "run"))
    half = Path(shutil.copytree(sampled, place / "half"))
    lock()
    assert run(folder).summary == finished.summary == run(folder, None, None).summary
    with pytest.raises(InputError, match=r"half is not yours to write, and not all that you ask for is finished"):
        run(half)


def test_nothing_is_written_where_nothing_may_be(finished, sampled, tmp_path, monkeypatch):
    """Without the right to mount."""
    monkeypatch.setattr(pipeline, "is_writable", lambda path: False)
    folder = Path(shutil.copytree(finished.folder, tmp_path / "finished"))
    before = contents(folder)
    assert run(folder).summary == finished.summary
    assert contents(folder) == before
    before = contents(sampled)
    with pytest.raises(InputError, match="not yours to write"):
        run(sampled)
    assert contents(sampled) == before


def test_frames_that_are_nan_end_a_run_before_they_are_learned_from(tmp_path, monkeypatch):
    """At this step one window in three blows up; the others alone would give a wrong surface."""
    card = copy_system(SYSTEM, tmp_path / "copy") / "card.toml"
    card.write_text(card.read_text().replace("time_step = 0.015", "time_step = 0.15"))
    with pytest.raises(InputError, match=r"the time step of 0.15 ps is too long: the fastest .* set it to 0.05$"):
        run(tmp_path / "run", target=str(card))
    monkeypatch.setattr(pipeline, "check_dynamics", lambda system: None)
    with pytest.raises(InputError, match=r"of 160 frames .* NaN.*the time step \(0.15 ps\) is too long"):
        run(tmp_path / "run", target=str(card))


def test_half_the_time_step_gives_the_same_surface_within_its_errors(finished, tmp_path):
    folder = Path(shutil.copytree(finished.folder, tmp_path / "run"))
    found = check_time_step(folder, reporter=Notes(), workers=1)
    record = json.loads((folder / "half_time_step" / "time_step.json").read_text())
    assert found.time_step == 0.015 and record["difference"] == found.difference
    stored = manifest(folder / "half_time_step")
    assert stored["system"]["card"]["time_step"] == 0.0075 and stored["seed"] == 1
    # of about ten independent bins: beyond 2 once in 10^4
    assert 0.2 < found.difference / found.expected < 2.0 and found.doubt is None
    assert contents(finished.folder) == {
        finished.folder / path.relative_to(folder): text
        for path, text in contents(folder).items()
        if "half_time_step" not in path.parts
    }


def test_another_surface_at_half_the_time_step_is_doubted(finished):
    surface = load_surface(finished.folder / "fes.npz")
    tilted = replace(surface, energy=surface.energy + np.linspace(0.0, 15.0, len(surface.energy)))
    assert "at half the time step the surface is another one" in compared(surface, tilted, 0.015).doubt
    shifted = replace(surface, energy=surface.energy + 3.0)
    assert compared(surface, shifted, 0.015).difference < 1e-9
    with pytest.raises(InputError, match="no bins in common"):
        compared(surface, replace(surface, energy=np.full_like(surface.energy, np.inf)), 0.015)


def test_a_foreign_folder_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match=r"thesis\.tex"):
        run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_live_lock_is_refused_and_a_dead_one_taken_over(tmp_path):
    notes = []
    with locked(tmp_path, notes.append):
        message = f"in use by process {os.getpid()} on {socket.gethostname()}"
        with pytest.raises(InputError, match=message), locked(tmp_path, notes.append):
            pass
        holder = json.loads((tmp_path / "lock").read_text())
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (tmp_path / "lock").write_text(json.dumps({**holder, "pid": ended.pid}))
    left = Path(f"/dev/shm/sem.loky-{ended.pid}-abcdefgh")
    if left.parent.exists():
        left.touch()
    with locked(tmp_path, notes.append):
        assert not left.exists()
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()
    assert len(notes) == 1 and f"process {ended.pid}" in notes[0]
    assert not (tmp_path / "lock").exists()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_a_process_that_has_got_the_number_of_a_dead_one_holds_no_lock(tmp_path):
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "started": "once", "life": "1"}
    (tmp_path / "lock").write_text(json.dumps(holder))
    notes = []
    with locked(tmp_path, notes.append):
        assert notes


def test_a_lock_of_another_host_is_respected(tmp_path):
    holder = {"pid": 1, "host": "elsewhere", "started": "2025-01-01", "life": "1"}
    (tmp_path / "lock").write_text(json.dumps(holder))
    with pytest.raises(InputError, match="process 1 on elsewhere"), locked(tmp_path, print):
        pass


def test_a_full_disk_is_reported_and_finished_stages_stay(sampled, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "model.safetensors")

    monkeypatch.setitem(pipeline.RELAXED_STAGES, "train", full)
    with pytest.raises(OSError, match="No space left"):
        run(sampled)
    assert (sampled / "sample" / "frames.npz").exists() and not list(sampled.glob("*.tmp"))
    assert RunFolder.load(sampled).is_done("sample")


@pytest.fixture
def small_disk(tmp_path):
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", str(place)]
    try:
        mounted = subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("needs the right to mount a tmpfs")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_real_full_disk(small_disk):
    with pytest.raises(OSError) as caught:
        run(small_disk / "run")
    assert caught.value.errno == errno.ENOSPC
    folder = RunFolder.load(small_disk / "run")
    assert folder.is_done("sample") and not folder.is_done("surface")


def test_metropolis_makes_one_chain_over_unrestrained_lifts(tmp_path):
    outcome = run(tmp_path / "run", replace(QUICK, acceptance="metropolis"))
    with np.load(tmp_path / "run" / "lifts.npz") as lifts:
        assert str(lifts["mode"]) == "unrestrained"
        assert lifts["accepted"].dtype == bool and len(lifts["accepted"]) == len(lifts["labels"]) == 128
        assert outcome.summary.accepted == pytest.approx(lifts["accepted"].mean())


def test_a_target_error_asks_for_rounds_and_evaluations_end_them(tmp_path):
    options = replace(QUICK, latent=0, target_error=0.01, max_evaluations=70_000)
    outcome = run(tmp_path / "run", options)
    record = json.loads((tmp_path / "run" / "lift" / "checks.json").read_text())["rounds"]
    assert len(record) > 2 and record[-1]["error_kT"] < record[0]["error_kT"]
    assert 60_000 < outcome.summary.force_evaluations <= 70_000


def test_too_few_evaluations_are_refused_before_anything_is_made(tmp_path):
    least = budget.least_evaluations(QUICK, settings_of(QUICK))
    with pytest.raises(InputError, match=f"`max_evaluations` of {least - 1} is less than .*{least}"):
        run(tmp_path / "run", replace(QUICK, max_evaluations=least - 1))
    assert not (tmp_path / "run" / MANIFEST).exists()


def test_relax_steps_can_be_measured(tmp_path):
    outcome = run(tmp_path / "run", replace(QUICK, relax_steps="auto", latent=0))
    report = json.loads((tmp_path / "run" / "train" / "report.json").read_text())
    costs = report["cost_of_effective_lift"]
    assert set(costs) == {str(steps) for steps in run_options.RELAX_CHOICES}
    assert outcome.summary.relax_steps == int(min(costs, key=costs.get))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (RunOptions(preset="slow"), "choose default or quick"),
        (RunOptions(acceptance="luck"), "choose weights or metropolis"),
        (RunOptions(generator="product", relax_steps=0), "`relax_steps` is 0: give at least 1"),
        (RunOptions(lifts=3), "`lifts` is 3"),
        (RunOptions(generator="product", latent=-1), "`latent` is -1"),
        (RunOptions(target_error=-0.5), "`target_error` is -0.5"),
    ],
)
def test_options_that_no_run_can_have(options, message):
    with pytest.raises(InputError, match=message):
        settings_of(options)


def test_effective_options_name_the_numbers_of_the_preset():
    assert effective(QUICK)["relax_steps"] == 40 and effective(QUICK)["lifts"] == 128
    assert effective(replace(QUICK, relax_steps="auto"))["relax_steps"] == "auto"
    assert effective(replace(QUICK, target_error=0.3))["lifts"] is None


def test_labels_outside_the_domain_and_models_of_another_molecule_are_refused(finished):
    system, model = load_system(SYSTEM), load_model(finished.folder / "model.safetensors")
    with pytest.raises(InputError, match="outside the domain"):
        Lifter(system, model, platform="Reference").lift(np.array([[9.0]]), seed=0)
    with pytest.raises(InputError, match="atoms"):
        Lifter(load_system("bonded_chain"), model, platform="Reference")


def test_spread_goes_far_and_round():
    labels = np.array([[-3.1], [3.1], [0.0], [1.5]])
    chosen = spread(labels, np.array([2 * np.pi]), np.array([2 * np.pi]), 3)
    assert chosen.tolist() == [0, 2, 3]


def test_a_stage_that_fails_leaves_nothing(tmp_path):
    prepare_folder(tmp_path)
    folder = RunFolder.create(tmp_path, IDENTITY)
    with pytest.raises(ZeroDivisionError):
        folder.run_stage("sample", lambda out: 1 / 0)
    assert [path.name for path in tmp_path.iterdir()] == [MANIFEST]
    folder.run_stage("sample", lambda out: (out / "a").write_text("1"))
    again = RunFolder.load(tmp_path)
    assert again.is_done("sample") and len(again.manifest["stages"]["sample"]["attempts"]) == 2


def test_a_stage_in_which_an_interrupt_was_lost_is_not_finished(tmp_path):
    """A library that went on after it may have computed anything."""

    class Deaf:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    def work(out):
        Deaf()
        with contextlib.suppress(BaseException):
            signal.raise_signal(signal.SIGINT)
        (out / "a").write_text("1")

    prepare_folder(tmp_path)
    folder = RunFolder.create(tmp_path, {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "unraisablehook", lambda _: None)
        with pytest.raises(KeyboardInterrupt):
            folder.run_stage("sample", work)
    assert not folder.is_done("sample") and [path.name for path in tmp_path.iterdir()] == [MANIFEST]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def surface_of(energy, periods):
    edges = tuple(
        np.linspace(-np.pi, np.pi, n + 1) if np.isfinite(period) else np.linspace(0, 1, n + 1)
        for n, period in zip(energy.shape, periods, strict=True)
    )
    names = ("phi", "psi")[: energy.ndim]
    return FreeEnergySurface(
        energy, np.ones_like(energy), edges, names, np.array(periods), 300.0, 1, ("",) * len(names)
    )


def test_surfaces_are_drawn_over_one_and_two_labels(tmp_path):
    grid = np.linspace(-np.pi, np.pi, 24)
    two = 12 * (2 - np.cos(grid)[:, None] - np.cos(grid)[None])
    two[:4, :4] = np.inf
    wrapped = Basin("round", (np.array([[2.5, -2.5], [2.0, -2.0]]),))
    ax = plot_surface(surface_of(two, (2 * np.pi, 2 * np.pi)), basins=(wrapped,))
    assert ax.get_xlabel() == "φ (degrees)" and ax.get_ylabel() == "ψ (degrees)"
    assert len(ax.patches) == 4
    ax.figure.savefig(tmp_path / "two.png")
    ax = plot_surface(surface_of(two[10], (np.inf,)), basins=(Basin("low", (np.array([[0.2, 0.4]]),)),))
    assert ax.get_ylabel() == "free energy (kJ/mol)"
    ax.figure.savefig(tmp_path / "one.png")


def kill_and_resume(command, folder, delay, resume):
    """Kill the whole process group some time after the run has begun, then run to the end."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    while not (folder / MANIFEST).exists() and process.poll() is None:
        time.sleep(0.02)
    time.sleep(delay)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    resume()
    return (folder / "fes.npz").read_bytes()


def test_killed_at_a_random_moment_it_gives_the_same_bytes(finished, tmp_path):
    delay = np.random.default_rng(time.time_ns()).uniform(0.0, sum(finished.seconds.values()))
    folder, expected = tmp_path / "run", (finished.folder / "fes.npz").read_bytes()
    arguments = [
        SYSTEM,
        "--preset",
        "quick",
        "--generator",
        "product",
        "--platform",
        "Reference",
        "--workers",
        "2",
        "-o",
        str(folder),
    ]
    command = [sys.executable, str(SCRIPT), "run", *arguments]
    assert kill_and_resume(command, folder, delay, lambda: run(folder)) == expected, delay


@pytest.mark.slow
@pytest.mark.parametrize("system", [SYSTEM, "alanine_dipeptide_vacuum"])
def test_killed_twenty_times_it_gives_the_same_bytes(system, tmp_path):
    script = (sys.executable, "-m", "openmm_gancl.cli")
    arguments = [system, "--preset", "quick", "--generator", "product", "--platform", "Reference"]
    subprocess.run([*script, "run", *arguments, "-o", str(tmp_path / "whole")], check=True, capture_output=True)
    expected = (tmp_path / "whole" / "fes.npz").read_bytes()
    seconds = pipeline.run(tmp_path / "whole", None, None, reporter=Notes()).seconds
    ends, rng = np.cumsum(list(seconds.values())), np.random.default_rng(11)
    starts = ends - list(seconds.values())
    for trial in range(20):
        stage = trial % len(STAGES)
        delay = rng.uniform(starts[stage], ends[stage])
        folder = tmp_path / f"killed_{trial}"
        command = [*script, "run", *arguments, "-o", str(folder)]
        resume = partial(subprocess.run, command, check=True, capture_output=True)
        assert kill_and_resume(command, folder, delay, resume) == expected, (trial, STAGES[stage], delay)
