"""Rows of a COLVAR file and frames of a trajectory: whatever was written when, the right row, or a refusal."""

from pathlib import Path

import mdtraj
import numpy as np
import pytest

from openmm_gancl import InputError
from openmm_gancl.trajectories.colvar import read_colvar
from openmm_gancl.trajectories.frame_rows import rows_of_frames
from openmm_gancl.trajectories.observations import read
from openmm_gancl.trajectories.series import read_series

from .known_surface import colvar_text

TOP = Path(__file__).parents[1] / "data" / "alanine_dipeptide.pdb"
N, EVERY = 60, 10.0


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Frames each 10 ps, the last of 5 steps each; phi and a bias at every step, the first step included."""
    folder = tmp_path_factory.mktemp("rows")
    structure, rng = mdtraj.load(str(TOP)), np.random.default_rng(0)
    positions = structure.xyz[0] + rng.normal(0.0, 0.03, (5 * N + 1, structure.n_atoms, 3))
    steps = mdtraj.Trajectory(positions.astype(np.float32), structure.topology, time=2.0 * np.arange(5 * N + 1))
    phi, psi = (f(steps)[1][:, 0].astype(float) for f in (mdtraj.compute_phi, mdtraj.compute_psi))
    frames = steps[5::5]
    frames.save_xtc(str(folder / "t.xtc"))
    frames.save_dcd(str(folder / "t.dcd"))
    steps[::5].save_dcd(str(folder / "from_zero.dcd"))
    frames[:35].save_xtc(str(folder / "p1.xtc"))
    frames[30:].save_xtc(str(folder / "p2.xtc"))
    return folder, phi, psi


def write(path, columns, rows, every, start=0.0):
    path.write_text(colvar_text({name: values[rows] for name, values in columns.items()}, every=every, start=start))
    return path


def step_bias(phi):
    """A number that tells the step."""
    return 0.001 * np.arange(len(phi))


FRAMES = 5 * np.arange(1, N + 1)

WRITTEN = {
    "by time": (np.arange(5 * N + 1), 2.0, 0.0, "t.xtc", ""),
    "one a frame": (FRAMES, EVERY, EVERY, "t.xtc", ""),
    "one a frame, without times": (FRAMES, EVERY, EVERY, "t.dcd", ""),
    "driver": (FRAMES, 1.0, 0.0, "t.xtc", "its times count frames"),
    "driver from 1": (FRAMES, 1.0, 1.0, "t.xtc", "its times count frames"),
    "the first step too": (5 * np.arange(N + 1), EVERY, 0.0, "t.dcd", "its first row is of before the first frame"),
    "k a frame": (np.arange(1, 5 * N + 1), 2.0, 2.0, "t.dcd", "it has 5 rows a frame"),
    "k a frame and the first": (np.arange(5 * N + 1), 2.0, 0.0, "t.dcd", "it has 5 rows a frame"),
    "k a frame from zero": (np.arange(5 * N + 1), 2.0, 0.0, "from_zero.dcd", "it has 5 rows a frame"),
}


@pytest.mark.parametrize("evidence", [True, False], ids=["with phi", "bias alone"])
@pytest.mark.parametrize("name", WRITTEN)
def test_the_row_of_each_frame(run, tmp_path, name, evidence):
    folder, phi, _ = run
    rows, every, start, trajectory, note = WRITTEN[name]
    columns = ({"phi": phi} if evidence else {}) | {"metad.bias": step_bias(phi)}
    series = read_series([folder / trajectory], TOP, ["phi:2"])
    found = rows_of_frames(read_colvar([write(tmp_path / "COLVAR", columns, rows, every, start)]), series)
    expected = 5 * np.arange(N + 1) if trajectory == "from_zero.dcd" else FRAMES
    assert rows[found.rows].tolist() == expected.tolist()
    assert not found.doubts and (note in " ".join(found.notes) if note else not found.notes)


@pytest.mark.parametrize("name", ["driver", "k a frame and the first"])
def test_a_row_beside_the_right_one_would_show(run, tmp_path, name):
    """Planted: the same table turned by one row contradicts the frames, and is a doubt."""
    folder, phi, _ = run
    rows, every, start, trajectory, _ = WRITTEN[name]
    turned = {"phi": np.roll(phi, 2 if name != "driver" else 5)}
    series = read_series([folder / trajectory], TOP, ["phi:2"])
    found = rows_of_frames(read_colvar([write(tmp_path / "COLVAR", turned, rows, every, start)]), series)
    assert "phi of " in found.doubts[0] and "differ by" in found.doubts[0]


def test_a_driver_of_a_longer_trajectory_is_known_by_its_phi(run, tmp_path):
    """Its times, 0, 1, 2 ..., would else be taken for picoseconds: frame 1 for row 10."""
    folder, phi, _ = run
    longer = np.concatenate([FRAMES, np.arange(5 * N)])  # whatever follows
    series = read_series([folder / "t.xtc"], TOP, ["phi:2"])
    times = 10 * N
    rows = np.resize(longer, times + 1)
    found = rows_of_frames(read_colvar([write(tmp_path / "COLVAR", {"phi": phi}, rows, 1.0)]), series)
    assert found.rows.tolist() == list(range(N)) and "later rows are left out" in found.notes[0]


def test_columns_beside_those_that_are_compared_may_be_anything(run, tmp_path):
    folder, phi, _ = run
    odd = np.where(np.arange(len(phi)) % 2, np.nan, phi)
    columns = {"phi_odd": odd, "phi": phi, "high": np.full(len(phi), np.inf)}
    table = write(tmp_path / "COLVAR", columns, FRAMES, 1.0)
    found = rows_of_frames(read_colvar([table]), read_series([folder / "t.xtc"], TOP, ["phi:2"]))
    assert found.rows.tolist() == list(range(N)) and not found.doubts


def test_times_that_may_count_frames_are_told(run, tmp_path):
    """Without a coordinate to compare, rows of 0, 1, 2 ... ps and those of a longer driver look alike."""
    folder, phi, _ = run
    table = write(tmp_path / "COLVAR", {"metad.bias": np.resize(phi, 10 * N + 1)}, np.arange(10 * N + 1), 1.0)
    found = rows_of_frames(read_colvar([table]), read_series([folder / "t.xtc"], TOP, ["phi:2"]))
    assert found.rows.tolist() == (10 * np.arange(1, N + 1)).tolist() and "if they count frames" in found.notes[0]


def test_another_torsion_than_that_of_the_table_is_a_doubt(run, tmp_path):
    folder, phi, psi = run
    table = write(tmp_path / "COLVAR", {"phi": psi, "metad.bias": step_bias(phi)}, FRAMES, EVERY, EVERY)
    found = read([folder / "t.xtc"], TOP, ["phi:2"], 300.0, colvar=[table], bias_columns=["metad.bias"])
    assert "phi of " in found.doubts[0]
    right = write(tmp_path / "right", {"phi": phi / np.pi * 180, "metad.bias": step_bias(phi)}, FRAMES, EVERY, EVERY)
    right.write_text(right.read_text().replace(" -pi", " -180").replace(" pi", " 180"))
    assert not read([folder / "t.xtc"], TOP, ["phi:2"], 300.0, colvar=[right], bias_columns=["metad.bias"]).doubts


def test_rows_that_could_be_matched_in_two_ways_are_refused(run, tmp_path):
    folder, phi, _ = run
    table = write(tmp_path / "COLVAR", {"metad.bias": step_bias(phi)}, np.arange(5 * N), 2.0)
    with pytest.raises(InputError, match="in several ways"):
        rows_of_frames(read_colvar([table]), read_series([folder / "t.dcd"], TOP, ["phi:2"]))
    table = write(tmp_path / "COLVAR", {"phi": phi}, np.arange(5 * N), 2.0)
    found = rows_of_frames(read_colvar([table]), read_series([folder / "t.dcd"], TOP, ["phi:2"]))
    assert found.rows[:-1].tolist() == FRAMES[:-1].tolist() and found.rows[-1] == -1


@pytest.mark.parametrize("tables", ["one", "one each"])
def test_parts_of_a_run_that_overlap(run, tmp_path, tables):
    """The second part goes on from a checkpoint five frames before the end of the first."""
    folder, phi, _ = run
    columns = {"phi": phi, "metad.bias": step_bias(phi)}
    whole = write(tmp_path / "COLVAR", columns, FRAMES, EVERY, EVERY)
    parts = [
        write(tmp_path / "C1", columns, FRAMES[:35], EVERY, EVERY),
        write(tmp_path / "C2", columns, FRAMES[30:], EVERY, EVERY * 31),
    ]
    found = read(
        [folder / "p1.xtc", folder / "p2.xtc"],
        TOP,
        ["phi:2", "column:phi"],
        300.0,
        colvar=[whole] if tables == "one" else parts,
        bias_columns=["metad.bias"],
    )
    assert len(found.series.values) == (N if tables == "one" else N + 5)
    assert np.abs(found.series.values[:, 0] - found.series.values[:, 1]).max() < 0.05
    assert any("5 frames after a checkpoint" in note for note in found.notes) == (tables == "one")


def test_a_frame_after_the_last_row_is_left_out(run, tmp_path):
    folder, phi, _ = run
    table = write(tmp_path / "COLVAR", {"phi": phi}, FRAMES[:-1], EVERY, EVERY)
    found = read([folder / "t.xtc"], TOP, ["phi:2", "column:phi"], 300.0, colvar=[table])
    assert len(found.series.values) == N - 1 and "1 frames after its last row" in found.notes[0]
    table = write(tmp_path / "COLVAR", {"phi": phi}, FRAMES[:-9], EVERY, EVERY)
    with pytest.raises(InputError, match="no row at the time of the frame at 520 ps"):
        read([folder / "t.xtc"], TOP, ["phi:2", "column:phi"], 300.0, colvar=[table])


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (np.append(FRAMES, 5 * N), FRAMES),
        (FRAMES[1:], FRAMES[1:]),
        (FRAMES[:-1], FRAMES[:-1]),
    ],
    ids=["one row after the last frame", "none of the first frame", "none of the last frame"],
)
def test_one_row_more_or_less_is_settled_by_phi_or_refused(run, tmp_path, rows, expected):
    folder, phi, _ = run
    series = read_series([folder / "t.dcd"], TOP, ["phi:2"])
    found = rows_of_frames(read_colvar([write(tmp_path / "COLVAR", {"phi": phi}, rows, EVERY, EVERY)]), series)
    assert rows[found.rows[found.rows >= 0]].tolist() == expected.tolist() and len(found.rows) == N
    table = write(tmp_path / "bias", {"metad.bias": step_bias(phi)}, rows, EVERY, EVERY)
    with pytest.raises(InputError, match="in several ways"):
        rows_of_frames(read_colvar([table]), series)
