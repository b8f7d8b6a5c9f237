"""What adversarial trainings have in common: a critic's loss with a gradient penalty (WGAN-GP).

Gulrajani et al. 2017, arXiv 1704.00028.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .networks import perceptron


class NumberCritic(nn.Module):
    """Scores (numbers, features of the conditions), by whose means real and generated numbers are compared.

    Args:
        k: numbers.
        n_features: of the conditions.
        hidden: width.
    """

    def __init__(self, k: int, n_features: int, hidden: int):
        super().__init__()
        self.score = perceptron(k + n_features, hidden, 1)

    def forward(self, numbers: Tensor, features: Tensor) -> Tensor:
        """Numbers, shape=(n, k), and features, shape=(n, n_features), to scores, shape=(n,)."""
        scores: Tensor = self.score(torch.cat([numbers, features], dim=1)).squeeze(1)
        return scores


def critic_loss(
    score: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, mixing: Tensor, penalty_weight: float
) -> tuple[Tensor, Tensor]:
    """The loss of a critic, and the gap of its mean scores, real less generated.

    Args:
        score: shape=(n, p) to shape=(n,).
        real: shape=(n, p).
        fake: shape=(n, p), generated.
        mixing: shape=(n, 1), in [0, 1]: where between the two the gradient is to have length one.
        penalty_weight: of the squared difference from it.
    """
    between = (mixing * real + (1 - mixing) * fake).requires_grad_(True)
    (gradient,) = torch.autograd.grad(score(between).sum(), between, create_graph=True)
    penalty = (((gradient**2).sum(dim=1) + 1e-12).sqrt() - 1).square().mean()
    gap = score(fake).mean() - score(real).mean()
    return gap + penalty_weight * penalty, -gap.detach()
