"""Whether dynamics can be stable: the time step against the fastest vibration, restraints against both.

A vibration of angular frequency w is stable under a step dt of Verlet's or Langevin's middle scheme where w dt < 2
(Leimkuhler, Matthews 2013, doi 10.1063/1.4802990); beyond that its energy grows without bound.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import openmm
from scipy.spatial import cKDTree

from ..coordinates.slow_coordinates import ParticleCoordinates
from ..engine.platforms import make_context
from ..engine.random_numbers import named_rng
from ..engine.restraint_forces import add_restraint
from ..errors import InputError
from ..system.molecular_system import MolecularSystem
from ..units import FloatArray, numbers
from .labels import grid_labels

STABLE = 2.0
"""Largest angular frequency times time step."""

SAFE_PART = 0.4
"""Of the longest stable step, that is recommended: about ten steps a period."""

MAX_ITERATIONS, TOLERANCE = 30, 0.01
"""Of the power iteration; relative change of the squared frequency at which it ends."""

DISPLACEMENT = 1e-4
"""nm, of the atom that moves most, in finite differences."""

PLACES_EACH = 5
"""Labels of particles, a coordinate, at which the potential is looked at."""

NARROWEST_PART, USUAL_PART, WIDEST_PART = 1 / 200, 1 / 56, 1 / 4
"""Of a label's domain, that a window may be wide: one standard deviation; 200 kJ/mol of a torsion at 300 K is usual."""

MINIMISER_ITERATIONS = 200


@dataclass(frozen=True)
class Vibration:
    """The fastest one at a structure.

    Attributes:
        frequency: angular, rad/ps; zero where the curvature is nowhere positive.
        atoms: the two that move most.
    """

    frequency: float
    atoms: tuple[int, ...]

    @property
    def period(self) -> float:
        """Of it, ps."""
        return 2 * np.pi / self.frequency if self.frequency else np.inf

    @property
    def longest_step(self) -> float:
        """Stable, ps."""
        return STABLE / self.frequency if self.frequency else np.inf


class _Curvature:
    """Forces of a System, on the Reference platform, as a Hessian that multiplies vectors of mass-weighted motion."""

    def __init__(self, system: MolecularSystem, with_restraint: bool):
        self.system, copy = system, openmm.XmlSerializer.clone(system.system)
        self.restraint = add_restraint(copy, system.slow, system.force_constants, 0) if with_restraint else None
        self.context = make_context(copy, openmm.LangevinMiddleIntegrator(300, 1, 0.001), "Reference", 1)
        moving = system.masses > 0
        self.scale = np.zeros((len(moving), 1))
        self.scale[moving, 0] = system.masses[moving] ** -0.5

    def forces(self, positions: FloatArray) -> FloatArray:
        self.context.setPositions(positions)
        return numbers(self.context.getState(forces=True).getForces(asNumpy=True))

    def minimised(self) -> FloatArray:
        self.context.setPositions(self.system.positions)
        openmm.LocalEnergyMinimizer.minimize(self.context, 10.0, MINIMISER_ITERATIONS)
        return numbers(self.context.getState(positions=True).getPositions(asNumpy=True))

    def fastest(self, positions: FloatArray) -> Vibration:
        """By power iteration, whose values approach the largest from below."""
        if self.restraint is not None:
            self.restraint.move(self.context, self.system.slow.transform(positions[None])[0])
        # from all motions alike: the same numbers in every process
        motion = named_rng(0, "fixed", "vibration").normal(size=positions.shape)
        square = 0.0
        for _ in range(MAX_ITERATIONS):
            motion = self._along(motion, positions)
            motion /= np.linalg.norm(motion) or 1.0
            moved = motion * self.scale
            if not (largest := np.linalg.norm(moved, axis=1).max(initial=0.0)):
                break
            h = DISPLACEMENT / largest
            difference = self.forces(positions - h * moved) - self.forces(positions + h * moved)
            bent = self._along(difference / (2 * h) * self.scale, positions)
            last, square = square, float((motion * bent).sum())
            if not np.isfinite(square) or abs(square - last) < TOLERANCE * abs(square):
                break
            motion = bent
        order = np.argsort(np.linalg.norm(motion * self.scale, axis=1))[::-1]
        return Vibration(float(np.sqrt(max(square, 0.0))), tuple(sorted(map(int, order[:2]))))

    def fastest_unclashed(self, positions: FloatArray) -> Vibration:
        """The same; of a molecule for which the time step would be too long, in a minimum.

        Atoms too close vibrate fast in that structure alone.
        """
        found = self.fastest(positions)
        if self.system.time_step >= found.longest_step and not isinstance(self.system.slow, ParticleCoordinates):
            return self.fastest(self.minimised())
        return found

    def _along(self, motion: FloatArray, positions: FloatArray) -> FloatArray:
        """Its part that constraints and massless particles allow."""
        system = self.system
        motion = np.where(self.scale > 0, motion, 0.0)
        if len(system.constraints):
            velocities = system.constraints.tangent((motion * self.scale)[None], positions[None], system.masses)[0]
            motion = np.divide(velocities, self.scale, out=np.zeros_like(velocities), where=self.scale > 0)
        return motion


