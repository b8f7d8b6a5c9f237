"""Short windows: frames with the real forces, counted, reproducible, in the declared state."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import openmm
import pytest
from openmm import app

from openmm_gancl import InputError, load_system
from openmm_gancl.coordinates.geometry import wrap
from openmm_gancl.engine.restraint_forces import add_restraint
from openmm_gancl.lifting.evaluation import evaluate
from openmm_gancl.reference.chart import chart_for
from openmm_gancl.sampling.short_windows import MovingRestraint, ShortWindows, sample_short_windows
from openmm_gancl.system.molecular_system import system_from_objects

FEW = ShortWindows(n=6, steering_steps=50, n_frames=5, stride=2)


@pytest.fixture(scope="module")
def system():
    return load_system("alanine_dipeptide_vacuum")


@pytest.fixture(scope="module")
def frames(system):
    return sample_short_windows(system, np.random.default_rng(1), FEW)


def test_every_window_gives_its_frames(system, frames):
    assert frames.positions.shape == frames.forces.shape == (30, system.n_atoms, 3)
    assert len(np.unique(frames.labels, axis=0)) == 6
    assert (frames.labels.reshape(6, 5, 2) == frames.labels.reshape(6, 5, 2)[:, :1]).all()
    assert frames.force_evaluations == FEW.force_evaluations == 6 * (50 + 5 * 3)


def test_frames_lie_near_their_labels(system, frames):
    """A restraint lets 0.11 radians of thermal motion through; five times that, and what lags behind the steering."""
    off = wrap(system.slow.transform(frames.positions) - frames.labels, system.slow.periods)
    assert np.abs(off).max() < 1.0 and np.sqrt((off**2).mean()) < 0.4
    mixed = wrap(system.slow.transform(frames.positions) - frames.labels[::-1], system.slow.periods)
    assert np.sqrt((mixed**2).mean()) > 1.0


def test_forces_are_the_real_ones_without_the_restraint(system, frames):
    _, forces = evaluate(openmm.XmlSerializer.serialize(system.system), frames.positions, "Reference")
    assert np.allclose(forces, frames.forces, rtol=0, atol=1e-6)
    biased = openmm.XmlSerializer.clone(system.system)
    add_restraint(biased, system.slow, system.force_constants, 1)
    _, wrong = evaluate(openmm.XmlSerializer.serialize(biased), frames.positions, "Reference")
    assert np.abs(wrong - frames.forces).max() > 10.0


def test_evaluations_are_those_that_were_made(system, monkeypatch):
    steps = []
    real = openmm.LangevinMiddleIntegrator.step
    monkeypatch.setattr(openmm.LangevinMiddleIntegrator, "step", lambda self, n: (steps.append(n), real(self, n))[1])
    windows = ShortWindows(n=2, steering_steps=13, n_frames=3, stride=2)
    frames = sample_short_windows(system, np.random.default_rng(1), windows)
    assert frames.force_evaluations == sum(steps) + len(frames.positions) == 2 * (13 + 3 * 3)


def test_the_same_generator_gives_the_same_frames(system, frames):
    again = sample_short_windows(system, np.random.default_rng(1), FEW)
    other = sample_short_windows(system, np.random.default_rng(2), FEW)
    assert np.array_equal(again.positions, frames.positions) and np.array_equal(again.labels, frames.labels)
    assert not np.array_equal(other.labels, frames.labels)


def test_a_window_begins_at_the_end_of_the_nearest(system, monkeypatch):
    begun = []
    real = openmm.Context.setPositions
    monkeypatch.setattr(
        openmm.Context, "setPositions", lambda self, at: (begun.append(np.array(at)), real(self, at))[1]
    )
    frames = sample_short_windows(system, np.random.default_rng(1), FEW)
    ends = [system.positions, *frames.positions.reshape(6, 5, -1, 3)[:, -1]]
    reached = [system.slow.transform(system.positions[None])[0], *frames.labels[::5]]
    for i, start in enumerate(begun):
        gaps = (wrap(reached[i + 1] - np.array(reached[: i + 1]), system.slow.periods) ** 2).sum(axis=1)
        assert np.array_equal(start, ends[int(gaps.argmin())])


@pytest.mark.parametrize(
    ("name", "changed", "cause"),
    [
        (
            "alanine_dipeptide_vacuum",
            {"force_constants": np.array([1e8, 1e8])},
            "too stiff, it holds with .* of 198, 198",
        ),
        ("double_well_oscillators", {"time_step": 10.0}, "time step of 10 ps is too long, it holds with"),
    ],
)
def test_a_failure_has_a_remedy(name, changed, cause):
    """The Reference platform goes on with NaN, which a system without chirality has no state to leave by."""
    system = replace(load_system(name), **changed)
    with pytest.raises(InputError, match=cause):
        sample_short_windows(system, np.random.default_rng(1), FEW)


def test_a_long_time_step_of_the_system_is_not_taken(system, frames):
    long = sample_short_windows(replace(system, time_step=0.08), np.random.default_rng(1), FEW)
    assert np.array_equal(long.positions, frames.positions)


def alanine_dipeptide(constraints, massless=()):
    pdb = app.PDBFile(str(Path(__file__).parents[1] / "data" / "alanine_dipeptide.pdb"))
    force_field = app.ForceField("amber14/protein.ff14SB.xml")
    made = force_field.createSystem(pdb.topology, nonbondedMethod=app.NoCutoff, constraints=constraints)
    for atom in massless:
        made.setParticleMass(atom, 0.0)
    slow = load_system("alanine_dipeptide_vacuum").slow
    return system_from_objects(pdb.topology, made, pdb.positions, temperature=300.0, slow=slow, time_step=0.001)


@pytest.mark.parametrize(
    ("constraints", "massless", "mass", "step"), [(None, (1,), 4.0, 0.002), (app.HBonds, (), None, 0.001)]
)
def test_hydrogens_are_heavy_where_bonds_are_flexible(constraints, massless, mass, step):
    """With constraints the positions' distribution has the masses in it; an atom without mass stays where it is."""
    system = alanine_dipeptide(constraints, massless)
    found = MovingRestraint(system, FEW, "Reference", np.random.default_rng(1))
    masses = np.array([found.context.getSystem().getParticleMass(i)._value for i in range(system.n_atoms)])
    heavy = [atom.element.symbol == "H" and system.masses[atom.index] > 0 for atom in system.topology.atoms()]
    expected = system.masses if mass is None else np.where(heavy, mass, system.masses)
    assert np.array_equal(masses, expected) and (masses == 0).sum() == len(massless)
    assert found.integrator.getStepSize()._value == step


