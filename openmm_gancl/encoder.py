"""Fit the encoder r(z | x, s) on relaxed pairs, and keep it only if it brings the paths closer to the target.

Any normalised r keeps the weight exact; the best is the posterior of the latent given the *relaxed* end state.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from .diagnostics import window_ids
from .errors import InputError
from .execution import task_seed
from .lift import Lifter
from .lifts import Lifts
from .model import LiftingModel, with_encoder
from .system import MolecularSystem
from .units import FloatArray, IntArray


@dataclass(frozen=True)
class EncoderFit:
    """The outcome of `fit_encoder`.

    Attributes:
        model: a new frozen model, with the fitted encoder if it was kept, else the one given.
        kept: whether the fitted encoder is better than r = p(z).
        divergence_prior: E_pi[log w] - log mean(w) of reverse relaxations with r = p(z): the Kullback-Leibler
            divergence of the target's paths from the lift's, up to the error of log mean(w).
        divergence_fitted: the same with the fitted encoder.
        sd_prior: standard deviation of log w over the pilot lifts with r = p(z).
        sd_fitted: the same with the fitted encoder.
        information: held-out mean of log r - log p: what the end state remembers of the latent, nats.
        force_evaluations: what the pilot cost.
    """

    model: LiftingModel
    kept: bool
    divergence_prior: float
    divergence_fitted: float
    sd_prior: float
    sd_fitted: float
    information: float
    force_evaluations: int


def _fit_exponents(model: LiftingModel, pilot: Lifts, penalty: float) -> tuple[FloatArray, float]:
    """Exponents of maximum likelihood on the pilot's pairs, and the held-out information in nats.

    A multinomial logistic regression of the index in use on the candidates' log-densities at the end: convex.
    """
    labels, latents = torch.as_tensor(pilot.labels), torch.as_tensor(pilot.latents)
    free = np.ones(model.chart.n_coordinates)
    free[model.chart.label_indices] = 0.0  # the restraint, not the generator, draws the label coordinates
    mask = torch.as_tensor(free)
    with torch.no_grad():
        coordinates = torch.as_tensor(model.chart.to_internal(pilot.positions))
        scores = model.networks.log_densities(latents, coordinates, labels) * mask
    chosen, split = latents[:, -1].long(), len(labels) // 4
    raw = torch.full((len(free),), 0.1, dtype=torch.float64, requires_grad=True)

    def log_choice(rows: slice) -> torch.Tensor:
        choice = torch.log_softmax(scores[rows] @ raw.clamp(min=0.0), dim=1)
        return choice.gather(1, chosen[rows].unsqueeze(1)).mean()

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


def _log_weights(model: LiftingModel, pilot: Lifts) -> FloatArray:
    """The pilot's log-weights with this model's encoder in place of r = p(z)."""
    coordinates = model.chart.to_internal(pilot.positions)
    return pilot.log_weights - pilot.log_encoder + model.log_encoder(pilot.latents, coordinates, pilot.labels)


def _resample(pilot: Lifts, log_weights: FloatArray, n: int, rng: np.random.Generator) -> IntArray:
    """Indices of n lifts, the labels in turn, each drawn by weight among the lifts of its label."""
    windows = window_ids(pilot)
    chosen = []
    for i in range(n):
        members = np.flatnonzero(windows == i % (windows.max() + 1))
        weights = np.exp(log_weights[members] - log_weights[members].max())
        chosen.append(rng.choice(members, p=weights / weights.sum()))
    return np.array(chosen)


def fit_encoder(
    system: MolecularSystem,
    model: LiftingModel,
    labels: FloatArray,
    *,
    relax_steps: int,
    seed: int,
    n_pilot: int = 1024,
    n_reverse: int = 192,
    n_candidates: int = 64,
    penalty: float = 1e-3,
    platform: str = "auto",
    workers: int = 1,
    progress: Callable[[], None] | None = None,
) -> EncoderFit:
    """Fit r on pairs (z, x_end) of pilot lifts at the step count in use.

    Whether the fitted encoder is kept is decided by reverse relaxations from the pilot's ends, which see modes
    that the forward weights with r = p(z) cannot show.

    Args:
        system: the real system.
        model: with any encoder; the pilot is lifted with r = p(z).
        labels: shape=(n, d), few and spread out; the pilot goes through them in turn.
        relax_steps: the step count of the lifts to come.
        seed: of every random number.
        n_pilot: pilot lifts.
        n_reverse: reverse relaxations with each encoder.
        n_candidates: draws of z that the encoder chooses among.
        penalty: on the squared exponents.
        platform: as for `Lifter`.
        workers: as for `Lifter`.
        progress: as for `Lifter.lift`.

    Raises:
        InputError: if the model has no latent, or too few pilot lifts survive.
    """
    if model.latent_size == 0:
        raise InputError(
            "the model has no latent, so there is no encoder to fit: train with --latent 1 or more"
        )
    options = {"relax_steps": relax_steps, "platform": platform, "workers": workers}
    none = np.zeros(model.chart.n_coordinates)
    prior = with_encoder(model, none, n_candidates, None)
    lifter = Lifter(system, prior, **options)
    repeated = labels[np.arange(n_pilot) % len(labels)]
    lifts = lifter.lift(repeated, seed=seed, progress=progress)
    pilot = lifts.select(lifts.ok)
    if len(pilot) < 64:
        raise InputError(f"only {len(pilot)} of {n_pilot} pilot lifts have a weight: raise relax_steps")
    exponents, information = _fit_exponents(prior, pilot, penalty)
    fitted = with_encoder(model, exponents, n_candidates, relax_steps)
    log_weights = _log_weights(fitted, pilot)
    frames = _resample(pilot, log_weights, n_reverse, task_seed(seed, 2))
    divergences, cost = [], lifts.force_evaluations
    for candidate in (prior, fitted):
        reverse = Lifter(system, candidate, **options).reverse(
            pilot.positions[frames], pilot.labels[frames], seed=seed, progress=progress
        )
        cost += reverse.force_evaluations
        divergences.append(_divergence(pilot, log_weights, reverse))
    kept = divergences[1] < divergences[0]
    return EncoderFit(
        model=fitted if kept else with_encoder(model, none, 1, None),
        kept=kept,
        divergence_prior=divergences[0],
        divergence_fitted=divergences[1],
        sd_prior=float(pilot.log_weights.std()),
        sd_fitted=float(log_weights.std()),
        information=information,
        force_evaluations=cost,
    )


def _divergence(pilot: Lifts, log_weights: FloatArray, reverse: Lifts) -> float:
    """Mean over labels of E_pi[log w] - log mean(w); infinite weights of failed paths are left out."""
    windows, reverse_windows = window_ids(pilot), window_ids(reverse)
    terms = []
    for label in np.unique(reverse_windows):
        back = reverse.log_weights[(reverse_windows == label) & reverse.ok]
        ours = log_weights[windows == label]
        if len(back):
            terms.append(back.mean() - np.logaddexp.reduce(ours) + np.log(len(ours)))
    return float(np.mean(terms)) if terms else float("inf")
