"""One diffusion map by a peer, in the peer's own environment; imports nothing of this package.

    python tests/benchmarks/diffusion_map_peer.py pydiffmap|datafold POINTS.npy BANDWIDTH N_COORDINATES OUT.npy

prints seconds and peak memory (MiB), and writes the coordinates.
"""

import json
import resource
import sys
import time

import numpy as np


def by_pydiffmap(points, bandwidth, n):
    from pydiffmap import diffusion_map

    mapped = diffusion_map.DiffusionMap.from_sklearn(n_evecs=n, alpha=1.0, epsilon=bandwidth, k=64)
    return mapped.fit_transform(points)


def by_datafold(points, bandwidth, n):
    from datafold.dynfold import DiffusionMaps
    from datafold.pcfold import GaussianKernel

    # its kernel is exp(-d^2 / (2 eps)); beyond the cut-off the kernel is below 1e-3
    kernel = GaussianKernel(epsilon=2.0 * bandwidth, distance={"cut_off": float(np.sqrt(4.0 * bandwidth * 7.0))})
    mapped = DiffusionMaps(kernel=kernel, n_eigenpairs=n + 1, alpha=1.0)
    return np.asarray(mapped.fit_transform(points))[:, 1:]


if __name__ == "__main__":
    peer, path, bandwidth, n, out = sys.argv[1:]
    points = np.load(path)
    {"pydiffmap": by_pydiffmap, "datafold": by_datafold}[peer](points[:500], 100 * float(bandwidth), int(n))  # warm up
    begin = time.perf_counter()
    coordinates = {"pydiffmap": by_pydiffmap, "datafold": by_datafold}[peer](points, float(bandwidth), int(n))
    seconds = time.perf_counter() - begin
    np.save(out, coordinates)
    print(json.dumps({"seconds": seconds, "MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
