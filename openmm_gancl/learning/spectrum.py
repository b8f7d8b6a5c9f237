"""Which coordinates of a diffusion map are no functions of earlier ones, and the largest gap of its spectrum.

Parsimonious representation by local linear regression (Dsilva, Talmon, Coifman, Kevrekidis 2018,
doi 10.1016/j.acha.2015.06.008): a coordinate that earlier ones predict is a harmonic of them and is left out.
"""

from dataclasses import dataclass

import numpy as np

from ..engine.random_numbers import named_rng
from ..errors import InputError, checked
from ..units import FloatArray, IntArray
from .diffusion_map import DiffusionMap, distinct

MAX_POINTS = 1500
"""Points, at most, that the regression uses."""

RELATIVE_BANDWIDTH = 1.0 / 3.0
"""Of the regression's kernel, in median distances."""

RIDGE = 1e-8

MIN_FRAME_FRACTION = 0.01
"""A coordinate that is localised on a smaller fraction of the frames separates outliers, and is no slow motion."""


@dataclass(frozen=True)
class Selection:
    """The scores of all coordinates and the ones chosen.

    Attributes:
        scores: shape=(n_coordinates,), residual of each from those before it; 1 new, 0 predicted.
        chosen: indices of the coordinates that score above the threshold.
        threshold: of the score, below which a coordinate is a harmonic.
    """

    scores: FloatArray
    chosen: IntArray
    threshold: float


def _residual(before: FloatArray, target: FloatArray) -> float:
    """Leave-one-out residual of a locally linear fit, relative to the target's size."""
    n = len(target)
    squared = ((before[:, None] - before[None]) ** 2).sum(axis=-1)
    width = RELATIVE_BANDWIDTH * np.median(np.sqrt(squared))
    np.fill_diagonal(squared, np.inf)
    # relative to the nearest, or an outlier has no neighbour at all and its fit is singular
    kernel = np.exp(-(squared - squared.min(axis=1, keepdims=True)) / max(width**2, 1e-300))
    design = np.column_stack([np.ones(n), before])
    normal = np.einsum("ij,ja,jb->iab", kernel, design, design, optimize=True)
    normal += RIDGE * np.trace(normal, axis1=1, axis2=2)[:, None, None] * np.eye(design.shape[1])
    right = kernel @ (design * target[:, None])
    fitted = (np.linalg.solve(normal, right[..., None])[..., 0] * design).sum(axis=1)
    return float(np.sqrt(((target - fitted) ** 2).sum() / (target**2).sum()))


def select_coordinates(
    coordinates: FloatArray, *, known: FloatArray | None = None, threshold: float = 0.3, seed: int = 0
) -> Selection:
    """Leave out coordinates that earlier ones predict.

    Args:
        coordinates: shape=(n, n_coordinates), of a diffusion map, slowest first.
        known: shape=(n, m), of what is a label already (sine and cosine of a torsion, say).
        threshold: of the score, below which a coordinate is a harmonic.
        seed: of the points that are used, where there are many.
    """
    n = len(coordinates)
    rows: IntArray | slice = slice(None)
    if n > MAX_POINTS:
        rows = np.sort(named_rng(seed, "select coordinates").choice(n, MAX_POINTS, replace=False))
    first = np.empty((n, 0)) if known is None else known
    few, m = np.column_stack([first, coordinates])[rows], first.shape[1]
    # a frame would be predicted by its own copies
    few = few[distinct(few)[0]]
    scores = np.array([_residual(few[:, :k], few[:, k]) if k else 1.0 for k in range(m, few.shape[1])])
    return Selection(scores, np.flatnonzero(scores > threshold), threshold)


