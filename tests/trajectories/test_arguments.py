"""The Python interface with what people have at hand: Quantities, one name, mdtraj objects, arrays of one dimension."""

import mdtraj
import numpy as np
import pytest
from openmm import unit

from openmm_gancl import InputError, analyse_trajectories, surface_from_trajectories
from openmm_gancl.coordinates.basin import Basin
from openmm_gancl.free_energy.from_trajectories import analyse
from openmm_gancl.trajectories import UmbrellaWindows, metadynamics_bias, opes_bias, read
from openmm_gancl.trajectories.series import read_series

from ..peptides import Residue, chain_positions, pdb_text, trajectory
from .known_surface import bias as level
from .known_surface import biased, colvar_text, energy

N = 300


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("arguments"), np.random.default_rng(0)
    x = chain_positions(rng.normal(-1.0, 0.4, (N, 3)), rng.normal(2.0, 0.4, (N, 3)))
    (folder / "t.pdb").write_text(pdb_text([Residue(i) for i in (1, 2, 3)], x[0]))
    trajectory(x).save_dcd(str(folder / "t.dcd"))
    np.save(folder / "x.npy", rng.normal(0.5, 0.1, 4000))
    return folder


@pytest.fixture(scope="module")
def surface(folder):
    """As the command line has it."""
    return surface_from_trajectories([folder / "t.dcd"], folder / "t.pdb", ["phi:2"], 300.0, discard=0)


def test_one_of_each_kind_is_as_good_as_a_list(folder, surface):
    frames = mdtraj.load(str(folder / "t.dcd"), top=str(folder / "t.pdb"))
    given = [
        (str(folder / "t.dcd"), str(folder / "t.pdb"), "phi:2", 300.0),
        (folder / "t.dcd", frames.topology, ("phi:2",), 300),
        ([folder / "t.dcd"], frames, ["phi:2"], 300.0 * unit.kelvin),
        (frames, None, "phi:2", np.float32(300.0)),
    ]
    for paths, top, cvs, temperature in given:
        found = surface_from_trajectories(paths, top, cvs, temperature, discard=0)
        assert np.allclose(found.energy, surface.energy, atol=1e-4)
        assert found.labels == ("phi of ALA2",) and found.resolved == surface.resolved
        assert type(found.temperature) is float
    parts = read([frames[:100], frames[100:]], frames.topology, "phi:2", 300.0)
    assert parts.series.starts.tolist() == [0, 100, N]


def test_frames_in_memory_take_a_stride(folder):
    frames = mdtraj.load(str(folder / "t.dcd"), top=str(folder / "t.pdb"))
    of_file = read_series(folder / "t.dcd", folder / "t.pdb", "phi:2", stride=7)
    assert np.array_equal(read_series(frames, frames, "phi:2", stride=7).values, of_file.values)


def test_quantities_of_ranges_basins_and_windows(folder):
    observations = read([], None, f"npy:{folder / 'x.npy'}", 300.0 * unit.kelvin)
    ranges = [(0.3 * unit.nanometer, 7.0 * unit.angstrom)]
    found = analyse(observations, discard=0, ranges=ranges, basins=Basin("low", np.array([0.0, 0.5])))
    assert found.surface.edges[0][[0, -1]] == pytest.approx([0.3, 0.7])
    assert found.basins[0].population == pytest.approx(0.5, abs=0.05)
    by_number = analyse(observations, discard=0, ranges=(0.3, 0.7))
    assert np.array_equal(by_number.surface.energy, found.surface.energy)


def test_windows_over_one_coordinate_are_columns_of_numbers():
    centres = np.array([0.2, 0.4, 0.6])
    windows = UmbrellaWindows(("a", "b", "c"), centres * unit.nanometer, 500.0)
    assert windows.centres.shape == windows.force_constants.shape == (3, 1)
    in_angstrom = UmbrellaWindows(("a", "b", "c"), 10 * centres * unit.angstrom, np.full(3, 500.0))
    assert np.allclose(in_angstrom.centres, windows.centres)
    for wrong in ((np.zeros(2), 500.0), (centres, np.zeros((2, 1))), ("here", 500.0)):
        with pytest.raises(InputError):
            UmbrellaWindows(("a", "b", "c"), *wrong)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"paths": 5}, "`paths` holds 5, which is a int"),
        ({"paths": [None]}, "`paths` holds None"),
        ({"top": 5}, "`top` is a int"),
        ({"cvs": 2}, "`cvs` holds 2"),
        ({"cvs": ["phi:2", 3]}, "`cvs` holds 3"),
        ({"cvs": []}, ""),
        ({"temperature": "300"}, "the temperature is '300'"),
        ({"temperature": None}, "the temperature is None"),
        ({"temperature": 300.0 * unit.nanometer}, "give kelvin"),
        ({"temperature": [300.0, 310.0]}, "the temperature is"),
        ({"bins": 3.5}, "`bins` is 3.5"),
        ({"bins": "many"}, "`bins` is many"),
        ({"discard": "some"}, "`discard` is some"),
        ({"discard": 1.5}, "`discard` is 1.5"),
        ({"seed": "x"}, "`seed` is x"),
        ({"log_weights": "none.npy"}, "none.npy"),
        ({"log_weights": ["a"] * N}, "log_weights of shape"),
    ],
)
def test_a_wrong_type_is_bad_input(folder, changes, message):
    given = {"paths": folder / "t.dcd", "top": folder / "t.pdb", "cvs": "phi:2", "temperature": 300.0} | changes
    with pytest.raises(InputError) as error:
        analyse_trajectories(**given)
    assert message in str(error.value)


