"""Moves by a product model over learned labels: by the torsions beside which these were learned, and exact."""

import numpy as np

from openmm_gancl import LiftMove, TrainingOptions
from openmm_gancl.generator.training import train_model
from openmm_gancl.moves import exchange

from .exact import CHAIN
from .learned_chain import with_learned_labels
from .statistics import z_limit
from .test_inverted_moves import exact, scores
from .test_moves import ends_of, simulation_of

N_CHAINS, N_SCORES, STEPS, REJECTED = 80, 14, 100, 5.0


def move_over_learned_labels(models):
    system, _, positions = with_learned_labels(models, "learned")
    labels = system.slow.transform(positions)
    model = train_model(system, positions, labels, seed=2, options=TrainingOptions(latent_size=0, generator_steps=50))
    simulation = simulation_of(models.system(CHAIN.name), 11)
    return LiftMove(simulation, model, relax_steps=STEPS, seed=12, platform="Reference")


def test_torsions_serve_moves_over_learned_labels(models, monkeypatch):
    move = move_over_learned_labels(models)
    assert len(move.system.slow.names) == 1 and np.isfinite(move.system.slow.periods).all()
    starts = exact(CHAIN.name, N_CHAINS, 5)
    z = scores(CHAIN.name, ends_of(move, starts, 5, 2))
    assert np.abs(z).max() < z_limit(N_SCORES), z
    assert move.acceptance_rate > 0.06  # of labels drawn over their whole domain 0.02
    monkeypatch.setattr(exchange, "accepts", lambda after, before, rng: bool(np.isfinite([after, before]).all()))
    assert np.abs(scores(CHAIN.name, ends_of(move, starts, 0, 2))).max() > REJECTED
