"""Free-energy surfaces from trajectories: density estimates of equilibrated, weighted frames."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from .basins import Barrier, BasinPopulation, box_masks, find_basins, lowest_bins
from .block_counts import count_blocks
from .density import Density, Method, estimate_density
from .diagnostics import effective_sample_size
from .errors import InputError
from .grid import FineGrid, bin_centres
from .observations import Observations, observe
from .populations import Convergence, basin_barriers, convergence_of, masses_of_basins
from .static_bias import StaticBias
from .surfaces import BINS, CEILING, FreeEnergySurface
from .system import Basin
from .trajectories import Blocks, Series, independent_blocks
from .umbrella import UmbrellaWindows, read_windows
from .units import BoolArray, FloatArray, check_radians, checked_temperature, thermal_energy, wrap
from .weighing import MOST_BIASES, WindowWeights, weigh_windows, window_notes

FEW_SAMPLES, TOO_FEW_SAMPLES = 50, 10
"""Independent samples below which a surface comes with a warning, and below which it is not to be trusted."""

LARGE_SHARE, LARGEST_SHARE = 0.05, 0.5
"""Of all the weight, on one frame: likewise."""

LARGE_CUT = 0.5
"""Of a trajectory, as equilibration: told."""


@dataclass(frozen=True)
class TrajectoryAnalysis:
    """A surface from trajectories and what it rests on.

    Attributes:
        surface: the surface.
        density: probabilities of the bins, and those of bootstrap replicates.
        blocks: the frames used.
        effective_samples: independent samples, the weights' unevenness included.
        basins: populations and free energies, relative to the first.
        minima: shape=(n_basins, d), the lowest place of each; NaN where nothing is known.
        barriers: the lowest ways between them.
        convergence: over the length of the trajectories.
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
    convergence: Convergence
    windows: WindowWeights | None
    notes: list[str]
    doubts: list[str]


def _edges(series: Series, d: int, blocks: Blocks, bins: int | None) -> tuple[FloatArray, ...]:
    """Bin edges over one period, or over what the frames that are used reach."""
    edges = []
    runs = np.flatnonzero(np.append(True, blocks.start[1:] != blocks.stop[:-1]))  # where something was cut between
    spans = list(zip(blocks.start[runs], np.append(blocks.stop[runs[1:] - 1], blocks.stop[-1]), strict=True))
    for i in range(d):
        period = float(series.periods[i])
        if np.isfinite(period):
            low, high = -period / 2, period / 2
        else:
            low = min(float(series.values[begin:end, i].min()) for begin, end in spans)
            high = max(float(series.values[begin:end, i].max()) for begin, end in spans)
        if not high > low:
            raise InputError(f"{series.names[i]} is {low:g} in every frame: choose a coordinate that moves")
        edges.append(np.linspace(low, high, (bins or BINS[d]) + 1))
    return tuple(edges)


def _on_the_grid(basin: Basin, names: tuple[str, ...], periods: FloatArray) -> Basin:
    """A basin whose bounds lie within one period around zero, as the coordinates do."""
    boxes = []
    for box in basin.boxes:
        bounds = np.array(box, dtype=float)
        check_radians(np.where(np.isinf(bounds), 0.0, bounds).T, periods, f"--basin {basin.name}:")
        for name, interval, period in zip(names, bounds, periods, strict=True):
            low, high = interval
            if np.isnan(interval).any():
                raise InputError(f"--basin {basin.name}: a bound of {name} is not a number: give low:high")
            if not np.isfinite(period):
                if low > high:
                    raise InputError(f"--basin {basin.name}: {name} from {low:g} to {high:g} is empty: swap its bounds")
            elif np.isfinite(interval).all() and high - low < period:
                interval[:] = wrap(interval, period)
            else:  # the whole circle, or from one of its ends
                interval[:] = (
                    interval.clip(-period / 2, period / 2) if np.isinf(interval).any() else (-period / 2, period / 2)
                )
        boxes.append(bounds)
    return Basin(basin.name, tuple(boxes))


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
    deviations -= deviations[:, energy < CEILING].mean(axis=1).reshape(-1, *[1] * d)
    surface = FreeEnergySurface(
        energy=kT * energy,
        error=kT * np.where(known, deviations.std(axis=0), np.inf),
        edges=edges,
        names=series.names[:d],
        periods=series.periods[:d],
        temperature=temperature,
        force_evaluations=0,
        units=series.units[:d],
    )
    return surface, deviations


