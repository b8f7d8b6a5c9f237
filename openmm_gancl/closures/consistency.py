"""Micro-macro consistency: is a lifted ensemble the one that restrained dynamics samples at the same label.

Lifts about a label, drawn with the restraint's density, are with their weights the ensemble of the window there.
Compared are the label asked for and that obtained, each internal coordinate's distribution (Wasserstein distance), and
energies; and the same of what the lifts would be without one step or another: without weights, without the network on
top of the triangular map, drawn from independent terms and relaxed or not, or minimised instead of weighted.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import openmm
from scipy.stats import wasserstein_distance

from ..coordinates.geometry import wrap
from ..coordinates.restraint_energies import sample_restraint
from ..coordinates.slow_coordinates import SlowCoordinates, checked_labels, in_domain
from ..engine.platforms import make_context, resolved_platform
from ..engine.random_numbers import Name, named_rng, named_seed
from ..engine.tasks import Workers
from ..errors import InputError, checked
from ..generator.invertible import InvertibleGenerator
from ..generator.model import LiftingModel
from ..lifting.lifter import Lifter
from ..lifting.lifts import Lifts
from ..reference.chart import Chart, InternalCoordinates
from ..sampling.frames import Frames
from ..sampling.langevin import langevin_integrator
from ..sampling.own_frames import hydrogens_in_order
from ..sampling.swarms import sample_swarm
from ..sampling.windows import sample_windows
from ..system.molecular_system import MolecularSystem
from ..units import BoolArray, FloatArray, IntArray, numbers, whole_number

N_LIFTS, N_FRAMES, STRIDE, EQUILIBRATION_STEPS = 400, 200, 50, 1000
"""At each label: lifts; frames of the window, steps between them, and before."""

FREE_TIME, N_FREE = 1.0, 20
"""ps that some of the lifts of each label run free, and how many."""

N_MINIMISED, MINIMISER_ITERATIONS = 40, 100
"""Of the lifts of each label, to show what minimising makes of them, and iterations of each."""

N_RELAXED, RELAX_STEPS = 100, 200
"""Lifts of a product generator about each label, and steps of each from its reference to the real potential."""

NO_TIME = 1e-6
"""ps, of the one step of lifts that are not relaxed, in which nothing moves."""

ENERGY_BINS = 20
"""Of the overlap, with as many frames each."""

MOST_BEYOND_FRAMES = 0.25
"""Standard deviations by which a coordinate of weighted lifts may be farther from frames than these from themselves."""


@dataclass(frozen=True)
class ConsistencyRow:
    """One ensemble against the frames of restrained dynamics, over all labels.

    Attributes:
        ensemble: weighted lifts, unweighted lifts, lifts made otherwise, or the first half of the frames, against the
            second.
        label_error: root mean square of the label obtained less that asked, in the labels' unit, the worst label.
        distance: mean over internal coordinates of the Wasserstein distance, in standard deviations of the frames.
        largest_distance: of all coordinates.
        farthest: that coordinate's name.
        energy_overlap: shared part of the distributions of the potential energy, one for the same.
        effective: effective configurations of a label, the fewest: a few of them are far from any ensemble.
    """

    ensemble: str
    label_error: float
    distance: float
    largest_distance: float
    farthest: str
    energy_overlap: float
    effective: float


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
        weighted, frames = self.rows[0], self.rows[-1]
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
        head = "label error  distance  largest  energy overlap  effective  farthest coordinate"
        lines = [f"{'ensemble':<{width}}  {head}"]
        for row in self.rows:
            lines.append(
                f"{row.ensemble:<{width}}  {row.label_error:>11.2g}  {row.distance:>8.3f}  "
                f"{row.largest_distance:>7.2f}  {row.energy_overlap:>14.2f}  {row.effective:>9.0f}  {row.farthest}"
            )
        return [*lines, f"change of the label in {self.free_time:g} ps without restraint: {self.free_label_change:.2g}"]


@dataclass(frozen=True, eq=False)
class LiftedEnsemble:
    """Configurations about labels.

    Attributes:
        name: for people.
        positions: shape=(n, n_atoms, 3), nm.
        energies: shape=(n,), kJ/mol, without restraint.
        log_weights: shape=(n,), to the ensemble of the restrained window; minus infinity where there is none.
        window: shape=(n,), about which label each is.
        asked: shape=(n, d), the label that each was asked for.
        force_evaluations: what they cost.
    """

    name: str
    positions: FloatArray
    energies: FloatArray
    log_weights: FloatArray
    window: IntArray
    asked: FloatArray
    force_evaluations: int

    @classmethod
    def of_lifts(cls, name: str, lifts: Lifts, window: IntArray, asked: FloatArray) -> "LiftedEnsemble":
        """Lifts with labels from the restraints' densities, or lifts that were restrained."""
        weights = np.where(lifts.ok, lifts.log_weights, -np.inf)
        return cls(name, lifts.positions, lifts.energies, weights, window, asked, lifts.force_evaluations)

    @property
    def ok(self) -> BoolArray:
        """shape=(n,), which have a weight."""
        return np.isfinite(self.log_weights)

    @property
    def weighted(self) -> bool:
        """Whether weights differ."""
        return bool(self.ok.any() and np.ptp(self.log_weights[self.ok]) > 0)

    def without_weights(self) -> "LiftedEnsemble":
        """The same with equal weights."""
        return replace(self, log_weights=np.where(self.ok, 0.0, -np.inf))


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


