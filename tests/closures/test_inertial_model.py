"""Reduced models with inertia: their equilibrium, a fit of what is known, real Langevin dynamics, a wrong surface."""

from dataclasses import replace

import numpy as np
import pytest

import openmm_gancl as gancl
from openmm_gancl import InputError
from openmm_gancl.closures import (
    InertialModel,
    ReducedModel,
    effective_dynamics,
    fit_inertial_model,
    inertial_passage_times,
    mean_passage_times,
    passage_times,
)
from openmm_gancl.closures.inertial_model import _FreeFlow
from openmm_gancl.free_energy.surface import FreeEnergySurface
from openmm_gancl.sampling import sample_swarm
from openmm_gancl.units import thermal_energy
from tests.physics.exact import DOUBLE_WELL, KT
from tests.physics.statistics import z_limit

from .conftest import LABELS
from .test_drift_diffusion import swarm_of
from .test_reduced_model import LEFT, LINE, RIGHT, TORUS, energy, torus_energy

COVARIANCE, FRICTION = 0.12, 4.0


def grid(axes, function, bins):
    d = len(axes.names)
    return ReducedModel.of_functions(
        axes, function, lambda places: np.tile(np.eye(d), (len(places), 1, 1)), 300.0, bins
    )


def surface_of(model):
    kT = thermal_energy(300.0)
    of_model = (model.energy * kT, 0 * model.energy, model.edges, model.names, model.periods, 300.0, 0, model.units)
    return FreeEnergySurface(*of_model)


def test_equilibrium_is_that_of_the_free_energy():
    """On a torus with tensors, whatever they are: both marginal densities, and the overdamped limit."""
    covariance = np.array([[1.0, 0.4], [0.4, 0.8]])
    strength = np.array([[3.0, -0.5], [-0.5, 2.0]])
    model = InertialModel.of(grid(TORUS, torus_energy, 48), covariance, strength @ np.linalg.inv(covariance))
    assert model.overdamped.diffusion[0, 0] == pytest.approx(covariance @ np.linalg.inv(strength) @ covariance)
    starts = np.random.default_rng(1).uniform(-np.pi, np.pi, (4000, 2))
    frames = model.simulate(starts, 600, 0.05, stride=100, seed=1)[2:]
    density = model.overdamped.density * model.overdamped.spacings.prod()
    for axis in (0, 1):
        exact = density.sum(axis=1 - axis).reshape(12, 4).sum(axis=1)
        counts = np.array([np.histogram(part[:, axis], 12, (-np.pi, np.pi))[0] for part in frames]) / 4000
        # copies are independent, frames of one are not quite
        z = (counts.mean(axis=0) - exact) / np.sqrt(exact * (1 - exact) / 4000 / 2)
        assert np.abs(z).max() < z_limit(24), z


@pytest.mark.parametrize(("friction", "time_step"), [(0.01, 0.02), (1.0, 0.1), (50.0, 0.2), (2000.0, 0.2)])
def test_free_motion_is_exact_whatever_the_friction(friction, time_step):
    """Of copies that turn nowhere: velocity, way, and how they go together, after steps far longer than it decays.

    A scheme that moves by the velocities at both ends would come 20 and 200 times as far at the highest friction.
    """
    flat = grid(TORUS, lambda places: 0 * places[:, 0], 12)
    covariance = np.array([[1.0, 0.3], [0.3, 0.5]]) * min(1.0, friction) ** 2 * 1e-2
    model = InertialModel.of(flat, covariance, friction * np.eye(2))
    flow, rng = _FreeFlow.of(model, time_step), np.random.default_rng(11)
    v = rng.standard_normal((40_000, 2)) @ np.linalg.cholesky(covariance).T
    total, n_steps = 0.0, 5
    for _ in range(n_steps):
        moved, v = flow(v, rng.standard_normal((2, *v.shape)))
        total = total + moved
    x = friction * time_step * n_steps
    exact = 2 * covariance * (x - 1 + np.exp(-x)) / friction**2
    scatter = np.sqrt(2 / 40_000)
    for found, expected in ((total.T @ total, exact), (v.T @ v, covariance)):
        z = np.diag(found / 40_000 / expected - 1) / scatter
        assert np.abs(z).max() < z_limit(16), (found / 40_000, expected)
    assert (total.T @ v)[0, 0] / 40_000 == pytest.approx(
        covariance[0, 0] * -np.expm1(-x) / friction, abs=5 * np.sqrt(exact[0, 0] * covariance[0, 0] / 40_000)
    )


@pytest.fixture(scope="module")
def runs():
    model = InertialModel.of(grid(LINE, energy, 240), COVARIANCE, FRICTION)
    starts = np.repeat(np.linspace(-1.2, 1.2, 7), 400)[:, None]
    return model, starts, swarm_of(model.simulate(starts, 160, 0.005, stride=8, seed=2), starts, 0.04)


def test_a_fit_has_the_friction_that_the_runs_were_made_with(runs):
    model, starts, swarm = runs
    found = fit_inertial_model(swarm, LINE, starts, surface_of(model.overdamped), seed=3)
    assert not found.doubts() and 0.7 < found.misfit < 1.3 and found.deviation < 0.1
    assert found.model.velocity_covariance[0, 0] == pytest.approx(COVARIANCE, rel=0.1)
    assert found.model.friction[0, 0] == pytest.approx(FRICTION, rel=0.2)
    assert "of the runs of a label left the domain" in replace(found, left=0.3).doubts()[0]
    # an overdamped one has no plateau
    known = type("Known", (), {"log_density": staticmethod(lambda places: -energy(places))})
    assert any("no plateau" in doubt for doubt in effective_dynamics(swarm, LINE, starts, known, 300.0).doubts())


