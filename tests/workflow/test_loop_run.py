"""Runs of the closed loop: their folder, taken up again, and what is refused."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from openmm_gancl.engine import task_records
from openmm_gancl.errors import InputError
from openmm_gancl.free_energy.surface import load_surface
from openmm_gancl.generator.model import load_model
from openmm_gancl.lifting.loop import FIRST, Step
from openmm_gancl.sampling.short_windows import load_force_frames
from openmm_gancl.system.library import load_system, systems_root
from openmm_gancl.workflow import options as run_options
from openmm_gancl.workflow import run as pipeline
from openmm_gancl.workflow.folder import RunFolder
from openmm_gancl.workflow.manifest import MANIFEST
from openmm_gancl.workflow.options import LoopSettings, RunOptions
from openmm_gancl.workflow.stages import rounds
from openmm_gancl.workflow.stages.rounds import loop_options
from openmm_gancl.workflow.summary import load_summary, mode_table
from tests.workflow.test_run import Notes, manifest

SYSTEM = "double_well_oscillators"
VALINE = Path(__file__).parents[1] / "data" / "valine_dipeptide.toml"
TINY = LoopSettings(
    n_windows=10,
    steering_steps=50,
    frames_per_window=10,
    stride=4,
    n_first=2500,
    ceiling=10.0,
    max_evaluations=9600,
    check_evaluations=2000,
    network_steps=20,
)
SHORT = replace(TINY, n_first=500, max_evaluations=2500)
"""Its surface is worth nothing; where only files and bytes count."""
QUICK = RunOptions(preset="quick", platform="Reference")
STAGES = (
    *("rounds/00/frames", "rounds/00/model", "rounds/00/lifts"),
    *("rounds/01/model", "rounds/01/lifts", "model", "check", "surface"),
)
RESULTS = ("fes.npz", "fes.dat", "fes.png", "lifts.npz", "lifts.dcd", "top.pdb", "model.safetensors")


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(run_options, "LOOP_PRESETS", {"quick": TINY})


def run(folder, options=QUICK, target=SYSTEM, **rest):
    return pipeline.run(folder, target, options, **{"reporter": Notes(), "workers": 1, **rest})


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(run_options, "LOOP_PRESETS", {"quick": SHORT})


def finished_with(settings, folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_options, "LOOP_PRESETS", {"quick": settings})
        return run(folder)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return finished_with(TINY, tmp_path_factory.mktemp("loop") / "run")


@pytest.fixture(scope="module")
def finished_short(tmp_path_factory):
    return finished_with(SHORT, tmp_path_factory.mktemp("short") / "run")


def contents(folder):
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != MANIFEST
    }


def test_a_run_leaves_the_results_of_the_contract(finished):
    folder = finished.folder
    assert finished.done == STAGES
    assert all((folder / name).is_file() for name in RESULTS)
    with np.load(folder / "lifts.npz", allow_pickle=False) as lifts:
        n = len(lifts["labels"])
        names = {"cv_values", "log_weights", "log_density", "reason", "round", "names", "temperature"}
        assert names <= set(lifts.files)
        assert lifts["log_weights"].shape == lifts["log_density"].shape == lifts["round"].shape == (n,)
        assert str(lifts["generator"]) == "triangular" and str(lifts["relaxation"]) == "none"
    assert load_model(folder / "model.safetensors").metadata["system"] == SYSTEM
    assert not list(folder.rglob("*.tmp")) and not (folder / "lock").exists()
    summary = finished.summary
    assert summary.force_evaluations == int(np.load(folder / "fes.npz")["force_evaluations"]) <= TINY.max_evaluations
    assert summary.n_checked == 1 and 0 < summary.check_evaluations <= TINY.max_evaluations // 5


def exact_difference(kT):
    """Of the wells, kJ/mol: the fast degrees of freedom are harmonic, so that x has a closed form."""
    x = np.linspace(-1.6, 1.6, 20_001)
    energies = 10.0 * (x**2 - 1) ** 2 + 0.5 * kT * (0.8 + 0.3) * np.tanh(2 * x)
    density = np.exp(-energies / kT)
    return -kT * np.log(density[x > 0].sum() / density[x < 0].sum())


def test_the_surface_is_right(finished):
    system = load_system(SYSTEM)
    rows = {row["name"]: row for row in finished.summary.basins}
    error = rows["right"]["free_energy_error"]
    assert error < 0.05 * system.kT
    assert abs(rows["right"]["free_energy"] - exact_difference(system.kT)) < 3.5 * error
    assert np.isfinite(load_surface(finished.folder / "fes.npz").energy).all()


def test_trajectory_and_weights_have_the_same_rows(finished):
    import mdtraj

    with np.load(finished.folder / "lifts.npz", allow_pickle=False) as lifts:
        finite = np.isfinite(lifts["log_weights"])
        frames = mdtraj.load(str(finished.folder / "lifts.dcd"), top=str(finished.folder / "top.pdb"))
        assert len(frames) == finite.sum()
        labels = load_system(SYSTEM).slow.transform(frames.xyz.astype(float))
        assert np.abs(labels - lifts["labels"][finite]).max() < 1e-6


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """A run that is interrupted in every stage in turn, and as it was left each time."""
    top = tmp_path_factory.mktemp("interrupted")
    run_stage, left = pipeline.RunFolder.run_stage, {}
    for stage in STAGES:

        def stop(self, name, work, later=(), stage=stage):
            def begin_and_stop(out):
                (out / "half.npz").write_text("half")
                self.spend(100)
                raise KeyboardInterrupt

            return run_stage(self, name, begin_and_stop if name == stage else work, later)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(run_options, "LOOP_PRESETS", {"quick": SHORT})
            patch.setattr(pipeline.RunFolder, "run_stage", stop)
            with pytest.raises(KeyboardInterrupt):
                run(top / "run")
        left[stage] = shutil.copytree(top / "run", top / stage.replace("/", "-"))
    return left


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.usefixtures("short")
def test_interrupted_in_any_stage_it_resumes_to_the_same_bytes(stage, finished_short, interrupted):
    folder, kept = interrupted[stage], STAGES[: STAGES.index(stage)]
    assert [name for name in STAGES if (folder / name).exists()] == list(kept)
    made = {name: (folder / name).stat().st_ctime_ns for name in kept}
    outcome = run(folder, workers=2)
    assert {name: (folder / name).stat().st_ctime_ns for name in kept} == made
    assert contents(folder) == contents(finished_short.folder)
    assert outcome.evaluations_spent == finished_short.evaluations_spent + 100 * (len(kept) + 1)


@pytest.mark.usefixtures("short")
def test_a_round_repeats_only_evaluations_that_had_not_finished(finished_short, tmp_path, monkeypatch):
    """The draws are made again, the energies of the first 500 are not."""
    monkeypatch.setattr(task_records, "MIN_SECONDS", 0.0)
    folder, stage = tmp_path / "run", "rounds/01/lifts"
    shutil.copytree(finished_short.folder, folder)
    shutil.rmtree(folder / stage)
    spent = RunFolder.spend

    def stop(self, evaluations):
        spent(self, evaluations)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunFolder, "spend", stop)
        with pytest.raises(KeyboardInterrupt):
            run(folder)
    assert len(list((folder / f"{stage}.tasks").iterdir())) == 1
    run(folder, workers=2)
    assert contents(folder) == contents(finished_short.folder)
    whole, *parts = (one["force_evaluations"] for one in manifest(folder)["stages"][stage]["attempts"])
    assert sum(parts) == whole and 0 < parts[0] < whole


def test_a_finished_run_is_shown_again_and_not_computed_again(finished, monkeypatch):
    monkeypatch.setattr(rounds, "compute_and_save", lambda *_: 1 / 0)
    (finished.folder / "fes.png").unlink()
    assert run(finished.folder).summary == finished.summary
    assert (finished.folder / "fes.png").exists()


@pytest.mark.usefixtures("short")
def test_commands_of_single_stages_end_where_they_say(finished_short, tmp_path):
    for until, last in (("sample", 1), ("train", 2), ("lift", len(STAGES))):
        assert run(tmp_path / "run", until=until).done == STAGES[:last]
    assert contents(tmp_path / "run") == contents(finished_short.folder)


def test_a_changed_file_of_a_round_is_refused(tmp_path):
    folder = run(tmp_path / "run", until="train").folder
    file = folder / "rounds" / "00" / "frames" / "frames.npz"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match=r"frames.npz has changed since it was written: restore it, or remove"):
        run(folder)


def test_what_was_evaluated_is_counted(finished):
    """By stages, lost attempts included; the check's beside the others."""
    stages = json.loads((finished.folder / MANIFEST).read_text())["stages"]
    spent = {name: sum(one["force_evaluations"] for one in entry["attempts"]) for name, entry in stages.items()}
    assert spent["rounds/00/frames"] == 10 * (50 + 10 * 5)
    assert spent["check"] == finished.summary.check_evaluations
    loop = sum(cost for name, cost in spent.items() if name.startswith("rounds"))
    assert loop == finished.summary.force_evaluations
    assert finished.evaluations_spent == loop + spent["check"]


