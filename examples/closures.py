"""From weighted lifts to a reduced model of the slow coordinate: a double well with two fast oscillators.

python examples/closures.py [--preset quick]

It prints averages given the label, the mean force against the weights, passage times, and writes closures.png.
"""

import argparse

import numpy as np

import openmm_gancl as gancl
from openmm_gancl import closures
from openmm_gancl.sampling import sample_swarm

RUNS = {"default": (30_000, 1000), "quick": (10_000, 60)}  # evaluations, and short runs from each label


def main():
    """Lift, average, run from the lifts, reduce."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=RUNS, default="default")
    max_evaluations, n_runs = RUNS[parser.parse_args().preset]

    system = gancl.load_system("double_well_oscillators")
    learned = gancl.learn(system, seed=1, max_evaluations=max_evaluations)
    lifts = closures.Ensemble.of_learned(learned, system)

    labels = np.linspace(-1.2, 1.2, 9)[:, None]
    average = closures.conditional_average(lifts, lambda positions: positions[:, 0, 1])
    for label, value, error in zip(labels[:, 0], *(part[:, 0] for part in average.at(labels)), strict=True):
        print(f"E[y | x = {label:+.1f}] = {value:+.4f} +- {error:.4f} nm (exact: {0.25 * np.sin(1.5 * label):+.4f})")
    test = closures.closure_test(lifts)
    print(f"mean force against weights: {test.rms:.3f} kT, z = {test.z:+.1f}")

    # short overdamped runs from lifts that are kept by their weights
    starts = gancl.structures_at(system, learned.model, labels, n_runs, seed=2, platform="Reference")
    dynamics = {"dynamics": "brownian", "time_step": 0.002, "copies": 500, "platform": "Reference"}
    swarm = sample_swarm(system, starts.positions, 160, n_frames=40, seed=3, **dynamics)
    found = closures.effective_dynamics(swarm, system.slow, starts.labels, learned.regression, system.temperature)
    for doubt in found.doubts():
        print(f"not to be trusted: {doubt}")
    cores = (closures.core_of(found.model, basin) for basin in system.basins)
    there, back = closures.mean_passage_times(found.model, *cores)
    print(f"passage times of the reduced model: {there:.0f} ps to the right, {back:.0f} ps back")

    frames = found.model.simulate(np.full((200, 1), -1.0), 20_000, 0.01, stride=100, seed=4)
    print(f"of 200 copies after 200 ps, {np.mean(frames[-1] > 0):.2f} are in the right well")
    _, values, errors = closures.conditional_average(lifts, closures.potential_energy(system)).on_grid()
    closures.plot_closures(test, found, values[..., 0], errors[..., 0]).savefig("closures.png", dpi=150)


if __name__ == "__main__":
    main()
