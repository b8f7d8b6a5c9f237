"""Hills of PLUMED's metadynamics: the bias at every frame as it was then, less the constant that grows with it.

The log-weight of a frame is (V(xi, t) - c(t)) / kT, where c(t) is the work that the bias has done on average (Tiwary
and Parrinello 2015, doi 10.1021/jp504920s). PLUMED writes heights of well-tempered runs times gamma / (gamma - 1), so
that their sum is the negative of the free energy (`plumed sum_hills`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.ndimage import map_coordinates, spline_filter
from scipy.special import logsumexp

from ..coordinates.geometry import wrap
from ..errors import InputError
from ..units import BoolArray, FloatArray, thermal_energy
from .colvar import Colvar, read_colvar
from .periods import check_same_turn

POINTS_PER_WIDTH = 5
"""Of a hill, of the grid."""

MAX_POINTS = {1: 4000, 2: 300, 3: 80}
"""Of the grid, along a variable."""

REACH = 6.0
"""Widths around the hills that the grid covers of a variable without a period."""

CUTOFF = 6.25
"""Half the square of the scaled distance at which PLUMED's stretched Gaussians become zero."""

MAX_NARROW = 0.1
"""Of the hills, that may be narrower than a step of the grid."""

MAX_UPDATES = 4000
"""Times at which c(t) is computed; between them it is interpolated."""

FILLING = 0.1
"""Of the hills, while which the bias fills the first basins and c(t) means little: frames of then have no weight."""

MAX_NUMBER = 1e8
"""Of a centre, width or height, kJ/mol, beyond which a file is broken."""

MAX_OFFSET = 1.0
"""Widths, in the median, that hills may lie from where the run was at their time."""

MIN_DIFFERENCE, MAX_DIFFERENCE = 1.0, 0.1
"""kJ/mol, and of its size, by which the bias of hills may differ in the median from what a COLVAR says."""

METADYNAMICS = ("metad", "mtd", "hills")
"""Parts of names of its bias."""

MAX_WITHOUT_HILLS = 10.0
"""Intervals between hills, for which frames may go before the first or after the last."""


@dataclass(frozen=True)
class Hills:
    """Gaussians that a metadynamics run has deposited.

    Attributes:
        path: of the first file, for messages.
        names: of its collective variables.
        periods: shape=(d,), ``inf`` where there is none.
        times: shape=(n,), ps, increasing.
        centres: shape=(n, d).
        widths: shape=(n, d), standard deviations along each variable.
        heights: shape=(n,), kJ/mol, as the bias has them.
        bias_factor: of well-tempered runs; ``inf`` otherwise.
        stretched: whether they are shifted to reach zero.
        whitening: shape=(n, d, d), inverses of the covariances' lower Cholesky factors; None where variables do not
            correlate.
    """

    path: Path
    names: tuple[str, ...]
    periods: FloatArray
    times: FloatArray
    centres: FloatArray
    widths: FloatArray
    heights: FloatArray
    bias_factor: float
    stretched: bool
    whitening: FloatArray | None = None

    @property
    def product(self) -> bool:
        """Whether hills are products along the variables: Gaussians without covariances that are not shifted."""
        return not self.stretched and self.whitening is None

    @property
    def held_widths(self) -> FloatArray:
        """Of each hill along each variable, the others held, shape=(n, d)."""
        return self.widths if self.whitening is None else np.asarray((self.whitening**2).sum(axis=1) ** -0.5)

    @property
    def narrowest(self) -> FloatArray:
        """The least of these widths, shape=(d,)."""
        return np.asarray(self.held_widths.min(axis=0))

    def scaled(self, chosen: slice, places: FloatArray) -> FloatArray:
        """How far places of shape=(n, d) are from some hills, in their widths, shape=(n, n_hills, d)."""
        offsets = wrap(places[:, None] - self.centres[chosen], self.periods)
        if self.whitening is None:
            return np.asarray(offsets / self.widths[chosen])
        return np.einsum("nij,pnj->pni", self.whitening[chosen], offsets)