def test_windows_are_given_in_picoseconds(tmp_path):
    """Six of 1.5 ps in steps of 0.015 ps: 50 on the way, ten frames five steps apart, and as many forces on them."""
    folder = run(tmp_path / "run", replace(QUICK, windows=6, window_length=1.5), until="sample").folder
    frames = load_force_frames(folder / "rounds" / "00" / "frames" / "frames.npz")
    assert len(frames.positions) + frames.n_dropped == 60 and frames.force_evaluations == 6 * (50 + 10 * 6)
    with pytest.raises(InputError, match=r"begun with `windows=6`, now no `windows` is requested"):
        run(folder)


def test_as_many_lifts_as_asked_for_whatever_the_windows_cost(tmp_path):
    """The labels are two and the wide torsion is a third axis, over which there are as many windows again."""
    options = replace(QUICK, lifts=300)
    with pipeline.open_run(tmp_path / "run", str(VALINE), options, Notes(), 1) as opened:
        loop = rounds.loop_of(opened)
    assert loop.windows.n == 20
    nothing_checked = rounds.angles_of_check({"wide_angles": [], "wide_names": []}, loop)
    assert nothing_checked.shape == (0, 10, 1) and not list(loop.blind_spots(nothing_checked))
    assert sum(loop.options.n_draws(loop.max_evaluations, loop.windows.force_evaluations)) == 300


