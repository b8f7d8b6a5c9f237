"""The closed loop: frames, fit, draws, surface, labels where they matter, fit again on frames and draws.

Each round draws from a fixed mixture of all generators so far and keeps that density: its weights are unbiased given
the past, and the first, wide generator bounds their tails. Rounds are joined by shares that are fixed beforehand.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from ..coordinates.slow_coordinates import ParticleCoordinates
from ..engine.random_numbers import named_rng
from ..engine.threads import torch_threads
from ..errors import InputError
from ..free_energy.grid import bin_centres
from ..free_energy.surface import FreeEnergySurface, grid_edges
from ..generator.invertible import InvertibleGenerator
from ..generator.score_fit import fit_triangular, transported_gradients
from ..reference.chart import CartesianCoordinates, InternalCoordinates, chart_for
from ..reference.gradients import in_chart_frame, log_density_gradients
from ..reference.wide_components import other_components, with_angles
from ..reference.wide_torsions import torsions_of, wide_torsion_indices, with_more_labels
from ..sampling.short_windows import ForceFrames, ShortWindows, sample_short_windows
from ..system.molecular_system import MolecularSystem
from ..units import FloatArray, IntArray
from .draws import Draws, draw, join_draws
from .label_regression import LabelRegression, fit_label_regression, integrate_mean_forces
from .wide_densities import (
    WideRegressions,
    condition_indices,
    fit_wide_regressions,
    set_wide_densities,
    wide_log_densities,
    wide_regressions_of_mean_forces,
)

NEWEST_SHARE = 0.9
"""Of a round's draws, from the newest generator; the older ones share the rest."""

EVERYWHERE_SHARE = 0.1
"""Of a round's labels, evenly over the domain."""

ROUND_SHARES = (0.1, 0.3, 0.6, 1.0)
"""How much a draw of each round counts in the surface; later rounds like the last."""

PLACEMENT_MARGINS = (6.0, 2.0, 0.0)
"""kT by which labels of each round go beyond the ceiling; later rounds like the last."""

LOG_TRUNCATION = 2.5
"""Of a draw's weight over its local mean, where it is a training frame."""

LEAST_TRAINING_WEIGHT = 1e-6
"""A draw that weighs less is no training frame."""

UNIFORM_SHARES = (0.3, 0.15, 0.05)
"""Of the wide torsions' densities in each round, shared among them; later rounds like the last."""

WIDE_FORCE_CONSTANT = 200.0
"""kJ/mol, of wide torsions in the first windows."""

FRAME_WEIGHTS = (1.0, 0.3, 0.3, 0.05)
"""Of a window's frame in each round's fit, a draw of average weight having one; later rounds like the last."""


def _of_round(values: tuple[float, ...], number: int) -> float:
    return values[min(number, len(values) - 1)]


@dataclass(frozen=True)
class LoopOptions:
    """How the loop spends its evaluations.

    Args:
        windows: the first frames; as many again for each label or wide torsion from the third on.
        n_first: draws of the first round; the second has twice as many, later ones as many as all before.
        ceiling: kT above the minimum, up to which labels are placed.
    """

    windows: ShortWindows = field(default_factory=ShortWindows)
    n_first: int = 2000
    ceiling: float = 10.0

    def windows_over(self, n_axes: int) -> ShortWindows:
        """The windows of so many labels and wide torsions."""
        return replace(self.windows, n=self.windows.n * max(1, n_axes - 1))

    def n_draws(self, max_evaluations: int, n_axes: int = 1) -> list[int]:
        """Of each round, so that everything together costs what is allowed.

        Raises:
            InputError: too few evaluations for one round.
        """
        of_windows = self.windows_over(n_axes).force_evaluations
        left = max_evaluations - of_windows
        if left < self.n_first:
            least = of_windows + self.n_first
            raise InputError(f"`max_evaluations` {max_evaluations} is less than windows and one round need: {least}")
        rounds: list[int] = []
        while left > 0:
            planned = max(sum(rounds), (len(rounds) + 1) * self.n_first)
            # a rest that is smaller than its round belongs to this one
            rounds.append(left if left < 2 * planned else planned)
            left -= rounds[-1]
        return rounds


