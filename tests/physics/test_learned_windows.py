"""Lifts restrained to one learned label, through the module's own force, against exact, independent frames.

The force costs a call of torch an evaluation, so this is not run a second time without openmm-torch, where forces
agree to the last digits (tests/generator/test_forces.py).
"""

import numpy as np
import pytest

from openmm_gancl import Lifter, TrainingOptions
from openmm_gancl.generator.training import train_model
from openmm_gancl.lifting.label_proposals import KernelProposal

from .exact import CHAIN, exact_frames
from .learned_chain import N_SCORES, RELAX_STEPS, window_score, with_learned_labels
from .statistics import z_limit


def most_common(labels):
    """The label with most others around: 50 steps of training know a rare one from few frames, and weigh heavily."""
    apart = labels.centres[:, None] - labels.centres
    near = np.minimum(np.abs(apart), labels.slow.periods - np.abs(apart)) < 0.4
    return labels.centres[near.all(axis=2).sum(axis=1).argmax()]


@pytest.mark.parametrize(("kind", "n"), [pytest.param("learned", 1000, marks=pytest.mark.slow), ("mixed", 450)])
def test_restrained_lifts_measure_their_window(kind, n, models):
    """Against the mean Boltzmann factor of the restraint, and of a softer one, which they do not measure."""
    system, labels, positions = with_learned_labels(models, kind)
    exact = exact_frames(models.system(CHAIN.name), CHAIN, 120_000, np.random.default_rng(8))
    options = TrainingOptions(latent_size=2, generator_steps=50)
    generator = train_model(
        system, positions, KernelProposal.around_frames(labels, labels.widths).blur(1), seed=2, options=options
    )
    lifter = Lifter(system, generator, relax_steps=RELAX_STEPS, platform="Reference")
    lifts = lifter.lift(np.tile(most_common(labels), (n, 1)), seed=9)
    result = window_score(lifts, exact)
    assert result.relative_error < 0.05 and result.effective_sample_size > 200, result
    assert abs(result.z) < z_limit(N_SCORES), result
    softer = window_score(lifts, exact, 0.5 * lifts.force_constants)
    assert abs(softer.z) > 5.0, softer
