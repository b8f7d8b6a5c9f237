"""The move inside a Context: weights as outside, evaluations of an attempt, what is refused, what is left alone."""

import copy
import os
from dataclasses import replace
from functools import cache, partial

import numpy as np
import openmm
import pytest
import torch
from torch import Tensor, nn

from openmm_gancl import InputError, load_system
from openmm_gancl.engine.platforms import REAL_GROUP, PotentialEnergy
from openmm_gancl.generator import untrained_model
from openmm_gancl.generator.invertible import InvertibleGenerator
from openmm_gancl.generator.score_fit import untrained_triangular
from openmm_gancl.generator.trained_for import system_metadata
from openmm_gancl.lifting.draws import weigh_coordinates
from openmm_gancl.moves import InContextMove, context_modules, context_move
from openmm_gancl.moves.context_modules import LabelGrid
from openmm_gancl.reference.chart import chart_for
from openmm_gancl.system.state import DeclaredState
from tests.openmm_contexts import BACKENDS
from tests.physics.exact import CHAIN, DOUBLE_WELL
from tests.physics.test_invertible_lifter import rigid_generator
from tests.physics.toy_generators import generator

PLATFORMS = ["Reference", "CPU", *(["OpenCL"] if os.environ.get("GANCL_TEST_OPENCL") else [])]
TOLERANCE = {"Reference": 1e-8, "CPU": 0.02, "OpenCL": 0.02}
"""Of log w, kT: forces of the CPU platform are in single precision, those of OpenCL mixed."""


@cache
def alanine(name="alanine_dipeptide_vacuum"):
    """Alanine dipeptide, and a map about its structure that is narrow enough to stay in the declared state."""
    system = load_system(name)
    chart = chart_for(system.topology, system.slow, system.positions, system.constraints)
    n = chart.n_bonds, chart.n_angles, chart.n_torsions
    scales = np.repeat([0.002, 0.03, 0.1], n)
    origin = chart.to_internal(system.positions[None])[0]
    made = untrained_triangular(chart, system.slow, origin, scales, np.random.default_rng(2), strength=0.0)
    return system, InvertibleGenerator(made, chart, system.slow, system_metadata(system))


def case(name):
    cases = {"alanine": alanine, "GBSA": partial(alanine, "alanine_dipeptide_gbsa"), "rigid": rigid_generator}
    return cases[name]() if name in cases else (load_system(name), generator(name, "gan"))


def outside(system, made, positions):
    """log w of configurations, not from a Context's integrator."""
    coordinates, labels = made.chart.to_internal(positions), system.slow.transform(positions)
    log_density, inside = made.log_density(coordinates), system.state.inside(positions)
    return weigh_coordinates(
        system, made.chart, coordinates, labels, log_density, inside, platform="Reference"
    ).log_weights


@pytest.mark.openmmtorch
@pytest.mark.parametrize(
    ("name", "platform"),
    [(name, "Reference") for name in (CHAIN.name, "rigid", "GBSA")] + [("alanine", one) for one in PLATFORMS[1:]],
)
def test_weights_inside_are_those_outside(name, platform):
    """Of the present configuration at every attempt, and of what is proposed where that is taken."""
    system, made = case(name)
    backend = "python" if platform == "OpenCL" else "auto"
    move = InContextMove(system, made, md_steps=0, seed=1, platform=platform, backend=backend)
    chain = move.run(40)
    log_label = -np.log(np.diff(system.slow.domain, axis=1)).sum()
    assert chain.accepted.sum() >= 1
    # the first is compared with the structure
    places = np.concatenate([system.positions[None], chain.positions[:-1]])
    assert np.abs(outside(system, made, places) - log_label - chain.log_weights_before).max() < TOLERANCE[platform]
    taken = chain.positions[chain.accepted]
    expected = outside(system, made, taken) - log_label
    assert np.abs(expected - chain.log_weights[chain.accepted]).max() < TOLERANCE[platform]
    assert np.allclose(chain.labels, system.slow.transform(chain.positions), rtol=0, atol=1e-12)