def _sample_notes(effective: float, share: float, weighted: bool) -> tuple[list[str], list[str]]:
    """Notes and doubts about the number of samples and their weights."""
    notes: list[str] = []
    doubts: list[str] = []
    if effective < FEW_SAMPLES:
        told = f"only {effective:.0f} independent samples: the error bars are themselves uncertain; sample for longer"
        (doubts if effective < TOO_FEW_SAMPLES else notes).append(told)
    if weighted and share > LARGE_SHARE:
        told = f"one frame carries {100 * share:.0f} % of the weight: the bias leaves too few frames; sample for longer"
        (doubts if share > LARGEST_SHARE else notes).append(told)
    return notes, doubts


def _equilibration_notes(blocks: Blocks, series: Series) -> list[str]:
    """Runs of which most was cut."""
    cut = np.array(blocks.discarded) / np.maximum(np.diff(series.starts), 1)
    return [
        f"equilibration took {100 * cut[i]:.0f} % of trajectory {i + 1}: sample for longer, or say --discard yourself"
        for i in np.flatnonzero(cut > LARGE_CUT)
    ]


def analyse_observations(
    observations: Observations,
    temperature: float,
    *,
    bins: int | None = None,
    method: Method = "kde",
    discard: int | Literal["auto"] = "auto",
    basins: Sequence[Basin] = (),
    n_bootstrap: int = 100,
    seed: int = 0,
) -> TrajectoryAnalysis:
    """The surface of collective variables that are in memory already; see `analyse_trajectories`."""
    series, d, windows = observations.series, observations.n_surface, observations.windows
    if d not in BINS:
        raise InputError(f"a surface over {d} collective variables is not supported: give one or two")
    if method not in ("kde", "histogram"):
        raise InputError(f"--method is {method}: choose kde or histogram")
    kT = thermal_energy(checked_temperature(temperature))
    basins = [_on_the_grid(basin, series.names[:d], series.periods[:d]) for basin in basins]
    most = None if windows is None else max(MOST_BIASES // len(windows), 1)
    blocks = independent_blocks(series, discard, windows=windows is not None, most_frames=most)
    weights = None if windows is None else weigh_windows(observations, blocks, temperature)
    log_weights = None
    if weights is not None:
        blocks, log_weights = weights.blocks, weights.mbar.log_weights
    elif observations.log_weights is not None:
        log_weights = np.asarray(observations.log_weights, dtype=float)[blocks.frames()]
        if not np.isfinite(log_weights).any():
            raise InputError("every frame that is left has weight zero: check the log-weights, or give --discard 0")
    edges = _edges(series, d, blocks, bins)
    counts = count_blocks(
        series,
        blocks,
        FineGrid(edges, series.periods[:d]),
        log_weights=log_weights,
        response=None if weights is None else weights.response,
        boxes=basins,
    )
    density, draws = estimate_density(counts, method), counts.draws(n_bootstrap, seed)
    surface, deviations = _surface(density, edges, series, temperature, draws)
    masks: BoolArray = box_masks(surface, basins) if basins else find_basins(surface)
    names = [basin.name for basin in basins] or [chr(ord("A") + i) if i < 26 else f"A{i}" for i in range(len(masks))]
    rows, lowest = counts.boxes if basins else density.masses(masks), lowest_bins(surface, masks)
    effective, share = blocks.n_independent, 0.0
    if log_weights is not None:
        effective *= effective_sample_size(log_weights) / len(log_weights)
        share = float(np.exp(log_weights.max() - np.logaddexp.reduce(log_weights)))
    notes, doubts = _sample_notes(effective, share, log_weights is not None)
    if discard == "auto" and windows is None:
        notes += _equilibration_notes(blocks, series)
    if windows is not None and weights is not None:
        more = window_notes(windows, weights)
        notes, doubts = more[0] + notes, more[1] + doubts
    places = bin_centres(edges)
    return TrajectoryAnalysis(
        surface=surface,
        density=density,
        blocks=blocks,
        effective_samples=effective,
        basins=masses_of_basins(rows, names, draws, kT),
        minima=np.array([places[i] if i >= 0 else np.full(d, np.nan) for i in lowest]),
        barriers=basin_barriers(surface, deviations, lowest, names),
        convergence=convergence_of(surface, density, rows, names, draws),
        windows=weights,
        notes=[*observations.notes, *notes],
        doubts=doubts,
    )


def analyse_trajectories(
    paths: Sequence[str | Path],
    top: str | Path | None,
    cvs: Sequence[str],
    temperature: float,
    *,
    log_weights: FloatArray | str | Path | None = None,
    colvar: Sequence[str | Path] = (),
    bias_columns: Sequence[str] = (),
    windows: UmbrellaWindows | str | Path | None = None,
    bias: StaticBias | Callable[[FloatArray], StaticBias] | None = None,
    bias_cvs: Sequence[str] = (),
    bins: int | None = None,
    method: Method = "kde",
    discard: int | Literal["auto"] = "auto",
    stride: int = 1,
    basins: Sequence[Basin] = (),
    n_bootstrap: int = 100,
    seed: int = 0,
    progress: Callable[[], None] | None = None,
) -> TrajectoryAnalysis:
    """The free-energy surface over one or two collective variables, its basins and barriers, and what it rests on.

    Each file is a trajectory of its own: its equilibration is cut (Chodera 2016, doi 10.1021/acs.jctc.5b00784) and the
    rest divided into blocks of several correlation times, the unit of the bootstrap and of the cross-validation that
    chooses the bandwidth. A bias is undone in one of five ways, or there is none.

    Args:
        paths: trajectories that mdtraj reads; empty if the collective variables are columns or npy files.
        top: their topology.
        cvs: one or two: as for `parse_cv`, or ``column:NAME`` of a COLVAR file, or ``npy:FILE``.
        temperature: K.
        log_weights: of the frames, in the order of the files: shape=(n,), or an npy or text file.
        colvar: COLVAR files, in PLUMED's format.
        bias_columns: columns of them whose sum is a static bias, kJ/mol.
        windows: umbrella windows, or a CSV table of harmonic ones (`read_windows`), joined by MBAR.
        bias: a static bias (`metadynamics_bias`, `opes_bias`), or what makes one for given periods.
        bias_cvs: what windows or bias act on, where that is not ``cvs``.
        bins: bins a coordinate; 72 in two dimensions and 120 in one by default.
        method: kde (von Mises on periodic coordinates, else Gaussian, reflected at the ends) or histogram.
        discard: frames to cut from each trajectory, or ``auto``.
        stride: take every so many frames.
        basins: boxes whose populations to report; found on the surface by default.
        n_bootstrap: replicates.
        seed: of the bootstrap.
        progress: called once for each finished file.

    Raises:
        InputError: files that cannot be read, or frames too few for an error bar.
    """
    if isinstance(windows, str | Path):
        windows = read_windows(windows, temperature)
    observations = observe(
        paths,
        top,
        cvs,
        temperature,
        log_weights=log_weights,
        colvar=colvar,
        bias_columns=bias_columns,
        windows=windows,
        bias=bias,
        bias_cvs=bias_cvs,
        stride=stride,
        progress=progress,
    )
    return analyse_observations(
        observations,
        temperature,
        bins=bins,
        method=method,
        discard=discard,
        basins=basins,
        n_bootstrap=n_bootstrap,
        seed=seed,
    )


def surface_from_trajectories(
    paths: Sequence[str | Path],
    top: str | Path | None,
    cvs: Sequence[str],
    temperature: float,
    *,
    log_weights: FloatArray | str | Path | None = None,
    windows: UmbrellaWindows | str | Path | None = None,
    bias: StaticBias | Callable[[FloatArray], StaticBias] | None = None,
    bins: int | None = None,
    method: Method = "kde",
    discard: int | Literal["auto"] = "auto",
    stride: int = 1,
    n_bootstrap: int = 100,
    seed: int = 0,
) -> FreeEnergySurface:
    """The surface alone of `analyse_trajectories`, which has more ways in and says what the surface rests on.

    Args:
        paths: trajectories that mdtraj reads.
        top: their topology.
        cvs: one or two, as for `parse_cv`.
        temperature: K.
        log_weights: of the frames, in the order of the files: shape=(n,), or an npy or text file.
        windows: umbrella windows, or a CSV table of harmonic ones.
        bias: a static bias.
        bins: bins a coordinate; 72 in two dimensions and 120 in one by default.
        method: kde or histogram.
        discard: frames to cut from each trajectory, or ``auto``.
        stride: take every so many frames.
        n_bootstrap: replicates.
        seed: of the bootstrap.

    Raises:
        InputError: files that cannot be read, or frames too few for an error bar.
    """
    return analyse_trajectories(
        paths,
        top,
        cvs,
        temperature,
        log_weights=log_weights,
        windows=windows,
        bias=bias,
        bins=bins,
        method=method,
        discard=discard,
        stride=stride,
        n_bootstrap=n_bootstrap,
        seed=seed,
    ).surface
