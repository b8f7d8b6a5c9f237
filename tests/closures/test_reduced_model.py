"""Reduced models against quadrature and against their own trajectories; what is planted shows."""

import json

import numpy as np
import pytest

import openmm_gancl as gancl
from openmm_gancl import InputError
from openmm_gancl.closures import (
    ReducedModel,
    committor,
    core_of,
    load_reduced_model,
    mean_passage_times,
    mean_passage_times_to,
    passage_times,
    projected,
    relaxations,
    time_scales_along,
)
from openmm_gancl.closures.backward_equation import GridGenerator
from openmm_gancl.coordinates.geometry import wrap
from openmm_gancl.coordinates.slow_coordinates import FirstAxes
from tests.physics.statistics import z_limit

LINE = FirstAxes(("x",), np.array([np.inf]), np.array([[-1.6, 1.6]]), ("nm",))
TORUS = FirstAxes(("phi", "psi"), np.full(2, 2 * np.pi), np.tile([-np.pi, np.pi], (2, 1)), ("radians",) * 2)
LEFT, RIGHT = gancl.Basin("left", ([[-1.6, -0.9]],)), gancl.Basin("right", ([[0.9, 1.6]],))
GRID = np.linspace(-1.6, 1.6, 20001)


def energy(places):
    return 2.5 * (places[:, 0] ** 2 - 1) ** 2 + 0.3 * places[:, 0]


def diffusion(places):
    return 0.25 * np.exp(1.2 * np.sin(2 * places[:, 0]))[:, None, None]


def torus_energy(places):
    return 2 * np.cos(places[:, 0]) + np.cos(2 * places[:, 1] - places[:, 0])


def torus_diffusion(places):
    slope = 0.3 * np.sin(places[:, 0])
    one = np.ones_like(slope)
    return np.stack([np.stack([one + slope, 0.5 * one], -1), np.stack([0.5 * one, 0.8 - slope], -1)], -1)


@pytest.fixture(scope="module")
def line():
    return ReducedModel.of_functions(LINE, energy, diffusion, 300.0, 320)


@pytest.fixture(scope="module")
def torus():
    return ReducedModel.of_functions(TORUS, torus_energy, torus_diffusion, 300.0, 72)


def quadrature():
    """Passage time from -0.9 to 0.9 and the committor between, by integrals (Gardiner, Stochastic Methods, 5.5)."""
    places = GRID[:, None]
    weights, step = np.exp(-energy(places)), GRID[1] - GRID[0]
    inverse = 1 / (weights * diffusion(places)[:, 0, 0])
    between = (GRID >= -0.9) & (GRID <= 0.9)
    time = (inverse * np.cumsum(weights))[between].sum() * step**2
    q = np.cumsum(np.where(between, inverse, 0.0))
    return time, q / q[-1]


def test_passage_times_and_committor_are_those_of_quadrature(line):
    time, q = quadrature()
    assert mean_passage_times(line, LEFT, RIGHT)[0] == pytest.approx(time, rel=2e-3)
    at = line.interpolated(mean_passage_times_to(line, RIGHT), [[-0.9]])
    assert at[0] == pytest.approx(time, rel=2e-3)
    x = line.centres[:, 0]
    assert np.abs(committor(line, LEFT, RIGHT) - np.interp(x, GRID, q)).max() < 0.01


def test_a_barrier_of_40_kT(monkeypatch):
    """Between basins as by quadrature; the twin is the flux as a sum that cancels. What it decides alone is refused."""
    high = ReducedModel.of_functions(LINE, lambda places: 16 * energy(places), diffusion, 300.0, 320)
    weights, step = np.exp(-16 * energy(GRID[:, None])), GRID[1] - GRID[0]
    between = (GRID >= -0.9) & (GRID <= 0.9)
    inverse = 1 / (weights * diffusion(GRID[:, None])[:, 0, 0])
    exact = (inverse * np.cumsum(weights))[between].sum() * step**2
    assert mean_passage_times(high, LEFT, RIGHT)[0] == pytest.approx(exact, rel=0.01)
    generator, q = GridGenerator.of(high), committor(high, LEFT, RIGHT).ravel()
    flux = q @ (generator.stiffness @ q)
    assert abs(generator.populations @ (1 - q) / flux / exact - 1) > 0.5
    for function in (lambda: mean_passage_times_to(high, RIGHT), lambda: relaxations(high, 1)):
        with pytest.raises(InputError, match="too high for double precision on this grid"):
            function()
    monkeypatch.setattr("openmm_gancl.closures.backward_equation.MOST_CHANGED", np.inf)
    wrong = high.interpolated(mean_passage_times_to(high, RIGHT), [[-0.9]])[0]
    assert abs(wrong / exact - 1) > 0.5


