"""An OpenMM script of alanine dipeptide that starts in C7eq, with two lines added: lifts cross what dynamics do not.

python examples/existing_script.py

It prints the population of C7ax and how often the molecule went there and back, compared with plain dynamics of as
many force evaluations (the reference: 0.0297 +- 0.0005, systems/alanine_dipeptide_vacuum/README.md).
"""

import argparse
from pathlib import Path

import numpy as np
from openmm import LangevinMiddleIntegrator, Platform, app

import openmm_gancl as gancl

PHI = gancl.Torsions(("phi",), np.array([[4, 6, 8, 14]]))


def simulate(seed):
    """Your script: a Simulation in C7eq."""
    pdb = app.PDBFile(str(Path(__file__).parent / "alanine_dipeptide_c7eq.pdb"))
    system = app.ForceField("amber14/protein.ff14SB.xml").createSystem(pdb.topology, hydrogenMass=3)
    integrator = LangevinMiddleIntegrator(300, 1, 0.002)
    integrator.setRandomNumberSeed(seed)
    simulation = app.Simulation(pdb.topology, system, integrator, Platform.getPlatformByName("Reference"))
    simulation.context.setPositions(pdb.positions)
    simulation.context.setVelocitiesToTemperature(300, seed)
    return simulation


def is_c7ax(simulation):
    """Whether 0 < phi < 2.5 rad: the side of C7ax."""
    positions = simulation.context.getState(positions=True).getPositions(asNumpy=True)._value
    return bool(0 < PHI.transform(positions[None])[0, 0] < 2.5)


def report(name, there):
    """Population with the error of ten blocks, and crossings."""
    blocks, crossings = [np.mean(part) for part in np.array_split(there, 10)], np.count_nonzero(np.diff(there))
    print(f"{name}: C7ax {np.mean(there):.4f} +- {np.std(blocks, ddof=1) / 10**0.5:.4f}, {crossings} crossings")


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--attempts", type=int, default=18_000)
parser.add_argument("--max-evaluations", type=int, default=35_000, help="for learning")
parser.add_argument("--seed", type=int, default=7)
given = parser.parse_args()
simulation, there = simulate(given.seed), []
move = gancl.learn_move(simulation, ["phi:2", "psi:2"], max_evaluations=given.max_evaluations, seed=given.seed)
for _ in range(given.attempts):
    move.run(1, md_steps=20)  # the second line added, in place of simulation.step(20); the first is learn_move
    there.append(is_c7ax(simulation))
report(f"with lifts, {100 * move.acceptance_rate:.0f} % accepted", there)

learning = move.summary.force_evaluations + move.summary.check_evaluations
evaluations, plain = learning + move.force_evaluations + 20 * given.attempts, simulate(given.seed)
there = [(plain.step(evaluations // 2000), is_c7ax(plain))[1] for _ in range(2000)]
report(f"plain dynamics, {evaluations:,} force evaluations", there)
