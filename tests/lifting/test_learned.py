"""The surface over some of the labels that were learned on, against a closed form."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import openmm_gancl as gancl
from openmm_gancl import InputError
from openmm_gancl.coordinates.slow_coordinates import ModuleCoordinates, ParticleCoordinates
from openmm_gancl.lifting import LoopOptions, projected_labels, projected_surface, weighted_histogram
from openmm_gancl.lifting.requirements import check_exact
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


def chain_of_five():
    """A molecule of internal coordinates, learned."""
    chain = gancl.load_system("bonded_chain")
    return chain, gancl.learn(chain, seed=1, max_evaluations=9000, options=LoopOptions(n_first=1000))


class OfAtoms(torch.nn.Module):
    """A distance, or what changes when the molecule is moved."""

    def __init__(self, kind: str):
        super().__init__()
        self.kind = kind

    def forward(self, positions: torch.Tensor) -> torch.Tensor:
        if self.kind == "place":
            return positions[..., 4, 0:1]
        last = 9 if self.kind == "of ten atoms" else 4
        return torch.linalg.vector_norm(positions[..., last, :] - positions[..., 0, :], dim=-1, keepdim=True)


def test_coordinates_of_a_place_have_no_surface():
    """A lift has no place: what would be drawn is a place in the frame of the internal coordinates."""
    chain, learned = chain_of_five()

    def over(kind):
        return ModuleCoordinates.from_module(OfAtoms(kind), names=("u",), periods=[np.inf], domain=[[-0.6, 0.6]])

    assert np.isfinite(projected_surface(learned, over("distance")).energy).any()
    with pytest.raises(InputError, match="u change when the whole molecule is moved or turned"):
        projected_surface(learned, over("place"))
    with pytest.raises(InputError, match=r"u cannot be computed of 5 atoms .*: give coordinates of this molecule"):
        projected_surface(learned, over("of ten atoms"))
    component = ParticleCoordinates(("x",), np.array([[3, 0]]), np.array([[-1.0, 1.0]]))
    with pytest.raises(InputError, match="x change when"):
        projected_surface(learned, component)
    with pytest.raises(InputError, match="u change when"):
        check_exact(replace(chain, slow=over("place")), learned.model.chart)
    check_exact(replace(chain, slow=over("distance")), learned.model.chart)


def test_a_place_that_is_not_looked_at_would_have_one(monkeypatch):
    """The twin."""
    monkeypatch.setattr(projected_labels, "check_invariant", lambda slow, positions: None)
    _, learned = chain_of_five()
    slow = ModuleCoordinates.from_module(OfAtoms("place"), names=("u",), periods=[np.inf], domain=[[-0.6, 0.6]])
    assert np.isfinite(projected_surface(learned, slow).energy).sum() > 10
