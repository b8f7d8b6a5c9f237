"""Modes that no label names: surfaces and populations where training would see one rotamer of several.

    python -m tests.benchmarks.rotamers [--systems NAME ...] [--seeds 1 2 ...] [--budgets 70000 ...] [--table]

``serine_dipeptide`` (chi1 and the hydroxyl turn), ``valine_dipeptide`` (chi1), ``psi_alone`` (alanine dipeptide with
psi as its only label: phi turns) and ``forked_oscillator`` (y has two modes): the loop of each seed, its check, and the
exact or reference surface. It writes one file a system, budget and seed under tests/benchmarks/results/rotamers, and a
killed command goes on where it was.

``rms``: kT below 8.4 kT, one offset fitted; the references' own noise, about 0.16 to 0.18 kT for the first two, is in
it. ``weighted``: the same, bins weighted by the reference's errors. ``populations`` less the reference's: chi1 near
180, 60 and -60 degrees, C7eq, C5, C7ax (of the first two). ``apart``: RMS of two seeds' surfaces, kT, where they
were stored. ``cpu``: seconds, user and system, of this process.
"""

import argparse
import json
import sys
import time
from itertools import combinations
from pathlib import Path

import numpy as np

from openmm_gancl import learn, load_system
from openmm_gancl.files import write_atomically
from openmm_gancl.free_energy.grid import bin_centres
from openmm_gancl.lifting.frame_check import check_frames, labels_of_check
from openmm_gancl.lifting.loop_options import LoopOptions
from openmm_gancl.lifting.rounds import pooled_log_weights
from openmm_gancl.sampling.short_windows import ShortWindows
from tests.physics.exact import FORKED

RESULTS = Path(__file__).parent / "results" / "rotamers"
DATA = Path(__file__).parent.parent / "data"
CEILING, CHECK_CEILING = 8.4, 6.0
BUDGETS = {"serine_dipeptide": 70_000, "valine_dipeptide": 70_000, "psi_alone": 35_000, "forked_oscillator": 8000}
PARTS = 5
"""Of a reference's bin along each label, over which the surface is averaged."""


def system_of(name):
    card = DATA / f"{name}.toml"
    return load_system(card if card.exists() else name)


def reference_of(name):
    """Edges, free energy and error, kT, and populations or none."""
    if name == "forked_oscillator":
        edges = np.linspace(*system_of(name).slow.domain[0], 61)
        return (edges,), FORKED.surface(bin_centres((edges,))[:, 0]) / system_of(name).kT, np.full(60, 1e-6), None
    if name == "psi_alone":
        with np.load(DATA / "alanine_dipeptide_vacuum.npz") as found:
            energy, error = found["free_energy_kT"], found["standard_error_kT"]
            edges = found["edges"]
        weights = np.exp(-energy)
        sums = weights.sum(axis=0)
        return (
            (edges,),
            -np.log(sums),
            np.sqrt((weights**2 * np.where(weights > 0, error, 0) ** 2).sum(axis=0)) / sums,
            None,
        )
    with np.load(DATA / f"{name}_vacuum.npz") as found:
        edges = (found["edges"],) * 2
        return edges, found["free_energy_kT"], found["standard_error_kT"], found["populations"]


def bin_means(regression, edges):
    """The learned free energy of each bin, kT."""
    fine = [np.interp(np.arange(PARTS * (len(one) - 1) + 1) / PARTS, np.arange(len(one)), one) for one in edges]
    log_density = regression.log_density(bin_centres(tuple(fine)))
    for axis, one in enumerate(edges):
        log_density = log_density.reshape(*log_density.shape[:axis], len(one) - 1, PARTS, -1)
        log_density = np.logaddexp.reduce(log_density, axis=axis + 1) - np.log(PARTS)
    return -log_density.reshape([len(one) - 1 for one in edges])


