"""Effective samples a lift of the generator that a default run saves, of the map beneath it, and with latent moves.

    python -m tests.benchmarks.saved_generators RUNS [--systems SYSTEM ...] [--seeds 1 2 3 4] [--table]

runs `gancl run SYSTEM --max-evaluations N --seed S -o RUNS/SYSTEM_S`, or goes on with it, loads model.safetensors, and
lifts 20,000 labels that are spread evenly below 8.4 kT. It writes one file a seed under
tests/benchmarks/results/saved_generators/SYSTEM, and a killed command goes on where it was.

Effective samples are ``(sum v)^2 / (n sum v^2)`` with ``v = w exp(F(s)/kT)``, nothing truncated, zeros counted. F is
the reference of alanine dipeptide; over all four labels of ACE-ALA-ALA-NME there is none, and F at each of 1,000
labels is from 400 other lifts there, whose scatter lowers the result a little. ``gan``: of the file's generator;
``map``: of its map alone, at the same labels from the same base numbers; ``latent N``: of 2,000 lifts after N moves,
their step from a pilot.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from scipy.stats import qmc

from openmm_gancl import load_model, load_system
from openmm_gancl.coordinates.slow_coordinates import in_domain
from openmm_gancl.files import write_atomically
from openmm_gancl.lifting.draws import draw_base
from openmm_gancl.lifting.latent_relaxation import LatentMoves, choose_step, lift_latent
from openmm_gancl.lifting.rounds import load_round
from tests.benchmarks.arguments import parser_of

RESULTS = Path(__file__).parent / "results" / "saved_generators"
REFERENCE = Path(__file__).parent.parent / "data" / "alanine_dipeptide_vacuum.npz"
SYSTEMS = ("alanine_dipeptide_vacuum", "ala_ala_vacuum")
EVALUATIONS, MOVES = 50_000, (10, 20)
N_LIFTS, N_RELAXED, CEILING = 20_000, 2_000, 8.4
N_PLACES, N_OTHERS = 1_000, 400
"""Labels without a reference, and other lifts at each of them."""


def of_reference(rng):
    """Labels of alanine dipeptide, evenly over the reference's bins below the ceiling, and their energies (kT)."""
    with np.load(REFERENCE) as reference:
        exact, edges = reference["free_energy_kT"], reference["edges"]
    cells = np.argwhere(exact < CEILING)
    chosen = cells[rng.integers(0, len(cells), N_LIFTS)]
    labels = edges[chosen] + rng.random(chosen.shape) * (edges[1] - edges[0])
    return labels, exact[tuple(chosen.T)]


def of_other_lifts(system, generator, folder, rng):
    """Labels evenly below the ceiling of other lifts there, chosen by the run's last surface, and energies (kT)."""
    regression = load_round(last_round(folder), system.slow).regression
    candidates = system.slow.domain[:, 0] + qmc.Sobol(len(system.slow.names), rng=rng).random(2**17) * np.ptp(
        system.slow.domain, axis=1
    )
    candidates = candidates[in_domain(candidates, system.slow)]
    energies = -regression.log_density(candidates)
    places = candidates[rng.choice(np.flatnonzero(energies - energies.min() < CEILING), N_PLACES, replace=False)]
    found = np.empty(N_PLACES)
    for i, place in enumerate(places):
        others = draw_base(system, generator, generator.sample_base(N_OTHERS, rng), np.tile(place, (N_OTHERS, 1)))
        found[i] = np.log(N_OTHERS) - np.logaddexp.reduce(others.log_weights)
    low = np.flatnonzero(found - found.min() < CEILING)
    # in any order: the first of them serve the latent moves
    chosen = rng.permutation(np.resize(low, N_LIFTS))
    return places[chosen], found[chosen]


def last_round(folder):
    return sorted((folder / "rounds").glob("*/lifts"))[-1]


def fraction(log_weights, energies):
    logs = log_weights + energies
    v = np.exp(logs - logs.max())
    return round(float(v.sum() ** 2 / (len(v) * (v**2).sum())), 4)


def measure(name, folder, seed):
    """Of one run, as a record."""
    system, generator = load_system(name), load_model(folder / "model.safetensors")
    rng = np.random.default_rng(seed + 1000)
    has_reference = name == "alanine_dipeptide_vacuum"
    labels, energies = of_reference(rng) if has_reference else of_other_lifts(system, generator, folder, rng)
    base = generator.sample_base(N_LIFTS, rng)
    record = {"system": name, "seed": seed, "evaluations": EVALUATIONS, "pilot": generator.metadata.get("pilot")}
    record["gan"] = fraction(draw_base(system, generator, base, labels).log_weights, energies)
    alone = load_model(folder / "model.safetensors")
    alone.map.narrow.has_network = False
    record["map"] = fraction(draw_base(system, alone, base, labels).log_weights, energies)
    step, _ = choose_step(system, generator, labels, rng)
    for n in MOVES:
        lifts = lift_latent(system, generator, labels[:N_RELAXED], rng, LatentMoves(n, step))
        record[f"latent {n}"] = fraction(lifts.log_weights, energies[:N_RELAXED])
    return record


def table(names):
    """Of every seed, and the medians."""
    for name in names:
        records = [json.loads(path.read_text()) for path in sorted((RESULTS / name).glob("*.json"))]
        if records:
            keys = [key for key in records[0] if key in ("gan", "map") or key.startswith("latent")]
            print(f"{name:>26}  seed  " + "  ".join(f"{key:>9}" for key in keys))
            for one in records:
                print(f"{'':26}  {one['seed']:4d}  " + "  ".join(f"{one[key]:9.3f}" for key in keys))
            middle = (np.median([one[key] for one in records]) for key in keys)
            print(f"{'':26}  median" + "  ".join(f"{value:9.3f}" for value in middle))


def main():
    parser = parser_of(__doc__, [1, 2, 3, 4], SYSTEMS)
    parser.add_argument("runs", type=Path)
    arguments = parser.parse_args()
    if arguments.table:
        return table(arguments.systems)
    torch.set_num_threads(1)
    for name in arguments.systems:
        for seed in arguments.seeds:
            path, folder = RESULTS / name / f"{seed}.json", arguments.runs / f"{name}_{seed}"
            if path.exists():
                continue
            options = ["--max-evaluations", str(EVALUATIONS), "--seed", str(seed)]
            gancl = Path(sys.executable).parent / "gancl"
            command = [str(gancl), "run", name, "-o", str(folder), *options]
            code = subprocess.run(command, stdout=subprocess.DEVNULL).returncode
            if code not in (0, 3):
                return code
            record = {**measure(name, folder, seed), "code": code}
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, json.dumps(record, indent=1) + "\n")
            print(json.dumps(record), flush=True)
    return table(arguments.systems)


if __name__ == "__main__":
    sys.exit(main())
