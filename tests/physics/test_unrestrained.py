"""Unrestrained lifts, and lifts against reverse relaxations of exact frames.

Each file's z-scores together have the false-alarm rate of 3.5 sigma (Bonferroni).
"""

from functools import cache

import numpy as np
import pytest

from openmm_gancl import Lifter, TrainingOptions
from openmm_gancl.free_energy.weight_statistics import log_bar
from openmm_gancl.generator.training import train_model
from openmm_gancl.lifting.label_proposals import TabulatedProposal, UniformProposal
from openmm_gancl.lifting.reverse_check import check_lifts, check_reverse

from .exact import CHAIN, DOUBLE_WELL, EXACT, FORKED, exact_frames
from .paths import run_paths
from .statistics import score, z_limit

N_SCORES = 24


def bidirectional_z(forward, backward, log_z, n_bootstrap=60):
    """The estimate of both directions against the exact log Z, over its bootstrapped error; and that error."""
    rng = np.random.default_rng(11)
    replicates = [
        log_bar(forward[rng.integers(0, len(forward), len(forward))], backward[rng.integers(0, n, n)])
        for n in [len(backward)] * n_bootstrap
    ]
    error = np.std(replicates, ddof=1)
    return (log_bar(forward, backward) - log_z) / error, error


def lifter_of(models, name, generator, latent_size, **options):
    model = models.model(name, generator, latent_size, options["relax_steps"])
    return Lifter(models.system(name), model, platform="Reference", **options)


@pytest.fixture(scope="module")
def uniform_lifts(models):
    """By a system's name: 2600 of labels drawn uniformly, with their lifter."""

    @cache
    def made(name):
        lifter = lifter_of(models, name, "trained", 0, relax_steps=100, mode="unrestrained")
        return lifter, lifter.lift(lifter.label_proposal.sample(2600, np.random.default_rng(1)), seed=2)

    return made


@pytest.mark.parametrize("name", [DOUBLE_WELL.name, CHAIN.name, FORKED.name])
def test_mean_weight_is_the_whole_partition_function(name, uniform_lifts):
    """r(s | x) is normalised over the labels' domain at every x, also beyond it: nothing is cut off."""
    _, lifts = uniform_lifts(name)
    result = score(lifts.log_weights, EXACT[name].log_z())
    assert result.relative_error < 0.05 and result.effective_sample_size > 200, result
    assert abs(result.z) < z_limit(N_SCORES), result


def tabulated(lifter, exact, tilt, reach=(0.0, 0.0)):
    """Labels as the exact surface has them, tilted by so many kJ/mol, the surface short of the domain's ends."""
    slow = lifter.system.slow
    low, high = slow.domain[0] + reach
    edges = np.linspace(low, high, 61)
    centres = 0.5 * (edges[1:] + edges[:-1])
    energy = exact.surface(centres) if exact is DOUBLE_WELL else exact.torsion_energy(centres)
    energy = energy + tilt * (centres - low) / (high - low)
    return TabulatedProposal.from_energies(slow, lifter.force_constants, lifter.system.kT, (edges,), energy)


class ForgetsWhatIsLikely(TabulatedProposal):
    """The twin: labels drawn by the table, weighed as if they had been drawn uniformly."""

    def log_prior(self, labels):
        return UniformProposal.log_prior(self, labels)


@pytest.mark.parametrize("tilt", [0.0, 8.0])
@pytest.mark.parametrize("exact", [DOUBLE_WELL, CHAIN], ids=lambda exact: exact.name)
def test_labels_by_a_surface_right_or_wrong(exact, tilt, models, uniform_lifts):
    lifter = lifter_of(models, exact.name, "trained", 0, relax_steps=100, mode="unrestrained")
    lifter.label_proposal = tabulated(lifter, exact, tilt)
    paths = run_paths(lifter, lifter.label_proposal.sample(2600, np.random.default_rng(3)), seed=4)
    result = score(paths.log_weights(), exact.log_z())
    assert result.relative_error < 0.05 and result.effective_sample_size > 200, result
    assert abs(result.z) < z_limit(N_SCORES), result
    if tilt == 0:
        plain = score(uniform_lifts(exact.name)[1].log_weights, exact.log_z())
        assert result.effective_sample_size > 1.3 * plain.effective_sample_size
        return
    lifter.label_proposal = ForgetsWhatIsLikely(**vars(lifter.label_proposal))
    assert abs(score(paths.log_weights(), exact.log_z()).z) > 5.0


