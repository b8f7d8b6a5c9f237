"""Reduced models with inertia: effective Langevin dynamics of the slow coordinates, fitted to short runs.

``ds = v dt``, ``dv = -V grad F dt - Gamma v dt + sqrt(2 Gamma V) dW``, F in units of kT, V the covariance of velocities
and Gamma the friction, the same everywhere: ``exp(-F)`` times the normal density of velocities is stationary whatever
they are. Where velocities remember longer than a label stays, no overdamped model explains short runs, and passages
depend little on the friction. V and Gamma are those whose runs have the means and covariances of the displacements of
the real ones at all lags (indirect inference, Gourieroux, Monfort, Renault 1993, doi 10.1002/jae.3950080507).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from ..coordinates.geometry import wrap
from ..coordinates.slow_coordinates import SlowCoordinates
from ..engine.random_numbers import named_rng
from ..errors import InputError, checked
from ..files import load_arrays
from ..free_energy.grid import bin_centres
from ..free_energy.surface import FreeEnergySurface
from ..sampling.swarms import Swarm
from ..units import BoolArray, FloatArray, IntArray, numbers, whole_number
from .reduced_model import FINE_CELLS, ReducedModel
from .swarm_slopes import Displacements, RunsByLabel, check_surface_axes, doubts_of_runs

INERTIAL_FORMAT = "openmm-gancl inertial model 1"

N_LAGS = 8
"""At which displacements are compared, evenly over the runs."""

COPIES = 4
"""Simulated for each real run, with the same random numbers in every trial of the fit."""

PHASE, FARTHEST = 0.2, 0.05
"""Of the fastest oscillation, and of the way through the domain, at most, in a step of a simulation."""

PROBED, FIRST_TRIALS, MOST_TRIALS = 0.05, 5, 15
"""Change of a logarithm for a slope of the fit, and steps of it: from each start, and from the best of these."""

MOST_MISFIT, MOST_DEVIATION = 2.0, 0.25
"""Root mean square difference of moments in standard errors, and of variances beyond their scatter, above which the
model is not to be trusted: few runs hide the one, and many the other."""


@dataclass(frozen=True, eq=False)
class InertialModel:
    """Langevin dynamics of one or two slow coordinates.

    Attributes:
        overdamped: the limit of high friction, ``D = V Gamma^-1``: grid, free energy and periods.
        velocity_covariance: V, shape=(d, d), squared units of the labels over ps^2.
        friction: Gamma, shape=(d, d), 1/ps; Gamma V is symmetric.
    """

    overdamped: ReducedModel
    velocity_covariance: FloatArray
    friction: FloatArray

    @classmethod
    def of(cls, model: ReducedModel, velocity_covariance: FloatArray, friction: FloatArray) -> "InertialModel":
        """With the free energy of a reduced model, whose diffusion is replaced.

        Raises:
            InputError: V or Gamma V is not symmetric and positive definite.
        """
        d = len(model.names)
        covariance = np.asarray(velocity_covariance, dtype=float).reshape(d, d)
        damping = np.asarray(friction, dtype=float).reshape(d, d)
        for name, tensor in (("the covariance of velocities", covariance), ("friction times it", damping @ covariance)):
            if not np.allclose(tensor, tensor.T, rtol=1e-6) or np.linalg.eigvalsh(0.5 * (tensor + tensor.T)).min() <= 0:
                raise InputError(f"{name} is not symmetric and positive definite: give another")
        diffusion = covariance @ np.linalg.inv(damping).T
        diffusion = 0.5 * (diffusion + diffusion.T)
        over = replace(model, diffusion=np.broadcast_to(diffusion, (*model.energy.shape, d, d)).copy())
        return cls(over, covariance, damping)

    def save(self, path: str | Path) -> None:
        """Write an npz file: arrays and one line of JSON, no code."""
        of_velocities: dict[str, Any] = {"velocity_covariance": self.velocity_covariance, "friction": self.friction}
        np.savez(path, **self.overdamped.stored(INERTIAL_FORMAT), **of_velocities)

    @cached_property
    def _accelerations(self) -> FloatArray:
        """``-V grad F`` in fine cells, shape=(d, n_fine)."""
        model, d = self.overdamped, len(self.overdamped.names)
        fine = tuple(np.linspace(axis[0], axis[-1], FINE_CELLS[d] + 1) for axis in model.edges)
        # the drift of a diffusion that is the same everywhere is its share of the force alone
        shares = self.velocity_covariance @ np.linalg.inv(model.diffusion.reshape(-1, d, d)[0])
        return np.ascontiguousarray((model.interpolated(model.drift, bin_centres(fine)) @ shares.T).T)

    @cached_property
    def _closed(self) -> BoolArray:
        """Whether fine cells lie in a wall, shape=(n_fine,)."""
        model, d = self.overdamped, len(self.overdamped.names)
        fine = tuple(np.linspace(axis[0], axis[-1], FINE_CELLS[d] + 1) for axis in model.edges)
        return np.asarray(~model.known.ravel()[model.cells_of(bin_centres(fine))])

    def _cells(self, places: FloatArray) -> IntArray:
        """Flat indices of fine cells of places in units of them, shape=(n, d)."""
        n = FINE_CELLS[places.shape[1]]
        index = places[:, 0].astype(np.intp)
        return index if places.shape[1] == 1 else index * n + places[:, 1].astype(np.intp)

    def simulate(
        self,
        starts: FloatArray,
        n_steps: int,
        time_step: float,
        *,
        stride: int = 1,
        velocities: FloatArray | None = None,
        seed: int = 0,
    ) -> FloatArray:
        """Trajectories of many copies side by side: kicks by the force, and between them what is exact without one.

        However high the friction, a step may be as long as forces allow. A periodic coordinate is wrapped into the
        domain; at an open end and at a wall a copy turns back.

        Args:
            starts: shape=(n_copies, d).
            n_steps: of each.
            time_step: ps; short against the oscillations in a well.
            stride: steps from frame to frame.
            velocities: shape=(n_copies, d); drawn from equilibrium by default.
            seed: the same seed gives the same trajectories.

        Returns:
            shape=(n_steps // stride, n_copies, d).

        Raises:
            InputError: a start outside the domain or inside a wall.
        """
        model, d = self.overdamped, len(self.overdamped.names)
        starts = np.asarray(numbers(starts), dtype=float).reshape(-1, d)
        cells = model.cells_of(starts)
        if not len(starts) or (cells < 0).any() or not model.known.ravel()[cells].all():
            raise InputError("a start lies outside the domain, or where the free energy is not known: start elsewhere")
        n_steps, stride = whole_number("n_steps", n_steps), whole_number("stride", stride)
        rng = named_rng(seed, "inertial model")
        if velocities is None:
            velocities = rng.standard_normal(starts.shape) @ np.linalg.cholesky(self.velocity_covariance).T
        low, scale = self.fine_units
        places, v = (starts - low) * scale, np.array(velocities, dtype=float)
        frames: FloatArray = np.empty((n_steps // stride, *starts.shape))
        advance = self.stepper(time_step, rng.standard_normal)
        for step in range(n_steps):
            places, v = advance(places, v)
            if (step + 1) % stride == 0:
                frames[step // stride] = low + places / scale
        return frames

    @property
    def fine_units(self) -> tuple[FloatArray, FloatArray]:
        """Where fine cells begin, shape=(d,), and how many go to the labels' unit, shape=(d,)."""
        low, span = np.array([[axis[0], np.ptp(axis)] for axis in self.overdamped.edges]).T
        return low, FINE_CELLS[len(low)] / span

    def stepper(
        self, time_step: float, normals: Callable[[tuple[int, ...]], FloatArray]
    ) -> Callable[[FloatArray, FloatArray], tuple[FloatArray, FloatArray]]:
        """One step of places in units of fine cells and of velocities, shape=(n, d) each.

        Args:
            time_step: ps.
            normals: as many normal numbers as are wanted, shape=(2, n, d).
        """
        _, scale = self.fine_units
        flow, accelerations, walls = _FreeFlow.of(self, time_step), self._accelerations, bool(self._closed.any())
        n_fine = FINE_CELLS[len(scale)]
        periodic = np.isfinite(self.overdamped.periods)

        def advance(before: FloatArray, v: FloatArray) -> tuple[FloatArray, FloatArray]:
            moved, v = flow(v + time_step * accelerations[:, self._cells(before)].T, normals((2, *v.shape)))
            places = before + moved * scale
            turned = (~periodic & ((places < 0) | (places >= n_fine))).any(axis=1)
            wrapped = places - n_fine * np.floor(places / n_fine)
            # rounding may leave the end itself
            places = np.where(periodic, np.minimum(wrapped, np.nextafter(n_fine, 0)), places)
            if walls:
                turned |= self._closed[self._cells(np.clip(places, 0, n_fine - 1))]
            places[turned], v[turned] = before[turned], -v[turned]
            return places, v

        return advance


@checked
def load_inertial_model(path: str | Path) -> InertialModel:
    """Read what `InertialModel.save` wrote.

    Raises:
        InputError: there is no such file, or it holds no model with inertia.
    """
    stored = load_arrays(Path(path))
    try:
        over = ReducedModel.of_stored(stored, INERTIAL_FORMAT)
        tensors = (np.asarray(stored[name], dtype=float) for name in ("velocity_covariance", "friction"))
        return InertialModel.of(over, *tensors)
    except (InputError, ValueError, KeyError, IndexError, TypeError):
        raise InputError(f"{path} holds no model with inertia: give a file that InertialModel.save wrote") from None


@dataclass(frozen=True, eq=False)
class _FreeFlow:
    """A step of Langevin dynamics without a force, exact (Ermak & Buckholz 1980, doi 10.1016/0021-9991(80)90084-4).

    In coordinates in which V is one and the friction diagonal, each on its own.

    Attributes:
        modes: shape=(d, d), columns, of velocities.
        inverse: of these.
        decay: shape=(d,).
        reach: shape=(d,), ps, that a velocity of one comes.
        noise: shape=(3, d), of the velocity, of the way that goes with it, and of the way alone.
    """

    modes: FloatArray
    inverse: FloatArray
    decay: FloatArray
    reach: FloatArray
    noise: FloatArray

    @classmethod
    def of(cls, model: InertialModel, time_step: float) -> "_FreeFlow":
        root = np.linalg.cholesky(model.velocity_covariance)
        friction = np.linalg.solve(root, model.friction @ root)
        rates, turned = np.linalg.eigh(0.5 * (friction + friction.T))
        modes, x = root @ turned, rates * time_step
        fall = -np.expm1(-x)
        of_velocity = fall * (2 - fall)
        # 2 x - 3 + 4 exp(-x) - exp(-2 x), of which the first terms cancel at low friction
        of_way = np.where(x > 0.01, 2 * x - 2 * fall - fall**2, 2 * x**3 / 3 - x**4 / 2) / rates**2
        velocity = np.sqrt(of_velocity)
        both = fall**2 / rates / velocity
        noise = np.array([velocity, both, np.sqrt((of_way - both**2).clip(min=0.0))])
        return cls(modes, np.linalg.inv(modes), np.exp(-x), fall / rates, noise)

    def __call__(self, v: FloatArray, normals: FloatArray) -> tuple[FloatArray, FloatArray]:
        """How far copies come, and velocities then, shape=(n, d) each; with normal numbers, shape=(2, n, d)."""
        before = v @ self.inverse.T
        one, other = normals
        after = self.decay * before + self.noise[0] * one
        moved = self.reach * before + self.noise[1] * one + self.noise[2] * other
        return moved @ self.modes.T, after @ self.modes.T


@dataclass(frozen=True, eq=False)
class InertialFit:
    """A model with inertia, and how well it explains the runs that it was fitted to.

    Attributes:
        model: the model.
        misfit: root mean square difference of means and covariances of displacements, in standard errors: one of a
            right model.
        deviation: root mean square relative difference of the variances, their scatter taken off.
        lags: shape=(m,), ps, at which displacements were compared.
        left: share of the runs that left the domain, of the label with most, less one standard error.
        failed: share of the runs that blew up, likewise.
    """

    model: InertialModel
    misfit: float
    deviation: float
    lags: FloatArray
    left: float
    failed: float

    @property
    def explains(self) -> bool:
        """Whether the model has the moments of the runs."""
        return self.misfit <= MOST_MISFIT and self.deviation <= MOST_DEVIATION

    def doubts(self) -> list[str]:
        """Sentences, why it is not to be trusted."""
        doubts = doubts_of_runs(self.left, self.failed)
        if not self.explains:
            doubts.append(
                f"the model with inertia does not explain the runs (moments differ by {self.misfit:.1f} standard "
                f"errors, variances by {self.deviation:.0%}): the coordinates are not slow alone, or their friction or "
                "mass is not the same everywhere"
            )
        return doubts


def _moments(runs: Displacements, times: list[int]) -> tuple[FloatArray, FloatArray]:
    """Means and half covariances of displacements at times, and their errors: shape=(n_times, d + d (d + 1) / 2)."""
    values, errors = list[FloatArray](), list[FloatArray]()
    lower = np.tril_indices(runs.displacements.shape[2])
    for time in times:
        parts = [runs.mean(part) for part in runs.squares(time)]
        values.append(np.concatenate([parts[0][0], parts[1][0][lower]]))
        errors.append(np.concatenate([parts[0][1], parts[1][1][lower]]))
    return np.array(values), np.array(errors)


def _tensor(logs: FloatArray, d: int) -> FloatArray:
    """A positive definite tensor of its Cholesky factor, whose diagonal is given by logarithms."""
    root = np.zeros((d, d))
    root[np.tril_indices(d)] = logs
    root[np.diag_indices(d)] = np.exp(np.diag(root))
    return root @ root.T


def _logarithms(tensor: FloatArray) -> FloatArray:
    root = np.asarray(np.linalg.cholesky(tensor), dtype=float)
    root[np.diag_indices(len(root))] = np.log(np.diag(root))
    return root[np.tril_indices(len(root))]


@dataclass(frozen=True, eq=False)
class _Fitter:
    """Compares runs of models with those that were made.

    Attributes:
        grid: with the free energy.
        starts: shape=(n, d), of simulated runs, label by label.
        ends: where each label's begin, but the first's.
        times: numbers of frames at which displacements are compared.
        steps: from frame to frame.
        interval: ps from frame to frame.
        seed: of simulations.
    """

    grid: ReducedModel
    starts: FloatArray
    ends: IntArray
    times: list[int]
    steps: int
    interval: float
    seed: int

    def model(self, parameters: FloatArray) -> InertialModel:
        """Of logarithms and off-diagonal elements of the factors of V and of Gamma V."""
        d = len(self.grid.names)
        covariance, strength = (_tensor(part, d) for part in np.split(parameters, 2))
        return InertialModel.of(self.grid, covariance, strength @ np.linalg.inv(covariance))

    def moments(self, parameters: FloatArray) -> list[FloatArray]:
        """Of each label."""
        n_steps, step = self.steps * (self.times[-1] + 1), self.interval / self.steps
        frames = self.model(parameters).simulate(self.starts, n_steps, step, stride=self.steps, seed=self.seed)
        moved = wrap(frames - self.starts, self.grid.periods)
        parts = np.split(moved.transpose(1, 0, 2), self.ends)
        return [_moments(Displacements(part, np.full(len(part), 1 / len(part))), self.times)[0] for part in parts]


@checked
def fit_inertial_model(
    swarm: Swarm,
    slow: SlowCoordinates,
    labels: FloatArray,
    free_energy: FreeEnergySurface,
    *,
    log_weights: FloatArray | None = None,
    seed: int = 0,
) -> InertialFit:
    """Effective Langevin dynamics from runs that began at labels, with velocities of Maxwell and Boltzmann.

    Args:
        swarm: several runs of each label, from weighted lifts there.
        slow: one or two slow coordinates.
        labels: shape=(n, d), of the lifts that the runs began at.
        free_energy: over them, on a grid as fine as the model is to be.
        log_weights: shape=(n,), of these lifts; equal by default.
        seed: of simulations.

    Raises:
        InputError: too few runs of a label, labels that are not those of the starts, runs of which all left the domain,
            or a surface over coordinates in other units or in another order.
    """
    check_surface_axes(free_energy, slow)
    runs = RunsByLabel.of(swarm, slow, labels, log_weights)
    found, groups = runs.labels, runs.groups
    d, times = len(slow.names), swarm.times[1:]
    grid = ReducedModel.of_surface(free_energy, np.eye(d))
    chosen = sorted({round(x) for x in np.linspace(1, len(times), N_LAGS + 1)[1:] - 1})
    measured = [_moments(group, chosen) for group in groups]
    # at first also what oscillates fast moves a label, later on what is slow alone
    early, later = (
        np.mean([group.squares(i)[1].mean(axis=0) for group in groups], axis=0) * 2 / times[i] ** 2
        for i in (0, chosen[0])
    )
    counts, interval = np.array([COPIES * len(group.weights) for group in groups]), float(times[0])
    steps = max(1, int(np.ceil(interval / longest_step(grid, early))))
    starts = np.repeat(found, counts, axis=0)
    fitter = _Fitter(grid, starts, np.cumsum(counts)[:-1], chosen, steps, interval, seed)
    widened = np.sqrt(1 + 1 / COPIES)

    def residuals(parameters: FloatArray) -> FloatArray:
        pairs = zip(measured, fitter.moments(parameters), strict=True)
        return np.concatenate([((value - other) / (widened * error)).ravel() for (value, error), other in pairs])

    def fit(start: FloatArray, trials: int) -> Any:
        return least_squares(residuals, start, diff_step=PROBED, x_scale=1.0, max_nfev=trials, loss="soft_l1")

    first = [np.concatenate([_logarithms(v), _logarithms(v * 4 / times[-1])]) for v in (early, later)]
    best = min((fit(start, FIRST_TRIALS) for start in first), key=lambda one: float(one.cost))
    fitted = fit(best.x, MOST_TRIALS)
    return InertialFit(
        model=fitter.model(fitted.x),
        misfit=float(np.sqrt((fitted.fun**2).mean())),
        deviation=_deviation(measured, fitter.moments(fitted.x), widened, d),
        lags=times[chosen],
        left=runs.left,
        failed=runs.failed,
    )


def _deviation(
    measured: list[tuple[FloatArray, FloatArray]], of_model: list[FloatArray], widened: float, d: int
) -> float:
    """Root mean square relative difference of variances, their scatter taken off."""
    diagonal = [d + i * (i + 3) // 2 for i in range(d)]
    squares = [
        (other / value - 1)[:, diagonal] ** 2 - (widened * error / value)[:, diagonal] ** 2
        for (value, error), other in zip(measured, of_model, strict=True)
    ]
    return float(np.sqrt(max(0.0, np.concatenate(squares).mean())))


def longest_step(model: ReducedModel, covariance: FloatArray) -> float:
    """ps: of a simulation, a fraction of the fastest oscillation in a well, and of the way through the domain.

    Args:
        model: the free energy.
        covariance: shape=(d, d), of velocities.
    """
    low, fastest = np.where(model.energy < 6.0, model.energy, np.nan), 0.0
    for axis, spacing in enumerate(model.spacings):
        curvature = np.gradient(np.gradient(low, spacing, axis=axis), spacing, axis=axis)
        stiffest = np.nanquantile(np.abs(curvature), 0.95) if np.isfinite(curvature).any() else 0.0
        fastest = max(fastest, float(np.sqrt(covariance[axis, axis] * stiffest)))
    spans = np.array([np.ptp(axis) for axis in model.edges])
    through = float((spans / np.sqrt(np.diag(covariance))).min())
    return min(PHASE / fastest if fastest > 0 else np.inf, FARTHEST * through)
