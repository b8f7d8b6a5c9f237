"""Exact answers of the shipped toys: energies, windows by quadrature, and exact samples; no OpenMM, no package maths.

The constants are those of the systems' README files; `test_exact.py` compares them with OpenMM's energies.
"""

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from scipy.special import ive

KT = 8.31446261815324e-3 * 300.0
"""kJ/mol, of every toy."""

FORK_CARD = Path(__file__).parents[2] / "systems" / "forked_oscillator" / "card.toml"
FORK_WIDTH = float(tomllib.loads(FORK_CARD.read_text())["toy"]["parameters"]["s"])
"""nm, of each well of the forked oscillator."""


def log_integral(log_density, grid):
    """log of the trapezoid rule, which is spectrally accurate for periodic and for decayed integrands."""
    top = log_density.max()
    return float(top + np.log(np.exp(log_density - top).sum() * (grid[1] - grid[0])))


def draw_from_density(log_density, grid, n, rng):
    """Inverse-CDF draws from a density on a fine grid."""
    density = np.exp(log_density - log_density.max())
    cumulative = np.concatenate([[0.0], np.cumsum(0.5 * (density[1:] + density[:-1]))])
    return np.interp(rng.random(n) * cumulative[-1], cumulative, grid)


def cumulative_function(log_density, grid):
    """The distribution function of a density on a grid."""
    density = np.exp(log_density - log_density.max())
    cumulative = np.concatenate([[0.0], np.cumsum(0.5 * (density[1:] + density[:-1]))])
    return lambda value: np.interp(value, grid, cumulative / cumulative[-1])


