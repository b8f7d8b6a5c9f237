"""Residues by the numbers that files write, whatever the format; torsions over bonds that are none."""

import itertools
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import mdtraj
import numpy as np
import pytest
from openmm.app import PDBFile

from openmm_gancl import InputError
from openmm_gancl.coordinates.features import parse_features
from openmm_gancl.coordinates.residues import backbone_atoms, from_openmm
from openmm_gancl.coordinates.specification import parse_cv
from openmm_gancl.system.build import labels_of_card
from openmm_gancl.system.card import TorsionLabelCard
from openmm_gancl.trajectories import bonds, read
from openmm_gancl.trajectories.series import read_series
from openmm_gancl.trajectories.topologies import load_topology

from ..peptides import (
    Residue,
    chain_positions,
    gro_text,
    pdb_text,
    prmtop_text,
    psf_text,
    trajectory,
)

TOP = Path(__file__).parents[1] / "data" / "alanine_dipeptide.pdb"
N = 40
FAR = (0.0, 1.2, 0.0)


def difference(a, b):
    return np.abs((np.asarray(a) - b + np.pi) % (2 * np.pi) - np.pi).max()


@pytest.fixture(scope="module")
def chains():
    """Two chains of three residues, 1.2 nm apart: torsions of shape=(2, N, 3), and positions."""
    phi, psi = np.random.default_rng(0).uniform(-np.pi, np.pi, (2, 2, N, 3))
    positions = [chain_positions(phi[i], psi[i], shift) for i, shift in enumerate(((0.0, 0.0, 0.0), FAR))]
    return phi, psi, np.concatenate(positions, axis=1)


@pytest.fixture(scope="module")
def folder(chains, tmp_path_factory):
    """The first chain alone (one.*) and both (two.*), and a numbering of each kind."""
    folder, (_, _, x) = tmp_path_factory.mktemp("residues"), chains
    one, two = x[:, :15], x
    trajectory(one).save_dcd(str(folder / "one.dcd"))
    trajectory(two).save_dcd(str(folder / "two.dcd"))
    trajectory(two, box=8.0).save_dcd(str(folder / "boxed.dcd"))
    plain = [Residue(i) for i in (1, 2, 3)]
    apart = [Residue(i, chain) for chain in "AB" for i in (1, 2, 3)]
    together = [Residue(i) for i in (1, 2, 3, 1, 2, 3)]
    texts = {
        "one.pdb": pdb_text(plain, one[0]),
        "one.gro": gro_text(plain, one[0]),
        "one.psf": psf_text(plain),
        "one.prmtop": prmtop_text(plain),
        "written.prmtop": prmtop_text([Residue(i) for i in (51, 52, 53)], numbered=True),
        "far.pdb": pdb_text([Residue(i) for i in (-1, 0, 1)], one[0]),
        "code.pdb": pdb_text([Residue(1), Residue(52), Residue(52, code="A")], one[0]),
        "codes.pdb": pdb_text([Residue(52), Residue(52, code="A"), Residue(52, code="B")], one[0]),
        "odd.pdb": pdb_text([Residue(1), Residue(2, name="SEP"), Residue(3)], one[0]),
        "wrapped.gro": gro_text([Residue(i) for i in (99998, 99999, 100000)], one[0]),
        "two.pdb": pdb_text(apart, two[0], breaks=(2, 5)),
        "two.psf": psf_text(apart, breaks=(2,)),
        "two.prmtop": prmtop_text(apart, breaks=(2,)),
        "two.gro": gro_text(together, two[0]),
        "noTER.pdb": pdb_text(together, two[0]),
        "gap.pdb": pdb_text([Residue(i) for i in (1, 2, 3, 14, 15, 16)], two[0]),
        "follows.pdb": pdb_text([Residue(i) for i in (1, 2, 3, 4, 5, 6)], two[0]),
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("top", "cv", "residue"),
    [
        *((f"one.{kind}", "phi:2", 1) for kind in ("pdb", "gro", "psf", "prmtop")),
        ("one.prmtop", "phi:3", 2),
        ("written.prmtop", "phi:52", 1),
        ("far.pdb", "phi:0", 1),
        ("far.pdb", "phi:1", 2),
        ("code.pdb", "phi:52", 1),
        ("code.pdb", "phi:52A", 2),
        ("code.pdb", "phi:A/52A", 2),
        ("codes.pdb", "phi:52B", 2),
        ("odd.pdb", "phi:2", 1),
        ("wrapped.gro", "phi:99999", 1),
        ("wrapped.gro", "phi:0", 2),
    ],
)
def test_a_residue_is_the_one_of_that_number_in_the_file(chains, folder, top, cv, residue):
    phi, _, _ = chains
    series = read_series(folder / "one.dcd", folder / top, cv)
    assert difference(series.values[:, 0], phi[0][:, residue]) < 1e-5
    # the twin: any other residue is another torsion
    assert difference(series.values[:, 0], phi[0][:, 3 - residue]) > 1.0


