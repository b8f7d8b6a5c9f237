"""Steering: dynamics that bring a molecule, solvent around it, from its labels to others.

The restraint's centre moves there; a generator's reference forces, ramped up and down again, can steer the fast
degrees of freedom too. The result is a start for equilibration: it has no weight.
"""

from dataclasses import dataclass, replace

import numpy as np
import openmm
from scipy.sparse.csgraph import shortest_path

from ..coordinates.geometry import wrap
from ..coordinates.slow_coordinates import SlowCoordinates
from ..engine.platforms import make_context
from ..engine.random_numbers import named_rng, named_seed, openmm_seed
from ..engine.restraint_forces import add_restraint
from ..engine.serialization import deserialized_system
from ..engine.tasks import RunTasks, run_tasks
from ..reference.chart import Chart
from ..reference.potential import ReferenceParameters, ReferencePotential
from ..system.molecular_system import MolecularSystem
from ..units import FloatArray, IntArray, numbers, thermal_energy
from .frames import Walkers, join_walkers
from .langevin import (
    MINIMISER_ITERATIONS,
    RestrainedDynamics,
    evaluations_of_windows,
    langevin_integrator,
    lost_walker,
    seed_forces,
    set_walker,
    walker_of,
)

N_STAGES = 40
"""Positions of the restraint's centre during the steering."""

RISE_FRACTION, FALL_FRACTION = 0.4, 0.3
"""Fractions of the steering over which reference forces rise and fall."""

WALKERS_PER_TASK = 4

MAX_RETRIES = 2
"""Of a walker that blew up, each with half the time step of the one before."""


@dataclass(frozen=True)
class SteerTask:
    """A few walkers and where they are to go; picklable.

    Attributes:
        dynamics: that brings them there.
        walkers: before it.
        origins: shape=(n, d), labels there.
        labels: shape=(n, d), where they are to go.
        n_steps: of the steering, for each.
        seed: of the Contexts.
        chart: of the reference, atoms numbered as in the System; None without one.
        parameters: n references.
    """

    dynamics: RestrainedDynamics
    walkers: Walkers
    origins: FloatArray
    labels: FloatArray
    n_steps: int
    seed: int
    chart: Chart | None = None
    parameters: ReferenceParameters | None = None

    @property
    def platform(self) -> str:
        """That it runs on."""
        return self.dynamics.platform

    def on(self, platform: str) -> "SteerTask":
        """The same on another platform."""
        return replace(self, dynamics=replace(self.dynamics, platform=platform))


def _strength(fraction: float) -> float:
    """Of the reference forces during the steering; zero at its end."""
    return max(min(fraction / RISE_FRACTION, 1.0, (1.0 - fraction) / FALL_FRACTION), 0.0)


def _steer(task: SteerTask) -> Walkers:
    dynamics = task.dynamics
    system = deserialized_system(dynamics.system_xml)
    restraint = add_restraint(system, dynamics.slow, dynamics.force_constants, force_group=0)
    reference, forces = None, []
    if task.chart is not None:
        reference = ReferencePotential(task.chart, thermal_energy(dynamics.temperature))
        forces = reference.forces(0)
        for force in forces:
            system.addForce(force)

    def move(context: openmm.Context, index: int, fraction: float) -> None:
        origin, label = task.origins[index], task.labels[index]
        restraint.move(context, origin + fraction * wrap(label - origin, dynamics.slow.periods))
        if reference is not None and task.parameters is not None:
            widths = task.parameters.widths[[index]] / np.sqrt(max(_strength(fraction), 1e-12))
            reference.set_parameters(forces, ReferenceParameters(task.parameters.centres[[index]], widths), 0, context)

    ends = []
    for index in range(len(task.labels)):
        integrator = dynamics.integrator()
        rng = named_rng(task.seed, "window", index)
        seed_forces(system, rng)
        context = make_context(system, integrator, dynamics.platform, openmm_seed(rng))
        try:
            set_walker(context, task.walkers, index)
            move(context, index, 0.0)
            if task.walkers.velocities is None:
                context.setVelocitiesToTemperature(dynamics.temperature, openmm_seed(rng))
            for stage, steps in enumerate(np.diff(np.linspace(0, task.n_steps, N_STAGES + 1).astype(int))):
                move(context, index, (stage + 1) / N_STAGES)
                integrator.step(int(steps))
            ends.append(walker_of(context))
        except openmm.OpenMMException:
            ends.append(lost_walker(system.getNumParticles()))
    return join_walkers(ends)


