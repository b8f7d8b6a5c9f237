"""One diffusion map by a peer, in the peer's own environment; imports nothing of this package.

    python tests/benchmarks/diffusion_map_peer.py pydiffmap|datafold POINTS.npy BANDWIDTH N_COORDINATES OUT.npy

prints seconds and peak memory (MiB), and writes the coordinates.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np


def by_pydiffmap(points, bandwidth, n):
    from pydiffmap import diffusion_map

    # its k counts the point itself
    mapped = diffusion_map.DiffusionMap.from_sklearn(n_evecs=n, alpha=1.0, epsilon=float(bandwidth), k=65)
    return mapped.fit_transform(points)


def by_datafold(points, bandwidth, n):
    from datafold.dynfold import DiffusionMaps
    from datafold.pcfold import GaussianKernel

    # its kernel is exp(-d^2 / (2 eps)); it knows no number of neighbours: beyond the cut-off the kernel is below 1e-3
    epsilon = float(bandwidth)
    distance = None if len(points) <= 1000 else {"cut_off": float(np.sqrt(4.0 * epsilon * 7.0))}
    kernel = GaussianKernel(epsilon=2.0 * epsilon, distance=distance)
    mapped = DiffusionMaps(kernel=kernel, n_eigenpairs=n + 1, alpha=1.0)
    return np.asarray(mapped.fit_transform(points))[:, 1:]


def peak_memory():
    """MiB; not of getrusage, which counts what the parent process held when it started this one."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


PEERS = {"pydiffmap": by_pydiffmap, "datafold": by_datafold}

if __name__ == "__main__":
    peer, path, bandwidth, n, out = sys.argv[1:]
    points = np.load(path)
    PEERS[peer](points[:500], "1.0", int(n))  # warm up
    begin = time.perf_counter()
    coordinates = PEERS[peer](points, bandwidth, int(n))
    seconds = time.perf_counter() - begin
    np.save(out, coordinates)
    print(json.dumps({"seconds": seconds, "MiB": peak_memory()}))
