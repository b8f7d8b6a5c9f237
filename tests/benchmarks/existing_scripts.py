"""Crossings of alanine dipeptide in a script's own Simulation: plain, by torsions or learned labels, and biased.

    gancl run alanine_dipeptide_vacuum --preset quick -o RUN
    gancl run alanine_dipeptide_vacuum --slow diffusion-map -o LEARNED
    python -m tests.benchmarks.existing_scripts RUN [--learned LEARNED] [--product RUN ...] [--attempts 1500]

Each attempt follows 100 steps of 2 fs. Of every model all evaluations are counted, pilots and lifts made ahead too. The
models of ``--product`` (of `gancl run --generator product`, over learned labels or not) make 300 attempts of 500 steps
with 10 steps before each, without a surface and with that of LEARNED, and only their acceptance is printed.
"""

import argparse
from pathlib import Path

import numpy as np
from openmm import CustomTorsionForce, LangevinMiddleIntegrator, Platform, XmlSerializer, app

from openmm_gancl import LiftMove, Torsions, load_model, load_system

START = Path(__file__).parents[2] / "examples" / "alanine_dipeptide_c7eq.pdb"
ATOMS = ((4, 6, 8, 14), (6, 8, 14, 16))
PHI = Torsions(("phi",), np.array(ATOMS[:1]))


def simulate(biased=False):
    """A Simulation in C7eq, and Metadynamics on it or nothing."""
    start, system = app.PDBFile(str(START)), XmlSerializer.clone(load_system("alanine_dipeptide_vacuum").system)
    variables = []
    for atoms in ATOMS:
        variables.append(app.BiasVariable(CustomTorsionForce("theta"), -np.pi, np.pi, 0.35, True, 60))
        variables[-1].force.addTorsion(*atoms, [])
    bias = app.Metadynamics(system, variables, 300, 8, 1.0, 200) if biased else None
    integrator = LangevinMiddleIntegrator(300, 1, 0.002)
    integrator.setRandomNumberSeed(3)
    simulation = app.Simulation(start.topology, system, integrator, Platform.getPlatformByName("Reference"))
    simulation.context.setPositions(start.positions)
    simulation.context.setVelocitiesToTemperature(300, 3)
    return simulation, bias


def is_c7ax(simulation):
    positions = simulation.context.getState(positions=True).getPositions(asNumpy=True)._value
    return bool(0 < PHI.transform(positions[None])[0, 0] < 2.5)


def crossings(name, attempts, biased=False, run=None, with_surface=True):
    """Print those of one Simulation."""
    simulation, bias = simulate(biased)
    move, there = None, []
    if run is not None:
        surface = run / "fes.npz" if with_surface else None
        move = LiftMove(simulation, load_model(run / "model.safetensors"), surface=surface, seed=4)
    for _ in range(attempts):
        if bias:
            bias.step(simulation, 100)
        else:
            simulation.step(100)
        if move:
            move.attempt()
        there.append(is_c7ax(simulation))
    n, count = 100 * attempts + (move.force_evaluations if move else 0), int(np.count_nonzero(np.diff(there)))
    accepted = f", {100 * move.acceptance_rate:.0f} % accepted" if move else ""
    print(f"{name}: {count} crossings in {n:,} evaluations, {1e6 * count / n:.0f} a million{accepted}", flush=True)


def main():
    """Parse the arguments and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--learned", type=Path)
    parser.add_argument("--product", type=Path, nargs="*", default=())
    parser.add_argument("--attempts", type=int, default=1500)
    arguments = parser.parse_args()
    n = arguments.attempts
    crossings("torsions", n, run=arguments.run)
    if arguments.learned:
        crossings("learned labels", n, run=arguments.learned)
    crossings("plain dynamics", n)
    crossings("metadynamics with lifts", n, biased=True, run=arguments.run, with_surface=False)
    crossings("metadynamics with lifts where the unbiased surface is low", n, biased=True, run=arguments.run)
    crossings("metadynamics alone", n, biased=True)
    for run in arguments.product:
        model = load_model(run / "model.safetensors")
        for surface in (None, arguments.learned and arguments.learned / "fes.npz"):
            move = LiftMove(simulate()[0], model, surface=surface, relax_steps=500, seed=1)
            move.run(300, 10)
            what = f"{', '.join(model.slow.names)}, surface {surface is not None}"
            print(f"product over {what}: {100 * move.acceptance_rate:.0f} %, {move.force_evaluations:,} evaluations")


if __name__ == "__main__":
    main()
