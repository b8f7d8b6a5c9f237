"""The generator with numpy arrays: the map's numbers, reproducible, and draws outside the chart told apart."""

import copy
import pickle
from functools import partial

import numpy as np
import pytest
import torch

from openmm_gancl import InputError, load_system
from openmm_gancl.generator import invertible
from openmm_gancl.generator.invertible import ROWS_AT_ONCE, InvertibleGenerator
from openmm_gancl.generator.row_inverse import RowInverse
from openmm_gancl.reference.chart import chart_for
from tests.generator.random_map import random_map
from tests.physics.toy_generators import with_network


@pytest.fixture(scope="module")
def generator():
    system = load_system("bonded_chain")
    chart = chart_for(system.topology, system.slow, system.positions)
    centre = chart.to_internal(system.positions[None])[0]
    return InvertibleGenerator(random_map(chart, system.slow, centre, (8,)), chart, system.slow)


def labels(n, seed=0):
    return np.random.default_rng(seed).uniform(-np.pi, np.pi, (n, 1))


@pytest.mark.parametrize("n", [0, 1, ROWS_AT_ONCE, 2 * ROWS_AT_ONCE + 3])
def test_draws_are_those_of_the_map(generator, n):
    base = generator.sample_base(n, np.random.default_rng(1))
    coordinates, log_density = generator.transform(base, labels(n))
    assert coordinates.shape == (n, 9) and log_density.shape == (n,)
    expected = generator.map(torch.as_tensor(base), torch.as_tensor(labels(n)))
    assert np.allclose(coordinates, expected[0].numpy(), rtol=0, atol=1e-11)
    assert np.allclose(log_density, expected[1].numpy(), rtol=0, atol=1e-10)


@pytest.mark.parametrize("changed", [copy.deepcopy, partial(with_network, strength=0.1)])
def test_compiled_it_gives_the_same_bits(generator, changed, monkeypatch):
    """At every call: a run that is taken up again has not passed as many rows as one that went on."""
    made = changed(generator)
    base = made.sample_base(600, np.random.default_rng(2))
    coordinates, log_density = made.transform(base, labels(600))
    eager = coordinates, log_density, *made.invert(coordinates)
    assert made._runner.module(0) is made.map
    monkeypatch.setattr(invertible, "ROWS_BEFORE_SCRIPT", 0)
    for call in range(4):
        found = *made.transform(base, labels(600)), *made.invert(coordinates)
        assert all(np.array_equal(one, other) for one, other in zip(found, eager, strict=True)), call
    assert isinstance(made._runner.module(0), torch.jit.ScriptModule)


def test_draws_are_inverted(generator):
    base = generator.sample_base(600, np.random.default_rng(2))
    coordinates, log_density = generator.transform(base, labels(600))
    inside = generator.inside(coordinates)
    again, same = generator.invert(coordinates)
    assert inside.mean() > 0.9
    assert np.abs(again - base)[inside].max() < 1e-10
    assert np.abs(same - log_density)[inside].max() < 1e-10
    assert np.array_equal(generator.log_density(coordinates), same)