@dataclass(frozen=True)
class Placement:
    """p(s): even within the cells of a grid.

    Attributes:
        edges: of each label.
        probabilities: shape=(n_0, ...), of the cells.
    """

    edges: tuple[FloatArray, ...]
    probabilities: FloatArray

    @classmethod
    def below(cls, edges: tuple[FloatArray, ...], energies: FloatArray, ceiling: float) -> "Placement":
        """Even over all cells below a ceiling, with a share everywhere.

        Args:
            edges: of the grid.
            energies: shape=(n_0, ...), kT.
            ceiling: above the lowest, kT.
        """
        low = energies < energies.min() + ceiling
        even = np.full(energies.shape, EVERYWHERE_SHARE / energies.size)
        return cls(edges, even + (1.0 - EVERYWHERE_SHARE) * low / low.sum())

    def sample(self, n: int, rng: np.random.Generator) -> FloatArray:
        """Labels, shape=(n, d)."""
        cells = rng.choice(self.probabilities.size, n, p=self.probabilities.ravel())
        widths = np.array([axis[1] - axis[0] for axis in self.edges])
        return np.asarray(bin_centres(self.edges)[cells] + (rng.random((n, len(widths))) - 0.5) * widths)


@dataclass(frozen=True)
class Round:
    """One round of the loop.

    Attributes:
        force_evaluations: of the real potential, of all rounds so far and the windows.
        effective_fraction: effective draws to a draw of this round, of weights over their local mean.
        mean_ratio: of these ratios: one, but for chance, where the surface of all rounds fits this one.
        median_error: of the surface, kJ/mol.
    """

    force_evaluations: int
    effective_fraction: float
    mean_ratio: float
    median_error: float


@dataclass(frozen=True)
class Learned:
    """What the loop learned.

    Attributes:
        generator: fitted to all draws.
        draws: of all rounds.
        regression: of their weights and mean forces.
        surface: the free-energy surface over the labels.
        history: one entry a round.
    """

    generator: InvertibleGenerator
    draws: Draws
    regression: LabelRegression
    surface: FreeEnergySurface
    history: tuple[Round, ...]


def mean_forces(generator: InvertibleGenerator, coordinates: FloatArray, gradients: FloatArray) -> FloatArray:
    """Slopes of the log target along labels and wide torsions while narrow ones move along, shape=(n, d + n_wide)."""
    of_map = generator.map
    labels, circular = of_map.label_indices.numpy(), of_map.circular_indices.numpy()
    conditions = coordinates[:, np.concatenate([labels, circular])]
    values = of_map.narrow_values(torch.as_tensor(coordinates)).numpy()
    of_narrow = gradients[:, of_map.narrow_indices.numpy()]
    indices = condition_indices(of_map)
    moved = transported_gradients(of_map.narrow, conditions, values, of_narrow, len(indices), of_map.periodic.numpy())
    return np.asarray(gradients[:, indices] + moved)


@dataclass(frozen=True)
class _Structures:
    """What a generator is fitted to: coordinates, gradients of the log target, weights, shapes (n, ...)."""

    coordinates: FloatArray
    gradients: FloatArray
    weights: FloatArray


