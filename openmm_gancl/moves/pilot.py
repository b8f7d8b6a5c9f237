"""Which moves of an invertible generator carry a chain farthest for an evaluation, measured before any chain begins.

By expected squared displacements of labels (Pasarica & Gelman 2010, doi 10.5705/ss.2010.202a), in parts of the labels'
domain. What is chosen is fixed then: a choice that goes on while a chain runs is not exact.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy.special import logsumexp

from ..coordinates.geometry import wrap
from ..coordinates.slow_coordinates import SlowCoordinates
from ..errors import InputError
from ..units import FloatArray
from .inverted import INDEPENDENT, LOCAL, Independent, InvertedChart, Local, Placed

N_DRAWS, N_STARTS = 256, 64
"""Independent draws, and places that every kind of local step starts from."""

LABEL_STEPS, BASE_STEPS = (0.02, 0.08, 0.3), (0.1, 0.35, 1.0)
"""Steps of local moves that are tried."""

EVALUATIONS_OF_AN_ATTEMPT = 2
"""Of the configurations before and after."""


@dataclass(frozen=True)
class MovePilot:
    """What a pilot measured.

    Attributes:
        displacements: of each kind of move, expected squared displacement of the labels an evaluation, in squared parts
            of their domain.
        label_step: of the best local move.
        base_step: of it.
        force_evaluations: that the pilot cost.
    """

    displacements: dict[str, float]
    label_step: float
    base_step: float
    force_evaluations: int

    @property
    def best(self) -> str:
        """The kind of move with the largest displacement."""
        return max(self.displacements, key=lambda name: self.displacements[name])

    def describe(self) -> str:
        """For people."""
        measured = ", ".join(f"{name} {value:.2g}" for name, value in self.displacements.items())
        return (
            f"squared label displacement an evaluation, in parts of the domain: {measured} (steps {self.label_step:g} "
            f"in labels, {self.base_step:g} in base numbers); a pilot of {self.force_evaluations} evaluations"
        )


def run_pilot(chart: InvertedChart, independent: Independent, rng: np.random.Generator) -> MovePilot:
    """Measure independent draws, and local moves of several steps from draws by their weights.

    Args:
        chart: labels and base numbers of configurations.
        independent: draws.
        rng: of the pilot.

    Raises:
        InputError: no draw has a weight.
    """
    slow = chart.system.slow
    draws = chart.place(*independent.propose(np.empty((N_DRAWS, 0)), np.empty((N_DRAWS, 0)), rng))
    log_r, cost = _log_r(chart, draws)
    log_w = log_r - independent.log_label_density(draws.labels)
    if not np.isfinite(log_w).any():
        raise InputError(
            f"none of {N_DRAWS} draws of the model has a weight: train it for this System, or give moves='independent'"
        )
    weights = np.exp(log_w - logsumexp(log_w))
    squares = _squares(slow, draws.labels[:, None], draws.labels[None])
    found = {INDEPENDENT: float((np.minimum(weights[:, None], weights) * squares).sum() / N_DRAWS)}

    starts = rng.choice(N_DRAWS, N_STARTS, p=weights)
    here, best = draws.select(starts), (-1.0, LABEL_STEPS[0], BASE_STEPS[0])
    for label_step, base_step in product(LABEL_STEPS, BASE_STEPS):
        there = chart.place(*Local(chart.generator, label_step, base_step).propose(here.base, here.labels, rng))
        log_there, each = _log_r(chart, there)
        cost += each
        accepted = np.exp(np.minimum(log_there - log_r[starts], 0.0))
        moved = float((accepted * _squares(slow, here.labels, there.labels)).mean())
        best = max(best, (moved, label_step, base_step))
    found[LOCAL] = best[0]
    each_evaluation = {name: value / EVALUATIONS_OF_AN_ATTEMPT for name, value in found.items()}
    return MovePilot(each_evaluation, best[1], best[2], cost)


def _squares(slow: SlowCoordinates, some: FloatArray, others: FloatArray) -> FloatArray:
    """Squared distances of labels in parts of their domain."""
    return np.asarray((np.square(wrap(some - others, slow.periods) / np.ptp(slow.domain, axis=1))).sum(axis=-1))


def _log_r(chart: InvertedChart, placed: Placed) -> tuple[FloatArray, int]:
    """r of each, minus infinity where it has none, and what that cost."""
    usable = placed.reason == "ok"
    found = chart.log_r(placed, placed.positions, usable)
    return np.where(usable, found, -np.inf), int(usable.sum())
