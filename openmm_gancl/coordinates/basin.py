"""A basin: boxes of the slow coordinates."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..units import FloatArray, check_radians, numbers
from .geometry import wrap

MAX_WIDTH = 1.3
"""Of a period, of a box that means all of it."""


@dataclass(frozen=True, eq=False)
class Basin:
    """A named union of boxes in the labels.

    Args:
        name: as it appears in results.
        boxes: each of shape=(d, 2), low and high per label; low > high wraps around a periodic label.
    """

    name: str
    boxes: tuple[FloatArray, ...]

    def __post_init__(self) -> None:
        """One box, or boxes over one label as rows of two numbers, are boxes too."""
        boxes = (self.boxes,) if isinstance(self.boxes, np.ndarray) and self.boxes.ndim < 3 else self.boxes
        found = tuple(numbers(box) for box in boxes)
        if any(box.size % 2 or not box.ndim for box in found):
            raise InputError(f"basin {self.name}: give boxes of shape (d, 2), low and high of each coordinate")
        object.__setattr__(self, "boxes", tuple(box.reshape(-1, 2) for box in found))

    def over(self, names: Sequence[str], periods: FloatArray) -> "Basin":
        """The same boxes with bounds within one period around zero, where labels are.

        Args:
            names: of d coordinates.
            periods: shape=(d,), ``inf`` where there is none.

        Raises:
            InputError: boxes of other coordinates, bounds that are no numbers, swapped, or beyond a whole period.
        """
        return Basin(self.name, tuple(self._box_over(names, periods, box) for box in self.boxes))

    def _box_over(self, names: Sequence[str], periods: FloatArray, box: FloatArray) -> FloatArray:
        bounds = np.array(box, dtype=float)
        if len(bounds) != len(names):
            raise InputError(
                f"basin {self.name} has a box of shape {bounds.shape}: give {len(names)} interval(s) [low, high], one "
                f"a coordinate ({', '.join(names)})"
            )
        check_radians(np.where(np.isinf(bounds), 0.0, bounds).T, periods, f"an end of basin {self.name},")
        for name, interval, period in zip(names, bounds, periods, strict=True):
            low, high = interval
            if np.isnan(interval).any():
                raise InputError(f"basin {self.name}: a bound of {name} is not a number: give low:high")
            if not np.isfinite(period):
                if low > high:
                    raise InputError(
                        f"basin {self.name} has low > high for {name}, which is not periodic: swap its bounds"
                    )
            elif np.isinf(interval).any():  # from one end of the circle
                interval[:] = interval.clip(-period / 2, period / 2)
            elif high - low > MAX_WIDTH * period:
                raise InputError(
                    f"basin {self.name} is {high - low:.4g} wide, more than the period {period:.4g} of {name}: give "
                    "its bounds in the coordinate's unit, within one period"
                )
            elif high - low >= period:
                interval[:] = -period / 2, period / 2
            elif (np.abs(interval) > period / 2).any():
                interval[:] = wrap(interval, period)
        return bounds

    def contains(self, labels: FloatArray) -> NDArray[np.bool_]:
        """Whether each row of labels, shape=(n, d), lies in one of the boxes; shape=(n,)."""
        inside = np.zeros(len(labels), dtype=bool)
        for low, high in (np.asarray(box, dtype=float).T for box in self.boxes):
            above, below = labels >= low, labels <= high
            inside |= np.where(low <= high, above & below, above | below).all(axis=1)
        return inside