@pytest.mark.parametrize(
    ("top", "cv", "chain", "residue"),
    [
        ("two.pdb", "phi:A/2", 0, 1),
        ("two.pdb", "phi:B/2", 1, 1),
        ("two.psf", "phi:PROB/3", 1, 2),
        ("two.prmtop", "phi:5", 1, 1),
        ("gap.pdb", "phi:15", 1, 1),
    ],
)
def test_chains_are_told_apart(chains, folder, top, cv, chain, residue):
    phi, _, _ = chains
    assert difference(read_series(folder / "two.dcd", folder / top, cv).values[:, 0], phi[chain][:, residue]) < 1e-5


@pytest.mark.parametrize(
    ("top", "cv", "messages"),
    [
        ("two.pdb", "phi:2", ["matches 2 torsions", "phi:A/2 (A/ALA2)", "phi:B/2 (B/ALA2)"]),
        ("two.gro", "phi:2", ["matches 2 torsions", "torsion:2,5,6,7 (ALA2)", "torsion:17,20,21,22 (ALA2)"]),
        ("two.pdb", "phi:1", ["matches nothing", "A/2, A/3, B/2, B/3"]),
        ("two.psf", "phi:1", ["matches nothing", "PROA/2"]),
        ("two.prmtop", "phi:4", ["matches nothing", "2, 3, 5, 6"]),
        ("two.pdb", "phi:C/2", ["matches nothing"]),
        ("two.gro", "phi:A/2", ["matches nothing", "ALA2 (torsion:2,5,6,7)", "ALA3 (torsion:22,25,26,27)"]),
        ("one.prmtop", "phi:A/2", ["matches nothing"]),
        ("code.pdb", "phi:52B", ["matches nothing", "52, 52A"]),
        ("codes.pdb", "phi:52", ["matches nothing", "52A, 52B"]),
        ("one.pdb", "phi:2-3", ["is no residue number", "phi:52A"]),
    ],
)
def test_other_residues_are_refused_with_those_that_there_are(folder, top, cv, messages):
    with pytest.raises(InputError) as error:
        parse_cv(cv, load_topology(folder / top))
    for message in messages:
        assert message in str(error.value)


def test_an_object_without_written_numbers_is_no_guess(chains, folder):
    topology = mdtraj.load_prmtop(str(folder / "one.prmtop"))  # mdtraj counts from 0
    with pytest.raises(InputError, match="numbered from 0"):
        read_series(folder / "one.dcd", topology, "phi:2")
    phi, _, _ = chains
    assert difference(read_series(folder / "one.dcd", topology, "torsion:2,5,6,7").values[:, 0], phi[0][:, 1]) < 1e-5


