"""torch's optimisers without its compiler: they import it, which takes seconds, only to shut themselves off from it."""

from typing import Any

import torch
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
