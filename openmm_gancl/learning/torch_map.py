"""A diffusion map as a differentiable torch module: positions to features to coordinates by Nystroem's formula."""

import numpy as np
import torch

from ..coordinates.features import Features
from ..coordinates.label_modules import LearnedCoordinates, NystroemModule
from ..coordinates.torch_modules import features_module
from .diffusion_map import DiffusionMap


def nystroem_module(fitted: DiffusionMap, chosen: list[int] | None = None) -> NystroemModule:
    """A map of features as a module: the same numbers as `DiffusionMap.transform`, with gradients.

    Args:
        fitted: a map with landmarks and the Euclidean metric.
        chosen: which of its coordinates, in order; all by default.

    Raises:
        InputError: the map has no out-of-sample extension.
    """
    points, weights, values = fitted.nystroem_parts()
    origin, precision = points.mean(axis=0), 0.5 / fitted.bandwidth_
    landmarks = points - origin
    return NystroemModule(
        torch.as_tensor(origin),
        torch.as_tensor(np.ascontiguousarray(precision * landmarks.T)),
        torch.as_tensor(np.log(weights) - 0.5 * precision * (landmarks**2).sum(axis=1)),
        torch.as_tensor(values[:, chosen] if chosen is not None else values),
    ).double()


def coordinates_module(features: Features, fitted: DiffusionMap, chosen: list[int] | None = None) -> LearnedCoordinates:
    """The map of features as one module, in double precision.

    Args:
        features: that the map was fitted on.
        fitted: a map with landmarks.
        chosen: which of its coordinates, in order; all by default.

    Raises:
        InputError: the map has no out-of-sample extension.
    """
    return LearnedCoordinates(features_module(features), nystroem_module(fitted, chosen))