def test_what_is_no_observation_or_basin_is_bad_input(folder):
    observations = read([], None, f"npy:{folder / 'x.npy'}", 300.0)
    for wrong in (
        {"observations": observations.series},
        {"basins": ["low"]},
        {"basins": [Basin("a", np.zeros((2, 2)))]},
    ):
        with pytest.raises(InputError):
            analyse(**{"observations": observations} | wrong)
    for boxes in ("low", np.zeros(3), [["a", "b"]]):
        with pytest.raises(InputError, match="basin low"):
            Basin("low", boxes)
    with pytest.raises(InputError, match="`stride` is 0"):
        read([], None, f"npy:{folder / 'x.npy'}", 300.0, stride=0)


def test_few_frames_are_a_doubt_here_too(folder, tmp_path):
    rng = np.random.default_rng(1)
    np.save(tmp_path / "few.npy", rng.normal(size=8))
    analysis = analyse_trajectories([], None, f"npy:{tmp_path / 'few.npy'}", 300.0, discard=0)
    assert any("independent samples" in doubt for doubt in analysis.doubts)
    with pytest.warns(UserWarning, match="not to be trusted: only 8 independent samples"):
        surface_from_trajectories([], None, f"npy:{tmp_path / 'few.npy'}", 300.0, discard=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"log_weights": np.zeros(4000) * unit.kilojoule_per_mole}, "over kT: divide by it"),
        ({"log_weights": np.exp(np.linspace(0, 8, 4000))}, "as weights are, not their logarithms: give them by"),
        ({"log_weights": np.zeros(4000) + 0j}, "give one a frame"),
        ({"weights": ["a"] * 4000}, "give one a frame"),
        ({"bias": np.zeros(4000)}, "`bias` is a ndarray: give `metadynamics_bias"),
        ({"bias": lambda periods: np.zeros(4000)}, "`bias` is a ndarray"),
        ({"windows": [("a.dat", 0.5, 60.0)]}, "`windows` is a list: give the name of a table"),
        ({"windows": UmbrellaWindows(("a", "b"), np.zeros(2), 60.0)}, "name no files"),
        ({"input_unit": unit.kilojoule_per_mole}, "`input_unit` is a Unit: give a text"),
        ({"temperature": True}, "the temperature is True"),
        ({"stride": True}, "`stride` is True"),
    ],
    ids=lambda value: str(value)[:20] if isinstance(value, str) else next(iter(value)),
)
def test_what_would_be_taken_for_something_else_is_bad_input(folder, changes, message):
    given = {"paths": [], "top": None, "cvs": f"npy:{folder / 'x.npy'}", "temperature": 300.0} | changes
    with pytest.raises(InputError) as error:
        read(**given)
    assert message in str(error.value)


def test_windows_are_checked_where_they_are_made():
    for options, message in (({"form": "amber"}, "choose harmonic or cosine"), ({"force_constants": -1.0}, "negative")):
        with pytest.raises(InputError, match=message):
            UmbrellaWindows(**{"names": ("a",), "centres": [0.0], "force_constants": 1.0} | options)


def test_biases_take_quantities_and_one_pair(folder, tmp_path):
    np.save(tmp_path / "bias_0_1.npy", np.linspace(0.0, 5.0, 51))
    wanted = metadynamics_bias(tmp_path, periods=[np.inf], limits=[(0.0, 1.0)])
    for limits in ((0.0, 1.0), [(0.0 * unit.nanometer, 10.0 * unit.angstrom)]):
        found = metadynamics_bias(tmp_path, periods=np.inf, limits=limits)
        assert np.allclose(found.limits, wanted.limits) and np.array_equal(found.table, wanted.table)
    names = ("positions", "bandwidths", "logWeights")
    kernels = {
        f"totalRW_{name}": x for name, x in zip(names, (np.zeros((1, 1)), np.ones((1, 1)), np.zeros(1)), strict=True)
    }
    np.savez(tmp_path / "s.npz", **kernels, exploreMode=False)
    barrier = [
        opes_bias(tmp_path / "s.npz", temperature=300, periods=[np.inf], barrier=b).barrier
        for b in (50.208, 12.0 * unit.kilocalorie_per_mole)
    ]
    assert barrier[0] == pytest.approx(barrier[1])


