"""A small network that replaces a map of many landmarks: as smooth, cheaper at every step, with a measured error.

The network is trained on values and gradients (Czarnecki et al. 2017, arXiv:1706.04859), since forces are gradients:

    loss = mean |f - y|^2 + w mean |u . (grad f - grad y)|^2 / mean |u . grad y|^2

with y the map, every coordinate in units of its own spread, and u a random direction among the coordinates, one for
each point.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ..coordinates.features import Features
from ..coordinates.label_modules import DistilledNetwork, LearnedCoordinates, NystroemModule
from ..coordinates.torch_modules import features_module
from ..engine.optimisers import LBFGS, Adam
from ..engine.random_numbers import torch_rng
from ..errors import InputError, checked, last_line
from ..units import FloatArray, IntArray
from .diffusion_map import DiffusionMap, checked_points
from .torch_map import nystroem_module

MIN_FRAMES = 200
N_BLOCKS, HELD_OUT_EVERY = 20, 5
"""Frames are cut into so many blocks of neighbours in time; one in so many blocks is held out."""

CHUNK_SIZE = 64
"""Points that the map is evaluated at in one batch: more would leave the processor's cache."""

BATCH_SIZE, LEARNING_RATE, LBFGS_HISTORY_SIZE = 256, 3e-3, 20


@dataclass(frozen=True)
class MapError:
    """The error of a network relative to its map.

    Attributes:
        rms: shape=(n_coordinates,), root mean square error, in the coordinates' own unit.
        r_squared: shape=(n_coordinates,), 1 - squared error / variance of the map.
        gradient: shape=(n_coordinates,), RMS error of the gradient by the features / RMS gradient of the map.
    """

    rms: FloatArray
    r_squared: FloatArray
    gradient: FloatArray


@dataclass(frozen=True)
class Distilled:
    """A network and what it costs in accuracy.

    Attributes:
        network: features to coordinates.
        features: that it reads; none if it was made of bare points.
        held_out: shape=(n_held_out,), rows of the frames that it was not trained on.
        error: on these frames.
        around: on perturbed copies of these frames.
    """

    network: DistilledNetwork
    features: Features | None
    held_out: IntArray
    error: MapError
    around: MapError

    def module(self) -> LearnedCoordinates:
        """Positions, nm, to coordinates; to be scripted and saved.

        Raises:
            InputError: there are no features of positions.
        """
        if self.features is None:
            raise InputError("this network was made of bare points: give distill the features of positions")
        return LearnedCoordinates(features_module(self.features), self.network)


@dataclass(frozen=True)
class _TrainingSet:
    """Points, shape=(n, d), values, (n, c), directions among coordinates, (n, c), gradients along them, (n, d)."""

    points: Tensor
    values: Tensor
    directions: Tensor
    gradients: Tensor

    def part(self, rows: Tensor) -> "_TrainingSet":
        return _TrainingSet(self.points[rows], self.values[rows], self.directions[rows], self.gradients[rows])


