"""`learn_move` with its defaults on force fields as users bring them, and the effective samples of what it learned.

    python -m tests.benchmarks.force_fields [--names prmtop psf ...] [--charmm FOLDER] [--openff FOLDER] [--table]

Each is a process of its own and one file under tests/benchmarks/results/force_fields; what has one is not repeated.
It needs ParmEd and the extra ``openmmtools``, whose prmtop files are used. FOLDER of ``--charmm``: examples/charmm of
ParmEd's source distribution (`pip download --no-deps --no-binary :all: parmed`), a psf and CHARMM36's parameters; of
``--openff``: topology.pdb, system.xml and label.txt, four atom numbers, of any program that writes a System.

``ess``: Kish's, of all weights to the unrestrained equilibrium. ``accepted``: of 500 attempts with 20 steps between.
``cpu_seconds``: of learning, imports left out.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import openmm
from openmm import app, unit

import openmm_gancl as gancl
from openmm_gancl.files import write_atomically

RESULTS = Path(__file__).parent / "results" / "force_fields"
C7EQ = Path(__file__).parents[2] / "examples" / "alanine_dipeptide_c7eq.pdb"
PHI_PSI = ["phi:2", "psi:2"]


def openmmtools_data():
    """The folder of openmmtools' files."""
    import openmmtools

    return Path(openmmtools.__file__).parent / "data"


def simulate(topology, system, positions, step=0.002):
    """From a minimised structure."""
    integrator = openmm.LangevinMiddleIntegrator(300, 1, step)
    integrator.setRandomNumberSeed(1)
    simulation = app.Simulation(topology, system, integrator, openmm.Platform.getPlatformByName("Reference"))
    simulation.context.setPositions(positions)
    simulation.minimizeEnergy()
    simulation.context.setVelocitiesToTemperature(300, 1)
    return simulation


def of_xml(*files):
    """The dipeptide with OpenMM's own files."""
    start = app.PDBFile(str(C7EQ))
    system = app.ForceField(*files).createSystem(start.topology, hydrogenMass=3)
    return simulate(start.topology, system, start.positions), PHI_PSI


def of_charmm36():
    """The dipeptide as CHARMM's one residue ALAD: by its atoms alone it may be AANM too."""
    start, topology = app.PDBFile(str(C7EQ)), app.Topology()
    residue = topology.addResidue("ALAD", topology.addChain())
    atoms = [topology.addAtom(f"{atom.name}{atom.index}", atom.element, residue) for atom in start.topology.atoms()]
    for one, other in start.topology.bonds():
        topology.addBond(atoms[one.index], atoms[other.index])
    force_field = app.ForceField("charmm36.xml")
    system = force_field.createSystem(topology, hydrogenMass=3, residueTemplates={residue: "ALAD"})
    return simulate(topology, system, start.positions), [(4, 6, 8, 14), (6, 8, 14, 16)]


def of_prmtop(**options):
    """The dipeptide of openmmtools (ff96)."""
    folder = openmmtools_data() / "alanine-dipeptide-gbsa"
    prmtop = app.AmberPrmtopFile(str(folder / "alanine-dipeptide.prmtop"))
    system = prmtop.createSystem(hydrogenMass=3 * unit.amu, **options)
    positions = app.AmberInpcrdFile(str(folder / "alanine-dipeptide.crd")).positions
    return simulate(prmtop.topology, system, positions, 0.004 if "constraints" in options else 0.002), PHI_PSI


def of_gromacs():
    """The same as ParmEd writes it for GROMACS, read by OpenMM."""
    import parmed

    folder = openmmtools_data() / "alanine-dipeptide-gbsa"
    files = (str(folder / f"alanine-dipeptide.{suffix}") for suffix in ("prmtop", "crd"))
    with tempfile.TemporaryDirectory() as scratch:
        for name in ("x.top", "x.gro"):
            parmed.load_file(*(files := [*files])).save(f"{scratch}/{name}")
        gro, top = app.GromacsGroFile(f"{scratch}/x.gro"), app.GromacsTopFile(f"{scratch}/x.top")
    return simulate(top.topology, top.createSystem(hydrogenMass=3 * unit.amu), gro.positions), PHI_PSI


