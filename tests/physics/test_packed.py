"""Packed equals unpacked: path by path without noise, in distribution with it, and in the integral of both."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import ks_2samp

from openmm_gancl import Lifter, load_system
from openmm_gancl.generator import untrained_model
from openmm_gancl.lifting.packed_relaxation import relax_packed
from openmm_gancl.lifting.relaxation import relax
from openmm_gancl.lifting.weights import weigh
from openmm_gancl.sampling import sample_swarm

from .conftest import UNTRAINED_WIDTHS
from .exact import CHAIN
from .statistics import FALSE_ALARM, score

SINGLE_PRECISION = 1e-6
"""Relative, of log w on the CPU platform, whose lone NonbondedForce is in single precision; 1.5e-7 was measured."""

SAME = 1e-3
"""p of a two-sample Kolmogorov-Smirnov test, and so its false-alarm rate."""

NAMES = ["double_well_oscillators", "bonded_chain", "alanine_dipeptide_vacuum"]


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("platform", ["Reference", "CPU"])
@pytest.mark.parametrize("name", NAMES)
def test_without_friction_packed_weights_are_the_unpacked_ones(name, platform, reverse):
    """In reverse from the ends of the forward paths, those of no weight left out."""
    system = load_system(name)
    model = untrained_model(system, seed=1, latent_size=2)
    labels = np.random.default_rng(2).uniform(-1, 1, (10, len(system.slow.names)))
    lifters = [
        Lifter(system, model, relax_steps=200, friction=0.0, platform=platform, packed=packed) for packed in (1, 8)
    ]
    alone, packed = (lifter.lift(labels, seed=4) for lifter in lifters)
    if reverse:
        alone, packed = (lifter.reverse(alone.positions[alone.ok], labels[alone.ok], seed=5) for lifter in lifters)
    np.testing.assert_array_equal(packed.ok, alone.ok)
    assert alone.ok.sum() >= 5
    kept, single = alone.ok, platform == "CPU" and name == "alanine_dipeptide_vacuum"
    precision = SINGLE_PRECISION if single else 1e-9
    np.testing.assert_allclose(packed.log_weights[kept], alone.log_weights[kept], rtol=precision)


N, RELAX_STEPS = 2000, 50


def weighed(seed, relaxation, fault=lambda relaxed: relaxed):
    """Log-weights of lifts of the bonded chain at one label, shape=(N,)."""
    system = load_system("bonded_chain")
    model = untrained_model(system, seed=3, latent_size=1, strength=0.5, widths=UNTRAINED_WIDTHS["bonded_chain"])
    lifter = Lifter(system, model, relax_steps=RELAX_STEPS, friction=20.0, platform="Reference")
    task, proposals = lifter._prepare(np.full((N, 1), CHAIN.labels[1]), None, np.random.default_rng(seed))
    return weigh(model, system, task, proposals, fault(relaxation(task)), None).log_weights


def heat_of_another(relaxed):
    return replace(relaxed, heat=np.roll(relaxed.heat, 1))


@pytest.fixture(scope="module")
def packed_weights():
    return weighed(11, relax_packed)


def test_with_noise_packed_and_unpacked_lifts_have_one_distribution(packed_weights):
    """2,000 each; its twin, with the heat of the copy before, is not it."""
    alone = weighed(12, relax)
    assert ks_2samp(packed_weights, alone).pvalue > SAME
    wrong = weighed(13, relax_packed, heat_of_another)
    assert ks_2samp(wrong, alone).pvalue < 1e-9


def test_mean_weight_of_packed_lifts_is_the_integral(packed_weights):
    log_z = CHAIN.log_z(CHAIN.labels[1], float(load_system("bonded_chain").force_constants[0]))
    right = score(packed_weights, log_z)
    assert abs(right.z) < 3.5 and right.relative_error < 0.1, right


def test_swarms_packed_and_alone_have_one_distribution():
    """Labels 0.3 ps after one start, 1,000 runs each."""
    system = load_system("bonded_chain")
    starts = np.repeat(system.positions[None], 1000, axis=0)
    alone, packed = (
        sample_swarm(system, starts, 60, copies=copies, seed=copies, platform="Reference").labels[:, 1, 0]
        for copies in (1, 250)
    )
    assert ks_2samp(packed, alone).pvalue > SAME
    assert ks_2samp(packed, alone + 0.3 * alone.std()).pvalue < FALSE_ALARM
