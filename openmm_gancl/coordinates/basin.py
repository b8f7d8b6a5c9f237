"""A basin: boxes of the slow coordinates."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..units import FloatArray, numbers


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

    def contains(self, labels: FloatArray) -> NDArray[np.bool_]:
        """Whether each row of labels, shape=(n, d), lies in one of the boxes; shape=(n,)."""
        inside = np.zeros(len(labels), dtype=bool)
        for low, high in (np.asarray(box, dtype=float).T for box in self.boxes):
            above, below = labels >= low, labels <= high
            inside |= np.where(low <= high, above & below, above | below).all(axis=1)
        return inside
