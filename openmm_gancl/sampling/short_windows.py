"""Short restrained windows that start from one another: a generator's first frames, with the forces on them."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import openmm

from ..coordinates.geometry import wrap
from ..coordinates.slow_coordinates import ParticleCoordinates
from ..engine.platforms import make_context, put_in_group
from ..engine.random_numbers import openmm_seed
from ..engine.restraint_forces import add_restraint
from ..errors import InputError, checked, first_line
from ..system.molecular_system import MolecularSystem
from ..units import FloatArray, numbers
from .labels import scattered_labels
from .stability import is_restraint_too_stiff, shorter_step, usual_constants

REAL_GROUP, RESTRAINT_GROUP = 0, 1

STEERING_PARTS = 5
"""In which a restraint moves to the next label."""

SHORTER, SOFTER = 4, 16
"""Parts of the time step and of the force constants, at most, with which a window that failed is tried again."""

MOST_PARTS = 100
"""Times the steps of a window, with shorter ones."""

HYDROGEN_MASS = 4.0
"""amu, at least, of hydrogens on flexible bonds while windows are sampled."""

FRICTION = 10.0
"""1/ps, at least, of molecules: the heat of pulling is gone within 0.1 ps."""

LONGEST_STEP = 0.003
"""ps, with heavy hydrogens; twice the system's own step where that is shorter."""


@dataclass(frozen=True)
class ForceFrames:
    """Frames with the real forces on them.

    Attributes:
        positions: shape=(n, n_atoms, 3), nm.
        forces: shape=(n, n_atoms, 3), kJ/mol/nm, without the restraint's.
        labels: shape=(n, d), the restraint's centre; of your own frames, their own labels.
        weights: shape=(n,), how much each counts in a fit.
        force_evaluations: what they cost.
        n_dropped: frames that left the declared state and are not among these.
    """

    positions: FloatArray
    forces: FloatArray
    labels: FloatArray
    weights: FloatArray
    force_evaluations: int
    n_dropped: int = 0


def save_force_frames(frames: ForceFrames, path: Path) -> None:
    """Write frames as one npz file."""
    np.savez(path, **asdict(frames))


def load_force_frames(path: Path) -> ForceFrames:
    """Read what `save_force_frames` wrote."""
    with np.load(path, allow_pickle=False) as stored:
        arrays = dict(stored.items())
    counts = {name: int(arrays.get(name, 0)) for name in ("force_evaluations", "n_dropped")}
    return ForceFrames(**{**arrays, **counts})


