"""Situations of scripts that OpenMM's users have: right, or refused in a sentence (docs/existing_scripts.md)."""

import copy
import importlib
import pickle
import re
from pathlib import Path

import numpy as np
import openmm
import pytest
import torch
from openmm import amd, app, unit

import openmm_gancl as gancl
from openmm_gancl import InputError, LiftMove, LiftReporter, sample_windows, structures_at, system_from_simulation
from openmm_gancl.engine.torch_force import torch_force_type
from openmm_gancl.generator import untrained_model
from openmm_gancl.generator.torsion_windows import _backbone_names
from openmm_gancl.lifting import structures
from openmm_gancl.lifting.requirements import fitted_to
from openmm_gancl.moves.context_move import InContextMove
from openmm_gancl.moves.inverted import INDEPENDENT
from openmm_gancl.moves.relaxed_lifts import RelaxedLifts
from openmm_gancl.moves.sources import low_labels
from openmm_gancl.system import context_check
from openmm_gancl.system.thermostat import KineticTemperatures, heating, temperature_of

from ..physics import exact
from ..physics.exact import CHAIN
from ..physics.toy_generators import generator, system_and_chart
from .test_lift_move import Never, a_bias, periodic, places, simulate

MODEL = "trained"


@pytest.fixture(scope="module", autouse=True)
def with_faiss():
    """Loaded after OpenMM, it makes OpenMM's maps crash where one iterates over them."""
    importlib.import_module("faiss")


@pytest.fixture(scope="module")
def system():
    return system_and_chart(CHAIN.name)[0]


@pytest.fixture(scope="module")
def model():
    return generator(CHAIN.name, MODEL)


@pytest.fixture(scope="module")
def product(system):
    return untrained_model(system, seed=1)


def moved(system, model, **options):
    return LiftMove(simulate(system), model, moves=INDEPENDENT, **options)


# seeds (F1)


def test_two_replicas_have_different_lifts(system, model):
    one, other = moved(system, model), moved(system, model)
    records = [move.run(3) for move in (one, other)]
    assert one.seed != other.seed and {record.label for record in records[0]}.isdisjoint(
        record.label for record in records[1]
    )
    assert [record.seed for record in one.history] == [one.seed] * 3
    again = moved(system, model, seed=one.seed).run(3)
    assert repr(again) == repr(records[0])


def test_moves_in_a_context_differ_too(system, model):
    one, other = (InContextMove(system, model, md_steps=0) for _ in range(2))
    assert one.seed != other.seed and one.run(2).seed == one.seed


def test_moves_of_openmmtools_differ_and_keep_their_seed():
    pytest.importorskip("openmmtools")
    one, other = (gancl.moves.LiftMCMCMove("model.safetensors", "top.pdb") for _ in range(2))
    again = pickle.loads(pickle.dumps(one))
    assert one.__getstate__()["seed"] == again.__getstate__()["seed"] != other.__getstate__()["seed"]


def test_a_checkpoint_brings_its_seed_and_its_pilot(system, model, tmp_path):
    moves = [LiftMove(simulate(system), model, moves={"independent": 0.5, "local": 0.5}) for _ in range(2)]
    moves[0].run(5, 2)
    moves[0].save_checkpoint(tmp_path / "move.json")
    moves[0].simulation.saveCheckpoint(str(tmp_path / "simulation.chk"))
    moves[0].run(8, 2)
    moves[1].simulation.loadCheckpoint(str(tmp_path / "simulation.chk"))
    moves[1].load_checkpoint(tmp_path / "move.json")
    moves[1].run(8, 2)
    assert moves[0].seed == moves[1].seed and (places(moves[0].simulation) == places(moves[1].simulation)).all()
    assert repr(moves[0].history) == repr(moves[1].history)
    other = LiftMove(simulate(system), model, moves={"independent": 0.5, "local": 0.5}, seed=3)
    with pytest.raises(InputError, match="of a move with seed"):
        other.load_checkpoint(tmp_path / "move.json")
    assert other.seed == 3 and other.run(2)[0].seed == 3


