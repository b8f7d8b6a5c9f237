"""One run in whatever files people have it: the surface is the same, and the one that is known."""

from dataclasses import replace

import mdtraj as md
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import lfilter

from openmm_gancl import InputError
from openmm_gancl.free_energy.from_trajectories import analyse
from openmm_gancl.trajectories.observations import read
from openmm_gancl.trajectories.repeats import check_distinct, without_repeats
from openmm_gancl.trajectories.series import Series, read_series

from ..peptides import Residue, chain_positions, gro_text, pdb_text, prmtop_text, psf_text, trajectory
from .known_surface import KT, TEMPERATURE, biased, colvar_text, deviation, write_windows

N, EVERY = 1200, 10.0
TRAJECTORIES = ("xtc", "trr", "nc", "dcd")
TOPOLOGIES = {"pdb": "phi:2", "gro": "phi:2", "psf": "phi:2", "prmtop": "phi:2", "code.pdb": "phi:52A"}
PARTS, OVERLAP = ("p1", "p2"), 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A biased run of three residues, whole and in two parts that overlap, and the COLVAR files of it."""
    folder, rng = tmp_path_factory.mktemp("formats"), np.random.default_rng(5)
    phi, v = biased(N)
    torsions = rng.uniform(-np.pi, np.pi, (2, N, 3))
    torsions[0, :, 1] = phi
    x = chain_positions(*torsions)
    whole = trajectory(x)
    whole.time = EVERY * np.arange(N)
    half = N // 2
    for kind in TRAJECTORIES:
        whole.save(str(folder / f"t.{kind}"))
        whole[:half].save(str(folder / f"p1.{kind}"))
        whole[half - OVERLAP :].save(str(folder / f"p2.{kind}"))
    plain = [Residue(i) for i in (1, 2, 3)]
    texts = {"pdb": pdb_text(plain, x[0]), "gro": gro_text(plain, x[0]), "psf": psf_text(plain)}
    texts |= {
        "prmtop": prmtop_text(plain),
        "code.pdb": pdb_text([Residue(52), Residue(52, code="A"), Residue(53)], x[0]),
    }
    for kind, text in texts.items():
        (folder / f"top.{kind}").write_text(text)
    columns = {"phi": phi, "metad.bias": v}
    (folder / "COLVAR").write_text(colvar_text(columns, every=EVERY))
    (folder / "driver").write_text(colvar_text(columns, every=1.0))
    for name, rows, start in (("C1", slice(half), 0), ("C2", slice(half - OVERLAP, N), half - OVERLAP)):
        part = {key: values[rows] for key, values in columns.items()}
        (folder / name).write_text(colvar_text(part, every=EVERY, start=EVERY * start))
    return folder


def surface(folder, top, files, tables):
    observed = read(
        [folder / file for file in files],
        folder / f"top.{top}",
        TOPOLOGIES[top],
        TEMPERATURE,
        colvar=[folder / table for table in tables],
        bias_columns=["metad.bias"],
    )
    return analyse(observed, bins=24, discard=0, n_bootstrap=20)


@pytest.fixture(scope="module")
def reference(folder):
    analysis = surface(folder, "pdb", ["t.xtc"], ["COLVAR"])
    assert deviation(analysis.surface)[0] < 0.2 and not analysis.doubts
    return analysis.surface.energy


@settings(max_examples=14, deadline=None)
@given(
    st.sampled_from(list(TOPOLOGIES)),
    st.sampled_from(TRAJECTORIES),
    st.sampled_from([(("t",), ("COLVAR",)), (("t",), ("driver",)), (PARTS, ("C1", "C2")), (PARTS, ("COLVAR",))]),
)
def test_formats_and_parts_never_change_the_surface(folder, reference, top, kind, files):
    names, tables = files
    if kind == "dcd" and names == PARTS and tables == ("COLVAR",):
        return  # without times nothing tells which frames the parts have in common
    analysis = surface(folder, top, [f"{name}.{kind}" for name in names], tables)
    assert analysis.blocks.n_frames == N and not analysis.doubts
    known = np.isfinite(reference)
    # XTC rounds to a picometre, and blocks of two parts are other ones: another bandwidth
    assert np.abs(analysis.surface.energy - reference)[known].max() < (0.3 if names == PARTS else 0.1) * KT


def test_frames_of_both_parts_count_once_and_chance_is_no_repetition(folder):
    files = [folder / "p1.xtc", folder / "p2.xtc"]
    found = read(files, folder / "top.pdb", "phi:2", TEMPERATURE)
    assert len(found.series.values) == N
    assert any(f"{OVERLAP} frames at the end of a trajectory" in note for note in found.notes)
    both = read_series(files, folder / "top.pdb", "phi:2")
    assert (~without_repeats(both)).sum() == OVERLAP and len(both.values) == N + OVERLAP
    still = replace(both, values=np.ones_like(both.values))  # a coordinate that does not move
    other = replace(both, values=both.values + np.arange(len(both.values))[:, None].astype(np.float32))
    assert without_repeats(still).all() and without_repeats(other).all()


@pytest.mark.parametrize("thinned", ["all", "every fifth", "the last of five", "the first half", "all but the first"])
def test_a_run_in_two_precisions_is_refused(folder, tmp_path, thinned):
    """XTC rounds to a picometre; a program may write both, one of them less often."""
    whole = md.load(folder / "t.dcd", top=folder / "top.pdb")
    taken = {
        "every fifth": slice(0, None, 5),
        "the last of five": slice(4, None, 5),
        "the first half": slice(N // 2),
        "all but the first": slice(1, None),
    }
    whole[taken.get(thinned, slice(None))].save(str(tmp_path / "again.xtc"))
    with pytest.raises(InputError, match="hold the same run, one of them rounded or thinned out: give each run once"):
        read([folder / "t.dcd", tmp_path / "again.xtc"], folder / "top.pdb", "phi:2", TEMPERATURE)


def test_ends_a_rounding_error_below_zero():
    values = np.random.default_rng(0).uniform(-1.0, 1.0, (60, 1)).astype(np.float32)
    values[[0, 30]] = -1e-17
    check_distinct(Series(("x",), np.array([2 * np.pi]), ("radians",), values, np.array([0, 30, 60])), ["a", "b"])


def test_independent_runs_are_not_taken_for_one():
    """The twin: 200 sets of six, half of which begin with the same frame, and pulls of the same speed."""
    for seed in range(200):
        rng = np.random.default_rng(seed)
        n, slope = int(rng.integers(20, 2000)), rng.choice([0.0, 0.5, 0.9, 0.99, 0.999])
        runs = lfilter([1.0], [1.0, -slope], rng.normal(size=(6, n)), axis=1) * np.sqrt(1 - slope**2)
        if seed % 2:
            runs -= runs[:, :1]
        if seed % 10 == 0:
            runs = np.linspace(0.0, 5.0, n) + 0.05 * runs
        starts = n * np.arange(7)
        series = Series(("x",), np.array([np.inf]), ("nm",), runs.reshape(-1, 1).astype(np.float32), starts)
        check_distinct(series, ["a", "b", "c", "d", "e", "f"])


def test_the_row_of_another_frame_would_change_it(folder, reference):
    """The twin: rows of any frames; those beside the right ones are recognised by their bias, and are a doubt."""
    text = (folder / "COLVAR").read_text().splitlines()
    rows = [line.split() for line in text[3:]]
    any_order = np.random.default_rng(0).permutation(len(rows))
    for name, others in (("moved", [*rows[1:], rows[0]]), ("mixed", [rows[i] for i in any_order])):
        lines = [" ".join([row[0], other[2]]) for row, other in zip(rows, others, strict=True)]
        (folder / name).write_text("\n".join(["#! FIELDS time metad.bias", *lines, ""]))
        analysis = surface(folder, "pdb", ["t.xtc"], [name])
        known = np.isfinite(reference) & np.isfinite(analysis.surface.energy)
        difference = np.abs(analysis.surface.energy - reference)[known].max()
        assert (difference > 1.0 * KT) == (name == "mixed") == (not analysis.doubts)


def distance_energy(r):
    """Two minima and walls beyond them, kJ/mol; r in nm."""
    u = (r - 0.775) / 0.3
    return 7 * u**4 - 10 * u**2


@pytest.fixture(scope="module")
def distances(tmp_path_factory):
    """Windows of a distance, and a run without a restraint in one of its minima."""
    folder, rows = tmp_path_factory.mktemp("distances"), []
    for i, centre in enumerate(np.linspace(0.35, 1.2, 12)):
        x = drawn_distances(300, i, lambda r, c=centre: 0.5 * 1000.0 * (r - c) ** 2)
        bias = 0.5 * 1000.0 * (x - centre) ** 2
        (folder / f"w{i}.dat").write_text(colvar_text({"d": x, "restraint.bias": bias}, period=None))
        rows.append((f"w{i}.dat", centre, 1000.0))
    free = drawn_distances(300, 99, lambda r: 0 * r)
    (folder / "free.dat").write_text(colvar_text({"d": free, "restraint.bias": 0 * free}, period=None))
    write_windows(folder / "w.csv", rows)
    write_windows(folder / "free.csv", [*rows, ("free.dat", 0.5, 0.0)])
    return folder


def drawn_distances(n, seed, bias):
    grid = np.linspace(0.05, 1.6, 6001)
    density = np.exp(-(distance_energy(grid) + bias(grid)) / KT)
    cumulative = np.cumsum(density)
    return np.interp(np.random.default_rng(seed).uniform(0, cumulative[-1], n), cumulative, grid)


@pytest.mark.parametrize("table", ["w.csv", "free.csv"])
@pytest.mark.parametrize("ranges", [(), ((0.3, 1.25),)])
def test_windows_of_a_distance_have_their_minima_and_no_others(distances, table, ranges):
    observed = read([], None, "column:d", TEMPERATURE, windows=distances / table)
    analysis = analyse(observed, bins=48, discard=0, n_bootstrap=20, ranges=ranges)
    surface, (edges,) = analysis.surface, analysis.surface.edges
    exact = distance_energy(0.5 * (edges[1:] + edges[:-1]))
    low = (exact - exact.min() < 6 * KT) & np.isfinite(surface.energy)
    difference = (surface.energy - exact)[low]
    assert (difference - difference.mean()).std() < 0.25 * KT
    assert sorted(analysis.minima[:, 0]) == pytest.approx([0.52, 1.03], abs=0.06)
    assert not analysis.doubts
    known = surface.energy[np.isfinite(surface.energy)]
    assert known[0] > known[2] and known[-1] > known[-3]  # the ends rise as the truth does
