"""Relax: morph the reference into the real potential inside a Context, measuring the heat.

One `CustomIntegrator` in one Context: forces only in each step, one total energy at an end, the heat summed over
the random step (method: nonequilibrium work with shadow work included, as in Nilmeier et al. 2011,
doi 10.1073/pnas.1106094108).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import openmm

from ..coordinates.copies import repeated
from ..coordinates.slow_coordinates import SlowCoordinates
from ..engine.packing import CopyLattice, add_guard, pack_force, pack_system
from ..engine.platform_rng import seed_reference_platform
from ..engine.platforms import REAL_GROUP, REFERENCE_GROUP, make_context, put_in_group
from ..engine.random_numbers import named_rng, openmm_seed
from ..engine.restraint_forces import Restraint, add_restraint
from ..engine.serialization import deserialized
from ..errors import InputError
from ..generator.density_reference import DensityReference
from ..reference.chart import Chart
from ..reference.potential import Reference, ReferenceParameters, ReferencePotential
from ..units import BoolArray, FloatArray, IntArray, masses_of, number, numbers, thermal_energy, whole_number

CLASH_ENERGY = 1e10
"""kJ/mol; above it an end energy or a heat is a clash."""

CONSTRAINT_TOLERANCE = {"Reference": 1e-8, "CPU": 1e-8}
"""Relative, by platform in double precision; 1e-6 elsewhere."""

TASK_SIZE = 32
"""Lifts in one task: the unit of seeding, retry and placement."""


@dataclass(frozen=True)
class RelaxProtocol:
    """The fixed path from the reference (0) to the real potential (1).

    Args:
        schedule: shape=(relax_steps + 1,), the kick list l_0 .. l_N.
        time_step: ps.
        friction: 1/ps.
        temperature: K.
    """

    schedule: FloatArray
    time_step: float
    friction: float
    temperature: float

    @classmethod
    def linear(cls, relax_steps: int, time_step: float, friction: float, temperature: float) -> "RelaxProtocol":
        """The default kick list n / N."""
        relax_steps, time_step, friction = whole_number("relax_steps", relax_steps), number(time_step), number(friction)
        if not (np.isfinite([time_step, friction]).all() and time_step > 0 and friction >= 0):
            raise InputError(
                f"time step {time_step} ps, friction {friction} / ps: give a positive and one from zero up"
            )
        return cls(np.linspace(0.0, 1.0, relax_steps + 1), time_step, friction, temperature)

    @property
    def relax_steps(self) -> int:
        """The number of steps N."""
        return len(self.schedule) - 1


CommonToPaths = tuple[str, Chart, SlowCoordinates, FloatArray, float, DensityReference | None]


@dataclass(frozen=True)
class RelaxTask:
    """Everything that one task of relaxations needs; picklable.

    Attributes:
        system_xml: the serialized System of the real potential.
        chart: the chart of the reference.
        slow: the slow coordinates.
        force_constants: shape=(d,), restraint constants; zeros where nothing holds the label.
        protocol: the relaxation.
        platform: name of the OpenMM platform.
        seed: of the Context.
        reverse: from the real potential to the reference.
        labels: shape=(n, d).
        parameters: n references.
        positions: shape=(n, n_atoms, 3), where the paths start, nm.
        velocities: shape=(n, n_atoms, 3), nm/ps.
        runnable: shape=(n,), False where there is nothing to run (a draw outside the chart).
        density: the reference of a generator with a density; that of independent terms by default.
    """

    system_xml: str
    chart: Chart
    slow: SlowCoordinates
    force_constants: FloatArray
    protocol: RelaxProtocol
    platform: str
    seed: int
    reverse: bool
    labels: FloatArray
    parameters: ReferenceParameters | FloatArray
    positions: FloatArray
    velocities: FloatArray
    runnable: BoolArray
    density: DensityReference | None = None

    def on(self, platform: str) -> "RelaxTask":
        """The same on another platform."""
        return replace(self, platform=platform)

    @property
    def common(self) -> CommonToPaths:
        """What its System depends on: potential, chart, labels, their constants, temperature, and reference."""
        constants, temperature = self.force_constants, self.protocol.temperature
        return self.system_xml, self.chart, self.slow, constants, temperature, self.density

    @property
    def reference(self) -> Reference:
        """Where paths have their other end."""
        return self.density or ReferencePotential(self.chart, thermal_energy(self.protocol.temperature))


@dataclass(frozen=True)
class Relaxed:
    """What a task of relaxations brings back.

    Attributes:
        positions: shape=(n, n_atoms, 3), the ends of the paths, nm; NaN where a path failed.
        heat: shape=(n,), Q, the kinetic energy that the random steps brought in, kJ/mol.
        real_energies: shape=(n,), U_A + U_C at the real end of the path, kJ/mol.
        kinetic_start: shape=(n,), kJ/mol.
        kinetic_end: shape=(n,), kJ/mol.
        failed: shape=(n,), True where OpenMM refused to go on.
    """

    positions: FloatArray
    heat: FloatArray
    real_energies: FloatArray
    kinetic_start: FloatArray
    kinetic_end: FloatArray
    failed: BoolArray


def relaxation_integrator(
    protocol: RelaxProtocol, constrained: bool = False, lattice: CopyLattice | None = None
) -> openmm.CustomIntegrator:
    """N steps, N + 1 kicks, each kick half real and half reference as the list says, heat summed per DOF.

    Globals to set before a path: ``n`` = 0 and ``reverse`` (0 or 1); per-DOF ``q`` = 0. After the path ``heat``
    holds Q in kJ/mol. Packed copies have cells, and a guard; their heat is the sum of ``q`` over each.
    """
    integrator = openmm.CustomIntegrator(protocol.time_step)
    add_relaxation_variables(integrator, protocol, constrained)
    check = (lambda: None) if lattice is None else add_guard(integrator, lattice, protocol.time_step)
    add_relaxation_step(integrator, f"f{REAL_GROUP}", f"f{REFERENCE_GROUP}", constrained, check)
    return integrator


def add_relaxation_variables(
    integrator: openmm.CustomIntegrator, protocol: RelaxProtocol, constrained: bool = False
) -> None:
    """What `add_relaxation_step` computes with."""
    decay = np.exp(-protocol.friction * protocol.time_step)
    integrator.addTabulatedFunction("schedule", openmm.Discrete1DFunction(protocol.schedule.tolist()))
    for name, value in {
        "n": 0.0,
        "n_steps": protocol.relax_steps,
        "reverse": 0.0,
        "real_kick": 0.0,
        "reference_kick": 0.0,
        "decay": decay,
        "noise": np.sqrt((1.0 - decay**2) * thermal_energy(protocol.temperature)),
        "heat": 0.0,
    }.items():
        integrator.addGlobalVariable(name, value)
    for name in ("q", "old", *(["drifted"] if constrained else [])):
        integrator.addPerDofVariable(name, 0.0)


def add_relaxation_step(
    integrator: openmm.CustomIntegrator,
    real_force: str,
    reference_force: str,
    constrained: bool = False,
    check: Callable[[], None] = lambda: None,
) -> None:
    """One step of a relaxation, as lines of a CustomIntegrator.

    With constraints every half drift is one reversible step of RATTLE (Andersen 1983, doi
    10.1016/0021-9991(83)90014-1), and velocities are projected after every kick and before heat is counted.

    Args:
        integrator: with the variables of `add_relaxation_variables`.
        real_force: an expression, of one force group at most.
        reference_force: the same.
        constrained: whether the System has constraints.
        check: adds lines after each kick.
    """

    def project() -> None:
        if constrained:
            integrator.addConstrainVelocities()

    def half_drift() -> None:
        integrator.addComputePerDof("x", "x+0.5*dt*v")
        if constrained:
            integrator.addComputePerDof("drifted", "x")
            integrator.addConstrainPositions()
            integrator.addComputePerDof("v", "v+2*(x-drifted)/dt")
            integrator.addConstrainVelocities()

    def kick(length: str) -> None:
        integrator.addComputeGlobal("real_kick", f"{length}*schedule(select(reverse, n_steps-n, n))")
        integrator.addComputeGlobal("reference_kick", f"{length}-real_kick")
        integrator.addComputePerDof("v", f"v+reference_kick*({reference_force})/m")
        integrator.addComputePerDof("v", f"v+real_kick*({real_force})/m")
        check()
        project()

    integrator.beginIfBlock("n = 0")
    integrator.addComputePerDof("q", "0")
    kick("0.5*dt")
    integrator.endBlock()
    half_drift()
    integrator.addComputePerDof("old", "v")
    integrator.addComputePerDof("v", "decay*v+noise*gaussian/sqrt(m)")
    project()
    integrator.addComputePerDof("q", "q+0.5*m*(v*v-old*old)")
    half_drift()
    integrator.addComputeGlobal("n", "n+1")
    kick("dt*select(n_steps-n, 1, 0.5)")
    integrator.beginIfBlock("n = n_steps")
    integrator.addComputeSum("heat", "q")
    integrator.endBlock()


@dataclass(frozen=True)
class PathSystem:
    """The System of paths: the real potential, the restraint and the reference, once or for each packed copy.

    Attributes:
        system: as a Context takes it.
        lattice: where packed copies belong; None for a System as it is.
        force_constants: whose centres are to be moved.
        reference: whose parameters are to be set.
        reference_forces: in which.
    """

    system: openmm.System
    lattice: CopyLattice | None
    restraint: Restraint
    reference: Reference
    reference_forces: list[openmm.Force]

    @classmethod
    def of(cls, common: CommonToPaths, lattice: CopyLattice | None = None, copies: int = 1) -> "PathSystem":
        """What paths that have so much in common run in.

        Args:
            common: see `RelaxTask.common`; it is not changed.
            lattice: where packed copies belong; None for a System as it is.
            copies: how many.
        """
        system_xml, chart, slow, constants, temperature, density = common
        single = deserialized(system_xml)
        system = openmm.XmlSerializer.clone(single) if lattice is None else pack_system(single, copies, lattice)
        put_in_group(system, REAL_GROUP)
        n_atoms = single.getNumParticles()
        restraint = add_restraint(system, repeated(slow, copies, n_atoms), np.tile(constants, copies), REAL_GROUP)
        reference: Reference
        if density is not None:
            reference, forces = density, density.forces(REFERENCE_GROUP, copies)
        else:
            native = ReferencePotential(chart, thermal_energy(temperature))
            reference, forces = native, [pack_force(one, copies, n_atoms) for one in native.forces(REFERENCE_GROUP)]
        for force in forces:
            system.addForce(force)
        return cls(system, lattice, restraint, reference, forces)


class PathContext:
    """One Context in which paths run: one after the other, or in packed copies side by side.

    Args:
        task: paths of the kind that it is for.
        restart: how many paths of the task have been tried; after a failure the noise is another.
        paths: their System; made anew by default, for paths one after the other.
    """

    def __init__(self, task: RelaxTask, restart: int = 0, paths: PathSystem | None = None):
        self.paths = paths or PathSystem.of(task.common)
        self.masses = masses_of(deserialized(task.system_xml))
        self.constrained = self.paths.system.getNumConstraints() > 0
        self.integrator = relaxation_integrator(task.protocol, self.constrained, self.paths.lattice)
        self.tolerance = CONSTRAINT_TOLERANCE.get(task.platform, 1e-6)
        self.integrator.setConstraintTolerance(self.tolerance)
        seed = openmm_seed(named_rng(task.seed, "restart", restart)) if restart else task.seed
        self.context = make_context(self.paths.system, self.integrator, task.platform, seed)

    def start(self, task: RelaxTask, indices: IntArray, positions: FloatArray) -> None:
        """Put the copies where their paths start.

        Args:
            task: the paths.
            indices: shape=(copies,), the path of each.
            positions: shape=(copies, n_atoms, 3), nm.
        """
        paths = self.paths
        paths.restraint.move(self.context, task.labels[indices].ravel())
        paths.reference.set_parameters(paths.reference_forces, task.parameters, indices, self.context)
        self.context.setPositions(positions.reshape(-1, 3))
        self.context.setVelocities(task.velocities[indices].reshape(-1, 3))
        if self.constrained:
            self.context.applyConstraints(self.tolerance)
            self.context.applyVelocityConstraints(self.tolerance)
        self.integrator.setGlobalVariableByName("n", 0)
        self.integrator.setGlobalVariableByName("reverse", int(task.reverse))

    def real_state(self) -> tuple[openmm.State, float, float]:
        """With positions; U_A + U_C and the kinetic energy, kJ/mol."""
        state = self.context.getState(positions=True, energy=True, groups=1 << REAL_GROUP)
        return state, number(state.getPotentialEnergy()), number(state.getKineticEnergy())

    def run(self, task: RelaxTask, index: int) -> tuple[FloatArray, float, float, float, float]:
        """One path: its end, nm, its heat, U_A + U_C at its real end, and its kinetic energies, kJ/mol."""
        self.start(task, np.array([index]), task.positions[[index]])
        real_at_start, kinetic_start = np.nan, 0.0
        if task.reverse or self.constrained:
            _, real_at_start, kinetic_start = self.real_state()
        if not self.constrained:
            kinetic_start = float(0.5 * np.sum(self.masses[:, None] * task.velocities[index] ** 2))
        self.integrator.step(task.protocol.relax_steps)
        end, real_at_end, kinetic_end = self.real_state()
        return (
            numbers(end.getPositions(asNumpy=True)),
            self.integrator.getGlobalVariableByName("heat"),
            real_at_start if task.reverse else real_at_end,
            kinetic_start,
            kinetic_end,
        )


class Relaxer:
    """Runs tasks in one Context that it keeps; they may differ in their paths only, forward or reverse.

    Pickled it has none: a worker makes its own, and the records of tasks know it by its kind.
    """

    def __init__(self) -> None:
        self.path: PathContext | None = None

    def __reduce__(self) -> tuple[type["Relaxer"], tuple[()]]:
        return Relaxer, ()

    def __call__(self, task: RelaxTask) -> Relaxed:
        """Run every path of a task; one that fails leaves the others alone."""
        n = len(task.labels)
        positions = np.full(task.positions.shape, np.nan)
        numbers = np.full((n, 4), np.nan)
        failed = np.zeros(n, dtype=bool)
        restart, runnable = 0, np.flatnonzero(task.runnable)
        first = runnable[0] if len(runnable) else None
        for index in runnable:
            if self.path is None:
                self.path = PathContext(task, restart)
            elif index == first:
                # platforms whose Contexts share one generator: a task's noise depends on nothing that ran before it
                seed_reference_platform(task.seed)
            try:
                positions[index], *numbers[index] = self.path.run(task, int(index))
            except openmm.OpenMMException:
                failed[index] = True
                self.path, restart = None, int(index) + 1
        heat, real, kinetic_start, kinetic_end = numbers.T
        return Relaxed(positions, heat, real, kinetic_start, kinetic_end, failed)


def relax(task: RelaxTask) -> Relaxed:
    """Run every path of a task in a Context of its own."""
    return Relaxer()(task)
