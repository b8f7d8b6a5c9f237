"""The reference potential: what a lift is drawn from, with its exact sampler and its closed-form log Z.

In the measure of the chart's coordinates every term is independent: bonds, angles and Cartesian components are
normal, a torsion of fold m is von Mises in ``m phi``. The widths are standard deviations; that of a torsion is
the one of its narrow limit, ``kappa / kT = 1 / (m width)^2``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import openmm
from scipy.special import ive

from ..engine.restraint_forces import harmonic_wells
from ..units import FloatArray, IntArray
from .chart import Chart, InternalCoordinates


@dataclass(frozen=True)
class ReferenceParameters:
    """Parameters of n reference potentials.

    Attributes:
        centres: shape=(n, n_coordinates), nm or radians.
        widths: shape=(n, n_coordinates), positive, nm or radians.
    """

    centres: FloatArray
    widths: FloatArray

    def __len__(self) -> int:
        return len(self.centres)


TermsOfForce = list[list[tuple[Any, ...]]]
"""Numbers of each term of one force, by reference and term."""


class Reference(Protocol):
    """Where the paths of lifts have their other end: a potential that can be drawn from."""

    def energies(self, coordinates: FloatArray, parameters: Any) -> FloatArray:
        """U_B in kJ/mol of one configuration under each reference, shape=(n,)."""
        ...

    def log_volume(self, coordinates: FloatArray, parameters: Any) -> FloatArray:
        """What log w has besides the energies, shape=(n,)."""
        ...

    def set_parameters(self, forces: list[openmm.Force], parameters: Any, indices: Any, context: Any) -> None:
        """Write the parameters of one reference, or of one for each packed copy, into the forces of a Context."""
        ...


class ReferencePotential:
    """Native OpenMM forces, exact sampler and log Z of a reference in one chart.

    Args:
        chart: the chart whose coordinates are independent in the reference.
        kT: thermal energy, kJ/mol.
    """

    def __init__(self, chart: Chart, kT: float):
        self.chart = chart
        self.kT = kT
        self._last: tuple[ReferenceParameters, list[TermsOfForce]] | None = None

    def concentrations(self, parameters: ReferenceParameters) -> FloatArray:
        """kappa / kT of each coordinate as if it were a torsion, shape=(n, n_coordinates)."""
        return np.asarray((self.chart.folds * parameters.widths) ** -2.0)

    def sample(self, parameters: ReferenceParameters, rng: np.random.Generator) -> FloatArray:
        """One exact draw from each reference: coordinates, shape=(n, n_coordinates)."""
        chart, shape = self.chart, parameters.centres.shape
        normal = rng.standard_normal(shape) * parameters.widths
        concentrations = np.where(chart.periodic, self.concentrations(parameters), 1.0)
        well = rng.integers(0, chart.folds, size=shape)
        angle = (rng.vonmises(0.0, concentrations) + 2 * np.pi * well) / chart.folds
        drawn = parameters.centres + np.where(chart.periodic, angle, normal)
        return np.where(chart.periodic, np.arctan2(np.sin(drawn), np.cos(drawn)), drawn)

    def energies(self, coordinates: FloatArray, parameters: ReferenceParameters) -> FloatArray:
        """U_B in kJ/mol of one configuration under each reference, shape=(n,)."""
        deviation = coordinates - parameters.centres
        normal = 0.5 * (deviation / parameters.widths) ** 2
        torsion = self.concentrations(parameters) * (1.0 - np.cos(self.chart.folds * deviation))
        return np.asarray(self.kT * np.where(self.chart.periodic, torsion, normal).sum(axis=1))

    def log_partition(self, parameters: ReferenceParameters) -> FloatArray:
        """log of ``prod sqrt(2 pi) sigma * prod 2 pi exp(-k) I0(k)``, shape=(n,); the same for every fold."""
        normal = np.log(np.sqrt(2 * np.pi) * parameters.widths)
        torsion = np.log(2 * np.pi * ive(0, self.concentrations(parameters)))
        return np.asarray(np.where(self.chart.periodic, torsion, normal).sum(axis=1))

    def log_volume(self, coordinates: FloatArray, parameters: ReferenceParameters) -> FloatArray:
        """What log w has besides the energies: log J of a configuration and log Z of its reference, shape=(n,)."""
        return self.chart.log_jacobian(coordinates) + self.log_partition(parameters)

    def forces(self, force_group: int) -> list[openmm.Force]:
        """The native forces, with placeholder parameters until `set_parameters`."""
        chart = self.chart
        if not isinstance(chart, InternalCoordinates):
            particles = chart.n_atoms
            forces = [harmonic_wells(list(range(particles)), np.zeros((particles, 3)), np.ones((particles, 3)))]
        else:
            bond, angle, torsion = (
                openmm.HarmonicBondForce(),
                openmm.HarmonicAngleForce(),
                openmm.PeriodicTorsionForce(),
            )
            for atoms in chart.bonds:
                bond.addBond(*map(int, atoms), 0.1, 1.0)
            for atoms in chart.angles:
                angle.addAngle(*map(int, atoms), 1.0, 1.0)
            for atoms in chart.torsions:
                torsion.addTorsion(*map(int, atoms), 1, 0.0, 1.0)
            forces = [bond, angle, torsion]
        for force in forces:
            force.setForceGroup(force_group)
        return forces

    def set_parameters(
        self,
        forces: list[openmm.Force],
        parameters: ReferenceParameters,
        indices: int | Sequence[int] | IntArray,
        context: openmm.Context,
    ) -> None:
        """Write the parameters of one reference, or of one for each packed copy, into the forces of a Context.

        Args:
            forces: what `forces` made, packed where there are copies.
            parameters: n references; what OpenMM takes is computed once for all of them.
            indices: which of them, one a copy.
            context: the Context that holds the forces.
        """
        if self._last is None or self._last[0] is not parameters:
            self._last = parameters, self._terms(parameters)
        chosen, n_atoms = np.atleast_1d(indices).tolist(), self.chart.n_atoms
        for force, particles, terms in zip(forces, self._particles, self._last[1], strict=True):
            set_term = _setter(force)
            for copy, index in enumerate(chosen):
                begin, first = copy * len(particles), copy * n_atoms
                for term, (row, numbers) in enumerate(zip(particles, terms[index], strict=True), begin):
                    set_term(term, *(first + particle for particle in row), *numbers)
            force.updateParametersInContext(context)

    @cached_property
    def _particles(self) -> list[list[list[int]]]:
        """Of each term of each force."""
        chart = self.chart
        if not isinstance(chart, InternalCoordinates):
            return [np.arange(chart.n_atoms)[:, None].tolist()]
        return [chart.bonds.tolist(), chart.angles.tolist(), chart.torsions.tolist()]

    def _terms(self, parameters: ReferenceParameters) -> list[TermsOfForce]:
        """Of each force."""
        chart, n = self.chart, len(parameters)
        centres, stiffness = parameters.centres, self.kT / parameters.widths**2
        if not isinstance(chart, InternalCoordinates):
            wells = np.stack([centres, stiffness], axis=1).reshape(n, 2, -1, 3)
            return [[[(well,) for well in one] for one in wells.swapaxes(1, 2).reshape(n, -1, 6).tolist()]]
        ends = np.cumsum([chart.n_bonds, chart.n_angles])
        (bond_0, angle_0, torsion_0), (bond_k, angle_k, torsion_k) = (
            np.split(values, ends, axis=1) for values in (centres, stiffness)
        )
        m = np.broadcast_to(chart.folds[ends[1] :], torsion_0.shape)
        columns = (bond_0, bond_k), (angle_0, angle_k), (m, m * torsion_0 + np.pi, torsion_k / m**2)
        return [
            [list(zip(*one, strict=True)) for one in zip(*(column.tolist() for column in force), strict=True)]
            for force in columns
        ]


def _setter(force: openmm.Force) -> Callable[..., None]:
    if isinstance(force, openmm.HarmonicBondForce):
        return force.setBondParameters
    if isinstance(force, openmm.HarmonicAngleForce):
        return force.setAngleParameters
    return force.setTorsionParameters if isinstance(force, openmm.PeriodicTorsionForce) else force.setParticleParameters
