"""Charts: the coordinates in which a reference potential is a product, there and back, with their volume."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from ..coordinates.geometry import cross, dihedral_angles
from ..coordinates.slow_coordinates import ModuleCoordinates, ParticleCoordinates, SlowCoordinates, Torsions
from ..errors import InputError, checked
from ..system.constraints import UNCONSTRAINED, Constraints
from ..units import BoolArray, FloatArray, IntArray
from .zmatrix import bond_graph, build_z_matrix, checked_torsions, rotor_folds


@runtime_checkable
class Chart(Protocol):
    """What every choice of coordinates offers to the reference, the generator and the weights."""

    kind: ClassVar[str]

    @property
    def n_atoms(self) -> int:
        """Number of atoms."""
        ...

    @property
    def n_coordinates(self) -> int:
        """Number of coordinates."""
        ...

    @property
    def periodic(self) -> BoolArray:
        """shape=(n_coordinates,), True for torsions (period 2 pi)."""
        ...

    @property
    def folds(self) -> IntArray:
        """shape=(n_coordinates,), 1 except at the primary torsion of a rotor with 2- or 3-fold symmetry."""
        ...

    @property
    def label_indices(self) -> IntArray:
        """shape=(d,), the coordinate that is slow coordinate i itself; empty where none is one."""
        ...

    @property
    def constraints(self) -> Constraints:
        """The bonds with a fixed length, which are no coordinates."""
        ...

    def to_cartesian(self, coordinates: FloatArray) -> FloatArray:
        """Coordinates, shape=(n, n_coordinates), to positions, shape=(n, n_atoms, 3), nm."""
        ...

    def to_internal(self, positions: FloatArray) -> FloatArray:
        """The inverse of `to_cartesian` up to rigid motion; torsions in (-pi, pi]."""
        ...

    def inside(self, coordinates: FloatArray) -> BoolArray:
        """shape=(n,), whether coordinates lie in the chart: r > 0 and 0 < theta < pi."""
        ...

    def log_jacobian(self, coordinates: FloatArray) -> FloatArray:
        """shape=(n,), log of Cartesian volume per volume of coordinates; -inf outside the chart."""
        ...

    def describe(self) -> dict[str, Any]:
        """A JSON-ready description from which `chart_from_description` rebuilds the chart."""
        ...


@dataclass(frozen=True, eq=False)
class InternalCoordinates:
    """Bonds (nm), angles and torsions (radians) of a Z-matrix, in this order, each in row order.

    The torsion of a row is the dihedral of its four atoms, IUPAC sign: the same read backwards. A constrained bond is
    no coordinate: it has its length.

    Args:
        z_matrix: shape=(n_atoms, 4), rows in build order: atom, bond, angle and torsion partner; -1 where the
            first three rows have none.
        torsion_folds: shape=(n_atoms - 3,), the rotational symmetry of each torsion.
        label_indices: shape=(d,), the coordinate that is slow coordinate i itself.
        fixed_lengths: shape=(n_atoms - 1,), nm, of constrained bonds; zero where a bond is free, as all by default.
    """

    z_matrix: IntArray
    torsion_folds: IntArray
    label_indices: IntArray
    fixed_lengths: FloatArray = field(default_factory=lambda: np.empty(0))
    kind: ClassVar[str] = "internal"

    def __post_init__(self) -> None:
        """Bring lists, as read from JSON, to arrays."""
        for name, shape in (("z_matrix", (-1, 4)), ("torsion_folds", (-1,)), ("label_indices", (-1,))):
            array = np.asarray(getattr(self, name), dtype=np.int64).reshape(shape)
            object.__setattr__(self, name, array)
        lengths = np.asarray(self.fixed_lengths, dtype=float)
        object.__setattr__(self, "fixed_lengths", lengths if len(lengths) else np.zeros(len(self.z_matrix) - 1))

    @classmethod
    def from_topology(
        cls,
        topology: Any,
        label_torsions: Sequence[Sequence[int]] | IntArray = (),
        positions: FloatArray | None = None,
        constraints: Constraints = UNCONSTRAINED,
    ) -> "InternalCoordinates":
        """The chart of one molecule, with every label torsion a coordinate that turns a whole branch.

        Args:
            topology: an ``openmm.app.Topology`` with bonds; rings are cut open.
            label_torsions: shape=(d, 4), 0-based atom indices.
            positions: shape=(n_atoms, 3), any one structure in nm, with which torsions about near-linear
                frames are avoided.
            constraints: of bonds alone, at most as many as make no ring.

        Raises:
            InputError: if the topology is not one bonded molecule, a label torsion cannot be a coordinate, or a
                constraint is no bond of the Z-matrix.
        """
        graph = bond_graph(topology)
        torsions = checked_torsions(graph, label_torsions)
        if positions is not None:
            positions = np.asarray(positions, dtype=float)
            if positions.shape != (len(graph), 3):
                raise InputError(f"positions have shape {positions.shape} for {len(graph)} atoms: give one structure")
        z_matrix = build_z_matrix(graph, torsions, positions)
        rows = {tuple(row): n for n, row in enumerate(z_matrix.tolist())}
        label_rows = [rows[torsion] if torsion in rows else rows[torsion[::-1]] for torsion in torsions]
        fixed_lengths = _fixed_lengths(z_matrix, constraints)
        first_torsion = int((fixed_lengths == 0).sum()) + len(z_matrix) - 2
        labels = np.array([first_torsion + row - 3 for row in label_rows], dtype=np.int64)
        return cls(z_matrix, rotor_folds(graph, z_matrix, torsions), labels, fixed_lengths)

    @property
    def n_atoms(self) -> int:
        """See `Chart.n_atoms`."""
        return len(self.z_matrix)

    @property
    def bonds(self) -> IntArray:
        """shape=(n_bonds, 2), atom and bond partner, of the bonds without a constraint."""
        return self.z_matrix[1:, :2][self._free]

    @property
    def constraints(self) -> Constraints:
        """See `Chart.constraints`; sorted as `openmm_gancl.system.constraints.constraints_of` does."""
        pairs, lengths = np.sort(self.z_matrix[1:, :2][~self._free], axis=1), self.fixed_lengths[~self._free]
        order = np.lexsort(pairs.T[::-1])
        return Constraints(pairs[order], lengths[order])

    @cached_property
    def _free(self) -> BoolArray:
        return np.asarray(self.fixed_lengths == 0)

    @property
    def angles(self) -> IntArray:
        """shape=(n_angles, 3), atom, bond partner (the vertex), angle partner."""
        return self.z_matrix[2:, :3]

    @property
    def torsions(self) -> IntArray:
        """shape=(n_torsions, 4), atom, bond, angle and torsion partner."""
        return self.z_matrix[3:]

    @property
    def n_bonds(self) -> int:
        """Number of bonds in the Z-matrix that are free: n_atoms - 1 without constraints."""
        return int(self._free.sum())

    @property
    def n_angles(self) -> int:
        """Number of angles in the Z-matrix, n_atoms - 2."""
        return len(self.angles)

    @property
    def n_torsions(self) -> int:
        """Number of torsions in the Z-matrix, n_atoms - 3."""
        return len(self.torsions)

    @property
    def n_coordinates(self) -> int:
        """See `Chart.n_coordinates`."""
        return self.n_bonds + self.n_angles + self.n_torsions

    @property
    def periodic(self) -> BoolArray:
        """See `Chart.periodic`."""
        return np.arange(self.n_coordinates) >= self.n_bonds + self.n_angles

    @property
    def folds(self) -> IntArray:
        """See `Chart.folds`."""
        return np.concatenate([np.ones(self.n_bonds + self.n_angles, dtype=np.int64), self.torsion_folds])

    def to_cartesian(self, coordinates: FloatArray) -> FloatArray:
        """See `Chart.to_cartesian`; first atom at the origin, second on +x, third in the xy plane."""
        free, angles, torsions = self._split(coordinates)
        bonds = np.repeat(self.fixed_lengths[None], len(coordinates), axis=0)
        bonds[:, self._free] = free
        positions = np.zeros((len(coordinates), self.n_atoms, 3))
        rows = self.z_matrix.tolist()
        positions[:, rows[1][0], 0] = bonds[:, 0]
        with np.errstate(all="ignore"):
            for n, (atom, b, a, d) in enumerate(rows[2:]):
                along = _unit(positions[:, b] - positions[:, a])
                if n == 0:
                    normal, phi = np.broadcast_to([0.0, 0.0, 1.0], along.shape), np.zeros(len(along))
                else:
                    normal = _unit(cross(positions[:, a] - positions[:, d], along))
                    phi = torsions[:, n - 1]
                r, theta = bonds[:, n + 1, None], angles[:, n, None]
                across = np.cos(phi)[:, None] * cross(normal, along) + np.sin(phi)[:, None] * normal
                positions[:, atom] = positions[:, b] + r * (np.sin(theta) * across - np.cos(theta) * along)
        return positions

    def to_internal(self, positions: FloatArray) -> FloatArray:
        """See `Chart.to_internal`."""
        positions = np.asarray(positions, dtype=float)
        with np.errstate(all="ignore"):
            to_atom = positions[:, self.z_matrix[1:, 0]] - positions[:, self.z_matrix[1:, 1]]
            bonds = np.linalg.norm(to_atom[:, self._free], axis=-1)
            u = to_atom[:, 1:]
            v = positions[:, self.angles[:, 2]] - positions[:, self.angles[:, 1]]
            # arccos would lose half of the digits near 0 and pi
            angles = np.arctan2(np.linalg.norm(cross(u, v), axis=-1), np.sum(u * v, axis=-1))
            torsions = dihedral_angles(positions, self.torsions)
        return np.concatenate([bonds, angles, np.where(torsions == -np.pi, np.pi, torsions)], axis=1)

    def inside(self, coordinates: FloatArray) -> BoolArray:
        """See `Chart.inside`; False where a coordinate is not finite."""
        bonds, angles, _ = self._split(coordinates)
        in_range = np.all(bonds > 0, axis=1) & np.all((angles > 0) & (angles < np.pi), axis=1)
        return np.asarray(in_range & np.all(np.isfinite(coordinates), axis=1))

    def log_jacobian(self, coordinates: FloatArray) -> FloatArray:
        """See `Chart.log_jacobian`: sum of 2 log r over all free bonds and of log sin theta over all angles.

        The volume of rigid motion, 8 pi^2 V, is left out; the first three atoms' bonds and angle are in.
        """
        bonds, angles, _ = self._split(coordinates)
        with np.errstate(all="ignore"):
            log_volume = 2 * np.log(bonds).sum(axis=1) + np.log(np.sin(angles)).sum(axis=1)
        return np.where(self.inside(coordinates), log_volume, -np.inf)

    def describe(self) -> dict[str, Any]:
        """See `Chart.describe`."""
        return {
            "kind": self.kind,
            "z_matrix": self.z_matrix.tolist(),
            "torsion_folds": self.torsion_folds.tolist(),
            "label_indices": self.label_indices.tolist(),
            **({} if self._free.all() else {"fixed_lengths": self.fixed_lengths.tolist()}),
        }

    def _split(self, coordinates: FloatArray) -> list[FloatArray]:
        """Bonds, angles and torsions, each of shape=(n, n_bonds or n_angles or n_torsions)."""
        found, n = np.asarray(coordinates, dtype=float), self.n_bonds + self.n_angles
        return [found[:, : self.n_bonds], found[:, self.n_bonds : n], found[:, n:]]


@dataclass(frozen=True, eq=False)
class CartesianCoordinates:
    """Flattened positions of particles in an external field, nm; some of them as angles.

    An angle ``2 atan((x - centre) / scale)`` spans the whole line as a torsion spans its circle, so that a circular
    density with a uniform share leaves out no mode: that share has the tails of a Cauchy density.

    Args:
        n_atoms: number of particles.
        label_components: shape=(d, 2), rows of particle index and axis (0, 1, 2) that are slow coordinates.
        turned: shape=(k,), the coordinates that are angles; none by default.
        centres: shape=(k,), nm, where such an angle is zero.
        scales: shape=(k,), nm, from there to where it is a quarter of a turn.
    """

    n_atoms: int
    label_components: IntArray
    turned: IntArray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    centres: FloatArray = field(default_factory=lambda: np.empty(0))
    scales: FloatArray = field(default_factory=lambda: np.empty(0))
    kind: ClassVar[str] = "cartesian"
    constraints: ClassVar[Constraints] = UNCONSTRAINED

    def __post_init__(self) -> None:
        """Check the components."""
        components = np.asarray(self.label_components, dtype=np.int64).reshape(-1, 2)
        if np.any(components < 0) or np.any(components >= [self.n_atoms, 3]):
            raise InputError(
                f"label components {components.tolist()} do not fit {self.n_atoms} particle(s): give "
                f"particles from 0 to {self.n_atoms - 1} and axes from 0 to 2"
            )
        object.__setattr__(self, "label_components", components)
        for name, kind in (("turned", np.int64), ("centres", float), ("scales", float)):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=kind).reshape(-1))

    @property
    def n_coordinates(self) -> int:
        """See `Chart.n_coordinates`."""
        return 3 * self.n_atoms

    @property
    def periodic(self) -> BoolArray:
        """See `Chart.periodic`."""
        return np.isin(np.arange(self.n_coordinates), self.turned)

    @property
    def folds(self) -> IntArray:
        """See `Chart.folds`."""
        return np.ones(self.n_coordinates, dtype=np.int64)

    @property
    def label_indices(self) -> IntArray:
        """See `Chart.label_indices`."""
        return self.label_components @ np.array([3, 1])

    def to_cartesian(self, coordinates: FloatArray) -> FloatArray:
        """See `Chart.to_cartesian`."""
        flat = np.array(coordinates, dtype=float).reshape(-1, self.n_coordinates)
        flat[:, self.turned] = self.centres + self.scales * np.tan(0.5 * flat[:, self.turned])
        return flat.reshape(-1, self.n_atoms, 3)

    def component(self, index: int, angle: float) -> float:
        """What a coordinate that is an angle stands for, nm."""
        (at,) = np.flatnonzero(self.turned == index)
        return float(self.centres[at] + self.scales[at] * np.tan(0.5 * angle))

    def to_internal(self, positions: FloatArray) -> FloatArray:
        """See `Chart.to_internal`; here the exact inverse."""
        flat = np.array(positions, dtype=float).reshape(-1, self.n_coordinates)
        flat[:, self.turned] = 2.0 * np.arctan((flat[:, self.turned] - self.centres) / self.scales)
        return flat

    def inside(self, coordinates: FloatArray) -> BoolArray:
        """See `Chart.inside`: everywhere."""
        return np.ones(len(coordinates), dtype=bool)

    def log_jacobian(self, coordinates: FloatArray) -> FloatArray:
        """See `Chart.log_jacobian`: zero but for angles."""
        angles = np.asarray(coordinates, dtype=float).reshape(-1, self.n_coordinates)[:, self.turned]
        with np.errstate(divide="ignore"):
            return np.asarray((np.log(0.5 * self.scales) - 2.0 * np.log(np.abs(np.cos(0.5 * angles)))).sum(axis=1))

    def describe(self) -> dict[str, Any]:
        """See `Chart.describe`."""
        return {
            "kind": self.kind,
            "n_atoms": self.n_atoms,
            "label_components": self.label_components.tolist(),
            **(
                {name: getattr(self, name).tolist() for name in ("turned", "centres", "scales")}
                if len(self.turned)
                else {}
            ),
        }


@checked
def chart_for(
    topology: Any,
    slow: SlowCoordinates,
    positions: FloatArray | None = None,
    constraints: Constraints = UNCONSTRAINED,
) -> Chart:
    """The chart in which the slow coordinates are coordinates themselves, or those that a module needs.

    Args:
        topology: an ``openmm.app.Topology``.
        slow: torsions, particle components, or coordinates of a molecule by a module.
        positions: shape=(n_atoms, 3), nm; see `InternalCoordinates.from_topology`.
        constraints: fixed bonds; see there.

    Raises:
        InputError: for other slow coordinates, and as `InternalCoordinates.from_topology` does.
    """
    if isinstance(slow, ParticleCoordinates):
        if len(constraints):
            raise InputError(
                f"the System has {len(constraints)} constraints, and its labels are components of particles: label "
                "torsions, or leave the constraints out"
            )
        return CartesianCoordinates(topology.getNumAtoms(), slow.components)
    if isinstance(slow, Torsions):
        return InternalCoordinates.from_topology(topology, slow.atoms, positions, constraints)
    if isinstance(slow, ModuleCoordinates):
        chart = InternalCoordinates.from_topology(topology, slow.chart_torsions, positions, constraints)
        return replace(chart, label_indices=np.empty(0, dtype=np.int64))
    raise InputError(
        f"slow coordinates of type {type(slow).__name__} are no coordinates of a chart: use torsions, particle "
        "components or ModuleCoordinates as labels of exact lifts"
    )


def chart_from_description(description: dict[str, Any]) -> Chart:
    """Rebuild a chart from `Chart.describe`."""
    fields = {key: value for key, value in description.items() if key != "kind"}
    kinds: dict[str, Any] = {"internal": InternalCoordinates, "cartesian": CartesianCoordinates}
    chart: Chart = kinds[description["kind"]](**fields)
    if isinstance(chart, InternalCoordinates):
        _check_rows(chart)
    return chart


def _check_rows(chart: InternalCoordinates) -> None:
    """Refuse a Z-matrix that builds an atom twice or from atoms that are not there yet, and numbers that fit no row."""
    n, built = chart.n_atoms, set[int]()
    remedy = "get the file again"
    for row, (atom, *partners) in enumerate(chart.z_matrix.tolist()):
        there = partners[: min(row, 3)]
        if not 0 <= atom < n or atom in built or not set(there) <= built or len(set(there)) < len(there):
            raise InputError(f"row {row} of the Z-matrix builds no atom: {remedy}")
        built.add(atom)
    shapes = len(chart.torsion_folds) == max(n - 3, 0) and len(chart.fixed_lengths) == n - 1
    if not shapes or (chart.torsion_folds < 1).any() or not (chart.fixed_lengths >= 0).all():
        raise InputError(f"folds or lengths do not fit the rows of the Z-matrix: {remedy}")
    if ((chart.label_indices < 0) | (chart.label_indices >= chart.n_coordinates)).any():
        raise InputError(f"labels {chart.label_indices.tolist()} are no coordinates of the Z-matrix: {remedy}")


def _fixed_lengths(z_matrix: IntArray, constraints: Constraints) -> FloatArray:
    """The length of each constrained bond of a Z-matrix, zero where it is free, shape=(n_atoms - 1,)."""
    rows = {tuple(sorted(pair)): n for n, pair in enumerate(z_matrix[1:, :2].tolist())}
    lengths = np.zeros(len(rows))
    for (a, b), length in zip(constraints.pairs.tolist(), constraints.lengths, strict=True):
        if (a, b) not in rows:
            raise InputError(
                f"atoms {a} and {b} are constrained, which is no bond that a lift draws (an angle, or a closed ring): "
                "constrain HBonds alone"
            )
        lengths[rows[a, b]] = length
    return lengths


def _unit(vectors: FloatArray) -> FloatArray:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))
