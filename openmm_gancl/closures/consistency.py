"""Micro-macro consistency: is a lifted ensemble the one that restrained dynamics samples at the same label.

Lifts about a label, drawn with the restraint's density, are with their weights the ensemble of the window there.
Compared are the label asked for and that obtained, each internal coordinate's distribution (Wasserstein distance), and
energies.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import wasserstein_distance

from ..coordinates.geometry import wrap
from ..coordinates.restraint_energies import sample_restraint
from ..coordinates.slow_coordinates import SlowCoordinates, checked_labels, in_domain
from ..engine.platforms import resolved_platform
from ..engine.random_numbers import named_rng, named_seed
from ..engine.tasks import Workers
from ..errors import InputError
from ..generator.invertible import InvertibleGenerator
from ..lifting.lifter import Lifter
from ..lifting.lifts import Lifts
from ..reference.chart import Chart, InternalCoordinates
from ..sampling.frames import Frames
from ..sampling.own_frames import hydrogens_in_order
from ..sampling.swarms import sample_swarm
from ..sampling.windows import sample_windows
from ..system.molecular_system import MolecularSystem
from ..units import FloatArray, IntArray, whole_number

N_LIFTS, N_FRAMES, STRIDE, EQUILIBRATION_STEPS = 400, 200, 50, 1000
"""At each label: lifts; frames of the window, steps between them, and before."""

FREE_TIME, N_FREE = 1.0, 20
"""ps that some of the lifts of each label run free, and how many."""

ENERGY_BINS = 20
"""Of the overlap, with as many frames each."""

MOST_BEYOND_FRAMES = 0.25
"""Standard deviations by which a coordinate of weighted lifts may be farther from frames than these from themselves."""


@dataclass(frozen=True)
class ConsistencyRow:
    """One ensemble against the frames of restrained dynamics, over all labels.

    Attributes:
        ensemble: weighted lifts, unweighted lifts, or the first half of the frames, against the second.
        label_error: root mean square of the label obtained less that asked, in the labels' unit, the worst label.
        distance: mean over internal coordinates of the Wasserstein distance, in standard deviations of the frames.
        largest_distance: of all coordinates.
        farthest: that coordinate's name.
        energy_overlap: shared part of the distributions of the potential energy, one for the same.
    """

    ensemble: str
    label_error: float
    distance: float
    largest_distance: float
    farthest: str
    energy_overlap: float


@dataclass(frozen=True)
class Consistency:
    """The table of consistency.

    Attributes:
        labels: shape=(k, d), that were asked for.
        rows: one an ensemble.
        free_time: ps.
        free_label_change: root mean square change of the label in that time without any restraint: how slow it is.
        names: of the coordinates.
        distances: shape=(k, n_coordinates), of weighted lifts at each label.
        force_evaluations: what it cost.
    """

    labels: FloatArray
    rows: tuple[ConsistencyRow, ...]
    free_time: float
    free_label_change: float
    names: tuple[str, ...]
    distances: FloatArray
    force_evaluations: int

    def doubts(self) -> list[str]:
        """Sentences, where lifts and frames differ by more than frames among themselves."""
        weighted, _, frames = self.rows
        if weighted.distance <= frames.distance + MOST_BEYOND_FRAMES:
            return []
        return [
            f"lifts and restrained dynamics differ: internal coordinates by {weighted.distance:.2f} standard "
            f"deviations on average, {weighted.farthest} by {weighted.largest_distance:.2f}, halves of the frames by "
            f"{frames.distance:.2f}: one of them misses a mode, or the windows are too short"
        ]

    def table(self) -> list[str]:
        """Lines for people."""
        width = max(len(row.ensemble) for row in self.rows)
        lines = [f"{'ensemble':<{width}}  label error  distance  largest  energy overlap  farthest coordinate"]
        for row in self.rows:
            lines.append(
                f"{row.ensemble:<{width}}  {row.label_error:>11.2g}  {row.distance:>8.3f}  "
                f"{row.largest_distance:>7.2f}  {row.energy_overlap:>14.2f}  {row.farthest}"
            )
        return [*lines, f"change of the label in {self.free_time:g} ps without restraint: {self.free_label_change:.2g}"]


@dataclass(frozen=True)
class _Window:
    """Configurations about one label: their coordinates, shape=(n, m), energies and normalised weights, shape=(n,)."""

    coordinates: FloatArray
    energies: FloatArray
    weights: FloatArray

    def select(self, which: slice) -> "_Window":
        weights = self.weights[which]
        return _Window(self.coordinates[which], self.energies[which], weights / weights.sum())


def energy_overlap(one: FloatArray, other: FloatArray, weights: FloatArray, other_weights: FloatArray) -> float:
    """The shared part of two distributions, between zero and one, in bins with as many of the second in each.

    Args:
        one: shape=(n,).
        other: shape=(m,).
        weights: shape=(n,), of sum one.
        other_weights: shape=(m,), of sum one.
    """
    inner = np.quantile(other, np.linspace(0, 1, ENERGY_BINS + 1)[1:-1], weights=other_weights, method="inverted_cdf")
    found = [
        np.bincount(np.searchsorted(inner, values), part, ENERGY_BINS)
        for values, part in ((one, weights), (other, other_weights))
    ]
    return float(np.minimum(*found).sum())


def coordinate_distances(
    one: FloatArray, other: FloatArray, weights: FloatArray, other_weights: FloatArray, periods: FloatArray
) -> FloatArray:
    """Wasserstein distance of each coordinate in standard deviations of the second, shape=(m,).

    A periodic one is cut opposite to the second's circular mean.

    Args:
        one: shape=(n, m).
        other: shape=(n_other, m).
        weights: shape=(n,).
        other_weights: shape=(n_other,).
        periods: shape=(m,), ``inf`` where there is none.
    """
    found = np.empty(one.shape[1])
    for i, period in enumerate(periods):
        a, b = one[:, i], other[:, i]
        if np.isfinite(period):
            turn = 2 * np.pi / period
            centre = np.angle(other_weights @ np.exp(1j * turn * b)) / turn
            a, b = wrap(a - centre, period), wrap(b - centre, period)
        mean = other_weights @ b
        deviation = np.sqrt(other_weights @ (b - mean) ** 2)
        found[i] = wasserstein_distance(a, b, weights, other_weights) / max(deviation, 1e-12)
    return found


def _coordinates(chart: Chart, topology: object) -> tuple[tuple[str, ...], IntArray, FloatArray]:
    """Names, indices and periods of a chart's coordinates that are no labels; rotors of m equal wells have 2 pi / m."""
    chosen = np.setdiff1d(np.arange(chart.n_coordinates), chart.label_indices)
    if not isinstance(chart, InternalCoordinates):
        names = [f"particle {i // 3}, {'xyz'[i % 3]}" for i in range(chart.n_coordinates)]
        periods = np.where(chart.periodic, 2 * np.pi, np.inf)
    else:
        every = [atom.name for atom in topology.atoms()]  # type: ignore[attr-defined]
        rows = [*chart.bonds.tolist(), *chart.angles.tolist(), *chart.torsions.tolist()]
        names = ["-".join(every[atom] for atom in row) for row in rows]
        folds = np.concatenate([np.ones(chart.n_bonds + chart.n_angles), chart.torsion_folds])
        periods = np.where(chart.periodic, 2 * np.pi / folds, np.inf)
    return tuple(names[i] for i in chosen), chosen, periods[chosen]


