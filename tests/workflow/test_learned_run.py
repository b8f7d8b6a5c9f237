"""Runs whose labels are learned: stages, files, resuming, both kinds of lifts, torsions with them, bad input."""

import json

import numpy as np
import pytest

from openmm_gancl import InputError
from openmm_gancl.learning.learned_labels import load_labels, recovery
from openmm_gancl.lifting.lifts import load_lifts
from openmm_gancl.system.library import load_system
from openmm_gancl.workflow import budget
from openmm_gancl.workflow import options as run_options
from openmm_gancl.workflow import run as pipeline
from openmm_gancl.workflow.options import RunOptions
from openmm_gancl.workflow.report import write_report
from tests.cli.test_cli import gancl
from tests.tiny_run import PRESETS
from tests.workflow.test_run import Notes, Steps, reported_often

pytestmark = pytest.mark.openmmtorch

SYSTEM = "bonded_chain"
LEARNED = RunOptions(preset="quick", generator="product", platform="Reference", slow="diffusion-map", latent=0)


@pytest.fixture(autouse=True, scope="module")
def tiny():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_options, "PRESETS", PRESETS)
        patch.setattr(run_options, "LEARNED_LABEL_SETTINGS", {"quick": {"n_lifts": 192}})
        yield


def run(folder, options=LEARNED, **rest):
    return pipeline.run(folder, SYSTEM, options, **{"reporter": Notes(), "workers": 1, **rest})


@pytest.fixture(scope="module")
def finished(tiny, tmp_path_factory):
    folder, notes = tmp_path_factory.mktemp("learned") / "run", Notes()
    return run(folder, reporter=notes), notes.notes


def test_a_report_has_the_spectrum_and_both_surfaces(finished):
    page = write_report(finished[0].folder).path.read_text()
    assert page.count('src="data:image/png;base64,') == 1 and "Free energy over phi" in page
    assert page.index('id="check"') < page.index('id="labels"') < page.index('id="consistency"')


def load_labels_of(folder):
    return load_labels(folder / "slow" / "labels.npz")


def test_a_run_leaves_both_surfaces_and_the_labels(finished):
    outcome, notes = finished
    folder = outcome.folder
    assert outcome.done == ("sample", "slow", "train", "lift", "surface")
    labels = load_labels_of(folder)
    with np.load(folder / "fes.npz") as own, np.load(folder / "fes_phi.npz") as card:
        assert tuple(own["names"]) == labels.slow.names[:2] and np.isinf(own["periods"]).all()
        assert tuple(card["names"]) == ("phi",) and card["periods"][0] == pytest.approx(2 * np.pi)
        for surface in (own, card):
            known = np.isfinite(surface["energy"])
            assert known.any() and surface["energy"][known].min() == 0.0
        # where no frame lies nothing is known
        assert not np.isfinite(own["energy"]).all()
    for name in ("slow.pt", "slow.png", "fes_phi.png", "fes_phi.dat", "fes.png", "lifts.dcd", "model.safetensors"):
        assert (folder / name).stat().st_size > 0, name
    assert any(note.startswith("Kept ") for note in notes) and any("circular R^2" in note for note in notes)
    report = json.loads((folder / "slow" / "report.json").read_text())
    assert len(report["scores"]) == len(report["eigenvalues"]) == 10 and set(report["recovery"]) == {"phi"}


def test_lifts_are_restrained_to_what_the_generator_predicts(finished):
    """Native windows over the wide torsion; the check has windows of its own, whose lifts count too."""
    outcome, notes = finished
    assert "restrained during relaxations: phi" in notes
    slow = load_system(SYSTEM).slow
    lifts, reverse = (load_lifts(outcome.folder / f"{name}.npz", slow) for name in ("lifts", "reverse"))
    assert lifts.mode == reverse.mode == "restrained" and (lifts.force_constants > 0.0).all()
    assert len(lifts) >= 192 and len(reverse) > 0
    assert np.abs(np.angle(np.exp(1j * (lifts.cv_values - lifts.labels)[lifts.ok]))).mean() < 0.3
    assert outcome.summary.n_checked > 0 and np.isfinite(outcome.summary.pooled_z)
    with np.load(outcome.folder / "lifts.npz") as stored:
        assert stored["card_labels"][lifts.ok] == pytest.approx(lifts.cv_values[lifts.ok], abs=1e-3)
        assert stored["learned_labels"].shape == (len(lifts), len(load_labels_of(outcome.folder).slow.names))


def test_free_lifts_are_checked_against_windows_of_their_own(tmp_path):
    folder = run(tmp_path / "run", RunOptions(**{**vars(LEARNED), "restrain": "none"})).folder
    labels = load_labels_of(folder)
    lifts, reverse = (load_lifts(folder / f"{name}.npz", labels.slow) for name in ("lifts", "reverse"))
    assert lifts.mode == "unrestrained" and (lifts.force_constants == 0.0).all() and len(lifts) == 192
    assert np.isfinite(lifts.log_encoder_label).all() and lifts.log_encoder_label.std() > 0.0
    assert reverse.mode == "restrained" and (reverse.force_constants > 0.0).all() and len(reverse) > 0