@pytest.mark.parametrize("frames", ["two.dcd", "boxed.dcd"])
@pytest.mark.parametrize(
    ("top", "cv"),
    [
        ("two.gro", "phi:1"),
        ("noTER.pdb", "phi:1"),
        ("noTER.pdb", "torsion:12,15,16,17"),
        ("gap.pdb", "phi:14"),
        ("gap.pdb", "psi:3"),
        ("gap.pdb", "omega:3"),
        ("follows.pdb", "phi:4"),
    ],
)
def test_no_torsion_leads_over_a_gap_or_to_another_chain(folder, frames, top, cv, monkeypatch):
    with pytest.raises(InputError) as error:
        read_series(folder / frames, folder / top, cv)
    message = str(error.value)
    assert f"{frames}, frame 0: the bond between atoms 12 and 15 (C of " in message and "a gap or the end" in message
    # the twin: without the check there is a number
    monkeypatch.setattr(bonds, "MAX_BOND_LENGTH", 3.9)
    assert np.isfinite(read_series(folder / frames, folder / top, cv).values).all()


def test_a_distance_between_chains_needs_no_bonds(chains, folder):
    _, _, x = chains
    for top in ("two.gro", "noTER.pdb", "gap.pdb"):
        for frames in ("two.dcd", "boxed.dcd"):
            values = read_series(folder / frames, folder / top, "distance:1,16").values[:, 0]
            assert np.allclose(values, np.linalg.norm(x[:, 1] - x[:, 16], axis=1), atol=1e-4)


@pytest.mark.parametrize("angles", [(90, 90, 90), (70.53, 109.47, 70.53), (60, 60, 90), (50, 60, 45)])
def test_the_minimum_image_mends_what_any_box_cuts(chains, folder, tmp_path, angles):
    phi, _, x = chains
    shifted = x[:, :15] + np.random.default_rng(1).uniform(-2, 2, (N, 1, 3))
    frames = trajectory(shifted, box=3.5, angles=angles)
    vectors = frames.unitcell_vectors.astype(float)
    places = np.einsum("nai,nij->naj", shifted, np.linalg.inv(vectors))
    frames.xyz = np.einsum("nai,nij->naj", places - np.floor(places), vectors).astype(np.float32)
    frames.save_dcd(str(tmp_path / "wrapped.dcd"))
    series = read_series(tmp_path / "wrapped.dcd", folder / "one.pdb", ["phi:2", "distance:0,13"])
    assert difference(series.values[:, 0], phi[0][:, 1]) < 1e-4
    assert np.allclose(series.values[:, 1], np.linalg.norm(shifted[:, 0] - shifted[:, 13], axis=1), atol=1e-4)


@pytest.mark.parametrize("size", [0.1, 0.5, np.nan])
def test_a_box_that_is_none_is_refused(chains, folder, tmp_path, size):
    _, _, x = chains
    frames = trajectory(x[:3, :15])
    with mdtraj.formats.XTCTrajectoryFile(str(tmp_path / "box.xtc"), "w") as file:
        file.write(frames.xyz, box=np.tile(size * np.eye(3, dtype=np.float32), (3, 1, 1)))
    for cv in ("phi:2", "distance:0,14"):
        with pytest.raises(InputError, match=r"box.xtc, frame 0: a box of .* nm cannot hold these 15 atoms"):
            read_series(tmp_path / "box.xtc", folder / "one.pdb", cv)


@pytest.mark.parametrize(
    ("length", "angles", "is_one"),
    [(40, (-3264, 90, 90), 0), (40, (70, 90, 200), 0), (1e21, (90, 90, 90), 0), (40, (70, 90, 110), 1)],
)
def test_what_makes_no_box_is_refused(chains, folder, tmp_path, length, angles, is_one):
    _, _, x = chains
    with mdtraj.formats.NetCDFTrajectoryFile(str(tmp_path / "box.nc"), "w") as file:
        file.write(
            10 * x[:3, :15], np.arange(3), np.full((3, 3), float(length)), np.tile(np.array(angles, float), (3, 1))
        )
    with nullcontext() if is_one else pytest.raises(InputError, match=r"box\.nc, frame 0: no box has lengths of"):
        read_series(tmp_path / "box.nc", folder / "one.pdb", "phi:2")


