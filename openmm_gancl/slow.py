"""Slow coordinates: the labels that a lift is asked for, and the restriction that reads them back."""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from .errors import InputError
from .units import FloatArray, IntArray


@runtime_checkable
class SlowCoordinates(Protocol):
    """What every choice of slow coordinates offers."""

    kind: ClassVar[str]

    @property
    def names(self) -> tuple[str, ...]:
        """One name a coordinate."""
        ...

    @property
    def periods(self) -> FloatArray:
        """Period of each coordinate, shape=(d,), ``inf`` where it has none."""
        ...

    @property
    def domain(self) -> FloatArray:
        """Interval of interest of each coordinate, shape=(d, 2)."""
        ...

    def transform(self, positions: FloatArray) -> FloatArray:
        """The restriction: positions, shape=(n, n_atoms, 3) in nm, to labels, shape=(n, d)."""
        ...

    def describe(self) -> dict[str, Any]:
        """A JSON-ready description from which `slow_from_description` rebuilds the coordinates."""
        ...


def dihedral_angles(positions: FloatArray, quadruples: IntArray) -> FloatArray:
    """Torsion angles in radians, IUPAC sign.

    Args:
        positions: shape=(n, n_atoms, 3), nm.
        quadruples: shape=(m, 4), atom indices.

    Returns:
        shape=(n, m), in (-pi, pi].
    """
    p = positions[:, np.asarray(quadruples)]
    b1, b2, b3 = p[:, :, 1] - p[:, :, 0], p[:, :, 2] - p[:, :, 1], p[:, :, 3] - p[:, :, 2]
    n1, n2 = np.cross(b1, b2), np.cross(b2, b3)
    sine = np.linalg.norm(b2, axis=-1) * np.sum(b1 * n2, axis=-1)
    return np.arctan2(sine, np.sum(n1 * n2, axis=-1))


def checked_labels(labels: FloatArray, slow: SlowCoordinates) -> FloatArray:
    """Labels as a finite array of shape=(n, d) inside the domain, or an `InputError`."""
    labels = np.atleast_2d(np.asarray(labels, dtype=float))
    d = len(slow.names)
    if labels.ndim != 2 or labels.shape[1] != d:
        raise InputError(
            f"labels have shape {labels.shape}, but this system has {d} slow coordinate(s) "
            f"({', '.join(slow.names)}): give one row of {d} number(s) a lift"
        )
    if not np.all(np.isfinite(labels)):
        raise InputError("labels hold NaN or infinity: remove those rows")
    outside = (labels < slow.domain[:, 0] - 1e-9) | (labels > slow.domain[:, 1] + 1e-9)
    outside &= ~np.isfinite(slow.periods)
    if outside.any():
        row, column = np.argwhere(outside)[0]
        low, high = slow.domain[column]
        raise InputError(
            f"label {slow.names[column]} = {labels[row, column]:g} lies outside the domain "
            f"[{low:g}, {high:g}]: ask inside it, or widen the card's domain"
        )
    return labels


@dataclass(frozen=True)
class Torsions:
    """Torsion angles as slow coordinates.

    Args:
        names: one name a torsion.
        atoms: shape=(d, 4), 0-based atom indices.
    """

    names: tuple[str, ...]
    atoms: IntArray
    kind: ClassVar[str] = "torsions"
    periods: FloatArray = field(init=False)
    domain: FloatArray = field(init=False)

    def __post_init__(self) -> None:
        """Derive periods and domain."""
        atoms = np.asarray(self.atoms, dtype=np.int64).reshape(-1, 4)
        d = len(self.names)
        if len(atoms) != d or d == 0:
            raise InputError(f"{d} label names for {len(atoms)} torsions: give one name a torsion")
        object.__setattr__(self, "atoms", atoms)
        object.__setattr__(self, "periods", np.full(d, 2 * np.pi))
        object.__setattr__(self, "domain", np.tile([-np.pi, np.pi], (d, 1)))

    def transform(self, positions: FloatArray) -> FloatArray:
        """See `SlowCoordinates.transform`."""
        return dihedral_angles(positions, self.atoms)

    def describe(self) -> dict[str, Any]:
        """See `SlowCoordinates.describe`."""
        return {"kind": self.kind, "names": list(self.names), "atoms": self.atoms.tolist()}


@dataclass(frozen=True)
class ParticleCoordinates:
    """Cartesian components of particles in an external field as slow coordinates.

    Args:
        names: one name a coordinate.
        components: shape=(d, 2), rows of particle index and axis (0, 1, 2).
        domain: shape=(d, 2), nm.
    """

    names: tuple[str, ...]
    components: IntArray
    domain: FloatArray
    kind: ClassVar[str] = "particle"
    periods: FloatArray = field(init=False)

    def __post_init__(self) -> None:
        """Derive periods."""
        object.__setattr__(self, "components", np.asarray(self.components, dtype=np.int64).reshape(-1, 2))
        object.__setattr__(self, "domain", np.asarray(self.domain, dtype=float).reshape(-1, 2))
        object.__setattr__(self, "periods", np.full(len(self.names), np.inf))

    def transform(self, positions: FloatArray) -> FloatArray:
        """See `SlowCoordinates.transform`."""
        return positions[:, self.components[:, 0], self.components[:, 1]]

    def describe(self) -> dict[str, Any]:
        """See `SlowCoordinates.describe`."""
        return {
            "kind": self.kind,
            "names": list(self.names),
            "components": self.components.tolist(),
            "domain": self.domain.tolist(),
        }


def slow_from_description(description: dict[str, Any]) -> SlowCoordinates:
    """Rebuild slow coordinates from `SlowCoordinates.describe`."""
    fields = {key: value for key, value in description.items() if key != "kind"}
    fields["names"] = tuple(fields["names"])
    kinds = {"torsions": Torsions, "particle": ParticleCoordinates}
    return kinds[description["kind"]](**fields)
