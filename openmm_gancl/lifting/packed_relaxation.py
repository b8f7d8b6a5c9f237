"""Packed relaxations: many paths side by side in one Context, each with a weight of its own.

The copies share nothing but the step: forces act inside each, the heat is summed over each, and the energies at the
real ends come from the unpacked System, in double precision on the Reference platform. One that blows up is stopped
where it is and has no weight (``failed``, where a path alone may distinguish a clash from a NaN); the others are not
affected.

With a GBSAOBCForce each copy has a cell, twice as large as a start is in the median and wider by a drift of 5 sigma. A
path that leaves it has no weight either, forward or in reverse: what such paths would carry is missing from the mean.
"""

import math
import pickle
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from functools import lru_cache, partial
from typing import Any

import numpy as np
import openmm

from ..coordinates.restraint_energies import restraint_energies
from ..coordinates.slow_coordinates import ModuleCoordinates, ParticleCoordinates, SlowCoordinates
from ..engine.packing import (
    Copies,
    CopyLattice,
    broken_copies,
    copies_in_a_context,
    feels_copies,
    per_copy,
    start_guarded,
    why_not_packed,
)
from ..engine.platforms import PlatformChoice, PotentialEnergy
from ..engine.serialization import deserialized
from ..engine.tasks import Workers, run_tasks
from ..errors import InputError
from ..reference.potential import ReferenceParameters
from ..units import BoolArray, FloatArray, IntArray, masses_of, numbers, thermal_energy
from .relaxation import TASK_SIZE, PathContext, PathSystem, Relaxed, RelaxProtocol, RelaxTask

SHARED_COPIES, MAX_SHARED_COPIES = 128, 256
"""That share a call of an invertible generator a step by default, and of any torch module at most, in one Context."""

COPY_MARGIN = 0.5
"""nm that a copy in a cell may grow beyond twice the median extent; the reach is a whole number of them."""


def why_not_packed_lifts(system: openmm.System, slow: SlowCoordinates) -> str:
    """Why lifts of a System cannot be packed, and the remedy, in a sentence; empty where they can."""
    if isinstance(slow, ParticleCoordinates | ModuleCoordinates) and feels_copies(system):
        return "labels may be places of particles, and copies in a GBSAOBCForce are moved apart: use packed=1"
    return why_not_packed(system)


def copies_of_lifts(
    copies: Copies,
    system: openmm.System,
    slow: SlowCoordinates,
    force_constants: FloatArray,
    platform: str,
    torch_a_step: bool = False,
) -> int:
    """How many lifts share a Context; see `openmm_gancl.engine.packing.copies_in_a_context`.

    A restraint of learned labels costs a call of torch a step, which takes little longer for many copies than for
    one: by default a task's lifts share it, on every platform. Each copy adds parameters to the Context, so that more
    gain little. Of an invertible generator (`torch_a_step`), whose call is the dearer one, 128 share it.

    Raises:
        InputError: less than one, or so many as cannot be packed.
    """
    why_not = why_not_packed_lifts(system, slow)
    shared = torch_a_step or (isinstance(slow, ModuleCoordinates) and bool(np.any(force_constants)))
    if shared and copies == "auto":
        return 1 if why_not else SHARED_COPIES if torch_a_step else TASK_SIZE
    if shared and copies != "auto" and copies > MAX_SHARED_COPIES:
        raise InputError(f"{copies} copies share one call of torch a step: at most {MAX_SHARED_COPIES}")
    return copies_in_a_context(copies, why_not, platform, system.getNumParticles())


def _lattice_of(task: RelaxTask, masses: FloatArray) -> CopyLattice:
    """Room to double the median extent of a task's starts, and to drift as far as 5 sigma."""
    if not feels_copies(deserialized(task.system_xml)):
        return CopyLattice()
    extent = _extents(task.positions[task.runnable], centred=True)[1]
    extent = extent[np.isfinite(extent)]
    typical = np.median(extent) if len(extent) else 0.0
    reach = 2 * typical + COPY_MARGIN + _drift(task.protocol, masses)
    # the same for one start more or less
    return CopyLattice(float(COPY_MARGIN * np.ceil(reach / COPY_MARGIN)), separate=True)