def test_windows_of_further_coordinates_come_on_top_of_a_preset(tmp_path):
    """And not on top of what was asked for."""
    for options, further in ((QUICK, 10), (replace(QUICK, max_evaluations=TINY.max_evaluations), 0)):
        with pipeline.open_run(tmp_path / str(further), str(VALINE), options, Notes(), 1) as opened:
            loop = rounds.loop_of(opened)
        assert loop.max_evaluations == TINY.max_evaluations + further * loop.windows.evaluations_each


def test_frames_outside_the_state_are_said_where_they_are_many(finished):
    frames = load_force_frames(finished.folder / "rounds" / "00" / "frames" / "frames.npz")
    for n_dropped, said in ((5, 0), (50, 1)):
        with pipeline.open_run(finished.folder, SYSTEM, QUICK, notes := Notes(), 1) as opened:
            step = Step(FIRST, lambda: None, lambda value: None)
            rounds._accept(opened, step, replace(frames, n_dropped=n_dropped))
        assert sum("left the declared state" in note for note in notes.notes) == said


def test_rounds_that_are_relaxed(tmp_path):
    """Later rounds are moved, cost what they may, and are the same when the run is taken up between them."""
    options = replace(QUICK, relax="latent", relax_steps=4)
    whole = run(tmp_path / "whole", options)
    with np.load(whole.folder / "lifts.npz") as lifts:
        cost = [lifts["evaluations"][lifts["round"] == number] for number in (0, 1)]
        assert str(lifts["relaxation"]) == "latent"
    assert (cost[0] == 1).all() and cost[1].max() == 5 and len(cost[1]) == (9600 - 1000 - 2500 - 700) // 5
    stages = json.loads((whole.folder / MANIFEST).read_text())["stages"]
    spent = sum(stages["rounds/01/lifts"]["attempts"][0][name] for name in ("force_evaluations",))
    assert spent == cost[1].sum() + 700  # and the pilot of the step
    assert whole.summary.force_evaluations == 1000 + cost[0].sum() + spent <= 9600
    assert whole.summary.median_error < 0.2 and [one["moves"] for one in whole.summary.rounds] == [0, 4]
    assert "the last relaxed by 4 moves" in whole.summary.kind_of_lift()
    begun = run(tmp_path / "begun", options, until="train")
    assert begun.summary is None
    assert contents(run(tmp_path / "begun", options).folder) == contents(whole.folder)


