"""p(s) of labels: normalised, sampled as it says, its marginals; surfaces over some labels from draws over all."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
from scipy.integrate import trapezoid

from openmm_gancl.errors import InputError
from openmm_gancl.free_energy.weight_statistics import effective_sample_size
from openmm_gancl.lifting.draws import Draws
from openmm_gancl.lifting.marginal_surfaces import fit_marginal_regression, some_axes
from openmm_gancl.lifting.placement import GridPlacement, TreePlacement, placement_of_arrays


@dataclass(frozen=True)
class Three:
    """Two angles and a length."""

    names: tuple = ("a", "b", "c")
    units: tuple = ("radians", "radians", "nm")

    @property
    def periods(self):
        return np.array([2 * np.pi, 2 * np.pi, np.inf])

    @property
    def domain(self):
        return np.array([[-np.pi, np.pi], [-np.pi, np.pi], [-1.0, 1.5]])


AXES = Three()


def log_density(labels):
    """The angles follow each other, and the length the first of them."""
    a, b, c = labels.T
    return 2 * np.cos(a - b) + 1.5 * np.cos(2 * a) - 4 * (c - 0.4 * np.sin(a)) ** 2


def tree():
    return TreePlacement.like(AXES, log_density, np.random.default_rng(7))


def grid():
    edges = (np.linspace(-np.pi, np.pi, 9), np.linspace(-1.0, 1.5, 6))
    return GridPlacement.below(edges, np.arange(40.0).reshape(8, 5), 20.0)


PLACEMENTS = {"tree": tree, "grid": grid}


@pytest.mark.parametrize("name", PLACEMENTS)
def test_samples_have_the_density_that_is_said(name):
    """``E_p[1 / p]`` over a box is its volume: within 4 standard errors, for boxes of the first and last label."""
    placement, rng, n = PLACEMENTS[name](), np.random.default_rng(1), 20_000
    labels = placement.sample(n, rng)
    domain = AXES.domain if name == "tree" else AXES.domain[[0, 2]]
    assert (labels >= domain[:, 0]).all() and (labels <= domain[:, 1]).all()
    inverse = np.exp(-placement.log_density(labels))
    volume = np.prod(domain[:, 1] - domain[:, 0])
    for inside, share in ((labels[:, 0] > 1.0, (np.pi - 1.0) / (2 * np.pi)), (labels[:, -1] < 0.0, 1.0 / 2.5)):
        terms = inverse * inside
        assert abs(terms.mean() - share * volume) < 4 * terms.std() / n**0.5


def test_a_marginal_is_the_integral():
    placement = tree()
    along = -1.0 + 2.5 * (np.arange(3600) + 0.5) / 3600
    for a, b in ((0.3, -1.0), (2.0, 3.0)):
        labels = np.column_stack([np.full(3600, a), np.full(3600, b), along])
        exact = 2.5 * np.exp(placement.log_density(labels)).mean()
        found = np.exp(placement.over((1, 0)).log_density(np.array([[b, a]])))[0]
        assert np.isclose(found, exact, rtol=1e-9)
    marginal = grid().over((1,))
    assert np.isclose(marginal.probabilities.sum(), 1.0) and marginal.probabilities.shape == (5,)


@dataclass(frozen=True)
class Chain:
    """Ten angles, each near the one before."""

    names: tuple = tuple(f"a{i}" for i in range(10))
    units: tuple = ("radians",) * 10
    periods: ClassVar = np.full(10, 2 * np.pi)
    domain: ClassVar = np.tile([-np.pi, np.pi], (10, 1))


def along_chain(labels):
    """The first one anywhere."""
    return 8.0 * np.cos(np.diff(labels, axis=1)).sum(axis=1)


def test_marginals_of_many_labels_are_those_of_their_samples():
    """Also of labels that meet in the middle of the tree: chi-squared of 15 degrees beyond 60 comes once in 10^6."""
    placement = TreePlacement.like(Chain(), along_chain, np.random.default_rng(1))
    labels = placement.sample(20_000, np.random.default_rng(2))
    for axes in ((0, 9), (4, 2), (3, 4), (7,)):
        parts = (4,) * len(axes)
        shares = placement.over(axes).probabilities
        expected = 20_000 * shares.reshape([n for part in parts for n in (part, 36 // part)])
        expected = expected.sum(axis=tuple(range(1, 2 * len(axes), 2)))
        counts = np.histogramdd(labels[:, axes], parts, Chain.domain[list(axes)])[0]
        assert ((counts - expected) ** 2 / expected).sum() < 60


def test_kernels_of_an_earlier_version_are_refused():
    with pytest.raises(InputError, match="begin a run of their card anew"):
        placement_of_arrays({"centres": np.zeros((2, 3)), "probabilities": np.ones(2)})


def test_ten_labels_lie_where_their_density_is():
    """Of the flattened density's draws one in twelve counts, and with all labels apart one in 20,000 (the twin)."""
    placement = TreePlacement.like(Chain(), along_chain, np.random.default_rng(1))
    even = np.full_like(placement.conditionals, 1 / placement.conditionals.shape[1])
    found = []
    for one in (placement, replace(placement, conditionals=even)):
        labels = one.sample(20_000, np.random.default_rng(3))
        found.append(effective_sample_size(along_chain(labels) - one.log_density(labels)) / 20_000)
    assert found[0] > 0.04 and found[1] < 0.001, found