def test_the_same_seed_gives_the_same_bytes(generator):
    first, second, third = (generator.sample(labels(300), np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert first[0].tobytes() == second[0].tobytes() and first[1].tobytes() == second[1].tobytes()
    assert not np.array_equal(first[0], third[0])


def test_it_pickles_after_use(generator):
    expected = generator.sample(labels(20), np.random.default_rng(3))
    again = pickle.loads(pickle.dumps(generator)).sample(labels(20), np.random.default_rng(3))
    assert all(np.array_equal(one, other) for one, other in zip(again, expected, strict=True))


def test_base_numbers_are_uniform_then_normal(generator):
    base = generator.sample_base(4000, np.random.default_rng(5))
    assert (base[:, 0] >= 0).all() and (base[:, 0] < 1).all()
    # five standard errors of a mean and of a variance
    assert np.abs(base[:, 1:].mean(axis=0)).max() < 5 / 4000**0.5
    assert np.abs(base[:, 1:].var(axis=0) - 1).max() < 5 * (2 / 4000) ** 0.5


def test_only_draws_that_their_inverse_finds_are_inside():
    """A narrow torsion of an alanine dipeptide that turned by more than half a turn from its origin, and an angle."""
    system = load_system("alanine_dipeptide_vacuum")
    chart = chart_for(system.topology, system.slow, system.positions)
    generator = InvertibleGenerator(
        random_map(chart, system.slow, chart.to_internal(system.positions[None])[0]), chart, system.slow
    )
    map_ = generator.map
    coordinates = np.repeat(generator.sample(labels(1).repeat(2, axis=1), np.random.default_rng(0))[0], 6, axis=0)
    torsion = int(map_.narrow_indices[map_.periodic][0])
    origin = float(map_.narrow.origin[map_.periodic][0])
    for row, turned in enumerate((origin + 3.1, origin - 3.1, origin + 3.2, origin - 3.2)):
        coordinates[row, torsion] = turned
    coordinates[4, chart.n_bonds], coordinates[5, 0] = np.pi + 0.01, -0.01
    assert generator.inside(coordinates).tolist() == [True, True, False, False, False, False]


@pytest.mark.parametrize("changed", [copy.deepcopy, partial(with_network, strength=0.1)])
def test_one_configuration_at_a_time_is_inverted_alike(generator, changed):
    """Draws, and configurations far from them; a wide torsion, coupled and cubic terms, a network."""
    made = changed(generator)
    coordinates, _ = made.sample(labels(200), np.random.default_rng(3))
    coordinates[100:, :8] *= np.random.default_rng(4).uniform(0.8, 1.2, (100, 8))
    base, log_density = made.invert(coordinates)
    one_by_one = [made.invert_one(row) for row in coordinates]
    assert np.allclose([found for found, _ in one_by_one], base, rtol=1e-9, atol=1e-9)
    assert np.allclose([log_q for _, log_q in one_by_one], log_density, rtol=1e-9, atol=1e-9)


def test_symmetric_rotors_are_inverted_alike():
    system = load_system("alanine_dipeptide_vacuum")
    chart = chart_for(system.topology, system.slow, system.positions)
    made = InvertibleGenerator(
        random_map(chart, system.slow, chart.to_internal(system.positions[None])[0]), chart, system.slow
    )
    assert made.map.n_circular > made.map.n_wide
    coordinates, log_density = made.sample(np.random.default_rng(1).uniform(-3, 3, (50, 2)), np.random.default_rng(3))
    found = [made.invert_one(row)[1] for row in coordinates]
    assert np.allclose(found, log_density, rtol=1e-9, atol=1e-9)


def test_another_inverse_than_the_maps_is_noticed(generator, monkeypatch):
    right = RowInverse._tails
    monkeypatch.setattr(RowInverse, "_tails", lambda self, widened: (right(self, widened)[0], 0.01))
    with pytest.raises(RuntimeError, match="is not that of the map"):
        copy.deepcopy(generator).invert_one(np.zeros(9))


def test_on_a_device_that_torch_cannot_use_it_is_refused(generator):
    assert generator.on("cpu") is generator and generator.device == torch.device("cpu")
    with pytest.raises(InputError, match=r"torch cannot use the device 'cuda:99'.*see `gancl doctor`"):
        generator.on("cuda:99")


def test_a_batch_taken_whole_as_on_a_device_draws_the_same(generator, monkeypatch):
    base = generator.sample_base(600, np.random.default_rng(2))
    expected = generator.transform(base, labels(600))
    monkeypatch.setattr(invertible, "ROWS_AT_ONCE", invertible.ROWS_ON_A_DEVICE)
    for one, other in zip(generator.transform(base, labels(600)), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-10)
