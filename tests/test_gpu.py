"""On a CUDA device: lifts packed and alone against the Reference platform, exported forces, moves inside a Context.

python -m pytest -m gpu
"""

import numpy as np
import pytest

from openmm_gancl import Lifter, learn, load_system, torch_force
from openmm_gancl.generator import untrained_model
from tests.devices import check_draws, check_moves_in_a_context
from tests.openmm_contexts import BACKENDS, context_of, energy_and_forces

pytestmark = pytest.mark.gpu

PRECISION = {"mixed": 2e-5, "double": 1e-6}
"""Relative, of log w of a path of 100 steps without noise.

On a card OpenMM keeps the parameters of bonds and angles in single precision, also where it computes in double: such
parameters alone, on the Reference platform, change log w by 1e-7.
"""


@pytest.fixture(scope="module")
def alanine():
    system = load_system("alanine_dipeptide_vacuum")
    return system, untrained_model(system, seed=1, latent_size=2)


def lifts_of(alanine, platform, **rest):
    system, model = alanine
    lifter = Lifter(system, model, relax_steps=100, friction=0.0, platform=platform, **rest)
    return lifter.lift(np.tile([-1.4, 1.2], (64, 1)), seed=3)


@pytest.mark.parametrize("packed", [1, 64])
@pytest.mark.parametrize("precision", PRECISION)
def test_log_weights_are_those_of_double_precision(alanine, precision, packed):
    exact, found = lifts_of(alanine, "Reference"), lifts_of(alanine, f"CUDA::{precision}", packed=packed)
    both = exact.ok & found.ok
    assert both.sum() > 20 and (exact.ok == found.ok).mean() > 0.9
    np.testing.assert_allclose(found.log_weights[both], exact.log_weights[both], rtol=PRECISION[precision])


def test_networks_on_the_device_give_the_same_numbers(alanine):
    _, model = alanine
    labels, rng = np.tile([-1.4, 1.2], (8, 1)), np.random.default_rng(0)
    latents = model.sample_latents(labels, rng)
    here, there = model.reference_parameters(labels, latents), model.on("cuda").reference_parameters(labels, latents)
    np.testing.assert_allclose(there.centres, here.centres, rtol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_exported_reference_on_the_device(alanine, backend):
    system, model = alanine
    found = [
        energy_and_forces(
            context_of(torch_force(model, "reference", backend=backend), system.n_atoms, system.positions, platform)
        )
        for platform in ("Reference", "CUDA")
    ]
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-4)
    assert np.abs(found[1][1] - found[0][1]).max() < 1e-3 * np.abs(found[0][1]).max()


@pytest.fixture(scope="module")
def invertible():
    system = load_system("alanine_dipeptide_vacuum")
    return system, learn(system, seed=1, max_evaluations=13_000).model


def test_an_invertible_generator_draws_the_same_on_the_device(invertible):
    _, here = invertible
    there, rng = here.on("cuda"), np.random.default_rng(0)
    labels, base = rng.uniform(-np.pi, np.pi, (2000, 2)), here.sample_base(2000, rng)
    for found, expected in zip(there.transform(base, labels), here.transform(base, labels), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-8)
    coordinates, _ = here.transform(base, labels)
    assert (there.inside(coordinates) == here.inside(coordinates)).all()
    np.testing.assert_allclose(there.log_density(coordinates), here.log_density(coordinates), rtol=0, atol=1e-8)


def test_log_weights_of_draws_in_mixed_precision(invertible, monkeypatch):
    check_draws(*invertible, "CUDA::mixed", monkeypatch)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("md_steps", [0, 20])
def test_moves_inside_a_context_on_the_device(invertible, backend, md_steps):
    check_moves_in_a_context(*invertible, "CUDA", backend, md_steps, 200)
