"""The coordinates that a loop scatters windows over and draws one by one: labels, and the wide ones beside them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..coordinates.slow_coordinates import ParticleCoordinates, Torsions
from ..errors import InputError
from ..free_energy.grid import bin_centres
from ..free_energy.surface import grid_edges
from ..reference.chart import CartesianCoordinates, Chart, InternalCoordinates, chart_for
from ..reference.wide_components import chosen_components, with_angles
from ..reference.wide_torsions import (
    WIDE_FORCE_CONSTANT,
    inverting_indices,
    labels_in_rings,
    reaches,
    ring_indices,
    torsions_of,
    turning_indices,
    wide_indices,
    wide_names,
    with_more_labels,
)
from ..system.molecular_system import MolecularSystem
from ..units import FloatArray, IntArray
from .learned import MAX_GRID_LABELS
from .placement import scattered_places

IN_A_FORM = 0.2
"""Radians from zero, on average, of a torsion along a ring in a window that was in one of the ring's forms."""


@dataclass(frozen=True)
class LoopCoordinates:
    """Labels and wide coordinates of a system.

    Attributes:
        system: the real system.
        chart: of its configurations.
        wide: shape=(n_wide,), the coordinates that turn or have several modes, and are no labels.
        looks_for_wide: whether any are looked for.
    """

    system: MolecularSystem
    chart: Chart
    wide: IntArray
    looks_for_wide: bool

    @classmethod
    def of(cls, system: MolecularSystem, look_for_wide: bool = True) -> "LoopCoordinates":
        """Those of a system.

        Raises:
            InputError: labels that are no coordinates of a chart.
        """
        chart = chart_for(system.topology, system.slow, system.positions, system.constraints)
        if len(chart.label_indices) != len(system.slow.names):
            raise InputError("labels of a module are no coordinates of a chart: label torsions or particle components")
        if chart.n_coordinates == len(system.slow.names):
            raise InputError(
                "every coordinate of the system is a label, and nothing is left to draw: leave a label out"
            )
        if isinstance(system.slow, Torsions) and (closed := labels_in_rings(system.topology, system.slow)):
            raise InputError(
                f"label {closed[0]} turns a bond of a ring, which cannot turn all the way round: label torsions "
                "outside rings (psi alone of proline), or make windows of your own for `gancl fes`"
            )
        return cls._with_chart(system, chart, look_for_wide)

    @classmethod
    def _with_chart(cls, system: MolecularSystem, chart: Chart, look_for_wide: bool) -> "LoopCoordinates":
        found = wide_indices(system, chart)
        return cls(system, chart, found if look_for_wide else found[:0], look_for_wide)

    def seen_in(self, positions: FloatArray) -> "LoopCoordinates":
        """With the angles about the origin that the other components of a labelled particle turn by in frames.

        Args:
            positions: shape=(n, n_atoms, 3), nm.
        """
        components = self.other_components
        if not isinstance(self.chart, CartesianCoordinates) or components is None:
            return self
        return self._with_chart(self.system, with_angles(self.chart, positions, components), self.looks_for_wide)

    @property
    def conditions(self) -> IntArray:
        """Labels, then wide coordinates, shape=(d + n_wide,)."""
        return np.concatenate([self.chart.label_indices, self.wide])

    @property
    def wide_names(self) -> tuple[str, ...]:
        """Of the wide torsions or components."""
        return wide_names(self.system.topology, self.chart, self.wide)

    @property
    def n_combinations(self) -> int:
        """Of states of the wide coordinates, about: three of a torsion that turns, two of a ring's or of an amine's."""
        topology = self.system.topology
        of_two = np.union1d(ring_indices(topology, self.chart), inverting_indices(topology, self.chart))
        return int(np.where(np.isin(self.wide, of_two), 2, 3).prod())

    @property
    def turning(self) -> IntArray:
        """Coordinates that are wide, or that the system leaves out of them, shape=(n,)."""
        found = turning_indices(self.system.topology, self.chart, self.system.state)
        return found if self.looks_for_wide else found[:0]

    @property
    def turning_names(self) -> tuple[str, ...]:
        """Of these."""
        return wide_names(self.system.topology, self.chart, self.turning)

    @property
    def other_components(self) -> ParticleCoordinates | None:
        """Of the labelled particles."""
        if not self.looks_for_wide or not isinstance(self.system.slow, ParticleCoordinates):
            return None
        return chosen_components(self.system)

    @property
    def places(self) -> FloatArray:
        """Labels that fill the domain evenly, shape=(n, d)."""
        slow = self.system.slow
        few = len(slow.names) <= MAX_GRID_LABELS
        return bin_centres(grid_edges(slow)) if few else scattered_places(slow)

    def restrained(self) -> tuple[MolecularSystem, FloatArray]:
        """The system with wide torsions as further labels, and how far windows reach along each, as a share."""
        if not isinstance(self.chart, InternalCoordinates) or not len(self.wide):
            return self.system, np.ones(1)
        topology = self.system.topology
        torsions = torsions_of(topology, self.chart, self.wide)
        reach = reaches(topology, self.chart, self.wide) / np.pi
        of_labels = np.ones(len(self.system.slow.names))
        return with_more_labels(self.system, torsions, WIDE_FORCE_CONSTANT), np.append(of_labels, reach)

    def rings_in_both_forms(self, frames: FloatArray) -> Sequence[list[int]]:
        """Atoms of the torsions along rings that windows of a check had on both sides of zero.

        Args:
            frames: shape=(n_windows, n_frames, n), the coordinates that turn.
        """
        if not isinstance(self.chart, InternalCoordinates):
            return []
        topology = self.system.topology
        every, found = turning_indices(topology, self.chart, self.system.state), []
        for i in ring_indices(topology, self.chart).tolist():
            angles = frames[..., every.tolist().index(i)]
            means = np.angle(np.nansum(np.exp(1j * angles), axis=1))
            if (means > IN_A_FORM).any() and (means < -IN_A_FORM).any():
                found.append(self.chart.torsions[i - self.chart.n_bonds - self.chart.n_angles].tolist())
        return found
