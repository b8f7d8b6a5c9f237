"""Statistics of weights: mean, effective sample size, tails, Bennett's acceptance ratio."""

from typing import Any

import numpy as np
from scipy.special import expit, logsumexp

from ..errors import InputError
from ..units import FloatArray, numbers

MAX_PARETO_INDEX = 0.7
"""A Pareto index above this means that the error bar is not to be trusted."""

LEAST_TAIL = 0.01
"""Of all weight: a tail with less decides nothing, whatever its index."""

FEWEST_OF_A_TAIL = 25
"""Weights, of which a tail is told."""


TOLERANCE, MAX_ITERATIONS, TINY = 1e-10, 200, 1e-300
"""Of the root in `log_bar`."""


def log_mean_weight(log_weights: FloatArray) -> float:
    """log of the mean of the weights, zero weights counted."""
    return float(logsumexp(log_weights) - np.log(len(log_weights)))


def shares_of_weight(log_weights: FloatArray) -> FloatArray:
    """Weights that add up to one, of logarithms some of which are finite, shape=(n,)."""
    return np.asarray(np.exp(log_weights - logsumexp(log_weights)))


def checked_log_weights(log_weights: Any) -> FloatArray:
    """One log-weight a lift, shape=(n,).

    Raises:
        InputError: they are not, as where each lift has several, or some are NaN.
    """
    found = numbers(log_weights)
    if found.ndim != 1:
        given = f"of shape {np.shape(log_weights)}" if found.ndim else repr(log_weights)
        raise InputError(f"`log_weights` are {given}: give numbers of shape (n,), one log-weight each")
    if wrong := np.count_nonzero(np.isnan(found) | np.isposinf(found)):
        raise InputError(
            f"{wrong} of {len(found)} `log_weights` are NaN or infinite: a lift that failed has minus infinity"
        )
    return found


def effective_sample_size(log_weights: FloatArray) -> float:
    """Kish's (sum w)^2 / sum w^2 (Survey Sampling, 1965); 0 if every weight is zero.

    Args:
        log_weights: shape=(n,), minus infinity where a lift failed.
    """
    log_weights = checked_log_weights(log_weights)
    if not np.isfinite(log_weights).any():
        return 0.0
    return float(np.exp(2 * logsumexp(log_weights) - logsumexp(2 * log_weights)))


def _tail(log_weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Weights that are not zero, rising, the largest one being one, and how far the tail of them exceeds the next."""
    log_weights = checked_log_weights(log_weights)
    finite = np.sort(log_weights[np.isfinite(log_weights)])
    if len(finite) < FEWEST_OF_A_TAIL:
        return np.empty(0), np.empty(0)
    n_tail = int(min(0.2 * len(finite), 3 * np.sqrt(len(finite))))
    weights = np.exp(finite - finite[-1])
    return weights, weights[-n_tail:] - weights[-n_tail - 1]


def tail_share(log_weights: FloatArray) -> float:
    """Share of all weight by which the tail of `pareto_index` exceeds where it begins; NaN below 25 finite weights.

    Weights that are all but equal have a tail too, of whatever index, which decides nothing. Of a place that has less
    than this share of all weights nothing is told.

    Args:
        log_weights: shape=(n,), minus infinity where a lift failed.
    """
    weights, excess = _tail(log_weights)
    return float(excess.sum() / weights.sum()) if len(weights) else float("nan")


def pareto_index(log_weights: FloatArray) -> float:
    """Tail index k of the largest weights (Zhang & Stephens 2009, doi 10.1198/tech.2009.08017).

    Above 0.7 the error bar of mean(w) is not to be trusted (Vehtari et al. 2024, arXiv 1507.02646). NaN below 25
    finite weights.

    Args:
        log_weights: shape=(n,), minus infinity where a lift failed.
    """
    weights, excess = _tail(log_weights)
    if not len(weights):
        return float("nan")
    n_tail = len(excess)
    if excess[-1] <= 0 or excess[(n_tail - 2) // 4] <= 0:
        return -np.inf
    grid = np.arange(1, 31 + int(np.sqrt(n_tail)))
    theta = 1 / excess[-1] + (1 - np.sqrt(grid[-1] / (grid - 0.5))) / (3 * excess[(n_tail - 2) // 4])
    k = np.log1p(-theta[:, None] * excess).mean(axis=1)
    profile = n_tail * (np.log(-theta / k) - k - 1)
    posterior_mean = np.average(theta, weights=np.exp(profile - logsumexp(profile)))
    return float(np.log1p(-posterior_mean * excess).mean())


def log_bar(forward: FloatArray, reverse: FloatArray) -> FloatArray:
    """log Z from forward and reverse log-weights by Bennett's acceptance ratio (doi 10.1016/0021-9991(76)90078-4).

    The root of ``sum_F f(log w - log Z - M) - sum_R f(M + log Z - log w)``, which falls from n to -m, with the logistic
    function f and M = log(n / m).

    Args:
        forward: shape=(..., n), log w of lifts, minus infinity allowed, but not for all.
        reverse: shape=(..., m), log w of reverse relaxations.

    Returns:
        shape=(...), one for each of many samples, bootstrapped ones say.
    """
    ratio = np.log(forward.shape[-1] / reverse.shape[-1])
    finite = np.where(np.isfinite(forward), forward, np.nan)
    margin = 40.0 + abs(ratio)
    low = np.fmin(np.nanmin(finite, axis=-1), reverse.min(axis=-1)) - margin
    high = np.fmax(np.nanmax(finite, axis=-1), reverse.max(axis=-1)) + margin
    found = np.median(reverse, axis=-1)
    for _ in range(MAX_ITERATIONS):
        from_forward = expit(forward - (found + ratio)[..., None])
        from_reverse = expit((found + ratio)[..., None] - reverse)
        excess = from_forward.sum(axis=-1) - from_reverse.sum(axis=-1)
        slope = (from_forward * (1 - from_forward)).sum(axis=-1) + (from_reverse * (1 - from_reverse)).sum(axis=-1)
        low, high = np.where(excess > 0, found, low), np.where(excess > 0, high, found)
        newton = found + excess / np.maximum(slope, TINY)
        following = np.where((newton > low) & (newton < high), newton, 0.5 * (low + high))
        moved, found = np.abs(following - found), following
        if np.max(moved, initial=0.0) < TOLERANCE:
            break
    return np.asarray(found)
