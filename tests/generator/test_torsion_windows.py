"""Torsions that are restrained at learned labels."""

import numpy as np

from openmm_gancl import load_system
from openmm_gancl.generator.torsion_windows import _name


def test_torsions_of_several_residues_have_names_of_their_own():
    system = load_system("ala_ala_vacuum")
    atoms = {(atom.residue.index, atom.name): atom.index for atom in system.topology.atoms()}
    rows = [[atoms[i, name] for name in ("N", "CA", "CB", "HB1")] for i in (1, 2)]
    assert [_name(system, row) for row in rows] == ["ALA2:N-CA-CB-HB1", "ALA3:N-CA-CB-HB1"]
    known = system.slow.atoms[0]
    assert _name(system, np.flip(known).tolist()) == system.slow.names[0]
