"""Rows and frames that only their values bring together: a column, or a bias that is a function of the frames."""

import itertools

import mdtraj as md
import numpy as np
import pytest

from openmm_gancl import InputError
from openmm_gancl.trajectories.colvar import read_colvar
from openmm_gancl.trajectories.frame_rows import rows_of_frames
from openmm_gancl.trajectories.series import read_series

from .known_surface import bias, colvar_text, drawn, energy

N = 400
CV = "torsion:0,1,2,3"


def chain(phi):
    """Four atoms at a torsion, nm."""
    places = np.zeros((len(phi), 4, 3))
    places[:, 0], places[:, 2] = [-0.05, 0.14, 0.0], [0.15, 0.0, 0.0]
    places[:, 3] = np.stack([np.full(len(phi), 0.2), 0.14 * np.cos(phi), 0.14 * np.sin(phi)], axis=1)
    topology = md.Topology()
    residue = topology.add_residue("BUT", topology.add_chain())
    atoms = [topology.add_atom(f"C{i}", md.element.carbon, residue) for i in range(4)]
    for pair in itertools.pairwise(atoms):
        topology.add_bond(*pair)
    return places, topology


@pytest.fixture(scope="module")
def phi():
    return drawn(N + 1, 3, lambda x: energy(x) + bias(x))


def series(folder, *parts, times=None, name="xtc"):
    """Of trajectories of these torsions."""
    paths = []
    for i, phi in enumerate(parts):
        places, topology = chain(phi)
        trajectory = md.Trajectory(places, topology, time=None if times is None else times)
        trajectory.save(str(folder / f"{i}.{name}"))
        trajectory[0].save(str(folder / "top.pdb"))
        paths.append(folder / f"{i}.{name}")
    return read_series(paths, folder / "top.pdb", [CV])


def tables(folder, *parts, with_cv=True, every=0.2):
    paths = []
    for i, phi in enumerate(parts):
        columns = ({"p": phi} if with_cv else {}) | {"metad.bias": bias(phi)}
        (folder / f"C{i}").write_text(colvar_text(columns, name="p", every=every))
        paths.append(folder / f"C{i}")
    return read_colvar(paths)


@pytest.mark.parametrize("with_cv", [True, False], ids=["a column", "the bias alone"])
@pytest.mark.parametrize("shift", [0, 1, -1])
def test_a_row_beside_the_right_one(phi, tmp_path, shift, with_cv):
    """As many rows as frames of a format without times, the first of before the first frame, or the last missing."""
    frames, rows = (phi[max(shift, 0) :][:N], phi[max(-shift, 0) :][:N]) if shift else (phi[:N], phi[:N])
    found = rows_of_frames(tables(tmp_path, rows, with_cv=with_cv), series(tmp_path, frames, name="dcd"))
    expected = np.arange(N) + shift
    assert found.rows.tolist() == np.where((expected >= 0) & (expected < N), expected, -1).tolist()
    assert bool(found.notes) == bool(shift) == bool(found.doubts)


def test_without_that_evidence_the_row_beside_is_taken(phi, tmp_path, monkeypatch):
    """Planted: the search left out."""
    monkeypatch.setattr("openmm_gancl.trajectories.frame_rows.MIN_SEARCHED", np.inf)
    monkeypatch.setattr("openmm_gancl.trajectories.frame_rows._Evidence.check_order", lambda *_: None)
    monkeypatch.setattr("openmm_gancl.trajectories.frame_rows.MAX_ROUGHNESS", 0.0)
    found = rows_of_frames(tables(tmp_path, phi[:N]), series(tmp_path, phi[1:], name="dcd"))
    assert found.rows.tolist() == list(range(N))


def test_a_trajectory_whose_clock_was_set_back(phi, tmp_path):
    """``trjconv -b 20 -t0 0``: every frame has a row of its time, of another one."""
    cut = series(tmp_path, phi[100:N], times=0.2 * np.arange(N - 100))
    found = rows_of_frames(tables(tmp_path, phi[:N]), cut)
    assert found.rows.tolist() == list(range(100, N)) and "from row 100 on" in found.notes[0]


def test_a_driver_of_a_longer_trajectory_at_two_picoseconds(phi, tmp_path):
    """Its times, which count frames, are those of every other frame."""
    half = N // 2
    found = rows_of_frames(
        tables(tmp_path, phi[:N], with_cv=False, every=1.0), series(tmp_path, phi[:half], times=2.0 * np.arange(half))
    )
    assert found.rows.tolist() == list(range(half)) and "only so" in found.notes[0]


def test_a_bias_of_a_variable_beside_tells_nothing(phi, tmp_path):
    other = drawn(N, 8, energy)
    (tmp_path / "C").write_text(colvar_text({"q": other, "metad.bias": bias(other)}, name="q"))
    found = rows_of_frames(read_colvar([tmp_path / "C"]), series(tmp_path, phi[:N], name="dcd"))
    assert found.rows.tolist() == list(range(N)) and not found.notes and not found.doubts


@pytest.mark.parametrize("edge", [0.0, 3.0])
def test_parts_in_another_order_are_refused(phi, tmp_path, edge):
    """Wherever the edge of the period lies, at which rounding may move a value to the other side."""
    phi = (phi + edge + np.pi) % (2 * np.pi) - np.pi
    phi[5] = np.pi if edge else phi[5]
    first, second = phi[: N // 2], phi[N // 2 : N]
    turned = series(tmp_path, second, first, name="dcd")
    with pytest.raises(InputError, match=r"p of .* holds the values of torsion:0,1,2,3 in the order of other frames"):
        rows_of_frames(tables(tmp_path, phi[:N]), turned)
    with pytest.raises(InputError, match=r"C1 agrees with the frames that .*C0 is given for"):
        rows_of_frames(tables(tmp_path, first, second), turned)
    assert rows_of_frames(tables(tmp_path, second, first), turned).rows.tolist() == list(range(N))
