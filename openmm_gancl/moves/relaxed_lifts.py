"""Relaxed lifts as proposals: fresh ones, made in batches, and reverse relaxations of a chain's configuration."""

from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from ..engine.random_numbers import openmm_seed
from ..generator.invertible import InvertibleGenerator
from ..lifting.fixed_lifts import FixedLifter
from ..lifting.label_proposals import LabelProposal
from ..lifting.latent_relaxation import LatentMoves
from ..lifting.lifter import Lifter
from ..lifting.lifts import Lifts
from ..lifting.relaxation import TASK_SIZE, Relaxer
from ..sampling.own_frames import HydrogenOrder
from ..system.molecular_system import MolecularSystem
from ..units import FloatArray, IntArray
from .exchange import NO_PROPOSAL_THERE, Energy, Weighed

RELAXED = "relaxed"
"""Name of these moves."""

STEP_OF_RELAXATIONS = "step of relaxations"
"""Of an identity: of base numbers."""


class Paths(Protocol):
    """Relaxations forth and back whose weights have their labels' p(s) in them."""

    def lift(self, n: int, rng: np.random.Generator) -> Lifts:
        """Fresh lifts."""
        ...

    def back(self, positions: FloatArray, rng: np.random.Generator) -> Lifts:
        """The way back from one configuration, shape=(n_atoms, 3), nm."""
        ...

    def order(self, positions: FloatArray) -> IntArray:
        """Which atom of a configuration, shape=(n_atoms, 3), is which of a lift, shape=(n_atoms,)."""
        ...

    def identity(self) -> dict[str, Any]:
        """What a checkpoint compares."""
        ...


@dataclass(frozen=True)
class ContextPaths:
    """Of the product generator, in a Context that stays.

    Attributes:
        lifter: of unrestrained lifts.
    """

    lifter: Lifter
    _relaxer: Relaxer = field(default_factory=Relaxer)

    def lift(self, n: int, rng: np.random.Generator) -> Lifts:
        """See `Paths.lift`."""
        return self.lifter.run(self._relaxer, rng, self.lifter.label_proposal.sample(n, rng))

    def back(self, positions: FloatArray, rng: np.random.Generator) -> Lifts:
        """See `Paths.back`; the label is drawn from r(s | x)."""
        return self.lifter.run(self._relaxer, rng, np.zeros((1, 0)), positions[None])

    def order(self, positions: FloatArray) -> IntArray:
        """See `Paths.order`: all orders are alike."""
        return np.arange(len(positions))

    def identity(self) -> dict[str, Any]:
        """See `Paths.identity`."""
        protocol = self.lifter.protocol
        return {
            "relax_steps": protocol.relax_steps,
            "time_step": protocol.time_step,
            "friction": protocol.friction,
            "force_constants": self.lifter.force_constants.tolist(),
        }


@dataclass(frozen=True)
class LatentPaths:
    """Of an invertible generator, in its base numbers.

    Attributes:
        system: the real system.
        generator: whose base numbers move.
        moves: of each path.
        label_proposal: p(s).
        platform: an OpenMM platform.
        hydrogens: as the generator draws them.
    """

    system: MolecularSystem
    generator: InvertibleGenerator
    moves: LatentMoves
    label_proposal: LabelProposal
    platform: str
    hydrogens: HydrogenOrder

    def lift(self, n: int, rng: np.random.Generator) -> Lifts:
        """See `Paths.lift`."""
        labels = self.label_proposal.sample(n, rng)
        return self._against_proposal(self._lifter.lift(labels, self.moves, seed=openmm_seed(rng)))

    def back(self, positions: FloatArray, rng: np.random.Generator) -> Lifts:
        """See `Paths.back`."""
        return self._against_proposal(self._lifter.reverse(positions[None], self.moves, seed=openmm_seed(rng)))

    def order(self, positions: FloatArray) -> IntArray:
        """See `Paths.order`."""
        return self.hydrogens.order(positions[None])[0]

    def identity(self) -> dict[str, Any]:
        """See `Paths.identity`."""
        return {"relax_steps": self.moves.n, STEP_OF_RELAXATIONS: self.moves.step}

    @property
    def _lifter(self) -> FixedLifter:
        return FixedLifter(self.system, self.generator, self.platform, 1)

    def _against_proposal(self, lifts: Lifts) -> Lifts:
        """``w / p(s)``; none where p(s) is zero."""
        log_prior = self.label_proposal.log_prior(lifts.labels)
        proposed = np.isfinite(log_prior)
        log_weights = np.where(proposed, lifts.log_weights - np.where(proposed, log_prior, 0.0), -np.inf)
        reason = np.where(proposed | (lifts.reason != "ok"), lifts.reason, NO_PROPOSAL_THERE)
        return replace(lifts, log_weights=log_weights, reason=reason)


class RelaxedLifts:
    """Lifts of paths forth, against the way back from where the chain is; see `ProposalSource`.

    The weight of a path is right for any target, of which only the energy at its end enters. A target that has changed
    since the lifts were made (a bias that grows, a parameter) is therefore followed for one evaluation of either end.

    Args:
        paths: how they relax.
        energy: of the target now; None where it is what the paths relax in.
        kT: kJ/mol, where there is such an energy.
    """

    n_ahead = TASK_SIZE
    carries_weight = True

    def __init__(self, paths: Paths, energy: Energy | None = None, kT: float = np.nan):
        self.paths, self.energy, self.kT = paths, energy, kT
        self.force_evaluations = 0

    def draw(self, rng: np.random.Generator) -> Lifts:
        """See `ProposalSource.draw`."""
        drawn = self.paths.lift(self.n_ahead, rng)
        self.force_evaluations += drawn.force_evaluations
        return drawn

    def weigh(
        self, drawn: Lifts, index: int, rng: np.random.Generator, positions: FloatArray | None
    ) -> tuple[Weighed | None, Weighed, str]:
        """See `ProposalSource.weigh`."""
        if positions is None:
            return None, self._now(*_weighed(drawn, index)), RELAXED
        order = self.paths.order(positions)
        back = self.paths.back(positions[order], rng)
        self.force_evaluations += back.force_evaluations
        before, energy_before = _weighed(back, 0)
        after, energy_after = _weighed(drawn, index)
        before = self._now(replace(before, positions=positions), energy_before)
        return before, self._now(replace(after, positions=after.positions[order]), energy_after), RELAXED

    def _now(self, lift: Weighed, energy_then: float) -> Weighed:
        """With the weight for the target that there is now."""
        if self.energy is None or not np.isfinite(lift.log_weight):
            return lift
        log_weight = lift.log_weight - (self.energy(lift.positions) - energy_then) / self.kT
        self.force_evaluations += 1
        ok, cost = bool(np.isfinite(log_weight)), lift.force_evaluations + 1
        reason = lift.reason if ok else "nan"
        return replace(lift, log_weight=log_weight if ok else -np.inf, reason=reason, force_evaluations=cost)

    def identity(self) -> dict[str, Any]:
        """See `ProposalSource.identity`."""
        return self.paths.identity()


def _weighed(lifts: Lifts, index: int) -> tuple[Weighed, float]:
    """A lift, and the energy at its end in the target that its path was relaxed in."""
    one = lifts.select(np.array([index]))
    weighed = Weighed(
        positions=one.positions[0],
        label=one.labels[0],
        cv_values=one.cv_values[0],
        log_weight=float(one.log_weights[0]),
        reason=str(one.reason[0]),
        force_evaluations=one.force_evaluations,
    )
    return weighed, float(one.energies[0])
