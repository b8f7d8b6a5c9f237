"""Moves of invertible generators in a user's own Simulation: what they leave alone, refuse, record and go on with."""

import copy
import csv
import io
import itertools
from dataclasses import replace

import numpy as np
import openmm
import pytest
import torch

from openmm_gancl import InputError, LiftMove, LiftReporter, load_system, structures_at
from openmm_gancl.engine.platforms import PotentialEnergy
from openmm_gancl.free_energy import FreeEnergySurface
from openmm_gancl.generator.invertible import InvertibleGenerator
from openmm_gancl.generator.score_fit import untrained_triangular
from openmm_gancl.generator.trained_for import system_metadata
from openmm_gancl.lifting.label_proposals import UniformProposal
from openmm_gancl.moves.inverted import INDEPENDENT, LOCAL, InvertedChart, Local
from openmm_gancl.moves.sources import low_labels
from openmm_gancl.reference.chart import chart_for

from ..physics.exact import CHAIN, DOUBLE_WELL
from ..physics.toy_generators import generator
from .test_lift_move import Never, a_bias, places, simulate

NAME = CHAIN.name


@pytest.fixture(scope="module")
def system():
    return load_system(NAME)


@pytest.fixture(scope="module")
def model():
    return generator(NAME, "trained")


def state(simulation):
    """All that a failed attempt must not change."""
    found = simulation.context.getState(positions=True, velocities=True, parameters=True)
    arrays = found.getPositions(asNumpy=True)._value, found.getVelocities(asNumpy=True)._value
    return [*(array.tolist() for array in arrays), dict(found.getParameters()), simulation.currentStep]


def broken(model):
    """One whose map returns NaN."""
    changed = copy.deepcopy(model)
    changed.map.narrow.mean[:] = torch.nan
    return changed


@pytest.mark.parametrize("moves", [INDEPENDENT, LOCAL, {"independent": 3, "local": 1}])
def test_nothing_of_the_simulation_changes_but_where_it_is(system, model, moves):
    simulation = simulate(system)
    before = openmm.XmlSerializer.serialize(simulation.system), openmm.XmlSerializer.serialize(simulation.integrator)
    start = state(simulation)
    move = LiftMove(simulation, model, moves=moves, seed=1)
    assert state(simulation) == start
    records = move.run(40, 5)
    assert simulation.currentStep == 200 and [record.step for record in records] == list(range(5, 205, 5))
    after = openmm.XmlSerializer.serialize(simulation.system), openmm.XmlSerializer.serialize(simulation.integrator)
    assert before == after
    assert 0 < sum(record.accepted for record in records) < 40
    assert all(record.force_evaluations == 2 + 2 * record.accepted for record in records)
    assert {record.move for record in records} == ({moves} if isinstance(moves, str) else set(moves))
    for record in records:
        assert record.after == (record.label if record.accepted else record.before)


def test_attempts_that_are_rejected_leave_a_seeded_trajectory_alone(system, model):
    plain = simulate(system)
    plain.step(100)
    moved = simulate(system)
    Never(moved, model, seed=1).run(4, 25)
    assert (places(moved) == places(plain)).all()


def test_both_energies_are_the_simulations_own(system, model):
    """So a bias that grows is part of the target of each attempt, and no copy is compared."""
    simulation = simulate(system, forces=[a_bias()])
    move = LiftMove(simulation, model, moves=INDEPENDENT, seed=1)
    force = simulation.system.getForces()[-1]
    for height in (1.0, 30.0):
        here = move.simulation.context.getState(positions=True, energy=True)
        expected = here.getPotentialEnergy()._value
        placed = move._exchange.source.chart.find(here.getPositions(asNumpy=True)._value[None])
        record = move.attempt()
        r = placed.log_measure[0] - expected / system.kT - move._sourced.label_proposal.log_prior(placed.labels)[0]
        assert record.log_weight_before == pytest.approx(r, abs=1e-9)
        force.setEnergyFunction(f"{height}*cos(theta)")
        simulation.context.reinitialize(preserveState=True)


