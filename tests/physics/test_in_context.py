"""Moves inside one Context leave the exact ensemble as it is, with dynamics in between; each planted fault does not.

Chains start from exact configurations of the bonded chain with exact velocities; attempts follow, ten steps of dynamics
after each. The exact ensemble stays as it is: log w, when an attempt is accepted, has a mean change of zero, and the
energies at the ends of the chains have their exact means. The z-scores of this file together have the false-alarm rate
of 3.5 sigma (Bonferroni); planted faults are found beyond 5 sigma.
"""

import copy
from dataclasses import replace
from functools import cache

import numpy as np
import openmm
import pytest
import torch
from torch import Tensor, nn

from openmm_gancl.engine.platforms import PotentialEnergy
from openmm_gancl.free_energy.surface import FreeEnergySurface
from openmm_gancl.moves import InContextMove, context_modules, context_move
from openmm_gancl.moves.context_modules import DensityForce, LabelGrid, ProposalForce, Proposals
from openmm_gancl.sampling.langevin import maxwell_boltzmann
from openmm_gancl.system.state import DeclaredState

from .exact import ANGLES, BONDS, CHAIN, DOUBLE_WELL, KT
from .statistics import z_limit
from .toy_generators import generator, system_and_chart

MD_STEPS, N_ATTEMPTS, N_CHAINS, N_RIGHT = 10, 3, 250, 150
CASES = (("trained", False), ("gan", True))
N_SCORES = 3 * (len(CASES) + 2) + 1 + 4
REJECTED, N_OUTSIDE = 5.0, 200


@cache
def surface(steepness=1.0):
    """Over the chain's torsion, to propose where it is low; right with a steepness of one."""
    edges = np.linspace(-np.pi, np.pi, 73)
    energy = steepness * CHAIN.torsion_energy(0.5 * (edges[1:] + edges[:-1]))
    periods = np.array([2 * np.pi])
    return FreeEnergySurface(energy - energy.min(), 0 * energy, (edges,), ("phi",), periods, 300.0, 0, ("radians",))


@cache
def starts(n):
    """Exact configurations and velocities, shape=(n, 5, 3) each."""
    system, chart = system_and_chart(CHAIN.name)
    rng = np.random.default_rng(4)
    return CHAIN.sample(n, rng, chart=chart), maxwell_boltzmann(system.masses, n, system.kT, rng)


@cache
def generator_of(name, kind):
    """Of the toys; a wide one has all widths too large by half, so that its weights are those of fast coordinates."""
    if kind != "wide":
        return generator(name, kind)
    made = copy.deepcopy(generator(name, "trained"))
    made.map.narrow.log_width[0] += np.log(1.5)
    return made


def move_of(kind, with_surface=True, name=CHAIN.name, **rest):
    system, _ = system_and_chart(name)
    options = {"md_steps": MD_STEPS, "seed": 5, "surface": surface() if with_surface else None} | rest
    return InContextMove(options.pop("system", system), generator_of(name, kind), **options)


def energies(positions):
    """U / kT, shape=(n,), of shape=(n, 5, 3)."""
    energy = PotentialEnergy(system_and_chart(CHAIN.name)[0].system, "Reference")
    return np.array([energy(one) for one in positions]) / KT


@cache
def exact_energies():
    """Mean U and mean energy of the torsion, in kT, by quadrature."""

    def mean(log_density, energy):
        weights = np.exp(log_density - log_density.max())
        return (weights * energy).sum() / weights.sum()

    total = 0.0
    for terms, grid, log_of in ((BONDS, CHAIN.lengths, CHAIN.log_lengths), (ANGLES, CHAIN.bends, CHAIN.log_bends)):
        total += sum(mean(log_of(atoms), 0.5 * k * (grid - centre) ** 2 / KT) for atoms, (centre, k) in terms.items())
    branch = 10 * (1 + np.cos(CHAIN.circle - 5.236)) / KT
    torsion = mean(CHAIN.log_turns(), CHAIN.torsion_energy(CHAIN.circle) / KT)
    return total + mean(-branch, branch) + torsion, torsion


