"""Passage times, committor and time scales of a reduced model, by its backward equation on the grid.

The generator ``L f = (1/pi) d_i (pi D_ij d_j f)`` in its weak form, ``A(f, g) = int pi (grad f) . D (grad g)``, with
linear elements on the simplices of each cell and its neighbours: A is symmetric and has no negative direction whatever
F and D, so that detailed balance holds exactly. The price is an error of second order in the cells.
"""

import itertools
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array, csc_array, diags_array, eye_array
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import eigsh, splu, spsolve

from ..coordinates.basin import Basin
from ..errors import InputError, checked
from ..units import BoolArray, FloatArray, IntArray
from .reduced_model import ReducedModel

Region = Basin | BoolArray
"""A basin, or a mask of cells, shape=(n_0, ...)."""

CORE_DEPTH = 2.0
"""kT, of the core of a basin."""

ROUNDING, MOST_CHANGED = 0.5 * float(np.finfo(float).eps), 0.01
"""Relative change of the diagonal of A, which sums up what nearly cancels, and of a solution by it, at most."""

MOST_DENSE, STEPS = 600, 16
"""Cells for which all eigenvectors are fast to find; and steps in time for more."""


@dataclass(frozen=True, eq=False)
class GridGenerator:
    """The generator of a reduced model on the cells that are connected with its minimum.

    Attributes:
        model: the model.
        cells: shape=(n,), flat indices of those cells.
        stiffness: shape=(n, n), A, sparse and symmetric, 1/ps.
        populations: shape=(n,), stationary, of sum one.
    """

    model: ReducedModel
    cells: IntArray
    stiffness: csc_array
    populations: FloatArray

    @classmethod
    def of(cls, model: ReducedModel) -> "GridGenerator":
        """Assemble it."""
        energy = (model.energy - model.energy.min()).ravel()
        stiffness = _assembled(model, energy)
        _, parts = connected_components(stiffness, directed=False)
        cells = np.flatnonzero((parts == parts[energy.argmin()]) & np.isfinite(energy))
        populations = np.exp(-energy[cells])
        total = populations.sum()
        chosen = csc_array(stiffness.tocsr()[cells][:, cells])
        return cls(model, cells, chosen / total, populations / total)

    def field(self, values: FloatArray) -> FloatArray:
        """Values of the cells as a field, shape=(n_0, ...); NaN elsewhere."""
        found = np.full(self.model.energy.size, np.nan)
        found[self.cells] = values
        return found.reshape(self.model.energy.shape)

    def inside(self, region: Region) -> BoolArray:
        """Which cells have their centre in a basin, or are in a mask, shape=(n,).

        Raises:
            InputError: none is, or the mask has another shape.
        """
        if isinstance(region, Basin):
            inside = np.asarray(region.contains(self.model.centres[self.cells]))
        elif np.shape(region) == self.model.energy.shape:
            inside = np.asarray(region, dtype=bool).ravel()[self.cells]
        else:
            raise InputError(f"a mask of shape {np.shape(region)}: give one of {self.model.energy.shape}, or a basin")
        if not inside.any():
            raise InputError(
                f"{_name(region)} holds no cell of the reduced model: make it larger, or the cells smaller"
            )
        return inside

    def propagated(self, labels: FloatArray, times: FloatArray) -> FloatArray:
        """Probabilities of the cells after some times, from the cells that labels lie in, shape=(n_times, n, k).

        Args:
            labels: shape=(k, d), where something is known.
            times: shape=(n_times,), ps, rising.

        Raises:
            InputError: a label lies where nothing is known.
        """
        places = np.full(self.model.energy.size + 1, -1)
        places[self.cells] = np.arange(len(self.cells))
        begin = places[self.model.cells_of(labels)]
        if (begin < 0).any():
            raise InputError("a label lies where the free energy is not known: leave it out, or lift more there")
        start = np.zeros((len(self.cells), len(begin)))
        start[begin, np.arange(len(begin))] = 1.0
        roots = np.sqrt(self.populations)
        symmetric = csc_array(diags_array(1 / roots) @ self.stiffness @ diags_array(1 / roots))
        if len(roots) <= MOST_DENSE:
            rates, vectors = np.linalg.eigh(symmetric.toarray())
            inner = vectors.T @ (start / roots[:, None])
            decayed = np.exp(-np.multiply.outer(times, rates.clip(min=0.0)))
            return np.asarray(roots[:, None] * np.einsum("ca,ta,ak->tck", vectors, decayed, inner, optimize=True))
        found, state, longest = list[FloatArray](), start / roots[:, None], times[-1] / STEPS
        for interval in np.diff(times, prepend=0.0):
            n_steps = max(1, int(np.ceil(interval / longest - 1e-9)))
            state = _implicit_steps(symmetric, state, interval / n_steps, n_steps)
            found.append(state * roots[:, None])
        return np.stack(found)

    def _solve(self, known: BoolArray, values: FloatArray, right: FloatArray) -> FloatArray:
        """The f with ``A f = right`` where it is not known, and these values where it is.

        Raises:
            InputError: rounding decides it.
        """
        free = ~known
        rows = self.stiffness.tocsr()[free]
        found = values.astype(float).copy()
        pulled = right[free] - rows[:, known] @ values[known]
        matrix = csc_array(rows[:, free])
        rounded = csc_array(matrix + diags_array(ROUNDING * matrix.diagonal()))
        found[free], other = spsolve(matrix, pulled), spsolve(rounded, pulled)
        _check_resolved(np.abs(found[free] - other).max(initial=0.0), np.abs(other).max(initial=0.0))
        return found


