"""Rows of which some stay in files: of many draws only those that are asked for are in memory."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..units import FloatArray

ROWS_AT_ONCE = 40_000
"""Draws that are made, and read, at a time."""


class StoredRows:
    """What an array of shape=(n, m) would be, indexed by rows, or by a slice of rows and columns.

    Args:
        parts: in order, shape=(n_part, m) each: arrays, or npy files of them.
    """

    def __init__(self, parts: Sequence[FloatArray | Path]):
        self.parts = tuple(parts)
        shapes = [_read(part).shape for part in self.parts]
        self._ends = np.cumsum([shape[0] for shape in shapes])
        self.shape = (int(self._ends[-1]), shapes[0][1])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> FloatArray:
        rows, columns = index if isinstance(index, tuple) else (index, slice(None))
        wanted = np.arange(len(self))[rows]
        found = np.empty((len(wanted), len(np.arange(self.shape[1])[columns])))
        part = np.searchsorted(self._ends, wanted, side="right")
        for number in np.unique(part):
            here = part == number
            # mapped no longer than it is read: what is mapped counts as memory
            stored = _read(self.parts[number])
            found[here] = stored[wanted[here] - (self._ends[number] - len(stored))][:, columns]
        return found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> FloatArray:
        return np.asarray(self[:], dtype=dtype)


Rows = FloatArray | StoredRows


def _read(part: FloatArray | Path) -> FloatArray:
    if isinstance(part, Path):
        stored: FloatArray = np.load(part, mmap_mode="r", allow_pickle=False)
        return stored
    return part


def join_rows(parts: Sequence[Rows]) -> Rows:
    """Several as one, in memory if all of them are."""
    if all(isinstance(part, np.ndarray) for part in parts):
        return np.concatenate([np.asarray(part) for part in parts])
    return StoredRows([one for part in parts for one in (part.parts if isinstance(part, StoredRows) else (part,))])


def blocks_of(rows: Any) -> Iterator[Any]:
    """Indices, some at a time.

    Args:
        rows: shape=(n,), indices or a mask.
    """
    indices = np.flatnonzero(rows) if rows.dtype == bool else rows
    for begin in range(0, len(indices), ROWS_AT_ONCE):
        yield indices[begin : begin + ROWS_AT_ONCE]
