"""Moves of invertible generators against exact answers, and what plants a fault in them.

Chains start from exact, independent configurations; after a few attempts everything is distributed as before. The
z-scores and the chi-squared of this file together have the false-alarm rate of 3.5 sigma (Bonferroni); planted faults
are found beyond 5 sigma. Energies are those of the exact answers, not OpenMM's.
"""

from functools import cache

import numpy as np
import pytest
from scipy.stats import chi2, norm

from openmm_gancl import LiftMove
from openmm_gancl.generator.invertible import InvertibleGenerator
from openmm_gancl.lifting.label_proposals import TabulatedProposal, UniformProposal
from openmm_gancl.lifting.latent_relaxation import LatentMoves
from openmm_gancl.moves import exchange
from openmm_gancl.moves.exchange import Exchange
from openmm_gancl.moves.inverted import INDEPENDENT, LOCAL, Independent, InvertedChart, InvertedProposals, Local
from openmm_gancl.moves.relaxed_lifts import LatentPaths, RelaxedLifts

from .exact import ANGLES, BONDS, CHAIN, DOUBLE_WELL
from .statistics import z_limit
from .test_moves import ends_of, simulation_of
from .toy_generators import generator, system_and_chart

NAMES = (DOUBLE_WELL.name, CHAIN.name)
BAD = {DOUBLE_WELL.name: "shuffled", CHAIN.name: "untrained"}
N_CHAINS, N_ROUNDS = {DOUBLE_WELL.name: 2000, CHAIN.name: 700}, 3
N_SCORES = 130
REJECTED = 5.0


def energy_of(name):
    """U by the exact answers alone."""
    if name == DOUBLE_WELL.name:
        return lambda positions: float(DOUBLE_WELL.energy(positions[0]))
    chart = system_and_chart(name)[1]
    pairs = [tuple(sorted(atoms)) for atoms in chart.bonds.tolist()]
    triples = [min(tuple(a), tuple(a[::-1])) for a in chart.angles.tolist()]
    first = next(i for i, atoms in enumerate(chart.torsions.tolist()) if set(atoms) == {0, 1, 2, 3})
    assert set(pairs) == set(BONDS) and set(triples) == set(ANGLES)

    def energy(positions):
        bonds, angles, torsions = (part[0] for part in chart._split(chart.to_internal(positions[None])))
        lengths, bends = dict(zip(pairs, bonds, strict=True)), dict(zip(triples, angles, strict=True))
        return float(CHAIN.energy(lengths, bends, torsions[first], torsions[1 - first]))

    return energy


def tilted(name):
    """p(s) of a surface that is wrong: probable where little is."""
    system = system_and_chart(name)[0]
    (domain,) = system.slow.domain
    edges = np.linspace(*domain, 25)
    middles = 0.5 * (edges[1:] + edges[:-1])
    energy = 3.0 * np.sin(np.pi * middles / domain[1])
    return TabulatedProposal.from_energies(
        system.slow, system.force_constants, system.kT, (edges,), energy, smeared=False
    )


def kernel_of(name, moves, kind, proposal=None):
    made = generator(name, BAD[name] if kind == "bad" else kind)
    return Independent(made, proposal or tilted(name)) if moves == INDEPENDENT else Local(made, 0.15, 0.6)


def exchange_of(name, kind):
    """Both kinds of moves, one attempt after the other."""
    system, kernels = system_and_chart(name)[0], {one: kernel_of(name, one, kind) for one in (INDEPENDENT, LOCAL)}
    chart = InvertedChart(system, kernels[LOCAL].generator, energy_of(name))
    return Exchange(InvertedProposals(chart, kernels, {INDEPENDENT: 0.5, LOCAL: 0.5}), system, 7)


@cache
def exact(name, n, seed):
    rng = np.random.default_rng(seed)
    if name == CHAIN.name:
        return CHAIN.sample(n, rng, chart=system_and_chart(name)[1])
    return DOUBLE_WELL.sample(n, rng)


