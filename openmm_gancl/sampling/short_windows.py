"""Short restrained windows that start from one another: a generator's first frames, with the forces on them."""

from dataclasses import dataclass

import numpy as np
import openmm

from ..coordinates.geometry import wrap
from ..coordinates.slow_coordinates import ParticleCoordinates
from ..engine.platforms import make_context, put_in_group
from ..engine.random_numbers import openmm_seed
from ..engine.restraint_forces import add_restraint
from ..errors import InputError
from ..system.molecular_system import MolecularSystem
from ..units import FloatArray, numbers
from .labels import scattered_labels

REAL_GROUP, RESTRAINT_GROUP = 0, 1

STEERING_PARTS = 5
"""In which a restraint moves to the next label."""


@dataclass(frozen=True)
class ForceFrames:
    """Frames with the real forces on them.

    Attributes:
        positions: shape=(n, n_atoms, 3), nm.
        forces: shape=(n, n_atoms, 3), kJ/mol/nm, without the restraint's.
        labels: shape=(n, d), the restraint's centre.
        force_evaluations: what they cost.
    """

    positions: FloatArray
    forces: FloatArray
    labels: FloatArray
    force_evaluations: int


@dataclass(frozen=True)
class ShortWindows:
    """How many windows, and how long.

    Args:
        n: windows.
        steering_steps: on the way to each.
        n_frames: of each.
        stride: steps from frame to frame.
    """

    n: int = 30
    steering_steps: int = 100
    n_frames: int = 25
    stride: int = 4

    @property
    def force_evaluations(self) -> int:
        """Of all: steps, and one for the real forces on each frame."""
        return self.n * (self.steering_steps + self.n_frames * (self.stride + 1))


def sample_short_windows(
    system: MolecularSystem,
    rng: np.random.Generator,
    windows: ShortWindows = ShortWindows(),
    platform: str = "Reference",
    displaced: ParticleCoordinates | None = None,
) -> ForceFrames:
    """Frames of windows scattered over the labels' domain, each begun at the end of the nearest one that is done.

    They need no equilibrium: what is fitted to their forces does not depend on how they are distributed.

    Args:
        system: the real system.
        rng: of labels and dynamics.
        windows: how many, and how long.
        platform: an OpenMM platform.
        displaced: components that each window begins with anywhere in their domain; nothing holds them there.

    Raises:
        InputError: the dynamics failed, or left the declared state everywhere.
    """
    slow, periods = system.slow, system.slow.periods
    biased = openmm.XmlSerializer.clone(system.system)
    put_in_group(biased, REAL_GROUP)
    restraint = add_restraint(biased, slow, system.force_constants, RESTRAINT_GROUP)
    integrator = openmm.LangevinMiddleIntegrator(system.temperature, system.friction, system.time_step)
    context = make_context(biased, integrator, platform, openmm_seed(rng))
    waiting = list(scattered_labels(slow, windows.n, rng))
    spans = np.where(np.isfinite(periods), periods, slow.domain[:, 1] - slow.domain[:, 0])
    reached = [slow.transform(system.positions[None])[0]]
    ends = [np.asarray(system.positions)]
    positions, forces, labels = [], [], []
    turns = np.diff(np.linspace(0, windows.steering_steps, STEERING_PARTS + 1).round().astype(int))
    while waiting:
        gaps = wrap(np.array(waiting)[:, None] - np.array(reached), periods) / spans
        i, j = np.unravel_index((gaps**2).sum(axis=2).argmin(), gaps.shape[:2])
        label = waiting.pop(int(i))
        context.setPositions(ends[j] if displaced is None else displaced_positions(ends[j], displaced, rng))
        context.setVelocitiesToTemperature(system.temperature, openmm_seed(rng))
        way = wrap(label - reached[j], periods)
        try:
            for part, steps in enumerate(turns, start=1):
                restraint.move(context, reached[j] + way * part / STEERING_PARTS)
                integrator.step(int(steps))
            for _ in range(windows.n_frames):
                integrator.step(windows.stride)
                state = context.getState(positions=True, forces=True, groups={REAL_GROUP})
                positions.append(numbers(state.getPositions(asNumpy=True)))
                forces.append(numbers(state.getForces(asNumpy=True)))
                labels.append(label)
            if not (np.isfinite(positions[-1]).all() and np.isfinite(forces[-1]).all()):
                raise openmm.OpenMMException("positions or forces are NaN")
        except openmm.OpenMMException as error:
            raise InputError(f"a training window failed ({error}): choose a shorter time step") from None
        reached.append(label)
        ends.append(positions[-1])
    frames = ForceFrames(np.array(positions), np.array(forces), np.array(labels), windows.force_evaluations)
    inside = system.state.inside(frames.positions)
    if not inside.any():
        raise InputError("no frame of the training windows lies in the declared state: see the card's `state`")
    return ForceFrames(frames.positions[inside], frames.forces[inside], frames.labels[inside], frames.force_evaluations)


def displaced_positions(positions: FloatArray, displaced: ParticleCoordinates, rng: np.random.Generator) -> FloatArray:
    """Positions with some components drawn evenly from their domain, shape=(n_atoms, 3), nm."""
    moved = np.array(positions)
    moved[displaced.components[:, 0], displaced.components[:, 1]] = rng.uniform(*displaced.domain.T)
    return moved