# a System ahead of its Context (F2)


def flat_torsion():
    """A wall that is not felt where the Simulation is."""
    chain = system_and_chart(CHAIN.name)[0]
    here = float(chain.slow.transform(chain.positions[None])[0, 0])
    force = openmm.CustomTorsionForce(f"100*max(0,-cos(theta-{here})-0.3)^2")
    force.addTorsion(0, 1, 2, 3, [])
    force.setForceGroup(4)
    return force


def of_a_parameter():
    force = openmm.CustomTorsionForce("k*cos(theta)")
    force.addGlobalParameter("k", 4.0)
    force.addTorsion(0, 1, 2, 3, [])
    return force


ENTRIES = {
    "move": lambda simulation, model: LiftMove(simulation, model, moves=INDEPENDENT),
    "structures": lambda simulation, model: structures_at(simulation, model, [0.5]),
    "windows": lambda simulation, model: sample_windows(simulation, [[0.5]], slow=model.slow, steps_per_window=20),
    "context": lambda simulation, model: InContextMove(system_from_simulation(simulation, model.slow), model),
}


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)
def test_a_force_that_was_added_later_is_named(system, model, entry):
    simulation = simulate(system)
    before = places(simulation)
    simulation.system.addForce(a_bias())
    with pytest.raises(InputError, match=r"CustomTorsionForce \(number \d, force group 0\) is not in the Simulation's"):
        entry(simulation, model)
    assert (places(simulation) == before).all()


@pytest.mark.parametrize("late", [flat_torsion, of_a_parameter])
def test_one_without_an_energy_here_or_of_a_parameter(system, model, late, monkeypatch):
    simulation = simulate(system)
    simulation.system.addForce(late())
    with pytest.raises(
        InputError, match=r"CustomTorsionForce .*after the Simulation was made; simulation.context.reini"
    ):
        LiftMove(simulation, model, moves=INDEPENDENT)
    if late is flat_torsion:  # the twin: the present configuration alone shows nothing
        monkeypatch.setattr(context_check, "DISPLACEMENTS", ())
        monkeypatch.setattr(context_check, "SCALES", ())
        LiftMove(simulation, model, moves=INDEPENDENT)
    simulation.context.reinitialize(preserveState=True)
    LiftMove(simulation, model, moves=INDEPENDENT)


def test_parameters_of_a_force_that_were_changed_in_the_system_alone(system, model):
    simulation = simulate(system, forces=[a_bias()])
    simulation.system.getForces()[-1].setEnergyFunction("9*cos(theta)")
    with pytest.raises(InputError, match=r"is not in the Simulation's Context|a force was changed"):
        LiftMove(simulation, model)


def test_in_a_box_with_a_barostat_too(system, model):
    simulation = simulate(system, forces=[openmm.MonteCarloBarostat(1.0, 300.0)], change=periodic)
    system_from_simulation(simulation, model.slow)
    simulation.system.addForce(a_bias())
    with pytest.raises(InputError, match=r"CustomTorsionForce \(number \d, force group 0\) is not in the Simulation's"):
        system_from_simulation(simulation, model.slow)


def test_a_constraint_that_was_added_later(system, model):
    simulation = simulate(system)
    length = float(np.linalg.norm(system.positions[0] - system.positions[1]))
    simulation.system.addConstraint(0, 1, length)
    before = places(simulation)
    with pytest.raises(InputError, match="does not have the System's constraints"):
        system_from_simulation(simulation, model.slow)
    assert (places(simulation) == before).all()
    simulation.context.reinitialize(preserveState=True)
    system_from_simulation(simulation, model.slow)


