"""Metadynamics or OPES of alanine dipeptide with lifts in between: one move follows the bias while it grows.

gancl run alanine_dipeptide_vacuum -o runs/ala2; python examples/metadynamics.py runs/ala2 [--bias opes]

It prints how much higher C7ax is than C7eq (7.7 kJ/mol in the reference) by the bias, with lifts and without.
"""

import argparse
from pathlib import Path

import numpy as np
from openmm import CustomTorsionForce, LangevinMiddleIntegrator, Platform, app

import openmm_gancl as gancl


def simulate(kind):
    """Your script: a Simulation in C7eq, and its bias over phi and psi."""
    start = app.PDBFile(str(Path(__file__).parent / "alanine_dipeptide_c7eq.pdb"))
    system = gancl.load_system("alanine_dipeptide_vacuum").system
    variables = [app.BiasVariable(CustomTorsionForce("theta"), -np.pi, np.pi, 0.35, True, 60) for _ in range(2)]
    variables[0].force.addTorsion(4, 6, 8, 14, [])
    variables[1].force.addTorsion(6, 8, 14, 16, [])
    if kind == "opes":
        import openmm_opes  # pip install openmm-opes

        bias = openmm_opes.OPES(system, variables, 300, 40, 200, 10)
    else:
        bias = app.Metadynamics(system, variables, 300, 8, 1.0, 200)
    how = LangevinMiddleIntegrator(300, 1, 0.002), Platform.getPlatform("Reference")
    simulation = app.Simulation(start.topology, system, *how)
    simulation.context.setPositions(start.positions)
    simulation.context.setVelocitiesToTemperature(300)
    return simulation, bias


def report(name, bias):
    """Free energies from what the bias has become, over a grid of psi and phi whose ends are the same."""
    energy, axis = np.array(bias.getFreeEnergy()._value)[:-1, :-1], np.linspace(-np.pi, np.pi, 60)[:-1]
    cells = [np.ix_(abs(axis - psi) < 1.35, abs(axis - phi) < 0.75) for phi, psi in ((-1.25, 0.75), (1.15, -0.75))]
    c7eq, c7ax = (-2.494 * np.log(np.exp((energy.min() - energy[cell]) / 2.494).sum()) for cell in cells)  # kT of 300 K
    print(f"{name}: C7ax is {c7ax - c7eq:.1f} kJ/mol above C7eq")


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("run", type=Path, help="a finished run")
parser.add_argument("--bias", choices=("metadynamics", "opes"), default="metadynamics")
parser.add_argument("--attempts", type=int, default=1000)
arguments = parser.parse_args()
simulation, bias = simulate(arguments.bias)
move = gancl.LiftMove(simulation, gancl.load_model(arguments.run / "model.safetensors"))
for _ in range(arguments.attempts):
    bias.step(simulation, 100)
    move.attempt()  # its target is the Simulation's energy now, the bias included
report(f"with lifts, {100 * move.acceptance_rate:.0f} % accepted", bias)

simulation, bias = simulate(arguments.bias)
bias.step(simulation, 100 * arguments.attempts + move.force_evaluations)
report(f"dynamics alone, {simulation.currentStep:,} force evaluations too", bias)