def of_psf(folder):
    """Alanyl-alanine, charged at both ends, of CHARMM-GUI's psf without its water, in OBC2."""
    import parmed

    whole = parmed.load_file(str(folder / "ala2_charmmgui.psf"))
    whole.coordinates = parmed.load_file(str(folder / "ala2_charmmgui.crd")).coordinates.reshape(-1, 3)
    peptide = whole[":ALA"]
    with tempfile.TemporaryDirectory() as scratch:
        parmed.charmm.CharmmPsfFile.from_structure(peptide).write_psf(f"{scratch}/x.psf")
        psf = app.CharmmPsfFile(f"{scratch}/x.psf")
    parameters = app.CharmmParameterSet(str(folder / "toppar" / "par_all36_prot.prm"))
    system = psf.createSystem(parameters, implicitSolvent=app.OBC2, hydrogenMass=3 * unit.amu)
    return simulate(psf.topology, system, peptide.coordinates * unit.angstrom), ["psi:1", "phi:2"]


def of_gaff():
    """p-Xylene of openmmtools, by one of its methyl groups."""
    folder = openmmtools_data() / "T4-lysozyme-L99A-implicit"
    prmtop = app.AmberPrmtopFile(str(folder / "ligand.prmtop"))
    system, positions = prmtop.createSystem(), app.AmberInpcrdFile(str(folder / "ligand.crd")).positions
    bonded = {atom: [] for atom in prmtop.topology.atoms()}
    for one, other in prmtop.topology.bonds():
        bonded[one].append(other)
        bonded[other].append(one)
    methyl = next(atom for atom, others in bonded.items() if [a.element.symbol for a in others].count("H") == 3)
    hydrogen = next(atom for atom in bonded[methyl] if atom.element.symbol == "H")
    ring = next(atom for atom in bonded[methyl] if atom.element.symbol == "C")
    beyond = next(atom for atom in bonded[ring] if atom is not methyl)
    label = [atom.index for atom in (hydrogen, methyl, ring, beyond)]
    return simulate(prmtop.topology, system, positions, 0.001), [label]


def of_system_xml(folder):
    """A System and topology that another program has left."""
    pdb = app.PDBFile(str(folder / "topology.pdb"))
    system = openmm.XmlSerializer.deserialize((folder / "system.xml").read_text())
    return simulate(pdb.topology, system, pdb.positions, 0.001), [
        [int(atom) for atom in (folder / "label.txt").read_text().split()]
    ]


def cases(charmm, openff):
    """Name to what makes Simulation and labels."""
    found = {
        "prmtop": of_prmtop,
        "prmtop, HBonds, 4 fs": lambda: of_prmtop(constraints=app.HBonds),
        "prmtop, OBC2": lambda: of_prmtop(implicitSolvent=app.OBC2),
        "GROMACS top": of_gromacs,
        "ff19SB": lambda: of_xml("amber19/protein.ff19SB.xml"),
        "charmm36.xml": of_charmm36,
        "charmm36_2024.xml": lambda: of_xml("charmm36_2024.xml"),
        "GAFF prmtop": of_gaff,
    }
    if charmm:
        found["CHARMM36 psf"] = lambda: of_psf(charmm)
    if openff:
        found["OpenFF system_xml"] = lambda: of_system_xml(openff)
    return found


def cpu_seconds():
    """User and system time of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def measure(name, make):
    """One force field, JSON-ready."""
    simulation, labels = make()
    before = cpu_seconds()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        move = gancl.learn_move(simulation, labels, seed=1, progress=lambda _: None)
    seconds = cpu_seconds() - before
    move.run(500, 20)
    return {
        "name": name,
        "n_atoms": simulation.system.getNumParticles(),
        "labels": len(labels),
        "evaluations": move.summary.force_evaluations,
        "ess": round(move.summary.effective_sample_size),
        "accepted": round(move.acceptance_rate, 3),
        "cpu_seconds": round(seconds),
        "doubts": list(move.doubts),
    }


def main():
    """Measure what has no file yet, and print all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", nargs="+")
    parser.add_argument("--charmm", type=Path)
    parser.add_argument("--openff", type=Path)
    parser.add_argument("--table", action="store_true", help="only print what is there")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    every = cases(given.charmm, given.openff)
    if given.one:
        RESULTS.mkdir(parents=True, exist_ok=True)
        record = json.dumps(measure(given.one, every[given.one]), indent=1)
        write_atomically(RESULTS / f"{given.one.replace(', ', '_').replace(' ', '_')}.json", record + "\n")
        return
    for name in () if given.table else given.names or every:
        if not (RESULTS / f"{name.replace(', ', '_').replace(' ', '_')}.json").is_file():
            command = [sys.executable, "-m", "tests.benchmarks.force_fields", *sys.argv[1:], "--one", name]
            subprocess.run(command, check=False)
    for path in sorted(RESULTS.glob("*.json")):
        row = json.loads(path.read_text())
        doubts = row.pop("doubts")
        print(*row.values(), *doubts, sep=" | ")


if __name__ == "__main__":
    np.set_printoptions(precision=3)
    main()