@dataclass(frozen=True)
class ShortWindows:
    """How many windows, and how long, in steps; `lasting` is the same in picoseconds.

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
    def evaluations_each(self) -> int:
        """Of one window: steps, and one for the real forces on each frame."""
        return self.steering_steps + self.n_frames * (self.stride + 1)

    @property
    def force_evaluations(self) -> int:
        """Of all windows."""
        return self.n * self.evaluations_each

    def lasting(self, length: float, step: float) -> "ShortWindows":
        """As many windows and frames, each window so long: half of it on the way, frames evenly in the other half.

        Args:
            length: ps, of each window.
            step: ps, `step_of_windows`.

        Raises:
            InputError: less than a step for each frame and each part of the way.
        """
        steps, least = round(length / step), 2 * max(self.n_frames, STEERING_PARTS)
        if steps < least:
            raise InputError(
                f"`window_length` of {length:g} ps is {steps} steps of {step:g} ps: give at least {least * step:g}"
            )
        stride = steps // (2 * self.n_frames)
        return replace(self, steering_steps=steps - stride * self.n_frames, stride=stride)


@checked
def sample_short_windows(
    system: MolecularSystem,
    rng: np.random.Generator,
    windows: ShortWindows = ShortWindows(),
    platform: str = "Reference",
    progress: Callable[[int], None] | None = None,
    displaced: ParticleCoordinates | None = None,
    reach: FloatArray | float = 1.0,
) -> ForceFrames:
    """Frames of windows scattered over the labels' domain, each begun at the end of the nearest one that is done.

    They need no equilibrium: what is fitted to their forces does not depend on how they are distributed.

    Args:
        system: the real system.
        rng: of labels and dynamics.
        windows: how many, and how long.
        platform: an OpenMM platform.
        progress: called with the number of evaluations made, after each window.
        displaced: components that each window begins with anywhere in their domain; nothing holds them there.
        reach: shape=(d,), of labels scattered over their domain, by which they are scaled about zero.

    Raises:
        InputError: the dynamics failed, or left the declared state everywhere.
    """
    slow, periods = system.slow, system.slow.periods
    dynamics = MovingRestraint(system, windows, platform, rng)
    waiting = list(reach * scattered_labels(slow, windows.n, rng))
    spans = np.where(np.isfinite(periods), periods, slow.domain[:, 1] - slow.domain[:, 0])
    reached = [slow.transform(system.positions[None])[0]]
    ends = [np.asarray(system.positions)]
    found: list[tuple[FloatArray, FloatArray]] = []
    while waiting:
        gaps = wrap(np.array(waiting)[:, None] - np.array(reached), periods) / spans
        i, j = np.unravel_index((gaps**2).sum(axis=2).argmin(), gaps.shape[:2])
        label = waiting.pop(int(i))
        start = ends[j] if displaced is None else displaced_positions(ends[j], displaced, rng)
        found.append(_run(dynamics, start, reached[j], label))
        reached.append(label)
        ends.append(found[-1][0][-1])
        if progress is not None:
            progress(windows.evaluations_each)
    positions, forces = (np.concatenate([one[k] for one in found]) for k in (0, 1))
    inside = system.state.inside(positions)
    if not inside.any():
        cause = why_it_failed(dynamics, np.asarray(system.positions), reached[0], reached[1])
        raise InputError(f"no frame of the training windows lies in the declared state (the card's 'state'): {cause}")
    labels = np.repeat(reached[1:], windows.n_frames, axis=0)[inside]
    return ForceFrames(
        positions[inside],
        forces[inside],
        labels,
        np.ones(len(labels)),
        windows.force_evaluations,
        n_dropped=int((~inside).sum()),
    )


class MovingRestraint:
    """Dynamics under a restraint that moves to a label and stays there.

    Without constraints positions are distributed alike whatever the masses: hydrogens are made heavy, and longer steps
    go farther for the same price. With constraints masses and step are the system's own.

    Args:
        system: the real system.
        windows: how long.
        platform: an OpenMM platform.
        rng: of the dynamics.
        longest_step: ps, with heavy hydrogens.
        friction: 1/ps, at least; `FRICTION` of molecules with hydrogens by default.
    """

    def __init__(
        self,
        system: MolecularSystem,
        windows: ShortWindows,
        platform: str,
        rng: np.random.Generator,
        longest_step: float = LONGEST_STEP,
        friction: float | None = None,
    ):
        self.system, self.windows, self.platform, self.rng = system, windows, platform, rng
        biased = openmm.XmlSerializer.clone(system.system)
        put_in_group(biased, REAL_GROUP)
        self.restraint = add_restraint(biased, system.slow, system.force_constants, RESTRAINT_GROUP)
        hydrogens = _hydrogens(system)
        if _are_heavy(system):
            for i in hydrogens:
                biased.setParticleMass(i, max(HYDROGEN_MASS, float(system.masses[i])))
        least = (FRICTION if hydrogens else 0.0) if friction is None else friction
        self.integrator = openmm.LangevinMiddleIntegrator(
            system.temperature, max(system.friction, least), step_of_windows(system, longest_step)
        )
        self.context = make_context(biased, self.integrator, platform, openmm_seed(rng))
        self.turns = np.diff(np.linspace(0, windows.steering_steps, STEERING_PARTS + 1).round().astype(int))

    def run(self, start: FloatArray, begin: FloatArray, label: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Positions and real forces of the frames, shape=(n_frames, n_atoms, 3) each.

        Args:
            start: shape=(n_atoms, 3), nm.
            begin: shape=(d,), where the restraint begins.
            label: shape=(d,), where it ends.

        Raises:
            InputError: the dynamics failed.
        """
        self.context.setPositions(start)
        self.context.setVelocitiesToTemperature(self.system.temperature, openmm_seed(self.rng))
        way = wrap(label - begin, self.system.slow.periods)
        positions, forces = [], []
        try:
            for part, steps in enumerate(self.turns, start=1):
                self.restraint.move(self.context, begin + way * part / STEERING_PARTS)
                self.integrator.step(int(steps))
            for _ in range(self.windows.n_frames):
                self.integrator.step(self.windows.stride)
                state = self.context.getState(positions=True, forces=True, groups={REAL_GROUP})
                positions.append(numbers(state.getPositions(asNumpy=True)))
                forces.append(numbers(state.getForces(asNumpy=True)))
            if not (np.isfinite(positions).all() and np.isfinite(forces).all()):
                raise openmm.OpenMMException("positions or forces are NaN")
        except openmm.OpenMMException as error:
            raise InputError(f"a training window failed ({first_line(error)})") from None
        return np.array(positions), np.array(forces)


