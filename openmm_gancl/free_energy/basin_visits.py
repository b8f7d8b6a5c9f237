"""How often trajectories came into each basin: from few visits, populations are off by more than their bars say."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.special import stdtr

from ..coordinates.basin import Basin
from ..coordinates.geometry import embedded
from ..trajectories.blocks import Blocks
from ..trajectories.series import Series
from ..units import BoolArray, FloatArray, IntArray, thermal_energy
from .basins import box_masks, find_basins, find_saddles, lowest_bins
from .grid import bin_centres, bin_indices
from .surface import FreeEnergySurface

FEWEST_VISITS = 10
"""Of 150 runs of two states each with fewer, a fifth to a third had a population beyond 3.5 of its standard errors: a
run that came seldom sees little of a basin and little of how that varies. From 15 visits on it were 3 in 100."""

NOTEWORTHY = 0.005
"""Population from which a basin of few visits is a doubt and not only a note."""

LEAST_FRAMES, MOST_BETWEEN = 20, 0.5
"""Of a trajectory, that tell how far it goes; and of the variance, that may lie between trajectories."""

LEAST_DRIFTING, CHANCE_OF_DRIFT, PLACES_OF_DRIFT = 8, 1e-4, np.arange(1, 8) / 8
"""Trajectories that tell whether all drift; the probability of as much by chance, at one place; and these places, as
quantiles of the frames."""

ROUNDING = 1e-9
"""Of all weight, below which a drift is none."""

N_PARTS = 24
"""Of each axis, where what was cut from a trajectory is compared with the rest."""

LEAST_CUT, RARE = 0.1, 0.1
"""Of a trajectory that was cut, and how rare the others are where the cut frames came back to."""


def basin_cores(surface: FreeEnergySurface, masks: BoolArray) -> IntArray:
    """The basin of each bin in the lower half of one, -1 elsewhere, shape=(n_bins,).

    Args:
        surface: over d coordinates.
        masks: shape=(n_basins, n_0, ...), each with a bin that is known.
    """
    minima, energy = lowest_bins(surface, masks), surface.energy.ravel()
    ways_out = np.full(len(masks), np.inf)
    for *basins, saddle in find_saddles(surface, minima):
        ways_out[basins] = np.minimum(ways_out[basins], energy[saddle])
    cores = np.full(len(energy), -1)
    for i, mask in enumerate(masks):
        cores[mask.ravel() & (energy <= 0.5 * (energy[minima[i]] + ways_out[i]))] = i
    return cores


def visits_of(basins: IntArray, n_basins: int, starts: IntArray) -> IntArray:
    """How often trajectories begin in each basin or come into it from another one, shape=(n_basins,).

    Args:
        basins: shape=(n,), the core that each frame is in, -1 for none; one trajectory after the other.
        n_basins: how many there are.
        starts: shape=(n_trajectories,), the first frame of each.
    """
    inside = np.flatnonzero(basins >= 0)
    at, trajectory = basins[inside], np.searchsorted(starts, inside, side="right")
    first = np.ones(len(at), dtype=bool)
    first[1:] = (np.diff(at) != 0) | (np.diff(trajectory) != 0)
    return np.bincount(at[first], minlength=n_basins)


def _cores_at(bins: IntArray, surface: FreeEnergySurface, masks: BoolArray) -> IntArray:
    """The core of a basin that each frame is in, by the frames' bins, -1 for none or outside."""
    return np.where(bins >= 0, basin_cores(surface, masks)[bins], -1)


def _named(of: FreeEnergySurface | Series, place: FloatArray) -> str:
    """A place in the coordinates' own units."""
    parts = zip(of.names, place, of.units, strict=False)
    return " and ".join(f"{name} = {x:.3g} {unit}".rstrip() for name, x, unit in parts)


def box_doubts(surface: FreeEnergySurface, boxes: Sequence[Basin], values: FloatArray) -> list[str]:
    """Basins with frames in them where the surface has no bin, for too few of these are independent.

    Args:
        surface: over d coordinates.
        boxes: basins that are asked for.
        values: shape=(n, d), of the frames used.
    """
    known = bin_centres(surface.edges)[np.isfinite(surface.energy.ravel())]
    return [
        f"{box.name} lies beyond the surface, where fewer than ten independent samples are: its population may be "
        "wrong by more than its error bar says; sample for longer"
        for box in boxes
        if box.contains(values).any() and not box.contains(known).any()
    ]


