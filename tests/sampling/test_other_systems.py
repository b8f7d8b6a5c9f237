"""Windows, frames and structures of something else than is said: refused, or a doubt; each with what it did before."""

from dataclasses import replace

import numpy as np
import openmm
import pytest
from openmm import app

from openmm_gancl import (
    InputError,
    Lifts,
    ParticleCoordinates,
    Torsions,
    analyse_windows,
    load_system,
    sample_windows,
    structures_at,
    system_from_objects,
    system_from_simulation,
)
from openmm_gancl.engine.restraint_forces import make_restraint
from openmm_gancl.free_energy import frame_doubts, frames_needed, from_windows
from openmm_gancl.generator import untrained_model
from openmm_gancl.lifting import window_free_energies
from openmm_gancl.sampling import sample_langevin, sample_swarm, windows
from openmm_gancl.sampling.frames import Walkers, join_frames, load_frames, save_frames
from openmm_gancl.system.bonds import molecules_of
from openmm_gancl.system.molecular_system import MolecularSystem

LABELS = [[-1.4, 1.2], [-1.2, 1.0], [-1.0, 0.8]]
QUICK = {"steps_per_window": 20, "frames_per_window": 4, "equilibration_steps": 10, "platform": "Reference"}


@pytest.fixture(scope="module")
def alanine():
    return load_system("alanine_dipeptide_vacuum")


@pytest.fixture(scope="module")
def frames(alanine):
    return sample_windows(alanine, LABELS, **{**QUICK, "steps_per_window": 200, "frames_per_window": 50}, seed=1)


def simulation_of(system, changed=None, integrator=None, positions=None):
    """Of a copy of the System, after a change."""
    user = openmm.XmlSerializer.clone(system.system)
    if changed is not None:
        changed(user)
    integrator = integrator or openmm.LangevinMiddleIntegrator(300, 1, 0.001)
    platform = openmm.Platform.getPlatformByName("Reference")
    simulation = app.Simulation(system.topology, user, integrator, platform)
    simulation.context.setPositions(system.positions if positions is None else positions)
    return simulation


# frames of another system


def swapped(system):
    return replace(system, slow=Torsions(system.slow.names[::-1], system.slow.atoms[::-1]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda system, frames: (swapped(system), frames), "not psi, phi of their positions"),
        (lambda system, frames: (load_system("bonded_chain"), frames), "another molecule"),
        (lambda system, frames: (replace(system, temperature=310.0), frames), "sampled at 300 K, .* is at 310 K"),
        (lambda system, frames: (system, replace(frames, positions=frames.positions[:, :9])), "another molecule"),
        (lambda system, frames: (system, replace(frames, cv_values=np.nan * frames.cv_values)), "not phi, psi"),
        (lambda system, frames: (system, replace(frames, window=0 * frames.window)), "window 0 has frames of several"),
    ],
)
def test_frames_of_something_else_are_refused(alanine, frames, change, words):
    with pytest.raises(InputError, match=words):
        analyse_windows(*change(alanine, frames), bins=12)


def test_labels_in_another_order_were_the_surface_over_the_wrong_ones(alanine, frames, monkeypatch):
    monkeypatch.setattr(from_windows, "check_frames_of", lambda frames, system: None)
    ours, wrong = (analyse_windows(system, frames, bins=12, discard=0) for system in (alanine, swapped(alanine)))
    assert wrong.surface.names == ("psi", "phi") and len(wrong.doubts) == len(ours.doubts)
    assert (wrong.surface.energy == ours.surface.energy).all()


def test_frames_without_the_last_atoms_or_of_an_older_file_are_right(alanine, frames, tmp_path):
    """Those of water are often dropped; a file of before does not say its temperature."""
    save_frames(replace(frames, positions=frames.positions[:, :20].astype(np.float32)), tmp_path / "frames.npz")
    stored = load_frames(tmp_path / "frames.npz")
    assert stored.temperature == 300.0
    for one in (stored, replace(stored, temperature=np.nan)):
        assert not frame_doubts.frame_doubts(alanine, one)
        assert analyse_windows(alanine, one, bins=12, discard=0).surface.names == ("phi", "psi")
    with pytest.raises(InputError, match="positions are of 20 atoms"):
        sample_windows(alanine, continued=stored, **QUICK)
    with pytest.raises(InputError, match="positions are of 20 atoms"):
        sample_windows(alanine, LABELS, starts=Walkers(stored.positions[:3]), **QUICK)


