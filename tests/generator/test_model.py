"""Training, encoder and the model file."""

import json

import numpy as np
import pytest
import torch

from openmm_gancl.errors import InputError
from openmm_gancl.generator.model import load_model, with_encoder
from openmm_gancl.generator.training import train_model, untrained_model
from openmm_gancl.generator.wgan_gp import (
    TrainingOptions,
    coordinate_statistics,
    energy_distance,
    marginal_loss,
    negative_log_likelihood,
)
from openmm_gancl.lifting.encoder import fit_encoder
from openmm_gancl.reference.chart import chart_for
from openmm_gancl.system.library import load_system
from tests.physics.exact import FORKED, exact_frames

SHORT = TrainingOptions(latent_size=2, generator_steps=40, evaluate_every=20, batch_size=64)


@pytest.fixture(scope="module")
def fork():
    return load_system("forked_oscillator")


@pytest.fixture(scope="module")
def fork_frames(fork):
    rng = np.random.default_rng(3)
    labels = np.linspace(-1.0, 1.0, 32)
    frames = [exact_frames(fork, FORKED, 24, rng, label) for label in labels]
    return np.concatenate(frames), np.repeat(labels, 24)[:, None]


@pytest.fixture(scope="module")
def model(fork, fork_frames):
    return train_model(fork, *fork_frames, seed=5, options=SHORT)


def test_same_seed_gives_the_same_parameters(fork, fork_frames, model):
    again = train_model(fork, *fork_frames, seed=5, options=SHORT)
    other = train_model(fork, *fork_frames, seed=6, options=SHORT)
    labels = np.array([[0.1], [-0.7]])
    latents = model.sample_latents(labels, np.random.default_rng(0))
    first, second, third = (m.reference_parameters(labels, latents).centres for m in (model, again, other))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, third)


def test_history_records_every_evaluation(model):
    history = model.history
    assert history["step"] == [0, 20, 40]
    assert len(history["held_out_distance"]) == len(history["critic_gap"]) == 3
    assert history["kept_step"] in history["step"]
    assert history["baseline_loss"][-1] < history["baseline_loss"][0]


def test_latent_zero_is_the_baseline_alone(fork, fork_frames):
    baseline = train_model(fork, *fork_frames, seed=5, options=TrainingOptions(latent_size=0))
    labels = np.zeros((3, 1))
    latents = baseline.sample_latents(labels, np.random.default_rng(0))
    widths = baseline.reference_parameters(labels, latents).widths
    assert np.ptp(widths, axis=0).max() == 0.0
    assert np.array_equal(baseline.log_prior(latents, labels), np.zeros(3))
    # y has two wells at +-0.3 nm: the one normal that fits best must span both
    assert 0.2 < widths[0, 1] < 0.35


def test_file_round_trip_keeps_every_number(model, tmp_path):
    model.save(tmp_path / "model.safetensors")
    loaded = load_model(tmp_path / "model.safetensors")
    labels = np.linspace(-1, 1, 7)[:, None]
    latents = model.sample_latents(labels, np.random.default_rng(1))
    for ours, theirs in zip(
        vars(model.reference_parameters(labels, latents)).values(),
        vars(loaded.reference_parameters(labels, latents)).values(),
        strict=True,
    ):
        assert np.array_equal(ours, theirs)
    assert loaded.metadata == json.loads(json.dumps(model.metadata))
    assert loaded.slow.describe() == model.slow.describe()


@pytest.mark.parametrize("n_candidates", [1, 16])
def test_encoder_is_normalised_over_its_candidates(model, n_candidates):
    fitted = with_encoder(model, np.array([0.0, 0.7, 0.3]), n_candidates, 20)
    labels = np.array([[0.2]] * n_candidates)
    latents = np.repeat(fitted.sample_latents(labels[:1], np.random.default_rng(2)), n_candidates, axis=0)
    latents[:, -1] = np.arange(n_candidates)
    coordinates = np.repeat([[0.2, 0.31, 0.05]], n_candidates, axis=0)
    ratio = fitted.log_encoder(latents, coordinates, labels) - fitted.log_prior(latents, labels)
    assert np.isclose(np.exp(ratio).mean(), 1.0, rtol=1e-12)