@dataclass(frozen=True)
class SpectralGap:
    """The spectrum of a map and the largest gap among the coordinates that were kept.

    Attributes:
        eigenvalues: shape=(n_coordinates,), of the map, decreasing.
        rates: shape=(n_coordinates,), of the map, 1 / squared unit of the features.
        scores: shape=(n_coordinates,), of the selection.
        chosen: shape=(m,), indices of the coordinates that were kept.
        threshold: of the scores.
        shares: shape=(n_coordinates,), the fraction of the frames on which each coordinate is localised: 1 if
            all are equally far from zero, 1/3 for a Gaussian, 1/n for one outlier.
        bandwidth: of the kernel, squared unit of the features.
        dimension: that the bandwidth implies.
        ratios: shape=(m - 1,), rate of each kept coordinate relative to the one kept before it.
    """

    eigenvalues: FloatArray
    rates: FloatArray
    scores: FloatArray
    chosen: IntArray
    threshold: float
    shares: FloatArray
    bandwidth: float
    dimension: float
    ratios: FloatArray

    @property
    def n_before(self) -> int:
        """How many kept coordinates come before the largest gap; all, if there are not two to have one between."""
        return int(self.ratios.argmax()) + 1 if len(self.ratios) else len(self.chosen)

    @property
    def between(self) -> tuple[int, int] | None:
        """Indices of the coordinates on either side of the largest gap."""
        if not len(self.ratios):
            return None
        return int(self.chosen[self.n_before - 1]), int(self.chosen[self.n_before])

    @property
    def localised(self) -> list[int]:
        """Indices of kept coordinates that say of a few frames whether they are these."""
        return [int(i) for i in self.chosen if self.shares[i] < MIN_FRAME_FRACTION]

    @property
    def rejected(self) -> IntArray:
        """Indices of the coordinates that earlier ones predict."""
        return np.setdiff1d(np.arange(len(self.rates)), self.chosen)

    def describe(self) -> str:
        """A few plain lines; coordinates are counted from 1."""
        n = len(self.rates)
        lines = [
            f"Bandwidth {self.bandwidth:.3g}, at which the frames look {self.dimension:.1f}-dimensional.",
            f"Kept {len(self.chosen)} of {n} coordinates: {self._with_scores(self.chosen)}.",
        ]
        if len(self.rejected):
            lines.append(f"Harmonics, with scores up to {self.threshold:g}: {self._with_scores(self.rejected)}.")
        if len(self.chosen):
            lines.append(f"Rates of the kept: {', '.join(f'{rate:.3g}' for rate in self.rates[self.chosen])}.")
        lines.append(self._gap_in_words())
        # the gap after the last kept one would lie beyond what was computed
        if len(self.chosen) and self.chosen[-1] == n - 1:
            lines.append(f"The last of the {n} coordinates was kept too: compute more of them to see what follows.")
        lines += [
            f"Coordinate {i + 1} is localised on {100 * self.shares[i]:.2g} % of the frames: check them for outliers."
            for i in self.localised
        ]
        return "\n".join(lines)

    def _with_scores(self, indices: IntArray) -> str:
        return ", ".join(f"{i + 1} (score {self.scores[i]:.2f})" for i in indices) or "none"

    def _gap_in_words(self) -> str:
        if self.between is None:
            return "No gap: it takes two kept coordinates to have one between them."
        last, first = (i + 1 for i in self.between)
        verb = "coordinate comes" if self.n_before == 1 else "coordinates come"
        return (
            f"Largest gap: the rate rises {self.ratios.max():.3g}-fold from coordinate {last} to {first}; "
            f"{self.n_before} kept {verb} before it."
        )


@checked
def spectral_gap(fitted: DiffusionMap, selection: Selection) -> SpectralGap:
    """The spectrum of a fitted map, and the largest ratio of successive rates among selected coordinates.

    Args:
        fitted: the map.
        selection: of its coordinates.

    Raises:
        InputError: the selection is of another number of coordinates.
    """
    if len(selection.scores) != len(fitted.rates_):
        raise InputError(f"{len(selection.scores)} scores for {len(fitted.rates_)} coordinates: select among the map's")
    rates = fitted.rates_[selection.chosen]
    squares = fitted.coordinates_**2
    return SpectralGap(
        eigenvalues=fitted.eigenvalues_,
        rates=fitted.rates_,
        scores=selection.scores,
        chosen=selection.chosen,
        threshold=selection.threshold,
        shares=squares.mean(axis=0) ** 2 / (squares**2).mean(axis=0),
        bandwidth=fitted.bandwidth_,
        dimension=fitted.dimension_,
        # a rate that is zero but for rounding would make the ratio's sign a matter of chance
        ratios=rates[1:] / rates[:-1].clip(min=1e-12 * max(float(np.abs(rates).max(initial=0.0)), 1e-300)),
    )