def test_a_free_run_is_one_window_without_a_restraint(alanine):
    free = sample_langevin(alanine, 400, n_frames=100, platform="Reference")
    assert not frame_doubts.frame_doubts(alanine, free)
    assert analyse_windows(alanine, free, bins=12, discard=0).surface.temperature == 300.0


# windows that are continued with another system


def metadynamics(simulation_system, slow):
    """A bias of phi that grows by 2 kJ/mol a hill."""
    phi = openmm.CustomTorsionForce("theta")
    phi.addTorsion(*map(int, slow.atoms[0]), [])
    variable = app.BiasVariable(phi, -np.pi, np.pi, 0.5, True)
    return app.Metadynamics(simulation_system, [variable], 300, 10.0, 2.0, 10)


def weaker(user):
    """A charge less."""
    force = next(force for force in user.getForces() if isinstance(force, openmm.NonbondedForce))
    charge, *others = force.getParticleParameters(5)
    force.setParticleParameters(5, 0.5 * charge, *others)


def test_windows_are_not_continued_with_other_energies(alanine, monkeypatch):
    """A bias that has grown, or another force field: their frames together were of neither."""
    bias = []
    simulation = simulation_of(alanine, lambda user: bias.append(metadynamics(user, alanine.slow)))
    begun = sample_windows(simulation, LABELS, slow=alanine.slow, **QUICK)
    assert len(sample_windows(simulation, slow=alanine.slow, continued=begun, **QUICK)) == 24
    simulation.context.setPositions(begun.positions[5])
    bias[0].step(simulation, 40)
    for other in (simulation, simulation_of(alanine, weaker)):
        with pytest.raises(InputError, match=r"had .* kJ/mol, and has .* now .*: sample the windows anew"):
            sample_windows(other, slow=alanine.slow, continued=begun, **QUICK)
    hotter = simulation_of(alanine, integrator=openmm.LangevinMiddleIntegrator(350, 1, 0.001))
    with pytest.raises(InputError, match="sampled at 300 K, the simulation is at 350 K"):
        sample_windows(hotter, slow=alanine.slow, continued=begun, **QUICK)
    monkeypatch.setattr(windows._Windows, "_check_energies", lambda self, frames: None)
    assert len(sample_windows(simulation, slow=alanine.slow, continued=begun, **QUICK)) == 24


def test_frames_in_boxes_that_change_have_the_energies_of_their_boxes():
    """Two atoms beside each other through the box's wall."""
    topology, system, force = app.Topology(), openmm.System(), openmm.NonbondedForce()
    residue = topology.addResidue("A", topology.addChain())
    force.setNonbondedMethod(force.CutoffPeriodic)
    for name in "ab":
        topology.addAtom(name, app.element.argon, residue)
        system.addParticle(40.0)
        force.addParticle(0.0, 0.3, 10.0)
    system.addForce(force)
    system.addForce(openmm.MonteCarloBarostat(1.0, 300.0, 1))
    system.setDefaultPeriodicBoxVectors(*np.diag([3.0, 3.0, 3.0]))
    slow = ParticleCoordinates(("x",), [[0, 0]], [[-1.0, 1.0]])
    places = np.array([[0.1, 0.0, 0.0], [2.75, 0.0, 0.0]])
    options = {"temperature": 300.0, "slow": slow, "time_step": 0.001, "force_constants": 500.0, "barostat": True}
    pair = system_from_objects(topology, system, places, **options)
    frames = sample_windows(pair, [[0.1], [0.2]], starts=np.repeat(places[None], 2, axis=0), **QUICK)
    assert np.ptp(frames.boxes[:, 0, 0]) > 1e-3 and np.abs(frames.energies).max() > 1.0
    assert len(sample_windows(pair, continued=frames, **QUICK)) == 16
    with pytest.raises(InputError, match="sample the windows anew"):
        sample_windows(pair, continued=replace(frames, boxes=frames.boxes + 0.1 * np.eye(3)), **QUICK)


