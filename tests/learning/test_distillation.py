"""Small networks that replace a map: near it on held-out frames, with errors as reported."""

from pathlib import Path

import mdtraj
import numpy as np
import pytest
import torch

from openmm_gancl import InputError
from openmm_gancl.coordinates.features import parse_features
from openmm_gancl.coordinates.label_modules import LearnedCoordinates
from openmm_gancl.coordinates.torch_modules import features_module
from openmm_gancl.learning.diffusion_map import DiffusionMap
from openmm_gancl.learning.distillation import distill
from openmm_gancl.learning.torch_map import nystroem_module

TOP = Path(__file__).parents[1] / "data" / "alanine_dipeptide.pdb"
TURNS = (((6, 8), range(9, 22)), ((8, 14), range(15, 22)))
"""Bonds of phi and psi, and the atoms that turn with each."""

QUICK = {"n_epochs": 20, "n_refinements": 60}


@pytest.fixture(scope="module")
def rectangle():
    """A rectangle bent into five dimensions, and its map."""
    x, y = np.random.default_rng(0).uniform(0, 1, (2, 1000)) * [[1.0], [0.6]]
    points = np.column_stack([x, y, np.sin(2 * x), np.cos(3 * y), 0.3 * x * y])
    return points, DiffusionMap(4, n_landmarks=400).fit(points)


@pytest.fixture(scope="module")
def rectangle_network(rectangle):
    points, fitted = rectangle
    return distill(fitted, None, points, seed=1, n_refinements=120)


def turned(n):
    """Alanine dipeptide with random torsions phi and psi, every atom a little shaken."""
    structure, rng = mdtraj.load(str(TOP)), np.random.default_rng(0)
    xyz = np.repeat(structure.xyz.astype(float), n, axis=0)
    for (a, b), atoms in TURNS:
        axis = xyz[:, b] - xyz[:, a]
        axis /= np.linalg.norm(axis, axis=1)[:, None]
        angle = rng.uniform(-np.pi, np.pi, (n, 1, 1))
        arms, axis = xyz[:, atoms] - xyz[:, None, b], axis[:, None]
        along = (arms * axis).sum(axis=-1, keepdims=True) * axis
        moved = along + np.cos(angle) * (arms - along) + np.sin(angle) * np.cross(axis, arms)
        xyz[:, atoms] = moved + xyz[:, None, b]
    return mdtraj.Trajectory((xyz + rng.normal(0.0, 0.002, xyz.shape)).astype(np.float32), structure.topology)


