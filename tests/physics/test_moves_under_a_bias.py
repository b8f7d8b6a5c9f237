"""A bias that changes after the move was made is the target from then on: exact, for any model; and what plants faults.

Chains start from exact, independent configurations of the biased system. The z-scores of this file together have the
false-alarm rate of 3.5 sigma (Bonferroni); planted faults are found beyond 5 sigma.
"""

import numpy as np
import pytest
from openmm import app, openmm

from openmm_gancl import LiftMove
from openmm_gancl.engine.platforms import PotentialEnergy
from openmm_gancl.moves.inverted import INDEPENDENT, LOCAL
from openmm_gancl.moves.lift_move import SimulationEnergy
from openmm_gancl.moves.relaxed_lifts import RelaxedLifts

from .exact import DOUBLE_WELL, KT
from .statistics import z_limit
from .test_moves import ends_of, move_of, scores, simulation_of
from .toy_generators import generator, system_and_chart

N, N_SCORES = 240, 4 * 4
REJECTED = 5.0
GROUP, SLOPE = 5, 2.0
"""Force group and slope, kJ/mol/nm, of the bias."""


def flat_bias(system):
    """Of no slope yet, in a force group of its own."""
    force = openmm.CustomExternalForce("slope*x")
    force.addGlobalParameter("slope", 0.0)
    force.addParticle(0, [])
    force.setForceGroup(GROUP)
    system.addForce(force)


def biased(n, rng):
    """Of the biased system, shape=(n, 1, 3): very many exact ones, drawn from by their weights."""
    drawn = DOUBLE_WELL.sample(400_000, np.random.default_rng(2))
    weights = np.exp(-SLOPE * (drawn[:, 0, 0] - drawn[:, 0, 0].min()) / KT)
    return drawn[rng.choice(len(drawn), n, p=weights / weights.sum())]


def worst(move, n, rounds=4, md_steps=5):
    """The largest z after the bias was set, in the Simulation alone."""
    move.simulation.context.setParameter("slope", SLOPE)
    ends = ends_of(move, biased(n, np.random.default_rng(5)), md_steps, rounds)
    return np.abs(scores(ends, biased(40_000, np.random.default_rng(3)))).max()


def inverted(moves):
    system = system_and_chart(DOUBLE_WELL.name)[0]
    simulation = simulation_of(system, 11, added=flat_bias)
    return LiftMove(simulation, generator(DOUBLE_WELL.name, "trained"), moves=moves, seed=12)


def relaxed(models):
    system = models.system(DOUBLE_WELL.name)
    model = models.with_prior_encoder(DOUBLE_WELL.name, "trained", 2)
    return move_of(system, model, 50, simulation=simulation_of(system, 11, added=flat_bias))


@pytest.mark.parametrize("moves", [INDEPENDENT, LOCAL])
def test_a_bias_set_later_is_followed(moves):
    move = inverted(moves)
    assert worst(move, N) < z_limit(N_SCORES)
    # two more of an accepted one give its velocities
    assert {record.force_evaluations - 2 * record.accepted for record in move.history} <= {0, 2}
    assert 0.1 < move.acceptance_rate < 0.95


def test_relaxed_lifts_follow_it_too(models):
    move = relaxed(models)
    assert worst(move, 80) < z_limit(N_SCORES)
    assert {record.force_evaluations - 2 * record.accepted for record in move.history} == {2 * (50 + 2) + 2}
    assert sum(record.accepted for record in move.history) > 30


def before_the_hill(self, positions):
    """The twin: energies of a copy that was made before."""
    self._moved = True
    if not hasattr(self, "copy"):
        self.copy = PotentialEnergy(openmm.XmlSerializer.clone(self.simulation.system), "Reference")
    return self.copy(positions)


def without_the_group(self, positions):
    """The twin: the bias is in a force group that is not evaluated."""
    self._moved, context = True, self.simulation.context
    context.setPositions(positions)
    return context.getState(energy=True, groups={0}).getPotentialEnergy()._value


@pytest.mark.parametrize("fault", [before_the_hill, without_the_group])
def test_energies_without_the_bias_show(fault, monkeypatch):
    monkeypatch.setattr(SimulationEnergy, "__call__", fault)
    assert worst(inverted(INDEPENDENT), N) > REJECTED


def test_a_bias_that_relaxed_lifts_follow_backwards_shows(models, monkeypatch):
    right = RelaxedLifts._now

    def wrong(self, lift, energy_then):
        return right(self, lift, 2 * self.energy(lift.positions) - energy_then)

    monkeypatch.setattr(RelaxedLifts, "_now", wrong)
    assert worst(relaxed(models), 60) > REJECTED


def test_metadynamics_with_one_move():
    """Hills grow, and every attempt is weighed by the bias of its moment."""
    system = system_and_chart(DOUBLE_WELL.name)[0]
    metadynamics = []

    def with_hills(copied):
        along_x = openmm.CustomExternalForce("x")
        along_x.addParticle(0, [])
        variable = app.BiasVariable(along_x, -2.0, 2.0, 0.2, False)
        metadynamics.append(app.Metadynamics(copied, [variable], system.temperature, 10.0, 2.0, 20))

    simulation = simulation_of(system, 11, added=with_hills)
    move = LiftMove(simulation, generator(DOUBLE_WELL.name, "trained"), moves=INDEPENDENT, seed=12)
    for _ in range(12):
        metadynamics[0].step(simulation, 20)
        here = simulation.context.getState(positions=True, energy=True)
        positions = here.getPositions(asNumpy=True)._value[None]
        record, placed = move.attempt(), move._exchange.source.chart.find(positions)
        r = placed.log_measure[0] - here.getPotentialEnergy()._value / system.kT
        r -= move._sourced.label_proposal.log_prior(placed.labels)[0]
        assert np.isneginf(record.log_weight) or record.log_weight_before == pytest.approx(r, abs=1e-8)
    grown = simulation.context.getState(energy=True, groups={metadynamics[0]._force.getForceGroup()})
    assert grown.getPotentialEnergy()._value > 5.0 and any(record.accepted for record in move.history)