class _Loop:
    """The state of the loop between rounds.

    Args:
        system: the real system.
        seed: of all random numbers.
        options: how evaluations are spent.
        platform: an OpenMM platform.
        workers: local processes.
    """

    def __init__(self, system: MolecularSystem, seed: int, options: LoopOptions, platform: str, workers: int):
        self.system, self.seed, self.options = system, seed, options
        self.platform, self.workers = platform, workers
        self.chart = chart_for(system.topology, system.slow, system.positions, system.constraints)
        if len(self.chart.label_indices) != len(system.slow.names):
            raise InputError("labels of a module are no coordinates of a chart: label torsions or particle components")
        self.wide = wide_torsion_indices(system.topology, self.chart, system.state)
        self.edges = grid_edges(system.slow)
        self.generators: list[InvertibleGenerator] = []
        self.drawn: list[Draws] = []
        self.regression: LabelRegression | None = None
        self.wide_regressions: WideRegressions | None = None
        frames = self._first_frames()
        self.force_evaluations = frames.force_evaluations
        self.frames = self._structures_of(frames)

    def _first_frames(self) -> ForceFrames:
        """Of windows over labels and wide torsions, or that begin with the other components of particles anywhere."""
        system, rng = self.system, named_rng(self.seed, "frames")
        windows, displaced = self.options.windows_over(len(self._conditions)), None
        if isinstance(self.chart, InternalCoordinates) and len(self.wide):
            torsions = torsions_of(system.topology, self.chart, self.wide)
            system = with_more_labels(system, torsions, WIDE_FORCE_CONSTANT)
        if isinstance(system.slow, ParticleCoordinates):
            displaced = other_components(system.slow, system.positions)
        frames = sample_short_windows(system, rng, windows, self.platform, displaced)
        if isinstance(self.chart, CartesianCoordinates) and displaced is not None:
            self.chart = with_angles(self.chart, frames.positions, displaced)
            self.wide = wide_torsion_indices(system.topology, self.chart, system.state)
        return frames

    def _structures_of(self, frames: ForceFrames) -> _Structures:
        chart, system = self.chart, self.system
        coordinates = chart.to_internal(frames.positions)
        forces = in_chart_frame(chart, frames.positions, frames.forces)
        gradients = log_density_gradients(chart, coordinates, forces, system.kT, system.constraints, system.masses)
        return _Structures(coordinates, gradients, np.ones(len(coordinates)))

    def _training_structures(self) -> _Structures:
        """Frames, and all draws with their weights over the local mean, truncated: they train, and estimate nothing."""
        frames, number = self.frames, len(self.drawn)
        weights = np.full(len(frames.weights), _of_round(FRAME_WEIGHTS, number))
        if self.regression is None:
            return _Structures(frames.coordinates, frames.gradients, weights)
        past = join_draws(self.drawn)
        if self.wide_regressions is None:
            ratios = past.log_weights - self.regression.log_density(past.labels)
        else:
            ratios = past.log_weights + self._log_wide(past)[:, -1]
            ratios -= self.wide_regressions.log_density(past.coordinates[:, self._conditions])
            # forces at a structure are right whatever its weight: even weights are noise that is not added
            ratios = np.minimum(0.5 * ratios, 0.0)
        of_draws = np.exp(np.minimum(ratios, LOG_TRUNCATION))
        used = of_draws > LEAST_TRAINING_WEIGHT
        return _Structures(
            np.concatenate([frames.coordinates, past.coordinates[used]]),
            np.concatenate([frames.gradients, past.gradients[used]]),
            np.concatenate([weights, of_draws[used]]),
        )

    def fit(self) -> None:
        """Add a generator, fitted to frames and to all draws so far."""
        data = self._training_structures()
        fitted = fit_triangular(self.chart, self.system.slow, data.coordinates, data.gradients, data.weights, self.wide)
        generator = InvertibleGenerator(fitted, self.chart, self.system.slow)
        if len(self.wide):
            if self.wide_regressions is None:
                slopes = mean_forces(generator, data.coordinates, data.gradients)
                conditions = data.coordinates[:, self._conditions]
                self.wide_regressions = wide_regressions_of_mean_forces(self.system.slow, conditions, slopes)
            share = _of_round(UNIFORM_SHARES, len(self.drawn)) / len(self.wide)
            set_wide_densities(fitted, self.wide_regressions, data.coordinates[:, self._conditions], share)
        self.generators.append(generator)

    @property
    def _conditions(self) -> IntArray:
        """Coordinates that are labels or wide torsions."""
        return np.concatenate([self.chart.label_indices, self.wide])

    def _shares(self, n_generators: int) -> FloatArray:
        """Of the generators of a round."""
        n_older = n_generators - 1
        return np.array([(1.0 - NEWEST_SHARE) / n_older] * n_older + [NEWEST_SHARE]) if n_older else np.ones(1)

    def _log_wide(self, draws: Draws) -> FloatArray:
        """Log density of the wide torsions in the mixtures that they were drawn from, shape=(n, n_wide)."""
        result = np.empty((len(draws), len(self.wide)))
        for number in np.unique(draws.round):
            rows, n = draws.round == number, int(number) + 1
            result[rows] = wide_log_densities(self.generators[:n], self._shares(n), draws.coordinates[rows])
        return result

    def placement(self) -> Placement:
        """Where the next round's labels are drawn from."""
        places = bin_centres(self.edges)
        if self.regression is None and self.wide_regressions is not None:
            energies = -self.wide_regressions.log_marginal(places)
        elif self.regression is None:
            labels = self.frames.coordinates[:, self.chart.label_indices]
            slopes = mean_forces(self.generators[0], self.frames.coordinates, self.frames.gradients)
            energies = -integrate_mean_forces(self.system.slow, labels, slopes, places)
        else:
            energies = -self.regression.log_density(places)
        ceiling = self.options.ceiling + _of_round(PLACEMENT_MARGINS, len(self.drawn))
        return Placement.below(self.edges, energies.reshape([len(axis) - 1 for axis in self.edges]), ceiling)

    def draw(self, n: int) -> None:
        """A round of draws from the mixture of all generators so far."""
        number = len(self.drawn)
        rng = named_rng(self.seed, "round", number)
        shares = self._shares(len(self.generators))
        labels = self.placement().sample(n, rng)
        found = draw(
            self.system,
            self.generators,
            shares,
            labels,
            rng,
            round_number=number,
            platform=self.platform,
            workers=self.workers,
        )
        self.drawn.append(found)
        self.force_evaluations += found.force_evaluations

    def estimate(self) -> LabelRegression:
        """Regress all draws' weights and mean forces, each round with its share."""
        pooled = join_draws(self.drawn)
        ok, slopes = pooled.reason == "ok", np.zeros((len(pooled), len(self._conditions)))
        slopes[ok] = mean_forces(self.generators[-1], pooled.coordinates[ok], pooled.gradients[ok])
        shares = np.array(ROUND_SHARES)[np.minimum(pooled.round, len(ROUND_SHARES) - 1)]
        d = len(self.system.slow.names)
        self.regression = fit_label_regression(
            self.system.slow, pooled.labels, pooled.log_weights, slopes[:, :d], shares, start=self.regression
        )
        if len(self.wide):
            conditions, log_wide = pooled.coordinates[:, self._conditions], self._log_wide(pooled)
            self.wide_regressions = fit_wide_regressions(
                self.system.slow, conditions, pooled.log_weights, log_wide, slopes, shares, self.wide_regressions
            )
        return self.regression

    def surface(self) -> FreeEnergySurface:
        """The surface of the regression so far."""
        assert self.regression is not None
        return self.regression.surface(self.system.slow, self.system.temperature, self.force_evaluations)

    def record(self, surface: FreeEnergySurface) -> Round:
        """What the last round was worth."""
        assert self.regression is not None
        last = self.drawn[-1]
        eta = self.regression.log_density(last.labels)
        low = eta > eta.max() - self.options.ceiling
        ratios = np.exp(last.log_weights[low] - eta[low])
        effective = ratios.sum() ** 2 / max((ratios**2).sum(), 1e-300) / len(ratios)
        return Round(self.force_evaluations, float(effective), float(ratios.mean()), surface.median_error)


