"""The relaxation: heat, reversal, the scheme itself, forces only, failures counted, the same bytes again."""

import re
from dataclasses import replace

import numpy as np
import openmm
import pytest
from openmm.app import Element, Topology

from openmm_gancl import Lifter, ParticleCoordinates, load_system, system_from_objects
from openmm_gancl.coordinates.restraint_energies import restraint_energies
from openmm_gancl.errors import InputError
from openmm_gancl.generator import untrained_model
from openmm_gancl.lifting.proposals import propose
from openmm_gancl.lifting.relaxation import PathContext, RelaxProtocol, RelaxTask, relax, relaxation_integrator
from openmm_gancl.lifting.reverse_check import reason_counts
from openmm_gancl.reference.potential import ReferencePotential

NAMES = ["double_well_oscillators", "bonded_chain"]


def make_task(name, *, n=6, relax_steps=40, friction=0.0, time_step=None, reverse=False, schedule=None):
    system = load_system(name)
    model = untrained_model(system, seed=1, strength=0.3, latent_size=2)
    protocol = RelaxProtocol.linear(relax_steps, time_step or system.time_step, friction, system.temperature)
    if schedule is not None:
        protocol = replace(protocol, schedule=schedule)
    rng = np.random.default_rng(7)
    labels = np.full((n, 1), 0.4)
    proposals = propose(model, labels, system.force_constants, system.kT, rng)
    velocities = rng.standard_normal((n, system.n_atoms, 3)) * np.sqrt(system.kT / system.masses)[:, None]
    task = RelaxTask(
        system_xml=openmm.XmlSerializer.serialize(system.system),
        chart=model.chart,
        slow=system.slow,
        force_constants=system.force_constants,
        protocol=protocol,
        platform="Reference",
        seed=11,
        reverse=reverse,
        labels=labels,
        parameters=proposals.parameters,
        positions=model.chart.to_cartesian(proposals.coordinates),
        velocities=velocities,
        runnable=np.ones(n, dtype=bool),
    )
    return system, task


def end_of_path(task, index, positions, velocities):
    """Positions and velocities where one path ends."""
    n = len(task.labels)
    same = {"positions": np.repeat(positions[None], n, axis=0), "velocities": np.repeat(velocities[None], n, axis=0)}
    task = replace(task, **same)
    path = PathContext(task)
    path.run(task, index)
    state = path.context.getState(positions=True, velocities=True)
    return state.getPositions(asNumpy=True)._value, state.getVelocities(asNumpy=True)._value


@pytest.mark.parametrize("name", NAMES)
def test_without_friction_there_is_no_heat(name):
    _, task = make_task(name)
    np.testing.assert_allclose(relax(task).heat, 0.0, atol=1e-10)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kicks", ["linear", "quadratic"])
def test_reversed_kick_list_runs_the_path_back(name, kicks):
    """Forward, velocities flipped, reversed list: the start again, which checks the list's order and its ends."""
    schedule = None if kicks == "linear" else np.linspace(0, 1, 41) ** 2
    _, task = make_task(name, schedule=schedule)
    for index in range(3):
        start, speed = task.positions[index], task.velocities[index]
        end, end_speed = end_of_path(task, index, start, speed)
        assert np.abs(end - start).max() > 1e-3
        back, back_speed = end_of_path(replace(task, reverse=True), index, end, -end_speed)
        np.testing.assert_allclose(back, start, atol=1e-8)
        np.testing.assert_allclose(-back_speed, speed, atol=1e-6)


def numpy_path(system, task, index, gradient):
    """Method, section 4, steps 1 and 2, at friction zero."""
    h, mass = task.protocol.time_step, system.masses[:, None]
    schedule = task.protocol.schedule[::-1] if task.reverse else task.protocol.schedule
    n_steps = task.protocol.relax_steps
    centres, stiffness = task.parameters.centres[index], system.kT / task.parameters.widths[index] ** 2
    x, v = task.positions[index].copy(), task.velocities[index].copy()

    def force(x, share):
        reference = -(stiffness * (x.ravel() - centres)).reshape(-1, 3)
        force_constants = np.zeros_like(x)
        force_constants[0, 0] = -system.force_constants[0] * (x[0, 0] - task.labels[index, 0])
        return share * (force_constants - gradient(x)) + (1 - share) * reference

    for n, share in enumerate(schedule):
        v = v + (0.5 if n in (0, n_steps) else 1.0) * h * force(x, share) / mass
        if n < n_steps:
            x = x + v * h / 2
            x = x + v * h / 2
    return x, v


