"""Runs of the closed loop whose labels are learned from its first lifts, and projected on: files, resuming, input."""

import json
from dataclasses import replace

import numpy as np
import pytest

from openmm_gancl.errors import InputError
from openmm_gancl.learning.learned_labels import load_labels
from openmm_gancl.workflow import options as run_options
from openmm_gancl.workflow import run as pipeline
from openmm_gancl.workflow.options import LoopSettings, RunOptions
from tests.cli.test_cli import gancl
from tests.workflow.test_loop_run import contents
from tests.workflow.test_run import Notes

SYSTEM = "bonded_chain"
TINY = LoopSettings(
    n_windows=10,
    steering_steps=50,
    frames_per_window=10,
    stride=4,
    n_first=500,
    ceiling=10.0,
    max_evaluations=6000,
    check_evaluations=1200,
    network_steps=20,
)
LEARNED = RunOptions(preset="quick", platform="Reference", slow="diffusion-map", coordinates=2)
FIRST = ("rounds/00/frames", "rounds/00/model", "rounds/00/lifts", "rounds/01/model", "rounds/01/lifts")
RESULTS = ("fes.npz", "fes.dat", "fes.png", "fes_phi.npz", "fes_phi.dat", "fes_phi.png", "slow.pt", "slow.png")


@pytest.fixture(autouse=True, scope="module")
def tiny():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_options, "LOOP_PRESETS", {**run_options.LOOP_PRESETS, "quick": TINY})
        yield


def run(folder, options=LEARNED, **rest):
    return pipeline.run(folder, SYSTEM, options, **{"reporter": Notes(), "workers": 1, **rest})


@pytest.fixture(scope="module")
def finished(tiny, tmp_path_factory):
    return run(tmp_path_factory.mktemp("projected") / "run")


def test_labels_are_learned_after_the_second_round(finished):
    folder, done = finished.folder, finished.done
    assert done[:6] == (*FIRST, "slow") and done[6] == "rounds/02/model" and done[-2:] == ("check", "surface")
    report = json.loads((folder / "slow" / "report.json").read_text())
    assert report["last_round"] == 1 and set(report["recovery"]) == {"phi"}
    assert finished.summary.generator == "triangular" and finished.summary.force_evaluations <= 6000


def test_a_run_leaves_both_surfaces_and_the_labels_of_all_lifts(finished):
    folder = finished.folder
    assert all((folder / name).is_file() for name in RESULTS)
    slow = load_labels(folder / "slow" / "labels.npz").slow
    with np.load(folder / "fes.npz") as own, np.load(folder / "fes_phi.npz") as card:
        assert tuple(own["names"]) == slow.names and tuple(card["names"]) == ("phi",)
        assert int(own["force_evaluations"]) == int(card["force_evaluations"]) == finished.summary.force_evaluations
    with np.load(folder / "lifts.npz") as lifts:
        assert lifts["learned_labels"].shape == (len(lifts["labels"]), 2)
        assert (np.isfinite(lifts["learned_labels"]).all(axis=1) == np.isfinite(lifts["log_weights"])).all()


def test_the_lifts_are_those_of_a_run_over_torsions(finished, tmp_path):
    """Labels that are projected on change nothing of what is drawn."""
    torsions = run(tmp_path / "run", replace(LEARNED, slow="torsions", coordinates=None))
    for name, other in (("fes_phi.npz", "fes.npz"), ("lifts.dcd", "lifts.dcd"), ("model.safetensors",) * 2):
        assert (finished.folder / name).read_bytes() == (torsions.folder / other).read_bytes(), name


def test_stage_by_stage_and_interrupted_it_gives_the_same_bytes(finished, tmp_path, monkeypatch):
    folder, run_stage = tmp_path / "run", pipeline.RunFolder.run_stage
    assert run(folder, until="sample").done == FIRST[:1]
    assert gancl("slow", folder).exit_code == 0
    assert not (folder / "rounds" / "02").exists()

    def stop(self, name, work, later=()):
        if name == "surface":
            raise KeyboardInterrupt
        return run_stage(self, name, work, later)

    with monkeypatch.context() as patch:
        patch.setattr(pipeline.RunFolder, "run_stage", stop)
        with pytest.raises(KeyboardInterrupt):
            run(folder)
    run(folder)
    assert contents(folder) == contents(finished.folder)


def test_more_lifts_are_projected_on_the_same_labels(finished, tmp_path):
    folder = run(tmp_path / "run").folder
    labels = (folder / "slow" / "labels.npz").read_bytes()
    pipeline.lift_more(folder, 500, reporter=Notes(), workers=1)
    assert (folder / "slow" / "labels.npz").read_bytes() == labels
    with np.load(folder / "lifts.npz") as more, np.load(finished.folder / "lifts.npz") as before:
        assert len(more["learned_labels"]) == len(before["learned_labels"]) + 500
    assert (folder / "fes.npz").read_bytes() != (finished.folder / "fes.npz").read_bytes()


def test_of_two_rounds_labels_are_learned_from_the_first_one(tmp_path):
    folder = run(tmp_path / "run", replace(LEARNED, max_evaluations=3000)).folder
    assert json.loads((folder / "slow" / "report.json").read_text())["last_round"] == 0


def test_a_torsion_stays_a_label(tmp_path):
    folder = run(tmp_path / "run", replace(LEARNED, keep="phi", coordinates=1)).folder
    with np.load(folder / "fes.npz") as own:
        assert own["names"][0] == "phi" and np.isfinite(own["periods"]).tolist() == [True, False]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": "omega"}, "no torsion 'omega' to keep: choose among phi"),
        ({"features": "angles"}, "angles"),
        ({"restrain": "none"}, "`restrain` is of lifts that are relaxed"),
    ],
)
def test_what_is_not_there_is_refused_before_anything_is_sampled(options, message, tmp_path):
    with pytest.raises(InputError, match=message):
        run(tmp_path / "run", replace(LEARNED, **options))
    assert not (tmp_path / "run" / "rounds").exists()
