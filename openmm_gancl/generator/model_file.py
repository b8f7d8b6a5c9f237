"""Files of models: tensors and JSON, no code; the program rebuilds its own modules from them."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from ..coordinates.module_tensors import MAX_NUMBERS, described, part_of, whole_size
from ..coordinates.slow_coordinates import (
    ModuleCoordinates,
    ParticleCoordinates,
    SlowCoordinates,
    Torsions,
    slow_from_description,
)
from ..coordinates.torchscript import archived
from ..errors import InputError, first_line
from ..files import finite, write_atomically
from ..reference.chart import CartesianCoordinates, Chart, InternalCoordinates, chart_from_description

SCHEMA_VERSION = 4
DESCRIPTION = "gancl"
"""Key of the JSON text among a file's metadata."""

CHECKSUM = "checksum"
"""Key of the checksum of all else in the file, in its description; of older files none."""

MAX_FILE_SIZE = 2**30
"""Bytes."""

MAX_ATOMS, MAX_ORDER, MAX_LATENT, MAX_CANDIDATES = 100_000, 8, 256, 4096
"""Of a model in a file; the order is that of its label basis."""

LABELS = "slow."
"""Prefix of the names of the tensors of learned labels."""

BROKEN = (
    KeyError,
    TypeError,
    ValueError,
    IndexError,
    AttributeError,
    RuntimeError,
    ArithmeticError,
    AssertionError,
    MemoryError,
)
"""What a description that describes no model raises."""


@dataclass(frozen=True)
class ModelParts:
    """What a model's file holds, of whatever kind of model.

    Attributes:
        kind: of the model.
        chart: the chart.
        slow: the labels.
        sizes: of its modules, JSON.
        tensors: of its modules.
        metadata: JSON, of its training.
    """

    kind: str
    chart: Chart
    slow: SlowCoordinates
    sizes: dict[str, Any]
    tensors: Mapping[str, Tensor]
    metadata: dict[str, Any]

    def description(self) -> str:
        """All but the tensors as JSON, the same text for the same model."""
        description = {
            "schema_version": SCHEMA_VERSION,
            "kind": self.kind,
            "chart": self.chart.describe(),
            "slow": self.slow.describe(),
            "sizes": self.sizes,
            "metadata": self.metadata,
        }
        return _text(finite(description))

    def write(self, path: str | Path) -> None:
        """Write ``model.safetensors``.

        Raises:
            InputError: the labels are a module of the user's own, or the name is that of another kind of file.
        """
        from safetensors.torch import save

        check_model_name(Path(path))
        tensors = dict(self.tensors)
        if isinstance(self.slow, ModuleCoordinates):
            tensors |= {LABELS + name: part for name, part in self.slow.tensors().items()}
        # copies, since a file holds no tensor twice
        copies = {name: part.detach().cpu().contiguous().clone() for name, part in tensors.items()}
        description = json.loads(self.description())
        text = _text({**description, CHECKSUM: _checksum(description, copies)})
        # one text: of several the order would be another one each time
        write_atomically(Path(path), save(copies, {DESCRIPTION: text}))

    def export(self, module: Any, path: str | Path) -> None:
        """Write a scripted module as TorchScript, with the description beside it (``metadata.json``)."""
        write_atomically(Path(path), archived(module, {"metadata.json": self.description()}))


def check_model_name(path: Path) -> None:
    """Refuse to give a file the name of TorchScript.

    Raises:
        InputError: the name ends with ``.pt``.
    """
    if path.suffix == ".pt":
        raise InputError(
            f"{path} would be TorchScript by its name, and a model's file has no code: name it "
            f"{path.with_suffix('.safetensors').name} (`gancl export` and `.export` write TorchScript)"
        )