def _extents(positions: FloatArray, centred: bool) -> tuple[FloatArray, FloatArray]:
    """Centres in nm, shape=(n, 1, 3), and how far coordinates are from them, shape=(n,)."""
    with np.errstate(invalid="ignore"):
        centres = positions.mean(axis=1, keepdims=True) * centred
        return centres, np.abs(positions - centres).max(axis=(1, 2))


def _drift(protocol: RelaxProtocol, masses: FloatArray) -> float:
    duration, friction = protocol.relax_steps * protocol.time_step, protocol.friction
    free = np.sqrt(2 * duration / friction) if friction else np.inf
    return float(5 * np.sqrt(thermal_energy(protocol.temperature) / masses.sum()) * min(duration, free))


@lru_cache(maxsize=1)
def _packed_paths(common: bytes, lattice: CopyLattice, copies: int) -> PathSystem:
    """Of 4,096 copies of alanine dipeptide it takes seconds to make: kept for the next relaxations of the kind."""
    return PathSystem.of(pickle.loads(common), lattice, copies)


class _Packed(PathContext):
    """One Context in which paths run in copies side by side."""

    def __init__(self, task: RelaxTask, copies: int):
        self.task, system = task, deserialized(task.system_xml)
        self.lattice = _lattice_of(task, masses_of(system))
        # before the Context of the paths, whose seed on the Reference platform is that of the last Context made
        self.energy = PotentialEnergy(system, "Reference")
        super().__init__(task, paths=_packed_paths(pickle.dumps(task.common), self.lattice, copies))
        self.centres = self.lattice.centres(copies)

    def run_side_by_side(self, indices: IntArray) -> tuple[FloatArray, FloatArray, BoolArray]:
        """Paths, as many as copies: ends in nm, the numbers of `Relaxed` by row, and which of them failed."""
        task, n = self.task, len(self.centres)
        starts = task.positions[indices]
        # also of NaN, which a Context may not hold: another path, run once more, keeps the place
        lost = ~(_extents(starts, self.lattice.separate)[1] <= self.lattice.reach)
        slots = np.where(lost, indices[np.argmin(lost)], indices)
        starts = np.where(lost.all(), 0.0, task.positions[slots])
        shift = self.centres[:, None] - _extents(starts, self.lattice.separate)[0]
        start_guarded(self.integrator, self.centres, len(self.masses))
        self.start(task, slots, starts + shift)
        start, kinetic_start = self._where(shift)
        self.integrator.step(task.protocol.relax_steps)
        end, kinetic_end = self._where(shift)
        failed = lost | broken_copies(self.integrator, n)
        heat = per_copy(self.integrator, "q", n).sum(axis=(1, 2))
        real = self._real_energies(start if task.reverse else end, task.labels[slots], failed)
        numbers = np.stack([heat, real, kinetic_start, kinetic_end], axis=1)
        return (
            np.where(failed[:, None, None], np.nan, end),
            np.where(failed[:, None], np.nan, numbers),
            failed,
        )

    def _where(self, shift: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Positions of the copies in nm, as if each were alone, and their kinetic energies in kJ/mol."""
        state = self.context.getState(positions=True, velocities=True)
        positions, velocities = (
            numbers(array).reshape(-1, len(self.masses), 3)
            for array in (state.getPositions(True), state.getVelocities(True))
        )
        return positions - shift, 0.5 * (self.masses[:, None] * velocities**2).sum(axis=(1, 2))

    def _real_energies(self, positions: FloatArray, labels: FloatArray, failed: BoolArray) -> FloatArray:
        slow, force_constants = self.task.slow, self.task.force_constants
        energies = restraint_energies(slow, force_constants, slow.transform(positions), labels)
        for copy in np.flatnonzero(~failed):
            energies[copy] += self.energy(positions[copy])
        return energies


def relax_packed(task: RelaxTask, copies: int | None = None) -> Relaxed:
    """Run every path of a task as `openmm_gancl.lifting.relaxation.relax` does, in packed copies.

    Args:
        task: what to run.
        copies: in the one Context at a time; all paths by default.

    Raises:
        InputError: for a System, or labels, that cannot be packed.
    """
    if why_not := why_not_packed_lifts(deserialized(task.system_xml), task.slow):
        raise InputError(why_not)
    n = len(task.labels)
    positions, numbers = np.full(task.positions.shape, np.nan), np.full((n, 4), np.nan)
    failed = np.zeros(n, dtype=bool)
    runnable = np.flatnonzero(task.runnable)
    copies = min(copies or n, len(runnable))
    packed = _Packed(task, copies) if copies else None
    for begin in range(0, len(runnable), copies or 1):
        assert packed is not None
        indices = runnable[begin : begin + copies]
        slots = np.pad(indices, (0, copies - len(indices)), mode="edge")
        parts = packed.run_side_by_side(slots)
        positions[indices], numbers[indices], failed[indices] = (part[: len(indices)] for part in parts)
    heat, real, kinetic_start, kinetic_end = numbers.T
    return Relaxed(positions, heat, real, kinetic_start, kinetic_end, failed)


def run_packed(
    tasks: Sequence[RelaxTask],
    copies: int,
    *,
    workers: Workers = 1,
    progress: Callable[[], None] | None = None,
) -> list[Relaxed]:
    """Packed relaxations of tasks, as many of them in one Context as there are copies for.

    Args:
        tasks: of one Lifter, all forward or all reverse.
        copies: in one Context.
        workers: see `openmm_gancl.engine.tasks.run_tasks`.
        progress: called once for each finished task.
    """
    # every device gets a share
    devices = len(PlatformChoice.read(tasks[0].platform).single_devices()) if tasks else 1
    size = max(1, min(copies // TASK_SIZE, math.ceil(len(tasks) / devices)))
    groups = [tasks[i : i + size] for i in range(0, len(tasks), size)]
    left = len(tasks)

    def report() -> None:
        nonlocal left
        done, left = min(size, left), max(left - size, 0)
        for _ in range(done):
            if progress is not None:
                progress()

    joined = [_joined(group) for group in groups]
    results = run_tasks(partial(relax_packed, copies=copies), joined, workers=workers, progress=report)
    return [part for group, result in zip(groups, results, strict=True) for part in _divided(result, group)]


_PER_PATH = ("labels", "positions", "velocities", "runnable")


def _joined(tasks: Sequence[RelaxTask]) -> RelaxTask:
    """One task of all paths, with the seed of the first."""
    arrays: dict[str, Any] = {name: np.concatenate([getattr(task, name) for task in tasks]) for name in _PER_PATH}
    return replace(tasks[0], **arrays, parameters=_all_parameters([task.parameters for task in tasks]))


def _all_parameters(parts: Sequence[ReferenceParameters | FloatArray]) -> ReferenceParameters | FloatArray:
    terms = [part for part in parts if isinstance(part, ReferenceParameters)]
    if not terms:
        return np.concatenate([np.asarray(part) for part in parts])
    centres, widths = (np.concatenate([getattr(one, name) for one in terms]) for name in ("centres", "widths"))
    return ReferenceParameters(centres, widths)


def _divided(relaxed: Relaxed, tasks: Sequence[RelaxTask]) -> list[Relaxed]:
    ends = np.cumsum([len(task.labels) for task in tasks])[:-1]
    columns = [np.split(getattr(relaxed, field.name), ends) for field in fields(Relaxed)]
    return [Relaxed(*parts) for parts in zip(*columns, strict=True)]
