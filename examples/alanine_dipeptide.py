"""Alanine dipeptide in vacuum, the whole method in Python: windows, a GAN, exactly weighted lifts, a surface.

python examples/alanine_dipeptide.py [--preset quick]

With the default preset this takes about two minutes on two cores and writes a picture of the surface;
``gancl run alanine_dipeptide_vacuum -o runs/ala2`` does the same with held-out checks in reverse, and resumes.
"""

import argparse

import numpy as np

import openmm_gancl as gancl
from openmm_gancl.free_energy.plots import plot_surface
from openmm_gancl.sampling.labels import grid_labels

PRESETS = {  # windows, steps in each, training steps, labels along an axis, lifts at each, steps of a lift
    "default": (144, 2000, 600, 24, 8, 300),
    "quick": (48, 600, 20, 16, 1, 100),
}


def main():
    """Run the method and say what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="default")
    parser.add_argument("--output", default="alanine_dipeptide.png")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    n_windows, steps, training_steps, n_labels, n_lifts, relax_steps = PRESETS[arguments.preset]

    system = gancl.load_system("alanine_dipeptide_vacuum")
    frames = gancl.sample_windows(
        system, n_windows=n_windows, steps_per_window=steps, seed=1, workers=arguments.workers
    )
    print(f"{len(frames)} frames of {n_windows} windows; dropped: {frames.dropped or 'none'}")

    options = gancl.TrainingOptions(generator_steps=training_steps)
    model = gancl.train(system, frames, seed=1, options=options)
    print(model.describe())

    labels = np.repeat(grid_labels(system.slow, n_labels), n_lifts, axis=0)
    lifter = gancl.Lifter(system, model, relax_steps=relax_steps, workers=arguments.workers)
    lifts = lifter.lift(labels, seed=2)
    analysis = gancl.lifting.analyse_lifts(lifts)
    surface = analysis.surface
    print(f"{len(lifts)} lifts; median error below 10 kT {surface.median_error / system.kT:.2f} kT")
    for basin in gancl.lifting.basin_populations(analysis.ends, system.basins, system.temperature):
        print(f"{basin.name}: {basin.population:.4f} +- {basin.population_error:.4f}")
    plot_surface(surface, basins=system.basins).figure.savefig(arguments.output, dpi=120)
    print(f"surface: {arguments.output}")


if __name__ == "__main__":
    main()
