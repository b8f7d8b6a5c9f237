"""Internal coordinates as a torch module of positions."""

import numpy as np
import torch
from torch import Tensor, nn

from ..coordinates.torch_modules import torsion_angles
from .chart import Chart, InternalCoordinates


class ChartCoordinates(nn.Module):
    """`Chart.to_internal` of one configuration: positions, shape=(n_atoms, 3), to shape=(n_coordinates,)."""

    bonds: Tensor
    angles: Tensor
    torsions: Tensor

    def __init__(self, chart: Chart):
        super().__init__()
        self.is_internal = isinstance(chart, InternalCoordinates)
        for name, columns in (("bonds", 2), ("angles", 3), ("torsions", 4)):
            atoms = getattr(chart, name) if self.is_internal else np.empty((0, columns), dtype=np.int64)
            self.register_buffer(name, torch.as_tensor(np.array(atoms)))

    def forward(self, positions: Tensor) -> Tensor:
        """Nm and radians."""
        if not self.is_internal:
            return positions.reshape(-1)
        bond, angle = positions[self.bonds], positions[self.angles]
        u, v = angle[:, 0] - angle[:, 1], angle[:, 2] - angle[:, 1]
        sine = torch.linalg.vector_norm(torch.linalg.cross(u, v), dim=1)
        return torch.cat(
            [
                torch.linalg.vector_norm(bond[:, 0] - bond[:, 1], dim=1),
                torch.atan2(sine, (u * v).sum(dim=1)),
                torsion_angles(positions, self.torsions),
            ]
        )
