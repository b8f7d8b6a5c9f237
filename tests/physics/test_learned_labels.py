"""Lifts at learned labels, free and restrained, alone and together with a torsion, against the chain's exact answers.

The labels are a real diffusion map of real frames; whatever they are, the weights must be right. Its z-scores and
those of test_learned_windows.py together have the false-alarm rate of 3.5 sigma (Bonferroni).
"""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import kstest

from openmm_gancl import Lifter, TrainingOptions
from openmm_gancl.coordinates.restraint_energies import restraint_energies
from openmm_gancl.generator import untrained_model
from openmm_gancl.generator.torsion_windows import restrain_torsions, wide_torsions
from openmm_gancl.generator.training import train_model
from openmm_gancl.lifting.label_proposals import KernelProposal, fit_label_encoder
from openmm_gancl.lifting.reverse_check import check_reverse
from openmm_gancl.lifting.surface import weighted_ends

from .conftest import UNTRAINED_WIDTHS
from .exact import CHAIN, KT, exact_frames
from .learned_chain import N_SCORES, RELAX_STEPS, with_learned_labels
from .paths import run_paths
from .statistics import score, z_limit

REJECTED = 5.0


@pytest.fixture(scope="module", params=["learned", "mixed"])
def learned(request, models):
    """The system with learned labels, or with its torsion and one learned label; and what p(s) needs."""
    return with_learned_labels(models, request.param)


@pytest.fixture(scope="module", params=["trained", "untrained"])
def generator(request, learned):
    system, labels, positions = learned
    if request.param == "untrained":
        return untrained_model(system, seed=3, latent_size=2, strength=0.5, widths=UNTRAINED_WIDTHS[CHAIN.name])
    options = TrainingOptions(latent_size=2, generator_steps=50)
    return train_model(
        system, positions, KernelProposal.around_frames(labels, labels.widths).blur(1), seed=2, options=options
    )


def free_lifter(learned, generator):
    system, labels, _ = learned
    rng = np.random.default_rng(4)
    pilot = Lifter(
        system,
        generator,
        relax_steps=2 * RELAX_STEPS,
        mode="unrestrained",
        force_constants=np.zeros(len(labels.widths)),
        label_proposal=KernelProposal.around_frames(labels, labels.widths),
        platform="Reference",
    )
    lifts = pilot.lift(pilot.label_proposal.sample(256, rng), seed=5)
    pilot.label_proposal = KernelProposal.around_frames(
        labels, fit_label_encoder(labels, lifts.labels[lifts.ok], lifts.cv_values[lifts.ok])
    )
    return pilot


def test_free_lifts_measure_the_whole_partition_function(learned, generator):
    lifter, untrained = free_lifter(learned, generator), generator.metadata["n_frames"] == 0
    paths = run_paths(
        lifter, lifter.label_proposal.sample(3000 if untrained else 5500, np.random.default_rng(6)), seed=7
    )
    result = score(paths.log_weights(), CHAIN.log_z())
    assert result.relative_error < (0.15 if untrained else 0.05), result
    assert result.effective_sample_size > (50 if untrained else 200), result
    assert abs(result.z) < z_limit(N_SCORES), result


class NotNormalised(KernelProposal):
    """The twin: r(s | x) is p(s) times a kernel, not divided by its integral over the labels."""

    def log_ratio(self, labels, cv_values):
        return super().log_ratio(labels, cv_values) + self._mean_over_centres(self._log_overlap, cv_values)


@pytest.fixture(scope="module")
def free_paths(learned):
    """Of a generator without a latent: 3000 free lifts, that can be weighed again."""
    system, labels, positions = learned
    model = train_model(
        system,
        positions,
        KernelProposal.around_frames(labels, labels.widths).blur(1),
        seed=2,
        options=TrainingOptions(latent_size=0),
    )
    lifter = free_lifter(learned, model)
    return run_paths(lifter, lifter.label_proposal.sample(3000, np.random.default_rng(6)), seed=7)


