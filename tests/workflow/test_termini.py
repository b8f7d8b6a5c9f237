"""Molecules at the edge of what a run takes: peptides with free ends, and two molecules."""

import numpy as np
import pytest
from openmm import app, unit

from openmm_gancl.errors import InputError
from openmm_gancl.system.library import systems_root
from openmm_gancl.workflow import run as pipeline
from openmm_gancl.workflow.options import RunOptions
from tests.workflow.test_run import Notes

QUICK = RunOptions(preset="quick", platform="Reference", lifts=1500)
CARD = """name = "ends"
structure = "ends.pdb"
temperature = 300.0
friction = 1.0
time_step = 0.002
force_constants = [200.0, 200.0]
[force_field]
files = {files}
hydrogen_mass = 3.0
[[labels]]
kind = "torsion"
name = "psi"
torsion = "psi:2"
[[labels]]
kind = "torsion"
name = "phi"
torsion = "phi:3"
[state]
chirality = "L"
"""
FORCE_FIELD = "amber14/protein.ff14SB.xml"


def free_ends():
    """ALA-ALA without caps, charged ends: the first cap is cut off, the second one's N becomes an oxygen."""
    pdb = app.PDBFile(str(systems_root() / "ala_ala_vacuum" / "structure.pdb"))
    heavy = app.Modeller(pdb.topology, pdb.positions)
    _, *middle, end = heavy.topology.residues()
    cut = next(atom for atom in end.atoms() if atom.name == "N")
    topology, positions = app.Topology(), []
    chain = topology.addChain()
    for residue in middle:
        made = topology.addResidue("ALA", chain, id=residue.id)
        for atom in residue.atoms():
            if atom.element is not app.element.hydrogen:
                topology.addAtom(atom.name, atom.element, made)
                positions.append(pdb.positions[atom.index])
    topology.addAtom("OXT", app.element.oxygen, made)
    positions.append(pdb.positions[cut.index])
    topology.createStandardBonds()
    modeller = app.Modeller(
        topology, unit.Quantity([one.value_in_unit(unit.nanometer) for one in positions], unit.nanometer)
    )
    modeller.addHydrogens(app.ForceField(FORCE_FIELD))
    return modeller.topology, modeller.positions


def write(folder, topology, positions, files):
    with open(folder / "ends.pdb", "w") as file:
        app.PDBFile.writeFile(topology, positions, file, keepIds=True)
    (folder / "card.toml").write_text(CARD.format(files=str(files).replace("'", '"')))
    return str(folder / "card.toml")


@pytest.mark.slow
def test_a_peptide_with_free_ends(tmp_path):
    """In implicit solvent: NH3 and COO are rotors with symmetric wells, and no torsion is wide."""
    card = write(tmp_path, *free_ends(), [FORCE_FIELD, "implicit/obc2.xml"])
    outcome = pipeline.run(tmp_path / "run", card, QUICK, reporter=Notes(), workers=1)
    summary = outcome.summary
    assert summary.trusted and not summary.missing and not summary.modes
    assert summary.n_lifts == 1500 and summary.effective_sample_size > 20
    with np.load(outcome.folder / "lifts.npz") as lifts:
        assert (lifts["reason"] == "ok").mean() > 0.5


def test_two_molecules_are_refused_in_a_sentence(tmp_path):
    modeller = app.Modeller(*free_ends())
    modeller.add(*free_ends())
    card = write(tmp_path, modeller.topology, modeller.positions, [FORCE_FIELD])
    with pytest.raises(InputError) as refused:
        pipeline.run(tmp_path / "run", card, QUICK, reporter=Notes(), workers=1)
    print(refused.value)
    assert "molecules" in str(refused.value) and not (tmp_path / "run" / "manifest.json").exists()
