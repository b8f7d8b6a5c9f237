"""The surface over the labels of umbrella windows, joined by MBAR."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ..coordinates.basin import Basin
from ..coordinates.slow_coordinates import ModuleCoordinates, SlowCoordinates, Torsions
from ..errors import InputError, checked
from ..sampling.frames import Frames, check_frames_of
from ..sampling.windows import check_continued, sample_windows
from ..system.molecular_system import MolecularSystem
from ..system.simulation import as_system
from ..trajectories.observations import Observations
from ..trajectories.series import Series
from ..trajectories.umbrella import UmbrellaWindows, WindowForm
from ..units import FloatArray, IntArray, thermal_energy
from .frame_doubts import frame_doubts, frame_notes
from .from_trajectories import TrajectoryAnalysis, analyse
from .surface import FreeEnergySurface

LOW = 6.0
"""kT below which a surface's error is looked at."""


def _observations(
    system: MolecularSystem, frames: Frames, n_surface: int, free_energies: FloatArray | None
) -> Observations:
    """Windows one after the other, each a trajectory."""
    frames, d = frames.select(np.argsort(frames.window, kind="stable")), len(system.slow.names)
    windows, first = np.unique(frames.window, return_index=True)
    if missing := sorted(set(range(frames.n_windows)) - set(windows.tolist())):
        raise InputError(f"window {missing[0]} holds no frame (it blew up or left the state): {_remedy(frames)}")
    form: WindowForm = "cosine" if isinstance(system.slow, Torsions) else "harmonic"
    series = Series(
        system.slow.names,
        system.slow.periods,
        ("radians" if form == "cosine" else "nm",) * d,
        frames.cv_values.astype(np.float32),
        np.append(first, len(frames)),
    )
    force_constants = np.repeat(frames.force_constants[None], len(windows), axis=0)
    table = UmbrellaWindows(tuple(f"window {k}" for k in windows), frames.labels[first], force_constants, form)
    return Observations(
        series,
        n_surface,
        system.temperature,
        windows=table,
        restrained=tuple(range(d)),
        free_energies=free_energies,
        notes=frame_notes(system),
        doubts=frame_doubts(system, frames),
    )


@checked
def analyse_windows(
    system: Any,
    frames: Frames,
    *,
    slow: SlowCoordinates | None = None,
    temperature: Any = None,
    free_energies: FloatArray | None = None,
    n_surface: int = 2,
    bins: int | None = None,
    discard: int | Literal["auto"] = "auto",
    basins: Sequence[Basin] | None = None,
    seed: int = 0,
) -> TrajectoryAnalysis:
    """The surface over the first labels of windows, by MBAR, with overlap and equilibration of each window.

    Args:
        system: what the windows are of.
        frames: of `sample_windows`.
        slow: the labels' coordinates, of a Simulation.
        temperature: K, of a Simulation whose integrator says none.
        free_energies: shape=(n_windows,), kT, about right, that MBAR starts from: those of restrained lifts, say
            (`window_free_energies`).
        n_surface: labels that the surface spans, one or two.
        bins: bins a coordinate.
        discard: frames to cut from each window, or ``auto``.
        basins: boxes whose populations to report; by default the system's own, if the surface spans all its labels.
        seed: of the bootstrap.

    Returns:
        the analysis; `TrajectoryAnalysis.windows` has the overlap matrix, ``blocks.discarded`` what was cut from each
        window.

    Raises:
        InputError: a window without frames, named.
    """
    system = as_system(system, slow, temperature=temperature)
    if isinstance(system.slow, ModuleCoordinates):
        raise InputError("windows over learned labels are joined by the lifts' own surface: give torsions or particles")
    check_frames_of(frames, system)
    n_surface, d = min(n_surface, len(system.slow.names)), len(system.slow.names)
    own = system.basins if d == n_surface else ()
    return analyse(
        _observations(system, frames, n_surface, free_energies),
        bins=bins,
        discard=discard,
        basins=own if basins is None else basins,
        seed=seed,
    )


def _check_error(name: str, value: float) -> None:
    if not (np.isfinite(value) and value > 0):
        raise InputError(f"`{name}` is {value}: give a positive error in kT")


@checked
def median_error(analysis: TrajectoryAnalysis, below: float = LOW) -> float:
    """Of the surface's bins below so many kT, kT; NaN where none is known."""
    surface, kT = analysis.surface, thermal_energy(analysis.surface.temperature)
    known = surface.error[surface.energy < below * kT]
    return float(np.median(known)) / kT if len(known) and np.isfinite(known).all() else float("nan")


@checked
def frames_needed(analysis: TrajectoryAnalysis, target_error: float, below: float = LOW) -> IntArray:
    """Frames that each window still needs until the surface's error near it is the target, shape=(n_windows,).

    Windows that overlap with no other are left out: ``analysis.windows.kept`` says which these are.

    An error goes with the root of the frames: those that a window has, without what was cut, grow by the squared ratio
    of the error at its centre, where the surface is low, to the target. What overlap or slow motions would still change
    is not foreseen.

    Args:
        analysis: of `analyse_windows`.
        target_error: kT.
        below: kT; windows whose centre is higher need nothing.

    Raises:
        InputError: an error that cannot be, or an analysis of no windows.
    """
    _check_error("target_error", target_error)
    if analysis.windows is None:
        raise InputError("the analysis is of no windows: give one of `analyse_windows`")
    weights, surface, kT = analysis.windows, analysis.surface, thermal_energy(analysis.surface.temperature)
    places = [
        np.clip(np.searchsorted(edges, wrapped, side="right") - 1, 0, len(edges) - 2)
        for edges, wrapped in zip(surface.edges, _in_range(weights.windows.centres, surface), strict=True)
    ]
    energy, error = surface.energy[tuple(places)], surface.error[tuple(places)]
    used = np.bincount(weights.blocks.stratum, weights.blocks.sizes, minlength=len(weights.windows))
    frames = weights.blocks.stride * used
    ratio = np.where((energy < below * kT) & np.isfinite(error), error / (target_error * kT), 0.0)
    return np.ceil(frames * np.maximum(ratio**2 - 1.0, 0.0)).astype(np.int64)


