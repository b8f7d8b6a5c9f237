"""What an exchange of alanine dipeptide costs, and how many are accepted with a known surface and without.

    python tests/benchmarks/moves.py RUN

takes model.safetensors and fes.npz of RUN (a finished `gancl run alanine_dipeptide_vacuum -o RUN`) and prints one JSON
line: the time of an attempt over that of a single lift (median of five, 96 of each in turn), and acceptance rates of
300 attempts with 50 steps of dynamics in between.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import openmm
from openmm import app

from openmm_gancl import LiftMove, load_model, load_system

N, RELAX_STEPS = 96, 500


def simulation_of(system):
    """A Simulation on the Reference platform that has run for a picosecond."""
    integrator = openmm.LangevinMiddleIntegrator(300, 1, 0.002)
    integrator.setRandomNumberSeed(1)
    platform = openmm.Platform.getPlatformByName("Reference")
    simulation = app.Simulation(system.topology, system.system, integrator, platform)
    simulation.context.setPositions(system.positions)
    simulation.context.setVelocitiesToTemperature(300, 1)
    simulation.step(500)
    return simulation


def seconds(action):
    """Of one call."""
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


def main():
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    arguments = parser.parse_args()
    system, model = load_system("alanine_dipeptide_vacuum"), load_model(arguments.run / "model.safetensors")
    simulation, accepted = simulation_of(system), {}
    for name, surface in (("uniform", None), ("surface", arguments.run / "fes.npz")):
        move = LiftMove(simulation, model, relax_steps=RELAX_STEPS, seed=1, platform="Reference", surface=surface)
        move.run(300, md_steps=50)
        accepted[name] = round(move.acceptance_rate, 3)
    labels = move.lifter.label_proposal.sample(N, np.random.default_rng(0))
    ratios = []
    for repeat in range(5):
        lifts = seconds(lambda seed=repeat: move.lifter.lift(labels, seed=seed))
        ratios.append(seconds(lambda: move.run(N)) / lifts)
    print(json.dumps({"exchange_over_lift": round(float(np.median(ratios)), 2), "acceptance": accepted}))


if __name__ == "__main__":
    main()
