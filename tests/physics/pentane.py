"""Pentane of united atoms, its surface over one torsion by quadrature: bonds and angles do not enter it."""

import numpy as np
import openmm
from openmm import app

from openmm_gancl.coordinates.slow_coordinates import Torsions
from openmm_gancl.system.molecular_system import system_from_objects

from .exact import KT, log_integral

MASSES = (15.035, 14.027, 14.027, 14.027, 15.035)
LENGTH, ANGLE = 0.153, 1.9548
STIFFNESS = (224262.0, 520.0)
"""kJ/mol/nm^2, kJ/mol."""

TURNS = ((2.95, 1, 0.0), (-0.567, 2, np.pi), (6.576, 3, 0.0))
"""kJ/mol, periodicity and phase of a torsion of butane."""

COUPLING = 5.0
"""kJ/mol: one torsion follows the other."""

CIRCLE = -np.pi + (np.arange(720) + 0.5) * 2 * np.pi / 720


def torsion_energy(angle):
    """Of one torsion, kJ/mol."""
    return sum(k * (1 + np.cos(n * angle - phase)) for k, n, phase in TURNS)


def log_others():
    """Log of the integral over bonds and angles in the measure of internal coordinates."""
    lengths, bends = np.linspace(0.12, 0.19, 4001), np.linspace(0.8, 3.0, 4001)
    bond = 2 * np.log(lengths) - 0.5 * STIFFNESS[0] * (lengths - LENGTH) ** 2 / KT
    bend = np.log(np.sin(bends)) - 0.5 * STIFFNESS[1] * (bends - ANGLE) ** 2 / KT
    return 4 * log_integral(bond, lengths) + 3 * log_integral(bend, bends)


def surface(angles):
    """Of the labelled torsion, kT: -log of the integral over all other coordinates, shape=(n,)."""
    pairs = torsion_energy(CIRCLE) - COUPLING * np.cos(angles[:, None] - CIRCLE)
    others = np.log(np.exp(-pairs / KT).sum(axis=1) * (CIRCLE[1] - CIRCLE[0])) + log_others()
    return torsion_energy(angles) / KT - others


def pentane():
    """All trans, labelled by its first torsion."""
    topology = app.Topology()
    residue = topology.addResidue("PEN", topology.addChain())
    atoms = [topology.addAtom(f"C{i + 1}", app.Element.getBySymbol("C"), residue) for i in range(5)]
    system = openmm.System()
    for mass in MASSES:
        system.addParticle(mass)
    bonds, angles, turns = openmm.HarmonicBondForce(), openmm.HarmonicAngleForce(), openmm.PeriodicTorsionForce()
    for i in range(4):
        topology.addBond(atoms[i], atoms[i + 1])
        bonds.addBond(i, i + 1, LENGTH, STIFFNESS[0])
    for i in range(3):
        angles.addAngle(i, i + 1, i + 2, ANGLE, STIFFNESS[1])
    for i in range(2):
        for k, n, phase in TURNS:
            turns.addTorsion(i, i + 1, i + 2, i + 3, n, phase, k)
    coupled = openmm.CustomCompoundBondForce(5, "-c*cos(dihedral(p1,p2,p3,p4)-dihedral(p2,p3,p4,p5))")
    coupled.addGlobalParameter("c", COUPLING)
    coupled.addBond(list(range(5)), [])
    for force in (bonds, angles, turns, coupled):
        system.addForce(force)
    half = 0.5 * ANGLE
    positions = [[LENGTH * np.sin(half) * i, LENGTH * np.cos(half) * (i % 2), 0.0] for i in range(5)]
    slow = Torsions(("first",), np.array([[0, 1, 2, 3]]))
    return system_from_objects(topology, system, positions, temperature=300.0, slow=slow, friction=5.0)
