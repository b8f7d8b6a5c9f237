"""One evaluation a structure: energies and forces of many structures, in tasks."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import openmm

from ..engine.platforms import GPU_PLATFORMS, PlatformChoice, make_context
from ..engine.serialization import deserialized
from ..engine.tasks import Workers, run_tasks
from ..units import FloatArray, numbers

TASK_SIZE = 500
"""Structures, evaluated one after the other in one Context."""

TIMED = 20
"""Structures that are evaluated to find the faster of two places."""


@dataclass(frozen=True)
class EvaluationTask:
    """Structures to be evaluated; pickles.

    Attributes:
        system_xml: the System.
        platform: as `openmm_gancl.engine.platforms.PlatformChoice` reads it.
        positions: shape=(n, n_atoms, 3), nm; rows that are not finite are not evaluated.
        with_forces: whether forces are wanted too, for the same price.
    """

    system_xml: str
    platform: str
    positions: FloatArray
    with_forces: bool

    def on(self, platform: str) -> "EvaluationTask":
        """The same task on another platform or device."""
        return replace(self, platform=platform)


@lru_cache(maxsize=2)
def _context(system_xml: str, platform: str) -> openmm.Context:
    return make_context(deserialized(system_xml), openmm.LangevinMiddleIntegrator(300.0, 1.0, 0.001), platform, 1)


def evaluate_task(task: EvaluationTask) -> tuple[FloatArray, FloatArray]:
    """Energies, shape=(n,), kJ/mol, and forces, shape=(n, n_atoms, 3) or empty; NaN where OpenMM fails."""
    context = _context(task.system_xml, task.platform)
    n = len(task.positions)
    energies = np.full(n, np.nan)
    forces = np.full(task.positions.shape if task.with_forces else (n, 0, 3), np.nan)
    for i in np.flatnonzero(np.isfinite(task.positions).all(axis=(1, 2))):
        try:
            context.setPositions(task.positions[i])
            state = context.getState(energy=True, forces=task.with_forces)
        except openmm.OpenMMException:
            continue
        energies[i] = numbers(state.getPotentialEnergy())
        if task.with_forces:
            # what `State.getForces` calls, which takes twice as long as a small molecule's evaluation for the units
            state._getVectorAsNumpy(openmm.State.Forces, forces[i])
    return energies, forces


_SECONDS: dict[tuple[str, str], float] = {}
"""Of one structure of a System on a platform, as it was timed."""


def _seconds_each(system_xml: str, platform: str, positions: FloatArray) -> float:
    key = system_xml, platform
    if key not in _SECONDS:
        task = EvaluationTask(system_xml, platform, positions, True)
        evaluate_task(task)  # makes the Context
        begun = time.perf_counter()
        evaluate_task(task)
        _SECONDS[key] = (time.perf_counter() - begun) / len(positions)
    return _SECONDS[key]


def fastest_place(system_xml: str, positions: FloatArray, platform: str, workers: Workers) -> str:
    """The platform that evaluates a batch: of a graphics card and workers on the Reference platform the faster.

    One small molecule at a time leaves a card idle: a dozen launches of kernels take longer than a core takes for the
    molecule. Both are timed once for each System. Copies packed into one Context share its launches, but also its
    energy: OpenMM does not tell them apart.

    Args:
        system_xml: the System, serialized.
        positions: shape=(n, n_atoms, 3), nm, of the batch.
        platform: asked for; what is no graphics card stays.
        workers: that evaluate on either.
    """
    rows = positions[np.isfinite(positions).all(axis=(1, 2))][:TIMED]
    if PlatformChoice.read(platform).name not in GPU_PLATFORMS or len(rows) < TIMED or not isinstance(workers, int):
        return platform
    own, reference = (_seconds_each(system_xml, place, rows) for place in (platform, "Reference"))
    return "Reference" if reference / workers < own else platform


def evaluate(
    system_xml: str,
    positions: FloatArray,
    platform: str,
    *,
    with_forces: bool = True,
    workers: Workers = 1,
    progress: Callable[[int], None] | None = None,
) -> tuple[FloatArray, FloatArray]:
    """Energies and forces of structures, one evaluation each.

    Args:
        system_xml: the System, serialized.
        positions: shape=(n, n_atoms, 3), nm.
        platform: an OpenMM platform; of a graphics card and the Reference platform the faster, `fastest_place`.
        with_forces: whether forces are wanted.
        workers: local processes, or an executor.
        progress: called with the number of structures evaluated, as they are.

    Returns:
        energies, shape=(n,), kJ/mol; forces, shape=(n, n_atoms, 3), kJ/mol/nm, empty if not wanted; NaN where a
        structure cannot be evaluated.
    """
    starts, place = range(0, len(positions), TASK_SIZE), fastest_place(system_xml, positions, platform, workers)
    tasks = [EvaluationTask(system_xml, place, positions[i : i + TASK_SIZE], with_forces) for i in starts]
    counts = iter([int(np.isfinite(task.positions).all(axis=(1, 2)).sum()) for task in tasks])
    found = run_tasks(
        evaluate_task,
        tasks,
        workers=workers,
        progress=None if progress is None else lambda: progress(next(counts)),
    )
    n_rows = positions.shape[1] if with_forces else 0
    energies = np.concatenate([part for part, _ in found]) if found else np.empty(0)
    forces = np.concatenate([part for _, part in found]) if found else np.empty((0, n_rows, 3))
    return energies, forces