def test_masses_that_were_changed_later(system, model):
    simulation = simulate(system)
    velocities = simulation.context.getState(velocities=True).getVelocities(asNumpy=True)._value
    simulation.system.setParticleMass(4, 2.0 * simulation.system.getParticleMass(4))
    with pytest.raises(InputError, match="does not have the System's masses"):
        LiftMove(simulation, model, moves=INDEPENDENT)
    after = simulation.context.getState(velocities=True).getVelocities(asNumpy=True)._value
    assert (after == velocities).all()
    simulation.context.reinitialize(preserveState=True)
    LiftMove(simulation, model, moves=INDEPENDENT)


# a bias that changes (F3, F4)


def umbrella(state):
    """A bias with a centre, of which OpenMM cannot set the default."""
    x = state.getPositions(asNumpy=True)._value
    force = np.zeros_like(x)
    length = np.linalg.norm(x[3] - x[0])
    away = length - state.getParameters()["centre"]
    force[3] = -400.0 * away * (x[3] - x[0]) / length
    force[0] = -force[3]
    return 200.0 * away**2, force


def test_a_centre_that_is_a_parameter_of_the_context(system, model, product):
    simulation = simulate(system, forces=[openmm.PythonForce(umbrella, {"centre": 0.2})])
    simulation.context.setParameter("centre", 0.35)
    state = simulation.context.getState(energy=True)
    copied = system_from_simulation(simulation, model.slow)
    context = openmm.Context(copied.system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform("Reference"))
    context.setPositions(copied.positions)
    assert context.getState(energy=True).getPotentialEnergy() == state.getPotentialEnergy()
    for made in (model, product):
        move = LiftMove(simulation, made, platform="Reference", **({"relax_steps": 5} if made is product else {}))
        simulation.context.setParameter("centre", 0.3)
        assert move.attempt().reason_before == "ok"
        move.refresh()
        assert move.attempt().reason_before == "ok" and len(move.history) == 2


@pytest.mark.parametrize("kind", ["product", "latent"])
def test_what_has_not_changed_changes_no_weight(system, model, product, kind, monkeypatch):
    """The energy at the end of a path is that of the Simulation there."""
    right, changes = RelaxedLifts._now, []

    def noted(self, lift, energy_then):
        if np.isfinite(lift.log_weight):
            changes.append(self.energy(lift.positions) - energy_then)
        return right(self, lift, energy_then)

    monkeypatch.setattr(RelaxedLifts, "_now", noted)
    made, options = (product, {}) if kind == "product" else (model, {"relax": "latent"})
    LiftMove(simulate(system), made, relax_steps=3, platform="Reference", seed=1, **options).run(6, 2)
    assert len(changes) >= 6 and np.abs(changes).max() < 1e-6


CALLS = []


def counted(state):
    """A force of nothing, which records that it was asked for."""
    CALLS.append(1)
    return 0.0, np.zeros((5, 3))


def test_the_record_counts_what_was_evaluated(system, model):
    move = LiftMove(simulate(system, forces=[openmm.PythonForce(counted)]), model, seed=1)
    CALLS.clear()
    records = move.run(20)
    assert sum(record.force_evaluations for record in records) == len(CALLS)
    assert move.force_evaluations == move.pilot_evaluations + len(CALLS)


def test_lifts_that_are_made_ahead_are_counted(system, product):
    move = LiftMove(simulate(system), product, relax_steps=5, platform="Reference", seed=1)
    record = move.attempt()
    assert move.force_evaluations == 32 * 7 + 7 + 2 and record.force_evaluations <= 2 * 7 + 2
    move.refresh()
    move.attempt()
    assert 2 * (33 * 7) <= move.force_evaluations <= 2 * (33 * 7 + 2)


def test_a_chain_that_carries_its_weight_notices_a_bias(system, product):
    simulation = simulate(system, forces=[of_a_parameter()])
    move = LiftMove(simulation, product, relax_steps=5, acceptance="metropolis", platform="Reference", seed=1)
    while not move.attempt().accepted:
        pass
    simulation.context.setParameter("k", 40.0)
    with pytest.raises(InputError, match="energy has changed since the last attempt"):
        move.attempt()


# temperatures (F5)


