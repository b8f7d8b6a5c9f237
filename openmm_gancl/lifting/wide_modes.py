"""Modes of wide coordinates: how often frames, draws and the check were in each, and what weights say."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..units import FloatArray

N_BINS = 72
"""Of a circle."""

SMOOTHING = 2.0
"""Bins, the standard deviation of a circular kernel."""

SHALLOW = 0.5
"""A dip to more than this fraction of the lower one of two peaks separates no modes."""

LEAST_PEAK = 1e-3
"""Of the highest one: a lower peak is no mode."""


@dataclass(frozen=True)
class ModeRow:
    """One mode of a wide coordinate.

    Attributes:
        name: of the coordinate.
        low: radians, where the mode begins; up to `high`, around the circle where that is less.
        high: radians.
        frames: fraction of the training frames in it; they are restrained all over the circle.
        lifts: of the lifts as they were drawn.
        check: of the check's frames, whose windows began, every other one, all over the circle or where weight is, and
            ran freely; NaN without a check.
        weight: by weight: the population.
        weight_error: its standard error.
    """

    name: str
    low: float
    high: float
    frames: float
    lifts: float
    check: float
    weight: float
    weight_error: float


def mode_edges(angles: FloatArray, weights: FloatArray) -> FloatArray:
    """Minima between the modes of weighted angles, rising, radians; none where there is one mode.

    Args:
        angles: shape=(n,), radians.
        weights: shape=(n,).
    """
    places = (np.floor((angles + np.pi) / (2 * np.pi) * N_BINS).astype(np.int64)) % N_BINS
    counts = np.bincount(places, weights, N_BINS)
    offsets = np.minimum(np.arange(N_BINS), N_BINS - np.arange(N_BINS))
    kernel = np.exp(-0.5 * (offsets / SMOOTHING) ** 2)
    density = np.fft.irfft(np.fft.rfft(counts) * np.fft.rfft(kernel), N_BINS)
    rises = density > np.roll(density, 1)
    peaks = np.flatnonzero(rises & ~np.roll(rises, -1) & (density > LEAST_PEAK * density.max())).tolist()
    while len(peaks) > 1:
        dips = [
            _lowest_between(density, first, second) for first, second in zip(peaks, peaks[1:] + peaks[:1], strict=True)
        ]
        lower = [min(density[a], density[b]) for a, b in zip(peaks, peaks[1:] + peaks[:1], strict=True)]
        depth = density[dips] / np.array(lower)
        worst = int(depth.argmax())
        if depth[worst] <= SHALLOW:
            return np.sort((np.array(dips) + 0.5) * (2 * np.pi / N_BINS) - np.pi)
        second = (worst + 1) % len(peaks)
        peaks.pop(worst if density[peaks[worst]] < density[peaks[second]] else second)
    return np.empty(0)


def _lowest_between(density: FloatArray, first: int, second: int) -> int:
    """The bin of least density on the way up from one peak to the next around the circle."""
    between = np.arange(first, first + (second - first) % N_BINS + 1) % N_BINS
    return int(between[density[between].argmin()])


def _modes_of(angles: FloatArray, edges: FloatArray) -> FloatArray:
    """The mode of each angle, the first and the last part of the circle being one, shape=angles.shape."""
    wrapped = np.mod(angles + np.pi, 2 * np.pi) - np.pi
    return np.asarray(np.searchsorted(edges, wrapped) % max(len(edges), 1))


def mode_rows(
    names: Sequence[str], frames: FloatArray, lifts: FloatArray, log_weights: FloatArray, check: FloatArray
) -> list[ModeRow]:
    """Every mode of every wide coordinate.

    Args:
        names: of the coordinates.
        frames: shape=(n_frames, n_wide), radians, of training frames.
        lifts: shape=(n_lifts, n_wide).
        log_weights: shape=(n_lifts,), to the equilibrium without restraint.
        check: shape=(n_check, n_wide), of the check's frames.
    """
    weights = np.exp(log_weights - log_weights.max())
    weights /= weights.sum()
    rows = []
    for i, name in enumerate(names):
        edges = mode_edges(lifts[:, i], weights)
        of_lifts, of_frames, of_check = (_modes_of(part[:, i], edges) for part in (lifts, frames, check))
        for mode in range(max(len(edges), 1)):
            inside = of_lifts == mode
            population = float(weights[inside].sum())
            rows.append(
                ModeRow(
                    name,
                    low=float(edges[mode - 1]) if len(edges) else -np.pi,
                    high=float(edges[mode]) if len(edges) else np.pi,
                    frames=float((of_frames == mode).mean()),
                    lifts=float(inside.mean()),
                    check=float((of_check == mode).mean()) if len(check) else float("nan"),
                    weight=population,
                    weight_error=float(np.sqrt((weights**2 * (inside - population) ** 2).sum())),
                )
            )
    return rows


def windows_that_changed(check: FloatArray, lifts: FloatArray, log_weights: FloatArray) -> int:
    """How many of the check's windows were in more than one mode of a wide coordinate.

    Args:
        check: shape=(n_windows, n_frames, n_wide), radians; NaN outside the declared state.
        lifts: shape=(n_lifts, n_wide).
        log_weights: shape=(n_lifts,).
    """
    weights, changed = np.exp(log_weights - log_weights.max()), np.zeros(len(check), dtype=bool)
    for i in range(lifts.shape[1]):
        modes = _modes_of(check[..., i], mode_edges(lifts[:, i], weights))
        known = np.isfinite(check[..., i])
        several = [len(set(one[there].tolist())) > 1 for one, there in zip(modes, known, strict=True)]
        changed |= np.array(several, dtype=bool)
    return int(changed.sum())