def metropolis(after, before, rng):
    """min(1, w'/w) of n chains."""
    usable = np.isfinite(after) & np.isfinite(before)
    return usable & (np.log(rng.random(len(after))) < np.where(usable, after, 0.0) - np.where(usable, before, 0.0))


def always(after, before, rng):
    """The twin: w'/w is taken for one."""
    return np.isfinite(after) & np.isfinite(before)


def ends_of_chains(name, kernel, rounds=N_ROUNDS, accept=metropolis):
    """Many chains at once, several attempts each, nothing in between; and what was accepted, shape=(rounds, n)."""
    chart, rng = InvertedChart(system_and_chart(name)[0], kernel.generator, energy_of(name)), np.random.default_rng(9)
    here, accepted = exact(name, N_CHAINS[name], 5).copy(), []
    for _ in range(rounds):
        before, after = chart.weigh_pairs(kernel, here, rng)
        assert (before.force_evaluations == after.force_evaluations).all() and after.force_evaluations.max() == 1
        taken = accept(after.log_weights, before.log_weights, rng)
        here[taken] = after.positions[taken]
        accepted.append(taken)
    return here, np.array(accepted)


def features(name, positions):
    """Some numbers of configurations, shape=(n, n_features), the label first."""
    if name == DOUBLE_WELL.name:
        x, y, z = positions[:, 0].T
        away = y - 0.25 * np.sin(1.5 * x)
        return np.stack([x, x > 0, x**2, y, z**2, away, away**2], axis=1)
    coordinates = system_and_chart(name)[1].to_internal(positions)
    phi, psi = coordinates[:, -2:].T
    return np.stack([phi, np.cos(phi), np.sin(phi), np.cos(2 * phi), np.cos(psi - 2), *coordinates[:, :-2].T], axis=1)


def scores(name, ends):
    """z of averages over independent configurations, and of the chi-squared of the label in eight bins."""
    known = features(name, exact(name, 60_000, 3))
    found = features(name, ends)
    error = np.hypot(found.std(axis=0) / len(found) ** 0.5, known.std(axis=0) / len(known) ** 0.5)
    z = (found.mean(axis=0) - known.mean(axis=0)) / error
    edges = np.quantile(known[:, 0], np.linspace(0, 1, 9)[1:-1])
    counts = np.bincount(np.searchsorted(edges, found[:, 0]), minlength=8)
    squares = ((counts - len(found) / 8) ** 2 / (len(found) / 8)).sum()
    return np.append(z, norm.isf(max(chi2.sf(squares, 7), 1e-300)))


def worst(name, moves, kind="trained", **options):
    ends, _ = ends_of_chains(name, kernel_of(name, moves, kind), **options)
    return np.abs(scores(name, ends)).max()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("moves", [INDEPENDENT, LOCAL])
@pytest.mark.parametrize("kind", ["trained", "bad"])
def test_what_is_exact_stays_so(name, moves, kind):
    ends, accepted = ends_of_chains(name, kernel_of(name, moves, kind))
    z = scores(name, ends)
    assert np.abs(z).max() < z_limit(N_SCORES), z
    assert 0.02 < accepted.mean() < 0.95


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("moves", [INDEPENDENT, LOCAL])
def test_accepting_everything_shows(name, moves):
    assert worst(name, moves, "bad", accept=always) > REJECTED


def test_p_of_the_label_left_out_shows(monkeypatch):
    monkeypatch.setattr(Independent, "log_label_density", lambda self, labels: np.zeros(len(labels)))
    assert worst(CHAIN.name, INDEPENDENT) > REJECTED


def test_p_of_the_label_in_a_symmetric_move_shows(monkeypatch):
    p = tilted(CHAIN.name)
    monkeypatch.setattr(Local, "log_label_density", lambda self, labels: p.log_prior(labels))
    assert worst(CHAIN.name, LOCAL) > REJECTED


