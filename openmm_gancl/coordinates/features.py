"""Features of molecular frames from which slow coordinates are learned: distances, torsions, aligned positions.

Each is computed by mdtraj for trajectories, and by a torch module (`torch_modules`) inside a differentiable coordinate.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from ..errors import InputError
from ..units import FloatArray, IntArray
from .residues import BACKBONE, backbone_atoms
from .specification import given_atoms, selected_atoms

NEXT_TORSION = re.compile(rf"/(?=(?:{'|'.join(BACKBONE)})(?:[:/]|$)|\d+,)")
"""Between torsions that are named one after the other, not between a chain and its residue as in phi:B/52A."""

MAX_COORDINATE = 1e4
"""nm; a position beyond it, or a box longer than it, is broken."""


class FeatureSet(Protocol):
    """Some features of one kind."""

    kind: ClassVar[str]

    @property
    def names(self) -> tuple[str, ...]:
        """One a feature."""
        ...

    @property
    def atoms(self) -> IntArray:
        """All atoms that they depend on, shape=(k,)."""
        ...

    def compute(self, frames: Any) -> FloatArray:
        """From an mdtraj.Trajectory, shape=(n_frames, n_features)."""
        ...

    def describe(self) -> dict[str, Any]:
        """JSON-ready."""
        ...


@dataclass(frozen=True)
class Distances:
    """Distances between pairs of atoms, nm; minimum image in a periodic box.

    Args:
        pairs: shape=(m, 2).
    """

    pairs: IntArray
    kind: ClassVar[str] = "distances"

    @property
    def names(self) -> tuple[str, ...]:
        """One a feature."""
        return tuple(f"distance:{a},{b}" for a, b in self.pairs)

    @property
    def atoms(self) -> IntArray:
        """All atoms that they depend on."""
        return np.unique(self.pairs)

    def compute(self, frames: Any) -> FloatArray:
        """From an mdtraj.Trajectory, shape=(n_frames, m)."""
        import mdtraj

        return np.asarray(mdtraj.compute_distances(frames, self.pairs), dtype=float)

    def describe(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"kind": self.kind, "pairs": self.pairs.tolist()}


@dataclass(frozen=True)
class SineCosine:
    """Torsions as cosine and sine; minimum image in a periodic box.

    Args:
        quadruples: shape=(m, 4).
    """

    quadruples: IntArray
    kind: ClassVar[str] = "torsions"

    @property
    def names(self) -> tuple[str, ...]:
        """Cosines, then sines."""
        torsions = [",".join(map(str, row)) for row in self.quadruples]
        return tuple(f"{function} torsion:{torsion}" for function in ("cos", "sin") for torsion in torsions)

    @property
    def atoms(self) -> IntArray:
        """All atoms that they depend on."""
        return np.unique(self.quadruples)

    def compute(self, frames: Any) -> FloatArray:
        """From an mdtraj.Trajectory, shape=(n_frames, 2 m)."""
        import mdtraj

        angles = np.asarray(mdtraj.compute_dihedrals(frames, self.quadruples), dtype=float)
        return np.concatenate([np.cos(angles), np.sin(angles)], axis=1)

    def describe(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"kind": self.kind, "quadruples": self.quadruples.tolist()}


@dataclass(frozen=True)
class AlignedPositions:
    """Positions, nm, after the rotation and translation that bring them closest to a reference structure.

    Args:
        chosen: shape=(k,), atoms of a molecule that the box does not cut.
        reference: shape=(k, 3), nm; its centroid is moved to the origin.
    """

    chosen: IntArray
    reference: FloatArray
    kind: ClassVar[str] = "positions"

    def __post_init__(self) -> None:
        """Centre the reference."""
        reference = np.asarray(self.reference, dtype=float).reshape(-1, 3)
        if len(self.chosen) < 3 or len(reference) != len(self.chosen):
            raise InputError(f"{len(self.chosen)} atoms cannot be aligned: choose at least three")
        object.__setattr__(self, "reference", reference - reference.mean(axis=0))

    @property
    def names(self) -> tuple[str, ...]:
        """One a component."""
        return tuple(f"{axis} of atom {atom}" for atom in self.chosen for axis in "xyz")

    @property
    def atoms(self) -> IntArray:
        """All atoms that they depend on."""
        return self.chosen

    def compute(self, frames: Any) -> FloatArray:
        """From an mdtraj.Trajectory, shape=(n_frames, 3 k)."""
        import mdtraj

        reference = mdtraj.Trajectory(self.reference[None].astype(np.float32), frames.topology.subset(self.chosen))
        aligned = frames.atom_slice(self.chosen).superpose(reference)
        return np.asarray(aligned.xyz, dtype=float).reshape(len(aligned), -1)

    def describe(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"kind": self.kind, "chosen": self.chosen.tolist(), "reference": self.reference.tolist()}


@dataclass(frozen=True)
class Features:
    """Features of several kinds, each times its scale.

    Args:
        parts: one or more kinds.
        scales: one a part; 1 by default.
    """

    parts: tuple[FeatureSet, ...]
    scales: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Check the scales."""
        scales = tuple(map(float, self.scales)) or (1.0,) * len(self.parts)
        if not self.parts or len(scales) != len(self.parts) or not all(0.0 < scale < np.inf for scale in scales):
            raise InputError(f"{len(self.parts)} kinds of features with scales {scales}: give each a positive scale")
        object.__setattr__(self, "scales", scales)

    @property
    def names(self) -> tuple[str, ...]:
        """One a feature."""
        return tuple(name for part in self.parts for name in part.names)

    @property
    def atoms(self) -> IntArray:
        """All atoms that they depend on, shape=(k,)."""
        return np.unique(np.concatenate([part.atoms for part in self.parts]))

    def compute(self, frames: Any) -> FloatArray:
        """Features of an mdtraj.Trajectory, shape=(n_frames, n_features).

        Raises:
            InputError: an atom is missing, a coordinate is not a number, or the box is broken; names frame and atom.
        """
        atoms = self.atoms
        if atoms.max() >= frames.n_atoms:
            raise InputError(
                f"a feature needs atom {atoms.max()}, the topology has {frames.n_atoms}: give its own molecule"
            )
        bad = ~(np.abs(frames.xyz[:, atoms]) < MAX_COORDINATE).all(axis=2)
        if bad.any():
            frame, atom = np.argwhere(bad)[0]
            raise InputError(
                f"frame {frame}, atom {atoms[atom]}: a coordinate is NaN or infinite: cut the trajectory before it"
            )
        lengths = frames.unitcell_lengths
        if lengths is not None and not ((lengths > 0) & (lengths < MAX_COORDINATE)).all():
            frame = int((~((lengths > 0) & (lengths < MAX_COORDINATE)).all(axis=1)).argmax())
            raise InputError(
                f"frame {frame}: the box is {np.round(lengths[frame], 4).tolist()} nm, which is none, so atom "
                f"{atoms[0]} has no minimum image: mend the box, or remove it from the trajectory"
            )
        columns = [scale * part.compute(frames) for part, scale in zip(self.parts, self.scales, strict=True)]
        return np.concatenate(columns, axis=1)

    def describe(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"parts": [part.describe() for part in self.parts], "scales": list(self.scales)}