def test_held_out_points_are_reported(rectangle, rectangle_network):
    distilled = rectangle_network
    for error in (distilled.error, distilled.around):
        assert (error.r_squared > 0.99).all() and (error.gradient < 0.2).all(), error
    assert len(distilled.held_out) == 200
    blocks = np.unique(distilled.held_out // 50)
    assert len(blocks) == 4 and (np.diff(blocks) == 5).all()


def test_the_error_is_what_anyone_would_measure(rectangle, rectangle_network):
    points, fitted = rectangle
    exact, network = nystroem_module(fitted), rectangle_network.network
    held_out = torch.as_tensor(points[rectangle_network.held_out])
    difference = (network(held_out) - exact(held_out)).numpy()
    assert rectangle_network.error.rms == pytest.approx(np.sqrt((difference**2).mean(axis=0)))
    share = difference.var(axis=0) + difference.mean(axis=0) ** 2
    assert rectangle_network.error.r_squared == pytest.approx(1.0 - share / exact(held_out).numpy().var(axis=0))
    slopes = [torch.func.vmap(torch.func.jacrev(module))(held_out).numpy() for module in (network, exact)]
    sizes = np.sqrt((np.square(slopes[0] - slopes[1]).sum(axis=(0, 2))) / np.square(slopes[1]).sum(axis=(0, 2)))
    assert rectangle_network.error.gradient == pytest.approx(sizes)


class Nonsense(torch.nn.Module):
    """Values of neighbouring points have nothing to do with one another."""

    def forward(self, points):
        return torch.sin(1000.0 * points)


def test_a_map_without_structure_is_reported_as_such(rectangle):
    """The twin: values that no network can follow."""
    error = distill(Nonsense(), None, rectangle[0], seed=1, **QUICK).error
    assert (error.r_squared < 0.5).all() and (error.gradient > 0.8).all(), error


def test_the_gradients_are_better_for_being_trained_on(rectangle):
    points, fitted = rectangle
    values_alone = distill(fitted, None, points, seed=2, gradient_weight=0.0, **QUICK)
    both = distill(fitted, None, points, seed=2, **QUICK)
    assert both.error.gradient.mean() < values_alone.error.gradient.mean()


def test_positions_of_a_molecule(tmp_path):
    frames = turned(1000)
    features = parse_features(["distances"], frames.topology)
    X = features.compute(frames)
    fitted = DiffusionMap(3, n_landmarks=600).fit(X)
    distilled = distill(nystroem_module(fitted, [1, 0]), features, X, seed=0, n_refinements=150)
    assert (distilled.error.r_squared > 0.99).all(), distilled.error
    module, positions = distilled.module(), torch.as_tensor(frames.xyz[:5], dtype=torch.float64)
    torch.jit.script(module).save(str(tmp_path / "coordinates.pt"))
    loaded = torch.jit.load(str(tmp_path / "coordinates.pt"))
    assert torch.allclose(loaded(positions), module(positions), rtol=0.0, atol=1e-12)
    assert loaded(positions[0]).shape == (2,) and loaded(positions).dtype == torch.float64
    plugged = LearnedCoordinates(features_module(features), distilled.network)
    assert torch.equal(plugged(positions), module(positions))
    assert not any(parameter.requires_grad for parameter in module.parameters())
    one = positions[0].clone().requires_grad_(True)
    assert torch.autograd.gradcheck(module, (one,), eps=1e-6, atol=1e-6)


def test_gradients_are_finite_differences(rectangle, rectangle_network):
    points = torch.as_tensor(rectangle[0][:3]).requires_grad_(True)
    assert torch.autograd.gradcheck(rectangle_network.network, (points,), eps=1e-6, atol=1e-7)
    assert torch.autograd.gradgradcheck(rectangle_network.network, (points,), eps=1e-6, atol=1e-6)


def test_the_same_seed_gives_the_same_bytes_and_leaves_all_else_alone(rectangle):
    points, fitted = rectangle
    kept, state = points.copy(), torch.get_rng_state()
    few = {"n_epochs": 3, "n_refinements": 8}
    first, again, other = (distill(fitted, None, points, seed=seed, **few) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state) and np.array_equal(points, kept)
    for key, value in first.network.state_dict().items():
        assert torch.equal(value, again.network.state_dict()[key])
    assert np.array_equal(first.around.rms, again.around.rms)
    assert not np.array_equal(first.error.rms, other.error.rms)


class Constant(torch.nn.Module):
    def forward(self, points):
        return 0.0 * points[..., :2] + 1.0


@pytest.mark.parametrize(
    ("n", "columns", "arguments", "message"),
    [
        (50, 5, {}, "50 frames are too few for this map: give at least 200"),
        (1000, 4, {}, "points of 4 features for a map of 5"),
        (1000, 5, {"hidden": ()}, r"hidden layers of \[\] neurons"),
        (1000, 5, {"hidden": (8, 0)}, r"hidden layers of \[8, 0\] neurons"),
        (1000, 5, {"noise": -1.0}, "must not be negative"),
        (1000, 5, {"n_epochs": -1}, "must not be negative"),
        (1000, 5, {"source": Constant()}, "the map is constant or not finite"),
        (1000, 5, {"source": torch.nn.Linear(5, 2)}, r"double precision \(.*\): give module.double\(\)"),
    ],
)
def test_bad_input(rectangle, n, columns, arguments, message):
    points, fitted = rectangle
    with pytest.raises(InputError, match=message):
        distill(arguments.pop("source", fitted), None, points[:n, :columns], seed=0, **arguments)


def test_features_must_be_those_of_the_points(rectangle, rectangle_network):
    points, fitted = rectangle
    features = parse_features(["distances"], mdtraj.load(str(TOP)).topology)
    with pytest.raises(InputError, match="45 features for points of 5"):
        distill(fitted, features, points, seed=0)
    with pytest.raises(InputError, match="made of bare points"):
        rectangle_network.module()
