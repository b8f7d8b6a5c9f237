"""Drift and diffusion of one learned label of alanine dipeptide, and those of phi and psi transformed by Ito's formula.

    python tests/benchmarks/learned_alanine.py [RUN] [--starts 1500] [--seed 1]

prints a line of JSON. RUN is a finished run of `alanine_dipeptide_vacuum`; without one the generator is learned. The
label is the first coordinate of a diffusion map of cosines and sines of phi and psi, as the torch module that is
exported: what it is of phi and psi is known exactly, derivatives by automatic differentiation. At each of six of its
values torsions are drawn from the surface's density times a narrow one about the value, lifted and kept by weight,
twice. Runs from the first lifts give the label's own slopes between two lags; runs from the others, with other
velocities, give displacements of phi and psi, which are transformed start by start. From each start two runs begin,
with opposite velocities, whose mean is a drift with little scatter.

``z``: of the differences. ``twin``: the largest without the second derivatives, which Ito's formula adds.
``expansion``: the largest difference, in the same errors, of both on the same runs: what third derivatives leave. Lags
are short, so that it is small: at those velocities are remembered, and slopes are effective ones, not limits.
"""

import argparse
import json
from functools import partial
from pathlib import Path

import numpy as np
import torch
from scipy.special import logsumexp

import openmm_gancl as gancl
from openmm_gancl.closures.swarm_slopes import Displacements, Slopes
from openmm_gancl.coordinates.features import Features, SineCosine
from openmm_gancl.coordinates.geometry import wrap
from openmm_gancl.free_energy.grid import bin_centres
from openmm_gancl.learning import learn_slow_coordinates
from openmm_gancl.learning.torch_map import nystroem_module
from openmm_gancl.sampling import sample_swarm

FRAMES, HIGHEST = 1000, 14.0
"""Of the map, as many in each part of the torsions' plane up to so many kT, so that they are connected."""

VALUES, NARROW, CEILING = 6, 0.03, 6.0
"""Of the label, the width about each as a share of their range, and kT up to which they lie."""

CELLS, DRAWS_EACH = 144, 4
"""A torsion, of the density that torsions are drawn from, and draws for each start."""

STEPS, LAGS = 30, (10, 30)
"""Of each run, and at which slopes begin and end."""


def run_of(folder):
    """System, regression and generator."""
    if folder is None:
        system = gancl.load_system("alanine_dipeptide_vacuum")
        learned = gancl.learn(system, seed=1, max_evaluations=35_000)
        return system, learned.regression, learned.model
    from openmm_gancl.cli.reporting import LogReporter
    from openmm_gancl.workflow.closures import _lifts_of
    from openmm_gancl.workflow.run import open_run

    with open_run(Path(folder), None, None, LogReporter(), None) as run:
        return run.system, *_lifts_of(run)[1:]


class Grid:
    """Cells of phi and psi with their log density."""

    def __init__(self, regression):
        edge = np.linspace(-np.pi, np.pi, CELLS + 1)
        self.centres, self.width = bin_centres((edge, edge)), edge[1] - edge[0]
        self.log_density = regression.log_density(self.centres)

    def draw(self, log_chances, n, rng):
        """Torsions, shape=(n, 2), and the log of the chance of the cell of each."""
        log_chances = log_chances - logsumexp(log_chances)
        cells = rng.choice(len(log_chances), n, p=np.exp(log_chances))
        return self.centres[cells] + self.width * rng.uniform(-0.5, 0.5, (n, 2)), log_chances[cells]


class Label:
    """One learned label, by positions and by torsions."""

    def __init__(self, system, positions):
        features = Features((SineCosine(system.slow.atoms),))
        learned = learn_slow_coordinates(system, positions, features=features, most=1, n_landmarks=FRAMES - 1)
        self.slow, self.name = learned.labels.slow, learned.labels.slow.names[0]
        self.map = nystroem_module(learned.fitted, learned.chosen.tolist())

    def _one(self, torsions):
        return self.map(torch.cat([torch.cos(torsions), torch.sin(torsions)])[None])[0, 0]

    def of(self, torsions, derivatives=False):
        """Values, shape=(n,), or gradients, shape=(n, 2), and second derivatives, shape=(n, 2, 2)."""
        x = torch.as_tensor(torsions)
        if not derivatives:
            with torch.no_grad():
                return self.map(torch.cat([torch.cos(x), torch.sin(x)], dim=1))[:, 0].numpy()
        gradient, hessian = torch.func.grad(self._one), torch.func.hessian(self._one)
        return [torch.func.vmap(one, chunk_size=250)(x).numpy() for one in (gradient, hessian)]


def log_normal(value, width, at):
    """Of a narrow density, without its constant."""
    return -0.5 * ((at - value) / width) ** 2


