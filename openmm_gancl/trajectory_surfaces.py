"""Free-energy surfaces from trajectories: density estimates of equilibrated, weighted frames."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from .density import Density, Method, estimate_density
from .diagnostics import effective_sample_size
from .errors import InputError
from .surfaces import BINS, CEILING, BasinPopulation, FreeEnergySurface
from .system import Basin
from .trajectories import Blocks, Series, independent_blocks, read_log_weights, read_series
from .units import FloatArray, checked_temperature, thermal_energy

FEW_SAMPLES = 50
"""Independent samples below which a surface comes with a warning."""

LARGEST_SHARE = 0.05
"""Of all the weight, on one frame, above which a surface comes with a warning."""


@dataclass(frozen=True)
class TrajectoryAnalysis:
    """A surface from trajectories and what it rests on.

    Attributes:
        surface: the surface.
        density: probabilities of the bins and their bootstrap replicates.
        blocks: the frames used.
        effective_samples: independent samples, the weights' unevenness included.
        warnings: what the user must know, one sentence each.
    """

    surface: FreeEnergySurface
    density: Density
    blocks: Blocks
    effective_samples: float
    warnings: list[str]

    def basins(self, basins: tuple[Basin, ...]) -> list[BasinPopulation]:
        """Populations and free-energy differences of boxes; bins count by their centres."""
        if not basins:
            return []
        centres = np.meshgrid(*self.surface.centres, indexing="ij")
        places = np.stack([axis.ravel() for axis in centres], axis=1)
        inside = np.stack([basin.contains(places) for basin in basins])
        flat = self.density.probability.ravel()
        replicates = self.density.replicates.reshape(len(self.density.replicates), -1)
        # a kernel reaches beyond what was seen: a basin without a frame is unknown
        seen = (inside & self.density.sampled.ravel()).any(axis=1)
        populations, drawn = np.where(seen, inside @ flat, 0.0), replicates @ inside.T
        errors = np.where(seen, self.density.spread * drawn.std(axis=0), np.inf)
        kT, rows = thermal_energy(self.surface.temperature), []
        for i, basin in enumerate(basins):
            free_energy = error = float("inf")
            if seen[i] and seen[0]:
                free_energy = -kT * float(np.log(populations[i] / populations[0]))
                # linearised: a replicate without a frame in a small basin has no logarithm
                ratios = drawn[:, i] / populations[i] - drawn[:, 0] / populations[0]
                error = kT * self.density.spread * float(ratios.std())
            rows.append(BasinPopulation(basin.name, float(populations[i]), float(errors[i]), free_energy, error))
        return rows


def _edges(values: FloatArray, series: Series, bins: int | None) -> tuple[FloatArray, ...]:
    edges = []
    for column, name, period in zip(values.T, series.names, series.periods, strict=True):
        low, high = (-period / 2, period / 2) if np.isfinite(period) else (float(column.min()), float(column.max()))
        if not high > low:
            raise InputError(f"{name} is {low:g} in every frame: choose a coordinate that moves")
        edges.append(np.linspace(low, high, (bins or BINS[len(series.names)]) + 1))
    return tuple(edges)


def analyse_series(
    series: Series,
    temperature: float,
    *,
    log_weights: FloatArray | None = None,
    bins: int | None = None,
    method: Method = "kde",
    discard: int | Literal["auto"] = "auto",
    n_bootstrap: int = 100,
    seed: int = 0,
) -> TrajectoryAnalysis:
    """Estimate the surface of a series of collective variables; see `surface_from_trajectories`.

    Args:
        series: of one or two collective variables.
        temperature: K.
        log_weights: shape=(n,), of the frames, up to a constant.
        bins: bins a coordinate; 72 in two dimensions and 120 in one by default.
        method: kde or histogram.
        discard: frames to cut from each trajectory, or ``auto``.
        n_bootstrap: replicates.
        seed: of the bootstrap.
    """
    if len(series.names) not in BINS:
        raise InputError(f"a surface over {len(series.names)} collective variables is not supported: give one or two")
    checked_temperature(temperature)
    blocks = independent_blocks(series, discard)
    values = series.values[blocks.kept]
    logs = np.zeros(len(values)) if log_weights is None else np.asarray(log_weights, dtype=float)[blocks.kept]
    if not np.isfinite(logs).any():
        raise InputError("every frame that is left has weight zero: check the log-weights, or give --discard 0")
    weights = np.exp(logs - logs.max())
    edges = _edges(values, series, bins)
    density = estimate_density(
        values,
        weights,
        blocks.block,
        edges,
        series.periods,
        method=method,
        correlation=blocks.correlation,
        n_bootstrap=n_bootstrap,
        seed=seed,
    )
    effective = blocks.n_independent * effective_sample_size(logs) / len(logs)
    share, warnings = float(weights.max() / weights.sum()), []
    if effective < FEW_SAMPLES:
        warnings.append(f"only {effective:.0f} independent samples: the error bars are themselves uncertain")
    if log_weights is not None and share > LARGEST_SHARE:
        warnings.append(f"one frame carries {100 * share:.0f} % of the weight: the bias leaves too few frames")
    surface = surface_of_density(density, edges, series, temperature)
    return TrajectoryAnalysis(surface, density, blocks, effective, warnings)


def surface_of_density(
    density: Density, edges: tuple[FloatArray, ...], series: Series, temperature: float
) -> FreeEnergySurface:
    """-kT log of a density; error bars linearised, after aligning the mean below 10 kT."""
    kT = thermal_energy(temperature)
    with np.errstate(divide="ignore"):
        energy = np.where(density.sampled, -np.log(density.probability), np.inf)
    energy -= energy.min()
    known = np.isfinite(energy)
    deviations = density.replicates[:, known] / density.probability[known] - 1.0
    deviations -= deviations[:, energy[known] < CEILING].mean(axis=1, keepdims=True)
    error = np.full(energy.shape, np.inf)
    error[known] = density.spread * deviations.std(axis=0)
    return FreeEnergySurface(
        energy=kT * energy,
        error=kT * error,
        edges=edges,
        names=series.names,
        periods=series.periods,
        temperature=temperature,
        force_evaluations=0,
        units=series.units,
    )


def surface_from_trajectories(
    paths: Sequence[str | Path],
    top: str | Path,
    cvs: Sequence[str],
    temperature: float,
    *,
    log_weights: FloatArray | str | Path | None = None,
    bins: int | None = None,
    method: Method = "kde",
    discard: int | Literal["auto"] = "auto",
    stride: int = 1,
    n_bootstrap: int = 100,
    seed: int = 0,
    progress: Callable[[], None] | None = None,
) -> FreeEnergySurface:
    """The free-energy surface over one or two collective variables, from trajectories that mdtraj reads.

    Each file is a trajectory of its own: its equilibration is cut (Chodera 2016, doi 10.1021/acs.jctc.5b00784) and the
    rest divided into blocks of several correlation times, the unit of the bootstrap and of the cross-validation that
    chooses the bandwidth.

    Args:
        paths: trajectories.
        top: their topology.
        cvs: one or two, as for `parse_cv`.
        temperature: K.
        log_weights: of the frames, in the order of the files: shape=(n,), or an npy or text file.
        bins: bins a coordinate; 72 in two dimensions and 120 in one by default.
        method: kde (von Mises on periodic coordinates, else Gaussian, reflected at the ends) or histogram.
        discard: frames to cut from each trajectory, or ``auto``.
        stride: take every so many frames.
        n_bootstrap: replicates.
        seed: of the bootstrap.
        progress: called once for each finished file.

    Raises:
        InputError: files that cannot be read, or frames too few for an error bar.
    """
    series = read_series([Path(path) for path in paths], Path(top), cvs, stride=stride, progress=progress)
    if isinstance(log_weights, str | Path):
        log_weights = read_log_weights(Path(log_weights), len(series.values))
    return analyse_series(
        series,
        temperature,
        log_weights=log_weights,
        bins=bins,
        method=method,
        discard=discard,
        n_bootstrap=n_bootstrap,
        seed=seed,
    ).surface
