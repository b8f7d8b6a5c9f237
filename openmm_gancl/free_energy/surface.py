"""The free-energy surface: energies and error bars on a grid, as arrays and as files."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..coordinates.slow_coordinates import Axes
from ..errors import InputError, checked
from ..files import load_arrays
from ..units import FloatArray, energy_unit, thermal_energy
from .grid import bin_indices

DEFAULT_BINS = {1: 120, 2: 72}

ALIGNMENT_CEILING = 10.0
"""kT; the error bars are those after aligning the mean below it."""

MAX_ERROR = 2.0
"""kT; a bin of a surface from lifts with a larger error bar is unknown."""


@dataclass(frozen=True)
class FreeEnergySurface:
    """A free-energy surface on a grid.

    Attributes:
        energy: shape=(n_0, ...), kJ/mol, minimum zero, ``inf`` where unknown.
        error: the same shape, one sigma, kJ/mol, after aligning the mean below 10 kT.
        edges: for each coordinate the bin edges.
        names: one name a coordinate.
        periods: shape=(d,).
        temperature: K.
        force_evaluations: of the real potential, all that the surface depends on.
        units: of the coordinates, one each; empty where it is not known.
        labels: of the coordinates, as a paper would print them; empty where they are the names.
        resolved: the atoms that each coordinate depends on, as the topology's file names them; empty where they are not
            known.
    """

    energy: FloatArray
    error: FloatArray
    edges: tuple[FloatArray, ...]
    names: tuple[str, ...]
    periods: FloatArray
    temperature: float
    force_evaluations: int
    units: tuple[str, ...]
    labels: tuple[str, ...] = ()
    resolved: tuple[str, ...] = ()

    @classmethod
    def of_reduced(
        cls,
        energy: FloatArray,
        error: FloatArray,
        edges: tuple[FloatArray, ...],
        axes: Axes,
        temperature: float,
        force_evaluations: int,
    ) -> "FreeEnergySurface":
        """From energies and errors of flat bins in units of kT.

        Args:
            energy: shape=(n_bins,), kT, ``inf`` where unknown.
            error: shape=(n_bins,), kT.
            edges: for each coordinate the bin edges.
            axes: the coordinates.
            temperature: K.
            force_evaluations: to record.
        """
        shape, kT = tuple(len(axis) - 1 for axis in edges), thermal_energy(temperature)
        return cls(
            energy=(kT * energy).reshape(shape),
            error=(kT * error).reshape(shape),
            edges=edges,
            names=axes.names,
            periods=axes.periods,
            temperature=temperature,
            force_evaluations=force_evaluations,
            units=axes.units,
        )

    @property
    def centres(self) -> tuple[FloatArray, ...]:
        """For each coordinate the bin centres."""
        return tuple(0.5 * (edges[1:] + edges[:-1]) for edges in self.edges)

    @property
    def median_error(self) -> float:
        """Median error bar below 10 kT, kJ/mol."""
        return float(np.median(self.error[self.energy < ALIGNMENT_CEILING * thermal_energy(self.temperature)]))

    def energy_at(self, labels: FloatArray) -> FloatArray:
        """Energy of the bin that each label lies in, shape=(n,), for labels of shape=(n, d); kJ/mol.

        Periodic labels may be of any period; beyond the edges of others nothing is known.
        """
        index = bin_indices(labels, self.edges, self.periods)
        energies = np.append(self.energy.ravel(), np.inf)
        return np.asarray(energies[index])

    def save(self, path: str | Path) -> None:
        """Write ``fes.npz``."""
        edges: dict[str, Any] = {f"edges_{i}": edges for i, edges in enumerate(self.edges)}
        known = {"labels": self.labels, "resolved": self.resolved}
        texts: dict[str, Any] = {name: np.array(values) for name, values in known.items() if values}
        np.savez(
            path,
            energy=self.energy,
            error=self.error,
            names=np.array(self.names),
            units=np.array(self.units),
            periods=self.periods,
            temperature=self.temperature,
            force_evaluations=self.force_evaluations,
            **edges,
            **texts,
        )

    def save_dat(self, path: str | Path, unit: str = "kJ/mol") -> None:
        """Write text: fields and grid settings as PLUMED names them, one bin a line, a blank line between rows.

        Places are centres of bins, ``min_`` and ``max_`` the outer edges, and the last coordinate runs fastest; in
        PLUMED's grids places begin at ``min_``, and the first one does.
        """
        scale = energy_unit(unit, self.temperature)
        names = [name.replace(" ", "_") for name in self.names]  # columns are separated by spaces
        lines = [f"#! FIELDS {' '.join(names)} free error"]
        for name, edges, period in zip(names, self.edges, self.periods, strict=True):
            lines += [
                f"#! SET min_{name} {edges[0]:.9g}",
                f"#! SET max_{name} {edges[-1]:.9g}",
                f"#! SET nbins_{name} {len(edges) - 1}",
                f"#! SET periodic_{name} {'true' if np.isfinite(period) else 'false'}",
            ]
        if unit != "kJ/mol":
            lines.append(f"#! SET unit_free {unit}")
        for index in np.ndindex(self.energy.shape):
            if len(index) > 1 and index[-1] == 0 and index[0] > 0:
                lines.append("")
            place = [f"{centres[i]:.9f}" for centres, i in zip(self.centres, index, strict=True)]
            lines.append(" ".join([*place, f"{self.energy[index] / scale:.9f}", f"{self.error[index] / scale:.9f}"]))
        Path(path).write_text("\n".join(lines) + "\n")


def _is_whole(surface: FreeEnergySurface) -> bool:
    """Whether shapes fit each other and numbers are what they must be."""
    if any(part.dtype.kind != "f" for part in (surface.energy, surface.error, surface.periods, *surface.edges)):
        return False
    d, shape = surface.energy.ndim, surface.energy.shape
    texts = all(len(part) in (0, d) for part in (surface.labels, surface.resolved))
    one_each = (
        texts and len(surface.names) == len(surface.units) == len(surface.edges) == d and surface.periods.shape == (d,)
    )
    edges = one_each and all(
        axis.shape == (n + 1,) and np.isfinite(axis).all() and (np.diff(axis) > 0.0).all()
        for axis, n in zip(surface.edges, shape, strict=True)
    )
    bounded = not np.isnan(surface.energy).any() and bool((surface.periods > 0.0).all())
    known = np.isfinite(surface.energy)
    return bool(
        d in DEFAULT_BINS
        and edges
        and surface.error.shape == shape
        and bounded
        and known.any()
        and np.isfinite(surface.error[known]).all()
        and np.isfinite(surface.temperature)
        and surface.temperature > 0.0
    )


@checked
def load_surface(path: str | Path) -> FreeEnergySurface:
    """Read what `FreeEnergySurface.save` wrote.

    Raises:
        InputError: there is no such file, or it holds no surface.
    """
    if not Path(path).is_file():
        raise InputError(f"no file {path}: give a fes.npz that gancl wrote")
    refusal = InputError(f"{path} holds no surface: give a fes.npz that gancl wrote")
    try:
        stored = load_arrays(Path(path))
        names = tuple(map(str, stored["names"]))
        surface = FreeEnergySurface(
            energy=stored["energy"],
            error=stored["error"],
            edges=tuple(stored[f"edges_{i}"] for i in range(len(names))),
            names=names,
            periods=stored["periods"],
            temperature=float(stored["temperature"]),
            force_evaluations=int(stored["force_evaluations"]),
            units=tuple(map(str, stored["units"])),
            labels=tuple(map(str, stored.get("labels", ()))),
            resolved=tuple(map(str, stored.get("resolved", ()))),
        )
        if not _is_whole(surface):
            raise refusal
    except (InputError, ValueError, KeyError, IndexError, TypeError, OverflowError):
        raise refusal from None
    return surface


def grid_edges(slow: Axes, bins: int | None = None) -> tuple[FloatArray, ...]:
    """Bin edges over the domain of each coordinate: 72 a coordinate in two dimensions, 120 in one."""
    d = len(slow.names)
    if d not in DEFAULT_BINS:
        raise InputError(f"a surface over {d} coordinates is not supported: choose one or two labels")
    return tuple(np.linspace(low, high, (bins or DEFAULT_BINS[d]) + 1) for low, high in slow.domain)


def surface_name(labels: Sequence[str]) -> str:
    """Of the files of a surface over some labels: fes_phi_psi; a slash of a label is none of a path."""
    return re.sub(r"[/\\]", "-", "_".join(["fes", *labels]))


def load_surface_over(path: Path, labels: Sequence[str]) -> FreeEnergySurface:
    """That of a file; if it is over others, the one beside it over these, which a run over learned labels has too."""
    surface, beside = load_surface(path), path.with_name(f"{surface_name(labels)}.npz")
    return load_surface(beside) if surface.names != tuple(labels) and beside.is_file() else surface
