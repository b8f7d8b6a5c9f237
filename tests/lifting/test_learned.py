"""The surface over some of the labels that were learned on, against a closed form."""

import numpy as np
import pytest
import torch

import openmm_gancl as gancl
from openmm_gancl import InputError
from openmm_gancl.lifting import LoopOptions, weighted_histogram
from tests.physics.exact import DOUBLE_WELL, KT


@pytest.fixture(scope="module")
def toy():
    return gancl.load_system("double_well_oscillators")


@pytest.fixture(scope="module")
def learned(toy):
    return gancl.learn(toy, seed=1, max_evaluations=10_000)


def test_gradients_that_are_switched_off_are_switched_on(toy, learned):
    """As around the lines of a script that evaluates a network."""
    with torch.no_grad():
        again = gancl.learn(toy, seed=1, max_evaluations=10_000)
    np.testing.assert_array_equal(again.lifts.log_weights, learned.lifts.log_weights)


def test_frames_of_ones_own_cost_no_windows(toy, learned):
    drawn = learned.lifts
    frames = learned.model.chart.to_cartesian(drawn.coordinates[np.isfinite(drawn.log_weights)][:300])
    few = LoopOptions(n_first=500)
    own = gancl.learn(toy, seed=1, frames=frames, max_evaluations=len(frames) + 500, options=few)
    assert own.surface.force_evaluations == len(frames) + 500
    with pytest.raises(InputError, match="give at least 800"):
        gancl.learn(toy, seed=1, frames=frames, max_evaluations=len(frames) + 499, options=few)
    with pytest.raises(InputError, match="give at least"):  # of windows, which cost more
        gancl.learn(toy, seed=1, max_evaluations=len(frames) + 500, options=few)


def test_weights_that_are_no_numbers_are_refused(toy, learned):
    log_weights = np.where(np.arange(len(learned.lifts)) == 3, np.nan, learned.lifts.log_weights)
    with pytest.raises(InputError, match="NaN"):
        weighted_histogram(learned.model.slow, learned.lifts.labels, log_weights, toy.temperature, 0)


def deviations(surface, energy):
    """From an energy of the label up to a constant, in units of the errors, below 6 kT."""
    centres, own, error = surface.centres[0], surface.energy.ravel(), surface.error.ravel()
    low = np.isfinite(own) & (own < 6 * KT)
    assert low.sum() > 20 and np.median(error[low]) < 0.05 * KT
    difference = own[low] - energy(centres[low])
    return (difference - np.average(difference, weights=error[low] ** -2)) / error[low]


def test_the_surface_over_the_only_label_is_the_surface(learned):
    surface = learned.surface_over(*learned.model.slow.names)
    z = deviations(surface, DOUBLE_WELL.surface)
    assert np.sqrt((z**2).mean()) < 2.0 and np.abs(z).max() < 4.5
    tilted = deviations(surface, lambda x: DOUBLE_WELL.surface(x) + 0.3 * KT * x)
    assert np.sqrt((tilted**2).mean()) > 2.0


def test_labels_that_are_none_are_refused(learned):
    for names in ((), ("phi",), (learned.model.slow.names[0], "phi")):
        with pytest.raises(InputError, match=r"are not among .*: give one or two of them"):
            learned.surface_over(*names)