@dataclass(frozen=True)
class Toy:
    """One particle, slow in x; given x, y is a mixture of normals and z is normal."""

    name: str
    grid = np.linspace(-4.0, 4.0, 16001)

    @property
    def labels(self):
        """Three windows. Where x and y correlate and the barrier widens the window, as at x = 0 of the double well,
        no product of the right marginals bounds the variance of an unrelaxed weight; the middle one is elsewhere.
        """
        return (-1.0, -0.7, 1.0) if self.name == "double_well_oscillators" else (-1.0, 0.0, 1.0)

    def energy(self, q):
        """kJ/mol at positions of shape=(..., 3); complex positions allowed."""
        x, y, z = q[..., 0], q[..., 1], q[..., 2]
        if self.name == "double_well_oscillators":
            ky, kz = 2000 * np.exp(0.8 * np.tanh(2 * x)), 1000 * np.exp(0.3 * np.tanh(2 * x))
            fast = 0.5 * ky * (y - 0.25 * np.sin(1.5 * x)) ** 2 + 0.5 * kz * (z - 0.2 * np.cos(x)) ** 2
            return 10 * (x**2 - 1) ** 2 + fast
        if self.name == "narrow_barrier":
            fast = 1500 * (y - 0.2 * np.sin(2 * x)) ** 2 + 1000 * (z - 0.1 * np.cos(3 * x)) ** 2
            return 3 * x**2 + 12.5 * np.exp(-0.5 * ((x - 0.1) / 0.03) ** 2) + fast
        b, s, g = 0.3, FORK_WIDTH, 0.7 + 0.6 * np.tanh(2 * x)
        up, down = -((y - b) ** 2) / (2 * s**2), -((y + b) ** 2) / (2 * s**2)
        p = 1 / (1 + np.exp(-g))
        top = np.where(np.real(up) > np.real(down), up, down)
        fork = top + np.log(p * np.exp(up - top) + (1 - p) * np.exp(down - top))
        return 5 * x**2 - KT * fork + 300 * (z - 0.2 * np.sin(2 * x)) ** 2

    def gradient(self, q):
        """Complex-step derivative, exact to rounding; shape=(..., 3)."""
        step = 1e-30j * np.eye(3)
        return np.stack([self.energy(q + step[i]).imag / 1e-30 for i in range(3)], axis=-1)

    def fast(self, x):
        """Weights, means and standard deviations of y (components first), then mean and deviation of z, given x."""
        one = np.ones_like(x)
        if self.name == "double_well_oscillators":
            ky, kz = 2000 * np.exp(0.8 * np.tanh(2 * x)), 1000 * np.exp(0.3 * np.tanh(2 * x))
            wells = [(one, 0.25 * np.sin(1.5 * x), np.sqrt(KT / ky))]
            return wells, 0.2 * np.cos(x), np.sqrt(KT / kz)
        if self.name == "narrow_barrier":
            wells = [(one, 0.2 * np.sin(2 * x), np.sqrt(KT / 3000) * one)]
            return wells, 0.1 * np.cos(3 * x), np.sqrt(KT / 2000) * one
        p = 1 / (1 + np.exp(-0.7 - 0.6 * np.tanh(2 * x)))
        wells = [(p, 0.3 * one, FORK_WIDTH * one), (1 - p, -0.3 * one, FORK_WIDTH * one)]
        return wells, 0.2 * np.sin(2 * x), np.sqrt(KT / 600) * one

    def surface(self, x):
        """-kT log of the integral over y and z, kJ/mol, with its constant."""
        slow = {
            "double_well_oscillators": lambda x: 10 * (x**2 - 1) ** 2,
            "narrow_barrier": lambda x: 3 * x**2 + 12.5 * np.exp(-0.5 * ((x - 0.1) / 0.03) ** 2),
            "forked_oscillator": lambda x: 5 * x**2,
        }[self.name](x)
        wells, _, sz = self.fast(x)
        # the sum of weighted normals of one width: the integral over y is sqrt(2 pi) times that width
        return slow - KT * np.log(2 * np.pi * wells[0][2] * sz)

    @cache  # noqa: B019
    def surface_on_grid(self):
        return self.surface(self.grid)

    def log_density(self, label=None, force_constants=None):
        """log of exp(-beta F(x)) on the grid, of a window or of the whole system."""
        energy = self.surface_on_grid()
        if label is not None:
            energy = energy + 0.5 * force_constants * (self.grid - label) ** 2
        return -energy / KT

    def log_z(self, label=None, force_constants=None):
        """log Z of a window, or of the whole system without a label."""
        return log_integral(self.log_density(label, force_constants), self.grid)

    def sample(self, n, rng, label=None, force_constants=None):
        """Exact, independent positions, shape=(n, 1, 3)."""
        x = draw_from_density(self.log_density(label, force_constants), self.grid, n, rng)
        wells, mz, sz = self.fast(x)
        upper = rng.random(n) < wells[0][0]
        mean, width = (np.where(upper, wells[0][i], wells[-1][i]) for i in (1, 2))
        y = rng.normal(mean, width)
        return np.stack([x, y, rng.normal(mz, sz)], axis=1)[:, None, :]

    def marginals(self):
        """Distribution functions of x, y and z without restraint."""
        weights = np.exp(self.log_density() - self.log_density().max())
        weights /= weights.sum()
        keep = weights > 1e-14
        wells, mz, sz = self.fast(self.grid[keep])
        weights = weights[keep]
        axis = np.linspace(-1.5, 1.5, 3001)

        def normal(mean, width):
            return np.exp(-0.5 * ((axis[:, None] - mean) / width) ** 2) / width

        y = sum(normal(mean, width) @ (weights * share) for share, mean, width in wells)
        z = normal(mz, sz) @ weights
        with np.errstate(divide="ignore"):
            return [
                cumulative_function(self.log_density(), self.grid),
                cumulative_function(np.log(y), axis),
                cumulative_function(np.log(z), axis),
            ]


BONDS = {(0, 1): (0.150, 7700.0), (1, 2): (0.160, 6800.0), (2, 3): (0.140, 8800.0), (2, 4): (0.155, 7200.0)}
ANGLES = {(0, 1, 2): (1.80, 40.0), (1, 2, 3): (1.75, 40.0), (1, 2, 4): (1.85, 40.0)}


