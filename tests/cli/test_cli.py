import errno
import fcntl
import hashlib
import json
import math
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
import tomllib
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

import openmm_gancl
from openmm_gancl.cli import app, doctor, reporting
from openmm_gancl.cli.exit_codes import exit_codes
from openmm_gancl.cli.options import as_options
from openmm_gancl.cli.reporting import LogReporter
from openmm_gancl.cli.runs import print_outcome
from openmm_gancl.engine import torch_force
from openmm_gancl.errors import InputError
from openmm_gancl.generator.model import load_model
from openmm_gancl.sampling.own_frames import check_cvs
from openmm_gancl.system.library import load_system
from openmm_gancl.workflow import options
from openmm_gancl.workflow import run as pipeline
from openmm_gancl.workflow.manifest import MANIFEST, write_manifest
from openmm_gancl.workflow.run import Outcome
from openmm_gancl.workflow.summary import Summary, load_summary, summary_text
from tests.planted import Planted
from tests.tiny_run import PRESETS

SYSTEM = "double_well_oscillators"
STAGES = ("sample", "train", "lift", "surface")
SCRIPT = str(Path(__file__).parents[1] / "tiny_run.py")
QUICK = ("--preset", "quick", "--generator", "product", "--platform", "Reference", "--workers", "1")


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(options, "PRESETS", PRESETS)


