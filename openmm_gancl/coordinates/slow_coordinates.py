"""Slow coordinates: the labels that a lift is drawn at, and the restriction that maps positions to labels."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from ..errors import InputError, last_line
from ..units import BoolArray, FloatArray, IntArray, check_radians, numbers
from .geometry import dihedral_angles


class Axes(Protocol):
    """What a surface needs to know of its coordinates."""

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

    @property
    def units(self) -> tuple[str, ...]:
        """Unit of each coordinate; empty where it has none."""
        ...


@runtime_checkable
class SlowCoordinates(Axes, Protocol):
    """What every choice of slow coordinates offers."""

    kind: ClassVar[str]

    def transform(self, positions: FloatArray) -> FloatArray:
        """The restriction: positions, shape=(n, n_atoms, 3) in nm, to labels, shape=(n, d)."""
        ...

    def describe(self) -> dict[str, Any]:
        """A JSON-ready description from which `slow_from_description` rebuilds the coordinates."""
        ...


@dataclass(frozen=True, eq=False)
class FirstAxes:
    """The first few of some axes.

    Args:
        names: one name a coordinate.
        periods: shape=(d,), ``inf`` where there is none.
        domain: shape=(d, 2).
        units: one a coordinate, empty where it has none.
    """

    names: tuple[str, ...]
    periods: FloatArray
    domain: FloatArray
    units: tuple[str, ...]

    @classmethod
    def of(cls, axes: Axes, most: int) -> "FirstAxes":
        """At most so many."""
        return cls(axes.names[:most], axes.periods[:most], axes.domain[:most], axes.units[:most])


def in_domain(labels: FloatArray, slow: SlowCoordinates) -> BoolArray:
    """Which labels of shape=(n, d) are in the domain, shape=(n,); a periodic one is everywhere."""
    low, high = slow.domain.T
    return np.asarray((((labels >= low) & (labels <= high)) | np.isfinite(slow.periods)).all(axis=1))


def checked_labels(labels: FloatArray, slow: SlowCoordinates) -> FloatArray:
    """Labels in radians or nm as a finite array of shape=(n, d) inside the domain, or an `InputError`.

    The domain of learned labels is that of most frames, not a border.
    """
    labels = np.atleast_2d(numbers(labels))
    d = len(slow.names)
    if labels.ndim != 2 or labels.shape[1] != d:
        raise InputError(
            f"labels have shape {labels.shape}, but this system has {d} slow coordinate(s) "
            f"({', '.join(slow.names)}): give one row of {d} number(s) a lift"
        )
    if not len(labels):
        raise InputError("there are no labels: give one row at least")
    if not np.all(np.isfinite(labels)):
        raise InputError("labels hold NaN or infinity: remove those rows")
    check_radians(labels, slow.periods, "label")
    outside = (labels < slow.domain[:, 0] - 1e-9) | (labels > slow.domain[:, 1] + 1e-9)
    outside &= ~np.isfinite(slow.periods) & (not isinstance(slow, ModuleCoordinates))
    if outside.any():
        row, column = np.argwhere(outside)[0]
        low, high = slow.domain[column]
        raise InputError(
            f"label {slow.names[column]} = {labels[row, column]:g} lies outside the domain "
            f"[{low:g}, {high:g}]: give a label inside it, or widen the card's domain"
        )
    return labels


def checked_constants(constants: Any, slow: SlowCoordinates) -> FloatArray:
    """Restraint constants as an array of shape=(d,), from one number or d of them, zero or more.

    Raises:
        InputError: others.
    """
    d = len(slow.names)
    try:
        found = np.broadcast_to(numbers(constants), (d,)).copy()
    except ValueError:
        found = np.full(d, np.nan)
    if not (np.isfinite(found) & (found >= 0)).all():
        raise InputError(
            f"`force_constants` {constants}: give one number, or {d}, from zero up, one a label "
            f"({', '.join(slow.names)})"
        )
    return found


def _shaped(name: str, values: Any, kind: type, shape: tuple[int, ...]) -> Any:
    """Values of a coordinate as an array of a kind and a shape, of which -1 is any number of rows.

    Raises:
        InputError: they are none.
    """
    try:
        return np.asarray(values, dtype=kind).reshape(shape)
    except (TypeError, ValueError):
        of_rows = ", ".join("n" if size < 0 else str(size) for size in shape)
        raise InputError(f"`{name}` is {values!r}: give numbers of shape ({of_rows})") from None


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
        atoms = _shaped("atoms", self.atoms, np.int64, (-1, 4))
        d = len(self.names)
        if len(atoms) != d or d == 0:
            raise InputError(f"{d} label names for {len(atoms)} torsions: give one name a torsion")
        object.__setattr__(self, "atoms", atoms)
        object.__setattr__(self, "periods", np.full(d, 2 * np.pi))
        object.__setattr__(self, "domain", np.tile([-np.pi, np.pi], (d, 1)))

    @property
    def units(self) -> tuple[str, ...]:
        """See `SlowCoordinates.units`."""
        return ("radians",) * len(self.names)

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
        object.__setattr__(self, "components", _shaped("components", self.components, np.int64, (-1, 2)))
        object.__setattr__(self, "domain", _shaped("domain", self.domain, float, (-1, 2)))
        object.__setattr__(self, "periods", np.full(len(self.names), np.inf))

    @property
    def units(self) -> tuple[str, ...]:
        """See `SlowCoordinates.units`."""
        return ("nm",) * len(self.names)

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


FRAMES_AT_ONCE = 2000
"""Through a torch module."""


@dataclass(frozen=True, eq=False)
class ModuleCoordinates:
    """Any differentiable torch module as slow coordinates: learned ones, alone or together with torsions.

    Args:
        names: one name a coordinate.
        periods: shape=(d,), 2 pi or ``inf``.
        domain: shape=(d, 2), that most labels lie in.
        archive: a TorchScript archive; its forward takes positions, shape=(n, n_atoms, 3) or (n_atoms, 3) in nm,
            to coordinates, shape=(n, d) or (d,), in double precision.
        chart_torsions: shape=(t, 4), 0-based atoms of torsions that the chart of a lift has as coordinates: what the
            molecule turns about, and not by symmetry alone.
        structure: what a file names the module by (`openmm_gancl.coordinates.label_modules`); None for a module of your
            own, which is code, and so in no file of this program.
    """

    names: tuple[str, ...]
    periods: FloatArray
    domain: FloatArray
    archive: bytes = field(repr=False)
    chart_torsions: IntArray = field(default_factory=lambda: np.empty((0, 4), dtype=np.int64))
    structure: dict[str, Any] | None = None
    kind: ClassVar[str] = "module"

    def __post_init__(self) -> None:
        """Check the shapes."""
        d = len(self.names)
        for name, shape in (("periods", (d,)), ("domain", (d, 2))):
            object.__setattr__(self, name, _shaped(name, getattr(self, name), float, shape))
        object.__setattr__(self, "chart_torsions", _shaped("chart_torsions", self.chart_torsions, np.int64, (-1, 4)))
        periodic = np.isfinite(self.periods)
        if not np.allclose(self.periods[periodic], 2 * np.pi):
            raise InputError(f"periods {self.periods.tolist()}: a coordinate has the period 2 pi, or none (inf)")

    @classmethod
    def from_module(
        cls, module: Any, *, names: tuple[str, ...], periods: Any, domain: Any, chart_torsions: Any = ()
    ) -> "ModuleCoordinates":
        """Coordinates by an ``nn.Module``, which is scripted, or a scripted one; see the class."""
        from .label_modules import structure_of
        from .torchscript import archived, scripted

        archive = archived(scripted(module))
        return cls(names, periods, domain, archive, chart_torsions, structure_of(module))

    @property
    def units(self) -> tuple[str, ...]:
        """See `SlowCoordinates.units`."""
        return tuple("radians" if np.isfinite(period) else "" for period in self.periods)

    @property
    def module(self) -> Any:
        """The scripted module."""
        return _loaded_module(self.archive)

    def transform(self, positions: FloatArray) -> FloatArray:
        """See `SlowCoordinates.transform`."""
        import torch

        starts = range(0, len(positions), FRAMES_AT_ONCE)
        with torch.no_grad():
            parts = [self.module(torch.as_tensor(positions[i : i + FRAMES_AT_ONCE])).numpy() for i in starts]
        return np.concatenate(parts) if parts else np.empty((0, len(self.names)))

    def check(self, positions: FloatArray) -> None:
        """Refuse a module that cannot be a label of configurations like this one, shape=(n_atoms, 3), nm.

        Raises:
            InputError: what is wrong, in one sentence.
        """
        import torch

        d, remedy = len(self.names), "correct its forward, or give the structure that it was made for"
        one = torch.tensor(np.asarray(positions), dtype=torch.float64, requires_grad=True)
        try:
            with torch.enable_grad():
                found = [self.module(one), self.module(one.unsqueeze(0))]
        except Exception as error:  # torch.jit.Error is no RuntimeError
            message = f"fails at {len(positions)} atoms ({last_line(error)})"
            raise InputError(f"the labels' module {message}: {remedy}") from None
        for value, shape in zip(found, [(d,), (1, d)], strict=True):
            if not isinstance(value, torch.Tensor):
                raise InputError(f"the labels' module returns a {type(value).__name__}, not a tensor: {remedy}")
            if tuple(value.shape) != shape or value.dtype != torch.float64:
                raise InputError(
                    f"the labels' module returns {str(value.dtype).removeprefix('torch.')} of shape "
                    f"{tuple(value.shape)}, not float64 of shape {shape}: {remedy}"
                )
        if not found[0].requires_grad:
            raise InputError(f"the labels' module has no gradient, so that nothing can restrain its labels: {remedy}")
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(found[0].sum(), one)
        if not (torch.isfinite(found[0]).all() and torch.isfinite(gradient).all()):
            raise InputError(f"the labels' module or its gradient is not finite at the structure: {remedy}")

    def tensors(self) -> dict[str, Any]:
        """The module's numbers, which with `describe` are all of it.

        Raises:
            InputError: it is a module of your own.
        """
        if self.structure is None:
            raise InputError(
                f"the labels {', '.join(self.names)} are a module of your own, whose code no file of gancl holds: "
                "keep the module with torch.jit.save, and train the model in the script that uses it"
            )
        return dict(self.module.state_dict())

    def _fingerprint(self) -> str:
        if self.structure is None:
            return hashlib.sha256(self.archive).hexdigest()[:16]
        digest = hashlib.sha256(json.dumps(self.structure, sort_keys=True).encode())
        for name, tensor in sorted(self.tensors().items()):
            digest.update(name.encode() + tensor.numpy().tobytes())
        return digest.hexdigest()[:16]

    def describe(self) -> dict[str, Any]:
        """See `SlowCoordinates.describe`; the module's numbers are `tensors`."""
        return {
            "kind": self.kind,
            "names": list(self.names),
            "periods": [period if np.isfinite(period) else None for period in self.periods],
            "domain": self.domain.tolist(),
            "chart_torsions": self.chart_torsions.tolist(),
            "structure": self.structure,
            "fingerprint": self._fingerprint(),
        }