def _with_covariances(table: Colvar) -> bool:
    """Whether hills are of adaptive Gaussians."""
    return table.settings[0].get("multivariate", "false") == "true"


def _variables(table: Colvar) -> tuple[str, ...]:
    """Names of what the hills are on."""
    full, fields = _with_covariances(table), table.fields
    names = tuple(name for name in fields if (f"sigma_{name}_{name}" if full else f"sigma_{name}") in fields)
    wanted = {f"sigma_{name}" for name in names}
    if full:
        wanted = {f"sigma_{later}_{name}" for i, name in enumerate(names) for later in names[i:]}
    if not names or wanted != {name for name in fields if name.startswith("sigma_")}:
        raise InputError(f"{table.path}: its sigma columns are not understood: give the HILLS file as PLUMED writes it")
    return names


def _factors(table: Colvar, names: Sequence[str]) -> FloatArray:
    """Lower Cholesky factors of the covariances, shape=(n, d, d)."""
    factors = np.zeros((len(table.rows), len(names), len(names)))
    full = _with_covariances(table)
    for i, name in enumerate(names):
        for j, later in enumerate(names[i:] if full else [name], start=i):
            factors[:, j, i] = table.column(f"sigma_{later}_{name}" if full else f"sigma_{name}")
    return factors


def _bias_factor(table: Colvar) -> float:
    """Of a well-tempered run; ``inf`` of another."""
    factors = table.column("biasf") if "biasf" in table.fields else np.zeros(len(table.rows))
    tempered = factors > 1.0
    if not (tempered == tempered[0]).all() or np.ptp(factors) > 1e-3 * abs(factors[0]):
        raise InputError(f"{table.path}: the bias factor changes: give the hills of one run")
    return float(factors[0]) if tempered[0] else float("inf")


def _acting_from(table: Colvar) -> FloatArray:
    """Times of hills, ps, shape=(n,): those from after the checkpoint of a restart act from that checkpoint on."""
    times = table.column("time").copy()
    for file in range(len(table.paths)):
        mine = times[table.file == file]
        later = np.append(np.minimum.accumulate(mine[::-1])[-2::-1], np.inf)  # the first that comes after each
        steps = np.diff(mine)
        interval = float(np.median(steps[steps > 0])) if (steps > 0).any() else 0.0
        times[table.file == file] = np.where(mine > later, later - interval, mine)
    return times


def read_hills(paths: Sequence[Path], unit: float = 1.0) -> Hills:
    """Read HILLS files; several are of walkers that deposit together.

    Args:
        paths: as PLUMED writes them.
        unit: of heights, kJ/mol.

    Raises:
        InputError: they are none.
    """
    table = read_colvar(paths, hills=True)
    settings = table.settings[0]
    if "height" not in table.fields or "logweight" in table.fields or "action" in settings:
        raise InputError(f"{table.path} holds no hills of metadynamics: give the HILLS file as PLUMED writes it")
    names = _variables(table)
    if table.run[-1] != len(paths) - 1:
        raise InputError(f"{table.path}: the time of hills starts anew within a file: cut it there, one file a run")
    times = _acting_from(table)
    order = np.argsort(times, kind="stable")
    bias_factor = _bias_factor(table)
    factors = _factors(table, names)[order]
    diagonal, widths = np.diagonal(factors, axis1=1, axis2=2), np.sqrt((factors**2).sum(axis=2))
    numbers = np.concatenate([table.rows[:, [table.fields.index(name) for name in (*names, "height")]], widths], axis=1)
    if not ((diagonal > 1 / MAX_NUMBER).all() and (np.abs(numbers) < MAX_NUMBER).all()):
        raise InputError(f"{table.path}: a width or height cannot be: give the HILLS file as it was written")
    return Hills(
        path=table.path,
        names=names,
        periods=np.array([table.period(name) for name in names]),
        times=times[order],
        centres=np.stack([table.column(name)[order] for name in names], axis=1),
        widths=widths,
        heights=unit * table.column("height")[order] * (1.0 - 1.0 / bias_factor),
        bias_factor=bias_factor,
        stretched=settings.get("kerneltype", "").startswith("stretched"),
        whitening=np.asarray(np.linalg.inv(factors), dtype=float) if _with_covariances(table) else None,
    )


