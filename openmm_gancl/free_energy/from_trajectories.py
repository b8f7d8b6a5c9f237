"""Free-energy surfaces from trajectories: density estimates of equilibrated, weighted frames."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..coordinates.basin import Basin
from ..errors import InputError, checked
from ..trajectories.bias_checks import bias_differences
from ..trajectories.blocks import Blocks, independent_blocks
from ..trajectories.observations import Observations, read
from ..trajectories.series import Series
from ..units import BoolArray, FloatArray, IntArray, thermal_energy, whole_number
from .basin_visits import basin_notes, drift_doubts, spread_doubts
from .basins import Barrier, BasinPopulation, basin_barriers, box_masks, find_basins, lowest_bins, masses_of_basins
from .block_counts import BlockCounts, count_blocks
from .convergence import Convergence, convergence_of
from .density import Density, Method, estimate_density
from .grid import FineGrid, bin_centres
from .ranges import SurfaceRange, end_notes, resolution_doubts, surface_range, without_rounding
from .surface import ALIGNMENT_CEILING, DEFAULT_BINS, FreeEnergySurface
from .weight_statistics import effective_sample_size
from .window_checks import window_notes
from .window_consistency import basin_share_doubts
from .window_weights import MAX_BIASES, WindowWeights, weigh_windows

WARN_BELOW_N_SAMPLES, MIN_N_SAMPLES = 50, 10
"""Independent samples below which a surface comes with a warning, and below which it is not to be trusted."""

WARN_ABOVE_FRAME_WEIGHT, MAX_FRAME_WEIGHT = 0.05, 0.5
"""Of all the weight, on one frame: likewise."""


MIN_RUNS, MAX_SHARE_OF_RUN = 3, 0.9
"""Trajectories, of which one may have no more than so much of the weight, if it has less than half of the frames."""

FEW_FRAMES, MAX_LOG_GAP = 10, 300.0
"""Frames at most, that may outweigh all others by the exponential of so much."""


@dataclass(frozen=True)
class TrajectoryAnalysis:
    """A surface from trajectories, with the quantities that it is computed from.

    Attributes:
        surface: the surface.
        density: probabilities of the bins, and those of bootstrap replicates.
        blocks: the frames used.
        effective_samples: independent samples, the weights' unevenness included.
        basins: populations and free energies, relative to the first.
        minima: shape=(n_basins, d), the lowest place of each; NaN where nothing is known.
        barriers: the lowest ways between them.
        settling: computes `convergence`, which takes as long again as the surface, when it is first wanted.
        windows: weights and overlap of umbrella windows; None without.
        notes: what the user should know, one sentence each.
        doubts: why the result is not to be trusted; empty if it is.
    """

    surface: FreeEnergySurface
    density: Density
    blocks: Blocks
    effective_samples: float
    basins: list[BasinPopulation]
    minima: FloatArray
    barriers: list[Barrier]
    settling: Callable[[], Convergence] = field(repr=False)
    windows: WindowWeights | None
    notes: list[str]
    doubts: list[str]

    @cached_property
    def convergence(self) -> Convergence:
        """Over the length of the trajectories."""
        return self.settling()


def _as_basins(basins: Any) -> Sequence[Basin]:
    """One, or several."""
    found = [basins] if isinstance(basins, Basin) else list(basins)
    if wrong := [basin for basin in found if not isinstance(basin, Basin)]:
        raise InputError(f"`basins` holds {wrong[0]!r}: give Basin(name, boxes)")
    return found


def _surface(
    density: Density, edges: tuple[FloatArray, ...], series: Series, temperature: float, draws: FloatArray
) -> tuple[FreeEnergySurface, FloatArray]:
    """-kT log of a density, error bars after aligning the mean below 10 kT; and relative deviations of replicates."""
    kT, d = thermal_energy(temperature), len(edges)
    with np.errstate(divide="ignore"):
        energy = np.where(density.sampled, -np.log(density.probability), np.inf)
    energy -= energy.min()
    known = np.isfinite(energy)
    # linearised: a replicate may leave a bin empty, which has no logarithm
    deviations = np.zeros((len(draws), *energy.shape))
    deviations[:, known] = density.of(draws)[:, known] / density.probability[known] - 1.0
    deviations -= deviations[:, energy < ALIGNMENT_CEILING].mean(axis=1).reshape(-1, *[1] * d)
    surface = FreeEnergySurface(
        energy=kT * energy,
        error=kT * np.where(known, deviations.std(axis=0), np.inf),
        edges=edges,
        names=series.names[:d],
        periods=series.periods[:d],
        temperature=temperature,
        force_evaluations=0,
        units=series.units[:d],
        labels=series.labels[:d],
        resolved=series.resolved[:d],
    )
    return surface, deviations


def _sample_notes(effective: float, share: float, weighted: bool) -> tuple[list[str], list[str]]:
    """Notes and doubts about the number of samples and their weights."""
    notes: list[str] = []
    doubts: list[str] = []
    if effective < WARN_BELOW_N_SAMPLES:
        message = (
            f"only {effective:.0f} independent samples: the error bars are themselves uncertain; sample for longer"
        )
        (doubts if effective < MIN_N_SAMPLES else notes).append(message)
    if weighted and share > WARN_ABOVE_FRAME_WEIGHT:
        message = (
            f"one frame carries {100 * share:.0f} % of the weight: the bias leaves too few frames; sample for longer"
        )
        (doubts if share > MAX_FRAME_WEIGHT else notes).append(message)
    return notes, doubts


def _equilibration_notes(blocks: Blocks, series: Series) -> tuple[list[str], list[str]]:
    """Notes on runs that still equilibrate; a doubt where most frames are of such runs."""
    frames, still = np.diff(series.starts), np.array(blocks.equilibrating)
    if frames[still].sum() > 0.5 * frames.sum():
        which = "the trajectory" if len(frames) == 1 else f"each of {still.sum()} of {len(frames)} trajectories"
        return [], [
            f"more than half of {which} looks like equilibration: sample for longer, or give `discard` yourself"
        ]
    return [
        f"more than half of trajectory {i + 1} looks like equilibration: sample for longer, or give `discard` yourself"
        for i in np.flatnonzero(still)
    ], []


def _letters(n: int) -> list[str]:
    """Names of basins that were found."""
    return [chr(ord("A") + i) if i < 26 else f"A{i}" for i in range(n)]


def _growth_doubts(observations: Observations, blocks: Blocks) -> list[str]:
    """A bias column that still grows among the frames that are used: early ones would count too little."""
    if not observations.bias_columns or observations.log_weights is None:
        return []
    series, frames = observations.series, blocks.frames()
    starts = np.searchsorted(frames, series.starts)
    values, bias = np.asarray(series.values[frames], dtype=float), observations.log_weights[frames]
    found = bias_differences(values, series.periods, bias, starts)
    if not found.grows:
        return []
    names = " + ".join(observations.bias_columns)
    return [
        f"{names} still grows, by {found.growth:.1f} kT at the same {', '.join(series.names)} from the first to the "
        "last third of the run: give PLUMED's rbias column (the bias less c(t)), or the HILLS file by `hills`, or cut "
        "more by `discard`"
    ]


def _restrained_alone(observations: Observations) -> Observations:
    """Without the windows that restrain nothing."""
    from ..trajectories.frames import only

    series, windows = observations.series, observations.windows
    assert windows is not None
    series = only(series, np.repeat(windows.restrained, np.diff(series.starts)))
    return replace(
        observations,
        series=replace(series, starts=np.unique(series.starts)),
        windows=windows.only(np.flatnonzero(windows.restrained)),
        free_energies=None,
    )


def _unrestrained_doubts(observations: Observations, blocks: Blocks, discard: int | Literal["auto"]) -> list[str]:
    """Windows without a restraint that are not in the basins as the restrained ones, without them, predict."""
    series, windows, bias = observations.series, observations.windows, observations.log_weights
    if windows is None or windows.temperatures is not None or bias is not None:
        return []
    if not 0 < windows.restrained.sum() < len(windows):
        return []
    try:
        others = analyse(_restrained_alone(observations), method="histogram", discard=discard)
    except InputError:  # too few to make a surface
        return []
    if others.windows is None or others.windows.left_out:
        return []
    frames, doubts = blocks.frames(), list[str]()
    file = np.searchsorted(series.starts, frames, side="right") - 1
    for k in np.flatnonzero(~windows.restrained).tolist():
        values = np.asarray(series.values[frames[file == k], : observations.n_surface], dtype=float)
        inefficiency = max(blocks.inefficiency[k] / blocks.stride, 1.0)
        doubts += basin_share_doubts(windows.describe(k), values, inefficiency, others.surface, others.basins)
    return doubts


def _notes(
    observations: Observations, weighted: "_Weighted", discard: int | Literal["auto"]
) -> tuple[list[str], list[str]]:
    """What the user should know, and why the result is not to be trusted."""
    notes, doubts = _sample_notes(*weighted.samples, weighted.log_weights is not None)
    if discard == "auto" and observations.windows is None:
        more = _equilibration_notes(weighted.blocks, observations.series)
        notes, doubts = notes + more[0], doubts + more[1]
    if observations.windows is not None and weighted.windows is not None:
        names = [observations.series.names[i] for i in observations.restrained]
        more = window_notes(observations.windows, weighted.windows, names)
        notes, doubts = more[0] + notes, more[1] + doubts
        doubts += _unrestrained_doubts(observations, weighted.blocks, discard)
    elif weighted.log_weights is not None:
        doubts += _one_run_doubts(observations.series, weighted.blocks.frames(), weighted.log_weights)
    return [*observations.notes, *notes], [
        *observations.doubts,
        *_growth_doubts(observations, weighted.blocks),
        *doubts,
    ]


def _one_run_doubts(series: Series, frames: IntArray, log_weights: FloatArray) -> list[str]:
    """Of several trajectories, one may have all the weight: nothing then tells that it is like the others.

    Args:
        series: all frames.
        frames: shape=(n,), those used.
        log_weights: shape=(n,), of these.
    """
    if series.n_files < MIN_RUNS:
        return []
    file, weights = np.searchsorted(series.starts, frames, side="right") - 1, np.exp(log_weights - log_weights.max())
    shares, numbers = (np.bincount(file, part) / part.sum() for part in (weights, np.ones(len(weights))))
    heaviest = int(shares.argmax())
    if shares[heaviest] < MAX_SHARE_OF_RUN or numbers[heaviest] > 0.5:
        return []
    return [
        f"trajectory {heaviest + 1} of {series.n_files} has {100 * shares[heaviest]:.3g} % of the weight: the error "
        "bars are those of one run; see that the weights of all are on one scale"
    ]


def _asked(
    observations: Any, method: str, bins: int | None, n_bootstrap: int, seed: int
) -> tuple[int | None, int, int]:
    """Whole numbers of bins, of replicates and of the seed, all arguments checked."""
    if not isinstance(observations, Observations):
        raise InputError(f"`observations` is a {type(observations).__name__}: give those of `trajectories.read`")
    if observations.n_surface not in DEFAULT_BINS:
        raise InputError(
            f"a surface over {observations.n_surface} collective variables is not supported: give one or two"
        )
    if method not in ("kde", "histogram"):
        raise InputError(f"`method` is {method}: choose kde or histogram")
    if bins is not None:
        whole_number("`bins`", bins, 2)
    whole_number("`n_bootstrap`", n_bootstrap, 2)
    whole_number("`seed`", seed, 0)
    return None if bins is None else int(bins), int(n_bootstrap), int(seed)


@dataclass(frozen=True)
class _Weighted:
    """Blocks of frames with what weighs them: the log-weights of all their frames, by windows or given."""

    blocks: Blocks
    log_weights: FloatArray | None
    windows: WindowWeights | None

    @classmethod
    def of(cls, observations: Observations, discard: int | Literal["auto"]) -> "_Weighted":
        windows = observations.windows
        most = None if windows is None else max(MAX_BIASES // len(windows), 1)
        blocks = independent_blocks(observations.series, discard, windows=windows is not None, most_frames=most)
        if windows is not None:
            weights = weigh_windows(observations, blocks)
            return cls(weights.blocks, weights.log_weights, weights)
        if observations.log_weights is None:
            return cls(blocks, None, None)
        log_weights = np.asarray(observations.log_weights, dtype=float)[blocks.frames()]
        if not np.isfinite(log_weights).any():
            raise InputError("every frame that is left has weight zero: check the log-weights, or give `discard=0`")
        return cls(blocks, log_weights, None)

    def checked(self, series: Series) -> "_Weighted":
        """The same; refuses a few frames that outweigh all others beyond what numbers hold: a broken row.

        Raises:
            InputError: there are such frames.
        """
        if self.log_weights is None:
            return self
        logs = np.sort(self.log_weights)[::-1]
        gap = float(logs[0] - logs[min(FEW_FRAMES, len(logs) // 2)])
        if gap > MAX_LOG_GAP and np.isfinite(self.log_weights).sum() > FEW_FRAMES:
            row = int(self.blocks.frames()[self.log_weights.argmax()])
            file = int(np.searchsorted(series.starts, row, side="right")) - 1
            place = ", ".join(f"{name} = {x:.4g}" for name, x in zip(series.names, series.values[row], strict=False))
            raise InputError(
                f"frame {row - series.starts[file]} of trajectory {file + 1} ({place}) weighs e^{gap:.0f} times as "
                "much as nearly all others: its bias, weight or coordinates are broken: correct it, or leave it out"
            )
        return self

    def counts(self, series: Series, grid: FineGrid, boxes: Sequence[Basin]) -> BlockCounts:
        """Weights of the blocks in the bins of a grid and in boxes."""
        response = None if self.windows is None else self.windows.response
        return count_blocks(series, self.blocks, grid, log_weights=self.log_weights, response=response, boxes=boxes)

    @cached_property
    def samples(self) -> tuple[float, float]:
        """Effective number of independent samples, and the largest share of the weight on one frame."""
        n, log_weights = self.blocks.n_independent, self.log_weights
        if log_weights is None:
            return n, 0.0
        share = float(np.exp(log_weights.max() - np.logaddexp.reduce(log_weights)))
        return n * effective_sample_size(log_weights) / len(log_weights), share


def _surface_notes(
    series: Series,
    weighted: _Weighted,
    covered: SurfaceRange,
    surface: FreeEnergySurface,
    probability: FloatArray,
    found: BoolArray,
    basins: Sequence[Basin],
    ranges: Sequence[tuple[float, float]],
    discard: int | Literal["auto"],
) -> tuple[list[str], list[str]]:
    """Notes and doubts about bins, ends and basins of the surface."""
    open_ends, cut = not len(ranges), discard == "auto"
    notes = end_notes(covered, series) if open_ends else []
    doubts = resolution_doubts(probability, covered.edges, series, weighted.blocks)
    if weighted.windows is not None:
        return notes, doubts
    more = basin_notes(probability, surface, found, basins, series, weighted.blocks, open_ends=open_ends, cut=cut)
    doubts += drift_doubts(series, surface.energy.ndim, weighted.blocks, weighted.log_weights)
    if weighted.log_weights is None:
        doubts += spread_doubts(series, surface.energy.ndim, weighted.blocks)
    return notes + more[0], doubts + more[1]


@checked
def analyse(
    observations: Observations,
    *,
    bins: int | None = None,
    method: Method = "kde",
    discard: int | Literal["auto"] = "auto",
    basins: Sequence[Basin] = (),
    ranges: Sequence[tuple[float, float]] = (),
    n_bootstrap: int = 100,
    seed: int = 0,
) -> TrajectoryAnalysis:
    """The free-energy surface over one or two collective variables, its basins and barriers, and what it rests on.

    Each file is a trajectory of its own: its equilibration is cut (Chodera 2016, doi 10.1021/acs.jctc.5b00784), at most
    half of it, and the rest divided into blocks of several correlation times, the unit of the bootstrap and of the
    cross-validation that chooses the bandwidth.

    Args:
        observations: of `openmm_gancl.trajectories.read`.
        bins: bins a coordinate; 72 in two dimensions and 120 in one by default.
        method: histogram, or kde (von Mises, or Gaussian and reflected where samples end at a wall; where frames weigh
            alike, of the ratio of counts to a smooth first estimate, doi 10.1214/aos/1176324627).
        discard: frames to cut from each trajectory, or ``auto``.
        basins: boxes whose populations to report; found on the surface by default.
        ranges: low and high of each coordinate without a period, in its unit; as far as enough samples reach by
            default.
        n_bootstrap: replicates.
        seed: of the bootstrap, and of what values in steps, as with few digits, are spread by.

    Raises:
        InputError: frames too few for an error bar.
    """
    bins, n_bootstrap, seed = _asked(observations, method, bins, n_bootstrap, seed)
    series, d, temperature = observations.series, observations.n_surface, observations.temperature
    basins = [basin.over(series.names[:d], series.periods[:d]) for basin in _as_basins(basins)]
    weighted = _Weighted.of(observations, discard).checked(series)
    even, boxes, of_rounding = without_rounding(series, basins, d, weighted.blocks, seed)
    covered = surface_range(even, d, weighted.blocks, bins, ranges)
    edges, counts = covered.edges, weighted.counts(even, covered.grid(series.periods[:d]), boxes)
    density, draws = estimate_density(counts, method, covered.known), counts.draws(n_bootstrap, seed)
    surface, deviations = _surface(density, edges, series, temperature, draws)
    found = find_basins(surface)
    masks: BoolArray = box_masks(surface, basins) if basins else found
    names = [basin.name for basin in basins] or _letters(len(masks))
    rows, lowest = counts.boxes if basins else density.masses(masks), lowest_bins(surface, masks)
    places, (notes, doubts) = bin_centres(edges), _notes(observations, weighted, discard)
    more = _surface_notes(series, weighted, covered, surface, density.probability, found, basins, ranges, discard)
    return TrajectoryAnalysis(
        surface=surface,
        density=density,
        blocks=weighted.blocks,
        effective_samples=weighted.samples[0],
        basins=masses_of_basins(rows, names, draws, thermal_energy(temperature)),
        minima=np.array([places[i] if i >= 0 else np.full(d, np.nan) for i in lowest]),
        barriers=basin_barriers(surface, deviations, lowest, names),
        settling=partial(convergence_of, surface, density, rows, names, draws),
        windows=weighted.windows,
        notes=notes + of_rounding + more[0],
        doubts=doubts + more[1],
    )


def analyse_trajectories(
    paths: Any,
    top: Any,
    cvs: str | Sequence[str],
    temperature: Any,
    *,
    log_weights: FloatArray | str | Path | None = None,
    bins: int | None = None,
    discard: int | Literal["auto"] = "auto",
    seed: int = 0,
) -> TrajectoryAnalysis:
    """The free-energy surface of trajectories and what it rests on: `trajectories.read`, then `free_energy.analyse`.

    Call these two for COLVAR files, windows, static biases, and everything else that can be chosen.

    Args:
        paths: trajectories that mdtraj reads, or mdtraj.Trajectory, one or several; empty if the collective variables
            are npy files.
        top: their topology: a file, mdtraj.Topology or mdtraj.Trajectory.
        cvs: one or two, as for `parse_cv`.
        temperature: K, or a Quantity.
        log_weights: of the frames, in the order of the files: shape=(n,), or an npy or text file.
        bins: bins a coordinate; 72 in two dimensions and 120 in one by default.
        discard: frames to cut from each trajectory, or ``auto``.
        seed: of the bootstrap.

    Raises:
        InputError: files that cannot be read, or frames too few for an error bar.
    """
    observations = read(paths, top, cvs, temperature, log_weights=log_weights)
    return analyse(observations, bins=bins, discard=discard, seed=seed)


def surface_from_trajectories(
    paths: Any,
    top: Any,
    cvs: str | Sequence[str],
    temperature: Any,
    *,
    log_weights: FloatArray | str | Path | None = None,
    bins: int | None = None,
    discard: int | Literal["auto"] = "auto",
    seed: int = 0,
) -> FreeEnergySurface:
    """The surface alone of `analyse_trajectories`, whose arguments these are; its doubts become warnings."""
    analysis = analyse_trajectories(
        paths, top, cvs, temperature, log_weights=log_weights, bins=bins, discard=discard, seed=seed
    )
    for doubt in analysis.doubts:
        warnings.warn(f"not to be trusted: {doubt}", stacklevel=2)
    return analysis.surface
