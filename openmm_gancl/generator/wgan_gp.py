"""Training: the smooth baseline by maximum likelihood, then the adversarial correction (WGAN-GP).

Gulrajani et al. 2017, arXiv 1704.00028. The critic gets what the lift draws, noise included. A likelihood term
is added, which penalises the information between the latent and the coordinates.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ..coordinates.slow_coordinates import SlowCoordinates
from ..engine.optimisers import LBFGS, Adam
from ..engine.random_numbers import Name, named_rng, torch_rng, torch_seeded
from ..reference.chart import Chart
from ..units import FloatArray
from .critic import critic_loss
from .networks import Critic, Generator, coordinate_losses, standardise

LIKELIHOOD_BATCH_SIZE = 2048
"""References in one estimate of the likelihood term."""

MIN_WIDTH = 1e-4
"""nm or radians: the scale of a coordinate that the frames show as frozen."""


@dataclass(frozen=True)
class TrainingOptions:
    """Hyper-parameters of the training.

    Attributes:
        latent_size: dimension of z; 0 leaves the conditional-Gaussian baseline.
        generator_steps: steps of the generator at most.
        critic_steps: steps of the critic for each of the generator.
        batch_size: frames in a step.
        generator_rate: learning rate of the generator's Adam at the start; it falls to zero as a cosine.
        critic_rate: learning rate of the critic's Adam.
        gradient_penalty: weight of the critic's gradient penalty.
        likelihood: weight of the likelihood term relative to the adversarial one; 0 is the plain WGAN-GP.
        likelihood_samples: latents in the estimate of one frame's likelihood.
        information_price: price, at the end of training, of a nat of information between latent and coordinates in
            the likelihood term; it rises from 1 as a geometric series, so that modes found early survive. Relaxing
            decorrelates the latent: one that narrows the references within a mode costs variance, one that separates
            modes saves it.
        evaluate_every: generator steps between two held-out distances.
        patience: evaluations without improvement before the early stop.
        held_out: fraction of the frames, for the early stop alone.
        roughness: weight of the baseline's smoothness penalty.
    """

    latent_size: int = 4
    generator_steps: int = 1200
    critic_steps: int = 3
    batch_size: int = 256
    generator_rate: float = 1e-2
    critic_rate: float = 1e-3
    gradient_penalty: float = 1.0
    likelihood: float = 2.0
    likelihood_samples: int = 16
    information_price: float = 4.0
    evaluate_every: int = 100
    patience: int = 10
    held_out: float = 0.2
    roughness: float = 1e-3


@dataclass
class TrainingHistory:
    """What was recorded: one entry an evaluation, the first before any adversarial step."""

    baseline_loss: list[float] = field(default_factory=list)
    step: list[int] = field(default_factory=list)
    held_out_distance: list[float] = field(default_factory=list)
    critic_gap: list[float] = field(default_factory=list)
    kept_step: int = 0


def coordinate_statistics(coordinates: FloatArray, chart: Chart) -> tuple[FloatArray, FloatArray]:
    """Typical value and standard deviation of each coordinate; circular, of its fold, for torsions.

    Args:
        coordinates: shape=(n, n_coordinates).
        chart: the chart.
    """
    folded = np.exp(1j * chart.folds * coordinates)
    resultant = folded.mean(axis=0)
    spread = np.sqrt(-2.0 * np.log(np.clip(np.abs(resultant), 0.2, 1.0 - 1e-12)))
    origin = np.where(chart.periodic, np.angle(resultant) / chart.folds, coordinates.mean(axis=0))
    scale = np.where(chart.periodic, spread / chart.folds, coordinates.std(axis=0))
    return origin, np.maximum(scale, MIN_WIDTH)


def negative_log_likelihood(coordinates: Tensor, centres: Tensor, widths: Tensor, generator: Generator) -> Tensor:
    """-log density of coordinates under their references, summed over coordinates, shape=(n,)."""
    terms = coordinate_losses(coordinates, centres, widths, generator.folds, generator.is_torsion)
    return terms.sum(dim=1)


@torch.enable_grad()
def fit_baseline(generator: Generator, labels: FloatArray, coordinates: FloatArray, roughness: float) -> list[float]:
    """Fit the smooth baseline, in place, by penalised maximum likelihood; returns the loss curve.

    Args:
        generator: its ``baseline`` is set.
        labels: shape=(n, d).
        coordinates: shape=(n, n_coordinates).
        roughness: weight of the smoothness penalty.
    """
    s, q = torch.as_tensor(labels), torch.as_tensor(coordinates)
    basis = generator.basis(s)
    penalty = roughness * (1e-3 + generator.basis.roughness)[:, None]
    with torch.no_grad():
        deviation = q - generator.origin
        narrow = torch.clamp(generator.folds * generator.scale, max=1.0)
        turned = generator.folds * deviation
        shift = torch.where(generator.is_torsion, (torch.cos(turned) - 1) / narrow, deviation / generator.scale)
        sine = torch.where(generator.is_torsion, torch.sin(turned) / narrow, 0.0)
        target = torch.cat([shift, sine, torch.zeros_like(shift)], dim=1)
        normal_matrix = basis.T @ basis / len(s) + torch.diag(penalty[:, 0])
        generator.baseline.copy_(torch.linalg.solve(normal_matrix, basis.T @ target / len(s)))
    optimiser = LBFGS(
        [generator.baseline],
        max_iter=60,
        history_size=20,
        line_search_fn="strong_wolfe",
        tolerance_change=1e-7,
    )
    losses: list[float] = []

    def closure() -> Tensor:
        optimiser.zero_grad()
        centres, widths = generator.squash(basis @ generator.baseline)
        loss = negative_log_likelihood(q, centres, widths, generator).mean()
        loss = loss + (penalty * generator.baseline**2).sum()
        loss.backward()
        losses.append(loss.item())
        return loss

    optimiser.step(closure)
    generator.baseline.requires_grad_(False)
    return losses


class _Sampler:
    """Draws from the references of a generator, differentiable in centres and widths."""

    def __init__(self, generator: Generator, seed: int, *name: Name):
        self.generator, self.random = generator, torch_rng(seed, *name, "torch")
        self.numpy_random = named_rng(seed, *name, "numpy")

    def latents(self, n: int) -> Tensor:
        return torch.randn(n, self.generator.latent_size, generator=self.random)

    def draw(self, labels: Tensor, latents: Tensor) -> Tensor:
        generator = self.generator
        centres, widths = generator(labels, latents)
        normal = torch.randn(centres.shape, generator=self.random)
        strength = (generator.folds * widths.detach()) ** -2.0
        angle = torch.as_tensor(self.numpy_random.vonmises(0.0, strength.numpy()), dtype=widths.dtype)
        # gradients of a von Mises draw as in its narrow limit: the draw scales with the width
        angle = angle / generator.folds * (widths / widths.detach())
        return centres + torch.where(generator.is_torsion, angle, normal * widths)


def energy_distance(first: Tensor, second: Tensor) -> float:
    """Energy distance between two samples, shape=(n, p) and (m, p) (Szekely & Rizzo 2013).

    doi 10.1016/j.jspi.2013.03.018.
    """
    n, m = len(first), len(second)
    between = torch.cdist(first, second).mean()
    within = torch.cdist(first, first).sum() / (n * (n - 1)) + torch.cdist(second, second).sum() / (m * (m - 1))
    return float(2 * between - within)


def _follow(averaged: torch.nn.Module, correction: torch.nn.Module, step: int) -> None:
    """Move the running average of the weights, which at first forgets faster."""
    decay = min(0.99, (step + 1) / (step + 10))
    with torch.no_grad():
        for average, current in zip(averaged.parameters(), correction.parameters(), strict=True):
            average.lerp_(current, 1 - decay)


@torch.enable_grad()
def train_adversarially(
    generator: Generator,
    slow: SlowCoordinates,
    labels: FloatArray,
    coordinates: FloatArray,
    held_out: tuple[FloatArray, FloatArray],
    options: TrainingOptions,
    seed: int,
    history: TrainingHistory,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Train the correction of a generator, in place, keeping the weights with the least held-out distance.

    Of steps that differ by no more than the noise of that distance, the latest is kept.

    Args:
        generator: with a fitted baseline; single precision while training.
        slow: the slow coordinates.
        labels: shape=(n, d).
        coordinates: shape=(n, n_coordinates).
        held_out: labels and coordinates, for the early stop alone.
        options: hyper-parameters.
        seed: of every random number.
        history: is appended to.
        progress: called with the step and the number of steps.
    """
    generator.float()
    with torch_seeded(seed, "training", "critic"):
        critic = Critic(slow, generator.n_coordinates).float()
    sampler = _Sampler(generator, seed, "training", "draws")
    averaged = copy.deepcopy(generator.correction)
    optimiser = Adam(generator.correction.parameters(), lr=options.generator_rate, betas=(0.0, 0.9))
    critic_optimiser = Adam(critic.parameters(), lr=options.critic_rate, betas=(0.0, 0.9))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, options.generator_steps + 1)
    real_labels, real = _tensors(generator, labels, coordinates)
    real_coordinates = torch.as_tensor(coordinates, dtype=torch.float32)
    test = _HeldOut(generator, *held_out, seed=seed)
    for step in range(options.generator_steps + 1):
        if step % options.evaluate_every == 0:
            test.look_at(averaged, step, history)
            if step - history.kept_step >= options.patience * options.evaluate_every:
                break
        gap = 0.0
        for _ in range(options.critic_steps):
            rows = torch.randint(len(real), (options.batch_size,), generator=sampler.random)
            gap = _critic_step(critic, critic_optimiser, sampler, real_labels[rows], real[rows], options)
        if step % options.evaluate_every == 0:
            history.critic_gap.append(gap)
        rows = torch.randint(len(real), (options.batch_size,), generator=sampler.random)
        price = options.information_price ** (step / options.generator_steps)
        _generator_step(critic, optimiser, sampler, real_labels[rows], real_coordinates[rows], options, price)
        schedule.step()
        _follow(averaged, generator.correction, step)
        if progress is not None:
            progress(step, options.generator_steps)
    generator.correction.load_state_dict(test.kept)
    generator.double()