def double_well_gradient(positions):
    """Complex-step derivative of the card's formula."""

    def energy(q):
        x, y, z = q
        ky, kz = 2000 * np.exp(0.8 * np.tanh(2 * x)), 1000 * np.exp(0.3 * np.tanh(2 * x))
        fast = 0.5 * ky * (y - 0.25 * np.sin(1.5 * x)) ** 2 + 0.5 * kz * (z - 0.2 * np.cos(x)) ** 2
        return 10 * (x**2 - 1) ** 2 + fast

    return np.array([[energy(positions[0] + 1e-30j * row).imag / 1e-30 for row in np.eye(3)]])


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("relax_steps", [1, 2, 25])
def test_the_integrator_is_the_scheme(relax_steps, reverse):
    system, task = make_task("double_well_oscillators", relax_steps=relax_steps, reverse=reverse)
    relaxed = relax(task)
    for index in range(len(task.labels)):
        x, v = numpy_path(system, task, index, double_well_gradient)
        np.testing.assert_allclose(relaxed.positions[index], x, atol=1e-9)
        kinetic = 0.5 * (system.masses[:, None] * v**2).sum()
        assert relaxed.kinetic_end[index] == pytest.approx(kinetic, rel=1e-8)


def test_kinetic_energies_are_those_of_the_given_velocities():
    system, task = make_task("double_well_oscillators")
    expected = 0.5 * (system.masses[:, None] * task.velocities**2).sum(axis=(1, 2))
    np.testing.assert_allclose(relax(task).kinetic_start, expected, rtol=1e-12)


@pytest.mark.parametrize("reverse", [False, True])
def test_real_energy_holds_potential_and_restraint(reverse):
    """Forward at the end, in reverse at the start."""
    system, task = make_task("double_well_oscillators", friction=2.0, reverse=reverse)
    relaxed = relax(task)
    where = task.positions if reverse else relaxed.positions
    x, y, z = where[:, 0].T
    ky, kz = 2000 * np.exp(0.8 * np.tanh(2 * x)), 1000 * np.exp(0.3 * np.tanh(2 * x))
    real = 10 * (x**2 - 1) ** 2 + 0.5 * ky * (y - 0.25 * np.sin(1.5 * x)) ** 2 + 0.5 * kz * (z - 0.2 * np.cos(x)) ** 2
    real += restraint_energies(system.slow, task.force_constants, system.slow.transform(where), task.labels)
    np.testing.assert_allclose(relaxed.real_energies, real, rtol=1e-7)


@pytest.mark.parametrize("friction", [0.5, 5.0])
def test_energy_balance_vanishes_with_the_time_step(friction):
    """Reference to itself: the work is shadow work alone, and falls with the square of the time step."""

    def worst(time_step):
        system, task = make_task("double_well_oscillators", friction=friction, time_step=time_step, n=20)
        task = replace(task, protocol=replace(task.protocol, schedule=np.zeros(41)))
        relaxed = relax(task)
        reference = ReferencePotential(task.chart, system.kT)
        start, end = (
            reference.energies(task.chart.to_internal(x), task.parameters) for x in (task.positions, relaxed.positions)
        )
        work = end - start + relaxed.kinetic_end - relaxed.kinetic_start - relaxed.heat
        return np.sqrt((work**2).mean())

    assert worst(0.002) < worst(0.008) / 8


def test_no_step_evaluates_an_energy():
    integrator = relaxation_integrator(RelaxProtocol.linear(10, 0.002, 1.0, 300.0))
    expressions = [integrator.getComputationStep(i)[2] for i in range(integrator.getNumComputations())]
    words = {word for expression in expressions for word in re.findall(r"[A-Za-z_]\w*", expression)}
    assert not {word for word in words if word.startswith("energy")}
    assert {word for word in words if re.fullmatch(r"f\d*", word)} == {"f1", "f2"}