@lru_cache(maxsize=8)
def _loaded_module(archive: bytes) -> Any:
    from .torchscript import loaded

    return loaded(archive)


def slow_as_module(slow: SlowCoordinates) -> ModuleCoordinates:
    """The same coordinates by a torch module."""
    from .torch_modules import ComponentsModule, TorsionsModule

    if isinstance(slow, ModuleCoordinates):
        return slow
    assert isinstance(slow, Torsions | ParticleCoordinates)
    module = TorsionsModule(slow.atoms) if isinstance(slow, Torsions) else ComponentsModule(slow.components)
    return ModuleCoordinates.from_module(module, names=slow.names, periods=slow.periods, domain=slow.domain)


def _module_from_description(fields: Mapping[str, Any], tensors: Mapping[str, Any]) -> ModuleCoordinates:
    from .label_modules import rebuilt_module

    if fields["structure"] is None:
        raise ValueError("the labels are a module that this program cannot rebuild")
    return ModuleCoordinates.from_module(
        rebuilt_module(fields["structure"], tensors),
        names=tuple(fields["names"]),
        periods=[np.inf if period is None else period for period in fields["periods"]],
        domain=fields["domain"],
        chart_torsions=fields["chart_torsions"],
    )


def slow_from_description(description: Mapping[str, Any], tensors: Mapping[str, Any] | None = None) -> SlowCoordinates:
    """Rebuild slow coordinates from `SlowCoordinates.describe`; no code is read.

    Args:
        description: JSON.
        tensors: of a module's state; see `ModuleCoordinates.tensors`.
    """
    if description["kind"] == ModuleCoordinates.kind:
        return _module_from_description(description, tensors or {})
    fields = {key: value for key, value in description.items() if key != "kind"}
    fields["names"] = tuple(fields["names"])
    kinds: dict[str, Any] = {"torsions": Torsions, "particle": ParticleCoordinates}
    slow: SlowCoordinates = kinds[description["kind"]](**fields)
    return slow
