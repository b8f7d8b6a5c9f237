"""Lifts relaxed in the generator's base numbers: annealed importance sampling at fixed labels.

With ``r = log target - log q`` of a draw ``y = T(eps; s)``, base numbers go from their own distribution to
``base(eps) exp(r)`` over ``l_0 = 0 < ... < l_(K+1) = 1``: ``log w = sum_k (l_(k+1) - l_k) r(eps_k)``, and eps_(k+1)
comes from eps_k by a move that leaves ``base exp(l_(k+1) r)`` invariant (Neal 2001, doi 10.1023/A:1008923215028).
Normal numbers move by preconditioned Crank-Nicolson steps (Cotter et al. 2013, doi 10.1214/13-STS421), uniform ones
by symmetric steps around the circle; both hold the base distribution, so that r alone decides. ``mean(w)`` is exact
at any number of moves and any step, for K + 1 evaluations a lift.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

import numpy as np
from scipy.special import logsumexp

from ..engine.tasks import Workers
from ..errors import checked
from ..free_energy.weight_statistics import effective_sample_size
from ..generator.invertible import InvertibleGenerator
from ..system.molecular_system import MolecularSystem
from ..units import BoolArray, FloatArray
from .draws import Draws, draw_base, weigh_coordinates, weigh_draws

STEPS = (0.05, 0.1, 0.2, 0.35, 0.5, 0.7)
"""Step sizes that a pilot chooses from."""

PILOT = 100
"""Lifts of a pilot of steps."""

MOVES = (5, 15)
"""Numbers of moves that a pilot chooses from, besides none."""

PILOT_LABELS, PILOT_EVALUATIONS = 4, 1280
"""Labels, and evaluations of each number of moves, by which they are compared."""

CLEARLY_BETTER = 1.2
"""Times as many effective lifts an evaluation as without moves."""

TURN = 0.3
"""Standard deviation of a uniform number's step, in turns, at a step size of one."""


@dataclass(frozen=True)
class LatentMoves:
    """Moves of base numbers.

    Args:
        n: moves of each lift.
        step: of the Crank-Nicolson steps, between 0 and 1.
    """

    n: int
    step: float

    def propose(self, base: FloatArray, n_circular: int, rng: np.random.Generator) -> FloatArray:
        """New base numbers, by a step that leaves their distribution as it is, shape=(n, n_base)."""
        moved = np.sqrt(1.0 - self.step**2) * base + self.step * rng.standard_normal(base.shape)
        turns = TURN * self.step * rng.standard_normal((len(base), n_circular))
        moved[:, :n_circular] = (base[:, :n_circular] + turns) % 1.0
        return moved

    def fractions(self) -> FloatArray:
        """l_0, ..., l_(n+1)."""
        return np.linspace(0.0, 1.0, self.n + 2)


@checked
def lift_latent(
    system: MolecularSystem,
    generator: InvertibleGenerator,
    labels: FloatArray,
    rng: np.random.Generator,
    moves: LatentMoves,
    *,
    platform: str = "Reference",
    workers: Workers = 1,
    progress: Callable[[int], None] | None = None,
) -> Draws:
    """Draw once at each label, relax in base numbers, and weigh.

    Args:
        system: the real system.
        generator: whose base numbers move.
        labels: shape=(n, d).
        rng: of all that is drawn.
        moves: how many, and how far; a step chosen by a pilot, never by these lifts.
        platform: an OpenMM platform.
        workers: local processes, or an executor.
        progress: called with the number of evaluations made, as they are made.
    """
    evaluated = partial(draw_base, system, generator, platform=platform, workers=workers, progress=progress)
    base = generator.sample_base(len(labels), rng)
    current = evaluated(base, labels)
    alive = current.reason == "ok"
    fractions = moves.fractions()
    log_weights = np.where(alive, fractions[1] * np.where(alive, current.log_weights, 0.0), -np.inf)
    evaluations = current.evaluations.copy()
    rows = np.flatnonzero(alive)
    for fraction, following in pairwise(fractions[1:]):
        tried = moves.propose(base[rows], generator.map.n_circular, rng)
        proposed = evaluated(tried, labels[rows])
        evaluations[rows] += proposed.evaluations
        taken = _accepted(current.log_weights[rows], proposed.log_weights, fraction, rng)
        base[rows[taken]] = tried[taken]
        current = current.put(rows[taken], proposed.select(taken))
        log_weights[rows] += (following - fraction) * current.log_weights[rows]
    return weigh_draws(replace(current, evaluations=evaluations), log_weights)


