"""A generator with a density: coordinates of a chart drawn at labels, each with its log density, and back."""

import hashlib
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ..coordinates.module_tensors import check_numbers, fill, moved_to, part_of, whole_size
from ..coordinates.slow_coordinates import SlowCoordinates
from ..coordinates.torchscript import scripted
from ..engine.random_numbers import named_rng
from ..engine.threads import torch_threads
from ..reference.chart import Chart
from ..system.molecular_system import MolecularSystem
from ..units import BoolArray, FloatArray
from .circular import CircularDensity
from .coupling import CouplingNetwork, NoNetwork
from .fit_options import FitOptions, Roles
from .model_file import ModelParts, check_basis
from .row_inverse import RowInverse
from .score_fit import assembled, condition_of
from .trained_for import check_system_metadata, check_trained_for
from .triangular import Condition, CubicTerms, NarrowCoordinates, TriangularMap

ROWS_AT_ONCE = 1000
"""Whose numbers fit a core's cache."""

ROWS_ON_A_DEVICE = 50_000
"""Of a graphics card, whose memory their numbers fit."""

ROWS_BEFORE_SCRIPT = 50_000
"""Of a molecule's map: to compile it takes as long as that gains with so many."""

ROWS_OF_A_CALL = 25
"""What a call of fewer costs as much as."""

MAX_LAYERS, MAX_HIDDEN = 64, 4096
"""Of a network in a file, before it is made."""

MAX_MATRICES = 2**30
"""Numbers of the couplings or the cubic terms of narrow coordinates in a file, most of them zero."""

ROUND_TRIP = 1e-8
"""By which base numbers may differ after a draw and its inverse."""

N_CHECKED = 32
"""Draws by which a file is checked."""

_NARROW = ("mean", "log_width", "coupling", "varying", "variation", "origin", "scale")
_CUBIC = ("left", "right", "shifts", "widths", "skews")
"""Tensors of a file."""


class _Runner:
    """A map that is compiled once this pays, to the same bits."""

    def __init__(self, of_map: TriangularMap):
        self.map: Any = of_map.eval().requires_grad_(False)
        self._rows = 0

    @cached_property
    def scripted(self) -> Any:
        return scripted(self.map)

    def module(self, n_rows: int) -> Any:
        """The map or what was compiled of it, for so many rows more."""
        self._rows += max(n_rows, ROWS_OF_A_CALL)
        return self.scripted if self._rows > ROWS_BEFORE_SCRIPT else self.map


