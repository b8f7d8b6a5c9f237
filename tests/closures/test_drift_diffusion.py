"""Drift and diffusion from short runs against those the runs were made with; wrong lags, weights and drifts show."""

from dataclasses import replace
from functools import lru_cache
from types import SimpleNamespace

import numpy as np
import pytest

import openmm_gancl as gancl
from openmm_gancl import InputError
from openmm_gancl.closures import ReducedModel, effective_dynamics, mean_passage_times, passage_times
from openmm_gancl.closures.swarm_slopes import check_surface_axes
from openmm_gancl.coordinates.geometry import wrap
from openmm_gancl.coordinates.slow_coordinates import FirstAxes
from openmm_gancl.free_energy.surface import FreeEnergySurface
from openmm_gancl.sampling import Swarm, sample_swarm
from tests.physics.exact import DOUBLE_WELL, KT
from tests.physics.statistics import z_limit

from .conftest import LABELS
from .test_reduced_model import LEFT, LINE, RIGHT, TORUS, diffusion, energy, torus_diffusion, torus_energy


def swarm_of(trajectories, starts, interval):
    """Runs of trajectories, shape=(n_frames, n, d)."""
    labels = np.concatenate([starts[None], trajectories]).transpose(1, 0, 2)
    n_frames = len(trajectories)
    return Swarm(
        np.zeros((len(starts), 0, 1, 3)), np.arange(n_frames + 1) * interval, labels, np.zeros(len(starts), bool)
    )


def known(function):
    """A free energy as the regression of lifts gives it."""
    return SimpleNamespace(log_density=lambda places: -function(places))


@lru_cache
def line_runs():
    truth = ReducedModel.of_functions(LINE, energy, diffusion, 300.0, 1600)
    starts = np.repeat(np.linspace(-1.2, 1.2, 15), 2000)[:, None]
    return truth, starts, swarm_of(truth.simulate(starts, 100, 0.0008, stride=5, seed=1), starts, 0.004)


def scores(found, drift, tensors):
    """Largest |z| of drift and of diffusion at the labels."""
    lower = np.tril_indices(found.drift.shape[1])
    of_drift = (found.drift - drift) / found.drift_error
    of_diffusion = ((found.diffusion - tensors) / found.diffusion_error)[:, *lower]
    return np.abs(of_drift).max(), np.abs(of_diffusion).max(), of_drift.size + of_diffusion.size


def test_drift_and_diffusion_are_those_the_runs_were_made_with():
    truth, starts, swarm = line_runs()
    found = effective_dynamics(swarm, LINE, starts, known(energy), 300.0)
    assert not found.doubts() and found.scan.chosen == 0
    drift, tensors = truth.interpolated(truth.drift, found.labels), diffusion(found.labels)
    *z, n = scores(found, drift, tensors)
    assert max(z) < z_limit(n)
    model = found.model
    smooth = model.interpolated(model.drift, found.labels), model.interpolated(model.diffusion, found.labels)
    assert np.abs(smooth[0] - drift).max() < 0.08 * np.abs(drift).max()
    assert np.abs(smooth[1] / tensors - 1).max() < 0.15
    # the noise-induced drift left out is another drift
    forced = model.interpolated(model._forced_drift, found.labels)
    assert scores(found, forced, tensors)[0] > 2 * z_limit(n)
    times = mean_passage_times(model, LEFT, RIGHT) / mean_passage_times(truth, LEFT, RIGHT)
    assert np.abs(times - 1).max() < 0.1


def test_a_wrong_time_and_a_wrong_surface_show():
    """The twins: an interval that is half as long as the runs', and a free energy that is none."""
    truth, starts, swarm = line_runs()
    found = effective_dynamics(replace(swarm, times=0.5 * swarm.times), LINE, starts, known(energy), 300.0)
    z = scores(found, truth.interpolated(truth.drift, found.labels), diffusion(found.labels))
    assert z[1] > 2 * z_limit(z[2])
    found = effective_dynamics(swarm, LINE, starts, known(lambda places: -0.5 * energy(places)), 300.0)
    assert any("the drift of the runs is not that of free energy" in doubt for doubt in found.doubts())


