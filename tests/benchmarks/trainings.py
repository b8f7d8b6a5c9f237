"""What each training of the network is worth: one table, from equal steps.

    python -m tests.benchmarks.trainings [--system SYSTEM] [--seeds 1 2 3 4] [--trainings none scores ...] [--table]

Every training starts from the same closed-form map and the same structures, with as many steps of the network; it
writes one file under tests/benchmarks/results/trainings/SYSTEM, and a killed command goes on where it was.

- ``alanine_dipeptide_vacuum``: map and structures of a run of 50,000 evaluations;
- ``forked_oscillator``: 20,000 exact structures with labels spread evenly. Its fast coordinate has two wells, which
  the normal map does not have: here a training must find modes, and their weights.

``ess``: effective samples a lift, ``(sum v)^2 / (n sum v^2)``, ``v = w exp(F(s)/kT)`` with the reference's F, nothing
truncated and zeros counted, of 20,000 lifts spread evenly (below 8.4 kT). ``upper``: the mean difference between the
network's own share of draws in the upper well and the exact one, over ten labels. ``held_out``: minus the mean log
density of structures, nats, less that of the map alone; the last tenth is held out of every training.
``seconds``: CPU time of the training, user and system.
"""

import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from openmm_gancl import load_system
from openmm_gancl.files import write_atomically
from openmm_gancl.generator.invertible import InvertibleGenerator
from openmm_gancl.generator.network_training import NetworkOptions, with_network
from openmm_gancl.generator.score_fit import fit_triangular
from openmm_gancl.lifting.draws import log_targets
from openmm_gancl.lifting.loop import LEAST_TRAINING_WEIGHT, LOG_TRUNCATION, learn
from openmm_gancl.reference.chart import chart_for
from tests.benchmarks.arguments import parser_of
from tests.physics.exact import FORKED

RESULTS = Path(__file__).parent / "results" / "trainings"
REFERENCE = Path(__file__).parent.parent / "data" / "alanine_dipeptide_vacuum.npz"
N_LIFTS, N_STRUCTURES, MAX_EVALUATIONS, CEILING = 20_000, 20_000, 50_000, 8.4
TERMS = {
    "none": {},
    "scores": {"scores": 1.0},
    "likelihood": {"likelihood": 1.0},
    "adversarial": {"adversarial": 1.0},
    "likelihood+adversarial": {"likelihood": 1.0, "adversarial": 1.0},
    "scores+likelihood": {"scores": 1.0, "likelihood": 0.01},
    "scores+adversarial": {"scores": 1.0, "adversarial": 0.01},
}
SETTINGS = {
    "alanine_dipeptide_vacuum": {},
    "forked_oscillator": {"n_steps": 1000, "batch": 256, "n_layers": 6},
}


@dataclass(frozen=True)
class Problem:
    """A map, structures of its target, and labels with their reference free energies (kT), shapes (n, ...)."""

    generator: InvertibleGenerator
    coordinates: np.ndarray
    gradients: np.ndarray
    weights: np.ndarray
    labels: np.ndarray
    energies: np.ndarray


def alanine(system, seed):
    """Of a run of the loop; its draws weigh as they do when the loop trains."""
    learned = learn(system, seed=seed, max_evaluations=MAX_EVALUATIONS)
    draws = learned.lifts
    ratios = draws.log_weights - learned.regression.log_density(draws.labels)
    weights = np.exp(np.minimum(ratios, LOG_TRUNCATION))
    used = np.flatnonzero(weights > LEAST_TRAINING_WEIGHT)
    with np.load(REFERENCE) as reference:
        exact, edges = reference["free_energy_kT"], reference["edges"]
    rng, cells = np.random.default_rng(seed), np.argwhere(exact < CEILING)
    chosen = cells[rng.integers(0, len(cells), N_LIFTS)]
    labels = edges[chosen] + rng.random(chosen.shape) * (edges[1] - edges[0])
    structures = draws.coordinates[used], draws.gradients[used], weights[used]
    return Problem(learned.model, *structures, labels, exact[tuple(chosen.T)])


