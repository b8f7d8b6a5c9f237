"""A reference surface of a molecule over its two torsion labels: two long runs under a static bias that flattens it.

    python -m tests.benchmarks.reference_surface SYSTEM RUN FOLDER --steps 60000000

takes the flattening bias from RUN/fes.npz (a finished ``gancl run SYSTEM -o RUN``), runs two processes of Langevin
dynamics (1.5 fs) under it, reweights, and writes FOLDER/SYSTEM.npz, in the format of the committed references in
tests/data: surface and standard errors from 20 blocks of both runs, and basin populations. The histogram under the bias
is flat, and is smoothed by a Gaussian of one bin before the bias is undone. A stopped command goes on where its last
chunk ended. It prints how far the two runs differ below 10 kT.
"""

import argparse
import json
import multiprocessing
from pathlib import Path

import numpy as np
import openmm
from scipy.ndimage import gaussian_filter

from openmm_gancl.engine.platforms import make_context
from openmm_gancl.system.library import load_system

CHUNK, STRIDE, TIME_STEP = 1_000_000, 50, 0.0015
HIGHEST = 14.0
"""kT, where the bias levels off."""

N_BINS, N_BLOCKS, CEILING = 72, 10, 10.0
SMOOTHING = 1.0
"""Bins of 5 degrees; no Gaussian that narrow changes a density that is flat to 0.2 kT."""


def bias_table(fes, kT):
    """Minus the surface, levelled off and smoothed, kJ/mol, at the bins' centres and once more around."""
    with np.load(fes) as stored:
        energy = stored["energy"]
    energy = np.minimum(np.where(np.isfinite(energy), energy, np.inf), HIGHEST * kT)
    return -gaussian_filter(energy, 1.0, mode="wrap")


def bias_force(table, slow):
    """The table as a function of both torsions, in native code."""
    n, half = len(table), np.pi / len(table)
    around = np.pad(table, ((0, 1), (0, 1)), mode="wrap")
    function = openmm.Continuous2DFunction(
        n + 1, n + 1, around.ravel(order="F").tolist(), -np.pi + half, np.pi + half, -np.pi + half, np.pi + half, True
    )
    atoms = np.unique(slow.atoms).tolist()
    first, second = (",".join(f"p{atoms.index(atom) + 1}" for atom in four) for four in slow.atoms.tolist())
    force = openmm.CustomCompoundBondForce(len(atoms), f"bias(dihedral({first}),dihedral({second}))")
    force.addTabulatedFunction("bias", function)
    force.addBond(atoms, [])
    return force