class Nowhere:
    def inside(self, positions):
        return np.zeros(len(positions), dtype=bool)


class EverySecond(Nowhere):
    def inside(self, positions):
        return np.arange(len(positions)) % 2 == 0


def test_frames_outside_the_state_are_left_out(system, frames):
    some = sample_short_windows(replace(system, state=EverySecond()), np.random.default_rng(1), FEW)
    assert np.array_equal(some.positions, frames.positions[::2]) and np.array_equal(some.forces, frames.forces[::2])
    assert some.force_evaluations == frames.force_evaluations
    with pytest.raises(InputError, match=r"windows lies in the declared state \(the card's 'state'\): neither"):
        sample_short_windows(replace(system, state=Nowhere()), np.random.default_rng(1), FEW)


def test_a_toy_without_bonds():
    toy = load_system("double_well_oscillators")
    frames = sample_short_windows(toy, np.random.default_rng(3), FEW)
    low, high = toy.slow.domain[0]
    assert (frames.labels >= low).all() and (frames.labels <= high).all()
    assert np.abs(toy.slow.transform(frames.positions) - frames.labels).max() < 1.0


def test_constrained_bonds_keep_their_lengths():
    """In every frame, though the structure that they begin with has others; the chart gives the frames back."""
    system = alanine_dipeptide(app.HBonds)
    frames = sample_short_windows(system, np.random.default_rng(1), FEW)
    assert system.constraints.violations(system.positions[None])[0] > 1e-3
    assert system.constraints.violations(frames.positions).max() < 2e-5
    chart = chart_for(system.topology, system.slow, system.positions, system.constraints)
    again = chart.to_cartesian(chart.to_internal(frames.positions))
    distances = (np.linalg.norm(at[:, :, None] - at[:, None], axis=-1) for at in (again, frames.positions))
    assert np.abs(np.subtract(*distances)).max() < 1e-5