def test_an_encoder_that_is_not_normalised_shows(free_paths, monkeypatch):
    right = score(free_paths.log_weights(), CHAIN.log_z())
    lifter = free_paths.lifter
    monkeypatch.setattr(lifter, "label_proposal", NotNormalised(**vars(lifter.label_proposal)))
    wrong = score(free_paths.log_weights(), CHAIN.log_z())
    assert abs(right.z) < z_limit(N_SCORES) and abs(wrong.z) > REJECTED, (right, wrong)


class Dropped(KernelProposal):
    """The twin: log r(s | x) is left out, and only p(s) divided by."""

    def log_ratio(self, labels, cv_values):
        return -self.log_prior(labels)


@pytest.mark.parametrize("learned", ["learned"], indirect=True)
def test_log_r_that_is_dropped_shows(free_paths, monkeypatch):
    """Of learned labels alone: beside a torsion 1 / p(s) has so heavy a tail that its mean says nothing."""
    monkeypatch.setattr(free_paths.lifter, "label_proposal", Dropped(**vars(free_paths.lifter.label_proposal)))
    wrong = score(free_paths.log_weights(), CHAIN.log_z())
    assert abs(wrong.z) > REJECTED, wrong


def test_free_lifts_agree_with_their_reverse(free_paths, learned, models):
    system, labels, _ = learned
    frames = exact_frames(models.system(CHAIN.name), CHAIN, 1000, np.random.default_rng(10))
    frames = frames[system.state.inside(frames)]
    backward = free_paths.lifter.reverse(frames, labels.centres[np.zeros(len(frames), dtype=int)], seed=13)
    check = check_reverse(np.zeros(1), free_paths.log_weights(), backward.log_weights, seed=14)
    assert abs(check.z) < z_limit(N_SCORES), check


@pytest.fixture(scope="module")
def exact(models):
    """Independent frames of the equilibrium."""
    return exact_frames(models.system(CHAIN.name), CHAIN, 120_000, np.random.default_rng(8))


@pytest.fixture(scope="module")
def restrained_lifts(learned, generator, models):
    """6000, unevenly spread over 64 windows."""
    _, labels, positions = learned
    system = models.system(CHAIN.name)
    requested = KernelProposal.around_frames(labels, labels.widths).sample(64, np.random.default_rng(6))
    torsions = wide_torsions(system, labels.slow, positions)
    assert torsions.names == ("phi",)
    model, centres = restrain_torsions(generator, torsions, requested, seed=7)
    system = replace(system, slow=torsions, force_constants=np.array([KT / 0.3**2]), basins=())
    # per lift twice as many steps pay: a third of the lifts have the same error
    lifter = Lifter(system, model, relax_steps=2 * RELAX_STEPS, platform="Reference")
    often = np.exp(np.cos(centres[:, 0]))
    index = np.random.default_rng(8).choice(64, 6000, p=often / often.sum())
    return lifter.lift(centres[index], seed=9)


def torsion_windows_score(lifts, kappa):
    """Of weights in units of their windows' Z, by quadrature."""
    windows, index = np.unique(lifts.labels[:, 0], return_inverse=True)
    log_z = np.array([CHAIN.log_z(float(label), kappa) for label in windows])
    return score(lifts.log_weights, log_z[index.ravel()])


def test_restrained_lifts_measure_their_windows(restrained_lifts, generator):
    """The twin's constant is half of theirs; a quarter where the generator is untrained, and errors are larger."""
    (kappa,) = restrained_lifts.force_constants.tolist()
    result = torsion_windows_score(restrained_lifts, kappa)
    assert result.relative_error < 0.05 and result.effective_sample_size > 200, result
    assert abs(result.z) < z_limit(N_SCORES), result
    share = 0.25 if generator.metadata["n_frames"] == 0 else 0.5
    softer = torsion_windows_score(restrained_lifts, share * kappa)
    assert abs(softer.z) > REJECTED, softer


