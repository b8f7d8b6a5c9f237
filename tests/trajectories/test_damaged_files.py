"""Files that are damaged in any way: values or one sentence, never a crash, an endless loop or all of the memory."""

import io
import os
import signal
import struct
import time

import mdtraj
import numpy as np
import pytest

from openmm_gancl import InputError
from openmm_gancl.files import load_arrays
from openmm_gancl.free_energy.surface import FreeEnergySurface, load_surface
from openmm_gancl.trajectories import child
from openmm_gancl.trajectories.series import read_frame_values, read_series
from openmm_gancl.trajectories.static_bias import metadynamics_bias, opes_bias
from openmm_gancl.trajectories.topologies import load_topology

from ..peptides import Residue, chain_positions, gro_text, pdb_text, prmtop_text, psf_text, trajectory

N_MUTANTS = 16
RESIDUES = [Residue(1), Residue(2), Residue(2, code="A")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("whole"), np.random.default_rng(0)
    x = chain_positions(*rng.uniform(-np.pi, np.pi, (2, 4, 3)))
    frames = trajectory(x, box=3.0)
    for kind in ("xtc", "trr", "dcd", "nc"):
        frames.save(str(folder / f"t.{kind}"))
    (folder / "t.pdb").write_text(pdb_text(RESIDUES, x[0]))
    (folder / "t.gro").write_text(gro_text(RESIDUES, x[0]))
    (folder / "t.psf").write_text(psf_text(RESIDUES))
    (folder / "t.prmtop").write_text(prmtop_text(RESIDUES, numbered=True))
    return folder


def mutants(content, rng):
    """Bytes changed, cut out, repeated, and words of headers set to extremes."""
    for i in range(N_MUTANTS):
        changed = bytearray(content)
        place = int(rng.integers(len(changed) if i % 3 else min(len(changed), 120)))
        if i % 5 == 0:
            del changed[place : place + int(rng.integers(1, 200))]
        elif i % 5 == 1:
            changed[place : place + 4] = struct.pack(">i", int(rng.choice([-1, 0, 2**31 - 1, -(2**31), 7])))
        elif i % 5 == 2:
            changed[place:place] = changed[place : place + 40]
        else:
            for spot in rng.integers(len(changed), size=4):
                changed[spot] = int(rng.integers(256))
        yield bytes(changed)


def outcome(action):
    """Seconds that it took; an `InputError` of one sentence is as good as values."""
    begun = time.monotonic()
    try:
        action()
    except InputError as error:
        assert str(error) and "\n" not in str(error)
    return time.monotonic() - begun


@pytest.mark.parametrize("kind", ["xtc", "trr", "dcd", "nc", "pdb", "gro"])
def test_mutants_of_trajectories_are_read_or_refused(folder, tmp_path, kind):
    rng, path = np.random.default_rng(1), tmp_path / f"m.{kind}"
    for content in mutants((folder / f"t.{kind}").read_bytes(), rng):
        path.write_bytes(content)
        assert outcome(lambda: read_series(path, folder / "t.pdb", ["phi:2", "distance:0,12"])) < 15.0


@pytest.mark.parametrize("kind", ["pdb", "gro", "psf", "prmtop"])
def test_mutants_of_topologies_are_read_or_refused(folder, tmp_path, kind):
    rng, path = np.random.default_rng(2), tmp_path / f"m.{kind}"
    for content in mutants((folder / f"t.{kind}").read_bytes(), rng):
        path.write_bytes(content)
        assert outcome(lambda: read_series(folder / "t.dcd", path, ["phi:2"])) < 15.0


def test_whole_files_are_read(folder):
    """The twin: none of this holds because everything is refused."""
    for kind in ("xtc", "trr", "dcd", "nc", "pdb", "gro"):
        assert len(read_series(folder / f"t.{kind}", folder / "t.pdb", "phi:2").values) in (1, 4)


def set_words(path, target, changes, order=">i"):
    content = bytearray(path.read_bytes())
    for place, value in changes.items():
        content[place : place + 4] = struct.pack(order, value)
    target.write_bytes(content)
    return target


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("t.trr", {24 + 4 * 7: -76 - 8}, "sizes that do not fit"),  # leads back to the frame's own beginning
        ("t.trr", {0: 1994}, "is no TRR file, or broken at frame 0"),
        ("t.trr", {52: 0}, "frame 0 .no positions"),
        ("t.trr", {64: 0}, "not have the 15 atoms"),
        ("t.trr", {64: 2**31 - 1}, "not have the 15 atoms"),
        ("t.xtc", {4: 2**31 - 1}, "not have the 15 atoms"),
        ("t.xtc", {84: 2**31 - 1}, "bounds that do not fit"),
        ("t.xtc", {88: 2**31 - 1}, "sizes that do not fit"),
        ("t.xtc", {60: 2**31 - 1}, "bounds that do not fit"),
    ],
)
def test_sizes_are_checked_before_anything_is_read(folder, tmp_path, name, changes, message):
    path = set_words(folder / name, tmp_path / name, changes)
    with pytest.raises(InputError, match=message):
        read_series(path, folder / "t.pdb", "phi:2")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({4: 0}, "is no DCD file: check its name"),
        ({40: 15}, "15 fixed atoms of 15"),
        ({92: -200}, "a title of -200"),
        ({268: -2}, "not have the 15 atoms"),
    ],
)
def test_headers_of_dcd_files_are_checked(folder, tmp_path, changes, message):
    path = set_words(folder / "t.dcd", tmp_path / "t.dcd", changes, "<i")
    with pytest.raises(InputError, match=message):
        read_series(path, folder / "t.pdb", "phi:2")


