"""Coarse projective integration of alanine dipeptide against the same ensemble run all along.

    python tests/benchmarks/coarse_projection.py [RUN] [--seeds 3]

prints a line of JSON: the population of C5 at the ends of steps, from an ensemble that begins with nine tenths there,
by both; evaluations of each. RUN is a finished run of `alanine_dipeptide_vacuum`; without one the generator is learned.
"""

import argparse
import json

import numpy as np

import openmm_gancl as gancl
from openmm_gancl.closures import LiftedBursts, projective_integration
from openmm_gancl.sampling import sample_swarm

START, STEP, N_STEPS = 0.9, 4.0, 3
RUNS, PS, FRAMES, HEALED = 600, 1.0, 20, 8
"""Of bursts; ensembles that run all along have a third of the runs."""


def c5(labels):
    """Whether labels are in the region of C5: psi beyond the barrier to C7eq at 110 degrees, or below -2.4."""
    phi, psi = labels.T
    return ((phi < 0) | (phi > 2.6)) & ((psi > np.radians(115)) | (psi < -2.4))


def main():
    """Both, of some seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    system = gancl.load_system("alanine_dipeptide_vacuum")
    if options.run:
        from pathlib import Path

        from openmm_gancl.cli.reporting import LogReporter
        from openmm_gancl.workflow.closures import _lifts_of
        from openmm_gancl.workflow.run import open_run

        with open_run(Path(options.run), None, None, LogReporter(), None) as run:
            _, regression, model = _lifts_of(run)
    else:
        learned = gancl.learn(system, seed=1, max_evaluations=35_000)
        regression, model = learned.regression, learned.model
    steps = round(PS / system.time_step)
    bursts = LiftedBursts(system, model, regression, c5, RUNS, steps, FRAMES, HEALED)
    projected = [projective_integration(bursts, [START], N_STEPS, STEP, seed=seed) for seed in range(options.seeds)]
    direct, spent = [], 0
    n_steps = round(STEP * N_STEPS / system.time_step)
    for seed in range(options.seeds):
        starts, _, _ = bursts.lift(np.array([START]), seed=1000 + seed)
        swarm = sample_swarm(system, starts[::3], n_steps, n_frames=N_STEPS, seed=seed, platform="Reference")
        inside = c5(swarm.labels.reshape(-1, 2)).reshape(len(swarm), -1)
        direct.append(inside.mean(axis=0))
        spent += n_steps * len(swarm)
    values = np.array([one.values[:, 0] for one in projected])
    print(
        json.dumps(
            {
                "times": projected[0].times.tolist(),
                "projected": values.round(3).tolist(),
                "direct": np.round(direct, 3).tolist(),
                "mean_projected": values.mean(axis=0).round(3).tolist(),
                "mean_direct": np.mean(direct, axis=0).round(3).tolist(),
                "largest_difference": float(np.abs(values.mean(axis=0)[1:] - np.mean(direct, axis=0)[1:]).max()),
                "scatter_of_seeds": [part.std(axis=0, ddof=1).round(3).tolist() for part in (values, np.array(direct))]
                if options.seeds > 1
                else None,
                "saved": [round(one.saved, 2) for one in projected],
                "least_effective": [round(one.least_effective) for one in projected],
                "doubts": [doubt for one in projected for doubt in one.doubts()],
            }
        )
    )


if __name__ == "__main__":
    main()