def test_a_box_of_zeros_and_a_dummy_of_a_pdb_file_are_no_boxes(chains, folder, tmp_path):
    phi, _, x = chains
    frames = trajectory(x[:3, :15])
    with mdtraj.formats.XTCTrajectoryFile(str(tmp_path / "zero.xtc"), "w") as file:
        file.write(frames.xyz, box=np.zeros((3, 3, 3), dtype=np.float32))
    (tmp_path / "dummy.pdb").write_text(pdb_text([Residue(i) for i in (1, 2, 3)], x[0, :15], box=1.0))
    for name, n in (("zero.xtc", 3), ("dummy.pdb", 1)):
        values = read_series(tmp_path / name, folder / "one.pdb", "phi:2").values[:, 0]
        assert difference(values, phi[0][:n, 1]) < 0.05


def test_a_box_of_other_frames_is_refused(chains, folder, tmp_path):
    """Frames wrapped into a box of 2 nm that say 1.8, and a distance that reaches over half of the box."""
    phi, _, x = chains
    shifted = x[:, :15] + np.random.default_rng(2).uniform(0, 2, (N, 1, 3))
    for size, message in ((1.95, "where the box does not cut their bond"), (2.5, "by the minimum image")):
        trajectory(shifted % 2.0, box=size).save_dcd(str(tmp_path / "other.dcd"))
        with pytest.raises(InputError, match=message):
            read_series(tmp_path / "other.dcd", folder / "one.pdb", "phi:2")
    trajectory(shifted % 2.0, box=2.0).save_dcd(str(tmp_path / "own.dcd"))
    assert difference(read_series(tmp_path / "own.dcd", folder / "one.pdb", "phi:2").values[:, 0], phi[0][:, 1]) < 1e-4
    stretched = chain_positions(np.full((3, 3), np.pi), np.full((3, 3), np.pi))
    trajectory(stretched, box=1.3).save_dcd(str(tmp_path / "small.dcd"))
    with pytest.raises(InputError, match="reaches over half of the box"):
        read_series(tmp_path / "small.dcd", folder / "one.pdb", "distance:0,13")


def test_positions_in_another_unit_are_refused(chains, folder, tmp_path):
    _, _, x = chains
    trajectory(0.1 * x[:, :15]).save_dcd(str(tmp_path / "small.dcd"))
    with pytest.raises(InputError, match="not in the unit of their format"):
        read_series(tmp_path / "small.dcd", folder / "one.pdb", "phi:2")


def test_molecules_that_jump_into_other_images_are_refused(chains, folder, tmp_path):
    """A radius of gyration of two chains, of which one goes across the box."""
    _, _, x = chains
    moved = x.copy()
    moved[20:, 15:, 0] += 8.0
    for positions, jumps in ((x, False), (moved, True)):
        trajectory(positions, box=8.0).save_dcd(str(tmp_path / "two.dcd"))
        if jumps:
            with pytest.raises(InputError, match=r"two.dcd, frame 20: the molecules of .* one image"):
                read_series(tmp_path / "two.dcd", folder / "two.pdb", "rg")
        else:
            assert np.ptp(read_series(tmp_path / "two.dcd", folder / "two.pdb", "rg").values) < 1.0


def test_beads_of_coarse_models_may_be_further_apart(tmp_path):
    """CA atoms only, 0.38 nm apart, with bonds between them."""
    topology = mdtraj.Topology()
    chain, atoms = topology.add_chain(), []
    for i in range(6):
        atoms.append(topology.add_atom("CA", mdtraj.element.carbon, topology.add_residue("ALA", chain, resSeq=i + 1)))
    for a, b in itertools.pairwise(atoms):
        topology.add_bond(a, b)
    x = np.zeros((2, 6, 3), dtype=np.float32)
    x[:, :, 0] = 0.38 * np.arange(6)
    x[1, :, 1] = 0.05 * (np.arange(6) % 2)
    frames = mdtraj.Trajectory(x, topology)
    assert read_series(frames, topology, "distance:0,5").values[0, 0] == pytest.approx(1.9, abs=1e-5)


