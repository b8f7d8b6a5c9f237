"""The lifting model: generator, encoder, chart and labels; and the file of any model of this program."""

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from ..coordinates.module_tensors import check_numbers, fill, moved_to, whole_size
from ..coordinates.slow_coordinates import FirstAxes, ModuleCoordinates, SlowCoordinates
from ..coordinates.torchscript import scripted
from ..engine.random_numbers import named_rng, torch_seeded
from ..engine.threads import torch_threads
from ..errors import InputError, checked, last_line
from ..reference.chart import Chart
from ..reference.potential import ReferenceParameters
from ..system.molecular_system import MolecularSystem
from ..units import FloatArray
from .invertible import InvertibleGenerator
from .label_basis import n_functions
from .model_file import (
    BROKEN,
    MAX_CANDIDATES,
    MAX_LATENT,
    ModelParts,
    check_basis,
    read_model_file,
    refuse_model,
)
from .networks import Generator, LabelTable, LiftingNetworks
from .trained_for import check_system_metadata, check_trained_for

MAX_HIDDEN, MAX_WINDOWS = 4096, 1_000_000
"""Of networks in a file."""

DERIVED = {"coarse", "is_torsion", "folds"}
"""Buffers that follow from chart and sizes, so that no file holds them."""

BASIS_OF_LABELS = {"origin", "frequency"}
"""Buffers of a label basis that do not."""


