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

from ..generator.invertible import InvertibleGenerator
from ..system.molecular_system import MolecularSystem
from ..units import BoolArray, FloatArray
from .draws import Draws, draw_base, weigh_draws

STEPS = (0.05, 0.1, 0.2, 0.35, 0.5, 0.7)
"""Step sizes that a pilot chooses from."""

PILOT = 100
"""Lifts of a pilot."""

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


def lift_latent(
    system: MolecularSystem,
    generator: InvertibleGenerator,
    labels: FloatArray,
    rng: np.random.Generator,
    moves: LatentMoves,
    *,
    platform: str = "Reference",
    workers: int = 1,
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
        workers: local processes.
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