@dataclass(frozen=True)
class Chain:
    """The bonded chain: every internal coordinate is independent."""

    name: str = "bonded_chain"
    labels = (-2.0, 0.5, 2.0)
    lengths = np.linspace(1e-9, 0.5, 20001)
    bends = np.linspace(0.0, np.pi, 20001)
    circle = np.linspace(-np.pi, np.pi, 20000, endpoint=False)

    @staticmethod
    def torsion_energy(phi):
        return 2 * (1 + np.cos(phi - 0.6)) + 3 * (1 + np.cos(2 * phi - 2.4)) + 4 * (1 + np.cos(3 * phi))

    def energy(self, bonds, angles, phi, psi):
        """kJ/mol of dictionaries of bonds and angles, keyed by atoms, and of the two torsions."""
        total = self.torsion_energy(phi) + 10 * (1 + np.cos(psi - 5.236))
        for values, terms in ((bonds, BONDS), (angles, ANGLES)):
            total = total + sum(0.5 * k * (values[atoms] - centre) ** 2 for atoms, (centre, k) in terms.items())
        return total

    def log_lengths(self, atoms):
        centre, k = BONDS[atoms]
        return 2 * np.log(self.lengths) - 0.5 * k * (self.lengths - centre) ** 2 / KT

    def log_bends(self, atoms):
        centre, k = ANGLES[atoms]
        with np.errstate(divide="ignore"):
            return np.log(np.sin(self.bends).clip(0)) - 0.5 * k * (self.bends - centre) ** 2 / KT

    def log_turns(self, label=None, force_constants=None):
        energy = self.torsion_energy(self.circle)
        if label is not None:
            energy = energy + force_constants * (1 - np.cos(self.circle - label))
        return -energy / KT

    def log_z(self, label=None, force_constants=None):
        """log Z of a window, or of the whole system without a label."""
        factors = [log_integral(self.log_lengths(atoms), self.lengths) for atoms in BONDS]
        factors += [log_integral(self.log_bends(atoms), self.bends) for atoms in ANGLES]
        factors.append(log_integral(self.log_turns(label, force_constants), self.circle))
        return sum(factors) + float(np.log(2 * np.pi * ive(0, 10 / KT)))

    def sample(self, n, rng, label=None, force_constants=None, *, chart):
        """Exact, independent positions in a chart of this molecule, shape=(n, 5, 3)."""
        columns = [
            draw_from_density(self.log_lengths(tuple(sorted(atoms))), self.lengths, n, rng)
            for atoms in chart.bonds.tolist()
        ]
        columns += [
            draw_from_density(self.log_bends(min(tuple(a), tuple(a[::-1]))), self.bends, n, rng)
            for a in chart.angles.tolist()
        ]
        for atoms in chart.torsions.tolist():
            if set(atoms) == {0, 1, 2, 3}:
                columns.append(draw_from_density(self.log_turns(label, force_constants), self.circle, n, rng))
            else:
                assert tuple(atoms) == (4, 2, 1, 3), atoms
                columns.append(rng.vonmises(5.236 - np.pi, 10 / KT, n))
        return chart.to_cartesian(np.stack(columns, axis=1))


DOUBLE_WELL, FORKED, BARRIER = (
    Toy(name) for name in ("double_well_oscillators", "forked_oscillator", "narrow_barrier")
)
CHAIN = Chain()
EXACT = {model.name: model for model in (DOUBLE_WELL, CHAIN, FORKED, BARRIER)}


def exact_frames(system, model, n, rng, label=None):
    """Exact positions of a window of a system's own restraint, or of the whole system."""
    force_constants = None if label is None else float(system.force_constants[0])
    if model is CHAIN:
        from openmm_gancl.reference.chart import chart_for

        chart = chart_for(system.topology, system.slow, system.positions)
        return model.sample(n, rng, label, force_constants, chart=chart)
    return model.sample(n, rng, label, force_constants)