@dataclass(frozen=True, eq=False)
class InvertibleGenerator:
    """A conditional map from base numbers to coordinates, with numpy arrays in and out.

    Base numbers are uniform on [0, 1) for circular coordinates, which come first, and standard normal for the others.

    Attributes:
        map: the torch module.
        chart: whose coordinates it writes.
        slow: the labels.
        metadata: JSON-ready, of its training and of the system that it was trained for.
    """

    kind: ClassVar[str] = "invertible"
    map: TriangularMap
    chart: Chart
    slow: SlowCoordinates
    metadata: dict[str, Any] = field(default_factory=dict)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_runner", "_one_inverse")}

    @cached_property
    def _runner(self) -> _Runner:
        return _Runner(self.map)

    @cached_property
    def fingerprint(self) -> str:
        """Of the map's numbers: the same for the same model in any process."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.map.state_dict().items()):
            digest.update(name.encode() + tensor.numpy(force=True).tobytes())
        return digest.hexdigest()[:16]

    @property
    def device(self) -> torch.device:
        """That the map is on."""
        return self.map.label_indices.device

    def on(self, device: str) -> "InvertibleGenerator":
        """The same generator with its map on a torch device (``cuda:1``), where it takes batches whole.

        Arrays stay numpy.

        Args:
            device: as torch names it.

        Raises:
            InputError: torch cannot use it.
        """
        if self.device == torch.device(device):
            return self
        return replace(self, map=moved_to(self.map, device))

    @property
    def has_network(self) -> bool:
        """Whether a network is on top of the triangular map."""
        return self.map.narrow.has_network

    def without_network(self) -> "InvertibleGenerator":
        """The triangular map alone."""
        alone = deepcopy(self.map)
        alone.narrow.has_network, alone.narrow.network = False, NoNetwork()
        return replace(self, map=alone)

    def check_system(self, system: MolecularSystem) -> None:
        """Raise an `InputError` that says what does not fit."""
        check_trained_for(self.metadata, self.chart, self.slow, system)

    def sample_base(self, n: int, rng: np.random.Generator) -> FloatArray:
        """Base numbers, shape=(n, n_base)."""
        circular = self.map.n_circular
        return np.concatenate([rng.random((n, circular)), rng.standard_normal((n, self.map.narrow.n))], axis=1)

    def sample(self, labels: FloatArray, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        """One draw a label: coordinates, shape=(n, n_coordinates), and log q(y | s), shape=(n,)."""
        return self.transform(self.sample_base(len(labels), rng), labels)

    def transform(self, base: FloatArray, labels: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Base numbers, shape=(n, n_base), to coordinates and their log density."""
        coordinates, log_density = self._in_parts("forward", base, labels)
        return coordinates, log_density

    def typical_positions(self, labels: FloatArray) -> FloatArray:
        """What the middle of the base numbers draws at labels, shape=(n, n_atoms, 3), nm."""
        base = np.zeros((len(labels), self.map.n_circular + self.map.narrow.n))
        base[:, : self.map.n_circular] = 0.5
        return self.chart.to_cartesian(self.transform(base, labels)[0])

    def invert(self, coordinates: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Coordinates to base numbers, shape=(n, n_base), and log q(y | s), shape=(n,)."""
        base, log_density = self._in_parts("inverse", coordinates)
        return base, log_density

    def invert_one(self, coordinates: FloatArray) -> tuple[FloatArray, float]:
        """The same of one configuration, shape=(n_coordinates,), several times as fast."""
        return self._one_inverse(coordinates)

    @cached_property
    def _one_inverse(self) -> RowInverse:
        """The numpy inverse, compared with the torch module at draws.

        Raises:
            RuntimeError: the two differ.
        """
        rng, inverse = named_rng(0, "fixed", "one inverse"), RowInverse(self.map)
        low, high = self.slow.domain.T
        labels = rng.uniform(low, high, size=(8, len(low)))
        coordinates, _ = self.sample(labels, rng)
        base, log_density = self.invert(coordinates)
        for i in np.flatnonzero(np.isfinite(log_density)):
            found, again = inverse(coordinates[i])
            if not (
                np.abs(found - base[i]).max() < ROUND_TRIP and abs(again - log_density[i]) < ROUND_TRIP * base.size
            ):
                raise RuntimeError("the inverse for one configuration is not that of the map: a bug, report it")
        return inverse

    def log_density(self, coordinates: FloatArray) -> FloatArray:
        """log q(y | s) of coordinates, labels included, shape=(n,)."""
        return self.invert(coordinates)[1]

    def inside(self, coordinates: FloatArray) -> BoolArray:
        """Which draws are in the chart, with narrow torsions within half a turn of their origin, shape=(n,)."""
        near = self._runner.map.inside(torch.as_tensor(coordinates, device=self.device)).numpy(force=True)
        return np.asarray(near & self.chart.inside(coordinates))

    @torch_threads(1)
    def _in_parts(self, method: str, *arrays: FloatArray) -> list[FloatArray]:
        function, device = getattr(self._runner.module(len(arrays[0])), method), self.device
        n_rows = ROWS_AT_ONCE if device.type == "cpu" else ROWS_ON_A_DEVICE
        with torch.inference_mode():
            parts = [
                function(*(torch.as_tensor(array[i : i + n_rows], device=device) for array in arrays))
                for i in range(0, max(len(arrays[0]), 1), n_rows)
            ]
        return [torch.cat(column).numpy(force=True) for column in zip(*parts, strict=True)]

    def save(self, path: str | Path) -> None:
        """Write ``model.safetensors``: tensors and JSON, the same bytes for the same generator."""
        self.on("cpu")._parts().write(path)

    def export(self, path: str | Path) -> None:
        """Write TorchScript for OpenMM (``model.pt``), which `openmm_gancl.load_model` does not read.

        Forward takes base numbers and labels to coordinates and their log density; ``inverse`` takes coordinates back.
        """
        here = self.on("cpu")
        here._parts().export(here._runner.scripted, path)

    def _parts(self) -> ModelParts:
        narrow, order = self.map.narrow, self.map.narrow.condition.order
        network = narrow.network if isinstance(narrow.network, CouplingNetwork) else None
        sizes = {
            "wide": self.map.circular_indices[: self.map.n_wide].tolist(),
            "order": order,
            "circular": [[one.fold, one.uniform_share] for one in self.map.circular],
            "network": None if network is None else network.size,
        }
        tensors = {f"narrow.{name}": getattr(narrow, name) for name in _NARROW}
        tensors |= {f"cubic.{name}": getattr(narrow.cubic, name) for name in _CUBIC}
        for i, one in enumerate(self.map.circular):
            tensors |= {f"circular.{i}.functions": one.functions, f"circular.{i}.coefficients": one.coefficients}
        if network is not None:
            tensors |= {f"network.{name}": part for name, part in network.layers.state_dict().items()}
        return ModelParts(self.kind, self.chart, self.slow, sizes, tensors, self.metadata)

    @classmethod
    def from_parts(cls, parts: ModelParts) -> "InvertibleGenerator":
        """The generator that a file describes, checked.

        Raises:
            ValueError, KeyError, TypeError, IndexError or RuntimeError: it describes none.
        """
        sizes, tensors, chart = parts.sizes, parts.tensors, parts.chart
        if parts.metadata:
            check_system_metadata(parts.metadata, chart.n_atoms)
        roles, options = _roles(chart, sizes["wide"]), FitOptions()
        n_axes = len(roles.labels) + len(roles.wide)
        order = check_basis(n_axes, sizes["order"])
        check_basis(n_axes, max(order, options.circular_order))
        condition = condition_of(parts.slow, roles, chart.folds, order, options)
        narrow = _narrow(condition, len(roles.narrow), part_of(tensors, "narrow."), part_of(tensors, "cubic."))
        circular = []
        for i, (index, (fold, share)) in enumerate(zip(roles.circular, sizes["circular"], strict=True)):
            functions = tensors[f"circular.{i}.functions"]
            usable = (functions >= 0) & (functions < condition.basis.size)
            if int(fold) != chart.folds[index] or not 0 < share <= 1 or not usable.all():
                raise ValueError(f"circular density {i} has another fold, share or features")
            circular.append(CircularDensity(functions, tensors[f"circular.{i}.coefficients"], int(fold), float(share)))
        if sizes["network"] is not None:
            narrow.set_network(_network(condition, narrow.n, sizes["network"], part_of(tensors, "network.")))
        generator = cls(assembled(chart, roles, circular, narrow), chart, parts.slow, parts.metadata)
        _check_inverse(generator)
        return generator


def _roles(chart: Chart, wide: list[Any]) -> Roles:
    indices = [whole_size(index, "wide torsion", 0, chart.n_coordinates - 1) for index in wide]
    others = set(np.flatnonzero(chart.periodic).tolist()) - set(chart.label_indices.tolist())
    if len(set(indices)) < len(indices) or not others.issuperset(indices):
        raise ValueError(f"wide torsions {indices} that are none")
    return Roles.of(chart, np.array(indices, dtype=np.int64))


def _narrow(
    condition: Condition, k: int, parts: Mapping[str, Tensor], of_cubic: Mapping[str, Tensor]
) -> NarrowCoordinates:
    n_features = len(condition.orders)
    if len(parts["origin"]) != k:
        raise ValueError(f"{len(parts['origin'])} narrow coordinates for {k}")
    if max(n_features, k) * k**2 > MAX_MATRICES:
        raise ValueError(f"{k} narrow coordinates are too many")
    if not (parts["scale"] > 0).all():
        raise ValueError("a scale is not positive")
    coupling = torch.zeros(n_features, k * k, dtype=torch.float64)
    coupling[0] = torch.eye(k, dtype=torch.float64).reshape(-1) - parts["coupling"]
    coupling[1:, parts["varying"]] = -parts["variation"]
    coupling = coupling.reshape(n_features, k, k)
    left, right, shifts, widths, skews = (of_cubic[name] for name in _CUBIC)
    cubic = torch.zeros(k, k, k, dtype=torch.float64)
    cubic[:, left, right] = shifts.T
    sources = (cubic != 0).any(dim=1) | (cubic != 0).any(dim=2) | (widths.T != 0) | (coupling != 0).any(dim=0)
    if torch.triu(sources).any():
        raise ValueError("a coordinate depends on later ones")
    return NarrowCoordinates(
        condition,
        mean=parts["mean"],
        log_width=parts["log_width"],
        coupling=coupling,
        cubic=CubicTerms(cubic, widths.T.contiguous(), skews),
        origin=parts["origin"],
        scale=parts["scale"],
    )


def _network(condition: Condition, k: int, size: list[Any], tensors: Mapping[str, Tensor]) -> CouplingNetwork:
    n_layers, hidden = size
    n_layers = whole_size(n_layers, "layers", 1, MAX_LAYERS)
    hidden = whole_size(hidden, "hidden neurons", 1, MAX_HIDDEN)
    check_numbers(n_layers * hidden * (hidden + k), tensors)
    network = CouplingNetwork(k, condition.n_network_features, n_layers, hidden)
    fill(network.layers, tensors)
    return network.requires_grad_(False)


def _check_inverse(generator: "InvertibleGenerator") -> None:
    """Draw, and find the base numbers again, where no narrow torsion went too far to be found."""
    rng = named_rng(0, "fixed", "generator check")
    low, high = generator.slow.domain.T
    labels = rng.uniform(low, high, (N_CHECKED, len(low)))
    base = generator.sample_base(N_CHECKED, rng)
    coordinates, log_density = generator.transform(base, labels)
    inside = generator.inside(coordinates)
    if not inside.any():  # whatever it draws has no weight
        return
    found, again = generator.invert(coordinates[inside])
    base, log_density = base[inside], log_density[inside]
    if not (np.abs(found - base).max() < ROUND_TRIP and np.abs(again - log_density).max() < ROUND_TRIP * base.size):
        raise ValueError("a draw's inverse is another draw")