def gancl(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(result, *messages):
    assert result.exit_code == 2, (result.stdout, result.stderr)
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "Traceback" not in result.stderr and result.stdout == ""
    for text in messages:
        assert text in lines[0]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(options, "PRESETS", PRESETS)
        result = gancl("run", SYSTEM, "-o", folder, *QUICK, "--json")
    assert result.exit_code == 0, result.stderr
    return folder, result


@pytest.mark.parametrize("columns", [30, 40, 80, 200])
def test_help_is_as_wide_as_the_terminal(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    names = [name for name in typer.main.get_command(app).commands]
    texts = [gancl(*command, "--help").output for command in ([], *([name] for name in names))]
    widest = max(len(line) for text in texts for line in text.splitlines())
    assert min(columns, 80) - 6 <= widest <= min(columns, 80), widest
    assert len(texts) >= 12 and all("--help" in text for text in texts)


def test_help_imports_nothing_heavy():
    """That is why it is fast; how fast it is, tests/benchmarks/speed.py measures."""
    finished = subprocess.run([sys.executable, "-m", "openmm_gancl.cli", "--help"], capture_output=True, text=True)
    assert finished.returncode == 0 and "doctor" in finished.stdout
    code = (
        "import sys, openmm_gancl.cli; "
        "print([name for name in ('openmm', 'torch', 'numpy', 'matplotlib', 'scipy') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_json_is_one_line_with_the_summary(finished):
    folder, result = finished
    assert len(result.stdout.splitlines()) == 1
    results = json.loads(result.stdout)
    assert results["run"] == str(folder) and results["stages"] == ["sample", "train", "lift", "surface"]
    for key in ("pooled_z", "n_checked", "pareto_index", "effective_sample_size", "efficiency", "basins", "seconds"):
        assert key in results
    assert [row["name"] for row in results["basins"]] == ["left", "right"]
    assert results["force_evaluations"] == results["force_evaluations_spent"]


def test_progress_reads_well_in_a_log(finished):
    lines = finished[1].stderr.splitlines()
    assert lines[0] == "sampling: begun"
    assert any(line.startswith("training: 100 %") for line in lines)
    assert all("\r" not in line and "\x1b" not in line for line in lines)


def test_a_second_call_prints_the_closing_summary(finished):
    folder, _ = finished
    result = gancl("run", SYSTEM, "-o", folder, *QUICK)
    assert result.exit_code == 0
    for text in ("lifts", "effective sample size", "Pareto index", "lifts against real frames", "left", "fes.png"):
        assert text in result.stdout


def test_systems_are_listed_and_copied(tmp_path):
    assert SYSTEM in gancl("systems").stdout
    assert SYSTEM in json.loads(gancl("systems", "--json").stdout)
    copied = gancl("systems", "copy", SYSTEM, tmp_path / "mine")
    assert copied.exit_code == 0 and (tmp_path / "mine" / "card.toml").exists()
    refused(gancl("systems", "copy", "nothing", tmp_path / "other"), "there is no system 'nothing'")
    refused(gancl("systems", "paste"), "gancl systems copy NAME DIR")


def test_the_model_is_exported(finished, tmp_path):
    assert gancl("export", finished[0], "-o", tmp_path / "mine.pt").exit_code == 0
    model, extra = load_model(finished[0] / "model.safetensors"), {"metadata.json": ""}
    exported = torch.jit.load(str(tmp_path / "mine.pt"), _extra_files=extra)
    labels = np.array([[0.2], [-0.4]])
    latents = model.sample_latents(labels, np.random.default_rng(1))
    expected = model.reference_parameters(labels, latents)
    for ours, theirs in zip(vars(expected).values(), exported(*map(torch.as_tensor, (labels, latents))), strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-13)
    assert json.loads(extra["metadata.json"])["metadata"]["system"] == SYSTEM
    refused(gancl("export", finished[0], "-o", tmp_path / "mine.safetensors"), "name it model.pt")


def test_the_newest_model_of_a_closed_loop_is_exported(tmp_path):
    loop = ("--preset", "quick", "--generator", "triangular", "--platform", "Reference", "--workers", "1")
    folder, extra = tmp_path / "run", {"metadata.json": ""}
    assert gancl("sample", SYSTEM, "-o", folder, *loop).exit_code == 0
    refused(gancl("export", folder), "has no lifting model yet")
    assert gancl("train", folder).exit_code == 0
    assert gancl("export", folder, "-o", tmp_path / "mine.pt").exit_code == 0
    exported = torch.jit.load(str(tmp_path / "mine.pt"), _extra_files=extra)
    generator = load_model(folder / "rounds" / "00" / "model" / "model.safetensors")
    base, labels = generator.sample_base(3, np.random.default_rng(1)), np.zeros((3, 1))
    theirs = exported(*map(torch.as_tensor, (base, labels)))
    for one, other in zip(generator.transform(base, labels), theirs, strict=True):
        np.testing.assert_allclose(one, other.numpy(), rtol=1e-13)
    assert json.loads(extra["metadata.json"])["kind"] == "invertible"


def test_a_run_with_planted_code_is_refused_and_runs_nothing(finished, tmp_path, capfd):
    folder = tmp_path / "run"
    shutil.copytree(finished[0], folder)
    file, manifest = folder / "train" / "model.safetensors", json.loads((folder / "manifest.json").read_text())
    torch.jit.save(torch.jit.script(Planted()), str(file))
    torch.jit.load(str(file))
    assert "planted code runs" in capfd.readouterr().out
    manifest["stages"]["train"]["checksums"][file.name] = hashlib.sha256(file.read_bytes()).hexdigest()
    write_manifest(folder, manifest)
    refused(gancl("export", folder, "-o", tmp_path / "mine.pt"), "is TorchScript, code that gancl does not run")
    assert "planted code runs" not in capfd.readouterr().out and not (tmp_path / "mine.pt").exists()


def test_stages_one_by_one(tmp_path):
    folder = tmp_path / "run"
    assert json.loads(gancl("sample", SYSTEM, "-o", folder, *QUICK, "--json").stdout)["stages"] == ["sample"]
    refused(gancl("export", folder), "has no lifting model yet")
    assert gancl("train", folder).exit_code == 0
    assert "surface: " in gancl("lift", folder, "--workers", "1").stdout
    assert gancl("sample", folder).exit_code == 0
    again = gancl("run", folder)
    assert again.exit_code == 0 and again.stdout == gancl("run", SYSTEM, "-o", folder, *QUICK).stdout


def test_bad_input_ends_with_code_two_and_one_sentence(tmp_path, finished):
    folder, _ = finished
    refused(gancl("run", "nosuch", "-o", tmp_path / "a"), "there is no system 'nosuch'", SYSTEM)
    refused(gancl("run", tmp_path / "card.toml", "-o", tmp_path / "a"), "cannot read the card")
    refused(gancl("run", SYSTEM), "-o RUN")
    refused(gancl("run", SYSTEM[:-1]), f"there is no system '{SYSTEM[:-1]}' (do you mean {SYSTEM}?)")
    refused(gancl("run", folder, "--seed", "3"), "--seed is settled when a run begins")
    refused(gancl("run", SYSTEM, "-o", tmp_path / "a", "--relax-steps", "many"), "give a number or auto")
    refused(gancl("run", SYSTEM, "-o", tmp_path / "a", "--preset", "fast"), "--preset is 'fast': choose")
    refused(gancl("run", SYSTEM, "-o", tmp_path / "a", *QUICK[:2], "--platform", "Abacus"), "no platform 'Abacus'")
    refused(gancl("run", SYSTEM, "-o", folder, *QUICK, "--seed", "3"), "--seed 0", "--seed 3", "new folder")
    refused(gancl("run", "narrow_barrier", "-o", folder, *QUICK), "now it is narrow_barrier", "new folder")
    refused(gancl("lift", tmp_path), "is not a run folder", "gancl run")
    (tmp_path / "broken.toml").write_text("name = 'x'\ncolour = 3\n")
    refused(gancl("run", tmp_path / "broken.toml", "-o", tmp_path / "a"), "unknown key 'colour'")


def test_a_run_that_is_refused_leaves_no_folder(tmp_path, finished):
    """Nor one of its parents; a folder that was there stays, with what is in it."""
    new, there = tmp_path / "not" / "there", tmp_path / "there"
    there.mkdir()
    loop = ("--preset", "quick")
    for folder in (new, there):
        refused(gancl("run", SYSTEM, "-o", folder, *loop, "--max-evaluations", "10"), "--max-evaluations")
        refused(gancl("run", SYSTEM, "-o", folder, *QUICK, "--platform", "Abacus"), "no platform")
        refused(gancl("run", SYSTEM, "-o", folder, *QUICK, "--scheduler", "tcp://127.0.0.1:1"), "scheduler")
        own = ("--traj", "no.dcd", "--top", tmp_path / "no.pdb", "-o", folder)
        refused(gancl("train", SYSTEM, *own), "no.")
        assert sorted(tmp_path.rglob("*")) == [there]
    (there / "mine.txt").write_text("")
    refused(gancl("run", SYSTEM, "-o", there, *loop), "holds other files")
    assert sorted(tmp_path.rglob("*")) == [there, there / "mine.txt"]
    # what was computed is kept
    before = sorted(finished[0].rglob("*"))
    refused(gancl("run", SYSTEM, "-o", finished[0], *QUICK, "--seed", "3"), "--seed 0")
    assert sorted(finished[0].rglob("*")) == before


def test_options_that_would_be_ignored_are_refused(tmp_path, finished):
    folder, _ = finished
    refused(gancl("run", SYSTEM, "-o", tmp_path / "a", "--features", "foo"), "--features is of learned labels")
    refused(gancl("run", SYSTEM, "-o", folder, *QUICK, "--slow", "diffusion-map"), "begun with --slow torsions")
    refused(gancl("sample", folder, "--lifts", "100"), "--lifts is settled when a run begins")
    refused(gancl("sample", SYSTEM), "is a system and no run folder: add -o RUN")
    refused(gancl("train", SYSTEM), "is a system and no run folder: add --traj")
    refused(gancl("train", folder, "-o", tmp_path / "m.safetensors"), "gancl export")


def test_what_cannot_end_well_is_refused_before_the_work(tmp_path, finished):
    folder, _ = finished
    refused(gancl("run", "alanine_dipeptide_water", "-o", tmp_path / "a"), "use umbrella windows")
    own = ("train", SYSTEM, "--traj", "no.dcd", "--top", "no.pdb", "-o")
    refused(gancl(*own, tmp_path / "nowhere" / "m.safetensors"), "there is no folder")
    (tmp_path / "mine.txt").write_text("")
    refused(gancl(*own, tmp_path), "holds other files", "name a new folder")
    refused(gancl("export", folder, "-o", tmp_path), "is a folder: name a file in it")
    assert not list(tmp_path.parent.glob("*.tmp"))


def test_a_run_folder_in_use_or_of_another_version_is_refused(finished, tmp_path):
    folder, _ = finished
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    stat = Path(f"/proc/{other.pid}/stat")
    life = stat.read_text().rpartition(")")[2].split()[19] if stat.exists() else "alive"
    holder = {"pid": other.pid, "host": os.uname().nodename, "started": "now", "life": life}
    (folder / "lock").write_text(json.dumps(holder))
    refused(gancl("run", SYSTEM, "-o", folder, *QUICK), f"in use by process {other.pid}")
    other.kill()
    other.wait()
    result = gancl("run", SYSTEM, "-o", folder, *QUICK)
    assert result.exit_code == 0 and "note: took over the lock" in result.stderr
    stored = (folder / MANIFEST).read_text()
    (folder / MANIFEST).write_text(stored.replace('"schema_version": 3', '"schema_version": 2'))
    refused(gancl("run", SYSTEM, "-o", folder, *QUICK), "schema version 2, this program reads 3")
    (folder / MANIFEST).write_text(stored)


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (errno.ENOSPC, "no space left on the disk (frames.npz)"),
        (errno.EFBIG, "a file grew beyond the limit of this shell or disk (frames.npz): raise it (ulimit -f)"),
    ],
)
def test_a_full_disk_ends_with_code_two(tmp_path, monkeypatch, number, sentence):
    def full(*_):
        raise OSError(number, os.strerror(number), "frames.npz")

    monkeypatch.setitem(pipeline.RELAXED_STAGES, "sample", full)
    refused(gancl("run", SYSTEM, "-o", tmp_path / "run", *QUICK), sentence)


def test_a_bug_of_ours_ends_with_code_one(tmp_path, monkeypatch):
    monkeypatch.setitem(pipeline.RELAXED_STAGES, "sample", lambda run, out: 1 / 0)
    result = gancl("run", SYSTEM, "-o", tmp_path / "run", *QUICK)
    assert result.exit_code == 1 and "a bug of ours (ZeroDivisionError" in result.stderr
    result = gancl("run", SYSTEM, "-o", tmp_path / "run", *QUICK, "--debug")
    assert isinstance(result.exception, ZeroDivisionError)


def test_a_missing_package_is_no_bug_of_ours(finished, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    refused(gancl("report", finished[0]), "jinja2 is not installed", "gancl doctor")


@pytest.mark.parametrize("stage", STAGES)
def test_an_interrupt_in_any_stage_ends_with_code_130_and_says_how_to_go_on(stage, finished, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    if stage != STAGES[0]:
        later = shutil.ignore_patterns(*STAGES[STAGES.index(stage) :])
        shutil.copytree(finished[0], tmp_path / "run", ignore=later)
    kept = signal.getsignal(signal.SIGINT)
    monkeypatch.setitem(pipeline.RELAXED_STAGES, stage, interrupt)
    result = gancl("run", SYSTEM, "-o", tmp_path / "run", *QUICK)
    signal.signal(signal.SIGINT, kept)
    assert result.exit_code == 130
    assert "interrupted: finished stages are kept, the same command goes on from there" in result.stderr
    assert not (tmp_path / "run" / "lock").exists()


def test_ctrl_c_reaches_no_worker_and_the_run_can_go_on(finished, tmp_path):
    folder = tmp_path / "run"
    command = [sys.executable, SCRIPT, "run", SYSTEM, "-o", str(folder), *QUICK[:6], "--workers", "2"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    # in a stage that is not the last: the run may not end before the interrupt comes
    rng = np.random.default_rng(time.time_ns())
    while not (folder / "sample").exists() and process.poll() is None:
        time.sleep(0.02)
    time.sleep(rng.uniform(0.0, 0.3))
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err and err.splitlines()[-1].startswith("error: interrupted: ")
    assert gancl("run", SYSTEM, "-o", folder, *QUICK).exit_code == 0
    assert (folder / "fes.npz").read_bytes() == (finished[0] / "fes.npz").read_bytes()


def outcome_of(finished, **changes):
    summary = replace(load_summary(finished[0] / "surface" / "summary.json"), **changes)
    return Outcome(finished[0], ("surface",), {"surface": 1.0}, summary.force_evaluations, summary)


SOUND = {"pooled_z": 0.5, "n_checked": 4, "pareto_index": 0.3, "effective_sample_size": 300.0}


def test_a_tail_that_has_hardly_any_weight_is_no_doubt(finished):
    """Of weights that are all but equal; the twin has a hundredth of the weight there."""
    for share, trusted in ((0.004, True), (0.01, False)):
        summary = outcome_of(finished, preset="default", **SOUND | {"pareto_index": 1.8, "tail_share": share}).summary
        assert summary.trusted == trusted


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pooled_z": -5.0}, "pooled z = -5.0"),
        ({"pareto_index": 0.9, "tail_share": 0.2}, "Pareto index 0.90"),
        ({"effective_sample_size": 3.0}, "effective sample size is 3.0"),
        ({"pooled_z": math.nan}, "no label could be checked"),
    ],
)
def test_what_is_not_to_be_trusted_says_so_first(changes, message, finished, capsys):
    doubtful = outcome_of(finished, preset="default", **{**SOUND, **changes})
    with pytest.raises(typer.Exit) as ended:
        print_outcome(doubtful, as_json=False)
    first = capsys.readouterr().out.splitlines()[0]
    assert ended.value.exit_code == 3 and first.startswith("not to be trusted: ") and message in first


def test_a_sound_run_and_a_quick_one_end_with_code_zero(finished, capsys):
    print_outcome(outcome_of(finished, preset="default", **SOUND), as_json=False)
    assert "not to be trusted: " not in capsys.readouterr().out
    print_outcome(outcome_of(finished, **{**SOUND, "pooled_z": 9.0}), as_json=False)
    assert capsys.readouterr().out.startswith("a trial, not to be trusted: ")


@pytest.mark.parametrize("columns", [40, 60])
def test_a_terminal_breaks_results_between_words(columns, finished, monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(reporting.shutil, "get_terminal_size", lambda: os.terminal_size((columns, 24)))
    outcome = outcome_of(finished, preset="default", **SOUND)
    text = summary_text(outcome.summary, outcome.seconds, outcome.evaluations_spent, Path("fes.png"))
    reporting.print_results(text)
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= columns < max(map(len, text.splitlines()))
    assert printed.split() == as_options(text).split()


def test_a_summary_survives_its_file(finished, tmp_path):
    summary = outcome_of(finished, **{**SOUND, "pooled_z": math.nan}).summary
    summary.save(tmp_path / "summary.json")
    again = load_summary(tmp_path / "summary.json")
    assert isinstance(again, Summary) and again.as_json() == summary.as_json()
    seconds = {"rounds/00/model": 1.0, "rounds/01/model": 2.0, "check": 0.5}
    text = summary_text(again, seconds, 1, tmp_path / "fes.png")
    assert "unknown" in text and "rounds 3.0, check 0.5\n" in text


def test_own_frames_train_a_model(finished, tmp_path, capfd):
    folder, _ = finished
    own = ("--top", folder / "top.pdb", "--traj", folder / "lifts.dcd", "--latent", "0")
    n = json.loads((folder / "surface" / "summary.json").read_text())["reasons"]["ok"]
    np.save(tmp_path / "weights.npy", np.zeros(n))
    result = gancl(
        "train", SYSTEM, *own, "--cv", "x", "--log-weights", tmp_path / "weights.npy", "-o", tmp_path / "m.safetensors"
    )
    assert result.exit_code == 0, result.stderr
    assert load_model(tmp_path / "m.safetensors").metadata["n_frames"] == n
    assert capfd.readouterr().out == ""
    np.save(tmp_path / "short.npy", np.zeros(3))
    weights = ("--log-weights", tmp_path / "short.npy", "-o", tmp_path / "m.safetensors")
    refused(gancl("train", SYSTEM, *own, *weights), "has 3 log-weights")
    refused(gancl("train", "bonded_chain", *own, "-o", tmp_path / "m.safetensors"), "have 1 atoms, bonded_chain has 5")
    refused(gancl("train", SYSTEM, *own, "--cv", "phi:2", "-o", tmp_path / "m.safetensors"), "phi:2 is no label")
    refused(gancl("train", SYSTEM, *own), "-o model.safetensors")
    refused(gancl("train", SYSTEM, *own, "-o", tmp_path / "m.pt"), "name it m.safetensors")
    model = ("-o", tmp_path / "m.safetensors")
    refused(gancl("train", SYSTEM, *own[2:], *model), "own frames need --top FILE")
    refused(gancl("train", SYSTEM, *own[:-1], "-1", *model), "--latent is -1: give at least 0")
    # into a run folder
    refused(gancl("train", SYSTEM, *own, "-o", tmp_path / "run"), "--latent is of the product generator")
    refused(gancl("train", SYSTEM, *own[2:4], "-o", tmp_path / "run"), "own frames need --top FILE: name it")
    refused(gancl("train", folder, *own[:4], "-o", tmp_path / "run"), "is a run folder, where the model goes")
    refused(gancl("train", folder, *own[:2]), "--top, --cv and --log-weights belong to own frames")
    assert not (tmp_path / "run").exists()


def test_own_labels_are_matched_by_their_atoms():
    dipeptide = load_system("alanine_dipeptide_vacuum")
    check_cvs(dipeptide, [])
    check_cvs(dipeptide, ["phi:2", "psi:2"])
    check_cvs(dipeptide, ["torsion:4,6,8,14", "torsion:16,14,8,6"])
    with pytest.raises(InputError, match="name all of them in this order"):
        check_cvs(dipeptide, ["phi:2"])
    with pytest.raises(InputError, match="omega:2 is no label"):
        check_cvs(dipeptide, ["omega:2", "psi:2"])


def test_messages_name_options_and_nothing_that_is_none():
    assert as_options("raise `max_evaluations`, or `discard=0`") == "raise --max-evaluations, or --discard 0"
    assert as_options("`slow='diffusion-map'` and `ranges`") == "--slow diffusion-map and --range"
    of_a_card = "`force_constants` [1.0] of a card"
    assert as_options(of_a_card) == of_a_card


def test_the_doctor_looks_for_all_that_is_needed():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert set(doctor.PACKAGES) == {re.split(r"[^\w-]", needed)[0] for needed in project["dependencies"]}


def test_the_doctor_tells_a_line_each():
    result = gancl("doctor")
    lines = result.stdout.splitlines()
    assert result.exit_code == 0
    assert all(line.startswith(("ok ", "missing ")) for line in lines)
    assert any("platform Reference" in line and "us a step" in line for line in lines)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("raise ImportError('libtorch.so is not here')", "cannot be imported (ImportError: libtorch.so is not here)"),
        ("import os; os.abort()", "cannot be imported (the process crashed with signal 6)"),
        ("TorchForce = int", "cannot make a force"),
    ],
)
def test_the_doctor_explains_what_openmm_torch_cannot_do(monkeypatch, tmp_path, module, message):
    """Also where its import ends the process."""
    (tmp_path / "openmmtorch.py").write_text(module + "\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(torch_force, "why_not_torch", lambda: "")
    monkeypatch.setattr("importlib.metadata.version", lambda name: "1.5")
    (finding,) = doctor._openmmtorch()
    assert not finding.ok and not finding.needed
    assert message in finding.found and "backend='python' meanwhile" in finding.remedy


def test_the_doctor_survives_a_platform_that_crashes(monkeypatch, tmp_path):
    """As PoCL's OpenCL may; another one fails as OpenMM says it."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\n"
        "if 'openmm_gancl.cli.platform_check' in sys.orig_argv and sys.orig_argv[-1] == 'OpenCL':\n"
        "    os.abort()\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    monkeypatch.setattr("openmm_gancl.engine.platforms.platform_names", lambda: ["Reference", "OpenCL", "Abacus"])
    findings = doctor._openmm_platforms()
    assert [finding.ok for finding in findings[:3]] == [True, False, False]
    assert "us a step" in findings[0].found and "crashed with signal 6" in findings[1].found
    assert "no platform 'Abacus'" in findings[2].found and not any(finding.needed for finding in findings[1:3])


def test_the_doctor_does_not_wait_for_ever(monkeypatch):
    monkeypatch.setattr(doctor, "CHECK_TIMEOUT", 0.01)
    monkeypatch.setattr("openmm_gancl.engine.platforms.platform_names", lambda: ["Reference"])
    findings = doctor._openmm_platforms()
    assert "no answer in 0.01 s" in findings[0].found and not findings[0].needed
    assert findings[1].needed and findings[1].found == "none runs here"


@pytest.mark.parametrize(
    ("devices", "names", "message"),
    [
        ([], ["Reference"], "no device"),
        (["GPU 0: NVIDIA H200"], ["Reference"], "GPU 0: NVIDIA H200, but OpenMM has no CUDA platform"),
        (["GPU 0: NVIDIA H200"], ["Reference", "CUDA"], "of which torch"),
    ],
)
def test_the_doctor_says_what_a_card_lacks(devices, names, message, monkeypatch):
    monkeypatch.setattr(doctor, "_devices", lambda: devices)
    monkeypatch.setattr("openmm_gancl.engine.platforms.platform_names", lambda: names)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (finding,) = doctor._cuda()
    assert message in finding.found and finding.ok == (not devices) and bool(finding.remedy) == bool(devices)
    if names == ["Reference"] and devices:
        assert re.search(r"pip install OpenMM-CUDA-\d\d==[\d.]+", finding.remedy)


def test_pairs_of_versions_that_do_not_fit_are_known(monkeypatch):
    """They crash the process where they are used: PythonForce takes the place of TorchForce."""
    versions = {"openmmtorch": "1.5"}
    monkeypatch.setattr(torch_force.metadata, "version", versions.__getitem__)
    monkeypatch.setattr(torch_force.version, "short_version", "8.6.0")
    monkeypatch.setattr(torch, "__version__", "2.11.0+cu130")
    assert "needs torch 2.9, here is 2.11.0" in torch_force.why_not_torch()
    monkeypatch.setattr(torch, "__version__", "2.9.1+cpu")
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "CUDA libraries" in torch_force.why_not_torch()
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    assert "needs OpenMM 8.5, here is 8.6" in torch_force.why_not_torch()
    assert torch_force.torch_force_type.__wrapped__() is None
    (finding,) = doctor._openmmtorch()
    assert "does not fit" in finding.found and "PythonForce is used meanwhile" in finding.remedy
    versions["openmmtorch"] = "1.6"
    assert torch_force.why_not_torch() == ""


def test_without_openmm_torch_there_is_nothing_that_does_not_fit(monkeypatch):
    def missing(name):
        raise torch_force.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(torch_force.metadata, "version", missing)
    monkeypatch.setitem(sys.modules, "openmmtorch", None)
    assert torch_force.why_not_torch() == ""
    assert torch_force.torch_force_type.__wrapped__() is None


def test_the_doctor_names_a_remedy(monkeypatch):
    def broken():
        raise ImportError("libX.so: no such file")

    monkeypatch.setattr(doctor, "_openmm_platforms", broken)
    monkeypatch.setattr(doctor, "_openmmtorch", list)
    result = gancl("doctor")
    problem = next(line for line in result.stdout.splitlines() if line.startswith("problem"))
    assert result.exit_code == 2 and "libX.so" in problem and "reinstall" in problem


def test_the_environment_is_explained_in_one_sentence(capsys, tmp_path):
    for error, code, message in (
        (PermissionError(errno.EACCES, "Permission denied", "/root/x"), 2, "Permission denied (/root/x)"),
        (MemoryError(), 2, "not enough memory"),
        (InputError("do this"), 2, "error: do this"),
    ):
        with pytest.raises(typer.Exit) as ended, exit_codes(False):
            raise error
        assert ended.value.exit_code == code and message in capsys.readouterr().err


def test_the_version_is_that_of_the_package():
    result = gancl("--version")
    assert result.exit_code == 0 and result.stdout == f"openmm-gancl {openmm_gancl.__version__}\n"


STEP = """
import time
from openmm_gancl.cli import reporting
reporter = reporting.make_reporter()
with reporter.step("fitting the map", 4) as done:
    done(2)
    time.sleep(0.3)  # bars are drawn ten times a second
reporter.note("all of [bold]x[/bold] was sampled")
"""


def on_a_terminal(code, columns):
    """Lines that a terminal shows one after the other, without what moves its cursor or colours them."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=theirs, stdout=theirs, stderr=theirs, env={**environment, "TERM": "xterm"}
    )
    os.close(theirs)
    written = b""
    with suppress(OSError):  # of a terminal that nobody has open any more
        while part := os.read(ours, 4096):
            written += part
    os.close(ours)
    assert process.wait() == 0, written.decode()
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written.decode())
    return [line.rstrip() for line in re.split(r"[\r\n]+", text) if line.strip()]