def rotor_runs(unwrapped=False):
    """Of free rotation with D = 1/ps, which in 1 ps is often farther than halfway round."""
    circle = FirstAxes(("phi",), np.array([2 * np.pi]), np.array([[-np.pi, np.pi]]), ("radians",))
    starts, rng = np.repeat(np.linspace(-np.pi, np.pi, 9)[:-1], 400)[:, None], np.random.default_rng(1)
    frames = starts + np.cumsum(np.sqrt(2 * 0.05) * rng.normal(size=(20, *starts.shape)), axis=0)
    return circle, starts, swarm_of(frames if unwrapped else wrap(frames, 2 * np.pi), starts, 0.05)


def test_runs_that_turn_all_the_way_around(monkeypatch):
    """Displacements are counted as a model on a circle does; the twin counts the turns, which it has not."""

    def fitted(unwrapped):
        circle, starts, swarm = rotor_runs(unwrapped)
        return effective_dynamics(swarm, circle, starts, known(lambda places: 0 * places[:, 0]), 300.0)

    found = fitted(False)
    error = np.sqrt((found.diffusion_error**2).sum()) / len(found.labels)
    assert abs(found.diffusion.mean() - 1) < z_limit(1) * error and error < 0.05 and not found.doubts()
    assert np.abs(found.model.diffusion - 1).max() < 0.15
    monkeypatch.setattr("openmm_gancl.closures.swarm_slopes.wrap", lambda x, periods: x)
    assert fitted(True).model.diffusion.mean() > 1.3


def test_runs_of_one_label_that_leave_are_said():
    """Nearly half of those at 1.5 of 1.6, which are 3 % of all: those that stay have a drift that there is not."""
    rng, starts = np.random.default_rng(2), np.repeat(np.append(np.linspace(-1, 1, 14), 1.5), 400)[:, None]
    frames = starts + np.cumsum(np.sqrt(2 * 0.25 * 0.004) * rng.normal(size=(20, *starts.shape)), axis=0)
    swarm = swarm_of(frames, starts, 0.004)
    found = effective_dynamics(swarm, LINE, starts, known(lambda places: 0 * places[:, 0]), 300.0)
    assert any("of the runs of a label left the domain" in doubt for doubt in found.doubts())
    assert found.drift[-1, 0] < -3 * found.drift_error[-1, 0]
    assert (frames[-1] > 1.6).mean() < 0.05
    inner = starts[:, 0] < 1.2
    some = replace(swarm, positions=swarm.positions[inner], labels=swarm.labels[inner], failed=swarm.failed[inner])
    found = effective_dynamics(some, LINE, starts[inner], known(lambda places: 0 * places[:, 0]), 300.0)
    assert not found.doubts() and found.left <= 0


def test_labels_weights_and_surfaces_that_are_not_the_runs():
    """All of them would give numbers, most without a doubt."""
    truth, starts, swarm = line_runs()
    surface = FreeEnergySurface.of_reduced(truth.energy, 0 * truth.energy, truth.edges, LINE, 300.0, 0)
    for changed, words in (
        ({"temperature": 350.0}, r"the surface is of 350 K, the runs of 300 K: give a surface of theirs"),
        ({"units": ("angstrom",)}, r"the surface is over x angstrom, the runs over x nm"),
    ):
        with pytest.raises(InputError, match=words):
            effective_dynamics(swarm, LINE, starts, replace(surface, **changed), 300.0)
    with pytest.raises(InputError, match="the surface is over phi radians, psi radians, the runs over x nm"):
        torus = ReducedModel.of_functions(TORUS, torus_energy, torus_diffusion, 300.0, 6)
        flat = FreeEnergySurface.of_reduced(torus.energy, 0 * torus.energy, torus.edges, TORUS, 300.0, 0)
        effective_dynamics(swarm, LINE, starts, flat, 300.0)
    with pytest.raises(InputError, match="the surface is over psi radians, phi radians, the runs over phi radians, "):
        check_surface_axes(replace(flat, names=("psi", "phi")), TORUS)
    check_surface_axes(flat, TORUS)
    with pytest.raises(InputError, match=r"said to be of label \(-1.2\) begin elsewhere, the first at \(1.2\)"):
        effective_dynamics(swarm, LINE, -starts, surface, 300.0)
    few = np.where(np.arange(len(starts)) % 2000 < 3, 9.0, 0.0)
    with pytest.raises(InputError, match=r"the weights leave 3\.5 effective runs of label \(-1.2\)"):
        effective_dynamics(swarm, LINE, starts, surface, 300.0, log_weights=few)
    with pytest.raises(InputError, match="1 of 30000 `log_weights` are NaN"):
        broken = np.where(np.arange(len(starts)) == 5, np.nan, 0.0)
        effective_dynamics(swarm, LINE, starts, surface, 300.0, log_weights=broken)


