"""Training of the network on top of a triangular map, by the known gradients of the log target (score matching).

The map takes structures to nearly normal numbers u, and their forces to the gradient of the log density there. The
network's own log density has a gradient too; the weighted square of the difference is what is made small. It needs no
samples of the network, and a structure is worth as many equations as it has coordinates.
"""

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..engine.random_numbers import named_rng, torch_seeded
from ..units import FloatArray
from .coupling import CouplingNetwork
from .score_fit import robust_weights
from .triangular import NarrowCoordinates, TriangularMap


@dataclass(frozen=True)
class NetworkOptions:
    """Hyper-parameters.

    Args:
        n_layers: affine couplings.
        hidden: width of their networks.
        n_steps: of Adam, with a cosine schedule.
        batch: structures a step.
        rate: learning rate.
        held_out: fraction of structures that choose the best step.
    """

    n_layers: int = 2
    hidden: int = 128
    n_steps: int = 3000
    batch: int = 256
    rate: float = 2e-3
    held_out: float = 0.1


CHECK_EVERY = 250
"""Steps after which the held-out loss is looked at."""


def score_loss(
    network: CouplingNetwork, numbers: Tensor, gradients: Tensor, features: Tensor, weights: Tensor
) -> Tensor:
    """Weighted mean square of (gradient of the network's log density - gradient), a number."""
    at = numbers.detach().requires_grad_(True)
    base, log_volume = network.inverse(at, features)
    log_density = (-0.5 * (base * base).sum(dim=1) - log_volume).sum()
    (score,) = torch.autograd.grad(log_density, at, create_graph=True)
    return (weights * ((score - gradients) ** 2).mean(dim=1)).sum() / weights.sum()


def _numbers_and_scores(
    narrow: NarrowCoordinates, conditions: Tensor, values: Tensor, gradients: Tensor
) -> tuple[Tensor, Tensor]:
    """The map's normal numbers of structures, and the gradient of the log target in these numbers, shape=(n, k)."""
    with torch.no_grad():
        numbers, _ = narrow.inverse(values, conditions)
    numbers.requires_grad_(True)
    coordinates, log_volume = narrow(numbers, conditions)
    (scores,) = torch.autograd.grad((coordinates * gradients).sum() + log_volume.sum(), numbers)
    return numbers.detach(), scores


def train_network(
    triangular: TriangularMap,
    coordinates: FloatArray,
    gradients: FloatArray,
    weights: FloatArray,
    *,
    seed: int,
    options: NetworkOptions = NetworkOptions(),
) -> tuple[TriangularMap, list[float]]:
    """A copy of a triangular map with a trained network on top, and the held-out losses.

    Args:
        triangular: the map, which stays as it is.
        coordinates: shape=(n, n_coordinates), of the map's chart.
        gradients: shape=(n, n_coordinates), of the log target.
        weights: shape=(n,).
        seed: of initial weights, batches and what is held out.
        options: see there.
    """
    result = copy.deepcopy(triangular)
    narrow: NarrowCoordinates = result.narrow
    condition = narrow.condition
    with torch_seeded(seed, "network", "start"):
        network = CouplingNetwork(narrow.n, condition.n_network_features, options.n_layers, options.hidden)
    data = torch.as_tensor(coordinates)
    conditions = torch.cat([data[:, result.label_indices], data[:, result.circular_indices]], dim=1)
    of_narrow = torch.as_tensor(gradients)[:, result.narrow_indices]
    # the identity as yet: what it is to give is what the map makes of the structures
    narrow.set_network(network)
    numbers, scores = _numbers_and_scores(narrow, conditions, result.narrow_values(data), of_narrow)
    features = condition.network_features(conditions)
    shares = torch.as_tensor(robust_weights(scores.numpy(), weights / weights.mean()))
    rng = named_rng(seed, "network", "batches")
    order = rng.permutation(len(data))
    held_out, rows = np.split(order, [int(len(order) * options.held_out)])
    optimiser = torch.optim.Adam(network.parameters(), lr=options.rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, options.n_steps)
    losses, best = [], copy.deepcopy(network.state_dict())

    def held_out_loss() -> float:
        return float(score_loss(network, *(part[held_out] for part in (numbers, scores, features, shares))).detach())

    losses.append(held_out_loss())
    for step in range(1, options.n_steps + 1):
        batch = rng.choice(rows, min(options.batch, len(rows)), replace=False)
        loss = score_loss(network, *(part[batch] for part in (numbers, scores, features, shares)))
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        schedule.step()
        if step % CHECK_EVERY == 0 or step == options.n_steps:
            losses.append(held_out_loss())
            if losses[-1] <= min(losses):
                best = copy.deepcopy(network.state_dict())
    network.load_state_dict(best)
    network.requires_grad_(False)
    return result, losses
