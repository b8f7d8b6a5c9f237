"""Windows and structures of any System: solvent, constraints, barostat, the user's Simulation left alone."""

import re
from dataclasses import replace

import numpy as np
import openmm
import pytest
from openmm import app

from openmm_gancl import (
    InputError,
    Lifter,
    Torsions,
    analyse_windows,
    load_system,
    sample_windows,
    structures_at,
    system_from_simulation,
)
from openmm_gancl.coordinates.basin import Basin
from openmm_gancl.coordinates.geometry import wrap
from openmm_gancl.engine.platforms import PotentialEnergy, make_context
from openmm_gancl.engine.random_numbers import openmm_seed
from openmm_gancl.engine.tasks import run_tasks
from openmm_gancl.free_energy import frames_needed, sample_until, window_table, window_weights
from openmm_gancl.free_energy.plots import plot_equilibration
from openmm_gancl.generator import untrained_model
from openmm_gancl.sampling import langevin
from openmm_gancl.sampling.frames import Walkers, load_frames, save_frames
from openmm_gancl.sampling.langevin import RestrainedDynamics
from openmm_gancl.sampling.steering import nearest_starts, pulled_starts, steer
from openmm_gancl.sampling.windows import neighbouring_windows
from openmm_gancl.system.simulation import default_time_step

from ..physics.exact import CHAIN

QUICK = {"steps_per_window": 20, "frames_per_window": 4, "equilibration_steps": 10, "platform": "Reference"}


@pytest.fixture(scope="module")
def chain():
    return load_system("bonded_chain")


@pytest.fixture(scope="module")
def water():
    return load_system("alanine_dipeptide_water")


def simulation_of(system, *forces, platform="CPU", seed=0):
    user = openmm.XmlSerializer.clone(system.system)
    for force in forces:
        user.addForce(force)
    integrator = openmm.LangevinMiddleIntegrator(300.0, 1.0, 0.002)
    integrator.setRandomNumberSeed(seed)
    simulation = app.Simulation(system.topology, user, integrator, openmm.Platform.getPlatformByName(platform))
    simulation.context.setPositions(system.positions)
    return simulation


def test_water_is_2000_to_2500_atoms_with_rigid_bonds(water):
    assert 2000 <= water.n_atoms <= 2500
    assert water.system.usesPeriodicBoundaryConditions()
    assert water.system.getNumConstraints() == 12 + 3 * (water.n_atoms - 22) // 3
    assert (water.constraints.violations(water.positions[None]) < 5e-3).all()


def test_windows_of_a_simulation_in_water(water):
    """Pulled there, under the Simulation's own barostat; the Simulation is left as it was."""
    simulation = simulation_of(water, openmm.MonteCarloBarostat(1.0, 300.0, 5))
    before = simulation.context.getState(positions=True, velocities=True)
    labels = water.slow.transform(water.positions[None]) + np.array([[0.3, 0.0], [0.6, 0.0]])
    frames = sample_windows(
        simulation,
        labels,
        slow=water.slow,
        force_constants=60.0,
        pull_steps=60,
        **{**QUICK, "platform": "CPU"},
        exchange_steps=10,
        seed=2,
    )
    assert len(frames) == 8 and not frames.dropped
    assert frames.force_evaluations == 2 * 60 + 200 + 2 * 30  # pulled, minimised once, sampled
    assert np.abs(frames.cv_values - frames.labels).max() < 0.6
    # the barostat tries a change every five steps
    assert frames.boxes.shape == (8, 3, 3) and len({tuple(box.ravel()) for box in frames.boxes}) > 1
    assert (frames.select([0, 1]).boxes == frames.boxes[:2]).all()
    np.testing.assert_array_equal(frames.walkers.boxes[0], frames.boxes[frames.window == 0][-1])
    after = simulation.context.getState(positions=True, velocities=True)
    assert simulation.currentStep == 0
    for name in ("getPositions", "getVelocities"):
        one, other = (getattr(state, name)(asNumpy=True)._value for state in (before, after))
        np.testing.assert_array_equal(one, other)


