"""Whether a bias column is one function of the collective variables, as it must be to be undone by itself.

Frames next to each other in the collective variables have nearly the same bias if it is. A bias that still grows is
higher at the later of the two; a run under a restraint of its own (an umbrella window) differs from another run.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from ..coordinates.geometry import embedded
from ..units import FloatArray, IntArray, thermal_energy

MAX_FRAMES = 4000
"""Frames that are compared, evenly taken."""

MIN_DIFFERENCE, MIN_RATIO = 0.5, 4.0
"""kT, and times the difference within a run, that the bias of another run must differ by."""

MAX_WITHIN = 0.1
"""kT, between neighbours of one run: a bias that differs by more acts on something else as well."""

MIN_UNUSED = 0.5
"""kT, standard deviation of a bias, and its difference between places along the surface, below which leaving it out
changes little: a wall that is seldom met."""

N_PLACES, MIN_FRAMES_OF_A_PLACE = 50, 10
"""Along a collective variable, at which a bias is compared."""

ERRORS_OF_A_DIFFERENCE = 4.0
"""That the largest difference of medians may be by chance."""

MIN_FRAMES, MAX_ROUGHNESS, MUCH_SMOOTHER = 50, 0.1, 3.0
"""Frames that tell; and how much a bias may differ between neighbours in the collective variables, over what it differs
between any two frames, if it is a function of them, and how much more if it is none."""

MIN_FRAMES_UNRELATED, UNRELATED = 200, 0.9
"""Frames that tell; and how much a bias differs between neighbours in the collective variables, over what it differs
between any two frames, from which on it has nothing to do with them."""

MAX_PARTS, ROUNDING = 8, 0.02
"""Biases among which the parts of a sum are looked for; and of the least of them, that their sum may differ by."""

MIN_GROWTH = 0.5
"""kT between frames that are at least a third of a run apart, in the mean."""


@dataclass(frozen=True)
class BiasDifferences:
    """How a bias differs between neighbours in the collective variables, kT.

    Attributes:
        within: median difference between frames of one run.
        across: between frames of different runs; NaN for one run, or where no two come near each other.
        growth: mean of later less earlier, of frames far apart in time.
        growth_error: of it.
    """

    within: float
    across: float
    growth: float
    growth_error: float

    @property
    def one_for_each_run(self) -> bool:
        """Whether each run has a bias of its own."""
        return bool(self.within < MAX_WITHIN and self.across > max(MIN_DIFFERENCE, MIN_RATIO * self.within))

    @property
    def grows(self) -> bool:
        """Whether the bias still grows."""
        return self.growth > max(MIN_GROWTH, 4.0 * self.growth_error)


def _places(values: FloatArray, periods: FloatArray) -> FloatArray:
    """Collective variables, each of a spread of about one; periodic ones as places on a circle."""
    spreads = np.where(np.isfinite(periods), 1.0, np.maximum(values.std(axis=0), 1e-12))
    return embedded(values / spreads, periods)


def nearest_neighbours(values: FloatArray, periods: FloatArray) -> IntArray:
    """The frame next to each in the collective variables, shape=(n,)."""
    places = _places(values, periods)
    return np.asarray(cKDTree(places).query(places, k=2)[1][:, 1])


def usual_difference(values: FloatArray) -> float:
    """The median of it between frames far from each other."""
    return float(np.median(np.abs(values - np.roll(values, len(values) // 2))))


def _pairs(places: FloatArray, near: float, first: IntArray, second: IntArray) -> tuple[IntArray, IntArray]:
    """For each of the first frames, the nearest of the second ones, where that is near."""
    if not len(first) or not len(second):
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    distance, found = cKDTree(places[second]).query(places[first])
    close = distance < near
    return first[close], second[found[close]]


def bias_differences(values: FloatArray, periods: FloatArray, bias: FloatArray, starts: IntArray) -> BiasDifferences:
    """Compare the bias of frames that are neighbours in the collective variables.

    Args:
        values: shape=(n, d).
        periods: shape=(d,).
        bias: shape=(n,), kT.
        starts: shape=(n_runs + 1,), where each run begins.
    """
    chosen = np.unique(np.linspace(0, len(values) - 1, min(len(values), MAX_FRAMES)).astype(int))
    run = np.searchsorted(starts, chosen, side="right") - 1
    lengths = np.diff(starts)
    fraction = (chosen - starts[run]) / np.maximum(lengths[run], 1)
    places, bias = _places(np.asarray(values, dtype=float)[chosen], periods), np.asarray(bias, dtype=float)[chosen]
    nearest = cKDTree(places).query(places, k=2)[0][:, 1]
    near = 3.0 * float(np.median(nearest)) + 1e-9
    every = np.arange(len(chosen))

    def difference(pairs: tuple[IntArray, IntArray]) -> FloatArray:
        return np.asarray(bias[pairs[1]] - bias[pairs[0]])

    within, across = [], []
    for k in range(len(lengths)):
        mine = every[run == k]
        within.append(np.abs(difference(_pairs(places, near, mine[::2], mine[1::2]))))
        if len(lengths) > 1:
            across.append(np.abs(difference(_pairs(places, near, mine, every[run != k]))))
    growth = difference(_pairs(places, near, every[fraction < 1 / 3], every[fraction > 2 / 3]))
    middle = difference(_pairs(places, near, every[fraction > 2 / 3], every[fraction < 1 / 3]))
    both = np.concatenate([growth, -middle])
    return BiasDifferences(
        within=_median(np.concatenate(within)),
        across=_median(np.concatenate(across)) if across else float("nan"),
        growth=float(both.mean()) if len(both) > 1 else 0.0,
        growth_error=float(both.std() / np.sqrt(len(both))) if len(both) > 1 else 0.0,
    )


def _median(values: FloatArray) -> float:
    return float(np.median(values)) if len(values) else float("nan")


def lagging_bias(values: FloatArray, periods: FloatArray, log_weights: FloatArray, starts: IntArray) -> tuple[str, ...]:
    """A doubt about weights that are a function of the collective variables of the frame before or after.

    Args:
        values: shape=(n, d).
        periods: shape=(d,).
        log_weights: shape=(n,).
        starts: shape=(n_runs + 1,), where each run begins.
    """
    inner = np.ones(len(values), dtype=bool)
    inner[[*starts[:-1], *(starts[1:] - 1)]] = False
    finite = np.isfinite(log_weights)
    chosen = np.flatnonzero(inner & finite & np.roll(finite, 1) & np.roll(finite, -1))
    chosen = chosen[:: max(len(chosen) // MAX_FRAMES, 1)]
    if len(chosen) < MIN_FRAMES:
        return ()
    neighbour = chosen[nearest_neighbours(np.asarray(values, dtype=float)[chosen], periods)]
    usual = usual_difference(log_weights[chosen])
    if not usual > 0:
        return ()
    rough = {
        lag: float(np.median(np.abs(log_weights[chosen + lag] - log_weights[neighbour + lag]))) / usual
        for lag in (0, -1, 1)
    }
    lag = min(rough, key=rough.__getitem__)
    if (
        lag == 0
        or rough[lag] > MAX_ROUGHNESS
        or rough[0] < MUCH_SMOOTHER * max(rough[lag], MAX_ROUGHNESS / MUCH_SMOOTHER)
    ):
        return ()
    side = "before" if lag > 0 else "after"
    return (f"the weights follow from the collective variables of the frame {side} each: move them by one row",)


def follows(values: FloatArray, periods: FloatArray, log_weights: FloatArray) -> bool:
    """Whether weights have to do with the collective variables: those of neighbours differ less than any two do.

    Args:
        values: shape=(n, d), of the frames.
        periods: shape=(d,).
        log_weights: shape=(n,).
    """
    chosen = np.flatnonzero(np.isfinite(log_weights))
    chosen = chosen[:: max(len(chosen) // MAX_FRAMES, 1)]
    if len(chosen) < MIN_FRAMES_UNRELATED or not len(periods):
        return True
    neighbour = nearest_neighbours(np.asarray(values, dtype=float)[chosen], periods)
    logs = log_weights[chosen]
    usual = np.abs(logs - np.roll(logs, len(logs) // 2)).mean()
    return bool(usual == 0 or np.abs(logs - logs[neighbour]).mean() < UNRELATED * usual)


def parts_of(total: FloatArray, others: dict[str, FloatArray]) -> tuple[str, ...]:
    """The biases whose sum another one is, two or more; empty where it is none.

    Args:
        total: shape=(n,).
        others: by the names of their columns; those that are zero everywhere are left out.
    """
    sizes = {name: float(np.sqrt((bias**2).mean())) for name, bias in others.items()}
    names = [name for name, size in sizes.items() if size > 0][:MAX_PARTS]
    few = slice(None, None, max(len(total) // MAX_FRAMES, 1))
    for n in range(2, len(names) + 1):
        for chosen in itertools.combinations(names, n):
            least = ROUNDING * min(sizes[name] for name in chosen)
            for part, limit in ((few, 10 * least), (slice(None), least)):  # most are out by a few frames
                rest = total[part] - np.sum([others[name][part] for name in chosen], axis=0)
                if np.sqrt((rest**2).mean()) > limit:
                    break
            else:
                return chosen
    return ()


@dataclass(frozen=True)
class UnusedBiases:
    """Sentences about biases that nobody undoes.

    Attributes:
        along: of those that follow a collective variable, so that the surface holds them.
        beside: of others.
    """

    along: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        """Of both kinds."""
        return self.along + self.beside


def _difference_along(values: FloatArray, energies: FloatArray) -> float:
    """How much the median of energies differs between places along one of the variables, beyond chance."""
    largest = 0.0
    for column in np.asarray(values, dtype=float).T:
        low, high = column.min(), column.max()
        if not high > low:
            continue
        place = np.minimum((N_PLACES * (column - low) / (high - low)).astype(int), N_PLACES - 1)
        order = np.argsort(place, kind="stable")
        parts = np.split(energies[order], np.flatnonzero(np.diff(place[order])) + 1)
        parts = [part for part in parts if len(part) >= MIN_FRAMES_OF_A_PLACE]
        if parts:
            medians = np.array([np.median(part) for part in parts])
            errors = np.array([1.25 * part.std() / np.sqrt(len(part)) for part in parts])
            top, bottom = int(medians.argmax()), int(medians.argmin())
            chance = ERRORS_OF_A_DIFFERENCE * float(np.hypot(errors[top], errors[bottom]))
            largest = max(largest, float(medians[top] - medians[bottom]) - chance)
    return largest


def unused_bias(
    written: dict[str, FloatArray], used: Sequence[str], temperature: float, values: FloatArray
) -> UnusedBiases:
    """Biases that a table holds and that nobody undoes, with what to give.

    Args:
        written: of the frames, kJ/mol, by the names of their columns.
        used: columns that are undone; a bias and the same one less c(t) (``rbias``) are one.
        temperature: K.
        values: shape=(n, d), of the frames.
    """
    undone, kT = {name.rpartition(".")[0] for name in used}, thermal_energy(temperature)
    along, beside = list[str](), list[str]()
    for name, energies in written.items():
        if name in used or ("." in name and name.rpartition(".")[0] in undone):
            continue
        difference, spread = _difference_along(values, energies) / kT, float(energies.std()) / kT
        remedy = f"is not undone: give `bias_columns={','.join([*used, name])}` if the frames were sampled under it"
        size = (
            f"varies by {spread:.2g} kT" if spread > MIN_UNUSED else f"differs by {difference:.2g} kT along the surface"
        )
        if max(difference, spread) > MIN_UNUSED:
            (along if difference > MIN_UNUSED else beside).append(f"{name}, which {size}, {remedy}")
    return UnusedBiases(tuple(along), tuple(beside))