def test_stage_by_stage_gives_the_same_bytes(finished, tmp_path):
    folder, reporter = tmp_path / "run", Steps()
    assert run(folder, until="sample").done == ("sample",)
    result = gancl("slow", folder, "--workers", "1")
    assert result.exit_code == 0, result.stderr
    assert not (folder / "train").exists()
    assert run(folder, reporter=reporter).summary is not None
    assert reported_often(reporter.steps, "placing lifts") and reported_often(reporter.steps, "surface")
    for name in ("fes.npz", "fes_phi.npz"):
        assert (folder / name).read_bytes() == (finished[0].folder / name).read_bytes(), name


def test_restrained_labels_with_a_torsion(tmp_path):
    """Each with its own period; the Context holds both."""
    options = RunOptions(
        **{
            **vars(LEARNED),
            "restrain": "labels",
            "keep": "phi",
            "coordinates": 1,
            "lifts": 96,
            "latent": 1,
        }
    )
    folder = run(tmp_path / "run", options).folder
    slow = load_labels_of(folder).slow
    assert slow.names[0] == "phi" and slow.periods.tolist() == [2 * np.pi, np.inf]
    lifts = load_lifts(folder / "lifts.npz", slow)
    assert lifts.mode == "restrained" and lifts.ok.mean() > 0.5
    # few steps from the references of a tiny training: many are far yet, and weigh next to nothing
    strayed = np.abs(np.angle(np.exp(1j * (lifts.cv_values - lifts.labels)[lifts.ok])))
    weights = np.exp(lifts.log_weights[lifts.ok] - lifts.log_weights.max())
    assert (np.average(strayed, axis=0, weights=weights) < 0.6).all()
    with np.load(folder / "lifts.npz") as stored:
        assert stored["restraint_form"].tolist() == ["cosine", "harmonic"]
    with np.load(folder / "fes.npz") as fes:
        assert tuple(fes["units"]) == ("radians", "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"slow": "pca"}, "choose torsions or diffusion-map"),
        ({"slow": "torsions", "keep": "phi"}, "`keep` is of learned labels: add `slow='diffusion-map'`"),
        ({"slow": "torsions", "coordinates": 2}, "`coordinates` is of learned labels"),
        ({"restrain": "loose"}, "choose labels or torsions or none"),
        ({"slow": "torsions", "restrain": "torsions"}, "`restrain='torsions'` is of learned labels"),
        ({"restrain": "torsions", "acceptance": "metropolis"}, "needs unrestrained ones"),
        ({"restrain": "labels", "acceptance": "metropolis"}, "needs unrestrained ones"),
        ({"coordinates": 0}, "`coordinates` is 0: give at least 1"),
    ],
)
def test_options_that_no_run_can_have(options, message, tmp_path):
    with pytest.raises(InputError, match=message):
        run(tmp_path / "run", RunOptions(**{**vars(LEARNED), **options}))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": "omega"}, "no torsion 'omega' to keep: choose among phi"),
        ({"features": "angles"}, "angles"),
        ({"features": "distances:element Xx"}, "distances"),
    ],
)
def test_features_and_torsions_that_are_not_there(options, message, tmp_path):
    """Before anything is sampled."""
    folder = tmp_path / "run"
    with pytest.raises(InputError, match=message):
        run(folder, RunOptions(**{**vars(LEARNED), **options}))
    assert not (folder / "sample").exists()


def test_a_run_over_torsions_has_no_slow_stage(tmp_path):
    torsions = RunOptions(preset="quick", generator="product", platform="Reference", latent=0)
    run(tmp_path / "run", torsions, until="sample")
    result = gancl("slow", tmp_path / "run")
    assert result.exit_code == 2 and "begin a run with --slow diffusion-map" in result.stderr


def test_other_features_are_refused_on_resuming(finished):
    with pytest.raises(InputError, match="`features='distances'`"):
        run(finished[0].folder, RunOptions(**{**vars(LEARNED), "features": "torsions:0,1,2,3"}))


def test_recovery_is_one_for_the_torsion_itself_and_small_for_noise():
    rng = np.random.default_rng(0)
    angles, new = rng.uniform(-np.pi, np.pi, (2000, 1)), rng.uniform(-np.pi, np.pi, (500, 1))
    period = np.array([2 * np.pi])
    assert recovery(angles, angles, new, new, period)[0] > 0.999
    shuffled = rng.permutation(angles)
    assert recovery(shuffled, angles, new, new, period)[0] < 0.1


def test_evaluations_that_a_run_with_learned_labels_may_not_exceed(tmp_path):
    """Pilots, and the windows of the check, count."""
    free = RunOptions(**{**vars(LEARNED), "restrain": "none"})
    least = budget.least_evaluations(free, run_options.settings_of(free))
    options = RunOptions(**{**vars(free), "max_evaluations": least + 2000})
    summary = run(tmp_path / "run", options).summary
    assert summary.force_evaluations <= least + 2000 and summary.n_lifts < 192
