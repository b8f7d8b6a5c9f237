"""Modules compiled by TorchScript compute what they are written to: the same as when Python runs them."""

import math

import numpy as np
import pytest
import torch

from openmm_gancl import load_system
from openmm_gancl.coordinates.slow_coordinates import slow_as_module
from openmm_gancl.engine.torch_force import _Coordinate, _RestraintEnergy
from openmm_gancl.generator import untrained_model
from openmm_gancl.generator.density_reference import DensityModule
from openmm_gancl.generator.force_modules import ReferenceModule, TabulatedBiasModule
from openmm_gancl.generator.networks import LabelTable, LiftingNetworks
from openmm_gancl.trajectories.static_bias import TabulatedBias
from tests.physics.exact import CHAIN
from tests.physics.toy_generators import generator

NAMES = ["bonded_chain", "alanine_dipeptide_vacuum", "double_well_oscillators"]


def tensors(*arrays):
    return [torch.as_tensor(np.asarray(array, dtype=float)) for array in arrays]


def places(system, n=3, seed=0):
    """Positions near the structure."""
    return system.positions + 0.01 * np.random.default_rng(seed).standard_normal((n, *system.positions.shape))


def assert_same(module, method, *arguments):
    """What a method returns, as it is written and compiled; it."""
    found = getattr(module, method)(*arguments)
    compiled = getattr(torch.jit.script(module), method)(*arguments)
    for one, other in zip(*(f if isinstance(f, tuple) else (f,) for f in (found, compiled)), strict=True):
        assert one.shape == other.shape and one.dtype == other.dtype and torch.isfinite(one).all()
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    return found


@pytest.mark.parametrize("restrained", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_reference(name, restrained):
    system = load_system(name)
    model = untrained_model(system, seed=1, latent_size=2)
    widths = np.sqrt(system.kT / system.force_constants) if restrained else np.empty(0)
    module = ReferenceModule(model.networks.generator, model.chart, system.kT, widths)
    label, latent = tensors(system.slow.domain.mean(axis=1), [0.3, -1.2])
    energies = [float(assert_same(module, "energy", place, label, latent)) for place in tensors(*places(system))]
    assert len(set(energies)) == 3
    if name == "double_well_oscillators":
        (normals,) = tensors(np.random.default_rng(2).standard_normal((2, 3)))
        log_q, moved = assert_same(module, "proposal", normals, label, latent)
        expected = -0.5 * float(normals[0].square().sum() + 3 * math.log(2 * math.pi)) - float(moved[1].log().sum())
        assert float(log_q) == pytest.approx(expected, rel=1e-12)  # the second row is the widths


@pytest.mark.parametrize("name", ["alanine_dipeptide_vacuum", "double_well_oscillators"])
def test_tabulated_bias(name):
    system = load_system(name)
    slow, domain = slow_as_module(system.slow).module, system.slow.domain
    table = np.random.default_rng(2).normal(0, 5, (13,) if len(domain) == 1 else (9, 12))
    periodic = bool(np.isfinite(system.slow.periods).all())
    if periodic:
        table[-1], table[:, -1] = table[0], table[:, 0]
    bias = TabulatedBias(table, domain, periodic)
    positions = places(system)
    expected = bias.energies(system.slow.transform(positions))
    for place, energy in zip(tensors(*positions), expected, strict=True):
        found = assert_same(TabulatedBiasModule(slow, bias), "energy", place, *tensors([2.0]))
        assert float(found) == pytest.approx(2.0 * energy, rel=1e-9, abs=1e-9)


def test_density_as_a_reference():
    system, made = load_system(CHAIN.name), generator(CHAIN.name, "trained")
    module = DensityModule(made, system.kT, system.force_constants)
    labels = np.array([[0.2], [-1.0]])
    positions = made.typical_positions(labels)
    together = assert_same(module, "energy", *tensors(positions.reshape(-1, 3), labels.ravel() + 0.1))
    alone = [module.energy(*tensors(x, label + 0.1)) for x, label in zip(positions, labels, strict=True)]
    assert float(together) == pytest.approx(float(sum(alone)), rel=1e-12)


@pytest.mark.parametrize("n_candidates", [1, 4])
def test_latents_and_their_posterior(n_candidates):
    model = untrained_model(load_system("bonded_chain"), seed=1, latent_size=2)
    d = model.chart.n_coordinates
    networks = LiftingNetworks(model.networks.generator, np.full(d, 0.7), n_candidates)
    rng, n = np.random.default_rng(3), 200
    labels, uniforms, again = tensors(
        *(rng.random((n, size)) for size in (1, 2 * n_candidates + 1, 2 * n_candidates + 1))
    )
    latents = assert_same(networks, "sample_latent", labels, uniforms)
    assert set(latents[:, -1].long().tolist()) == set(range(n_candidates))
    centres, widths = assert_same(networks, "forward", labels, latents)
    coordinates = centres + 0.3 * widths
    assert_same(networks, "log_densities", latents, coordinates, labels)
    drawn, log_r = assert_same(networks, "sample_encoder", coordinates, labels, again)
    torch.testing.assert_close(
        log_r, assert_same(networks, "log_encoder", drawn, coordinates, labels), rtol=1e-12, atol=0
    )
    # r is normalised over the index, at the same candidates
    total = torch.zeros(n, dtype=torch.float64)
    for k in range(n_candidates):
        at = torch.cat([latents[:, :-1], torch.full((n, 1), float(k), dtype=torch.float64)], dim=1)
        total += (networks.log_encoder(at, coordinates, labels) - networks.log_prior(at, labels)).exp() / n_candidates
    torch.testing.assert_close(total, torch.ones_like(total))


def test_labels_of_a_table():
    model = untrained_model(load_system("bonded_chain"), seed=1, latent_size=2)
    windows, labels = np.array([[0.0, 3.0], [1.5, -1.0]]), np.array([[0.4], [-0.8]])
    table = LabelTable(model.networks.generator, windows, labels)
    latents, turned = np.array([[0.1, 0.2], [-0.3, 0.4]]), windows[::-1] + np.array([0.2, 2 * np.pi])
    found = assert_same(table, "forward", *tensors(turned, latents))
    expected = model.networks.generator(*tensors(labels[::-1].copy(), latents))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", ["alanine_dipeptide_vacuum", "double_well_oscillators"])
def test_restraints_of_labels(name):
    system = load_system(name)
    slow, d = slow_as_module(system.slow), len(system.slow.names)
    (place,) = tensors(system.positions)
    label = system.slow.transform(system.positions[None])[0]
    values = [float(assert_same(_Coordinate(slow, i), "forward", place)) for i in range(d)]
    assert values == pytest.approx(label, rel=1e-9)
    centre, constant = label + 0.3, np.full(d, 20.0)
    expected = (constant * np.where(np.isfinite(system.slow.periods), 1 - np.cos(0.3), 0.5 * 0.3**2)).sum()
    energy = assert_same(_RestraintEnergy(slow), "energy", place, *tensors(centre, constant))
    assert float(energy) == pytest.approx(expected, rel=1e-9)
