"""Coarse projective integration: a relaxation in closed form, lifted ensembles, and what is refused."""

import dataclasses

import numpy as np
import pytest
from scipy.special import logsumexp

from openmm_gancl import InputError
from openmm_gancl.closures import Burst, LiftedBursts, TiltedLabels, projective_integration
from openmm_gancl.lifting import load_sde
from tests.physics.exact import DOUBLE_WELL, KT
from tests.physics.statistics import z_limit

from .test_drift_diffusion import slaved_drift

FAST, COUPLING = 0.002, 0.8
"""Time of the fast variable in units of the slow one's, and how much of the slow one's pull goes through the fast."""

SLOW_RATE = float(-np.linalg.eigvals([[-2.0, COUPLING], [1 / FAST, -1 / FAST]]).real.max())
"""Of ``dx = (-2 x + c y) dt + dW, dy = (x - y) dt / eps + dV``: the slow eigenvalue, about 2 - c."""


@pytest.fixture(scope="module")
def linear():
    """The quadratic equation's card with another drift."""
    return dataclasses.replace(
        load_sde("quadratic"),
        drift={"x1": "-2*x1+c*x2", "x2": "(x1-x2)/eps"},
        noise={"x1": "0.25", "x2": "0.2/sqrt(eps)"},
        parameters={"eps": FAST, "c": COUPLING},
        time_step=FAST / 10,
        relaxation_time=FAST,
    )


class LinearBursts:
    """Ensembles of the linear equation whose mean is requested; the fast variable relaxes at first, from zero."""

    def __init__(self, sde, n_frames=6, relaxation_times=5.0, healed=2):
        self.sde, self.n_frames, self.relaxation_times, self.healed = sde, n_frames, relaxation_times, healed
        self.n_runs = 1500

    def __call__(self, values, seed):
        x = values[0] + 0.3 * np.random.default_rng(seed).standard_normal(self.n_runs)
        states = self.sde.relax_frozen(np.stack([x, 0 * x], axis=1), self.relaxation_times * FAST, seed=seed)
        frames = self.sde.simulate(self.n_frames, 2 * FAST, seed=seed + 1, states=states)
        moved = np.concatenate([[0.0], (frames[:, :, 0] - x).mean(axis=1)])
        times = 2 * FAST * np.arange(self.n_frames + 1)
        steps = self.n_runs * times[-1] / self.sde.time_step
        lifting = self.n_runs * self.relaxation_times * FAST / self.sde.time_step
        return Burst(times, values + moved[:, None], self.healed, round(lifting), round(steps))


def rate_of(trajectory):
    """Of an exponential, by its ends."""
    return -np.log(trajectory.values[-1, 0] / trajectory.values[0, 0]) / trajectory.times[-1]


def test_the_slow_relaxation_of_a_linear_equation(linear):
    """Within 3 %, of three seeds whose mean is known to better than that, and for a quarter of the evaluations."""
    found = [projective_integration(LinearBursts(linear), [5.0], 4, 0.3, seed=seed) for seed in (1, 2, 3)]
    rates = np.array([rate_of(one) for one in found])
    assert abs(rates.mean() / SLOW_RATE - 1) < 0.03, rates / SLOW_RATE
    assert rates.std(ddof=1) / 3**0.5 < 0.015 * SLOW_RATE, rates / SLOW_RATE
    assert all(one.saved > 4 for one in found) and not found[0].doubts()


def test_an_ensemble_that_has_not_healed_shows(linear):
    """The twin: the fast variable is left where it was, and derivatives are taken from the beginning."""
    unhealed = LinearBursts(linear, n_frames=1, relaxation_times=0.01, healed=0)
    assert rate_of(projective_integration(unhealed, [5.0], 4, 0.3, seed=1)) > 1.1 * SLOW_RATE


