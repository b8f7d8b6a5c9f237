"""Swarms: short unbiased runs from many starts, side by side in one Context where the System allows it.

The scheme is that of OpenMM's LangevinMiddleIntegrator (Zhang et al. 2019, doi 10.1021/acs.jpca.9b02771), or that of
its BrownianIntegrator, written as a `CustomIntegrator` with the guard of packed copies, so that a run that blows up
does not end the others.
"""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import openmm

from ..engine.packing import (
    Copies,
    CopyLattice,
    add_guard,
    broken_copies,
    copies_in_a_context,
    feels_copies,
    finite_copies,
    pack_system,
    start_guarded,
    why_not_packed,
)
from ..engine.platforms import make_context, resolved_platform
from ..engine.random_numbers import named_rng, openmm_seed
from ..errors import InputError, checked
from ..system.bonds import check_in_one_piece, check_lengths
from ..system.molecular_system import MolecularSystem
from ..units import BoolArray, FloatArray, numbers, thermal_energy
from .langevin import CONSTRAINT_TOLERANCE, checked_time_step, maxwell_boltzmann, seed_forces

Dynamics = Literal["langevin", "brownian"]


@dataclass(frozen=True)
class Swarm:
    """Runs from n starts.

    Attributes:
        positions: shape=(n, n_frames, n_atoms, 3), nm; NaN from where a run failed.
        times: shape=(n_frames + 1,), ps, zero first.
        labels: shape=(n, n_frames + 1, d), of the starts and of the frames.
        failed: shape=(n,), whether a run blew up.
    """

    positions: FloatArray
    times: FloatArray
    labels: FloatArray
    failed: BoolArray

    def __len__(self) -> int:
        return len(self.positions)


def _why_alone(system: openmm.System) -> str:
    if feels_copies(system):
        return "a swarm in a GBSAOBCForce may drift farther than packed copies are apart: use copies=1"
    return why_not_packed(system).replace("packed=1", "copies=1")


def brownian_integrator(temperature: float, friction: float, time_step: float) -> openmm.CustomIntegrator:
    """Overdamped dynamics of guarded copies, ``D = kT / (m friction)``; K, 1/ps and ps."""
    if not friction > 0:
        raise InputError(f"the friction is {friction:g}: overdamped dynamics needs a positive one, in 1/ps")
    integrator = openmm.CustomIntegrator(time_step)
    integrator.addGlobalVariable("friction", friction)
    integrator.addGlobalVariable("noise", np.sqrt(2.0 * thermal_energy(temperature) / (friction * time_step)))
    check = add_guard(integrator, CopyLattice(), time_step)
    integrator.addUpdateContextState()
    # the guard watches velocities: those of one step
    integrator.addComputePerDof("v", "f/(m*friction)+noise*gaussian/sqrt(m)")
    check()
    integrator.addComputePerDof("x", "x+dt*v")
    integrator.addConstrainPositions()
    integrator.setConstraintTolerance(CONSTRAINT_TOLERANCE)
    return integrator


def swarm_integrator(temperature: float, friction: float, time_step: float) -> openmm.CustomIntegrator:
    """Langevin dynamics of guarded copies; K, 1/ps and ps."""
    integrator = openmm.CustomIntegrator(time_step)
    decay = np.exp(-friction * time_step)
    integrator.addGlobalVariable("decay", decay)
    integrator.addGlobalVariable("noise", np.sqrt((1.0 - decay**2) * thermal_energy(temperature)))
    integrator.addPerDofVariable("drifted", 0.0)
    check = add_guard(integrator, CopyLattice(), time_step)
    integrator.addUpdateContextState()
    integrator.addComputePerDof("v", "v+dt*f/m")
    check()
    integrator.addConstrainVelocities()
    integrator.addComputePerDof("x", "x+0.5*dt*v")
    integrator.addComputePerDof("v", "decay*v+noise*gaussian/sqrt(m)")
    integrator.addComputePerDof("x", "x+0.5*dt*v")
    integrator.addComputePerDof("drifted", "x")
    integrator.addConstrainPositions()
    integrator.addComputePerDof("v", "v+(x-drifted)/dt")
    integrator.setConstraintTolerance(CONSTRAINT_TOLERANCE)
    return integrator


class _Swarmer:
    """One Context in which as many runs as copies go side by side."""

    def __init__(
        self,
        system: MolecularSystem,
        copies: int,
        time_step: float,
        platform: str,
        rng: np.random.Generator,
        dynamics: Dynamics,
    ):
        packed = openmm.XmlSerializer.clone(system.system) if copies == 1 else pack_system(system.system, copies)
        seed_forces(packed, rng)
        make = swarm_integrator if dynamics == "langevin" else brownian_integrator
        self.integrator = make(system.temperature, system.friction, time_step)
        self.context = make_context(packed, self.integrator, platform, openmm_seed(rng))
        self.copies, self.n_atoms = copies, system.n_atoms
        self.box = packed.getDefaultPeriodicBoxVectors()

    def run(self, starts: FloatArray, velocities: FloatArray, stride: int, n_frames: int) -> FloatArray:
        """Frames, shape=(copies, n_frames, n_atoms, 3), nm; NaN from where a copy broke."""
        lost = ~finite_copies(starts)
        # a Context may not hold NaN; what starts there is not used
        starts = np.where(lost[:, None, None], starts[np.argmin(lost)], starts)
        frames = np.full((self.copies, n_frames, self.n_atoms, 3), np.nan)
        if lost.all():
            return frames
        start_guarded(self.integrator, np.zeros((self.copies, 3)), self.n_atoms)
        self.context.setPeriodicBoxVectors(*self.box)
        self.context.setPositions(starts.reshape(-1, 3))
        self.context.setVelocities(velocities.reshape(-1, 3))
        self.context.applyConstraints(CONSTRAINT_TOLERANCE)
        self.context.applyVelocityConstraints(CONSTRAINT_TOLERANCE)
        for frame in range(n_frames):
            try:
                self.integrator.step(stride)
            except openmm.OpenMMException:  # constraints that broke, which no packed copies have
                break
            positions = numbers(self.context.getState(positions=True).getPositions(asNumpy=True))
            broken = lost | broken_copies(self.integrator, self.copies)
            kept = positions.reshape(self.copies, self.n_atoms, 3)
            frames[:, frame] = np.where(broken[:, None, None], np.nan, kept)
        return frames


