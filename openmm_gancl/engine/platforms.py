"""OpenMM's platforms: which there are, which is fastest, and seeded Contexts on them."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import openmm

from ..errors import InputError, first_line
from ..units import FloatArray, number

GPU_PLATFORMS = ("CUDA", "OpenCL", "HIP")
"""Platforms with devices, on which one small molecule leaves most of a device idle."""

PRECISIONS = ("single", "mixed", "double")
"""Of forces and of the sums over them; weights need mixed or double."""

REAL_GROUP, REFERENCE_GROUP = 1, 2


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
        if len(more) > 2 or (platform != name and name not in GPU_PLATFORMS):
            raise InputError(
                f"platform {platform!r}: only {', '.join(GPU_PLATFORMS)} take devices and a precision, as CUDA:0,1"
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
        if self.name not in GPU_PLATFORMS:
            return [self.name]
        return [f"{self.name}:{index}:{self.precision}" for index in self.devices or ("",)]

    def properties(self) -> dict[str, str]:
        """What OpenMM's Context takes; a CPU works with one thread, as many processes do."""
        if self.name not in GPU_PLATFORMS:
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


@contextmanager
def named_failures(what: str) -> Iterator[None]:
    """Dynamics whose failure in OpenMM is bad input: NaN, most often.

    Args:
        what: fails, for the message.

    Raises:
        InputError: it failed.
    """
    try:
        yield
    except openmm.OpenMMException as error:
        raise InputError(
            f"{what} failed ({first_line(error)}): give a shorter time step, softer biases, or a structure without "
            "clashes"
        ) from error


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

    def __call__(self, positions: FloatArray, box: FloatArray | None = None) -> float:
        """kJ/mol at positions, shape=(n_atoms, 3), nm, in a box, shape=(3, 3), nm; the System's by default."""
        if box is not None:
            self._context.setPeriodicBoxVectors(*box)
        self._context.setPositions(positions)
        return number(self._context.getState(energy=True).getPotentialEnergy())


SECONDS_TO_MEASURE = 0.15
"""On each platform."""

SHORTEST_STEP = 10.0
"""Microseconds, which a step takes at least on any platform but Reference: threads are woken, or kernels launched."""


def platform_names() -> list[str]:
    """The OpenMM platforms of this machine."""
    return [openmm.Platform.getPlatform(i).getName() for i in range(openmm.Platform.getNumPlatforms())]


def measured_step(
    system: openmm.System, positions: FloatArray, platform: str, seconds: float = SECONDS_TO_MEASURE
) -> float:
    """Microseconds of one Langevin step of a System on a platform, one worker.

    Args:
        system: the System.
        positions: shape=(n_atoms, 3), nm.
        platform: its name.
        seconds: that the last measurement takes at least.

    Raises:
        openmm.OpenMMException: the platform cannot run the System.
        InputError: OpenMM has no such platform here.
    """
    context = make_context(system, openmm.LangevinMiddleIntegrator(300, 1, 0.0005), platform, 1)
    context.setPositions(positions)
    return _microseconds_a_step(context, seconds)


def _measured(system: openmm.System, positions: FloatArray) -> Iterator[tuple[str, float]]:
    """Each platform that can run a System, and the microseconds of a step on it, as they are measured."""
    found = False
    for name in platform_names():
        try:
            step = measured_step(system, positions, name)
        except (openmm.OpenMMException, InputError):
            continue
        found = True
        yield name, step
    if not found:
        raise InputError("no OpenMM platform can run this system: see `gancl doctor`")


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
    """The platform requested; for ``auto`` the fastest one for this System."""
    return fastest_platform(system, positions) if platform == "auto" else platform


def fastest_platform(system: openmm.System, positions: FloatArray) -> str:
    """The platform with the fastest measured step; Reference unless another is at least 20 % faster.

    The Reference platform computes in double precision and repeats itself byte by byte, so it keeps a tie. For a few
    particles no other is tried: none is faster, and some (PoCL's OpenCL) crash the process.
    """
    measured: dict[str, float] = {}
    for name, step in _measured(system, positions):
        measured[name] = step
        if name == "Reference" and step < SHORTEST_STEP:
            return name
    best = min(measured, key=lambda name: measured[name])
    if measured.get("Reference", np.inf) < 1.2 * measured[best]:
        return "Reference"
    return best
