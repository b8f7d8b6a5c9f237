"""What a fit of the triangular map tries, and the roles of a chart's coordinates in it."""

from dataclasses import dataclass

import numpy as np

from ..coordinates.slow_coordinates import Axes
from ..reference.chart import Chart
from ..units import FloatArray, IntArray

ROWS_AT_ONCE = 500
"""Structures that a fit looks at together."""


@dataclass(frozen=True)
class NarrowOptions:
    """How many functions the narrow coordinates have, and how they are smoothed.

    Args:
        order: highest order of the functions of the mean.
        precision_order: the same of the precision; zero is one precision for all conditions.
        ridge: penalty of a function of order one, in structures.
    """

    order: int
    precision_order: int
    ridge: float


NARROW_OPTIONS = (
    NarrowOptions(3, 0, 2.0),
    NarrowOptions(4, 0, 0.2),
    NarrowOptions(4, 1, 0.5),
    NarrowOptions(6, 2, 0.2),
)
"""Tried in turn, and chosen by the gradients of structures that were held out."""

MAX_FUNCTIONS = 330
"""Of labels and wide torsions in a mean: with more of these the order is lower."""


@dataclass(frozen=True)
class FitOptions:
    """What is tried, and how circular densities and cubic terms are fitted.

    Args:
        narrow: the candidates.
        uniform_share: of the circular densities.
        harmonics: waves of a circular density's phase.
        circular_order: highest order of the label functions of circular densities.
        circular_ridge: penalty of such a function of order one, in structures.
        lost_gain: relative entropy that couplings may lose by being constant.
        least_cubic: the smallest cubic coefficient that is kept.
    """

    narrow: tuple[NarrowOptions, ...] = NARROW_OPTIONS
    uniform_share: float = 0.01
    harmonics: int = 2
    circular_order: int = 2
    circular_ridge: float = 0.5
    lost_gain: float = 0.02
    least_cubic: float = 0.006


@dataclass(frozen=True)
class Roles:
    """Which coordinates of a chart are labels, circular or narrow.

    Attributes:
        labels: shape=(d,), indices of coordinates.
        wide: shape=(n_wide,), wide torsions.
        rotors: shape=(n_rotors,), torsions with symmetric wells.
        narrow: the others.
    """

    labels: IntArray
    wide: IntArray
    rotors: IntArray
    narrow: IntArray

    @classmethod
    def of(cls, chart: Chart, wide: IntArray | None = None) -> "Roles":
        """Those of a chart.

        Args:
            chart: the chart.
            wide: coordinates that are wide torsions; none by default.
        """
        wide = np.empty(0, dtype=np.int64) if wide is None else np.asarray(wide, dtype=np.int64)
        rotors = np.setdiff1d(np.flatnonzero(chart.folds > 1), np.concatenate([wide, chart.label_indices]))
        taken = np.concatenate([chart.label_indices, wide, rotors])
        # torsions first: the angles next to them follow their squares
        return cls(chart.label_indices, wide, rotors, np.setdiff1d(np.arange(chart.n_coordinates), taken)[::-1])

    @property
    def circular(self) -> IntArray:
        """Wide torsions, then rotors."""
        return np.concatenate([self.wide, self.rotors])


@dataclass(frozen=True)
class ConditionAxes:
    """Labels and wide torsions as axes of a basis."""

    names: tuple[str, ...]
    periods: FloatArray
    domain: FloatArray
    units: tuple[str, ...]

    @classmethod
    def of(cls, slow: Axes, n_wide: int) -> "ConditionAxes":
        """Of labels with so many wide torsions."""
        return cls(
            (*slow.names, *(f"wide_{i}" for i in range(n_wide))),
            np.concatenate([slow.periods, np.full(n_wide, 2 * np.pi)]),
            np.concatenate([slow.domain, np.tile([-np.pi, np.pi], (n_wide, 1))]),
            (*slow.units, *("radians",) * n_wide),
        )