def read_model_file(path: Path) -> ModelParts:
    """Read what `ModelParts.write` wrote; the file can run nothing.

    Raises:
        InputError: there is no such file, it is truncated, of another schema, or describes no model.
    """
    description, tensors = _read(path)
    version = description.get("schema_version")
    if version != SCHEMA_VERSION:
        raise InputError(
            f"{path} has schema version {version}, this program reads {SCHEMA_VERSION}: train the model again, or "
            "install the version that wrote it"
        )
    try:
        return _parts_of(description, tensors)
    except BROKEN as error:
        refuse_model(path, error)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise InputError(
            f"there is no model at {path}: give the model.safetensors of a run, or train one with `gancl run`"
        )
    with open(path, "rb") as stream:
        is_archive = stream.read(4) == b"PK\x03\x04"
    if is_archive:
        raise InputError(
            f"{path} is TorchScript, code that gancl does not run: give the model.safetensors that it was exported "
            "from, or train the model again"
        )
    if path.stat().st_size > MAX_FILE_SIZE:
        raise InputError(f"{path} is larger than any model: give a model.safetensors that gancl wrote")
    try:
        with safe_open(path, framework="pt") as stored:
            description = json.loads((stored.metadata() or {})[DESCRIPTION], parse_constant=_no_number)
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118  # no dictionary
        if not isinstance(description, dict):
            raise ValueError(f"its description is a {type(description).__name__}")
        stated = description.pop(CHECKSUM, None)
        if stated is not None and stated != _checksum(description, tensors):
            raise ValueError("it is not as it was written")
    except (SafetensorError, OSError, *BROKEN) as error:
        raise InputError(
            f"{path} is no model ({first_line(error)}): give a model.safetensors that gancl wrote"
        ) from None
    return description, tensors


def _text(description: Any) -> str:
    return json.dumps(description, sort_keys=True, allow_nan=False)


def _checksum(description: dict[str, Any], tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(_text(description).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def refuse_model(path: Path, error: Exception) -> NoReturn:
    """Raise an `InputError` that says why a file's content is no model."""
    # what an error of our own advises is not what helps here
    reason = str(error).rpartition(": ")[0] if isinstance(error, InputError) else ""
    kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
    raise InputError(
        f"{path} describes no model ({kind}{reason or first_line(error)}): get the file again, or train the model again"
    ) from None


def _parts_of(description: dict[str, Any], tensors: dict[str, Tensor]) -> ModelParts:
    for name, tensor in tensors.items():
        if tensor.dtype not in (torch.float64, torch.int64):
            raise ValueError(f"{name} is {described(tensor)}")
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{name} is not finite")
    of_labels = part_of(tensors, LABELS)
    chart, slow = _chart_of(description["chart"]), slow_from_description(description["slow"], of_labels)
    if of_labels and not isinstance(slow, ModuleCoordinates):
        raise ValueError("tensors of labels that have none")
    _check_labels(chart, slow)
    sizes, metadata = dict(description["sizes"]), dict(description["metadata"])
    rest = {name: part for name, part in tensors.items() if not name.startswith(LABELS)}
    return ModelParts(str(description["kind"]), chart, slow, sizes, rest, metadata)


def _chart_of(description: dict[str, Any]) -> Chart:
    rows = description["n_atoms"] if description["kind"] == CartesianCoordinates.kind else len(description["z_matrix"])
    whole_size(rows, "atoms", 1, MAX_ATOMS)
    return chart_from_description(description)


def _check_labels(chart: Chart, slow: SlowCoordinates) -> None:
    """See that the chart has the labels as coordinates, or a module's as none."""
    if isinstance(slow, ModuleCoordinates):
        fits = not len(chart.label_indices)
    elif isinstance(chart, InternalCoordinates) and isinstance(slow, Torsions):
        rows = chart.label_indices - chart.n_bonds - chart.n_angles
        fits = len(rows) == len(slow.atoms) and bool((rows >= 0).all())
        ours = chart.torsions[rows] if fits else slow.atoms
        # read backwards a torsion is the same
        same = (ours == slow.atoms).all(axis=1) | (ours[:, ::-1] == slow.atoms).all(axis=1)
        fits = fits and bool(same.all())
    else:
        fits = (
            isinstance(chart, CartesianCoordinates)
            and isinstance(slow, ParticleCoordinates)
            and np.array_equal(chart.label_components, slow.components)
        )
    if not fits:
        raise ValueError(f"the labels {', '.join(slow.names)} are no coordinates of its chart")


def check_basis(d: int, order: Any) -> int:
    """The order of a label basis of d coordinates, if it is within limits.

    Raises:
        ValueError: it is not, or the functions are too many.
    """
    order = whole_size(order, "order", 1, MAX_ORDER)
    if d * (2 * order + 1) ** d > MAX_NUMBERS:
        raise ValueError(f"functions of order {order} of {d} coordinates are too many")
    return order
