"""ACE-ALA-ALA-NME: surfaces over each pair of its four torsions, by replica exchange and by this package's loop.

    python -m tests.benchmarks.replica_exchange FOLDER --sample 1 --iterations 25000
    python -m tests.benchmarks.replica_exchange FOLDER --learn 1 2 3 4
    python -m tests.benchmarks.replica_exchange FOLDER --table

``--sample N`` runs replica exchange with openmmtools, run N: eight replicas from 300 to 600 K, an exchange every 500
steps, and goes on where a killed command was. ``--learn`` runs ``openmm_gancl.learn`` with these seeds at each of its
budgets. Both write into FOLDER; ``--table`` compares them and writes tests/benchmarks/results/replica_exchange.json.

All steps of all replicas count, and so do the energies of the exchanges and of the frames. Torsions and energies are
stored every 50 steps, and the frames of all temperatures are weighed by MBAR. Surfaces are compared in bins of 15
degrees. Replica exchange is a histogram of weights, smoothed by the Gaussian that is best for it: none, or half a bin,
or one; its first evaluations are compared with the whole of the other run, the loop with both runs together. Errors are
RMS below 6 kT, means aligned; what has no value, or one above 10 kT, counts 10 kT.
"""

import argparse
import json
import sys
import warnings
from itertools import combinations
from pathlib import Path

import numpy as np
from openmm import Platform, unit
from scipy.constants import R as GAS_CONSTANT
from scipy.ndimage import gaussian_filter
from scipy.special import logsumexp

from openmm_gancl import learn, load_system
from openmm_gancl.files import write_atomically
from openmm_gancl.free_energy.mbar import solve_mbar

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from openmmtools import cache, mcmc, multistate, states

SYSTEM = "ala_ala_vacuum"
RESULTS = Path(__file__).parent / "results" / "replica_exchange.json"
TEMPERATURES = np.geomspace(300, 600, 8)
STEPS, STRIDE, AT_ONCE, EQUILIBRATION = 500, 50, 500, 200
"""Steps between exchanges and between frames, iterations between files, iterations left out."""

LEARNED = (25_000, 50_000, 100_000)
SAMPLED = (300_000, 1_000_000, 3_000_000, 10_000_000, 30_000_000, 100_000_000)
BINS, CEILING, HIGHEST, SMOOTHINGS = 24, 6.0, 10.0, (0.0, 0.5, 1.0)
EDGES = np.linspace(-np.pi, np.pi, BINS + 1)
PAIRS = list(combinations(range(4), 2))
FRAMES = {"temperature": [], "energy": [], "positions": []}
"""Of the iterations since the last file."""