def test_the_same_seed_gives_the_same_chain_and_a_checkpoint_goes_on(system, model, tmp_path):
    def chain(**options):
        simulation = simulate(system)
        return simulation, LiftMove(simulation, model, seed=5, **options)

    simulation, move = chain(moves={"independent": 0.5, "local": 0.5})
    move.run(34, 3)
    move.save_checkpoint(tmp_path / "move.json")
    simulation.saveCheckpoint(str(tmp_path / "simulation.chk"))
    move.run(20, 10)
    again, other = chain(moves={"independent": 0.5, "local": 0.5})
    again.loadCheckpoint(str(tmp_path / "simulation.chk"))
    other.load_checkpoint(tmp_path / "move.json")
    other.run(20, 10)
    assert (places(again) == places(simulation)).all()
    assert repr(other.history) == repr(move.history) and len(other.history) == 54
    with pytest.raises(InputError, match="is of a move with moves"):
        chain(moves=INDEPENDENT)[1].load_checkpoint(tmp_path / "move.json")


def test_a_record_is_a_line(system, model):
    stream = io.StringIO()
    move = LiftMove(simulate(system), model, moves=LOCAL, seed=2)
    move.reporters.append(LiftReporter(stream))
    move.run(3, 2)
    rows = list(csv.DictReader(io.StringIO(stream.getvalue())))
    assert [row["move"] for row in rows] == [LOCAL] * 3 and [row["reason_before"] for row in rows] == ["ok"] * 3
    assert [row["force_evaluations"] for row in rows] == ["2"] * 3


class Beyond(UniformProposal):
    """Draws labels outside the domain."""

    def sample(self, n, rng):
        return super().sample(n, rng) + 9.0


class Denies(UniformProposal):
    """Draws where its own density is zero."""

    def log_prior(self, labels):
        return np.where(labels[:, 0] > 0, -np.inf, 0.0)


def test_a_model_that_returns_nan_is_refused(system, model):
    simulation = simulate(system)
    before = state(simulation)
    with pytest.raises(InputError, match="the model returns NaN"):
        LiftMove(simulation, broken(model), seed=1)
    assert state(simulation) == before
    move = LiftMove(simulation, copy.deepcopy(model), moves=INDEPENDENT, seed=1)
    move.model.map.narrow.mean[:] = torch.nan
    with pytest.raises(InputError, match="the model returns NaN"):
        move.attempt()
    assert state(simulation) == before and not move.history


@pytest.mark.parametrize(("kind", "message"), [(Beyond, "beyond 2 pi"), (Denies, "its log_prior is wrong")])
def test_labels_that_cannot_be_are_refused(system, model, kind, message):
    simulation = simulate(system)
    before = state(simulation)
    proposal = kind(system.slow, system.force_constants, system.kT)
    move = LiftMove(simulation, model, moves=INDEPENDENT, label_proposal=proposal, seed=1)
    with pytest.raises(InputError, match=message):
        move.attempt()
    assert state(simulation) == before and not move.history


def test_a_model_of_another_topology_is_refused(system):
    simulation = simulate(system)
    before = state(simulation)
    with pytest.raises(InputError, match=r"the model has 1 atoms, the simulation has 5"):
        LiftMove(simulation, generator(DOUBLE_WELL.name, "trained"))
    assert state(simulation) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"moves": "all"}, "choose auto, independent, local"),
        ({"moves": {"independent": -1.0, "local": 2.0}}, "give shares"),
        ({"moves": {"far": 1.0}}, "give shares"),
        ({"relax": "context"}, "choose none or latent"),
        ({"relax_steps": 5}, "`relax_steps` has no meaning"),
        ({"force_constants": 5.0}, "`force_constants` has no meaning"),
        ({"relax": "latent", "moves": "local"}, "local moves are of lifts without relaxation"),
        ({"acceptance": "metropolis"}, "every configuration has its own"),
    ],
)
def test_options_that_mean_nothing_are_refused(system, model, options, message):
    simulation = simulate(system)
    before = state(simulation)
    with pytest.raises(InputError, match=message):
        LiftMove(simulation, model, **options)
    assert state(simulation) == before


def test_relaxed_in_base_numbers(system, model):
    move = LiftMove(simulate(system), model, relax="latent", relax_steps=2, seed=1, platform="Reference")
    records = move.run(8, 3)
    assert str(move).startswith("LiftMove(relaxed lifts, 2 moves of base numbers by steps of")
    assert all(
        record.move == "relaxed" and record.force_evaluations - 2 * record.accepted in (0, 4, 8) for record in records
    )
    alone = LiftMove(
        simulate(system), model, relax="latent", relax_steps=2, acceptance="metropolis", platform="Reference"
    )
    assert alone.run(3)[0].accepted