def test_the_base_density_counted_twice_shows(monkeypatch):
    right = InvertedChart.log_r

    def twice(self, placed, positions, which):
        return right(self, placed, positions, which) - 0.5 * (placed.base**2).sum(axis=1)

    monkeypatch.setattr(InvertedChart, "log_r", twice)
    assert worst(DOUBLE_WELL.name, LOCAL) > REJECTED


@pytest.mark.parametrize("moves", [INDEPENDENT, LOCAL])
def test_the_density_of_the_label_asked_for_shows(moves, monkeypatch):
    """Not of that which the current configuration has."""
    right = InvertibleGenerator.invert

    def of_another(self, coordinates):
        moved = coordinates.copy()
        moved[:, self.chart.label_indices] += 0.2
        return right(self, moved)

    monkeypatch.setattr(InvertibleGenerator, "invert", of_another)
    assert worst(DOUBLE_WELL.name, moves) > REJECTED


class Part(UniformProposal):
    """Labels from a part of the domain."""

    low, high = -1.2, 0.9

    def sample(self, n, rng):
        return rng.uniform(self.low, self.high, (n, 1))

    def log_prior(self, labels):
        inside = (labels[:, 0] >= self.low) & (labels[:, 0] <= self.high)
        return np.where(inside, -np.log(self.high - self.low), -np.inf)


class ClaimsAll(Part):
    """The twin: a density that it does not have."""

    def log_prior(self, labels):
        return np.full(len(labels), -np.log(self.high - self.low))


@pytest.mark.parametrize("kind", [Part, ClaimsAll])
def test_where_nothing_is_proposed_a_chain_stays(kind):
    """A fifth of the distribution; leaving it without a way back empties it."""
    name = DOUBLE_WELL.name
    system = system_and_chart(name)[0]
    kernel = kernel_of(name, INDEPENDENT, "trained", kind(system.slow, system.force_constants, system.kT))
    z = np.abs(scores(name, ends_of_chains(name, kernel)[0])).max()
    assert z < z_limit(N_SCORES) if kind is Part else z > REJECTED, z
    chart = InvertedChart(system, kernel.generator, energy_of(name))
    before, after = chart.weigh_pairs(kernel, exact(name, N_CHAINS[name], 5), np.random.default_rng(1))
    outside = ~np.isfinite(Part.log_prior(kernel.label_proposal, before.labels))
    assert outside.mean() > 0.1
    if kind is Part:
        assert set(before.reason[outside]) == {"label", "outside"} and not before.force_evaluations[outside].any()
        assert np.isnan(after.log_weights[outside]).all() and np.isneginf(before.log_weights[outside]).all()


def attempts_from(moves, starts, rounds):
    ends, attempts = [], []
    for number, start in enumerate(starts):
        here = start
        for turn in range(rounds):
            attempts.append(moves.attempt(number * rounds + turn, here))
            here = attempts[-1].after.positions if attempts[-1].accepted else here
        ends.append(here)
    return np.array(ends), attempts


def test_a_mixture_of_both_one_after_the_other():
    name = DOUBLE_WELL.name
    ends, attempts = attempts_from(exchange_of(name, "trained"), exact(name, 300, 5), 2)
    z = scores(name, ends)
    assert np.abs(z).max() < z_limit(N_SCORES), z
    local, accepted = np.array([one.move == LOCAL for one in attempts]), np.array([one.accepted for one in attempts])
    assert 0.4 < local.mean() < 0.6 and accepted[local].mean() > 0.1 and accepted[~local].mean() > 0.1
    assert {one.force_evaluations for one in attempts} <= {0, 2}


def test_the_mixture_when_all_is_accepted_shows(monkeypatch):
    monkeypatch.setattr(exchange, "accepts", lambda after, before, rng: bool(np.isfinite([after, before]).all()))
    name = DOUBLE_WELL.name
    ends, _ = attempts_from(exchange_of(name, "bad"), exact(name, 200, 5), 2)
    assert np.abs(scores(name, ends)).max() > REJECTED


