"""Surfaces from lifts, with what they say against themselves, and basins, within the domain."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
from openmm import unit

import openmm_gancl as gancl
from openmm_gancl import InputError
from openmm_gancl.generator import untrained_model
from openmm_gancl.lifting import LoopOptions, analyse_lifts, basin_populations
from openmm_gancl.lifting.draws import draw
from openmm_gancl.lifting.surface import surface_from_lifts
from tests.physics.exact import DOUBLE_WELL
from tests.physics.toy_generators import generator

LEFT = 0.7355
"""Population of the left well, by quadrature."""

CENTRES = np.repeat(np.linspace(-1.5, 1.5, 16), 40)[:, None]


@pytest.fixture(scope="module")
def toy():
    return gancl.load_system("double_well_oscillators")


@pytest.fixture(scope="module")
def learned(toy):
    return gancl.learn(toy, seed=1, max_evaluations=10_000)


def relaxed(toy, model, steps, seed):
    return gancl.Lifter(toy, model, relax_steps=steps, platform="Reference").lift(CENTRES, seed=seed)


def test_windows_of_few_effective_lifts_are_a_doubt(toy):
    """Untrained: populations off by 12 to 90 errors, pooled weights without a tail. The twin: a trained generator."""
    for seed in range(2):
        lifts = relaxed(toy, untrained_model(toy, seed=1), 100, seed)
        analysis = analyse_lifts(lifts)
        (row, *_) = basin_populations(analysis.ends, toy.basins, toy.temperature)
        assert abs(row.population - LEFT) > 5 * row.population_error
        assert "effective lifts, and" in analysis.doubts[0] and "low ones by fewer than 10" in analysis.doubts[0]
        with pytest.warns(UserWarning, match="not to be trusted: the window at"):
            surface_from_lifts(lifts)
    kept = {"relax": "context", "platform": "Reference"}
    lifts = gancl.Lifter(toy, generator(toy.name, "trained"), relax_steps=100, **kept).lift(CENTRES, seed=0)
    analysis = analyse_lifts(lifts)
    (row, *_) = basin_populations(analysis.ends, toy.basins, toy.temperature)
    assert not analysis.doubts and abs(row.population - LEFT) < 3.5 * row.population_error


def test_fixed_lifts_of_few_effective_ones_are_a_doubt(toy, learned):
    """Weights spread by so much that twenty of a thousand decide; the twin: as they are."""
    labels = np.random.default_rng(0).uniform(-1.6, 1.6, (1000, 1))
    lifts = gancl.Lifter(toy, learned.model).lift(labels, seed=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        surface_from_lifts(lifts)
    spread = 2.2 * np.random.default_rng(1).standard_normal(1000)
    with pytest.warns(UserWarning, match="not to be trusted: a few weights decide"):
        surface_from_lifts(replace(lifts, log_weights=lifts.log_weights + spread))


def test_ends_beyond_the_domain_have_no_weight(toy):
    """A domain that cuts the left well: as lifts at its edge are relaxed they leave it, and once counted for it."""
    narrow = replace(toy, slow=replace(toy.slow, domain=np.array([[-0.4, 1.6]])))
    centres = np.repeat(np.linspace(-0.4, 1.6, 40), 20)[:, None]
    lifts = gancl.Lifter(narrow, untrained_model(narrow, seed=1), relax_steps=400, platform="Reference").lift(
        centres, seed=1
    )
    assert (lifts.cv_values[lifts.ok] < -0.45).sum() > 5
    analysis = analyse_lifts(lifts)
    assert np.isneginf(analysis.ends.log_weights[analysis.ends.cv_values[:, 0] < -0.4]).all()
    basins = (gancl.Basin("cut", (np.array([[-0.4, 0.0]]),)), gancl.Basin("right", (np.array([[0.0, 1.6]]),)))
    rows = basin_populations(analysis.ends, basins, toy.temperature)
    assert sum(row.population for row in rows) == pytest.approx(1.0)
    x = np.linspace(-0.4, 1.6, 20_001)
    density = np.exp(-DOUBLE_WELL.surface(x) / toy.kT)
    exact = density[x > 0].sum() / density.sum()
    assert abs(rows[1].population - exact) < 3.5 * rows[1].population_error < 0.15, (rows[1], exact)


def test_energies_are_looked_up_around_circles_and_not_beyond_ends(learned):
    surface = learned.surface
    low, high = surface.edges[0][[0, -1]]
    inside = surface.energy_at(np.array([[0.5 * (low + high)], [high - 1e-6]]))
    assert np.isfinite(inside[0]) and inside[1] == surface.energy[-1]
    assert np.isposinf(surface.energy_at(np.array([[low - 0.1], [high + 0.1]]))).all()
    circle = replace(surface, periods=np.array([high - low]))
    turned = circle.energy_at(np.array([[0.3], [0.3 + (high - low)], [0.3 - 2 * (high - low)]]))
    assert np.ptp(turned) == 0.0


def test_what_a_reweighted_surface_says_against_itself(toy, learned):
    """At 2000 K few of the lifts of 300 K have the weight; the twin: at 310 K as many as before."""
    assert "a few weights decide" in learned.reweight(replace(toy, temperature=3000.0)).doubts[-1]
    warmer = learned.reweight(replace(toy, temperature=310.0), platform="auto")
    assert not warmer.doubts and warmer.overlap > 0.9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_first": 0}, "n_first is 0: give a whole number from 1 up"),
        ({"relax": "latents"}, "`relax` is 'latents': choose one of none, latent, auto"),
        ({"ceiling": -1.0}, "`ceiling` is -1.0: give a positive number"),
        ({"ceiling": float("nan")}, "`ceiling` is nan"),
        ({"n_moves": 1.5}, "n_moves is 1.5"),
    ],
)
def test_options_that_no_loop_follows_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        LoopOptions(**options)


def test_fewer_lifts_than_a_round_are_refused_with_what_helps(toy):
    with pytest.raises(InputError, match="`lifts` 10 is less than one round: give at least `n_first`, 2000"):
        gancl.learn(toy, seed=1, options=LoopOptions(lifts=10))


def test_units_of_frames_are_read(toy, learned):
    """In Angstrom they were taken for nm, and every frame lay ten times too far out."""
    frames = gancl.closures.Ensemble.of_learned(learned, toy).positions[:300]
    frames = frames[np.isfinite(frames).all(axis=(1, 2))]
    options = {"seed": 1, "max_evaluations": 9000}
    one, other = (
        gancl.learn(toy, frames=given, **options).surface.energy for given in (frames, 10.0 * frames * unit.angstrom)
    )
    np.testing.assert_allclose(one, other, rtol=1e-6)
    lifter = gancl.Lifter(toy, learned.model)
    labels = toy.slow.transform(frames)
    back = [lifter.reverse(given, labels, seed=1).log_weights for given in (frames, 10.0 * frames * unit.angstrom)]
    np.testing.assert_allclose(*back, rtol=1e-6)
    with pytest.raises(InputError, match=r"positions have shape .*: give \(3, 1, 3\), a label each"):
        lifter.reverse(frames, labels[:3], seed=1)


def test_draws_at_labels_that_are_none_are_refused(toy, learned):
    rng, shares = np.random.default_rng(0), np.ones(1)
    for labels in (np.array([[np.nan]]), np.zeros(3), np.zeros((3, 2))):
        with pytest.raises(InputError, match="give finite numbers of shape"):
            draw(toy, [learned.model], shares, labels, rng)
    with pytest.raises(InputError, match="give one for each of 1 generators"):
        draw(toy, [learned.model], np.array([0.5]), np.zeros((1, 1)), rng)
