"""The rate of the full alanine dipeptide from C7ax to the other side of phi = 0, from lifts at the dividing surface.

    python tests/benchmarks/reactive_flux.py RUN [--lifts 5000]

prints a line of JSON. The flux through the surface is an average over weighted lifts there, and short runs from these
say which part of it does not come back (Chandler 1978, doi 10.1063/1.436049). RUN is a finished run of
`alanine_dipeptide_vacuum`.
"""

import argparse
import json
from pathlib import Path

import numpy as np

import openmm_gancl as gancl
from openmm_gancl.cli.reporting import LogReporter
from openmm_gancl.sampling import sample_swarm
from openmm_gancl.workflow.closures import _lifts_of
from openmm_gancl.workflow.run import open_run

BARRIER, FAR = 0.0, np.radians(125.0)
"""Of phi: the dividing surface, and the other, far higher end of C7ax."""

PS, N_FRAMES = 1.0, 10
CELLS = 144


def cells(low, high):
    """Centres."""
    edges = np.linspace(low, high, CELLS + 1)
    return 0.5 * (edges[1:] + edges[:-1])


def main():
    """The rate and its transmission coefficient."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--lifts", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    n, rng = options.lifts, np.random.default_rng(options.seed)
    with open_run(Path(options.run), None, None, LogReporter(), None) as run:
        system, (_, regression, model) = run.system, _lifts_of(run)

    psi = cells(-np.pi, np.pi)
    phi, both = np.meshgrid(cells(BARRIER, FAR), psi, indexing="ij")
    inside = np.exp(regression.log_density(np.stack([phi.ravel(), both.ravel()], axis=1)))
    population = inside.sum() * (FAR - BARRIER) / CELLS * 2 * np.pi / CELLS
    at_barrier = np.exp(regression.log_density(np.stack([np.full(CELLS, BARRIER), psi], axis=1)))
    chances = at_barrier / at_barrier.sum()
    drawn = rng.choice(CELLS, n, p=chances)
    labels = np.stack([np.full(n, BARRIER), psi[drawn] + rng.uniform(-0.5, 0.5, n) * 2 * np.pi / CELLS], axis=1)
    lifts = gancl.Lifter(system, model, platform="Reference").lift(labels, seed=options.seed)
    ok = np.flatnonzero(lifts.ok)
    weights = np.exp(lifts.log_weights[ok]) / (chances[drawn[ok]] * CELLS / (2 * np.pi))

    starts = lifts.positions[ok]
    velocities = np.sqrt(system.kT / system.masses)[:, None] * rng.standard_normal(starts.shape)
    step = 1e-4
    ahead, behind = (system.slow.transform(starts + sign * step * velocities)[:, 0] for sign in (1, -1))
    leaving = -(ahead - behind) / (2 * step)
    n_steps = round(PS / system.time_step / N_FRAMES) * N_FRAMES
    swarm = sample_swarm(
        system, starts, n_steps, n_frames=N_FRAMES, velocities=velocities, seed=options.seed, platform="Reference"
    )
    across = swarm.labels[:, 1:, 0] < BARRIER
    terms = (weights * leaving)[:, None] * across
    rates = terms.sum(axis=0) / n / population
    errors = np.sqrt((terms**2).sum(axis=0)) / n / population
    no_return = (weights * leaving.clip(min=0)).sum() / n / population
    last = slice(N_FRAMES // 2, None)
    rate, error = rates[last].mean(), errors[last].mean()
    print(
        json.dumps(
            {
                "mean_time_ps": 1 / rate,
                "relative_error": error / rate,
                "transmission": (rates / no_return).round(3).tolist(),
                "effective_lifts": float(weights.sum() ** 2 / (weights**2).sum()),
                "force_evaluations": lifts.force_evaluations + n_steps * len(ok),
            }
        )
    )


if __name__ == "__main__":
    main()
