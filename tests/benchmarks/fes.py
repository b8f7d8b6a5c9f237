"""`gancl fes` on a million frames, and the same estimate by pymbar's FES class.

    python tests/benchmarks/fes.py

prints two JSON lines. The first: seconds and peak memory (MiB) of `gancl fes` for (phi, psi) of 22 atoms with 100
bootstrap replicates, from DCD files of 1e5 and 1e6 frames; medians of three. The second: one set of independent points
on a torus, 16 x 16 bins and 100 replicates, by this package and by pymbar (histogram, and kernel density, which needs
scikit-learn); seconds, and deviation from the exact surface, RMS in kT. The surface is low enough for every bin to be
filled, which pymbar needs; pymbar takes minutes and is timed once.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import mdtraj
import numpy as np
from mdtraj.formats import DCDTrajectoryFile

from openmm_gancl.errors import quiet
from openmm_gancl.free_energy.from_trajectories import analyse
from openmm_gancl.trajectories.observations import Observations
from openmm_gancl.trajectories.series import Series
from openmm_gancl.units import thermal_energy

STRUCTURE = Path(__file__).parent.parent / "data" / "alanine_dipeptide.pdb"
N_POINTS, BINS, REPLICATES = 50_000, 16, 100


PHI, PSI = ((6, 8), [*range(6), 7]), ((8, 14), range(15, 22))
"""Atoms of the bond that is turned about, and those that turn."""


def turned(positions, bond, atoms, angles):
    """Some atoms about a bond (Rodrigues); positions of shape=(n, n_atoms, 3), angles of shape=(n,)."""
    origin, end = (positions[:, [atom]] for atom in bond)
    axis = (end - origin) / np.linalg.norm(end - origin, axis=2, keepdims=True)
    arms, cos, sin = positions[:, list(atoms)] - origin, np.cos(angles)[:, None, None], np.sin(angles)[:, None, None]
    along = (arms * axis).sum(axis=2, keepdims=True) * axis
    positions[:, list(atoms)] = origin + along + cos * (arms - along) + sin * np.cross(axis, arms)


def write_frames(path, n_frames, rng):
    """Turned and shaken structures: no physics, but torsions go all around and bonds stay whole."""
    structure, chunk = mdtraj.load(str(STRUCTURE)).xyz[0].astype(float), 50_000
    with DCDTrajectoryFile(str(path), "w") as file:
        for _ in range(n_frames // chunk):
            positions = structure + rng.normal(0.0, 0.005, (chunk, *structure.shape))
            for bond, atoms in (PHI, PSI):
                turned(positions, bond, atoms, rng.vonmises(0.0, 0.5, chunk))
            file.write((10.0 * positions).astype(np.float32))


def run(trajectory, output):
    """Seconds and peak MiB of one process."""
    cvs = ("--cv", "phi:2", "--cv", "psi:2", "--temperature", "300", "-o", str(output))
    command = [sys.executable, "-m", "openmm_gancl.cli", "fes", str(trajectory), "--top", str(STRUCTURE), *cvs]
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"gancl fes ended with status {status}")
    return time.perf_counter() - begin, usage.ru_maxrss / 1024


def million():
    line = {}
    with tempfile.TemporaryDirectory() as folder:
        for n_frames in (100_000, 1_000_000):
            trajectory = Path(folder) / f"{n_frames}.dcd"
            write_frames(trajectory, n_frames, np.random.default_rng(0))
            seconds, memory = np.median([run(trajectory, Path(folder) / "fes") for _ in range(3)], axis=0)
            line[f"{n_frames:.0e}"] = {"seconds": round(seconds, 1), "MiB": round(memory)}
    return line


def exact(edges):
    n = 8
    axis = (edges[:-1, None] + np.diff(edges)[:, None] * (np.arange(n) + 0.5) / n).ravel()
    density = np.exp(-energy(axis[:, None], axis[None]))
    return -np.log(density.reshape(BINS, n, BINS, n).mean(axis=(1, 3)))


def energy(x, y):
    """KT."""
    return 0.7 * np.cos(x) + 0.5 * np.cos(2 * x - 0.6) + 0.7 * np.cos(y + 0.5 * np.sin(x))


def points(rng):
    drawn = rng.uniform(-np.pi, np.pi, (40 * N_POINTS, 2))
    drawn = drawn[rng.random(len(drawn)) < np.exp(-energy(*drawn.T) - 1.9)]
    return drawn[:N_POINTS]


def deviation(free, truth):
    known = np.isfinite(free)
    difference = (free - truth)[known]
    return {"rms_kT": round(float(difference.std()), 4), "bins": int(known.sum())}


def pymbar_fes(places, edges, kind):
    with quiet("pymbar"):
        from pymbar import FES
    centres = 0.5 * (edges[1:] + edges[:-1])
    grid = np.stack(np.meshgrid(centres, centres, indexing="ij"), axis=-1).reshape(-1, 2)
    zeros = np.zeros(len(places))
    fes = FES(zeros[None], np.array([len(places)]))
    if kind == "histogram":
        fes.generate_fes(
            zeros, places, "histogram", histogram_parameters={"bin_edges": [edges, edges]}, n_bootstraps=REPLICATES
        )
    else:
        fes.generate_fes(zeros, places, "kde", kde_parameters={"bandwidth": 0.15}, n_bootstraps=REPLICATES)
    found = fes.get_fes(grid, reference_point="from-lowest", uncertainty_method="bootstrap")
    return np.asarray(found["f_i"]).reshape(BINS, BINS)


def ours(places, edges, kind):
    series = Series(("x", "y"), np.full(2, 2 * np.pi), ("", ""), places.astype(np.float32), np.array([0, len(places)]))
    observations = Observations(series, 2, 300.0)
    analysis = analyse(observations, bins=BINS, method=kind, discard=0, n_bootstrap=REPLICATES)
    return analysis.surface.energy / thermal_energy(300.0)


def compare_with_pymbar(kinds):
    places, edges = points(np.random.default_rng(1)), np.linspace(-np.pi, np.pi, BINS + 1)
    truth, line = exact(edges), {"points": len(places)}
    for kind in kinds:
        for name, estimate in (("gancl", ours), ("pymbar", pymbar_fes)):
            seconds = []
            for _ in range(5 if name == "gancl" else 1):
                begin = time.perf_counter()
                free = estimate(places, edges, kind)
                seconds.append(time.perf_counter() - begin)
            line[f"{name} {kind}"] = {"seconds": round(float(np.median(seconds)), 2), **deviation(free, truth)}
    return line


if __name__ == "__main__":
    print(json.dumps(million()), flush=True)
    print(json.dumps(compare_with_pymbar(sys.argv[1:] or ["histogram", "kde"])), flush=True)
