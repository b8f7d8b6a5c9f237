"""The equation-free loop: lift, run briefly, restrict, project forward, and lift again.

Coarse projective integration (Kevrekidis et al. 2003, doi 10.4310/CMS.2003.v1.n4.a5; Gear & Kevrekidis 2003, doi
10.1137/S1064827501388157) takes time derivatives of coarse variables, for which there is no equation, from short runs,
and steps far beyond them. Coarse variables here are averages of functions of the label over an ensemble. The ensemble
that has given averages and is otherwise as much in equilibrium as can be, has the density ``exp(-beta F(s) + c h(s))``
of labels and everything else in equilibrium given these: labels are drawn, lifted, and kept by their exact weights.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import logsumexp

from ..engine.random_numbers import named_rng, named_seed
from ..errors import InputError, checked
from ..free_energy.grid import bin_centres
from ..free_energy.surface import grid_edges
from ..free_energy.weight_statistics import effective_sample_size
from ..generator.invertible import InvertibleGenerator
from ..lifting.label_regression import LabelRegression
from ..lifting.lifter import Lifter
from ..sampling.swarms import Dynamics, sample_swarm
from ..system.molecular_system import MolecularSystem
from ..units import FloatArray, numbers, whole_number

FEWEST_EFFECTIVE = 100.0
"""Effective lifts of an ensemble, below which it is not to be trusted."""

SAME_VALUE = 1e-4
"""Of the coarse variables' spread, to which an ensemble must have those requested."""

LIFTS_FOR_A_RUN = 2
"""Of which runs begin at those that are kept by their weights."""


@dataclass(frozen=True)
class Burst:
    """Coarse variables along a short run of an ensemble.

    Attributes:
        times: shape=(k,), the first zero, when everything that was lifted has healed later on.
        values: shape=(k, m), coarse variables; the first are those that were lifted.
        healed: index from which on derivatives are taken.
        lift_evaluations: that lifting cost.
        run_evaluations: that the run cost.
        effective: effective samples of what was lifted; infinite where it has no weights.
    """

    times: FloatArray
    values: FloatArray
    healed: int
    lift_evaluations: int
    run_evaluations: int
    effective: float = np.inf

    def __post_init__(self) -> None:
        """Check that there is a derivative.

        Raises:
            InputError: there is none.
        """
        if not 0 <= self.healed < len(self.times) - 1 or self.values.shape[:1] != self.times.shape:
            raise InputError(
                f"a burst of {len(self.times)} times with values of shape {np.shape(self.values)}, healed from number "
                f"{self.healed}: give values at all times, two of them healed at least"
            )
        if not np.isfinite(self.values).all():
            raise InputError(
                "coarse variables of a burst are NaN or infinite: use shorter runs, or a shorter time step"
            )

    @property
    def derivative(self) -> FloatArray:
        """shape=(m,), from the healed part."""
        return np.asarray((self.values[-1] - self.values[self.healed]) / (self.times[-1] - self.times[self.healed]))

    @property
    def centre(self) -> FloatArray:
        """shape=(m,), the coarse variables that the derivative belongs to: the mean over the healed part."""
        return np.asarray(self.values[self.healed :].mean(axis=0))


@dataclass(frozen=True)
class CoarseTrajectory:
    """Coarse variables in time.

    Attributes:
        times: shape=(n + 1,).
        values: shape=(n + 1, m).
        force_evaluations: lifts and runs.
        direct_evaluations: of the same ensemble, had it been run all along.
        least_effective: effective samples of the worst ensemble that was lifted.
    """

    times: FloatArray
    values: FloatArray
    force_evaluations: int
    direct_evaluations: int
    least_effective: float

    @property
    def saved(self) -> float:
        """Evaluations of running all along over those spent."""
        return self.direct_evaluations / self.force_evaluations

    def doubts(self) -> list[str]:
        """Sentences, why it is not to be trusted."""
        if self.least_effective >= FEWEST_EFFECTIVE:
            return []
        return [
            f"an ensemble has {self.least_effective:.0f} effective lifts, fewer than {FEWEST_EFFECTIVE:g}: lift more, "
            "or train with more frames"
        ]