class RecordedDynamics(mcmc.LangevinDynamicsMove):
    """Langevin dynamics that stores a frame every so many steps."""

    def _before_integration(self, context, thermodynamic_state):
        for _ in range(STEPS // STRIDE - 1):
            context.getIntegrator().step(STRIDE)
            state = context.getState(positions=True, energy=True)
            FRAMES["temperature"].append(thermodynamic_state.temperature.value_in_unit(unit.kelvin))
            FRAMES["energy"].append(state.getPotentialEnergy()._value)
            FRAMES["positions"].append(state.getPositions(asNumpy=True)._value)


def sampler_at(storage, target, seed):
    """The sampler of a file, begun if it is not there."""
    if storage.exists():
        return multistate.ParallelTemperingSampler.from_storage(str(storage))
    dynamics = RecordedDynamics(
        target.time_step * unit.picosecond, target.friction / unit.picosecond, n_steps=STRIDE, reassign_velocities=False
    )
    sampler = multistate.ParallelTemperingSampler(mcmc_moves=dynamics, number_of_iterations=np.inf)
    state = states.ThermodynamicState(target.system, TEMPERATURES[0] * unit.kelvin)
    reporter = multistate.MultiStateReporter(str(storage), checkpoint_interval=AT_ONCE)
    ends = {"min_temperature": 300 * unit.kelvin, "max_temperature": 600 * unit.kelvin, "n_temperatures": 8}
    np.random.seed(seed)  # noqa: NPY002, which openmmtools exchanges with
    sampler.create(state, states.SamplerState(target.positions * unit.nanometer), reporter, **ends)
    return sampler


def sample(folder, seed, iterations):
    """Replica exchange up to a number of iterations, a file of frames for each 500."""
    cache.global_context_cache.platform = Platform.getPlatformByName("Reference")
    target = load_system(SYSTEM)
    folder.mkdir(parents=True, exist_ok=True)
    sampler = sampler_at(folder / "replicas.nc", target, seed)
    while sampler.iteration < iterations:
        for values in FRAMES.values():
            values.clear()
        sampler.extend(AT_ONCE)
        labels = target.slow.transform(np.array(FRAMES["positions"])).astype(np.float32)
        where = folder / f"frames-{sampler.iteration:06d}.npz"
        np.savez(where, labels=labels, energy=FRAMES["energy"], temperature=FRAMES["temperature"])
        print(sampler.iteration, flush=True)


def load_frames(folder, evaluations=np.inf):
    """Labels, energies and indices of the temperatures, of a run's first iterations, and what they cost."""
    files = sorted(folder.glob("frames-*.npz"))
    per_iteration = len(TEMPERATURES) * (STEPS // STRIDE - 1)
    cost = len(TEMPERATURES) * (STEPS + 1) + per_iteration
    last = int(min(evaluations / cost, AT_ONCE * len(files)))
    rows = []
    for file in files[: -(-last // AT_ONCE)]:
        with np.load(file) as stored:
            rows.append([stored[name] for name in ("labels", "energy", "temperature")])
    first = min(EQUILIBRATION, last // 4) * per_iteration
    kept = slice(first, last * per_iteration)
    labels, energy, temperature = (np.concatenate(part)[kept] for part in zip(*rows, strict=True))
    return labels, energy, np.abs(temperature[:, None] - TEMPERATURES).argmin(axis=1), last * cost


def weights_of(energy, index):
    """Of all frames at the first temperature, by MBAR; its free energies come from at most 100,000 of them."""
    biases = np.outer(energy - energy.min(), 1000 / (GAS_CONSTANT * TEMPERATURES))
    thin = np.random.default_rng(0).permutation(len(energy))[:100_000]
    thin = thin[np.argsort(index[thin], kind="stable")]
    solution = solve_mbar(biases[thin], np.bincount(index[thin], minlength=len(TEMPERATURES)))
    counts = np.bincount(index, minlength=len(TEMPERATURES))
    logs = -biases[:, 0] - logsumexp(np.log(counts) + solution.free_energies - biases, axis=1)
    return np.exp(logs - logs.max())


def shares(labels, weights):
    """Of each pair's bins, shape=(6, n_bins, n_bins)."""
    found = [np.histogram2d(*labels[:, pair].T, bins=(EDGES, EDGES), weights=weights)[0] for pair in PAIRS]
    return np.array(found) / weights.sum()


def shares_of_run(folder, evaluations=np.inf):
    """The same of replica exchange, and what it cost."""
    labels, energy, index, cost = load_frames(folder, evaluations)
    return shares(labels, weights_of(energy, index)), cost


def errors(found, reference):
    """RMS deviation (kT) of each pair's surface from the reference's below the ceiling."""
    with np.errstate(divide="ignore"):
        found, exact = -np.log(found), -np.log(reference)
    rows = []
    for one, right in zip(found, exact, strict=True):
        right, one = right - right.min(), np.minimum(one - one.min(), HIGHEST)
        rows.append(round(float((one - right)[right < CEILING].std()), 4))
    return rows


def best_smoothed(found, reference):
    """Errors with the smoothing that has the least."""
    smooth = [
        np.array([gaussian_filter(one, width, mode="wrap") for one in found]) if width else found
        for width in SMOOTHINGS
    ]
    return min((errors(one, reference) for one in smooth), key=max)


def learn_seed(folder, seed):
    """The loop's shares of each pair's bins at each budget, one file each."""
    folder.mkdir(parents=True, exist_ok=True)
    target = load_system(SYSTEM)
    for budget in LEARNED:
        path = folder / f"learned-{budget}-{seed}.npz"
        if path.exists():
            continue
        learned = learn(target, seed=seed, max_evaluations=budget)
        found = []
        for pair in PAIRS:
            energy = learned.surface_over(*(target.slow.names[i] for i in pair)).energy / target.kT
            parts = len(energy) // BINS
            found.append(np.exp(-energy).reshape(BINS, parts, BINS, parts).sum(axis=(1, 3)))
        np.savez(path, shares=found, evaluations=learned.surface.force_evaluations, doubts=learned.doubts)
        print(path.name, flush=True)


def table(folder):
    """Errors of both, as a record."""
    runs = sorted(folder.glob("run-*"))
    whole = [shares_of_run(run) for run in runs]
    reference = np.mean([found for found, _ in whole], axis=0)
    record = {
        "pairs": [list(pair) for pair in PAIRS],
        "reference evaluations": [cost for _, cost in whole],
        "between the two runs": best_smoothed(whole[0][0], whole[1][0]),
        "replica exchange": [],
        "learn": [],
    }
    for number, run in enumerate(runs):
        for budget in (one for one in SAMPLED if one < whole[number][1]):
            found, cost = shares_of_run(run, budget)
            row = {"run": number + 1, "evaluations": cost, "kT": best_smoothed(found, whole[1 - number][0])}
            record["replica exchange"].append(row)
    for path in sorted(folder.glob("learned-*.npz")):
        _, budget, seed = path.stem.split("-")
        with np.load(path) as stored:
            row = {"seed": int(seed), "evaluations": int(stored["evaluations"])}
            row |= {"kT": errors(stored["shares"], reference), "doubts": stored["doubts"].tolist()}
        record["learn"].append(row)
    return record


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--sample", type=int, metavar="N")
    action.add_argument("--learn", type=int, nargs="+", metavar="SEED")
    action.add_argument("--table", action="store_true")
    parser.add_argument("--iterations", type=int, default=25_000)
    arguments = parser.parse_args()
    if arguments.sample is not None:
        sample(arguments.folder / f"run-{arguments.sample}", arguments.sample, arguments.iterations)
    for seed in arguments.learn or ():
        learn_seed(arguments.folder, seed)
    if arguments.table:
        record = table(arguments.folder)
        write_atomically(RESULTS, json.dumps(record, indent=1) + "\n")
        for name in ("replica exchange", "learn"):
            for row in record[name]:
                print(f"{name:>16} {row['evaluations']:>12,}  " + " ".join(f"{one:6.3f}" for one in row["kT"]))
        print("between the two runs          " + " ".join(f"{one:6.3f}" for one in record["between the two runs"]))


if __name__ == "__main__":
    sys.exit(main())