def test_a_wrong_surface_shows(runs):
    """The twin: wells that are twice as deep."""
    model, starts, swarm = runs
    deeper = replace(model.overdamped, energy=2 * model.overdamped.energy)
    assert any(
        "does not explain" in doubt for doubt in fit_inertial_model(swarm, LINE, starts, surface_of(deeper)).doubts()
    )


@pytest.mark.parametrize("friction", [0.2, 4.0])
def test_passage_times_are_those_that_are_counted(friction):
    """Both ways, where velocities are forgotten slowly and fast; the limit of high friction is the twin that fails."""
    model = InertialModel.of(grid(LINE, energy, 240), COVARIANCE, friction)
    found = inertial_passage_times(model, LEFT, RIGHT, seed=1)
    frames = model.simulate(np.full((1000, 1), -1.0), 12_500, 0.02, stride=5, seed=2)
    counted = passage_times(frames[500:], 0.1, LEFT, RIGHT)
    assert not found.doubts() and found.between < 0.01 and counted.counts.min() > 200
    assert "have errors of 30%" in replace(found, error=0.3 * found.mean).doubts()[0]
    z = (found.mean - counted.mean) / np.hypot(found.error, counted.error)
    assert np.abs(z).max() < z_limit(4), (found, counted)
    limit = mean_passage_times(model.overdamped, LEFT, RIGHT)
    far = np.abs(limit - counted.mean) / counted.error
    assert (far > 10).all() if friction < 1 else (limit < counted.mean).all()
    with pytest.raises(InputError, match="overlap or touch"):
        inertial_passage_times(model, LEFT, LEFT)


def test_a_region_in_between_that_holds_the_runs_shows(monkeypatch):
    """Three wells, regions are the outer two: the middle one, deep, decides nothing within the runs."""

    def wells(places):
        x = places[:, 0]
        return -25 * (np.exp(-0.5 * ((np.abs(x) - 1.1) / 0.12) ** 2) + np.exp(-0.5 * (x / 0.12) ** 2))

    model = InertialModel.of(grid(LINE, wells, 240), COVARIANCE, 0.02)
    x = model.overdamped.centres[:, 0]
    monkeypatch.setattr("openmm_gancl.closures.inertial_passages.MOST_MOVES", 400_000)
    found = inertial_passage_times(model, x < -1.05, x > 1.05, n_pairs=200, seed=1)
    assert found.doubts() and "reached neither" in found.doubts()[0]


def test_copies_turn_back_at_ends_and_walls():
    inner = grid(LINE, energy, 240)
    walled = replace(inner, energy=np.where(np.abs(inner.centres[:, 0]) < 1.1, inner.energy, np.inf))
    frames = InertialModel.of(walled, 1.0, 0.5).simulate(np.zeros((200, 1)), 2000, 0.01, stride=10, seed=4)
    assert np.abs(frames).max() < 1.11 and np.abs(frames).max() > 1.0
    open_end = InertialModel.of(replace(inner, energy=0 * inner.energy), 1.0, 0.1)
    frames = open_end.simulate(np.zeros((500, 1)), 3000, 0.01, stride=50, seed=5)
    low, high = LINE.domain[0]
    assert frames.min() >= low and frames.max() < high
    assert np.histogram(frames[10:], 4, (low, high))[0] / frames[10:].size == pytest.approx(0.25, abs=0.03)


def test_what_is_refused():
    inner = grid(LINE, energy, 60)
    with pytest.raises(InputError, match="the covariance of velocities is not symmetric and positive definite"):
        InertialModel.of(inner, -1.0, 1.0)
    with pytest.raises(InputError, match="friction times it is not symmetric"):
        InertialModel.of(grid(TORUS, torus_energy, 12), np.diag([1.0, 2.0]), np.array([[1.0, 0.5], [0.5, 1.0]]))
    with pytest.raises(InputError, match="a start lies outside the domain"):
        InertialModel.of(inner, 1.0, 1.0).simulate([[99.0]], 10, 0.01)


@pytest.mark.slow
def test_the_double_well_under_langevin_dynamics(toy):
    """Passages of the full model, both ways, where an overdamped model of the same runs has no plateau."""
    learned = gancl.learn(toy, seed=1, max_evaluations=20_000)
    lifts = gancl.structures_at(toy, learned.model, LABELS, 300, seed=1, platform="Reference")
    swarm = sample_swarm(toy, lifts.positions, 40, n_frames=40, seed=1, copies=500, platform="Reference")
    surface = learned.regression.surface(toy.slow, toy.temperature, 0, 240)
    found = fit_inertial_model(swarm, toy.slow, lifts.labels, surface)
    assert not found.doubts(), found
    assert found.model.velocity_covariance[0, 0] == pytest.approx(KT / 20, rel=0.2)
    starts = DOUBLE_WELL.sample(200, np.random.default_rng(2))
    run = sample_swarm(toy, starts, 100_000, n_frames=5000, seed=2, copies=200, platform="Reference")
    full = passage_times(run.labels.transpose(1, 0, 2), 0.3, LEFT, RIGHT)
    frames = found.model.simulate(starts[:, 0, :1], 150_000, 0.01, stride=30, seed=3)
    reduced = passage_times(frames, 0.3, LEFT, RIGHT)
    assert full.counts.min() >= 100
    solved = inertial_passage_times(found.model, LEFT, RIGHT, seed=4)
    assert np.abs(solved.mean / full.mean - 1).max() < 3 * np.hypot(full.error / full.mean, 0.05).max()
    assert np.abs(reduced.mean / full.mean - 1).max() < 3 * np.hypot(full.error / full.mean, 0.05).max()
