"""Reduced models of alanine dipeptide with inertia: friction, misfit, and passages between C7ax and C7eq.

    python tests/benchmarks/inertial_alanine.py RUN [--ps 0.5] [--runs 60] [--labels 20] [--seed 1]

prints a line of JSON. RUN is a finished run of `alanine_dipeptide_vacuum`. Passages are from core to core, of the model
and of its limit of high friction; `reactive_flux.py` has the full model's.
"""

import argparse
import json
from pathlib import Path

import numpy as np

import openmm_gancl as gancl
from openmm_gancl import closures
from openmm_gancl.cli.reporting import LogReporter
from openmm_gancl.sampling import sample_swarm
from openmm_gancl.workflow.closures import _lifts_of, _low_labels
from openmm_gancl.workflow.run import open_run

N_FRAMES, CELLS = 50, 72


def main():
    """Runs, a fit, and passages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--ps", type=float, default=0.5)
    parser.add_argument("--runs", type=int, default=60)
    parser.add_argument("--labels", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with open_run(Path(options.run), None, None, LogReporter(), None) as run:
        system, (_, regression, model) = run.system, _lifts_of(run)
        labels = _low_labels(run, regression, options.labels)
    lifts = gancl.structures_at(system, model, labels, options.runs, seed=options.seed, platform="Reference")
    kept = np.isfinite(lifts.energies)
    n_steps = round(options.ps / system.time_step / N_FRAMES) * N_FRAMES
    how = {"n_frames": N_FRAMES, "seed": options.seed + 1, "platform": "Reference"}
    swarm = sample_swarm(system, lifts.positions[kept], n_steps, **how)
    surface = regression.surface(system.slow, system.temperature, 0, CELLS)
    found = closures.fit_inertial_model(swarm, system.slow, lifts.labels[kept], surface)
    over = found.model.overdamped
    basins = {basin.name: closures.core_of(over, basin) for basin in system.basins}
    pair = basins["C7ax"], basins["C7eq"]
    times = closures.inertial_passage_times(found.model, *pair, seed=options.seed)
    limit = closures.mean_passage_times(over, *pair)
    print(
        json.dumps(
            {
                "velocity_covariance": found.model.velocity_covariance.round(2).tolist(),
                "friction": found.model.friction.round(2).tolist(),
                "misfit": found.misfit,
                "deviation": found.deviation,
                "C7ax_to_C7eq_ps": [times.mean[0], times.error[0]],
                "C7eq_to_C7ax_ps": [times.mean[1], times.error[1]],
                "limit_of_high_friction_ps": limit.tolist(),
                "doubts": [*found.doubts(), *times.doubts()],
            }
        )
    )


if __name__ == "__main__":
    main()
