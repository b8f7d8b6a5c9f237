"""What a platform with a device must agree in with the Reference platform."""

import numpy as np

from openmm_gancl import Lifter
from openmm_gancl.lifting import evaluation
from openmm_gancl.lifting.draws import weigh_coordinates
from openmm_gancl.moves import InContextMove

WITHIN = 0.02
"""kT, of log-weights in mixed precision."""


def check_draws(system, model, platform, monkeypatch):
    """Log-weights of draws whose energies the device evaluates, however fast another place would be."""
    monkeypatch.setattr(evaluation, "fastest_place", lambda xml, positions, asked, workers: asked)
    labels = np.tile([-1.4, 1.2], (256, 1))
    found = [Lifter(system, model, platform=one).lift(labels, seed=3) for one in ("Reference", platform)]
    ok = found[0].ok & found[1].ok
    differences = np.abs(found[0].log_weights - found[1].log_weights)[ok]
    assert ok.mean() > 0.9
    assert 0 < differences.max() < WITHIN  # not the same number: it is of another platform


def check_moves_in_a_context(system, model, platform, backend, md_steps, n):
    """The weight of each configuration of a chain is that of the Reference platform."""
    chain = InContextMove(system, model, md_steps=md_steps, platform=platform, backend=backend, seed=1).run(n)
    places = np.concatenate([system.positions[None], chain.positions[:-1]])
    coordinates = model.chart.to_internal(places)
    labels, inside = system.slow.transform(places), system.state.inside(places)
    log_density = model.log_density(coordinates)
    draws = weigh_coordinates(system, model.chart, coordinates, labels, log_density, inside, platform="Reference")
    known = np.isfinite(chain.log_weights_before)
    even = 2 * np.log(2 * np.pi)
    assert known.mean() > 0.9 and 0 < chain.accepted.mean() < 1
    assert np.abs(draws.log_weights + even - chain.log_weights_before)[known].max() < WITHIN