def learn(
    system: MolecularSystem,
    *,
    seed: int,
    max_evaluations: int = 35_000,
    target_error: float | None = None,
    options: LoopOptions = LoopOptions(),
    platform: str = "Reference",
    workers: int = 1,
    progress: Callable[[Round], None] | None = None,
) -> Learned:
    """Learn a generator and a free-energy surface of a system from its forces alone.

    A mode of other coordinates than the labels (a rotamer, say) that no training window reached is not proposed, and
    neither the weights nor the error bars can tell: label what turns, or compare with windows from other structures.

    Args:
        system: the real system; its labels are torsions or particle components.
        seed: of all random numbers.
        max_evaluations: of the real potential, windows and lost work included.
        target_error: kT; rounds end where the surface's median error bar is smaller.
        options: how evaluations are spent.
        platform: an OpenMM platform.
        workers: local processes.
        progress: called after each round.

    Raises:
        InputError: labels that are no coordinates of a chart, too few evaluations, or frames of no use.
    """
    history = []
    # the same bytes whatever the cores: sums of several threads are added in another order
    with torch_threads(1), threadpool_limits(1, user_api="blas"):
        loop = _Loop(system, seed, options, platform, workers)
        for n in options.n_draws(max_evaluations, len(loop._conditions)):
            loop.fit()
            loop.draw(n)
            regression = loop.estimate()
            surface = loop.surface()
            history.append(loop.record(surface))
            if progress is not None:
                progress(history[-1])
            if target_error is not None and surface.median_error < target_error * system.kT:
                break
        # for whoever draws next; what was drawn knows nothing of it
        loop.fit()
    return Learned(loop.generators[-1], join_draws(loop.drawn), regression, surface, tuple(history))
