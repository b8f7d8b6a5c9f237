"""Where independent tasks run: in this process, in local processes, or in any `concurrent.futures.Executor`.

A task is a picklable value that carries its own seed; its result depends on nothing else, so neither the number
of workers nor the order nor a killed worker changes a result.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import openmm

from .errors import InputError, first_line
from .units import FloatArray, number

TASK_SIZE = 32
"""Lifts in one task: the unit of seeding, retry and placement."""

MAX_RESTARTS = 3

CARDS = ("CUDA", "OpenCL", "HIP")
"""Platforms with devices, on which one small molecule leaves most of a device idle."""

PRECISIONS = ("single", "mixed", "double")
"""Of forces and of the sums over them; weights ask for mixed or double (README)."""

Task = TypeVar("Task")
Result = TypeVar("Result")

RunTasks = Callable[..., list[Any]]
"""`run_tasks`, or that with workers or an executor of its own."""


def available_workers() -> int:
    """The number of CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_tasks(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    *,
    workers: int = 1,
    executor: Executor | None = None,
    progress: Callable[[], None] | None = None,
) -> list[Result]:
    """Apply a function to every task and return the results in the order of the tasks.

    Tasks with a ``platform`` of several devices (``CUDA:0,1``) are dealt out to them by their method ``on(platform)``;
    start as many workers.

    Args:
        function: a module-level function of one task.
        tasks: the tasks.
        workers: local processes; 1 runs in this process.
        executor: run here instead (Dask's, MPI's and Parsl's executors fit).
        progress: called once for each finished task.

    Raises:
        InputError: if worker processes keep dying (out of memory, killed).
    """
    report, tasks = progress or (lambda: None), _spread(tasks)
    if executor is None and (workers == 1 or len(tasks) < 2):
        results = []
        for task in tasks:
            results.append(function(task))
            report()
        return results
    done: dict[int, Result] = {}
    for _ in range(MAX_RESTARTS):
        pool = executor or _local_pool(min(workers, len(tasks)))
        try:
            for index, result in _submit(pool, function, tasks, done):
                done[index] = result
                report()
        except BrokenExecutor:
            continue
        return [done[index] for index in range(len(tasks))]
    raise InputError(f"worker processes died {MAX_RESTARTS} times over: free memory, or use fewer `workers`")


def _local_pool(workers: int) -> Executor:
    from loky import get_reusable_executor

    return get_reusable_executor(max_workers=workers, timeout=300)


def _submit(
    pool: Executor, function: Callable[[Task], Result], tasks: Sequence[Task], done: dict[int, Result]
) -> Iterator[tuple[int, Result]]:
    pending: dict[Future[Result], int] = {}
    try:
        for index, task in enumerate(tasks):
            if index not in done:
                pending[pool.submit(function, task)] = index
        for future in as_completed(pending):
            yield pending[future], future.result()
    finally:
        for future in pending:
            future.cancel()


@dataclass(frozen=True)
class PlatformChoice:
    """An OpenMM platform, and where it has devices, which and how precise.

    Attributes:
        name: of the platform.
        devices: their indices; none leaves the choice to OpenMM.
        precision: ``single``, ``mixed`` or ``double`` on a graphics card.
    """

    name: str
    devices: tuple[str, ...] = ()
    precision: str = "mixed"

    @classmethod
    def read(cls, platform: str) -> "PlatformChoice":
        """``NAME``, ``NAME:DEVICES`` or ``NAME:DEVICES:PRECISION``: CUDA, CUDA:1, CUDA:0,1:double, CUDA::single.

        Raises:
            InputError: devices where there are none, or another precision.
        """
        name, devices, precision, *more = [*platform.split(":"), "", ""]
        if len(more) > 2 or (platform != name and name not in CARDS):
            raise InputError(
                f"platform {platform!r}: only {', '.join(CARDS)} take devices and a precision, as CUDA:0,1"
            )
        indices = tuple(index.strip() for index in devices.split(",") if index.strip())
        if not all(index.isdigit() for index in indices) or precision not in ("", *PRECISIONS):
            raise InputError(
                f"platform {platform!r}: devices are numbers from 0, and the precision one of {', '.join(PRECISIONS)}"
            )
        return cls(name, indices, precision or "mixed")

    def check_here(self) -> None:
        """Raise an `InputError` where OpenMM has no such platform on this machine."""
        if self.name not in platform_names():
            found = ", ".join(platform_names())
            raise InputError(f"OpenMM has no platform {self.name!r} here: use one of {found}, or auto")

    def single_devices(self) -> list[str]:
        """One platform a device, for tasks that are spread over them."""
        if self.name not in CARDS:
            return [self.name]
        return [f"{self.name}:{index}:{self.precision}" for index in self.devices or ("",)]

    def properties(self) -> dict[str, str]:
        """What OpenMM's Context takes; a CPU works with one thread, as many processes do."""
        if self.name not in CARDS:
            return {"Threads": "1"} if self.name == "CPU" else {}
        return {"Precision": self.precision} | ({"DeviceIndex": ",".join(self.devices)} if self.devices else {})


