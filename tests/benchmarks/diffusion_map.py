"""Diffusion maps of heavy-atom distances of alanine dipeptide: time and memory, compared with peers, and how they grow.

    python -m tests.benchmarks.diffusion_map FOLDER [PYDIFFMAP_PYTHON [DATAFOLD_PYTHON]]

FOLDER holds frames of `tests.physics.biased_alanine` (made there in some minutes if there are none); each peer runs in
its own environment, whose interpreter is named. Prints one JSON line a size: seconds and peak MiB, medians of processes
that take turns with the peer's; how many times longer the peer takes with the bandwidth that this package chose, and
the least correlation of the first six coordinates. Datafold has no number of neighbours, so its matrix is another one:
there the coordinates are compared on 1,000 points with all pairs. Then a line with the slope of log time against log n,
and seconds out of sample.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import mdtraj
import numpy as np

from openmm_gancl.coordinates.features import heavy_atom_distances
from openmm_gancl.learning.diffusion_map import DiffusionMap
from tests.benchmarks.diffusion_map_peer import peak_memory
from tests.physics import biased_alanine

PEER = Path(__file__).parent / "diffusion_map_peer.py"
N_TURNS, N_COMPARED = 5, 6


def distances(folder):
    if not (folder / "run3.dcd").exists():
        biased_alanine.main(folder, runs=4, n_steps=5_000_000)
    frames = mdtraj.load([str(path) for path in sorted(folder.glob("run*.dcd"))], top=str(folder / "top.pdb"))
    points = heavy_atom_distances(frames.topology).compute(frames)
    return points[np.random.default_rng(0).permutation(len(points))]


def fit_here(path, out, n_neighbors):
    """In a process of its own, so that its memory is its own."""
    points = np.load(path)
    DiffusionMap(3).fit(points[:500])
    begin = time.perf_counter()
    fitted = DiffusionMap(10, n_neighbors=int(n_neighbors)).fit(points)
    seconds = time.perf_counter() - begin
    np.save(out, fitted.coordinates_)
    print(json.dumps({"seconds": seconds, "MiB": peak_memory(), "bandwidth": fitted.bandwidth_}))


def result_of(command):
    finished = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=True)
    return json.loads(finished.stdout.strip().splitlines()[-1])


def medians(commands, n_turns=N_TURNS):
    """Of every command, taking turns so that whatever else the machine does falls on all of them."""
    turns = [[result_of(command) for command in commands] for _ in range(n_turns)]
    return [
        {key: float(np.median([turn[i][key] for turn in turns])) for key in turns[0][i]} for i in range(len(commands))
    ]


class Points:
    """Some of the points in a file, and the commands that fit them."""

    def __init__(self, folder, points):
        self.path, self.here, self.there = (folder / f"benchmark_{name}.npy" for name in ("points", "here", "there"))
        np.save(self.path, points)

    def fit(self, n_neighbors=64):
        module = "tests.benchmarks.diffusion_map"
        return [sys.executable, "-m", module, "--fit", str(self.path), str(self.here), str(n_neighbors)]

    def peer(self, python, name, bandwidth):
        return [python, str(PEER), name, str(self.path), str(bandwidth), "10", str(self.there)]

    def correlation(self):
        mine, other = np.load(self.here), np.load(self.there)
        return round(min(abs(np.corrcoef(mine[:, i], other[:, i])[0, 1]) for i in range(N_COMPARED)), 5)


def rounded(measured):
    return {"seconds": round(measured["seconds"], 3), "MiB": round(measured["MiB"])}


def compare(points, python, name, n_turns=N_TURNS):
    """Here and there, taking turns."""
    bandwidth = result_of(points.fit())["bandwidth"]
    here, there = medians([points.fit(), points.peer(python, name, bandwidth)], n_turns)
    line = {"gancl": rounded(here), name: rounded(there), "times": round(there["seconds"] / here["seconds"], 2)}
    return line


def compare_with_peers(folder, points, pydiffmap=None, datafold=None):
    for n in (10_000, 30_000) if pydiffmap else ():
        some = Points(folder, points[:n])
        line = compare(some, pydiffmap, "pydiffmap")
        print(json.dumps({"points": n, **line, "correlation": some.correlation()}), flush=True)
    if datafold:
        few = Points(folder, points[:1000])
        result_of(few.peer(datafold, "datafold", result_of(few.fit(999))["bandwidth"]))
        same = few.correlation()
        line = compare(Points(folder, points[:10_000]), datafold, "datafold", n_turns=1)
        print(json.dumps({"points": 10_000, **line, "correlation of 1,000 points, all pairs": same}), flush=True)


def growth(folder, points):
    times = []
    for n in (20_000, 30_000, 60_000, 120_000, 200_000):
        (here,) = medians([Points(folder, points[:n]).fit()], 3)
        times.append((len(points[:n]), here["seconds"]))
        print(json.dumps({"points": len(points[:n]), "gancl": rounded(here)}), flush=True)
    return np.polyfit(*np.log(np.array(times)).T, 1)[0]


def out_of_sample(points):
    fitted, seconds = DiffusionMap(10, n_landmarks=1000).fit(points[:10_000]), []
    for _ in range(N_TURNS):
        begin = time.perf_counter()
        fitted.transform(points[:100_000])
        seconds.append(time.perf_counter() - begin)
    return float(np.median(seconds))


def main(folder, *peers):
    folder = Path(folder)
    points = distances(folder)
    compare_with_peers(folder, points, *peers)
    slope, seconds = growth(folder, points), out_of_sample(points)
    print(
        json.dumps({"slope": round(float(slope), 2), "100,000 frames by 1,000 landmarks, seconds": round(seconds, 2)})
    )


if __name__ == "__main__":
    if sys.argv[1] == "--fit":
        fit_here(*sys.argv[2:])
    else:
        main(*sys.argv[1:])