def steer(
    dynamics: RestrainedDynamics,
    walkers: Walkers,
    labels: FloatArray,
    n_steps: int,
    *,
    seed: int,
    chart: Chart | None = None,
    parameters: ReferenceParameters | None = None,
    run: RunTasks = run_tasks,
) -> tuple[Walkers, int]:
    """Bring walkers to labels, the short way around; one that blows up is sent again with a shorter time step.

    Args:
        dynamics: that brings them there.
        walkers: n of them.
        labels: shape=(n, d).
        n_steps: of each.
        seed: of the Contexts.
        chart: of reference forces that bring the fast degrees of freedom along, atoms numbered as in the System.
        parameters: n references.
        run: runs the tasks, in several processes, say.

    Returns:
        where they end, NaN where one blew up every time, and the force evaluations.
    """
    with np.errstate(invalid="ignore"):
        origins = dynamics.slow.transform(walkers.positions)
    ends = [lost_walker(walkers.positions.shape[1])] * len(labels)
    missing, evaluations = np.flatnonzero(np.isfinite(walkers.positions).all(axis=(1, 2))), 0
    for attempt in range(1 + MAX_RETRIES):
        tasks = []
        for begin in range(0, len(missing), WALKERS_PER_TASK):
            some = missing[begin : begin + WALKERS_PER_TASK]
            part = parameters
            if parameters is not None:
                part = ReferenceParameters(parameters.centres[some], parameters.widths[some])
            number = named_seed(seed, "steering", attempt, begin)
            place = (walkers.select(some), origins[some], labels[some])
            tasks.append(SteerTask(dynamics, *place, n_steps, number, chart, part))
        if not tasks:
            break
        moved = join_walkers(run(_steer, tasks))
        for i, index in enumerate(missing):
            ends[index] = moved.select([i])
        evaluations += len(missing) * n_steps
        missing = missing[~np.isfinite(moved.positions).all(axis=(1, 2))]
        dynamics = replace(dynamics, time_step=0.5 * dynamics.time_step)
    return join_walkers(ends), evaluations


def minimised(system: MolecularSystem, platform: str) -> tuple[Walkers, int]:
    """The system's structure without its clashes, as one walker, and the force evaluations; NaN where none is found."""
    integrator = langevin_integrator(system.temperature, system.friction, system.time_step)
    context = make_context(system.system, integrator, platform, 1)
    try:
        set_walker(context, Walkers(system.positions[None]), 0)
        openmm.LocalEnergyMinimizer.minimize(context, 10.0, MINIMISER_ITERATIONS)
        positions = numbers(context.getState(positions=True).getPositions(asNumpy=True))
    except openmm.OpenMMException:
        positions = np.full(system.positions.shape, np.nan)
    return Walkers(positions[None]), evaluations_of_windows(1, 0)


def label_distances(slow: SlowCoordinates, some: FloatArray, others: FloatArray) -> FloatArray:
    """Between labels, shape=(n, m), in units of the domain, the short way around."""
    span = slow.domain[:, 1] - slow.domain[:, 0]
    return np.asarray(np.linalg.norm(wrap(some[:, None] - others[None], slow.periods) / span, axis=-1))


def nearest_starts(slow: SlowCoordinates, labels: FloatArray, positions: FloatArray) -> FloatArray:
    """For each label the frame whose label is nearest, shape=(n, n_atoms, 3).

    Args:
        slow: the slow coordinates.
        labels: shape=(n, d).
        positions: shape=(m, n_atoms, 3), nm.
    """
    return np.asarray(positions[label_distances(slow, labels, slow.transform(positions)).argmin(axis=1)])


def _tree(slow: SlowCoordinates, labels: FloatArray, start: FloatArray) -> tuple[IntArray, IntArray]:
    """Parent (-1: the start) and depth of each label on the ways of short hops from the start, shape=(n,) each."""
    places = np.concatenate([start[None], labels])
    # squared, so that two short hops are better than a long one
    hops = label_distances(slow, places, places) ** 2 + 1e-9
    parents = shortest_path(hops, indices=0, return_predecessors=True)[1]
    depth = np.zeros(len(places), dtype=np.int64)
    for place in range(1, len(places)):
        ancestor = place
        while ancestor != 0:
            ancestor, depth[place] = parents[ancestor], depth[place] + 1
    return parents[1:] - 1, depth[1:]


def pulled_starts(
    system: MolecularSystem,
    dynamics: RestrainedDynamics,
    labels: FloatArray,
    n_steps: int,
    *,
    seed: int,
    run: RunTasks = run_tasks,
) -> tuple[Walkers, int]:
    """Pull the system's structure to each label, window by window along ways of short hops.

    Args:
        system: the system.
        dynamics: that pulls.
        labels: shape=(n, d).
        n_steps: from each window to the next.
        seed: of the Contexts.
        run: as for `steer`.

    Returns:
        a walker at each label, and the force evaluations.
    """
    start = system.slow.transform(system.positions[None])[0]
    parents, depth = _tree(system.slow, labels, start)
    first, evaluations = minimised(system, dynamics.platform)
    done: dict[int, Walkers] = {-1: first}
    for level in range(1, int(depth.max()) + 1):
        members = np.flatnonzero(depth == level)
        origins = join_walkers([done[int(parents[i])] for i in members])
        level_seed = named_seed(seed, "pulling", level)
        moved, cost = steer(dynamics, origins, labels[members], n_steps, seed=level_seed, run=run)
        evaluations += cost
        done |= {int(i): moved.select([k]) for k, i in enumerate(members)}
    return join_walkers([done[i] for i in range(len(labels))]), evaluations
