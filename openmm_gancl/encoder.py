"""Fit the encoder r(z | x, s) on relaxed pairs, and keep it only if it brings the paths closer to the target.

Any normalised r keeps the weight exact; the best is the posterior of the latent given the *relaxed* end state.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from .diagnostics import log_mean_weight, window_ids
from .errors import InputError
from .execution import task_seed
from .lift import Lifter
from .lifts import Lifts
from .model import LiftingModel, with_encoder
from .system import MolecularSystem
from .units import FloatArray, IntArray

LARGEST_PAIR_WEIGHT = 5.0
"""Weight of one pilot pair in the fit, in units of the mean, at most."""

SCALES = (1.0, 2.0, 4.0, 8.0)
"""Multiples of the likeliest exponents that compete with the prior."""


@dataclass(frozen=True)
class EncoderFit:
    """The outcome of `fit_encoder`.

    Attributes:
        model: a new frozen model, with the fitted encoder if it was kept, else with r = p(z).
        kept: whether the fitted encoder gives less variance than r = p(z).
        efficiency_prior: ``mean(w) / E_pi[w]`` with r = p(z), from reverse relaxations of the pilot's ends.
        efficiency_fitted: the same with the best exponents.
        sd_prior: standard deviation of log w over the pilot lifts with r = p(z).
        sd_fitted: the same with the best exponents.
        information: held-out mean of log r - log p: what the end state remembers of the latent, nats.
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