def test_a_bias_of_metadynamics_is_part_of_the_surface_and_a_doubt(alanine, frames):
    simulation = simulation_of(alanine, lambda user: metadynamics(user, alanine.slow))
    biased = system_from_simulation(simulation, alanine.slow)
    assert "of the biased potential" in frame_doubts.frame_doubts(biased, frames)[0]
    found = analyse_windows(simulation, frames, slow=alanine.slow, bins=12, discard=0)
    assert any("Metadynamics" in doubt for doubt in found.doubts)
    assert not frame_doubts.frame_doubts(alanine, frames)


def test_a_restraint_of_the_users_own_is_part_of_the_surface_and_a_note(alanine, frames):
    restraint = make_restraint(alanine.slow, np.full(2, 20.0), 0, parameters=True)
    simulation = simulation_of(alanine, lambda user: user.addForce(restraint.force))
    found = analyse_windows(simulation, frames, slow=alanine.slow, bins=12, discard=0)
    assert "CustomTorsionForce of the labels alone" in found.notes[0]
    assert not frame_doubts.frame_notes(alanine)  # whose flat bottoms are of other torsions


# what the Simulation samples


def in_group(user, group):
    user.getForce(1).setForceGroup(group)


def test_an_integrator_that_leaves_a_force_out_is_refused(alanine):
    """Windows were of all forces."""
    some = openmm.LangevinMiddleIntegrator(300, 1, 0.001)
    some.setIntegrationForceGroups({0})
    simulation = simulation_of(alanine, lambda user: in_group(user, 5), some)
    with pytest.raises(InputError, match=r"leaves force groups out \(group 5, of a PeriodicTorsionForce"):
        sample_windows(simulation, LABELS, slow=alanine.slow, **QUICK)


def test_groups_of_what_has_no_energy_may_be_left_out_and_not_the_reciprocal_space(alanine):
    def grouped(user, reciprocal=-1):
        for force in user.getForces():
            force.setForceGroup(1)
            if isinstance(force, openmm.NonbondedForce):
                force.setReciprocalSpaceForceGroup(reciprocal)
        user.addForce(openmm.CMMotionRemover())

    def steps():
        return openmm.MTSLangevinIntegrator(300, 1, 0.001, [(1, 1)])

    assert system_from_simulation(simulation_of(alanine, grouped, steps()), alanine.slow).temperature == 300.0
    left_out = simulation_of(alanine, lambda user: grouped(user, 2), steps())
    with pytest.raises(InputError, match=r"group 2, of a NonbondedForce"):
        system_from_simulation(left_out, alanine.slow)


def boxed(alanine, barostat, temperature=300.0):
    """In a box of 3 nm, without a cutoff that sees it, under a barostat."""

    def changed(user):
        user.setDefaultPeriodicBoxVectors(*np.diag([3.0, 3.0, 3.0]))
        user.getForce(0).setUsesPeriodicBoundaryConditions(True)
        user.addForce(barostat)

    return simulation_of(alanine, changed, openmm.LangevinMiddleIntegrator(temperature, 1, 0.001))


@pytest.mark.parametrize(
    ("barostat", "parameters", "found"),
    [
        (openmm.MonteCarloBarostat(1, 300), ["MonteCarloPressure"], lambda force: force.getDefaultPressure()._value),
        (
            openmm.MonteCarloAnisotropicBarostat(openmm.Vec3(1, 1, 1), 300),
            ["MonteCarloPressureY"],
            lambda force: force.getDefaultPressure()._value[1],
        ),
        (
            openmm.MonteCarloMembraneBarostat(1, 0, 300, 0, 0),
            ["MembraneMonteCarloPressure", "MembraneMonteCarloSurfaceTension"],
            lambda force: force.getDefaultPressure()._value - 7.0 + force.getDefaultSurfaceTension()._value,
        ),
        (
            openmm.MonteCarloFlexibleBarostat(1, 300),
            ["MonteCarloPressure"],
            lambda force: force.getDefaultPressure()._value,
        ),
    ],
)
def test_barostats_are_as_the_context_has_them(alanine, barostat, parameters, found):
    simulation = boxed(alanine, barostat)
    for name in parameters:
        simulation.context.setParameter(name, 7.0)
    forces = system_from_simulation(simulation, alanine.slow).system.getForces()
    assert found(forces[-1]) == 7.0


