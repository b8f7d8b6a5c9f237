"""The closed loop: frames, fit, draws, surface, labels where they matter, fit again on frames and draws.

Each round draws from a fixed mixture of all generators so far and keeps that density: its weights are unbiased given
the past, and the first, wide generator bounds their tails. Rounds are joined by shares that are fixed beforehand.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from ..coordinates.slow_coordinates import SlowCoordinates
from ..engine.random_numbers import named_rng
from ..free_energy.grid import bin_centres
from ..free_energy.surface import ALIGNMENT_CEILING, FreeEnergySurface, grid_edges
from ..generator.invertible import InvertibleGenerator
from ..generator.score_fit import Roles, fit_triangular, transported_gradients
from ..reference.chart import Chart, chart_for
from ..reference.gradients import in_chart_frame, log_density_gradients
from ..sampling.short_windows import ForceFrames, ShortWindows, sample_short_windows
from ..system.molecular_system import MolecularSystem
from ..units import FloatArray
from .draws import Draws, draw, join_draws
from .label_regression import LabelRegression, fit_label_regression

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

FRAME_WEIGHTS = (1.0, 0.3, 0.3, 0.05)
"""Of a window's frame in each round's fit, a draw of average weight having one; later rounds like the last."""


def _of_round(values: tuple[float, ...], number: int) -> float:
    return values[min(number, len(values) - 1)]


@dataclass(frozen=True)
class LoopOptions:
    """How the loop spends its evaluations.

    Args:
        windows: the first frames.
        n_draws: of each round.
        ceiling: kT above the minimum, up to which labels are placed.
    """

    windows: ShortWindows = field(default_factory=ShortWindows)
    n_draws: tuple[int, ...] = (2000, 4000, 6000, 12000)
    ceiling: float = 10.0


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
    """What one round of the loop gave.

    Attributes:
        generator: fitted on all that came before.
        draws: of this round.
        regression: of all draws so far.
        force_evaluations: so far.
    """

    generator: InvertibleGenerator
    draws: Draws
    regression: LabelRegression
    force_evaluations: int


def frame_gradients(system: MolecularSystem, chart: Chart, frames: ForceFrames) -> tuple[FloatArray, FloatArray]:
    """Coordinates of frames, and the gradients of the log target there, shape=(n, n_coordinates) each."""
    coordinates = chart.to_internal(frames.positions)
    forces = in_chart_frame(chart, frames.positions, frames.forces)
    gradients = log_density_gradients(chart, coordinates, forces, system.kT, system.constraints, system.masses)
    return coordinates, gradients


def mean_forces(generator: InvertibleGenerator, coordinates: FloatArray, gradients: FloatArray) -> FloatArray:
    """Slopes of the log target along the labels while the other coordinates move along, shape=(n, d)."""
    roles = Roles.of(generator.chart)
    conditions = coordinates[:, np.concatenate([roles.labels, roles.circular])]
    narrow = generator.map.narrow
    import torch

    values = generator.map.narrow_values(torch.as_tensor(coordinates)).numpy()
    of_narrow = gradients[:, generator.map.narrow_indices.numpy()]
    moved = transported_gradients(narrow, conditions, values, of_narrow, len(roles.labels))
    return np.asarray(gradients[:, roles.labels] + moved)


def learning_rounds(
    system: MolecularSystem,
    *,
    seed: int,
    options: LoopOptions = LoopOptions(),
    platform: str = "Reference",
    workers: int = 1,
) -> Iterator[Round]:
    """Run the loop; one round after the other.

    Args:
        system: the real system.
        seed: of all random numbers.
        options: how evaluations are spent.
        platform: an OpenMM platform.
        workers: local processes.
    """
    chart = chart_for(system.topology, system.slow, system.positions, system.constraints)
    frames = sample_short_windows(system, named_rng(seed, "frames"), options.windows, platform)
    coordinates, gradients = frame_gradients(system, chart, frames)
    n_frames, cost = len(coordinates), frames.force_evaluations
    edges = grid_edges(system.slow)
    places = bin_centres(edges)
    generators: list[InvertibleGenerator] = []
    drawn: list[Draws] = []
    regression: LabelRegression | None = None
    for number, n in enumerate(options.n_draws):
        rng = named_rng(seed, "round", number)
        weights = np.full(n_frames, _of_round(FRAME_WEIGHTS, number))
        if regression is not None:
            past = join_draws(drawn)
            ratios = past.log_weights - regression.log_density(past.labels)
            weights = np.concatenate([weights, np.exp(np.minimum(ratios, LOG_TRUNCATION))])
            used = [np.concatenate([a, b]) for a, b in ((coordinates, past.coordinates), (gradients, past.gradients))]
        else:
            used = [coordinates, gradients]
        keep = weights > 1e-6
        fitted = fit_triangular(chart, system.slow, used[0][keep], used[1][keep], weights[keep])
        generators.append(InvertibleGenerator(fitted, chart, system.slow))
        if regression is None:
            slopes = mean_forces(generators[0], coordinates, gradients)
            energies = -_integrated(system.slow, coordinates[:, chart.label_indices], slopes, places)
        else:
            energies = -regression.log_density(places)
        ceiling = options.ceiling + _of_round(PLACEMENT_MARGINS, number)
        placement = Placement.below(edges, energies.reshape([len(axis) - 1 for axis in edges]), ceiling)
        shares = np.full(len(generators), (1.0 - NEWEST_SHARE) / max(len(generators) - 1, 1))
        shares[-1] = NEWEST_SHARE if len(generators) > 1 else 1.0
        labels = placement.sample(n, rng)
        drawn.append(
            draw(system, generators, shares, labels, rng, round_number=number, platform=platform, workers=workers)
        )
        cost += drawn[-1].force_evaluations
        pooled = join_draws(drawn)
        ok = pooled.reason == "ok"
        slopes = np.zeros(pooled.labels.shape)
        slopes[ok] = mean_forces(generators[-1], pooled.coordinates[ok], pooled.gradients[ok])
        joined = np.array([_of_round(ROUND_SHARES, r) for r in pooled.round])
        regression = fit_label_regression(
            system.slow, pooled.labels, pooled.log_weights, slopes, joined, start=regression
        )
        yield Round(generators[-1], drawn[-1], regression, cost)


def _integrated(slow: SlowCoordinates, labels: FloatArray, slopes: FloatArray, places: FloatArray) -> FloatArray:
    """A first log density at places from mean forces alone, up to a constant."""
    from ..free_energy.cox_process import CORRELATION_LENGTHS
    from ..free_energy.label_functions import LabelFunctions

    functions = LabelFunctions(slow)
    parts = functions.with_slopes(labels)[1:]
    noise = 30.0
    matrix = np.diag(functions.prior_precision(CORRELATION_LENGTHS[2]))
    right = np.zeros(len(functions))
    for part, slope in zip(parts, np.clip(slopes, -80, 80).T, strict=True):
        matrix += part.T @ part / noise
        right += part.T @ slope / noise
    return np.asarray(functions(places) @ np.linalg.solve(matrix, right))


def surface_of(
    regression: LabelRegression, slow: SlowCoordinates, temperature: float, force_evaluations: int, kT: float
) -> FreeEnergySurface:
    """The regression on a grid, each bin the mean over it."""
    edges = grid_edges(slow)
    shape = tuple(len(axis) - 1 for axis in edges)
    places = bin_centres(edges)
    widths = np.array([axis[1] - axis[0] for axis in edges])
    n = 3
    offsets = (np.arange(n) + 0.5) / n - 0.5
    shifts = np.stack(np.meshgrid(*[offsets] * len(edges), indexing="ij"), axis=-1).reshape(-1, len(edges)) * widths
    logs = np.logaddexp.reduce([regression.log_density(places + shift) for shift in shifts], axis=0)
    energy = -(logs - logs.max())
    values = regression.functions(places)
    low = energy < ALIGNMENT_CEILING
    centred = values - values[low].mean(axis=0)
    error = np.sqrt(np.einsum("ij,jk,ik->i", centred, regression.covariance, centred, optimize=True))
    return FreeEnergySurface(
        energy=(kT * energy).reshape(shape),
        error=(kT * error).reshape(shape),
        edges=edges,
        names=slow.names,
        periods=slow.periods,
        temperature=temperature,
        force_evaluations=force_evaluations,
        units=slow.units,
    )
