"""Langevin runs and restrained windows: frames with labels and energies, for training and for the reverse check."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import openmm
from scipy.stats import qmc

from .chart import chart_for
from .errors import InputError
from .execution import fastest_platform, make_context, openmm_seed, run_tasks, task_seed
from .relax import REAL_GROUP
from .slow import SlowCoordinates, checked_labels
from .slow_force import add_restraint
from .system import MolecularSystem
from .units import FloatArray, IntArray

WINDOWS_IN_A_TASK = 8
MINIMISER_ITERATIONS = 100
CONSTRAINT_TOLERANCE = 1e-6
"""Relative, of windows and runs."""


@dataclass(frozen=True)
class Frames:
    """Configurations of restrained windows (or of free runs, where ``labels`` equals ``obtained``).

    Attributes:
        positions: shape=(n, n_atoms, 3), nm.
        labels: shape=(n, d), the centre of each frame's restraint.
        obtained: shape=(n, d), xi of each frame.
        energies: shape=(n,), kJ/mol, of the real potential without the restraint.
        window: shape=(n,), the window of each frame.
        restraint: shape=(d,), the constants that held the windows.
        dropped: how many frames were dropped, by reason (cis, chirality, bond, nan).
        force_evaluations: what the frames cost.
    """

    positions: FloatArray
    labels: FloatArray
    obtained: FloatArray
    energies: FloatArray
    window: IntArray
    restraint: FloatArray
    dropped: dict[str, int]
    force_evaluations: int

    def __len__(self) -> int:
        return len(self.positions)

    def select(self, which: Any) -> "Frames":
        """The frames of a mask or of indices."""
        names = ("positions", "labels", "obtained", "energies", "window")
        return replace(self, **{name: getattr(self, name)[which] for name in names})

    def trajectory(self, system: MolecularSystem) -> Any:
        """The frames as an mdtraj.Trajectory."""
        import mdtraj

        return mdtraj.Trajectory(self.positions.astype(np.float32), mdtraj.Topology.from_openmm(system.topology))


def save_frames(frames: Frames, path: Path) -> None:
    """Write frames as one npz file."""
    arrays = {field.name: getattr(frames, field.name) for field in fields(frames) if field.name != "dropped"}
    np.savez(path, **arrays, dropped_names=list(frames.dropped), dropped_counts=list(frames.dropped.values()))


def load_frames(path: Path) -> Frames:
    """Read what `save_frames` wrote."""
    with np.load(path, allow_pickle=False) as stored:
        arrays = {field.name: stored[field.name] for field in fields(Frames) if field.name != "dropped"}
        dropped = dict(zip(stored["dropped_names"].tolist(), stored["dropped_counts"].tolist(), strict=True))
    return Frames(**{**arrays, "force_evaluations": int(arrays["force_evaluations"])}, dropped=dropped)


def scattered_labels(slow: SlowCoordinates, n: int, seed: int) -> FloatArray:
    """Labels that fill the domain evenly: a scrambled Sobol sequence, shape=(n, d)."""
    sequence = qmc.Sobol(len(slow.names), rng=np.random.default_rng(seed))
    points = sequence.random_base2(max(int(np.ceil(np.log2(max(n, 1)))), 0))[:n]
    return np.asarray(qmc.scale(points, slow.domain[:, 0], slow.domain[:, 1]))


def grid_labels(slow: SlowCoordinates, n: int) -> FloatArray:
    """The centres of an even grid of n cells a coordinate, shape=(n^d, d)."""
    axes = [low + (np.arange(n) + 0.5) * (high - low) / n for low, high in slow.domain]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))


@dataclass(frozen=True)
class _WindowTask:
    system_xml: str
    slow: SlowCoordinates
    restraint: FloatArray
    labels: FloatArray
    starts: FloatArray
    minimise: bool
    equilibration_steps: int
    n_frames: int
    stride: int
    temperature: float
    friction: float
    time_step: float
    platform: str
    seed: int


def _sample_task(task: _WindowTask) -> tuple[FloatArray, FloatArray]:
    """Positions, shape=(n_windows, n_frames, n_atoms, 3), and energies; NaN where a window blew up."""
    system = openmm.XmlSerializer.deserialize(task.system_xml)
    for force in system.getForces():
        force.setForceGroup(REAL_GROUP)
    restraint = add_restraint(system, task.slow, task.restraint, force_group=0)
    n, n_atoms = len(task.labels), system.getNumParticles()
    positions = np.full((n, task.n_frames, n_atoms, 3), np.nan)
    energies = np.full((n, task.n_frames), np.nan)
    for index, label in enumerate(task.labels):
        integrator = openmm.LangevinMiddleIntegrator(task.temperature, task.friction, task.time_step)
        integrator.setConstraintTolerance(CONSTRAINT_TOLERANCE)
        context = make_context(system, integrator, task.platform, task.seed + index)
        restraint.move(context, label)
        try:
            context.setPositions(task.starts[index])
            context.applyConstraints(CONSTRAINT_TOLERANCE)
            if task.minimise:
                openmm.LocalEnergyMinimizer.minimize(context, 10.0, MINIMISER_ITERATIONS)
            context.setVelocitiesToTemperature(task.temperature, task.seed + index)
            integrator.step(task.equilibration_steps)
            for frame in range(task.n_frames):
                integrator.step(task.stride)
                state = context.getState(positions=True, energy=True, groups={REAL_GROUP})
                positions[index, frame] = state.getPositions(asNumpy=True)._value
                energies[index, frame] = state.getPotentialEnergy()._value
        except openmm.OpenMMException:
            continue
    return positions, energies


def _collect(
    system: MolecularSystem,
    tasks: list[_WindowTask],
    workers: int,
    executor: Executor | None,
    progress: Callable[[], None] | None,
) -> Frames:
    results = run_tasks(_sample_task, tasks, workers=workers, executor=executor, progress=progress)
    n_frames = tasks[0].n_frames
    positions = np.concatenate([result[0] for result in results])
    n_windows = len(positions)
    positions = positions.reshape(-1, *positions.shape[2:])
    energies = np.concatenate([result[1] for result in results]).ravel()
    labels = np.repeat(np.concatenate([task.labels for task in tasks]), n_frames, axis=0)
    finite = np.isfinite(positions).all(axis=(1, 2)) & np.isfinite(energies)
    reasons = np.array(system.state.violations(positions), dtype=object)
    reasons[~finite] = "nan"
    first = tasks[0]
    cost = first.equilibration_steps + n_frames * first.stride + 2 * MINIMISER_ITERATIONS * first.minimise
    with np.errstate(invalid="ignore"):
        obtained = system.slow.transform(positions)
    frames = Frames(
        positions=positions,
        labels=labels,
        obtained=obtained,
        energies=energies,
        window=np.repeat(np.arange(n_windows), n_frames),
        restraint=first.restraint,
        dropped=dict(sorted(Counter(reason for reason in reasons if reason).items())),
        force_evaluations=n_windows * cost,
    )
    return frames.select(reasons == "")


def starting_positions(system: MolecularSystem, labels: FloatArray) -> FloatArray:
    """The system's structure turned to each label in its chart, shape=(n, n_atoms, 3); not minimised."""
    chart = chart_for(system.topology, system.slow, system.positions, system.constraints)
    if not len(chart.label_indices):
        raise InputError("learned labels are no coordinates of a chart: give one start a label")
    coordinates = np.repeat(chart.to_internal(system.positions[None]), len(labels), axis=0)
    coordinates[:, chart.label_indices] = labels
    return chart.to_cartesian(coordinates)