def test_structures_in_water_are_steered_and_say_so(water):
    vacuum = load_system("alanine_dipeptide_vacuum")
    model = untrained_model(vacuum, seed=1, strength=0.1)
    label = water.slow.transform(water.positions[None])[0] + np.array([0.4, -0.3])
    found = structures_at(
        simulation_of(water), model, label, 2, steer_steps=80, equilibration_steps=40, seed=3, platform="CPU"
    )
    assert found.log_weights is None and "no weights" in found.guarantee and "729 molecules" in found.guarantee
    assert np.abs(found.label_errors(water.slow)).max() < 0.5
    assert (found.equilibrated >= 0).all() and np.isfinite(found.energies).all()
    assert "steps to equilibrate" in found.describe(water.slow)
    windows = sample_windows(water, found.labels, starts=found.walkers, **{**QUICK, "platform": "CPU"})
    assert len(windows) == 8


def test_structures_of_one_molecule_are_exact(chain):
    model = untrained_model(chain, seed=1, strength=0.1)
    found = structures_at(chain, model, (0.5,), 6, relax_steps=20, platform="Reference", seed=1)
    assert len(found) == 6 and found.log_weights.shape == (6,) and found.guarantee.startswith("exact")
    simulation = simulation_of(chain)
    again = structures_at(
        simulation, model, [[0.5], [1.0]], 2, relax_steps=20, platform="Reference", force_constants=50.0
    )
    assert again.labels.tolist() == [[0.5], [0.5], [1.0], [1.0]]
    assert np.isfinite(again.energies[np.isfinite(again.log_weights)]).all()


@pytest.mark.parametrize("disturbing", ["windows", "structures"])
def test_a_seeded_simulation_on_reference_is_not_disturbed(chain, disturbing):
    def ends(between):
        simulation = simulation_of(chain, platform="Reference", seed=5)
        simulation.context.setVelocitiesToTemperature(300.0, 6)
        simulation.step(20)
        between(simulation)
        simulation.step(20)
        return simulation.context.getState(positions=True).getPositions(asNumpy=True)._value

    def disturb(simulation):
        if disturbing == "windows":
            sample_windows(simulation, np.zeros((1, 1)), slow=chain.slow, **QUICK)
        else:
            structures_at(simulation, untrained_model(chain, seed=1), (0.5,), relax_steps=5, platform="Reference")

    np.testing.assert_array_equal(ends(lambda simulation: None), ends(disturb))


def test_what_the_context_has_is_copied(chain):
    """A parameter of a force inside a CustomCVForce, and a barostat whose temperature was changed."""
    inner = openmm.CustomTorsionForce("kk*(1-cos(theta))")
    inner.addGlobalParameter("kk", 1.0)
    inner.addTorsion(0, 1, 2, 3, [])
    outer = openmm.CustomCVForce("cv")
    outer.addCollectiveVariable("cv", inner)
    simulation = simulation_of(chain, outer)
    simulation.context.setParameter("kk", 50.0)
    copied = system_from_simulation(simulation, chain.slow)
    energy = simulation.context.getState(energy=True).getPotentialEnergy()._value
    assert PotentialEnergy(copied.system, "Reference")(chain.positions) == pytest.approx(energy, rel=1e-4)


def test_a_barostat_is_copied_as_it_is(water):
    simulation = simulation_of(water, openmm.MonteCarloBarostat(1.0, 50.0, 5))
    simulation.context.setParameter(openmm.MonteCarloBarostat.Temperature(), 300.0)
    simulation.context.setParameter(openmm.MonteCarloBarostat.Pressure(), 5.0)
    copied = system_from_simulation(simulation, water.slow).system
    (barostat,) = [force for force in copied.getForces() if isinstance(force, openmm.MonteCarloBarostat)]
    assert barostat.getDefaultTemperature()._value == 300.0 and barostat.getDefaultPressure()._value == 5.0


def test_default_time_step_follows_what_is_constrained(chain, water):
    assert default_time_step(water.system) == 0.002
    loose = openmm.XmlSerializer.clone(water.system)
    light = next(i for i in range(22) if loose.getParticleMass(i)._value < 4)
    loose.setParticleMass(light, 1.008)
    while True:
        constraints = [i for i in range(loose.getNumConstraints()) if light in loose.getConstraintParameters(i)[:2]]
        if not constraints:
            break
        loose.removeConstraint(constraints[0])
    assert default_time_step(loose) == 0.001


def test_a_system_of_its_own_place_has_no_exact_structures(chain):
    restrained = openmm.XmlSerializer.clone(chain.system)
    force = openmm.CustomExternalForce("100*(x*x+y*y+z*z)")
    force.addParticle(0, [])
    restrained.addForce(force)
    system = replace(chain, system=restrained)
    with pytest.raises(InputError, match="moved or turned"):
        structures_at(system, untrained_model(chain, seed=1), (0.5,), platform="Reference")
    frozen = openmm.XmlSerializer.clone(chain.system)
    frozen.setParticleMass(0, 0.0)
    with pytest.raises(InputError, match="1 particles have no mass"):
        Lifter(replace(chain, system=frozen), untrained_model(chain, seed=1), platform="Reference")


