"""Heights of well-tempered hills tell whether they are all there, their unit and their temperature."""

import mdtraj as md
import numpy as np
import pytest

from openmm_gancl import InputError
from openmm_gancl.trajectories.hill_heights import height_doubts
from openmm_gancl.trajectories.hills import check_deposits, hills_bias, read_hills
from openmm_gancl.trajectories.observations import read

from .known_surface import KT, TEMPERATURE, drawn, energy, wrapped
from .test_rows_by_values import chain
from .write_tables import table, well_tempered

PERIOD = "#! SET min_phi -pi\n#! SET max_phi pi\n"
HEADER = f"#! FIELDS time phi sigma_phi height biasf\n{PERIOD}"


@pytest.fixture(scope="module")
def run():
    return well_tempered()


def written(folder, hills, frames, *, header=HEADER, columns="phi"):
    (folder / "HILLS").write_text(table(header, hills, "%.6f"))
    (folder / "COLVAR").write_text(table(f"#! FIELDS time {columns}\n{PERIOD}", frames, "%.6f"))
    return {"hills": [folder / "HILLS"], "colvar": [folder / "COLVAR"]}


CHANGES = {
    "as it was": (lambda h: h, TEMPERATURE, ""),
    "of one walker of two": (lambda h: h[::2], TEMPERATURE, "are missing, or other runs' are among them"),
    "after a restart": (lambda h: h[100:], TEMPERATURE, "are missing, or other runs' are among them"),
    "at another temperature": (lambda h: h, 310.0, "decrease with their bias as at 300"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_heights_follow_the_bias_of_all_hills(run, tmp_path, name):
    """Twice the COLVAR holds no bias that the hills could be compared with."""
    change, temperature, message = CHANGES[name]
    hills, frames = run
    hills, start = change(hills), change(hills)[0, 0]
    sources = written(tmp_path, hills, frames[frames[:, 0] >= start, :2])
    doubts = read([], None, ["column:phi"], temperature, **sources).doubts
    assert [message in doubt for doubt in doubts] == ([True] if message else [])
    alone = read([], None, ["column:phi"], temperature, hills=sources["hills"]).doubts
    assert any(message in doubt for doubt in alone) == bool(message)


def test_heights_in_kilocalories_are_recognised(run, tmp_path):
    hills, frames = run
    sources = written(tmp_path, hills / [1, 1, 1, 4.184, 1], frames[:, :2])
    with pytest.raises(InputError, match=r"as those in kcal/mol do: give `input_unit=kcal/mol`"):
        read([], None, ["column:phi"], TEMPERATURE, **sources)
    found = read([], None, ["column:phi"], TEMPERATURE, input_unit="kcal/mol", **sources)
    assert not found.doubts and np.isfinite(found.log_weights).sum() == 810
    sources = written(tmp_path, hills, frames[:, :2])
    with pytest.raises(InputError, match=r"as those in kJ/mol do: leave `input_unit` out"):
        read([], None, ["column:phi"], TEMPERATURE, input_unit="kcal/mol", **sources)


def test_walkers_that_read_each_other_late_are_no_doubt(tmp_path):
    """Three walkers of one bias, each of which knows the others' hills ten deposits late."""
    rng, grid, gamma, late = np.random.default_rng(2), np.linspace(-np.pi, np.pi, 361)[:-1], 8.0, 10
    hills: list[tuple[float, ...]] = []
    v, pending = np.zeros((3, 360)), []
    for k in range(150):
        for walker in range(3):
            logs = -(energy(grid) + v[walker]) / KT
            x = rng.choice(grid, p=np.exp(logs - np.logaddexp.reduce(logs)))
            tall = 1.2 * np.exp(-v[walker][np.abs(grid - x).argmin()] / (gamma - 1) / KT)
            hill = tall * np.exp(-0.5 * (wrapped(grid - x) / 0.35) ** 2)
            v[walker] += hill
            pending.append((walker, hill))
            hills.append((k + 1, x, 0.35, tall * gamma / (gamma - 1), gamma))
        if k % late == late - 1:
            for walker, hill in pending:
                v[[other for other in range(3) if other != walker]] += hill
            pending = []
    (tmp_path / "HILLS").write_text(table(HEADER, np.array(hills), "%.6f"))
    found = read_hills([tmp_path / "HILLS"])
    energies = hills_bias(found, found.centres, found.times, TEMPERATURE).energies
    assert height_doubts(found, energies, TEMPERATURE, False) == ()
    one = np.arange(0, len(hills), 3)
    check_deposits(found, found.centres[one], found.times[one])  # frames of one walker, hills of all


def test_a_static_bias_beside_hills_is_undone_by_its_column(run, tmp_path):
    hills, frames = run
    wall = np.where(frames[:, 1] > 1.5, 4 * (frames[:, 1] - 1.5) ** 2, 0.0)
    sources = written(tmp_path, hills, np.column_stack([frames[:, :3], wall]), columns="phi metad.bias wall.bias")
    (doubt,) = read([], None, ["column:phi"], TEMPERATURE, **sources).doubts
    assert "wall.bias" in doubt and "give `bias_columns=wall.bias`" in doubt
    bare = read([], None, ["column:phi"], TEMPERATURE, **sources).log_weights
    both = read([], None, ["column:phi"], TEMPERATURE, bias_columns=["wall.bias"], **sources)
    assert not both.doubts
    settled = np.isfinite(bare)
    assert both.log_weights[settled] - bare[settled] == pytest.approx(wall[settled] / KT, abs=1e-5)
    with pytest.raises(InputError, match=r"metad.bias is the bias of the hills already"):
        read([], None, ["column:phi"], TEMPERATURE, bias_columns=["metad.bias"], **sources)


def test_an_angle_beside_the_surface_needs_its_period(run, tmp_path):
    """Hills on phi without its SET lines, a surface over psi: the bias would be cut at the edge of phi."""
    hills, frames = run
    psi = drawn(len(frames), 4, energy)
    (tmp_path / "HILLS").write_text(table(HEADER.replace(PERIOD, ""), hills, "%.6f"))
    header = f"#! FIELDS time phi psi\n{PERIOD.replace('phi', 'psi')}"
    (tmp_path / "COLVAR").write_text(table(header, np.column_stack([frames[:, :2], psi]), "%.6f"))
    sources = {"hills": [tmp_path / "HILLS"], "colvar": [tmp_path / "COLVAR"]}
    with pytest.raises(InputError, match="phi goes across the edge of a full turn"):
        read([], None, ["column:psi"], TEMPERATURE, **sources)


def test_frames_of_trajectories_take_the_times_of_their_table(run, tmp_path):
    """A format without times: the COLVAR of the run says when each frame was, though no column of it is asked for."""
    hills, frames = run
    sources = written(tmp_path, hills, frames[:, :2])
    places, topology = chain(frames[:, 1])
    trajectory = md.Trajectory(places, topology)
    trajectory.save(str(tmp_path / "t.dcd"))
    found = read(tmp_path / "t.dcd", topology, "torsion:0,1,2,3", TEMPERATURE, **sources)
    of_table = read([], None, "column:phi", TEMPERATURE, **sources)
    assert found.log_weights == pytest.approx(of_table.log_weights) and not found.doubts


def test_a_bias_factor_that_is_not_told_is_found(run, tmp_path):
    """Of a file with zeros in its column; hills of one height have none."""
    hills, frames = run
    for heights, tempered in ((hills[:, 3], True), (np.full(len(hills), 1.2), False)):
        changed = np.column_stack([hills[:, :3], heights, np.zeros(len(hills))])
        doubts = read([], None, ["column:phi"], TEMPERATURE, **written(tmp_path, changed, frames[:, :2])).doubts
        assert ["those of a bias factor of 8 do" in doubt for doubt in doubts] == [True] * tempered
