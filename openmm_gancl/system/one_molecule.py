"""One molecule of several, whose internal coordinates are all that changes, the others held where they are.

Its place is kept: another configuration of the molecule is moved rigidly to where its mass-weighted squared distance
from the present one is least (Kabsch 1976, doi 10.1107/S0567739476001873). With place and orientation ``(t, R)`` of any
body-fixed frame and internal coordinates q of the molecule, and x' the other atoms,

    dx = dt dR J(q) dq,    p(q | t, R, x') ~ exp(-beta U(x(q, t, R), x')) J(q),

the measure ``dt dR`` being that of rigid motions, which neither the choice of a frame that depends on q alone changes
nor a rigid motion that depends on q and q' alone. The move from q to q' turns the molecule by the A(q, q') of the best
fit, and ``A(q', q)`` is its inverse, so that the way back ends where it began: ``min(1, w'/w)`` of
``w = exp(-beta U) J / g`` is exact for q' drawn from g, whatever t, R and x' are at the time, if both energies are of
the same x'. Neither t, R nor x' needs a weight. Where the others or the molecule go in between is up to the dynamics.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import openmm
from openmm import app

from ..coordinates.slow_coordinates import SlowCoordinates, Torsions
from ..engine.serialization import deserialized
from ..errors import InputError
from ..units import FloatArray, IntArray, masses_of, number, numbers
from .bonds import bound_across, molecule_with

MANY_ATOMS = 200
"""Of a System, from which another platform than Reference computes it."""


BONDED_ACROSS = (
    "atoms {} and {} are bonded across (by a constraint or HarmonicBondForce of the System, not by the Topology), and "
    "a lift moves a whole molecule: add the bond to the Topology, or make a restraint a CustomBondForce"
)


def placed_like(positions: FloatArray, there: FloatArray, masses: FloatArray) -> FloatArray:
    """A configuration, moved rigidly to where its mass-weighted squared distance from another is least.

    Args:
        positions: shape=(n_atoms, 3), nm.
        there: shape=(n_atoms, 3), nm, the other.
        masses: shape=(n_atoms,), amu.
    """
    return _fit(positions, there, masses / masses.sum())[0]


def rotation_onto(positions: FloatArray, there: FloatArray) -> FloatArray:
    """What rows of a configuration are multiplied by from the right, to be turned as in another place, shape=(3, 3)."""
    return _fit(positions, there, np.full(len(positions), 1.0 / len(positions)))[1]


def _fit(positions: FloatArray, there: FloatArray, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The configuration at its best fit, and the rotation that rows are multiplied by from the right, shape=(3, 3)."""
    middle = weights @ there
    centred, other = positions - weights @ positions, there - middle
    u, _, v = np.linalg.svd((weights[:, None] * centred).T @ other)
    u[:, 2] *= np.sign(np.linalg.det(u) * np.linalg.det(v))
    rotation = u @ v
    return centred @ rotation + middle, rotation


@dataclass(frozen=True, eq=False)
class AmongOthers:
    """A molecule among others.

    Attributes:
        atoms: shape=(n,), which of all it has.
        masses: shape=(n,), amu, of these.
    """

    atoms: IntArray
    masses: FloatArray

    def placed(self, positions: FloatArray, everything: FloatArray) -> FloatArray:
        """All positions, shape=(n_atoms, 3), nm: another configuration of the molecule in its place, the others as is.

        Args:
            positions: shape=(n, 3), nm, of the molecule, anywhere.
            everything: shape=(n_atoms, 3), nm, as they are.
        """
        found = everything.copy()
        found[self.atoms] = placed_like(positions, everything[self.atoms], self.masses)
        return found


