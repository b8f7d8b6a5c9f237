"""`gancl fes` as a newcomer meets it: windows, other packages' files, broken input, what it warns of."""

import gzip
import json
import struct
import warnings
from pathlib import Path

import mdtraj
import numpy as np
import pytest
from typer.testing import CliRunner

from openmm_gancl import InputError, analyse_trajectories
from openmm_gancl.cli import app
from openmm_gancl.free_energy.from_trajectories import analyse
from openmm_gancl.trajectories import read_windows
from openmm_gancl.trajectories.observations import read
from openmm_gancl.trajectories.series import read_series

pytestmark = pytest.mark.usefixtures("without_pictures")

TOP = Path(__file__).parents[1] / "data" / "alanine_dipeptide.pdb"
N, KAPPA = 400, 60.0
CENTRES = np.linspace(-2.0, 2.0, 9)


def gancl(*arguments):
    return CliRunner().invoke(app, ["fes", *map(str, arguments)])


def refused(result, *messages):
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert result.exit_code == 2 and len(errors) == 1, result.stderr
    for text in messages:
        assert text in errors[0], errors[0]


def table(folder, rows, header="file,centre_0,kappa_0"):
    path = folder / "windows.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def window_files(folder, skip=()):
    """COLVAR files of harmonic windows on a flat surface; the rows of their table."""
    rng, rows = np.random.default_rng(0), []
    for i, centre in enumerate(CENTRES):
        if i in skip:
            continue
        x = rng.normal(centre, np.sqrt(2.494 / KAPPA), N)
        lines = [f"{0.1 * k:.1f} {value:.6f}" for k, value in enumerate(x)]
        (folder / f"w{i}.colvar").write_text("\n".join(["#! FIELDS time x", *lines]) + "\n")
        rows.append(f"w{i}.colvar,{centre},{KAPPA}")
    return rows


def test_windows_of_a_table_are_joined(tmp_path, pictures):
    path = table(tmp_path, window_files(tmp_path))
    common = ("--windows", path, "--cv", "column:x", "--temperature", 300, "-o", tmp_path / "fes")
    result = gancl(*common, "--json", "--unit", "kcal/mol", "--discard", 0)
    assert result.exit_code == 0, result.stderr
    results = json.loads(result.stdout)
    assert len(results["windows"]["files"]) == 9 and results["windows"]["least_overlap"] > 0.03
    names = sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("fes"))
    written = [f"fes{ending}.png" for ending in ("", "_convergence", "_equilibration", "_overlap")]
    assert names == ["fes.dat", "fes.npz", *written]
    with np.load(tmp_path / "fes.npz") as stored:
        inside = np.abs(stored["edges_0"][:-1]) < 1.9
        energy, error = stored["energy"][inside], stored["error"][inside]
        assert np.abs((energy - energy.mean()) / error).max() < 4.5  # 110 bins, 3.5 sigma family-wise
        dat = np.loadtxt(tmp_path / "fes.dat")
        assert np.allclose(dat[:, 1], stored["energy"] / 4.184, atol=1e-6)
    assert "#! SET unit_free kcal/mol" in (tmp_path / "fes.dat").read_text()


def test_windows_that_do_not_overlap_are_not_to_be_trusted(tmp_path):
    path = table(tmp_path, window_files(tmp_path, skip=(3, 4)))
    common = ("--windows", path, "--cv", "column:x", "--temperature", 300, "-o", tmp_path / "fes", "--discard", 0)
    result = gancl(*common)
    assert result.exit_code == 3
    first = result.stdout.splitlines()[0]
    assert first.startswith("not to be trusted: 3 of 7 windows overlap with none") and "w0.colvar at (-2)" in first
    assert "a gap of 2 in their grid, at (-0.5), (0)" in result.stderr
    assert (tmp_path / "fes.npz").is_file()


def test_a_file_in_the_wrong_row_is_noticed(tmp_path):
    rows = window_files(tmp_path)
    rows[2] = rows[2].replace("w2", "w4")
    rows[4] = rows[4].replace("w4", "w2")
    common = ("--cv", "column:x", "--temperature", 300, "-o", tmp_path / "fes", "--discard", 0)
    result = gancl("--windows", table(tmp_path, rows), *common)
    assert result.exit_code == 3
    assert "up its restraint in the mean: check its file" in result.stdout


