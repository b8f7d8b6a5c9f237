"""Steps with all singular values alike."""

import pytest
import torch

from openmm_gancl.engine.optimisers import Adam, Muon, orthogonal_factor


@pytest.mark.parametrize("shape", [(7, 7), (5, 12), (12, 5)])
def test_singular_values_become_one_and_vectors_stay(shape):
    n, rng = min(shape), torch.Generator().manual_seed(1)
    left, right = (torch.linalg.qr(torch.randn(size, n, generator=rng))[0] for size in shape)
    values = torch.logspace(-1, 1, n)
    found = orthogonal_factor((left * values) @ right.T)
    inner = left.T @ found @ right
    assert ((torch.diag(inner) > 0.6) & (torch.diag(inner) < 1.3)).all()
    assert (found - (left * torch.diag(inner)) @ right.T).abs().max() < 1e-5


def test_a_zero_matrix_moves_nowhere():
    matrix = torch.nn.Parameter(torch.ones(3, 4))
    matrix.grad = torch.zeros(3, 4)
    Muon([matrix], lr=0.1).step()
    assert torch.equal(matrix, torch.ones(3, 4))


def test_flat_directions_are_as_fast_as_steep_ones():
    """A quadratic of widely different curvatures, where plain descent needs as many steps as their ratio."""
    start, curvatures = torch.eye(6), torch.logspace(0, 3, 6)[:, None]
    left = {}
    for kind in (Muon, torch.optim.SGD):
        matrix = torch.nn.Parameter(start.clone())
        optimiser = kind([matrix], lr=0.05 if kind is Muon else 1e-3)
        for _ in range(60):
            optimiser.zero_grad()
            (0.5 * curvatures * matrix**2).sum().backward()
            optimiser.step()
        left[kind] = float(matrix.detach()[0].norm())
    assert left[Muon] < 0.1 < 0.9 < left[torch.optim.SGD]


def test_fused_steps_are_those_of_adam():
    found = []
    for kind, fused in ((Adam, True), (torch.optim.Adam, False)):
        matrix = torch.nn.Parameter(torch.ones(5, 3))
        optimiser = kind([matrix], lr=0.1, fused=fused)
        for i in range(20):
            matrix.grad = torch.sin(matrix.detach() * (i + 1))
            optimiser.step()
        found.append(matrix.detach())
    assert (found[0] - found[1]).abs().max() < 1e-5