def _time_step(system: MolecularSystem, time_step: float | None, dynamics: str) -> float:
    """ps, of dynamics that there are."""
    if dynamics not in get_args(Dynamics):
        raise InputError(f"dynamics is {dynamics!r}: choose {' or '.join(get_args(Dynamics))}")
    if dynamics == "brownian" and time_step is None:
        raise InputError(
            "overdamped dynamics needs a time step of its own: give `time_step`, short against m friction / k of the "
            "stiffest force constant k"
        )
    return checked_time_step(system.time_step if time_step is None else time_step)


@checked
def sample_swarm(
    system: MolecularSystem,
    starts: FloatArray,
    n_steps: int,
    *,
    n_frames: int = 1,
    velocities: FloatArray | None = None,
    copies: Copies = "auto",
    time_step: float | None = None,
    seed: int = 0,
    platform: str = "auto",
    dynamics: Dynamics = "langevin",
) -> Swarm:
    """Short unbiased runs, one from each start.

    Args:
        system: the system.
        starts: shape=(n, n_atoms, 3), nm.
        n_steps: of each run.
        n_frames: frames kept of each, evenly spaced, the last at the end.
        velocities: shape=(n, n_atoms, 3), nm/ps; fresh ones of Maxwell and Boltzmann by default.
        copies: runs side by side in one Context; by default many on a graphics card, where the System can be packed,
            and one elsewhere.
        time_step: ps; the system's own by default, but of brownian dynamics.
        seed: the same seed gives the same swarm, with the same copies.
        platform: an OpenMM platform, or ``auto`` to measure.
        dynamics: langevin, or brownian: overdamped, with the diffusion ``kT / (m friction)`` of each atom and no
            velocities, by Euler's scheme, whose spread in a well of force constant k is too large by the factor
            ``1 / (1 - time_step k / (2 m friction))``.

    Raises:
        InputError: for arrays that do not fit, steps that the frames do not divide, and several copies of a System
            that cannot be packed.
    """
    time_step = _time_step(system, time_step, dynamics)
    starts = numbers(starts)
    if not (n := len(starts)):
        raise InputError("there are no starts: give one at least")
    if n_frames < 1 or n_steps < 1 or n_steps % n_frames:
        raise InputError(f"n_steps = {n_steps} for n_frames = {n_frames}: give a whole number of steps to each frame")
    rng = named_rng(seed, "swarm")
    if velocities is None:
        # a virtual site has no mass, and no velocity
        velocities = maxwell_boltzmann(np.where(system.masses > 0, system.masses, np.inf), n, system.kT, rng)
    velocities = numbers(velocities)
    _check_arrays(system, starts, velocities)
    platform = resolved_platform(platform, system.system, system.positions)
    most = copies_in_a_context(copies, _why_alone(system.system), platform, system.n_atoms)
    side_by_side = min(most, n)
    swarmer = _Swarmer(system, side_by_side, time_step, platform, rng, dynamics)
    frames = np.empty((n, n_frames, system.n_atoms, 3))
    for begin in range(0, n, side_by_side):
        slots = np.minimum(np.arange(begin, begin + side_by_side), n - 1)
        ran = swarmer.run(starts[slots], velocities[slots], n_steps // n_frames, n_frames)
        frames[begin : begin + side_by_side] = ran[: n - begin]
    return _swarm(system, starts, frames, time_step * (n_steps // n_frames))


def _check_arrays(system: MolecularSystem, starts: FloatArray, velocities: FloatArray) -> None:
    for name, array in (("starts", starts), ("velocities", velocities)):
        if array.shape != (len(starts), system.n_atoms, 3):
            raise InputError(f"{name} have shape {array.shape}: give (n, {system.n_atoms}, 3), one a start")
    check_lengths(system.topology, system.system, starts)
    check_in_one_piece(system.topology, starts, system.positions)


def _swarm(system: MolecularSystem, starts: FloatArray, frames: FloatArray, interval: float) -> Swarm:
    whole: Any = np.concatenate([starts[:, None], frames], axis=1)
    n, n_times, n_atoms, _ = whole.shape
    with np.errstate(invalid="ignore"):
        labels = system.slow.transform(whole.reshape(-1, n_atoms, 3)).reshape(n, n_times, -1)
    return Swarm(frames, np.arange(n_times) * interval, labels, ~finite_copies(frames))
