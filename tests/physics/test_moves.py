"""The move against exact answers: what is distributed rightly before it is so after it, whatever runs in between.

Chains start from exact, independent configurations, so that all that is counted is independent. The z-scores of this
file together have the false-alarm rate of 3.5 sigma (Bonferroni).
"""

from unittest import mock

import numpy as np
import openmm
import pytest
from openmm import app

from openmm_gancl import LiftMove
from openmm_gancl.moves import exchange

from .exact import DOUBLE_WELL, KT
from .statistics import z_limit

NAME = DOUBLE_WELL.name
N_SCORES = 16 * 4
SLOPE = 1.5
"""kJ/mol/nm, of a bias."""
REJECTED = 5.0


def simulation_of(system, seed, platform="Reference", added=lambda system: None):
    copied = openmm.XmlSerializer.clone(system.system)
    added(copied)
    integrator = openmm.LangevinMiddleIntegrator(system.temperature, system.friction, system.time_step)
    integrator.setRandomNumberSeed(seed)
    simulation = app.Simulation(system.topology, copied, integrator, openmm.Platform.getPlatformByName(platform))
    simulation.context.setPositions(system.positions)
    simulation.context.setVelocitiesToTemperature(system.temperature, seed)
    return simulation


def move_of(system, model, relax_steps, kind=LiftMove, simulation=None, **rest):
    as_in_card = {"force_constants": system.force_constants, "time_step": system.time_step}
    return kind(
        simulation or simulation_of(system, 11),
        model,
        relax_steps=relax_steps,
        seed=12,
        platform="Reference",
        **as_in_card,
        **rest,
    )


def ends_of(move, starts, md_steps, rounds):
    """Configurations straight after the last attempt of a chain from each start."""
    context, temperature = move.simulation.context, move.system.temperature
    ends = []
    for start in starts:
        context.setPositions(start)
        context.setVelocitiesToTemperature(temperature)
        move.run(rounds, md_steps)
        ends.append(context.getState(positions=True).getPositions(asNumpy=True)._value)
    return np.array(ends)


def biased(n, rng):
    """Exact, independent positions with a bias of SLOPE x, shape=(n, 1, 3), by rejection."""
    drawn = DOUBLE_WELL.sample(20 * n, rng)
    kept = drawn[rng.random(len(drawn)) < np.exp(-SLOPE * (drawn[:, 0, 0] - DOUBLE_WELL.grid[0]) / KT)]
    assert len(kept) >= n
    return kept[:n]


def scores(ends, exact=None):
    """z of four averages over independent configurations, against very many exact ones."""
    exact = (DOUBLE_WELL.sample(400_000, np.random.default_rng(3)) if exact is None else exact)[:, 0]
    found = ends[:, 0]
    features = [lambda q: q[:, 0] > 0.0, lambda q: q[:, 0] ** 2, lambda q: q[:, 1], lambda q: q[:, 2] ** 2]
    return np.array(
        [
            (f(found).mean() - f(exact).mean())
            / np.hypot(f(found).std() / len(found) ** 0.5, f(exact).std() / len(exact) ** 0.5)
            for f in features
        ]
    )


class AlwaysAccepts(LiftMove):
    """The twin: w'/w is taken for one."""

    def attempt(self):
        with mock.patch.object(
            exchange, "accepts", lambda after, before, rng: bool(np.isfinite([after, before]).all())
        ):
            return super().attempt()


SLOW = [pytest.param(n, marks=pytest.mark.slow) for n in (1, 5000)]


OTHERS = [pytest.param(*row, marks=pytest.mark.slow) for row in (("trained", 1), ("untrained", 200))]


@pytest.mark.parametrize("md_steps", [50, *SLOW])
@pytest.mark.parametrize(("generator", "relax_steps"), [("trained", 200), ("untrained", 1), *OTHERS])
def test_exchange_keeps_the_equilibrium(models, generator, relax_steps, md_steps):
    system = models.system(NAME)
    model = models.with_prior_encoder(NAME, generator, 2)
    move = move_of(system, model, relax_steps)
    n = 400 if md_steps == 5000 else 500 if md_steps == 50 else 1600
    z = scores(ends_of(move, DOUBLE_WELL.sample(n, np.random.default_rng(5)), md_steps, rounds=2))
    assert np.abs(z).max() < z_limit(N_SCORES), z
    if generator == "trained" and relax_steps == 200:
        assert sum(record.accepted for record in move.history) >= 200, move.acceptance_rate


