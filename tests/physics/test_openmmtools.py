"""The exchange as a move of openmmtools: exact marginals of the double well, stored and restored, refusals."""

import copy
import pickle
import warnings
from unittest import mock

import numpy as np
import openmm
import pytest
from openmm import app, unit

from openmm_gancl import InputError
from openmm_gancl.moves import exchange, velocities
from openmm_gancl.moves import openmmtools as adaptor

from .exact import CHAIN, DOUBLE_WELL
from .statistics import z_limit
from .test_moves import scores
from .test_one_molecule import beside_a_partner, places
from .toy_generators import generator

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from openmmtools import cache, mcmc, states

NAME = DOUBLE_WELL.name


@pytest.fixture(scope="module", autouse=True)
def on_reference():
    """openmmtools' own cache, which measures nothing and takes what is fastest for large systems."""
    cache.global_context_cache.empty()
    cache.global_context_cache.platform = openmm.Platform.getPlatformByName("Reference")


@pytest.fixture(scope="module")
def files(models, tmp_path_factory):
    folder, system = tmp_path_factory.mktemp("move"), models.system(NAME)
    models.with_prior_encoder(NAME, "trained", 2).save(folder / "model.safetensors")
    with (folder / "top.pdb").open("w") as file:
        app.PDBFile.writeFile(system.topology, 10 * system.positions, file)
    return {"model": folder / "model.safetensors", "topology": folder / "top.pdb"}


def move_of(system, files):
    return adaptor.LiftMCMCMove(
        **files,
        relax_steps=200,
        force_constants=float(system.force_constants[0]),
        time_step=system.time_step,
        platform="Reference",
        seed=4,
    )


@pytest.fixture(scope="module")
def drawn(files, tmp_path_factory):
    """The files of a move of an invertible generator."""
    path = tmp_path_factory.mktemp("drawn") / "model.safetensors"
    generator(NAME, "trained").save(path)
    return files | {"model": path}


def state_of(system, **options):
    return states.ThermodynamicState(system.system, system.temperature * unit.kelvin, **options)


def ends_of(system, files, n, lift=None):
    lift, thermodynamic_state = lift or move_of(system, files), state_of(system)
    dynamics = mcmc.LangevinDynamicsMove(
        timestep=system.time_step * unit.picosecond, collision_rate=5 / unit.picosecond, n_steps=20
    )
    both, ends = mcmc.SequenceMove([dynamics, lift]), []
    for start in DOUBLE_WELL.sample(n, np.random.default_rng(5)):
        sampler_state = states.SamplerState(start * unit.nanometer)
        for _ in range(2):
            both.apply(thermodynamic_state, sampler_state)
        ends.append(sampler_state.positions.value_in_unit(unit.nanometer))
    return np.array(ends), lift


def test_marginals_stay_exact(models, files):
    ends, lift = ends_of(models.system(NAME), files, 400)
    assert lift.n_proposed == 800 and lift.n_accepted >= 200
    z = scores(ends)
    assert np.abs(z).max() < z_limit(4), z


@pytest.mark.parametrize("moves", ["independent", "local"])
def test_an_invertible_generator_keeps_them_too(models, drawn, moves):
    lift = adaptor.LiftMCMCMove(**drawn, moves=moves, platform="Reference", seed=4)
    ends, lift = ends_of(models.system(NAME), drawn, 150, lift)
    assert lift.n_proposed == 300 and lift.n_accepted >= 60
    z = scores(ends)
    assert np.abs(z).max() < z_limit(12), z


def test_stored_moves_of_it_go_on(models, drawn):
    system = models.system(NAME)
    move = adaptor.LiftMCMCMove(**drawn, moves={"independent": 1, "local": 1}, platform="Reference", seed=4)
    start = states.SamplerState(system.positions * unit.nanometer)
    ends_after(move, system, start, 5)
    again = pickle.loads(pickle.dumps(move))
    one, other = (ends_after(which, system, copy.deepcopy(start), 5) for which in (move, again))
    np.testing.assert_array_equal(one, other)


def test_accepting_every_lift_shows(models, files, monkeypatch):
    monkeypatch.setattr(exchange, "accepts", lambda after, before, rng: bool(np.isfinite(after)))
    z = scores(ends_of(models.system(NAME), files, 250)[0])
    assert np.abs(z).max() > 5.0, z


def ends_after(move, system, sampler_state, n=12):
    thermodynamic_state = state_of(system)
    for _ in range(n):
        move.apply(thermodynamic_state, sampler_state)
    return sampler_state.positions.value_in_unit(unit.nanometer)


def test_a_stored_move_goes_on_and_copies_go_their_own_ways(models, files):
    system = models.system(NAME)
    move, start = move_of(system, files), states.SamplerState(system.positions * unit.nanometer)
    ends_after(move, system, start)
    stored, copies = pickle.dumps(move), [copy.deepcopy(move) for _ in range(2)]
    again = pickle.loads(stored)
    assert all(which.statistics == move.statistics for which in (again, *copies))
    accepted = move.n_accepted
    one, other = (ends_after(which, system, copy.deepcopy(start)) for which in (move, again))
    np.testing.assert_array_equal(one, other)
    first, second = (ends_after(which, system, copy.deepcopy(start), 40) for which in copies)
    assert all(which.n_accepted > accepted for which in copies)
    assert not np.allclose(first, second)


