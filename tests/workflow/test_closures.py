"""``gancl closures`` on a finished run: files, exit codes, what is refused, and a run that goes on afterwards."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

from openmm_gancl import InputError
from openmm_gancl.cli import app
from openmm_gancl.closures import load_inertial_model, load_reduced_model
from openmm_gancl.workflow.closures import Models, effective_starts
from openmm_gancl.workflow.folder import RunFolder

BROWNIAN = ["--dynamics", "brownian", "--time-step", "0.004", "--length", "0.32", "--labels", "7", "--runs", "40"]

NO_DOUBT = SimpleNamespace(doubts=list)
"""An overdamped model that explains its runs."""


def gancl(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("closures") / "run"
    options = (
        "--preset",
        "quick",
        "--windows",
        "10",
        "--max-evaluations",
        "5000",
        "--seed",
        "1",
        "--platform",
        "Reference",
    )
    result = gancl("run", "double_well_oscillators", *options, "-o", path)
    assert result.exit_code in (0, 3), result.output
    return path


def test_closures_of_a_run(folder):
    result = gancl("closures", folder, *BROWNIAN, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout.splitlines()[-1])
    assert not [doubt for doubt in found["doubts"] if "plateau" in doubt or "mean force" in doubt]
    assert found["mean_force"]["z"] < 4 and 270 < found["dynamics"]["runs"] <= 7 * 40
    # <U> of the toy: three quadratic-like degrees of freedom of kT / 2 and a little more
    assert found["potential_energy"]["mean"] == pytest.approx(3.7, abs=0.8)
    (passage,) = found["dynamics"]["passages"]
    assert passage["first"] == "left" and passage["there"] > passage["back"] > 1.0
    assert found["consistency"]["rows"][0]["ensemble"] == "lifts, weighted"
    stored = json.loads((folder / "closures.json").read_text())
    assert stored["dynamics"] == found["dynamics"]
    with np.load(folder / "closures.npz", allow_pickle=False) as arrays:
        assert arrays["potential_energy"].shape == arrays["weights_energy"].shape == (120,)
        assert arrays["drift"].shape == (7, 1) and np.nanmax(arrays["committor"]) == 1.0
    assert load_reduced_model(folder / "reduced_model.npz").names == ("x",)
    assert (folder / "closures.png").stat().st_size > 10_000


def test_closures_are_shown_where_nothing_can_be_written(folder, monkeypatch):
    """After the test above."""
    monkeypatch.setattr("openmm_gancl.workflow.run.is_writable", lambda path: False)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    shown = gancl("closures", folder, *BROWNIAN)
    assert shown.exit_code == 0 and "frames, half against half" in shown.stdout
    other = gancl("closures", folder, *BROWNIAN[:-1], "50")
    assert other.exit_code == 2 and "is not yours to write" in other.stderr.replace("\n", " ")
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_the_same_command_gives_the_same_bytes_and_the_run_goes_on(folder):
    """After the test above."""
    before = (folder / "closures.json").read_bytes()
    text = gancl("closures", folder, *BROWNIAN)
    assert text.exit_code == 0 and "frames, half against half" in text.stdout
    assert (folder / "closures.json").read_bytes() == before
    assert gancl("lift", folder).exit_code in (0, 3)
    assert RunFolder.load(folder).is_done("closures")
    # more lifts make another surface, of which these are not the closures
    more = gancl("lift", folder, "--lifts", "50")
    assert more.exit_code in (0, 3) and "note: closures.json is of the lifts before: make what" in more.stderr
    assert not RunFolder.load(folder).is_done("closures")


SHORT = ["--length", "0.6", "--labels", "4", "--runs", "100"]


def test_runs_that_are_too_short_are_said_and_the_rest_is_there(folder):
    """Of inertia: no plateau, first of all; of a trial no reason for exit code 3."""
    result = gancl("closures", folder, *SHORT, "--model", "overdamped")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("a trial, not to be trusted: ") and "no plateau" in result.stdout
    found = json.loads((folder / "closures.json").read_text())
    assert found["consistency"] is not None and found["dynamics"]["model"] == "overdamped"
    assert (folder / "reduced_model.npz").is_file()


def test_runs_without_a_plateau_have_a_model_with_inertia(folder):
    """After the test above, on the same runs, with the evidence for it and no doubt of it."""
    over = json.loads((folder / "closures.json").read_text())["dynamics"]
    result = gancl("closures", folder, *SHORT)
    assert result.exit_code == 0, result.output
    line = next(line for line in result.stdout.splitlines() if line.startswith("model"))
    assert "inertial: drift and diffusion have no plateau" in line and "standard errors" in line
    assert "no plateau" not in "".join(part for part in result.stdout.splitlines() if "not to be trusted: " in part)
    found = json.loads((folder / "closures.json").read_text())["dynamics"]
    assert found["model"] == "inertial" and found["lags"] == over["lags"] and found["p_values"] == over["p_values"]
    # friction of the card, 5/ps, and kT / m of its particle
    assert found["inertial"]["friction"][0][0] == pytest.approx(5.0, rel=0.4)
    assert found["inertial"]["velocity_covariance"][0][0] == pytest.approx(0.1247, rel=0.25)
    (passage,), (wrong,) = found["passages"], over["passages"]
    assert passage["there"] > passage["back"] and passage["there"] != wrong["there"]
    # one model at the top of the folder, the one in use
    assert not (folder / "reduced_model.npz").exists()
    assert load_inertial_model(folder / "inertial_model.npz").friction[0, 0] == found["inertial"]["friction"][0][0]
    with pytest.raises(InputError, match="holds no reduced model"):
        load_reduced_model(folder / "inertial_model.npz")
    assert gancl("report", folder).exit_code == 0
    page = (folder / "report.html").read_text()
    assert "Model in use, inertial" in page and "ps (in the limit of high friction)" in page
    assert "between the cores of basins, of the model with inertia" in page
    assert "Drift of the overdamped model, which is not the one in use" in page


def test_runs_that_all_begin_at_a_few_structures_are_said():
    """Of one label fifty different starts, of the other 48 times the same; and the twin without repeats."""
    labels, positions = np.repeat([[0.0], [1.0]], 50, axis=0), np.random.default_rng(1).normal(size=(100, 3, 3))
    assert effective_starts(positions, labels) == 50 and not Models(NO_DOUBT, None, 50.0).doubts()
    positions[50:98] = positions[50]
    assert effective_starts(positions, labels) == pytest.approx(50**2 / (48**2 + 2))
    (doubt,) = Models(NO_DOUBT, None, effective_starts(positions, labels)).doubts()
    assert doubt.startswith("runs of a label began at 1.1 effective structures alone")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dynamics", "brownian"], "needs a time step of its own: give --time-step"),
        (["--dynamics", "newtonian"], "choose langevin or brownian"),
        (["--model", "generalised"], "choose auto, overdamped, inertial"),
        ([*BROWNIAN, "--model", "inertial"], "of runs with velocities, which"),
        (["--runs", "3"], "--runs is 3: give a whole number from 20 up"),
        (["--length", "-1"], "--length is -1.0: give a positive number of ps"),
        ([*BROWNIAN, "--lag", "5"], "a lag of 5 ps for runs of"),
    ],
)
def test_bad_options_are_one_sentence(folder, arguments, message):
    result = gancl("closures", folder, *arguments)
    if "--lag" in arguments:
        assert message in result.stdout  # the rest is computed all the same
    else:
        assert result.exit_code == 2 and message in result.stderr.replace("\n", " ")


def test_a_folder_that_is_no_finished_run(tmp_path):
    result = gancl("closures", tmp_path)
    assert result.exit_code == 2 and "is not a run folder" in result.stderr
