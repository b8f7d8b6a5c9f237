"""Weighted configurations of one system: what closures are averages over."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ..coordinates.slow_coordinates import SlowCoordinates, in_domain
from ..errors import InputError
from ..generator.invertible import InvertibleGenerator
from ..learning.diffusion_map import distinct
from ..lifting.draws import Draws, log_targets
from ..lifting.label_regression import LabelRegression, fit_label_regression
from ..lifting.learned import Learned
from ..lifting.lifts import Lifts
from ..lifting.mean_forces import slopes_of
from ..lifting.reweighting import check_same_molecule
from ..lifting.rounds import round_shares
from ..lifting.surface import weighted_ends
from ..system.bonds import check_in_one_piece, check_lengths
from ..system.molecular_system import MolecularSystem
from ..trajectories.blocks import series_inefficiency
from ..units import BoolArray, FloatArray, IntArray, numbers

N_COMPARED, MAX_DIFFERENCE = 8, 0.1
"""Lifts whose energies are compared with those that they were weighed by, and by how many kT these may differ."""


def shown(label: FloatArray) -> str:
    """A label, shape=(d,), for messages."""
    return f"({', '.join(f'{x:g}' for x in label)})"


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Configurations with labels and weights.

    At a label s, ``sum w f(x) / sum w`` over configurations there is the average of f given s. Over all labels
    ``sum w f(x) / p(s)``, p the density that labels were drawn from, is that of the equilibrium.

    Attributes:
        positions: shape=(n, n_atoms, 3), nm; NaN where there is no weight.
        labels: shape=(n, d), that they have.
        log_weights: shape=(n,), log w; minus infinity where a lift failed.
        log_label_density: shape=(n,), log p(s); None where it is not known (labels of your own choice).
        slow: the slow coordinates.
        system: what they are configurations of.
        slopes: shape=(n, d), of the log target along labels while the generator's map moves the rest along: mean forces
            over kT, freed of most noise; None where there are none.
        shares: shape=(n,), fixed beforehand: how much each counts, by its round alone; equal by default.
        fixed: whether labels were fixed before the rest was drawn, so that ``E[w | s] = exp(-beta F(s))``.
        in_time: whether they are one after the other as in a trajectory, so that they may be correlated.
    """

    positions: FloatArray
    labels: FloatArray
    log_weights: FloatArray
    log_label_density: FloatArray | None
    slow: SlowCoordinates
    system: MolecularSystem
    slopes: FloatArray | None = None
    shares: FloatArray | None = None
    fixed: bool = False
    in_time: bool = False

    def __post_init__(self) -> None:
        """Check the shapes.

        Raises:
            InputError: they do not fit, weights are NaN, or there are none.
        """
        n, d = len(self.positions), len(self.slow.names)
        if self.labels.shape != (n, d) or self.log_weights.shape != (n,):
            raise InputError(
                f"{n} configurations with labels of shape {self.labels.shape} and log-weights of shape "
                f"{self.log_weights.shape}: give ({n}, {d}) and ({n},)"
            )
        if np.isnan(self.log_weights).any() or (self.log_weights == np.inf).any():
            raise InputError("log-weights are NaN or infinite: give minus infinity where there is no weight")
        if not self.ok.any():
            raise InputError("no configuration has a weight: lift more, or train with more frames")
        if not (np.isfinite(self.labels[self.ok]).all() and np.isfinite(self.positions[self.ok]).all()):
            raise InputError("a configuration with a weight has NaN in its positions or labels: give it no weight")

    @classmethod
    def of_learned(cls, learned: Learned, system: MolecularSystem) -> "Ensemble":
        """The lifts of all rounds of `openmm_gancl.learn`.

        Args:
            learned: what it returned.
            system: what it was given.

        Raises:
            InputError: another system, by a few energies of lifts.
        """
        _check_drawn_for(system, learned)
        return cls.of_draws(learned.lifts, learned.model, system)

    @classmethod
    def of_draws(cls, draws: Draws, generator: InvertibleGenerator, system: MolecularSystem) -> "Ensemble":
        """Draws of the closed loop.

        Args:
            draws: of all rounds.
            generator: fitted to them.
            system: of these.
        """
        ok = np.isfinite(draws.log_weights)
        positions = np.full((len(draws), system.n_atoms, 3), np.nan)
        positions[ok] = generator.chart.to_cartesian(draws.coordinates[ok])
        slopes = slopes_of(generator, draws)[:, : len(system.slow.names)]
        density, shares = draws.log_label_density, round_shares(draws)
        of_labels = (draws.labels, draws.log_weights, density, system.slow, system)
        return cls(positions, *of_labels, slopes=slopes, shares=shares, fixed=True)

    @classmethod
    def of_lifts(cls, lifts: Lifts) -> "Ensemble":
        """Lifts of a `openmm_gancl.Lifter`.

        Of restrained or unrestrained ones the end points, with weights to the equilibrium at the labels that they have.

        Args:
            lifts: in memory; a file keeps no positions.

        Raises:
            InputError: they were read from a file.
        """
        system = lifts.system
        if system is None or lifts.positions.shape[1:] != (system.n_atoms, 3):
            raise InputError("these lifts have no positions (a file keeps none): give lifts in memory")
        if lifts.mode == "fixed":
            positions = np.where(lifts.ok[:, None, None], lifts.positions, np.nan)
            slopes = lifts.mean_forces if lifts.mean_forces.shape[1] else None
            return cls(positions, lifts.labels, lifts.log_weights, None, lifts.slow, system, slopes, fixed=True)
        ends = weighted_ends(lifts)
        density = np.zeros(len(ends.log_weights))
        return cls(lifts.positions[lifts.ok], ends.cv_values, ends.log_weights, density, lifts.slow, system)

    @classmethod
    def of_positions(
        cls, positions: FloatArray, system: MolecularSystem, log_weights: FloatArray | None = None
    ) -> "Ensemble":
        """Configurations of your own: frames of a trajectory, or lifts of a `openmm_gancl.lifting.StochasticSystem`.

        Errors of averages count how long they are correlated in the order given, and the same positions several times
        as one with all their weight.

        Args:
            positions: shape=(n, n_atoms, 3), nm, in the order of time; of a periodic System all in its default box.
            system: of these.
            log_weights: shape=(n,), to the equilibrium; equal weights by default.

        Raises:
            InputError: arrays that do not fit, or positions that are cut by a periodic box, or not in nm.
        """
        positions = numbers(positions)
        if positions.ndim != 3 or positions.shape[1:] != (system.n_atoms, 3):
            raise InputError(f"positions have shape {positions.shape}: give (n, {system.n_atoms}, 3)")
        n = len(positions)
        weights = np.zeros(n) if log_weights is None else numbers(log_weights)
        check_lengths(system.topology, system.system, positions)
        check_in_one_piece(system.topology, positions, system.positions)
        labels = system.slow.transform(positions)
        return cls(positions, labels, _of_copies(positions, weights), np.zeros(n), system.slow, system, in_time=True)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def ok(self) -> BoolArray:
        """shape=(n,), which have a weight."""
        return np.isfinite(self.log_weights)

    def select(self, which: BoolArray | IntArray) -> "Ensemble":
        """The configurations of a mask or of indices."""
        density, slopes, shares = (
            None if part is None else part[which] for part in (self.log_label_density, self.slopes, self.shares)
        )
        return replace(
            self,
            positions=self.positions[which],
            labels=self.labels[which],
            log_weights=self.log_weights[which],
            log_label_density=density,
            slopes=slopes,
            shares=shares,
        )

    def within_domain(self) -> "Ensemble":
        """Without those whose labels lie outside the domain, where the functions of a fit repeat themselves.

        Raises:
            InputError: none is left.
        """
        inside = in_domain(self.labels, self.slow) | ~self.ok
        if not (inside & self.ok).any():
            raise InputError("every configuration lies outside the domain of the labels: widen the card's domain")
        return self if inside.all() else self.select(inside)

    def counted_as_one(self, pulls: FloatArray) -> FloatArray:
        """How many configurations count as one in sums of their pulls, shape=(n, m): one if they are independent.

        Returns:
            shape=(m,).
        """
        if not self.in_time:
            return np.ones(pulls.shape[1])
        return np.array([series_inefficiency(column) for column in pulls.T])

    @cached_property
    def weight_regression(self) -> LabelRegression:
        """The mean weight as a function of the label, ``log E[w | s]``; where labels were fixed it is ``-beta F``."""
        return fit_label_regression(self.slow, self.labels, self.log_weights, shares=self.shares)

    @cached_property
    def ratios(self) -> FloatArray:
        """Weights over their mean at the label, shape=(n,): functions of s are no matter to averages given s."""
        with np.errstate(under="ignore"):
            return np.asarray(np.exp(self.log_weights - self.weight_regression.log_density(self.labels)))

    @property
    def share_of_each(self) -> FloatArray:
        """shape=(n,), how much each counts."""
        return np.ones(len(self)) if self.shares is None else self.shares


def _of_copies(positions: FloatArray, log_weights: FloatArray) -> FloatArray:
    """Log-weights in which the first of several that are the same has the weight of all of them, shape=(n,)."""
    first, index = distinct(positions.reshape(len(positions), -1))
    if len(first) == len(positions):
        return log_weights
    found = np.full(len(positions), -np.inf)
    np.logaddexp.at(found, first[index], log_weights)
    return found


def _check_drawn_for(system: MolecularSystem, learned: Learned) -> None:
    """Raise an `InputError` where some lifts have other energies in a system than those that they were weighed by."""
    draws, chart = learned.lifts, learned.model.chart
    check_same_molecule(learned.model.metadata["atom_names"], learned.model.slow, chart.constraints, system)
    some = np.argsort(-draws.log_weights)[: min(N_COMPARED, np.isfinite(draws.log_weights).sum())]
    inside = np.ones(len(some), dtype=bool)
    found, _, _ = log_targets(system, chart, draws.coordinates[some], inside, "Reference", 1)
    if not np.ptp(found - draws.log_target[some]) < MAX_DIFFERENCE:
        raise InputError(
            f"{system.name} has other energies, or another temperature, than the system that the lifts were drawn for: "
            "give that one, or learned.reweight(system)"
        )
