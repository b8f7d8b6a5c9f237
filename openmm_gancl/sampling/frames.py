"""Frames: configurations with their labels, and their files."""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..coordinates.geometry import wrap
from ..errors import InputError, checked
from ..system.molecular_system import MolecularSystem
from ..units import FloatArray, IntArray

OF_EACH_FRAME = ("positions", "labels", "cv_values", "energies", "window", "boxes")
"""Arrays of `Frames` with one row a frame."""

MOST_CHECKED, SAME_LABEL, SAME_TEMPERATURE = 100, 1e-3, 1e-3
"""Frames whose labels are computed again; nm or radians, and K, by which they may differ."""


@dataclass(frozen=True)
class Walkers:
    """Positions, velocities and boxes that windows start from or ended at.

    Attributes:
        positions: shape=(n, n_atoms, 3), nm.
        velocities: shape=(n, n_atoms, 3), nm/ps; None to draw them.
        boxes: shape=(n, 3, 3), nm; None to take the System's.
    """

    positions: FloatArray
    velocities: FloatArray | None = None
    boxes: FloatArray | None = None

    def __len__(self) -> int:
        return len(self.positions)

    def select(self, which: Any) -> "Walkers":
        """Some of them, in any order."""
        velocities, boxes = self.velocities, self.boxes
        return Walkers(
            self.positions[which],
            None if velocities is None else velocities[which],
            None if boxes is None else boxes[which],
        )


def concatenated(arrays: list[FloatArray | None]) -> FloatArray | None:
    """One array of several; None where one is missing."""
    found = [array for array in arrays if array is not None]
    return np.concatenate(found) if len(found) == len(arrays) else None


def join_walkers(parts: list[Walkers]) -> Walkers:
    """One set of walkers from several."""
    return Walkers(
        np.concatenate([part.positions for part in parts]),
        concatenated([part.velocities for part in parts]),
        concatenated([part.boxes for part in parts]),
    )


@dataclass(frozen=True)
class Frames:
    """Configurations of restrained windows (or of free runs, where ``labels`` equals ``cv_values``).

    Attributes:
        positions: shape=(n, n_atoms, 3), nm.
        labels: shape=(n, d), the centre of each frame's restraint.
        cv_values: shape=(n, d), xi of each frame.
        energies: shape=(n,), kJ/mol, of the real potential without the restraint.
        window: shape=(n,), the window of each frame.
        force_constants: shape=(d,), the constants of the windows' restraints.
        dropped: how many frames were dropped, by reason (cis, chirality, bond, nan).
        force_evaluations: what the frames cost.
        exchange_rate: accepted exchanges of neighbouring windows; NaN where none were tried.
        n_windows: how many windows were sampled, those without a frame included.
        boxes: shape=(n, 3, 3), nm, vectors of each frame's periodic box; None where there is none.
        walkers: where each window ended, which it can be continued from; None where that is not known.
        n_stretches: of dynamics, between which windows may have exchanged walkers.
        temperature: K, of the dynamics; NaN where a file of an earlier version does not say.
    """

    positions: FloatArray
    labels: FloatArray
    cv_values: FloatArray
    energies: FloatArray
    window: IntArray
    force_constants: FloatArray
    dropped: dict[str, int]
    force_evaluations: int
    exchange_rate: float = float("nan")
    n_windows: int = 0
    boxes: FloatArray | None = None
    walkers: Walkers | None = None
    n_stretches: int = 1
    temperature: float = float("nan")

    def __len__(self) -> int:
        return len(self.positions)

    def window_labels(self) -> FloatArray:
        """The label of each window that has a frame, shape=(n_windows, d), in the order of the windows."""
        return self.labels[np.unique(self.window, return_index=True)[1]]

    def select(self, which: Any) -> "Frames":
        """The frames of a mask or of indices."""
        names = [name for name in OF_EACH_FRAME if getattr(self, name) is not None]
        return replace(self, **{name: getattr(self, name)[which] for name in names})