def test_cores_of_basins_that_touch(line):
    """Where two halves of the line would cross again and again: the time of cores depends on no grid."""
    halves = [gancl.Basin("left", ([[-1.6, 0.0]],)), gancl.Basin("right", ([[0.0, 1.6]],))]
    cores = [core_of(line, half) for half in halves]
    assert all((line.energy[core] < line.energy[core].min() + 2).all() and core.any() for core in cores)
    fine = ReducedModel.of_functions(LINE, energy, diffusion, 300.0, 640)
    times = [mean_passage_times(model, *(core_of(model, half) for half in halves)) for model in (line, fine)]
    np.testing.assert_allclose(times[0], times[1], rtol=0.02)


def test_the_error_falls_with_the_square_of_the_cells():
    exact = quadrature()[0]
    errors = [
        mean_passage_times(ReducedModel.of_functions(LINE, energy, diffusion, 300.0, n), LEFT, RIGHT)[0] / exact - 1
        for n in (32, 64, 128)
    ]
    # basins end at the edges of cells' halves, a first-order part
    assert abs(errors[2]) < abs(errors[0]) / 3


def test_detailed_balance_is_exact():
    torus = ReducedModel.of_functions(TORUS, torus_energy, torus_diffusion, 300.0, 20)
    generator = GridGenerator.of(torus)
    stiffness = generator.stiffness.toarray()
    np.testing.assert_allclose(stiffness, stiffness.T, atol=1e-15)
    np.testing.assert_allclose(stiffness.sum(axis=1), 0.0, atol=1e-14)
    assert np.linalg.eigvalsh(stiffness).min() > -1e-12
    density = generator.populations.reshape(20, 20) / torus.spacings.prod()
    np.testing.assert_allclose(density, torus.density, rtol=1e-9)


def test_a_product_has_the_time_scales_of_its_factors():
    """A free rotation and one with a cosine: exp(i phi) decays with D, whatever the other does."""
    flat = ReducedModel.of_functions(
        TORUS, lambda at: np.cos(at[:, 1]), lambda at: np.tile(np.diag([0.25, 1.0]), (len(at), 1, 1)), 300.0, 72
    )
    found = relaxations(flat, 2)
    np.testing.assert_allclose(found.time_scales, 4.0, rtol=2e-3)
    assert np.nanmean(found.functions[0] ** 2 * flat.density) * (2 * np.pi) ** 2 == pytest.approx(1.0, rel=1e-6)


def test_a_simulation_has_the_density_and_the_passages(line):
    rng = np.random.default_rng(1)
    starts = rng.choice(line.centres[:, 0], 4000, p=line.density.ravel() * line.spacings[0])[:, None]
    frames = line.simulate(starts, 3000, 0.004, stride=5, seed=1)
    assert np.abs(frames).max() <= 1.6
    found, exact = passage_times(frames, 0.02, LEFT, RIGHT), mean_passage_times(line, LEFT, RIGHT)
    assert found.counts.min() > 500
    # frames are 0.02 ps apart, which sees a copy in a basin a little late
    assert np.abs((found.mean - exact) / np.hypot(found.error, 0.02 * exact)).max() < z_limit(2)
    halves = (frames[-1] > 0).mean(), line.density[160:].sum() * line.spacings[0]
    assert abs(halves[0] - halves[1]) < z_limit(1) * np.sqrt(halves[1] * (1 - halves[1]) / 4000)
    slow = relaxations(line, 1)
    assert time_scales_along(line, slow, frames, 50, 0.02)[0] == pytest.approx(slow.time_scales[0], rel=0.1)
    q = committor(line, LEFT, RIGHT)
    assert projected(line, q, frames[-1]).min() >= 0 and projected(line, q, [[0.95]])[0] == 1.0


class WithoutNoiseInduced(ReducedModel):
    """The twin: a drift that forgets that D depends on the label."""

    @property
    def drift(self):
        return self._forced_drift


