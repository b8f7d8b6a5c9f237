"""A generator with a density: coordinates of a chart drawn at labels, each with its log density, and back."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch

from ..coordinates.slow_coordinates import SlowCoordinates
from ..engine.threads import torch_threads
from ..reference.chart import Chart
from ..system.molecular_system import MolecularSystem
from ..units import BoolArray, FloatArray
from .trained_for import check_trained_for
from .triangular import TriangularMap

ROWS_AT_ONCE = 250
"""Whose matrices fit a core's cache."""


@dataclass(frozen=True, eq=False)
class InvertibleGenerator:
    """A conditional map from base numbers to coordinates, with numpy arrays in and out.

    Base numbers are uniform on [0, 1) for circular coordinates, which come first, and standard normal for the others.

    Attributes:
        map: the torch module.
        chart: whose coordinates it writes.
        slow: the labels.
        metadata: JSON-ready, of its training and of the system that it was trained for.
    """

    map: TriangularMap
    chart: Chart
    slow: SlowCoordinates
    metadata: dict[str, Any] = field(default_factory=dict)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_scripted"}

    @cached_property
    def _scripted(self) -> Any:
        return torch.jit.script(self.map.eval().requires_grad_(False))

    def check_system(self, system: MolecularSystem) -> None:
        """Raise an `InputError` that says what does not fit."""
        check_trained_for(self.metadata, self.chart, self.slow, system)

    def sample_base(self, n: int, rng: np.random.Generator) -> FloatArray:
        """Base numbers, shape=(n, n_base)."""
        circular = self.map.n_circular
        return np.concatenate([rng.random((n, circular)), rng.standard_normal((n, self.map.narrow.n))], axis=1)

    def sample(self, labels: FloatArray, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        """One draw a label: coordinates, shape=(n, n_coordinates), and log q(y | s), shape=(n,)."""
        return self.transform(self.sample_base(len(labels), rng), labels)

    def transform(self, base: FloatArray, labels: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Base numbers, shape=(n, n_base), to coordinates and their log density."""
        coordinates, log_density = self._in_parts(self._scripted, base, labels)
        return coordinates, log_density

    def invert(self, coordinates: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Coordinates to base numbers, shape=(n, n_base), and log q(y | s), shape=(n,)."""
        base, log_density = self._in_parts(self._scripted.inverse, coordinates)
        return base, log_density

    def log_density(self, coordinates: FloatArray) -> FloatArray:
        """log q(y | s) of coordinates, labels included, shape=(n,)."""
        return self.invert(coordinates)[1]

    def inside(self, coordinates: FloatArray) -> BoolArray:
        """Which draws are in the chart, with narrow torsions within half a turn of their origin, shape=(n,)."""
        near = self._scripted.inside(torch.as_tensor(coordinates)).numpy()
        return np.asarray(near & self.chart.inside(coordinates))

    @torch_threads(1)
    def _in_parts(self, function: Any, *arrays: FloatArray) -> list[FloatArray]:
        with torch.no_grad():
            parts = [
                function(*(torch.as_tensor(array[i : i + ROWS_AT_ONCE]) for array in arrays))
                for i in range(0, max(len(arrays[0]), 1), ROWS_AT_ONCE)
            ]
        return [torch.cat(column).numpy() for column in zip(*parts, strict=True)]