@checked
def consistency_of(
    ensembles: Sequence[LiftedEnsemble], frames: Frames, chart: Chart, system: MolecularSystem
) -> Consistency:
    """Compare lifts about labels with the frames of restrained windows there.

    Args:
        ensembles: the first is the one in question, the others show what is different without a step.
        frames: of windows at the same labels, in the same order.
        chart: of the coordinates.
        system: the system.

    Raises:
        InputError: a label without frames or without lifts that weigh anything.
    """
    names, chosen, periods = _coordinates(chart, system.topology)
    ordered, _ = hydrogens_in_order(system, frames.positions)
    of_frames, windows = chart.to_internal(ordered)[:, chosen], list[_Window]()
    for k in range(int(ensembles[0].window.max()) + 1):
        there = frames.window == k
        if there.sum() < 4:
            raise InputError(f"label number {k + 1} has {there.sum()} frames of its window: give longer windows")
        windows.append(_Window(of_frames[there], frames.energies[there], np.full(there.sum(), 1 / there.sum())))
    rows, distances = list[ConsistencyRow](), list[FloatArray]()
    for one in ensembles:
        parts = [(f"{one.name}, weighted", one), (f"{one.name}, unweighted", one.without_weights())]
        for name, part in parts if one.weighted else [(one.name, one)]:
            pairs = [(_of_label(part, k, chart, chosen), there) for k, there in enumerate(windows)]
            obtained = system.slow.transform(part.positions[part.ok])
            error = _root_mean_square(obtained, part.asked[part.ok], system.slow)
            distances.append(_distances(pairs, periods))
            rows.append(_row(name, error, distances[-1], pairs, names))
    half = [len(there.weights) // 2 for there in windows]
    halves = [(there.select(slice(n)), there.select(slice(n, None))) for n, there in zip(half, windows, strict=True)]
    error = _root_mean_square(frames.cv_values, frames.labels, system.slow)
    rows.append(_row("frames, half against half", error, _distances(halves, periods), halves, names))
    labels = frames.labels[np.unique(frames.window, return_index=True)[1]]
    cost = frames.force_evaluations + sum(one.force_evaluations for one in ensembles)
    return Consistency(labels, tuple(rows), 0.0, 0.0, names, distances[0], cost)


def _of_label(ensemble: LiftedEnsemble, k: int, chart: Chart, chosen: IntArray) -> _Window:
    """The configurations of a label.

    Raises:
        InputError: fewer than two have a weight.
    """
    lifted = ensemble.ok & (ensemble.window == k)
    if lifted.sum() < 2:
        raise InputError(f"label number {k + 1} has {lifted.sum()} {ensemble.name} with a weight: give more")
    weights = np.exp(ensemble.log_weights[lifted] - ensemble.log_weights[lifted].max())
    coordinates = chart.to_internal(ensemble.positions[lifted])[:, chosen]
    return _Window(coordinates, ensemble.energies[lifted], weights / weights.sum())


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
        ensemble=name,
        label_error=error,
        distance=float(distances.mean()),
        largest_distance=float(distances[worst]),
        farthest=names[worst[1]],
        energy_overlap=float(overlap),
        effective=min(1 / float((a.weights**2).sum()) for a, _ in pairs),
    )


