"""Langevin dynamics of windows and free runs: walkers, and frames with labels and energies."""

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import openmm

from ..coordinates.slow_coordinates import SlowCoordinates, checked_constants
from ..engine.platforms import REAL_GROUP, make_context, put_in_group, resolved_platform
from ..engine.random_numbers import named_rng, named_seed, openmm_seed
from ..engine.restraint_forces import add_restraint
from ..engine.serialization import deserialized_system, serialized
from ..errors import InputError, checked
from ..system.bonds import check_lengths
from ..system.molecular_system import MolecularSystem
from ..units import FloatArray, number, numbers, whole_number
from .frames import Frames, Walkers, join_walkers

MINIMISER_ITERATIONS = 100
CONSTRAINT_TOLERANCE = 1e-6
"""Relative, of windows and runs."""


@dataclass(frozen=True)
class RestrainedDynamics:
    """Langevin dynamics of a System under a restraint, which windows share; picklable.

    Attributes:
        system_xml: the serialized System.
        slow: the slow coordinates.
        force_constants: shape=(d,), kJ/mol (torsions) or kJ/mol/nm^2.
        temperature: K.
        friction: 1/ps.
        time_step: ps.
        platform: an OpenMM platform.
    """

    system_xml: str
    slow: SlowCoordinates
    force_constants: FloatArray
    temperature: float
    friction: float
    time_step: float
    platform: str

    @classmethod
    def of(
        cls,
        system: MolecularSystem,
        *,
        force_constants: FloatArray | float | None = None,
        time_step: float | None = None,
        platform: str = "auto",
    ) -> "RestrainedDynamics":
        """That of a system, whose own restraint and time step are the default.

        Raises:
            InputError: the time step is not positive, or a force constant negative.
        """
        kappa = system.force_constants if force_constants is None else force_constants
        return cls(
            system_xml=serialized(system.system),
            slow=system.slow,
            force_constants=checked_constants(kappa, system.slow),
            temperature=system.temperature,
            friction=system.friction,
            time_step=checked_time_step(system.time_step if time_step is None else time_step),
            platform=resolved_platform(platform, system.system, system.positions),
        )

    def integrator(self) -> openmm.LangevinMiddleIntegrator:
        """A new one."""
        return langevin_integrator(self.temperature, self.friction, self.time_step)


def evaluations_of_windows(n: int, steps: int, minimise: bool = True) -> int:
    """Force evaluations of n windows of so many steps each, equilibration included."""
    return n * (steps + 2 * MINIMISER_ITERATIONS * minimise)


@dataclass(frozen=True)
class WindowTask:
    """A stretch of dynamics of a few windows; picklable.

    Attributes:
        dynamics: what they share.
        labels: shape=(n, d).
        walkers: n of them.
        minimise: before anything else.
        equilibration_steps: Langevin steps before sampling.
        n_frames: frames kept of each.
        stride: Langevin steps from frame to frame.
        seed: of every random number.
    """

    dynamics: RestrainedDynamics
    labels: FloatArray
    walkers: Walkers
    minimise: bool
    equilibration_steps: int
    n_frames: int
    stride: int
    seed: int

    @property
    def platform(self) -> str:
        """That it runs on."""
        return self.dynamics.platform

    def on(self, platform: str) -> "WindowTask":
        """The same on another platform."""
        return replace(self, dynamics=replace(self.dynamics, platform=platform))

    @property
    def cost(self) -> int:
        """Force evaluations."""
        steps = self.equilibration_steps + self.n_frames * self.stride
        return evaluations_of_windows(len(self.labels), steps, self.minimise)


def set_walker(context: openmm.Context, walkers: Walkers, index: int) -> None:
    """Give a Context a walker's positions; its velocities are left alone where it has none."""
    if walkers.boxes is not None:
        context.setPeriodicBoxVectors(*walkers.boxes[index])
    context.setPositions(walkers.positions[index])
    if walkers.velocities is not None:
        context.setVelocities(walkers.velocities[index])
    else:
        context.applyConstraints(CONSTRAINT_TOLERANCE)


