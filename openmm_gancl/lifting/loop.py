"""The closed loop: frames, fit, draws, surface, labels where they matter, fit again on frames and draws.

Each round draws from a fixed mixture of all generators so far and keeps that density: its weights are unbiased given
the past, and the first, wide generator bounds their tails. Rounds are joined by shares that are fixed beforehand.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import logsumexp
from threadpoolctl import threadpool_limits

from ..engine.platforms import resolved_platform
from ..engine.random_numbers import named_rng, named_seed
from ..engine.serialization import serialized
from ..engine.tasks import Workers
from ..engine.threads import torch_threads
from ..errors import InputError, checked
from ..free_energy.grid import bin_centres
from ..free_energy.surface import FreeEnergySurface, grid_edges
from ..free_energy.weight_statistics import effective_sample_size
from ..generator.invertible import InvertibleGenerator
from ..generator.network_training import LEAST_STRUCTURES, with_network
from ..generator.score_fit import fit_triangular
from ..generator.trained_for import system_metadata
from ..reference.gradients import in_chart_frame, log_density_gradients
from ..sampling.own_frames import hydrogens_in_order
from ..sampling.short_windows import ForceFrames, ShortWindows, sample_short_windows, step_of_windows
from ..sampling.stability import check_dynamics
from ..system.bonds import check_lengths
from ..system.molecular_system import MolecularSystem
from ..units import BoolArray, FloatArray, numbers, whole_number
from .doubts import (
    doubts_about_coordinates,
    doubts_about_fit,
    doubts_about_rounds,
    doubts_about_size,
    doubts_about_weights,
    weight_being_discovered,
)
from .draws import Draws, draw, draw_base, in_files, join_draws
from .evaluation import evaluate
from .label_regression import LabelRegression, regression_of_mean_forces
from .latent_relaxation import LatentMoves, choose_moves, choose_step, lift_latent
from .learned import MAX_GRID_LABELS, Learned, marginal_surface
from .loop_coordinates import LoopCoordinates
from .loop_options import N_PILOT, LoopOptions
from .mean_forces import mean_forces, slopes_of
from .placement import GridPlacement, Placement, TreePlacement
from .requirements import why_not_exact
from .rounds import Round, RoundOfDraws, pooled_log_weights, regression_of, round_shares, was_relaxed
from .stored_rows import ROWS_AT_ONCE, blocks_of
from .wide_densities import (
    MAX_ROWS,
    WideRegressions,
    fit_wide_regressions,
    set_wide_densities,
    wide_log_densities,
    wide_regressions_of_mean_forces,
)

NEWEST_SHARE = 0.9
"""Of a round's draws, from the newest generator; the older ones share the rest."""

PLACEMENT_MARGINS = (6.0, 2.0, 0.0)
"""kT by which labels of each round go beyond the ceiling; later rounds like the last."""

LOG_TRUNCATION = 1.0
"""Of a draw's weight over its local mean, where it is a training frame: few of more weight are learned by heart."""

LEAST_TRAINING_WEIGHT = 1e-6
"""A draw that weighs less is no training frame."""

UNIFORM_SHARES = (0.3, 0.15, 0.05)
"""Of the wide torsions' densities in each round, shared among them; later rounds like the last.

A further mixture, in which 2 % of the draws have exactly one torsion drawn evenly, is the same as so much more share:
of three torsions at 0.05 it draws a mode that one of them never showed 1.382 times as often, a share of 0.07 1.383
times.
"""

MOST_TRAINING = 60_000
"""Draws that a fit sees; of more, so many by chance."""

FRAME_WEIGHTS = (1.0, 0.3, 0.3, 0.05)
"""Of a window's frame in each round's fit, a draw of average weight having one; later rounds like the last."""


DRAWS_OF_A_NETWORK = 3 * LEAST_STRUCTURES
"""Of which about a third counts."""

LEAST_PILOTED = 10_000
"""Evaluations of a round in which a pilot may choose moves, which costs some thousand."""

HOPED_FRACTION = 0.6
"""Effective draws to a draw, where a target error is asked for."""

FIRST = "rounds/00/frames"
"""The first step."""


def _of_round(values: tuple[float, ...], number: int) -> float:
    return values[min(number, len(values) - 1)]


