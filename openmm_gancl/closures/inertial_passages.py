"""Passages of a reduced model with inertia: reactive trajectories through all surfaces of equal committor at once.

Where a velocity is remembered as long as it takes to cross a barrier, and where a well does not stop what has crossed,
passages are rarer than in the limit of high friction. With ``q`` the committor of that limit, as a coordinate, and
``q+(s, v)`` the probability to reach the second region before the first from a place with a velocity,

    passages in unit time = int ds exp(-F) w(q) <v . grad q  q+(s, v)> / int ds exp(-F)

for every w of integral one: the net flux of reactive trajectories through each surface is the same, and what came from
the second region is, by time reversal, what goes there with the opposite velocity (Vanden-Eijnden 2006, Transition path
theory, doi 10.1007/3-540-35273-2_13). Places are drawn, run with both signs of a velocity and the same noise, and
stopped at a region.
"""

from dataclasses import dataclass, replace

import numpy as np

from ..engine.random_numbers import named_rng
from ..errors import InputError, checked
from ..free_energy.grid import bin_centres
from ..units import BoolArray, FloatArray, whole_number
from .backward_equation import Region, committor
from .inertial_model import InertialModel, longest_step
from .reduced_model import FINE_CELLS

N_PAIRS = 20_000
"""Runs forth and back."""

MOST_MOVES = 60_000_000
"""Steps of all runs together, after which those that are in no region end."""

MOST_BETWEEN = 0.05
"""Share of runs that may end before they are in a region; theirs is the committor there."""

MOST_ERROR = 0.25
"""Of a passage time: of few pairs, fewer yet go from one region to the other."""


@dataclass(frozen=True)
class InertialPassages:
    """Mean passage times of a model with inertia.

    Attributes:
        mean: shape=(2,), ps, from entering one region to reaching the other, there and back.
        error: shape=(2,), one sigma.
        between: share of runs that ended in neither region, of which the limit of high friction decides.
    """

    mean: FloatArray
    error: FloatArray
    between: float

    def doubts(self) -> list[str]:
        """Sentences, why they are not to be trusted."""
        doubts = []
        if self.between > MOST_BETWEEN:
            doubts.append(
                f"of runs between two regions {self.between:.0%} reached neither, more than {MOST_BETWEEN:.0%}: "
                "another region holds them, so give larger ones, or these two no passage time"
            )
        if (self.error > MOST_ERROR * self.mean).any():
            doubts.append(
                f"passage times of the model with inertia have errors of {(self.error / self.mean).max():.0%}: give "
                "more pairs of runs"
            )
        return doubts


@checked
def inertial_passage_times(
    model: InertialModel,
    first: Region,
    second: Region,
    *,
    n_pairs: int = N_PAIRS,
    time_step: float | None = None,
    seed: int = 0,
) -> InertialPassages:
    """Mean times from entering one region to reaching the other, there and back; see the module's text.

    The populations of both sides are those of the limit of high friction, which differs where nothing stays.

    Args:
        model: the model.
        first: a basin, or a mask of cells.
        second: another, which does not touch it.
        n_pairs: of runs; the error falls as the root of their number.
        time_step: ps; by default a fraction of the fastest oscillation.
        seed: the same seed gives the same numbers.

    Raises:
        InputError: a region holds no cell, or they overlap or touch.
    """
    over, rng = model.overdamped, named_rng(seed, "inertial passages")
    n_pairs = whole_number("n_pairs", n_pairs, 2)
    time_step = longest_step(over, model.velocity_covariance) if time_step is None else time_step
    q = committor(over, first, second)
    places, slopes, mass = _drawn_between(model, q, n_pairs, rng)
    v = rng.standard_normal(places.shape) @ np.linalg.cholesky(model.velocity_covariance).T
    ends, between = _reached(model, q, places, v, time_step, rng)
    terms = 0.5 * mass * (slopes * v).sum(axis=1) * (ends[0] - ends[1])
    rate, error = float(terms.mean()), float(terms.std(ddof=1) / np.sqrt(n_pairs))
    if not rate > 0:
        raise InputError("no run from between two regions got from one to the other: give more pairs")
    shares = over.density * over.spacings.prod()
    stays = np.array([np.nansum(shares * (1 - q)), np.nansum(shares * q)])
    return InertialPassages(stays / rate, stays / rate * error / rate, between)


def _drawn_between(
    model: InertialModel, q: FloatArray, n: int, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Places and slopes of q there, shape=(n, d) each, and what each counts, shape=(n,): of all surfaces alike."""
    connected = np.isfinite(q)
    over = replace(model.overdamped, energy=np.where(connected, model.overdamped.energy, np.inf))
    n_fine, widths = FINE_CELLS[len(over.names)], 1 / model.fine_units[1]
    fine = bin_centres(tuple(np.linspace(axis[0], axis[-1], n_fine + 1) for axis in over.edges))
    filled = over._at_known(np.where(connected, q, 0.0))
    slopes = over.interpolated(np.stack([over._slope(filled, axis) for axis in range(len(over.names))], axis=-1), fine)
    density = np.exp(-over.interpolated(over._at_known(over.energy), fine) + over.energy.min())
    density *= connected.ravel()[over.cells_of(fine)]
    chances = density * np.sqrt(np.einsum("ni,ij,nj->n", slopes, model.velocity_covariance, slopes))
    chances /= chances.sum()
    drawn = rng.choice(len(fine), n, p=chances)
    mass = density[drawn] / density.sum() / chances[drawn]
    return fine[drawn] + (rng.random((n, len(widths))) - 0.5) * widths, slopes[drawn], mass


def _reached(
    model: InertialModel, q: FloatArray, places: FloatArray, v: FloatArray, time_step: float, rng: np.random.Generator
) -> tuple[FloatArray, float]:
    """One if a run reaches the second region first, zero for the first, shape=(2, n); and the share that reaches none.

    With velocities and with their opposites.
    """
    low, scale = model.fine_units
    cells, values, d = model.overdamped.cells_of, q.ravel(), places.shape[1]
    found, left = np.tile(values[cells(places)], (2, 1)), np.arange(len(places))
    advance = model.stepper(time_step, lambda shape: np.tile(rng.standard_normal((2, shape[1] // 2, d)), (1, 2, 1)))
    at, v = np.tile((places - low) * scale, (2, 1)), np.concatenate([v, -v])
    moves = 0
    while len(left) and moves < MOST_MOVES:
        at, v = advance(at, v)
        moves += len(at)
        before = found[:, left]
        now = np.where(_between(before), values[cells(low + at / scale)].reshape(2, -1), before)
        found[:, left] = now
        going = _between(now).any(axis=0)
        left, at, v = left[going], at[np.tile(going, 2)], v[np.tile(going, 2)]
    return found, float(_between(found).mean())


def _between(q: FloatArray) -> BoolArray:
    """Where neither region has been reached."""
    return np.asarray((q > 0) & (q < 1))
