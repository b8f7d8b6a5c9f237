"""Umbrella windows: which file was sampled under which restraint, and what each restraint costs a frame."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from ..coordinates.geometry import wrap
from ..coordinates.restraint_energies import restraint_terms
from ..errors import InputError
from ..units import BoolArray, FloatArray, IntArray, numbers
from .tables import LARGEST

WindowForm = Literal["harmonic", "cosine"]

WINDOW_FORMS: tuple[WindowForm, ...] = ("harmonic", "cosine")
"""kappa (xi - s)^2 / 2, its difference taken around a periodic coordinate, or kappa (1 - cos(xi - s))."""


@dataclass(frozen=True)
class UmbrellaWindows:
    """Umbrella windows over the first few collective variables.

    Args:
        names: of each window.
        centres: shape=(n_windows, d), nm or radians.
        force_constants: shape=(n_windows, d), kJ/mol/nm^2 or kJ/mol/rad^2; kJ/mol for the cosine form.
        form: harmonic or cosine.
        files: a trajectory or COLVAR file of each window; none where they come from memory.
        coordinates: names of the collective variables that are restrained; empty where the order tells.
        temperatures: shape=(n_windows,), K, of the windows; None where all have that of the surface.
    """

    names: tuple[str, ...]
    centres: FloatArray
    force_constants: FloatArray
    form: WindowForm = "harmonic"
    files: tuple[Path, ...] = ()
    coordinates: tuple[str, ...] = ()
    temperatures: FloatArray | None = None

    def __post_init__(self) -> None:
        """Windows over one coordinate may be arrays of one dimension, and all may have one force constant."""
        n = len(self.names)
        centres = numbers(self.centres)
        centres = centres[:, None] if centres.ndim == 1 else centres
        constants = numbers(self.force_constants)
        constants = constants[:, None] if constants.ndim == 1 and len(constants) == n else constants
        if centres.ndim != 2 or len(centres) != n or not (np.abs(centres) < LARGEST).all():
            raise InputError(f"`centres` of shape {centres.shape} for {n} windows: give one row of numbers each")
        try:
            constants = np.broadcast_to(constants, centres.shape).copy()
        except ValueError:
            raise InputError(
                f"`force_constants` of shape {constants.shape} for centres of shape {centres.shape}: give as many"
            ) from None
        if not ((constants >= 0) & (constants < LARGEST)).all():
            raise InputError("`force_constants` holds a negative one, NaN or infinity: give kappa, 0 for no restraint")
        if self.form not in WINDOW_FORMS:
            raise InputError(f"`form` is {self.form}: choose {' or '.join(WINDOW_FORMS)}")
        object.__setattr__(self, "centres", centres)
        object.__setattr__(self, "force_constants", constants)

    @classmethod
    def of_files(
        cls, files: Sequence[Path], centres: FloatArray, force_constants: FloatArray, form: WindowForm = "harmonic"
    ) -> "UmbrellaWindows":
        """Windows that are named as their files."""
        return cls(tuple(file.name for file in files), centres, force_constants, form, tuple(files))

    def __len__(self) -> int:
        return len(self.names)

    def biases(self, values: FloatArray, periods: FloatArray) -> FloatArray:
        """Of every window at every frame, kJ/mol, shape=(n, n_windows).

        Args:
            values: shape=(n, d), the restrained collective variables.
            periods: shape=(d,), ``inf`` where there is none.
        """
        total = np.zeros((len(values), len(self)))
        for i in range(self.centres.shape[1]):
            difference = values[:, i, None] - self.centres[None, :, i]
            if self.form == "harmonic":
                difference = wrap(difference, periods[i])
            total += self.force_constants[:, i] * restraint_terms(difference, self.form == "cosine")
        return total

    def only(self, chosen: Sequence[int] | IntArray) -> "UmbrellaWindows":
        """Some of the windows."""
        return replace(
            self,
            names=tuple(self.names[i] for i in chosen),
            centres=self.centres[chosen],
            force_constants=self.force_constants[chosen],
            files=tuple(self.files[i] for i in chosen if self.files),
            temperatures=None if self.temperatures is None else self.temperatures[chosen],
        )

    def along(self, i: int) -> "UmbrellaWindows":
        """Their restraints of the i-th coordinate alone."""
        chosen = slice(i, i + 1)
        return replace(self, centres=self.centres[:, chosen], force_constants=self.force_constants[:, chosen])

    @property
    def n_coordinates(self) -> int:
        """How many collective variables are restrained."""
        return self.centres.shape[1]

    @property
    def restrained(self) -> BoolArray:
        """Which windows restrain anything, shape=(n_windows,): an unbiased run may be among them."""
        return np.asarray(self.force_constants.any(axis=1))

    def describe(self, window: int) -> str:
        """Name and centre of a window."""
        if not self.restrained[window]:
            return f"{self.names[window]} without a restraint"
        centre = ", ".join(f"{value:.4g}" for value in self.centres[window])
        return f"{self.names[window]} at ({centre})"

    def missing_centres(self) -> list[tuple[float, ...]]:
        """Places without a window in a grid of centres that is otherwise full."""
        axes = [np.unique(np.round(column, 6)) for column in self.centres[self.restrained].T]
        moving = [i for i, axis in enumerate(axes) if len(axis) > 1]
        if len(moving) == 1 and len(axes[moving[0]]) > 3:
            steps = np.diff(axes[moving[0]])
            usual = np.median(steps)
            added = [
                np.linspace(low, low + step, round(step / usual) + 1)
                for low, step in zip(axes[moving[0]], steps, strict=False)
                if 1.5 * usual < step < 10 * usual
            ]
            axes[moving[0]] = np.unique(np.concatenate([axes[moving[0]], *added]).round(6))
        places = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))
        if len(moving) > 1 and len(places) > 1.25 * len(self):
            return []  # no grid, or one that leaves out a whole region on purpose
        there = {tuple(row) for row in np.round(self.centres[self.restrained], 6)}
        return [tuple(map(float, place)) for place in places if tuple(place) not in there]