def test_lost_structures_are_reported(chain):
    model = untrained_model(chain, seed=1, widths={"angle": 1.5})
    found = structures_at(chain, model, (0.5,), 30, relax_steps=5, platform="Reference", seed=1)
    lost = int((found.log_weights == -np.inf).sum())
    assert 0 < lost < 30 and f"({lost} lost)" in found.describe(chain.slow) and "nan" not in found.describe(chain.slow)
    none = replace(found, energies=np.full(30, np.nan))
    assert none.describe(chain.slow) == "30 structures, all lost"


def test_structures_need_the_model_of_the_solute(water, chain):
    with pytest.raises(InputError, match="has no atom"):
        structures_at(water, untrained_model(chain, seed=1), (0.5,))


def test_frames_survive_a_file(chain, tmp_path):
    frames = sample_windows(chain, n_windows=4, exchange_steps=5, seed=1, **QUICK)
    assert 0 <= frames.exchange_rate <= 1
    save_frames(frames, tmp_path / "frames.npz")
    again = load_frames(tmp_path / "frames.npz")
    assert again.exchange_rate == frames.exchange_rate and again.force_evaluations == frames.force_evaluations
    np.testing.assert_array_equal(again.positions, frames.positions)


def test_workers_do_not_change_exchanged_windows(chain):
    labels = np.linspace(-3, 3, 12)[:, None]
    one, two = (sample_windows(chain, labels, exchange_steps=10, seed=4, workers=n, **QUICK) for n in (1, 2))
    np.testing.assert_array_equal(one.positions, two.positions)


def test_pulling_goes_by_short_hops(chain):
    labels = np.linspace(-3, 3, 13)[:, None]
    walkers, cost = pulled_starts(chain, RestrainedDynamics.of(chain, platform="Reference"), labels, 200, seed=1)
    assert cost == 13 * 200 + 200  # minimised once
    assert np.abs(wrap(chain.slow.transform(walkers.positions) - labels)).max() < 1.0
    picked = nearest_starts(chain.slow, labels + 0.01, walkers.positions)
    assert picked.shape == walkers.positions.shape


def test_neighbours_of_a_periodic_grid():
    slow = Torsions(("phi", "psi"), np.array([[0, 1, 2, 3], [1, 2, 3, 4]]))
    axis = -np.pi + 2 * np.pi / 6 * (np.arange(6) + 0.5)
    labels = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    pairs = neighbouring_windows(slow, labels)
    assert len(pairs) == 4 * 36  # straight and diagonal, across the edge too
    assert len(neighbouring_windows(slow, np.zeros((1, 2)))) == 0
    twins = np.repeat(np.linspace(-1.0, 1.0, 6), 2)[:, None] * [1.0, 0.0]
    assert len(neighbouring_windows(slow, twins)) == 6 + 4 * 5


@pytest.mark.parametrize("lost", [[1], [2], [0, 1, 2]])
def test_a_lost_window_is_named(chain, lost):
    labels = np.linspace(-1, 1, 3)[:, None]
    starts = np.repeat(chain.positions[None], 3, axis=0)
    velocities = np.zeros_like(starts)
    velocities[lost] = 1e200
    frames = sample_windows(chain, labels, starts=Walkers(starts, velocities), **QUICK)
    assert frames.dropped == {"nan": 4 * len(lost)}
    with pytest.raises(InputError, match=rf"window {lost[0]} holds no frame.*{4 * len(lost)} nan"):
        analyse_windows(chain, frames)
    starts[lost] = np.nan
    with pytest.raises(InputError, match=rf"window {lost[0]} has no start"):
        sample_windows(chain, labels, starts=Walkers(starts), **QUICK)


def test_a_walker_that_blows_up_is_sent_again(chain):
    """With half the time step, and what that costs is counted."""
    steps = []

    def first_lost(function, tasks, **rest):
        found = run_tasks(function, tasks, **rest)
        if not steps:
            found[0].positions[1:3] = np.nan
        steps.append((tasks[0].dynamics.time_step, sum(len(task.labels) for task in tasks)))
        return found

    labels = np.linspace(-1, 1, 6)[:, None]
    starts = Walkers(np.repeat(chain.positions[None], 6, axis=0))
    dynamics = RestrainedDynamics.of(chain, platform="Reference")
    walkers, cost = steer(dynamics, starts, labels, 40, seed=1, run=first_lost)
    assert steps == [(chain.time_step, 6), (0.5 * chain.time_step, 2)] and cost == 8 * 40
    assert np.isfinite(walkers.positions).all()