@pytest.mark.parametrize("name", PLACEMENTS)
def test_arrays_rebuild_it(name):
    placement = PLACEMENTS[name]()
    labels = placement.sample(10, np.random.default_rng(2))
    again = placement_of_arrays(placement.arrays())
    assert np.array_equal(again.log_density(labels), placement.log_density(labels))


def test_labels_lie_where_the_density_is():
    labels = tree().sample(4000, np.random.default_rng(3))
    low = log_density(labels) > log_density(labels).max() - 7.0
    assert low.mean() > 0.85


def test_a_surface_over_some_labels_is_the_marginal():
    """Of draws with weights of a known mean; the twin leaves the density of the labels out."""
    rng, n = np.random.default_rng(4), 20_000
    placement = tree()
    labels = placement.sample(n, rng)
    noise = 0.5 * rng.standard_normal(n) - 0.125
    zeros = np.zeros(n)
    ones = np.ones(n, dtype=np.int64)
    parts = {"log_target": log_density(labels) + noise, "gradients": np.zeros((n, 3)), "reason": np.full(n, "ok")}
    parts |= {"coordinates": labels, "labels": labels, "log_density": zeros, "round": 0 * ones, "evaluations": ones}
    a, c = np.linspace(-3.0, 3.0, 13), np.linspace(-np.pi, np.pi, 721)[:-1]
    exact = np.log(np.exp(1.5 * np.cos(2 * a)[:, None] + 2 * np.cos(a[:, None] - c)).mean(axis=1))
    along = np.linspace(-1.0, 1.5, 2001)
    exact += np.log(trapezoid(np.exp(-4 * (along - 0.4 * np.sin(a)[:, None]) ** 2), along, axis=1))
    slopes = np.zeros((n, 3))
    slopes[:, 0] = -2 * np.sin(labels[:, 0] - labels[:, 1]) - 3 * np.sin(2 * labels[:, 0])
    slopes[:, 0] += 8 * (labels[:, 2] - 0.4 * np.sin(labels[:, 0])) * 0.4 * np.cos(labels[:, 0])
    off = []
    for log_label in (placement.log_density(labels), zeros):
        draws = Draws(log_label_density=log_label, **parts)
        fitted = fit_marginal_regression(AXES, (0,), draws, [placement], slopes, np.ones(n))
        difference = fitted.log_density(a[:, None]) - exact
        off.append((difference - difference.mean()).std())
    assert off[0] < 0.05 and off[1] > 0.15, off


def test_axes_of_some_labels():
    some = some_axes(AXES, (2, 0))
    assert some.names == ("c", "a") and some.units == ("nm", "radians")
    assert np.array_equal(some.domain, AXES.domain[[2, 0]])