@dataclass(frozen=True)
class Step:
    """One piece of the loop's work.

    Attributes:
        name: ``rounds/NN/frames``, ``rounds/NN/model``, ``rounds/NN/lifts``, ``model``, fitted to all, or
            ``lifts/NN``, drawn when that is there.
        compute: gives `ForceFrames`, an `InvertibleGenerator` or a `RoundOfDraws`; the loop stays as it was.
        accept: takes what was computed, now or in another process; the next step needs it.
        evaluations: that computing it takes, about.
        draws: whether it draws; ``compute`` may then be given a folder for what is too much for memory.
    """

    name: str
    compute: Callable[..., Any]
    accept: Callable[[Any], None]
    evaluations: int = 0
    draws: bool = False


@dataclass(frozen=True)
class _Structures:
    """What a generator is fitted to: coordinates, gradients of the log target, weights, shapes (n, ...)."""

    coordinates: FloatArray
    gradients: FloatArray
    weights: FloatArray


def windows_of(coordinates: LoopCoordinates, options: LoopOptions) -> ShortWindows:
    """The windows that a loop's first frames come from."""
    return options.windows_over(len(coordinates.conditions), step_of_windows(coordinates.system))


class Loop:
    """The closed loop as a series of steps, each of which may be stored and taken up again.

    Args:
        system: the real system.
        seed: of all random numbers.
        max_evaluations: of the real potential, windows and lost work included.
        target_error: kT; rounds end where the surface's median error bar is no larger, and draw what that takes.
        options: how evaluations are spent.
        platform: an OpenMM platform.
        workers: local processes, or an executor.
        progress: called with the number of evaluations made in a step, as they are made.
        more_draws: further rounds, which the last model draws from too; not counted in `max_evaluations`.
        n_frames: of the user, in place of windows; None for windows.

    Raises:
        InputError: labels that are no coordinates of a chart, or too few evaluations for a round, or for a network.
    """

    def __init__(
        self,
        system: MolecularSystem,
        *,
        seed: int,
        max_evaluations: int,
        target_error: float | None = None,
        options: LoopOptions = LoopOptions(),
        platform: str = "Reference",
        workers: Workers = 1,
        progress: Callable[[int], None] | None = None,
        more_draws: Sequence[int] = (),
        n_frames: int | None = None,
    ):
        self.system, self.seed, self.options = system, seed, options
        self.platform, self.workers, self.progress = platform, workers, progress
        self.target_error, self.more_draws = target_error, more_draws
        self.coordinates = LoopCoordinates.of(system, options.wide)
        self.max_evaluations = max_evaluations
        of_frames = self.windows.force_evaluations if n_frames is None else n_frames
        n_draws = options.n_draws(max_evaluations, of_frames)
        if options.network and sum(n_draws) < DRAWS_OF_A_NETWORK:
            least = max_evaluations - sum(n_draws) + DRAWS_OF_A_NETWORK
            raise InputError(
                f"`max_evaluations` {max_evaluations} leaves {sum(n_draws)} draws, too few to train a network: give at "
                f"least {least}, or `generator='triangular'`"
            )
        if options.relax == "latent" and len(n_draws) < 2:
            raise InputError(
                f"`max_evaluations` {max_evaluations} is one round, whose draws are not relaxed: allow more, or leave "
                "`relax` out"
            )
        self.generators: list[InvertibleGenerator] = []
        self.drawn: list[Draws] = []
        self.placements: list[Placement] = []
        self.regression: LabelRegression | None = None
        self.wide_regressions: WideRegressions | None = None
        self.history: list[Round] = []
        self.force_evaluations = 0

    @property
    def windows(self) -> ShortWindows:
        """That the first frames come from."""
        return windows_of(self.coordinates, self.options)

    def steps(self) -> Iterator[Step]:
        """The steps in order; each is accepted before the next one is asked for."""
        yield Step(FIRST, self._sample, self._accept_frames, self.windows.force_evaluations)
        left, rounds = sum(self.options.n_draws(self.max_evaluations, self.force_evaluations)), list[int]()
        while left > 0 and not self._reached_target():
            number, n = len(rounds), self._n_next(rounds, left)
            yield Step(f"rounds/{number:02d}/model", self._fit, self._accept_model)
            yield Step(f"rounds/{number:02d}/lifts", partial(self._draw, n), self._accept_round, n, draws=True)
            rounds.append(n)
            left -= n
        # for whoever draws next; what was drawn knows nothing of it
        yield Step("model", self._fit_with_network, self._accept_model)
        for number, n in enumerate(self.more_draws):
            compute = partial(self._draw, n, of_lifts=True)
            yield Step(f"lifts/{number:02d}", compute, self._accept_round, n, draws=True)

    def _reached_target(self) -> bool:
        """Whether the last round's median error is the target or less."""
        target = self.target_error
        return target is not None and bool(self.history) and self.history[-1].median_error <= target * self.system.kT

    def _n_next(self, rounds: Sequence[int], left: int) -> int:
        """Draws of the next round; on the way to a target error half of what the error so far asks for, if fewer.

        Errors go with the inverse root of the effective draws. Half: the next map is better than those before.
        """
        planned = self.options.next_draws(rounds, left)
        if self.target_error is None or not self.history:
            return planned
        effective = sum(one.effective_fraction * n for one, n in zip(self.history, rounds, strict=True))
        ratio = self.history[-1].median_error / (self.target_error * self.system.kT)
        asked = 0.5 * effective * (ratio**2 - 1.0) / HOPED_FRACTION
        least = max(self.options.n_first // 4, sum(rounds) // 8)
        return min(planned, max(round(asked), least)) if np.isfinite(asked) else planned

    def _sample(self) -> ForceFrames:
        """Of windows over labels and wide torsions, or that begin with the other components of particles anywhere."""
        sampled, reach = self.coordinates.restrained()
        components, rng = self.coordinates.other_components, named_rng(self.seed, "frames")
        return sample_short_windows(sampled, rng, self.windows, self.platform, self.progress, components, reach)

    def frames_of(self, positions: FloatArray, log_weights: FloatArray | None = None) -> ForceFrames:
        """Frames of the user's own in place of windows, for one evaluation each.

        Args:
            positions: shape=(n, n_atoms, 3), nm.
            log_weights: shape=(n,), equal by default.

        Raises:
            InputError: frames of other atoms or of another state, so many that nothing is left to draw, or none that
                OpenMM can evaluate.
        """
        positions = numbers(positions)
        log_weights = np.zeros(len(positions)) if log_weights is None else numbers(log_weights)
        expected = (len(log_weights), self.system.n_atoms, 3)
        if positions.shape != expected or not np.isfinite(positions).all():
            raise InputError(f"`frames` have shape {positions.shape}: give finite numbers of shape {expected}")
        if np.isnan(log_weights).any() or not np.isfinite(log_weights.max()):
            raise InputError("`log_weights` hold NaN or infinity, or all are minus infinity: give one number a frame")
        check_lengths(self.system.topology, self.system.system, positions)
        if not self.system.state.inside(positions).all():
            raise InputError("some `frames` lie outside the declared state: drop them")
        positions, _ = hydrogens_in_order(self.system, positions)
        self.options.n_draws(self.max_evaluations, len(positions))
        xml = serialized(self.system.system)
        _, forces = evaluate(xml, positions, self.platform, workers=self.workers, progress=self.progress)
        usable = np.isfinite(forces).all(axis=(1, 2))
        if not usable.any():
            raise InputError("OpenMM has no forces for any of the frames: see that they are of this system")
        # truncated: a frame that weighs more than hundred others would be the only one
        weights = np.exp(np.minimum(log_weights[usable] - logsumexp(log_weights[usable]) + np.log(usable.sum()), 4.6))
        labels = self.system.slow.transform(positions[usable])
        return ForceFrames(positions[usable], forces[usable], labels, weights, len(positions))

    def _accept_frames(self, frames: ForceFrames) -> None:
        self.coordinates = self.coordinates.seen_in(frames.positions)
        chart, system = self.coordinates.chart, self.system
        coordinates = chart.to_internal(frames.positions)
        forces = in_chart_frame(chart, frames.positions, frames.forces)
        gradients = log_density_gradients(chart, coordinates, forces, system.kT, system.constraints, system.masses)
        self.frames = _Structures(coordinates, gradients, frames.weights)
        self.force_evaluations += frames.force_evaluations

    def _training_structures(self) -> _Structures:
        """Frames, and all draws with their weights over the local mean, truncated: they train, and estimate nothing."""
        frames, number = self.frames, len(self.drawn)
        weights = frames.weights * _of_round(FRAME_WEIGHTS, number)
        if self.regression is None:
            return _Structures(frames.coordinates, frames.gradients, weights)
        past = join_draws(self.drawn)
        if self.wide_regressions is None:
            ratios = past.log_weights - self.regression.log_density(past.labels)
        else:
            ratios = past.log_weights + self._log_wide(past)[:, -1]
            ratios -= self.wide_regressions.log_density(past.coordinates[:, self.coordinates.conditions])
            relaxed = was_relaxed(past)
            ratios[relaxed] = past.log_weights[relaxed] - self.regression.log_density(past.labels[relaxed])
            # forces at a structure are right whatever its weight, which a poor first regression makes noise
            ratios = np.minimum(0.5 * ratios, 0.0)
        of_draws = np.exp(np.minimum(ratios, LOG_TRUNCATION))
        used = np.flatnonzero(of_draws > LEAST_TRAINING_WEIGHT)
        if len(used) > MOST_TRAINING:
            of_draws *= len(used) / MOST_TRAINING
            used = np.sort(named_rng(self.seed, "training", number).choice(used, MOST_TRAINING, replace=False))
        return _Structures(
            np.concatenate([frames.coordinates, past.coordinates[used]]),
            np.concatenate([frames.gradients, past.gradients[used]]),
            np.concatenate([weights, of_draws[used]]),
        )

    def _fit(self) -> InvertibleGenerator:
        """A generator fitted to frames and to all draws so far."""
        return self._fit_to(self._training_structures())

    def _fit_to(self, data: _Structures) -> InvertibleGenerator:
        chart, wide, slow = self.coordinates.chart, self.coordinates.wide, self.system.slow
        fitted = fit_triangular(chart, slow, data.coordinates, data.gradients, data.weights, wide)
        generator = InvertibleGenerator(fitted, chart, slow, system_metadata(self.system))
        if len(wide):
            regressions = self.wide_regressions or self._first_wide_regressions(generator)
            share = _of_round(UNIFORM_SHARES, len(self.drawn)) / len(wide)
            set_wide_densities(fitted, regressions, data.coordinates[:, self.coordinates.conditions], share)
        return generator

    def _fit_with_network(self) -> InvertibleGenerator:
        """A generator fitted to all so far, with a network on top if a pilot finds it better."""
        data, options = self._training_structures(), self.options.network
        plain, seed = self._fit_to(data), named_seed(self.seed, "network")
        if options is None:
            return plain
        try:
            made = with_network(plain, data.coordinates, data.gradients, data.weights, seed=seed, options=options)
        except InputError as error:  # too few structures of any weight, after all
            return replace(plain, metadata={**plain.metadata, "pilot": {"used": "triangular", "reason": str(error)}})
        found = dict(zip(("triangular", "gan"), self._pilot([plain, made]), strict=True))
        chosen = made if found["gan"] > found["triangular"] else plain
        record = {**found, "evaluations": 2 * N_PILOT, "used": "gan" if chosen is made else "triangular"}
        return replace(chosen, metadata={**chosen.metadata, "pilot": record})

    def _pilot(self, generators: Sequence[InvertibleGenerator]) -> list[float]:
        """Effective samples a draw of each, of draws that nothing else is made of.

        At the same labels of the next round, from the same base numbers: what differs is the generators, not luck.
        """
        labels = self.placement().sample(N_PILOT, named_rng(self.seed, "pilot", "labels"))
        base, found = generators[0].sample_base(N_PILOT, named_rng(self.seed, "pilot", "base")), []
        for one in generators:
            draws = draw_base(
                self.system,
                one,
                base,
                labels,
                platform=self.platform,
                workers=self.workers,
                progress=self.progress,
            )
            log_ratios, low = self.log_ratios(draws)
            found.append(effective_sample_size(log_ratios[low]) / max(int(low.sum()), 1))
        return found

    def _accept_model(self, generator: InvertibleGenerator) -> None:
        self.generators.append(generator)
        self.force_evaluations += generator.metadata.get("pilot", {}).get("evaluations", 0)

    def _first_wide_regressions(self, generator: InvertibleGenerator) -> WideRegressions:
        """Of the mean forces on frames."""
        slopes = mean_forces(generator, self.frames.coordinates, self.frames.gradients)
        return wide_regressions_of_mean_forces(
            self.system.slow, self.frames.coordinates[:, self.coordinates.conditions], slopes
        )

    def _shares(self, n_generators: int) -> FloatArray:
        """Of the generators of a round."""
        n_older = n_generators - 1
        return np.array([(1.0 - NEWEST_SHARE) / n_older] * n_older + [NEWEST_SHARE]) if n_older else np.ones(1)

    def _log_wide(self, draws: Draws) -> FloatArray:
        """Log density of the wide torsions in the mixtures that they were drawn from, shape=(n, n_wide)."""
        result = np.empty((len(draws), len(self.coordinates.wide)))
        for number in np.unique(draws.round):
            n = min(int(number) + 1, len(self.generators))
            for rows in blocks_of(draws.round == number):
                result[rows] = wide_log_densities(self.generators[:n], self._shares(n), draws.coordinates[rows])
        return result

    def placement(self) -> Placement:
        """Where the next round's labels are drawn from."""
        slow = self.system.slow
        if self.regression is None and len(self.coordinates.wide):
            log_density = self._first_wide_regressions(self.generators[0]).log_marginal
        elif self.regression is None:
            labels = self.frames.coordinates[:, self.coordinates.chart.label_indices]
            slopes = mean_forces(self.generators[0], self.frames.coordinates, self.frames.gradients)
            log_density = regression_of_mean_forces(slow, labels, slopes).log_density
        else:
            log_density = self.regression.log_density
        if len(slow.names) > MAX_GRID_LABELS:
            return TreePlacement.like(slow, log_density, named_rng(self.seed, "placement", len(self.drawn)))
        edges = grid_edges(slow)
        energies = -log_density(bin_centres(edges)).reshape([len(axis) - 1 for axis in edges])
        margin = _of_round(PLACEMENT_MARGINS, len(self.drawn))
        return GridPlacement.below(edges, energies, self.options.ceiling + margin)

    def _drawn_at(self, labels: FloatArray, rng: np.random.Generator, folder: Path | None) -> Draws:
        """From the mixture of all generators; of many, coordinates and gradients go into files as they are made."""
        parts = []
        for number, begin in enumerate(range(0, len(labels), ROWS_AT_ONCE)):
            part = draw(
                self.system,
                self.generators,
                self._shares(len(self.generators)),
                labels[begin : begin + ROWS_AT_ONCE],
                rng,
                platform=self.platform,
                workers=self.workers,
                progress=self.progress,
            )
            parts.append(part if folder is None else in_files(part, folder, number))
        return join_draws(parts)

    def _draw(self, n: int, folder: Path | None = None, *, of_lifts: bool = False) -> RoundOfDraws:
        """A round from the mixture of all generators so far, and the regressions with it.

        Draws that are relaxed come from the newest generator alone, and are fewer, unless it is their number that is
        given.
        """
        number, placement = len(self.drawn), self.placement()
        rng = named_rng(self.seed, "round", number)
        moves, cost = self._moves(placement, rng) if self._relaxes(n) else (LatentMoves(0, 0.0), 0)
        left = n if of_lifts else max((n - cost) // (moves.n + 1), 1)
        labels = placement.sample(left, rng)
        if moves.n:
            draws = lift_latent(
                self.system,
                self.generators[-1],
                labels,
                rng,
                moves,
                platform=self.platform,
                workers=self.workers,
                progress=self.progress,
            )
        else:
            draws = self._drawn_at(labels, rng, folder if len(labels) > ROWS_AT_ONCE else None)
        log_label_density = placement.log_density(labels)
        draws = replace(draws, log_label_density=log_label_density, round=np.full(len(labels), number))
        return self._regressions_with(draws, placement, cost)

    def _relaxes(self, n: int) -> bool:
        """Whether a round is relaxed, or a pilot may choose to; not the first, whose map knows frames alone."""
        relax = self.options.relax
        return len(self.drawn) > 0 and (relax == "latent" or (relax == "auto" and n >= LEAST_PILOTED))

    def _moves(self, placement: Placement, rng: np.random.Generator) -> tuple[LatentMoves, int]:
        """Of base numbers, from a pilot at labels of the round, and what that cost."""
        labels, generator = placement.sample(N_PILOT, rng), self.generators[-1]
        if self.options.relax == "auto":
            moves, cost = choose_moves(self.system, generator, labels, rng, platform=self.platform)
        else:
            step, cost = choose_step(self.system, generator, labels, rng, platform=self.platform)
            moves = LatentMoves(self.options.n_moves, step)
        if self.progress is not None:
            self.progress(cost)
        return moves, cost

    def _regressions_with(self, draws: Draws, placement: Placement, pilot_evaluations: int) -> RoundOfDraws:
        """Of all draws' weights and mean forces, each round with its share."""
        pooled, slow = join_draws([*self.drawn, draws]), self.system.slow
        slopes, shares = slopes_of(self.generators[-1], pooled), round_shares(pooled)
        regression = regression_of(slow, pooled, slopes, self.regression)
        if not len(self.coordinates.wide):
            return RoundOfDraws(draws, regression, placement, pilot_evaluations)
        start = self.wide_regressions or self._first_wide_regressions(self.generators[0])
        # wide torsions that moved have no density of their own any more
        rows = np.flatnonzero(~was_relaxed(pooled))[-MAX_ROWS:]
        drawn, conditions = pooled.select(rows), pooled.coordinates[rows][:, self.coordinates.conditions]
        log_wide = self._log_wide(drawn)
        wide = fit_wide_regressions(slow, conditions, drawn.log_weights, log_wide, slopes[rows], shares[rows], start)
        return RoundOfDraws(draws, regression, placement, pilot_evaluations, wide)

    def _accept_round(self, found: RoundOfDraws) -> None:
        self.drawn.append(found.draws)
        self.placements.append(found.placement)
        self.regression, self.wide_regressions = found.regression, found.wide_regressions
        self.force_evaluations += found.draws.force_evaluations + found.pilot_evaluations
        self.history.append(self._record())

    def surface(self) -> FreeEnergySurface:
        """The surface of the regression so far; over the first two labels of more."""
        assert self.regression is not None
        if len(self.system.slow.names) > MAX_GRID_LABELS:
            of_run = (self.system.temperature, self.force_evaluations)
            pooled = join_draws(self.drawn)
            return marginal_surface(self.generators[-1], pooled, self.placements, (0, 1), *of_run)
        return self.regression.surface(self.system.slow, self.system.temperature, self.force_evaluations)

    def _record(self) -> Round:
        """What the last round was worth."""
        ratios = self._ratios(self.drawn[-1])
        effective = ratios.sum() ** 2 / max((ratios**2).sum(), 1e-300) / len(ratios)
        moves = int(self.drawn[-1].evaluations.max(initial=1)) - 1
        try:
            median_error = self.surface().median_error
        except InputError:  # over many labels no bin may be known yet
            median_error = float("inf")
        return Round(self.force_evaluations, float(effective), float(ratios.mean()), median_error, moves)

    def doubts(self, check: FloatArray | None = None) -> Iterator[str]:
        """Where the result so far may be blind.

        Args:
            check: shape=(n_windows, n_frames, n), the coordinates that turn, of frames of a check.
        """
        newest = self._newest()
        yield from doubts_about_weights(
            self.coordinates.wide_names,
            newest.coordinates[:, self.coordinates.wide],
            pooled_log_weights(newest),
            self.coordinates.chart,
            self.coordinates.wide,
        )
        yield from doubts_about_rounds(self._ratios(self.drawn[-1]))
        everything = join_draws(self.drawn)
        log_ratios, low = self.log_ratios(everything)
        shares = round_shares(everything)[low]
        yield from doubts_about_fit(self.system.slow, everything.labels[low], np.exp(log_ratios[low]), shares)
        log_ratios, low = self.log_ratios(newest)
        effective = effective_sample_size(log_ratios[low])
        yield from doubts_about_size(len(self.coordinates.conditions), effective, int(low.sum()))
        yield from self.blind_spots(check)

    def _newest(self) -> Draws:
        """The newest rounds, with at least half of all draws: a last one of a few more lifts says little."""
        sizes = np.cumsum([len(one) for one in reversed(self.drawn)])
        return join_draws(self.drawn[-1 - int(np.searchsorted(sizes, 0.5 * sizes[-1])) :])

    def weight_being_discovered(self) -> float:
        """Share of the weight of the newest rounds in modes that few draws have found."""
        newest = self._newest()
        return weight_being_discovered(newest.coordinates[:, self.coordinates.wide], pooled_log_weights(newest))

    def blind_spots(self, check: FloatArray | None = None) -> Iterator[str]:
        """What is not looked for at all; see `doubts`."""
        shown = [] if check is None else self.coordinates.rings_in_both_forms(check)
        found = self.coordinates
        yield from doubts_about_coordinates(self.system, len(found.wide), found.n_combinations, self.windows.n, shown)

    def log_ratios(self, draws: Draws) -> tuple[FloatArray, BoolArray]:
        """Log-weights less the surface of all rounds, and which labels lie below the ceiling, shape=(n,) each."""
        assert self.regression is not None
        return self.regression.log_ratios(draws.labels, draws.log_weights, self.options.ceiling)

    def _ratios(self, draws: Draws) -> FloatArray:
        """Weights over the surface of all rounds, of draws at labels below the ceiling, shape=(n_low,)."""
        log_ratios, low = self.log_ratios(draws)
        return np.exp(log_ratios[low])

    def learned(self) -> Learned:
        """What all steps gave."""
        assert self.regression is not None
        return Learned(
            self.generators[-1],
            join_draws(self.drawn),
            self.regression,
            self.surface(),
            tuple(self.history),
            tuple(self.placements),
            tuple(self.doubts()),
        )


@checked
def learn(
    system: MolecularSystem,
    *,
    seed: int,
    frames: FloatArray | None = None,
    log_weights: FloatArray | None = None,
    max_evaluations: int = 35_000,
    target_error: float | None = None,
    options: LoopOptions = LoopOptions(),
    platform: str = "Reference",
    workers: Workers = 1,
    progress: Callable[[Round], None] | None = None,
) -> Learned:
    """Learn a generator and a free-energy surface of a system from its forces alone.

    Torsions that turn and are no labels (rotamers, hydroxyls), and components of labelled particles with several modes,
    have densities with a uniform share: every mode of theirs is proposed. So have torsions along rings that are not
    flat, which tell two forms of small rings apart. Other forms of rings, and modes of coordinates that windows show as
    one, are not looked for, and neither weights nor error bars can tell: see `Learned.doubts`.

    Args:
        system: the real system; its labels are torsions or particle components.
        seed: of all random numbers.
        frames: shape=(n, n_atoms, 3), nm, your own, in place of short windows; each costs one evaluation.
        log_weights: shape=(n,), of the frames; equal by default.
        max_evaluations: of the real potential, windows and lost work included.
        target_error: kT; rounds end where the surface's median error bar is no larger, and draw what that takes.
        options: how evaluations are spent.
        platform: an OpenMM platform, or ``auto`` to measure.
        workers: local processes, or an executor.
        progress: called after each round.

    Raises:
        InputError: a System without exact lifts, labels that are no coordinates of a chart, dynamics that cannot be
            stable, too few evaluations, or frames of no use.
    """
    if reason := why_not_exact(system.system, system.topology):
        raise InputError(reason)
    if frames is None:
        check_dynamics(system)
    max_evaluations = whole_number("max_evaluations", max_evaluations)
    platform = resolved_platform(platform, system.system, system.positions)
    # the same bytes whatever the cores: sums of several threads are added in another order
    with torch_threads(1), threadpool_limits(1, user_api="blas"):
        how: dict[str, Any] = {"platform": platform, "workers": workers, "options": options}
        if frames is not None:
            frames = numbers(frames)
            how["n_frames"] = frames.size // (3 * system.n_atoms)
        loop = Loop(system, seed=seed, max_evaluations=max_evaluations, target_error=target_error, **how)
        for step in loop.steps():
            if frames is not None and step.name == FIRST:
                step.accept(loop.frames_of(frames, log_weights))
            else:
                step.accept(step.compute())
            if progress is not None and step.name.endswith("lifts"):
                progress(loop.history[-1])
        return loop.learned()