@dataclass(frozen=True)
class LiftingModel:
    """The trained bundle; every array in and out is numpy.

    Attributes:
        networks: frozen.
        chart: the chart.
        slow: the slow coordinates.
        metadata: JSON-ready: atom names, temperature, force-field hash, versions, history.
    """

    kind: ClassVar[str] = "product reference"
    networks: LiftingNetworks
    chart: Chart
    slow: SlowCoordinates
    metadata: dict[str, Any]

    @property
    def latent_size(self) -> int:
        """Dimension of z."""
        return self.networks.latent_size

    @property
    def history(self) -> dict[str, Any]:
        """What the training recorded."""
        return dict(self.metadata["history"])

    @property
    def encoder_relax_steps(self) -> int | None:
        """The step count at which the encoder was fitted; None while r = p(z)."""
        steps = self.metadata["encoder_relax_steps"]
        return None if steps is None else int(steps)

    @property
    def _n_uniforms(self) -> int:
        return self.networks.n_candidates * self.latent_size + 1

    @cached_property
    def _scripted(self) -> Any:
        return scripted(self.networks)

    def sample_latents(self, labels: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Latents drawn from p(z | s); opaque rows, one a lift."""
        return self._call("sample_latent", labels, rng.random((len(labels), self._n_uniforms)))

    def log_prior(self, latents: FloatArray, labels: FloatArray) -> FloatArray:
        """log p(z | s), shape=(n,)."""
        return self._call("log_prior", latents, labels)

    def sample_encoder(
        self, coordinates: FloatArray, labels: FloatArray, rng: np.random.Generator
    ) -> tuple[FloatArray, FloatArray]:
        """Latents drawn from r(z | x, s) at chart coordinates of real configurations, and log r, shape=(n,)."""
        return self._call("sample_encoder", coordinates, labels, rng.random((len(labels), self._n_uniforms)))

    def log_encoder(self, latents: FloatArray, coordinates: FloatArray, labels: FloatArray) -> FloatArray:
        """log r(z | x, s), shape=(n,)."""
        return self._call("log_encoder", latents, coordinates, labels)

    def reference_parameters(self, labels: FloatArray, latents: FloatArray) -> ReferenceParameters:
        """The references that the generator writes for labels, shape=(n, d), and as many latents."""
        return ReferenceParameters(*self._call("forward", labels, latents))

    def on(self, device: str) -> "LiftingModel":
        """The same model with its networks on a torch device (``cuda:1``); arrays stay numpy.

        Args:
            device: as torch names it.

        Raises:
            InputError: torch cannot use it.
        """
        if self.networks.exponents.device == torch.device(device):
            return self
        return replace(self, networks=moved_to(self.networks, device))

    @property
    def fingerprint(self) -> str:
        """Of the networks' numbers: the same for the same model in any process."""
        digest = hashlib.sha256()
        for name, tensor in self.networks.state_dict().items():
            digest.update(name.encode() + tensor.numpy(force=True).tobytes())
        return digest.hexdigest()[:16]

    @torch_threads(1)
    def _call(self, method: str, *arrays: FloatArray) -> Any:
        device = self.networks.exponents.device
        with torch.no_grad():
            result = getattr(self._scripted, method)(*(torch.as_tensor(array, device=device) for array in arrays))
        return (
            tuple(part.numpy(force=True) for part in result) if isinstance(result, tuple) else result.numpy(force=True)
        )

    def check_networks(self) -> None:
        """Refuse networks that fail, write other coordinates than the chart's, or numbers that are none.

        Raises:
            InputError: what is wrong, in one sentence.
        """
        remedy = "train the model again, or get the file again"
        label = self.slow.domain.mean(axis=1)[None]
        try:
            latents = self.sample_latents(label, named_rng(0, "fixed", "network check"))
            found = self._call("forward", label, latents)
        except Exception as error:  # torch.jit.Error is no RuntimeError
            raise InputError(f"the model's networks fail ({last_line(error)}): {remedy}") from None
        expected = (1, self.chart.n_coordinates)
        for array in found:
            if array.shape != expected or array.dtype != np.float64:
                raise InputError(
                    f"the model's networks write {array.dtype} of shape {array.shape}, not float64 of shape "
                    f"{expected}: {remedy}"
                )
        if not (np.isfinite(found).all() and (found[1] > 0).all()):
            raise InputError(f"the model's networks write numbers that are not finite, or no widths: {remedy}")

    def check_system(self, system: MolecularSystem) -> None:
        """Raise an `InputError` that says exactly what does not fit."""
        self.check_networks()
        check_trained_for(self.metadata, self.chart, self.slow, system)

    def save(self, path: str | Path) -> None:
        """Write ``model.safetensors``: tensors and JSON, the same bytes for the same model.

        Raises:
            InputError: labels or generator are a module of the user's own, whose code no such file holds.
        """
        self._parts().write(path)

    def export(self, path: str | Path) -> None:
        """Write TorchScript for OpenMM (``model.pt``), which `load_model` does not read.

        Forward takes labels, shape=(n, d), and latents to centres and widths of the chart's coordinates.
        """
        self._parts().export(self.on("cpu")._scripted, path)

    def _parts(self) -> ModelParts:
        networks = self.networks
        generator = networks.generator
        inner = _without_windows(generator)
        if type(networks) is not LiftingNetworks or type(inner) is not Generator:
            raise InputError(
                f"the generator is a {type(inner).__name__} of your own, whose code no file of gancl holds: keep it "
                "with torch.jit.save, and make the model in the script that uses it"
            )
        sizes = {
            "n_candidates": networks.n_candidates,
            "latent_size": inner.latent_size,
            "hidden": inner.correction[0].out_features,
            "order": len(inner.basis.orders),
            "periodic": inner.basis.is_periodic.tolist(),
            "n_windows": None if generator is inner else len(generator.windows),
        }
        state = networks.state_dict()
        tensors = {name: state[name] for name in _stored_names(networks)}
        return ModelParts(self.kind, self.chart, self.slow, sizes, tensors, self.metadata)

    @classmethod
    def from_parts(cls, parts: ModelParts) -> "LiftingModel":
        """The model that a file describes, checked.

        Raises:
            InputError: its networks or labels fail; ValueError, KeyError or TypeError: it describes none.
        """
        _check_metadata(parts.metadata)
        check_system_metadata(parts.metadata, parts.chart.n_atoms)
        networks = _networks_of(parts)
        fill(networks, parts.tensors, _stored_names(networks))
        model = cls(networks.eval().requires_grad_(False), parts.chart, parts.slow, parts.metadata)
        origin = _without_windows(networks.generator).origin[None].numpy()
        if not model.chart.inside(origin).all():
            raise ValueError("its typical configuration lies outside its chart")
        model.check_networks()
        if isinstance(model.slow, ModuleCoordinates):
            model.slow.check(model.chart.to_cartesian(origin)[0])
        return model

    def describe(self) -> str:
        """A few lines for people."""
        encoder = "r = p(z)" if self.encoder_relax_steps is None else f"fitted at {self.encoder_relax_steps} steps"
        return (
            f"lifting model of {self.metadata['system']} ({len(self.metadata['atom_names'])} atoms) over "
            f"{', '.join(self.slow.names)}; latent size {self.latent_size}; encoder {encoder}; "
            f"{self.metadata['n_frames']} training frames"
        )


def _without_windows(generator: Any) -> Any:
    """G(s, z) itself where it is evaluated at windows."""
    return generator.generator if type(generator) is LabelTable else generator


def _stored_names(networks: LiftingNetworks) -> list[str]:
    """Names of the tensors of networks that a file holds."""
    names = {name: name.split(".") for name in networks.state_dict()}
    return [
        name
        for name, path in names.items()
        if (path[-1] in BASIS_OF_LABELS if "basis" in path else path[-1] not in DERIVED)
    ]


def _networks_of(parts: ModelParts) -> LiftingNetworks:
    """Networks of the sizes that a file names, whose numbers are still to be filled in."""
    sizes, n = parts.sizes, parts.chart.n_coordinates
    periodic = [bool(whole_size(int(flag), "periodic", 0, 1)) for flag in sizes["periodic"]]
    d, order = len(periodic), check_basis(len(periodic), sizes["order"])
    latent_size = whole_size(sizes["latent_size"], "latent size", 0, MAX_LATENT)
    hidden = whole_size(sizes["hidden"], "hidden neurons", 1, MAX_HIDDEN)
    n_candidates = whole_size(sizes["n_candidates"], "candidates", 1, MAX_CANDIDATES)
    check_numbers(hidden * (hidden + latent_size + 3 * n) + n_functions(d, order) * 3 * n, parts.tensors)
    periods, domain = np.where(periodic, 2 * np.pi, np.inf), np.tile([0.0, 1.0], (d, 1))
    axes = FirstAxes(("",) * d, periods, domain, ("",) * d)
    generator: Any = Generator(parts.chart, axes, latent_size, np.zeros(n), np.ones(n), order, hidden)
    if sizes["n_windows"] is not None:
        n_windows = whole_size(sizes["n_windows"], "windows", 1, MAX_WINDOWS)
        check_numbers(n_windows * (d + len(parts.slow.names)), parts.tensors)
        generator = LabelTable(generator, np.zeros((n_windows, len(parts.slow.names))), np.zeros((n_windows, d)))
    elif d != len(parts.slow.names):
        raise ValueError(f"a generator of {d} labels for {', '.join(parts.slow.names)}")
    return LiftingNetworks(generator, np.zeros(n), n_candidates)


def _check_metadata(metadata: dict[str, Any]) -> None:
    if metadata["encoder_relax_steps"] is not None:
        whole_size(metadata["encoder_relax_steps"], "encoder_relax_steps", 0, 10**9)
    whole_size(metadata["n_frames"], "n_frames", 0, 10**12)
    if not isinstance(metadata["history"], dict):
        raise ValueError("a history of its training that is none")


@checked
def load_model(path: str | Path) -> LiftingModel | InvertibleGenerator:
    """Read a model's file, of either kind; the file can run nothing.

    Args:
        path: ``model.safetensors``, that `LiftingModel.save` or `InvertibleGenerator.save` wrote.

    Raises:
        InputError: there is no such file, it is truncated, of another schema, TorchScript, or describes no model.
    """
    path = Path(path)
    parts = read_model_file(path)
    kinds: dict[str, type[LiftingModel] | type[InvertibleGenerator]] = {
        kind.kind: kind for kind in (LiftingModel, InvertibleGenerator)
    }
    if parts.kind not in kinds:
        raise InputError(
            f"{path} is a model of kind {parts.kind!r}, this program reads {' and '.join(kinds)}: install the version "
            "that wrote it"
        )
    try:
        # layers are made with numbers of torch's own, before the file's
        with torch_seeded(0, "fixed", "model file"):
            return kinds[parts.kind].from_parts(parts)
    except BROKEN as error:
        refuse_model(path, error)


def load_lifting_model(path: str | Path) -> LiftingModel:
    """Read the file of a `LiftingModel`.

    Raises:
        InputError: see `load_model`, and where the file is another kind of model.
    """
    model = load_model(path)
    if not isinstance(model, LiftingModel):
        raise InputError(
            f"{path} is an {model.kind} generator, which draws without references: give a model that `gancl train` made"
        )
    return model


def frozen_networks(generator: Any, exponents: FloatArray, n_candidates: int) -> LiftingNetworks:
    """Frozen `LiftingNetworks`; see there."""
    return LiftingNetworks(generator, exponents, n_candidates).eval().requires_grad_(False)


def with_encoder(
    model: LiftingModel, exponents: FloatArray, n_candidates: int, relax_steps: int | None
) -> LiftingModel:
    """The same generator with another encoder, as a new frozen model.

    Args:
        model: the model.
        exponents: shape=(n_coordinates,), see `LiftingNetworks`.
        n_candidates: draws of z to choose among; 1 is r = p(z).
        relax_steps: at which the exponents were fitted, recorded in the metadata; None for the prior.
    """
    networks = frozen_networks(model.networks.generator, exponents, n_candidates)
    return replace(model, networks=networks, metadata={**model.metadata, "encoder_relax_steps": relax_steps})


def with_encoder_of(other: LiftingModel, model: LiftingModel) -> LiftingModel:
    """A model with the encoder of another whose generator has the same latent and coordinates."""
    networks = other.networks
    return with_encoder(model, networks.exponents.numpy(force=True), networks.n_candidates, other.encoder_relax_steps)


def with_generator(model: LiftingModel, generator: Any, chart: Chart, slow: SlowCoordinates) -> LiftingModel:
    """The same encoder with a generator of other labels, as a new frozen model.

    Args:
        model: the model.
        generator: G(s, z), a scriptable module, in the coordinates of the model's chart.
        chart: that chart, with its label coordinates.
        slow: the labels.
    """
    exponents = model.networks.exponents.numpy(force=True)
    return LiftingModel(frozen_networks(generator, exponents, model.networks.n_candidates), chart, slow, model.metadata)