class Custom(openmm.CustomIntegrator):
    """Brownian dynamics, which tells nobody its temperature."""

    def __init__(self, temperature=300.0, force="f"):
        super().__init__(0.0005)
        self.addGlobalVariable("a", float(np.exp(-0.0005 * 50)))
        self.addGlobalVariable("scale", float((1 - np.exp(-2 * 0.0005 * 50)) * 0.0083144626 * temperature))
        self.addUpdateContextState()
        self.addComputePerDof("v", f"v+dt*{force}/m")
        self.addComputePerDof("x", "x+0.5*dt*v")
        self.addComputePerDof("v", "a*v+sqrt(scale/m)*gaussian")
        self.addComputePerDof("x", "x+0.5*dt*v")


def two_thermostats(other):
    """Of parts of the chain."""
    integrator = openmm.NoseHooverIntegrator(0.001)
    for atoms, temperature in (([0, 1], 300.0), ([2, 3, 4], other)):
        integrator.addSubsystemThermostat(atoms, [], temperature, 1.0, 1.0, 1.0, 3, 3, 3)
    return integrator


def test_thermostats_of_parts_with_one_temperature(system, model):
    assert LiftMove(simulate(system, integrator=two_thermostats(300.0)), model, moves=INDEPENDENT).run(2, 2)


def verlet_with_thermostat(system):
    return simulate(system, integrator=openmm.VerletIntegrator(0.001), forces=[openmm.AndersenThermostat(300, 5)])


def test_integrators_whose_temperature_is_elsewhere(system, model):
    groups = simulate(system, integrator=openmm.MTSLangevinIntegrator(300, 1, 0.001, [(0, 2)]))
    for simulation in (groups, verlet_with_thermostat(system)):
        assert temperature_of(simulation) == 300.0 and LiftMove(simulation, model, moves=INDEPENDENT).run(2, 2)
        with pytest.raises(InputError, match=r"temperature is 310 K, and .* keeps 300 K: leave temperature out"):
            LiftMove(simulation, model, temperature=310)
    with pytest.raises(InputError, match="Custom does not say which temperature it keeps: give temperature="):
        LiftMove(simulate(system, integrator=Custom()), model)
    assert LiftMove(simulate(system, integrator=Custom()), model, moves=INDEPENDENT, temperature=300).run(2, 2)
    structures_at(
        simulate(system, integrator=Custom()), model, [0.5], temperature=300 * unit.kelvin, platform="Reference"
    )
    with pytest.raises(InputError, match="a system has a temperature of its own"):
        structures_at(system, model, [0.5], temperature=300)


@pytest.mark.parametrize(
    ("integrator", "forces", "message"),
    [
        (
            lambda: openmm.VerletIntegrator(0.001),
            [],
            "keeps the energy, not a temperature: add an openmm.AndersenTherm",
        ),
        (lambda: openmm.NoseHooverIntegrator(0.001), [], "keeps the energy, not a temperature"),
        (lambda: two_thermostats(450.0), [], "keeps 300 K and 450 K in parts of the System"),
        (lambda: amd.AMDIntegrator(0.001, 1.0, 1.0), [], "samples a boosted potential"),
        (
            lambda: openmm.LangevinMiddleIntegrator(300, 1, 0.001),
            [openmm.AndersenThermostat(310, 1)],
            "keeps 300 K and the AndersenThermostat 310 K",
        ),
        (
            lambda: openmm.MTSLangevinIntegrator(300, 1, 0.001, [(0, 1)]),
            [flat_torsion()],
            "leaves force groups out .group 4, of a CustomTorsionForce",
        ),
        (lambda: Custom(force="f0"), [flat_torsion()], "leaves force groups out"),
    ],
)
def test_integrators_that_sample_something_else(system, model, integrator, forces, message):
    with pytest.raises(InputError, match=message):
        LiftMove(simulate(system, integrator=integrator(), forces=forces), model, temperature=300)


