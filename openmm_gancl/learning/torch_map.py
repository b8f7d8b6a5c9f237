"""A diffusion map as a differentiable torch module: positions to features to coordinates by Nystroem's formula."""

import numpy as np
import torch
from torch import Tensor, nn

from ..coordinates.features import Features
from ..coordinates.torch_modules import FeaturesModule, features_module
from .diffusion_map import DiffusionMap


class NystroemModule(nn.Module):
    """Coordinates of features: a kernel to all landmarks, normalised, times the landmarks' own coordinates.

    The same numbers as `DiffusionMap.transform`, with gradients. Far from every landmark, where the kernel underflows,
    the nearest landmark decides. Of |x - y|^2 / (4 eps) the part |x|^2 is the same for all landmarks y and drops out.

    Args:
        fitted: a map with landmarks and the Euclidean metric.
        chosen: which of its coordinates, in order.
    """

    landmarks: Tensor
    offsets: Tensor
    values: Tensor
    origin: Tensor

    def __init__(self, fitted: DiffusionMap, chosen: list[int] | None = None):
        super().__init__()
        points, weights, values = fitted.nystroem_parts()
        origin = points.mean(axis=0)
        self.register_buffer("origin", torch.as_tensor(origin))
        landmarks = points - origin
        precision = 0.5 / fitted.bandwidth_
        self.register_buffer("landmarks", torch.as_tensor(np.ascontiguousarray(precision * landmarks.T)))
        offsets = np.log(weights) - 0.5 * precision * (landmarks**2).sum(axis=1)
        self.register_buffer("offsets", torch.as_tensor(offsets))
        self.register_buffer("values", torch.as_tensor(values[:, chosen] if chosen is not None else values))

    def forward(self, features: Tensor) -> Tensor:
        """Features of shape=(n_features,) or (n, n_features) to coordinates, shape=(n_coordinates,) or (n, ...)."""
        return torch.softmax(self.offsets + (features - self.origin) @ self.landmarks, dim=-1) @ self.values


class LearnedCoordinates(nn.Module):
    """Positions, nm, to learned slow coordinates; forward is features, then coordinates.

    Args:
        features: of the positions.
        coordinates: a module from features to coordinates.
    """

    def __init__(self, features: FeaturesModule, coordinates: nn.Module):
        super().__init__()
        self.features = features
        self.coordinates = coordinates

    def forward(self, positions: Tensor, box: Tensor | None = None) -> Tensor:
        """Positions of shape=(n_atoms, 3) or (n, n_atoms, 3) to shape=(n_coordinates,) or (n, n_coordinates)."""
        coordinates: Tensor = self.coordinates(self.features(positions, box))
        return coordinates


class WithTorsions(nn.Module):
    """Torsions, radians, followed by learned coordinates.

    Args:
        torsions: module of their sines and cosines, cosines first.
        learned: module from positions to learned coordinates.
    """

    def __init__(self, torsions: FeaturesModule, learned: nn.Module):
        super().__init__()
        self.torsions = torsions
        self.learned = learned

    def forward(self, positions: Tensor, box: Tensor | None = None) -> Tensor:
        """Positions of shape=(n_atoms, 3) or (n, n_atoms, 3) to torsions and coordinates, (d,) or (n, d)."""
        cosine, sine = self.torsions(positions, box).chunk(2, dim=-1)
        return torch.cat([torch.atan2(sine, cosine), self.learned(positions, box)], dim=-1)


def coordinates_module(features: Features, fitted: DiffusionMap, chosen: list[int] | None = None) -> LearnedCoordinates:
    """The map of features as one module, in double precision.

    Args:
        features: that the map was fitted on.
        fitted: a map with landmarks.
        chosen: which of its coordinates, in order; all by default.

    Raises:
        InputError: the map has no out-of-sample extension.
    """
    return LearnedCoordinates(features_module(features), NystroemModule(fitted, chosen).double())
