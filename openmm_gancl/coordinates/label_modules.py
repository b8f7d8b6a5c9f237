"""The modules that labels are made of, and how a file names them: kind and sizes as JSON, their numbers as tensors.

A file holds no code: the program rebuilds its own modules, and nobody else's.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .features import AlignedPositions, Distances, Features, SineCosine
from .module_tensors import check_numbers, fill, part_of, whole_size
from .torch_modules import (
    AlignedPositionsModule,
    ComponentsModule,
    DistancesModule,
    FeaturesModule,
    SineCosineModule,
    TorsionsModule,
)

MAX_FEATURES, MAX_LANDMARKS, MAX_LABELS = 100_000, 1_000_000, 64
"""Of a module in a file."""

MAX_HIDDEN, MAX_LAYERS = 4096, 16
"""Of a network in a file."""


class Linear(nn.Linear):
    """A linear layer whose TorchScript is the same text in every process.

    torch writes the constants of a module in the order of a set of their names, which changes with Python's hash seed.
    Without constants both sizes are ordinary attributes, in the order in which they are set.
    """

    __constants__ = []  # noqa: RUF012  # as torch declares it


class NystroemModule(nn.Module):
    """Coordinates of features: a kernel to all landmarks, normalised, times the landmarks' own coordinates.

    Far from every landmark, where the kernel underflows, the nearest landmark decides. Of |x - y|^2 / (4 eps) the part
    |x|^2 is the same for all landmarks y and drops out.

    Args:
        origin: shape=(n_features,), that features are counted from.
        landmarks: shape=(n_features, m), counted from there and divided by 2 eps.
        offsets: shape=(m,), log weights less |y|^2 / (4 eps).
        values: shape=(m, n_coordinates).
    """

    landmarks: Tensor
    offsets: Tensor
    values: Tensor
    origin: Tensor

    def __init__(self, origin: Tensor, landmarks: Tensor, offsets: Tensor, values: Tensor):
        super().__init__()
        self.register_buffer("origin", origin)
        self.register_buffer("landmarks", landmarks)
        self.register_buffer("offsets", offsets)
        self.register_buffer("values", values)

    def forward(self, features: Tensor) -> Tensor:
        """Features of shape=(n_features,) or (n, n_features) to coordinates, shape=(n_coordinates,) or (n, ...)."""
        return torch.softmax(self.offsets + (features - self.origin) @ self.landmarks, dim=-1) @ self.values


class DistilledNetwork(nn.Module):
    """Features to coordinates by a perceptron, in double precision; tanh, so that forces are smooth.

    Features are centred, and divided by one scale for all, as the map's kernel treats them: a scale for each would
    let stiff bonds, which hardly move, have large gradients.

    Args:
        sizes: features, hidden layers, coordinates.
        generator: of the first weights; None where those of a file are to be filled in.
    """

    centre: Tensor
    scale: Tensor
    mean: Tensor
    spread: Tensor

    def __init__(self, sizes: tuple[int, ...], generator: torch.Generator | None = None):
        super().__init__()
        self.register_buffer("centre", torch.zeros(sizes[0], dtype=torch.float64))
        self.register_buffer("scale", torch.ones((), dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(sizes[-1], dtype=torch.float64))
        self.register_buffer("spread", torch.ones(sizes[-1], dtype=torch.float64))
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise(sizes):
            # made without numbers, or torch would draw them from its global generator
            linear = nn.utils.skip_init(Linear, fan_in, fan_out, dtype=torch.float64)
            if generator is not None:
                nn.init.normal_(linear.weight, std=fan_in**-0.5, generator=generator)
                nn.init.zeros_(linear.bias)
            layers += [linear, nn.Tanh()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, features: Tensor) -> Tensor:
        """Features of shape=(n_features,) or (n, n_features) to coordinates, shape=(n_coordinates,) or (n, ...)."""
        standard: Tensor = self.layers((features - self.centre) / self.scale)
        return standard * self.spread + self.mean


class LearnedCoordinates(nn.Module):
    """Positions, nm, to learned slow coordinates; forward is features, then coordinates.

    Args:
        features: of the positions.
        coordinates: a module from features to coordinates.
    """

    def __init__(self, features: FeaturesModule, coordinates: nn.Module):
        super().__init__()
        self.features = features
        self.coordinates = coordinates

    def forward(self, positions: Tensor, box: Tensor | None = None) -> Tensor:
        """Positions of shape=(n_atoms, 3) or (n, n_atoms, 3) to shape=(n_coordinates,) or (n, n_coordinates)."""
        coordinates: Tensor = self.coordinates(self.features(positions, box))
        return coordinates


class WithTorsions(nn.Module):
    """Torsions, radians, followed by learned coordinates.

    Args:
        torsions: module of their sines and cosines, cosines first.
        learned: module from positions to learned coordinates.
    """

    def __init__(self, torsions: FeaturesModule, learned: nn.Module):
        super().__init__()
        self.torsions = torsions
        self.learned = learned

    def forward(self, positions: Tensor, box: Tensor | None = None) -> Tensor:
        """Positions of shape=(n_atoms, 3) or (n, n_atoms, 3) to torsions and coordinates, (d,) or (n, d)."""
        cosine, sine = self.torsions(positions, box).chunk(2, dim=-1)
        return torch.cat([torch.atan2(sine, cosine), self.learned(positions, box)], dim=-1)


Structure = dict[str, Any]
"""Kind and sizes of a module, JSON-ready."""

_FEATURE_PARTS: dict[str, tuple[type[nn.Module], str, Callable[[int], Any]]] = {
    Distances.kind: (DistancesModule, "pairs", lambda n: Distances(np.zeros((n, 2), dtype=np.int64))),
    SineCosine.kind: (SineCosineModule, "quadruples", lambda n: SineCosine(np.zeros((n, 4), dtype=np.int64))),
    AlignedPositions.kind: (
        AlignedPositionsModule,
        "chosen",
        lambda n: AlignedPositions(np.zeros(n, dtype=np.int64), np.zeros((n, 3))),
    ),
}
"""The module of each kind of features, its buffer with a row a feature, and features of a number of rows."""


def _sizes_of_features(module: FeaturesModule) -> Structure:
    names = {made: (name, rows) for name, (made, rows, _) in _FEATURE_PARTS.items()}
    return {"parts": [[names[type(part)][0], len(getattr(part, names[type(part)][1]))] for part in module.parts]}


def _features_of(sizes: Structure, tensors: Mapping[str, Tensor]) -> FeaturesModule:
    rows = [(_FEATURE_PARTS[name][2], whole_size(n, name, 1, MAX_FEATURES)) for name, n in sizes["parts"]]
    check_numbers(sum(n for _, n in rows), tensors)
    return FeaturesModule(Features(tuple(make(n) for make, n in rows))).double()


def _nystroem_of(sizes: Structure, tensors: Mapping[str, Tensor]) -> NystroemModule:
    k = whole_size(sizes["features"], "features", 1, MAX_FEATURES)
    m = whole_size(sizes["landmarks"], "landmarks", 1, MAX_LANDMARKS)
    d = whole_size(sizes["coordinates"], "coordinates", 1, MAX_LABELS)
    check_numbers(m * (k + d), tensors)
    return NystroemModule(*(torch.zeros(shape, dtype=torch.float64) for shape in ((k,), (k, m), (m,), (m, d))))


def _distilled_of(sizes: Structure, tensors: Mapping[str, Tensor]) -> DistilledNetwork:
    features, *hidden, coordinates = sizes["layers"]
    whole_size(len(hidden), "hidden layers", 1, MAX_LAYERS)
    layers = (
        whole_size(features, "features", 1, MAX_FEATURES),
        *(whole_size(n, "neurons", 1, MAX_HIDDEN) for n in hidden),
        whole_size(coordinates, "coordinates", 1, MAX_LABELS),
    )
    check_numbers(sum(a * b for a, b in pairwise(layers)), tensors)
    return DistilledNetwork(layers)


def _learned_of(sizes: Structure, tensors: Mapping[str, Tensor]) -> LearnedCoordinates:
    features = _built(sizes["features"], part_of(tensors, "features."), ("features",))
    coordinates = _built(sizes["coordinates"], part_of(tensors, "coordinates."), ("nystroem", "distilled"))
    assert isinstance(features, FeaturesModule)
    return LearnedCoordinates(features, coordinates)


def _with_torsions_of(sizes: Structure, tensors: Mapping[str, Tensor]) -> WithTorsions:
    torsions = _built(sizes["torsions"], part_of(tensors, "torsions."), ("features",))
    assert isinstance(torsions, FeaturesModule)
    return WithTorsions(torsions, _built(sizes["learned"], part_of(tensors, "learned."), ("learned",)))


def _rows(sizes: Structure) -> int:
    return whole_size(sizes["labels"], "labels", 1, MAX_LABELS)


@dataclass(frozen=True)
class _Kind:
    """How a kind of module is named in a file, and made from that.

    Attributes:
        module: the class itself, none derived from it.
        sizes: of such a module.
        build: from sizes and a file's tensors a module whose numbers are still to be filled in.
    """

    module: type[nn.Module]
    sizes: Callable[[Any], Structure]
    build: Callable[[Structure, Mapping[str, Tensor]], nn.Module]


_KINDS = {
    "torsions": _Kind(
        TorsionsModule,
        lambda module: {"labels": len(module.atoms)},
        lambda sizes, _: TorsionsModule(np.zeros((_rows(sizes), 4), dtype=np.int64)),
    ),
    "components": _Kind(
        ComponentsModule,
        lambda module: {"labels": len(module.flat)},
        lambda sizes, _: ComponentsModule(np.zeros((_rows(sizes), 2), dtype=np.int64)),
    ),
    "features": _Kind(FeaturesModule, _sizes_of_features, _features_of),
    "nystroem": _Kind(
        NystroemModule,
        lambda module: {
            "features": len(module.origin),
            "landmarks": len(module.offsets),
            "coordinates": module.values.shape[1],
        },
        _nystroem_of,
    ),
    "distilled": _Kind(
        DistilledNetwork,
        lambda module: {"layers": [len(module.centre), *(len(part.bias) for part in module.layers[::2])]},
        _distilled_of,
    ),
    "learned": _Kind(
        LearnedCoordinates,
        lambda module: {"features": _named(module.features), "coordinates": _named(module.coordinates)},
        _learned_of,
    ),
    "with torsions": _Kind(
        WithTorsions,
        lambda module: {"torsions": _named(module.torsions), "learned": _named(module.learned)},
        _with_torsions_of,
    ),
}


def _named(module: nn.Module) -> Structure:
    name = next(name for name, kind in _KINDS.items() if type(module) is kind.module)
    return {"kind": name, **_KINDS[name].sizes(module)}


def _built(structure: Structure, tensors: Mapping[str, Tensor], kinds: Sequence[str]) -> nn.Module:
    if structure["kind"] not in kinds:
        raise ValueError(f"a module of kind {structure['kind']!r} where {' or '.join(kinds)} must be")
    return _KINDS[structure["kind"]].build(structure, tensors)


def rebuilt_module(structure: Structure, tensors: Mapping[str, Tensor]) -> nn.Module:
    """The module that a file names, with the file's numbers.

    Args:
        structure: see `structure_of`.
        tensors: of the module's state.

    Raises:
        ValueError: sizes beyond the limits, or tensors that are not the module's; KeyError or TypeError: no structure.
    """
    module = _built(structure, tensors, tuple(_KINDS))
    fill(module, tensors)
    return module.requires_grad_(False)


def structure_of(module: Any) -> Structure | None:
    """What a file names a module by: kind and sizes, those of its parts too; None for a module of somebody else."""
    try:
        structure = _named(module)
        rebuilt_module(structure, module.state_dict())
    except (StopIteration, KeyError, ValueError):
        return None
    return structure
