"""The surface over the labels of umbrella windows, joined by MBAR."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from ..coordinates.basin import Basin
from ..coordinates.slow_coordinates import ModuleCoordinates, SlowCoordinates, Torsions
from ..errors import InputError
from ..sampling.frames import Frames
from ..system.molecular_system import MolecularSystem
from ..system.simulation import as_system
from ..trajectories.observations import Observations
from ..trajectories.series import Series
from ..trajectories.umbrella import UmbrellaWindows, WindowForm
from ..units import FloatArray
from .from_trajectories import TrajectoryAnalysis, analyse


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
        series, n_surface, system.temperature, windows=table, restrained=tuple(range(d)), free_energies=free_energies
    )


def analyse_windows(
    system: Any,
    frames: Frames,
    *,
    slow: SlowCoordinates | None = None,
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
        free_energies: shape=(n_windows,), kT, about right, that MBAR starts from: those of restrained lifts, say
            (`window_free_energies`).
        n_surface: labels that the surface spans, one or two.
        bins: bins a coordinate.
        discard: frames to cut from each window, or ``auto``.
        basins: boxes whose populations to report; the system's own by default.
        seed: of the bootstrap.

    Returns:
        the analysis; `TrajectoryAnalysis.windows` has the overlap matrix, ``blocks.discarded`` what was cut from each
        window.

    Raises:
        InputError: a window without frames, named.
    """
    system = as_system(system, slow)
    if isinstance(system.slow, ModuleCoordinates):
        raise InputError("windows over learned labels are joined by the lifts' own surface: give torsions or particles")
    n_surface, d = min(n_surface, len(system.slow.names)), len(system.slow.names)
    boxes = system.basins if basins is None else basins
    return analyse(
        _observations(system, frames, n_surface, free_energies),
        bins=bins,
        discard=discard,
        basins=boxes if d == n_surface else (),
        seed=seed,
    )


def window_table(analysis: TrajectoryAnalysis) -> str:
    """One line a window, the one that overlaps least with the others first: what was cut, and its overlap.

    Args:
        analysis: of `analyse_windows`.
    """
    assert analysis.windows is not None
    weights, rows = analysis.windows, []
    overlap = weights.mbar.overlap.copy()
    np.fill_diagonal(overlap, 0.0)
    frames = np.bincount(weights.blocks.stratum, weights.blocks.sizes)
    for i in np.argsort(overlap.sum(axis=1)):
        number = weights.kept[i]
        cut, inefficiency = analysis.blocks.discarded[number], analysis.blocks.inefficiency[number]
        rows.append(
            f"{weights.windows.describe(int(i)):32s} frames {frames[i]:5.0f}, cut {cut:4d}, inefficiency "
            f"{inefficiency:6.1f}, overlap with others {overlap[i].sum():.3f}, strain {weights.strain[i]:.1f} kT"
        )
    return "\n".join([*rows, *(f"{left}: left out, overlaps with none" for left in weights.left_out)])


def _remedy(frames: Frames) -> str:
    """What became of frames that were dropped, and what to do about it."""
    dropped = ", ".join(f"{count} {reason}" for reason, count in frames.dropped.items())
    return f"frames dropped: {dropped}; start it elsewhere, or take a shorter time step"
