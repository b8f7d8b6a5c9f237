"""COLVAR files: PLUMED's format, matching to frames, biases undone."""

import json
from pathlib import Path

import mdtraj
import numpy as np
import pytest
from typer.testing import CliRunner

from openmm_gancl import InputError
from openmm_gancl.cli import app
from openmm_gancl.trajectories.colvar import bias_log_weights, read_colvar
from openmm_gancl.trajectories.frame_rows import rows_of_frames
from openmm_gancl.trajectories.observations import read
from openmm_gancl.trajectories.series import read_series
from openmm_gancl.units import thermal_energy

TOP = Path(__file__).parents[1] / "data" / "alanine_dipeptide.pdb"
N = 300


def write_colvar(path, time, **columns):
    """As PLUMED prints it: FIELDS, SET for a periodic variable, one row a line."""
    lines = [f"#! FIELDS time {' '.join(columns)}", "#! SET min_phi -pi", "#! SET max_phi pi"]
    table = np.stack([time, *columns.values()], axis=1)
    path.write_text("\n".join([*lines, *(" " + " ".join(f"{value:f}" for value in row) for row in table)]) + "\n")
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Frames each 2 ps as XTC and DCD; a COLVAR each 0.5 ps and one a frame."""
    folder = tmp_path_factory.mktemp("colvar")
    structure, rng = mdtraj.load(str(TOP)), np.random.default_rng(0)
    positions = structure.xyz[0] + rng.normal(0.0, 0.02, (N, structure.n_atoms, 3))
    frames = mdtraj.Trajectory(positions.astype(np.float32), structure.topology, time=2.0 * np.arange(N))
    frames.save_xtc(str(folder / "a.xtc"))
    frames.save_dcd(str(folder / "a.dcd"))
    fine = 0.5 * np.arange(4 * N)
    write_colvar(folder / "fine", fine, phi=np.sin(fine), bias=0.1 * fine)
    write_colvar(folder / "each", 2.0 * np.arange(N), phi=np.sin(2.0 * np.arange(N)), bias=np.arange(N) / 100)
    return folder


def test_fields_settings_and_rows_are_read(folder):
    table = read_colvar([folder / "fine"])
    assert table.fields == ("time", "phi", "bias")
    assert table.period("phi") == pytest.approx(2 * np.pi) and np.isinf(table.period("bias"))
    assert np.allclose(table.column("bias"), 0.05 * np.arange(4 * N), atol=1e-6)


def test_a_restarted_run_repeats_rows_and_the_later_ones_hold(tmp_path):
    first = write_colvar(tmp_path / "COLVAR", np.arange(10.0), phi=np.zeros(10)).read_text()
    second = write_colvar(tmp_path / "COLVAR", np.arange(7.0, 15.0), phi=np.ones(8)).read_text()
    (tmp_path / "COLVAR").write_text(first + second)
    table = read_colvar([tmp_path / "COLVAR"])
    assert table.column("time").tolist() == list(range(15))
    assert table.column("phi").tolist() == [0.0] * 7 + [1.0] * 8


def test_messages_name_the_file_of_a_row_and_its_number_there(tmp_path):
    paths = [
        write_colvar(tmp_path / name, np.arange(100.0), phi=np.where(np.arange(100) == bad, value, 0.5))
        for name, bad, value in (("A", 200, 0.0), ("B", 3, np.nan))
    ]
    with pytest.raises(InputError, match=r"B, row 3: column phi is NaN"):
        read_colvar(paths).column("phi")


@pytest.mark.parametrize(("trajectory", "colvar"), [("a.xtc", "fine"), ("a.xtc", "each"), ("a.dcd", "each")])
def test_rows_are_those_of_the_frames(folder, trajectory, colvar):
    series = read_series([folder / trajectory], TOP, ["psi:2"])
    table = read_colvar([folder / colvar])
    rows = rows_of_frames(table, series).rows
    joined = read([folder / trajectory], TOP, ["column:phi", "psi:2"], 300.0, colvar=[folder / colvar]).series
    assert joined.names == ("phi", "psi:2") and joined.periods == pytest.approx([2 * np.pi] * 2)
    assert np.allclose(table.column("time")[rows], 2.0 * np.arange(N))
    assert np.allclose(joined.values[:, 0], np.sin(2.0 * np.arange(N)), atol=1e-5)
    assert np.array_equal(joined.values[:, 1], series.values[:, 0])


def test_rows_that_nothing_tells_apart_are_refused(folder, tmp_path):
    timeless = read_series([folder / "a.dcd"], TOP, ["psi:2"])
    with pytest.raises(InputError, match="hold no times"):
        rows_of_frames(read_colvar([folder / "fine"]), timeless)
    late = write_colvar(tmp_path / "late", 1000.0 + np.arange(4 * N), phi=np.zeros(4 * N))
    with pytest.raises(InputError, match="no row at the time of the frame at 0 ps"):
        rows_of_frames(read_colvar([late]), read_series([folder / "a.xtc"], TOP, ["psi:2"]))


def test_rows_of_other_runs_are_refused(folder, tmp_path):
    """As many rows as frames, but at other times; one table for two runs; tables in the wrong order."""
    half = write_colvar(tmp_path / "half", 0.5 * np.arange(N // 2), phi=np.zeros(N // 2))
    with pytest.raises(InputError, match="no row at the time of the frame at 76 ps"):
        rows_of_frames(read_colvar([half]), read_series([folder / "a.xtc"], TOP, ["psi:2"], stride=2))
    twice = read_series([folder / "a.xtc", folder / "a.xtc"], TOP, ["psi:2"])
    with pytest.raises(InputError, match="start anew: give one COLVAR for each"):
        rows_of_frames(read_colvar([folder / "each"]), twice)
    shorter = write_colvar(tmp_path / "short", 2.0 * np.arange(N - 50), phi=np.zeros(N - 50), bias=np.zeros(N - 50))
    with pytest.raises(InputError, match="no row at the time"):
        rows_of_frames(read_colvar([shorter, folder / "each"]), twice)
    both = write_colvar(tmp_path / "both", np.arange(10.0), phi=np.zeros(10)).read_text()
    (tmp_path / "both").write_text(both + both)
    table = read_colvar([tmp_path / "both"])
    assert len(table.rows) == 20 and table.run.tolist() == [0] * 10 + [1] * 10
    assert "both holds 2 runs" in table.notes[0]


def test_rows_counted_from_another_beginning_and_strides_are_matched(folder, tmp_path):
    series = read_series([folder / "a.xtc"], TOP, ["psi:2"])
    later = write_colvar(tmp_path / "later", 500.0 + 2.0 * np.arange(N), phi=np.zeros(N))
    assert rows_of_frames(read_colvar([later]), series).rows.tolist() == list(range(N))
    thinned = read_series([folder / "a.dcd"], TOP, ["psi:2"], stride=10)
    assert rows_of_frames(read_colvar([folder / "each"]), thinned, 10).rows.tolist() == list(range(0, N, 10))


def test_biases_add_up_over_kT(folder):
    table = read_colvar([folder / "each"])
    for columns in (["bias"], ["bias", "bias"], ["b*", "bias", "3"]):  # each acts once
        logs = bias_log_weights(table, columns, 300.0, np.arange(N))
        assert np.allclose(logs, np.arange(N) / 100 / thermal_energy(300.0))
    with pytest.raises(InputError, match="has no column rbias: it has time, phi, bias"):
        bias_log_weights(table, ["rbias"], 300.0, np.arange(N))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("one two three\n", "holds no row"),
        ("#! FIELDS time phi\n0 1 2\n", "names 2 columns but holds 3"),
        ("#! FIELDS time phi\n0 1\n1 x\n", "line 3: 'x' is no number; remove that line"),
        ("#! FIELDS time phi\n", "holds no row"),
        ("#! FIELDS time phi\n0 1\n#! FIELDS time psi\n1 1\n", "changes its columns"),
    ],
)
def test_files_that_are_no_colvar(tmp_path, text, message):
    (tmp_path / "COLVAR").write_text(text)
    with pytest.raises(InputError) as error:
        read_colvar([tmp_path / "COLVAR"])
    assert str(tmp_path / "COLVAR") in str(error.value) and message in str(error.value)


def gancl(*arguments):
    return CliRunner().invoke(app, ["fes", *map(str, arguments)])


def test_a_biased_run_gives_the_unbiased_surface(tmp_path, without_pictures):
    """Samples of exp(-(U + V)/kT) with V in the COLVAR: the surface is U; without the bias column it is not."""
    kT, rng = thermal_energy(300.0), np.random.default_rng(2)
    phi = rng.vonmises(0.4, 1.5, 40000)  # U + V = -1.5 kT cos(phi - 0.4), V = -1.5 kT cos(phi - 0.4) + kT cos(phi)
    bias = kT * (-1.5 * np.cos(phi - 0.4) + np.cos(phi))
    path = write_colvar(tmp_path / "COLVAR", np.arange(len(phi)), phi=phi, bias=bias)
    common = ("--colvar", path, "--cv", "column:phi", "--temperature", 300, "--bins", 24, "--discard", 0)
    rms = []
    for name, columns in (("with", ("--bias-columns", "bias")), ("without", ())):
        result = gancl(*common, *columns, "-o", tmp_path / name, "--json")
        assert result.exit_code == (0 if columns else 3), result.stderr
        assert json.loads(result.stdout)["frames"] == len(phi)
        with np.load(tmp_path / f"{name}.npz") as stored:
            edges, energy, error = stored["edges_0"], stored["energy"], stored["error"]
            assert stored["names"].tolist() == ["phi"] and stored["units"].tolist() == ["radians"]
        centres = 0.5 * (edges[1:] + edges[:-1])
        difference = energy + kT * np.cos(centres)
        rms.append(float(np.sqrt((((difference - difference.mean()) / error) ** 2).mean())))
    assert rms[0] < 1.6 and rms[1] > 5


def test_what_fes_writes_the_reader_reads(tmp_path, without_pictures):
    rng = np.random.default_rng(3)
    path = write_colvar(tmp_path / "COLVAR", np.arange(2000), phi=rng.vonmises(0, 3, 2000), psi=rng.normal(size=2000))
    both = ("--cv", "column:phi", "--cv", "column:psi", "--colvar", path)
    result = gancl(*both, "--temperature", 300, "-o", tmp_path / "fes", "--bins", 12)
    assert result.exit_code == 0, result.stderr
    table = read_colvar([tmp_path / "fes.dat"])
    with np.load(tmp_path / "fes.npz") as stored:
        assert np.allclose(table.column("free"), stored["energy"].ravel(), atol=1e-6)
    assert table.period("phi") == pytest.approx(2 * np.pi) and table.settings[0]["nbins_psi"] == "12"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--cv", "column:phi"), "give --colvar"),
        (("--cv", "phi:2"), "needs trajectories"),
        (("--cv", "column:phi", "--colvar", "{each}", "--bias-columns", "rbias"), "no column rbias"),
        (("--cv", "column:psi", "--colvar", "{each}"), "no column psi"),
        (("--cv", "column:phi", "--colvar", "nowhere"), "there is no file nowhere"),
        (("{xtc}", "--cv", "phi:2", "--top", TOP, "--colvar", "{each}"), "nothing of it is requested"),
        (("{each}", "--cv", "phi:2", "--top", TOP), "has no name of a trajectory"),
        (("{xtc}", "--cv", "column:phi", "--top", TOP, "--colvar", "{each}"), "leave them out"),
        (("{xtc}", "--cv", "phi:2"), "need --top"),
    ],
)
def test_bad_input(folder, tmp_path, arguments, message):
    named = [str(each).format(each=folder / "each", xtc=folder / "a.xtc") for each in arguments]
    result = gancl(*named, "--temperature", 300, "-o", tmp_path / "fes")
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert result.exit_code == 2 and len(errors) == 1 and message in errors[0], result.stderr