@checked
def projective_integration(
    burst: Callable[[FloatArray, int], Burst], start: FloatArray, n_steps: int, step: float, *, seed: int = 0
) -> CoarseTrajectory:
    """Integrate coarse variables by the midpoint rule, whose derivatives are those of bursts.

    A derivative belongs to the values that its burst has come to, not to those it was lifted from: the second burst of
    a step is lifted as much earlier as the first one moved (second order, as Lee & Gear 2007, doi
    10.1016/j.cam.2006.03.020). What lifting got wrong and heals at first is in no value. Values scatter: repeat with
    other seeds to see how much.

    Args:
        burst: lifts an ensemble with given coarse variables, shape=(m,), and runs it; it takes a seed, too.
        start: shape=(m,).
        n_steps: steps.
        step: of each; longer than a burst.
        seed: the same seed gives the same numbers, if bursts do.

    Raises:
        InputError: a step that is shorter than a burst, or a start that is not finite.
    """
    n_steps, value = whole_number("n_steps", n_steps), numbers(start).reshape(-1)
    if not np.isfinite(value).all() or not (np.isfinite(step) and step > 0):
        raise InputError(f"start is {value} and step {step:g}: give finite numbers, and a positive step")
    values, used = [value], list[Burst]()

    def derivative(at: FloatArray) -> tuple[FloatArray, FloatArray]:
        found = burst(at, named_seed(seed, "projective integration", len(used)))
        if found.times[-1] > step:
            raise InputError(
                f"a step of {step:g} is shorter than a burst of {found.times[-1]:g}: run all along instead"
            )
        used.append(found)
        return found.derivative, found.centre - at

    for _ in range(n_steps):
        rate, moved = derivative(value)
        rate, _ = derivative(value + 0.5 * step * rate - moved)
        value = value + step * rate
        values.append(value)
    spent = sum(one.lift_evaluations + one.run_evaluations for one in used)
    per_time = used[0].run_evaluations / used[0].times[-1]
    direct = used[0].lift_evaluations + round(per_time * n_steps * step)
    least = min(one.effective for one in used)
    times = np.asarray(np.arange(n_steps + 1) * float(step))
    return CoarseTrajectory(times, np.array(values), spent, direct, least)


@dataclass(frozen=True, eq=False)
class TiltedLabels:
    """Labels with given averages, and otherwise those of equilibrium.

    Attributes:
        centres: shape=(n, d), of cells.
        log_populations: shape=(n,), of cells, normalised.
        tilt: shape=(m,), c of ``exp(-beta F + c h)``.
    """

    centres: FloatArray
    log_populations: FloatArray
    tilt: FloatArray

    @classmethod
    def of(
        cls,
        centres: FloatArray,
        log_density: FloatArray,
        functions: FloatArray,
        values: FloatArray,
    ) -> "TiltedLabels":
        """The tilt that gives averages of functions, shape=(n, m), their values, shape=(m,).

        Raises:
            InputError: no density has these averages.
        """
        centred = functions - values
        spread = np.maximum(np.ptp(functions, axis=0), 1e-12)

        def potential(tilt: FloatArray) -> tuple[float, FloatArray]:
            logs = log_density + (centred / spread) @ tilt
            whole = logsumexp(logs)
            return float(whole), np.exp(logs - whole) @ centred / spread

        # convex, and without a lowest point where values cannot be had
        with np.errstate(over="ignore", invalid="ignore"):
            start = np.zeros(len(values))
            found = minimize(potential, start, jac=True, method="BFGS", options={"gtol": 0.1 * SAME_VALUE})
        if not np.abs(potential(found.x)[1]).max() < SAME_VALUE:
            raise InputError(
                f"no ensemble has the coarse variables {np.array2string(values, precision=4)}: use shorter steps, or "
                "another start"
            )
        logs = log_density + (centred / spread) @ found.x
        return cls(centres, logs - logsumexp(logs), found.x / spread)


