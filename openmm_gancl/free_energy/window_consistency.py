"""Whether each umbrella window was where all windows together predict it to be (Zhu and Hummer 2012).

A window over a barrier that its restraint leaves in place stays on the side where it began. Its frames look independent
and its error bars small, and MBAR takes them for equilibrium: both sides may come out wrong by several kT. What gives
it away is that the frames of all windows, reweighted to this one, lie on the other side as well. Compared with its own,
place after place along each coordinate, that tells of other faults too: a file of another window, a slow motion beside
the coordinates that neighbours are not in alike. Source: doi 10.1002/jcc.21989.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.special import chdtrc, expit, ndtri, rel_entr

from ..coordinates.geometry import wrap
from ..trajectories.umbrella import UmbrellaWindows
from ..units import FloatArray, IntArray, thermal_energy
from .basins import BasinPopulation, find_basins, lowest_bins
from .grid import bin_centres, bin_indices
from .mbar import MBAR
from .surface import FreeEnergySurface

N_PLACES = 96
"""Along each coordinate, that divide it; a multiple of four."""

MIN_EXPECTED = 1.0
"""Independent frames that are predicted on the rarer side, for a window to be compared there."""

MAX_DEVIATION = 3.7
"""Standard errors by which the windows together may deviate from what is predicted at one place."""

LOG_ODDS = np.linspace(-15.0, 15.0, 3001)
"""Of a share, that are tried."""


@dataclass(frozen=True)
class SidesOfPlaces:
    """Frames of windows on both sides of places along one coordinate; around a circle, up to a quarter of it.

    Attributes:
        places: shape=(n_places,).
        own: shape=(2, n_windows, n_places), frames of each window below and above.
        predicted: the same of the frames of all windows, reweighted to each.
    """

    places: FloatArray
    own: FloatArray
    predicted: FloatArray

    @property
    def shares(self) -> tuple[FloatArray, FloatArray]:
        """Of the frames on both sides, those above: each window's own, and predicted, shape=(n_windows, n_places)."""
        with np.errstate(invalid="ignore"):
            return self.own[1] / self.own.sum(axis=0), self.predicted[1] / self.predicted.sum(axis=0)

    def deviances(self, inefficiency: FloatArray) -> FloatArray:
        """Twice the log-likelihood ratios of shares, NaN where a window is not compared, shape=(n_windows, n_places).

        Args:
            inefficiency: shape=(n_windows,), frames of each window that count as one.
        """
        n, share = self.own.sum(axis=0), self.shares[1]
        expected = n * np.stack([1.0 - share, share]).clip(min=0.0)
        deviance = 2.0 * rel_entr(self.own, expected).sum(axis=0) / inefficiency[:, None]
        return np.where(expected.min(axis=0) >= MIN_EXPECTED * inefficiency[:, None], deviance, np.nan)


def _both_sides(counts: FloatArray, circle: bool) -> FloatArray:
    """Sums below and above each place, shape=(2, n_windows, n_places).

    Args:
        counts: shape=(n_windows, n_bins), between the places; of a line also before the first and after the last.
        circle: whether the last bin is next to the first one.
    """
    if not circle:
        sums = counts.cumsum(axis=1)
        return np.stack([sums[:, :-1], sums[:, -1:] - sums[:, :-1]])
    n, quarter = counts.shape[1], counts.shape[1] // 4
    sums = np.pad(np.tile(counts, 3).cumsum(axis=1), ((0, 0), (1, 0)))
    middle, low, high = (slice(n + i, 2 * n + i) for i in (0, -quarter, quarter))
    return np.stack([sums[:, middle] - sums[:, low], sums[:, high] - sums[:, middle]])


def sides_of_places(
    windows: UmbrellaWindows, values: FloatArray, owner: IntArray, periods: FloatArray, mbar: MBAR
) -> list[SidesOfPlaces]:
    """Where each window's frames are along each restrained coordinate, and where all windows predict them.

    Args:
        windows: n_windows of them, over d coordinates.
        values: shape=(n, d), of the frames.
        owner: shape=(n,), the window of each.
        periods: shape=(d,).
        mbar: of the same frames.
    """
    found, n, n_windows = [], len(values), len(windows)
    for i, period in enumerate(periods):
        circle, column = bool(np.isfinite(period)), values[:, i]
        if circle:
            places = -0.5 * period + period * np.arange(N_PLACES) / N_PLACES
            column, n_bins = wrap(column, period), N_PLACES
        else:
            centres = windows.centres[:, i]
            places, n_bins = np.linspace(centres.min(), centres.max(), N_PLACES), N_PLACES + 1
        bins = (np.searchsorted(places, column, side="right") - circle) % n_bins
        pick = csr_array((np.ones(n), (bins, np.arange(n))), shape=(n_bins, n))
        own = np.bincount(owner * n_bins + bins, minlength=n_windows * n_bins).reshape(n_windows, n_bins)
        predicted = (pick @ mbar.responsibilities).toarray().T
        found.append(SidesOfPlaces(places, _both_sides(own.astype(float), circle), _both_sides(predicted, circle)))
    return found


