"""The inverse of a triangular map for one configuration, in numpy.

Of arrays this small each call of torch costs several times the arithmetic, and a chain of moves inverts one
configuration at a time. `InvertibleGenerator` compares it with the torch module before its first use.
"""

import math
from typing import Any

import numpy as np
from torch import Tensor

from ..units import FloatArray
from .coupling import CouplingNetwork
from .triangular import TriangularMap


def _within(values: FloatArray, low: FloatArray | float, high: FloatArray | float) -> FloatArray:
    """Faster than `numpy.clip`, which checks more."""
    return np.asarray(np.minimum(np.maximum(values, low), high))


def _array(tensor: Tensor) -> Any:
    return tensor.numpy(force=True).copy()


def _arrays(module: Any, *names: str) -> dict[str, Any]:
    return {name: _array(getattr(module, name)) for name in names}


class RowInverse:
    """`TriangularMap.inverse` of one row; see there for the formulas.

    Args:
        of_map: as it is now.
    """

    def __init__(self, of_map: TriangularMap):
        self.labels, self.turning = _array(of_map.label_indices), _array(of_map.circular_indices)
        self.narrow_indices, self.periodic = _array(of_map.narrow_indices), _array(of_map.periodic)
        self.n_wide = of_map.n_wide
        condition, narrow = of_map.narrow.condition, of_map.narrow
        basis = condition.basis
        self.basis = _arrays(
            basis, "products", "origin", "frequency", "is_periodic", "is_open", "orders", "half_orders"
        )
        self.condition = _arrays(condition, "functions", "first_functions", "coarse_functions", "folds")
        self._set_circular(of_map, basis.size)
        self.narrow = _arrays(narrow, "mean", "log_width", "later", "earlier", "origin", "scale")
        self.coupling = _array(narrow.coupling).reshape(narrow.n, narrow.n)
        variation = _array(narrow.variation)
        variation = np.concatenate([np.zeros((1, variation.shape[1])), variation])
        self.all_features = np.concatenate([self.narrow["mean"], self.narrow["log_width"], variation], axis=1)
        self.width_range, self.log_scale = narrow.width_range, float(np.log(self.narrow["scale"]).sum())
        cubic, tails = narrow.cubic, narrow.tails
        self.cubic = _arrays(cubic, "left", "right", "same", "shifts", "widths")
        self.skews, self.reach, self.depth = _array(cubic.skews), cubic.reach, cubic.depth
        self.cubic_range = cubic.width_range
        self.tails = (tails.start, tails.span, tails.slope, tails.curve)
        self.layers = []
        if narrow.has_network:
            assert isinstance(narrow.network, CouplingNetwork)
            layers: list[Any] = list(narrow.network.layers)
            for layer in reversed(layers):
                linear = [(_array(one.weight), _array(one.bias)) for one in layer._linear()]
                self.layers.append((_array(layer.kept_index), _array(layer.moved_index), layer.max_log_scale, linear))

    def _set_circular(self, of_map: TriangularMap, n_functions: int) -> None:
        densities: list[Any] = list(of_map.circular)
        n_nodes = densities[0].n_nodes if densities else 1
        kernels = np.zeros((n_functions, len(densities), n_nodes))
        for i, one in enumerate(densities):
            kernels[_array(one.functions), i] = _array(one.coefficients) @ _array(one.waves)
        self.kernels, self.n_nodes = kernels.reshape(n_functions, -1), n_nodes
        self.folds = np.array([one.fold for one in densities])
        self.uniform = np.array([one.uniform_share for one in densities])
        self.log_range = np.array([one.log_range for one in densities])

    def __call__(self, coordinates: FloatArray) -> tuple[FloatArray, float]:
        """Coordinates, shape=(n_coordinates,), to base numbers, shape=(n_base,), and log q(y | s)."""
        with np.errstate(all="ignore"):
            turned = coordinates[self.turning]
            functions = self._functions(np.concatenate([coordinates[self.labels], turned[: self.n_wide]]))
            uniform, log_density = self._circular(turned, functions)
            phases = self.condition["folds"] * turned[self.n_wide :]
            waves = np.concatenate([np.cos(phases), np.sin(phases)])
            normals, log_volume = self._narrow(coordinates, functions, waves)
            log_density += -0.5 * float(normals @ normals) - 0.5 * math.log(2 * math.pi) * len(normals) - log_volume
            return np.concatenate([uniform, normals]), log_density

    def _functions(self, axes: FloatArray) -> FloatArray:
        part = self.basis
        phase = (axes - part["origin"]) * part["frequency"]
        phase = np.where(part["is_periodic"], phase, _within(phase, 0.0, math.pi))[:, None]
        waves = np.where(part["is_open"], part["half_orders"] * (phase - 0.5 * math.pi), part["orders"] * phase)
        pairs = np.stack([np.cos(part["orders"] * phase), np.sin(waves)], axis=2).reshape(len(axes), -1)
        table = np.concatenate([np.ones((len(axes), 1)), pairs], axis=1)
        return np.asarray(table[np.arange(len(axes)), part["products"]].prod(axis=1))

    def _circular(self, angles: FloatArray, functions: FloatArray) -> tuple[FloatArray, float]:
        if not len(angles):
            return angles, 0.0
        width, rows = 2 * math.pi / self.n_nodes, np.arange(len(angles))
        log_fitted = (functions @ self.kernels).reshape(len(angles), -1)
        fitted = np.exp(np.maximum(log_fitted - log_fitted.max(axis=1, keepdims=True), -self.log_range[:, None]))
        fitted *= ((1.0 - self.uniform) / (width * fitted.sum(axis=1)))[:, None]
        density = fitted + (self.uniform / (2 * math.pi))[:, None]
        density = np.concatenate([density, density[:, :1]], axis=1)
        cumulative = np.zeros_like(density)
        np.cumsum(0.5 * width * (density[:, :-1] + density[:, 1:]), axis=1, out=cumulative[:, 1:])
        turns = self.folds * (angles % (2 * math.pi)) / (2 * math.pi)
        well = np.minimum(np.floor(turns), self.folds - 1.0)
        position = (turns - well) * self.n_nodes
        cell = np.floor(position).astype(np.int64).clip(0, self.n_nodes - 1)
        beyond, left = (position - cell) * width, density[rows, cell]
        slope = (density[rows, cell + 1] - left) / width
        below = cumulative[rows, cell] + beyond * (left + 0.5 * slope * beyond)
        return (well + below / cumulative[:, -1]) / self.folds, float(np.log(left + slope * beyond).sum())

    def _narrow(self, coordinates: FloatArray, functions: FloatArray, waves: FloatArray) -> tuple[FloatArray, float]:
        part, condition = self.narrow, self.condition
        crossed = (functions[condition["first_functions"], None] * waves).ravel()
        features = np.concatenate([functions[condition["functions"]], crossed])
        k = len(part["origin"])
        of_features = features @ self.all_features
        centre = part["log_width"][0]
        log_width = centre + _within(of_features[k : 2 * k] - centre, -self.width_range, self.width_range)
        values = coordinates[self.narrow_indices] - part["origin"]
        values = np.where(self.periodic, (values + math.pi) % (2 * math.pi) - math.pi, values)
        deviation = values / part["scale"] - of_features[:k]
        varied = of_features[2 * k :] * deviation[part["earlier"]]
        steps = self.coupling @ deviation + np.bincount(part["later"], weights=varied, minlength=k)
        widened, log_volume = self._cubic(np.exp(-log_width) * steps)
        normals, log_slopes = self._tails(widened)
        log_volume += log_slopes + float(log_width.sum()) + self.log_scale
        seen = np.concatenate([functions[condition["coarse_functions"]], waves])
        for kept_index, moved_index, max_log_scale, linear in self.layers:
            hidden = np.concatenate([4.0 * np.tanh(normals[kept_index] / 4.0), seen])
            for weight, bias in linear[:-1]:
                raw = weight @ hidden + bias
                hidden = raw / (1.0 + np.exp(-raw))
            raw = linear[-1][0] @ hidden + linear[-1][1]
            n_moved = len(moved_index)
            log_scale = max_log_scale * np.tanh(raw[n_moved:])
            normals[moved_index] = (normals[moved_index] - raw[:n_moved]) * np.exp(-log_scale)
            log_volume += float(log_scale.sum())
        return normals, log_volume

    def _cubic(self, cubic: FloatArray) -> tuple[FloatArray, float]:
        part, skews, reach = self.cubic, self.skews, self.reach
        low, high = skews * (reach**2 - 1.0) - reach, skews * (reach**2 - 1.0) + reach
        numbers = log_width = slope = cubic
        for _ in range(self.depth + 1):
            near = _within(numbers, -reach, reach)
            shift = (near[part["left"]] * near[part["right"]] - part["same"]) @ part["shifts"]
            log_width = _within(near @ part["widths"], -self.cubic_range, self.cubic_range)
            skewed = (cubic - shift) * np.exp(-log_width)
            bounded = _within(skewed, low, high)
            inner = bounded + skews
            root = 2.0 * inner / (1.0 + np.sqrt(1.0 + 4.0 * skews * inner))
            slope = 1.0 + 2.0 * skews * root
            numbers = root + (skewed - bounded) / slope
        return numbers, float((log_width + np.log(slope)).sum())

    def _tails(self, widened: FloatArray) -> tuple[FloatArray, float]:
        start, span, slope, curve = self.tails
        size = np.abs(widened)
        width = span + 0.5 * curve * span * span
        into = _within(size - start, 0.0, width)
        root = 2.0 * into / (1.0 + np.sqrt(1.0 + 2.0 * curve * into))
        beyond = np.maximum(size - (start + width), 0.0) / slope
        return np.sign(widened) * (np.minimum(size, start) + root + beyond), float(np.log1p(curve * root).sum())