@pytest.mark.usefixtures("short")
def test_another_seed_gives_another_surface(finished_short, tmp_path):
    other = run(tmp_path / "run", replace(QUICK, seed=1))
    assert (other.folder / "fes.npz").read_bytes() != (finished_short.folder / "fes.npz").read_bytes()


def test_a_target_that_is_not_reached_is_a_doubt(tmp_path):
    options = replace(QUICK, target_error=0.001, max_evaluations=3600)
    doubts = run(tmp_path / "run", options).summary.doubts()
    assert any("not 0.001 as requested" in doubt for doubt in doubts)


def test_a_check_that_says_no_names_its_worst_place(finished_short):
    """Where there are wide torsions; the twin has none."""
    place = "where SER2:OG-CB-CA-N is near 60 degrees"
    bad = replace(finished_short.summary, pooled_z=-9.0, p_value=1e-9, efficiency=0.001)
    named = replace(bad, most_different=place, least_efficient=place.replace("60", "-60")).doubts()
    for start, how in (("lifts and", "most"), ("against", "least")):
        assert any(one.startswith(start) and f", {how} where SER2:OG-CB-CA-N is near " in one for one in named)
    assert sum(", most where" in one for one in named) == 2 and not any("where" in one for one in bad.doubts())
    unknown = replace(bad, n_checked=4, efficiency=float("nan"))
    assert any("no lift was checked in a mode that has weight" in one for one in unknown.doubts())
    assert not any("no lift was checked" in one for one in bad.doubts())


@pytest.mark.parametrize(
    ("n_checked", "n_weightless", "said"), [(1, 7, True), (2, 0, True), (2, 1, False), (4, 0, False)]
)
def test_few_labels_of_a_check_are_a_doubt(finished_short, n_checked, n_weightless, said):
    summary = replace(finished_short.summary, preset="default", n_checked=n_checked, n_weightless=n_weightless)
    assert any("lifts could be checked against real frames at" in one for one in summary.doubts()) == said


def test_a_summary_of_before_is_read(finished_short, tmp_path):
    """Its tail had no share, and nothing was said of what is being discovered."""
    finished_short.summary.save(tmp_path / "summary.json")
    stored = json.loads((tmp_path / "summary.json").read_text())
    for name in ("tail_share", "discovered", "n_weightless"):
        stored.pop(name)
    (tmp_path / "summary.json").write_text(json.dumps(stored))
    found = load_summary(tmp_path / "summary.json")
    assert "rest by unknown %" in dict(found.rows(0))["Pareto index"] and found.n_weightless == 0
    replace(finished_short.summary, discovered=float("nan")).save(tmp_path / "summary.json")
    assert not replace(load_summary(tmp_path / "summary.json"), preset="quick").trusted


@pytest.mark.parametrize(("discovered", "trusted"), [(0.12, False), (0.02, True)])
def test_a_trial_whose_modes_are_just_being_found_is_not_trusted(finished_short, discovered, trusted):
    summary = replace(finished_short.summary, preset="quick", missing=[], discovered=discovered)
    assert summary.trusted == trusted


@pytest.mark.parametrize("left_out", ["z", "y", None])
def test_a_mode_that_is_not_drawn_ends_even_a_trial_with_a_doubt(left_out, tmp_path, monkeypatch):
    """Both modes are drawn and in the table; the twins leave them out by the card, or look for none: they are named."""
    wide = left_out == "z"
    card = systems_root() / "forked_oscillator" / "card.toml"
    (tmp_path / "card.toml").write_text(f'not_wide = ["particle 0, {left_out or "z"}"]\n' + card.read_text())
    settings = replace(TINY, n_windows=20, n_first=500, max_evaluations=8000, check_evaluations=9000)
    monkeypatch.setattr(run_options, "LOOP_PRESETS", {"quick": settings})
    monkeypatch.setattr(rounds, "loop_options", lambda *given: replace(loop_options(*given), wide=left_out is not None))
    monkeypatch.setattr(rounds, "labels_of_check", lambda *_: 4)
    summary = run(tmp_path / "run", target=str(tmp_path / "card.toml")).summary
    assert summary.trusted == wide
    assert load_summary(tmp_path / "run" / "surface" / "summary.json") == summary
    if wide:
        assert not summary.missing and summary.n_checked == 4
        assert [row["name"] for row in summary.modes] == ["particle 0, y"] * 2
        assert sum(row["weight"] for row in summary.modes) == pytest.approx(1.0)
        # wells at -0.3 and 0.3 nm, and no degrees
        assert all(re.fullmatch(r"(above|below) -?0\.0\d nm", row["where"]) for row in summary.modes)
        assert "degrees" not in "".join(mode_table(summary.modes))
    else:
        assert not summary.modes and "particle 0, y is elsewhere" in summary.missing[0]
        assert summary.missing[0] in summary.doubts()


