"""The declared state as a torch module: which configurations belong to the target."""

import numpy as np
import torch
from torch import Tensor, nn

from ..coordinates.torch_modules import torsion_angles
from .state import DeclaredState


class InState(nn.Module):
    """`DeclaredState.inside`: positions, shape=(n, n_atoms, 3), nm, to shape=(n,); NaN is not inside.

    Args:
        state: the declared state.
    """

    chiral_centres: Tensor
    chirality: Tensor
    trans_peptides: Tensor
    bonds: Tensor
    longest_bonds: Tensor

    def __init__(self, state: DeclaredState):
        super().__init__()
        for name in ("chiral_centres", "chirality", "trans_peptides", "bonds", "longest_bonds"):
            self.register_buffer(name, torch.as_tensor(np.array(getattr(state, name))))

    def forward(self, positions: Tensor) -> Tensor:
        """Whether each configuration is inside."""
        inside = torch.isfinite(positions).flatten(1).all(dim=1)
        if self.trans_peptides.shape[0] > 0:
            inside = inside & (torch.cos(torsion_angles(positions, self.trans_peptides)) < 0.0).all(dim=1)
        if self.chiral_centres.shape[0] > 0:
            centre = positions[:, self.chiral_centres[:, 0]]
            a, b, d = [positions[:, self.chiral_centres[:, i]] - centre for i in range(1, 4)]
            triple = (a * torch.linalg.cross(b, d)).sum(dim=2)
            inside = inside & (torch.sign(triple) == self.chirality).all(dim=1)
        if self.bonds.shape[0] > 0:
            bonds = positions[:, self.bonds[:, 1]] - positions[:, self.bonds[:, 0]]
            inside = inside & (torch.linalg.vector_norm(bonds, dim=2) <= self.longest_bonds).all(dim=1)
        return inside
