"""Learned labels projected on, or conditioned on: surfaces over them and over the torsions at equal evaluations.

    python -m tests.benchmarks.learned_labels FRAMES [--methods project ...] [--seeds 1 2 3 4] [--evaluations 35000]
    python -m tests.benchmarks.learned_labels FRAMES --table

Alanine dipeptide in vacuum. FRAMES is a file of dynamics under a bias that flattens the committed reference, made at
the first call (some minutes): with the reference's own mass in each cell of the torsions, these frames are the
reference projected on any label. Each run learns two labels from its first two rounds, and then spends the rest:

- ``project``: the loop as it is; every lift is drawn at torsions, and counts where its labels lie;
- ``frozen``: the same with the generator of the first two rounds, not fitted again, and torsions placed evenly;
- ``condition``: that generator too, but labels u from p(u), kernels around the labels of the first structures, torsions
  from the structures whose labels lie near u (kernels, and a uniform share), the rest as in ``frozen``; the weight has
  ``log r(u given x) - log p(u)``, with kernels r whose width a pilot chooses;
- ``shuffled``: the same with a map whose points have the coordinates of others.

RMS deviations below 8 kT from the projected and from the committed reference, kT, over the bins that are known, by the
same histogram; ``missing``: bins that are not; ``effective``: median over the bins of effective lifts a lift in a bin.
"""

import json
from pathlib import Path

import numpy as np
import openmm
from scipy.ndimage import gaussian_filter
from scipy.special import i0e, logsumexp

from openmm_gancl.coordinates.slow_coordinates import FirstAxes
from openmm_gancl.engine.platforms import make_context
from openmm_gancl.engine.random_numbers import named_rng
from openmm_gancl.files import write_atomically
from openmm_gancl.free_energy.grid import bin_indices
from openmm_gancl.learning import learned_labels
from openmm_gancl.learning.diffusion_map import DiffusionMap
from openmm_gancl.lifting.draws import draw
from openmm_gancl.lifting.label_proposals import KernelProposal
from openmm_gancl.lifting.loop import learn
from openmm_gancl.lifting.loop_options import LoopOptions
from openmm_gancl.lifting.projected_labels import structures_to_learn, weighted_histogram
from openmm_gancl.lifting.rounds import pooled_log_weights
from openmm_gancl.system.library import load_system
from tests.benchmarks.arguments import parser_of
from tests.benchmarks.reference_surface import bias_force

RESULTS = Path(__file__).parent / "results" / "learned_labels"
REFERENCE = Path(__file__).parent.parent / "data" / "alanine_dipeptide_vacuum.npz"
SYSTEM, CEILING, HIGHEST, MAX_NOISE = "alanine_dipeptide_vacuum", 8.0, 11.0, 0.2
STRIDE, TIME_STEP = 20, 0.0015
FIRST_DRAWS, N_PILOT = 6000, 500
TORSION_WIDTH, UNIFORM = 0.2, 0.05
SCALES = (0.5, 1.0, 2.0, 4.0)


def make_frames(path, n):
    """Positions of dynamics under minus the reference, and its bias in kT."""
    system = load_system(SYSTEM)
    with np.load(REFERENCE) as reference:
        energies = reference["free_energy_kT"]
    table = -gaussian_filter(np.minimum(energies, HIGHEST), 1.0, mode="wrap") * system.kT
    biased = openmm.XmlSerializer.clone(system.system)
    force = bias_force(table, system.slow)
    force.setForceGroup(7)
    biased.addForce(force)
    integrator = openmm.LangevinMiddleIntegrator(system.temperature, system.friction, TIME_STEP)
    context = make_context(biased, integrator, "Reference", 4242)
    context.setPositions(system.positions)
    openmm.LocalEnergyMinimizer.minimize(context, 10.0, 200)
    context.setVelocitiesToTemperature(system.temperature, 5)
    integrator.step(1000 * STRIDE)
    positions, bias = np.empty((n, system.n_atoms, 3), dtype=np.float32), np.empty(n)
    for i in range(n):
        integrator.step(STRIDE)
        state = context.getState(positions=True, energy=True, groups={7})
        positions[i], bias[i] = state.getPositions(asNumpy=True)._value, state.getPotentialEnergy()._value
    np.savez(path, positions=positions, bias=bias / system.kT)


def weighted_frames(path):
    """Frames, shape=(n, n_atoms, 3), with weights by which each cell of the torsions has the reference's mass."""
    system = load_system(SYSTEM)
    with np.load(REFERENCE) as reference, np.load(path) as stored:
        energies, edges = reference["free_energy_kT"].ravel(), (reference["edges"],) * 2
        positions, bias = stored["positions"].astype(float), stored["bias"]
    cells = bin_indices(system.slow.transform(positions), edges, system.slow.periods)
    weights = np.exp(bias - bias.max())
    mass = np.where(np.isfinite(energies), np.exp(-energies), 0.0)
    return positions, weights / np.bincount(cells, weights, len(mass))[cells] * mass[cells]


