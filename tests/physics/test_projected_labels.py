"""Surfaces over labels that draws at torsions are projected on, against quadrature and exact samples.

Of every bin a z-score, all bins of a surface together with the false-alarm rate of 3.5 sigma (Bonferroni); what is
planted is found beyond 5 sigma.
"""

from dataclasses import replace
from functools import cache

import mdtraj
import numpy as np
import pytest
import torch

from openmm_gancl import InputError, load_system
from openmm_gancl.coordinates.features import Features, heavy_atom_distances
from openmm_gancl.coordinates.slow_coordinates import FirstAxes, ModuleCoordinates
from openmm_gancl.learning import learned_labels
from openmm_gancl.learning.diffusion_map import DiffusionMap
from openmm_gancl.learning.learned_labels import learn_slow_coordinates, recovery
from openmm_gancl.lifting import projected_labels
from openmm_gancl.lifting.loop import learn
from openmm_gancl.lifting.loop_options import LoopOptions
from openmm_gancl.lifting.projected_labels import projected_surface, structures_to_learn, values_of
from openmm_gancl.sampling.short_windows import ShortWindows

from .exact import CHAIN, DOUBLE_WELL, KT, exact_frames
from .statistics import z_limit

REJECTED, CEILING = 5.0, 4.0
OPTIONS = LoopOptions(ShortWindows(n=20), n_first=1000, ceiling=2.0)
"""With a ceiling so low that labels above it are drawn ten times less often."""

N_LEARNED = 600
"""Structures of the chain that its labels are learned from."""


class Bent(torch.nn.Module):
    """A label that is no function of the drawn one: ``x + y^2 + sin(3 x) y``."""

    def forward(self, positions: torch.Tensor) -> torch.Tensor:
        x, y = positions[..., 0, 0], positions[..., 0, 1]
        return (x + y * y + torch.sin(3.0 * x) * y).unsqueeze(-1)


def bent():
    return ModuleCoordinates.from_module(Bent(), names=("u",), periods=[np.inf], domain=[[-1.8, 2.0]])


@cache
def wells():
    return learn(load_system(DOUBLE_WELL.name), seed=1, max_evaluations=12_000, options=OPTIONS)


def exact_masses(edges):
    """Of bins of the bent label, by quadrature over x and y in the drawn domain, shape=(n_bins,)."""
    low, high = load_system(DOUBLE_WELL.name).slow.domain[0]
    x, y = (np.linspace(*ends, 3001)[1:] - 0.5 * (ends[1] - ends[0]) / 3000 for ends in ((low, high), (-0.8, 0.8)))
    wells, _, _ = DOUBLE_WELL.fast(x)
    given = sum(
        share[:, None] * np.exp(-0.5 * ((y - m[:, None]) / s[:, None]) ** 2) / s[:, None] for share, m, s in wells
    )
    density = np.exp(-DOUBLE_WELL.surface(x) / KT)[:, None] * given
    u = x[:, None] + y**2 + np.sin(3 * x)[:, None] * y
    return np.histogram(u, edges, weights=density)[0] / density.sum()


def scores(surface, masses, errors=0.0):
    """z of each known bin below the ceiling; one offset fitted.

    Args:
        surface: of one label.
        masses: shape=(n_bins,), exact.
        errors: shape=(n_bins,), of their logarithms.
    """
    exact = -np.log(np.maximum(masses, 1e-300))
    low = (exact < exact.min() + CEILING) & np.isfinite(surface.energy)
    assert low.sum() > 0.9 * (exact < exact.min() + CEILING).sum()
    variance = (surface.error[low] / KT) ** 2 + np.broadcast_to(errors, exact.shape)[low] ** 2
    difference = surface.energy[low] / KT - exact[low]
    return (difference - np.average(difference, weights=1 / variance)) / np.sqrt(variance)


def beyond(z):
    """Of a chi-squared, sigma."""
    return ((z**2).sum() - (len(z) - 1)) / np.sqrt(2 * (len(z) - 1))


def test_the_surface_over_a_bent_label_is_that_of_quadrature():
    surface = projected_surface(wells(), bent())
    z = scores(surface, exact_masses(surface.edges[0]))
    assert np.median(surface.error[np.isfinite(surface.error)]) < 0.3 * KT
    assert np.abs(z).max() < z_limit(len(z)), np.abs(z).max()