def test_dynamics_on_reference_draw_on_where_they_were(models, files):
    """One random generator is shared by all Contexts of the platform."""
    system = models.system(NAME)

    def drawn(between):
        integrator = openmm.LangevinMiddleIntegrator(300, 1, 0.001)
        integrator.setRandomNumberSeed(5)
        platform = openmm.Platform.getPlatformByName("Reference")
        context = openmm.Context(system.system, integrator, platform)
        context.setPositions(system.positions)
        integrator.step(3)
        between()
        integrator.step(3)
        return context.getState(positions=True).getPositions(asNumpy=True)._value

    def attempt():
        ends_after(move_of(system, files), system, states.SamplerState(system.positions * unit.nanometer), 1)

    np.testing.assert_array_equal(drawn(lambda: None), drawn(attempt))


def test_what_has_no_exact_lift_is_refused(models, files):
    water = models.system("alanine_dipeptide_water")
    state = state_of(water, pressure=1 * unit.atmosphere)
    sampler_state = states.SamplerState(water.positions * unit.nanometer)
    with pytest.raises(InputError, match="needs a fixed volume"):
        move_of(models.system(NAME), files).apply(state, sampler_state)


def test_velocities_are_those_of_the_integrator_that_has_run(models, tmp_path):
    """Half a step before for LangevinDynamicsMove, as drawn for an integrator of openmmtools' own."""
    system, costs = models.system(CHAIN.name), []
    generator(CHAIN.name, "trained").save(tmp_path / "model.safetensors")
    with (tmp_path / "top.pdb").open("w") as file:
        app.PDBFile.writeFile(system.topology, 10 * system.positions, file, keepIds=True)
    files = {"model": tmp_path / "model.safetensors", "topology": tmp_path / "top.pdb"}
    for kind in (mcmc.LangevinDynamicsMove, mcmc.LangevinSplittingDynamicsMove):
        cache.global_context_cache.empty()
        dynamics = kind(timestep=system.time_step * unit.picosecond, n_steps=5)
        lift = adaptor.LiftMCMCMove(**files, moves="independent", seed=4)
        state, sampler_state = state_of(system), states.SamplerState(system.positions * unit.nanometer)
        for _ in range(30):
            dynamics.apply(state, sampler_state)
            with mock.patch.object(velocities, "velocities_after", wraps=velocities.velocities_after) as found:
                lift.apply(state, sampler_state)
            costs += [found.call_args.args[0].integrator.getStepSize()._value] if found.called else []
            if found.called:
                expected = velocities.velocities_after(*found.call_args.args)
                np.testing.assert_allclose(sampler_state.velocities._value, expected[0], atol=1e-12)
                assert expected[1] == (2 if kind is mcmc.LangevinDynamicsMove else 0)
    assert len(costs) > 4 and set(costs) == {system.time_step}


def test_the_present_state_is_the_target(models, drawn):
    """A parameter that a state sets in the Context, as alchemical states do, needs no new move."""
    system, lift = models.system(NAME), adaptor.LiftMCMCMove(**drawn, platform="Reference", seed=4, moves="independent")
    one, sampler_state = state_of(system), states.SamplerState(system.positions * unit.nanometer)
    lift.apply(one, sampler_state)
    made = lift._exchange
    lift.apply(copy.deepcopy(one), sampler_state)
    assert lift._exchange is made
    force = openmm.CustomExternalForce("5*x")
    force.addParticle(0, [])
    biased = openmm.XmlSerializer.clone(system.system)
    biased.addForce(force)
    lift.apply(states.ThermodynamicState(biased, system.temperature * unit.kelvin), sampler_state)
    assert lift._exchange is not made


def test_a_molecule_beside_others(tmp_path):
    """As `LiftMove` does: the others stay, and the target is exact with them."""
    simulation = beside_a_partner()
    generator(CHAIN.name, "trained").save(tmp_path / "model.safetensors")
    with (tmp_path / "top.pdb").open("w") as file:
        app.PDBFile.writeFile(simulation.topology, 10 * places(simulation), file, keepIds=True)
    lift = adaptor.LiftMCMCMove(tmp_path / "model.safetensors", tmp_path / "top.pdb", moves="independent", seed=4)
    state = states.ThermodynamicState(simulation.system, 300 * unit.kelvin)
    sampler_state = states.SamplerState(places(simulation) * unit.nanometer)
    for _ in range(20):
        lift.apply(state, sampler_state)
    moved = np.flatnonzero((sampler_state.positions._value != places(simulation)).any(axis=1))
    assert moved.tolist() == [1, 2, 3, 4, 5] and lift.n_accepted >= 2