def test_after_dynamics_the_weight_is_that_of_where_they_went():
    system, made = case("rigid")
    move = InContextMove(system, made, md_steps=7, seed=1)
    chain = move.run(30)
    log_label = -np.log(np.diff(system.slow.domain, axis=1)).sum()
    expected = outside(system, made, chain.positions[:-1]) - log_label
    assert np.abs(expected - chain.log_weights_before[1:]).max() < 1e-8
    assert system.constraints.violations(chain.positions).max() < 1e-6
    still = np.concatenate([[False], (chain.positions[1:] == chain.positions[:-1]).all(axis=(1, 2))])
    assert not still.any() and 0 < chain.accepted.mean() < 1


def test_dynamics_are_those_of_the_langevin_middle_integrator():
    """Without noise both go the same way."""
    system, made = case(CHAIN.name)
    move = InContextMove(system, made, md_steps=50, friction=0.0, seed=1)
    accepted = True
    while accepted:
        start = move.context.getState(positions=True, velocities=True)
        move.step(1)
        accepted = bool(move.integrator.getGlobalVariableByName("accepted"))
    integrator = openmm.LangevinMiddleIntegrator(300.0, 0.0, system.time_step)
    context = openmm.Context(system.system, integrator, openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(start.getPositions(asNumpy=True))
    context.setVelocities(start.getVelocities(asNumpy=True))
    integrator.step(50)
    ends = [one.getState(positions=True).getPositions(asNumpy=True)._value for one in (move.context, context)]
    assert np.abs(ends[0] - ends[1]).max() < 1e-10


@pytest.mark.openmmtorch
def test_backends_make_the_same_moves_and_a_seed_the_same_bytes():
    system, made = case(CHAIN.name)
    chains = [InContextMove(system, made, md_steps=3, backend=backend, seed=2).run(15) for backend in BACKENDS]
    for chain in chains:
        np.testing.assert_allclose(chain.log_weights, chains[0].log_weights, rtol=0, atol=1e-9)
        np.testing.assert_allclose(chain.positions, chains[0].positions, rtol=0, atol=1e-9)
    # whatever else draws from the generator that the Reference platform shares
    one, other = (InContextMove(system, made, md_steps=3, backend=BACKENDS[0], seed=seed) for seed in (2, 3))
    parts = []
    for _ in range(3):
        other.step(1)
        parts.append(one.run(5).positions)
    assert np.array_equal(np.concatenate(parts), chains[0].positions)


class Counting(nn.Module):
    """The same, with the number of evaluations so far in place of the log density."""

    count: Tensor

    def __init__(self, inner):
        super().__init__()
        self.inner = inner
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    def forward(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        _, forces = self.inner(positions)
        self.count += 1.0
        return self.count.clone(), forces


@pytest.mark.openmmtorch
@pytest.mark.parametrize("backend", BACKENDS)
def test_each_module_is_evaluated_once_an_attempt(monkeypatch, backend):
    make = context_move.module_force

    def counting(module, *arguments, **rest):
        return make(torch.jit.script(Counting(module)), *arguments, **rest)

    monkeypatch.setattr(context_move, "module_force", counting)
    system, made = case(CHAIN.name)
    move = InContextMove(system, made, md_steps=3, backend=backend, seed=1)
    move.step(10)
    value = move.integrator.getGlobalVariableByName
    assert value("log_density") == value("log_density_before") == 10


EVALUATIONS = []


def counted_force(state):
    """A force of nothing, which records that it was asked for."""
    EVALUATIONS.append(1)
    return 0.0, np.zeros((5, 3))


def test_an_attempt_costs_one_evaluation_of_the_potential_beside_those_of_dynamics():
    system, made = case(CHAIN.name)
    copied = openmm.XmlSerializer.clone(system.system)
    copied.addForce(openmm.PythonForce(counted_force))
    counted = {}
    for md_steps in (0, 5):
        move = InContextMove(replace(system, system=copied), made, md_steps=md_steps, seed=1)
        move.step(1)
        EVALUATIONS.clear()
        move.step(20)
        counted[md_steps] = len(EVALUATIONS)
    # without dynamics, that of the present configuration
    assert counted[0] <= 20 * 2 and counted[5] <= 20 * 6


class NoLabels(nn.Module):
    """Labels that are NaN for half of the numbers."""

    def __init__(self, *arguments):
        super().__init__()
        self.grid = LabelGrid(*arguments)

    def forward(self, uniform: Tensor) -> tuple[Tensor, Tensor]:
        labels, log_density = self.grid(uniform)
        return torch.where(uniform < 0.5, labels, torch.full_like(labels, torch.nan)), log_density

    @torch.jit.export
    def inverse(self, labels: Tensor) -> Tensor:
        return self.grid.inverse(labels)


def test_a_proposal_that_is_not_finite_is_rejected(monkeypatch):
    """Also on the CPU platform, which raises where a coordinate is NaN."""
    monkeypatch.setattr(context_modules, "LabelGrid", NoLabels)
    system, made = case(CHAIN.name)
    chain = InContextMove(system, made, md_steps=0, platform="CPU", seed=1).run(40)
    lost = np.isneginf(chain.log_weights)
    assert 8 < lost.sum() < 35 and not chain.accepted[lost].any() and chain.accepted.any()
    places = np.concatenate([system.positions[None], chain.positions])
    assert np.array_equal(places[1:][lost], places[:-1][lost])


def test_a_configuration_without_a_density_stays():
    system, made = case(DOUBLE_WELL.name)
    move = InContextMove(system, made, md_steps=0, seed=1)
    away = system.positions.copy()
    away[0, 0] = system.slow.domain[0, 1] + 0.01
    move.context.setPositions(away)
    chain = move.run(10)
    assert np.isneginf(chain.log_weights_before).all() and (chain.positions == away).all()


def test_the_energy_of_its_group_is_that_of_the_system():
    system, made = case(CHAIN.name)
    before = openmm.XmlSerializer.serialize(system.system)
    move = InContextMove(system, made, md_steps=2, seed=1)
    move.step(3)
    state = move.context.getState(positions=True, energy=True, groups={REAL_GROUP})
    expected = PotentialEnergy(system.system, "Reference")(state.getPositions(asNumpy=True)._value)
    assert state.getPotentialEnergy()._value == pytest.approx(expected, rel=1e-12)
    assert openmm.XmlSerializer.serialize(system.system) == before
    assert move.acceptance_rate == move.integrator.getGlobalVariableByName("n_accepted") / 3


def test_what_does_not_fit_is_refused_in_a_sentence():
    system, made = case(CHAIN.name)
    with pytest.raises(InputError, match="give an invertible generator"):
        InContextMove(system, untrained_model(system, seed=1))
    with pytest.raises(InputError, match="the model has 5 atoms, alanine_dipeptide_vacuum has 22"):
        InContextMove(load_system("alanine_dipeptide_vacuum"), made)
    with pytest.raises(InputError, match="md_steps is -1"):
        InContextMove(system, made, md_steps=-1)
    with pytest.raises(InputError, match="time step nan"):
        InContextMove(system, made, time_step=float("nan"))
    trans = replace(system, state=DeclaredState(trans_peptides=np.array([[0, 1, 2, 3]])))
    cis = made.chart.to_internal(system.positions[None])
    cis[0, made.chart.label_indices] = 0.1
    with pytest.raises(InputError, match=r"structure of bonded_chain has no weight.*declared state \(cis\)"):
        InContextMove(replace(trans, positions=made.chart.to_cartesian(cis)[0]), made)
    pulled = openmm.CustomExternalForce("10*x^2")
    pulled.addParticle(0, [])
    copied = openmm.XmlSerializer.clone(system.system)
    copied.addForce(pulled)
    with pytest.raises(InputError, match="moved or turned"):
        InContextMove(replace(system, system=copied), made)
    well, of_well = case(DOUBLE_WELL.name)
    away = well.positions + np.array([5.0, 0.0, 0.0])
    with pytest.raises(InputError, match=r"its label x is 4, outside its domain of -1.6 to 1.6"):
        InContextMove(replace(well, positions=away), of_well)


def test_a_generator_that_gives_nan_is_refused():
    system, changed = load_system(CHAIN.name), copy.deepcopy(generator(CHAIN.name, "untrained"))
    changed.map.narrow.scale.fill_(torch.nan)
    with pytest.raises(InputError, match=r"none of 64 proposals of the model is finite.*train it again"):
        InContextMove(system, changed)
