"""The lifting model: generator, encoder, chart and labels in one TorchScript file with JSON metadata."""

import hashlib
import io
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..coordinates.slow_coordinates import SlowCoordinates, archived, slow_from_description
from ..engine.random_numbers import named_rng
from ..engine.threads import torch_threads
from ..errors import InputError, first_line, last_line
from ..reference.chart import Chart, chart_from_description
from ..reference.potential import ReferenceParameters
from ..system.molecular_system import MolecularSystem
from ..units import FloatArray, checked_temperature
from .networks import LiftingNetworks
from .trained_for import check_trained_for

SCHEMA_VERSION = 2


@dataclass(frozen=True)
class LiftingModel:
    """The trained bundle; every array in and out is numpy.

    Attributes:
        networks: scripted `LiftingNetworks`.
        chart: the chart.
        slow: the slow coordinates.
        metadata: JSON-ready: schema version, atom names, temperature, force-field hash, versions, history.
    """

    networks: Any
    chart: Chart
    slow: SlowCoordinates
    metadata: dict[str, Any]

    @property
    def latent_size(self) -> int:
        """Dimension of z."""
        return int(self.metadata["latent_size"])

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
        return int(self.networks.n_candidates) * self.latent_size + 1

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
        try:
            networks = torch.jit.load(io.BytesIO(archived(self.networks)), map_location=device)
        except RuntimeError as error:
            raise InputError(
                f"torch cannot use the device {device!r} ({first_line(error)}): see `gancl doctor`"
            ) from None
        return replace(self, networks=networks)

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
            result = getattr(self.networks, method)(*(torch.as_tensor(array, device=device) for array in arrays))
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
        """Write one TorchScript archive, metadata inside."""
        torch.jit.save(self.on("cpu").networks, str(path), _extra_files={"metadata.json": json.dumps(self.metadata)})

    def describe(self) -> str:
        """A few lines for people."""
        encoder = "r = p(z)" if self.encoder_relax_steps is None else f"fitted at {self.encoder_relax_steps} steps"
        return (
            f"lifting model of {self.metadata['system']} ({len(self.metadata['atom_names'])} atoms) over "
            f"{', '.join(self.slow.names)}; latent size {self.latent_size}; encoder {encoder}; "
            f"{self.metadata['n_frames']} training frames"
        )


def load_model(path: str | Path) -> LiftingModel:
    """Read what `LiftingModel.save` wrote.

    Raises:
        InputError: if the file is missing, not such an archive, or of another schema.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no lifting model at {path}: give model.pt of a run, or train one with `gancl run`")
    extra = {"metadata.json": ""}
    try:
        networks = torch.jit.load(str(path), map_location="cpu", _extra_files=extra)
        metadata = json.loads(extra["metadata.json"])
        version = metadata.get("schema_version")
    except (RuntimeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path} is not a lifting model ({first_line(error)}): give a model.pt that gancl wrote"
        ) from None
    if version != SCHEMA_VERSION:
        raise InputError(
            f"{path} has schema version {version}, this program reads {SCHEMA_VERSION}: "
            "train the model again, or install the version that wrote it"
        )
    try:
        chart, slow = chart_from_description(metadata["chart"]), slow_from_description(metadata["slow"])
        checked_temperature(metadata["temperature"])
        _ = int(metadata["latent_size"]), len(metadata["atom_names"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path} describes a model that cannot be ({type(error).__name__}: {first_line(error)}): get the file again"
        ) from None
    return LiftingModel(networks, chart, slow, metadata)


def scripted_networks(generator: Any, exponents: FloatArray, n_candidates: int) -> Any:
    """Frozen `LiftingNetworks`; see there."""
    networks = LiftingNetworks(generator, exponents, n_candidates)
    return torch.jit.script(networks.eval().requires_grad_(False))


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
    networks = scripted_networks(model.networks.generator, exponents, n_candidates)
    return replace(model, networks=networks, metadata={**model.metadata, "encoder_relax_steps": relax_steps})


def with_encoder_of(other: LiftingModel, model: LiftingModel) -> LiftingModel:
    """A model with the encoder of another whose generator has the same latent and coordinates."""
    networks = other.networks
    return with_encoder(
        model, networks.exponents.numpy(force=True), int(networks.n_candidates), other.encoder_relax_steps
    )


def with_generator(model: LiftingModel, generator: Any, chart: Chart, slow: SlowCoordinates) -> LiftingModel:
    """The same encoder with a generator of other labels, as a new frozen model.

    Args:
        model: the model.
        generator: G(s, z), a scriptable module, in the coordinates of the model's chart.
        chart: that chart, with its label coordinates.
        slow: the labels.
    """
    networks = scripted_networks(
        generator, model.networks.exponents.numpy(force=True), int(model.networks.n_candidates)
    )
    metadata = {**model.metadata, "chart": chart.describe(), "slow": slow.describe()}
    return LiftingModel(networks, chart, slow, metadata)
