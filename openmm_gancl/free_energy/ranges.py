"""Where a surface begins and ends: over one period, or as far as enough samples reach."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..coordinates.basin import Basin
from ..coordinates.geometry import wrap
from ..engine.random_numbers import named_rng
from ..errors import InputError
from ..trajectories.blocks import Blocks
from ..trajectories.series import Series
from ..units import BoolArray, FloatArray, IntArray, numbers
from .grid import FineGrid, open_edges
from .surface import DEFAULT_BINS

END_SAMPLES, MAX_END_FRACTION = 10.0, 0.02
"""Independent samples beyond an open end, at most, and of all of them. The outermost sample lies where it lies by
chance: bins that end with it hold one there, however unlikely it was, and the surface would turn down."""

MOST, MAX_FILLED, MIN_BINS = 0.95, 3, 60
"""Of the weight, bins that hold it, at most, and of how many: the surface would show nothing of it."""

MAX_COMPARED, MIN_REPETITIONS = 20_000, 4
"""Frames that are looked at for values that are rounded or counted, and frames of each value, at least."""

MAX_UNEVEN = 0.1
"""Of a step, that the distances of such values differ by from whole steps."""


def _looked_at(blocks: Blocks) -> IntArray:
    frames = blocks.frames()
    return frames[:: max(len(frames) // MAX_COMPARED, 1)]


def _steps(values: FloatArray) -> tuple[FloatArray, float, bool]:
    """The values that rounded or counted ones take, how far apart they lie, and whether evenly; nothing of others."""
    found = np.unique(values).astype(float)
    if not 1 < len(found) < len(values) / MIN_REPETITIONS:
        return np.empty(0), 0.0, False
    apart = np.diff(found)
    gap = float(np.median(apart[apart < 1.5 * apart.min()]))
    return found, gap, bool((np.abs(apart / gap - np.rint(apart / gap)) < MAX_UNEVEN).all())


def without_rounding(
    series: Series, boxes: Sequence[Basin], d: int, blocks: Blocks, seed: int
) -> tuple[Series, list[Basin], list[str]]:
    """The series with its rounded or counted coordinates spread evenly over what each value stands for, boxes, notes.

    Bins that such values are unlike numbers of show a comb, and the bandwidth that follows it is too narrow; a value at
    the end of a box would be in it or not as its last binary digit has it. What is counted, in whole numbers and
    without a period, is inside a box with all of a step where the box ends at it; half of what was rounded to an end
    lies beyond.

    Args:
        series: its first columns are the coordinates.
        boxes: regions in the coordinates.
        d: how many.
        blocks: the frames used.
        seed: of the random numbers that they are spread by.
    """
    frames, values, notes = _looked_at(blocks), series.values, list[str]()
    boxes = list(boxes)
    for i in range(d):
        found, gap, even = _steps(series.values[frames, i])
        if not even:
            continue
        values = values if notes else np.array(values)
        moved = named_rng(seed, "rounded values", i).uniform(-gap / 2, gap / 2, len(values))
        values[:, i] = wrap(values[:, i] + moved, series.periods[i])
        notes.append(
            f"{series.names[i]} is in steps of {gap:.3g}{series.after(i)}: each value counts evenly over one step "
            "around it"
        )
        if boxes and np.isinf(series.periods[i]) and (found == np.rint(found)).all():
            notes[-1] += ", and a box that ends at it holds all of that step"
            boxes = [_with_whole_ends(box, i, found[0], gap) for box in boxes]
    return replace(series, values=values), boxes, notes


def _with_whole_ends(box: Basin, i: int, first: float, gap: float) -> Basin:
    """A box that holds all of the steps around the values in it, of coordinate i."""
    parts = [np.array(part, dtype=float) for part in box.boxes]
    for part in parts:
        low, high = (part[i] - first) / gap
        part[i] = first + gap * np.array([np.ceil(low - 1e-6) - 0.5, np.floor(high + 1e-6) + 0.5])
    return Basin(box.name, tuple(parts))


@dataclass(frozen=True)
class SurfaceRange:
    """Bins of a surface, and how far samples reach.

    Attributes:
        edges: bin edges, one array a coordinate.
        spans: shape=(d, 2), of the samples.
        ends: shape=(d, 2), beyond which too few lie.
    """

    edges: tuple[FloatArray, ...]
    spans: FloatArray
    ends: FloatArray

    @property
    def known(self) -> BoolArray:
        """The bins within these ends, shape=(n_0, ...)."""
        inside = []
        for edges, (low, high) in zip(self.edges, self.ends, strict=True):
            centres = 0.5 * (edges[1:] + edges[:-1])
            inside.append((centres >= low) & (centres <= high))
        return np.asarray(np.logical_and.reduce(np.meshgrid(*inside, indexing="ij")))

    def grid(self, periods: FloatArray) -> FineGrid:
        """The grid that densities are estimated on; periods of shape=(d,)."""
        return FineGrid(self.edges, periods, self.spans)


def _runs(blocks: Blocks) -> list[tuple[int, int]]:
    """First frame, and the one after the last, of what was cut nowhere between."""
    first = np.flatnonzero(np.append(True, blocks.start[1:] != blocks.stop[:-1]))
    ends = np.append(blocks.stop[first[1:] - 1], blocks.stop[-1])
    return list(zip(blocks.start[first].tolist(), ends.tolist(), strict=True))


def _open_ends(values: FloatArray, shares: FloatArray) -> tuple[float, float]:
    """Places beyond which `END_SAMPLES` lie; shares, shape=(n,), of an independent sample that a frame makes."""
    order = np.argsort(values)
    beyond = np.cumsum(shares[order])
    least = min(END_SAMPLES, MAX_END_FRACTION * beyond[-1])
    low, high = np.searchsorted(beyond, [least, beyond[-1] - least])
    first, last = float(values[order[low]]), float(values[order[min(high, len(order) - 1)]])
    return (first, last) if first < last else (float(values[order[0]]), float(values[order[-1]]))


def _asked(ranges: Sequence[tuple[float, float]], names: Sequence[str], periods: FloatArray) -> dict[int, FloatArray]:
    """The range of each coordinate that one is given for."""
    open_ = np.flatnonzero(~np.isfinite(periods)).tolist()
    limits = numbers(ranges) if len(ranges) else np.empty((0, 2))
    limits = limits[None] if limits.shape == (2,) else limits
    if limits.ndim != 2 or limits.shape[1] != 2:
        raise InputError(f"`ranges` is {ranges!r}: give (low, high) for each coordinate without a period")
    if len(limits) not in (0, len(open_), len(names)):
        raise InputError(f"{len(limits)} ranges for {len(names)} coordinates: give one for each without a period")
    found = {}
    for i, (low, high) in zip(open_ if len(limits) == len(open_) else range(len(names)), limits.tolist(), strict=False):
        if not (np.isfinite([low, high]).all() and low < high):
            raise InputError(f"the range {low:g}:{high:g} of {names[i]} is empty: give low:high")
        if np.isfinite(periods[i]) and not np.allclose([low, high], [-periods[i] / 2, periods[i] / 2], rtol=1e-2):
            raise InputError(
                f"{names[i]} has a period, its range is {-periods[i] / 2:.4g}:{periods[i] / 2:.4g}, not "
                f"{low:g}:{high:g}: leave it out"
            )
        found[i] = np.array([low, high])
    return found


def surface_range(
    series: Series, d: int, blocks: Blocks, bins: int | None, ranges: Sequence[tuple[float, float]] = ()
) -> SurfaceRange:
    """Bins over one period, over the ranges asked for, or over what most of the frames that are used reach.

    Args:
        series: its first columns are the coordinates.
        d: how many.
        blocks: the frames used.
        bins: bins a coordinate; `DEFAULT_BINS` by default.
        ranges: low and high of each coordinate without a period, or of each coordinate; none by default.

    Raises:
        InputError: a coordinate does not move, or a range is none.
    """
    runs, asked = _runs(blocks), _asked(ranges, series.names[:d], series.periods[:d])
    file = np.searchsorted(series.starts, [begin for begin, _ in runs], side="right") - 1
    shares = np.repeat([1.0 / blocks.inefficiency[i] for i in file], [end - begin for begin, end in runs])
    n = bins or DEFAULT_BINS[d]
    edges, spans, ends = [], [], []
    for i, period in enumerate(series.periods[:d].tolist()):
        parts = [series.values[begin:end, i] for begin, end in runs]
        span = np.array([min(part.min() for part in parts), max(part.max() for part in parts)], dtype=float)
        if not span[1] > span[0]:
            raise InputError(f"{series.names[i]} is {span[0]:g} in every frame: choose a coordinate that moves")
        if np.isfinite(period):
            span = np.array([-period / 2, period / 2])
            edges.append(np.linspace(span[0], span[1], n + 1))
            ends.append((-np.inf, np.inf))
            spans.append(span)
            continue
        ends.append(_open_ends(np.concatenate(parts).astype(float), shares))
        if i in asked:
            low, high = asked[i]
            if low >= span[1] or high <= span[0]:
                raise InputError(
                    f"no frame with {series.names[i]} from {low:g} to {high:g}: it is from {span[0]:g} to {span[1]:g}"
                )
            edges.append(np.linspace(low, high, n + 1))
        else:
            edges.append(open_edges(*ends[-1], span, n))
            ends[-1] = (-np.inf, np.inf)
        spans.append(span)
    return SurfaceRange(tuple(edges), np.array(spans), np.array(ends))


def end_notes(covered: SurfaceRange, series: Series) -> list[str]:
    """Coordinates of which single frames lie farther beyond the surface than it is wide: another well, perhaps.

    Args:
        covered: of the surface.
        series: its first columns are the coordinates.
    """
    return [
        f"{series.names[i]} is from {low:.3g} to {high:.3g}{series.after(i)}, and the surface from {edges[0]:.3g} to "
        f"{edges[-1]:.3g}: fewer than ten independent samples lie beyond; give `ranges` to see what they show"
        for i, (edges, (low, high)) in enumerate(zip(covered.edges, covered.spans, strict=True))
        if max(edges[0] - low, high - edges[-1]) > edges[-1] - edges[0]
    ]


def resolution_doubts(
    probability: FloatArray, edges: Sequence[FloatArray], series: Series, blocks: Blocks
) -> list[str]:
    """Bins that are too wide for what was sampled, or narrower than what tells its values apart.

    Args:
        probability: shape=(n_0, ...), of the bins.
        edges: of the bins, one array a coordinate.
        series: its first columns are the coordinates.
        blocks: the frames used.
    """
    doubts, frames = [], _looked_at(blocks)
    for i, ends in enumerate(edges):
        name, n, width = series.names[i], len(ends) - 1, float(ends[1] - ends[0])
        unit = series.after(i)
        marginal = np.sort(probability.sum(axis=tuple(j for j in range(len(edges)) if j != i)))[::-1]
        filled = int(np.searchsorted(np.cumsum(marginal), MOST * marginal.sum())) + 1
        values, gap, _ = _steps(series.values[frames, i])
        periodic, computed = np.isfinite(series.periods[i]), bool("".join(series.resolved[i : i + 1]))
        if n >= MIN_BINS and filled <= MAX_FILLED and not (periodic and computed):  # a stiff torsion, in radians
            remedy = (
                "name it with its own period, or with `:none`" if periodic else "give `ranges`, or leave outliers out"
            )
            doubts.append(
                f"{100 * MOST:.0f} % of {name} lie in {filled} of {n} bins, each {width:.3g}{unit} wide: {remedy}, or "
                "check its unit"
            )
        elif gap > 1.01 * width:
            low, high = values[0] - gap / 2, values[-1] + gap / 2
            most = max(round((float(series.periods[i]) if periodic else high - low) / gap), 1)
            remedy = "give" if periodic else f"give the `ranges` {low:.6g}:{high:.6g}{unit} and"
            doubts.append(
                f"{name} takes {len(values)} values only, {gap:.3g}{unit} apart, its bins are {width:.3g}{unit} wide: "
                f"{remedy} at most {most} `bins`"
            )
    return doubts
