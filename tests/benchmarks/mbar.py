"""MBAR of 576 windows of 100 frames over two torsions: seconds, and deviation from quadrature.

    python tests/benchmarks/mbar.py

prints one JSON line; the windows are drawn exactly from a known surface.
"""

import json
import time

import numpy as np

from openmm_gancl.free_energy.mbar import solve_mbar

N_CENTRES, N_FRAMES, STRENGTH = 24, 100, 40.0


def main():
    """Draw, solve five times, print the median."""
    rng = np.random.default_rng(0)
    axis = np.linspace(-np.pi, np.pi, 181)[:-1]
    places = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    surface = 6.0 * np.cos(places[:, 0]) + 4.0 * np.cos(places[:, 1] + 1.0) * np.sin(places[:, 0])
    middle = (np.arange(N_CENTRES) + 0.5) * 2 * np.pi / N_CENTRES - np.pi
    centres = np.stack(np.meshgrid(middle, middle, indexing="ij"), axis=-1).reshape(-1, 2)
    drawn, exact = [], []
    for centre in centres:
        energy = surface + STRENGTH * (1.0 - np.cos(places - centre)).sum(axis=1)
        weights = np.exp(-(energy - energy.min()))
        exact.append(energy.min() - np.log(weights.sum()))
        drawn.append(places[rng.choice(len(places), N_FRAMES, p=weights / weights.sum())])
    frames = np.concatenate(drawn)
    biases = STRENGTH * sum(1.0 - np.cos(frames[:, i, None] - centres[:, i]) for i in range(2))
    seconds = []
    for _ in range(5):
        begin = time.perf_counter()
        solution = solve_mbar(biases, np.full(len(centres), N_FRAMES))
        seconds.append(time.perf_counter() - begin)
    difference = solution.free_energies - np.array(exact)
    line = {
        "windows": len(centres),
        "frames": len(frames),
        "seconds": round(float(np.median(seconds)), 2),
        "steps": solution.steps,
        "rms_kT": round(float(difference.std()), 3),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