def test_weights_of_the_starts_count():
    """Each label's runs are those of two labels, half of them without weight; equal weights give another drift."""
    truth, starts, swarm = line_runs()
    rng = np.random.default_rng(1)
    label = swarm.labels[:, 0, 0]
    other = rng.random(len(starts)) < 0.5
    mixed = np.where(other[:, None, None], swarm.labels + 0.02 * np.arange(21)[:, None], swarm.labels)
    mixed_swarm = replace(swarm, labels=mixed)
    weights = np.where(other, -50.0, rng.normal(0, 0.3, len(label)))
    drift = truth.interpolated(truth.drift, np.unique(starts)[:, None])
    z = [
        scores(effective_dynamics(mixed_swarm, LINE, starts, known(energy), 300.0, log_weights=one), drift, 1.0)[0]
        for one in (weights, None)
    ]
    assert z[0] < z_limit(30) < z[1]


def test_tensors_on_a_torus():
    truth = ReducedModel.of_functions(TORUS, torus_energy, torus_diffusion, 300.0, 72)
    axis = np.linspace(-np.pi, np.pi, 5)[:-1] + 0.3
    labels = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    starts = np.repeat(labels, 600, axis=0)
    frames = truth.simulate(starts, 60, 0.001, stride=6, seed=2)
    found = effective_dynamics(swarm_of(frames, starts, 0.006), TORUS, starts, known(torus_energy), 300.0, bins=36)
    assert not found.doubts()
    places = found.labels
    *z, n = scores(found, truth.interpolated(truth.drift, places), torus_diffusion(places))
    assert max(z) < z_limit(n)
    tensors = found.model.diffusion
    assert np.allclose(tensors, np.swapaxes(tensors, -1, -2)) and np.linalg.eigvalsh(tensors).min() > 0
    # an off-diagonal element is there
    assert scores(found, truth.interpolated(truth.drift, places), torus_diffusion(places) * np.eye(2))[1] > z_limit(n)


def test_inertia_has_no_plateau_in_short_runs():
    """Free flight at first: what runs of half a velocity's memory say of the diffusion is said not to be trusted."""
    rng, friction, step = np.random.default_rng(3), 1.0, 0.01
    starts = np.repeat(np.linspace(-1.0, 1.0, 5), 1500)[:, None]
    x, v, frames = starts.copy(), rng.normal(size=starts.shape), []
    for _ in range(50):
        v = v * np.exp(-friction * step) + np.sqrt(1 - np.exp(-2 * friction * step)) * rng.normal(size=v.shape)
        x = x + 0.2 * step * v
        frames.append(x)
    found = effective_dynamics(
        swarm_of(np.array(frames), starts, step), LINE, starts, known(lambda p: 0 * p[:, 0]), 300.0
    )
    assert any("no plateau" in doubt for doubt in found.doubts())
    assert np.isfinite(found.scan.p_values).sum() > 2
    # where only the fit from the first lag, none, is left in use, the longest that was tried is named
    early = replace(found, scan=replace(found.scan, chosen=0)).evidence
    longest = found.scan.lags[found.scan.last_tried]
    assert longest > 0 and f"none of the lags tried, up to {longest:.3g} ps, does one" in early
    (p_values := np.full(len(found.scan.lags), np.nan))[0] = 1e-9
    only = replace(found, scan=replace(found.scan, chosen=0, last_tried=0, p_values=p_values)).evidence
    assert "from the lag of 0 ps one model does not explain" in only


