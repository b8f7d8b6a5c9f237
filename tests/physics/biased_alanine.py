"""Alanine dipeptide under a static bias that flattens most of (phi, psi): a trajectory and its COLVAR file.

python -m tests.physics.biased_alanine FOLDER [RUNS] [STEPS]
"""

import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np

REFERENCE = Path(__file__).parent.parent / "data" / "alanine_dipeptide_vacuum.npz"
CEILING, EVERY = 45.0, 100
"""kJ/mol up to which the bias fills the surface; steps from frame to frame."""


def flattening_bias():
    """Minus the reference surface up to a ceiling, on nodes that repeat the first one at the end."""
    with np.load(REFERENCE) as reference:
        kT = 8.31446261815324e-3 * float(reference["temperature_K"])
        surface, edges = kT * reference["free_energy_kT"], reference["edges"]
    table = -np.minimum(surface, CEILING)
    return np.pad(table, (0, 1), mode="wrap"), 0.5 * (edges[0] + edges[1])


def simulate(folder, run, n_steps):
    import mdtraj
    import openmm
    from openmm import app, unit

    from openmm_gancl import load_system

    molecule = load_system("alanine_dipeptide_vacuum")
    system = openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(molecule.system))
    table, first = flattening_bias()
    bias = openmm.CustomCompoundBondForce(5, "bias(dihedral(p1,p2,p3,p4),dihedral(p2,p3,p4,p5))")
    limits = (first, first + 2 * np.pi)
    bias.addTabulatedFunction(
        "bias", openmm.Continuous2DFunction(*table.shape, table.T.ravel(), *limits, *limits, True)
    )
    bias.addBond([4, 6, 8, 14, 16])
    bias.setForceGroup(31)
    system.addForce(bias)
    integrator = openmm.LangevinMiddleIntegrator(300.0, 2.0, 0.0015)
    integrator.setRandomNumberSeed(100 + run)
    simulation = app.Simulation(molecule.topology, system, integrator, openmm.Platform.getPlatformByName("Reference"))
    simulation.context.setPositions(molecule.positions)
    simulation.minimizeEnergy()
    simulation.context.setVelocitiesToTemperature(300.0, 200 + run)
    simulation.step(5000)
    positions, rows = [], []
    for frame in range(n_steps // EVERY):
        simulation.step(EVERY)
        state = simulation.context.getState(getPositions=True)
        energy = simulation.context.getState(getEnergy=True, groups={31}).getPotentialEnergy()
        positions.append(state.getPositions(asNumpy=True).value_in_unit(unit.nanometer).astype(np.float32))
        rows.append((0.0015 * EVERY * frame, energy.value_in_unit(unit.kilojoule_per_mole)))
    trajectory = mdtraj.Trajectory(np.array(positions), mdtraj.Topology.from_openmm(molecule.topology))
    trajectory.save_dcd(str(folder / f"run{run}.dcd"))
    lines = ["#! FIELDS time ext.bias", *(f" {time:.6f} {energy:.6f}" for time, energy in rows)]
    (folder / f"COLVAR{run}").write_text("\n".join(lines) + "\n")
    if run == 0:
        trajectory[0].save_pdb(str(folder / "top.pdb"))


def main(folder, runs=4, n_steps=1_000_000, workers=2):
    """Write run*.dcd, COLVAR* and top.pdb."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for done in [pool.submit(simulate, folder, run, n_steps) for run in range(runs)]:
            done.result()


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