def test_a_surface_may_be_short_of_the_domain(models):
    lifter = lifter_of(models, DOUBLE_WELL.name, "trained", 0, relax_steps=100, mode="unrestrained")
    lifter.label_proposal = tabulated(lifter, DOUBLE_WELL, 0.0, reach=(0.3, -0.7))
    grid = np.linspace(*lifter.system.slow.domain[0], 8001)[:, None]
    density = np.exp(lifter.label_proposal.log_prior(grid))
    assert density.mean() * np.ptp(grid) == pytest.approx(1.0, abs=2e-3) and density.min() > 0
    rng = np.random.default_rng(8)
    frames = exact_frames(lifter.system, DOUBLE_WELL, 1500, rng)
    forward = lifter.lift(lifter.label_proposal.sample(3000, rng), seed=9)
    cv_values = lifter.system.slow.transform(frames)
    backward = lifter.reverse(frames, np.clip(cv_values, *lifter.system.slow.domain.T), seed=10)
    z, error = bidirectional_z(forward.log_weights, backward.log_weights, DOUBLE_WELL.log_z())
    assert error < 0.05 and abs(z) < z_limit(N_SCORES), (z, error)


def test_tabulated_labels_are_drawn_as_they_are_weighed(models):
    lifter = lifter_of(models, CHAIN.name, "trained", 0, relax_steps=100, mode="unrestrained")
    prior = tabulated(lifter, CHAIN, 0.0)
    grid = (np.linspace(-np.pi, np.pi, 6000, endpoint=False) + np.pi / 6000)[:, None]
    density = np.exp(prior.log_prior(grid))
    assert density.mean() * 2 * np.pi == pytest.approx(1.0, abs=1e-3)
    drawn = np.histogram(prior.sample(200_000, np.random.default_rng(5)), bins=prior.edges[0])[0] / 200_000
    np.testing.assert_allclose(drawn, prior.probabilities, atol=5 * np.sqrt(0.1 / 200_000))


@pytest.mark.parametrize("name", [DOUBLE_WELL.name, CHAIN.name])
def test_unrestrained_reverse_agrees(name, models, uniform_lifts):
    lifter, forward = uniform_lifts(name)
    frames = exact_frames(models.system(name), EXACT[name], 1300, np.random.default_rng(3))
    inside = models.system(name).state.inside(frames)
    assert inside.mean() > 0.999
    frames = frames[inside]
    low, high = models.system(name).slow.domain.T
    backward = lifter.reverse(frames, np.clip(models.system(name).slow.transform(frames), low, high), seed=5)
    check = check_reverse(np.zeros(1), forward.log_weights, backward.log_weights, seed=6)
    assert abs(check.z) < z_limit(N_SCORES), check
    z, error = bidirectional_z(forward.log_weights, backward.log_weights, EXACT[name].log_z())
    assert error < 0.05 and abs(z) < z_limit(N_SCORES), (z, error)


@pytest.mark.parametrize(
    ("name", "generator"),
    [
        (DOUBLE_WELL.name, "trained"),
        *[pytest.param(name, "trained", marks=pytest.mark.slow) for name in (CHAIN.name, FORKED.name)],
        *[(name, "untrained") for name in (DOUBLE_WELL.name, CHAIN.name, FORKED.name)],
    ],
)
def test_forward_and_reverse_agree(name, generator, models):
    """Exact frames of one window; the bidirectional estimate is also the exact one."""
    system, exact = models.system(name), EXACT[name]
    label = exact.labels[0]
    lifter = lifter_of(models, name, generator, 4, relax_steps=500)
    frames = exact_frames(system, exact, 250, np.random.default_rng(7), label)
    frames = frames[system.state.inside(frames)]
    forward = lifter.lift(np.full((500, 1), label), seed=8)
    backward = lifter.reverse(frames, np.full((len(frames), 1), label), seed=9)
    (check,) = check_lifts(forward, backward, seed=10)
    assert abs(check.z) < z_limit(N_SCORES), check
    assert 0 < check.efficiency < 1.1, check
    log_z = exact.log_z(label, float(system.force_constants[0]))
    z, error = bidirectional_z(forward.log_weights, backward.log_weights, log_z)
    assert error < (0.15 if generator == "untrained" else 0.05) and abs(z) < z_limit(N_SCORES), (z, error)


def test_reverse_sees_the_mode_that_the_lifts_never_propose(models):
    """A generator in the upper well alone: forward weights are even, reverse frames of both wells do not."""
    system = models.system(FORKED.name)
    positions, labels = models.frames(FORKED.name)
    upper = positions[:, 0, 1] > 0
    model = train_model(system, positions[upper], labels[upper], seed=1, options=TrainingOptions(latent_size=0))
    lifter = Lifter(system, model, relax_steps=50, platform="Reference")
    forward = lifter.lift(np.zeros((1000, 1)), seed=2)
    result = score(forward.log_weights, FORKED.log_z(0.0, float(system.force_constants[0])))
    assert result.effective_sample_size > 500
    assert result.ratio == pytest.approx(1 / (1 + np.exp(-0.7)), abs=0.1)
    frames = exact_frames(system, FORKED, 300, np.random.default_rng(3), 0.0)
    backward = lifter.reverse(frames, np.zeros((300, 1)), seed=4)
    (check,) = check_lifts(forward, backward, seed=5)
    assert check.efficiency < 0.05, check
