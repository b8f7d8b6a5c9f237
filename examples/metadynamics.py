"""Metadynamics or OPES of alanine dipeptide with lifts in between: one move follows the bias while it grows.

gancl run alanine_dipeptide_vacuum -o runs/ala2
python examples/metadynamics.py runs/ala2 [--bias opes]

It prints how much higher C7ax is than C7eq (7.7 kJ/mol in the reference) by the bias, with lifts and without.
"""

import argparse
from pathlib import Path

import numpy as np
from openmm import CustomTorsionForce, LangevinMiddleIntegrator, Platform, app

import openmm_gancl as gancl

START, KT = Path(__file__).parent / "alanine_dipeptide_c7eq.pdb", 2.494  # kJ/mol at 300 K


def simulate(kind):
    """Your script: a Simulation in C7eq, and its bias."""
    start, system = app.PDBFile(str(START)), gancl.load_system("alanine_dipeptide_vacuum").system
    torsions = [CustomTorsionForce("theta") for _ in range(2)]  # phi and psi
    torsions[0].addTorsion(4, 6, 8, 14, [])
    torsions[1].addTorsion(6, 8, 14, 16, [])
    variables = [app.BiasVariable(torsion, -np.pi, np.pi, 0.35, True, 60) for torsion in torsions]
    if kind == "opes":
        import openmm_opes  # pip install openmm-opes

        bias = openmm_opes.OPES(system, variables, 300, 40, 200, 10)
    else:
        bias = app.Metadynamics(system, variables, 300, 8, 1.0, 200)
    platform, integrator = Platform.getPlatformByName("Reference"), LangevinMiddleIntegrator(300, 1, 0.002)
    simulation = app.Simulation(start.topology, system, integrator, platform)
    simulation.context.setPositions(start.positions)
    simulation.context.setVelocitiesToTemperature(300)
    return simulation, bias


def report(name, bias):
    """Free energies from what the bias has become, over a grid of psi and phi whose ends are the same."""
    energy, axis = np.array(bias.getFreeEnergy()._value)[:-1, :-1], np.linspace(-np.pi, np.pi, 60)[:-1]
    boxes = ((-2.0, -0.5), (-0.6, 2.1)), ((0.4, 1.9), (-2.1, 0.6))
    cells = [[(low < axis) & (axis < high) for low, high in reversed(box)] for box in boxes]
    c7eq, c7ax = (np.exp((energy.min() - energy)[np.ix_(*cell)] / KT).sum() for cell in cells)
    print(f"{name}: C7ax is {KT * np.log(c7eq / c7ax):.1f} kJ/mol above C7eq")


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("run", type=Path, help="a finished run")
parser.add_argument("--bias", choices=("metadynamics", "opes"), default="metadynamics")
parser.add_argument("--attempts", type=int, default=1000)
arguments = parser.parse_args()
simulation, bias = simulate(arguments.bias)
move = gancl.LiftMove(simulation, gancl.load_model(arguments.run / "model.safetensors"))
for _ in range(arguments.attempts):
    bias.step(simulation, 100)
    move.attempt()  # the target is the Simulation's own energy, this bias included
report(f"with lifts, {100 * move.acceptance_rate:.0f} % accepted", bias)

simulation, bias = simulate(arguments.bias)
steps = 100 * arguments.attempts + move.force_evaluations
bias.step(simulation, steps)
report(f"dynamics alone, {steps:,} force evaluations too", bias)
