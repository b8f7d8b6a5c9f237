"""Trajectories to series of collective variables, and `gancl fes` from the command line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import mdtraj
import numpy as np
import pytest
from pymbar.timeseries import detect_equilibration
from typer.testing import CliRunner

from openmm_gancl import InputError, load_system, surface_from_trajectories
from openmm_gancl.cli import app
from openmm_gancl.coordinates.specification import parse_cv
from openmm_gancl.trajectories.blocks import equilibration, independent_blocks
from openmm_gancl.trajectories.series import read_series

TOP = Path(__file__).parents[1] / "data" / "alanine_dipeptide.pdb"
N = 600


@pytest.fixture(scope="module")
def frames():
    """Alanine dipeptide with shaken atoms: no physics, but every torsion moves."""
    structure = mdtraj.load(str(TOP))
    rng = np.random.default_rng(0)
    positions = structure.xyz[0] + rng.normal(0.0, 0.02, (N, structure.n_atoms, 3))
    return mdtraj.Trajectory(positions.astype(np.float32), structure.topology)


@pytest.fixture(scope="module")
def folder(frames, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trajectories")
    frames.save_dcd(str(folder / "a.dcd"))
    frames.save_xtc(str(folder / "a.xtc"))
    mdtraj.Trajectory(frames.xyz[::-1], frames.topology).save_xtc(str(folder / "reversed.xtc"))
    frames[:100].save_pdb(str(folder / "a.pdb"))
    whole = (folder / "a.dcd").read_bytes()
    (folder / "cut.dcd").write_bytes(whole[: int(0.61 * len(whole))])
    xtc = (folder / "a.xtc").read_bytes()
    (folder / "cut.xtc").write_bytes(xtc[: int(0.61 * len(xtc))])
    frames.atom_slice(range(10)).save_dcd(str(folder / "ten.dcd"))
    frames.atom_slice(range(10))[:3].save_pdb(str(folder / "ten.pdb"))
    broken = mdtraj.Trajectory(frames.xyz.copy(), frames.topology)
    broken.xyz[417, 8] = np.nan
    broken.save_dcd(str(folder / "nan.dcd"))
    (folder / "words.dcd").write_text("not a trajectory")
    return folder


def test_torsions_by_residue_are_those_of_the_system(frames):
    slow = load_system("alanine_dipeptide_vacuum").slow
    for name, atoms in zip(("phi:2", "psi:2"), slow.atoms, strict=True):
        assert parse_cv(name, frames.topology).atoms.tolist() == atoms.tolist()
    assert parse_cv("phi", frames.topology).atoms.tolist() == slow.atoms[0].tolist()


@pytest.mark.parametrize("name", ["a.dcd", "a.xtc"])
def test_series_are_what_mdtraj_computes(frames, folder, name, monkeypatch):
    monkeypatch.setattr("openmm_gancl.trajectories.files.CHUNK_ATOMS", 22 * 70)
    cvs = ("phi:2", "angle:4,6,8", "distance:0,18", "rg", f"rmsd:{TOP}")
    series = read_series([folder / name, folder / name], TOP, cvs, stride=4)
    loaded = mdtraj.load(str(folder / name), top=str(TOP))[::4]
    expected = np.stack(
        [
            mdtraj.compute_dihedrals(loaded, [[4, 6, 8, 14]])[:, 0],
            mdtraj.compute_angles(loaded, [[4, 6, 8]])[:, 0],
            mdtraj.compute_distances(loaded, [[0, 18]])[:, 0],
            mdtraj.compute_rg(loaded, np.array([atom.element.mass for atom in loaded.topology.atoms])),
            mdtraj.rmsd(loaded, mdtraj.load(str(TOP))),
        ],
        axis=1,
    )
    assert np.allclose(series.values, np.concatenate([expected, expected]), atol=1e-5)
    assert series.starts.tolist() == [0, N // 4, N // 2]
    assert series.periods[0] == 2 * np.pi and np.isinf(series.periods[1:]).all()


@pytest.mark.parametrize(
    ("cv", "message"),
    [
        ("phi:7", "matches nothing: residues of the topology that have phi: 2"),
        ("phi:two", "no residue number"),
        ("chi1:2", "matches nothing"),
        ("torsion:1,2,3", "needs 4 atom numbers"),
        ("distance:0,22", "atom 22 is out of range, the topology has 22"),
        ("angle:1,1,2", "names an atom twice"),
        ("rg:resname XYZ", "matches no atom"),
        ("rg:resname (", "cannot read the selection"),
        ("rmsd:nowhere.pdb", "there is no file nowhere.pdb"),
        ("helix", "there is no such kind"),
    ],
)
def test_variables_that_cannot_be(frames, cv, message):
    with pytest.raises(InputError) as error:
        parse_cv(cv, frames.topology)
    assert message in str(error.value)


def test_more_than_one_phi_must_be_named(frames):
    topology = frames.topology.join(frames.topology)
    with pytest.raises(InputError, match="matches 2 torsions"):
        parse_cv("phi:2", topology)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cut.dcd", "cut off within frame 36"),
        ("cut.xtc", "cut off within frame 365"),
        ("ten.dcd", "does not have the 22 atoms of"),
        ("ten.pdb", "does not have the 22 atoms of"),
        ("nan.dcd", "frame 417"),
        ("words.dcd", "no DCD file"),
        ("none.dcd", "no file"),
    ],
)
def test_files_that_cannot_be_used_are_named(folder, name, message):
    with pytest.raises(InputError) as error:
        read_series([folder / "a.dcd", folder / name], TOP, ["phi:2"])
    assert name in str(error.value) and message in str(error.value)


def test_a_drifting_beginning_is_cut_and_blocks_follow_each_other(folder):
    series = read_series([folder / "a.dcd", folder / "a.dcd"], TOP, ["phi:2"])
    series.values[:200] += np.linspace(1.0, 0.0, 200, dtype=np.float32)[:, None]
    blocks = independent_blocks(series)
    assert 100 <= blocks.discarded[0] <= 250 and blocks.discarded[1] < 60
    assert (blocks.stop[:-1] <= blocks.start[1:]).all() and (blocks.sizes > 0).all()
    assert not ((blocks.start < N) & (blocks.stop > N)).any()
    assert blocks.n_frames == len(blocks.frames()) == 2 * N - sum(blocks.discarded)
    with pytest.raises(InputError, match="leaves nothing"):
        independent_blocks(series, N)


def jumps(passages, seed=4, n=2000):
    """Between two states: so many passages, of few none in the last twelfth."""
    rng = np.random.default_rng(seed)
    places = np.sort(rng.choice(n if passages > 100 else 11 * n // 12, passages, replace=False))
    return (np.searchsorted(places, np.arange(n), side="right") % 2 + 0.1 * rng.standard_normal(n))[:, None]


def test_a_last_piece_without_passages_is_not_taken_for_the_equilibrium():
    """The twin: the start that leaves the most independent samples of all leaves one state alone."""
    few, none = jumps(10), np.array([np.inf])
    assert detect_equilibration(few[:, 0], nskip=50)[0] >= 1800
    cut, still = equilibration(few, none)
    assert cut <= 1000 and still
    cut, still = equilibration(jumps(200), none)
    assert cut < 600 and not still


def test_runs_that_still_equilibrate_are_a_doubt(tmp_path):
    """Two of three; one of three is a note."""
    for name, passages, first in (("few", 10, 0), ("many", 200, 2)):
        for seed in range(2):
            values = jumps(passages, first + seed)[:, 0]
            lines = ["#! FIELDS time x", *(f"{i} {x}" for i, x in enumerate(values.tolist()))]
            (tmp_path / f"{name}{seed}").write_text("\n".join(lines) + "\n")

    def run(*names):
        colvars = [part for name in names for part in ("--colvar", tmp_path / name)]
        return gancl(*colvars, "--cv", "column:x", "--temperature", 300, "-o", tmp_path / "out")

    result = run("few0", "few1", "many0")
    assert result.exit_code == 3 and "each of 2 of 3 trajectories looks like equilibration" in result.stdout
    result = run("few0", "many0", "many1")
    assert result.exit_code == 0 and "half of trajectory 1 looks like equilibration" in result.stderr


def test_a_notebook_s_backend_of_pictures_need_not_be_here(tmp_path):
    """Of the environment that `!gancl` inherits; matplotlib would refuse to be imported."""
    values = np.random.default_rng(1).normal(size=500).tolist()
    (tmp_path / "COLVAR").write_text(
        "\n".join(["#! FIELDS time x", *(f"{i} {x}" for i, x in enumerate(values))]) + "\n"
    )
    asked = ["fes", "--colvar", "COLVAR", "--cv", "column:x", "--temperature", "300"]
    command = [sys.executable, "-m", "openmm_gancl.cli", *asked]
    environment = {**os.environ, "MPLBACKEND": "module://of_no_package_here"}
    finished = subprocess.run([*command, "-o", "out"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert finished.returncode == 0 and (tmp_path / "out.png").exists(), finished.stderr


def gancl(*arguments):
    return CliRunner().invoke(app, ["fes", *map(str, arguments)])


def test_fes_writes_its_files(folder, tmp_path):
    log_weights = tmp_path / "weights.npy"
    np.save(log_weights, np.zeros(2 * N))
    common = ("--top", TOP, "--cv", "phi:2", "--cv", "psi:2", "--temperature", 300, "--discard", 0)
    files = (folder / "a.dcd", folder / "reversed.xtc")
    basins = ("--basin", "all:-3.2:3.2:-3.2:3.2", "--basin", "none:0.4:1.9:-2.1:0.6")
    output = tmp_path / "deep" / "ala.npz"
    result = gancl(*files, *common, "-o", output, "--log-weights", log_weights, *basins, "--json")
    assert result.exit_code == 0, result.stderr
    results = json.loads(result.stdout)
    assert results["frames"] == 2 * N and results["discarded"] == [0, 0]
    assert results["basins"][0]["population"] == pytest.approx(1.0, abs=1e-3)
    assert results["basins"][1]["population"] == 0.0
    assert results["basins"][1]["free_energy"] is None
    with np.load(output) as stored:
        assert stored["energy"].shape == (72, 72) and stored["energy"].min() == 0.0
        assert stored["names"].tolist() == ["phi:2", "psi:2"]
        expected = surface_from_trajectories(files, TOP, ["phi:2", "psi:2"], 300.0, discard=0)
        assert np.array_equal(stored["energy"], expected.energy)
    assert (tmp_path / "deep" / "ala.dat").read_text().startswith("#! FIELDS phi:2 psi:2 free error")
    assert (tmp_path / "deep" / "ala.png").stat().st_size > 10000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--cv", "phi:9"), "matches nothing"),
        (("--cv", "phi:2", "--temperature", "-5"), "temperature is -5 K"),
        (("--cv", "phi:2", "--method", "splines"), "choose kde or histogram"),
        (("--cv", "phi:2", "--discard", "some"), "give auto or a number"),
        (("--cv", "phi:2", "--basin", "left:0"), "give name:low:high"),
        (("--cv", "phi:2", "--cv", "psi:2", "--cv", "rg"), "give one or two"),
        (("--cv", "phi:2", "--log-weights", TOP), "cannot read log-weights"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_two(folder, tmp_path, arguments, message):
    result = gancl(folder / "a.dcd", "--top", TOP, "--temperature", 300, "-o", tmp_path / "fes", *arguments)
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert result.exit_code == 2 and len(errors) == 1 and message in errors[0], result.stderr
    assert not list(tmp_path.glob("fes*"))