def chains(move, kind, n, n_attempts=N_ATTEMPTS):
    """By chains, shape=(n, 3): changes of log w where an attempt is accepted; U and the torsion's at their ends, in kT.

    The energies are less their exact means. All have mean zero, and nothing that is compared is of the Context.
    """
    _, chart = system_and_chart(CHAIN.name)
    value, jumps = move.integrator.getGlobalVariableByName, np.empty((n, n_attempts, 2))
    places = np.empty((n, n_attempts + 1, 5, 3))
    for i, (positions, velocities) in enumerate(zip(*(part[:n] for part in starts(N_CHAINS)), strict=True)):
        places[i, 0] = positions
        move.context.setPositions(positions)
        move.context.setVelocities(velocities)
        move.integrator.setGlobalVariableByName("n_attempts", 0.0)
        for j in range(n_attempts):
            move.step(1)
            places[i, j + 1] = move.context.getState(positions=True).getPositions(asNumpy=True)._value
            jumps[i, j] = value("log_weight"), value("accepted")
    flat = places.reshape(-1, 5, 3)
    energy, coordinates, labels = energies(flat), chart.to_internal(flat), move.system.slow.transform(flat)
    log_density = generator_of(CHAIN.name, kind).log_density(coordinates) + move.placement.log_density(labels)
    log_w = (chart.log_jacobian(coordinates) - energy - log_density).reshape(n, -1)
    torsion = CHAIN.torsion_energy(labels[:, 0]).reshape(n, -1) / KT
    changes = [np.where(jumps[:, :, 1] == 1, jumps[:, :, 0] - log_w[:, :-1], 0.0).sum(axis=1)]
    for part, mean in zip((energy.reshape(n, -1), torsion), exact_energies(), strict=True):
        first, last = part[:, 0] - mean, part[:, -1] - mean
        # what is known of the start is no noise
        changes.append(last - (first @ last) / (first @ first) * first)
    return np.stack(changes, axis=1)


def scores(changes):
    return changes.mean(axis=0) / (changes.std(axis=0, ddof=1) / np.sqrt(len(changes)))


@pytest.mark.parametrize(("kind", "with_surface"), CASES)
def test_the_exact_ensemble_stays(kind, with_surface):
    move = move_of(kind, with_surface)
    z = scores(chains(move, kind, N_RIGHT))
    assert 0.2 < move.integrator.getGlobalVariableByName("n_accepted") / (N_RIGHT * N_ATTEMPTS) < 0.95
    assert np.abs(z).max() < z_limit(N_SCORES), z


def planted(monkeypatch, name, line):
    """The same integrator with another line for one of its globals, the first time that it is computed."""
    add, done = openmm.CustomIntegrator.addComputeGlobal, []

    def other(self, variable, expression):
        if variable == name and not done:
            done.append(variable)
            return add(self, variable, line)
        return add(self, variable, expression)

    monkeypatch.setattr(openmm.CustomIntegrator, "addComputeGlobal", other)


LOG_DENSITY = 24.7
"""Of a typical configuration: without any, no proposal would ever be accepted."""


def test_the_ratio_of_weights_replaced_by_one_shows(monkeypatch):
    planted(monkeypatch, "accepted", "step(log_weight+1e10)*step(1e10-log_weight)")
    z = scores(chains(move_of("wide"), "wide", 60))
    assert np.abs(z).max() > REJECTED, z


def test_the_density_of_the_inverse_dropped_shows(monkeypatch):
    planted(monkeypatch, "log_weight_before", f"-real_energy/kT-{LOG_DENSITY}")
    z = scores(chains(move_of("trained", md_steps=0), "trained", N_CHAINS, 5))
    assert np.abs(z).max() > REJECTED, z


@pytest.mark.slow
def test_the_weight_of_what_was_proposed_kept_through_the_dynamics_shows(monkeypatch):
    right = scores(chains(move_of("wide", md_steps=100), "wide", N_CHAINS, 12))
    assert np.abs(right).max() < z_limit(N_SCORES), right
    stale = "select(accepted, log_weight, log_weight_before)"
    planted(monkeypatch, "log_weight_before", f"select(n_attempts, {stale}, -real_energy/kT-log_density_before)")
    z = scores(chains(move_of("wide", md_steps=100), "wide", N_CHAINS, 12))
    assert np.abs(z).max() > REJECTED, z