def _kernels(hills: Hills, chosen: slice, places: FloatArray) -> FloatArray:
    """Of some hills at places of shape=(n, d), kJ/mol, shape=(n, n_hills)."""
    half = 0.5 * (hills.scaled(chosen, places) ** 2).sum(axis=2)
    if not hills.stretched:
        return np.asarray(hills.heights[chosen] * np.exp(-half))
    edge = np.exp(-CUTOFF)
    return np.asarray(hills.heights[chosen] * np.maximum((np.exp(-half) - edge) / (1.0 - edge), 0.0))


@dataclass(frozen=True)
class _Grid:
    """An even grid that the bias is kept on; periodic variables without their last node."""

    low: FloatArray
    step: FloatArray
    shape: tuple[int, ...]
    modes: str
    visited: tuple[BoolArray, ...] = ()

    @classmethod
    def of(cls, hills: Hills, values: FloatArray) -> "_Grid":
        d = len(hills.names)
        if d not in MAX_POINTS:
            raise InputError(f"{hills.path}: hills on {d} variables cannot be summed here: give a column metad.rbias")
        periodic = np.isfinite(hills.periods)
        reach = REACH * hills.widths.max(axis=0)
        low = np.minimum(hills.centres.min(axis=0), values.min(axis=0)) - reach
        high = np.maximum(hills.centres.max(axis=0), values.max(axis=0)) + reach
        low, length = np.where(periodic, -hills.periods / 2, low), np.where(periodic, hills.periods, high - low)
        points = np.ceil(POINTS_PER_WIDTH * length / hills.narrowest).clip(30, MAX_POINTS[d]).astype(int)
        step = length / np.where(periodic, points, points - 1)
        if (narrow := (hills.held_widths < step).mean(axis=0) > MAX_NARROW).any():
            i = int(narrow.argmax())
            raise InputError(
                f"{hills.path}: hills of width {hills.narrowest[i]:.3g} are too narrow beside the {length[i]:.3g} that "
                f"{hills.names[i]} reaches over to be summed here: give a column metad.rbias"
            )
        mode = "grid-wrap" if periodic.all() else "mirror" if not periodic.any() else "mixed"
        grid = cls(low, step, tuple(map(int, points)), mode)
        # c(t) is a mean over what the run reaches, not over the margin; 0.51 for one place between two nodes
        inside = [
            (axis >= places.min() - 0.51 * own) & (axis <= places.max() + 0.51 * own) | ring
            for axis, places, own, ring in zip(
                grid.places, np.concatenate([hills.centres, values]).T, step, periodic, strict=True
            )
        ]
        return replace(grid, visited=tuple(inside))

    @property
    def places(self) -> list[FloatArray]:
        return [low + step * np.arange(n) for low, step, n in zip(self.low, self.step, self.shape, strict=True)]

    def interpolated(self, table: FloatArray, values: FloatArray, hills: Hills) -> FloatArray:
        """A cubic spline at values, shape=(n,)."""
        places = (values - self.low) / self.step
        if self.modes == "mixed":  # rings are continued by hand
            pad = [(6, 6) if np.isfinite(period) else (0, 0) for period in hills.periods]
            table = np.pad(table, pad, mode="wrap")
            places = places + [p for p, _ in pad]
        mode = "mirror" if self.modes == "mixed" else self.modes
        return np.asarray(map_coordinates(spline_filter(table, mode=mode), places.T, mode=mode, prefilter=False))


def _on_grid(hills: Hills, chosen: slice, axes: Sequence[FloatArray]) -> FloatArray:
    """The sum of some hills on a grid."""
    if not hills.product:
        places = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))
        return _kernels(hills, chosen, places).sum(axis=1).reshape([len(axis) for axis in axes])
    factors = [
        np.exp(-0.5 * (wrap(axis[:, None] - hills.centres[chosen, i], hills.periods[i]) / hills.widths[chosen, i]) ** 2)
        for i, axis in enumerate(axes)
    ]
    letters = "abc"[: len(axes)]
    return np.asarray(
        np.einsum(
            ",".join([f"{letter}n" for letter in letters] + ["n"]) + f"->{letters}",
            *factors,
            hills.heights[chosen],
            optimize=True,
        )
    )


