"""A basin: boxes of the slow coordinates."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..units import FloatArray


@dataclass(frozen=True, eq=False)
class Basin:
    """A named union of boxes in the labels.

    Args:
        name: as it appears in results.
        boxes: each of shape=(d, 2), low and high per label; low > high wraps around a periodic label.
    """

    name: str
    boxes: tuple[FloatArray, ...]

    def contains(self, labels: FloatArray) -> NDArray[np.bool_]:
        """Whether each row of labels, shape=(n, d), lies in one of the boxes; shape=(n,)."""
        inside = np.zeros(len(labels), dtype=bool)
        for low, high in (np.asarray(box, dtype=float).T for box in self.boxes):
            above, below = labels >= low, labels <= high
            inside |= np.where(low <= high, above & below, above | below).all(axis=1)
        return inside