def visit_notes(
    probability: FloatArray,
    surface: FreeEnergySurface,
    found: BoolArray,
    boxes: Sequence[Basin],
    values: FloatArray,
    starts: IntArray,
) -> tuple[list[str], list[str]]:
    """Notes, and doubts, about basins that trajectories seldom came into, the largest left out.

    Args:
        probability: shape=(n_0, ...), of the bins.
        surface: over d coordinates.
        found: shape=(n_basins, n_0, ...), the basins of the surface.
        boxes: basins that are asked for, which may overlap; those of the surface by default.
        values: shape=(n, d), of the frames used.
        starts: shape=(n_trajectories,), the first of them of each trajectory.
    """
    known, bins = np.isfinite(surface.energy), bin_indices(values, surface.edges, surface.periods)
    if boxes:  # each of them, and the basins beside it
        rows = [([box.name], np.concatenate([box_masks(surface, [box]) & known, found])) for box in boxes]
        rows = [(names, np.concatenate([masks[:1], masks[1:] & ~masks[0]])) for names, masks in rows if masks[0].any()]
    else:
        rows = [(["the basin"] * len(found), found)]
    notes: list[str] = []
    doubts: list[str] = []
    for names, masks in rows:
        masks = masks[masks.any(axis=tuple(range(1, masks.ndim)))]
        if len(masks) < 2:
            continue
        populations = masks.reshape(len(masks), -1) @ probability.ravel() / probability.sum()
        visits = visits_of(_cores_at(bins, surface, masks), len(masks), starts)
        lowest = lowest_bins(surface, masks)
        for i, name in enumerate(names):
            if visits[i] < FEWEST_VISITS and i != populations.argmax():
                sentence = (
                    f"the trajectories came only {_times(visits[i])} into {name} near "
                    f"{_named(surface, bin_centres(surface.edges)[lowest[i]])}: its population may be wrong by "
                    "more than its error bar says; sample for longer"
                )
                (doubts if populations[i] >= NOTEWORTHY else notes).append(sentence)
    return notes, doubts


def _times(n: int) -> str:
    return "once" if n == 1 else f"{n} times"


def _histogram(surface: FreeEnergySurface, values: FloatArray, inefficiency: float) -> FreeEnergySurface:
    """Of one trajectory from its first frame to its last, in wide bins, with the axes of a surface."""
    edges = tuple(
        np.linspace(-0.5 * period, 0.5 * period, N_PARTS + 1)
        if np.isfinite(period)
        else np.linspace(column.min(), column.max(), N_PARTS + 1)
        for column, period in zip(values.T, surface.periods, strict=True)
    )
    shape = (N_PARTS,) * len(edges)
    counts = np.bincount(bin_indices(values, edges, surface.periods), minlength=int(np.prod(shape))).reshape(shape)
    kT = thermal_energy(surface.temperature)
    with np.errstate(divide="ignore"):
        energy, error = -kT * np.log(counts / counts.max()), kT * np.sqrt(inefficiency / counts)
    return replace(surface, energy=energy, error=error, edges=edges)


def cut_doubts(surface: FreeEnergySurface, series: Series, blocks: Blocks) -> list[str]:
    """Trajectories whose cut frames came into a basin where the others hardly are: it is seldom visited.

    A start that is left for good is what should be cut. But the cut is where the most independent samples are left, and
    a rest that misses a basin seems to have most.

    Args:
        surface: over d coordinates.
        series: of the trajectories.
        blocks: the frames used.
    """
    doubts = []
    for i, n_cut in enumerate(blocks.discarded):
        begin, end = series.starts[i : i + 2]
        values = np.asarray(series.values[begin:end, : surface.energy.ndim], dtype=float)
        if not LEAST_CUT * len(values) <= n_cut < len(values):
            continue
        whole = _histogram(surface, values, blocks.inefficiency[i])
        masks = find_basins(whole)
        if len(masks) < 2:
            continue
        bins = bin_indices(values, whole.edges, whole.periods)
        inside, places = masks.reshape(len(masks), -1)[:, bins], bin_centres(whole.edges)[lowest_bins(whole, masks)]
        at = _cores_at(bins[:n_cut], whole, masks)
        entries = visits_of(at, len(masks), np.zeros(1, dtype=np.int64))
        entries[at[:1][at[:1] >= 0]] -= 1  # where the trajectory begins
        rare = inside[:, n_cut:].mean(axis=1) <= RARE * inside[:, :n_cut].mean(axis=1)
        which = "the trajectory" if len(blocks.discarded) == 1 else f"trajectory {i + 1}"
        doubts += [
            f"the first {n_cut} frames of {which}, cut as equilibration, came {_times(entries[k])} into the basin near "
            f"{_named(series, places[k])}, where the others hardly are: sample for longer, or give `discard` "
            "yourself"
            for k in np.flatnonzero(rare & (entries > 0))
        ]
    return doubts


