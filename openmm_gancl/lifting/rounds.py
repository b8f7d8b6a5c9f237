"""Rounds of the closed loop: what each drew and was worth, its files, and how rounds are joined."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..coordinates.slow_coordinates import SlowCoordinates
from ..free_energy.label_functions import LabelFunctions
from ..units import BoolArray, FloatArray
from .draws import Draws, load_draws, save_draws
from .label_regression import LabelRegression, fit_label_regression
from .placement import Placement, placement_of_arrays
from .wide_densities import WideRegressions, functions_over

ROUND_SHARES = (0.1, 0.3, 0.6, 1.0)
"""How much a draw of each round counts in the surface; later rounds like the last."""


@dataclass(frozen=True)
class Round:
    """One round of the loop.

    Attributes:
        force_evaluations: of the real potential, of all rounds so far and the windows.
        effective_fraction: effective draws to a draw of this round, of weights over their local mean.
        mean_ratio: of these ratios: one, but for chance, where the surface of all rounds fits this one.
        median_error: of the surface, kJ/mol; infinity where no bin is known yet.
        moves: of each draw's base numbers.
    """

    force_evaluations: int
    effective_fraction: float
    mean_ratio: float
    median_error: float
    moves: int = 0


@dataclass(frozen=True)
class RoundOfDraws:
    """What a round drew, and the regression of all draws up to it.

    Attributes:
        draws: of this round alone.
        regression: of the weights and mean forces of all rounds so far.
        placement: what the round's labels were drawn from.
        pilot_evaluations: of the choice of moves.
        wide_regressions: over labels and wide torsions, where there are any.
    """

    draws: Draws
    regression: LabelRegression
    placement: Placement
    pilot_evaluations: int = 0
    wide_regressions: WideRegressions | None = None


def save_round(found: RoundOfDraws, folder: Path) -> None:
    """Write ``lifts.npz``, ``regression.npz`` and ``placement.npz``."""
    save_draws(found.draws, folder / "lifts.npz")
    wide = found.wide_regressions.regressions if found.wide_regressions else ()
    arrays = {f"{i}.{name}": part for i, one in enumerate((found.regression, *wide)) for name, part in one.arrays()}
    np.savez(folder / "regression.npz", pilot_evaluations=found.pilot_evaluations, **arrays)
    np.savez(folder / "placement.npz", **found.placement.arrays())  # type: ignore[arg-type]


def load_round(folder: Path, slow: SlowCoordinates) -> RoundOfDraws:
    """Read what `save_round` wrote, over the same labels."""
    with np.load(folder / "regression.npz", allow_pickle=False) as stored:
        parts: dict[int, dict[str, Any]] = defaultdict(dict)
        pilot_evaluations = int(stored["pilot_evaluations"])
        for name, part in stored.items():
            number, _, of_fit = name.partition(".")
            if of_fit:
                parts[int(number)][of_fit] = part
    regression = LabelRegression.of_arrays(LabelFunctions(slow), parts[0])
    wide = [LabelRegression.of_arrays(functions_over(slow, i), part) for i, part in list(parts.items())[1:]]
    with np.load(folder / "placement.npz", allow_pickle=False) as arrays:
        placement = placement_of_arrays(dict(arrays))
    of_wide = WideRegressions(tuple(wide)) if wide else None
    return RoundOfDraws(load_draws(folder / "lifts.npz"), regression, placement, pilot_evaluations, of_wide)


def round_shares(draws: Draws) -> FloatArray:
    """How much each draw counts in the surface, by its round alone, shape=(n,)."""
    return np.array(ROUND_SHARES)[np.minimum(draws.round, len(ROUND_SHARES) - 1)]


def pooled_log_weights(draws: Draws) -> FloatArray:
    """Log-weights to the equilibrium without restraint of all rounds, the labels' densities included, shape=(n,).

    The mean of each round is unbiased; rounds are averaged by their shares, fixed beforehand, times their sizes.
    """
    return draws.log_weights - draws.log_label_density + np.log(round_shares(draws))


def was_relaxed(draws: Draws) -> BoolArray:
    """Which draws moved, shape=(n,): those that cost more than one evaluation."""
    return np.asarray(draws.evaluations > 1)


def regression_of(
    slow: SlowCoordinates, draws: Draws, slopes: FloatArray, start: LabelRegression | None
) -> LabelRegression:
    """Of all draws' weights and mean forces, each round with its share."""
    of_labels, shares = slopes[:, : len(slow.names)], round_shares(draws)
    return fit_label_regression(slow, draws.labels, draws.log_weights, of_labels, shares, start=start)
