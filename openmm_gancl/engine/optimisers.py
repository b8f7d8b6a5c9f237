"""Optimisers: Muon, and torch's own without its compiler.

They import it, which takes seconds, only to shut themselves off from it.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


def _plain(function: Any) -> Any:
    """What a decorator of torch's compiler is around."""
    return getattr(function, "__wrapped__", function)


class LBFGS(torch.optim.LBFGS):
    """`torch.optim.LBFGS`, to the bit."""

    add_param_group = _plain(Optimizer.add_param_group)
    zero_grad = _plain(Optimizer.zero_grad)


class Adam(torch.optim.Adam):
    """`torch.optim.Adam`, to the bit."""

    add_param_group = _plain(Optimizer.add_param_group)
    zero_grad = _plain(Optimizer.zero_grad)
    step = torch.no_grad()(_plain(torch.optim.Adam.step))


class Muon(Optimizer):
    """Steps along the averaged gradient with its singular values made one (Jordan et al. 2024).

    Of kellerjordan.github.io/posts/muon; the largest have elements of about the rate's size, as Adam's have. That of
    torch (from 2.9 on) computes in bfloat16, which loses digits, and time on a CPU.

    Args:
        parameters: matrices.
        lr: learning rate.
        momentum: of the averaged gradient.
    """

    add_param_group = _plain(Optimizer.add_param_group)
    zero_grad = _plain(Optimizer.zero_grad)

    def __init__(self, parameters: Iterable[Tensor], lr: float, momentum: float = 0.9):
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """One step."""
        for group in self.param_groups:
            for matrix in group["params"]:
                average = self.state[matrix].setdefault("average", torch.zeros_like(matrix))
                average.lerp_(matrix.grad, 1.0 - group["momentum"])
                direction = orthogonal_factor(matrix.grad.lerp(average, group["momentum"]))
                # of root mean square one where no singular value is missing
                matrix.sub_(direction, alpha=max(matrix.shape) ** 0.5 * group["lr"])


def orthogonal_factor(matrix: Tensor) -> Tensor:
    """A matrix with the same singular vectors, and singular values of about one, 0.6 to 1.3, but for the smallest."""
    found = matrix / (torch.linalg.norm(matrix) + 1e-30)
    wide = found if matrix.shape[0] <= matrix.shape[1] else found.T
    for _ in range(5):
        # a x + b x^3 + c x^5 of each singular value x
        square = wide @ wide.T
        wide = 3.4445 * wide + (-4.7750 * square + 2.0315 * square @ square) @ wide
    return wide if matrix.shape[0] <= matrix.shape[1] else wide.T