@pytest.mark.parametrize(
    ("kind", "kept", "message"),
    [
        ("dcd", 60, "is no DCD file"),
        ("dcd", 94, "is cut off within its header"),
        ("dcd", -8, "is cut off within frame 3"),
        ("trr", 50, "is cut off within frame 0"),
        ("trr", -8, "is cut off within frame 3"),
        ("xtc", 50, "is cut off within frame 0"),
        ("xtc", -8, "is cut off within frame 3"),
    ],
)
def test_files_that_are_cut_off_are_refused_and_not_read_in_part(folder, tmp_path, kind, kept, message):
    path = tmp_path / f"t.{kind}"
    path.write_bytes((folder / f"t.{kind}").read_bytes()[:kept])
    with pytest.raises(InputError, match=message):
        read_series(path, folder / "t.pdb", "phi:2")


def test_small_molecules_whose_xtc_is_not_compressed(tmp_path):
    topology = mdtraj.Topology()
    residue = topology.add_residue("GAS", topology.add_chain())
    for i in range(3):
        topology.add_atom(f"AR{i}", mdtraj.element.argon, residue)
    x = np.random.default_rng(1).normal(size=(5, 3, 3)).astype(np.float32)
    frames = mdtraj.Trajectory(x, topology)
    frames.save(str(tmp_path / "w.xtc"))
    frames[0].save(str(tmp_path / "w.pdb"))
    found = read_series(tmp_path / "w.xtc", tmp_path / "w.pdb", "distance:0,2").values[:, 0]
    assert found == pytest.approx(np.linalg.norm(x[:, 0] - x[:, 2], axis=1), abs=2e-3)
    path = set_words(tmp_path / "w.xtc", tmp_path / "broken.xtc", {52: 4})
    with pytest.raises(InputError, match="sizes that do not fit each other"):
        read_series(path, tmp_path / "w.pdb", "distance:0,2")


@pytest.mark.parametrize("kind", ["xtc", "trr", "dcd", "nc"])
def test_without_children_the_same_is_read(folder, tmp_path, monkeypatch, kind):
    """Where processes cannot fork."""
    expected = read_series(folder / f"t.{kind}", folder / "t.pdb", "phi:2").values
    monkeypatch.delattr(os, "fork")
    assert np.array_equal(read_series(folder / f"t.{kind}", folder / "t.pdb", "phi:2").values, expected)
    path = tmp_path / f"t.{kind}"
    path.write_bytes((folder / f"t.{kind}").read_bytes()[:50])
    with pytest.raises(InputError, match=rf"t\.{kind}"):
        read_series(path, folder / "t.pdb", "phi:2")


