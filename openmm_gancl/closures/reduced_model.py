"""Reduced models: overdamped Langevin dynamics of the slow coordinates, from a free energy and a diffusion tensor.

In Ito's sense ``ds_i = a_i dt + (sqrt(2 D) dW)_i`` with ``a_i = -D_ij dF/ds_j + dD_ij/ds_j``, F in units of kT: the
second part, the noise-induced drift, keeps ``exp(-F)`` stationary where D depends on s.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from scipy.interpolate import RegularGridInterpolator
from scipy.ndimage import distance_transform_edt

from ..coordinates.slow_coordinates import Axes
from ..engine.random_numbers import named_rng
from ..errors import InputError, checked
from ..files import load_arrays
from ..free_energy.grid import bin_centres, bin_indices
from ..free_energy.surface import FreeEnergySurface
from ..units import BoolArray, FloatArray, IntArray, numbers, thermal_energy, whole_number

FINE_CELLS = {1: 4096, 2: 384}
"""A coordinate, of the table that a simulation reads drift and noise from."""

COPIES_AT_ONCE = 4096
"""Few enough to stay in a core's cache."""

FORMAT = "openmm-gancl reduced model 1"


@dataclass(frozen=True, eq=False)
class ReducedModel:
    """Overdamped dynamics of one or two slow coordinates on a grid of cells.

    Attributes:
        energy: shape=(n_0, ...), free energy at the cells' centres, kT; ``inf`` where it is not known: a wall.
        diffusion: shape=(n_0, ..., d, d), squared units of the labels over ps; symmetric and positive definite.
        edges: of the cells, one array a coordinate, even.
        names: of the coordinates.
        periods: shape=(d,), ``inf`` where there is none: there the domain's ends reflect.
        units: of the coordinates.
        temperature: K.
    """

    energy: FloatArray
    diffusion: FloatArray
    edges: tuple[FloatArray, ...]
    names: tuple[str, ...]
    periods: FloatArray
    units: tuple[str, ...]
    temperature: float

    def __post_init__(self) -> None:
        """Check shapes and numbers.

        Raises:
            InputError: they do not fit, or a tensor is not symmetric and positive definite.
        """
        d, shape = len(self.names), tuple(len(axis) - 1 for axis in self.edges)
        if d not in FINE_CELLS or len(shape) != d:
            raise InputError(f"a reduced model over {d} coordinates is not supported: choose one or two")
        if self.energy.shape != shape or self.diffusion.shape != (*shape, d, d):
            raise InputError(
                f"energies of shape {self.energy.shape} and tensors of shape {self.diffusion.shape} do not fit {shape} "
                f"cells: give {shape} and {(*shape, d, d)}"
            )
        if np.isnan(self.energy).any() or not self.known.any():
            raise InputError("the free energy is NaN or known nowhere: give numbers, inf where it is not known")
        tensors = self.diffusion[self.known]
        symmetric = np.isfinite(tensors).all() and np.allclose(tensors, np.swapaxes(tensors, -1, -2))
        if not symmetric or np.linalg.eigvalsh(tensors).min() <= 0:
            raise InputError(
                "a diffusion tensor is not symmetric and positive definite: use more runs, or a longer lag"
            )

    @classmethod
    def of_surface(cls, surface: FreeEnergySurface, diffusion: FloatArray) -> "ReducedModel":
        """From a surface, and tensors at its bins, shape=(n_0, ..., d, d), or one for all, shape=(d, d)."""
        d = len(surface.names)
        return cls(
            energy=surface.energy / thermal_energy(surface.temperature),
            diffusion=np.broadcast_to(diffusion, (*surface.energy.shape, d, d)).copy(),
            edges=surface.edges,
            names=surface.names,
            periods=surface.periods,
            units=surface.units,
            temperature=surface.temperature,
        )

    @classmethod
    def of_functions(
        cls, axes: Axes, energy: Any, diffusion: Any, temperature: float, bins: int | Sequence[int]
    ) -> "ReducedModel":
        """From functions of the label.

        Args:
            axes: the coordinates.
            energy: of labels, shape=(n, d), kT, shape=(n,).
            diffusion: of labels, shape=(n, d, d).
            temperature: K.
            bins: cells a coordinate.
        """
        d = len(axes.names)
        shape = tuple(int(n) for n in np.broadcast_to(bins, (d,)))
        edges = tuple(np.linspace(low, high, n + 1) for (low, high), n in zip(axes.domain, shape, strict=True))
        places = bin_centres(edges)
        energies, tensors = np.asarray(energy(places)), np.asarray(diffusion(places))
        grid = (energies - energies.min()).reshape(shape), tensors.reshape(*shape, d, d)
        return cls(*grid, edges, tuple(axes.names), axes.periods, tuple(axes.units), temperature)

    @property
    def known(self) -> BoolArray:
        """shape=(n_0, ...), where the free energy is."""
        return np.isfinite(self.energy)

    @property
    def centres(self) -> FloatArray:
        """Of all cells, shape=(n_cells, d)."""
        return bin_centres(self.edges)

    @property
    def spacings(self) -> FloatArray:
        """Of the cells along each coordinate, shape=(d,)."""
        return np.array([axis[1] - axis[0] for axis in self.edges])

    @cached_property
    def density(self) -> FloatArray:
        """The stationary density, shape=(n_0, ...), whose sum times the volume of a cell is one."""
        weights = np.exp(-(self.energy - self.energy.min()))
        return np.asarray(weights / (weights.sum() * self.spacings.prod()))

    @cached_property
    def drift(self) -> FloatArray:
        """a, shape=(n_0, ..., d), labels' units over ps; beyond walls that of the nearest known cell."""
        return self._at_known(self._forced_drift + self.noise_induced_drift)

    @cached_property
    def noise_induced_drift(self) -> FloatArray:
        """``dD_ij/ds_j``, shape=(n_0, ..., d)."""
        d, tensors = len(self.names), self._at_known(self.diffusion)
        return np.stack([sum(self._slope(tensors[..., i, j], j) for j in range(d)) for i in range(d)], axis=-1)

    @cached_property
    def _forced_drift(self) -> FloatArray:
        energy = self._at_known(self.energy)
        slopes = np.stack([self._slope(energy, axis) for axis in range(len(self.names))], axis=-1)
        return np.asarray(-np.einsum("...ij,...j->...i", self._at_known(self.diffusion), slopes))

    def _at_known(self, field: FloatArray) -> FloatArray:
        """A field with the value of the nearest known cell where there is none."""
        if self.known.all():
            return field
        nearest = distance_transform_edt(~self.known, return_distances=False, return_indices=True)
        return np.asarray(field[tuple(nearest)])

    def _slope(self, field: FloatArray, axis: int) -> FloatArray:
        """Central differences; one-sided at an end that reflects, and beside a wall across it zero by reflection."""
        if np.isfinite(self.periods[axis]):
            return np.asarray((np.roll(field, -1, axis) - np.roll(field, 1, axis)) / (2 * self.spacings[axis]))
        return np.asarray(np.gradient(field, self.spacings[axis], axis=axis, edge_order=2))

    def cells_of(self, labels: FloatArray) -> IntArray:
        """Flat index of the cell of each label, shape=(n,); -1 outside the domain, and of NaN."""
        places = np.asarray(labels, dtype=float).reshape(-1, len(self.names))
        finite = np.isfinite(places).all(axis=1)
        cells = bin_indices(np.where(finite[:, None], places, 0.0), self.edges, self.periods)
        return np.where(finite, cells, -1)

    def interpolated(self, field: FloatArray, labels: FloatArray) -> FloatArray:
        """A field on cells, shape=(n_0, ..., ...), at labels, shape=(n, d), by linear interpolation of the centres."""
        axes, padded = [], field
        for i, (edges, period) in enumerate(zip(self.edges, self.periods, strict=True)):
            middle = 0.5 * (edges[1:] + edges[:-1])
            step, ends = middle[1] - middle[0], "wrap" if np.isfinite(period) else "edge"
            axes.append(np.concatenate([[middle[0] - step], middle, [middle[-1] + step]]))
            width = [(0, 0)] * padded.ndim
            width[i] = (1, 1)
            padded = np.pad(padded, width, mode=ends)  # type: ignore[call-overload]
        places = np.array(labels, dtype=float).reshape(-1, len(self.names))
        for i, (edges, period) in enumerate(zip(self.edges, self.periods, strict=True)):
            if np.isfinite(period):
                places[:, i] = edges[0] + (places[:, i] - edges[0]) % period
        return np.asarray(RegularGridInterpolator(axes, padded, bounds_error=False, fill_value=None)(places))

    def simulate(
        self,
        starts: FloatArray,
        n_steps: int,
        time_step: float,
        *,
        stride: int = 1,
        seed: int = 0,
    ) -> FloatArray:
        """Trajectories of many copies side by side, by Euler and Maruyama's scheme.

        Drift and noise are read from a table finer than the cells. A periodic coordinate is wrapped into the domain, an
        open end reflects, and a step into a wall is not made.

        Args:
            starts: shape=(n_copies, d).
            n_steps: of each.
            time_step: ps; its bias is of first order, so compare with half of it.
            stride: steps from frame to frame.
            seed: the same seed gives the same trajectories.

        Returns:
            shape=(n_steps // stride, n_copies, d).

        Raises:
            InputError: a start outside the domain or inside a wall, or a time step that moves copies by more than a
                tenth of the domain at once.
        """
        starts = np.asarray(numbers(starts), dtype=float).reshape(-1, len(self.names))
        n_steps, stride = whole_number("n_steps", n_steps), whole_number("stride", stride)
        cells = self.cells_of(starts)
        if not len(starts) or (cells < 0).any() or not self.known.ravel()[cells].all():
            raise InputError("a start lies outside the domain, or where the free energy is not known: start elsewhere")
        table = _Table.of(self, time_step)
        chunks = [starts[i : i + COPIES_AT_ONCE] for i in range(0, len(starts), COPIES_AT_ONCE)]
        parts = [
            table.run(chunk, n_steps, stride, named_rng(seed, "reduced model", number))
            for number, chunk in enumerate(chunks)
        ]
        return np.concatenate(parts, axis=1)

    def save(self, path: str | Path) -> None:
        """Write an npz file: arrays and one line of JSON, no code."""
        np.savez(path, **self.stored(FORMAT))

    def stored(self, kind: str) -> dict[str, Any]:
        """Arrays of a file.

        Args:
            kind: of the file, which `of_stored` asks for.
        """
        described = {"format": kind, "names": self.names, "units": self.units, "temperature": self.temperature}
        edges: dict[str, Any] = {f"edges_{i}": edges for i, edges in enumerate(self.edges)}
        arrays = {"energy": self.energy, "diffusion": self.diffusion, "periods": self.periods}
        return {"description": np.array(json.dumps(described)), **arrays, **edges}

    @classmethod
    def of_stored(cls, stored: Mapping[str, Any], kind: str) -> "ReducedModel":
        """What `stored` gave.

        Raises:
            InputError, ValueError, KeyError, IndexError or TypeError: it is something else.
        """
        described = json.loads(str(stored["description"]))
        if described["format"] != kind:
            raise ValueError(described["format"])
        return cls(
            energy=np.asarray(stored["energy"], dtype=float),
            diffusion=np.asarray(stored["diffusion"], dtype=float),
            edges=tuple(np.asarray(stored[f"edges_{i}"], dtype=float) for i in range(len(described["names"]))),
            names=tuple(map(str, described["names"])),
            periods=np.asarray(stored["periods"], dtype=float),
            units=tuple(map(str, described["units"])),
            temperature=float(described["temperature"]),
        )