def forked(system, seed):
    """Exact structures; the free energy is that of the integral over both wells."""
    rng = np.random.default_rng(seed)
    chart = chart_for(system.topology, system.slow, system.positions)
    x = rng.uniform(-1, 1, N_STRUCTURES)
    wells, centre, width = FORKED.fast(x)
    upper = rng.random(N_STRUCTURES) < wells[0][0]
    y = np.where(upper, wells[0][1], wells[1][1]) + wells[0][2] * rng.standard_normal(N_STRUCTURES)
    positions = np.stack([x, y, centre + width * rng.standard_normal(N_STRUCTURES)], axis=1)
    coordinates, gradients = chart.to_internal(positions[:, None]), -FORKED.gradient(positions) / system.kT
    labels = rng.uniform(-1, 1, (N_LIFTS, 1))
    made = fit_triangular(chart, system.slow, coordinates, gradients)
    energies = FORKED.surface(labels[:, 0]) / system.kT
    generator = InvertibleGenerator(made, chart, system.slow)
    return Problem(generator, coordinates, gradients, np.ones(N_STRUCTURES), labels, energies)


PROBLEMS = {"alanine_dipeptide_vacuum": alanine, "forked_oscillator": forked}


def effective_samples(system, generator, problem, seed):
    """A lift, and the network's own share of the upper well less the exact one, over ten labels."""
    coordinates, log_density = generator.sample(problem.labels, np.random.default_rng(seed + 1000))
    inside = generator.inside(coordinates)
    log_target, _, _ = log_targets(system, generator.chart, coordinates, inside, "Reference")
    logs = log_target - log_density + problem.energies
    v = np.exp(logs - logs.max())
    return float(v.sum() ** 2 / (len(v) * (v**2).sum()))


def upper_difference(generator, problem, seed):
    """Mean over ten labels of the difference from the exact share; for the forked oscillator."""
    coordinates, _ = generator.sample(problem.labels, np.random.default_rng(seed + 1000))
    x, found = problem.labels[:, 0], generator.chart.to_cartesian(coordinates)[:, 0, 1] > 0
    exact = FORKED.fast(x)[0][0][0]
    part = np.clip(((x + 1) * 5).astype(int), 0, 9)
    return float(np.mean([abs(found[part == i].mean() - exact[part == i].mean()) for i in range(10)]))


def run(system, problem, name, training, seed):
    """One training, as a record."""
    n = len(problem.weights) * 9 // 10
    structures = problem.coordinates[:n], problem.gradients[:n], problem.weights[:n]
    options = NetworkOptions(**{"scores": 0.0} | SETTINGS[name] | TERMS[training])
    begun, generator = time.process_time(), problem.generator
    if training != "none":
        generator = with_network(generator, *structures, seed=seed, options=options)
    seconds = time.process_time() - begun
    rest, share = problem.coordinates[n:], problem.weights[n:] / problem.weights[n:].sum()
    gain = share @ (generator.log_density(rest) - problem.generator.log_density(rest))
    record = {"training": training, "seed": seed, "options": asdict(options), "seconds": round(seconds, 1)}
    record["ess"] = round(effective_samples(system, generator, problem, seed), 4)
    record["held_out"] = round(float(-gain), 4)
    if name == "forked_oscillator":
        record["upper"] = round(upper_difference(generator, problem, seed), 4)
    return record


def path_of(name, training, seed):
    return RESULTS / name / f"{training}_{seed}.json"


def table(name):
    """Medians over the seeds there are."""
    print(f"{'training':>24} seeds    ess  held_out  upper  seconds")
    for training in TERMS:
        files = sorted((RESULTS / name).glob(f"{training}_[0-9]*.json"))
        if files:
            records = [json.loads(path.read_text()) for path in files]
            middle = [
                f"{np.median([one[key] for one in records]):.3f}" if key in records[0] else "-"
                for key in ("ess", "held_out", "upper", "seconds")
            ]
            print(f"{training:>24} {len(records):5d}  {middle[0]:>5} {middle[1]:>9} {middle[2]:>6} {middle[3]:>8}")


def main():
    parser = parser_of(__doc__, [1, 2, 3, 4])
    parser.add_argument("--system", choices=PROBLEMS, default="forked_oscillator")
    parser.add_argument("--trainings", choices=TERMS, nargs="+", default=list(TERMS))
    arguments = parser.parse_args()
    name, system = arguments.system, load_system(arguments.system)
    if arguments.table:
        return table(name)
    torch.set_num_threads(1)
    (RESULTS / name).mkdir(parents=True, exist_ok=True)
    for seed in arguments.seeds:
        missing = [one for one in arguments.trainings if not path_of(name, one, seed).exists()]
        if not missing:
            continue
        with threadpool_limits(1, user_api="blas"):
            problem = PROBLEMS[name](system, seed)
            for training in missing:
                record = run(system, problem, name, training, seed)
                write_atomically(path_of(name, training, seed), json.dumps(record, indent=1) + "\n")
                print(json.dumps(record), flush=True)
    return table(name)


if __name__ == "__main__":
    sys.exit(main())