def _offset(table: FloatArray, bias_factor: float, kT: float) -> float:
    """c(t), kJ/mol."""
    inverse = 1.0 / bias_factor
    above, below = 1.0 / (1.0 - inverse), inverse / (1.0 - inverse)
    return float(kT * (logsumexp(above * table / kT) - logsumexp(below * table / kT)))


@dataclass(frozen=True)
class HillsBias:
    """The bias of hills at frames.

    Attributes:
        energies: shape=(n,), kJ/mol, of the hills that were there before each frame.
        offsets: shape=(n,), kJ/mol, c(t).
        settled: shape=(n,), whether it has settled: not within the first tenth of the hills.
    """

    energies: FloatArray
    offsets: FloatArray
    settled: BoolArray

    def parts(self, n: int) -> tuple["HillsBias", "HillsBias"]:
        """Of the first n, and of the others."""
        first, second = (
            HillsBias(self.energies[part], self.offsets[part], self.settled[part])
            for part in (slice(n), slice(n, None))
        )
        return first, second

    def log_weights(self, temperature: float) -> FloatArray:
        """(V(xi, t) - c(t)) / kT, shape=(n,); -inf where c(t) has not settled."""
        logs = (self.energies - self.offsets) / thermal_energy(temperature)
        return np.asarray(np.where(self.settled, logs, -np.inf))


def hills_bias(hills: Hills, values: FloatArray, times: FloatArray, temperature: float) -> HillsBias:
    """V(xi, t) and c(t) of frames: each under the hills that were there before it.

    Args:
        hills: of the run.
        values: shape=(n, d), collective variables of the hills, in their order.
        times: shape=(n,), ps, of the frames.
        temperature: K.
    """
    kT, n = thermal_energy(temperature), len(hills.times)
    values = np.asarray(values, dtype=float)
    grid = _Grid.of(hills, values)
    axes, table = grid.places, np.zeros(grid.shape)
    before = np.searchsorted(hills.times, np.asarray(times, dtype=float) - 1e-6, side="left")
    order = np.argsort(before, kind="stable")
    # c(t) goes with the logarithm of their number: often at the beginning, then seldom
    edges = np.unique(np.concatenate([[0, n], np.geomspace(1, n, MAX_UPDATES).astype(int)]))
    if n <= MAX_UPDATES:
        edges = np.arange(n + 1)
    bias, offsets = np.zeros(len(values)), np.zeros(len(edges))
    ends = np.searchsorted(before[order], np.append(edges[1:], n + 1))
    begin = 0
    for i, (first, last) in enumerate(zip(edges, np.append(edges[1:], n + 1), strict=True)):
        offsets[i] = _offset(table[np.ix_(*grid.visited)], hills.bias_factor, kT)
        frames = order[begin : ends[i]]
        if len(frames):
            bias[frames] = grid.interpolated(table, values[frames], hills)
            if last - first > 1 and first < n:
                hill = np.arange(first, min(last, n))
                new = _kernels(hills, slice(int(first), int(min(last, n))), values[frames])
                bias[frames] += np.where(hill < before[frames][:, None], new, 0.0).sum(axis=1)
        begin = ends[i]
        if first < n:
            table += _on_grid(hills, slice(int(first), int(last)), axes)
    return HillsBias(bias, np.interp(before, edges, offsets), before >= FILLING * n)


def hills_log_weights(hills: Hills, values: FloatArray, times: FloatArray, temperature: float) -> FloatArray:
    """Of frames, shape=(n,), as for `hills_bias`."""
    return hills_bias(hills, values, times, temperature).log_weights(temperature)


