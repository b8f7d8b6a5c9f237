"""Speed of a lift, side by side in one process: medians of five.

    python tests/benchmarks/speed.py

prints one JSON line: a relaxation step against two LangevinMiddle steps on the real potential alone, the overhead
of a lift outside its steps, and the start of ``gancl --help``.
"""

import json
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import openmm

from openmm_gancl.engine.platforms import make_context
from openmm_gancl.generator.training import untrained_model
from openmm_gancl.lifting.lifter import Lifter
from openmm_gancl.lifting.relaxation import relax
from openmm_gancl.system.library import load_system

STEPS = 4000
ROUNDS = 5


def langevin_seconds(system):
    """Seconds of one LangevinMiddle step on the real potential."""
    integrator = openmm.LangevinMiddleIntegrator(300, 1, system.time_step)
    context = make_context(system.system, integrator, "Reference", 1)
    context.setPositions(system.positions)
    context.setVelocitiesToTemperature(300, 1)
    integrator.step(500)
    start = time.perf_counter()
    integrator.step(STEPS)
    return (time.perf_counter() - start) / STEPS


def relax_seconds(lifter, n_lifts):
    """Seconds of a task of n lifts, proposal and weight included."""
    labels = np.tile(lifter.system.slow.transform(lifter.system.positions[None]), (n_lifts, 1))
    start = time.perf_counter()
    lifter.lift(labels, seed=1)
    return time.perf_counter() - start


def path_seconds(lifter):
    """Seconds of one relaxation step, from two tasks that differ in their length alone."""
    labels = lifter.system.slow.transform(lifter.system.positions[None])
    task, _ = lifter._prepare(labels, None, np.random.default_rng(1))
    times = []
    for n in (STEPS, 2 * STEPS):
        longer = replace(task, protocol=replace(task.protocol, schedule=np.linspace(0, 1, n + 1)))
        start = time.perf_counter()
        relax(longer)
        times.append(time.perf_counter() - start)
    return (times[1] - times[0]) / STEPS


def help_seconds():
    """Seconds of `gancl --help`."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "openmm_gancl.cli", "--help"], check=True, capture_output=True)
    return time.perf_counter() - start


def main():
    """Measure and print."""
    system = load_system("alanine_dipeptide_vacuum")
    model = untrained_model(system, seed=1, strength=0.3)
    lifter = Lifter(system, model, relax_steps=1, platform="Reference")
    relax_seconds(lifter, 32)
    rows = []
    for _ in range(ROUNDS):
        langevin, step = langevin_seconds(system), path_seconds(lifter)
        overhead = relax_seconds(lifter, 32) / 32 - step
        rows.append((step / (2 * langevin), 1e6 * step, 1e6 * langevin, 1e3 * overhead, help_seconds()))
    ratio, step, langevin, overhead, start_up = np.median(rows, axis=0)
    print(
        json.dumps(
            {
                "relax_step_over_two_langevin_steps": round(ratio, 3),
                "relax_step_us": round(step, 2),
                "langevin_step_us": round(langevin, 2),
                "overhead_ms_per_lift": round(overhead, 3),
                "help_seconds": round(start_up, 3),
            }
        )
    )


if __name__ == "__main__":
    main()
