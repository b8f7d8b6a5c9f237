"""The bias of OPES, from the kernels of its density estimate."""

from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp

from ..coordinates.geometry import wrap
from ..units import FloatArray

KERNEL_CHUNK = 4_000_000
"""Frames times kernels in one batch."""


@dataclass(frozen=True)
class KernelBias:
    """The bias of OPES, from the kernels of its density estimate (Invernizzi & Parrinello 2020).

    Doi 10.1021/acs.jpclett.0c00497: V = f log(P / Z + exp(-barrier / f)).

    Args:
        positions: shape=(n_kernels, d).
        widths: shape=(n_kernels, d).
        log_weights: shape=(n_kernels,).
        periods: shape=(d,), ``inf`` where there is none.
        prefactor: f, kJ/mol.
        barrier: kJ/mol.
        compact: whether kernels are (9 - x^2)^4 within three widths, for each variable, and no Gaussians.
        names: of the variables, where the file tells them.
    """

    positions: FloatArray
    widths: FloatArray
    log_weights: FloatArray
    periods: FloatArray
    prefactor: float
    barrier: float
    compact: bool = False
    names: tuple[str, ...] = ()

    @property
    def n_variables(self) -> int:
        """How many collective variables it acts on."""
        return self.positions.shape[1]

    def _log_densities(self, values: FloatArray) -> FloatArray:
        heights, step = self.log_weights - np.log(self.widths).sum(axis=1), max(KERNEL_CHUNK // len(self.positions), 1)
        parts = []
        for i in range(0, len(values), step):
            scaled = wrap(values[i : i + step, None] - self.positions, self.periods) / self.widths
            parts.append(logsumexp(heights + self._exponents(scaled).sum(axis=-1), axis=1))
        return np.concatenate(parts)

    def _exponents(self, scaled: FloatArray) -> FloatArray:
        """Of kernels along each variable, up to a constant."""
        if not self.compact:
            return np.asarray(-0.5 * scaled**2)
        with np.errstate(divide="ignore"):
            return np.asarray(4.0 * np.log((9.0 - scaled**2).clip(min=0.0)))

    def uncovered(self, energies: FloatArray) -> float:
        """The part of frames of these energies that lie where there is hardly a kernel."""
        return float((energies < -0.99 * self.barrier).mean())

    def energies(self, values: FloatArray) -> FloatArray:
        """Of frames, kJ/mol, shape=(n,)."""
        log_mean = logsumexp(self._log_densities(self.positions)) - np.log(len(self.positions))
        relative = self._log_densities(np.asarray(values, dtype=float)) - log_mean
        return np.asarray(self.prefactor * np.logaddexp(relative, -self.barrier / self.prefactor))