def errors_in_both_orders(few):
    """Median error of a surface, kT, by the same windows from either end."""
    n, system, frames = few
    reverse = np.argsort(n - 1 - frames.window, kind="stable")
    turned = replace(frames.select(reverse), window=(n - 1 - frames.window)[reverse])
    errors = []
    for one in (frames, turned):
        surface = analyse_windows(system, one).surface
        errors.append(np.median(surface.error[surface.energy < 6 * system.kT]) / system.kT)
    return errors


@pytest.fixture(scope="module")
def few():
    """Windows of which the first is a rare one that hardly overlaps, from few frames."""
    system = load_system("double_well_oscillators")
    labels = np.concatenate([[-1.85], np.linspace(-1.4, 1.2, 9)])[:, None]
    slow = replace(system.slow, domain=[[-2.0, 2.0]])
    system = replace(system, slow=slow)
    frames = sample_windows(system, labels, steps_per_window=2000, frames_per_window=100, seed=3, platform="Reference")
    return len(labels), system, frames


def test_error_bars_do_not_depend_on_which_window_is_first(few):
    """Its free energy is the zero, and a rare one's is uncertain."""
    one, other = errors_in_both_orders(few)
    assert 0.02 < one < 1.0 and 0.6 < one / other < 1.7, (one, other)


def test_a_shift_that_all_weights_share_would_show(few, monkeypatch):
    monkeypatch.setattr(window_weights, "_without_common_shift", lambda *given: given[-1])
    one, other = errors_in_both_orders(few)
    assert not 0.6 < one / other < 1.7, (one, other)


def test_a_window_far_from_its_frames_is_named(chain):
    labels = np.linspace(-3, 3, 8)[:, None]
    frames = sample_windows(chain, labels, **{**QUICK, "steps_per_window": 400, "frames_per_window": 100})
    moved = frames.labels.copy()
    moved[frames.window == 5] = -2.9
    analysis = analyse_windows(chain, replace(frames, labels=moved))
    assert any("window 5" in note for note in [*analysis.notes, *analysis.doubts])
    table = window_table(analysis).splitlines()
    (row,) = [line for line in table if line.startswith("window 5 ")]
    assert len(table) == 8 and float(row.split("strain ")[1].split()[0]) > 10
    ax = plot_equilibration(analysis.blocks.discarded, analysis.blocks.inefficiency)
    assert len(ax.patches) == 8


def test_the_order_of_frames_does_not_matter(few):
    _, system, frames = few
    shuffled = frames.select(np.argsort(np.arange(len(frames)) % 7, kind="stable"))
    assert (np.diff(shuffled.window) < 0).any()
    by_window = np.argsort(shuffled.window, kind="stable")
    one, other = (analyse_windows(system, which).surface for which in (shuffled, shuffled.select(by_window)))
    np.testing.assert_array_equal(one.energy, other.energy)


def test_velocities_and_noise_are_of_different_numbers(chain, monkeypatch):
    """OpenMM draws both alike; the twin below has them of one seed."""
    drawn = []
    monkeypatch.setattr(langevin, "openmm_seed", lambda rng: drawn.append(openmm_seed(rng)) or drawn[-1])
    sample_windows(chain, np.zeros((1, 1)), **QUICK)
    of_noise, of_velocities = drawn
    ours, twin = correlation_of_velocities_and_noise(of_velocities, of_noise), correlation_of_velocities_and_noise(7, 7)
    assert abs(ours) < 0.052 and twin > 0.99, (ours, twin)  # 3.5 sigma of 4,500 numbers


