"""An OpenMM script of alanine dipeptide that starts in C7eq, with two lines added: lifts cross what dynamics do not.

gancl run alanine_dipeptide_vacuum -o runs/ala2
python examples/existing_script.py runs/ala2

It prints the population of C7ax and how often the molecule went there and back, compared with plain dynamics of as
many force evaluations (the reference: 0.0297 +- 0.0005, systems/alanine_dipeptide_vacuum/README.md).
"""

import argparse
from pathlib import Path

import numpy as np
from openmm import LangevinMiddleIntegrator, Platform, app

import openmm_gancl as gancl

PHI = gancl.Torsions(("phi",), np.array([[4, 6, 8, 14]]))


def simulate():
    """Your script: a Simulation in C7eq."""
    system = gancl.load_system("alanine_dipeptide_vacuum")
    start = app.PDBFile(str(Path(__file__).parent / "alanine_dipeptide_c7eq.pdb"))
    integrator = LangevinMiddleIntegrator(300, 1, 0.002)
    simulation = app.Simulation(start.topology, system.system, integrator, Platform.getPlatformByName("Reference"))
    simulation.context.setPositions(start.positions)
    simulation.context.setVelocitiesToTemperature(300, 1)
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
parser.add_argument("run", type=Path, help="a finished run: its model.safetensors and fes.npz")
parser.add_argument("--attempts", type=int, default=2000)
arguments = parser.parse_args()
simulation, there = simulate(), []
model, surface = gancl.load_model(arguments.run / "model.safetensors"), arguments.run / "fes.npz"
move = gancl.LiftMove(simulation, model, surface=surface, seed=7)  # the first line added
for _ in range(arguments.attempts):
    move.run(1, md_steps=100)  # the second, in place of simulation.step(100)
    there.append(is_c7ax(simulation))
report(f"with lifts, {100 * move.acceptance_rate:.0f} % accepted", there)

plain = simulate()
evaluations = move.pilot_evaluations + sum(record.force_evaluations + 100 for record in move.history)
there = [(plain.step(evaluations // 2000), is_c7ax(plain))[1] for _ in range(2000)]
report(f"plain dynamics, {evaluations:,} force evaluations", there)