def deviation(surface, kT, masses, squares):
    """RMS from known masses of the same bins below the ceiling, kT, one offset fitted; bins, and those not known."""
    with np.errstate(divide="ignore", invalid="ignore"):
        exact, noise = -np.log(masses), np.sqrt(squares) / masses
    low = (exact < exact.min() + CEILING) & (noise < MAX_NOISE)
    found, bars = surface.energy.ravel() / kT, surface.error.ravel() / kT
    both = low & np.isfinite(found)
    difference = found[both] - exact[both]
    difference -= np.average(difference, weights=1 / (bars**2 + noise**2 + 1e-4)[both])
    return {
        "rms": round(float(np.sqrt(np.mean(difference**2))), 4),
        "bars": round(float(np.sqrt(np.mean(bars[both] ** 2))), 4),
        "reference": round(float(np.sqrt(np.mean(noise[both] ** 2))), 4),
        "missing": int((low & ~both).sum()),
        "bins": int(low.sum()),
    }, low


def record_of(system, slow, frames, draws, log_weights, values, n_evaluations):
    """Of both surfaces, by the same histogram."""
    positions, weights = frames
    record = {}
    for name, axes, places, of_frames in (
        ("learned", FirstAxes.of(slow, 2), values, slow.transform(positions)),
        ("torsions", system.slow, draws.labels, system.slow.transform(positions)),
    ):
        surface = weighted_histogram(axes, places[:, :2], log_weights, system.temperature, n_evaluations)
        flat = bin_indices(of_frames[:, :2], surface.edges, surface.periods)
        inside, n = flat >= 0, surface.energy.size
        sums = [np.bincount(flat[inside], weights[inside] ** p, n) for p in (1, 2)]
        record[name], low = deviation(surface, system.kT, *sums)
        flat = bin_indices(places[:, :2], surface.edges, surface.periods)
        inside = (flat >= 0) & np.isfinite(log_weights)
        w = np.exp(log_weights[inside] - log_weights[inside].max())
        a, b, c = (np.bincount(flat[inside], w**p, n)[low] for p in (1, 2, 0))
        record[name]["effective"] = round(float(np.median((a**2 / np.maximum(b * c, 1e-300))[c > 0])), 3)
    return record


class Shuffled(DiffusionMap):
    """Each point with the coordinates of another."""

    def fit(self, X, **given):
        super().fit(X, **given)
        order = np.random.default_rng(3).permutation(len(self._vectors))
        self._vectors, self.coordinates_ = self._vectors[order], self.coordinates_[order]
        return self


class Conditional:
    """Torsions given a label: kernels around those of structures whose labels lie near it, and a uniform share."""

    def __init__(self, labels, torsions):
        self.labels, self.torsions, self.kappa = labels, torsions, TORSION_WIDTH**-2.0

    def _log_near(self, u):
        scaled = (u[:, None] - self.labels.centres) / self.labels.widths
        logs = -0.5 * (scaled**2).sum(axis=2)
        return logs - logsumexp(logs, axis=1)[:, None]

    def sample(self, u, rng):
        near = np.concatenate([_chosen(self._log_near(part), rng) for part in _parts(u)])
        angles = self.torsions[near] + rng.vonmises(0.0, self.kappa, (len(u), 2))
        even = rng.random(len(u)) < UNIFORM
        angles = np.where(even[:, None], rng.uniform(-np.pi, np.pi, (len(u), 2)), angles)
        return (angles + np.pi) % (2 * np.pi) - np.pi

    def log_density(self, angles, u):
        parts = []
        for some, of in zip(_parts(angles), _parts(u), strict=True):
            kernels = (self.kappa * (np.cos(some[:, None] - self.torsions) - 1)).sum(axis=2)
            kernels -= 2 * np.log(2 * np.pi * i0e(self.kappa))
            parts.append(logsumexp(kernels + self._log_near(of), axis=1))
        even = np.log(UNIFORM) - 2 * np.log(2 * np.pi)
        return np.logaddexp(np.log(1 - UNIFORM) + np.concatenate(parts), even)


def _parts(rows):
    return [rows[i : i + 500] for i in range(0, len(rows), 500)]


def _chosen(logs, rng):
    return (logs + rng.gumbel(size=logs.shape)).argmax(axis=1)


