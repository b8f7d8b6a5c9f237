"""Effective drift and diffusion of slow coordinates, from swarms of short runs, and the reduced model they make.

Of runs that begin at a label with the fast degrees of freedom in equilibrium there (Hummer & Kevrekidis 2003, doi
10.1063/1.1574777), mean and half the covariance of the displacement grow at the rates a and D, once the fast ones have
followed and for as long as the way is short. Neither limit is taken by hand: slopes between a first lag and the end of
the runs are compared with what a reduced model gives for the same two lags, the model's diffusion is moved until they
are the same (indirect inference, Gourieroux, Monfort, Renault 1993, doi 10.1002/jae.3950080507), and the first lag
from which on one model explains every range of lags is the plateau. The model's drift is no fit: it follows from the
lifts' free energy and this diffusion, and the runs' own drift tests it.
"""

from dataclasses import dataclass, replace

import numpy as np

from ..coordinates.slow_coordinates import SlowCoordinates
from ..errors import InputError, checked
from ..free_energy.surface import FreeEnergySurface
from ..lifting.label_regression import LabelRegression
from ..sampling.swarms import Swarm
from ..units import FloatArray, IntArray
from .diffusion_fit import DiffusionFitter, FittedDiffusion
from .reduced_model import ReducedModel
from .swarm_slopes import (
    Displacements,
    RunsByLabel,
    Slopes,
    check_surface_axes,
    doubts_of_runs,
    p_value_of,
    same_slopes,
)

FIRST_LAGS = (0.0, 1 / 16, 1 / 8, 1 / 4, 1 / 2)
"""Tried as the first lag, as fractions of a run."""

LAST_LAGS = (1.0, 1 / 2, 1 / 4, 1 / 8)
"""Tried as the last lag, as fractions of a run."""

GOOD_RESPONSE = 0.6
"""Of slopes to the diffusion, at least, up to a last lag that is used, where runs have frames before."""

LEAST_P_VALUE = 0.01
"""Of the differences between slopes of two ranges of lags, less the model's: above it one model explains both."""

LEAST_P_OF_DRIFT = 1e-4
"""Of the runs' drift about that of surface and diffusion."""

FEWEST_FRAMES = 8
"""Of a run."""

GRID = {1: 240, 2: 72}
"""Cells a coordinate of a reduced model."""