def _in_range(centres: FloatArray, surface: FreeEnergySurface) -> list[FloatArray]:
    """Of each coordinate of a surface, centres of windows as its edges count them."""
    found = []
    for i, (edges, period) in enumerate(zip(surface.edges, surface.periods, strict=True)):
        column = centres[:, i]
        found.append(edges[0] + np.mod(column - edges[0], period) if np.isfinite(period) else column)
    return found


@dataclass(frozen=True)
class SampledWindows:
    """Windows that were sampled until their surface was known.

    Attributes:
        frames: of all, which `sample_until` or `sample_windows` go on with.
        analysis: of them.
        error: kT, median of the surface's error where it is low.
        reached: whether that is what was asked for.
    """

    frames: Frames
    analysis: TrajectoryAnalysis
    error: float
    reached: bool


@checked
def sample_until(
    system: Any,
    labels: FloatArray | None = None,
    *,
    until: float,
    max_frames_per_window: int,
    continued: Frames | None = None,
    slow: SlowCoordinates | None = None,
    steps_per_window: int = 2000,
    frames_per_window: int = 20,
    n_surface: int = 2,
    bins: int | None = None,
    progress: Callable[[SampledWindows], None] | None = None,
    **options: Any,
) -> SampledWindows:
    """Sample windows, and go on with all of them, until the surface has an error.

    All windows get as much again each time, so that the work in all is at most twice what was needed. Stopping by the
    data that are averaged makes error bars a little too small. An error bar sees only what the windows have visited.

    Args:
        system: a system, or an ``openmm.app.Simulation``.
        labels: shape=(n, d), of the windows.
        until: kT, median error of the surface below 6 kT.
        max_frames_per_window: at which it ends all the same.
        continued: of an earlier call, to go on with; the windows keep their labels and force constants.
        slow: the labels' coordinates, of a Simulation.
        steps_per_window: of the first round.
        frames_per_window: of the first round.
        n_surface: labels that the surface spans.
        bins: bins a coordinate.
        progress: called after each round.
        options: of `sample_windows`.

    Raises:
        InputError: as `sample_windows` and `analyse_windows` do, an error that cannot be, and other windows than those
            to be continued.
    """
    _check_error("until", until)
    stride = max(steps_per_window // frames_per_window, 1)
    target = as_system(system, slow, temperature=options.get("temperature"))
    if continued is None:
        how: dict[str, Any] = {"steps_per_window": steps_per_window, "frames_per_window": frames_per_window, **options}
        frames = sample_windows(system, labels, slow=slow, **how)
    else:
        frames = check_continued(continued, labels, options.get("starts"), options.get("force_constants"))
    later: dict[str, Any] = {name: options[name] for name in options if name not in ("starts", "force_constants")}
    while True:
        analysis = analyse_windows(target, frames, n_surface=n_surface, bins=bins)
        error = median_error(analysis)
        found = SampledWindows(frames, analysis, error, bool(error <= until))
        if progress:
            progress(found)
        have = len(frames) // frames.n_windows
        n = min(have, max_frames_per_window - have)
        if found.reached or n < 1:
            return found
        how = {"slow": slow, "steps_per_window": n * stride, "frames_per_window": n, **later}
        frames = sample_windows(system, continued=frames, **how)


@checked
def window_table(analysis: TrajectoryAnalysis, target_error: float | None = None) -> str:
    """One line a window, the one that overlaps least with the others first: what was cut, and its overlap.

    Args:
        analysis: of `analyse_windows`.
        target_error: kT; with it each line says how many frames the window still needs (`frames_needed`).
    """
    assert analysis.windows is not None
    weights, rows = analysis.windows, []
    needed = None if target_error is None else frames_needed(analysis, target_error)
    overlap = weights.mbar.overlap.copy()
    np.fill_diagonal(overlap, 0.0)
    frames = np.bincount(weights.blocks.stratum, weights.blocks.sizes)
    for i in np.argsort(overlap.sum(axis=1)):
        number = weights.kept[i]
        cut, inefficiency = analysis.blocks.discarded[number], analysis.blocks.inefficiency[number]
        rows.append(
            f"{weights.windows.describe(int(i)):32s} frames {frames[i]:5.0f}, cut {cut:4d}, inefficiency "
            f"{inefficiency:6.1f}, overlap with others {overlap[i].sum():.3f}, strain {weights.strain[i].mean():.1f} kT"
            + ("" if needed is None else f", needs {needed[i]} more")
        )
    return "\n".join([*rows, *(f"{left}: left out, overlaps with none" for left in weights.left_out)])


def _remedy(frames: Frames) -> str:
    """What became of frames that were dropped, and what to do about it."""
    dropped = ", ".join(f"{count} {reason}" for reason, count in frames.dropped.items())
    return f"frames dropped: {dropped}; start it elsewhere, or take a shorter time step"
