"""Proposals of an invertible generator, weighed for one evaluation each: draws, and steps around where a chain is.

Every configuration of the chart has its labels s and base numbers eps, in which the Boltzmann distribution is
``base(eps) exp(r)``, with ``r = -beta U + log J + 0.5 log det Z - log q(y | s)``. Moves that are reversible with
respect to ``p(s) base(eps)`` are therefore exact if they are accepted with min(1, w'/w) of ``w = exp(r) / p(s)``.
Independent draws are so for the p(s) that labels are drawn from; a symmetric step in s with a Crank-Nicolson step in
eps, and a symmetric one around the circle of a uniform number, for a constant p(s): neither p(s) nor the base density
enters there.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..coordinates.geometry import wrap
from ..coordinates.slow_coordinates import checked_labels
from ..errors import InputError
from ..generator.invertible import InvertibleGenerator
from ..lifting.label_proposals import LabelProposal
from ..lifting.latent_relaxation import LatentMoves
from ..sampling.own_frames import HydrogenOrder
from ..system.molecular_system import MolecularSystem
from ..units import FloatArray, IntArray
from .exchange import NO_PROPOSAL_THERE, Weighed

N_AHEAD = 256
"""Draws of one call of torch."""

INDEPENDENT, LOCAL = "independent", "local"
"""Names of the moves."""

Energy = Callable[[FloatArray], float]
"""U at positions, shape=(n_atoms, 3), nm, in kJ/mol; NaN where there is none."""


@dataclass(frozen=True, eq=False)
class Placed:
    """n configurations, and all of their weights but the energies and p(s).

    Attributes:
        labels: shape=(n, d).
        base: shape=(n, n_base).
        positions: shape=(n, n_atoms, 3), nm.
        log_measure: shape=(n,), ``log J + 0.5 log det Z - log q``.
        reason: shape=(n,), one of `openmm_gancl.lifting.lifts.REASONS`.
    """

    labels: FloatArray
    base: FloatArray
    positions: FloatArray
    log_measure: FloatArray
    reason: NDArray[np.str_]

    def select(self, which: Any) -> "Placed":
        """Those of a mask or of indices."""
        return Placed(**{part.name: getattr(self, part.name)[which] for part in fields(self)})


class InvertedChart:
    """Labels and base numbers of an invertible generator to weighed configurations of a system, and back.

    Args:
        system: the real system.
        generator: the map.
        energy: of the real system.
    """

    def __init__(self, system: MolecularSystem, generator: InvertibleGenerator, energy: Energy):
        self.system, self.generator, self.energy = system, generator, energy
        self.hydrogens = hydrogens_of(system, generator)

    def place(self, base: FloatArray, labels: FloatArray) -> Placed:
        """What base numbers, shape=(n, n_base), draw at labels, shape=(n, d).

        Raises:
            InputError: the generator returns NaN.
        """
        generator = self.generator
        coordinates, log_density = generator.transform(base, labels)
        if np.isnan(log_density).any() or np.isnan(coordinates).any():
            raise InputError("the model returns NaN: get its file again, or train another")
        placed = self._placed(coordinates, generator.chart.to_cartesian(coordinates), base, log_density)
        return replace(placed, reason=np.where(generator.inside(coordinates), placed.reason, "outside"))

    def find(self, positions: FloatArray) -> Placed:
        """Where configurations, shape=(n, n_atoms, 3), nm, hydrogens in the generator's order, are."""
        chart = self.generator.chart
        coordinates = chart.to_internal(positions)
        base, log_density = self.generator.invert(coordinates)
        return self._placed(coordinates, positions, base, log_density)

    def log_weight(self, placed: Placed, energy: float) -> float:
        """r of the first of them; minus infinity of an energy that is NaN."""
        found = float(placed.log_measure[0]) - energy / self.system.kT
        return found if np.isfinite(found) else -np.inf

    def _placed(
        self, coordinates: FloatArray, positions: FloatArray, base: FloatArray, log_density: FloatArray
    ) -> Placed:
        system, chart, slow = self.system, self.generator.chart, self.system.slow
        labels, log_jacobian = coordinates[:, chart.label_indices], chart.log_jacobian(coordinates)
        low, high = slow.domain.T
        in_domain = (((labels >= low) & (labels <= high)) | np.isfinite(slow.periods)).all(axis=1)
        log_measure = log_jacobian - log_density
        if len(system.constraints):
            log_measure = log_measure + system.constraints.log_fixman(positions, system.masses)
        reason = np.full(len(labels), "ok", dtype="<U10")
        reason[~np.isfinite(log_measure)] = "nan"
        reason[~system.state.inside(positions)] = "state"
        reason[~(np.isfinite(log_jacobian) & in_domain)] = "outside"
        return Placed(labels, base, positions, log_measure, reason)


