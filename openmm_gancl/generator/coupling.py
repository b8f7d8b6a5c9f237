"""An invertible network of normal numbers, conditional on labels: affine couplings, identity at the start; scriptable.

Each layer leaves half of the numbers as they are, and shifts and scales the other half by a network of the first half
and of the conditions (Dinh, Sohl-Dickstein, Bengio 2017, arXiv 1605.08803). Forward and inverse cost the same.
"""

import numpy as np
import torch
from torch import Tensor, nn

from .networks import perceptron

MAX_LOG_SCALE = 1.0
"""Of one layer."""


class NoNetwork(nn.Module):
    """The identity."""

    def forward(self, numbers: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Numbers as they are, and a log volume of zero."""
        return numbers, torch.zeros_like(numbers[:, 0])

    def inverse(self, numbers: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """The same."""
        return numbers, torch.zeros_like(numbers[:, 0])


class AffineCoupling(nn.Module):
    """One layer.

    Args:
        moved: shape=(k,), which numbers are shifted and scaled.
        n_features: of the conditions.
        hidden: width of its network.
    """

    kept_index: Tensor
    moved_index: Tensor

    def __init__(self, moved: Tensor, n_features: int, hidden: int):
        super().__init__()
        self.register_buffer("kept_index", torch.nonzero(~moved)[:, 0])
        self.register_buffer("moved_index", torch.nonzero(moved)[:, 0])
        self.n_moved, self.max_log_scale = int(moved.sum()), MAX_LOG_SCALE
        self.network = perceptron(len(self.kept_index) + n_features, hidden, 2 * self.n_moved).double()
        last = self.network[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def shift_and_log_scale(self, numbers: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Of the moved numbers, from the kept ones, which are the same before and after."""
        # far numbers move nothing further: the tails stay those of the base
        kept = 4.0 * torch.tanh(numbers.index_select(1, self.kept_index) / 4.0)
        raw = self.network(torch.cat([kept, features], dim=1))
        return raw[:, : self.n_moved], self.max_log_scale * torch.tanh(raw[:, self.n_moved :])

    def forward(self, numbers: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Numbers, shape=(n, k), to numbers, and the log volume, shape=(n,)."""
        shift, log_scale = self.shift_and_log_scale(numbers, features)
        moved = numbers.index_select(1, self.moved_index) * torch.exp(log_scale) + shift
        return numbers.index_copy(1, self.moved_index, moved), log_scale.sum(dim=1)

    def inverse(self, numbers: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """The inverse of `forward`, with the log volume that it has there."""
        shift, log_scale = self.shift_and_log_scale(numbers, features)
        moved = (numbers.index_select(1, self.moved_index) - shift) * torch.exp(-log_scale)
        return numbers.index_copy(1, self.moved_index, moved), log_scale.sum(dim=1)

    @torch.jit.unused
    def _linear(self) -> list[nn.Linear]:
        return [one for one in self.network if isinstance(one, nn.Linear)]

    @torch.jit.unused
    def undo(self, kept: Tensor, moved: Tensor, features: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The moved numbers before the layer, and what `pull` needs of the way there."""
        first, second, last = self._linear()
        tanh = torch.tanh(kept / 4.0)
        hidden, slopes = torch.cat([4.0 * tanh, features], dim=1), []
        for linear in (first, second):
            raw = linear(hidden)
            sigmoid = torch.sigmoid(raw)
            hidden = raw * sigmoid
            slopes.append(sigmoid + hidden - hidden * sigmoid)
        raw = last(hidden)
        tanh_scale = torch.tanh(raw[:, self.n_moved :])
        shrink = torch.exp(-self.max_log_scale * tanh_scale)
        before = (moved - raw[:, : self.n_moved]) * shrink
        return before, [tanh, *slopes, tanh_scale, shrink, before]

    @torch.jit.unused
    def pull(self, gradient: Tensor, passed: list[Tensor]) -> tuple[Tensor, Tensor]:
        """A gradient in the moved numbers before the layer as one in those after it, and what the kept ones add."""
        first, second, last = self._linear()
        tanh, slope, second_slope, tanh_scale, shrink, before = passed
        after = gradient * shrink
        # log scales multiply the numbers, and the volume
        of_scale = (gradient * before + 1.0) * (tanh_scale * tanh_scale - 1.0) * self.max_log_scale
        of_hidden = (torch.cat([-after, of_scale], dim=1) @ last.weight) * second_slope
        of_hidden = (of_hidden @ second.weight) * slope
        return after, (of_hidden @ first.weight[:, : tanh.shape[1]]) * (1.0 - tanh * tanh)


class CouplingNetwork(nn.Module):
    """Affine couplings one after the other, each moving the half that the one before it kept.

    Args:
        k: numbers.
        n_features: of the conditions.
        n_layers: couplings.
        hidden: width of their networks.
    """

    def __init__(self, k: int, n_features: int, n_layers: int = 2, hidden: int = 128):
        super().__init__()
        self.k, self.size = k, [n_layers, hidden]
        even = torch.as_tensor(np.arange(k) % 2 == 0)
        masks = [even if layer % 2 == 0 else ~even for layer in range(n_layers)]
        self.layers = nn.ModuleList([AffineCoupling(mask, n_features, hidden) for mask in masks])
        self.reverse_layers = nn.ModuleList(list(self.layers)[::-1])
        self.halves = [torch.nonzero(half)[:, 0] for half in (even, ~even)]
        self.order = torch.argsort(torch.cat(self.halves))

    def forward(self, numbers: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Numbers, shape=(n, k), and features, shape=(n, n_features), to numbers and the log volume, shape=(n,)."""
        log_volume = torch.zeros_like(numbers[:, 0])
        for layer in self.layers:
            numbers, part = layer(numbers, features)
            log_volume = log_volume + part
        return numbers, log_volume

    @torch.jit.export
    def inverse(self, numbers: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """The inverse of `forward`, with the log volume that it has there."""
        log_volume = torch.zeros_like(numbers[:, 0])
        for layer in self.reverse_layers:
            numbers, part = layer.inverse(numbers, features)
            log_volume = log_volume + part
        return numbers, log_volume

    @torch.jit.unused
    def score(self, numbers: Tensor, features: Tensor) -> Tensor:
        """The gradient of the log density of numbers under a normal base, shape=(n, k), written out.

        So a loss of it is differentiated once; through autograd it would be twice, at a third more time.
        """
        halves, passed = [numbers.index_select(1, half) for half in self.halves], []
        for i in range(len(self.layers) - 1, -1, -1):
            halves[i % 2], one = self.layers[i].undo(halves[1 - i % 2], halves[i % 2], features)
            passed.append(one)
        gradients = [-half for half in halves]
        for i, layer in enumerate(self.layers):
            gradients[i % 2], added = layer.pull(gradients[i % 2], passed.pop())
            gradients[1 - i % 2] = gradients[1 - i % 2] + added
        return torch.cat(gradients, dim=1).index_select(1, self.order)
