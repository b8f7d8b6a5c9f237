"""Gaps between the frames of umbrella windows that restraints alone would not leave: barriers that no window holds.

Where the restraints are too soft for a barrier, no frame lies on it, and all that tells how the two sides compare are
windows that come over it by themselves. One that has done so N times knows the free energy between the sides to
2 / sqrt(N) kT at best (a process of two states that is seen for long). MBAR takes its frames for as many as their
correlation leaves, and those of neighbours that never crossed for proof that they would not.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from ..coordinates.geometry import wrap
from ..trajectories.umbrella import UmbrellaWindows
from ..units import FloatArray, IntArray, thermal_energy

MIN_EXPECTED = 100.0
"""Independent frames that all restraints together would put into a gap, were there no barrier."""

MIN_SHARE = 0.5
"""Of the frames of a window, in the mean, that lie on either side of a gap: beyond one in a tail are fewer."""

MIN_CROSSINGS, MAX_ERROR_RATIO = 12, 1.4
"""By windows, that the sides of a gap are to be joined by; fewer are a doubt where the error that they leave is so many
times that of the windows' free energies."""

MAX_SPACINGS = 100
"""Between neighbouring frames along a coordinate, the widest ones, that may be gaps."""


@dataclass(frozen=True)
class Gap:
    """Between frames along one coordinate.

    Attributes:
        low: where it begins.
        high: where it ends.
        n_crossings: how often a window came from one side to the other.
        stated_error: kT, of the free energy between windows on either side, as MBAR has it.
    """

    low: float
    high: float
    n_crossings: int
    stated_error: float

    @property
    def error(self) -> float:
        """kT, that so many crossings leave."""
        return 2.0 / float(np.sqrt(self.n_crossings)) if self.n_crossings else float("inf")


@dataclass(frozen=True)
class _Held:
    """Windows that a coordinate is restrained in: their centres, thermal widths, independent frames and covariance."""

    centres: FloatArray
    widths: FloatArray
    n_independent: FloatArray
    covariance: FloatArray
    period: float

    def expected(self, ends: FloatArray) -> FloatArray:
        """Independent frames that the restraints alone put into intervals, shape=(n_intervals,)."""
        middle, half = ends.mean(axis=1)[:, None], 0.5 * np.diff(ends, axis=1)
        difference = wrap(middle - self.centres, self.period)
        inside = ndtr((difference + half) / self.widths) - ndtr((difference - half) / self.widths)
        return np.asarray(inside @ self.n_independent)

    def error_across(self, low: float, high: float) -> float:
        """kT, the smallest of a free energy between two windows, one held on either side of a gap."""
        ahead = wrap(self.centres - 0.5 * (low + high), self.period)
        clear = 0.5 * (high - low) + self.widths
        below, above = np.flatnonzero(ahead < -clear), np.flatnonzero(ahead > clear)
        if not (len(below) and len(above)):
            return 0.0
        own, both = np.diag(self.covariance), self.covariance[np.ix_(below, above)]
        return float(np.sqrt(max((own[below][:, None] + own[above] - 2.0 * both).min(), 0.0)))


def _crossings(ahead: FloatArray, owner: IntArray, reach: float) -> int:
    """How often a window came from one side of a place to the other.

    Args:
        ahead: shape=(n,), of frames, less the place.
        owner: shape=(n,), the window of each.
        reach: beyond which a frame is on neither side.
    """
    above, near = ahead > 0, np.abs(ahead) < reach
    return int(((above[1:] != above[:-1]) & near[1:] & near[:-1] & (owner[1:] == owner[:-1])).sum())


def _gap_along(held: _Held, values: FloatArray, owner: IntArray, n_windows: int) -> Gap | None:
    circle, n = bool(np.isfinite(held.period)), len(values)
    places = np.sort(wrap(values, held.period))
    places = np.append(places, places[:1] + held.period) if circle else places
    before = np.argsort(np.diff(places))[-MAX_SPACINGS:]  # frames before each of the widest spacings, less one
    ends, found = np.stack([places[before], places[before + 1]], axis=1), list[tuple[int, Gap]]()
    for k in np.flatnonzero(held.expected(ends) >= MIN_EXPECTED).tolist():
        low, high = ends[k].tolist()
        n_crossings = _crossings(wrap(values - 0.5 * (low + high), held.period), owner, 0.25 * held.period)
        found.append((int(before[k]), Gap(low, high, n_crossings, held.error_across(low, high))))
    found.sort(key=lambda one: one[1].n_crossings)
    first, others = (found[0][0], found[1:]) if circle and found else (-1, found)
    sides = ((abs(here - first), gap) for here, gap in others)
    return next((gap for m, gap in sides if min(m, n - m) >= MIN_SHARE * n / n_windows), None)


def gaps_of_windows(
    windows: UmbrellaWindows,
    values: FloatArray,
    owner: IntArray,
    n_independent: FloatArray,
    covariance: FloatArray,
    temperature: float,
    periods: FloatArray,
) -> list[Gap | None]:
    """Along each coordinate the gap that is come over the least often; around a circle, which has two sides, the next.

    Args:
        windows: n_windows of them, over d coordinates.
        values: shape=(n, d), of the frames, those of each window in the order of time.
        owner: shape=(n,), the window of each.
        n_independent: shape=(n_windows,), independent frames of each.
        covariance: shape=(n_windows, n_windows), kT^2, of the windows' free energies.
        temperature: K, of windows that have none of their own.
        periods: shape=(d,), ``inf`` where there is none.

    Returns:
        one each coordinate, None where its frames have no gap, or but one around a circle.
    """
    own, found = windows.temperatures, list[Gap | None]()
    kT = thermal_energy(1.0) * (np.full(len(windows), temperature) if own is None else own)
    for i, period in enumerate(periods.tolist()):
        rows = np.flatnonzero(windows.force_constants[:, i] > 0)
        widths = np.sqrt(kT[rows] / windows.force_constants[rows, i])
        held = _Held(windows.centres[rows, i], widths, n_independent[rows], covariance[np.ix_(rows, rows)], period)
        found.append(_gap_along(held, values[:, i], owner, len(windows)))
    return found


def gap_doubts(gaps: Sequence[Gap | None], names: Sequence[str]) -> list[str]:
    """A doubt where too few crossings join the frames on both sides of a gap.

    Args:
        gaps: one each coordinate that windows restrain.
        names: of these.
    """
    for gap, name in zip(gaps, names, strict=True):
        if gap is None or gap.n_crossings >= MIN_CROSSINGS or gap.error < MAX_ERROR_RATIO * gap.stated_error:
            continue
        known = f"is known to {gap.error:.1f} kT at best" if gap.n_crossings else "is not known"
        times = {0: "never", 1: "once", 2: "twice"}.get(gap.n_crossings, f"{gap.n_crossings} times")
        return [
            f"no frame lies between {name} = {gap.low:.3g} and {gap.high:.3g}, where the restraints without a barrier "
            f"would have put some, and windows came over it {times}: the free energy between its sides {known}, "
            "whatever the error bars say; sample windows there, with stiffer restraints"
        ]
    return []