def test_a_barostat_of_another_temperature_is_refused(alanine):
    """OpenMM's own default is 300 K, whatever the integrator keeps."""
    hot = boxed(alanine, openmm.MonteCarloBarostat(1, 300), 350.0)
    with pytest.raises(InputError, match="the MonteCarloBarostat is of 300 K and the temperature is 350 K"):
        sample_windows(hot, LABELS, slow=alanine.slow, **QUICK)
    hot.context.setParameter(openmm.MonteCarloBarostat.Temperature(), 350.0)
    assert system_from_simulation(hot, alanine.slow).temperature == 350.0
    # lifts have no volume, and no barostat
    cold = boxed(alanine, openmm.MonteCarloBarostat(1, 300), 350.0)
    assert system_from_simulation(cold, alanine.slow, barostat=False).temperature == 350.0


# where windows are


def test_windows_of_another_isomer_are_a_doubt(alanine):
    """A Simulation declares no state."""
    simulation, options = simulation_of(alanine), {**QUICK, "slow": alanine.slow, "equilibration_steps": 200}
    begun = np.repeat(alanine.positions[None], 3, axis=0)
    begun[1, :, 0] *= -1.0
    frames = sample_windows(simulation, LABELS, starts=begun, **options)
    assert len(frames) == 12 and not frames.dropped
    (doubt,) = frame_doubts.frame_doubts(system_from_simulation(simulation, alanine.slow), frames)
    assert doubt.startswith("1 windows end as another isomer than the structure (a chiral centre is the other way")
    assert "window 1 is the first" in doubt


def test_positions_in_angstrom_are_refused(alanine):
    """Those of windows were minimised to the mirror image, those of swarms exploded at the labels asked for."""
    simulation, near, far = simulation_of(alanine), alanine.positions, 10.0 * alanine.positions
    calls = (
        lambda: sample_windows(simulation, LABELS[:2], slow=alanine.slow, starts=np.stack([near, far]), **QUICK),
        lambda: sample_windows(alanine, LABELS[:1], starts=Walkers(far[None]), **QUICK),
        lambda: sample_swarm(alanine, far[None], 2, platform="Reference"),
        lambda: sample_langevin(alanine, 2, n_frames=1, start=far, platform="Reference"),
        lambda: system_from_simulation(simulation_of(alanine, positions=far), alanine.slow),
        lambda: system_from_objects(alanine.topology, alanine.system, far, temperature=300, slow=alanine.slow),
    )
    for call in calls:
        with pytest.raises(InputError, match=r"bonds are (9\.\d+|10) times as long .* give positions in nm"):
            call()
    with pytest.raises(InputError, match=r"`start` has shape \(9, 3\): give \(22, 3\)"):
        sample_langevin(alanine, 2, n_frames=1, start=alanine.positions[:9], platform="Reference")
    stretched = alanine.positions * 1.5  # a bad structure, in nm
    assert system_from_objects(alanine.topology, alanine.system, stretched, temperature=300, slow=alanine.slow)


def test_windows_over_a_peptide_bond_are_of_both_isomers(alanine, frames):
    omega = alanine.state.trans_peptides[:1]
    over = replace(alanine, slow=Torsions(("omega",), omega))
    turned = np.concatenate([frames.positions[:1], half_a_turn(frames.positions[:1], omega[0])])
    two = replace(frames.select([0, 50]), positions=turned)
    assert not frame_doubts.frame_doubts(over, two)
    assert "a peptide bond is the other way" in frame_doubts.frame_doubts(alanine, two)[0]


def half_a_turn(positions, omega):
    """About the middle bond of a torsion, of the atoms before it."""
    first, other = positions[:, omega[1]], positions[:, omega[2]]
    axis = (other - first) / np.linalg.norm(other - first, axis=1)[:, None]
    moved = positions.copy()
    before = np.arange(omega[1])
    steps = positions[:, before] - first[:, None]
    along = (steps * axis[:, None]).sum(axis=-1, keepdims=True) * axis[:, None]
    moved[:, before] = first[:, None] + 2 * along - steps
    return moved


def test_a_window_that_blew_up_is_a_doubt(alanine, frames):
    lost = replace(frames, dropped={"nan": 3, "cis": 2})
    assert frame_doubts.frame_doubts(alanine, lost)[0].startswith("3 frames are NaN: the dynamics of a window blew up")
    assert not frame_doubts.frame_doubts(alanine, replace(frames, dropped={"cis": 2}))