@pytest.mark.parametrize("columns", [80, 40])
def test_a_terminal_has_bars_that_fit_into_it(columns):
    lines = on_a_terminal(STEP, columns)
    steps, note = lines[:-1], "".join(lines[-1:])
    assert all("fitting the map" in line for line in steps)
    assert any(" 50 %" in line for line in steps) and "100 %" in steps[-1]
    assert max(map(len, steps)) <= columns
    assert all(("\u2501" in line and "left" in line) == (columns == 80) for line in steps)
    assert note == "note: all of [bold]x[/bold] was sampled"  # what looks like markup is text


def test_a_log_hears_of_a_step_that_says_nothing_of_itself(monkeypatch, capsys):
    """As a fit of half a minute is; no step is silent for five seconds."""
    assert reporting.LONGEST_SILENCE <= 5.0
    monkeypatch.setattr(reporting, "LONGEST_SILENCE", 0.4)
    monkeypatch.setattr(reporting, "TICK", 0.05)
    with LogReporter().step("fitting", 1):
        end = time.monotonic() + 1.5
        while time.monotonic() < end:  # busy in Python, which leaves other threads least time
            sum(range(1000))
    lines = capsys.readouterr().err.splitlines()
    assert 4 <= len(lines) <= 6 and all(line.startswith("fitting: after ") for line in lines[1:-1])


def test_a_log_tells_each_quarter_and_an_early_end(capsys):
    with LogReporter().step("work", 8) as done:
        for count in range(1, 7):
            done(count)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" after")[0] for line in lines] == [
        *("work: begun", "work: 25 %", "work: 50 %", "work: 75 %", "work: 100 %")
    ]
    assert lines[-1].endswith("(ended at 6 of 8)")