def from_a_child(folder, chunks):
    topology = load_topology(folder / "t.pdb")
    return list(child.from_child(folder / "t.xtc", topology, lambda: chunks(topology)))


def frame_of(topology):
    return mdtraj.Trajectory(np.zeros((1, topology.n_atoms, 3), dtype=np.float32), topology)


def test_a_reader_that_crashes_is_named(folder):
    def chunks(topology):
        yield frame_of(topology)
        os.kill(os.getpid(), signal.SIGSEGV)

    with pytest.raises(InputError, match="crashes its reader, after 1 frames: it is damaged"):
        from_a_child(folder, chunks)


def test_a_reader_that_crashes_is_named_where_children_are_not_waited_for(folder):
    def chunks(topology):
        yield frame_of(topology)
        os.kill(os.getpid(), signal.SIGSEGV)

    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with pytest.raises(InputError, match="crashes its reader"):
            from_a_child(folder, chunks)
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_a_reader_in_circles_is_ended(folder, monkeypatch):
    monkeypatch.setattr(child, "MAX_READING_SECONDS", 1)

    def chunks(topology):
        while True:
            pass
        yield frame_of(topology)

    with pytest.raises(InputError, match="keeps its reader busy without end, at its beginning"):
        from_a_child(folder, chunks)


def test_a_reader_that_wants_all_memory_gets_none(folder):
    def chunks(topology):
        yield frame_of(topology)
        np.ones(2**33, dtype=np.uint8)

    with pytest.raises(InputError, match="cannot read"):
        from_a_child(folder, chunks)


def test_no_child_is_left_behind(folder, monkeypatch):
    begun, forked, fork = time.monotonic(), [], os.fork

    def counted():
        forked.append(fork())
        return forked[-1]

    monkeypatch.setattr(child.os, "fork", counted)

    def chunks(topology):
        while True:
            yield frame_of(topology)

    topology = load_topology(folder / "t.pdb")
    frames = child.from_child(folder / "t.xtc", topology, lambda: chunks(topology))
    next(frames)
    frames.close()
    with pytest.raises(ProcessLookupError):
        os.kill(forked[0], 0)
    assert time.monotonic() - begun < 10.0


def npy_bytes(header):
    """An npy file whose header says what it likes."""
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,)}",
        "{'descr': '|O', 'fortran_order': False, 'shape': (3,)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (3,",
        "__import__('os').system('true')",
    ],
)
def test_arrays_that_are_none_are_refused(tmp_path, header):
    (tmp_path / "x.npy").write_bytes(npy_bytes(header))
    for read in (load_arrays, lambda path: read_frame_values(path, None)):
        with pytest.raises(InputError, match=r"x\.npy"):
            read(tmp_path / "x.npy")


def test_mutants_of_arrays_are_read_or_refused(tmp_path):
    rng = np.random.default_rng(3)
    surface = FreeEnergySurface(
        rng.random(8), np.full(8, 0.1), (np.linspace(0, 1, 9),), ("x",), np.array([np.inf]), 300.0, 0, ("nm",)
    )
    surface.save(tmp_path / "fes.npz")
    assert load_surface(tmp_path / "fes.npz").energy.tolist() == surface.energy.tolist()
    kernels = {"positions": rng.random((5, 1)), "bandwidths": np.full((5, 1), 0.1), "logWeights": np.zeros(5)}
    stream = io.BytesIO()
    np.savez_compressed(stream, exploreMode=False, **{f"totalRW_{key}": value for key, value in kernels.items()})
    (tmp_path / "state.npz").write_bytes(stream.getvalue())

    def opes():
        bias = opes_bias(tmp_path / "state.npz", temperature=300.0, barrier=30.0, periods=[np.inf])
        assert np.isfinite(bias.energies(np.zeros((2, 1)))).all()

    opes()
    for name, read in (("fes.npz", lambda: load_surface(tmp_path / "fes.npz").median_error), ("state.npz", opes)):
        for content in mutants((tmp_path / name).read_bytes(), rng):
            (tmp_path / name).write_bytes(content)
            outcome(read)


