"""The trained GAN compared with the conditional-Gaussian baseline on alanine dipeptide, same frames, same labels.

    python tests/benchmarks/generators.py RUN

takes the frames of RUN (a finished `gancl run alanine_dipeptide_vacuum`), trains the baseline (latent 0) on those the
GAN saw, and prints one JSON line for each of 150 and 500 relax steps: standard deviation of log w and effective
sample size per lift, means over labels below 10 kT.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from openmm_gancl.engine.tasks import available_workers
from openmm_gancl.free_energy.weight_statistics import effective_sample_size
from openmm_gancl.generator.model import load_model
from openmm_gancl.generator.training import train
from openmm_gancl.generator.wgan_gp import TrainingOptions
from openmm_gancl.lifting.lifter import Lifter
from openmm_gancl.sampling.frames import load_frames
from openmm_gancl.system.library import load_system

REFERENCE = Path(__file__).parent.parent / "data" / "alanine_dipeptide_vacuum.npz"


def main():
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--labels", type=int, default=48)
    parser.add_argument("--lifts", type=int, default=64, help="lifts a label")
    arguments = parser.parse_args()
    system = load_system("alanine_dipeptide_vacuum")
    frames = load_frames(arguments.run / "sample" / "frames.npz")
    models = {
        "gan": load_model(arguments.run / "model.safetensors"),
        "baseline": train(system, frames, seed=0, options=TrainingOptions(latent_size=0)),
    }
    with np.load(REFERENCE) as reference:
        low = reference["labels"][reference["window_free_energy_kT"] < 10.0]
    labels = low[np.random.default_rng(0).choice(len(low), arguments.labels, replace=False)]
    for relax_steps in (150, 500):
        line = {"relax_steps": relax_steps}
        for name, model in models.items():
            lifter = Lifter(system, model, relax_steps=relax_steps, platform="Reference", workers=available_workers())
            log_weights = lifter.lift(np.repeat(labels, arguments.lifts, axis=0), seed=1).log_weights
            rows = log_weights.reshape(len(labels), -1)
            line[f"{name}_sd"] = round(float(rows.std(axis=1).mean()), 3)
            line[f"{name}_ess"] = round(float(np.mean([effective_sample_size(row) for row in rows])) / rows.shape[1], 3)
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
