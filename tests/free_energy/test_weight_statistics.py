"""The tail of weights: its index of known distributions, and whether it has any weight."""

import numpy as np
import pytest

from openmm_gancl.free_energy.weight_statistics import LEAST_TAIL, MAX_PARETO_INDEX, pareto_index, tail_share

N = 20_000


@pytest.mark.parametrize("index", [0.3, 0.9, 1.5])
def test_the_index_of_a_pareto_tail(index):
    """Means of 20 sets are within 0.1 of it; all of them have much of the weight."""
    rng = np.random.default_rng(1)
    sets = [index * rng.exponential(size=N) for _ in range(20)]
    assert abs(np.mean([pareto_index(log_weights) for log_weights in sets]) - index) < 0.1
    assert np.median([tail_share(log_weights) for log_weights in sets]) > 1.5 * LEAST_TAIL


def test_a_tail_of_weights_that_are_all_but_equal():
    """One in a thousand is up to eight times the others: a large index, and no weight to speak of."""
    rng = np.random.default_rng(2)
    log_weights = rng.normal(0.0, 0.05, N)
    log_weights[:20] = np.linspace(0.3, 2.0, 20)
    assert pareto_index(log_weights) > MAX_PARETO_INDEX and tail_share(log_weights) < LEAST_TAIL
    # the twin: ten times as many, and up to fifty times the others
    log_weights[:200] = np.linspace(0.3, 4.0, 200)
    assert pareto_index(log_weights) > MAX_PARETO_INDEX and tail_share(log_weights) > 5 * LEAST_TAIL


def test_few_weights_have_no_tail():
    assert np.isnan(pareto_index(np.zeros(24))) and np.isnan(tail_share(np.zeros(24)))
    assert np.isnan(tail_share(np.full(100, -np.inf)))
    # all equal: there is none either
    assert pareto_index(np.zeros(100)) == -np.inf and tail_share(np.zeros(100)) == 0.0