def conditioned(system, early, labels, torsions, n, rng, widths):
    """Draws at labels from p(u), their log-weights, and u(x)."""
    proposal, given = KernelProposal.around_frames(labels, widths), Conditional(labels, torsions)
    u = proposal.sample(n, rng)
    angles = given.sample(u, rng)
    draws = draw(system, [early.model], np.ones(1), angles, rng)
    values = np.full(u.shape, np.nan)
    ok = draws.reason == "ok"
    values[ok] = labels.slow.transform(early.model.chart.to_cartesian(draws.coordinates[ok]))
    log_weights = np.full(n, -np.inf)
    log_weights[ok] = draws.log_weights[ok] - given.log_density(angles[ok], u[ok])
    log_weights[ok] += proposal.log_ratio(u[ok], values[ok])
    return draws, log_weights, values


def run(method, seed, n_evaluations, frames):
    """One run, as a record."""
    system, options = load_system(SYSTEM), LoopOptions()
    first = options.windows.force_evaluations + FIRST_DRAWS
    early = learn(system, seed=seed, max_evaluations=n_evaluations if method == "project" else first)
    mine = early.lifts.select(early.lifts.round < 2)
    coordinates = structures_to_learn(mine, early.regression, seed)
    learned_labels.DiffusionMap = Shuffled if method == "shuffled" else DiffusionMap
    chart, rng = early.model.chart, named_rng(seed, "benchmark", method)
    labels = learned_labels.learn_slow_coordinates(system, chart.to_cartesian(coordinates), most=2, seed=seed).labels
    left, record = n_evaluations - first, {}
    if method in ("condition", "shuffled"):
        torsions = coordinates[:, chart.label_indices]
        trials = {}
        for scale in SCALES:
            _, logs, _ = conditioned(system, early, labels, torsions, N_PILOT, rng, scale * labels.widths)
            logs = np.where(np.isfinite(logs), logs, -np.inf)
            trials[scale] = float(np.exp(2 * logsumexp(logs) - logsumexp(2 * logs)) / N_PILOT)
        record["scale"] = max(trials, key=trials.get)
        left -= len(SCALES) * N_PILOT
        draws, logs, values = conditioned(system, early, labels, torsions, left, rng, record["scale"] * labels.widths)
    else:
        if method == "project":
            draws = early.lifts.select(early.lifts.round > 1)
            logs = pooled_log_weights(draws)
        else:
            placement = early.placements[-1]
            s = placement.sample(left, rng)
            draws = draw(system, [early.model], np.ones(1), s, rng)
            logs = draws.log_weights - placement.log_density(s)
        ok = np.isfinite(logs)
        values = np.full((len(draws), len(labels.slow.names)), np.nan)
        values[ok] = labels.slow.transform(chart.to_cartesian(draws.coordinates[ok]))
    record |= {"method": method, "seed": seed, "evaluations": n_evaluations, "labels": list(labels.slow.names)}
    return record | record_of(system, labels.slow, frames, draws, logs, values, n_evaluations)


def table():
    """Medians over the seeds there are."""
    records = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    print(f"{'method':>10} evaluations seeds | over u: rms missing effective | over torsions: rms missing effective")
    for method, n in sorted({(one["method"], one["evaluations"]) for one in records}, key=lambda key: key[::-1]):
        some = [one for one in records if (one["method"], one["evaluations"]) == (method, n)]
        cells = [
            f"{np.median([one[name]['rms'] for one in some]):8.3f} "
            f"{np.median([one[name]['missing'] / one[name]['bins'] for one in some]):6.1%} "
            f"{np.median([one[name]['effective'] for one in some]):6.3f}"
            for name in ("learned", "torsions")
        ]
        print(f"{method:>10} {n:>11} {len(some):>5} | {cells[0]} | {cells[1]}")


def main():
    """Parse the arguments, run what is missing, print."""
    parser = parser_of(__doc__, [1, 2, 3, 4])
    parser.add_argument("frames", type=Path)
    parser.add_argument("--n-frames", type=int, default=250_000)
    parser.add_argument("--methods", nargs="+", default=["project", "frozen", "condition", "shuffled"])
    parser.add_argument("--evaluations", type=int, default=35_000)
    arguments = parser.parse_args()
    if arguments.table:
        table()
        return
    if not arguments.frames.is_file():
        make_frames(arguments.frames, arguments.n_frames)
    frames = weighted_frames(arguments.frames)
    RESULTS.mkdir(parents=True, exist_ok=True)
    for seed in arguments.seeds:
        for method in arguments.methods:
            path = RESULTS / f"{method}_{arguments.evaluations}_{seed}.json"
            if not path.is_file():
                record = run(method, seed, arguments.evaluations, frames)
                write_atomically(path, json.dumps(record, indent=1) + "\n")
                print(json.dumps(record), flush=True)
    table()


if __name__ == "__main__":
    main()
