"""A molecule beside another that moves: alanine dipeptide and a chloride ion in vacuum, with lifts and without.

    python -m tests.benchmarks.one_molecule [--attempts 10000] [--steps 5000000] [--seed 1]

`learn_move` of the dipeptide beside the ion, which is held then and moves afterwards; 20 steps of 2 fs between
attempts, as many dynamics alone as ``--steps``. Printed are averages over configurations with phi < 0, which dynamics
reach too: cos psi, sin psi, and the distances of the ion from both amide hydrogens, nm, with errors of 20 blocks; and
the populations of phi > 0 and crossings, which need lifts.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import openmm
from openmm import app

import openmm_gancl as gancl

START = Path(__file__).parents[2] / "examples" / "alanine_dipeptide_c7eq.pdb"
LABELS = gancl.Torsions(("phi", "psi"), np.array([[4, 6, 8, 14], [6, 8, 14, 16]]))
HYDROGENS, ION, N_BLOCKS = (7, 17), 22, 20


def simulate(seed):
    """The dipeptide from C7eq, the ion at its amide hydrogens."""
    start = app.PDBFile(str(START))
    modeller = app.Modeller(start.topology, start.positions)
    ion = app.Topology()
    ion.addAtom("CL", app.Element.getBySymbol("Cl"), ion.addResidue("CL", ion.addChain()))
    positions = np.array(start.getPositions(asNumpy=True)._value)
    outward = positions[7] - positions[6]
    modeller.add(ion, [openmm.Vec3(*(positions[7] + 0.22 * outward / np.linalg.norm(outward)))] * openmm.unit.nanometer)
    force_field = app.ForceField("amber14/protein.ff14SB.xml", "amber14/tip3p.xml")
    system = force_field.createSystem(modeller.topology, hydrogenMass=3)
    integrator = openmm.LangevinMiddleIntegrator(300, 1, 0.002)
    integrator.setRandomNumberSeed(seed)
    platform = openmm.Platform.getPlatformByName("Reference")
    simulation = app.Simulation(modeller.topology, system, integrator, platform)
    simulation.context.setPositions(modeller.positions)
    simulation.minimizeEnergy(maxIterations=200)
    simulation.context.setVelocitiesToTemperature(300, seed)
    simulation.step(20_000)
    return simulation


def observed(simulation):
    """phi, then what is averaged."""
    positions = simulation.context.getState(positions=True).getPositions(asNumpy=True)._value
    phi, psi = LABELS.transform(positions[None])[0]
    distances = np.linalg.norm(positions[list(HYDROGENS)] - positions[ION], axis=1)
    return [phi, np.cos(psi), np.sin(psi), *distances]


def report(name, rows, seconds):
    """A line."""
    rows = np.array(rows)
    there, blocks = rows[:, 0] > 0, np.array_split(rows, N_BLOCKS)
    means = np.array([block[block[:, 0] < 0, 1:].mean(axis=0) for block in blocks])
    errors = means.std(axis=0, ddof=1) / N_BLOCKS**0.5
    found = ", ".join(f"{mean:.3f} +- {error:.3f}" for mean, error in zip(means.mean(axis=0), errors, strict=True))
    crossings = np.count_nonzero(np.diff(there))
    print(f"{name}: {found}; phi > 0 {there.mean():.4f}, {crossings} crossings; {seconds:.0f} s", flush=True)
    return means.mean(axis=0), errors


def main():
    """Parse the arguments and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attempts", type=int, default=10_000)
    parser.add_argument("--steps", type=int, default=5_000_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    simulation, start = simulate(given.seed), time.process_time()
    move = gancl.learn_move(simulation, ["phi:2", "psi:2"], seed=given.seed, progress=lambda _: None)
    print(f"learning: {time.process_time() - start:.0f} s of CPU, {move.summary.force_evaluations:,} evaluations")
    print(*move.doubts, sep="\n")
    rows, start = [], time.process_time()
    for _ in range(given.attempts):
        move.run(1, md_steps=20)
        rows.append(observed(simulation))
    with_lifts = report(f"lifts, {100 * move.acceptance_rate:.0f} % accepted", rows, time.process_time() - start)
    plain, rows, start = simulate(given.seed + 1), [], time.process_time()
    for _ in range(given.steps // 500):
        plain.step(500)
        rows.append(observed(plain))
    alone = report("dynamics alone", rows, time.process_time() - start)
    z = (with_lifts[0] - alone[0]) / np.hypot(with_lifts[1], alone[1])
    print(f"z of the four averages: {', '.join(f'{one:+.1f}' for one in z)}")


if __name__ == "__main__":
    main()
