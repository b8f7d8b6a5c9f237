"""Whether the surface's error bars cover, and whether a run that ends at a target error has it.

    python -m tests.benchmarks.coverage [--seeds 1 2 ... 16] [--table]

For each seed, alanine dipeptide in vacuum: the loop of a default run (35,000 evaluations; the network, which rounds do
not draw from, left out), and one that ends at a target error of 0.2 kT. It writes one file a seed under
tests/benchmarks/results/coverage, and a killed command goes on where it was.

``rms``: from the reference below 8.4 kT, one offset fitted. ``bands``: fraction of the bins of a band of the
reference's free energy within one standard error, the reference's included. ``target_rms``: of the second loop.
"""

import json
import sys
from pathlib import Path

import numpy as np

from openmm_gancl import learn, load_system
from openmm_gancl.files import write_atomically
from tests.benchmarks.arguments import parser_of

RESULTS = Path(__file__).parent / "results" / "coverage"
REFERENCE = Path(__file__).parent.parent / "data" / "alanine_dipeptide_vacuum.npz"
BANDS = ((0.0, 3.0), (3.0, 6.0), (6.0, 8.4))
MAX_EVALUATIONS, TARGET = 35_000, 0.2


def compare(surface, kT):
    """RMS deviation, and the coverage of each band."""
    with np.load(REFERENCE) as reference:
        exact, own = reference["free_energy_kT"], reference["standard_error_kT"]
    low = exact < BANDS[-1][1]
    difference = surface.energy / kT - exact
    finite = low & np.isfinite(difference)
    error = np.hypot(surface.error / kT, own)
    # the offset of bars that count from an aligned surface
    difference = difference - np.average(difference[finite], weights=error[finite] ** -2.0)
    bands = [finite & (exact >= begin) & (exact < end) for begin, end in BANDS]
    covered = [float((np.abs(difference[band]) < error[band]).mean()) for band in bands]
    centred = difference[finite] - difference[finite].mean()
    return float(centred.std()), covered, int(low.sum() - finite.sum())


def run(seed):
    """Both loops of one seed, as a record."""
    system = load_system("alanine_dipeptide_vacuum")
    learned = learn(system, seed=seed, max_evaluations=MAX_EVALUATIONS)
    rms, bands, missing = compare(learned.surface, system.kT)
    target = learn(system, seed=seed, target_error=TARGET, max_evaluations=1_000_000)
    target_rms, _, target_missing = compare(target.surface, system.kT)
    return {
        "seed": seed,
        "rms": round(rms, 4),
        "bands": [round(one, 4) for one in bands],
        "missing": missing,
        "target_rms": round(target_rms, 4),
        "target_evaluations": target.surface.force_evaluations,
        "target_missing": target_missing,
    }


def table():
    """Over all seeds there are."""
    records = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    if not records:
        return
    print(f"{len(records)} seeds; RMS {quartiles([one['rms'] for one in records])} kT")
    bands = np.array([one["bands"] for one in records])
    for (begin, end), band in zip(BANDS, bands.T, strict=True):
        print(f"{begin:.1f} to {end:.1f} kT: {band.mean():.3f} +- {band.std(ddof=1) / np.sqrt(len(band)):.3f} covered")
    rms = np.array([one["target_rms"] for one in records])
    costs = [one["target_evaluations"] for one in records]
    print(f"target {TARGET} kT: RMS {quartiles(rms)}, at most 0.26 in {(rms <= 0.26).sum()}")
    print(f"for {np.median(costs):.0f} evaluations")


def quartiles(values):
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return f"{middle:.3f} ({low:.3f} to {high:.3f}, worst {max(values):.3f})"


def main():
    parser = parser_of(__doc__, range(1, 17))
    arguments = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    for seed in () if arguments.table else arguments.seeds:
        path = RESULTS / f"{seed}.json"
        if not path.exists():
            record = run(seed)
            write_atomically(path, json.dumps(record, indent=1) + "\n")
            print(json.dumps(record), flush=True)
    return table()


if __name__ == "__main__":
    sys.exit(main())