@checked
def load_reduced_model(path: str | Path) -> ReducedModel:
    """Read what `ReducedModel.save` wrote.

    Raises:
        InputError: there is no such file, or it holds no reduced model.
    """
    stored = load_arrays(Path(path))
    try:
        return ReducedModel.of_stored(stored, FORMAT)
    except (InputError, ValueError, KeyError, IndexError, TypeError):
        raise InputError(f"{path} holds no reduced model: give a file that ReducedModel.save wrote") from None


@dataclass(frozen=True)
class _Table:
    """Drift and noise of one time step in units of fine cells, for simulations.

    Attributes:
        low: shape=(d,), where the domain begins.
        widths: shape=(d,), of the fine cells.
        counts: of them, one number a coordinate.
        periodic: one a coordinate.
        moves: shape=(d, n_fine), drift times the step.
        noises: the lower triangle of the square root of ``2 D dt``, rows of shape=(n_fine,).
        closed: shape=(n_fine,), walls; None where there are none.
    """

    low: FloatArray
    widths: FloatArray
    counts: tuple[int, ...]
    periodic: tuple[bool, ...]
    moves: FloatArray
    noises: tuple[FloatArray, ...]
    closed: BoolArray | None

    @classmethod
    def of(cls, model: ReducedModel, time_step: float) -> "_Table":
        if not (np.isfinite(time_step) and time_step > 0):
            raise InputError(f"the time step is {time_step:g}: give a positive number of ps")
        d = len(model.names)
        counts = (FINE_CELLS[d],) * d
        fine = tuple(np.linspace(axis[0], axis[-1], n + 1) for axis, n in zip(model.edges, counts, strict=True))
        places, widths = bin_centres(fine), np.array([axis[1] - axis[0] for axis in fine])
        moves = model.interpolated(model.drift, places) * time_step / widths
        tensors = model.interpolated(model._at_known(model.diffusion), places)
        roots = np.linalg.cholesky(2 * time_step * tensors) / widths[:, None]
        longest = max(float(np.abs(moves).max()), 3 * float(np.abs(roots).max()))
        if longest > 0.1 * counts[0]:
            raise InputError(
                f"a time step of {time_step:g} ps moves copies by a tenth of the domain: give a shorter one"
            )
        closed = ~model.known.ravel()[model.cells_of(places)]
        return cls(
            low=np.array([axis[0] for axis in fine]),
            widths=widths,
            counts=counts,
            periodic=tuple(bool(np.isfinite(period)) for period in model.periods),
            moves=np.ascontiguousarray(moves.T),
            noises=tuple(np.ascontiguousarray(roots[:, i, j]) for i in range(d) for j in range(i + 1)),
            closed=closed if closed.any() else None,
        )

    def run(self, starts: FloatArray, n_steps: int, stride: int, rng: np.random.Generator) -> FloatArray:
        """Frames of one chunk of copies, shape=(n_steps // stride, n, d)."""
        places = np.ascontiguousarray(((starts - self.low) / self.widths).T)
        frames = np.empty((n_steps // stride, *starts.shape))
        noise = np.empty_like(places)
        for step in range(n_steps):
            rng.standard_normal(out=noise)
            self._step(places, noise)
            if (step + 1) % stride == 0:
                frames[step // stride] = self.low + places.T * self.widths
        return frames

    def _cells(self, places: FloatArray) -> IntArray:
        cells = places[0].astype(np.intp)
        for row, count in zip(places[1:], self.counts[1:], strict=True):
            cells *= count
            cells += row.astype(np.intp)
        return cells

    def _step(self, places: FloatArray, noise: FloatArray) -> None:
        cells, before = self._cells(places), None if self.closed is None else places.copy()
        for i, count in enumerate(self.counts):
            row = places[i]
            row += self.moves[i].take(cells)
            first = i * (i + 1) // 2
            for j in range(i + 1):
                row += self.noises[first + j].take(cells) * noise[j]
            if self.periodic[i]:
                row -= count * np.floor(row / count)
            else:
                np.abs(row, out=row)
                np.subtract(count, row, out=row)
                np.abs(row, out=row)
                np.subtract(count, row, out=row)
            # rounding may leave the end itself
            np.minimum(row, np.nextafter(count, 0), out=row)
        if self.closed is not None and before is not None:
            into = self.closed.take(self._cells(places))
            places[:, into] = before[:, into]