def walker_of(context: openmm.Context) -> Walkers:
    """The positions, velocities and box of a Context, as one walker."""
    state = context.getState(positions=True, velocities=True)
    positions, velocities = (numbers(array)[None] for array in (state.getPositions(True), state.getVelocities(True)))
    return Walkers(positions, velocities, numbers(state.getPeriodicBoxVectors(asNumpy=True))[None])


def seed_forces(system: openmm.System, rng: np.random.Generator) -> None:
    """Of a barostat, say: those that draw numbers of their own."""
    for force in system.getForces():
        if hasattr(force, "setRandomNumberSeed"):
            force.setRandomNumberSeed(openmm_seed(rng))


def lost_walker(n_atoms: int) -> Walkers:
    """One that blew up."""
    return Walkers(*(np.full((1, rows, 3), np.nan) for rows in (n_atoms, n_atoms, 3)))


def langevin_integrator(temperature: float, friction: float, time_step: float) -> openmm.LangevinMiddleIntegrator:
    """The integrator of windows and runs."""
    integrator = openmm.LangevinMiddleIntegrator(temperature, friction, time_step)
    integrator.setConstraintTolerance(CONSTRAINT_TOLERANCE)
    return integrator


def sample_task(task: WindowTask) -> tuple[FloatArray, FloatArray, Walkers, FloatArray | None]:
    """Positions, shape=(n_windows, n_frames, n_atoms, 3), energies, ends, and boxes, if any; NaN where one blew up."""
    dynamics = task.dynamics
    system = deserialized_system(dynamics.system_xml)
    put_in_group(system, REAL_GROUP)
    restraint = add_restraint(system, dynamics.slow, dynamics.force_constants, force_group=0)
    n, n_atoms = len(task.labels), system.getNumParticles()
    positions = np.full((n, task.n_frames, n_atoms, 3), np.nan)
    energies = np.full((n, task.n_frames), np.nan)
    boxes = np.full((n, task.n_frames, 3, 3), np.nan) if system.usesPeriodicBoundaryConditions() else None
    ends = []
    for index, label in enumerate(task.labels):
        integrator = dynamics.integrator()
        rng = named_rng(task.seed, "window", index)
        seed_forces(system, rng)
        context = make_context(system, integrator, dynamics.platform, openmm_seed(rng))
        restraint.move(context, label)
        try:
            set_walker(context, task.walkers, index)
            if task.minimise:
                openmm.LocalEnergyMinimizer.minimize(context, 10.0, MINIMISER_ITERATIONS)
            if task.walkers.velocities is None:
                context.setVelocitiesToTemperature(dynamics.temperature, openmm_seed(rng))
            integrator.step(task.equilibration_steps)
            for frame in range(task.n_frames):
                integrator.step(task.stride)
                state = context.getState(positions=True, energy=True, groups={REAL_GROUP})
                positions[index, frame] = numbers(state.getPositions(asNumpy=True))
                energies[index, frame] = number(state.getPotentialEnergy())
                if boxes is not None:
                    boxes[index, frame] = numbers(state.getPeriodicBoxVectors(asNumpy=True))
            ends.append(walker_of(context))
        except openmm.OpenMMException:
            ends.append(lost_walker(n_atoms))
    return positions, energies, join_walkers(ends), boxes


def window_tasks(
    dynamics: RestrainedDynamics,
    labels: FloatArray,
    walkers: Walkers,
    size: int,
    *,
    equilibration_steps: int,
    n_frames: int,
    stride: int,
    seed: int,
) -> list[WindowTask]:
    """One stretch of all windows, in tasks.

    Args:
        dynamics: of all of them.
        labels: shape=(n, d).
        walkers: n of them; they are minimised where they have no velocities.
        size: windows in a task.
        equilibration_steps: Langevin steps before sampling.
        n_frames: frames kept of each.
        stride: Langevin steps from frame to frame.
        seed: of all of them.
    """
    return [
        WindowTask(
            dynamics=dynamics,
            labels=labels[begin : begin + size],
            walkers=walkers.select(slice(begin, begin + size)),
            minimise=walkers.velocities is None,
            equilibration_steps=equilibration_steps,
            n_frames=n_frames,
            stride=stride,
            seed=named_seed(seed, "task", begin),
        )
        for begin in range(0, len(labels), size)
    ]