@pytest.mark.parametrize("kind", [ReducedModel, WithoutNoiseInduced])
def test_the_density_stays_only_with_the_noise_induced_drift(kind, torus):
    model = kind.of_functions(TORUS, torus_energy, torus_diffusion, 300.0, 72)
    rng, n = np.random.default_rng(2), 20_000
    cells = rng.choice(len(model.centres), n, p=model.density.ravel() * model.spacings.prod())
    starts = model.centres[cells] + (rng.random((n, 2)) - 0.5) * model.spacings
    end = model.simulate(starts, 400, 0.004, stride=400, seed=3)[-1]
    assert (np.abs(end) <= np.pi).all()
    found = np.histogramdd(end, [np.linspace(-np.pi, np.pi, 7)] * 2)[0]
    expected = n * model.density.reshape(6, 12, 6, 12).sum(axis=(1, 3)) * model.spacings.prod()
    chi_squared = ((found - expected) ** 2 / expected).sum()
    assert (chi_squared < 35 + 4 * np.sqrt(70)) == (kind is ReducedModel), chi_squared


def test_moments_of_the_propagator_are_those_of_a_simulation(line):
    labels = np.array([[-0.8], [0.0], [0.7]])
    probabilities = GridGenerator.of(line).propagated(labels, np.array([0.02, 0.1]))
    assert probabilities.sum(axis=1) == pytest.approx(1.0)
    starts = line.centres[line.cells_of(labels)]
    ends = line.simulate(np.repeat(starts, 4000, axis=0), 200, 0.0005, stride=200, seed=4)[-1].reshape(3, 4000)
    mean = probabilities[1].T @ line.centres[:, 0]
    variance = probabilities[1].T @ line.centres[:, 0] ** 2 - mean**2
    z = (ends.mean(axis=1) - mean) / np.sqrt(variance / 4000)
    assert np.abs(z).max() < z_limit(6)
    assert np.abs((ends.var(axis=1) / variance - 1) / np.sqrt(2 / 4000)).max() < 1.3 * z_limit(6)


def test_many_cells_are_propagated_in_steps(monkeypatch):
    """As by all eigenvectors."""
    torus = ReducedModel.of_functions(TORUS, torus_energy, torus_diffusion, 300.0, 24)
    labels, times = np.array([[0.3, -1.0], [3.0, 2.0]]), np.array([0.01, 0.04, 0.2])
    exact = GridGenerator.of(torus).propagated(labels, times)
    monkeypatch.setattr("openmm_gancl.closures.backward_equation.MOST_DENSE", 0)
    steps = GridGenerator.of(torus).propagated(labels, times)
    away = wrap(torus.centres[:, None] - torus.centres[torus.cells_of(labels)], torus.periods)
    for power in (1, 2):
        moments = [np.einsum("tck,cki->tki", one, away**power) for one in (exact, steps)]
        np.testing.assert_allclose(moments[1], moments[0], rtol=0.01, atol=0.01 * np.abs(moments[0]).max())


def test_walls_are_not_crossed():
    """Where a surface is not known; and what is asked beyond them is refused."""

    def walled(places):
        return np.where((places[:, 0] > 0.2) & (places[:, 0] < 0.4), np.inf, energy(places))

    model = ReducedModel.of_functions(LINE, walled, diffusion, 300.0, 160)
    ends = model.simulate(np.full((500, 1), -1.0), 2000, 0.004, stride=2000)[-1]
    assert ends.max() <= 0.2
    assert np.isnan(committor(model, LEFT, gancl.Basin("middle", ([[-0.2, 0.1]],)))[-1])
    with pytest.raises(InputError, match="basin right holds no cell"):
        mean_passage_times_to(model, RIGHT)
    with pytest.raises(InputError, match="a start lies outside the domain, or where"):
        model.simulate([[0.3]], 10, 0.001)
    with pytest.raises(InputError, match="1 of 2 frames lie where the reduced model knows nothing"):
        projected(model, np.where(model.known, 0.0, np.nan), [[0.0], [0.3]])


def test_a_file_holds_all_of_it(line, tmp_path):
    line.save(tmp_path / "model.npz")
    again = load_reduced_model(tmp_path / "model.npz")
    starts = np.zeros((10, 1))
    np.testing.assert_array_equal(again.simulate(starts, 50, 0.004, seed=5), line.simulate(starts, 50, 0.004, seed=5))
    assert again.names == line.names and again.temperature == line.temperature
    with np.load(tmp_path / "model.npz", allow_pickle=False) as stored:
        arrays = dict(stored.items())
    assert json.loads(str(arrays["description"]))["format"].startswith("openmm-gancl reduced model")
    np.savez(tmp_path / "other.npz", **{**arrays, "diffusion": -arrays["diffusion"]})
    for name in ("other.npz", "none.npz"):
        with pytest.raises(InputError, match=name):
            load_reduced_model(tmp_path / name)


