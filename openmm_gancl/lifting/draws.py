"""Draws of generators with a density: exactly weighted for one evaluation each.

``log w = -beta U(x) + log J(y) + 0.5 log det Z(x) - log q(y | s)``, minus infinity outside the chart or the declared
state, has ``E[w | s] = exp(-beta F(s))``, with F the free energy per unit of s: no restraint and no relaxation.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..engine.serialization import serialized
from ..engine.tasks import Workers
from ..errors import InputError, checked
from ..generator.invertible import InvertibleGenerator
from ..reference.chart import Chart
from ..reference.gradients import log_density_gradients
from ..system.molecular_system import MolecularSystem
from ..units import BoolArray, FloatArray, IntArray, numbers
from .evaluation import evaluate
from .stored_rows import Rows, StoredRows, join_rows

STREAMED = ("coordinates", "gradients")
"""Arrays that of many draws are in files."""

MAX_REDUCED_ENERGY = 1e6
"""kT above the median of all: a clash."""


@dataclass(frozen=True, eq=False)
class Draws:
    """Weighted draws at n labels.

    Attributes:
        coordinates: shape=(n, n_coordinates), of the chart; the labels are among them. Of many draws, like the
            gradients, in files.
        labels: shape=(n, d).
        log_density: shape=(n,), log q(y | s) of what each was drawn from.
        log_label_density: shape=(n,), log p(s) of what each label was drawn from.
        log_target: shape=(n,), ``-beta U + log J + 0.5 log det Z``; minus infinity where the reason is not ``ok``.
        gradients: shape=(n, n_coordinates), of the log target; zero where it is minus infinity.
        reason: shape=(n,), one of `openmm_gancl.lifting.lifts.REASONS`.
        round: shape=(n,), in which each was drawn.
        evaluations: shape=(n,), of the real potential that each cost.
    """

    coordinates: Rows
    labels: FloatArray
    log_density: FloatArray
    log_label_density: FloatArray
    log_target: FloatArray
    gradients: Rows
    reason: NDArray[np.str_]
    round: IntArray
    evaluations: IntArray

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def log_weights(self) -> FloatArray:
        """log w, shape=(n,)."""
        return self.log_target - self.log_density

    @property
    def force_evaluations(self) -> int:
        """Of all."""
        return int(self.evaluations.sum())

    def put(self, rows: IntArray, others: "Draws") -> "Draws":
        """With other draws in place of some.

        Args:
            rows: shape=(m,), of which.
            others: m draws.
        """
        changed = {}
        for part in fields(self):
            changed[part.name] = getattr(self, part.name).copy()
            changed[part.name][rows] = getattr(others, part.name)
        return replace(self, **changed)

    def select(self, which: Any) -> "Draws":
        """The draws of a mask or of indices."""
        return replace(self, **{part.name: getattr(self, part.name)[which] for part in fields(self)})


def join_draws(parts: Sequence[Draws]) -> Draws:
    """Several draws as one."""
    names = [part.name for part in fields(Draws)]
    return Draws(**{name: join_rows([getattr(part, name) for part in parts]) for name in names})  # type: ignore[arg-type]


def in_files(draws: Draws, folder: Path, number: int) -> Draws:
    """The same draws with coordinates and gradients in files of a folder."""
    parts: dict[str, Any] = {}
    for name in STREAMED:
        path = folder / f"{name}-{number:04d}.npy"
        np.save(path, np.asarray(getattr(draws, name)))
        parts[name] = StoredRows([path])
    return replace(draws, **parts)


def save_draws(draws: Draws, path: Path) -> None:
    """Write all of them as one npz file; what is in files already stays there."""
    arrays: dict[str, Any] = {part.name: getattr(draws, part.name) for part in fields(Draws)}
    np.savez(path, **{name: array for name, array in arrays.items() if not isinstance(array, StoredRows)})


def load_draws(path: Path) -> Draws:
    """Read what `save_draws` wrote, with the files beside it."""
    with np.load(path, allow_pickle=False) as stored:
        arrays: dict[str, Any] = dict(stored.items())
    for name in STREAMED:
        if name not in arrays:
            arrays[name] = StoredRows(sorted(path.parent.glob(f"{name}-*.npy")))
    return Draws(**arrays)


def mixture_log_density(
    generators: Sequence[InvertibleGenerator], shares: FloatArray, coordinates: FloatArray
) -> FloatArray:
    """Log density of a mixture of generators at coordinates, shape=(n,).

    Args:
        generators: frozen.
        shares: shape=(n_generators,), positive, of sum one.
        coordinates: shape=(n, n_coordinates), inside the chart.
    """
    terms = [np.log(share) + one.log_density(coordinates) for one, share in zip(generators, shares, strict=True)]
    with np.errstate(invalid="ignore"):
        return np.asarray(np.logaddexp.reduce(terms, axis=0))


@checked
def draw(
    system: MolecularSystem,
    generators: Sequence[InvertibleGenerator],
    shares: FloatArray,
    labels: FloatArray,
    rng: np.random.Generator,
    *,
    log_label_density: FloatArray | None = None,
    round_number: int = 0,
    platform: str = "Reference",
    workers: Workers = 1,
    progress: Callable[[int], None] | None = None,
) -> Draws:
    """Draw once at each label from a mixture of generators, and weigh.

    Args:
        system: the real system.
        generators: of one chart.
        shares: shape=(n_generators,), the probability of each.
        labels: shape=(n, d).
        rng: of all that is drawn.
        log_label_density: shape=(n,), log p(s), recorded; zero by default.
        round_number: recorded.
        platform: an OpenMM platform.
        workers: local processes, or an executor.
        progress: called with the number of evaluations made, as they are made.
    """
    labels, shares = numbers(labels), numbers(shares)
    if labels.ndim != 2 or labels.shape[1] != len(generators[0].slow.names) or not np.isfinite(labels).all():
        raise InputError(f"labels have shape {labels.shape}: give finite numbers of shape (n, d)")
    if shares.shape != (len(generators),) or not (shares >= 0).all() or abs(shares.sum() - 1.0) > 1e-9:
        raise InputError(f"shares are {shares}: give one for each of {len(generators)} generators, one in all")
    coordinates, inside = _sampled(generators, shares, labels, rng)
    log_density = np.zeros(len(labels))
    log_density[inside] = mixture_log_density(generators, shares, coordinates[inside])
    found = weigh_coordinates(
        system,
        generators[0].chart,
        coordinates,
        labels,
        log_density,
        inside,
        platform=platform,
        workers=workers,
        progress=progress,
    )
    recorded = np.zeros(len(labels)) if log_label_density is None else log_label_density
    return replace(found, log_label_density=recorded, round=np.full(len(labels), round_number))


def draw_base(
    system: MolecularSystem,
    generator: InvertibleGenerator,
    base: FloatArray,
    labels: FloatArray,
    *,
    platform: str = "Reference",
    workers: Workers = 1,
    progress: Callable[[int], None] | None = None,
) -> Draws:
    """What given base numbers draw at labels, weighed.

    Args:
        system: the real system.
        generator: of the draws.
        base: shape=(n, n_base).
        labels: shape=(n, d).
        platform: an OpenMM platform.
        workers: local processes, or an executor.
        progress: called with the number of evaluations made, as they are made.
    """
    coordinates, log_density = generator.transform(base, labels)
    inside = generator.inside(coordinates)
    return weigh_coordinates(
        system,
        generator.chart,
        coordinates,
        labels,
        log_density,
        inside,
        platform=platform,
        workers=workers,
        progress=progress,
    )


def weigh_draws(draws: Draws, log_weights: FloatArray) -> Draws:
    """Draws with the weights of the paths that led to them; minus infinity stays so.

    Args:
        draws: at the ends of their paths.
        log_weights: shape=(n,), log w of the paths.
    """
    ok = np.isfinite(log_weights)
    log_target = np.where(ok, draws.log_target, -np.inf)
    return replace(draws, log_density=np.where(ok, np.where(ok, log_target, 0.0) - log_weights, 0.0))


def weigh_coordinates(
    system: MolecularSystem,
    chart: Chart,
    coordinates: FloatArray,
    labels: FloatArray,
    log_density: FloatArray,
    inside: BoolArray,
    *,
    platform: str,
    workers: Workers = 1,
    progress: Callable[[int], None] | None = None,
) -> Draws:
    """Coordinates of known density, drawn or of frames, for one evaluation each.

    Args:
        system: the real system.
        chart: of the coordinates.
        coordinates: shape=(n, n_coordinates).
        labels: shape=(n, d), among them.
        log_density: shape=(n,), log q(y | s).
        inside: shape=(n,), which may have a weight; the others are not evaluated.
        platform: an OpenMM platform.
        workers: local processes, or an executor.
        progress: called with the number of evaluations made, as they are made.
    """
    if chart.constraints != system.constraints:
        raise InputError(f"{system.name} has other constraints than the generator: train one for these")
    log_target, gradients, reason = log_targets(system, chart, coordinates, inside, platform, workers, progress)
    wrong = (reason == "ok") & ~np.isfinite(log_density)
    return Draws(
        coordinates=coordinates,
        labels=labels,
        log_density=np.where(wrong, 0.0, log_density),
        log_label_density=np.zeros(len(labels)),
        log_target=np.where(wrong, -np.inf, log_target),
        gradients=np.where(wrong[:, None], 0.0, gradients),
        reason=np.where(wrong, "nan", reason),
        round=np.zeros(len(labels), dtype=np.int64),
        evaluations=inside.astype(np.int64),
    )


def _sampled(
    generators: Sequence[InvertibleGenerator], shares: FloatArray, labels: FloatArray, rng: np.random.Generator
) -> tuple[FloatArray, BoolArray]:
    """Coordinates, each from one of the generators, and which of them that generator finds again."""
    coordinates = np.empty((len(labels), generators[0].chart.n_coordinates))
    inside = np.zeros(len(labels), dtype=bool)
    choice = rng.choice(len(generators), len(labels), p=shares)
    for i, generator in enumerate(generators):
        if (chosen := choice == i).any():
            coordinates[chosen], _ = generator.sample(labels[chosen], rng)
            inside[chosen] = generator.inside(coordinates[chosen])
    return coordinates, inside


def log_targets(
    system: MolecularSystem,
    chart: Chart,
    coordinates: FloatArray,
    inside: BoolArray,
    platform: str,
    workers: Workers = 1,
    progress: Callable[[int], None] | None = None,
) -> tuple[FloatArray, FloatArray, NDArray[np.str_]]:
    """``-beta U + log J + 0.5 log det Z`` of coordinates, its gradients, and why it is minus infinity.

    Args:
        system: the real system.
        chart: of the coordinates.
        coordinates: shape=(n, n_coordinates).
        inside: shape=(n,), which are in the chart; the others are not evaluated.
        platform: an OpenMM platform.
        workers: local processes, or an executor.
        progress: called with the number of evaluations made, as they are made.

    Returns:
        log target, shape=(n,); gradients, shape=(n, n_coordinates), zero where it is minus infinity; reason,
        shape=(n,), one of `openmm_gancl.lifting.lifts.REASONS`.
    """
    n = len(coordinates)
    positions = np.full((n, chart.n_atoms, 3), np.nan)
    positions[inside] = chart.to_cartesian(coordinates[inside])
    xml = serialized(system.system)
    energies, forces = evaluate(xml, positions, platform, workers=workers, progress=progress)
    log_target = -energies / system.kT + chart.log_jacobian(coordinates)
    log_target[inside] += system.constraints.log_fixman(positions[inside], system.masses)
    finite = np.isfinite(log_target) & np.isfinite(forces).all(axis=(1, 2))
    # of the middle one: a single absurdly low energy must not make clashes of all others
    typical = np.median(log_target[finite]) if finite.any() else -np.inf
    in_state = np.zeros(n, dtype=bool)
    in_state[inside] = system.state.inside(positions[inside])
    checks = [
        (~inside, "outside"),
        (~finite, "nan"),
        (~(log_target > typical - MAX_REDUCED_ENERGY), "clash"),
        (~in_state, "state"),
    ]
    reason = np.select([mask for mask, _ in checks], [name for _, name in checks], default="ok")
    ok, gradients = reason == "ok", np.zeros(coordinates.shape)
    gradients[ok] = log_density_gradients(
        chart, coordinates[ok], forces[ok], system.kT, system.constraints, system.masses
    )
    return np.where(ok, log_target, -np.inf), gradients, reason