def _fit_exponents(model: LiftingModel, pilot: Lifts, penalty: float) -> tuple[FloatArray, float]:
    """Exponents of maximum likelihood on the pilot's pairs, and the held-out information in nats.

    A multinomial logistic regression of the index in use on the candidates' log-densities at the end: convex. The
    pairs carry their (truncated) weights, since the variance that matters is that of the target's paths.
    """
    labels, latents = torch.as_tensor(pilot.labels), torch.as_tensor(pilot.latents)
    free = np.ones(model.chart.n_coordinates)
    free[model.chart.label_indices] = 0.0  # the restraint, not the generator, draws the label coordinates
    mask = torch.as_tensor(free)
    with torch.no_grad():
        coordinates = torch.as_tensor(model.chart.to_internal(pilot.positions))
        scores = model.networks.log_densities(latents, coordinates, labels) * mask
        weights = torch.as_tensor(_relative_weights(pilot).clip(max=LARGEST_PAIR_WEIGHT))
    chosen, split = latents[:, -1].long(), len(labels) // 4
    raw = torch.full((len(free),), 0.1, dtype=torch.float64, requires_grad=True)

    def log_choice(rows: slice) -> torch.Tensor:
        choice = torch.log_softmax(scores[rows] @ raw.clamp(min=0.0), dim=1)
        picked = choice.gather(1, chosen[rows].unsqueeze(1)).squeeze(1)
        return (weights[rows] * picked).sum() / weights[rows].sum()

    optimiser = torch.optim.LBFGS([raw], max_iter=60, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = penalty * (raw**2).sum() - log_choice(slice(split, None))
        loss.backward()
        return loss

    optimiser.step(closure)
    with torch.no_grad():
        information = float(log_choice(slice(split)) + np.log(scores.shape[1]))
    return (raw.clamp(min=0.0) * mask).detach().numpy(), information


def _log_encoder(model: LiftingModel, lifts: Lifts) -> FloatArray:
    """log r of lifts already made, had they been made with this model; shape=(n,)."""
    return model.log_encoder(lifts.latents, model.chart.to_internal(lifts.positions), lifts.labels)


def _resample(pilot: Lifts, log_weights: FloatArray, n: int, rng: np.random.Generator) -> IntArray:
    """Indices of n lifts, the labels in turn, each drawn by weight among the lifts of its label."""
    windows = window_ids(pilot)
    chosen = []
    for i in range(n):
        members = np.flatnonzero(windows == i % (windows.max() + 1))
        weights = np.exp(log_weights[members] - log_weights[members].max())
        chosen.append(rng.choice(members, p=weights / weights.sum()))
    return np.array(chosen)


def _log_second_moment(pilot: Lifts, reverse: Lifts, log_encoder: FloatArray) -> float:
    """log of E_pi[w] / mean(w) with another encoder than the one that the reverse relaxations drew from.

    Their latents are reweighted from the encoder that drew them; mean over labels of logarithms.
    """
    terms = reverse.log_weights + 2.0 * (log_encoder - reverse.log_encoder)
    pilot_windows, windows = window_ids(pilot), window_ids(reverse)
    return float(
        np.mean(
            [
                log_mean_weight(terms[windows == i]) - log_mean_weight(pilot.log_weights[pilot_windows == i])
                for i in range(windows.max() + 1)
            ]
        )
    )


def fit_encoder(
    system: MolecularSystem,
    model: LiftingModel,
    labels: FloatArray,
    *,
    relax_steps: int,
    seed: int,
    n_pilot: int = 1024,
    n_reverse: int = 384,
    n_candidates: int = 64,
    penalty: float = 1e-3,
    platform: str = "auto",
    workers: int = 1,
    progress: Callable[[], None] | None = None,
) -> EncoderFit:
    """Fit r on pairs (z, x_end) of pilot lifts at the step count in use.

    Likelihood gives the direction of the exponents, the variance their size: reverse relaxations from the pilot's
    ends measure E_pi[w], which sees the rare, heavy paths that forward lifts with r = p(z) do not show.

    Args:
        system: the real system.
        model: with any encoder; the pilot is lifted with r = p(z).
        labels: shape=(n, d), few and spread out; the pilot goes through them in turn.
        relax_steps: the step count of the lifts to come.
        seed: of every random number.
        n_pilot: pilot lifts.
        n_reverse: reverse relaxations with r = p(z), and as many with the likeliest exponents.
        n_candidates: draws of z that the encoder chooses among.
        penalty: on the squared exponents.
        platform: as for `Lifter`.
        workers: as for `Lifter`.
        progress: as for `Lifter.lift`.

    Raises:
        InputError: if the model has no latent, or too few pilot lifts survive.
    """
    if model.latent_size == 0:
        raise InputError("the model has no latent, so there is no encoder to fit: train with --latent 1 or more")
    none = np.zeros(model.chart.n_coordinates)
    prior = with_encoder(model, none, n_candidates, None)

    def lifter(candidate: LiftingModel) -> Lifter:
        return Lifter(system, candidate, relax_steps=relax_steps, platform=platform, workers=workers)

    lifts = lifter(prior).lift(labels[np.arange(n_pilot) % len(labels)], seed=seed, progress=progress)
    pilot = lifts.select(lifts.ok)
    if len(pilot) < 64:
        raise InputError(f"only {len(pilot)} of {n_pilot} pilot lifts have a weight: raise relax_steps")
    exponents, information = _fit_exponents(prior, pilot, penalty)
    candidates = [
        with_encoder(model, np.minimum(scale * exponents, 1.0), n_candidates, relax_steps) for scale in SCALES
    ]
    log_weights = pilot.log_weights + _log_encoder(candidates[0], pilot) - pilot.log_encoder
    frames = _resample(pilot, log_weights, n_reverse, task_seed(seed, 2))
    back = [
        lifter(candidate).reverse(pilot.positions[frames], pilot.labels[frames], seed=seed, progress=progress)
        for candidate in (prior, candidates[0])
    ]
    # a narrower encoder may be judged by the latents of a wider one, not the other way round
    moment_prior = _log_second_moment(pilot, back[0], back[0].log_encoder)
    moments = [_log_second_moment(pilot, back[1], _log_encoder(candidate, back[1])) for candidate in candidates]
    best = int(np.argmin(moments))
    kept = moments[best] < moment_prior
    fitted_weights = pilot.log_weights + _log_encoder(candidates[best], pilot) - pilot.log_encoder
    return EncoderFit(
        model=candidates[best] if kept else with_encoder(model, none, 1, None),
        kept=kept,
        efficiency_prior=float(np.exp(-moment_prior)),
        efficiency_fitted=float(np.exp(-moments[best])),
        sd_prior=float(pilot.log_weights.std()),
        sd_fitted=float(fitted_weights.std()),
        information=information,
        force_evaluations=sum(paths.force_evaluations for paths in (lifts, *back)),
    )
