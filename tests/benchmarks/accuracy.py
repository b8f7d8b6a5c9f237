"""Accuracy of a finished run on alanine dipeptide, in vacuum or with GBSA, against the committed reference data.

    python tests/benchmarks/accuracy.py RUN

prints one JSON line: ``rms_kT`` and ``finite_fraction`` of RUN/fes.npz below 10 kT (of RUN/fes_phi_psi.npz below 8 kT,
and nothing else, where labels were learned), and ``coverage_68``: the
fraction of all reference windows below 10 kT whose free energy, from this script's own unpooled lifts with
RUN/model.safetensors, lies within one standard error (the reference's included, one offset fitted).
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from openmm_gancl.coordinates.restraint_energies import sample_restraint
from openmm_gancl.engine.tasks import available_workers
from openmm_gancl.free_energy.weight_statistics import effective_sample_size, log_mean_weight
from openmm_gancl.generator.invertible import InvertibleGenerator
from openmm_gancl.generator.model import load_model
from openmm_gancl.lifting.draws import draw
from openmm_gancl.lifting.lifter import Lifter
from openmm_gancl.system.library import load_system

REFERENCES = Path(__file__).parent.parent / "data"
CEILING = 10.0


def bootstrap_log_mean(log_weights, rng, n_bootstrap=200):
    """Bootstrap replicates of log mean(w), shape=(n_bootstrap,)."""
    n, shift = len(log_weights), log_weights.max()
    weights = np.exp(log_weights - shift) if np.isfinite(shift) else np.zeros(n)
    with np.errstate(divide="ignore"):
        return np.log(weights[rng.integers(0, n, size=(n_bootstrap, n))].mean(axis=1)) + shift


def surface_accuracy(path, reference, kT, ceiling=CEILING):
    """RMS deviation in kT after aligning the means, and the fraction of finite bins, below the ceiling."""
    low = reference["free_energy_kT"] < ceiling
    with np.load(path) as fes:
        energy = fes["energy"] / kT
    finite = np.isfinite(energy) & low
    deviation = energy[finite] - reference["free_energy_kT"][finite]
    return float((deviation - deviation.mean()).std()), float(finite.sum() / low.sum())


def window_log_weights(system, model, labels, arguments):
    """Of lifts in the restraint's windows at labels, those of one label after the other."""
    if isinstance(model, InvertibleGenerator):
        rng = np.random.default_rng(arguments.seed)
        constants = system.force_constants / system.kT
        near = sample_restraint(system.slow, constants, np.repeat(labels, arguments.lifts, axis=0), rng)
        return draw(system, [model], np.ones(1), near, rng, workers=arguments.workers).log_weights
    lifter = Lifter(system, model, relax_steps=arguments.relax_steps, workers=arguments.workers, platform="Reference")
    return lifter.lift(np.repeat(labels, arguments.lifts, axis=0), seed=arguments.seed).log_weights


def label_coverage(system, model, reference, arguments):
    """Fraction of labels within one standard error, root mean square z, and the number of labels."""
    low = np.flatnonzero(reference["window_free_energy_kT"] < CEILING)
    log_weights = window_log_weights(system, model, reference["labels"][low], arguments).reshape(len(low), -1)
    rng = np.random.default_rng(arguments.seed)
    free = -np.array([log_mean_weight(row) for row in log_weights])
    own = np.array([bootstrap_log_mean(row, rng, 400).std() for row in log_weights])
    error = np.hypot(own, reference["window_standard_error_kT"][low])
    difference = free - reference["window_free_energy_kT"][low]
    z = (difference - np.average(difference, weights=error**-2)) / error
    fractions = [effective_sample_size(row) / len(row) for row in log_weights]
    return {
        "coverage_68": round(float((np.abs(z) < 1).mean()), 4),
        "n_labels": len(low),
        "lifts_per_label": arguments.lifts,
        "relax_steps": 0 if isinstance(model, InvertibleGenerator) else arguments.relax_steps,
        "rms_z": round(float(np.sqrt((z**2).mean())), 3),
        "label_rms_kT": round(float(np.std(difference - np.average(difference, weights=error**-2))), 4),
        "ess_fraction": round(float(np.mean(fractions)), 3),
    }


def main():
    """Parse the arguments and print the line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--lifts", type=int, default=64, help="lifts a label")
    parser.add_argument("--relax-steps", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=2023)
    parser.add_argument("--workers", type=int, default=available_workers())
    arguments = parser.parse_args()
    if not (arguments.run / "fes.npz").is_file():
        sys.exit(f"error: {arguments.run} is not a finished run: give a folder that `gancl run` has finished")
    model = load_model(arguments.run / "model.safetensors")
    system = load_system(model.metadata["system"])
    with np.load(REFERENCES / f"{system.name}.npz") as stored:
        reference = dict(stored)
    learned = arguments.run / "fes_phi_psi.npz"
    path, ceiling = (learned, 8.0) if learned.is_file() else (arguments.run / "fes.npz", CEILING)
    rms, finite = surface_accuracy(path, reference, system.kT, ceiling)
    line = {"rms_kT": round(rms, 4), "finite_fraction": round(finite, 4)}
    if path != learned and "window_free_energy_kT" in reference:
        line |= label_coverage(system, model, reference, arguments)
    print(json.dumps(line))


if __name__ == "__main__":
    main()