def check_periods(hills: Hills, periods: Sequence[float] | FloatArray) -> None:
    """Refuse hills whose variables have another period than those of the frames.

    Args:
        hills: of the run.
        periods: shape=(d,), of the frames' variables.

    Raises:
        InputError: one is without a period that the other has, or they are in another unit.
    """
    for name, own, period in zip(hills.names, hills.periods, periods, strict=True):
        if np.isfinite(period) and not np.isfinite(own):
            raise InputError(
                f"{hills.path} tells no period of {name}, which is {period:.4g} in the frames: give the file as it was "
                f"written, or add its lines #! SET min_{name} and max_{name}"
            )
        check_same_turn(f"{name} of {hills.path}", float(own), float(period))


def check_deposits(hills: Hills, values: FloatArray, times: FloatArray) -> None:
    """Refuse hills that were deposited elsewhere than where the frames were at their time.

    Args:
        hills: of one or more walkers.
        values: shape=(n, d).
        times: shape=(n,), ps; several walkers have the same times, and the nearest one counts.

    Raises:
        InputError: they are of another run.
    """
    order = np.argsort(times, kind="stable")
    sorted_times = np.asarray(times, dtype=float)[order]
    first = np.searchsorted(sorted_times, hills.times - 1e-4, side="left")
    last = np.searchsorted(sorted_times, hills.times + 1e-4, side="right")
    nearest: dict[float, float] = {}  # of the hills of one time, put by several walkers, whose frames may not be here
    for a, b, time, centre, width in zip(first, last, hills.times, hills.centres, hills.widths, strict=True):
        if b > a:
            offset = np.abs(wrap(values[order[a:b]] - centre, hills.periods) / width).max(axis=1).min()
            nearest[time] = min(nearest.get(time, np.inf), float(offset))
    offsets = list(nearest.values())
    if len(offsets) > 10 and np.median(offsets) > MAX_OFFSET:
        raise InputError(
            f"{hills.path}: its hills lie {np.median(offsets):.1f} widths from where the frames were at their time: "
            "give the HILLS of this run, and its collective variables by `bias_cvs`"
        )


def same_biases(bias: HillsBias, written: dict[str, FloatArray]) -> list[str]:
    """Columns of a COLVAR, kJ/mol, that are the bias of hills."""
    mine = bias.energies[bias.settled]
    found = []
    for name, energies in written.items() if len(mine) else ():
        theirs = energies[bias.settled]
        if np.median(np.abs(theirs - mine)) < max(MIN_DIFFERENCE, MAX_DIFFERENCE * np.median(np.abs(theirs))):
            found.append(name)
    return found


def check_bias(hills: Hills, bias: HillsBias, times: FloatArray, written: dict[str, FloatArray]) -> tuple[str, ...]:
    """Compare the bias of hills with what the run's COLVAR says that it was.

    Args:
        hills: of the run.
        bias: of its frames.
        times: shape=(n,), ps, of the frames.
        written: biases that the COLVAR holds, kJ/mol, by their columns' names.

    Returns:
        doubts: about hills that are not all of the run, where the COLVAR does not tell.

    Raises:
        InputError: the bias of metadynamics that was written is another one.
    """
    mine = bias.energies[bias.settled]
    other = next((name for name in written if any(part in name.lower() for part in METADYNAMICS)), None)
    if len(mine) and other is not None and not same_biases(bias, written):
        raise InputError(
            f"{other} of the frames is {np.median(written[other][bias.settled]):.3g} kJ/mol in the median, the hills "
            f"of {hills.path} sum up to {np.median(mine):.3g}: give the hills of this run and of no other, all of them "
            "(of every walker that it saw, and of before a restart), and both files in one unit"
        )
    steps = np.diff(np.unique(hills.times))
    interval = float(np.median(steps)) if len(steps) else np.inf
    gaps = {"begin after": hills.times[0] - times.min(), "end before": times.max() - hills.times[-1]}
    gaps |= {"have a gap among": float(steps.max())} if len(steps) else {}
    return tuple(
        f"the hills of {hills.path} {where} the frames, by {gap:.4g} ps: if the run deposited some there, give them"
        for where, gap in gaps.items()
        if gap > MAX_WITHOUT_HILLS * interval
    )