def _features(generator: Generator, labels: Tensor, coordinates: Tensor) -> Tensor:
    with torch.no_grad():
        centres, widths = generator.baseline_parameters(labels)
    return standardise(coordinates, centres, widths, generator.folds, generator.is_torsion)


def _tensors(generator: Generator, labels: FloatArray, coordinates: FloatArray) -> tuple[Tensor, Tensor]:
    s, q = (torch.as_tensor(array, dtype=torch.float32) for array in (labels, coordinates))
    return s, _features(generator, s, q)


def _critic_step(
    critic: Critic,
    optimiser: torch.optim.Optimizer,
    sampler: _Sampler,
    labels: Tensor,
    real: Tensor,
    options: TrainingOptions,
) -> float:
    with torch.no_grad():
        drawn = sampler.draw(labels, sampler.latents(len(labels)))
    fake = _features(sampler.generator, labels, drawn)
    mixing = torch.rand(len(labels), 1, generator=sampler.random)
    loss, gap = critic_loss(lambda features: critic(labels, features), real, fake, mixing, options.gradient_penalty)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return gap.item()


def marginal_loss(generator: Generator, labels: Tensor, coordinates: Tensor, latents: Tensor, price: float) -> Tensor:
    """``-price log <p(x | s, z)^(1 / price)>`` over given draws of z from the prior; a scalar, the mean over frames.

    It is the least mean loss at a given price of the information between the latent and x (the objective of a beta-VAE
    with its best encoder, Higgins et al. 2017, openreview Sy2fzU9gl). A price of 1 gives the likelihood of the
    marginal, a high one the mean over latents.

    Args:
        generator: the generator.
        labels: shape=(n, d).
        coordinates: shape=(n, n_coordinates), real.
        latents: shape=(n, k, latent_size).
        price: at least 1.
    """
    n, k, size = latents.shape
    repeated = labels.repeat_interleave(k, dim=0)
    centres, widths = generator(repeated, latents.reshape(n * k, size))
    losses = negative_log_likelihood(coordinates.repeat_interleave(k, dim=0), centres, widths, generator)
    return price * (math.log(k) - torch.logsumexp(-losses.view(n, k) / price, dim=1)).mean()