def test_whole_numbers_may_be_floats(folder):
    observations = read([], None, f"npy:{folder / 'x.npy'}", 300.0)
    assert len(analyse(observations, bins=24.0, n_bootstrap=10.0, discard=0).surface.energy) == 24
    with pytest.raises(InputError, match="`discard` is True"):
        analyse(observations, discard=True)


@pytest.mark.parametrize(
    ("scale", "factor"), [(1.0, ""), (2.494339, "2.49 times"), (-1.0, "-1 times"), (0.4343, "0.434")]
)
def test_log_weights_are_compared_with_the_bias_of_the_table(tmp_path, scale, factor):
    phi, v = biased(500)
    (tmp_path / "COLVAR").write_text(colvar_text({"phi": phi, "metad.bias": v}))
    found = read([], None, "column:phi", 300.0, colvar=tmp_path / "COLVAR", log_weights=scale * v / 2.494339 - 30.0)
    assert [factor in doubt and "metad.bias" in doubt for doubt in found.doubts] == [True] * bool(factor)


@pytest.mark.parametrize("step", [0.3, 10.0], ids=["frames that follow each other", "independent frames"])
@pytest.mark.parametrize("lag", [0, 1, -1])
def test_weights_of_the_frame_beside_are_a_doubt(tmp_path, lag, step):
    """A joint slip of one row, that counts do not show."""
    rng, phi = np.random.default_rng(1), [0.3]
    for _ in range(1999):
        new = (phi[-1] + step * rng.normal() + np.pi) % (2 * np.pi) - np.pi
        accepted = np.log(rng.uniform()) < (level(phi[-1]) + energy(phi[-1]) - level(new) - energy(new)) / 2.494339
        phi.append(new if accepted else phi[-1])
    np.save(tmp_path / "phi.npy", np.array(phi))
    logs = np.roll(level(np.array(phi)) / 2.494339, lag)
    doubts = read([], None, f"npy:{tmp_path / 'phi.npy'}:2pi", 300.0, log_weights=logs).doubts
    assert [doubt for doubt in doubts if ("before" if lag > 0 else "after") in doubt] == list(doubts)
    assert len(doubts) == abs(lag)


def test_a_column_by_its_name_and_its_number_is_one(tmp_path):
    (tmp_path / "COLVAR").write_text(colvar_text({"phi": biased(50)[0]}))
    with pytest.raises(InputError, match="column:phi and column:2 are the same"):
        read([], None, ["column:phi", "column:2"], 300.0, colvar=tmp_path / "COLVAR")


def test_a_temperature_that_may_be_in_celsius_is_said(folder):
    for temperature, said in ((27.0, True), (300.0, False)):
        notes = read([], None, f"npy:{folder / 'x.npy'}", temperature).notes
        assert any("give 300.15" in note for note in notes) == said


@pytest.mark.parametrize(
    "change", ["none", "counts steps", "begins elsewhere", "another order", "backwards", "files in turn"]
)
def test_times_beside_weights_are_those_of_the_frames(tmp_path, change):
    phi, v = biased(300)
    (tmp_path / "COLVAR").write_text(colvar_text({"phi": phi}))
    time, rows = 0.2 * np.arange(300), np.arange(300)
    orders = {
        "another order": np.random.default_rng(0).permutation(300),
        "backwards": rows[::-1],
        "files in turn": np.roll(rows, 150),
    }
    if change in orders:
        rows = orders[change]
    else:
        time = {"none": time, "counts steps": 500 * np.arange(300), "begins elsewhere": time + 40.0}[change]
    np.savetxt(tmp_path / "w.dat", np.column_stack([time, v / 2.494339])[rows], header="time logweight")
    given = {"colvar": tmp_path / "COLVAR", "log_weights": tmp_path / "w.dat"}
    if (rows == np.arange(300)).all():
        assert read([], None, "column:phi", 300.0, **given).log_weights == pytest.approx(v / 2.494339)
        return
    with pytest.raises(InputError, match=r"number \d+ is of time .*: give them in the order of the frames"):
        read([], None, "column:phi", 300.0, **given)


def test_a_column_that_counts_is_no_collective_variable(tmp_path):
    """As the time of a file without names; rounded, and in two files. Numbers that only grow may be one."""
    time = np.tile(0.3333 * np.arange(60), 2).round(3)
    paths = [tmp_path / "a.dat", tmp_path / "b.dat"]
    for path, part in zip(paths, (time[:60], time[60:] + 0.1), strict=True):
        np.savetxt(path, np.column_stack([part, part**2, biased(60)[0]]))
    for cv, files in (("column:1", paths[:1]), ("column:1:360", paths[:1]), ("column:1", paths)):
        (doubt,) = read([], None, cv, 300.0, colvar=files).doubts
        assert doubt.startswith(f"{cv} grows by the same number"), doubt
    assert not read([], None, "column:2", 300.0, colvar=paths[:1]).doubts
