"""Speed of simulations of reduced models: coordinate steps a second in one and in two dimensions, medians of five.

    python tests/benchmarks/reduced_model.py

prints one JSON line, for one core.
"""

import json
import time

import numpy as np

from openmm_gancl.closures import ReducedModel
from openmm_gancl.coordinates.slow_coordinates import FirstAxes

N_COPIES, N_STEPS, ROUNDS = 16_384, 500, 5


def steps_a_second(d):
    """Coordinate steps a second of many copies."""
    axes = FirstAxes(("a", "b")[:d], np.full(d, 2 * np.pi), np.tile([-np.pi, np.pi], (d, 1)), ("radians",) * d)
    tensor = np.array([[1.0, 0.3], [0.3, 0.8]])[:d, :d]

    def energy(places):
        return 2 * np.cos(places).sum(axis=1)

    def diffusion(places):
        return (1 + 0.3 * np.sin(places[:, 0]))[:, None, None] * tensor

    model = ReducedModel.of_functions(axes, energy, diffusion, 300.0, 72)
    model.simulate(np.zeros((10, d)), 10, 0.002)
    seconds = []
    for seed in range(ROUNDS):
        begin = time.perf_counter()
        model.simulate(np.zeros((N_COPIES, d)), N_STEPS, 0.002, stride=N_STEPS, seed=seed)
        seconds.append(time.perf_counter() - begin)
    return d * N_COPIES * N_STEPS / float(np.median(seconds))


if __name__ == "__main__":
    print(json.dumps({f"coordinate_steps_a_second_{d}d": round(steps_a_second(d)) for d in (1, 2)}))