def consistency_doubts(
    windows: UmbrellaWindows, sides: Sequence[SidesOfPlaces], inefficiency: FloatArray, names: Sequence[str]
) -> list[str]:
    """A doubt where the windows' own frames are not where all windows predict them: about the worst window there.

    Args:
        windows: of which the frames are.
        sides: along each coordinate that they restrain.
        inefficiency: shape=(n_windows,), frames of each window that count as one.
        names: of the coordinates.
    """
    worst, doubts = MAX_DEVIATION, []
    for one, name in zip(sides, names, strict=True):
        deviances = one.deviances(inefficiency)
        n_compared = np.isfinite(deviances).sum(axis=0)
        deviations = -ndtri(chdtrc(np.maximum(n_compared, 1), np.nansum(deviances, axis=0)))
        deviations[n_compared == 0] = 0.0
        place = int(deviations.argmax())
        if deviations[place] <= worst:
            continue
        worst, window = deviations[place], int(np.nanargmax(deviances[:, place]))
        own, predicted = (share[window, place] for share in one.shares)
        side = "above" if predicted < 0.5 else "below"
        own, predicted = (own, predicted) if predicted < 0.5 else (1.0 - own, 1.0 - predicted)
        doubts = [
            f"{100 * own:.2g} % of the frames of {windows.describe(window)} lie {side} {name} = {one.places[place]:.3g}"
            f" where all windows together predict {100 * predicted:.2g} %, which chance does not explain: a window "
            "that seldom comes over a barrier, or is alone in a state of something slow, makes the surface wrong by "
            "more than its error bars say; sample for longer, or with stiffer restraints and windows in between"
        ]
    return doubts


def share_deviation(share: float, n: float, log_odds: float, error: float) -> float:
    """By how many standard errors a share of n independent frames is not what others predict.

    The root of twice the log-likelihood ratio to a share, the likeliest one, that is the same in both.

    Args:
        share: of the frames.
        n: of them.
        log_odds: log(p / (1 - p)) of what others predict, about Gaussian.
        error: of it.
    """
    counts = n * (rel_entr(share, expit(LOG_ODDS)) + rel_entr(1.0 - share, expit(-LOG_ODDS)))
    return float(np.sqrt((2.0 * counts + ((LOG_ODDS - log_odds) / error) ** 2).min()))


def basin_share_doubts(
    name: str, values: FloatArray, inefficiency: float, surface: FreeEnergySurface, basins: Sequence[BasinPopulation]
) -> list[str]:
    """A doubt about a run without a restraint, where it is not in the basins as restrained windows predict.

    It has a say in every basin: one that stays in its own carries the others away, where windows are short.

    Args:
        name: of the run.
        values: shape=(n_frames, d), its frames.
        inefficiency: frames that count as one.
        surface: of the restrained windows alone, over d coordinates.
        basins: those that are found on it.
    """
    bins, masks = bin_indices(values, surface.edges, surface.periods), find_basins(surface)
    inside = masks.reshape(len(masks), -1)[:, bins[bins >= 0]].sum(axis=1)
    kT, places = thermal_energy(surface.temperature), bin_centres(surface.edges)[lowest_bins(surface, masks)]
    worst, doubts = MAX_DEVIATION, list[str]()
    for basin, frames, place in zip(basins[1:], inside[1:].tolist(), places[1:], strict=True):
        both, log_odds, error = inside[0] + frames, -basin.free_energy / kT, basin.free_energy_error / kT
        if not both or not 0.0 < error < np.inf:
            continue
        deviation = share_deviation(frames / both, both / inefficiency, log_odds, error)
        if deviation > worst:
            worst = deviation
            where = " and ".join(f"{axis} = {x:.3g}" for axis, x in zip(surface.names, place, strict=True))
            doubts = [
                f"of the frames of {name} in the deepest basin and in that near {where}, {100 * frames / both:.3g} % "
                f"lie in the latter, where the restrained windows predict {100 * expit(log_odds):.3g} %, which chance "
                "does not explain: the surface is wrong by more than its error bars say; sample it until it comes into "
                "all basins, or leave it out"
            ]
    return doubts
