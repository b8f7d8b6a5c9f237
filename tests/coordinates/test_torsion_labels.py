"""Torsions as a script names them."""

from pathlib import Path

import numpy as np
import pytest
from openmm import app

from openmm_gancl.coordinates.torsion_labels import torsions_from_labels
from openmm_gancl.errors import InputError

PDB = Path(__file__).parents[1] / "data" / "alanine_dipeptide.pdb"
PHI, PSI = [4, 6, 8, 14], [6, 8, 14, 16]


@pytest.fixture(scope="module")
def topology():
    return app.PDBFile(str(PDB)).topology


@pytest.mark.parametrize(
    ("labels", "names", "atoms"),
    [
        (["phi:2", "psi:2"], ("phi:2", "psi:2"), [PHI, PSI]),
        ("phi:2", ("phi:2",), [PHI]),
        ([PHI, tuple(PSI)], ("torsion:4,6,8,14", "torsion:6,8,14,16"), [PHI, PSI]),
        (np.array([PHI, PSI]), ("torsion:4,6,8,14", "torsion:6,8,14,16"), [PHI, PSI]),
        (PHI, ("torsion:4,6,8,14",), [PHI]),
        ([("ACE1-C", "ALA2-N", "CA", "ALA2-C")], ("ACE1-C-ALA2-N-CA-ALA2-C",), [PHI]),
        (["ACE1-C", "ALA2-N", "CA", "ALA2-C"], ("ACE1-C-ALA2-N-CA-ALA2-C",), [PHI]),
        (["phi:2", PSI], ("phi:2", "torsion:6,8,14,16"), [PHI, PSI]),
    ],
)
def test_torsions_by_residue_numbers_or_names(topology, labels, names, atoms):
    found = torsions_from_labels(labels, topology)
    assert found.names == names and found.atoms.tolist() == atoms


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (["phi:9"], "phi:9 matches nothing"),
        (["distance:1,2"], "is no torsion"),
        ([("N", "CA", "C", "N")], "2 atoms are named N: name one of ALA2-N, NME3-N"),
        ([("CQ", "CA", "CB", "HA")], "no atom is named CQ"),
        ([(1, 2, 3)], "names 3 atoms: a torsion has four"),
        ([(1, 2, 3, 99)], "atom 99 is out of range"),
        ([(1, 2, 3, 1.5)], "four atom numbers"),
        ([(1, 2, 3, -1)], "needs 4 atom numbers"),
        ([], "there are no labels"),
        (["phi"], None),
    ],
)
def test_others_are_refused_in_a_sentence(topology, labels, words):
    if words is None:  # the only one
        assert torsions_from_labels(labels, topology).atoms.tolist() == [PHI]
        return
    with pytest.raises(InputError, match=words):
        torsions_from_labels(labels, topology)