def test_encoder_draws_what_it_says(model):
    n_candidates, n = 8, 20000
    fitted = with_encoder(model, np.array([0.0, 1.0, 0.0]), n_candidates, 20)
    labels, coordinates = np.zeros((n, 1)), np.repeat([[0.0, 0.3, 0.0]], n, axis=0)
    rng = np.random.default_rng(4)

    def centres(latents):
        return fitted.reference_parameters(labels, latents).centres[:, 1]

    threshold = np.quantile(centres(fitted.sample_latents(labels, np.random.default_rng(3))), 0.8)

    def upper(latents):
        return centres(latents) > threshold

    drawn, log_density = fitted.sample_encoder(coordinates, labels, rng)
    assert np.array_equal(log_density, fitted.log_encoder(drawn, coordinates, labels))
    prior = fitted.sample_latents(labels, rng)
    ratio = np.exp(fitted.log_encoder(prior, coordinates, labels) - fitted.log_prior(prior, labels))
    difference = upper(drawn).astype(float) - upper(prior) * ratio
    assert 0.05 < upper(prior).mean() < 0.95
    assert abs(difference.mean() / (difference.std() / n**0.5)) < 3.5  # false-alarm rate 5e-4
    unweighted = upper(drawn).astype(float) - upper(prior)
    assert abs(unweighted.mean() / (unweighted.std() / n**0.5)) > 5.0  # the twin: the encoder forgotten


def test_fitted_encoder_is_kept_where_the_latent_decides_the_well(fork, fork_frames):
    options = TrainingOptions(latent_size=2, generator_steps=300)
    trained = train_model(fork, *fork_frames, seed=5, options=options)
    labels = np.linspace(-0.8, 0.8, 5)[:, None]
    fit = fit_encoder(fork, trained, labels, relax_steps=20, seed=1, n_pilot=320, n_reverse=100, platform="Reference")
    assert fit.kept and fit.information > 0.2
    assert fit.efficiency_fitted > 10 * fit.efficiency_prior
    assert fit.model.encoder_relax_steps == 20


def test_no_latent_no_encoder(fork):
    plain = untrained_model(fork, seed=1, latent_size=0)
    with pytest.raises(InputError, match="`latent_size`"):
        fit_encoder(fork, plain, np.zeros((1, 1)), relax_steps=5, seed=1)


def test_model_of_another_molecule_is_refused_and_said_why(model):
    with pytest.raises(InputError, match="1 atoms, alanine_dipeptide_vacuum has 22"):
        model.check_system(load_system("alanine_dipeptide_vacuum"))
    with pytest.raises(InputError, match=r"labels are .*domain"):
        model.check_system(load_system("double_well_oscillators"))


def test_too_few_frames_are_refused(fork, fork_frames):
    with pytest.raises(InputError, match="only 5 usable"):
        train_model(fork, fork_frames[0][:5], fork_frames[1][:5], seed=1)


def test_statistics_of_a_rotor_are_those_of_its_fold():
    system = load_system("alanine_dipeptide_vacuum")
    chart = chart_for(system.topology, system.slow, system.positions)
    rng = np.random.default_rng(0)
    coordinates = np.repeat(chart.to_internal(system.positions[None]), 4000, axis=0)
    rotor = int(np.flatnonzero(chart.folds == 3)[0])
    coordinates[:, rotor] = 0.4 + rng.normal(0, 0.1, 4000) + 2 * np.pi / 3 * rng.integers(0, 3, 4000)
    origin, scale = coordinate_statistics(coordinates, chart)
    turns = (origin[rotor] - 0.4) / (2 * np.pi / 3)
    assert abs(turns - np.round(turns)) < 0.01
    assert abs(scale[rotor] - 0.1) < 0.005


def test_price_of_information_runs_from_the_marginal_to_the_mean(model, fork_frames):
    positions, labels = (torch.as_tensor(array[:6]) for array in fork_frames)
    latents = torch.randn(6, 5, model.latent_size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    generator, coordinates = model.networks.generator, positions.reshape(6, -1)
    by_latent = torch.stack(
        [
            negative_log_likelihood(coordinates, *generator(labels, latents[:, i]), generator)
            for i in range(latents.shape[1])
        ]
    )
    losses = [float(marginal_loss(generator, labels, coordinates, latents, price)) for price in (1.0, 4.0, 1e7)]
    assert losses[0] == pytest.approx(float(-torch.log(torch.exp(-by_latent).mean(dim=0)).mean()))
    assert losses[2] == pytest.approx(float(by_latent.mean()), rel=1e-4)
    assert losses[0] < losses[1] < losses[2]


def test_energy_distance_tells_samples_apart():
    random = torch.Generator().manual_seed(0)
    one, two = (torch.randn(400, 3, generator=random) for _ in range(2))
    assert abs(energy_distance(one, two)) < 0.02 < energy_distance(one, two + 0.5)