def correlation_of_velocities_and_noise(of_velocities, of_noise):
    system = openmm.System()
    for _ in range(1500):
        system.addParticle(12.0)
    integrator = openmm.LangevinMiddleIntegrator(300.0, 5.0, 0.015)
    context = make_context(system, integrator, "Reference", of_noise)
    context.setPositions(np.zeros((1500, 3)))
    context.setVelocitiesToTemperature(300.0, of_velocities)
    velocities = [context.getState(velocities=True).getVelocities(asNumpy=True)._value]
    integrator.step(1)
    velocities.append(context.getState(velocities=True).getVelocities(asNumpy=True)._value)
    noise = velocities[1] - np.exp(-5.0 * 0.015) * velocities[0]
    return np.corrcoef(noise.ravel(), velocities[0].ravel())[0, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"starts": "lifting"}, "choose structure or pulling"),
        ({"starts": np.zeros((2, 3))}, r"give \(n, 5, 3\)"),
        ({"starts": Walkers(np.zeros((2, 5, 3)))}, "2 starts for 3 windows"),
        ({"slow": Torsions(("a",), np.array([[0, 1, 2, 3]]))}, "labels of its own"),
        ({"frames_per_window": 100}, "raise it"),
    ],
)
def test_wrong_arguments_in_a_sentence(chain, arguments, message):
    with pytest.raises(InputError, match=message):
        sample_windows(chain, np.zeros((3, 1)), **{**QUICK, **arguments})


def test_neither_system_nor_simulation(chain):
    with pytest.raises(InputError, match="neither a system nor a Simulation"):
        sample_windows("chain", np.zeros((3, 1)))
    with pytest.raises(InputError, match="has no labels: give slow"):
        sample_windows(simulation_of(chain), np.zeros((3, 1)))


@pytest.mark.parametrize("exchange_steps", [0, 10])
def test_windows_that_are_continued_are_one_longer_run(chain, exchange_steps, tmp_path):
    """To the last bit where stretches are the same; also from a file."""
    options = {**QUICK, "labels": [[0.5], [1.5], [-2.0]], "exchange_steps": exchange_steps, "seed": 4}
    whole = sample_windows(chain, **options | {"steps_per_window": 40, "frames_per_window": 8})
    part = sample_windows(chain, **options)
    save_frames(part, tmp_path / "part.npz")
    found = sample_windows(
        chain, **{**QUICK, "exchange_steps": exchange_steps, "seed": 4}, continued=load_frames(tmp_path / "part.npz")
    )
    assert len(found) == len(whole) == 24 and (found.window == whole.window).all()
    assert found.boxes is None and found.n_stretches == (4 if exchange_steps else 2)
    assert found.force_evaluations == whole.force_evaluations
    # without exchanges one longer call is one stretch, whose random numbers go on
    assert (found.positions == whole.positions).all() == bool(exchange_steps)
    assert (found.positions[found.window == 0][:4] == part.positions[part.window == 0]).all()


def test_counts_may_be_any_whole_numbers_and_no_fractions(chain):
    options = {"steps_per_window": 20.0, "frames_per_window": np.float64(4.0), "equilibration_steps": 10.0}
    frames = sample_windows(chain, labels=[[0.5], [1.5]], **{**QUICK, **options})
    assert (frames.positions == sample_windows(chain, labels=[[0.5], [1.5]], **QUICK).positions).all()
    with pytest.raises(InputError, match=r"steps_per_window is 20\.5: give a whole number"):
        sample_windows(chain, labels=[[0.5]], **{**QUICK, "steps_per_window": 20.5})
    assert len(langevin.sample_langevin(chain, 20.0, n_frames=4.0, platform="Reference")) == 4
    with pytest.raises(InputError, match="n_frames is 0: give a whole number from 1 up"):
        langevin.sample_langevin(chain, 20, n_frames=0, platform="Reference")


def test_the_surface_over_some_labels_has_the_basins_that_are_given():
    system = load_system("alanine_dipeptide_vacuum")
    frames = sample_windows(system, labels=[[-1.4, 1.2], [-1.2, 1.0]], **QUICK)
    basin = Basin("left", (np.array([[-np.pi, 0.0]]),))
    found = analyse_windows(system, frames, n_surface=1, bins=12, discard=0, basins=[basin])
    assert [row.name for row in found.basins] == ["left"]


def test_windows_of_an_integrator_without_a_temperature(chain):
    integrator = openmm.CustomIntegrator(0.001)
    integrator.addComputePerDof("v", "v + dt * f / m")
    integrator.addComputePerDof("x", "x + dt * v")
    simulation = app.Simulation(chain.topology, openmm.XmlSerializer.clone(chain.system), integrator)
    simulation.context.setPositions(chain.positions)
    frames = sample_windows(simulation, [[0.5], [0.9]], slow=chain.slow, temperature=300.0, **QUICK)
    with pytest.raises(InputError, match="temperature"):
        analyse_windows(simulation, frames, slow=chain.slow)
    assert analyse_windows(simulation, frames, slow=chain.slow, temperature=300.0, bins=12).surface.temperature == 300.0