def test_restrained_lifts_measure_the_free_equilibrium(restrained_lifts, exact):
    """By the mixture of their windows, where those reach; the twin takes each end as if no window had restrained it."""
    ends, angles = weighted_ends(restrained_lifts), restrained_lifts.slow.transform(exact)

    def reached(angles):
        energies = restraint_energies(
            restrained_lifts.slow,
            restrained_lifts.force_constants,
            angles[:, None],
            np.unique(restrained_lifts.labels, axis=0),
        )
        return energies.min(axis=1) < 2.0 * KT

    truth = np.cos(angles[reached(angles), 0])
    cosines, inside = np.cos(ends.cv_values[:, 0]), reached(ends.cv_values)

    def deviation(log_weights):
        weights = np.where(inside, np.exp(log_weights - logsumexp(log_weights[inside])), 0.0)
        mean = weights @ cosines
        error = ends.error_of_sum(weights * (cosines - mean))
        return (mean - truth.mean()) / np.hypot(error, truth.std() / len(truth) ** 0.5), error

    z, error = deviation(ends.log_weights)
    assert error < 0.02 and abs(z) < z_limit(N_SCORES), (z, error)
    wrong, _ = deviation(restrained_lifts.log_weights[restrained_lifts.ok])
    assert abs(wrong) > REJECTED, wrong


def test_each_label_has_an_encoder_width_of_its_own(models):
    """A torsion off by a normal deviation, a label off by little but for a few ends; one multiple of both deviations,
    the twin, is less likely."""
    _, labels, _ = with_learned_labels(models, "mixed")
    rng = np.random.default_rng(16)
    requested = KernelProposal.around_frames(labels, labels.widths).sample(2000, rng)
    deviations = rng.standard_normal((2000, 2)) * [1.0, 0.5]
    deviations[::100, 1] *= 30.0
    reached = requested + 4.0 * labels.widths * deviations
    pilots, judges = slice(None, 256), slice(256, None)
    widths = fit_label_encoder(labels, requested[pilots], reached[pilots])
    multiples = widths / np.std(requested[pilots] - reached[pilots], axis=0)
    assert multiples[0] > 1.5 * multiples[1], multiples

    def gain(widths):
        encoder = KernelProposal.around_frames(labels, widths)
        return np.maximum(encoder.log_ratio(requested[judges], reached[judges]), -50.0).mean()

    ones = [gain(multiple * widths / multiples) for multiple in np.linspace(0.2, 2.0, 19)]
    assert gain(widths) > max(ones) + 0.05, (gain(widths), ones)


@pytest.mark.parametrize("periodic", [False, True])
def test_the_mixtures_encoder_is_normalised_and_drawn_from(periodic):
    rng = np.random.default_rng(15)
    prior = KernelProposal(rng.uniform(-3, 3, (40, 1)), np.array([0.2]), np.array([0.5]), np.array([periodic]))
    grid = np.linspace(-np.pi, np.pi, 4000, endpoint=False) if periodic else np.linspace(-8, 8, 8001)
    step = grid[1] - grid[0]
    assert np.exp(prior.log_prior(grid[:, None])).sum() * step == pytest.approx(1.0, abs=1e-6)
    density = np.exp(prior.log_encoder(grid[:, None], np.full((len(grid), 1), 3.0)))
    assert density.sum() * step == pytest.approx(1.0, abs=1e-6)
    for draws, log_density in (
        (prior.sample(4000, rng), prior.log_prior(grid[:, None])),
        (prior.sample_encoder(np.full((4000, 1), 3.0), rng), np.log(density)),
    ):
        cumulative = np.cumsum(np.exp(log_density)) * step
        # two tests, each with 1e-3 of false alarms
        assert kstest(draws[:, 0], lambda x, c=cumulative: np.interp(x, grid + step / 2, c)).pvalue > 1e-3
