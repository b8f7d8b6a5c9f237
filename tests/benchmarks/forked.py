"""Mode-aware effective sample size of a GAN compared with latent 0 on the forked oscillator, 20 relax steps.

    python -m tests.benchmarks.forked [--latent 4] [--generator-steps 1000]

Both are trained on the same exact frames. Prints one JSON line a generator: for each of three labels
``Z / E_pi[w]`` from reverse relaxations of exact frames, the forward-reverse z-score, and the upper well's population
with its z-score against quadrature.
"""

import argparse
import json

import numpy as np

from openmm_gancl import Lifter, TrainingOptions, load_system
from openmm_gancl.generator.training import train_model
from openmm_gancl.lifting import check_lifts, fit_encoder
from tests.physics.exact import FORKED, exact_frames

LABELS, N = (-0.6, 0.0, 0.6), 500


def upper_population(label, force_constants):
    """Of the upper well in a window, by quadrature."""
    weights = np.exp(FORKED.log_density(label, force_constants) - FORKED.log_density(label, force_constants).max())
    return float(np.average(FORKED.fast(FORKED.grid)[0][0][0], weights=weights))


def main():
    """Train, lift, relax in reverse, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latent", type=int, default=4)
    parser.add_argument("--generator-steps", type=int, default=1000)
    arguments = parser.parse_args()
    system, rng = load_system("forked_oscillator"), np.random.default_rng(0)
    centres = np.linspace(-1, 1, 64)
    frames = np.concatenate([exact_frames(system, FORKED, 40, rng, centre) for centre in centres])
    real = np.concatenate([exact_frames(system, FORKED, N, rng, label) for label in LABELS])
    labels = np.repeat(LABELS, N)[:, None]
    for latent in (0, arguments.latent):
        options = TrainingOptions(latent_size=latent, generator_steps=arguments.generator_steps)
        model = train_model(system, frames, np.repeat(centres, 40)[:, None], seed=1, options=options)
        if latent:
            pilot = np.linspace(-0.9, 0.9, 13)[:, None]
            model = fit_encoder(system, model, pilot, relax_steps=20, seed=5, platform="Reference").model
        lifter = Lifter(system, model, relax_steps=20, platform="Reference")
        forward, reverse = lifter.lift(np.repeat(labels, 4, axis=0), seed=7), lifter.reverse(real, labels, seed=8)
        checks = check_lifts(forward, reverse, seed=3)
        upper, error, exact = [], [], []
        for label in LABELS:
            mine = (forward.labels[:, 0] == label) & forward.ok
            weights = np.exp(forward.log_weights[mine] - forward.log_weights[mine].max())
            inside = forward.positions[mine, 0, 1] > 0
            upper.append(np.average(inside, weights=weights))
            error.append(np.sqrt((weights**2 * (inside - upper[-1]) ** 2).sum()) / weights.sum())
            exact.append(upper_population(label, float(system.force_constants[0])))
        line = {
            "latent": latent,
            "efficiency": [round(check.efficiency, 3) for check in checks],
            "mean_efficiency": round(float(np.mean([check.efficiency for check in checks])), 3),
            "z": [round(check.z, 2) for check in checks],
            "upper_well": np.round(upper, 3).tolist(),
            "upper_well_z": np.round(np.subtract(upper, exact) / error, 2).tolist(),
        }
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