def test_the_same_seed_gives_the_same_bytes_in_any_batch_of_copies(line):
    starts = np.zeros((5000, 1))
    whole, again, other = (line.simulate(starts, 20, 0.004, stride=20, seed=seed) for seed in (6, 6, 7))
    np.testing.assert_array_equal(whole, again)
    assert (whole != other).all()


def test_what_a_reduced_model_refuses(line):
    tensor = np.array([[1.0, 2.0], [2.0, 1.0]])
    with pytest.raises(InputError, match="not symmetric and positive definite"):
        ReducedModel.of_functions(TORUS, torus_energy, lambda at: np.tile(tensor, (len(at), 1, 1)), 300.0, 12)
    with pytest.raises(InputError, match=r"do not fit \(320,\) cells"):
        ReducedModel(line.energy[:-1], line.diffusion, line.edges, line.names, line.periods, line.units, 300.0)
    with pytest.raises(InputError, match="moves copies by a tenth of the domain"):
        line.simulate([[0.0]], 10, 1.0)
    with pytest.raises(InputError, match="give a positive number of ps"):
        line.simulate([[0.0]], 10, -1.0)
    for name, box in (("all", [-1.0, 1.0]), ("rest", [-0.9, 1.6])):
        with pytest.raises(InputError, match=f"basin left and basin {name} overlap or touch"):
            committor(line, LEFT, gancl.Basin(name, ([box],)))
    with pytest.raises(InputError, match=r"a mask of shape \(3,\)"):
        mean_passage_times_to(line, np.ones(3, bool))
    with pytest.raises(InputError, match=r"give \(n_frames, n_copies, d\)"):
        passage_times(np.zeros((10, 1)), 1.0, LEFT, RIGHT)


def test_passages_are_counted():
    """From a to b after 3 frames, back after 2, nothing before the first basin; a copy that never passes counts too."""
    path = np.array([0.0, -1, -1, 0, 1, 0, -1, -1])
    found = passage_times(np.stack([path, np.full(8, -1.0)], axis=1)[:, :, None], 0.5, LEFT, RIGHT)
    assert found.counts.tolist() == [1, 1]
    # as A: 3 frames to the passage, 1 after it, and 7 of the other copy; as B: 2
    np.testing.assert_allclose(found.mean, [11 * 0.5, 2 * 0.5])


def test_a_copy_that_is_lost_counts_no_more():
    """NaN after a run failed, or where runs end before others; the twin stays where it was last seen."""
    path = np.array([-1.0, -1, np.nan, np.nan, np.nan, 1, -1, -1])
    found = passage_times(path[:, None, None], 0.5, LEFT, RIGHT)
    assert found.counts.tolist() == [0, 1] and found.mean[1] == 0.5
    ended = np.stack([[-1.0, 0, 1, -1], [-1.0, np.nan, np.nan, np.nan]], axis=1)[:, :, None]
    assert passage_times(ended, 0.5, LEFT, RIGHT).mean[0] == 3 * 0.5
    assert passage_times(np.nan_to_num(ended), 0.5, LEFT, RIGHT).mean[0] == 5 * 0.5


def test_a_label_that_is_none_has_no_cell(torus):
    """Of a run that failed; on a circle NaN would be in some cell all the same."""
    labels = np.array([[0.1, 0.2], [np.nan, 0.2], [0.1, np.inf]])
    assert (torus.cells_of(labels) >= 0).tolist() == [True, False, False]
    with pytest.raises(InputError, match="2 of 3 frames lie where the reduced model knows nothing"):
        projected(torus, torus.energy, labels)


def test_a_number_of_passages_that_depends_on_the_interval_is_a_doubt(line):
    """Between halves of the line, which touch, paths cross again and again; between frames far apart they are lost."""
    frames = line.simulate(np.full((100, 1), -1.0), 15_000, 0.004, stride=5, seed=1)
    halves = [gancl.Basin("left", ([[-1.6, 0.0]],)), gancl.Basin("right", ([[0.0, 1.6]],))]
    exact = mean_passage_times(line, LEFT, RIGHT)[0]
    right, touching = passage_times(frames, 0.02, LEFT, RIGHT), passage_times(frames, 0.02, *halves)
    assert abs(right.mean[0] - exact) < z_limit(1) * right.error[0] and not right.doubts()
    assert not passage_times(frames[::10], 0.2, LEFT, RIGHT).doubts()
    assert touching.mean[0] < exact / 3
    assert "their number depends on the interval: basins are so near" in touching.doubts()[0]
    sparse = passage_times(frames[::300], 6.0, LEFT, RIGHT)
    assert sparse.mean[0] > 1.5 * exact and "of" in sparse.doubts()[0]