def sample_windows(
    system: MolecularSystem,
    labels: FloatArray | None = None,
    *,
    starts: FloatArray | None = None,
    n_windows: int = 144,
    steps_per_window: int = 2000,
    frames_per_window: int = 20,
    equilibration_steps: int = 1000,
    restraint: FloatArray | None = None,
    time_step: float | None = None,
    seed: int = 0,
    platform: str = "auto",
    workers: int = 1,
    executor: Executor | None = None,
    progress: Callable[[], None] | None = None,
) -> Frames:
    """Sample restrained ensembles at given labels, or at labels scattered evenly over the domain.

    Every window is minimised and equilibrated under its restraint; unless starts are given, it starts from the
    system's structure turned to its label. Frames that have left the declared state are counted in ``dropped`` and
    left out.

    Args:
        system: the system.
        labels: shape=(n, d); by default ``n_windows`` scattered ones.
        starts: shape=(n, n_atoms, 3), nm; needed where the labels are no coordinates of a chart.
        n_windows: how many, if ``labels`` is None.
        steps_per_window: Langevin steps sampled in each.
        frames_per_window: frames kept of each.
        equilibration_steps: Langevin steps before sampling.
        restraint: shape=(d,), kJ/mol (torsions) or kJ/mol/nm^2; the system's own by default.
        time_step: ps; the system's own by default.
        seed: the same seed gives the same frames, whatever the workers.
        platform: an OpenMM platform, or ``auto`` to measure.
        workers: local processes.
        executor: any `concurrent.futures.Executor` instead.
        progress: called once for each finished task.
    """
    if labels is None:
        labels = scattered_labels(system.slow, n_windows, seed)
    labels = checked_labels(labels, system.slow)
    if steps_per_window < frames_per_window:
        raise InputError(
            f"steps_per_window = {steps_per_window} is less than frames_per_window = {frames_per_window}: raise it"
        )
    if starts is None:
        starts = starting_positions(system, labels)
    chunks = range(0, len(labels), WINDOWS_IN_A_TASK)
    common = _common(system, restraint, time_step, platform)
    tasks = [
        _WindowTask(
            **common,
            labels=labels[i : i + WINDOWS_IN_A_TASK],
            starts=starts[i : i + WINDOWS_IN_A_TASK],
            minimise=True,
            equilibration_steps=equilibration_steps,
            n_frames=frames_per_window,
            stride=steps_per_window // frames_per_window,
            seed=openmm_seed(task_seed(seed, i)),
        )
        for i in chunks
    ]
    return _collect(system, tasks, workers, executor, progress)


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
    if n_steps < n_frames:
        raise InputError(f"n_steps = {n_steps} is less than n_frames = {n_frames}: raise it")
    positions = system.positions if start is None else np.asarray(start, dtype=float)
    free = np.zeros(len(system.restraint))
    task = _WindowTask(
        **_common(system, free, time_step, platform),
        labels=np.zeros((1, len(free))),
        starts=positions[None],
        minimise=False,
        equilibration_steps=equilibration_steps,
        n_frames=n_frames,
        stride=n_steps // n_frames,
        seed=openmm_seed(task_seed(seed)),
    )
    frames = _collect(system, [task], 1, None, None)
    return replace(frames, labels=frames.obtained)


def _common(
    system: MolecularSystem, restraint: FloatArray | None, time_step: float | None, platform: str
) -> dict[str, Any]:
    return {
        "system_xml": openmm.XmlSerializer.serialize(system.system),
        "slow": system.slow,
        "restraint": np.asarray(system.restraint if restraint is None else restraint, dtype=float),
        "temperature": system.temperature,
        "friction": system.friction,
        "time_step": system.time_step if time_step is None else time_step,
        "platform": fastest_platform(system.system, system.positions) if platform == "auto" else platform,
    }
