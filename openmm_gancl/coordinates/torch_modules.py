"""Slow coordinates and `features` as torch modules: differentiable, scriptable, equal to mdtraj's numbers to 1e-5.

Positions are of shape=(n_atoms, 3) or (n, n_atoms, 3) in nm; box vectors, rows of shape=(3, 3) in OpenMM's reduced
form, or none.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..units import IntArray
from .features import AlignedPositions, Distances, Features, FeatureSet, SineCosine


def _minimum_image(vectors: Tensor, box: Tensor | None) -> Tensor:
    if box is None:
        return vectors
    for i in (2, 1, 0):
        vectors = vectors - box[i] * torch.round(vectors[..., i : i + 1] / box[i, i])
    return vectors


class DistancesModule(nn.Module):
    """See `Distances`."""

    pairs: Tensor

    def __init__(self, features: Distances):
        super().__init__()
        self.register_buffer("pairs", torch.as_tensor(features.pairs))

    def forward(self, positions: Tensor, box: Tensor | None = None) -> Tensor:
        """Of shape=(m,) or (n, m)."""
        a, b = positions.index_select(-2, self.pairs[:, 0]), positions.index_select(-2, self.pairs[:, 1])
        return torch.linalg.vector_norm(_minimum_image(b - a, box), dim=-1)


class SineCosineModule(nn.Module):
    """See `SineCosine`."""

    quadruples: Tensor

    def __init__(self, features: SineCosine):
        super().__init__()
        self.register_buffer("quadruples", torch.as_tensor(features.quadruples))

    def forward(self, positions: Tensor, box: Tensor | None = None) -> Tensor:
        """Of shape=(2 m,) or (n, 2 m), cosines first."""
        p = [positions.index_select(-2, self.quadruples[:, i]) for i in range(4)]
        b1, b2 = _minimum_image(p[1] - p[0], box), _minimum_image(p[2] - p[1], box)
        b3 = _minimum_image(p[3] - p[2], box)
        n1, n2 = torch.linalg.cross(b1, b2), torch.linalg.cross(b2, b3)
        x = (n1 * n2).sum(dim=-1)
        y = torch.linalg.vector_norm(b2, dim=-1) * (b1 * n2).sum(dim=-1)
        size = torch.sqrt(x * x + y * y)
        return torch.cat([x / size, y / size], dim=-1)


class AlignedPositionsModule(nn.Module):
    """See `AlignedPositions`."""

    chosen: Tensor
    reference: Tensor

    def __init__(self, features: AlignedPositions):
        super().__init__()
        self.register_buffer("chosen", torch.as_tensor(features.chosen))
        self.register_buffer("reference", torch.as_tensor(features.reference))

    def forward(self, positions: Tensor, box: Tensor | None = None) -> Tensor:
        """Kabsch 1976, doi 10.1107/S0567739476001873; the box plays no part."""
        centred = positions.index_select(-2, self.chosen)
        centred = centred - centred.mean(dim=-2, keepdim=True)
        reference = self.reference.to(centred.dtype)
        left, _, right = torch.linalg.svd(centred.transpose(-1, -2) @ reference)
        mirror = torch.sign(torch.linalg.det(left) * torch.linalg.det(right))
        flip = torch.stack([torch.ones_like(mirror), torch.ones_like(mirror), mirror], dim=-1)
        rotation = (left * flip.unsqueeze(-2)) @ right
        return (centred @ rotation).flatten(-2)


class FeaturesModule(nn.Module):
    """Features of several kinds as one module; the forward pass concatenates them, each times its scale."""

    scales: Tensor

    def __init__(self, features: Features):
        super().__init__()
        self.parts = nn.ModuleList([_module_of(part) for part in features.parts])
        scales = [scale for part, scale in zip(features.parts, features.scales, strict=True) for _ in part.names]
        self.register_buffer("scales", torch.tensor(scales))

    def forward(self, positions: Tensor, box: Tensor | None = None) -> Tensor:
        """Of shape=(n_features,) or (n, n_features)."""
        columns: list[Tensor] = []
        for part in self.parts:
            columns.append(part(positions, box))
        return torch.cat(columns, dim=-1) * self.scales


def _module_of(part: FeatureSet) -> nn.Module:
    modules: dict[type, Any] = {
        Distances: DistancesModule,
        SineCosine: SineCosineModule,
        AlignedPositions: AlignedPositionsModule,
    }
    module: nn.Module = modules[type(part)](part)
    return module


def features_module(features: Features) -> FeaturesModule:
    """Features as a torch module, in double precision."""
    return FeaturesModule(features).double()


def torsion_angles(positions: Tensor, quadruples: Tensor) -> Tensor:
    """Radians, IUPAC sign, shape=(..., n), of positions, shape=(..., n_atoms, 3), and atoms, shape=(n, 4)."""
    p = [positions.index_select(-2, quadruples[:, i]) for i in range(4)]
    b1, b2, b3 = p[1] - p[0], p[2] - p[1], p[3] - p[2]
    n1, n2 = torch.linalg.cross(b1, b2), torch.linalg.cross(b2, b3)
    return torch.atan2(torch.linalg.vector_norm(b2, dim=-1) * (b1 * n2).sum(dim=-1), (n1 * n2).sum(dim=-1))


class TorsionsModule(nn.Module):
    """Positions to torsions, radians.

    Args:
        atoms: shape=(d, 4).
    """

    atoms: Tensor

    def __init__(self, atoms: IntArray):
        super().__init__()
        self.register_buffer("atoms", torch.as_tensor(atoms))

    def forward(self, positions: Tensor) -> Tensor:
        """Of shape=(d,) or (n, d)."""
        return torsion_angles(positions, self.atoms)


class ComponentsModule(nn.Module):
    """Positions to components of particles, nm.

    Args:
        components: shape=(d, 2), rows of particle index and axis.
    """

    flat: Tensor

    def __init__(self, components: IntArray):
        super().__init__()
        self.register_buffer("flat", torch.as_tensor(components @ np.array([3, 1])))

    def forward(self, positions: Tensor) -> Tensor:
        """Of shape=(d,) or (n, d)."""
        return positions.flatten(-2).index_select(-1, self.flat)


class Copies(nn.Module):
    """Coordinates of copies of a molecule side by side, those of the first copy first, all by one call of a module.

    Args:
        module: scripted, of one copy; takes any number of frames at once.
        n_atoms: atoms in a copy.
    """

    def __init__(self, module: Any, n_atoms: int):
        super().__init__()
        self.module = module
        self.n_atoms = n_atoms

    def forward(self, positions: Tensor) -> Tensor:
        """Positions of shape=(n * n_atoms, 3) to coordinates, shape=(n * d,)."""
        coordinates: Tensor = self.module(positions.reshape(-1, self.n_atoms, 3))
        return coordinates.flatten()