def check_frames_of(frames: Frames, system: MolecularSystem) -> None:
    """See that frames are of a system: of its labels, in their order, and at its temperature.

    Frames may have lost the atoms behind those of the labels, water say.

    Raises:
        InputError: they are not, or a window has several labels.
    """
    some = frames.select(np.linspace(0, len(frames) - 1, min(len(frames), MOST_CHECKED)).astype(int))
    try:
        found = system.slow.transform(some.positions)
        same = np.abs(wrap(found - some.cv_values, system.slow.periods)) <= SAME_LABEL
    except (IndexError, RuntimeError, ValueError):  # too few atoms, of a torch module too, or labels
        same = np.array(False)
    remedy = "give what they were sampled with"
    if not same.all():
        raise InputError(
            f"the frames' `cv_values` are not {', '.join(system.slow.names)} of their positions (another molecule, "
            f"other labels, or in another order?): {remedy}"
        )
    if abs(frames.temperature - system.temperature) > SAME_TEMPERATURE:  # False for NaN
        raise InputError(
            f"the frames were sampled at {frames.temperature:g} K, {system.name} is at {system.temperature:g} K: "
            + remedy
        )
    _, first, window = np.unique(frames.window, return_index=True, return_inverse=True)
    other = (frames.labels != frames.labels[first][window]).any(axis=1) & frames.force_constants.any()
    if other.any():
        raise InputError(
            f"window {frames.window[other][0]} has frames of several labels (of several calls?): number its frames anew"
        )


def join_frames(earlier: Frames, later: Frames) -> Frames:
    """Of windows that were continued: frames of each in the order of time, and its last walker."""
    joined: dict[str, Any] = {
        name: concatenated([getattr(earlier, name), getattr(later, name)]) for name in OF_EACH_FRAME
    }
    reasons = sorted({*earlier.dropped, *later.dropped})
    # a first stretch has no exchange before it
    rounds = np.array([earlier.n_stretches - 1, later.n_stretches], dtype=float)
    rates = np.array([earlier.exchange_rate, later.exchange_rate])
    known = np.isfinite(rates) & (rounds > 0)
    found = replace(
        later,
        **joined,
        dropped={reason: earlier.dropped.get(reason, 0) + later.dropped.get(reason, 0) for reason in reasons},
        force_evaluations=earlier.force_evaluations + later.force_evaluations,
        exchange_rate=float(np.average(rates[known], weights=rounds[known])) if known.any() else float("nan"),
        n_stretches=earlier.n_stretches + later.n_stretches,
    )
    return found.select(np.argsort(found.window, kind="stable"))


@checked
def save_frames(frames: Frames, path: Path) -> None:
    """Write frames as one npz file."""
    named = {field.name: getattr(frames, field.name) for field in fields(frames)}
    del named["dropped"], named["walkers"]
    for name in ("positions", "velocities", "boxes") if frames.walkers is not None else ():
        named[f"walkers_{name}"] = getattr(frames.walkers, name)
    arrays = {name: array for name, array in named.items() if array is not None}
    np.savez(path, **arrays, dropped_names=list(frames.dropped), dropped_counts=list(frames.dropped.values()))


@checked
def load_frames(path: Path) -> Frames:
    """Read what `save_frames` wrote."""
    with np.load(path, allow_pickle=False) as stored:
        arrays = {field.name: stored[field.name] for field in fields(Frames) if field.name in stored}
        dropped = dict(zip(stored["dropped_names"].tolist(), stored["dropped_counts"].tolist(), strict=True))
        ends = [stored.get(f"walkers_{name}") for name in ("positions", "velocities", "boxes")]
    numbers = {name: array.item() for name, array in arrays.items() if array.ndim == 0}
    walkers = None if ends[0] is None else Walkers(*ends)
    return Frames(**{**arrays, **numbers}, dropped=dropped, walkers=walkers)


def stored_evaluations(path: Path) -> int:
    """What the frames that `save_frames` wrote have cost; the frames themselves are not read."""
    with np.load(path, allow_pickle=False) as stored:
        return int(stored["force_evaluations"])