def populations_of(learned):
    """Of chi1's thirds, C7eq, C5 and C7ax, by weight, with standard errors."""
    log_weights = pooled_log_weights(learned.lifts)
    weights = np.exp(log_weights - log_weights.max())
    weights /= weights.sum()
    chi = learned.lifts.coordinates[:, learned.model.map.circular_indices[0].item()]
    third = np.floor(np.mod(chi, 2 * np.pi) / (2 * np.pi / 3)).astype(int)
    phi, psi = learned.lifts.labels.T
    boxes = [third == 1, third == 0, third == 2]
    boxes.append((phi > -2.0) & (phi < -0.5) & (psi > -0.6) & (psi < 2.1))
    boxes.append(((phi < -2.0) | (phi > 2.6)) & ((psi > 2.0) | (psi < -2.4)))
    boxes.append((phi > 0.4) & (phi < 1.9) & (psi > -2.1) & (psi < 0.6))
    shares = [weights[box].sum() for box in boxes]
    return shares, [np.sqrt((weights**2 * (box - p) ** 2).sum()) for box, p in zip(boxes, shares, strict=True)]


def run(name, budget, seed):
    """One loop and its check, as a record."""
    system, begun = system_of(name), time.process_time()
    options = LoopOptions(ShortWindows(n=20), n_first=500) if name == "forked_oscillator" else LoopOptions()
    learned = learn(system, seed=seed, max_evaluations=budget, options=options)
    places = learned.lifts.labels
    log_density = learned.regression.log_density(places)
    low = places[log_density > log_density.max() - CHECK_CEILING]
    check = check_frames(system, learned.model, low, labels_of_check(system, budget // 5), seed=seed)
    cpu = time.process_time() - begun
    edges, exact, error, populations = reference_of(name)
    below = exact < CEILING
    surface = bin_means(learned.regression, edges)[below]
    off = surface - exact[below]
    by_error = np.where(np.isfinite(error[below]), (error[below] ** 2 + 0.05**2) ** -1.0, 0.0)
    weighted = off - np.average(off, weights=by_error)
    record = {
        "system": name,
        "budget": budget,
        "seed": seed,
        "rms": round(float(off.std()), 4),
        "weighted": round(float(np.sqrt(np.average(weighted**2, weights=by_error))), 4),
        "efficiency": round(check.efficiency, 3),
        "p_value": float(f"{check.p_value:.2g}"),
        "pooled_z": round(check.pooled_z, 2),
        "doubts": [*check.unseen, *learned.doubts],
        "cpu": round(cpu, 1),
        "surface": np.round(surface - surface.mean(), 3).tolist(),
    }
    if populations is not None:
        found, errors = populations_of(learned)
        record["populations"] = np.round(np.array(found) - populations, 4).tolist()
        record["population_errors"] = np.round(errors, 4).tolist()
    return record


def table():
    """Medians over the seeds there are."""
    groups = {}
    for path in sorted(RESULTS.glob("*.json")):
        record = json.loads(path.read_text())
        groups.setdefault((record["system"], record["budget"]), []).append(record)
    print("| system | evaluations | seeds | RMS, kT: median (worst) | apart | populations off by | doubts | CPU, s |")
    print("|---|---|---|---|---|---|---|---|")
    for (name, budget), records in groups.items():
        rms = [one["rms"] for one in records]
        off = [np.abs(one["populations"]).max() for one in records if "populations" in one]
        populations = f"{np.median(off):.3f} ({max(off):.3f})" if off else ""
        of_rms = f"{np.median(rms):.3f} ({max(rms):.3f})"
        pairs = combinations([np.array(one["surface"]) for one in records if "surface" in one], 2)
        apart = ", ".join(f"{(first - second).std():.3f}" for first, second in pairs)
        doubts, cpu = sum(bool(one["doubts"]) for one in records), np.median([one["cpu"] for one in records])
        print(f"| {name} | {budget:,} | {len(records)} | {of_rms} | {apart} | {populations} | {doubts} | {cpu:.0f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--systems", nargs="+", default=list(BUDGETS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--budgets", type=int, nargs="+", help="in place of each system's own")
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    for seed in () if arguments.table else arguments.seeds:
        for name in arguments.systems:
            for budget in arguments.budgets or [BUDGETS[name]]:
                path = RESULTS / f"{name}_{budget}_{seed}.json"
                if not path.exists():
                    record = run(name, budget, seed)
                    write_atomically(path, json.dumps(record, indent=1) + "\n")
                    print(json.dumps(record), flush=True)
    return table()


if __name__ == "__main__":
    sys.exit(main())