def consistency_of(
    lifts: Lifts, window: IntArray, asked: FloatArray, frames: Frames, chart: Chart, system: MolecularSystem
) -> Consistency:
    """Compare lifts about labels with the frames of restrained windows there.

    Args:
        lifts: with labels from the restraints' densities.
        window: shape=(n,), about which label each is.
        asked: shape=(n, d), the label that each was asked for.
        frames: of windows at the same labels, in the same order.
        chart: of the coordinates.
        system: the system.

    Raises:
        InputError: a label without frames or without lifts that weigh anything.
    """
    names, chosen, periods = _coordinates(chart, system.topology)
    labels = frames.labels[np.unique(frames.window, return_index=True)[1]]
    ordered, _ = hydrogens_in_order(system, frames.positions)
    of_frames = chart.to_internal(ordered)[:, chosen]
    pairs, evenly, halves = list[tuple[_Window, _Window]](), [], []
    for k in range(int(window.max()) + 1):
        lifted, there = lifts.ok & (window == k), frames.window == k
        if lifted.sum() < 2 or there.sum() < 4:
            raise InputError(
                f"label number {k + 1} has {lifted.sum()} lifts with a weight and {there.sum()} frames of its window: "
                "give more lifts, or longer windows"
            )
        weights = np.exp(lifts.log_weights[lifted] - lifts.log_weights[lifted].max())
        coordinates = chart.to_internal(lifts.positions[lifted])[:, chosen]
        even = np.full(there.sum(), 1 / there.sum())
        window_frames = _Window(of_frames[there], frames.energies[there], even)
        pairs.append((_Window(coordinates, lifts.energies[lifted], weights / weights.sum()), window_frames))
        evenly.append((replace(pairs[-1][0], weights=np.full(len(weights), 1 / len(weights))), window_frames))
        half = len(even) // 2
        halves.append((window_frames.select(slice(half)), window_frames.select(slice(half, None))))
    ok = lifts.ok
    obtained = system.slow.transform(lifts.positions[ok])
    error = _root_mean_square(obtained, asked[ok], system.slow)
    of_lifts = _distances(pairs, periods)
    rows = (
        _row("lifts, weighted", error, of_lifts, pairs, names),
        _row("lifts, unweighted", error, _distances(evenly, periods), evenly, names),
        _row("frames, half against half", 0.0, _distances(halves, periods), halves, names),
    )
    return Consistency(labels, rows, 0.0, 0.0, names, of_lifts, lifts.force_evaluations + frames.force_evaluations)


