"""The chain with labels that a real diffusion map of its real frames learned, and windows of them to be measured."""

from dataclasses import replace

import numpy as np

from openmm_gancl.coordinates.restraint_energies import restraint_energies
from openmm_gancl.learning.learned_labels import learn_slow_coordinates

from .exact import CHAIN, KT
from .statistics import score

N_SCORES = 20
"""z-scores of learned labels: together they have the false-alarm rate of 3.5 sigma."""

RELAX_STEPS = 60


def with_learned_labels(models, kind):
    """The system with two learned labels, or ``mixed``, its torsion and one; the labels; the frames they are of."""
    system = models.system(CHAIN.name)
    positions, _ = models.frames(CHAIN.name)
    keep = ["phi"] if kind == "mixed" else []
    labels = learn_slow_coordinates(system, positions, keep=keep, most=1 if keep else 2, n_landmarks=60).labels
    force_constants = np.full(len(labels.slow.names), KT / 0.4**2)
    return replace(system, slow=labels.slow, force_constants=force_constants), labels, positions


def window_score(lifts, frames, kappa=None):
    """Of weights in units of their windows' Z: the mean Boltzmann factors over exact frames, whose error is added."""
    kappa = lifts.force_constants if kappa is None else kappa
    windows, index = np.unique(lifts.labels, axis=0, return_inverse=True)
    cv_values = lifts.slow.transform(frames)[:, None]
    factors = np.exp(-restraint_energies(lifts.slow, kappa, cv_values, windows[None]) / KT)
    log_z = CHAIN.log_z() + np.log(factors.mean(axis=0))
    result = score(lifts.log_weights, log_z[index.ravel()])
    share = np.bincount(index.ravel()) / len(lifts)
    exact_error = (factors / factors.mean(axis=0) @ share).std() / len(frames) ** 0.5
    total = np.hypot(result.relative_error, exact_error)
    return replace(result, relative_error=total, z=result.z * result.relative_error / total)
