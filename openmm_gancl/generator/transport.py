"""Mean forces that a map has freed of most of their noise: narrow coordinates move along with the conditions."""

import numpy as np
import torch

from ..units import BoolArray, FloatArray
from .fit_options import ROWS_AT_ONCE
from .triangular import NarrowCoordinates

TAPER_START = 2.0
"""Radians from its origin at which a narrow torsion begins to take the velocity of `transported_gradients` away."""


def _taper(values: FloatArray, origins: FloatArray, periodic: BoolArray) -> tuple[FloatArray, FloatArray]:
    """A factor that falls smoothly from one to zero where a torsion comes to half a turn, and its gradient."""
    deviation = np.where(periodic, values - origins, 0.0)
    into = np.clip((np.abs(deviation) - TAPER_START) / (np.pi - TAPER_START), 0.0, 1.0)
    factors = np.cos(0.5 * np.pi * into) ** 2
    slopes = -np.pi * np.tan(0.5 * np.pi * np.minimum(into, 1.0 - 1e-9)) / (np.pi - TAPER_START) * np.sign(deviation)
    factor = factors.prod(axis=1)
    return factor, factor[:, None] * slopes


def transported_gradients(
    narrow: NarrowCoordinates,
    conditions: FloatArray,
    values: FloatArray,
    gradients: FloatArray,
    n: int,
    periodic: BoolArray,
) -> FloatArray:
    """The log density's change with the conditions, less its explicit part, while narrow coordinates move along.

    For any velocity ``v = dy/dc`` the mean of ``d_c log pi + v . grad_y log pi + div v`` at a condition is the
    derivative of the condition's own log density. With the map's velocity at fixed normals most of its noise is gone.
    That velocity jumps where a torsion comes to half a turn from its origin, which a torsion that is not narrow after
    all does: so it is tapered there, ``chi v``, with ``chi v . grad_y log pi + chi div v + v . grad chi``.

    Args:
        narrow: the map.
        conditions: shape=(n, n_conditions).
        values: shape=(n, k), narrow coordinates within half a turn of their origins.
        gradients: shape=(n, k), of the log density.
        n: how many conditions are wanted, the labels first.
        periodic: shape=(k,), which coordinates are torsions.

    Returns:
        ``v . grad_y log pi + div v``, shape=(n, that many).
    """
    result = np.empty((len(values), n))
    for i in range(0, len(values), ROWS_AT_ONCE):
        rows = slice(i, i + ROWS_AT_ONCE)
        here, at, slopes = (torch.as_tensor(part[rows]) for part in (conditions, values, gradients))
        result[rows] = narrow.transport(here, at, slopes, n).numpy()
    factor, of_factor = _taper(values, narrow.origin.numpy(), periodic)
    far = np.flatnonzero(factor < 1.0)
    for i in range(0, len(far), ROWS_AT_ONCE):
        some = far[i : i + ROWS_AT_ONCE]
        here, at, slopes = (torch.as_tensor(part[some]) for part in (conditions, values, of_factor))
        across = narrow.transport(here, at, slopes, n) - narrow.transport(here, at, torch.zeros_like(slopes), n)
        result[some] = factor[some, None] * result[some] + across.numpy()
    return result
