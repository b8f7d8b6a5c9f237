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
from .exchange import NO_PROPOSAL_THERE, Weighed

RELAXED = "relaxed"
"""Name of these moves."""


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
        return {"relax_steps": self.moves.n, "step of relaxations": self.moves.step}

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

    Args:
        paths: how they relax.
    """

    n_ahead = TASK_SIZE
    carries_weight = True

    def __init__(self, paths: Paths):
        self.paths = paths

    def draw(self, rng: np.random.Generator) -> Lifts:
        """See `ProposalSource.draw`."""
        return self.paths.lift(self.n_ahead, rng)

    def weigh(
        self, drawn: Lifts, index: int, rng: np.random.Generator, positions: FloatArray | None
    ) -> tuple[Weighed | None, Weighed, str]:
        """See `ProposalSource.weigh`."""
        if positions is None:
            return None, _weighed(drawn, index), RELAXED
        order = self.paths.order(positions)
        back = self.paths.back(positions[order], rng)
        after = _weighed(drawn, index)
        return _weighed(back, 0), replace(after, positions=after.positions[order]), RELAXED

    def identity(self) -> dict[str, Any]:
        """See `ProposalSource.identity`."""
        return self.paths.identity()


def _weighed(lifts: Lifts, index: int) -> Weighed:
    one = lifts.select(np.array([index]))
    return Weighed(
        positions=one.positions[0],
        label=one.labels[0],
        cv_values=one.cv_values[0],
        log_weight=float(one.log_weights[0]),
        reason=str(one.reason[0]),
        force_evaluations=one.force_evaluations,
    )