def _run(
    dynamics: MovingRestraint, start: FloatArray, begin: FloatArray, label: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """A window, or why it failed."""
    try:
        return dynamics.run(start, begin, label)
    except InputError as error:
        raise InputError(f"{error}: {why_it_failed(dynamics, start, begin, label)}") from None


def _holds(dynamics: MovingRestraint, start: FloatArray, begin: FloatArray, label: FloatArray) -> bool:
    try:
        positions, _ = dynamics.run(start, begin, label)
    except InputError:
        return False
    return bool(dynamics.system.state.inside(positions).any())


def why_it_failed(dynamics: MovingRestraint, start: FloatArray, begin: FloatArray, label: FloatArray) -> str:
    """What a window fails by, in words with the remedy: it is tried again softly, and with shorter steps.

    Args:
        dynamics: that failed, or left the declared state.
        start: shape=(n_atoms, 3), nm.
        begin: shape=(d,), where the restraint begins.
        label: shape=(d,), where it ends.
    """
    system, windows = dynamics.system, dynamics.windows
    step = shorter_step(system, SHORTER)
    parts = min(int(np.ceil(system.time_step / step)), MOST_PARTS)
    longer = replace(windows, steering_steps=parts * windows.steering_steps, stride=parts * windows.stride)
    constants = np.minimum(system.force_constants / SOFTER, usual_constants(system))

    def holds(changed: MolecularSystem, lasting: ShortWindows) -> bool:
        again = MovingRestraint(changed, lasting, dynamics.platform, dynamics.rng)
        return _holds(again, start, begin, label)

    softer = ", ".join(f"{k:.3g}" for k in constants)
    stiff = f"the restraint is too stiff, it holds with force constants of {softer}: choose smaller ones"
    if is_restraint_too_stiff(system) and holds(replace(system, force_constants=constants), windows):
        return stiff
    # a soft restraint may hold because it does not go where a longer step fails
    if holds(replace(system, time_step=step), longer):
        return f"the time step of {system.time_step:g} ps is too long, it holds with {step:.2g}: choose a shorter one"
    if holds(replace(system, force_constants=constants), windows):
        return stiff
    return (
        "neither a shorter time step nor softer restraints help: see that the structure has no clashes, that the "
        "declared state is its own, and that the potential is finite where the labels go"
    )


def _hydrogens(system: MolecularSystem) -> list[int]:
    """Those that move."""
    atoms = system.topology.atoms()
    found = [atom.index for atom in atoms if atom.element is not None and atom.element.symbol == "H"]
    return [i for i in found if system.masses[i] > 0]


def _are_heavy(system: MolecularSystem) -> bool:
    return bool(_hydrogens(system)) and not system.system.getNumConstraints()


def step_of_windows(system: MolecularSystem, longest: float = LONGEST_STEP) -> float:
    """Time step of a `MovingRestraint`, ps: longer than the system's own where hydrogens are heavy."""
    return min(longest, 2 * system.time_step) if _are_heavy(system) else system.time_step


def displaced_positions(positions: FloatArray, displaced: ParticleCoordinates, rng: np.random.Generator) -> FloatArray:
    """Positions with some components drawn evenly from their domain, shape=(n_atoms, 3), nm."""
    moved = np.array(positions)
    moved[displaced.components[:, 0], displaced.components[:, 1]] = rng.uniform(*displaced.domain.T)
    return moved