def run_chunks(arguments):
    """One run, in chunks; each keeps labels and bias every 50 steps and where it ended."""
    name, table, folder, run, n_chunks = arguments
    system = load_system(name)
    biased = openmm.XmlSerializer.clone(system.system)
    force = bias_force(table, system.slow)
    force.setForceGroup(7)
    biased.addForce(force)
    positions = system.positions
    for chunk in range(n_chunks):
        path = folder / f"run{run}_chunk{chunk:03d}.npz"
        if path.is_file():
            with np.load(path) as stored:
                positions, velocities = stored["positions"], stored["velocities"]
            continue
        integrator = openmm.LangevinMiddleIntegrator(system.temperature, system.friction, TIME_STEP)
        context = make_context(biased, integrator, "Reference", 1000 * (run + 1) + chunk + 1)
        context.setPositions(positions)
        if chunk == 0:
            openmm.LocalEnergyMinimizer.minimize(context, 10.0, 200)
            context.setVelocitiesToTemperature(system.temperature, run + 1)
            integrator.step(50_000)
        else:
            context.setVelocities(velocities)
        labels, biases = [], []
        for _ in range(CHUNK // STRIDE):
            integrator.step(STRIDE)
            state = context.getState(positions=True, energy=True, groups={7})
            labels.append(system.slow.transform(state.getPositions(asNumpy=True)._value[None])[0])
            biases.append(state.getPotentialEnergy()._value)
        state = context.getState(positions=True, velocities=True)
        positions, velocities = (array._value for array in (state.getPositions(True), state.getVelocities(True)))
        arrays = {"labels": np.float32(labels), "bias": np.float32(biases)}
        part = path.with_suffix(".part.npz")
        np.savez(part, **arrays, positions=positions, velocities=velocities)
        part.rename(path)


def histograms(paths, system, edges):
    """Of each chunk: counts, weighted counts (n_chunks, 2, n_bins, n_bins); weight in each basin, the total last."""
    counts, basins = [], []
    for path in paths:
        with np.load(path) as stored:
            labels, weights = stored["labels"].astype(float), np.exp(stored["bias"].astype(float) / system.kT)
        counts.append([np.histogram2d(*labels.T, bins=(edges, edges), weights=w)[0] for w in (None, weights)])
        inside = [basin.contains(labels) for basin in system.basins]
        basins.append([*(weights[mask].sum() for mask in inside), weights.sum()])
    return np.array(counts), np.array(basins)


def surface(counts):
    """-log of the density, kT: counts smoothed where they are flat, times the mean weight of each bin."""
    plain, weighted = counts
    with np.errstate(all="ignore"):
        energy = -np.log(gaussian_filter(plain, SMOOTHING, mode="wrap")) - np.log(weighted / plain)
    energy[plain == 0] = np.inf
    return energy - energy.min()


def spread(values):
    """Standard error of the mean of independent rows."""
    return values.std(axis=0, ddof=1) / np.sqrt(len(values))


def summarise(folder, name, n_chunks):
    """Both runs together, the difference between them, and the file."""
    system, edges = load_system(name), np.linspace(-np.pi, np.pi, N_BINS + 1)
    runs = [histograms([folder / f"run{r}_chunk{c:03d}.npz" for c in range(n_chunks)], system, edges) for r in (0, 1)]
    counts = np.concatenate([run[0] for run in runs])
    energy = surface(counts.sum(axis=0))
    below = energy < CEILING
    halves = [surface(run[0].sum(axis=0))[below] for run in runs]
    blocks = [part.sum(axis=0) for run in runs for part in np.array_split(run[0], N_BLOCKS)]
    with np.errstate(all="ignore"):
        logs = np.array([surface(block) for block in blocks])
        logs -= logs[:, below].mean(axis=1)[:, None, None]
        error = spread(logs)
    masses = np.array([part.sum(axis=0) for run in runs for part in np.array_split(run[1], N_BLOCKS)])
    populations = masses[:, :-1].sum(axis=0) / masses[:, -1].sum()
    population_errors = spread(masses[:, :-1] / masses[:, -1:])
    names = [basin.name for basin in system.basins]
    np.savez_compressed(
        folder / f"{name}.npz",
        edges=edges,
        free_energy_kT=energy,
        standard_error_kT=np.where(np.isfinite(error), error, np.inf),
        temperature_K=system.temperature,
        basins=names,
        populations=populations,
        population_errors=population_errors,
    )
    difference = halves[0] - halves[1]
    return {
        "steps": 2 * n_chunks * CHUNK,
        "halves_rms_kT": float((difference - difference.mean()).std()),
        "bins_below": int(below.sum()),
        "median_error_kT": float(np.median(error[below])),
        "populations": dict(zip(names, populations.round(5).tolist(), strict=True)),
        "population_errors": dict(zip(names, population_errors.round(5).tolist(), strict=True)),
    }


def main():
    """Parse the arguments, run what is missing, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("system")
    parser.add_argument("run", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=60_000_000, help="of each of the two runs")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    kT, n_chunks = load_system(arguments.system).kT, arguments.steps // CHUNK
    table = bias_table(arguments.run / "fes.npz", kT)
    jobs = [(arguments.system, table, arguments.folder, run, n_chunks) for run in (0, 1)]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.map(run_chunks, jobs)
    print(json.dumps(summarise(arguments.folder, arguments.system, n_chunks)))


if __name__ == "__main__":
    main()
