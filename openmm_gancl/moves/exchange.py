"""An exchange: where a chain is and where it may go, both weighed, and the Metropolis choice between the two."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..engine.random_numbers import named_rng
from ..lifting.weights import accepts
from ..sampling.langevin import maxwell_boltzmann
from ..system.molecular_system import MolecularSystem
from ..units import FloatArray

Energy = Callable[[FloatArray], float]
"""U at positions, shape=(n_atoms, 3), nm, in kJ/mol; NaN where there is none."""

NO_PROPOSAL_THERE = "label"
"""Reason of a configuration without a weight where p(s) is zero: no proposal leads back there."""


@dataclass(frozen=True)
class Weighed:
    """A configuration and its weight in an exchange.

    Attributes:
        positions: shape=(n_atoms, 3), nm.
        label: shape=(d,), that it was drawn at.
        cv_values: shape=(d,), that it has.
        log_weight: log w, that of its label's proposal included; minus infinity where it has none, NaN where the other
            configuration has none and nothing was evaluated.
        reason: why it has none, one of `openmm_gancl.lifting.lifts.REASONS` or `NO_PROPOSAL_THERE`; else ``ok``.
        force_evaluations: that its weight cost.
    """

    positions: FloatArray
    label: FloatArray
    cv_values: FloatArray
    log_weight: float
    reason: str
    force_evaluations: int


class ProposalSource(Protocol):
    """What a chain may go to, weighed against where it is.

    ``min(1, w'/w)`` of its weights must leave the Boltzmann distribution invariant.
    """

    @property
    def n_ahead(self) -> int:
        """Attempts of which all that does not depend on a chain's configuration is drawn at once."""
        ...

    @property
    def carries_weight(self) -> bool:
        """Whether a proposal's weight is that of a path, which a chain of proposals alone may keep."""
        ...

    @property
    def force_evaluations(self) -> int:
        """All that were made, those of what was drawn ahead included."""
        ...

    def draw(self, rng: np.random.Generator) -> Any:
        """What is drawn ahead, of `n_ahead` attempts."""
        ...

    def weigh(
        self, drawn: Any, index: int, rng: np.random.Generator, positions: FloatArray | None
    ) -> tuple[Weighed | None, Weighed, str]:
        """One attempt: where the chain is, where it may go, and what kind of move that is.

        Args:
            drawn: ahead.
            index: of the attempt in it.
            rng: of all else.
            positions: shape=(n_atoms, 3), nm, that the chain is at; None where it carries its weight.
        """
        ...

    def identity(self) -> dict[str, Any]:
        """What a checkpoint compares, JSON-ready."""
        ...


@dataclass(frozen=True)
class Attempt:
    """A proposal, and whether a chain takes it.

    Attributes:
        before: the configuration that the chain was at; None where the chain carries its weight.
        log_weight_before: of it; None of a chain that has none yet.
        after: the proposal.
        move: its kind.
        accepted: whether it is taken.
        velocities: shape=(n_atoms, 3), nm/ps, to go on with if it is; else None.
    """

    before: Weighed | None
    log_weight_before: float | None
    after: Weighed
    move: str
    accepted: bool
    velocities: FloatArray | None

    @property
    def force_evaluations(self) -> int:
        """Of both weights."""
        return self.after.force_evaluations + (self.before.force_evaluations if self.before else 0)


class Exchange:
    """Attempts by their numbers, each with random numbers of its own.

    Args:
        source: of the proposals.
        system: whose constraints fresh velocities keep.
        seed: of all random numbers.
        stream: of copies that must not repeat each other's proposals.
    """

    def __init__(self, source: ProposalSource, system: MolecularSystem, seed: int, stream: tuple[int, ...] = ()):
        self.source, self.system, self.seed, self.stream = source, system, seed, stream
        self._drawn: Any = None
        self._batch = -1

    def attempt(self, number: int, positions: FloatArray) -> Attempt:
        """One with any dynamics before it: the chain's configuration is weighed too.

        Args:
            number: of the attempt.
            positions: shape=(n_atoms, 3), nm, that the chain is at.
        """
        return self._decided(number, positions, None)

    def attempt_alone(self, number: int, log_weight: float | None) -> Attempt:
        """One with nothing before it, against the weight that the chain carries."""
        return self._decided(number, None, log_weight)

    def _decided(self, number: int, positions: FloatArray | None, log_weight: float | None) -> Attempt:
        batch, index = divmod(number, self.source.n_ahead)
        if self._batch != batch:
            self._drawn = self.source.draw(named_rng(self.seed, "move", *self.stream, "lifts", batch))
            self._batch = batch
        rng = named_rng(self.seed, "move", *self.stream, "attempt", number)
        before, after, move = self.source.weigh(self._drawn, index, rng, positions)
        if before is not None:
            log_weight = before.log_weight
        accepted = accepts(after.log_weight, log_weight, rng)
        return Attempt(
            before=before,
            log_weight_before=log_weight,
            after=after,
            move=move,
            accepted=accepted,
            velocities=self._velocities(after.positions, rng) if accepted else None,
        )

    def _velocities(self, positions: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Fresh ones that keep the constraints, shape=(n_atoms, 3), nm/ps."""
        drawn = maxwell_boltzmann(self.system.masses, 1, self.system.kT, rng)
        return self.system.constraints.tangent(drawn, positions[None], self.system.masses)[0]
