"""The one statistic of the exactness tests, and what a family of tests may cost in false alarms."""

from dataclasses import asdict, dataclass

import numpy as np
from scipy.stats import norm

FALSE_ALARM = float(2 * norm.sf(3.5))
"""Of a whole family of tests: two-sided 3.5 sigma, 4.7e-4."""


def z_limit(n_tests):
    """|z| of one of n tests so that the family keeps the false-alarm rate of 3.5 sigma (Bonferroni)."""
    return float(norm.isf(FALSE_ALARM / 2 / n_tests))


@dataclass(frozen=True)
class Score:
    """mean(w) / Z - 1 in units of its bootstrapped error, and whether the case says anything."""

    n: int
    ratio: float
    relative_error: float
    z: float
    effective_sample_size: float


def score(log_weights, log_z, seed=0, n_bootstrap=400):
    """mean(w) against the exact Z, zero weights counted."""
    weights = np.exp(log_weights - log_z)
    rng = np.random.default_rng(seed)
    n = len(weights)
    draws = np.concatenate(
        [rng.multinomial(n, np.full(n, 1 / n), size=40) @ weights / n for _ in range(n_bootstrap // 40)]
    )
    mean, error = weights.mean(), draws.std(ddof=1)
    size = weights.sum() ** 2 / (weights**2).sum()
    return Score(n, float(mean), float(error / mean), float((mean - 1.0) / error), float(size))


def as_record(result):
    return asdict(result)
