"""A free-energy surface with error bars, basins and barriers from trajectories that you have.

python examples/fes_from_trajectory.py run*.dcd --top top.pdb --cv phi:2 --cv psi:2 --temperature 300

Without trajectories it makes some: alanine dipeptide in implicit water, which crosses often enough by itself. The
command ``gancl fes`` does the same, undoes biases, and says when the result is not to be trusted.
"""

import argparse

import openmm
from openmm import app

import openmm_gancl as gancl
from openmm_gancl.free_energy.plots import plot_surface

STEPS = {"default": 2_000_000, "quick": 200_000}


def dynamics(n_steps, path="fes_from_trajectory.dcd", top="fes_from_trajectory.pdb"):
    """A plain OpenMM run."""
    system = gancl.load_system("alanine_dipeptide_gbsa")
    integrator = openmm.LangevinMiddleIntegrator(300, 1, 0.002)
    integrator.setRandomNumberSeed(1)
    platform = openmm.Platform.getPlatformByName("Reference")
    simulation = app.Simulation(system.topology, system.system, integrator, platform)
    simulation.context.setPositions(system.positions)
    simulation.context.setVelocitiesToTemperature(300, 1)
    simulation.reporters.append(app.DCDReporter(path, 200))
    simulation.step(n_steps)
    with open(top, "w") as file:
        app.PDBFile.writeFile(system.topology, 10 * system.positions, file)
    return [path], top


def main():
    """Read, estimate, say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trajectories", nargs="*")
    parser.add_argument("--top")
    parser.add_argument("--cv", action="append", help="phi:2 and psi:2 by default")
    parser.add_argument("--temperature", type=float, default=300.0)
    parser.add_argument("--output", default="fes_from_trajectory.png")
    parser.add_argument("--preset", choices=STEPS, default="default", help="of the run that is made")
    arguments = parser.parse_args()
    paths, top = arguments.trajectories, arguments.top
    if not paths:
        paths, top = dynamics(STEPS[arguments.preset])
    found = gancl.analyse_trajectories(paths, top, arguments.cv or ["phi:2", "psi:2"], arguments.temperature)
    print(f"{found.effective_samples:.0f} independent samples")
    for basin in found.basins:
        print(f"basin {basin.name}: {basin.population:.3f} +- {basin.population_error:.3f}")
    print("\n".join([*found.notes, *(f"NOT TO BE TRUSTED: {doubt}" for doubt in found.doubts)]))
    plot_surface(found.surface).figure.savefig(arguments.output, dpi=120)


if __name__ == "__main__":
    main()