def _check_resolved(change: float, size: float) -> None:
    """Refuse a number that another rounding of A would change by more than a hundredth."""
    if not change <= MOST_CHANGED * size:
        raise InputError(
            "a barrier is too high for double precision on this grid (beyond some 25 kT), so that rounding decides how "
            "often it is crossed: set the energy of what lies behind it to inf, or estimate the rate from its height"
        )


def _implicit_steps(rates: csc_array, state: FloatArray, step: float, n_steps: int) -> FloatArray:
    """The state after steps of ``f' = -rates f``, by the L-stable scheme of second order with two equal stages.

    Of polynomials in time, as the variance of a free diffusion is, it is exact to second order (Alexander 1977,
    doi 10.1137/0714068).
    """
    gamma = 1 - np.sqrt(0.5)
    factor = splu(csc_array(eye_array(len(state)) + gamma * step * rates))
    for _ in range(n_steps):
        first = factor.solve(-(rates @ state))
        second = factor.solve(-(rates @ (state + (1 - gamma) * step * first)))
        state = state + step * ((1 - gamma) * first + gamma * second)
    return state


def _assembled(model: ReducedModel, energy: FloatArray) -> coo_array:
    """A of all cells; neighbours beyond an end or a wall are the cell itself, across which nothing flows."""
    shape, d, n = model.energy.shape, len(model.names), energy.size
    index = np.arange(n).reshape(shape)
    finite = np.isfinite(energy)
    tensors = model.diffusion.reshape(n, d, d)
    cell = np.flatnonzero(finite)
    rows, columns, entries = list[IntArray](), list[IntArray](), list[FloatArray]()
    for signs in itertools.product((1, -1), repeat=d):
        corners = [cell]
        for axis, sign in enumerate(signs):
            neighbour = np.roll(index, -sign, axis)
            if not np.isfinite(model.periods[axis]):
                end = [slice(None)] * d
                end[axis] = slice(-1, None) if sign > 0 else slice(0, 1)
                neighbour[tuple(end)] = index[tuple(end)]
            other = neighbour.ravel()[cell]
            corners.append(np.where(finite[other], other, cell))
        density = np.exp(-np.mean([energy[corner] for corner in corners], axis=0)) / 2**d
        tensor = np.mean([tensors[corner] for corner in corners], axis=0)
        for i, j in itertools.product(range(d), repeat=2):
            scale = signs[i] * signs[j] / (model.spacings[i] * model.spacings[j])
            part = density * tensor[:, i, j] * scale
            for row, column, direction in (
                (corners[1 + i], corners[1 + j], 1.0),
                (corners[1 + i], cell, -1.0),
                (cell, corners[1 + j], -1.0),
                (cell, cell, 1.0),
            ):
                rows.append(row)
                columns.append(column)
                entries.append(direction * part)
    found = coo_array((np.concatenate(entries), (np.concatenate(rows), np.concatenate(columns))), shape=(n, n))
    found.sum_duplicates()
    found.eliminate_zeros()
    return found


def _name(region: Region) -> str:
    return f"basin {region.name}" if isinstance(region, Basin) else "a mask"