def test_relaxed_in_base_numbers_there_and_back():
    name = DOUBLE_WELL.name
    system, made = system_and_chart(name)[0], generator(name, "trained")
    hydrogens = InvertedChart(system, made, None).hydrogens
    paths = LatentPaths(system, made, LatentMoves(2, 0.5), tilted(name), "Reference", hydrogens)
    ends, attempts = attempts_from(Exchange(RelaxedLifts(paths), system, 7), exact(name, 120, 5), 1)
    z = scores(name, ends)
    assert np.abs(z).max() < z_limit(N_SCORES), z
    assert all(one.force_evaluations == 6 for one in attempts)
    assert np.mean([one.accepted for one in attempts]) > 0.2


@pytest.mark.parametrize("moves", [INDEPENDENT, LOCAL])
def test_in_a_simulation_with_dynamics_in_between(moves):
    """Energies of the Simulation's own Context."""
    name = DOUBLE_WELL.name
    system = system_and_chart(name)[0]
    move = LiftMove(simulation_of(system, 11), generator(name, "trained"), moves=moves, seed=12)
    ends = ends_of(move, exact(name, 200, 5), 20, 2)
    z = scores(name, ends)
    assert np.abs(z).max() < z_limit(N_SCORES), z
    assert sum(record.accepted for record in move.history) > 30
    assert {record.force_evaluations - 2 * record.accepted for record in move.history} <= {0, 2}


def test_the_pilot_prefers_what_moves_farther():
    """Draws of a good generator; of one that is hardly ever accepted, steps."""
    name = DOUBLE_WELL.name
    system = system_and_chart(name)[0]
    chosen = {}
    for kind in ("trained", "untrained"):
        move = LiftMove(simulation_of(system, 11), generator(name, kind), seed=12)
        chosen[kind] = move._sourced.pilot
        assert str(move).startswith(f"LiftMove(100 % {move._sourced.pilot.best} moves; squared label displacement")
        assert move.pilot_evaluations == chosen[kind].force_evaluations <= 832
    assert chosen["trained"].best == INDEPENDENT
    gains = {kind: pilot.displacements[INDEPENDENT] / pilot.displacements[LOCAL] for kind, pilot in chosen.items()}
    assert gains["trained"] > gains["untrained"]


def test_the_pilot_measures_what_a_chain_does():
    """The expected squared displacement of its choice, against that of a stationary chain."""
    name = DOUBLE_WELL.name
    system = system_and_chart(name)[0]
    move = LiftMove(simulation_of(system, 11), generator(name, "trained"), moves=INDEPENDENT, seed=12)
    assert move._sourced.pilot is None and move.pilot_evaluations == 0
    pilot = LiftMove(simulation_of(system, 11), generator(name, "trained"), seed=12)._sourced.pilot
    uniform = UniformProposal(system.slow, system.force_constants, system.kT)
    kernel = kernel_of(name, INDEPENDENT, "trained", uniform)
    ends, _ = ends_of_chains(name, kernel, rounds=1)
    moved = (ends[:, 0, 0] - exact(name, N_CHAINS[name], 5)[:, 0, 0]) ** 2 / float(np.ptp(system.slow.domain)) ** 2
    assert abs(moved.mean() / 2 / pilot.displacements[INDEPENDENT] - 1) < 0.3


def test_numbers_of_attempts_do_not_depend_on_the_way_there():
    name = DOUBLE_WELL.name
    moves, again = exchange_of(name, "trained"), exchange_of(name, "trained")
    start = exact(name, 1, 5)[0]
    all_of_them = [moves.attempt(number, start) for number in range(255, 259)]
    later = again.attempt(257, start)
    assert (later.after.positions == all_of_them[2].after.positions).all()
    assert later.after.log_weight == all_of_them[2].after.log_weight