@dataclass(eq=False)
class EnergyBesideOthers:
    """U of a molecule's internal coordinates beside others that are held, as a PythonForce calls it; pickles.

    Wherever the molecule is, its energy is the one where it fits best on its own configuration there: no rigid motion
    changes it, and its forces have no resultant and no torque about its centre.

    Attributes:
        system_xml: of all atoms.
        atoms: shape=(n,), of the molecule.
        positions: shape=(n_atoms, 3), nm, of all atoms.
        weights: shape=(n,), parts of the molecule's mass.
    """

    system_xml: str
    atoms: IntArray
    positions: FloatArray
    weights: FloatArray
    _context: Any = field(default=None, repr=False)

    def __reduce__(self) -> tuple[Any, ...]:
        # the bytes are in the System's text and its hash, and those of arrays differ from process to process
        numbers_of = (part.tolist() for part in (self.atoms, self.positions, self.weights))
        return _energy_beside_others, (self.system_xml, *numbers_of)

    def __call__(self, state: Any) -> tuple[float, FloatArray]:
        """Energy, kJ/mol, and forces on the molecule, shape=(n, 3), kJ/mol/nm."""
        found = numbers(state.getPositions(asNumpy=True))
        if not np.isfinite(found).all():
            return float("nan"), np.full(found.shape, np.nan)
        there = self.positions[self.atoms]
        placed, rotation = _fit(found, there, self.weights)
        energy, forces = self._evaluated(placed)
        # a force that moves or turns the whole molecule is undone by the fit
        rest = there - self.weights @ there
        arms = placed - self.weights @ placed
        overlap = (self.weights[:, None] * rest).T @ arms
        inertia = np.trace(overlap) * np.eye(3) - overlap
        turn = np.linalg.solve(inertia, np.cross(arms, forces).sum(axis=0))
        forces = forces - self.weights[:, None] * (forces.sum(axis=0) + np.cross(turn, rest))
        return energy, forces @ rotation.T

    def _evaluated(self, placed: FloatArray) -> tuple[float, FloatArray]:
        if self._context is None:
            # an integrator without random numbers, of which the Reference platform has one generator for all
            how: list[Any] = [deserialized(self.system_xml), openmm.VerletIntegrator(0.001)]
            few = len(self.positions) < MANY_ATOMS
            # without a platform OpenMM takes the fastest that works; measuring would take steps
            self._context = openmm.Context(*how, *([openmm.Platform.getPlatformByName("Reference")] if few else []))
        whole = self.positions.copy()
        whole[self.atoms] = placed
        self._context.setPositions(whole)
        state = self._context.getState(energy=True, forces=True)
        return number(state.getPotentialEnergy()), numbers(state.getForces(asNumpy=True))[self.atoms]


def _energy_beside_others(system_xml: str, *arrays: list[Any]) -> EnergyBesideOthers:
    return EnergyBesideOthers(system_xml, *map(np.array, arrays))


@dataclass(frozen=True, eq=False)
class OneMolecule:
    """A molecule of several: OpenMM's objects of it alone, the others held where they are.

    Attributes:
        atoms: shape=(n,), which of all they are, ascending.
        topology: of it.
        system: of it, whose only force is the energy of all.
        positions: shape=(n, 3), nm.
    """

    atoms: IntArray
    topology: Any
    system: Any
    positions: FloatArray

    @classmethod
    def of(cls, topology: Any, system: Any, positions: FloatArray, atom: int) -> "OneMolecule":
        """The molecule that an atom belongs to.

        Args:
            topology: of all, an ``openmm.app.Topology``.
            system: of all, without thermostats and what else is no part of the target; it is not changed.
            positions: shape=(n_atoms, 3), nm, of all.
            atom: from 0.

        Raises:
            InputError: it is bonded across.
        """
        atoms = molecule_with(topology, atom)
        if pair := bound_across(system, atoms):
            raise InputError(BONDED_ACROSS.format(*pair))
        masses = masses_of(system)[atoms]
        xml = openmm.XmlSerializer.serialize(system)
        energy = EnergyBesideOthers(xml, atoms, np.array(positions), masses / masses.sum())
        alone, number_of = openmm.System(), {atom: i for i, atom in enumerate(atoms.tolist())}
        for mass in masses:
            alone.addParticle(mass)
        for i in range(system.getNumConstraints()):
            one, other, length = system.getConstraintParameters(i)
            if one in number_of:
                alone.addConstraint(number_of[one], number_of[other], length)
        alone.addForce(openmm.PythonForce(energy, {}))
        modeller = app.Modeller(topology, positions)
        modeller.delete([atom for atom in topology.atoms() if atom.index not in number_of])
        return cls(atoms, modeller.topology, alone, positions[atoms])

    def labels(self, slow: SlowCoordinates) -> SlowCoordinates:
        """Those of all atoms as those of the molecule.

        Raises:
            InputError: labels of other atoms, or of another kind than torsions.
        """
        if not isinstance(slow, Torsions):
            raise InputError("beside other molecules labels must be torsions: label torsions of the molecule")
        numbers_of = {atom: i for i, atom in enumerate(self.atoms.tolist())}
        for name, row in zip(slow.names, slow.atoms.tolist(), strict=True):
            if elsewhere := [atom for atom in row if atom not in numbers_of]:
                raise InputError(f"label {name} names atom {elsewhere[0]} of another molecule: label torsions of one")
        return replace(slow, atoms=np.array([[numbers_of[atom] for atom in row] for row in slow.atoms.tolist()]))
