"""What relaxing is worth: effective samples a lift, and an evaluation, of each way, of one learned generator.

    python -m tests.benchmarks.relaxations [--systems SYSTEM ...] [--seeds 1 2] [--table]

For each system and seed a generator is learned; each way then lifts the same labels, below 6 kT of the learned surface,
several times each. It writes one file a way and seed under tests/benchmarks/results/relaxations/SYSTEM, and a killed
command goes on where it was.

``fraction``: effective samples a lift, ``(sum w)^2 / (n sum w^2)`` of the lifts of one label (fixed, or restrained in a
Context), averaged over labels. ``each``: evaluations a lift. ``per_evaluation``: their ratio, times 1000. ``seconds``:
CPU time a lift, user and system, in this one process.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from openmm_gancl import Lifter, learn, load_model, load_system
from openmm_gancl.files import write_atomically
from openmm_gancl.free_energy.weight_statistics import effective_sample_size
from tests.benchmarks.arguments import parser_of
from tests.physics.valine import valine

RESULTS = Path(__file__).parent / "results" / "relaxations"
N_LABELS, N_EACH, CEILING = 10, 96, 6.0
WAYS = {
    "none": {"relax": "none"},
    "latent 4": {"relax": "latent", "relax_steps": 4},
    "latent 10": {"relax": "latent", "relax_steps": 10},
    "latent 25": {"relax": "latent", "relax_steps": 25},
    "context 10": {"relax": "context", "relax_steps": 10},
    "context 50": {"relax": "context", "relax_steps": 50},
    "context 200": {"relax": "context", "relax_steps": 200},
}
EVALUATIONS = {
    "alanine_dipeptide_vacuum": 35_000,
    "alanine_dipeptide_gbsa": 35_000,
    "valine_dipeptide": 50_000,
    "ala_ala_vacuum": 60_000,
}
"""Of the learning."""


def system_of(name):
    return valine() if name == "valine_dipeptide" else load_system(name)


def problem(name, seed):
    """The generator of a loop, and labels below the ceiling; kept among temporary files, for the next way."""
    folder, system = Path(tempfile.gettempdir()), system_of(name)
    kept = [folder / f"relaxations_{name}_{seed}.safetensors", folder / f"relaxations_{name}_{seed}.npy"]
    if not all(path.exists() for path in kept):
        learned = learn(system, seed=seed, max_evaluations=EVALUATIONS[name])
        draws = learned.lifts
        eta = learned.regression.log_density(draws.labels)
        low = np.flatnonzero(eta > eta.max() - CEILING)
        np.save(kept[1], draws.labels[np.random.default_rng(seed).choice(low, N_LABELS, replace=False)])
        learned.model.save(kept[0])
    return system, load_model(kept[0]), np.load(kept[1])


def run(system, model, labels, way, seed):
    """One way, as a record."""
    lifter = Lifter(system, model, platform="Reference", **WAYS[way])
    begun = time.process_time()
    lifts = lifter.lift(np.repeat(labels, N_EACH, axis=0), seed=seed)
    seconds = (time.process_time() - begun) / len(lifts)
    sizes = [effective_sample_size(one) / N_EACH for one in lifts.log_weights.reshape(len(labels), N_EACH)]
    each = lifts.force_evaluations / len(lifts)
    return {
        "way": way,
        "seed": seed,
        "fraction": round(float(np.mean(sizes)), 4),
        "each": round(each, 2),
        "per_evaluation": round(1000 * float(np.mean(sizes)) / each, 3),
        "seconds": round(seconds, 5),
    }


def table(names):
    """Means over the seeds there are."""
    print(f"{'system':>26} {'way':>12} seeds  fraction    each  per_evaluation  seconds")
    for name in names:
        for way in WAYS:
            records = [json.loads(path.read_text()) for path in sorted((RESULTS / name).glob(f"{way}_[0-9]*.json"))]
            if records:
                keys = ("fraction", "each", "per_evaluation", "seconds")
                fraction, each, ratio, seconds = (np.mean([one[key] for one in records]) for key in keys)
                print(f"{name:>26} {way:>12} {len(records):5d}", end="")
                print(f" {fraction:9.3f} {each:7.1f} {ratio:15.2f} {seconds:8.4f}")


def main():
    parser = parser_of(__doc__, [1, 2], EVALUATIONS)
    arguments = parser.parse_args()
    if arguments.table:
        return table(arguments.systems)
    torch.set_num_threads(1)
    for seed in arguments.seeds:
        for name in arguments.systems:
            (RESULTS / name).mkdir(parents=True, exist_ok=True)
            paths = {way: RESULTS / name / f"{way}_{seed}.json" for way in WAYS}
            missing = [way for way, path in paths.items() if not path.exists()]
            if not missing:
                continue
            system, model, labels = problem(name, seed)
            for way in missing:
                record = run(system, model, labels, way, seed)
                write_atomically(paths[way], json.dumps(record, indent=1) + "\n")
                print(name, json.dumps(record), flush=True)
    return table(arguments.systems)


if __name__ == "__main__":
    sys.exit(main())
