"""On a CUDA device: lifts packed and alone against the Reference platform, exported forces, moves inside a Context.

python -m pytest -m gpu
"""

import numpy as np
import pytest

from openmm_gancl import Lifter, TrainingOptions, load_system, sample_windows, torch_force, train
from openmm_gancl.generator import untrained_model
from openmm_gancl.moves import InContextMove
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


def test_moves_inside_a_context_on_the_device():
    """mean(w) is the exact partition function of the double well."""
    from tests.physics.exact import DOUBLE_WELL
    from tests.physics.statistics import score

    system = load_system(DOUBLE_WELL.name)
    frames = sample_windows(system, n_windows=64, steps_per_window=1000, seed=1, platform="Reference")
    model = train(system, frames, seed=1, options=TrainingOptions(latent_size=0))
    result = score(InContextMove(system, model, platform="CUDA", seed=1).run(4000).log_weights, DOUBLE_WELL.log_z())
    assert result.relative_error < 0.05 and result.effective_sample_size > 200 and abs(result.z) < 3.5, result