def test_what_effective_dynamics_refuses_and_doubts():
    _, starts, swarm = line_runs()
    free = known(energy)
    with pytest.raises(InputError, match="runs of 4 frames have too few lags"):
        effective_dynamics(replace(swarm, times=swarm.times[:5], labels=swarm.labels[:, :5]), LINE, starts, free, 300.0)
    with pytest.raises(InputError, match=r"labels have shape \(30000,\): give \(30000, 1\)"):
        effective_dynamics(swarm, LINE, starts[:, 0], free, 300.0)
    with pytest.raises(InputError, match=r"label \(-1.2\) has 0 runs that stayed in the domain"):
        moved = np.where(starts[:, None] < -1.1, swarm.labels - 1.0, swarm.labels)
        effective_dynamics(replace(swarm, labels=moved), LINE, starts, free, 300.0)
    with pytest.raises(InputError, match="every run failed or left the domain"):
        effective_dynamics(replace(swarm, failed=np.ones(len(starts), bool)), LINE, starts, free, 300.0)
    with pytest.raises(InputError, match=r"a lag of 1 ps for runs of 0.08 ps"):
        effective_dynamics(swarm, LINE, starts, free, 300.0, lag=1.0)
    with pytest.raises(InputError, match="not positive definite at 1 of 15 labels"):
        still = np.where(starts[:, None] == starts[0], starts[:, None], swarm.labels)
        effective_dynamics(replace(swarm, labels=still), LINE, starts, free, 300.0)
    failed = np.arange(len(starts)) % 10 == 0
    found = effective_dynamics(replace(swarm, failed=failed), LINE, starts, free, 300.0)
    assert any("9% of the runs of a label blew up" in doubt for doubt in found.doubts())


def slaved_diffusion(x):
    """Of x in the toy under isotropic overdamped dynamics, once y and z follow their centres, which they are pulled to
    through the same friction: D over one plus their slopes squared."""
    return KT / (20 * 5) / (1 + (0.375 * np.cos(1.5 * x)) ** 2 + (0.2 * np.sin(x)) ** 2)


def slaved_drift(x, step=1e-5):
    force = -40 * x * (x**2 - 1) / KT - 1.1 / np.cosh(2 * x) ** 2
    slope = (slaved_diffusion(x + step) - slaved_diffusion(x - step)) / (2 * step)
    return slaved_diffusion(x) * force + slope


@pytest.mark.slow
def test_the_double_well_under_brownian_dynamics(toy):
    """Drift and diffusion at 15 labels, and passages of the full and of the reduced model, both ways."""
    learned = gancl.learn(toy, seed=1, max_evaluations=60_000)
    lifts = gancl.structures_at(toy, learned.model, LABELS, 8000, seed=1, platform="Reference")
    options = {"copies": 500, "time_step": 0.002, "platform": "Reference", "dynamics": "brownian"}
    swarm = sample_swarm(toy, lifts.positions, 200, n_frames=40, seed=1, **options)
    found = effective_dynamics(swarm, toy.slow, lifts.labels, learned.regression, toy.temperature, lag=0.1)
    x = found.labels[:, 0]
    drift, tensors = slaved_drift(x)[:, None], slaved_diffusion(x)[:, None, None]
    *z, n = scores(found, drift, tensors)
    assert max(z) < z_limit(n), z
    model = found.model
    assert np.abs(model.interpolated(model.drift, found.labels) - drift).max() < 0.05 * np.abs(drift).max()
    assert np.abs(model.interpolated(model.diffusion, found.labels) / tensors - 1).max() < 0.05
    # the diffusion of a free particle is that of the first steps alone
    assert scores(found, drift, KT / 100)[1] > z_limit(n)
    starts = np.concatenate([DOUBLE_WELL.sample(300, np.random.default_rng(2))])
    run = sample_swarm(toy, starts, 400_000, n_frames=4000, seed=2, **(options | {"time_step": 0.004, "copies": 300}))
    full = passage_times(run.labels.transpose(1, 0, 2), 0.4, LEFT, RIGHT)
    assert (
        np.abs((mean_passage_times(model, LEFT, RIGHT) - full.mean) / np.hypot(full.error, 0.05 * full.mean)).max() < 3
    )
