"""Packed Systems: copies of a molecule side by side in one Context that do not feel each other.

The pairs inside a molecule become bonds. A NonbondedForce whose pairs are all exceptions and whose particles carry
nothing computes the same, but it still visits every pair of particles, also those of two copies: about 300 instead of 5
microseconds a copy for 64 copies of alanine dipeptide on the Reference platform (tests/benchmarks/packed.py). And it
gives NaN where atoms of two copies coincide, as their first atoms do in a chart.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import openmm

from ..errors import InputError
from ..units import BoolArray, FloatArray, masses_of, number
from .platforms import GPU_PLATFORMS, PlatformChoice

PAIR_ENERGY = "138.93545764438198*qq/r+4*epsilon*((sigma/r)^12-(sigma/r)^6)"
"""kJ/mol; the constant is OpenMM's own 1 / (4 pi epsilon_0)."""

MAX_DISPLACEMENT = 1e6
"""nm that a coordinate may be from where its copy belongs, if copies may lie on top of each other."""

MAX_SPEED = 1e5
"""nm/ps; a faster coordinate has blown up (5e9 kJ/mol of kinetic energy at 1 amu)."""

_TERMS = {
    "HarmonicBondForce": ("Bond", 0, 2),
    "CustomBondForce": ("Bond", 0, 2),
    "HarmonicAngleForce": ("Angle", 0, 3),
    "CustomAngleForce": ("Angle", 0, 3),
    "PeriodicTorsionForce": ("Torsion", 0, 4),
    "RBTorsionForce": ("Torsion", 0, 4),
    "CustomTorsionForce": ("Torsion", 0, 4),
    "CMAPTorsionForce": ("Torsion", 1, 9),
    "CustomExternalForce": ("Particle", 0, 1),
    "GBSAOBCForce": ("Particle", 0, 0),
}
"""Name of a force's terms, and which of a term's parameters are its particles: the first, and one past the last."""

Copies = int | Literal["auto"]

MAX_COPIES, MAX_ATOM_PAIRS = 4096, 1_000_000
"""On a graphics card; of large molecules fewer copies, so that the pairs of atoms, which become bonds, stay so few."""


@dataclass(frozen=True)
class CopyLattice:
    """Where copies belong: all at the origin, or, if they would feel each other, each in a cell of its own.

    Attributes:
        reach: nm, how far a coordinate of a copy may be from the cell's centre.
        separate: whether the copies are kept apart.
    """

    reach: float = MAX_DISPLACEMENT
    separate: bool = False

    @property
    def cutoff(self) -> float:
        """nm; a copy within its reach has every pair inside."""
        return 2 * np.sqrt(3) * self.reach

    def centres(self, n: int) -> FloatArray:
        """shape=(n, 3), nm: the same, or a cubic lattice.

        Between two checks a coordinate moves by a reach at most, which leaves two copies at twice their reach farther
        apart than the cutoff.
        """
        if not self.separate:
            return np.zeros((n, 3))
        side = int(np.ceil(np.cbrt(n)))
        lattice = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)[:n]
        return np.asarray((lattice - (side - 1) / 2) * (self.cutoff + 5 * self.reach))


def feels_copies(system: openmm.System) -> bool:
    """Whether copies must be kept apart: generalised Born is between all particles nearer than the cutoff."""
    return any(isinstance(force, openmm.GBSAOBCForce) for force in system.getForces())


def names_its_particles(force: Any) -> bool:
    """Whether a force is a sum of terms between given particles, and of no others."""
    return type(force).__name__ in _TERMS and not isinstance(force, openmm.GBSAOBCForce)