def spread_doubts(series: Series, d: int, blocks: Blocks) -> list[str]:
    """Trajectories without a bias that stay each in a place of its own: the surface is that of where they began.

    Args:
        series: of the trajectories.
        d: its columns that the surface is over.
        blocks: the frames used.
    """
    frames = blocks.frames()
    counts = np.diff(np.searchsorted(frames, series.starts))
    if len(counts) < 2 or np.median(counts) < LEAST_FRAMES:
        return []
    doubts = []
    trajectory = np.repeat(np.arange(len(counts)), counts)
    for i, name in enumerate(series.names[:d]):
        places = embedded(series.values[frames, i : i + 1].astype(float), series.periods[i : i + 1])
        sums = np.stack([np.bincount(trajectory, part, len(counts)) for part in places.T], axis=1)
        means = sums / np.maximum(counts, 1)[:, None]
        everything = ((places - places.mean(axis=0)) ** 2).sum()
        between = (counts[:, None] * (means - places.mean(axis=0)) ** 2).sum()
        if between > MOST_BETWEEN * everything:
            doubts.append(
                f"each trajectory stays in a place of its own ({100 * between / everything:.0f} % of the variance of "
                f"{name} is between trajectories): the surface shows where they began: give `windows` if they were "
                "restrained; else sample until each comes into all basins"
            )
    return doubts


def _chance(terms: FloatArray, n: int) -> float:
    """That independent terms, n of which can differ from zero, add up to so much by chance, by Student's t."""
    total = abs(float(terms.sum()))
    if total < ROUNDING:
        return 1.0
    rest = n * float((terms**2).sum()) - total**2
    return 2.0 * float(stdtr(n - 1, -total * np.sqrt((n - 1) / max(rest, ROUNDING**2))))


def drift_doubts(series: Series, d: int, blocks: Blocks, log_weights: FloatArray | None) -> list[str]:
    """A doubt where many trajectories drift alike: shorter than the slowest motion, all come from where they began.

    Of a trajectory that is in equilibrium the later frames are where the earlier ones are, however they correlate. Each
    trajectory counts as one.

    Args:
        series: of the trajectories.
        d: its columns that the surface is over.
        blocks: the frames used.
        log_weights: shape=(n_used,), of these frames; None if all are alike.
    """
    frames = blocks.frames()
    starts = np.searchsorted(frames, series.starts)
    counts = np.diff(starts)
    n = int((counts > 1).sum())
    if n < LEAST_DRIFTING:
        return []
    trajectory = np.repeat(np.arange(len(counts)), counts)
    time = (np.arange(len(frames)) - starts[trajectory] + 0.5) / counts[trajectory] - 0.5
    weights = np.ones(len(frames)) if log_weights is None else np.exp(log_weights - log_weights.max())
    rarest, doubts = CHANCE_OF_DRIFT, []
    for i, name in enumerate(series.names[:d]):
        column = np.asarray(series.values[frames, i], dtype=float)
        for place in np.quantile(column, PLACES_OF_DRIFT):
            above = column > place
            excess = weights * (above - np.average(above, weights=weights))
            chance = _chance(np.bincount(trajectory, excess * time) / weights.sum(), n)
            if chance < rarest:
                rarest = chance
                earlier, later = (np.average(above[part], weights=weights[part]) for part in (time < 0, time > 0))
                doubts = [
                    f"the trajectories drift: {100 * earlier:.2g} % of the earlier halves of them lie above {name} = "
                    f"{place:.3g}{series.after(i)}, and {100 * later:.2g} % of the later halves, which chance does not "
                    "explain: they still show where they began; sample each for longer, or cut more by `discard`"
                ]
    return doubts


def basin_notes(
    probability: FloatArray,
    surface: FreeEnergySurface,
    found: BoolArray,
    boxes: Sequence[Basin],
    series: Series,
    blocks: Blocks,
    *,
    open_ends: bool,
    cut: bool,
) -> tuple[list[str], list[str]]:
    """Notes, and doubts, about populations of basins.

    Args:
        probability: shape=(n_0, ...), of the bins.
        surface: over d coordinates.
        found: shape=(n_basins, n_0, ...), the basins of the surface.
        boxes: basins that are asked for; those of the surface by default.
        series: of the trajectories.
        blocks: the frames used.
        open_ends: whether the surface ends where samples become few.
        cut: whether frames were cut for want of equilibration.
    """
    frames = blocks.frames()
    values = np.asarray(series.values[frames, : surface.energy.ndim], dtype=float)
    starts = np.searchsorted(frames, series.starts[:-1])
    notes, doubts = visit_notes(probability, surface, found, boxes, values, starts)
    doubts += box_doubts(surface, boxes, values) if open_ends else []
    return notes, doubts + (cut_doubts(surface, series, blocks) if cut else [])