def test_a_variable_step_that_runs_hot_is_reported(system, model):
    simulation = simulate(system, integrator=openmm.VariableLangevinIntegrator(300, 1, 0.01))
    move = LiftMove(simulation, model, moves=INDEPENDENT, seed=1)
    with pytest.warns(UserWarning, match=r"VariableLangevinIntegrator is to keep 300 K, and .* a smaller error tol"):
        move.run(128, 50)
    assert len(move.doubts) == 1
    right = simulate(system, integrator=openmm.LangevinMiddleIntegrator(300, 20, 0.001))
    move = LiftMove(right, model, moves=INDEPENDENT, seed=1)
    move.run(128, 50)
    assert not move.doubts


def test_a_temperature_that_is_not_true_is_reported(system, model):
    move = LiftMove(simulate(system, integrator=Custom(450.0)), model, moves=INDEPENDENT, temperature=300, seed=1)
    with pytest.warns(UserWarning, match=r"Custom is to keep 300 K.*or its true temperature"):
        move.run(128, 50)


def seen(ratios, interval, draws=0):
    """Kinetic temperatures, ps apart; so many velocities drawn anew before the last of them."""
    n = len(ratios)
    return KineticTemperatures(list(ratios), [i * interval for i in range(n)], [draws * i // n for i in range(n)])


def test_velocities_that_hardly_change_say_little(system):
    noise, simulation = 0.1 * np.random.default_rng(1).normal(size=200), simulate(system)
    noise[100:] -= noise[100:].mean()
    assert heating(seen(1.3 + noise, 0.05), 300.0, simulation, 15) is None  # 5 ps at 1/ps, however they look
    assert "390 K" in heating(seen(1.3 + noise, 2.0), 300.0, simulation, 15)
    assert "390 K" in heating(seen(1.3 + noise, 0.05, draws=200), 300.0, simulation, 15)
    blown_up = 1.0 + 1e6 * (np.arange(200) % 50 == 0)  # whose own variance would hide any mean
    assert "6000300 K" in heating(seen(blown_up, 2.0), 300.0, simulation, 15)
    assert heating(seen(1.0 + noise, 2.0), 300.0, simulation, 15) is None


def hot(system, temperature=330):
    return simulate(system, integrator=openmm.LangevinMiddleIntegrator(temperature, 1, 0.001))


def log_weight_before(move):
    """By the formula, of where a move's Simulation is."""
    state = move.simulation.context.getState(positions=True, energy=True)
    placed = move._exchange.source.chart.find(state.getPositions(asNumpy=True)._value[None])
    kT = 0.00831446261815324 * move.simulation.integrator.getTemperature()._value
    log_p = move._sourced.label_proposal.log_prior(placed.labels)[0]
    return placed.log_measure[0] - state.getPotentialEnergy()._value / kT - log_p


def test_a_model_of_another_temperature_on_request(system, model):
    with pytest.raises(InputError, match=r"trained at 300 K, the simulation is at 330 K.*may_differ=\['temperature'\]"):
        LiftMove(hot(system), model)
    move = LiftMove(hot(system), model, moves=INDEPENDENT, may_differ=["temperature"], seed=1)
    for temperature in (330.0, 400.0):  # as tempering does
        move.simulation.integrator.setTemperature(temperature)
        expected = log_weight_before(move)
        assert move.attempt().log_weight_before == pytest.approx(expected, abs=1e-9)
        assert move._exchange.system.temperature == temperature
    with pytest.raises(InputError, match="give a list of some of residue numbers, temperature"):
        LiftMove(hot(system), model, may_differ="temperature")


def test_a_product_model_of_another_temperature(system, monkeypatch):
    """Its reference is drawn at the Simulation's: the mean weight is the integral at that, and not at the model's."""
    widths = {"bond": 0.035, "angle": 0.4, "torsion": 1.0}
    made = untrained_model(system, seed=1, latent_size=0, strength=0.2, widths=widths)
    hotter = system_from_simulation(hot(system, 400), made.slow)
    options = {"relax_steps": 100, "mode": "unrestrained", "platform": "Reference"}
    lifter = structures.Lifter(hotter, fitted_to(made, hotter, ["temperature"]), **options)
    lifts = lifter.lift(np.random.default_rng(1).uniform(-np.pi, np.pi, (1200, 1)), seed=2)
    z = []
    for temperature in (400.0, 300.0):
        monkeypatch.setattr(exact, "KT", 8.31446261815324e-3 * temperature)
        weights = np.exp(lifts.log_weights - CHAIN.log_z())
        z.append((weights.mean() - 1.0) / (weights.std() / len(weights) ** 0.5))
    assert abs(z[0]) < 3.5 and z[1] > 5.0, z


def test_other_residue_numbers_on_request(system, model):
    topology = copy.deepcopy(system.topology)
    for residue in topology.residues():
        residue.id = "77"
    with pytest.raises(InputError, match=r"a move takes may_differ=\['residue numbers'\]"):
        LiftMove(simulate(system, topology=topology), model)
    options = {"moves": INDEPENDENT, "may_differ": ["residue numbers"]}
    assert LiftMove(simulate(system, topology=topology), model, **options).run(2)
    for atom in topology.atoms():
        atom.name = "X"
    with pytest.raises(InputError, match="atom 0 is"):
        LiftMove(simulate(system, topology=topology), model, **options)


# learned labels (F6)


def test_the_surface_beside_that_over_learned_labels_is_found(system, tmp_path):
    edges = (np.linspace(-np.pi, np.pi, 37),)
    energy, period = np.where(np.arange(36) == 20, 0.0, 60.0), np.array([2 * np.pi])

    def surface(name):
        return gancl.FreeEnergySurface(energy, np.zeros(36), edges, (name,), period, 300.0, 0, ("rad",))

    surface("dm1").save(tmp_path / "fes.npz")
    with pytest.raises(InputError, match=r"over dm1, the model's labels are phi: .* fes_phi.npz"):
        low_labels(tmp_path / "fes.npz", system, False)
    surface("phi").save(tmp_path / "fes_phi.npz")
    assert low_labels(tmp_path / "fes.npz", system, False).probabilities[20] > 0.9
    other = structures.replace(system, slow=structures.replace(system.slow, names=("phi:B/52A",)))
    surface("phi:B/52A").save(tmp_path / "fes_phi:B-52A.npz")
    assert low_labels(tmp_path / "fes.npz", other, False).probabilities[20] > 0.9


def test_lifts_that_missed_their_labels_are_not_called_exact(system, product):
    found = structures.Lifter(system, product, relax_steps=5, platform="Reference").lift(np.full((8, 1), 0.5), seed=1)
    width = (system.kT / found.force_constants[0]) ** 0.5

    def said(deviation):
        shifted = {"cv_values": found.labels + deviation, "log_weights": np.zeros(8), "reason": np.full(8, "ok")}
        return structures._reached(structures.replace(found, **shifted))

    assert said(1.5 * width) is None
    assert said(6 * width).startswith("not exact: of 1 labels 1 were missed by more than 4 widths")
    lost = structures.replace(found, log_weights=np.full(8, -np.inf), reason=np.full(8, "clash"))
    assert "1 have no lift with a weight" in structures._reached(lost)


def test_torsions_are_named_as_cards_name_them():
    names = ["ACE1-C", "ALA2-N", "ALA2-CA", "ALA2-C", "NME3-N", "ALA3-CA", "ALA3-C", "NME4-N"]
    assert _backbone_names(names, [[0, 1, 2, 3], [4, 3, 2, 1]]) == ("phi", "psi")
    assert _backbone_names(names, [[1, 2, 3, 4], [4, 5, 6, 7]]) == ("psi:2", "psi:3")
    assert _backbone_names(["L1-C"] * 5, [[0, 1, 2, 3], [1, 2, 3, 4]]) == ("0-1-2-3", "1-2-3-4")


# what belongs elsewhere, and why lifts are hardly accepted


def test_acceptance_near_zero_says_why(system, model):
    move = Never(simulate(system), model, moves=INDEPENDENT, seed=1)
    with pytest.warns(
        UserWarning, match=r"0 of the last 64 lifts .* give surface= of the run, for labels are drawn ev"
    ):
        move.run(64, 1)
    assert len(move.doubts) == 1 and "give moves='auto'" in move.doubts[0]
    move._options = structures.replace(move._options, moves="auto")
    assert "give moves='auto'" not in move.doubts[0]  # which is what a pilot has done already
    assert not LiftMove(simulate(system), model, moves=INDEPENDENT, seed=1).doubts


def test_why_says_what_has_no_weight(system, model):
    class Elsewhere(gancl.lifting.UniformProposal):
        def log_prior(self, labels):
            return np.full(len(labels), -np.inf) if len(labels) == 1 else super().log_prior(labels)

    proposal = Elsewhere(system.slow, system.force_constants, system.kT)
    move = LiftMove(simulate(system), model, moves=INDEPENDENT, label_proposal=proposal, seed=1)
    with pytest.warns(
        UserWarning, match=r"had no weight 64 times \(label\), and nothing leads away from it; p\(s\) is"
    ):
        move.run(64, 1)


def test_what_is_given_to_the_wrong_object_says_where_it_belongs(system, model, tmp_path):
    simulation = simulate(system)
    with pytest.raises(InputError, match=r"takes a system, not a Simulation: give gancl.system_from_simulation"):
        InContextMove(simulation, model)
    simulation.reporters.append(LiftReporter(tmp_path / "moves.csv"))
    with pytest.raises(InputError, match=r"take it out of simulation.reporters and give it to the move"):
        simulation.step(1)


def test_a_lambda_in_a_force_is_named(system, model):
    force = openmm.PythonForce(lambda state: (0.0, np.zeros((5, 3))))
    with pytest.raises(InputError, match="a PythonForce of the System runs a function that cannot be pickled"):
        LiftMove(simulate(system, forces=[force]), model)


class Cosine(torch.nn.Module):
    """3 kJ/mol times the cosine of the label."""

    def forward(self, positions):
        first, second, third = positions[1] - positions[0], positions[2] - positions[1], positions[3] - positions[2]
        one, other = torch.linalg.cross(first, second), torch.linalg.cross(second, third)
        return 3.0 * (one * other).sum() / (torch.linalg.norm(one) * torch.linalg.norm(other))


@pytest.mark.skipif(torch_force_type() is None, reason="a TorchForce of the user's needs openmm-torch")
def test_a_torch_force_is_weighed_as_a_native_one(system, model):
    native = openmm.CustomTorsionForce("3*cos(theta)")
    native.addTorsion(0, 1, 2, 3, [])
    records = []
    for force in (native, torch_force_type()(torch.jit.script(Cosine()))):
        records.append(LiftMove(simulate(system, forces=[force]), model, moves=INDEPENDENT, seed=2).run(20))
    for one, other in zip(*records, strict=True):
        assert one.accepted == other.accepted and abs(one.log_weight_before - other.log_weight_before) < 1e-6


def test_a_topology_that_lacks_bonds_is_named(system, model):
    lacking = app.Topology()
    residue = lacking.addResidue("MOL", lacking.addChain())
    atoms = [lacking.addAtom(atom.name, atom.element, residue) for atom in system.topology.atoms()]
    lacking.addBond(atoms[0], atoms[1])
    with pytest.raises(
        InputError, match="the Topology lacks bonds: by them the System is 4 molecules, by its forces 1"
    ):
        LiftMove(simulate(system, topology=lacking), model)


def test_the_page_has_all_thirty():
    page = (Path(__file__).parents[2] / "docs" / "existing_scripts.md").read_text()
    assert [int(n) for n in re.findall(r"^\| (\d+) \| .+ \| .+ \|$", page, flags=re.MULTILINE)] == list(range(1, 31))