def test_windows_that_cannot_be_continued_say_why(chain):
    frames = sample_windows(chain, labels=[[0.5], [1.5]], **QUICK)
    walkers = frames.walkers.select([0, 1])
    walkers.positions[1] = np.nan
    for change, options, words in (
        (frames, {"labels": [[0.5], [1.6]]}, "`labels` are others than those"),
        (frames, {"labels": [[0.5], [1.5], [2.5]]}, "`labels` are others than those"),
        (frames, {"force_constants": 3.0}, "`force_constants` are others"),
        (frames, {"force_constants": [3.0, 3.0]}, "`force_constants` are others"),
        (frames, {"starts": "structure"}, "leave `starts` out"),
        (frames, {"n_windows": 3}, "`n_windows` is 3, and there are labels of 2 windows"),
        (replace(frames, walkers=None), {}, "do not say where their windows ended"),
        (replace(frames, walkers=walkers), {}, "window 1 blew up"),
    ):
        with pytest.raises(InputError, match=words):
            sample_windows(chain, continued=change, **QUICK, **options)


@pytest.fixture(scope="module")
def rounds(chain):
    """Windows of the chain until an error that takes a few rounds."""
    labels, said = (-np.pi + 2 * np.pi * (np.arange(12) + 0.5) / 12)[:, None], []
    options = {"steps_per_window": 320, "frames_per_window": 16, "force_constants": 20.0, "bins": 24, "seed": 2}
    found = sample_until(
        chain, labels, until=0.25, max_frames_per_window=512, platform="Reference", progress=said.append, **options
    )
    return found, said


def test_windows_until_an_error(chain, rounds):
    found, said = rounds
    assert found.reached and found.error <= 0.25 and found is said[-1] and len(said) > 1
    assert [len(one.frames) for one in said] == [12 * 16 * 2**i for i in range(len(said))]
    assert all(not one.reached for one in said[:-1])
    assert (found.frames.energies[found.frames.window == 3][:16] == said[0].frames.energies[48:64]).all()
    # the chain's own surface, within its errors
    surface = found.analysis.surface
    middles = 0.5 * (surface.edges[0][1:] + surface.edges[0][:-1])
    known = surface.energy < 6 * chain.kT
    difference = (surface.energy - CHAIN.torsion_energy(middles))[known]
    z = (difference - difference.mean()) / np.hypot(surface.error[known], 0.1)
    assert np.sqrt((z**2).mean()) < 2.0
    more = sample_until(
        chain, until=0.25, max_frames_per_window=512, continued=found.frames, bins=24, platform="Reference"
    )
    assert more.reached and len(more.frames) == len(found.frames)


def test_windows_until_an_error_are_those_that_are_continued(chain, rounds):
    """Also where the error is reached already and nothing is sampled: the answer would be of other windows."""
    found, _ = rounds
    labels, same = found.frames.window_labels(), {"force_constants": 20.0}
    for given, options, words in (
        (labels + 0.1, same, "`labels` are others than those"),
        (labels[:-1], same, "`labels` are others than those"),
        (labels, {"force_constants": 25.0}, "`force_constants` are others"),
        (None, {"starts": "structure"}, "leave `starts` out"),
    ):
        with pytest.raises(InputError, match=words):
            sample_until(chain, given, until=0.25, max_frames_per_window=512, continued=found.frames, **options)
    again = sample_until(chain, labels, until=0.25, max_frames_per_window=512, continued=found.frames, bins=24, **same)
    assert again.reached and len(again.frames) == len(found.frames)


def test_what_each_window_still_needs(rounds):
    found, said = rounds
    first, last = (frames_needed(one.analysis, 0.25) for one in (said[0], found))
    assert first.sum() > 2 * last.sum() and (first > 0).sum() > 6
    assert frames_needed(found.analysis, 10.0).sum() == 0
    assert (frames_needed(found.analysis, 0.05) >= frames_needed(found.analysis, 0.1)).all()
    table = window_table(found.analysis, 0.05).splitlines()
    assert len(table) == 12 and all(re.search(r", needs \d+ more$", row) for row in table)
    assert "needs" not in window_table(found.analysis)


def test_until_must_be_an_error(chain):
    with pytest.raises(InputError, match="give a positive error in kT"):
        sample_until(chain, [[0.5]], until=0.0, max_frames_per_window=10)