@dataclass(frozen=True, eq=False)
class LiftedBursts:
    """Bursts of a molecule for `projective_integration`, lifted by an invertible generator.

    Attributes:
        system: the system.
        generator: of lifts.
        regression: the free energy of labels, ``Ensemble.weight_regression`` or ``Learned.regression``.
        restrict: functions of labels, shape=(n, d), to shape=(n, m), whose averages are the coarse variables.
        n_runs: in an ensemble.
        n_steps: of each.
        n_frames: of each, evenly spaced.
        healed: the frame from which on derivatives are taken: velocities and fast degrees of freedom have followed.
        time_step: ps; the system's own by default.
        dynamics: langevin or brownian.
        copies: side by side in one Context, as for `openmm_gancl.sampling.sample_swarm`.
        platform: an OpenMM platform.
    """

    system: MolecularSystem
    generator: InvertibleGenerator
    regression: LabelRegression
    restrict: Callable[[FloatArray], FloatArray]
    n_runs: int
    n_steps: int
    n_frames: int
    healed: int
    time_step: float | None = None
    dynamics: Dynamics = "langevin"
    copies: int | None = None
    platform: str = "Reference"

    def _coarse(self, labels: FloatArray) -> FloatArray:
        """Functions of labels, shape=(n, m)."""
        found = np.asarray(self.restrict(labels), dtype=float)
        if found.ndim == 1:
            found = found[:, None]
        if len(found) != len(labels) or found.ndim != 2:
            raise InputError(f"`restrict` gives an array of shape {found.shape} for {len(labels)} labels: give (n, m)")
        return found

    def __call__(self, values: FloatArray, seed: int) -> Burst:
        """An ensemble with these coarse variables, run briefly.

        Raises:
            InputError: there is none, no lift has a weight, or runs that blew up.
        """
        starts, effective, cost = self.lift(values, seed)
        swarm = sample_swarm(
            self.system,
            starts,
            self.n_steps,
            n_frames=self.n_frames,
            copies=self.copies or "auto",
            time_step=self.time_step,
            seed=named_seed(seed, "burst", "runs"),
            platform=self.platform,
            dynamics=self.dynamics,
        )
        labels = swarm.labels[~swarm.failed]
        if len(labels) < 0.95 * len(swarm):
            raise InputError(f"{swarm.failed.sum()} of {len(swarm)} runs blew up: use a shorter time step")
        n, k, d = labels.shape
        coarse = self._coarse(labels.reshape(n * k, d)).reshape(n, k, -1)
        # the scatter of the starts about the values that are requested is no part of the change
        moved = values + (coarse - coarse[:, :1]).mean(axis=0)
        return Burst(swarm.times, moved, self.healed, cost, self.n_steps * self.n_runs, effective)

    def lift(self, values: FloatArray, seed: int) -> tuple[FloatArray, float, int]:
        """Starts of runs, shape=(n_runs, n_atoms, 3), effective lifts they were kept from, and what these cost."""
        slow, rng = self.system.slow, named_rng(seed, "burst", "labels")
        edges = grid_edges(slow)
        centres = bin_centres(edges)
        labels = TiltedLabels.of(centres, self.regression.log_density(centres), self._coarse(centres), values)
        n = LIFTS_FOR_A_RUN * self.n_runs
        cells = rng.choice(len(centres), n, p=np.exp(labels.log_populations))
        widths = np.array([axis[1] - axis[0] for axis in edges])
        drawn = centres[cells] + widths * rng.uniform(-0.5, 0.5, (n, len(widths)))
        lifts = Lifter(self.system, self.generator, platform=self.platform).lift(
            drawn, seed=named_seed(seed, "burst", "lifts")
        )
        # to the tilted ensemble: where a cell's population is not the density's, this says by how much
        log_weights = lifts.log_weights + self._coarse(drawn) @ labels.tilt - labels.log_populations[cells]
        if not np.isfinite(log_weights).any():
            raise InputError("no lift of an ensemble has a weight: train with more frames")
        weights = np.exp(log_weights - logsumexp(log_weights))
        # evenly spaced places in the sum of weights: each is kept as often as it weighs, within one
        places = (np.arange(self.n_runs) + rng.uniform()) / self.n_runs
        kept = np.searchsorted(np.cumsum(weights), places).clip(max=n - 1)
        return lifts.positions[kept], effective_sample_size(log_weights), lifts.force_evaluations