def test_the_midpoint_rule_is_of_second_order():
    """Bursts without noise that move on while they run: a first-order use of them errs in proportion to the step."""

    def exact(values, seed):
        times = np.linspace(0, 2e-4, 3)
        return Burst(times, values * np.exp(-times)[:, None], 1, 1, 2)

    errors = [abs(projective_integration(exact, [1.0], n, 2.0 / n).values[-1, 0] - np.exp(-2)) for n in (8, 16)]
    assert errors[0] < 0.01 and 3.5 < errors[0] / errors[1] < 4.7


def test_tilted_labels_have_the_averages_that_are_requested():
    rng = np.random.default_rng(1)
    centres, log_density = rng.normal(size=(300, 2)), rng.normal(size=300)
    functions = np.stack([centres[:, 0], centres[:, 1] ** 2], axis=1)
    found = TiltedLabels.of(centres, log_density, functions, np.array([0.4, 1.2]))
    populations = np.exp(found.log_populations)
    assert populations @ functions == pytest.approx([0.4, 1.2], abs=1e-3)
    # the ratio to equilibrium is the tilt alone
    logs = log_density + functions @ found.tilt
    assert found.log_populations == pytest.approx(logs - logsumexp(logs), abs=1e-9)
    with pytest.raises(InputError, match="no ensemble has the coarse variables"):
        TiltedLabels.of(centres, log_density, functions, np.array([0.4, -0.1]))


@pytest.fixture(scope="module")
def of_toy(toy, learned):
    """E[x] of the double well, under overdamped dynamics."""
    how = {"time_step": 0.002, "dynamics": "brownian", "copies": 500}
    return LiftedBursts(toy, learned.model, learned.regression, lambda labels: labels[:, :1], 2000, 60, 12, 6, **how)


def test_a_lifted_ensemble_of_the_toy(of_toy):
    """Its average is the one requested, its fast coordinates those of equilibrium given x."""
    starts, effective, cost = of_toy.lift(np.array([0.2]), seed=3)
    x, y = starts[:, 0, 0], starts[:, 0, 1]
    assert abs(x.mean() - 0.2) < 4 * x.std() / effective**0.5
    _, my, sy = DOUBLE_WELL.fast(x)[0][0]
    scaled = (y - my) / sy
    assert abs(scaled.mean()) < 4 / effective**0.5 and abs(scaled.std() - 1) < 4 / effective**0.5
    assert effective > 1000 and cost == 4000


def test_the_derivative_of_a_lifted_ensemble_is_the_mean_of_the_drift(of_toy):
    burst = of_toy(np.array([0.2]), 4)
    centres = np.linspace(-1.6, 1.6, 2001)[:, None]
    log_density = -DOUBLE_WELL.surface(centres[:, 0]) / KT
    exact = TiltedLabels.of(centres, log_density, centres, burst.centre)
    drift = np.exp(exact.log_populations) @ slaved_drift(centres[:, 0])
    # 2 D t over the time that the derivative is of, of all runs
    error = np.sqrt(2 * 0.0249 / 0.06 / of_toy.n_runs)
    assert abs(burst.derivative[0] - drift) < z_limit(1) * error, (burst.derivative, drift, error)


def test_what_is_refused(of_toy):
    times = np.linspace(0, 1, 3)
    with pytest.raises(InputError, match="two of them healed at least"):
        Burst(times, np.zeros((3, 1)), 2, 0, 1)
    with pytest.raises(InputError, match="NaN or infinite"):
        Burst(times, np.full((3, 1), np.nan), 0, 0, 1)
    with pytest.raises(InputError, match="shorter than a burst of 1: run all along"):
        projective_integration(lambda values, seed: Burst(times, np.zeros((3, 1)), 0, 0, 1), [0.0], 1, 0.5)
    with pytest.raises(InputError, match=r"`restrict` gives an array of shape \(1, 1\)"):
        dataclasses.replace(of_toy, restrict=lambda labels: np.zeros(1)).lift(np.array([0.2]), 1)
    few = projective_integration(
        lambda values, seed: Burst(times, np.tile(values, (3, 1)), 0, 5, 10, effective=20.0), [0.0], 2, 5.0
    )
    assert few.doubts() and few.direct_evaluations == 105 and few.force_evaluations == 60