@dataclass(frozen=True)
class LagScan:
    """What each first lag says: the evidence of a plateau.

    Attributes:
        lags: shape=(m,), ps, tried as the first.
        last: ps, the last lag: the end of the runs, or before, where displacements do not remember by then.
        diffusion: shape=(m, k, d, d), slopes of half the covariance from each lag to the last, as they were measured.
        drift: shape=(m, k, d), of the mean displacement.
        p_values: shape=(m,), that the model of this lag explains the slopes from every later one; NaN where it was not
            tried, and of the last.
        chosen: index of the lag in use.
        has_plateau: whether it is the beginning of a plateau, and not only the longest.
        last_tried: index of the longest that was tried; displacements may have grown no more from there on.
    """

    lags: FloatArray
    last: float
    diffusion: FloatArray
    drift: FloatArray
    p_values: FloatArray
    chosen: int
    has_plateau: bool
    last_tried: int


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Drift and diffusion of slow coordinates at labels, and the reduced model of them.

    Attributes:
        labels: shape=(k, d).
        drift: shape=(k, d), a, labels' units over ps: the runs' own, with the model's change along the way taken off.
        drift_error: shape=(k, d), one sigma.
        diffusion: shape=(k, d, d), D, symmetric, squared units over ps; in the same way.
        diffusion_error: shape=(k, d, d), one sigma.
        model: with the free energy of lifts and a smooth diffusion, and the drift that follows from both.
    """

    labels: FloatArray
    drift: FloatArray
    drift_error: FloatArray
    diffusion: FloatArray
    diffusion_error: FloatArray
    model: ReducedModel


@dataclass(frozen=True, kw_only=True)
class EffectiveDynamics(Rates):
    """Drift and diffusion from runs, with the evidence.

    Attributes:
        p_value: that the runs' drift is the model's.
        counts: shape=(k,), runs of each label that were used.
        left: share of the runs that left the domain, and are not used, of the label with most, less one standard
            error.
        failed: share of the runs that blew up, likewise.
        scan: of lags.
    """

    p_value: float
    counts: IntArray
    left: float
    failed: float
    scan: LagScan

    @property
    def evidence(self) -> str:
        """Whether there is a plateau, and why not, in one sentence."""
        scan, p_value = self.scan, self.scan.p_values[self.scan.chosen]
        if scan.has_plateau:
            return (
                f"one overdamped model explains the runs from {scan.lags[scan.chosen]:.3g} to {scan.last:.3g} ps (p = "
                f"{p_value:.2g})"
            )
        p_value = float(np.max(scan.p_values, initial=0.0, where=np.isfinite(scan.p_values)))
        tried = f"none of the lags tried, up to {scan.lags[scan.last_tried]:.3g} ps,"
        if np.isfinite(scan.p_values).sum() < 2 and scan.last_tried == scan.chosen:
            tried = f"the lag of {scan.lags[scan.chosen]:.3g} ps"
        verb = "does one model explain" if tried.startswith("none") else "one model does not explain"
        return (
            f"drift and diffusion have no plateau: from {tried} {verb} the later ones up to {scan.last:.3g} ps (p = "
            f"{p_value:.1g} at best, below {LEAST_P_VALUE:g})"
        )

    def doubts(self) -> list[str]:
        """Sentences, where drift, diffusion and model are not to be trusted."""
        doubts = []
        if not self.scan.has_plateau:
            doubts.append(
                f"{self.evidence}: use longer runs; or the coordinates are not slow alone, or have inertia, which "
                "no overdamped model has"
            )
        if self.p_value < LEAST_P_OF_DRIFT:
            doubts.append(
                f"the drift of the runs is not that of free energy and diffusion (p = {self.p_value:.1g}, below "
                f"{LEAST_P_OF_DRIFT:g}): the surface is wrong, or the coordinates are not slow alone"
            )
        return [*doubts, *doubts_of_runs(self.left, self.failed)]


@checked
def effective_dynamics(
    swarm: Swarm,
    slow: SlowCoordinates,
    labels: FloatArray,
    free_energy: FreeEnergySurface | LabelRegression,
    temperature: float,
    *,
    log_weights: FloatArray | None = None,
    lag: float | None = None,
    bins: int | None = None,
) -> EffectiveDynamics:
    """Drift, diffusion and a reduced model from runs that began at labels; see the module's text.

    Args:
        swarm: several runs of each label, from weighted lifts there.
        slow: one or two slow coordinates.
        labels: shape=(n, d), of the lifts that the runs began at.
        free_energy: a surface, unknown bins of which are walls; or the regression of the lifts' weights
            (`Ensemble.weight_regression`), which goes on where no lifts are.
        temperature: K.
        log_weights: shape=(n,), of these lifts; equal by default, as of lifts kept by weight.
        lag: ps, the first lag, in place of the plateau's beginning.
        bins: cells a coordinate, 240 over one, 48 over two, by default; those of a surface, where one is given.

    Raises:
        InputError: more than two coordinates, too few runs of a label or frames of a run, labels that are not those of
            the starts, runs of which all left the domain, a diffusion tensor that is not positive definite, or a
            surface of another temperature, or of coordinates in other units or in another order.
    """
    d, times = len(slow.names), swarm.times[1:]
    if d not in GRID:
        raise InputError(f"a reduced model over {d} coordinates is not supported: choose one or two labels")
    _check_lags(times, lag)
    if isinstance(free_energy, FreeEnergySurface):
        _check_surface(free_energy, slow, temperature)
    runs = RunsByLabel.of(swarm, slow, labels, log_weights)
    found = runs.labels
    fitter = DiffusionFitter(slow, found, runs.groups, times, free_energy, temperature, bins or GRID[d])
    wanted = None if lag is None else int(np.rint(lag / times[0])) - 1
    scan, fitted, measured = _scan(_until_forgotten(fitter, wanted), wanted)
    model, expected = fitted.model, fitted.expected
    residual = measured.drift - expected.drift
    # a displacement is forgotten along the way, half as fast as its square
    kept = np.sqrt(fitted.response[:, :, 0])
    relative = np.einsum("kii->ki", fitted.diffusion) / np.einsum("kii->ki", measured.diffusion)
    return EffectiveDynamics(
        labels=found,
        drift=model.interpolated(model.drift, found) + residual / kept,
        drift_error=measured.drift_error / kept,
        diffusion=fitted.diffusion,
        diffusion_error=measured.diffusion_error * np.sqrt(relative[:, :, None] * relative[:, None]) / fitted.response,
        model=model,
        p_value=p_value_of(residual, measured.drift_error),
        counts=np.array([len(group.weights) for group in runs.groups]),
        left=runs.left,
        failed=runs.failed,
        scan=scan,
    )


def _check_lags(times: FloatArray, lag: float | None) -> None:
    """Refuse runs of few frames, and a lag that they do not have."""
    if len(times) < FEWEST_FRAMES:
        raise InputError(f"runs of {len(times)} frames have too few lags: give at least {FEWEST_FRAMES}")
    if lag is not None and not 0 <= lag <= 0.75 * times[-1]:
        raise InputError(
            f"a lag of {lag:g} ps for runs of {times[-1]:g} ps: give one from zero to three quarters of them"
        )


def _check_surface(surface: FreeEnergySurface, slow: SlowCoordinates, temperature: float) -> None:
    """Refuse a surface of another temperature, or of the coordinates in other units or in another order."""
    if not np.isclose(surface.temperature, temperature, rtol=1e-3):
        raise InputError(
            f"the surface is of {surface.temperature:g} K, the runs of {temperature:g} K: give a surface of theirs"
        )
    check_surface_axes(surface, slow)


def _until_forgotten(fitter: DiffusionFitter, wanted: int | None) -> DiffusionFitter:
    """Up to the longest last lag at which the slopes of every label answer to its diffusion, beyond a wanted one."""
    counts = [round(part * len(fitter.times)) for part in LAST_LAGS]
    shorter, least = fitter, FEWEST_FRAMES if wanted is None else max(FEWEST_FRAMES, int(np.ceil((wanted + 1) / 0.75)))
    for n in (n for n in counts if n >= least):
        groups = [Displacements(runs.displacements[:, :n], runs.weights) for runs in fitter.groups]
        shorter = replace(fitter, times=fitter.times[:n], groups=groups)
        fitted = shorter.fit(Slopes.between(groups, shorter.times, -1, n - 1), (-1, n - 1), updates=2)
        if fitted.response.min() >= GOOD_RESPONSE:
            break
    return shorter


def _scan(fitter: DiffusionFitter, wanted: int | None) -> tuple[LagScan, FittedDiffusion, Slopes]:
    """The first lag from which on one model explains all, what was fitted there, and the slopes measured."""
    times, groups = fitter.times, fitter.groups
    last = len(times) - 1
    firsts = sorted({round(part * len(times)) - 1 for part in FIRST_LAGS} | ({wanted} if wanted is not None else set()))
    halves = [(first, last // 2) for first in firsts if first < last // 4]
    ranges = [(first, last) for first in firsts] + halves
    measured = [Slopes.between(groups, times, *pair) for pair in ranges]
    p_values, fits = np.full(len(firsts), np.nan), list[FittedDiffusion]()
    tried = range(len(firsts)) if wanted is None else [firsts.index(wanted)]
    chosen = last_tried = 0
    for i in tried:
        last_tried = i
        try:
            fits.append(fitter.fit(measured[i], ranges[i]))
        except InputError:
            if not fits:
                raise
            # displacements that grow no more: no later lag says anything
            break
        chosen = i
        expected = fitter.expected(fits[-1].model, ranges)
        later = [j for j, pair in enumerate(ranges) if j != i and pair[0] >= firsts[i]]
        found = [same_slopes(groups, (measured[i], expected[i]), (measured[j], expected[j])) for j in later]
        p_values[i] = min(1.0, min(found) * len(found)) if found else np.nan
        if p_values[i] > LEAST_P_VALUE:
            break
    scan = LagScan(
        lags=np.array([0.0 if first < 0 else times[first] for first in firsts]),
        last=float(times[-1]),
        diffusion=np.array([one.diffusion for one in measured[: len(firsts)]]),
        drift=np.array([one.drift for one in measured[: len(firsts)]]),
        p_values=p_values,
        chosen=chosen,
        has_plateau=bool(p_values[chosen] > LEAST_P_VALUE),
        last_tried=last_tried,
    )
    return scan, fits[-1], measured[chosen]
