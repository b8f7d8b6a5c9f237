"""ACE-VAL-NME in vacuum, labelled by phi and psi; chi1 turns, and is no label."""

from pathlib import Path

import numpy as np
from openmm import app

from openmm_gancl import Torsions
from openmm_gancl.system.molecular_system import system_from_objects

PDB = Path(__file__).parents[1] / "data" / "valine_dipeptide.pdb"


def valine():
    pdb = app.PDBFile(str(PDB))
    force_field = app.ForceField("amber14/protein.ff14SB.xml")
    made = force_field.createSystem(pdb.topology, nonbondedMethod=app.NoCutoff, constraints=None)
    slow = Torsions(("phi", "psi"), np.array([[4, 6, 8, 20], [6, 8, 20, 22]]))
    return system_from_objects(pdb.topology, made, pdb.positions, temperature=300.0, slow=slow, time_step=0.001)