def relax_back(
    system: MolecularSystem,
    generator: InvertibleGenerator,
    coordinates: FloatArray,
    rng: np.random.Generator,
    moves: LatentMoves,
    *,
    platform: str = "Reference",
    workers: Workers = 1,
    progress: Callable[[int], None] | None = None,
) -> Draws:
    """The way back of `lift_latent`, from real frames: ``E[1/w]`` at a label is ``P(w > 0) / E[w]`` of lifts there.

    The frames' moves come in the opposite order, each leaves the same distribution invariant, and the sum is the same.

    Args:
        system: the real system.
        generator: whose base numbers move.
        coordinates: shape=(n, n_coordinates), of equilibrium frames at their own labels.
        rng: of all that is drawn.
        moves: those of the lifts.
        platform: an OpenMM platform.
        workers: local processes, or an executor.
        progress: called with the number of evaluations made, as they are made.
    """
    labels = coordinates[:, generator.chart.label_indices]
    base, log_density = generator.invert(coordinates)
    evaluated = partial(draw_base, system, generator, platform=platform, workers=workers, progress=progress)
    everywhere = np.ones(len(labels), dtype=bool)
    found = weigh_coordinates(
        system,
        generator.chart,
        coordinates,
        labels,
        log_density,
        everywhere,
        platform=platform,
        workers=workers,
        progress=progress,
    )
    here, current = found, found.log_weights.copy()
    evaluations = found.evaluations.copy()
    rows = np.flatnonzero(found.reason == "ok")
    fractions = moves.fractions()
    log_weights = np.where(np.isfinite(current), (fractions[-1] - fractions[-2]) * current, -np.inf)
    for before, fraction in reversed(list(pairwise(fractions[:-1]))):
        tried = moves.propose(base[rows], generator.map.n_circular, rng)
        proposed = evaluated(tried, labels[rows])
        evaluations[rows] += proposed.evaluations
        taken = _accepted(current[rows], proposed.log_weights, fraction, rng)
        base[rows[taken]] = tried[taken]
        current[rows[taken]] = proposed.log_weights[taken]
        log_weights[rows] += (fraction - before) * current[rows]
    return weigh_draws(replace(here, evaluations=evaluations), log_weights)


def choose_moves(
    system: MolecularSystem,
    generator: InvertibleGenerator,
    labels: FloatArray,
    rng: np.random.Generator,
    *,
    platform: str = "Reference",
) -> tuple[LatentMoves, int]:
    """How many moves give the most effective lifts an evaluation, none among them, and what the pilot cost.

    Each number of moves has lifts of its own at a few labels, as many as cost the same. Few draws look far better than
    they are where their weights are uneven, for the heaviest are not among them. So draws without moves are judged at
    the ends of the longest paths: of weight r there, their effective fraction is ``Z / E[exp(r)]``.

    Args:
        system: the real system.
        generator: whose base numbers move.
        labels: shape=(n, d), to choose from.
        rng: of the pilot.
        platform: an OpenMM platform.
    """
    step, cost = choose_step(system, generator, labels, rng, platform=platform)
    chosen, found = labels[rng.integers(0, len(labels), PILOT_LABELS)], {}
    for n in MOVES:
        n_lifts = PILOT_EVALUATIONS // (PILOT_LABELS * (n + 1))
        repeated = np.repeat(chosen, n_lifts, axis=0)
        lifts = lift_latent(system, generator, repeated, rng, LatentMoves(n, step), platform=platform)
        cost += lifts.force_evaluations
        parts = [lifts.select(slice(i, i + n_lifts)) for i in range(0, len(lifts), n_lifts)]
        found[n] = sum(effective_sample_size(part.log_weights) for part in parts) / PILOT_EVALUATIONS
    # parts are those of the longest paths now
    without = float(np.exp(np.mean([_log_fraction_without_moves(generator, part) for part in parts])))
    best = max(found, key=lambda n: found[n])
    return LatentMoves(best if found[best] > CLEARLY_BETTER * without else 0, step), cost


def _log_fraction_without_moves(generator: InvertibleGenerator, lifts: Draws) -> float:
    """Log of effective samples a draw, from relaxed lifts at one label; at most zero."""
    ok = np.isfinite(lifts.log_weights)
    if not ok.any():
        return -np.inf
    log_paths = lifts.log_weights[ok]
    log_draws = lifts.log_target[ok] - generator.log_density(lifts.coordinates[ok])
    log_integral = logsumexp(log_paths) - np.log(len(lifts))
    return float(min(log_integral - logsumexp(log_paths + log_draws) + logsumexp(log_paths), 0.0))


def _accepted(now: FloatArray, new: FloatArray, fraction: float, rng: np.random.Generator) -> BoolArray:
    """Metropolis: r' against r, each times the fraction; what has no weight is never taken."""
    change = np.where(np.isfinite(new), fraction * (np.where(np.isfinite(new), new, 0.0) - now), -np.inf)
    return np.log(rng.random(len(now))) < change


def choose_step(
    system: MolecularSystem,
    generator: InvertibleGenerator,
    labels: FloatArray,
    rng: np.random.Generator,
    *,
    platform: str = "Reference",
) -> tuple[float, int]:
    """The step with the largest mean squared move at half of the way, from a pilot, and what that cost.

    Args:
        system: the real system.
        generator: whose base numbers move.
        labels: shape=(n, d), to choose from.
        rng: of the pilot.
        platform: an OpenMM platform.
    """
    chosen = labels[rng.integers(0, len(labels), PILOT)]
    base = generator.sample_base(PILOT, rng)
    first = draw_base(system, generator, base, chosen, platform=platform)
    ok = first.reason == "ok"
    if not ok.any():
        return STEPS[0], int(first.evaluations.sum())
    half = 0.5 * first.log_weights[ok]
    weights = np.exp(half - half.max())
    cost, squares = int(first.evaluations.sum()), []
    for step in STEPS:
        tried = LatentMoves(1, step).propose(base[ok], generator.map.n_circular, rng)
        proposed = draw_base(system, generator, tried, chosen[ok], platform=platform)
        cost += int(proposed.evaluations.sum())
        accepted = np.exp(np.minimum(0.5 * proposed.log_weights - half, 0.0))
        squares.append(step**2 * (weights * accepted).sum() / weights.sum())
    return STEPS[int(np.argmax(squares))], cost
