"""Independence Metropolis over unrestrained lifts: every marginal exact, false-alarm rate that of 3.5 sigma."""

import numpy as np
import pytest
from scipy.stats import kstest

from openmm_gancl import Lifter
from openmm_gancl.lifting import accept_metropolis

from .exact import DOUBLE_WELL
from .statistics import FALSE_ALARM

RELAX_STEPS, N_LIFTS = 200, 8000


@pytest.fixture(scope="module")
def lifts(models):
    model = models.with_prior_encoder(DOUBLE_WELL.name, "trained", 0)
    lifter = Lifter(
        models.system(DOUBLE_WELL.name), model, relax_steps=RELAX_STEPS, mode="unrestrained", platform="Reference"
    )
    return lifter.lift(lifter.label_proposal.sample(N_LIFTS, np.random.default_rng(1)), seed=2)


def thinning(log_weights):
    """Proposals after which an independence chain has forgotten all but a hundredth: rate Z / max w (Liu 1996)."""
    rate = np.exp(log_weights - log_weights.max()).mean()
    return int(np.ceil(np.log(0.01) / np.log1p(-rate)))


def p_values(positions):
    return [kstest(positions[:, 0, i], marginal).pvalue for i, marginal in enumerate(DOUBLE_WELL.marginals())]


def test_every_marginal_is_exact(lifts):
    states, accepted = accept_metropolis(lifts.log_weights, np.random.default_rng(3))
    step = thinning(lifts.log_weights)
    chain = states[step::step]
    assert len(chain) > 200, step
    assert 0.1 < accepted.mean() < 0.9
    assert min(p_values(lifts.positions[chain])) > FALSE_ALARM / 3


def test_accepting_every_lift_is_not(lifts):
    step = thinning(lifts.log_weights)
    x, y, _ = p_values(lifts.positions[step::step])
    assert min(x, y) < 1e-6


def test_weights_alone_say_the_same(lifts):
    """Self-normalised averages of the same lifts, six moments at 3.5 sigma family-wise."""
    weights = np.exp(lifts.log_weights - lifts.log_weights.max())
    weights /= weights.sum()
    exact = DOUBLE_WELL.sample(400000, np.random.default_rng(4))[:, 0]
    for power in (1, 2):
        values = lifts.positions[:, 0] ** power
        mean = weights @ values
        error = np.sqrt(weights**2 @ (values - mean) ** 2)
        error = np.hypot(error, (exact**power).std(axis=0) / 400000**0.5)
        assert (np.abs(mean - (exact**power).mean(axis=0)) < 4.0 * error).all()