def collect_frames(
    system: MolecularSystem,
    stretches: list[list[WindowTask]],
    results: list[list[tuple[FloatArray, FloatArray, Walkers, FloatArray | None]]],
) -> Frames:
    """Frames of the same windows from one or more stretches of dynamics, each divided into tasks."""

    def joined(part: int) -> Any:
        return np.concatenate([np.concatenate([task[part] for task in row]) for row in results], axis=1)

    positions = joined(0)
    n_windows, n_frames = positions.shape[:2]
    positions = positions.reshape(-1, *positions.shape[2:])
    energies = joined(1).ravel()
    labels = np.repeat(np.concatenate([task.labels for task in stretches[0]]), n_frames, axis=0)
    finite = np.isfinite(positions).all(axis=(1, 2)) & np.isfinite(energies)
    reasons = np.array(system.state.violations(positions), dtype=object)
    reasons[~finite] = "nan"
    with np.errstate(invalid="ignore"):
        cv_values = system.slow.transform(positions)
    frames = Frames(
        positions=positions,
        labels=labels,
        cv_values=cv_values,
        energies=energies,
        window=np.repeat(np.arange(n_windows), n_frames),
        force_constants=stretches[0][0].dynamics.force_constants,
        dropped=dict(sorted(Counter(reason for reason in reasons if reason).items())),
        force_evaluations=sum(task.cost for tasks in stretches for task in tasks),
        n_windows=n_windows,
        boxes=None if results[0][0][3] is None else joined(3).reshape(-1, 3, 3),
        walkers=join_walkers([part[2] for part in results[-1]]),
        n_stretches=len(stretches),
        temperature=stretches[0][0].dynamics.temperature,
    )
    return frames.select(reasons == "")


@checked
def sample_langevin(
    system: MolecularSystem,
    n_steps: int,
    *,
    n_frames: int = 100,
    equilibration_steps: int = 0,
    start: FloatArray | None = None,
    time_step: float | None = None,
    seed: int = 0,
    platform: str = "auto",
) -> Frames:
    """One free Langevin run.

    Args:
        system: the system.
        n_steps: Langevin steps sampled.
        n_frames: frames kept, evenly spaced.
        equilibration_steps: steps before sampling.
        start: shape=(n_atoms, 3), nm; the system's structure by default.
        time_step: ps; the system's own by default.
        seed: of the run.
        platform: an OpenMM platform, or ``auto`` to measure.
    """
    n_steps, n_frames = whole_number("n_steps", n_steps), whole_number("n_frames", n_frames)
    if n_steps < n_frames:
        raise InputError(f"n_steps = {n_steps} is less than n_frames = {n_frames}: raise it")
    positions = system.positions if start is None else numbers(start)
    if positions.shape != system.positions.shape:
        raise InputError(f"`start` has shape {positions.shape}: give ({system.n_atoms}, 3)")
    check_lengths(system.topology, system.system, positions)
    task = WindowTask(
        dynamics=RestrainedDynamics.of(system, force_constants=0.0, time_step=time_step, platform=platform),
        labels=np.zeros((1, len(system.slow.names))),
        walkers=Walkers(positions[None]),
        minimise=False,
        equilibration_steps=whole_number("equilibration_steps", equilibration_steps, 0),
        n_frames=n_frames,
        stride=n_steps // n_frames,
        seed=named_seed(seed, "langevin"),
    )
    frames = collect_frames(system, [[task]], [[sample_task(task)]])
    return replace(frames, labels=frames.cv_values)


def checked_time_step(time_step: Any) -> float:
    """Ps, if it can be one.

    Raises:
        InputError: it is not positive.
    """
    if not (np.isfinite(value := number(time_step)) and value > 0):
        raise InputError(f"time_step is {time_step}: give a positive number of ps")
    return value


def maxwell_boltzmann(masses: FloatArray, n: int, kT: float, rng: np.random.Generator) -> FloatArray:
    """Velocities at the full step, shape=(n, n_atoms, 3), nm/ps."""
    return np.asarray(rng.standard_normal((n, len(masses), 3)) * np.sqrt(kT / masses)[:, None])
