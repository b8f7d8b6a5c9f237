"""Acceptance on weights whose target is known, and what a lift counts."""

import numpy as np
import pytest
from scipy.stats import chi2, norm

from openmm_gancl import InputError, Lifter, load_system
from openmm_gancl.free_energy import effective_sample_size
from openmm_gancl.generator import untrained_model
from openmm_gancl.lifting import accept_metropolis

FALSE_ALARM = float(2 * norm.sf(3.5))


@pytest.fixture(scope="module")
def system():
    return load_system("double_well_oscillators")


@pytest.fixture(scope="module")
def model(system):
    return untrained_model(system, seed=1, latent_size=1, widths={"cartesian": 0.3})


def test_metropolis_samples_the_target():
    """Five states proposed evenly, weighted unevenly: chi-square of a thinned chain, false alarms as at 3.5 sigma."""
    rng = np.random.default_rng(1)
    weights = np.array([1.0, 2.0, 0.5, 4.0, 0.0])
    proposed = rng.integers(0, 5, size=40000)
    with np.errstate(divide="ignore"):
        states, accepted = accept_metropolis(np.log(weights)[proposed], rng)
    chain = proposed[states[20::20]]
    counts = np.bincount(chain, minlength=5)
    assert counts[4] == 0
    expected = len(chain) * weights / weights.sum()
    statistic = ((counts - expected)[:4] ** 2 / expected[:4]).sum()
    assert chi2.sf(statistic, 3) > FALSE_ALARM
    assert (states[accepted] == np.flatnonzero(accepted)).all()


def test_metropolis_waits_for_the_first_finite_weight_and_survives_extremes():
    log_weights = np.array([-np.inf, -np.inf, -1e6, -np.inf, 1e6, 0.0, -np.inf])
    states, accepted = accept_metropolis(log_weights, np.random.default_rng(0))
    assert states.tolist() == [-1, -1, 2, 2, 4, 4, 4]
    assert accepted.tolist() == [False, False, True, False, True, False, False]


def test_inputs_are_not_changed(system, model):
    labels = np.array([[0.2], [-0.4]])
    kept = labels.copy()
    lifter = Lifter(system, model, relax_steps=3, platform="Reference")
    lifts = lifter.lift(labels, seed=1)
    lifter.reverse(lifts.positions, labels, seed=2)
    np.testing.assert_array_equal(labels, kept)


def test_the_log_weight_is_the_sum_of_its_stored_parts(system, model):
    """Restrained, Cartesian: only log Z_ref is not stored, and depends on label and latent alone."""
    lifter = Lifter(system, model, relax_steps=5, platform="Reference")
    lifts = lifter.lift(np.zeros((40, 1)), seed=3)
    parameters = model.reference_parameters(lifts.labels, lifts.latents)
    widths = parameters.widths.copy()
    widths[:, 0] = np.sqrt(system.kT / system.force_constants[0])
    log_partition = np.log(np.sqrt(2 * np.pi) * widths).sum(axis=1)
    expected = -lifts.work / system.kT + log_partition + lifts.log_encoder - lifts.log_prior
    np.testing.assert_allclose(lifts.log_weights, expected, rtol=1e-9)
    assert (lifts.log_encoder_label == 0).all()


@pytest.mark.parametrize("schedule", [np.linspace(0, 1, 11), [0.0, np.nan, 1.0], 3.0, "linear"])
def test_a_schedule_that_is_none_is_refused(system, model, schedule):
    with pytest.raises(InputError, match=r"the schedule has \d+ kicks, \d+ of them numbers: give relax_steps . 1 = 3"):
        Lifter(system, model, relax_steps=2, schedule=schedule, platform="Reference")


def test_any_schedule_has_the_mean_weight_of_the_linear_one(system):
    """Whatever the way, the mean weight is the restrained ensemble's; false alarms as at 3.5 sigma."""
    near = untrained_model(system, seed=1, latent_size=1, strength=0.2, widths={"cartesian": 0.1})
    labels, steps, options = np.full((1500, 1), -1.0), np.linspace(0, 1, 41), {"platform": "Reference"}
    plain = Lifter(system, near, relax_steps=40, **options).lift(labels, seed=1)
    means, errors = [], []
    for seed, schedule in enumerate((steps, steps**2, np.sqrt(steps)), start=1):
        lifts = Lifter(system, near, relax_steps=40, schedule=schedule, **options).lift(labels, seed=seed)
        assert np.array_equal(lifts.log_weights, plain.log_weights) == (schedule is steps)
        weights = np.exp(lifts.log_weights)
        means.append(weights.mean())
        errors.append(weights.std() / np.sqrt(len(weights)))
        assert effective_sample_size(lifts.log_weights) > 200 and errors[-1] < 0.05 * means[-1]
    z = (np.array(means[1:]) - means[0]) / np.hypot(errors[1:], errors[0])
    assert np.abs(z).max() < 3.5, (means, errors)


def test_what_is_given_in_place_of_a_system_a_model_or_a_way(system, model):
    with pytest.raises(InputError, match="given are str and LiftingModel: give a system"):
        Lifter("double_well_oscillators", model)
    with pytest.raises(InputError, match="relax is 'langevin': choose none, latent, context, auto"):
        Lifter(system, model, relax="langevin")
    with pytest.raises(InputError, match="the product generator knows no density of its lifts"):
        Lifter(system, model, relax="latent")
    with pytest.raises(InputError, match="mode is 'free': choose restrained or unrestrained"):
        Lifter(system, model, mode="free", platform="Reference")


def test_frames_outside_the_declared_state_have_no_way_back():
    peptide = load_system("alanine_dipeptide_vacuum")
    lifter = Lifter(peptide, untrained_model(peptide, seed=1), relax_steps=2, platform="Reference")
    mirrored = peptide.positions[None] * [1.0, 1.0, -1.0]
    with pytest.raises(InputError, match="some frames lie outside the declared state"):
        lifter.reverse(mirrored, peptide.slow.transform(mirrored), seed=1)


def test_no_labels_are_refused(system, model):
    lifter = Lifter(system, model, relax_steps=2, platform="Reference")
    with pytest.raises(InputError, match="there are no labels"):
        lifter.lift(np.empty((0, 1)), seed=1)


def test_labels_that_nothing_restrains(system, model):
    free = {"force_constants": np.zeros(1), "relax_steps": 20, "platform": "Reference"}
    with pytest.raises(InputError, match="nothing restrains"):
        Lifter(system, model, mode="unrestrained", **free)
    assert Lifter(system, model, **free).lift(np.zeros((8, 1)), seed=1).ok.all()


def test_labels_outside_the_domain_are_refused(system, model):
    with pytest.raises(InputError, match="outside the domain"):
        Lifter(system, model, relax_steps=2, platform="Reference").lift(np.array([[5.0]]), seed=1)