def make_context(system: openmm.System, integrator: openmm.Integrator, platform: str, seed: int) -> openmm.Context:
    """A fresh, seeded Context on a platform, as `PlatformChoice` reads it."""
    integrator.setRandomNumberSeed(seed)
    choice = PlatformChoice.read(platform)
    choice.check_here()
    platform_of_that_name = openmm.Platform.getPlatformByName(choice.name)
    try:
        return openmm.Context(system, integrator, platform_of_that_name, choice.properties())
    except openmm.OpenMMException as error:
        if "same name as a Context parameter" in str(error):
            name = str(error).rsplit(maxsplit=1)[-1]
            raise InputError(f"a force has a parameter {name}, which is the integrator's name: rename it") from None
        raise


def _spread(tasks: Sequence[Any]) -> list[Any]:
    """Tasks that ask for several devices, dealt out to them in turn; others have no platform."""
    dealt = []
    for index, task in enumerate(tasks):
        devices = PlatformChoice.read(task.platform).single_devices() if hasattr(task, "platform") else []
        dealt.append(task.on(devices[index % len(devices)]) if len(devices) > 1 else task)
    return dealt


def put_in_group(system: openmm.System, group: int) -> None:
    """All forces, also what a NonbondedForce keeps in a group of its own."""
    for force in system.getForces():
        force.setForceGroup(group)
        if isinstance(force, openmm.NonbondedForce):
            force.setReciprocalSpaceForceGroup(-1)  # that of the force


class PotentialEnergy:
    """U of a System at any configurations, from a Context of its own.

    Args:
        system: the System; a copy is not needed, it is not changed.
        platform: the platform's name.
    """

    def __init__(self, system: openmm.System, platform: str):
        self._context = make_context(system, openmm.LangevinMiddleIntegrator(300, 1, 0.001), platform, 1)

    def __call__(self, positions: FloatArray) -> float:
        """kJ/mol at positions, shape=(n_atoms, 3), nm."""
        self._context.setPositions(positions)
        return number(self._context.getState(energy=True).getPotentialEnergy())


def _one_particle() -> openmm.System:
    system = openmm.System()
    system.addParticle(1.0)
    return system


def seed_reference_platform(seed: int) -> None:
    """Seed the one random generator that all Contexts of the Reference platform share in a process."""
    make_context(_one_particle(), openmm.LangevinMiddleIntegrator(300, 1, 0.001), "Reference", seed)


@lru_cache
def _reference_context() -> openmm.Context:
    """One that draws no numbers; its checkpoint holds the generator that it shares."""
    platform = openmm.Platform.getPlatformByName("Reference")
    return openmm.Context(_one_particle(), openmm.VerletIntegrator(0.001), platform)


@contextmanager
def reference_generator_kept() -> Iterator[None]:
    """The Reference platform has one random generator a process: a user's Simulation gets it back as it was."""
    context = _reference_context()
    checkpoint = context.createCheckpoint()
    try:
        yield
    finally:
        context.loadCheckpoint(checkpoint)


class ReferenceStream:
    """A stream of the Reference platform's one generator that no other Context of the process disturbs.

    Args:
        seed: as OpenMM takes it.
    """

    def __init__(self, seed: int):
        with reference_generator_kept():
            seed_reference_platform(seed)
            self._state = _reference_context().createCheckpoint()

    @contextmanager
    def drawn_from(self) -> Iterator[None]:
        """Go on with it, and give the generator back as it was."""
        with reference_generator_kept():
            _reference_context().loadCheckpoint(self._state)
            try:
                yield
            finally:
                self._state = _reference_context().createCheckpoint()


def platform_names() -> list[str]:
    """The OpenMM platforms of this machine."""
    return [openmm.Platform.getPlatform(i).getName() for i in range(openmm.Platform.getNumPlatforms())]


def measure_platforms(
    system: openmm.System, positions: FloatArray, seconds: float = 0.15, failures: dict[str, str] | None = None
) -> dict[str, float]:
    """Microseconds of one Langevin step of this system, one worker, on each platform that can run it.

    Why another cannot is put into ``failures``.
    """
    measured: dict[str, float] = {}
    for name in platform_names():
        try:
            context = make_context(system, openmm.LangevinMiddleIntegrator(300, 1, 0.0005), name, 1)
            context.setPositions(positions)
            measured[name] = _microseconds_a_step(context, seconds)
        except (openmm.OpenMMException, InputError) as error:
            if failures is not None:
                failures[name] = first_line(error)
    if not measured:
        raise InputError("no OpenMM platform can run this system: see `gancl doctor`")
    return measured


def _microseconds_a_step(context: openmm.Context, seconds: float) -> float:
    integrator: Any = context.getIntegrator()
    integrator.step(5)
    steps, elapsed = 5, 0.0
    while elapsed < seconds:
        steps *= 2
        start = time.perf_counter()
        integrator.step(steps)
        context.getState(energy=True)
        elapsed = time.perf_counter() - start
    return 1e6 * elapsed / steps


def resolved_platform(platform: str, system: openmm.System, positions: FloatArray) -> str:
    """The platform asked for; of ``auto`` the fastest one for this System."""
    return fastest_platform(system, positions) if platform == "auto" else platform


def fastest_platform(system: openmm.System, positions: FloatArray) -> str:
    """The platform with the fastest measured step; Reference unless another is at least 20 % faster.

    The Reference platform computes in double precision and repeats itself byte by byte, so it keeps a tie.
    """
    measured = measure_platforms(system, positions)
    best = min(measured, key=lambda name: measured[name])
    if measured.get("Reference", np.inf) < 1.2 * measured[best]:
        return "Reference"
    return best
