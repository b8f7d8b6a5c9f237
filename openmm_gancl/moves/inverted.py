"""Proposals of an invertible generator, weighed for one evaluation each: draws, and steps around where a chain is.

Every configuration of the chart has its labels s and base numbers eps, in which the Boltzmann distribution is
``base(eps) exp(r)``, with ``r = -beta U + log J + 0.5 log det Z - log q(y | s)``. Moves that are reversible with
respect to ``p(s) base(eps)`` are therefore exact if they are accepted with min(1, w'/w) of ``w = exp(r) / p(s)``.
Independent draws are so for the p(s) that labels are drawn from; a symmetric step in s with a Crank-Nicolson step in
eps, and a symmetric one around the circle of a uniform number, for a constant p(s): neither p(s) nor the base density
enters there.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..coordinates.geometry import wrap
from ..coordinates.slow_coordinates import checked_labels, in_domain
from ..errors import InputError
from ..generator.invertible import InvertibleGenerator
from ..lifting.label_proposals import LabelProposal
from ..lifting.latent_relaxation import LatentMoves
from ..sampling.own_frames import HydrogenOrder
from ..system.molecular_system import MolecularSystem
from ..units import BoolArray, FloatArray, IntArray
from .exchange import NO_PROPOSAL_THERE, Energy, Weighed

N_AHEAD = 256
"""Draws of one call of torch."""

INDEPENDENT, LOCAL = "independent", "local"
"""Names of the moves."""

MOVES, LABEL_STEP, BASE_STEP = "moves", "label step", "base step"
"""Of an identity: shares of the moves, and the steps of local ones."""


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


@dataclass(frozen=True, eq=False)
class WeighedRows:
    """`Weighed` of n chains, the labels those that they have."""

    positions: FloatArray
    labels: FloatArray
    log_weights: FloatArray
    reason: NDArray[np.str_]
    force_evaluations: IntArray

    def first(self) -> Weighed:
        """That of the first."""
        label = self.labels[0]
        log_weight, reason, cost = self.log_weights[0], self.reason[0], self.force_evaluations[0]
        return Weighed(self.positions[0], label, label, float(log_weight), str(reason), int(cost))


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
        if len(coordinates) > 1:
            base, log_density = self.generator.invert(coordinates)
        else:
            one, log_q = self.generator.invert_one(coordinates[0])
            base, log_density = one[None], np.array([log_q])
        return self._placed(coordinates, positions, base, log_density)

    def log_r(self, placed: Placed, positions: FloatArray, which: BoolArray) -> FloatArray:
        """r of some of them, one evaluation each; minus infinity of an energy that is NaN, NaN of the others.

        Args:
            placed: n configurations.
            positions: shape=(n, n_atoms, 3), nm, their atoms in the System's order.
            which: shape=(n,).
        """
        found = np.full(len(which), np.nan)
        for i in np.flatnonzero(which):
            found[i] = placed.log_measure[i] - self.energy(positions[i]) / self.system.kT
        return np.where(which & ~np.isfinite(found), -np.inf, found)

    def weigh_pairs(
        self,
        kernel: "Kernel",
        positions: FloatArray,
        rng: np.random.Generator,
        there: Placed | None = None,
        log_p_there: FloatArray | None = None,
    ) -> tuple["WeighedRows", "WeighedRows"]:
        """Where n chains are, and where they may go; nothing is evaluated where one of the two has no weight anyway.

        Args:
            kernel: the move.
            positions: shape=(n, n_atoms, 3), nm, of the chains.
            rng: of proposals.
            there: proposals that were made ahead, or none.
            log_p_there: shape=(n,), log p(s) of these.
        """
        order, row = self.hydrogens.order(positions), np.arange(len(positions))[:, None]
        here = self.find(positions[row, order])
        log_p_here = kernel.log_label_density(here.labels)
        reason = np.where((here.reason == "ok") & ~np.isfinite(log_p_here), NO_PROPOSAL_THERE, here.reason)
        ok = reason == "ok"
        if there is None or log_p_there is None:
            middle = self.system.slow.domain.mean(axis=1)
            # nothing is drawn around a place that is none
            base, labels = np.where(ok[:, None], here.base, 0.5), np.where(ok[:, None], here.labels, middle)
            there = self.place(*kernel.propose(base, labels, rng))
            log_p_there = kernel.log_label_density(there.labels)
        which = ok & (there.reason == "ok")
        rows = []
        for placed, why, log_p, at in (
            (here, reason, log_p_here, positions),
            (there, there.reason, log_p_there, there.positions[row, order]),
        ):
            log_weights = np.where(which, self.log_r(placed, at, which) - np.where(which, log_p, 0.0), np.nan)
            log_weights[why != "ok"] = -np.inf
            why = np.where(which & ~np.isfinite(log_weights), "nan", why)
            rows.append(WeighedRows(at, placed.labels, log_weights, why, which.astype(np.int64)))
        return rows[0], rows[1]

    def _placed(
        self, coordinates: FloatArray, positions: FloatArray, base: FloatArray, log_density: FloatArray
    ) -> Placed:
        system, chart, slow = self.system, self.generator.chart, self.system.slow
        labels, log_jacobian = coordinates[:, chart.label_indices], chart.log_jacobian(coordinates)
        log_measure = log_jacobian - log_density
        if len(system.constraints):
            log_measure = log_measure + system.constraints.log_fixman(positions, system.masses)
        reason = np.full(len(labels), "ok", dtype="<U10")
        reason[~np.isfinite(log_measure)] = "nan"
        reason[~system.state.inside(positions)] = "state"
        reason[~(np.isfinite(log_jacobian) & in_domain(labels, slow))] = "outside"
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
        return {LABEL_STEP: self.label_step, BASE_STEP: self.base_step}


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
        self.names, self.force_evaluations = list(self.shares), 0
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
        """See `ProposalSource.weigh`."""
        assert positions is not None
        kind = int(drawn.kinds[index])
        there = log_p = None
        if kind in drawn.placed:
            row = drawn.rows[index : index + 1]
            there, log_p = drawn.placed[kind].select(row), drawn.log_p[kind][row]
        before, after = self.chart.weigh_pairs(self.kernels[kind], positions[None], rng, there, log_p)
        self.force_evaluations += int(before.force_evaluations.sum() + after.force_evaluations.sum())
        return before.first(), after.first(), self.names[kind]

    def identity(self) -> dict[str, Any]:
        """See `ProposalSource.identity`."""
        steps = [item for kernel in self.kernels for item in kernel.identity().items()]
        return {MOVES: self.shares} | dict(steps)