@pytest.mark.parametrize(
    ("name", "torsion", "lifts"),
    [
        ("psi_alone", "ALA2:C-N-CA-C", 1000),
        pytest.param("valine_dipeptide", "VAL2:CG1-CB-CA-N", 1000, marks=pytest.mark.slow),
        pytest.param("serine_dipeptide", "SER2:OG-CB-CA-N", 6000, marks=pytest.mark.slow),
    ],
)
def test_molecules_whose_wide_torsions_nothing_looks_for(name, torsion, lifts, tmp_path, monkeypatch):
    """The twin of `tests.benchmarks.rotamers`: windows stay where the structure is, and the check does not."""
    monkeypatch.undo()  # the presets' own numbers
    monkeypatch.setattr(rounds, "loop_options", lambda *given: replace(loop_options(*given), wide=False))
    monkeypatch.setattr(rounds, "labels_of_check", lambda *_: 16 if name == "psi_alone" else 8)
    card = VALINE.with_name(f"{name}.toml")
    summary = run(tmp_path / "run", replace(QUICK, lifts=lifts), target=str(card)).summary
    assert not summary.trusted and any(torsion in sentence for sentence in summary.missing)
    # serine's hydroxyl turns, too
    assert all(torsion in sentence or "HG-OG-CB-CA" in sentence for sentence in summary.missing)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"windows": 0}, "`windows` is 0: give at least 1"),
        ({"window_length": 0.0}, "`window_length` is 0: give a positive number of ps"),
        ({"window_length": 0.2}, "is 13 steps of 0.015 ps: give at least 0.3"),
        ({"window_length": 0.2, "generator": "product"}, "is 13 steps of 0.015 ps: give at least 0.3"),
        ({"relax_steps": 100}, "`relax_steps` is of lifts that are relaxed"),
        ({"relax": "latent", "relax_steps": "auto"}, "`relax_steps` is of lifts that are relaxed"),
        ({"relax": "latent", "lifts": 5000}, "give `max_evaluations`, not `lifts`"),
        ({"relax": "context"}, "keeps its labels fixed"),
        ({"relax": "latent", "generator": "product"}, "needs a generator with a density"),
        ({"relax": "hot"}, "choose none or latent or context or auto"),
        ({"latent": 0}, "`latent` is of lifts that are relaxed"),
        ({"acceptance": "metropolis"}, "`acceptance` is of lifts that are relaxed"),
        ({"restrain": "none"}, "`restrain` is of lifts that are relaxed"),
        ({"generator": "normal"}, "choose gan or triangular or product"),
        ({"max_evaluations": 3000}, "less than frames and one round need: give at least 3500"),
    ],
)
def test_options_that_mean_nothing_are_refused(options, message, tmp_path):
    with pytest.raises(InputError, match=message):
        run(tmp_path / "run", replace(QUICK, **options))
    assert not (tmp_path / "run" / MANIFEST).exists()


def test_a_run_of_another_generator_is_refused(finished):
    with pytest.raises(InputError, match=r"begun with `generator='triangular'`, now `generator='product'`"):
        run(finished.folder, replace(QUICK, generator="product"))


def test_a_network_is_trained_and_a_pilot_decides(tmp_path):
    """Twenty steps are not enough to be better for sure: the run says which of both its model is."""
    options = replace(QUICK, generator="gan", max_evaluations=9600)
    outcome = run(tmp_path / "run", options)
    pilot = load_model(tmp_path / "run" / "model.safetensors").metadata["pilot"]
    assert pilot["used"] == ("gan" if pilot["gan"] > pilot["triangular"] else "triangular")
    assert outcome.summary.force_evaluations <= 9600 and pilot["evaluations"] == 600
    assert outcome.summary.generator == "gan"
    again = run(tmp_path / "again", options)
    assert contents(tmp_path / "run") == contents(again.folder)
    with pytest.raises(InputError, match=r"leaves 2600 draws, too few to train a network: give at least 4600"):
        run(tmp_path / "few", replace(options, max_evaluations=4200))
