"""Generators where a coordinate that is no label has several modes.

    python -m tests.benchmarks.multimodal [--systems NAME ...] [--generators triangular gan product] [--preset quick]
        [--seed 1] [--table]

``forked_oscillator`` (y has two modes), ``psi_alone`` and ``phi_alone`` (alanine dipeptide labelled by one torsion: the
other turns), ``learned`` (alanine dipeptide labelled by a diffusion map), ``valine_dipeptide`` and ``serine_dipeptide``
(chi1): `gancl run CARD --generator G --preset P`, the product generator with its latents and relaxation, the others
without. It writes one file a system and generator under tests/benchmarks/results/multimodal, and a killed command goes
on where it was.

``effective``: mode-aware effective samples a lift, by the run's check; ``per 1,000``: that for 1,000 evaluations of
lifting, relaxation included. ``mode``: population of one mode by weight, with its standard error, less the exact or
reference one: y < 0, phi > 0 (``psi_alone``, ``learned``), psi beyond 120 degrees, chi1 trans of valine, chi1 gauche
plus of serine.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import mdtraj
import numpy as np

from openmm_gancl import load_system
from openmm_gancl.files import write_atomically
from openmm_gancl.lifting.lifts import load_lifts
from openmm_gancl.lifting.surface import weighted_ends

RESULTS = Path(__file__).parent / "results" / "multimodal"
DATA = Path(__file__).parent.parent / "data"
SYSTEMS = ("forked_oscillator", "psi_alone", "phi_alone", "learned", "valine_dipeptide", "serine_dipeptide")
GENERATORS = ("triangular", "gan", "product")

THIRD = 2 * np.pi / 3
MODES = {
    "psi_alone": ("phi", 0.0, np.pi),
    "phi_alone": ("psi", THIRD, 2 * THIRD),
    "learned": ("phi", 0.0, np.pi),
    "valine_dipeptide": ("chi1", THIRD, 2 * THIRD),
    "serine_dipeptide": ("chi1", 0.0, THIRD),
}
"""A torsion of the second residue, and where it is in the mode, radians from zero to a turn."""

COMPUTED = {"phi": mdtraj.compute_phi, "psi": mdtraj.compute_psi, "chi1": mdtraj.compute_chi1}


def card_of(name):
    card = DATA / f"{name}.toml"
    return card if card.exists() else "alanine_dipeptide_vacuum" if name == "learned" else name


def in_mode(name, structures):
    """Which structures are in the mode whose population is compared, shape=(n,)."""
    if name == "forked_oscillator":
        return structures.xyz[:, 0, 1] < 0
    torsion, low, high = MODES[name]
    angle = np.mod(COMPUTED[torsion](structures)[1][:, 0], 2 * np.pi)
    return (angle >= low) & (angle < high)


def exact_population(name):
    """Of that mode."""
    if name == "forked_oscillator":
        x = np.linspace(-1.0, 1.0, 4001)
        density = np.exp(-0.5 * 10.0 * x**2 / 2.494338785445972)
        return float((density / (1 + np.exp(0.7 + 0.6 * np.tanh(2 * x)))).sum() / density.sum())
    if name in ("psi_alone", "phi_alone", "learned"):
        with np.load(DATA / "alanine_dipeptide_vacuum.npz") as found:
            weights, edges = np.exp(-found["free_energy_kT"]), found["edges"]
        torsion, low, high = MODES[name]
        centres = np.mod(0.5 * (edges[1:] + edges[:-1]), 2 * np.pi)
        inside = (centres >= low) & (centres < high)
        return float(weights.sum(axis=int(torsion == "phi"))[inside].sum() / weights.sum())
    with np.load(DATA / f"{name}_vacuum.npz") as found:
        return float(found["populations"][0 if name == "valine_dipeptide" else 1])


def weighted_structures(folder, system, generator):
    """Structures and log-weights to the equilibrium of the lifts that did not fail, and what lifting cost."""
    structures = mdtraj.load(str(folder / "lifts.dcd"), top=str(folder / "top.pdb"))
    if generator == "product":
        lifts = load_lifts(folder / "lifts.npz", system.slow)
        return structures, weighted_ends(lifts).log_weights, len(lifts) * (lifts.relax_steps + 2)
    with np.load(folder / "lifts.npz") as stored:
        log_weights, cost = stored["log_weights"], int(stored["evaluations"].sum())
    return structures, log_weights[np.isfinite(log_weights)], cost


def run(name, generator, preset, seed):
    """One run, as a record."""
    system = load_system(card_of(name))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        gancl = Path(sys.executable).with_name("gancl")
        command = [gancl, "run", card_of(name), "-o", out, "--generator", generator, "--preset", preset]
        command += ["--slow", "diffusion-map"] * (name == "learned")
        command += ["--seed", str(seed), "--workers", "1", "--platform", "Reference"]
        begun = time.perf_counter()
        ended = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        seconds = time.perf_counter() - begun
        if ended.returncode not in (0, 3):
            return {"system": name, "generator": generator, "error": ended.stderr.strip().splitlines()[-1:]}
        summary = json.loads((out / "surface" / "summary.json").read_text())
        structures, log_weights, cost = weighted_structures(out, system, generator)
    weights = np.exp(log_weights - log_weights.max())
    weights /= weights.sum()
    inside = in_mode(name, structures)
    population = float(weights[inside].sum())
    efficiency = summary["efficiency"] or 0.0
    return {
        "system": name,
        "generator": generator,
        "preset": preset,
        "seed": seed,
        "code": ended.returncode,
        "seconds": round(seconds),
        "evaluations": summary["force_evaluations"],
        "lifts": summary["n_lifts"],
        "efficiency": round(efficiency, 4),
        "per_thousand": round(1000 * efficiency * summary["n_lifts"] / cost, 2),
        "population": round(population, 4),
        "population_error": round(float(np.sqrt((weights**2 * (inside - population) ** 2).sum())), 4),
        "exact": round(exact_population(name), 4),
        "drawn": round(float(inside.mean()), 4),
        "doubts": summary["doubts"],
    }


def table():
    records = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    print(
        "| system | generator | evaluations | effective | per 1,000 | mode: drawn, by weight, exact | code | doubts |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for one in (one for one in records if "error" not in one):
        mode = f"{one['drawn']:.3f}, {one['population']:.3f} +- {one['population_error']:.3f}, {one['exact']:.3f}"
        cells = [one["system"], one["generator"], f"{one['evaluations']:,}", one["efficiency"], one["per_thousand"]]
        print("| " + " | ".join(map(str, [*cells, mode, one["code"], len(one["doubts"])])) + " |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS))
    parser.add_argument("--generators", nargs="+", default=list(GENERATORS))
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    for name in () if arguments.table else arguments.systems:
        for generator in arguments.generators:
            path = RESULTS / f"{name}_{generator}_{arguments.preset}_{arguments.seed}.json"
            if not path.exists():
                record = run(name, generator, arguments.preset, arguments.seed)
                write_atomically(path, json.dumps(record, indent=1) + "\n")
                print(json.dumps(record), flush=True)
    return table()


if __name__ == "__main__":
    sys.exit(main())