def why_not_packed(system: openmm.System) -> str:
    """Why copies of a System cannot share a Context, and the remedy, in a sentence; empty where they can."""
    remedy = "use packed=1"
    if any(system.isVirtualSite(i) for i in range(system.getNumParticles())):
        return f"the System has virtual sites, which packed copies do not carry: {remedy}"
    if system.usesPeriodicBoundaryConditions():
        return f"the System is periodic, and packed copies would share its box: {remedy}"
    if n := system.getNumConstraints():
        # iterations go on until the last copy has converged, and a clash in one ends all in NaN
        return f"the System has {n} constraints, which OpenMM solves for all packed copies together: {remedy}"
    for force in system.getForces():
        if reason := _why_not_copied(force):
            return f"the System has a {reason}: {remedy}"
    names = {type(force).__name__ for force in system.getForces()}
    if feels_copies(system) and "CustomExternalForce" in names:
        return f"the System has a CustomExternalForce and a GBSAOBCForce, whose copies are moved apart: {remedy}"
    return ""


def _why_not_copied(force: Any) -> str:
    name = type(force).__name__
    if name == "NonbondedForce":
        if force.getNonbondedMethod() != openmm.NonbondedForce.NoCutoff:
            return "NonbondedForce with a cutoff, which packed pairs do not have"
        if force.getNumParticleParameterOffsets() or force.getNumExceptionParameterOffsets():
            return "NonbondedForce with parameter offsets, which packed pairs do not have"
    elif name == "GBSAOBCForce" and force.getNonbondedMethod() != openmm.GBSAOBCForce.NoCutoff:
        return "GBSAOBCForce with a cutoff, which packed copies need for themselves"
    elif name not in _TERMS:
        return f"{name}, which is not known to leave packed copies alone"
    return ""


def pack_system(system: openmm.System, n: int, lattice: CopyLattice = CopyLattice()) -> openmm.System:
    """A System of n copies that do not feel each other; particle k of copy c has the index c * n_atoms + k.

    Args:
        system: one copy, without a box; it is not changed.
        n: copies.
        lattice: where their coordinates are going to be; needed for a GBSAOBCForce alone. Its energy is shifted by a
            constant, its forces are not.

    Raises:
        InputError: for a System whose copies cannot share a Context.
    """
    if reason := why_not_packed(system):
        raise InputError(reason)
    n_atoms = system.getNumParticles()
    packed = openmm.System()
    for mass in masses_of(system).tolist() * n:
        packed.addParticle(mass)
    for force in system.getForces():
        copies = pack_force(_bonded_pairs(force) if isinstance(force, openmm.NonbondedForce) else force, n, n_atoms)
        if isinstance(copies, openmm.GBSAOBCForce):
            copies.setNonbondedMethod(openmm.GBSAOBCForce.CutoffNonPeriodic)
            copies.setCutoffDistance(lattice.cutoff)
        packed.addForce(copies)
    return packed


def pack_force(force: Any, n: int, n_atoms: int) -> Any:
    """A copy of a force that has each of its terms n times, term i of copy c in place c * n_terms + i.

    Args:
        force: one of those that are sums of terms between a few given particles.
        n: copies.
        n_atoms: particles in a copy.
    """
    kind, begin, end = _TERMS[type(force).__name__]
    packed = openmm.XmlSerializer.clone(force)
    add = getattr(packed, f"add{kind}")
    get = getattr(force, f"get{kind}Parameters")
    terms = [_plain(get(i)) for i in range(getattr(force, f"getNum{kind}s")())]
    particles = np.array([term[begin:end] for term in terms], dtype=int).reshape(len(terms), end - begin)
    for first in range(n_atoms, n * n_atoms, n_atoms):
        # one copy's lists at a time: all of them at once would be the garbage collector's work
        for row, term in zip((particles + first).tolist(), terms, strict=True):
            add(*term[:begin], *row, *term[end:])
    return packed


def _plain(values: Any) -> list[Any]:
    """In OpenMM's units."""
    return [number(value) if openmm.unit.is_quantity(value) else value for value in values]


