"""The networks of the conditional GAN: label basis, generator, critic, and the bundle that lifts; scriptable.

Randomness is an argument: whoever calls draws uniform numbers, so a generator with another latent (a discrete
one, say) fits the same lift and the same file.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..coordinates.label_modules import Linear
from ..coordinates.slow_coordinates import Axes, SlowCoordinates
from ..reference.chart import Chart, InternalCoordinates
from ..units import FloatArray
from .label_basis import LabelBasis, baseline_order

LATENT_GAIN = 4.0
"""First-layer weights of the latent start this much larger: a mode boundary in z must be sharp."""

WIDTH_RANGE = 3.0
"""Widths stay within exp(+-3) of their scale."""

NETWORK_BASIS_ORDER = 2
"""Of the label basis that the networks see."""


def perceptron(n_inputs: int, hidden: int, n_outputs: int) -> nn.Sequential:
    """Two hidden layers."""
    return nn.Sequential(
        Linear(n_inputs, hidden),
        nn.SiLU(),
        Linear(hidden, hidden),
        nn.SiLU(),
        Linear(hidden, n_outputs),
    )


class Generator(nn.Module):
    """G(s, z): centres and widths of the reference, a smooth baseline in s plus a network's correction.

    A raw output of one means one scale (a standard deviation of the coordinate). No raw output can leave the
    physical domain: bond centres are positive, angle centres inside (0, pi), widths positive and bounded.

    Args:
        chart: the chart.
        slow: the slow coordinates.
        latent_size: dimension of z; 0 is the conditional-Gaussian baseline.
        origin: shape=(n_coordinates,), coordinates of a typical configuration.
        scale: shape=(n_coordinates,), their typical standard deviations.
        order: of the label basis; by default the highest that keeps its functions few.
        hidden: width of the network.
    """

    coarse: Tensor
    is_torsion: Tensor
    folds: Tensor
    origin: Tensor
    scale: Tensor

    def __init__(
        self,
        chart: Chart,
        slow: Axes,
        latent_size: int,
        origin: FloatArray,
        scale: FloatArray,
        order: int | None = None,
        hidden: int = 64,
    ):
        super().__init__()
        self.latent_size, self.n_coordinates = latent_size, chart.n_coordinates
        self.n_raw, self.width_range = 3 * chart.n_coordinates, WIDTH_RANGE
        self.basis = LabelBasis(slow, order or baseline_order(len(slow.names)))
        # the smooth ones of the same functions are the network's input for a label
        self.register_buffer("coarse", torch.nonzero(self.basis.total_orders <= NETWORK_BASIS_ORDER)[:, 0])
        self.baseline = nn.Parameter(torch.zeros(self.basis.size, self.n_raw, dtype=torch.float64))
        self.correction = perceptron(len(self.coarse) + latent_size, hidden, self.n_raw).double()
        with torch.no_grad():
            # close to the baseline, and yet every latent matters from the first step
            first, last = self.correction[0], self.correction[-1]
            assert isinstance(first, nn.Linear) and isinstance(last, nn.Linear)
            first.weight[:, len(self.coarse) :] *= LATENT_GAIN
            last.weight.normal_(std=0.3 / hidden**0.5 if latent_size else 0.0)
            last.bias.zero_()
        kinds = coordinate_kinds(chart)
        self.is_cartesian = "cartesian" in kinds
        self.n_bonds, self.n_angles = kinds.count("bond"), kinds.count("angle")
        self.register_buffer("is_torsion", torch.as_tensor(np.array(kinds) == "torsion"))
        self.register_buffer("folds", torch.as_tensor(chart.folds.astype(float)))
        self.register_buffer("origin", torch.as_tensor(np.array(origin, dtype=float)))
        self.register_buffer("scale", torch.as_tensor(np.array(scale, dtype=float)))

    def forward(self, labels: Tensor, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Labels (n, d) and latents (n, latent_size) to centres and widths, each (n, n_coordinates)."""
        functions = self.basis(labels)
        raw = functions @ self.baseline + self.correction(torch.cat([functions[:, self.coarse], latents], dim=1))
        return self.squash(raw)

    def baseline_parameters(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Centres and widths of the smooth baseline alone."""
        return self.squash(self.basis(labels) @ self.baseline)

    def squash(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Raw outputs, shape=(n, 3 n_coordinates), to physical centres and widths."""
        n = self.n_coordinates
        # slices: TorchScript's gradient of a chunk with an unused part has the wrong shape
        shift, sine, width = raw[:, :n], raw[:, n : 2 * n], raw[:, 2 * n :]
        widths = self.scale * torch.exp(self.width_range * torch.tanh(width / self.width_range))
        step = shift * self.scale
        if self.is_cartesian:
            return self.origin + step, widths
        # coordinates are in the order bonds, angles, torsions
        nb, na = self.n_bonds, self.n_bonds + self.n_angles
        length, bend = self.origin[:nb], self.origin[nb:na]
        bond = length * torch.exp(torch.tanh(step[:, :nb] / length))
        slope = bend * (math.pi - bend) / math.pi
        # beyond 30 the sigmoid would round to a straight angle
        logit = torch.clamp(torch.log(bend / (math.pi - bend)) + step[:, nb:na] / slope, -30.0, 30.0)
        angle = math.pi * torch.sigmoid(logit)
        # a torsion is the direction of (cos, sin) of fold * (phi - origin), shifted by raw / scale
        narrow = torch.clamp(self.folds[na:] * self.scale[na:], max=1.0)
        turned = torch.atan2(narrow * sine[:, na:], 1.0 + narrow * shift[:, na:]) / self.folds[na:]
        return torch.cat([bond, angle, self.origin[na:] + turned], dim=1), widths


class LabelTable(nn.Module):
    """A generator of learned labels, evaluated at windows: each has a label in its row of a table.

    Args:
        generator: G(s, z) of the learned labels.
        windows: shape=(k, h), radians.
        labels: shape=(k, d).
    """

    windows: Tensor
    labels: Tensor
    folds: Tensor
    is_torsion: Tensor

    def __init__(self, generator: Any, windows: FloatArray, labels: FloatArray):
        super().__init__()
        self.generator, self.latent_size = generator, int(generator.latent_size)
        for name, values in (("windows", windows), ("labels", labels)):
            self.register_buffer(name, torch.as_tensor(values))
        for name in ("folds", "is_torsion"):
            self.register_buffer(name, getattr(generator, name))

    def forward(self, windows: Tensor, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Windows (n, h), each replaced by the nearest one of the table, and latents to centres and widths."""
        similarity = torch.cos(windows.unsqueeze(1) - self.windows).sum(dim=2)
        return self.generator(self.labels[similarity.argmax(dim=1)], latents)


def coordinate_kinds(chart: Chart) -> list[str]:
    """bond, angle, torsion or cartesian for each coordinate of a chart."""
    if not isinstance(chart, InternalCoordinates):
        return ["cartesian"] * chart.n_coordinates
    return ["bond"] * chart.n_bonds + ["angle"] * chart.n_angles + ["torsion"] * chart.n_torsions


def coordinate_losses(
    coordinates: Tensor, centres: Tensor, widths: Tensor, folds: Tensor, is_torsion: Tensor
) -> Tensor:
    """-log density of each coordinate under its reference, shape=(n, n_coordinates); torsions come last."""
    deviation, n = coordinates - centres, int((~is_torsion).sum())
    normal = 0.5 * (deviation[:, :n] / widths[:, :n]) ** 2 + torch.log(widths[:, :n]) + 0.5 * math.log(2 * math.pi)
    strength = (folds[n:] * widths[:, n:]) ** -2.0
    torsion = strength * (1.0 - torch.cos(folds[n:] * deviation[:, n:]))
    return torch.cat([normal, torsion + torch.log(2 * math.pi * torch.special.i0e(strength))], dim=1)


def standardise(coordinates: Tensor, centres: Tensor, widths: Tensor, folds: Tensor, is_torsion: Tensor) -> Tensor:
    """Coordinates against the baseline at their label, shape=(n, 2 n_coordinates).

    Normal coordinates in units of their width (the second half zero); torsions as sine and cosine of fold times
    the deviation, in units of the width where that is small.
    """
    deviation = coordinates - centres
    narrow = torch.clamp(folds * widths, max=1.0)
    sine = torch.sin(folds * deviation) / narrow
    cosine = (1.0 - torch.cos(folds * deviation)) / narrow**2
    first = torch.where(is_torsion, sine, deviation / widths)
    second = torch.where(is_torsion, cosine, torch.zeros_like(deviation))
    # an end point far from the baseline must not drive a network out of its range
    return torch.clamp(torch.cat([first, second], dim=1), -10.0, 10.0)


class Critic(nn.Module):
    """Scores (label, standardised coordinates), by whose means real and generated ones are compared."""

    def __init__(self, slow: SlowCoordinates, n_coordinates: int, hidden: int = 128):
        super().__init__()
        self.coarse = LabelBasis(slow, NETWORK_BASIS_ORDER)
        self.score = perceptron(self.coarse.size + 2 * n_coordinates, hidden, 1)

    def forward(self, labels: Tensor, features: Tensor) -> Tensor:
        """Labels (n, d) and features (n, 2 n_coordinates) to scores (n,)."""
        return self.score(torch.cat([self.coarse(labels), features], dim=1)).squeeze(1)


class LiftingNetworks(nn.Module):
    """Generator and encoder as one scriptable module; it owns the latent, its prior and its posterior.

    The latent of one lift is ``n_candidates`` draws of z ~ N(0, I) and the index of the one in use, uniform. The
    encoder keeps the draws and chooses the index anew: ``r(k | x) ~ prod_i p_i(x_i | z_k)^exponents_i``, normalised
    over the candidates. Exponents of one are the exact posterior of an unrelaxed draw, zeros the prior: relaxing
    decorrelates coordinates from the latent, each at its own rate. With one candidate r = p(z), always exact with
    nothing to fit.

    Args:
        generator: G(s, z).
        exponents: shape=(n_coordinates,).
        n_candidates: how many draws of z.
    """

    exponents: Tensor

    def __init__(self, generator: Any, exponents: FloatArray, n_candidates: int = 1):
        super().__init__()
        self.generator, self.n_candidates = generator, n_candidates
        self.latent_size = int(generator.latent_size)
        self.register_buffer("exponents", torch.as_tensor(np.array(exponents, dtype=float)))

    def _chosen(self, latents: Tensor) -> Tensor:
        codes = latents[:, :-1].view(len(latents), self.n_candidates, self.latent_size)
        return codes[torch.arange(len(latents), device=latents.device), latents[:, -1].long()]

    def forward(self, labels: Tensor, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Centres and widths of the references."""
        return self.generator(labels, self._chosen(latents))

    def _codes(self, uniforms: Tensor) -> Tensor:
        bounded = torch.clamp(2.0 * uniforms - 1.0, -1.0 + 1e-15, 1.0 - 1e-15)
        return math.sqrt(2.0) * torch.erfinv(bounded)

    @torch.jit.export
    def sample_latent(self, labels: Tensor, uniforms: Tensor) -> Tensor:
        """The latent from uniforms, both shape=(n, n_candidates * latent_size + 1)."""
        index = torch.clamp(torch.floor(uniforms[:, -1:] * self.n_candidates), max=self.n_candidates - 1.0)
        return torch.cat([self._codes(uniforms[:, :-1]), index], dim=1)

    @torch.jit.export
    def log_prior(self, latents: Tensor, labels: Tensor) -> Tensor:
        """log p(latent | s), shape=(n,)."""
        normal = -0.5 * (latents[:, :-1] ** 2 + math.log(2 * math.pi)).sum(dim=1)
        return normal - math.log(self.n_candidates)

    @torch.jit.export
    def log_densities(self, latents: Tensor, coordinates: Tensor, labels: Tensor) -> Tensor:
        """log p_i(x_i | z_k) up to constants of x, shape=(n, n_candidates, n_coordinates)."""
        k = self.n_candidates
        codes = latents[:, :-1].reshape(len(latents) * k, self.latent_size)
        centres, widths = self.generator(labels.repeat_interleave(k, dim=0), codes)
        x = coordinates.repeat_interleave(k, dim=0)
        terms = -coordinate_losses(x, centres, widths, self.generator.folds, self.generator.is_torsion)
        return torch.clamp(terms, min=-1e4).view(len(latents), k, -1)

    def _log_choice(self, latents: Tensor, coordinates: Tensor, labels: Tensor) -> Tensor:
        scores = self.log_densities(latents, coordinates, labels) @ self.exponents
        return torch.log_softmax(scores, dim=1)

    def _log_chosen(self, latents: Tensor, labels: Tensor, log_choice: Tensor) -> Tensor:
        """log r of latents from that of every candidate."""
        chosen = log_choice.gather(1, latents[:, -1:].long()).squeeze(1)
        return self.log_prior(latents, labels) + math.log(self.n_candidates) + chosen

    @torch.jit.export
    def sample_encoder(self, coordinates: Tensor, labels: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
        """Latents drawn from r( . | x, s), and log r of them, shape=(n,); uniforms as for `sample_latent`."""
        latents = self.sample_latent(labels, uniforms)
        if self.n_candidates == 1:
            return latents, self.log_prior(latents, labels)
        log_choice = self._log_choice(latents, coordinates, labels)
        passed = uniforms[:, -1:] > torch.cumsum(log_choice.exp(), dim=1)
        index = torch.clamp(passed.sum(dim=1, keepdim=True), max=self.n_candidates - 1)
        latents = torch.cat([latents[:, :-1], index.to(latents.dtype)], dim=1)
        return latents, self._log_chosen(latents, labels, log_choice)

    @torch.jit.export
    def log_encoder(self, latents: Tensor, coordinates: Tensor, labels: Tensor) -> Tensor:
        """log r(latent | x, s), shape=(n,)."""
        if self.n_candidates == 1:
            return self.log_prior(latents, labels)
        return self._log_chosen(latents, labels, self._log_choice(latents, coordinates, labels))