def hydrogens_of(system: MolecularSystem, generator: InvertibleGenerator) -> HydrogenOrder:
    """Which way around the generator draws hydrogens; the System's own structure may have another order."""
    middle = system.slow.domain.mean(axis=1)[None]
    return HydrogenOrder.of(system.topology, generator.typical_positions(middle)[0])


class Kernel(Protocol):
    """A move that is reversible with respect to ``p(s) base(eps)``."""

    @property
    def ahead(self) -> bool:
        """Whether its proposals do not depend on where the chain is."""
        ...

    def propose(self, base: FloatArray, labels: FloatArray, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        """New base numbers, shape=(n, n_base), and labels, shape=(n, d), of n places."""
        ...

    def log_label_density(self, labels: FloatArray) -> FloatArray:
        """log p(s), shape=(n,); of a constant p(s) zeros."""
        ...

    def identity(self) -> dict[str, Any]:
        """What a checkpoint compares."""
        ...


@dataclass(frozen=True)
class Independent:
    """Draws of the generator at labels from p(s).

    Attributes:
        generator: of the draws.
        label_proposal: p(s).
    """

    generator: InvertibleGenerator
    label_proposal: LabelProposal
    ahead = True

    def propose(self, base: FloatArray, labels: FloatArray, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        """See `Kernel.propose`; of the places only their number counts.

        Raises:
            InputError: p(s) draws labels outside the domain, or where it is zero.
        """
        drawn = checked_labels(self.label_proposal.sample(len(base), rng), self.generator.slow)
        if not np.isfinite(self.label_proposal.log_prior(drawn)).all():
            raise InputError("the label proposal draws a label where its own p(s) is zero: its log_prior is wrong")
        return self.generator.sample_base(len(base), rng), drawn

    def log_label_density(self, labels: FloatArray) -> FloatArray:
        """See `Kernel.log_label_density`."""
        return self.label_proposal.log_prior(labels)

    def identity(self) -> dict[str, Any]:
        """See `Kernel.identity`."""
        return {}


@dataclass(frozen=True)
class Local:
    """Symmetric steps in labels and base numbers.

    Attributes:
        generator: whose numbers they are.
        label_step: standard deviation, in parts of each label's domain.
        base_step: of the Crank-Nicolson steps, between 0 and 1.
    """

    generator: InvertibleGenerator
    label_step: float
    base_step: float
    ahead = False

    def propose(self, base: FloatArray, labels: FloatArray, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        """See `Kernel.propose`."""
        slow = self.generator.slow
        steps = self.label_step * np.ptp(slow.domain, axis=1) * rng.standard_normal(labels.shape)
        moved = LatentMoves(1, self.base_step).propose(base, self.generator.map.n_circular, rng)
        return moved, wrap(labels + steps, slow.periods)

    def log_label_density(self, labels: FloatArray) -> FloatArray:
        """See `Kernel.log_label_density`."""
        return np.zeros(len(labels))

    def identity(self) -> dict[str, Any]:
        """See `Kernel.identity`."""
        return {"label step": self.label_step, "base step": self.base_step}


@dataclass(frozen=True)
class _Ahead:
    """Kinds of moves, shape=(n,), and the places of those that do not depend on the chain, with log p(s), by rows."""

    kinds: IntArray
    rows: IntArray
    placed: dict[int, Placed]
    log_p: dict[int, FloatArray]


class InvertedProposals:
    """Moves of fixed probabilities, each exact by itself; see `ProposalSource`.

    Args:
        chart: labels and base numbers of configurations.
        kernels: by their names.
        shares: of the moves, of sum one.
    """

    n_ahead = N_AHEAD
    carries_weight = False

    def __init__(self, chart: InvertedChart, kernels: Mapping[str, Kernel], shares: Mapping[str, float]):
        self.chart, self.shares = chart, {name: share for name, share in shares.items() if share > 0}
        self.names = list(self.shares)
        self.kernels = [kernels[name] for name in self.names]

    def draw(self, rng: np.random.Generator) -> _Ahead:
        """See `ProposalSource.draw`."""
        kinds = rng.choice(len(self.kernels), self.n_ahead, p=list(self.shares.values()))
        rows, placed, log_p = np.zeros(self.n_ahead, dtype=np.int64), {}, {}
        for kind, kernel in enumerate(self.kernels):
            chosen = kinds == kind
            if kernel.ahead and chosen.any():
                n = int(chosen.sum())
                rows[chosen] = np.arange(n)
                placed[kind] = self.chart.place(*kernel.propose(np.empty((n, 0)), np.empty((n, 0)), rng))
                log_p[kind] = kernel.log_label_density(placed[kind].labels)
        return _Ahead(kinds, rows, placed, log_p)

    def weigh(
        self, drawn: _Ahead, index: int, rng: np.random.Generator, positions: FloatArray | None
    ) -> tuple[Weighed | None, Weighed, str]:
        """See `ProposalSource.weigh`; nothing is evaluated where one of the two has no weight anyway."""
        assert positions is not None
        kind = int(drawn.kinds[index])
        kernel, order = self.kernels[kind], self.chart.hydrogens.order(positions[None])[0]
        here = self.chart.find(positions[order][None])
        log_p_here = float(kernel.log_label_density(here.labels)[0])
        reason = str(here.reason[0])
        reason = NO_PROPOSAL_THERE if reason == "ok" and not np.isfinite(log_p_here) else reason
        if kernel.ahead:
            row = drawn.rows[index]
            there, log_p_there = drawn.placed[kind].select([row]), float(drawn.log_p[kind][row])
        else:
            # from a place without a weight a step leads nowhere
            there = self.chart.place(*kernel.propose(here.base, here.labels, rng)) if reason == "ok" else here
            log_p_there = log_p_here
        weighable = reason == there.reason[0] == "ok"
        before = self._weighed(here, log_p_here, reason, positions, weighable)
        after = self._weighed(there, log_p_there, str(there.reason[0]), there.positions[0][order], weighable)
        return before, after, self.names[kind]

    def _weighed(self, placed: Placed, log_p: float, reason: str, positions: FloatArray, weighable: bool) -> Weighed:
        log_weight = -np.inf if reason != "ok" else np.nan
        if weighable:
            log_weight = self.chart.log_weight(placed, self.chart.energy(positions)) - log_p
            reason = "ok" if np.isfinite(log_weight) else "nan"
        return Weighed(
            positions=positions,
            label=placed.labels[0],
            cv_values=placed.labels[0],
            log_weight=log_weight,
            reason=reason,
            force_evaluations=int(weighable),
        )

    def identity(self) -> dict[str, Any]:
        """See `ProposalSource.identity`."""
        steps = [item for kernel in self.kernels for item in kernel.identity().items()]
        return {"moves": self.shares} | dict(steps)