@pytest.mark.parametrize(
    ("change", "header", "message"),
    [
        ({0: "none.colvar,-2,60"}, None, "line 2: there is no file"),
        ({1: "w1.colvar,left,60"}, None, "line 3: centre_0 is 'left'"),
        ({1: "w1.colvar,-1.5,-3"}, None, "line 3: a force constant is not positive"),
        ({1: ",-1.5,60"}, None, "line 3: no file is named"),
        ({}, "file,centre_0", "lacks the column kappa_0"),
        ({}, "file,place,kappa_0", "lacks the column centre_0"),
        ({}, "file,centre_0,kappa_0,colour", "has a column 'colour'"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path, change, header, message):
    rows = window_files(tmp_path)
    for i, row in change.items():
        rows[i] = row
    path = table(tmp_path, rows, header or "file,centre_0,kappa_0")
    refused(gancl("--windows", path, "--cv", "column:x", "--temperature", 300, "-o", tmp_path / "fes"), message)
    assert not list(tmp_path.glob("fes*"))


def test_mixed_temperatures_and_empty_windows_are_refused(tmp_path):
    rows = window_files(tmp_path)
    path = table(
        tmp_path, [f"{row},{320 if i == 5 else 300}" for i, row in enumerate(rows)], "file,centre_0,kappa_0,temperature"
    )
    with pytest.raises(InputError, match=r"line 7: w5.colvar was sampled at 320 K, the surface is for 300 K"):
        read_windows(path, 300.0)
    (tmp_path / "w5.colvar").write_text("#! FIELDS time x\n")
    common = ("--cv", "column:x", "--temperature", 300, "-o", tmp_path / "fes")
    refused(gancl("--windows", table(tmp_path, rows), *common), "w5.colvar holds no row")


def test_windows_need_no_files_twice_but_the_same(tmp_path):
    rows = window_files(tmp_path)
    common = ("--cv", "phi:2", "--top", TOP, "--temperature", 300, "-o", tmp_path / "fes")
    path = table(tmp_path, rows)
    refused(gancl(TOP, "--windows", path, *common), "alanine_dipeptide.pdb is given, but not named")
    refused(gancl("--windows", path, "--log-weights", path, *common), "choose one way to undo the bias")


@pytest.fixture(scope="module")
def frames():
    structure, rng = mdtraj.load(str(TOP)), np.random.default_rng(0)
    positions = structure.xyz[0] + rng.normal(0.0, 0.02, (N, structure.n_atoms, 3))
    return mdtraj.Trajectory(positions.astype(np.float32), structure.topology)


@pytest.mark.parametrize("ending", ["dcd", "xtc", "trr", "nc"])
def test_files_of_mdanalysis_are_read(frames, tmp_path, ending):
    """Angstrom, its own headers, its own time step."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import MDAnalysis

        universe = MDAnalysis.Universe(str(TOP), 10.0 * frames.xyz, format=MDAnalysis.coordinates.memory.MemoryReader)
        path = tmp_path / f"mda.{ending}"
        with MDAnalysis.Writer(str(path), universe.atoms.n_atoms) as writer:
            for _ in universe.trajectory:
                writer.write(universe.atoms)
    series = read_series([path], TOP, ["phi:2", "distance:0,18"])
    expected = mdtraj.compute_dihedrals(frames, [[4, 6, 8, 14]])[:, 0]
    assert len(series.values) == N
    difference = (series.values[:, 0] - expected + np.pi) % (2 * np.pi) - np.pi
    assert np.abs(difference).max() < (0.05 if ending == "xtc" else 1e-3)
    assert series.values[:, 1] == pytest.approx(mdtraj.compute_distances(frames, [[0, 18]])[:, 0], abs=2e-3)


def test_a_reader_that_is_not_installed_is_named(tmp_path):
    try:
        import tables  # noqa: F401  # its absence is the case
    except ImportError:
        (tmp_path / "a.h5").write_bytes(b"x")
        with pytest.raises(InputError, match=r"a.h5 needs a package that is missing .*: pip install tables"):
            read_series([tmp_path / "a.h5"], TOP, ["phi:2"])
    else:
        pytest.skip("PyTables is there")


def test_a_trr_file_cut_off_is_named(frames, tmp_path):
    frames.save_trr(str(tmp_path / "a.trr"))
    assert len(read_series([tmp_path / "a.trr"], TOP, ["phi:2"]).values) == N
    whole = (tmp_path / "a.trr").read_bytes()
    (tmp_path / "cut.trr").write_bytes(whole[: int(0.61 * len(whole)) + 50])
    with pytest.raises(InputError, match=r"cut.trr is cut off within frame 244"):
        read_series([tmp_path / "cut.trr"], TOP, ["phi:2"])
    (tmp_path / "odd.trr").write_bytes(struct.pack(">i", 7) + whole[4:])
    with pytest.raises(InputError, match=r"odd.trr is no TRR file"):
        read_series([tmp_path / "odd.trr"], TOP, ["phi:2"])


@pytest.mark.parametrize(
    ("cv", "boxed", "message"),
    [
        ("rg", True, "makes"),
        ("rmsd", True, "makes"),
        ("phi:2", True, None),
        ("distance:0,18", False, "makes"),
        ("phi:2", False, "makes"),
    ],
)
def test_molecules_cut_by_the_box_are_named(frames, tmp_path, cv, boxed, message):
    """Without a box there is no minimum image; with one it mends torsions and distances, but no radius of gyration."""
    xyz = frames.xyz[:50].copy()
    xyz[17, 8:, 0] += 3.0
    cell = {"unitcell_lengths": np.full((50, 3), 3.0), "unitcell_angles": np.full((50, 3), 90.0)} if boxed else {}
    mdtraj.Trajectory(xyz, frames.topology, **cell).save_dcd(str(tmp_path / "cut.dcd"))
    cv = f"rmsd:{TOP}" if cv == "rmsd" else cv
    if message is None:
        assert np.isfinite(read_series([tmp_path / "cut.dcd"], TOP, [cv]).values).all()
        return
    with pytest.raises(InputError) as error:
        read_series([tmp_path / "cut.dcd"], TOP, [cv])
    assert "frame 17: the bond between atoms" in str(error.value) and "make molecules whole" in str(error.value)


def test_an_array_is_a_collective_variable_and_an_edge_is_noticed(tmp_path):
    rng = np.random.default_rng(1)
    np.save(tmp_path / "phi.npy", rng.vonmises(np.pi, 1.0, 3000))
    common = ("--temperature", 300, "--discard", 0, "-o", tmp_path / "fes", "--json")
    refused(gancl("--cv", f"npy:{tmp_path / 'phi.npy'}", *common), "phi goes across the edge of a full turn", ":2pi")
    result = gancl("--cv", f"npy:{tmp_path / 'phi.npy'}:none", *common)
    assert result.exit_code == 0, result.stderr
    result = gancl("--cv", f"npy:{tmp_path / 'phi.npy'}:2pi", *common)
    assert json.loads(result.stdout)["warnings"] == []
    with np.load(tmp_path / "fes.npz") as stored:
        assert stored["periods"][0] == pytest.approx(2 * np.pi) and stored["names"].tolist() == ["phi"]
    np.save(tmp_path / "short.npy", np.zeros(7))
    refused(
        gancl("--cv", f"npy:{tmp_path / 'phi.npy'}:2pi", "--cv", f"npy:{tmp_path / 'short.npy'}", *common),
        "short.npy has 7 numbers for 3000 frames",
    )


def test_few_samples_and_one_heavy_frame_are_reported(tmp_path):
    rng = np.random.default_rng(2)
    np.save(tmp_path / "x.npy", rng.normal(size=40))
    few = analyse_trajectories([], None, [f"npy:{tmp_path / 'x.npy'}"], 300.0, discard=0)
    assert any("independent samples" in note for note in few.notes + few.doubts)
    np.save(tmp_path / "y.npy", rng.normal(size=4000))
    weights = np.zeros(4000)
    weights[7] = 9.5
    heavy = analyse_trajectories([], None, [f"npy:{tmp_path / 'y.npy'}"], 300.0, log_weights=weights, discard=0)
    assert any("one frame carries 77 % of the weight" in doubt for doubt in heavy.doubts), heavy.doubts
    weights[7] = 6.0
    lighter = analyse_trajectories([], None, [f"npy:{tmp_path / 'y.npy'}"], 300.0, log_weights=weights, discard=0)
    assert any("one frame carries 9 % of the weight" in note for note in lighter.notes) and not lighter.doubts


def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch, pictures):
    np.save(tmp_path / "x.npy", np.random.default_rng(3).normal(size=500))
    common = ("--cv", f"npy:{tmp_path / 'x.npy'}", "--temperature", 300, "-o", tmp_path / "fes")
    assert gancl(*common).exit_code == 0
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(self, *arguments, **keywords):
        raise OSError(28, "No space left on device", "fes.png")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", full)
    refused(gancl(*common, "--bins", 30), "no space left on the disk")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_pictures_of_an_earlier_run_that_no_longer_hold_are_removed(tmp_path, pictures):
    np.save(tmp_path / "x.npy", np.random.default_rng(3).normal(size=500))
    for name in ("fes_overlap.png", "fes_mine.png", "other_overlap.png"):
        (tmp_path / name).write_bytes(b"")
    gancl("--cv", f"npy:{tmp_path / 'x.npy'}", "--temperature", 300, "-o", tmp_path / "fes")
    left = {path.name for path in tmp_path.iterdir()}
    assert "fes_overlap.png" not in left and {"fes_mine.png", "other_overlap.png", "fes.png"} <= left


@pytest.mark.parametrize("name", ["frames.pdb.gz", "frames.ent"])
def test_frames_in_pdb_files_of_other_names_are_no_tables(frames, tmp_path, name):
    frames[:60].save(str(tmp_path / "frames.pdb"))
    content = (tmp_path / "frames.pdb").read_bytes()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    common = ("--top", TOP, "--cv", "phi:2", "--temperature", 300, "--discard", 0, "-o", tmp_path / "fes", "--json")
    assert json.loads(gancl(tmp_path / name, *common).stdout)["frames"] == 60


def test_boxes_and_values_meet_within_one_period(tmp_path):
    """An angle counted from 0 to 2 pi, and the same basin named from either side."""
    rng = np.random.default_rng(4)
    values = np.concatenate([rng.normal(1, 0.3, 3000), rng.normal(4.5, 0.3, 3000)])
    rng.shuffle(values)
    np.save(tmp_path / "phi.npy", values % (2 * np.pi))
    for low, high in ((3.5, 5.5), (3.5 - 2 * np.pi, 5.5 - 2 * np.pi)):
        boxes = ("--basin", "one:0:2", "--basin", f"two:{low}:{high}", "--basin", "all:-4:4")
        result = gancl(
            "--cv", f"npy:{tmp_path / 'phi.npy'}:2pi", *boxes, "--temperature", 300, "-o", tmp_path / "fes", "--json"
        )
        assert result.exit_code == 0, result.stderr
        populations = {row["name"]: row["population"] for row in json.loads(result.stdout)["basins"]}
        assert populations["one"] == pytest.approx(0.5, abs=0.02) and populations["two"] == pytest.approx(0.5, abs=0.02)
        assert populations["all"] == 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--basin", "a:1.2:0.8"), "swap its bounds"),
        (("--cv", "npy:{x}"), "given twice"),
        (("--unit", "eV"), "choose kJ/mol"),
        (("--bias-cv", "npy:{x}"), "none is given"),
        (("--metadynamics", "{x}", "--opes", "{x}"), "choose one way"),
        (("--opes", "{x}"), "--opes-barrier"),
        (("--metadynamics", "{x}", "--bias-range", "2:1"), "is empty"),
    ],
)
def test_options_that_cannot_be(tmp_path, arguments, message):
    np.save(tmp_path / "x.npy", np.random.default_rng(5).normal(size=300))
    filled = [argument.format(x=tmp_path / "x.npy") for argument in arguments]
    common = ("--cv", f"npy:{tmp_path / 'x.npy'}", "--temperature", 300, "-o", tmp_path / "fes")
    refused(gancl(*common, *filled), message)


def test_values_that_are_no_weights_are_refused(tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(6).normal(size=300))
    cv = [f"npy:{tmp_path / 'x.npy'}"]
    for weights, message in (
        (np.zeros(301), "of shape"),
        (np.full(300, np.nan), "NaN"),
        (np.full(300, -np.inf), "NaN or inf"),
    ):
        with pytest.raises(InputError, match=message):
            analyse_trajectories([], None, cv, 300.0, log_weights=weights)
    with pytest.raises(InputError, match="`discard` is -5"):
        analyse_trajectories([], None, cv, 300.0, discard=-5)
    with pytest.raises(InputError, match="the period is -1"):
        analyse_trajectories([], None, [f"{cv[0]}:-1"], 300.0)
    assert analyse(read([], None, cv, 300.0, stride=10), discard=0).blocks.n_frames == 30


def test_the_range_does_not_hold_what_was_cut(tmp_path):
    rng = np.random.default_rng(7)
    frames = rng.normal(1, 0.1, (2, 3000))
    frames[1, :200] = np.linspace(30, 1, 200)
    for order in ((0, 1), (1, 0)):
        for i in range(2):
            rows = "\n".join(f"{k} {x}" for k, x in enumerate(frames[order[i]]))
            (tmp_path / f"c{i}").write_text(f"#! FIELDS time x\n{rows}\n")
        analysis = analyse(read([], None, ["column:x"], 300.0, colvar=[tmp_path / "c0", tmp_path / "c1"]))
        assert analysis.surface.edges[0][-1] < 3.0


def test_tables_of_spreadsheets_are_read(tmp_path):
    rows = window_files(tmp_path)
    (tmp_path / "bom.csv").write_bytes("\ufeff".encode() + "\r\n".join(["file, centre_0 ,kappa_0", *rows]).encode())
    assert len(read_windows(tmp_path / "bom.csv", 300.0).files) == 9
    with pytest.raises(InputError, match="line 3: 4 cells for 3 columns"):
        read_windows(table(tmp_path, [rows[0], rows[1] + ",5", *rows[2:]]), 300.0)
    observed = ("--windows", table(tmp_path, rows), "--window-form", "cosine", "--cv", "column:x", "--temperature", 300)
    refused(gancl(*observed, "-o", tmp_path / "fes"), "cosine windows restrain angles in radians")


def test_an_output_that_is_a_folder_gets_a_name(tmp_path, monkeypatch, pictures):
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.random.default_rng(8).normal(size=300))
    assert gancl("--cv", "npy:x.npy", "--temperature", 300, "-o", ".").exit_code == 0
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["fes.dat", "fes.npz", "fes.png", "fes_convergence.png", "x.npy"]


def test_a_window_named_twice_and_options_without_their_partner_are_refused(tmp_path):
    rows = window_files(tmp_path)
    with pytest.raises(InputError, match=r"names w0.colvar twice"):
        read_windows(table(tmp_path, [*rows, rows[0]]), 300.0)
    np.save(tmp_path / "x.npy", np.random.default_rng(9).normal(size=300))
    common = ("--cv", f"npy:{tmp_path / 'x.npy'}", "--temperature", 300, "-o", tmp_path / "fes")
    refused(gancl(*common, "--opes-barrier", 5), "go with --opes")
    refused(gancl(*common, "--bias-range", "1:2"), "goes with --metadynamics")
    refused(gancl(*common, "--window-form", "cosine"), "goes with --windows")
    refused(gancl(*common, "--basin", "a:nan:1"), "is not a number")


def test_each_coordinate_has_a_name_or_none(tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(10).normal(size=300))
    common = ("--cv", f"npy:{tmp_path / 'x.npy'}", "--temperature", 300, "-o", tmp_path / "fes")
    refused(gancl(*common, "--label", "x", "--label", "y"), "2 --label for 1 coordinates: give one each")


def test_log_weights_may_be_those_of_all_frames_before_a_stride(tmp_path):
    rng = np.random.default_rng(10)
    np.save(tmp_path / "x.npy", rng.normal(size=3000))
    np.save(tmp_path / "w.npy", rng.normal(size=3000))
    cv, weights = [f"npy:{tmp_path / 'x.npy'}"], tmp_path / "w.npy"
    assert analyse(read([], None, cv, 300.0, stride=3, log_weights=weights), discard=0).blocks.n_frames == 1000


def test_parts_shorter_than_a_block_are_not_shown_as_converged(tmp_path):
    rng = np.random.default_rng(11)
    for i in range(30):
        rows = "\n".join(f"{k} {x}" for k, x in enumerate(rng.normal(size=40)))
        (tmp_path / f"c{i}").write_text(f"#! FIELDS time x\n{rows}\n")
    tables = [tmp_path / f"c{i}" for i in range(30)]
    analysis = analyse(read([], None, ["column:x"], 300.0, colvar=tables), discard=0)
    first = np.median(np.diff(analysis.blocks.spans, axis=1))
    short = analysis.convergence.fractions < first - 1e-9
    assert short.any() and np.isnan(analysis.convergence.rms[:, short]).all()
    assert np.isfinite(analysis.convergence.rms[:, -1]).all()


def test_blocks_of_unlike_sizes_have_steady_bars():
    """Few long correlations in trajectories of unlike lengths: no multiplicity runs away."""
    from openmm_gancl.trajectories.observations import Observations
    from openmm_gancl.trajectories.series import Series

    rng, parts = np.random.default_rng(7), []
    for n in (20_000, 3_900, 2_000, 1_500):
        steps = rng.normal(size=n) * np.sqrt(2 / (n / 4))
        parts.append(np.convolve(steps, np.exp(-np.arange(n) / (n / 4)))[:n])
    starts = np.concatenate([[0], np.cumsum([len(part) for part in parts])])
    values = np.concatenate(parts).astype(np.float32)[:, None]
    series = Series(("x",), np.array([np.inf]), ("nm",), values, starts)
    errors = [analyse(Observations(series, 1, 300.0), discard=0, seed=s).surface.median_error for s in range(4)]
    assert max(errors) < 2.494 * 2.0 and max(errors) < 1.5 * min(errors)
