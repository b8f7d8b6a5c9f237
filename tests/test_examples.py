"""The examples run as a newcomer would run them, and are short."""

import json
import re
import resource
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
sys.path.append(str(EXAMPLES.parent / "docs"))
import make_notebooks  # noqa: E402

SCRIPTS = sorted(EXAMPLES.glob("*.py"))
MAX_LINES = 60


def run(folder, *arguments):
    finished = subprocess.run([sys.executable, *map(str, arguments)], cwd=folder, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


@pytest.fixture(scope="module")
def quick_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("examples")
    gancl = ("-m", "openmm_gancl.cli", "run", "alanine_dipeptide_vacuum", "-o", "run", "--preset", "quick")
    run(folder, *gancl, "--generator", "product", "--latent", "0", "--lifts", "128", "--workers", "1")
    return folder / "run"


def test_all_are_there_and_short():
    assert {path.stem for path in SCRIPTS} == {
        "alanine_dipeptide",
        "closures",
        "existing_script",
        "fes_from_trajectory",
        "metadynamics",
        "replica_exchange",
        "structures_at",
    }
    assert all(len(path.read_text().splitlines()) < MAX_LINES for path in SCRIPTS)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_help(path, tmp_path):
    assert "usage:" in run(tmp_path, path, "--help")


def test_alanine_dipeptide(tmp_path):
    output = run(tmp_path, EXAMPLES / "alanine_dipeptide.py", "--preset", "quick")
    assert re.search(r"256 lifts; median error below 10 kT \d\.\d+ kT\nC7eq: 0\.\d+", output)
    assert (tmp_path / "alanine_dipeptide.png").stat().st_size > 20_000


def test_fes_from_trajectory(tmp_path):
    output = run(tmp_path, EXAMPLES / "fes_from_trajectory.py", "--preset", "quick")
    assert "independent samples" in output and "basin A:" in output
    assert (tmp_path / "fes_from_trajectory.png").is_file()


def test_existing_script(tmp_path):
    output = run(tmp_path, EXAMPLES / "existing_script.py", "--attempts", "60", "--max-evaluations", "9000")
    assert re.search(r"with lifts, \d+ % accepted: C7ax", output) and "plain dynamics" in output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("bias", ["metadynamics", "opes"])
def test_metadynamics(quick_run, bias, monkeypatch, capsys):
    """In this process: starting another one takes longer than the example."""
    monkeypatch.setattr(sys, "argv", ["metadynamics.py", str(quick_run), "--bias", bias, "--attempts", "12"])
    runpy.run_path(str(EXAMPLES / "metadynamics.py"), run_name="__main__")
    output = capsys.readouterr().out
    assert re.search(r"with lifts, \d+ % accepted: C7ax is .* kJ/mol above C7eq\ndynamics alone, ", output)


@pytest.mark.slow
def test_replica_exchange(tmp_path):
    pytest.importorskip("openmmtools")
    gancl = ("-m", "openmm_gancl.cli", "run", "alanine_dipeptide_vacuum", "-o", "run", "--preset", "quick")
    run(tmp_path, *gancl, "--generator", "triangular")
    output = run(tmp_path, EXAMPLES / "replica_exchange.py", tmp_path / "run", "--iterations", "100")
    assert re.search(r"C7ax at 300 K: 0\.\d+ \+- 0\.\d+\n300 K: \d+ % of 100 lifts accepted\n360 K", output)


@pytest.mark.slow
def test_existing_script_has_the_population_of_the_reference(tmp_path):
    """From a bare script, in two minutes of CPU time."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    output = run(tmp_path, EXAMPLES / "existing_script.py")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    value, error = map(float, re.search(r"accepted: C7ax (\S+) \+- (\S+),", output).groups())
    assert error <= 0.1 * value and abs(value - 0.0297) < 3.5 * (error**2 + 0.0005**2) ** 0.5
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 120
    assert re.search(r"plain dynamics, \d+,\d+ force evaluations: C7ax 0.0000", output)


def test_structures_at(quick_run):
    output = run(quick_run.parent, EXAMPLES / "structures_at.py", quick_run / "model.safetensors", "--preset", "quick")
    assert "exact: with their weights" in output and "no weights (the System holds 729 molecules" in output
    assert (quick_run.parent / "water.pdb").read_text().count("MODEL ") == 2


def test_closures(tmp_path):
    output = run(tmp_path, EXAMPLES / "closures.py", "--preset", "quick")
    assert output.count("E[y | x = ") == 9 and "passage times of the reduced model" in output
    assert (tmp_path / "closures.png").stat().st_size > 20_000


def code_of(notebook):
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize(
    ("name", "n_pictures"), [("alanine_dipeptide", 1), ("fes_from_trajectory", 1), ("closures", 1)]
)
def test_a_notebook_is_its_page_with_what_it_prints_and_draws(name, n_pictures):
    """The page's code runs in `test_pages.py`: the notebook's is the same, cell by cell."""
    notebook = json.loads((EXAMPLES / f"{name}.ipynb").read_text())
    page = make_notebooks.notebook_of(make_notebooks.PAGES[name])
    assert [cell["source"] for cell in notebook["cells"]] == [cell["source"] for cell in page["cells"]]
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= n_pictures
    assert all(output["output_type"] != "error" for output in outputs)
    assert all(cell["execution_count"] for cell in notebook["cells"] if cell["cell_type"] == "code")
    assert not re.search("/home|/tmp|/work|/root", json.dumps(notebook))


def test_a_notebook_that_is_not_its_page_shows():
    """The twin: a word of the code is another."""
    page = make_notebooks.notebook_of("tutorials/closures")
    changed = json.loads(json.dumps(page).replace("max_evaluations=10_000", "max_evaluations=9_000"))
    assert code_of(page) != code_of(changed)