class WithoutLabels(nn.Module):
    """Labels as from the grid, their density left out."""

    def __init__(self, *arguments):
        super().__init__()
        self.grid = LabelGrid(*arguments)

    def forward(self, uniform: Tensor) -> tuple[Tensor, Tensor]:
        labels, log_density = self.grid(uniform)
        return labels, torch.zeros_like(log_density)

    @torch.jit.export
    def inverse(self, labels: Tensor) -> Tensor:
        return torch.zeros_like(labels[:, 0])


def test_the_density_of_labels_left_out_shows(monkeypatch):
    right = scores(chains(move_of("trained", surface=surface(3.0)), "trained", 100))
    assert np.abs(right).max() < z_limit(N_SCORES), right
    monkeypatch.setattr(context_modules, "LabelGrid", WithoutLabels)
    _, _, torsion = scores(chains(move_of("trained", surface=surface(3.0)), "trained", N_CHAINS))
    assert abs(torsion) > REJECTED, torsion


def half_of_the_circle():
    """The chain whose torsion is declared trans; its dynamics turn it over all the same."""
    system, _ = system_and_chart(CHAIN.name)
    state = DeclaredState(trans_peptides=np.array([[0, 1, 2, 3]]))
    moved = starts(N_CHAINS)[0][state.inside(starts(N_CHAINS)[0])][0]
    return replace(system, state=state, positions=moved)


def share_inside(move, n):
    """Mean change of the share of chains in the declared state, in standard errors."""
    inside = move.system.state.inside
    ends = np.empty((n, 5, 3))
    for i, (positions, velocities) in enumerate(zip(*(part[:n] for part in starts(N_CHAINS)), strict=True)):
        move.context.setPositions(positions)
        move.context.setVelocities(velocities)
        move.step(N_ATTEMPTS)
        ends[i] = move.context.getState(positions=True).getPositions(asNumpy=True)._value
    return scores(inside(ends).astype(float)[:, None] - inside(starts(N_CHAINS)[0][:n]).astype(float)[:, None])[0]


def test_configurations_outside_the_state_stay():
    assert abs(share_inside(move_of("trained", False, system=half_of_the_circle()), N_OUTSIDE)) < z_limit(N_SCORES)


def test_a_configuration_outside_the_state_accepted_shows(monkeypatch):
    def faulty(proposals):
        everywhere = Proposals(generator(CHAIN.name, "trained"), context_modules.even_placement(system.slow), no_state)
        return torch.jit.script(ProposalForce(proposals)), torch.jit.script(DensityForce(everywhere))

    system, no_state = half_of_the_circle(), system_and_chart(CHAIN.name)[0]
    monkeypatch.setattr(context_move, "force_modules", faulty)
    assert share_inside(move_of("trained", False, system=system), N_OUTSIDE) > REJECTED


@pytest.mark.slow
def test_marginals_of_a_long_chain_are_exact():
    """Of particles in an external field, against quadrature; five steps of dynamics between attempts."""
    move, n_blocks = move_of("trained", False, name=DOUBLE_WELL.name, md_steps=5), 60
    move.step(200)
    at = move.run(24_000).positions[:, 0]
    exact = DOUBLE_WELL.sample(400_000, np.random.default_rng(3))[:, 0]
    for feature in (lambda q: q[:, 0] > 0.0, lambda q: q[:, 0] ** 2, lambda q: q[:, 1] ** 2, lambda q: q[:, 2] ** 2):
        blocks, truth = feature(at).reshape(n_blocks, -1).mean(axis=1), feature(exact)
        error = np.hypot(blocks.std(ddof=1) / n_blocks**0.5, truth.std() / len(truth) ** 0.5)
        assert error < 0.03 * truth.mean()
        assert abs(blocks.mean() - truth.mean()) < z_limit(N_SCORES) * error