def _places(system: MolecularSystem) -> Iterator[FloatArray]:
    """The structure, and with labels of particles it at other labels; shape=(n_atoms, 3), nm."""
    yield np.asarray(system.positions)
    slow = system.slow
    if isinstance(slow, ParticleCoordinates) and len(slow.names) < 4:
        for label in grid_labels(slow, PLACES_EACH):
            moved = np.array(system.positions)
            moved[slow.components[:, 0], slow.components[:, 1]] = label
            yield moved


def _check_widths(system: MolecularSystem) -> None:
    """See that windows are neither far narrower than the labels' domain nor as wide.

    Raises:
        InputError: they are.
    """
    slow = system.slow
    columns = zip(slow.names, system.force_constants, slow.domain, slow.periods, strict=True)
    for name, k, (low, high), period in columns:
        if not k:
            continue
        width, span = float(np.sqrt(system.kT / k)), float(high - low)
        bound = [system.kT / (part * span) ** 2 for part in (WIDEST_PART, NARROWEST_PART)]
        if bound[0] <= k <= bound[1]:
            continue
        how = "too stiff" if k > bound[1] else "too soft"
        unit = "rad" if np.isfinite(period) else "nm"
        raise InputError(
            f"the restraint of {name} is {how}: a force constant of {k:g} holds it within {width:.2g} {unit}, of a "
            f"domain {span:.3g} {unit} wide: give 'force_constants' between {bound[0]:.2g} and {bound[1]:.2g}"
        )


def _too_long(found: Vibration, what: str, remedy: str) -> InputError:
    names = " and ".join(f"atom {atom}" for atom in found.atoms)
    return InputError(
        f"{what}: the fastest vibration (of {names}) has a period of {found.period:.3g} ps, and dynamics is "
        f"stable below a time step of {found.longest_step:.2g} ps: {remedy}"
    )


def _closest(positions: FloatArray) -> tuple[int, int, float]:
    """The two atoms that are closest, and their distance, nm."""
    distances, neighbours = cKDTree(positions).query(positions, k=min(2, len(positions)))
    distances, neighbours = distances.reshape(len(positions), -1)[:, -1], neighbours.reshape(len(positions), -1)
    one = int(distances.argmin())
    return one, int(next((i for i in neighbours[one] if i != one), one)), float(distances[one])


def usual_constants(system: MolecularSystem) -> FloatArray:
    """Force constants of windows as wide as those of torsions usually are, shape=(d,)."""
    spans = system.slow.domain[:, 1] - system.slow.domain[:, 0]
    return np.asarray(system.kT / (USUAL_PART * spans) ** 2)


def shorter_step(system: MolecularSystem, times: float) -> float:
    """A step that is safe at the structure, and so many times shorter than the system's own, ps."""
    found = _Curvature(system, with_restraint=False).fastest(np.asarray(system.positions))
    return min(system.time_step / times, SAFE_PART * found.longest_step)


def is_restraint_too_stiff(system: MolecularSystem) -> bool:
    """Whether dynamics at the structure is unstable by the restraint alone."""
    limits = [_Curvature(system, restrained).fastest(np.asarray(system.positions)) for restrained in (True, False)]
    return limits[0].longest_step <= system.time_step < limits[1].longest_step


def check_dynamics(system: MolecularSystem) -> None:
    """See that windows of a system can be sampled: by its time step, its vibrations and its restraints.

    It takes some tens of force evaluations on the Reference platform, which no result counts, like the choice of a
    platform.

    Raises:
        InputError: the time step is too long, a restraint too stiff or too soft, or the structure has no finite forces,
            with what would do.
    """
    _check_widths(system)
    free = _Curvature(system, with_restraint=False)
    if not np.isfinite(free.forces(np.asarray(system.positions))).all():
        one, other, distance = _closest(system.positions)
        raise InputError(
            f"the forces at the structure are not finite (atoms {one} and {other} are {distance:.2g} nm apart): repair "
            "it, or the potential"
        )
    for positions in _places(system):
        found = free.fastest_unclashed(positions)
        if system.time_step >= found.longest_step:
            shorter = float(f"{SAFE_PART * found.longest_step:.1g}")
            remedy = f"set it to {shorter:g}" + (
                ", or constrain bonds of hydrogen or make it heavier" if system.topology.getNumBonds() else ""
            )
            raise _too_long(found, f"the time step of {system.time_step:g} ps is too long", remedy)
    found = _Curvature(system, with_restraint=True).fastest_unclashed(np.asarray(system.positions))
    if system.time_step >= found.longest_step:
        raise _too_long(
            found,
            f"the restraint is too stiff for a time step of {system.time_step:g} ps",
            "lower the force constants, or the time step",
        )
