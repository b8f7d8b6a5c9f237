"""Ethylmethylamine of united atoms, whose nitrogen inverts over 10 kT: its surface over one torsion by quadrature.

The torsions of methyl and of hydrogen about the bond that the label turns differ by an angle of a density of its own,
alike to either side of zero: the two forms of the amine.
"""

import numpy as np
import openmm
from openmm import app

from openmm_gancl.coordinates.slow_coordinates import Torsions
from openmm_gancl.system.molecular_system import system_from_objects

from .exact import KT

NAMES, MASSES = ("C1", "C2", "N", "C4", "H"), (15.035, 14.027, 14.007, 15.035, 1.008)
BONDS = {(0, 1): 0.153, (1, 2): 0.147, (2, 3): 0.147, (2, 4): 0.101}
ANGLES = {(0, 1, 2): 1.93, (1, 2, 3): 1.95, (1, 2, 4): 1.91, (3, 2, 4): 1.91}
STRETCH, BEND = 224262.0, 520.0
"""kJ/mol/nm^2, kJ/mol."""

OF_METHYL, OF_HYDROGEN = ((2.0, 1, 0.0), (6.0, 3, 0.0)), ((3.0, 1, np.pi), (2.0, 2, 0.0))
"""kJ/mol, periodicity and phase of their torsions."""

CIRCLE = -np.pi + (np.arange(360) + 0.5) * 2 * np.pi / 360


def turned(terms, angle):
    """Energy of a torsion, kJ/mol."""
    return sum(k * (1 + np.cos(n * angle - phase)) for k, n, phase in terms)


def density_between():
    """Of the angle from the methyl to the hydrogen about the bond, over `CIRCLE`: the three angles at nitrogen."""
    bends = np.linspace(1.2, 2.7, 121)
    first, second = np.meshgrid(bends, bends, indexing="ij")
    (_, of_first), (_, of_second), (_, of_third) = list(ANGLES.items())[1:]
    alone = np.sin(first) * np.sin(second)
    alone *= np.exp(-0.5 * BEND * ((first - of_first) ** 2 + (second - of_second) ** 2) / KT)
    cosines = np.cos(first) * np.cos(second) + np.sin(first) * np.sin(second) * np.cos(CIRCLE[:, None, None])
    third = np.arccos(np.clip(cosines, -1.0, 1.0))
    return (alone * np.exp(-0.5 * BEND * (third - of_third) ** 2 / KT)).sum(axis=(1, 2))


def surface(angles):
    """Of the labelled torsion, kT, shape=(n,): the same to either side of zero."""
    energies = turned(OF_METHYL, angles)[:, None] + turned(OF_HYDROGEN, angles[:, None] + CIRCLE)
    return -np.log((density_between() * np.exp(-energies / KT)).sum(axis=1))


def amine():
    """In one of its forms, labelled by the torsion of the chain."""
    topology = app.Topology()
    residue = topology.addResidue("EMA", topology.addChain())
    atoms = [topology.addAtom(name, app.Element.getBySymbol(name[0]), residue) for name in NAMES]
    system = openmm.System()
    for mass in MASSES:
        system.addParticle(mass)
    bonds, angles, turns = openmm.HarmonicBondForce(), openmm.HarmonicAngleForce(), openmm.PeriodicTorsionForce()
    for (i, j), length in BONDS.items():
        topology.addBond(atoms[i], atoms[j])
        bonds.addBond(i, j, length, STRETCH)
    for triple, angle in ANGLES.items():
        angles.addAngle(*triple, angle, BEND)
    for last, terms in ((3, OF_METHYL), (4, OF_HYDROGEN)):
        for k, n, phase in terms:
            turns.addTorsion(0, 1, 2, last, n, phase, k)
    for force in (bonds, angles, turns):
        system.addForce(force)
    positions = np.array(
        [[-0.05, 0.14, 0.0], [0.0, 0.0, 0.0], [0.147, 0.0, 0.0], [0.2, -0.13, 0.02], [0.18, 0.05, 0.08]]
    )
    slow = Torsions(("torsion",), np.array([[0, 1, 2, 3]]))
    return system_from_objects(topology, system, positions, temperature=300.0, slow=slow, friction=5.0)