def _with_gradients(module: nn.Module, points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Values, and gradients of values . directions."""
    values: list[Tensor] = []
    gradients: list[Tensor] = []
    for rows, along in zip(points.split(CHUNK_SIZE), directions.split(CHUNK_SIZE), strict=True):
        inputs = rows.clone().requires_grad_(True)
        outputs = module(inputs)
        gradients += torch.autograd.grad((outputs * along).sum(), inputs)
        values.append(outputs.detach())
    return torch.cat(values), torch.cat(gradients)


def _measure(module: nn.Module, network: nn.Module, points: Tensor) -> MapError:
    columns = []
    for direction in torch.eye(len(module(points[0])), dtype=points.dtype):
        along = direction.expand(len(points), -1)
        values, gradients = _with_gradients(module, points, along)
        found, found_gradients = _with_gradients(network, points, along)
        exact, squared = values @ direction, ((found - values) @ direction).square()
        columns.append(
            (
                squared.mean().sqrt().item(),
                1.0 - (squared.sum() / (exact - exact.mean()).square().sum()).item(),
                ((found_gradients - gradients).square().sum() / gradients.square().sum()).sqrt().item(),
            )
        )
    return MapError(*np.array(columns).T)


def _perturbed(points: Tensor, spread: Tensor, generator: torch.Generator) -> Tensor:
    return points + torch.randn(points.shape, dtype=points.dtype, generator=generator) @ spread


def _spread(points: Tensor, noise: float) -> Tensor:
    """A square root of the points' covariance, times the noise: stiff features are perturbed little."""
    variances, axes = torch.linalg.eigh(torch.cov(points.T).reshape(points.shape[1], -1))
    return noise * variances.clamp(min=0.0).sqrt()[:, None] * axes.T


def _loss(network: DistilledNetwork, training: _TrainingSet, gradient_weight: float, steepness: Tensor) -> Tensor:
    points = training.points.clone().requires_grad_(True)
    outputs = network(points)
    loss = ((outputs - training.values) / network.spread).square().mean()
    if gradient_weight == 0.0:
        return loss
    along = (outputs * training.directions).sum()
    (gradients,) = torch.autograd.grad(along, points, create_graph=True)
    return loss + gradient_weight * (gradients - training.gradients).square().mean() / steepness


def _train(
    network: DistilledNetwork,
    training: _TrainingSet,
    gradient_weight: float,
    n_epochs: int,
    n_refinements: int,
    generator: torch.Generator,
) -> None:
    """By Adam, then L-BFGS."""
    steepness = training.gradients.square().mean().clamp(min=1e-300)
    parameters, n = list(network.parameters()), len(training.points)
    optimiser = Adam(parameters, lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(n_epochs, 1))
    for _ in range(n_epochs):
        for rows in torch.randperm(n, generator=generator).split(BATCH_SIZE):
            optimiser.zero_grad()
            _loss(network, training.part(rows), gradient_weight, steepness).backward()
            optimiser.step()
        schedule.step()
    if n_refinements == 0:
        return
    refiner = LBFGS(
        parameters,
        max_iter=n_refinements,
        history_size=LBFGS_HISTORY_SIZE,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        refiner.zero_grad()
        loss = _loss(network, training, gradient_weight, steepness)
        loss.backward()
        return loss

    refiner.step(closure)


def _held_out(n: int, generator: torch.Generator) -> Tensor:
    """Which frames are held out: every fifth block of consecutive ones, the first of these drawn."""
    first = int(torch.randint(HELD_OUT_EVERY, (), generator=generator))
    return (torch.arange(n) * N_BLOCKS // n) % HELD_OUT_EVERY == first


def _checked_source(source: DiffusionMap | nn.Module, features: Features | None, n_features: int) -> nn.Module:
    if features is not None and len(features.names) != n_features:
        raise InputError(f"{len(features.names)} features for points of {n_features}: give those of the points")
    module = nystroem_module(source) if isinstance(source, DiffusionMap) else source
    if isinstance(module, NystroemModule) and len(module.origin) != n_features:
        raise InputError(f"points of {n_features} features for a map of {len(module.origin)}: give those of the map")
    return module


def _values(module: nn.Module, points: Tensor) -> Tensor:
    try:
        with torch.no_grad():
            values = torch.cat([module(part) for part in points.split(CHUNK_SIZE)])
    except Exception as error:  # torch.jit.Error is no RuntimeError
        raise InputError(
            f"the module fails on points in double precision ({last_line(error)}): give module.double()"
        ) from None
    if not torch.isfinite(values).all() or (values.std(dim=0) == 0.0).any():
        raise InputError("the map is constant or not finite on these frames: give frames of the map")
    return values


def _initial_network(
    points: Tensor, values: Tensor, hidden: tuple[int, ...], generator: torch.Generator
) -> DistilledNetwork:
    """A network that standardises its features and its coordinates as these are distributed."""
    network = DistilledNetwork((points.shape[1], *hidden, values.shape[1]), generator)
    network.centre.copy_(points.mean(dim=0))
    network.scale.copy_(points.var(dim=0).mean().sqrt())
    network.mean.copy_(values.mean(dim=0))
    network.spread.copy_(values.std(dim=0))
    return network


def _check_settings(
    hidden: tuple[int, ...], noise: float, gradient_weight: float, n_epochs: int, n_refinements: int
) -> None:
    if not hidden or min(hidden) < 1:
        raise InputError(f"hidden layers of {list(hidden)} neurons: give one or more positive numbers")
    if not (0.0 <= noise < np.inf and 0.0 <= gradient_weight < np.inf and min(n_epochs, n_refinements) >= 0):
        raise InputError("noise, weight of gradients and numbers of steps must not be negative, nor infinite")


@checked
def distill(
    source: DiffusionMap | nn.Module,
    features: Features | None,
    X: FloatArray,
    *,
    seed: int,
    hidden: tuple[int, ...] = (64, 64),
    noise: float = 0.2,
    gradient_weight: float = 1.0,
    n_epochs: int = 60,
    n_refinements: int = 300,
) -> Distilled:
    """Train a small network on the map's values and gradients, and measure its error.

    The frames are cut into 20 blocks of consecutive rows; every fifth block is held out as a whole, so that held-out
    frames are far in time from most training frames. The network is trained on the rest and a perturbed copy of each.

    Args:
        source: a fitted map, of which all coordinates are taken, or a module from features to coordinates in double
            precision, such as a `nystroem_module` of the chosen ones.
        features: of positions, whose values the rows of X are; none for bare points.
        X: shape=(n, n_features), in the order of time.
        seed: of the split, the perturbations and the network; the same seed gives the same bytes with one thread.
        hidden: neurons in each hidden layer.
        noise: size of the perturbations, relative to the spread of the frames in each direction.
        gradient_weight: of the gradients' part of the loss; 0 trains on values alone.
        n_epochs: passes of Adam.
        n_refinements: steps of L-BFGS after it.

    Returns:
        the network, frozen, with its errors on held-out frames.

    Raises:
        InputError: too few or broken points, features that are not the map's, a map that is constant or not finite.
    """
    rows = checked_points(X, MIN_FRAMES)
    _check_settings(hidden, noise, gradient_weight, n_epochs, n_refinements)
    module = _checked_source(source, features, rows.shape[1])
    points, generator = torch.as_tensor(rows), torch_rng(seed, "distillation")
    held_out = _held_out(len(points), generator)
    kept, validation = points[~held_out], points[held_out]
    spread = _spread(kept, noise)
    both = torch.cat([kept, _perturbed(kept, spread, generator)])
    network = _initial_network(kept, _values(module, kept), hidden, generator)
    directions = torch.randn(len(both), len(network.spread), dtype=both.dtype, generator=generator) / network.spread
    exact, gradients = _with_gradients(module, both, directions)
    training = _TrainingSet(both, exact, directions, gradients)
    _train(network, training, gradient_weight, n_epochs, n_refinements, generator)
    network.requires_grad_(False)
    near = _perturbed(validation, spread, generator)
    return Distilled(
        network,
        features,
        torch.nonzero(held_out)[:, 0].numpy(),
        _measure(module, network, validation),
        _measure(module, network, near),
    )