def _generator_step(
    critic: Critic,
    optimiser: torch.optim.Optimizer,
    sampler: _Sampler,
    labels: Tensor,
    coordinates: Tensor,
    options: TrainingOptions,
    price: float,
) -> None:
    drawn = sampler.draw(labels, sampler.latents(len(labels)))
    loss = -critic(labels, _features(sampler.generator, labels, drawn)).mean()
    if options.likelihood > 0:
        k = options.likelihood_samples
        n = min(max(LIKELIHOOD_BATCH_SIZE // k, 1), len(labels))
        latents = sampler.latents(n * k).view(n, k, -1)
        marginal = marginal_loss(sampler.generator, labels[:n], coordinates[:n], latents, price)
        loss = loss + options.likelihood * marginal
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


class _HeldOut:
    """The criterion of the early stop: energy distance to held-out frames, with the same random numbers each time."""

    def __init__(self, generator: Generator, labels: FloatArray, coordinates: FloatArray, seed: int):
        rows = named_rng(seed, "training", "early stop", "frames").permutation(len(labels))[:1500]
        self.generator, self.seed = generator, seed
        self.labels, real = _tensors(generator, labels[rows], coordinates[rows])
        self.label_features = generator.basis(self.labels)[:, generator.coarse]
        self.real = torch.cat([self.label_features, real], dim=1)
        random, half, distances = torch_rng(seed, "training", "early stop", "halves"), len(rows) // 2, []
        for _ in range(20):
            order = torch.randperm(len(rows), generator=random)
            distances.append(energy_distance(self.real[order[:half]], self.real[order[half:]]))
        # the spread between halves of real frames, for samples twice as large
        self.noise = float(np.std(distances)) / 2
        self.best, self.kept = math.inf, copy.deepcopy(generator.correction.state_dict())

    def look_at(self, correction: torch.nn.Module, step: int, history: TrainingHistory) -> None:
        """Keep these weights if they are as good as the best ones, to within the noise."""
        distance = self.distance(correction)
        history.step.append(step)
        history.held_out_distance.append(distance)
        self.best = min(self.best, distance)
        if distance <= self.best + self.noise:
            self.kept, history.kept_step = copy.deepcopy(correction.state_dict()), step

    def distance(self, correction: torch.nn.Module) -> float:
        trial = copy.deepcopy(self.generator)
        trial.correction.load_state_dict(correction.state_dict())
        sampler = _Sampler(trial, self.seed, "fixed", "early stop draws")
        with torch.no_grad():
            drawn = sampler.draw(self.labels, sampler.latents(len(self.labels)))
        fake = torch.cat([self.label_features, _features(trial, self.labels, drawn)], dim=1)
        return energy_distance(self.real, fake)