def heavy_atom_distances(topology: Any, selection: str = "not element H") -> Distances:
    """All distances among selected atoms; all heavy atoms by default.

    Args:
        topology: an mdtraj.Topology.
        selection: in mdtraj's language.
    """
    atoms = selected_atoms(selection, f"distances:{selection}", topology)
    if len(atoms) < 2:
        raise InputError(f"the selection {selection!r} matches one atom: choose at least two")
    first, second = np.triu_indices(len(atoms), k=1)
    return Distances(np.stack([atoms[first], atoms[second]], axis=1))


def _torsions(rest: str, spec: str, topology: Any) -> SineCosine:
    rows = []
    for name in re.split(NEXT_TORSION, rest):
        kind, _, which = name.partition(":")
        if kind in BACKBONE:
            rows.append(backbone_atoms(kind, which, spec, topology))
        else:
            rows.append(given_atoms("torsion", name, spec, topology.n_atoms))
    return SineCosine(np.array(rows))


def parse_features(specs: Sequence[str], topology: Any, reference: Any = None) -> Features:
    """Features of specifications.

    Args:
        specs: each ``distances[:SELECTION]``, ``torsions:phi:2/psi:2/4,6,8,14`` or ``positions:SELECTION``, and
            perhaps a scale in front, as in ``0.5*torsions:phi/psi``.
        topology: an mdtraj.Topology.
        reference: an mdtraj.Trajectory whose first frame positions are aligned with.

    Raises:
        InputError: one of them matches nothing, or is not understood.
    """
    parts: list[FeatureSet] = []
    scales = []
    for spec in specs:
        factor, star, rest = spec.partition("*")
        try:
            scales.append(float(factor) if star else 1.0)
        except ValueError:
            raise InputError(f"{spec}: {factor} is no scale: write a number before the *") from None
        kind, _, argument = (rest if star else spec).partition(":")
        if kind == "distances":
            parts.append(heavy_atom_distances(topology, argument or "not element H"))
        elif kind == "torsions":
            parts.append(_torsions(argument, spec, topology))
        elif kind == "positions" and reference is not None:
            chosen = selected_atoms(argument, spec, topology)
            parts.append(AlignedPositions(chosen, reference.xyz[0][chosen]))
        else:
            raise InputError(f"{spec} is no feature: give distances, torsions:... or positions:... (with a structure)")
    return Features(tuple(parts), tuple(scales))
