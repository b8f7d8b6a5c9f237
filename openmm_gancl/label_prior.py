"""The distribution of labels of unrestrained lifts, and the encoder that reads a label back."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import truncnorm, vonmises

from .slow import SlowCoordinates
from .units import FloatArray


@dataclass(frozen=True)
class UniformLabels:
    """Labels drawn uniformly over the domain, and r(s | x) that goes with them.

    ``r(s | x)`` is the restraint's Boltzmann factor normalised over the labels in the domain, so that an
    unrestrained lift that has stayed near its label keeps a flat weight.

    Args:
        slow: the slow coordinates.
        restraint: shape=(d,), the constants of the restraint that held the lift.
        kT: kJ/mol.
    """

    slow: SlowCoordinates
    restraint: FloatArray
    kT: float

    def sample(self, n: int, rng: np.random.Generator) -> FloatArray:
        """Labels, shape=(n, d)."""
        low, high = self.slow.domain.T
        return rng.uniform(low, high, size=(n, len(low)))

    def log_prior(self, labels: FloatArray) -> FloatArray:
        """log p(s), shape=(n,)."""
        low, high = self.slow.domain.T
        return np.full(len(labels), -np.log(high - low).sum())

    def sample_encoder(self, obtained: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Labels drawn from r(s | x), shape=(n, d), for xi(x) of shape=(n, d)."""
        columns = [
            distribution.rvs(*arguments, size=len(obtained), random_state=rng)
            for distribution, arguments in self._encoders(obtained)
        ]
        return np.stack(columns, axis=1)

    def log_encoder(self, labels: FloatArray, obtained: FloatArray) -> FloatArray:
        """log r(s | x), shape=(n,), in the measure of ``log_prior``."""
        total = np.zeros(len(labels))
        for column, (distribution, arguments) in zip(labels.T, self._encoders(obtained), strict=True):
            total += distribution.logpdf(column, *arguments)
        return total

    def _encoders(self, obtained: FloatArray):  # type: ignore[no-untyped-def]  # scipy's frozen types are private
        for i, strength in enumerate(self.restraint / self.kT):
            xi = obtained[:, i]
            if np.isfinite(self.slow.periods[i]):
                yield vonmises, (strength, xi)
            else:
                width = strength**-0.5
                low, high = self.slow.domain[i]
                yield truncnorm, ((low - xi) / width, (high - xi) / width, xi, width)