@pytest.mark.parametrize("fault", ["label density left out", "labels of other draws", "weights of one"])
def test_what_is_planted_shows(fault):
    learned = wells()
    draws, values = learned.lifts, values_of(learned, bent())
    if fault == "label density left out":
        draws = replace(draws, log_label_density=np.zeros(len(draws)))
    elif fault == "weights of one":
        draws = replace(draws, log_target=np.where(np.isfinite(draws.log_target), draws.log_density, -np.inf))
    else:
        ok = np.isfinite(draws.log_weights)
        values[ok] = np.random.default_rng(2).permutation(values[ok])
    surface = projected_surface(replace(learned, lifts=draws), bent(), values)
    assert beyond(scores(surface, exact_masses(surface.edges[0]))) > REJECTED


def test_draws_that_a_map_was_learned_on_are_left_out():
    learned = wells()
    last = int(learned.lifts.round.max())
    only = projected_surface(replace(learned, lifts=learned.lifts.select(learned.lifts.round == last)), bent())
    later = projected_surface(learned, bent(), after_round=last - 1)
    assert (later.energy == only.energy).all()
    assert (
        projected_surface(learned, bent(), after_round=last).energy == projected_surface(learned, bent()).energy
    ).all()


class Shuffled(DiffusionMap):
    """Each point with the coordinates of another."""

    def fit(self, X, **given):
        super().fit(X, **given)
        order = np.random.default_rng(3).permutation(len(self._vectors))
        self._vectors = self._vectors[order]
        self.coordinates_ = self.coordinates_[order]
        return self


@pytest.fixture(scope="module")
def chain():
    """A loop on the chain, structures of its first rounds, and independent frames."""
    system = load_system(CHAIN.name)
    learned = learn(system, seed=1, max_evaluations=24_000, options=LoopOptions(ShortWindows(n=20), n_first=1000))
    early = learned.lifts.select(learned.lifts.round < 2)
    coordinates = structures_to_learn(early, learned.regression, seed=4)
    frames = exact_frames(system, CHAIN, 200_000, np.random.default_rng(8))
    return system, learned, learned.model.chart.to_cartesian(coordinates), frames[system.state.inside(frames)]


def projected(chain, kind, monkeypatch):
    """Labels that are learned, their surface over the first one, and z of its bins against independent frames."""
    system, learned, positions, frames = chain
    if kind == "shuffled":
        monkeypatch.setattr(learned_labels, "DiffusionMap", Shuffled)
    topology = mdtraj.Topology.from_openmm(system.topology)
    features = Features((heavy_atom_distances(topology),))
    part = positions[:N_LEARNED]
    labels = learn_slow_coordinates(system, part, features=features, most=2, n_landmarks=60, seed=5).labels
    values = values_of(learned, labels.slow)
    surface = projected_surface(learned, FirstAxes.of(labels.slow, 1), values, after_round=1)
    counts = np.histogram(labels.slow.transform(frames)[:, 0], surface.edges[0])[0]
    return labels, scores(surface, counts / counts.sum(), 1 / np.sqrt(np.maximum(counts, 1)))


@pytest.mark.parametrize("kind", ["right", "shuffled"])
def test_any_map_has_its_own_surface_and_the_right_one_tells_the_torsion(kind, chain, monkeypatch):
    """A shuffled map keeps the surface right, over labels that tell little of the torsion."""
    labels, z = projected(chain, kind, monkeypatch)
    assert np.abs(z).max() < z_limit(len(z)), np.abs(z).max()
    system, _, positions, _ = chain
    known, new = positions[:N_LEARNED], positions[N_LEARNED:]
    torsions, others = system.slow.transform(known), system.slow.transform(new)
    told = recovery(labels.centres, torsions, labels.slow.transform(new), others, labels.slow.periods)
    assert told[0] > 0.5 if kind == "right" else told[0] < 0.4, told


def test_a_bar_of_the_bins_own_weights_alone_shows(chain, monkeypatch):
    """The twin: where labels tell nothing, each bin should have a few heavy weights, and some have none."""
    monkeypatch.setattr(projected_labels, "NEIGHBOURHOOD", 1e-6)
    assert np.abs(projected(chain, "shuffled", monkeypatch)[1]).max() > REJECTED


def test_no_draws_have_no_surface_and_no_structures():
    learned = wells()
    failed = replace(learned.lifts, log_target=np.full(len(learned.lifts), -np.inf))
    with pytest.raises(InputError, match="too few for a surface over u"):
        projected_surface(replace(learned, lifts=failed), bent(), np.zeros((len(failed), 1)))
    with pytest.raises(InputError, match="no draw is a structure to learn labels from"):
        structures_to_learn(failed, learned.regression, seed=0)
