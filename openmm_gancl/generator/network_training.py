"""Training of the network on top of a triangular map: by scores, by likelihood and against a critic, or by any sum.

The map takes structures to nearly normal numbers u, and their forces to the gradient of the log target there. Three
losses say how far the network is from the target in these numbers:

- scores: the weighted mean square of (gradient of the network's log density - that of the target), known from forces.
  It needs no samples of the network, and a structure is worth as many equations as it has coordinates; but it does
  not see how much each of several separate modes weighs;
- likelihood: minus the weighted mean of the network's log density;
- adversarial: a critic's mean score of the structures less that of the network's own numbers (WGAN-GP). With a
  likelihood beside it this is Flow-GAN (Grover, Dhar, Ermon 2018, arXiv 1705.08868).
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..engine.optimisers import Adam, Muon
from ..engine.random_numbers import named_rng, torch_rng, torch_seeded
from ..engine.threads import torch_threads
from ..errors import InputError, checked
from ..units import FloatArray, whole_number
from .coupling import CouplingNetwork, NoNetwork
from .critic import NumberCritic, critic_loss
from .invertible import InvertibleGenerator
from .narrow_fit import robust_weights
from .score_fit import effective_structures
from .triangular import NarrowCoordinates, TriangularMap


@dataclass(frozen=True)
class NetworkOptions:
    """Hyper-parameters.

    Args:
        n_layers: affine couplings.
        hidden: width of their networks.
        n_steps: of Muon and, for biases, of Adam, whose rates fall to zero in a straight line.
        batch: structures a step.
        rate: learning rate at the start.
        held_out: fraction of structures that choose the best step; of a critic alone, which knows no density, the last
            one is kept.
        scores: weight of the score loss, of a mean square a number.
        likelihood: weight of the likelihood, in nats a structure.
        adversarial: weight of the critic's gap.
        critic_steps: steps of the critic for each of the network.
        critic_rate: learning rate of the critic.
        gradient_penalty: weight of the critic's gradient penalty.
    """

    n_layers: int = 2
    hidden: int = 64
    n_steps: int = 600
    batch: int = 1024
    rate: float = 4e-3
    held_out: float = 0.1
    scores: float = 1.0
    likelihood: float = 0.0
    adversarial: float = 0.0
    critic_steps: int = 3
    critic_rate: float = 2e-3
    gradient_penalty: float = 0.1

    def __post_init__(self) -> None:
        """Refuse numbers that a training cannot have."""
        for name in ("n_layers", "hidden", "n_steps", "batch", "critic_steps"):
            whole_number(name, getattr(self, name))
        if not 0.0 < self.held_out < 1.0:
            raise InputError(f"held_out is {self.held_out}: give a fraction between 0 and 1")
        for name in ("rate", "critic_rate", "scores", "likelihood", "adversarial", "gradient_penalty"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value >= 0.0) or ("rate" in name and value == 0.0):
                raise InputError(f"{name} is {value}: give a positive number{'' if 'rate' in name else ', or 0'}")


LEAST_STRUCTURES = 1000
"""Effective training structures of a network; a triangular map needs far fewer."""

CHECK_EVERY = 250
"""Steps after which the held-out loss is looked at."""

MAX_HELD_OUT = 2000
"""Structures that are looked at then."""

ROWS_AT_ONCE = 500


@dataclass(frozen=True)
class TrainingNumbers:
    """Structures as the network sees them, single precision.

    Attributes:
        numbers: shape=(n, k), the map's normal numbers.
        gradients: shape=(n, k), of the log target in these.
        features: shape=(n, n_features), of the conditions.
        weights: shape=(n,), of mean one.
        trust: shape=(n,), at most one, less where the map leaves an absurd part of a gradient.
    """

    numbers: Tensor
    gradients: Tensor
    features: Tensor
    weights: Tensor
    trust: Tensor

    def __len__(self) -> int:
        return len(self.numbers)

    def rows(self, which: Tensor) -> "TrainingNumbers":
        """Some of them."""
        parts = (self.numbers, self.gradients, self.features, self.weights, self.trust)
        return TrainingNumbers(*(part.index_select(0, which) for part in parts))

    @classmethod
    def of(
        cls, triangular: TriangularMap, coordinates: FloatArray, gradients: FloatArray, weights: FloatArray
    ) -> "TrainingNumbers":
        """Those of structures.

        Args:
            triangular: the map, without a network.
            coordinates: shape=(n, n_coordinates).
            gradients: shape=(n, n_coordinates), of the log target.
            weights: shape=(n,).
        """
        parts = []
        for i in range(0, len(coordinates), ROWS_AT_ONCE):
            data, slopes = (torch.as_tensor(part[i : i + ROWS_AT_ONCE]) for part in (coordinates, gradients))
            conditions = torch.cat([data[:, triangular.label_indices], data[:, triangular.circular_indices]], dim=1)
            values = triangular.narrow_values(data)
            features = triangular.narrow.condition.network_features(conditions)
            of_narrow = slopes[:, triangular.narrow_indices]
            pulled = triangular.narrow.normals_and_gradients(conditions, values, of_narrow)
            parts.append((*pulled, features))
        numbers, scores, features = (torch.cat(part) for part in zip(*parts, strict=True))
        # of what is left to learn, of which one clash in a thousand structures may have most
        trust = torch.as_tensor(robust_weights((numbers + scores).numpy(), np.ones(len(scores))))
        share = torch.as_tensor(weights / weights.mean())
        return cls(*(part.float() for part in (numbers, scores, features, share, trust)))


def _log_density(network: CouplingNetwork, numbers: Tensor, features: Tensor) -> Tensor:
    """Of numbers under the network, up to a constant, shape=(n,)."""
    base, log_volume = network.inverse(numbers, features)
    return -0.5 * (base * base).sum(dim=1) - log_volume


def score_loss(network: CouplingNetwork, data: TrainingNumbers, weights: Tensor) -> Tensor:
    """Weighted mean square of (gradient of the network's log density - gradient), a number a coordinate."""
    score = network.score(data.numbers, data.features)
    return (weights * ((score - data.gradients) ** 2).mean(dim=1)).sum() / weights.sum()


def likelihood_loss(network: CouplingNetwork, data: TrainingNumbers, weights: Tensor) -> Tensor:
    """Minus the weighted mean of the network's log density, nats, up to a constant."""
    return -(weights * _log_density(network, data.numbers, data.features)).sum() / weights.sum()


class _Adversary:
    """A critic beside the network, and the network's own numbers that it sees.

    Args:
        network: what is trained against it.
        k: numbers.
        n_features: of the conditions.
        options: of both.
        seed: of its initial weights and of what is drawn.
    """

    def __init__(self, network: CouplingNetwork, k: int, n_features: int, options: NetworkOptions, seed: int):
        with torch_seeded(seed, "network", "critic"):
            self.critic = NumberCritic(k, n_features, options.hidden)
        self.network, self.options = network, options
        self.random = torch_rng(seed, "network", "drawn")
        self.optimiser = Adam(self.critic.parameters(), lr=options.critic_rate, betas=(0.0, 0.9))

    def drawn(self, features: Tensor) -> Tensor:
        """The network's numbers at conditions, shape=(n, k)."""
        normals = torch.randn(len(features), self.network.k, generator=self.random)
        numbers: Tensor = self.network(normals, features)[0]
        return numbers

    def learn(self, data: TrainingNumbers) -> None:
        """One step of the critic."""
        with torch.no_grad():
            fake = self.drawn(data.features)
        mixing = torch.rand(len(data), 1, generator=self.random)
        loss, _ = critic_loss(
            lambda numbers: self.critic(numbers, data.features),
            data.numbers,
            fake,
            mixing,
            self.options.gradient_penalty,
        )
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()

    def loss(self, features: Tensor) -> Tensor:
        """Of the network: minus the mean score of its numbers."""
        return -self.critic(self.drawn(features), features).mean()


class _Training:
    """The network, its data and its optimisers.

    Args:
        network: in single precision, trained in place.
        data: structures.
        options: see there.
        seed: of batches, of what is held out, and of the critic.
    """

    def __init__(self, network: CouplingNetwork, data: TrainingNumbers, options: NetworkOptions, seed: int):
        self.network, self.options = network, options
        self.rng = named_rng(seed, "network", "batches")
        order = torch.as_tensor(self.rng.permutation(len(data)))
        n_held_out = int(len(data) * options.held_out)
        self.held_out, self.data = data.rows(order[:n_held_out][:MAX_HELD_OUT]), data.rows(order[n_held_out:])
        # drawn by their weights, structures of a batch count alike: no step is spent on those that weigh nothing
        self.cumulative = np.cumsum(self.data.weights.double().numpy())
        self.adversary = (
            _Adversary(network, data.numbers.shape[1], data.features.shape[1], options, seed)
            if options.adversarial > 0
            else None
        )
        matrices, vectors = ([one for one in network.parameters() if one.ndim == n] for n in (2, 1))
        self.optimisers = (Muon(matrices, lr=options.rate), Adam(vectors, lr=options.rate, fused=True))
        self.schedules = [torch.optim.lr_scheduler.PolynomialLR(one, options.n_steps) for one in self.optimisers]

    def batch(self) -> TrainingNumbers:
        """Structures drawn by their weights."""
        places = self.rng.random(self.options.batch) * self.cumulative[-1]
        rows = np.minimum(np.searchsorted(self.cumulative, places, side="right"), len(self.data) - 1)
        return self.data.rows(torch.as_tensor(rows))

    def held_out_loss(self) -> float:
        """Of the terms that know the density; the likelihood where there is only a critic."""
        options, data, total = self.options, self.held_out, 0.0
        if options.scores > 0:
            with torch.no_grad():
                total += options.scores * float(score_loss(self.network, data, data.weights * data.trust))
        if options.likelihood > 0 or options.scores == 0:
            weight = options.likelihood if options.likelihood > 0 else 1.0
            with torch.no_grad():
                total += weight * float(likelihood_loss(self.network, data, data.weights))
        return total

    def step(self) -> None:
        """One step of the network, after those of the critic."""
        options, network = self.options, self.network
        if self.adversary is not None:
            for _ in range(options.critic_steps):
                self.adversary.learn(self.batch())
        data, loss = self.batch(), torch.zeros(())
        if options.scores > 0:
            loss = loss + options.scores * score_loss(network, data, data.trust)
        if options.likelihood > 0:
            loss = loss + options.likelihood * likelihood_loss(network, data, torch.ones(len(data)))
        if self.adversary is not None:
            loss = loss + options.adversarial * self.adversary.loss(data.features)
        network.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        for optimiser, schedule in zip(self.optimisers, self.schedules, strict=True):
            optimiser.step()
            schedule.step()


@torch.enable_grad()
def train_network(
    triangular: TriangularMap,
    coordinates: FloatArray,
    gradients: FloatArray,
    weights: FloatArray,
    *,
    seed: int,
    options: NetworkOptions = NetworkOptions(),
    progress: Callable[[int, int], None] | None = None,
) -> tuple[TriangularMap, list[float]]:
    """A copy of a triangular map with a trained network on top, and the held-out losses: at first and as it learns.

    A network that the map has already is where the training starts.

    Args:
        triangular: the map, which stays as it is.
        coordinates: shape=(n, n_coordinates), of the map's chart.
        gradients: shape=(n, n_coordinates), of the log target.
        weights: shape=(n,).
        seed: of initial weights, batches, draws and what is held out.
        options: see there.
        progress: called with the step and the number of steps.

    Raises:
        InputError: no loss has a weight.
    """
    if not options.scores + options.likelihood + options.adversarial > 0:
        raise InputError("a network is trained by scores, by likelihood or against a critic: give one a weight")
    result = copy.deepcopy(triangular)
    narrow: NarrowCoordinates = result.narrow
    with torch_seeded(seed, "network", "start"):
        n_features = narrow.condition.n_network_features
        network = CouplingNetwork(narrow.n, n_features, options.n_layers, options.hidden)
    if isinstance(narrow.network, CouplingNetwork):
        network = narrow.network
        narrow.has_network, narrow.network = False, NoNetwork()
    data = TrainingNumbers.of(result, coordinates, gradients, weights)
    network.float().requires_grad_(True)
    training = _Training(network, data, options, seed)
    knows_density = options.scores + options.likelihood > 0
    losses, best = [training.held_out_loss()], copy.deepcopy(network.state_dict())
    for step in range(1, options.n_steps + 1):
        training.step()
        if progress is not None:
            progress(step, options.n_steps)
        if step % CHECK_EVERY == 0 or step == options.n_steps:
            losses.append(training.held_out_loss())
            if losses[-1] <= min(losses) or not knows_density:
                best = copy.deepcopy(network.state_dict())
    network.load_state_dict(best)
    narrow.set_network(network.double().requires_grad_(False))
    return result, losses


@checked
@torch_threads(1)
def with_network(
    generator: InvertibleGenerator,
    coordinates: FloatArray,
    gradients: FloatArray,
    weights: FloatArray,
    *,
    seed: int,
    options: NetworkOptions = NetworkOptions(),
    progress: Callable[[int, int], None] | None = None,
) -> InvertibleGenerator:
    """A generator with a trained network on top of its map; the one that is given stays as it is.

    Args:
        generator: fitted, best to these same structures.
        coordinates: shape=(n, n_coordinates), of the generator's chart.
        gradients: shape=(n, n_coordinates), of the log target.
        weights: shape=(n,).
        seed: of everything random.
        options: see there.
        progress: called with the step and the number of steps.

    Raises:
        InputError: structures are too few, or not finite, no loss has a weight, or all coordinates are labels or wide.
    """
    if not generator.map.narrow.n:
        raise InputError("every coordinate is a label or wide, and none is left for a network")
    weights = np.asarray(weights, dtype=float)
    effective = effective_structures(coordinates, gradients, weights)
    if not effective >= LEAST_STRUCTURES:
        raise InputError(
            f"a network needs {LEAST_STRUCTURES} effective training structures, and there are {effective:.0f}: "
            "raise `max_evaluations`, or use the triangular generator"
        )
    made, losses = train_network(
        generator.map, coordinates, gradients, weights, seed=seed, options=options, progress=progress
    )
    # what a file keeps
    found = {"steps": options.n_steps, "held_out_losses": losses}
    return replace(generator, map=made, metadata={**generator.metadata, "network": found})