def _bonded_pairs(force: openmm.NonbondedForce) -> openmm.CustomBondForce:
    """Every pair of a NonbondedForce without a cutoff that carries anything, as a bond."""
    particles = np.array([_plain(force.getParticleParameters(i)) for i in range(force.getNumParticles())])
    charges, sigmas, epsilons = particles.reshape(-1, 3).T
    first, second = np.triu_indices(len(charges), 1)
    numbers = np.stack(
        [
            charges[first] * charges[second],
            0.5 * (sigmas[first] + sigmas[second]),
            np.sqrt(epsilons[first] * epsilons[second]),
        ],
        axis=1,
    )
    pairs = dict(zip(zip(first.tolist(), second.tolist(), strict=True), numbers.tolist(), strict=True))
    for i in range(force.getNumExceptions()):
        a, b, *exception = _plain(force.getExceptionParameters(i))
        pairs[min(a, b), max(a, b)] = exception
    bonds = openmm.CustomBondForce(PAIR_ENERGY)
    for name in ("qq", "sigma", "epsilon"):
        bonds.addPerBondParameter(name)
    for (a, b), (charge, sigma, epsilon) in pairs.items():
        if charge or epsilon:
            bonds.addBond(a, b, [charge, sigma, epsilon])
    bonds.setForceGroup(force.getForceGroup())
    bonds.setName(force.getName())
    return bonds


def add_guard(integrator: openmm.CustomIntegrator, lattice: CopyLattice, time_step: float) -> Callable[[], None]:
    """Stop coordinates that blow up or leave their cell, inside a CustomIntegrator, and record them.

    The per-DOF variable ``broken`` becomes 1 where, at a check, a velocity is not finite or absurd, or a coordinate is
    beyond the reach of the per-DOF variable ``home``. Such a velocity is zero from then on, so that no coordinate
    becomes NaN, which some platforms raise for the whole Context. Nothing else changes, to the bit.

    Args:
        integrator: gets the variables.
        lattice: where copies belong.
        time_step: ps.

    Returns:
        what adds a check; call it after each kick.
    """
    integrator.addPerDofVariable("broken", 0.0)
    integrator.addPerDofVariable("home", 0.0)
    fastest = min(MAX_SPEED, lattice.reach / time_step)

    def check() -> None:
        # step(NaN) is 0
        inside = f"step({fastest!r}-abs(v))*step({lattice.reach!r}-abs(x-home))"
        integrator.addComputePerDof("broken", f"max(broken,1-{inside})")
        integrator.addComputePerDof("v", "select(broken,0,v)")

    return check


def start_guarded(integrator: openmm.CustomIntegrator, centres: FloatArray, n_atoms: int) -> None:
    """Set where copies belong, shape=(n, 3), nm, in a guarded integrator, and clear its record of what broke."""
    integrator.setPerDofVariableByName("home", np.repeat(centres, n_atoms, axis=0))
    integrator.setPerDofVariableByName("broken", np.zeros((len(centres) * n_atoms, 3)))


def per_copy(integrator: openmm.CustomIntegrator, name: str, n: int) -> FloatArray:
    """A per-DOF variable by copy, shape=(n, n_atoms, 3)."""
    return np.array(integrator.getPerDofVariableByName(name), dtype=float).reshape(n, -1, 3)


def broken_copies(integrator: openmm.CustomIntegrator, n: int) -> BoolArray:
    """Which of n copies a guard has stopped, shape=(n,)."""
    return np.asarray(per_copy(integrator, "broken", n).any(axis=(1, 2)))


def finite_copies(values: FloatArray) -> BoolArray:
    """Which copies hold no NaN and no infinity, shape=(n,), of any array of shape=(n, ...)."""
    return np.asarray(np.isfinite(values.reshape(len(values), -1)).all(axis=1))


def copies_in_a_context(copies: Copies, why_not: str, platform: str, n_atoms: int) -> int:
    """How many copies share a Context.

    Args:
        copies: how many, or ``auto``: many on a graphics card, where they can be packed, one elsewhere.
        why_not: why they cannot be packed; empty where they can.
        platform: that they run on.
        n_atoms: in one copy.

    Raises:
        InputError: less than one, or several that cannot be packed.
    """
    if copies == "auto":
        many = PlatformChoice.read(platform).name in GPU_PLATFORMS and not why_not
        return max(1, min(MAX_COPIES, 2 * MAX_ATOM_PAIRS // n_atoms**2)) if many else 1
    if copies < 1:
        raise InputError(f"{copies} copies in one Context: give at least 1")
    if copies > 1 and why_not:
        raise InputError(why_not)
    return copies
