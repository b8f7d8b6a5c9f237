"""What frames say of the bias that they were sampled under: whether it stands where it is taken to stand.

A bias that has been built up is high where the frames go often: their density is about exp(a V), with a small a, of V
in its place and of no other. So frames tell where the grid of a bias begins, and which variable is the first.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp

from ..units import FloatArray

EXPONENTS = tuple(np.geomspace(0.005, 0.5, 25))
"""Of exp(a V), V in kJ/mol: 1 / (kT (bias factor - 1)); zero is an even density."""

N_PARTS, MIN_DECISION, MIN_GAIN = 20, 4.0, 0.003
"""Consecutive parts of the frames, standard errors over them, and log-likelihood of a frame that decide."""


def log_likelihoods(at_frames: FloatArray, everywhere: FloatArray) -> FloatArray:
    """Of frames under the density exp(a V), the best a > 0 taken, less that of an even one, shape=(n,).

    Args:
        at_frames: shape=(n,), V at the frames, kJ/mol.
        everywhere: V at places spread evenly over all that the variables can be.
    """
    gains = [
        exponent * at_frames - logsumexp(exponent * everywhere) + np.log(everywhere.size) for exponent in EXPONENTS
    ]
    return np.asarray(max(gains, key=np.sum))


@dataclass(frozen=True)
class Decision:
    """Between ways that a bias could stand.

    Attributes:
        best: index of the likeliest.
        decisive: whether it is so by more than chance.
    """

    best: int
    decisive: bool


def decide(candidates: Sequence[FloatArray]) -> Decision:
    """Which of several log-likelihoods of the same frames, each of shape=(n,), is the highest."""
    logs = np.array(candidates)
    order = np.argsort(-logs.mean(axis=1))
    difference = logs[order[0]] - logs[order[1]]
    parts = np.array([part.mean() for part in np.array_split(difference, min(N_PARTS, len(difference)))])
    error = max(float(parts.std(ddof=1)) / np.sqrt(len(parts)), 1e-9) if len(parts) > 1 else np.inf
    decisive = parts.mean() > MIN_DECISION * error and logs[order[0]].mean() > MIN_GAIN
    return Decision(int(order[0]), bool(decisive))
