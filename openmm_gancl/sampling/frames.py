"""Frames: configurations with their labels, and their files."""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..units import FloatArray, IntArray


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

    def __len__(self) -> int:
        return len(self.positions)

    def window_labels(self) -> FloatArray:
        """The label of each window that has a frame, shape=(n_windows, d), in the order of the windows."""
        return self.labels[np.unique(self.window, return_index=True)[1]]

    def select(self, which: Any) -> "Frames":
        """The frames of a mask or of indices."""
        names = ("positions", "labels", "cv_values", "energies", "window")
        return replace(self, **{name: getattr(self, name)[which] for name in names})


def save_frames(frames: Frames, path: Path) -> None:
    """Write frames as one npz file."""
    arrays = {field.name: getattr(frames, field.name) for field in fields(frames) if field.name != "dropped"}
    np.savez(path, **arrays, dropped_names=list(frames.dropped), dropped_counts=list(frames.dropped.values()))


def load_frames(path: Path) -> Frames:
    """Read what `save_frames` wrote."""
    with np.load(path, allow_pickle=False) as stored:
        arrays = {field.name: stored[field.name] for field in fields(Frames) if field.name in stored}
        dropped = dict(zip(stored["dropped_names"].tolist(), stored["dropped_counts"].tolist(), strict=True))
    numbers = {name: array.item() for name, array in arrays.items() if array.ndim == 0}
    return Frames(**{**arrays, **numbers}, dropped=dropped)


def stored_evaluations(path: Path) -> int:
    """What the frames that `save_frames` wrote have cost; the frames themselves are not read."""
    with np.load(path, allow_pickle=False) as stored:
        return int(stored["force_evaluations"])