def _root_mean_square(obtained: FloatArray, asked: FloatArray, slow: SlowCoordinates) -> float:
    """Of the label that differs most."""
    return float(np.sqrt((wrap(obtained - asked, slow.periods) ** 2).mean(axis=0)).max())


def _distances(pairs: Sequence[tuple[_Window, _Window]], periods: FloatArray) -> FloatArray:
    return np.array(
        [coordinate_distances(a.coordinates, b.coordinates, a.weights, b.weights, periods) for a, b in pairs]
    )


def _row(
    name: str,
    error: float,
    distances: FloatArray,
    pairs: Sequence[tuple[_Window, _Window]],
    names: tuple[str, ...],
) -> ConsistencyRow:
    overlap = np.mean([energy_overlap(a.energies, b.energies, a.weights, b.weights) for a, b in pairs])
    worst = np.unravel_index(distances.argmax(), distances.shape)
    return ConsistencyRow(
        name, error, float(distances.mean()), float(distances[worst]), names[worst[1]], float(overlap)
    )


def check_consistency(
    system: MolecularSystem,
    generator: InvertibleGenerator,
    labels: FloatArray,
    *,
    n_lifts: int = N_LIFTS,
    n_frames: int = N_FRAMES,
    stride: int = STRIDE,
    free_time: float = FREE_TIME,
    seed: int = 0,
    platform: str = "auto",
    workers: Workers = 1,
) -> Consistency:
    """Lift about labels, sample restrained windows there, and compare.

    Args:
        system: the real system.
        generator: of the lifts.
        labels: shape=(k, d).
        n_lifts: about each label.
        n_frames: of each window.
        stride: steps between frames.
        free_time: ps that some accepted lifts then run without restraint.
        seed: of all random numbers.
        platform: an OpenMM platform, or ``auto`` to measure.
        workers: local processes, or an executor.

    Raises:
        InputError: labels outside the domain, or a label without frames or weighted lifts.
    """
    labels, n_lifts = checked_labels(labels, system.slow), whole_number("n_lifts", n_lifts, 2)
    platform = resolved_platform(platform, system.system, system.positions)
    rng = named_rng(seed, "consistency")
    near = sample_restraint(system.slow, system.force_constants / system.kT, np.repeat(labels, n_lifts, axis=0), rng)
    window = np.repeat(np.arange(len(labels)), n_lifts)
    # beyond an open end of the domain nothing is compared
    inside = in_domain(near, system.slow)
    near, window = near[inside], window[inside]
    lifts = Lifter(system, generator, platform=platform, workers=workers).lift(
        near, seed=named_seed(seed, "consistency", "lifts")
    )
    frames = sample_windows(
        system,
        labels,
        steps_per_window=n_frames * stride,
        frames_per_window=n_frames,
        equilibration_steps=EQUILIBRATION_STEPS,
        seed=named_seed(seed, "consistency", "windows"),
        platform=platform,
        workers=workers,
    )
    frames = frames.select(in_domain(frames.cv_values, system.slow))
    found = consistency_of(lifts, window, near, frames, generator.chart, system)
    n_steps = max(1, round(free_time / system.time_step))
    change, n_free = _free_change(system, lifts, window, n_steps, seed, platform)
    cost = found.force_evaluations + n_steps * n_free
    return replace(found, labels=labels, free_time=free_time, free_label_change=change, force_evaluations=cost)


def _free_change(
    system: MolecularSystem, lifts: Lifts, window: IntArray, n_steps: int, seed: int, platform: str
) -> tuple[float, int]:
    """Root mean square change of the label of some accepted lifts without restraint, and how many they are."""
    rng, accepted = named_rng(seed, "consistency", "accepted"), list[IntArray]()
    for k in range(int(window.max()) + 1):
        members = np.flatnonzero(window == k)
        chances = np.exp(lifts.log_weights[members] - lifts.log_weights[members].max())
        accepted.append(rng.choice(members, N_FREE, p=chances / chances.sum()))
    starts = lifts.positions[np.concatenate(accepted)]
    free = sample_swarm(system, starts, n_steps, seed=named_seed(seed, "consistency", "free"), platform=platform)
    stayed = ~free.failed
    return _root_mean_square(free.labels[stayed, -1], free.labels[stayed, 0], system.slow), len(starts)
