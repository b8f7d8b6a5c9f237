"""How far surfaces from fresh data lie from the truth, beside the best that the same data allow.

    python -m tests.benchmarks.fes_noise [KIND ...] [--sets 20] [--first 0]

Each kind is one of inputs that users have: frames of one torsion without a bias, two torsions under a static bias, a
distance in umbrella windows, and one torsion under a static bias, in the numbers of frames that such inputs hold; and
surfaces that no short series describes: a narrow deep well beside a broad one, the same under a static bias and in
windows, islands that a bias makes, a steep repulsion and a wall, two plateaus, two basins joined by a narrow channel.
Sets of frames, independent or correlated (their numbers are then larger than what they are worth), are drawn from a
surface that is known and analysed as `gancl fes` does by default. Printed for each kind, below 6 kT: ``rms``, the
median deviation, kT, and ``rms_90``, its upper tenth; ``fit``, the median deviation of a maximum-likelihood fit that
knows the form of the surface and only has its few coefficients to find, which no estimate from the same frames can hope
to beat (null where there is no such form); ``within_1`` and ``within_2``, shares of bins within one and two error bars,
and ``sure_within_1`` that of bins with a bar below 0.3 kT, which hold more than about ten frames; ``score``, root mean
square of deviations over their bars; ``largest``, the median over the sets of the largest of them, which is not 1 but
grows with the number of bins, and ``largest_90``. In ``rare_plateau`` most bins below 10 kT, which energies are aligned
by, hold one frame or none: no bar covers there.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from scipy.optimize import minimize
from scipy.signal import lfilter
from scipy.special import logsumexp, ndtr

from openmm_gancl.free_energy.from_trajectories import analyse
from openmm_gancl.free_energy.surface import ALIGNMENT_CEILING
from openmm_gancl.trajectories.observations import Observations
from openmm_gancl.trajectories.series import Series
from openmm_gancl.trajectories.umbrella import UmbrellaWindows
from openmm_gancl.units import thermal_energy

TEMPERATURE, HIGHEST = 300.0, 6.0
KT = thermal_energy(TEMPERATURE)
SURE = 0.3
FINE = 4  # grid points to a bin of truth and fit


class Kind:
    """A surface that is linear in few functions, kT; what is drawn from it, and in how many frames."""

    periods = np.array([2 * np.pi])
    names, units = ("phi",), ("radians",)
    centres = np.zeros((1, 1))
    kappa = 0.0

    def energy(self, x):
        return self.functions(x) @ self.coefficients

    def bias(self, x):
        return 0.0 * x[:, 0]

    def restraint(self, x, centre):
        return 0.5 * self.kappa / KT * (x[:, 0] - centre[0]) ** 2

    def drawn(self, rng):
        """Frames of each window, by their weights on a fine grid."""
        grid = self.grid(1600 if len(self.periods) == 1 else 400)
        cell = [np.diff(np.unique(column)[:2])[0] for column in grid.T]
        parts = []
        for centre in self.centres:
            logs = -self.energy(grid) - self.bias(grid) - self.restraint(grid, centre)
            chosen = rng.choice(len(grid), self.frames, p=np.exp(logs - logsumexp(logs)))
            parts.append(grid[chosen] + rng.uniform(-0.5, 0.5, (self.frames, grid.shape[1])) * cell)
        return parts

    def grid(self, n):
        axes = [np.linspace(low, high, n, endpoint=False) + (high - low) / (2 * n) for low, high in self.limits]
        return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))

    def observations(self, parts):
        values = np.concatenate(parts)
        starts = np.concatenate([[0], np.cumsum([len(part) for part in parts])])
        series = Series(self.names, self.periods, self.units, values.astype(np.float32), starts)
        if self.kappa:
            kappas = np.full((len(self.centres), 1), self.kappa)
            files = [Path(f"w{i}") for i in range(len(self.centres))]
            windows = UmbrellaWindows.of_files(files, self.centres, kappas)
            return Observations(series, 1, TEMPERATURE, windows=windows, restrained=(0,))
        bias = self.bias(values)
        return Observations(series, len(self.names), TEMPERATURE, bias if bias.any() else None)

    def fit(self, parts):
        """Coefficients of the greatest likelihood (of weighted frames, where there is a bias)."""
        grid = self.grid(800 if len(self.periods) == 1 else 120)
        known = self.functions(grid)
        restraints = np.stack([self.restraint(grid, centre) for centre in self.centres])
        means = []
        for part in parts:
            bias = self.bias(part)
            weights = np.exp(bias - logsumexp(bias))
            means.append(weights @ self.functions(part))
        means = np.array(means)

        def loss(coefficients):
            logs = -(known @ coefficients)[None] - restraints
            total = logsumexp(logs, axis=1)
            return float((means @ coefficients + total).sum()), (means - np.exp(logs - total[:, None]) @ known).sum(
                axis=0
            )

        return minimize(loss, np.zeros(known.shape[1]), jac=True, method="BFGS").x

    def fitted(self, edges, parts):
        """Free energies of bins by the fit, kT."""
        coefficients = self.fit(parts)
        return self.truth(edges, lambda x: self.functions(x) @ coefficients)

    def truth(self, edges, energy=None):
        """Free energies of bins, kT."""
        axes = [(e[:-1, None] + np.diff(e)[:, None] * (np.arange(FINE) + 0.5) / FINE).ravel() for e in edges]
        places = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))
        density = np.exp(-(energy or self.energy)(places))
        for axis, e in enumerate(edges):
            shape = [len(axes[i]) if i > axis else len(edges[i]) - 1 for i in range(len(edges))]
            density = density.reshape(*shape[:axis], len(e) - 1, FINE, *shape[axis + 1 :]).mean(axis=axis + 1)
        found = -np.log(density)
        return found - found.min()


class Torsion(Kind):
    limits = ((-np.pi, np.pi),)
    coefficients = np.array([6 * np.cos(0.8), 6 * np.sin(0.8), 5 * np.cos(0.4), -5 * np.sin(0.4)]) / KT
    frames = 4000

    def functions(self, x):
        phi = x[:, 0]
        return np.stack([np.cos(phi), np.sin(phi), np.cos(2 * phi), np.sin(2 * phi)], axis=1)


class BiasedTorsion(Torsion):
    frames = 30_000

    def bias(self, x):
        return 5.0 - 0.83 * self.energy(x)


class Torsions(Kind):
    periods = np.full(2, 2 * np.pi)
    names, units = ("phi", "psi"), ("radians", "radians")
    limits = ((-np.pi, np.pi),) * 2
    coefficients = np.array([5 * np.cos(0.5), 5 * np.sin(0.5), 4, 4 * np.cos(1), -4 * np.sin(1), 3]) / KT
    frames = 6000

    def functions(self, x):
        phi, psi = x.T
        columns = [np.cos(phi), np.sin(phi), np.cos(2 * phi), np.cos(psi), np.sin(psi), np.cos(phi - psi)]
        return np.stack(columns, axis=1)

    def bias(self, x):
        return 12.0 / KT - 0.8 * self.energy(x)


class Distance(Kind):
    periods = np.array([np.inf])
    names, units = ("r",), ("nm",)
    limits = ((0.05, 1.5),)
    centres = np.linspace(0.35, 1.2, 18)[:, None]
    kappa, frames = 2000.0, 1500
    coefficients = np.array([6 * np.cos(4.2), 6 * np.sin(4.2), 8, -12.8]) / KT

    def functions(self, x):
        r = x[:, 0]
        return np.stack([np.cos(12 * r), np.sin(12 * r), r**2, r], axis=1)


class Formless(Kind):
    """A surface that no short series describes."""

    limits = ((-np.pi, np.pi),)
    frames, inefficiency = 4000, 1

    def normals(self, rng):
        """Standard normal numbers, correlated as an autoregression of first order."""
        slope = (self.inefficiency - 1) / (self.inefficiency + 1)
        noise = np.sqrt(1 - slope**2) * rng.normal(size=self.frames)
        return lfilter([1.0], [1.0, -slope], noise, zi=[slope * rng.normal()])[0]

    def drawn(self, rng):
        """Frames by the inverse of the distribution of the first coordinate, and of the next one given it."""
        if len(self.centres) > 1:
            return super().drawn(rng)
        d = len(self.limits)
        n = 4000 if d == 1 else 500
        grid = self.grid(n)
        density = np.exp(-self.energy(grid) - self.bias(grid)).reshape([n] * d)
        uniforms = [ndtr(self.normals(rng)) for _ in range(d)]
        (low, high), below = self.limits[0], np.cumsum(density.reshape(n, -1).sum(axis=1))
        places = np.interp(uniforms[0], np.concatenate([[0.0], below / below[-1]]), np.linspace(0, n, n + 1))
        columns = [low + (high - low) * places / n]
        if d == 2:
            (low, high), below = self.limits[1], np.cumsum(density, axis=1)[places.astype(int).clip(max=n - 1)]
            cells = np.array([np.searchsorted(b, u * b[-1]) for b, u in zip(below, uniforms[1], strict=True)])
            columns.append(low + (high - low) * (cells + rng.random(self.frames)) / n)
        return [np.stack(columns, axis=1)]

    def fitted(self, edges, parts):
        return None


def gaussian(x, centre, width):
    return np.exp(-0.5 * ((x - centre) / width) ** 2) / width


class NarrowWell(Formless):
    """A deep well a tenth as broad as the one beside it, on a plateau."""

    plateau = 0.2

    def energy(self, x):
        phi = x[:, 0]
        return -np.log(gaussian(phi, -1.2, 0.4) + 0.8 * gaussian(phi, 1.3, 0.05) + self.plateau)


class RarePlateau(NarrowWell):
    plateau = 0.004


class BiasedNarrowWell(NarrowWell):
    frames = 20_000

    def bias(self, x):
        return -0.8 * NarrowWell.energy(self, x)


class BiasedIslands(Formless):
    """A bias that keeps frames out of a stretch of the coordinate, whose weights rise towards it."""

    frames = 20_000

    def energy(self, x):
        return 1.5 * np.cos(x[:, 0]) + np.cos(3 * x[:, 0] + 1.0)

    def bias(self, x):
        return 12.0 * np.exp(-0.5 * ((x[:, 0] - 0.5) / 0.6) ** 2)


class Islands(BiasedIslands):
    """The same frames, from a surface with that stretch as its barrier."""

    def energy(self, x):
        return BiasedIslands.energy(self, x) + BiasedIslands.bias(self, x)

    def bias(self, x):
        return 0.0 * x[:, 0]


class NarrowWellInWindows(NarrowWell):
    periods, names, units = np.array([np.inf]), ("r",), ("nm",)
    limits = ((-3.0, 3.0),)
    centres = np.linspace(-2.4, 2.4, 16)[:, None]
    kappa, frames = 20.0 * KT, 1500


class Wall(Formless):
    """Two atoms up to a distance: a steep repulsion, a well, and the end of the range."""

    periods, names, units = np.array([np.inf]), ("r",), ("nm",)
    limits = ((0.25, 1.2),)

    def energy(self, x):
        r = 0.34 / x[:, 0]
        return 14.0 * (r**12 - r**6)


class Slope(Formless):
    """A hard wall at which the density is highest, and waves behind it."""

    periods, names, units = np.array([np.inf]), ("r",), ("nm",)
    limits = ((0.0, 8.0),)

    def energy(self, x):
        return x[:, 0] - 0.8 * np.cos(5 * x[:, 0])


class Plateaus(Formless):
    """Two flat stretches, 3 kT apart, and a sharp barrier in the lower one."""

    def energy(self, x):
        phi = x[:, 0]
        step = 1.5 * (np.tanh((phi - 0.2) / 0.05) - np.tanh((phi - 2.6) / 0.05))
        return step + 4.0 * np.exp(-0.5 * ((phi + 1.5) / 0.06) ** 2)


class Channel(Formless):
    """Two basins of two torsions and a narrow bent channel between them."""

    periods = np.full(2, 2 * np.pi)
    names, units = ("phi", "psi"), ("radians", "radians")
    limits = ((-np.pi, np.pi),) * 2
    frames = 6000

    def energy(self, x):
        phi, psi = x.T
        left = gaussian(phi, -1.6, 0.35) * gaussian(psi, -0.9, 0.3)
        right = gaussian(phi, 1.6, 0.3) * gaussian(psi, 0.9, 0.4)
        channel = 0.15 * np.exp(-0.5 * ((psi - 0.9 * np.sin(phi)) / 0.1) ** 2) * (np.abs(phi) < 1.6)
        return -np.log(left + right + channel + 1e-4)


def correlated(kind, frames, inefficiency=15):
    return type(f"Correlated{kind.__name__}", (kind,), {"frames": frames, "inefficiency": inefficiency})


KINDS = {
    "torsion": Torsion,
    "torsions": Torsions,
    "distance": Distance,
    "biased_torsion": BiasedTorsion,
    "narrow_well": NarrowWell,
    "rare_plateau": RarePlateau,
    "narrow_well_correlated": correlated(NarrowWell, 30_000),
    "biased_narrow_well": BiasedNarrowWell,
    "biased_islands": BiasedIslands,
    "islands": Islands,
    "narrow_well_in_windows": NarrowWellInWindows,
    "wall": Wall,
    "wall_correlated": correlated(Wall, 30_000),
    "slope": Slope,
    "plateaus": Plateaus,
    "plateaus_correlated": correlated(Plateaus, 30_000),
    "channel": Channel,
    "channel_correlated": correlated(Channel, 60_000),
}


def compared(energy, truth, error=None):
    """RMS deviation below `HIGHEST`, kT, and deviations over their bars with these, shape=(2, n)."""
    low = (truth < HIGHEST) & np.isfinite(energy)
    aligned = np.isfinite(energy) & (energy < ALIGNMENT_CEILING)  # as the error bars are
    difference = energy - truth - (energy - truth)[aligned].mean()
    rms = float(difference[low].std())
    return rms, None if error is None else np.stack([np.abs(difference[low] / error[low]), error[low]])


def measured(kind, seed):
    """One set: deviation of the surface, that of the fit, and scores."""
    parts = kind.drawn(np.random.default_rng(seed))
    surface = analyse(kind.observations(parts), discard=0).surface
    truth = kind.truth(surface.edges)
    rms, scores = compared(surface.energy / KT, truth, surface.error / KT)
    fitted = kind.fitted(surface.edges, parts)
    return rms, np.nan if fitted is None else compared(fitted, truth)[0], scores


def report(name, sets, first):
    kind = KINDS[name]()
    found = [measured(kind, seed) for seed in range(first, first + sets)]
    rms, fits, scores = zip(*found, strict=True)
    pooled, bars = np.concatenate(scores, axis=1)
    largest = [part[0].max() for part in scores]
    return {
        "kind": name,
        "sets": sets,
        "rms": round(float(np.median(rms)), 3),
        "rms_90": round(float(np.quantile(rms, 0.9)), 3),
        "rms_error": round(float(np.std(rms) / np.sqrt(sets)), 3),
        "fit": None if np.isnan(fits).any() else round(float(np.median(fits)), 3),
        "within_1": round(float((pooled < 1).mean()), 3),
        "sure_within_1": round(float((pooled[bars < SURE] < 1).mean()), 3),
        "within_2": round(float((pooled < 2).mean()), 3),
        "score": round(float(np.sqrt((pooled**2).mean())), 3),
        "largest": round(float(np.median(largest)), 2),
        "largest_90": round(float(np.quantile(largest, 0.9)), 2),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kinds", nargs="*", help=", ".join(KINDS))
    parser.add_argument("--sets", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="seed of the first set")
    given = parser.parse_args()
    for name in given.kinds or KINDS:
        print(json.dumps(report(name, given.sets, given.first)), flush=True)