@checked
def core_of(model: ReducedModel, basin: Basin, depth: float = CORE_DEPTH) -> BoolArray:
    """The cells of a basin that lie near its lowest, shape=(n_0, ...).

    Basins that divide the whole domain touch, and where they do a path crosses again and again: passages are between
    their cores.

    Args:
        model: the model.
        basin: with a cell at least.
        depth: kT above the lowest.

    Raises:
        InputError: the basin holds no cell.
    """
    inside = basin.contains(model.centres).reshape(model.energy.shape) & model.known
    if not inside.any():
        raise InputError(f"basin {basin.name} holds no cell of the reduced model: make it larger, or the cells smaller")
    return np.asarray(inside & (model.energy < model.energy[inside].min() + depth))


@checked
def mean_passage_times_to(model: ReducedModel, basin: Region) -> FloatArray:
    """Mean time to reach a basin from each cell, shape=(n_0, ...), ps: ``L t = -1``; NaN where it cannot be reached.

    Raises:
        InputError: the basin holds no cell, or a barrier is too high for double precision.
    """
    generator = GridGenerator.of(model)
    inside = generator.inside(basin)
    return generator.field(generator._solve(inside, np.zeros(len(inside)), generator.populations))


@checked
def committor(model: ReducedModel, first: Region, second: Region) -> FloatArray:
    """Probability to reach the second basin before the first, shape=(n_0, ...): ``L q = 0`` between them.

    Raises:
        InputError: a basin holds no cell, they overlap or touch, or a barrier about another well is too high.
    """
    generator = GridGenerator.of(model)
    return generator.field(_committor(generator, first, second).clip(0.0, 1.0))


def _committor(generator: GridGenerator, first: Region, second: Region) -> FloatArray:
    one, other = generator.inside(first), generator.inside(second)
    if (one & other).any() or generator.stiffness.tocsr()[one][:, other].nnz:
        raise InputError(
            f"{_name(first)} and {_name(second)} overlap or touch, where paths cross again and again: give two that do "
            "not, or their cores (core_of)"
        )
    return generator._solve(one | other, other.astype(float), np.zeros(len(one)))


@checked
def mean_passage_times(model: ReducedModel, first: Region, second: Region) -> FloatArray:
    """Mean times from entering one basin to reaching the other, there and back, shape=(2,), ps.

    By the reactive flux: ``t_AB = <1 - q> / A(q, q)``, the share of time that the last basin was A over the passages in
    unit time (Vanden-Eijnden 2006, Transition path theory, doi 10.1007/3-540-35273-2_13); what `passage_times` counts
    along a trajectory.

    Raises:
        InputError: as `committor` does.
    """
    generator = GridGenerator.of(model)
    q = _committor(generator, first, second)
    # by differences alone: a sum over cells of q times A q would cancel
    edges = generator.stiffness.tocoo()
    flux = -0.5 * float(edges.data @ (q[edges.row] - q[edges.col]) ** 2)
    return np.array([generator.populations @ (1 - q), generator.populations @ q]) / flux


@dataclass(frozen=True, eq=False)
class Relaxations:
    """The slowest relaxations of a reduced model.

    Attributes:
        time_scales: shape=(k,), ps, the longest first.
        functions: shape=(k, n_0, ...), eigenfunctions of mean zero and variance one; NaN where nothing is known.
    """

    time_scales: FloatArray
    functions: FloatArray

    @classmethod
    def none(cls, model: ReducedModel) -> "Relaxations":
        """Of a model whose relaxations cannot be told."""
        return cls(np.empty(0), np.empty((0, *model.energy.shape)))


@checked
def relaxations(model: ReducedModel, n: int = 3) -> Relaxations:
    """The longest implied time scales and their eigenfunctions.

    Args:
        model: the model.
        n: how many.

    Raises:
        InputError: a barrier is too high for double precision.
    """
    generator = GridGenerator.of(model)
    roots = np.sqrt(generator.populations)
    symmetric = csc_array(diags_array(1 / roots) @ generator.stiffness @ diags_array(1 / roots))
    shift = -1e-9 * float(symmetric.diagonal().max())
    start = np.ones(len(roots))  # a fixed one: the same bytes each time
    rates, vectors = eigsh(symmetric, n + 1, sigma=shift, which="LM", v0=start)
    order = np.argsort(rates)[1:]
    _check_resolved(ROUNDING * float(symmetric.diagonal().max()), float(rates[order[0]]))
    functions = [generator.field(vectors[:, i] / roots) for i in order]
    return Relaxations(1 / rates[order], np.stack(functions))