def test_features_take_chains_too(folder):
    features = parse_features(["torsions:phi:A/2/psi:B/2/2,5,6,7/phi:B/3"], load_topology(folder / "two.pdb"))
    assert features.parts[0].quadruples.tolist() == [[2, 5, 6, 7], [20, 21, 22, 25], [2, 5, 6, 7], [22, 25, 26, 27]]


def test_systems_keep_insertion_codes(folder):
    """As cards name their torsions, by an OpenMM topology."""
    topology = PDBFile(str(folder / "code.pdb")).topology
    for residue, atoms in (("52", [2, 5, 6, 7]), ("52A", [7, 10, 11, 12]), ("A/52A", [7, 10, 11, 12])):
        assert backbone_atoms("phi", residue, f"phi:{residue}", from_openmm(topology)) == atoms
        card = SimpleNamespace(labels=[TorsionLabelCard(kind="torsion", name="phi", torsion=f"phi:{residue}")])
        assert labels_of_card(card, topology).atoms.tolist() == [atoms]


def test_names_of_what_was_resolved(folder):
    series = read_series(folder / "two.dcd", folder / "two.pdb", ["phi:B/2", "distance:1,16", "rg"])
    assert series.labels == ("phi of B/ALA2", "distance of CA of A/ALA1 and CA of B/ALA1", "radius of gyration")
    assert series.resolved == ("C of B/ALA1, N CA C of B/ALA2", "CA of A/ALA1, CA of B/ALA1", "30 atoms")
    assert read_series(folder / "one.dcd", folder / "code.pdb", "phi:52A").labels == ("phi of ALA52A",)


def test_suffixes_in_upper_case_are_the_same(chains, folder, tmp_path):
    phi, _, _ = chains
    (tmp_path / "ONE.PDB").write_bytes((folder / "one.pdb").read_bytes())
    (tmp_path / "ONE.DCD").write_bytes((folder / "one.dcd").read_bytes())
    values = read_series(tmp_path / "ONE.DCD", tmp_path / "ONE.PDB", "phi:2").values[:, 0]
    assert difference(values, phi[0][:, 1]) < 1e-5


def test_atoms_that_are_counted_from_one_are_a_doubt(folder):
    """As PLUMED counts them: the atoms meant are those one before each; of others nothing is said."""
    frames = {"paths": [folder / "one.dcd"], "top": folder / "one.pdb"}
    for cv, odd in (("torsion:3,6,7,8", True), ("torsion:2,5,6,7", False), ("torsion:1,6,11,12", False)):
        doubts = read_series(frames["paths"], frames["top"], [cv]).doubts
        assert len(doubts) == odd
        if odd:
            assert "give torsion:2,5,6,7 if they were counted from 1" in doubts[0]
            assert read(**frames, cvs=cv, temperature=300.0).doubts == doubts
    assert read_series(frames["paths"], frames["top"], ["angle:3,6,7"]).doubts


@pytest.mark.parametrize(
    "swapped", [(), (10, 14), (6, 7), (11, 12)], ids=["none", "CB and C", "N and H", "HB1 and HB2"]
)
def test_atoms_in_another_order_than_in_the_topology_are_a_doubt(tmp_path, swapped):
    """Bonds along phi may look right then; one beside it does not. Hydrogens of a methyl group change nothing."""
    lines = [line for line in TOP.read_text().splitlines() if line.startswith("ATOM")]
    names = [line[12:30] for line in lines]
    for i, j in itertools.permutations(swapped, 2):
        names[i] = lines[j][12:30]
    rows = [f"{line[:12]}{name}{line[30:]}" for line, name in zip(lines, names, strict=True)]
    (tmp_path / "top.pdb").write_text("\n".join([*rows, "END"]) + "\n")
    mdtraj.load(str(TOP)).save_xtc(str(tmp_path / "t.xtc"))
    doubts = read_series(tmp_path / "t.xtc", tmp_path / "top.pdb", "phi:2").doubts
    assert ["are in another order" in doubt for doubt in doubts] == [True] * (swapped in ((10, 14), (6, 7)))