def test_a_clash_or_a_failing_energy_is_rejected(system, model):
    calls = itertools.count()
    chart = InvertedChart(system, model, lambda positions: float("nan") if next(calls) % 2 else 0.0)
    move = LiftMove(simulate(system), model, moves=INDEPENDENT, seed=1)
    move._exchange.source.chart = chart
    records = move.run(3, 1)
    assert not any(record.accepted for record in records)
    assert {record.reason for record in records} == {"nan"} and {record.reason_before for record in records} == {"ok"}


def test_outside_the_declared_state_nothing_is_evaluated(system, model):
    class Nowhere:
        def inside(self, positions):
            return np.zeros(len(positions), dtype=bool)

    chart = InvertedChart(copy.copy(system), model, None)
    object.__setattr__(chart.system, "state", Nowhere())
    assert chart.find(system.positions[None]).reason[0] == "state"


def test_a_surface_is_not_smeared_for_lifts_that_keep_their_labels(system):
    edges = (np.linspace(-np.pi, np.pi, 37),)
    energy = np.where(np.arange(36) == 20, 0.0, 60.0)
    surface = FreeEnergySurface(energy, np.zeros(36), edges, ("phi",), np.array([2 * np.pi]), 300.0, 0, ("rad",))
    sharp, smeared = (low_labels(surface, system, smeared).probabilities for smeared in (False, True))
    assert sharp[20] > 0.9 > smeared[20] and abs(sharp.sum() - 1) < 1e-12


def test_hydrogens_in_another_order_move_as_they_are():
    """Two of a methyl group that have changed places: inverted in the model's order, and put back in theirs."""
    alanine = load_system("alanine_dipeptide_vacuum")
    chart = chart_for(alanine.topology, alanine.slow, alanine.positions, alanine.constraints)
    scales = np.repeat([0.002, 0.02, 0.05], [chart.n_bonds, chart.n_angles, chart.n_torsions])
    origin, rng = chart.to_internal(alanine.positions[None])[0], np.random.default_rng(1)
    made = untrained_triangular(chart, alanine.slow, origin, scales, rng, strength=0.1)
    energy = PotentialEnergy(alanine.system, "Reference")
    inverted = InvertedChart(alanine, InvertibleGenerator(made, chart, alanine.slow, system_metadata(alanine)), energy)
    swapped = alanine.positions.copy()
    first, second = inverted.hydrogens.neighbours[0, :2]
    swapped[[first, second]] = swapped[[second, first]]
    both = np.stack([alanine.positions, swapped])
    assert (inverted.hydrogens.order(both)[1] != np.arange(22)).sum() == 2
    kernel = Local(inverted.generator, 0.01, 0.1)
    pairs = [inverted.weigh_pairs(kernel, one[None], np.random.default_rng(2)) for one in both]
    for i in range(2):
        assert pairs[0][i].log_weights == pytest.approx(pairs[1][i].log_weights, abs=1e-6)
    there = pairs[1][1].positions
    assert (inverted.hydrogens.order(there)[0] == inverted.hydrogens.order(swapped[None])[0]).all()


def test_structures_at_labels_are_kept_by_weight(system, model):
    found = structures_at(system, model, [[0.5], [2.0]], 6, seed=3, platform="Reference")
    assert found.positions.shape == (12, 5, 3) and np.isfinite(found.energies).all()
    assert np.abs(found.label_errors(system.slow)).max() < 1e-9
    assert (found.log_weights.reshape(2, 6) == found.log_weights[[0, 6], None]).all()
    assert found.guarantee.startswith("exact: kept by weight of 64 draws a label") and found.force_evaluations <= 128
    simulation = simulate(system)
    before = state(simulation)
    assert len(structures_at(simulation, model, [0.5], 2, platform="Reference")) == 2
    assert state(simulation) == before
    with pytest.raises(InputError, match="`relax_steps` has no meaning"):
        structures_at(system, model, [0.5], relax_steps=5)
    with pytest.raises(InputError, match="label 9 is beyond 2 pi"):
        structures_at(system, model, [9.0])


def test_structures_say_how_many_are_copies(system, model):
    """Of draws of few effective ones a label keeps the same ones again and again; the twin: none is said to be."""
    assert "are different" not in structures_at(system, model, [0.5], 6, seed=3, platform="Reference").guarantee
    cold, how = replace(system, temperature=10.0), {"may_differ": ["temperature"], "platform": "Reference"}
    found = structures_at(cold, model, [0.5], 40, seed=3, **how)
    n = len(np.unique(found.positions.reshape(40, -1), axis=0))
    assert n < 20 and f"of the 40 of a label as few as {n} are different" in found.guarantee