def test_particles_without_a_mass_are_where_they_were(alanine):
    """Turned in a chart, they would be elsewhere in each window."""

    def frozen(user):
        for atom in (4, 5):
            user.setParticleMass(atom, 0.0)

    simulation = simulation_of(alanine, frozen)
    options = {**QUICK, "slow": alanine.slow, "pull_steps": 40}
    frames = sample_windows(simulation, LABELS, **options)
    assert np.abs(frames.positions[:, 4:6] - alanine.positions[4:6]).max() < 1e-12
    with pytest.raises(InputError, match="atom 4 has no mass, and is elsewhere where window 0 starts"):
        sample_windows(simulation, LABELS, starts="structure", **options)


def test_a_torsion_across_molecules_in_other_images_is_refused(alanine):
    """Its angle is of places that are not beside each other."""
    topology, system = app.Topology(), openmm.System()
    chain = topology.addChain()
    for _ in range(2):
        residue = topology.addResidue("A", chain)
        topology.addBond(*(topology.addAtom(name, app.element.carbon, residue) for name in "ab"))
    force = openmm.NonbondedForce()
    force.setNonbondedMethod(force.CutoffPeriodic)
    for _ in range(4):
        system.addParticle(12.0)
        force.addParticle(0.0, 0.3, 0.1)
    system.addForce(force)
    system.setDefaultPeriodicBoxVectors(*np.diag([3.0, 3.0, 3.0]))
    near = np.array([[0.0, 0.1, 0.0], [0.0, 0.0, 0.0], [0.3, 0.0, 0.0], [0.3, 0.1, 0.1]])
    slow, options = Torsions(("t",), np.array([[0, 1, 2, 3]])), {"temperature": 300.0}
    assert len(molecules_of(topology)) == 2
    assert system_from_objects(topology, system, near, slow=slow, **options).n_atoms == 4
    elsewhere = near + np.array([0.0, 3.0, 0.0]) * (np.arange(4) > 1)[:, None]
    assert abs(slow.transform(elsewhere[None]) - slow.transform(near[None]))[0, 0] > 0.1
    with pytest.raises(InputError, match="atoms 1 and 2 of two molecules that are nearer in another periodic image"):
        system_from_objects(topology, system, elsewhere, slow=slow, **options)


def test_structures_of_a_model_of_the_mirror_image_say_so(alanine, monkeypatch):
    model, options = untrained_model(alanine, seed=1, strength=0.1), {"relax_steps": 20, "platform": "Reference"}
    same = structures_at(simulation_of(alanine), model, LABELS[0], 4, **options)
    mirror = simulation_of(alanine, positions=alanine.positions * [-1.0, 1.0, 1.0])
    found = structures_at(mirror, model, LABELS[0], 4, **options)
    assert "isomer" not in same.guarantee
    assert "are another isomer than the system's (a chiral centre is the other way around)" in found.guarantee
    monkeypatch.setattr(MolecularSystem, "other_isomers", lambda *given: {})
    assert structures_at(mirror, model, LABELS[0], 4, **options).guarantee == same.guarantee


@pytest.mark.parametrize("error", [0.0, -1.0, np.nan, np.inf])
def test_frames_are_needed_for_an_error_that_can_be(alanine, frames, error):
    """Of 0 they were a number of 19 digits, below zero."""
    analysis = analyse_windows(alanine, frames, bins=12, discard=0)
    with pytest.raises(InputError, match=r"`target_error` is .*: give a positive error in kT"):
        frames_needed(analysis, error)
    with pytest.raises(InputError, match="the analysis is of no windows"):
        frames_needed(replace(analysis, windows=None), 0.1)


def test_lifts_that_nothing_restrains_have_no_windows(alanine):
    lifts = Lifts.empty(alanine.slow, np.zeros(2), 300.0, 0)
    with pytest.raises(InputError, match="the lifts are fixed: give restrained ones"):
        window_free_energies(replace(lifts, mode="fixed"), np.zeros((1, 2)))


def test_joined_frames_keep_their_temperature(frames):
    assert join_frames(frames, frames).temperature == 300.0
