"""Cost of the invertible generator on alanine dipeptide, Reference, one core, medians of five.

    python tests/benchmarks/draws.py

prints one JSON line: ``draw_ratio``, a draw with its weight over a bare ``setPositions`` and ``getState(energy=True)``
(10,000 of each, in turn; the forces of the loop are not asked for), of the map and with a network on top (``gan``);
``fit_seconds``, the closed-form fit to 20,000 structures; ``surface_seconds`` and ``surface_mib``, the regression of
100,000 draws with mean forces over two labels, and the most memory that it had at a time.
"""

import json
import os
import sys
import time
import tracemalloc

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import numpy as np  # noqa: E402
import openmm  # noqa: E402
import torch  # noqa: E402

from openmm_gancl import load_system  # noqa: E402
from openmm_gancl.generator.network_training import NetworkOptions, with_network  # noqa: E402
from openmm_gancl.generator.score_fit import fit_triangular  # noqa: E402
from openmm_gancl.lifting.evaluation import evaluate  # noqa: E402
from openmm_gancl.lifting.label_regression import fit_label_regression  # noqa: E402
from openmm_gancl.lifting.loop import learn  # noqa: E402

N_DRAWS, N_FIT, N_SURFACE, REPEATS = 10_000, 20_000, 100_000, 5


def seconds(function):
    """CPU time, user and system, of one call."""
    begun = time.process_time()
    function()
    return time.process_time() - begun


def bare(context, positions):
    for one in positions:
        context.setPositions(one)
        context.getState(energy=True).getPotentialEnergy()


def draw_ratio(system, generator):
    """Medians of a draw's cost over that of an evaluation, side by side."""
    xml = openmm.XmlSerializer.serialize(system.system)
    platform = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(openmm.XmlSerializer.clone(system.system), openmm.VerletIntegrator(0.001), platform)
    rng = np.random.default_rng(0)
    labels = rng.uniform(-np.pi, np.pi, (N_DRAWS, len(system.slow.names)))

    def draws():
        coordinates, log_density = generator.sample(labels, rng)
        positions = generator.chart.to_cartesian(coordinates)
        energies, _ = evaluate(xml, positions, "Reference", with_forces=False)
        system.state.inside(positions)
        return -energies / system.kT + generator.chart.log_jacobian(coordinates) - log_density

    coordinates, _ = generator.sample(labels, rng)
    positions = generator.chart.to_cartesian(coordinates)
    ratios = [seconds(draws) / seconds(lambda: bare(context, positions)) for _ in range(REPEATS)]
    return float(np.median(ratios))


def most_memory(function):
    """MiB, of one call."""
    tracemalloc.start()
    function()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most // 2**20


def main():
    torch.set_num_threads(1)
    system = load_system("alanine_dipeptide_vacuum")
    learned = learn(system, seed=1, max_evaluations=30_000)
    draws, chart = learned.lifts, learned.model.chart
    ok = np.flatnonzero(draws.reason == "ok")
    rows = np.resize(ok, N_FIT)
    fit = [
        seconds(lambda: fit_triangular(chart, system.slow, draws.coordinates[rows], draws.gradients[rows]))
        for _ in range(REPEATS)
    ]
    many = np.resize(ok, N_SURFACE)
    labels = draws.labels[many]
    forces = draws.gradients[many][:, chart.label_indices]

    def surface():
        fit_label_regression(system.slow, labels, draws.log_weights[many], forces)

    structures = draws.coordinates[rows], draws.gradients[rows], np.ones(N_FIT)
    # what a draw costs does not depend on how long the network was trained
    gan = with_network(learned.model, *structures, seed=1, options=NetworkOptions(n_steps=20))
    record = {
        "draw_ratio": round(draw_ratio(system, learned.model), 2),
        "draw_ratio_gan": round(draw_ratio(system, gan), 2),
        "fit_seconds": round(float(np.median(fit)), 2),
        "surface_seconds": round(float(np.median([seconds(surface) for _ in range(REPEATS)])), 2),
        "surface_mib": most_memory(surface),
    }
    print(json.dumps(record))


if __name__ == "__main__":
    sys.exit(main())