def particle(energy, name="particle"):
    """One particle in a field, slow in x."""
    topology = Topology()
    topology.addAtom("P", Element.getBySymbol("Ar"), topology.addResidue("P", topology.addChain()))
    system = openmm.System()
    system.addParticle(20.0)
    force = openmm.CustomExternalForce(energy)
    force.addParticle(0, [])
    system.addForce(force)
    labels = ParticleCoordinates(("x",), np.array([[0, 0]]), np.array([[-1.0, 1.0]]))
    return system_from_objects(
        topology,
        system,
        np.zeros((1, 3)),
        temperature=300.0,
        slow=labels,
        force_constants=100.0,
        friction=5.0,
        time_step=0.01,
    )


WELL = "50*(x^2+y^2+z^2)"


@pytest.mark.parametrize(
    ("energy", "reasons", "relax_steps"),
    [
        (WELL + "+1e-9*log(y+0.05)", {"nan", "failed"}, 10),
        (WELL + "+step(-0.05-y)*1e12", {"clash"}, 10),
        # a force without bound is unstable at any time step: with more steps paths that would come back are lost, and
        # mean(w) is low, by 5.5 +- 0.9 % at 10 steps; with one step a path meets the force at its end alone
        (WELL + "+step(-0.05-y)*1e200*y^4", {"nan", "failed", "clash"}, 1),
    ],
    ids=["nan", "clash", "overflow"],
)
def test_failing_paths_are_counted_and_leave_the_others_alone(energy, reasons, relax_steps):
    """Paths that meet the forbidden half fail; mean(w), these zeros included, is the rest's integral (3.5 sigma)."""
    system = particle(energy)
    model = untrained_model(system, seed=1, latent_size=0, strength=0.0, widths={"cartesian": 0.25})
    n = 6000
    lifts = Lifter(system, model, relax_steps=relax_steps, platform="Reference").lift(np.zeros((n, 1)), seed=3)
    assert len(lifts) == n
    counts = reason_counts(lifts)
    assert sum(counts[reason] for reason in reasons if reason in counts) == n - counts["ok"] > 500
    assert counts["ok"] > 500
    assert (lifts.log_weights[~lifts.ok] == -np.inf).all() and not np.isnan(lifts.log_weights).any()
    y = np.linspace(-0.05, 2, 20001)
    wells = np.sqrt(2 * np.pi * system.kT / 200) * np.sqrt(2 * np.pi * system.kT / 100)
    exact = wells * np.exp(-50 * y**2 / system.kT).sum() * (y[1] - y[0])
    weights = np.exp(lifts.log_weights) / exact
    assert abs(weights.mean() - 1) < 3.5 * weights.std() / n**0.5


def test_a_path_that_cannot_run_changes_no_byte_of_those_before_it():
    _, task = make_task("double_well_oscillators", friction=2.0)
    whole = relax(task)
    positions = task.positions.copy()
    positions[3] = np.nan
    broken = relax(replace(task, positions=positions))
    np.testing.assert_array_equal(broken.positions[:3], whole.positions[:3])
    assert np.isfinite(broken.positions[4:]).all()
    assert not np.isfinite(broken.positions[3]).all()
    skipped = relax(replace(task, runnable=np.arange(6) != 3))
    assert np.isnan(skipped.positions[3]).all() and not skipped.failed.any()


def test_same_seed_same_bytes_whatever_the_workers():
    system = load_system("bonded_chain")
    model = untrained_model(system, seed=1, latent_size=2)
    labels = np.linspace(-2, 2, 70)[:, None]
    runs = [
        Lifter(system, model, relax_steps=20, platform="Reference", workers=workers).lift(labels, seed=seed)
        for workers, seed in ((1, 5), (1, 5), (2, 5), (1, 6))
    ]
    for other in runs[1:3]:
        assert runs[0].log_weights.tobytes() == other.log_weights.tobytes()
        assert runs[0].positions.tobytes() == other.positions.tobytes()
    assert runs[0].log_weights.tobytes() != runs[3].log_weights.tobytes()


def test_a_relaxation_has_at_least_one_step():
    with pytest.raises(InputError, match="whole number from 1 up"):
        RelaxProtocol.linear(0, 0.002, 1.0, 300.0)