def test_accepting_every_lift_shows(models):
    system = models.system(NAME)
    move = move_of(system, models.with_prior_encoder(NAME, "untrained", 2), 200, kind=AlwaysAccepts)
    z = scores(ends_of(move, DOUBLE_WELL.sample(400, np.random.default_rng(5)), 50, rounds=2))
    assert np.abs(z).max() > REJECTED, z


def a_bias(system):
    force = openmm.CustomExternalForce("slope*x")
    force.addGlobalParameter("slope", SLOPE)
    force.addParticle(0, [])
    system.addForce(force)


def heavier(system):
    system.setParticleMass(0, 3 * system.getParticleMass(0))


@pytest.mark.parametrize(("added", "exact"), [(a_bias, biased), (heavier, DOUBLE_WELL.sample)])
@pytest.mark.parametrize("kind", [LiftMove, AlwaysAccepts])
def test_what_scripts_add_keeps_the_equilibrium(models, added, exact, kind):
    """A bias, heavier masses; accepting every lift is the twin."""
    system = models.system(NAME)
    simulation = simulation_of(system, 11, added=added)
    move = move_of(system, models.with_prior_encoder(NAME, "untrained", 2), 200, kind, simulation)
    starts = exact(500 if kind is LiftMove else 250, np.random.default_rng(5))
    found = ends_of(move, starts, 50, rounds=2)
    z = np.abs(scores(found, exact(40_000, np.random.default_rng(3)))).max()
    assert z < z_limit(N_SCORES) if kind is LiftMove else z > REJECTED, z


@pytest.mark.slow
def test_two_moves_on_one_simulation_keep_the_equilibrium(models):
    """Of one seed; each attempt of one is followed by one of the other, with no dynamics in between."""
    system = models.system(NAME)
    one = move_of(system, models.with_prior_encoder(NAME, "trained", 2), 60)
    other = move_of(system, models.with_prior_encoder(NAME, "untrained", 2), 200, simulation=one.simulation)

    class Both:
        simulation, system = one.simulation, one.system

        def run(self, rounds, md_steps):
            for _ in range(rounds):
                one.run(1, md_steps)
                other.run(1)

    z = scores(ends_of(Both(), DOUBLE_WELL.sample(500, np.random.default_rng(5)), 50, rounds=2))
    assert np.abs(z).max() < z_limit(N_SCORES), z
    assert all(sum(record.accepted for record in move.history) >= 30 for move in (one, other))


def test_metropolis_is_a_chain_of_lifts(models):
    """Alone it is exact, too: every tenth state of one long chain."""
    system = models.system(NAME)
    move = move_of(system, models.with_prior_encoder(NAME, "trained", 2), 200, acceptance="metropolis")
    places = []
    for record in move.run(5000):
        places.append(record.after[0])
    kept = np.array(places)[200:]
    exact = DOUBLE_WELL.sample(400_000, np.random.default_rng(3))[:, 0, 0]
    blocks = (kept > 0).reshape(60, -1).mean(axis=1)
    z = (blocks.mean() - (exact > 0).mean()) / (blocks.std(ddof=1) / len(blocks) ** 0.5)
    assert 0.1 < move.acceptance_rate < 0.95 and abs(z) < z_limit(N_SCORES), (z, move.acceptance_rate)


def test_barriers_are_crossed_that_dynamics_do_not_cross(models):
    """4 kT high."""
    system = models.system(NAME)
    move = move_of(system, models.with_prior_encoder(NAME, "trained", 2), 200)
    sides = [record.after[0] > 0 for record in move.run(300, 20)]
    crossings = int(np.abs(np.diff(np.array(sides, dtype=int))).sum())
    assert crossings > 20, crossings
