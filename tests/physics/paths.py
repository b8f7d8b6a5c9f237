"""Paths that can be weighed more than once: rightly, and with a planted mistake."""

from dataclasses import dataclass, replace

import numpy as np

from openmm_gancl.lifting.relaxation import relax
from openmm_gancl.lifting.weights import weigh

CHUNK = 500


@dataclass(frozen=True)
class Paths:
    """What a lifter ran, before any weight."""

    lifter: object
    parts: list

    def lifts(self):
        lifter = self.lifter
        prior = lifter.label_proposal if lifter.mode == "unrestrained" else None
        return [weigh(lifter.model, lifter.system, *part, prior) for part in self.parts]

    def log_weights(self):
        return np.concatenate([lifts.log_weights for lifts in self.lifts()])


def run_paths(lifter, labels, seed, frames=None):
    """One path of each label, forward, or in reverse from frames; seeds as good as the lifter's own."""
    rng = np.random.default_rng(seed)
    parts = []
    for i in range(0, len(labels), CHUNK):
        chunk = None if frames is None else frames[i : i + CHUNK]
        task, proposals = lifter._prepare(labels[i : i + CHUNK], chunk, rng)
        parts.append((task, proposals, relax(task)))
    return Paths(lifter, parts)


def with_folds(model, folds):
    """A model whose chart proposes every torsion in so many equivalent wells."""
    return replace(model, chart=replace(model.chart, torsion_folds=np.asarray(folds)))
