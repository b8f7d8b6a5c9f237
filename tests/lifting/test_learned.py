"""The surface over some of the labels that were learned on, against a closed form."""

import numpy as np
import pytest

import openmm_gancl as gancl
from openmm_gancl import InputError
from tests.physics.exact import DOUBLE_WELL, KT


@pytest.fixture(scope="module")
def toy():
    return gancl.load_system("double_well_oscillators")


@pytest.fixture(scope="module")
def learned(toy):
    return gancl.learn(toy, seed=1, max_evaluations=10_000)


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
