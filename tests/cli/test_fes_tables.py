"""`gancl fes` on tables as they lie on disks: several files after one option, units, hints, exit codes."""

import gzip
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from openmm_gancl.cli import app
from openmm_gancl.cli.fes import _each_with_its_option
from openmm_gancl.units import thermal_energy

from ..trajectories.known_surface import biased, colvar_text, energy, window_files, write_windows

pytestmark = pytest.mark.usefixtures("without_pictures")

KT = thermal_energy(300.0)


def gancl(folder, *arguments):
    result = CliRunner().invoke(
        app, ["fes", *map(str, arguments), "--temperature", "300", "-o", str(folder / "fes"), "--json"]
    )
    return result, json.loads(result.stdout) if result.exit_code in (0, 3) else None


def error_of(result):
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert result.exit_code == 2
    return line


def rms(folder, scale=1.0):
    """From the truth below 6 kT, in kT."""
    with np.load(folder / "fes.npz") as stored:
        edges, found = scale * stored["edges_0"], stored["energy"]
    exact = energy(0.5 * (edges[1:] + edges[:-1]))
    difference = (found - exact)[exact - exact.min() < 6 * KT]
    return float(difference.std()) / KT


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    phi, v = biased()
    degrees = 180 / np.pi * phi
    for i in range(4):
        part = slice(1000 * i, 1000 * (i + 1))
        (folder / f"COLVAR.{i}").write_text(
            colvar_text({"phi": phi[part], "metad.bias": v[part], "wall.bias": 0 * v[part]})
        )
    (folder / "C.gz").write_bytes(gzip.compress(b"\xef\xbb\xbf" + colvar_text({"phi": phi, "metad.bias": v}).encode()))
    (folder / "D").write_text(colvar_text({"phid": degrees, "metad.bias": v}, period=("-180", "180"), name="phid"))
    (folder / "phi.xvg").write_text('@ s0 legend "phi"\n' + "".join(f"{k} {x:.4f}\n" for k, x in enumerate(degrees)))
    np.savetxt(folder / "logw.dat", v / KT)
    return folder


@pytest.mark.parametrize(
    "arguments",
    [
        (
            "--colvar",
            "{f}/COLVAR.0",
            "{f}/COLVAR.1",
            "{f}/COLVAR.2",
            "{f}/COLVAR.3",
            "--bias-columns",
            "metad.bias, wall.bias",
        ),
        ("--colvar", "{f}/COLVAR.*", "--bias-columns", "*.bias"),
        ("{f}/C.gz", "--bias-columns", "metad.bias"),
    ],
    ids=["several files and blanks", "wildcards", "gzipped, with a mark, named alone"],
)
def test_what_belongs_together_is_read_together(folder, tmp_path, arguments):
    result, record = gancl(tmp_path, "--cv", "column:phi", *[argument.format(f=folder) for argument in arguments])
    assert result.exit_code == 0, result.stderr
    assert record["frames"] > 3500 and rms(tmp_path) < 0.12


def test_basins_are_in_the_unit_of_the_column(folder, tmp_path):
    basins = ("--basin", "left:-180:0", "--basin", "right:0: 180")
    common = ("--colvar", folder / "D", "--cv", "column:phid", "--bias-columns", "metad.bias")
    result, record = gancl(tmp_path, *common, *basins)
    populations = [row["population"] for row in record["basins"]]
    assert result.exit_code == 0 and sum(populations) == pytest.approx(1.0, abs=0.01) and populations[0] > 0.9
    assert rms(tmp_path, np.pi / 180) < 0.12
    refused, _ = gancl(tmp_path, *common, "--basin", "a:-400:0")
    assert "beyond the period 360: give the coordinate's own unit" in error_of(refused)
    radians = ("--colvar", folder / "COLVAR.0", "--cv", "column:phi", "--basin", "left:-pi:0", *common[-2:])
    assert gancl(tmp_path, *radians)[0].exit_code == 0


def test_a_series_of_another_program_with_weights_beside_it(folder, tmp_path):
    common = ("--colvar", folder / "phi.xvg", "--log-weights", folder / "logw.dat")
    assert "column:phi:360" in error_of(gancl(tmp_path, *common, "--cv", "column:phi")[0])
    result, _ = gancl(tmp_path, *common, "--cv", "column:phi:360")
    assert result.exit_code == 0 and rms(tmp_path, np.pi / 180) < 0.12


def test_options_of_windows_reach_their_table(tmp_path):
    rows = window_files(tmp_path)
    table = write_windows(tmp_path / "w.csv", rows, centre=180 / np.pi, kappa=0.5 / 4.184)
    common = ("--windows", table, "--cv", "column:phi")
    assert "give the unit of the table's centres, --centre-unit degrees" in error_of(gancl(tmp_path, *common)[0])
    some = gancl(tmp_path, *common, "--centre-unit", "degrees")[0]
    assert "give --kappa-unit and --window-form amber" in error_of(some)
    options = ("--centre-unit", "degrees", "--kappa-unit", "kcal/mol/rad^2", "--window-form", "amber")
    result, record = gancl(tmp_path, *common, *options)
    assert result.exit_code == 0 and not record["doubts"] and rms(tmp_path) < 0.15
    alone = gancl(tmp_path, "--colvar", tmp_path / "w0.dat", "--cv", "column:phi", "--kappa-unit", "kT")[0]
    assert "--kappa-unit goes with --windows" in error_of(alone)


def test_hints_name_options(folder, tmp_path):
    (tmp_path / "HILLS").write_text("#! FIELDS time phi sigma_phi height biasf\n1 0.5 0.3 1.2 8\n2 0.5 0.3 1.2 8\n")
    assert "give it by --hills" in error_of(gancl(tmp_path, "--colvar", tmp_path / "HILLS", "--cv", "column:phi")[0])
    np.savetxt(tmp_path / "w", np.full(1000, 1e-3) * np.linspace(0, 2, 1000))
    weights = ("--colvar", folder / "COLVAR.0", "--cv", "column:phi", "--log-weights", tmp_path / "w")
    assert "give them by --weights" in error_of(gancl(tmp_path, *weights)[0])
    topology = gancl(tmp_path, "top.prmtop", "t.nc", "--cv", "phi:2")[0]
    assert "top.prmtop is a topology: give it by --top" in error_of(topology)
    counted = gancl(tmp_path, "--colvar", folder / "COLVAR.0", "--cv", "column:1")[0]
    assert "time counts, it is no collective variable" in error_of(counted)
    series = gancl(tmp_path, "--windows", folder / "phi.xvg", "--cv", "column:phi")[0]
    assert "lacks the column centre_0" in error_of(series)
    twice = ("--colvar", folder / "COLVAR.0", folder / "COLVAR.0", "--cv", "column:phi")
    assert "COLVAR.0 is given twice" in error_of(gancl(tmp_path, *twice)[0])


@pytest.mark.parametrize(
    ("given", "spread"),
    [
        ("--colvar A B --cv x", "--colvar A --colvar B --cv x"),
        ("--colvar A b.dcd c.dcd", "--colvar A b.dcd c.dcd"),
        ("a.xtc --colvar A B -o out", "a.xtc --colvar A --colvar B -o out"),
        ("--colvar=A B --hills C D", "--colvar=A --colvar B --hills C --hills D"),
        ("--colvar a.dcd B", "--colvar a.dcd --colvar B"),
        ("--cv x y", "--cv x y"),
    ],
)
def test_an_option_of_files_takes_all_that_follow_up_to_a_trajectory(given, spread):
    assert _each_with_its_option(given.split()) == spread.split()
