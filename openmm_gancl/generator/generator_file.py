"""Files of invertible generators: tensors and JSON, no code; the program rebuilds its own modules from them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..coordinates.slow_coordinates import ModuleCoordinates, slow_from_description
from ..engine.random_numbers import named_rng
from ..errors import InputError, first_line
from ..reference.chart import chart_from_description
from .circular import CircularDensity
from .coupling import CouplingNetwork
from .invertible import InvertibleGenerator
from .score_fit import FitOptions, Roles, assembled, condition_of
from .triangular import Condition, CubicTerms, NarrowCoordinates

SCHEMA_VERSION = 3
DESCRIPTION = "gancl"
"""Key of the JSON text among a file's metadata."""

MAX_LAYERS, MAX_HIDDEN = 64, 4096
"""Of a network in a file, before it is made."""

ROUND_TRIP = 1e-8
"""By which base numbers may differ after a draw and its inverse."""


def save_generator(generator: InvertibleGenerator, path: str | Path) -> None:
    """Write one file of tensors and JSON (``model.safetensors``).

    Args:
        generator: of labels that are no modules.
        path: of the file.

    Raises:
        InputError: its labels are a module, whose code no such file holds.
    """
    from safetensors.torch import save_file

    if isinstance(generator.slow, ModuleCoordinates):
        raise InputError("labels of a module are code, which this file does not hold: export the model instead")
    of_map = generator.map
    narrow = of_map.narrow
    order = narrow.condition.order
    description = {
        "schema_version": SCHEMA_VERSION,
        "chart": generator.chart.describe(),
        "slow": generator.slow.describe(),
        "wide": of_map.circular_indices[: of_map.n_wide].tolist(),
        "order": order,
        "circular": [[one.fold, one.uniform_share] for one in of_map.circular],
        "network": narrow.network.size if isinstance(narrow.network, CouplingNetwork) else None,
        "metadata": generator.metadata,
    }
    tensors = {
        f"narrow.{name}": getattr(narrow, name)
        for name in ("mean", "log_width", "coupling", "varying", "variation", "origin", "scale")
    }
    tensors |= {f"cubic.{name}": getattr(narrow.cubic, name) for name in _CUBIC}
    for i, one in enumerate(of_map.circular):
        tensors |= {f"circular.{i}.functions": one.functions, f"circular.{i}.coefficients": one.coefficients}
    if isinstance(narrow.network, CouplingNetwork):
        tensors |= {f"network.{name}": part for name, part in narrow.network.layers.state_dict().items()}
    save_file({name: part.contiguous() for name, part in tensors.items()}, path, {DESCRIPTION: json.dumps(description)})


_CUBIC = ("left", "right", "shifts", "widths", "skews")


def load_generator(path: str | Path) -> InvertibleGenerator:
    """Read what `save_generator` wrote; the file can run nothing.

    Raises:
        InputError: there is no such file, it is truncated, of another schema, or describes no map.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no model at {path}: give the model.safetensors of a run")
    try:
        with safe_open(path, framework="pt") as stored:
            description = json.loads((stored.metadata() or {})[DESCRIPTION])
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118  # no dictionary
        version = description["schema_version"]
    except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise InputError(
            f"{path} is no model ({first_line(error)}): give a model.safetensors that gancl wrote"
        ) from None
    if version != SCHEMA_VERSION:
        raise InputError(
            f"{path} has schema version {version}, this program reads {SCHEMA_VERSION}: train the model again, or "
            "install the version that wrote it"
        )
    try:
        generator = _rebuilt(description, tensors)
        _check_inverse(generator)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RuntimeError) as error:
        raise InputError(f"{path} describes no map ({first_line(error)}): get the file again") from None
    return generator


def _rebuilt(description: dict[str, Any], tensors: dict[str, Tensor]) -> InvertibleGenerator:
    if description["slow"]["kind"] == ModuleCoordinates.kind:
        raise ValueError("its labels are code")
    chart, slow = chart_from_description(description["chart"]), slow_from_description(description["slow"])
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{name} is not finite")
    wide = np.array(description["wide"], dtype=np.int64)
    roles, options = Roles.of(chart, wide), FitOptions()
    condition = condition_of(slow, roles, chart.folds, int(description["order"]), options)
    narrow = _narrow(condition, {name.removeprefix("narrow."): part for name, part in tensors.items()}, tensors)
    circular = []
    for i, (index, (fold, share)) in enumerate(zip(roles.circular, description["circular"], strict=True)):
        functions = tensors[f"circular.{i}.functions"]
        usable = (functions >= 0) & (functions < condition.basis.size)
        if int(fold) != chart.folds[index] or not 0 < share <= 1 or not usable.all():
            raise ValueError(f"circular density {i} has another fold, share or features")
        circular.append(CircularDensity(functions, tensors[f"circular.{i}.coefficients"], int(fold), float(share)))
    if description["network"] is not None:
        narrow.set_network(_network(condition, narrow.n, description["network"], tensors))
    made = assembled(chart, roles, circular, narrow)
    if narrow.n != len(roles.narrow):
        raise ValueError(f"{narrow.n} narrow coordinates for {len(roles.narrow)}")
    return InvertibleGenerator(made, chart, slow, dict(description["metadata"]))


def _narrow(condition: Condition, parts: dict[str, Tensor], tensors: dict[str, Tensor]) -> NarrowCoordinates:
    k, n_features = len(parts["origin"]), len(condition.orders)
    if not (parts["scale"] > 0).all():
        raise ValueError("a scale is not positive")
    coupling = torch.zeros(n_features, k * k, dtype=torch.float64)
    coupling[0] = torch.eye(k, dtype=torch.float64).reshape(-1) - parts["coupling"]
    coupling[1:, parts["varying"]] = -parts["variation"]
    coupling = coupling.reshape(n_features, k, k)
    left, right, shifts, widths, skews = (tensors[f"cubic.{name}"] for name in _CUBIC)
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


def _network(condition: Condition, k: int, size: list[int], tensors: dict[str, Tensor]) -> CouplingNetwork:
    n_layers, hidden = size
    if not 0 < n_layers <= MAX_LAYERS or not 0 < hidden <= MAX_HIDDEN:
        raise ValueError(f"a network of {n_layers} layers of {hidden}")
    network = CouplingNetwork(k, condition.n_network_features, n_layers, hidden)
    prefix = "network."
    network.layers.load_state_dict(
        {name.removeprefix(prefix): part for name, part in tensors.items() if name.startswith(prefix)}
    )
    return network.requires_grad_(False)


def _check_inverse(generator: InvertibleGenerator) -> None:
    """Draw, and find the base numbers again."""
    rng = named_rng(0, "fixed", "generator check")
    labels = generator.slow.domain.mean(axis=1)[None].repeat(4, axis=0)
    base = generator.sample_base(4, rng)
    coordinates, log_density = generator.transform(base, labels)
    found, again = generator.invert(coordinates)
    if not (np.abs(found - base).max() < ROUND_TRIP and np.abs(again - log_density).max() < ROUND_TRIP * base.size):
        raise ValueError("a draw's inverse is another draw")
