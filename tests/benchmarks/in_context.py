"""Moves of the double well a second: wholly inside the Context, and the same move through Python.

    python tests/benchmarks/in_context.py

prints one JSON line a number of relax steps: microseconds of one move by `InContextMove` with either backend, by a
metropolis `LiftMove` (its lifts are proposed 32 at a time, relaxed one after the other), and by a `Lifter` of single
lifts, as a chain needs them that proposes from its present state; and how many times more moves a second are made
inside. Medians of five, in turn.
"""

import argparse
import json
import time

import numpy as np
import openmm
from openmm import app

from openmm_gancl import Lifter, LiftMove, load_system, sample_windows, train
from openmm_gancl.engine.torch_force import torch_force_type
from openmm_gancl.lifting.relaxation import Relaxer
from openmm_gancl.moves import InContextMove

SYSTEM, N = "double_well_oscillators", 300


def microseconds(action):
    """Of one of N moves."""
    begun = time.perf_counter()
    action()
    return 1e6 * (time.perf_counter() - begun) / N


def lift_move(system, model, relax_steps):
    """A metropolis chain by way of a Simulation."""
    integrator = openmm.LangevinMiddleIntegrator(system.temperature, system.friction, system.time_step)
    platform = openmm.Platform.getPlatformByName("Reference")
    simulation = app.Simulation(system.topology, system.system, integrator, platform)
    simulation.context.setPositions(system.positions)
    return LiftMove(
        simulation,
        model,
        relax_steps=relax_steps,
        acceptance="metropolis",
        force_constants=system.force_constants,
        time_step=system.time_step,
        platform="Reference",
    )


def single_lifts(system, model, relax_steps):
    """N lifts proposed, relaxed and weighed one at a time in a Context that stays."""
    lifter = Lifter(system, model, relax_steps=relax_steps, mode="unrestrained", platform="Reference")
    rng, relaxer = np.random.default_rng(0), Relaxer()

    def run():
        for _ in range(N):
            lifter.run(relaxer, rng, lifter.label_proposal.sample(1, rng))

    return run


def main():
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    system = load_system(SYSTEM)
    model = train(system, sample_windows(system, n_windows=64, steps_per_window=1000, seed=1), seed=1)
    backends = ["torch", "python"] if torch_force_type() else ["python"]
    for relax_steps in (1, 20, 100):
        inside = {name: InContextMove(system, model, relax_steps=relax_steps, backend=name) for name in backends}
        ways = {name: lambda move=move: move.step(N) for name, move in inside.items()}
        move = lift_move(system, model, relax_steps)
        ways["LiftMove"] = lambda move=move: move.run(N)
        ways["Lifter"] = single_lifts(system, model, relax_steps)
        for way in ways.values():
            way()
        times = {name: [] for name in ways}
        for _ in range(5):
            for name, way in ways.items():
                times[name].append(microseconds(way))
        medians = {name: round(float(np.median(values)), 1) for name, values in times.items()}
        row = {"relax_steps": relax_steps, "microseconds": medians}
        for name in ("LiftMove", "Lifter"):
            ratios = np.array(times[name]) / np.array(times[backends[0]])
            row[f"times_{name}"] = round(float(np.median(ratios)), 2)
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