def lifted(system, model, grid, label, log_near, n, seed):
    """Starts about a value of the label, kept by weight, and how many effective lifts they come from."""
    rng = np.random.default_rng(seed)
    torsions, log_chances = grid.draw(grid.log_density + log_near(label.of(grid.centres)), DRAWS_EACH * n, rng)
    lifts = gancl.Lifter(system, model, platform="Reference").lift(torsions, seed=seed)
    log_weights = np.where(lifts.ok, lifts.log_weights + log_near(label.of(torsions)) - log_chances, -np.inf)
    weights = np.exp(log_weights - logsumexp(log_weights))
    kept = np.searchsorted(np.cumsum(weights), (np.arange(n) + rng.uniform()) / n).clip(max=len(weights) - 1)
    return lifts.positions[kept], 1 / (weights**2).sum()


def displacements(system, label, starts, seed):
    """Of runs with velocities and with their opposites, shape=(2, n, 2) each.

    The label's own, and those of phi and psi transformed to second and to first order.
    """
    v = np.sqrt(system.kT / system.masses)[:, None] * np.random.default_rng(seed).standard_normal(starts.shape)
    both = {"velocities": np.concatenate([v, -v]), "n_frames": STEPS, "seed": seed, "platform": "Reference"}
    swarm = sample_swarm(system, np.concatenate([starts, starts]), STEPS, **both)
    torsions, at = swarm.labels, [0, *LAGS]
    values = label.of(torsions[:, at].reshape(-1, 2)).reshape(len(torsions), -1)
    moved = np.cumsum(wrap(np.diff(torsions, axis=1), np.full(2, 2 * np.pi)), axis=1)[:, np.array(LAGS) - 1]
    gradients, second = label.of(torsions[:, 0], derivatives=True)
    first = np.einsum("ni,nti->nt", gradients, moved)
    found = values[:, 1:] - values[:, :1], first + 0.5 * np.einsum("nti,nij,ntj->nt", moved, second, moved), first
    return [part.reshape(2, len(starts), 2) for part in found]


def slopes(parts, interval):
    """Of means and half variances between the lags, and errors, shape=(2, n_values) each."""

    def between(of_pairs):
        groups = [Displacements(of_pairs(part)[..., None], np.full(part.shape[1], 1 / part.shape[1])) for part in parts]
        return Slopes.between(groups, interval * np.array(LAGS), 0, 1)

    # the mean of a pair has no variance that counts: of that one run of each
    means, ones = between(lambda part: part.mean(axis=0)), between(lambda part: part[0])
    values = np.array([means.drift[:, 0], ones.diffusion[:, 0, 0]])
    return values, np.array([means.drift_error[:, 0], ones.diffusion_error[:, 0, 0]])


def main():
    """Both, at some values of the label."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?")
    parser.add_argument("--starts", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    system, regression, model = run_of(options.run)
    rng, grid = np.random.default_rng(options.seed), Grid(regression)
    depth = grid.log_density.max() - grid.log_density
    flat = np.where(depth < HIGHEST, 0.0, -np.inf)
    frames = gancl.Lifter(system, model, platform="Reference").lift(grid.draw(flat, FRAMES, rng)[0], seed=options.seed)
    label = Label(system, frames.positions[frames.ok])
    low = label.of(grid.centres[depth < CEILING])
    values = np.quantile(low, np.linspace(0.05, 0.95, VALUES))
    width = NARROW * np.ptp(low)
    own, transformed, first, same, effective = [], [], [], [], []
    for k, value in enumerate(values):
        for part in range(2):
            seed = 1000 * options.seed + 10 * k + part
            about = partial(log_normal, value, width)
            starts, n = lifted(system, model, grid, label, about, options.starts, seed)
            found = displacements(system, label, starts, seed + 5)
            effective.append(n)
            if part:
                transformed.append(found[1])
                first.append(found[2])
            else:
                own.append(found[0])
                same.append(found[1])
    interval = system.time_step
    (mine, error), (theirs, other), (without, _), (expanded, _) = (
        slopes(parts, interval) for parts in (own, transformed, first, same)
    )
    both = np.hypot(error, other)
    check = np.abs(label.slow.transform(frames.positions[frames.ok])[:, 0] - label.of(frames.cv_values[frames.ok]))
    print(
        json.dumps(
            {
                "label": label.name,
                "values": values.round(3).tolist(),
                "module_against_torsions": float(check.max()),
                "least_effective": round(min(effective)),
                "drift": mine[0].round(4).tolist(),
                "transformed": theirs[0].round(4).tolist(),
                "error": both[0].round(4).tolist(),
                "diffusion": mine[1].round(4).tolist(),
                "diffusion_transformed": theirs[1].round(4).tolist(),
                "z_drift": ((mine - theirs) / both)[0].round(2).tolist(),
                "z_diffusion": ((mine - theirs) / both)[1].round(2).tolist(),
                "twin_drift": float(np.abs((mine - without) / both)[0].max()),
                "expansion": np.abs((mine - expanded) / both).max(axis=1).round(2).tolist(),
                "force_evaluations": 2 * VALUES * options.starts * (2 * STEPS + DRAWS_EACH),
            }
        )
    )


if __name__ == "__main__":
    main()
