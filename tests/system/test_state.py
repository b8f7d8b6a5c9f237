"""Peptide bonds and L residues without the names of a peptide, and amides that are none."""

import numpy as np
import pytest
from openmm import app

from openmm_gancl.errors import InputError
from openmm_gancl.system.library import load_system
from openmm_gancl.system.state import _neighbours, _peptide_bonds, declare_state


@pytest.fixture(scope="module")
def ala2():
    return load_system("alanine_dipeptide_vacuum")


def renamed(topology, names):
    """The same atoms and bonds in one residue with other names."""
    found = app.Topology()
    residue = found.addResidue("ALAD", found.addChain())
    atoms = [found.addAtom(names(atom), atom.element, residue) for atom in topology.atoms()]
    for one, other in topology.bonds():
        found.addBond(atoms[one.index], atoms[other.index])
    return found


@pytest.mark.parametrize(
    "names",
    [
        lambda atom: f"{atom.element.symbol}{atom.index}",
        lambda atom: f"X{30 - atom.index}",
        # C and N, in one residue
        lambda atom: atom.name if atom.name in ("C", "N") else f"{atom.name}{atom.index}",
    ],
    ids=["numbered", "no element in the name", "names of one residue"],
)
def test_a_peptide_in_one_residue_has_the_same_state(ala2, names):
    topology = renamed(ala2.topology, names)
    found = declare_state(topology, ala2.positions, chirality="L", trans_peptides=True)
    for name in ("chiral_centres", "chirality", "trans_peptides", "bonds", "longest_bonds"):
        np.testing.assert_array_equal(getattr(found, name), getattr(ala2.state, name), err_msg=name)


def test_d_residues_and_cis_bonds_without_names_are_refused(ala2):
    topology = renamed(ala2.topology, lambda atom: f"{atom.element.symbol}{atom.index}")
    mirrored = ala2.positions * [1, 1, -1]
    with pytest.raises(InputError, match="residue ALAD 1 of the structure has the D form"):
        declare_state(topology, mirrored, chirality="L")
    assert declare_state(topology, mirrored, chirality="structure").chirality == -ala2.state.chirality
    with pytest.raises(InputError, match="has the D form"):
        declare_state(ala2.topology, mirrored, chirality="L")
    cis = ala2.positions.copy()
    # half a turn of everything before the first peptide bond about it
    axis = cis[6] - cis[4]
    axis /= np.linalg.norm(axis)
    before = [0, 1, 2, 3, 5]
    about = cis[before] - cis[4]
    cis[before] = cis[4] + 2 * (about @ axis)[:, None] * axis - about
    with pytest.raises(InputError, match="the peptide bond before residue ALAD 1 is cis"):
        declare_state(topology, cis, trans_peptides=True)
    kept = declare_state(topology, cis, trans_peptides="auto").trans_peptides
    np.testing.assert_array_equal(kept, ala2.state.trans_peptides[1:])
    # a label that turns about one takes any value
    free = declare_state(topology, ala2.positions, labels=ala2.state.trans_peptides[:1]).trans_peptides
    np.testing.assert_array_equal(free, ala2.state.trans_peptides[1:])
    always = declare_state(topology, ala2.positions, trans_peptides=True, labels=ala2.state.trans_peptides[:1])
    np.testing.assert_array_equal(always.trans_peptides, ala2.state.trans_peptides)


AMIDES = {
    "N-methylacetamide": ("C3 C0 O0 N1 C3", "01 12 13 34", 1),
    "acetamide": ("C3 C0 O0 N2", "01 12 13", 0),
    "N-methylformamide": ("C1 O0 N1 C3", "01 02 23", 0),
    "N,N-dimethylacetamide": ("C3 C0 O0 N0 C3 C3", "01 12 13 34 35", 0),
    "dimethylurea": ("C3 N1 C0 O0 N1 C3", "01 12 23 24 45", 0),
    "methyl carbamate": ("C3 O0 C0 O0 N1 C3", "01 12 23 24 45", 0),
    "diacetamide": ("C3 C0 O0 N1 C0 O0 C3", "01 12 13 34 45 46", 0),
    "N-methylacrylamide": ("C2 C1 C0 O0 N1 C3", "01 12 23 24 45", 0),
    "N-vinylacetamide": ("C3 C0 O0 N1 C1 C2", "01 12 13 34 45", 0),
    "methyl acetate": ("C3 C0 O0 O0 C3", "01 12 13 34", 0),
    "thioamide": ("C3 C0 S0 N1 C3", "01 12 13 34", 0),
    "acetohydrazide": ("C3 C0 O0 N1 N2", "01 12 13 34", 0),
    "amidine": ("C3 C0 N1 N1 C3", "01 12 13 34", 0),
    "N-methylsulfonamide": ("C3 S0 O0 O0 N1 C3", "01 12 13 14 45", 0),
    "2-pyrrolidone": ("C2 C2 C2 C0 O0 N1", "01 12 23 34 35 50", 0),
    "diketopiperazine": ("C2 C0 O0 N1 C2 C0 O0 N1", "01 12 13 34 45 56 57 70", 0),
    "uracil": ("N1 C0 O0 N1 C0 O0 C1 C1", "01 12 13 34 45 46 67 70", 0),
}


def molecule(atoms, bonds):
    """Heavy atoms with so many hydrogens each, and bonds between them."""
    topology = app.Topology()
    residue = topology.addResidue("LIG", topology.addChain())
    heavy = []
    for i, (symbol, n_hydrogens) in enumerate(atoms.split()):
        heavy.append(topology.addAtom(f"{symbol}x{i}", app.Element.getBySymbol(symbol), residue))
        for j in range(int(n_hydrogens)):
            hydrogen = topology.addAtom(f"Hx{i}{j}", app.element.hydrogen, residue)
            topology.addBond(heavy[-1], hydrogen)
    for one, other in bonds.split():
        topology.addBond(heavy[int(one)], heavy[int(other)])
    return topology


@pytest.mark.parametrize(("atoms", "bonds", "expected"), AMIDES.values(), ids=AMIDES)
def test_what_is_a_peptide_bond_without_names(atoms, bonds, expected):
    topology = molecule(atoms, bonds)
    assert len(list(_peptide_bonds(topology, _neighbours(topology)))) == expected


def test_an_amide_of_a_side_chain_is_none(ala2):
    """Of a residue with the backbone's names only the backbone's own atoms are of a peptide bond."""
    topology = molecule(*AMIDES["N-methylacetamide"][:2])
    residue = next(topology.residues())
    for name in ("N", "CA", "C"):
        topology.addAtom(name, app.Element.getBySymbol(name[0]), residue)
    assert not list(_peptide_bonds(topology, _neighbours(topology)))
    named = list(_peptide_bonds(ala2.topology, _neighbours(ala2.topology)))
    assert [atoms for atoms, _ in named] == ala2.state.trans_peptides.tolist()
