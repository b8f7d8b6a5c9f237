"""Fit the encoder r(z | x, s) on relaxed pairs, and keep it only if it brings the paths closer to the target.

Any normalised r keeps the weight exact; the best is the posterior of the latent given the *relaxed* end state.
"""

import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.special import logsumexp

from ..engine.optimisers import LBFGS
from ..engine.random_numbers import named_rng, named_seed
from ..engine.tasks import Workers
from ..errors import InputError, checked
from ..free_energy.weight_statistics import log_mean_weight
from ..generator.model import LiftingModel, with_encoder
from ..system.molecular_system import MolecularSystem
from ..units import FloatArray, IntArray
from .lifter import Lifter
from .lifts import Lifts, join_lifts
from .reverse_check import window_ids

MAX_PAIR_WEIGHT = 5.0
"""Weight of one pilot pair in the fit, in units of the mean, at most."""

EXPONENT_SCALES = (0.0, 1.0, 2.0, 4.0, 8.0)
EXPONENT_FLOORS = (0.0, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Candidates are a multiple of the likeliest exponents plus one exponent for all coordinates. Likelihood measures
how much the end depends on the latent; the floor keeps reverse paths from latents whose references lie far from the
target, although the end does not depend on them."""

MIXTURE_COMPONENTS = ((0.0, 0.0), (1.0, 0.03), (1.0, 0.3))
"""Scale and floor of the encoders whose mixture draws the latents of reverse paths, with which all candidates are
compared: prior, broad, narrow."""


@dataclass(frozen=True)
class EncoderFit:
    """The outcome of `fit_encoder`.

    Attributes:
        model: a new frozen model, with the fitted encoder if it was kept, else with r = p(z).
        kept: whether the fitted encoder gives less variance than r = p(z).
        efficiency_prior: ``mean(w) / E_pi[w]`` with r = p(z), from reverse relaxations of the pilot's ends.
        efficiency_fitted: the same with the best candidate.
        sd_prior: standard deviation of log w over the pilot lifts with r = p(z).
        sd_fitted: the same with the best exponents.
        information: held-out mean of log r - log p: mutual information of the end state and the latent, nats.
        force_evaluations: what the fit cost.
    """

    model: LiftingModel
    kept: bool
    efficiency_prior: float
    efficiency_fitted: float
    sd_prior: float
    sd_fitted: float
    information: float
    force_evaluations: int


def _relative_weights(pilot: Lifts) -> FloatArray:
    """Weights relative to the mean weight of each label, shape=(n,)."""
    windows, relative = window_ids(pilot), np.empty(len(pilot))
    for window in range(windows.max() + 1):
        members = windows == window
        log_weights = pilot.log_weights[members]
        relative[members] = np.exp(log_weights - log_mean_weight(log_weights))
    return relative


@dataclass(frozen=True)
class _Choices:
    """What the encoder chooses among at the real ends of lifts or reverse relaxations.

    Attributes:
        scores: shape=(n, n_candidates, n_coordinates), log-densities; zero for the label's coordinates.
        chosen: shape=(n,), the index in use.
    """

    scores: torch.Tensor
    chosen: torch.Tensor

    def log_ratios(self, exponents: torch.Tensor) -> torch.Tensor:
        """log r - log p with these exponents, shape=(n,)."""
        choice = torch.log_softmax(self.scores @ exponents, dim=1)
        return choice.gather(1, self.chosen.unsqueeze(1)).squeeze(1) + math.log(self.scores.shape[1])


def _free(model: LiftingModel) -> torch.Tensor:
    """Zero for the label coordinates, which the restraint draws and not the generator; one for the others."""
    free = np.ones(model.chart.n_coordinates)
    free[model.chart.label_indices] = 0.0
    return torch.as_tensor(free)


def _choices(model: LiftingModel, lifts: Lifts) -> _Choices:
    latents = torch.as_tensor(lifts.latents)
    coordinates = torch.as_tensor(model.chart.to_internal(lifts.positions))
    with torch.no_grad():
        scores = model.networks.log_densities(latents, coordinates, torch.as_tensor(lifts.labels))
    return _Choices(scores * _free(model), latents[:, -1].long())


def _fit_exponents(choices: _Choices, weights: FloatArray, penalty: float) -> tuple[torch.Tensor, float]:
    """Exponents of maximum likelihood on the pilot's pairs, and the held-out information in nats.

    A multinomial logistic regression of the index in use on the candidates' log-densities at the end: convex. The
    pairs carry their (truncated) weights, since the variance that matters is that of the target's paths.
    """
    importance, split = torch.as_tensor(weights.clip(max=MAX_PAIR_WEIGHT)), len(weights) // 4
    raw = torch.full((choices.scores.shape[2],), 0.1, dtype=torch.float64, requires_grad=True)

    def information(rows: slice) -> torch.Tensor:
        part = _Choices(choices.scores[rows], choices.chosen[rows])
        return (importance[rows] * part.log_ratios(raw.clamp(min=0.0))).sum() / importance[rows].sum()

    optimiser = LBFGS([raw], max_iter=60, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = penalty * (raw**2).sum() - information(slice(split, None))
        loss.backward()
        return loss

    optimiser.step(closure)
    with torch.no_grad():
        return raw.clamp(min=0.0).detach(), float(information(slice(split)))


def _resample(pilot: Lifts, n: int, rng: np.random.Generator) -> IntArray:
    """Indices of n lifts, the labels in turn, each drawn by weight among the lifts of its label."""
    windows = window_ids(pilot)
    chosen = []
    for i in range(n):
        members = np.flatnonzero(windows == i % (windows.max() + 1))
        weights = np.exp(pilot.log_weights[members] - pilot.log_weights[members].max())
        chosen.append(rng.choice(members, p=weights / weights.sum()))
    return np.array(chosen)


def _log_second_moment(log_terms: FloatArray, reverse: Lifts, pilot: Lifts) -> float:
    """log of E_pi[w] / mean(w), the mean over labels; terms of the reverse paths, weights of the pilot's lifts."""
    pilot_windows, windows = window_ids(pilot), window_ids(reverse)
    return float(
        np.mean(
            [
                log_mean_weight(log_terms[windows == i]) - log_mean_weight(pilot.log_weights[pilot_windows == i])
                for i in range(windows.max() + 1)
            ]
        )
    )


def _mixed(model: LiftingModel, likeliest: torch.Tensor, pairs: Iterable[tuple[float, float]]) -> list[torch.Tensor]:
    """The likeliest exponents times a scale, plus a floor, for each pair of these."""
    return [torch.clamp(scale * likeliest + floor, max=1.0) * _free(model) for scale, floor in pairs]


def _reweighted(pilot: Lifts, choices: _Choices, exponents: torch.Tensor) -> Lifts:
    """The pilot's lifts with the weights that they have with another encoder."""
    return replace(pilot, log_weights=pilot.log_weights + choices.log_ratios(exponents).numpy())


def _moments(
    prior: LiftingModel, candidates: list[torch.Tensor], components: list[torch.Tensor], reverse: Lifts, weighted: Lifts
) -> list[float]:
    """log of E_pi[w] / mean(w) of each candidate.

    With A the reverse weight without its r, E_pi[w] = E_pi[sum_z r(z)^2 A(z)]; every latent counts as drawn from the
    mixture of encoders.
    """
    back = _choices(prior, reverse)
    log_ratios = [back.log_ratios(component) for component in components]
    log_mixture = logsumexp(log_ratios, axis=0) - math.log(len(components))
    log_a = reverse.log_weights - (reverse.log_encoder - reverse.log_prior) - log_mixture
    return [
        _log_second_moment(log_a + 2.0 * back.log_ratios(candidate).numpy(), reverse, weighted)
        for candidate in candidates
    ]


class _Trial:
    """Lifters with candidate encoders."""

    def __init__(
        self,
        system: MolecularSystem,
        model: LiftingModel,
        relax_steps: int,
        n_candidates: int,
        platform: str,
        workers: Workers,
        progress: Callable[[], None] | None,
    ):
        if model.latent_size == 0:
            raise InputError(
                "the model has no latent, so there is no encoder to fit: train with `latent_size` of 1 or more"
            )
        self.system, self.model, self.relax_steps, self.n_candidates = system, model, relax_steps, n_candidates
        self.platform, self.workers, self.progress = platform, workers, progress
        self.prior = with_encoder(model, np.zeros(model.chart.n_coordinates), n_candidates, None)

    def lifter(self, exponents: torch.Tensor | None) -> Lifter:
        """With these exponents, or with r = p(z)."""
        model, steps = self.prior, self.relax_steps
        if exponents is not None:
            model = with_encoder(self.model, exponents.numpy(), self.n_candidates, steps)
        return Lifter(self.system, model, relax_steps=steps, platform=self.platform, workers=self.workers)

    def pilot(self, labels: FloatArray, seed: int) -> Lifts:
        """Lifts with r = p(z), of which enough have a weight."""
        lifts = self.lifter(None).lift(labels, seed=named_seed(seed, "encoder", "pilot"), progress=self.progress)
        if (n := int(lifts.ok.sum())) < 64:
            raise InputError(f"only {n} of {len(labels)} pilot lifts have a weight: raise `relax_steps`")
        return lifts

    def reverse(self, frames: Lifts, components: list[torch.Tensor], seed: int) -> Lifts:
        """Reverse relaxations of the same ends with latents of each encoder of the mixture."""
        return join_lifts(
            [
                self.lifter(component).reverse(
                    frames.positions,
                    frames.labels,
                    seed=named_seed(seed, "encoder", "reverse", i),
                    progress=self.progress,
                )
                for i, component in enumerate(components)
            ]
        )


@checked
def fit_encoder(
    system: MolecularSystem,
    model: LiftingModel,
    labels: FloatArray,
    *,
    relax_steps: int,
    seed: int,
    n_pilot: int = 1024,
    n_reverse: int = 768,
    n_candidates: int = 64,
    penalty: float = 1e-3,
    platform: str = "auto",
    workers: Workers = 1,
    progress: Callable[[], None] | None = None,
) -> EncoderFit:
    """Fit r on pairs (z, x_end) of pilot lifts at the step count in use.

    Likelihood suggests exponents, the variance decides: reverse relaxations from the pilot's ends measure E_pi[w] of
    every candidate, which includes the rare paths of large weight that forward lifts with r = p(z) do not sample.

    Args:
        system: the real system.
        model: with any encoder; the pilot is lifted with r = p(z).
        labels: shape=(n, d), few and spread out; the pilot goes through them in turn.
        relax_steps: the step count of the lifts to come.
        seed: of every random number.
        n_pilot: pilot lifts.
        n_reverse: reverse relaxations in all; a third with latents of each encoder of the mixture.
        n_candidates: draws of z that the encoder chooses among.
        penalty: on the squared exponents.
        platform: as for `Lifter`.
        workers: as for `Lifter`.
        progress: as for `Lifter.lift`.

    Raises:
        InputError: if the model has no latent, or too few pilot lifts survive.
    """
    trial = _Trial(system, model, relax_steps, n_candidates, platform, workers, progress)
    lifts = trial.pilot(labels[np.arange(n_pilot) % len(labels)], seed)
    pilot = lifts.select(lifts.ok)
    choices = _choices(trial.prior, pilot)
    likeliest, information = _fit_exponents(choices, _relative_weights(pilot), penalty)
    components = _mixed(model, likeliest, MIXTURE_COMPONENTS)
    candidates = _mixed(model, likeliest, itertools.product(EXPONENT_SCALES, EXPONENT_FLOORS))
    weighted = _reweighted(pilot, choices, components[1])
    frames = _resample(weighted, n_reverse // len(components), named_rng(seed, "encoder", "frames"))
    reverse = trial.reverse(pilot.select(frames), components, seed)
    moments = _moments(trial.prior, candidates, components, reverse, weighted)
    best = int(np.argmin(moments))  # the first candidate is the prior
    fitted = with_encoder(model, candidates[best].numpy(), n_candidates, relax_steps)
    return EncoderFit(
        model=fitted if best else with_encoder(model, np.zeros(model.chart.n_coordinates), 1, None),
        kept=best > 0,
        efficiency_prior=float(np.exp(-moments[0])),
        efficiency_fitted=float(np.exp(-moments[best])),
        sd_prior=float(pilot.log_weights.std()),
        sd_fitted=float(_reweighted(pilot, choices, candidates[best]).log_weights.std()),
        information=information,
        force_evaluations=lifts.force_evaluations + reverse.force_evaluations,
    )