@checked
def check_consistency(
    system: MolecularSystem,
    generator: InvertibleGenerator,
    labels: FloatArray,
    *,
    product: LiftingModel | None = None,
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
        product: a product generator of the same system (`train`, `train_model`): rows of its lifts as they are drawn,
            and relaxed, are added.
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
    lifting = _Lifting(system, labels, n_lifts, seed, platform, workers)
    ensembles = _ensembles(lifting, generator, product)
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
    found = consistency_of(ensembles, frames, generator.chart, system)
    n_steps = max(1, round(free_time / system.time_step))
    change, n_free = _free_change(system, ensembles[0], n_steps, seed, platform)
    cost = found.force_evaluations + n_steps * n_free
    return replace(found, labels=labels, free_time=free_time, free_label_change=change, force_evaluations=cost)


@dataclass(frozen=True)
class _Lifting:
    """Lifts about labels, whichever generator draws them.

    Attributes:
        system: the real system.
        labels: shape=(k, d).
        n_lifts: about each label.
        seed: of all of them.
        platform: of OpenMM.
        workers: local processes, or an executor.
    """

    system: MolecularSystem
    labels: FloatArray
    n_lifts: int
    seed: int
    platform: str
    workers: Workers

    def rng(self, *name: Name) -> np.random.Generator:
        """The random generator of a stream of this name."""
        return named_rng(self.seed, "consistency", *name)

    def lifted(
        self,
        name: str,
        generator: InvertibleGenerator | LiftingModel,
        labels: FloatArray,
        window: IntArray,
        stream: str,
        **how: Any,
    ) -> LiftedEnsemble:
        """One lift of each label, of a window each, with random numbers of a stream."""
        lifter = Lifter(self.system, generator, platform=self.platform, workers=self.workers, **how)
        lifts = lifter.lift(labels, seed=named_seed(self.seed, "consistency", stream))
        return LiftedEnsemble.of_lifts(name, lifts, window, labels)

    def near(self) -> tuple[FloatArray, IntArray]:
        """Labels with the restraints' densities inside the domain, beyond which nothing is compared; their windows."""
        window = np.repeat(np.arange(len(self.labels)), self.n_lifts)
        strengths = self.system.force_constants / self.system.kT
        near = sample_restraint(self.system.slow, strengths, self.labels[window], self.rng())
        inside = in_domain(near, self.system.slow)
        return near[inside], window[inside]


def _ensembles(lifting: _Lifting, generator: InvertibleGenerator, product: LiftingModel | None) -> list[LiftedEnsemble]:
    """Lifts at labels near those of the windows, and what they would be without a step."""
    at = lifting.near()
    found = [lifting.lifted("lifts", generator, *at, "lifts")]
    if generator.has_network:
        found.append(lifting.lifted("triangular map alone", generator.without_network(), *at, "lifts"))
    if product is not None:
        found += _of_product(lifting, product)
    accepted = _accepted(found[0], N_MINIMISED, lifting.rng("minimised"))
    return [*found, _minimised(lifting.system, found[0], accepted, lifting.platform)]


def _of_product(lifting: _Lifting, product: LiftingModel) -> list[LiftedEnsemble]:
    """Restrained lifts of independent terms: as they are drawn, and relaxed."""
    found, as_drawn = list[LiftedEnsemble](), {"relax_steps": 1, "time_step": NO_TIME}
    for name, n, how in (
        ("product generator, not relaxed", lifting.n_lifts, as_drawn),
        ("product generator, relaxed", min(lifting.n_lifts, N_RELAXED), {"relax_steps": RELAX_STEPS}),
    ):
        window = np.repeat(np.arange(len(lifting.labels)), n)
        found.append(lifting.lifted(name, product, lifting.labels[window], window, name, **how))
    return found


def _accepted(ensemble: LiftedEnsemble, n: int, rng: np.random.Generator) -> IntArray:
    """Indices of n configurations about each label, by their weights."""
    found = list[IntArray]()
    for k in range(int(ensemble.window.max()) + 1):
        members = np.flatnonzero((ensemble.window == k) & ensemble.ok)
        if not len(members):
            raise InputError(f"label number {k + 1} has 0 {ensemble.name} with a weight: give more")
        chances = np.exp(ensemble.log_weights[members] - ensemble.log_weights[members].max())
        found.append(rng.choice(members, n, p=chances / chances.sum()))
    return np.concatenate(found)


def _minimised(system: MolecularSystem, ensemble: LiftedEnsemble, chosen: IntArray, platform: str) -> LiftedEnsemble:
    """Some configurations at the nearest lowest energy, without restraint."""
    integrator = langevin_integrator(system.temperature, system.friction, system.time_step)
    context = make_context(system.system, integrator, platform, 1)
    positions, energies = np.empty((len(chosen), system.n_atoms, 3)), np.empty(len(chosen))
    for i, start in enumerate(ensemble.positions[chosen]):
        context.setPositions(start)
        openmm.LocalEnergyMinimizer.minimize(context, 1.0, MINIMISER_ITERATIONS)
        state = context.getState(positions=True, energy=True)
        positions[i], energies[i] = numbers(state.getPositions(asNumpy=True)), numbers(state.getPotentialEnergy())
    return LiftedEnsemble(
        name="lifts, minimised",
        positions=positions,
        energies=energies,
        log_weights=np.zeros(len(chosen)),
        window=ensemble.window[chosen],
        asked=ensemble.asked[chosen],
        # a line search takes about two an iteration
        force_evaluations=2 * MINIMISER_ITERATIONS * len(chosen),
    )


def _free_change(
    system: MolecularSystem, lifts: LiftedEnsemble, n_steps: int, seed: int, platform: str
) -> tuple[float, int]:
    """Root mean square change of the label of some accepted lifts without restraint, and how many they are."""
    starts = lifts.positions[_accepted(lifts, N_FREE, named_rng(seed, "consistency", "accepted"))]
    free = sample_swarm(system, starts, n_steps, seed=named_seed(seed, "consistency", "free"), platform=platform)
    stayed = ~free.failed
    return _root_mean_square(free.labels[stayed, -1], free.labels[stayed, 0], system.slow), len(starts)