@pytest.mark.parametrize(
    "changes",
    [
        {"logWeights": np.zeros(4)},
        {"bandwidths": np.zeros((5, 1))},
        {"positions": np.full((5, 1), np.nan)},
        {"positions": np.zeros(5)},
        {"positions": np.full((5, 1), "x")},
        {"exploreMode": "False"},
        {"exploreMode": np.zeros(3)},
    ],
)
def test_states_of_opes_that_do_not_fit_are_refused(tmp_path, changes):
    kernels = {"positions": np.zeros((5, 1)), "bandwidths": np.full((5, 1), 0.1), "logWeights": np.zeros(5)}
    fields = {f"totalRW_{key}": value for key, value in kernels.items()}
    fields |= {key if key == "exploreMode" else f"totalRW_{key}": value for key, value in changes.items()}
    np.savez(tmp_path / "state.npz", **fields)
    with pytest.raises(InputError, match=r"state\.npz"):
        opes_bias(tmp_path / "state.npz", temperature=300.0, barrier=30.0, periods=[np.inf])
    np.save(tmp_path / "bias_0_1.npy", np.ones(1))
    with pytest.raises(InputError):
        metadynamics_bias(tmp_path / "bias_0_1.npy", periods=[2 * np.pi])


def kernels_on(d):
    return {"totalRW_positions": np.zeros((5, d)), "totalRW_bandwidths": np.full((5, d), 0.1)}


@pytest.mark.parametrize(
    ("files", "options", "message"),
    [
        ({}, {"barrier": 30.0}, "holds no kde_.*give the folder that the sampler wrote its bias to"),
        ({"kde_1_1.npz": kernels_on(1)}, {}, "needs the barrier that OPES was given"),
        ({"kde_1_1.npz": {"totalRW_positions": np.zeros((5, 1))}}, {"barrier": 30.0}, "no state of openmm-opes"),
        (
            {"kde_1_1.npz": kernels_on(1), "kde_2_1.npz": kernels_on(2)},
            {"barrier": 30.0},
            "kernels on unlike variables",
        ),
        ({"kde_1_1.npz": kernels_on(2)}, {"barrier": 30.0}, "holds no kernels on 1 variables"),
    ],
)
def test_folders_of_opes_that_do_not_fit_are_refused(tmp_path, files, options, message):
    for name, fields in files.items():
        np.savez(tmp_path / name, **fields, totalRW_logWeights=np.zeros(5))
    with pytest.raises(InputError, match=message):
        opes_bias(tmp_path, temperature=300.0, periods=[np.inf], **options)


@pytest.mark.parametrize(
    ("tables", "options", "message"),
    [
        ({}, {}, "holds no bias_.*give the folder that the sampler wrote its bias to"),
        ({"bias_1_1.npy": np.arange(5)}, {}, "holds no bias of OpenMM's Metadynamics"),
        ({"bias_1_1.npy": np.zeros(5), "bias_2_1.npy": np.zeros(6)}, {}, "no bias of the same variables"),
        ({"bias_1_1.npy": np.full(5, np.nan)}, {}, "no bias of the same variables"),
        ({"bias_1_1.npy": np.zeros((5, 5))}, {}, "acts on 2 collective variables, named are 1"),
        ({"bias_1_1.npy": np.zeros(5)}, {"limits": [(0.0, 3.0)]}, "the range 0:3 is not the period 6.28319"),
    ],
)
def test_folders_of_metadynamics_that_do_not_fit_are_refused(tmp_path, tables, options, message):
    for name, table in tables.items():
        np.save(tmp_path / name, table)
    with pytest.raises(InputError, match=message):
        metadynamics_bias(tmp_path, periods=[2 * np.pi], **options)
