"""Diffusion maps of heavy-atom distances of alanine dipeptide: time and memory, beside peers, and how they grow.

    python -m tests.benchmarks.diffusion_map FOLDER [PYDIFFMAP_PYTHON [DATAFOLD_PYTHON]]

FOLDER holds frames of `tests.physics.biased_alanine` (made there in four minutes if there are none); each peer runs in
its own environment, whose interpreter is named, with the bandwidth that this package chose. Prints one JSON line a
size: seconds and peak MiB (medians of three processes), and the least correlation of the first five coordinates with
the peer's; then a line with the slope of log time against log n, and frames a second out of sample.
"""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import mdtraj
import numpy as np

from openmm_gancl.diffusion_map import DiffusionMap
from openmm_gancl.features import heavy_atom_distances
from tests.physics import biased_alanine

PEER = Path(__file__).parent / "diffusion_map_peer.py"


def distances(folder):
    if not (folder / "run3.dcd").exists():
        biased_alanine.main(folder, runs=4, n_steps=5_000_000)
    frames = mdtraj.load([str(path) for path in sorted(folder.glob("run*.dcd"))], top=str(folder / "top.pdb"))
    points = heavy_atom_distances(frames.topology).compute(frames)
    return points[np.random.default_rng(0).permutation(len(points))]


def fit_here(path, out):
    """In a process of its own, so that its memory is its own."""
    points = np.load(path)
    DiffusionMap(3).fit(points[:500])
    begin = time.perf_counter()
    fitted = DiffusionMap(10).fit(points)
    seconds = time.perf_counter() - begin
    np.save(out, fitted.coordinates_)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "MiB": memory, "bandwidth": fitted.bandwidth_}))


def run(command):
    told = []
    for _ in range(3):
        finished = subprocess.run(command, capture_output=True, text=True, timeout=1200)
        if finished.returncode:
            return None
        told.append(json.loads(finished.stdout.strip().splitlines()[-1]))
    return {key: float(np.median([one[key] for one in told])) for key in told[0]}


def rounded(told):
    return {"seconds": round(told["seconds"], 2), "MiB": round(told["MiB"])}


def main(folder, *peers):
    folder = Path(folder)
    points, times = distances(folder), []
    for n in (10_000, 20_000, 30_000, 60_000, 120_000, 200_000):
        path, out = folder / "points.npy", folder / "coordinates.npy"
        np.save(path, points[:n])
        here = run([sys.executable, "-m", "tests.benchmarks.diffusion_map", "--fit", str(path), str(out)])
        line, mine = {"points": len(points[:n]), "gancl": rounded(here)}, np.load(out)
        times.append((len(points[:n]), here["seconds"]))
        for name, python in zip(("pydiffmap", "datafold"), peers, strict=False):
            if n not in (10_000, 30_000):
                continue
            theirs = run([python, str(PEER), name, str(path), str(here["bandwidth"]), "10", str(out)])
            if theirs is None:
                line[name] = "failed"
                continue
            other = np.load(out)
            same = min(abs(np.corrcoef(mine[:, i], other[:, i])[0, 1]) for i in range(5))
            line[name] = {**rounded(theirs), "correlation": round(same, 4)}
        print(json.dumps(line), flush=True)
    large = np.array([row for row in times if row[0] >= 20_000])
    slope = np.polyfit(np.log(large[:, 0]), np.log(large[:, 1]), 1)[0]
    fitted = DiffusionMap(10, n_landmarks=1000).fit(points[:10_000])
    begin = time.perf_counter()
    fitted.transform(points[:100_000])
    rate = 100_000 / (time.perf_counter() - begin)
    print(json.dumps({"slope": round(float(slope), 2), "frames a second, 1000 landmarks": round(rate)}))


if __name__ == "__main__":
    if sys.argv[1] == "--fit":
        fit_here(*sys.argv[2:])
    else:
        main(*sys.argv[1:])
