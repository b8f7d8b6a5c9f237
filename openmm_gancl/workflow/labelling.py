"""Which labels a run has, where its lifts go, which surface places them, and how they are checked."""

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Protocol

import numpy as np

from ..coordinates.slow_coordinates import SlowCoordinates, Torsions
from ..errors import InputError
from ..free_energy.grid import bin_indices
from ..free_energy.surface import FreeEnergySurface
from ..generator.model import LiftingModel
from ..generator.torsion_windows import restrain_torsions, wide_torsions
from ..learning.learned_labels import LearnedLabels, load_labels
from ..lifting.label_proposals import KernelProposal, LabelProposal, fit_label_encoder
from ..lifting.lifter import Lifter
from ..lifting.lifts import Lifts, Mode, evaluations_of_paths
from ..lifting.relaxation import TASK_SIZE
from ..lifting.surface import Progress, analyse_lifts, in_turn, surface_from_ends, weighted_ends
from ..sampling.frames import Frames, load_frames
from ..sampling.labels import scattered_labels, spread
from ..system.molecular_system import MolecularSystem
from ..units import BoolArray, FloatArray, IntArray, thermal_energy
from .context import Run, restrained_windows

PLACEMENT_CEILING, CHECK_CEILING = 12.0, 7.0
"""kT above the minimum: where lifts go, and where labels are checked against real frames."""

PLACEMENT_BINS = 36
"""A coordinate: coarser than the surface of the result, and several times faster."""

LABEL_PILOTS = 512
"""Free lifts by which the deviation of ends from learned labels is estimated."""

LABEL_WINDOWS = 1024
"""Windows of a round that learned labels are lifted at, at most."""


WINDOW_WIDTH = 0.3
"""Standard deviation of a restraint on learned coordinates, whose own is one."""

TORSION_WIDTH = 0.12
"""Radians: standard deviation of a restraint on a torsion."""


@dataclass(frozen=True, eq=False)
class Labelling:
    """Which labels the generator of a run is trained at, and which coordinates its lifts are restrained in.

    Attributes:
        run: the run.
    """

    run: Run

    @cached_property
    def learned(self) -> LearnedLabels | None:
        """Of the slow stage; None where the labels are the card's."""
        if self.run.options.slow == "torsions":
            return None
        return load_labels(self.run.folder.file("slow", "labels.npz"))

    @cached_property
    def system(self) -> MolecularSystem:
        """The system with the labels that the generator is trained at."""
        learned = self.learned
        return self.run.system if learned is None else self._over(learned.slow, WINDOW_WIDTH)

    @cached_property
    def lifting_system(self) -> MolecularSystem:
        """The system with the coordinates that lifts are restrained in."""
        if self.run.options.restrained != "torsions" or self.learned is None:
            return self.system
        frames = load_frames(self.run.folder.file("sample", "frames.npz"))
        return self._over(wide_torsions(self.run.system, self.learned.slow, frames.positions), TORSION_WIDTH)

    def _over(self, slow: SlowCoordinates, width: float) -> MolecularSystem:
        force_constants = np.full(len(slow.names), self.run.system.kT / width**2)
        return replace(self.run.system, slow=slow, force_constants=force_constants, basins=())

    def windows(self, model: LiftingModel, labels: FloatArray, seed: int) -> tuple[LiftingModel, FloatArray]:
        """The model to lift with, and labels for it: windows over torsions, if these are restrained."""
        torsions = self.lifting_system.slow
        if self.run.options.restrained != "torsions" or not isinstance(torsions, Torsions):
            return model, labels
        return restrain_torsions(model, torsions, labels, seed)

    def training_frames(self) -> Frames:
        """Frames with the labels that the generator is trained at."""
        frames, learned = load_frames(self.run.folder.file("sample", "frames.npz")), self.learned
        if learned is None:
            return frames
        return replace(
            frames,
            labels=KernelProposal.around_frames(learned, learned.widths).blur(self.run.seed("train", "label kernels")),
            cv_values=learned.centres,
        )

    def lifter(
        self,
        model: LiftingModel,
        relax_steps: int,
        mode: Mode = "restrained",
        label_proposal: LabelProposal | None = None,
    ) -> Lifter:
        """A Lifter on this run's platform; with a label prior of its own its lifts are relaxed without a restraint."""
        system = self.lifting_system
        return Lifter(
            system,
            model,
            relax_steps=relax_steps,
            force_constants=None if label_proposal is None else np.zeros(len(system.slow.names)),
            mode=mode,
            label_proposal=label_proposal,
            platform=self.run.platform,
            workers=self.run.workers,
        )


@lru_cache(maxsize=1)
def labelling_of(run: Run) -> Labelling:
    """The one of a run, which keeps what it has read."""
    return Labelling(run)


class Plan(Protocol):
    """What the rounds of lifts need."""

    evaluations: int
    """Force evaluations other than those of lifts and check paths: of pilots, and of windows for the check."""

    def round(self, surface: FreeEnergySurface | None, n: int, number: int) -> tuple[Lifter, FloatArray]:
        """Lifter and labels of the next round, by its number, placed by the surface of those before."""
        ...

    def surface(self, lifts: Lifts, progress: Progress) -> FreeEnergySurface:
        """Over the card's labels, coarse, to place lifts by; progress is called with finished parts."""
        ...

    def check(self, surface: FreeEnergySurface) -> tuple[Lifts, Lifts]:
        """Lifts, and reverse relaxations of real frames, at the same labels."""
        ...


class _Checked:
    """The check of restrained lifts against real frames of restrained windows."""

    def __init__(self, run: Run, model: LiftingModel, relax_steps: int):
        self.run, self.model, self.relax_steps = run, model, relax_steps
        self.labelling = labelling_of(run)
        self.evaluations = 0

    def compare(self, model: LiftingModel, frames: Frames) -> tuple[Lifts, Lifts]:
        """Lifts at the labels of frames, and reverse relaxations of those frames."""
        run = self.run
        lifter = self.labelling.lifter(model, self.relax_steps)
        labels = np.unique(frames.labels, axis=0)
        repeated = np.repeat(labels, run.settings.n_check_lifts, axis=0)
        forward = run.lift(lifter, "check: lifts", repeated, run.seed("lift", "check", "lifts"))
        cost = evaluations_of_paths(TASK_SIZE, self.relax_steps)
        with run.tasks("check: reverse", -(-len(frames) // TASK_SIZE), cost) as tick:
            reverse = lifter.reverse(
                frames.positions, frames.labels, seed=run.seed("lift", "check", "reverse"), progress=tick
            )
            tick.settle(reverse.force_evaluations)
        return forward, reverse

    def nothing(self) -> tuple[Lifts, Lifts]:
        """No lifts, where no label could be checked."""
        system = self.labelling.lifting_system
        none = Lifts.empty(system.slow, system.force_constants, system.temperature, self.relax_steps)
        return none, none


def place_labels(
    surface: FreeEnergySurface, slow: SlowCoordinates, n: int, *, ceiling: float, rng: np.random.Generator
) -> FloatArray:
    """Labels scattered evenly where the free energy, less one error bar, lies below a ceiling.

    Args:
        surface: what is known so far; unknown bins count as low only where a neighbour is.
        slow: the slow coordinates.
        n: how many labels.
        ceiling: kT above the minimum.
        rng: of the scatter.

    Returns:
        shape=(n, d).
    """
    limit = ceiling * thermal_energy(surface.temperature)
    error = np.where(np.isfinite(surface.error), surface.error, 0.0)
    wanted = (surface.energy - error < limit).ravel()
    if not wanted.any():
        raise InputError("the surface is nowhere below the ceiling: raise the ceiling")
    n_tried = n
    while True:
        labels = scattered_labels(slow, n_tried, rng)
        inside = labels[wanted[bin_indices(labels, surface.edges, surface.periods)]]
        if len(inside) >= n:
            return inside[:n]
        n_tried *= 2


class GridPlan(_Checked):
    """Labels over the whole domain, then where the surface is low."""

    def round(self, surface: FreeEnergySurface | None, n: int, number: int) -> tuple[Lifter, FloatArray]:
        """See `Plan.round`."""
        slow, free, rng = self.run.system.slow, self.run.options.unrestrained, self.run.rng("lift", "labels", number)
        lifter = self.labelling.lifter(self.model, self.relax_steps, "unrestrained" if free else "restrained")
        if free:
            return lifter, lifter.label_proposal.sample(n, rng)
        if surface is None:
            return lifter, scattered_labels(slow, n, rng)
        return lifter, place_labels(surface, slow, n, ceiling=PLACEMENT_CEILING, rng=rng)

    def surface(self, lifts: Lifts, progress: Progress) -> FreeEnergySurface:
        """See `Plan.surface`."""
        return analyse_lifts(lifts, bins=PLACEMENT_BINS, progress=progress).surface

    def check(self, surface: FreeEnergySurface) -> tuple[Lifts, Lifts]:
        """See `Plan.check`; at held-out windows, far apart where the surface is low, with frames enough."""
        frames = load_frames(self.run.folder.file("sample", "held_out.npz"))
        windows, first, counts = np.unique(frames.window, return_index=True, return_counts=True)
        enough = counts >= self.run.settings.n_check_frames // 2
        chosen = _low_and_far(self.run, surface, frames.labels[first], frames.labels[first], enough)
        if not len(chosen):
            return self.nothing()
        return self.compare(self.model, frames.select(np.isin(frames.window, windows[chosen])))


class LearnedPlan(_Checked):
    """Learned labels near those of training frames, then near those of frames where the surface is low."""

    def __init__(self, run: Run, model: LiftingModel, relax_steps: int, labels: LearnedLabels):
        super().__init__(run, model, relax_steps)
        self.labels = labels
        self.frames = load_frames(run.folder.file("sample", "frames.npz"))
        self.encoder_widths = labels.widths
        if run.options.unrestrained:
            lifter = self._free_lifter(None)
            requested = lifter.label_proposal.sample(
                min(LABEL_PILOTS, run.settings.n_first), run.rng("lift", "pilots", "labels")
            )
            pilots = run.lift(lifter, "pilots", requested, run.seed("lift", "pilots"))
            self.encoder_widths = fit_label_encoder(labels, requested[pilots.ok], pilots.cv_values[pilots.ok])
            self.evaluations = pilots.force_evaluations

    def _free_lifter(self, which: BoolArray | None) -> Lifter:
        prior = KernelProposal.around_frames(self.labels, self.encoder_widths, which)
        return self.labelling.lifter(self.model, self.relax_steps, "unrestrained", label_proposal=prior)

    def _low(self, surface: FreeEnergySurface | None) -> BoolArray:
        """Training frames where the surface is low, or unknown; all of them for a chain, which needs one p(s)."""
        if surface is None or self.run.options.chain:
            return np.ones(len(self.frames), dtype=bool)
        energies = surface.energy_at(self.frames.cv_values) / self.run.system.kT
        return (energies < PLACEMENT_CEILING) | ~np.isfinite(energies)

    def round(self, surface: FreeEnergySurface | None, n: int, number: int) -> tuple[Lifter, FloatArray]:
        """See `Plan.round`."""
        low, rng = self._low(surface), self.run.rng("lift", "labels", number)
        if self.run.options.unrestrained:
            lifter = self._free_lifter(low)
            return lifter, lifter.label_proposal.sample(n, rng)
        labels = KernelProposal.around_frames(self.labels, self.labels.widths, low).sample(min(LABEL_WINDOWS, n), rng)
        model, windows = self.labelling.windows(self.model, labels, self.run.seed("lift", "windows", number))
        return self.labelling.lifter(model, self.relax_steps), windows[np.arange(n) % len(windows)]

    def surface(self, lifts: Lifts, progress: Progress) -> FreeEnergySurface:
        """See `Plan.surface`."""
        slow, ends = self.run.system.slow, weighted_ends(lifts, in_turn(progress, 0, 2))
        return surface_from_ends(
            ends,
            slow.transform(lifts.positions[lifts.ok]),
            slow,
            temperature=lifts.temperature,
            force_evaluations=lifts.force_evaluations,
            bins=PLACEMENT_BINS,
            progress=in_turn(progress, 1, 2),
        )

    def check(self, surface: FreeEnergySurface) -> tuple[Lifts, Lifts]:
        """See `Plan.check`; windows of their own, restrained at learned labels far apart where the surface is low."""
        run, s = self.run, self.run.settings
        anywhere = np.ones(len(self.frames), dtype=bool)
        chosen = _low_and_far(run, surface, self.frames.cv_values, self.labels.centres, anywhere)
        if not len(chosen):
            return self.nothing()
        model, windows = self.labelling.windows(
            self.model, self.labels.centres[chosen], run.seed("lift", "check", "windows")
        )
        frames = restrained_windows(
            run,
            "sampling for the check",
            self.labelling.lifting_system,
            len(chosen),
            s.held_out_steps,
            s.n_check_frames,
            run.seed("lift", "check", "frames"),
            labels=windows,
            starts=self.frames.positions[chosen],
        )
        self.evaluations += frames.force_evaluations
        return self.compare(model, frames)


def _low_and_far(
    run: Run, surface: FreeEnergySurface, places: FloatArray, labels: FloatArray, usable: BoolArray
) -> IntArray:
    """Indices of a few places, shape=(n, c) in the card's labels, low on the surface, whose labels lie far apart."""
    energies = surface.energy_at(places) / run.system.kT
    energies[~usable] = np.inf
    order = np.argsort(energies, kind="stable")
    order = order[energies[order] < CHECK_CEILING]
    if not len(order):
        return order
    slow = labelling_of(run).system.slow
    return order[spread(labels[order], slow.periods, np.ptp(slow.domain, axis=1), run.settings.n_check_labels)]


def plan_of(run: Run, model: LiftingModel, relax_steps: int) -> Plan:
    """The plan for the labels of a run."""
    labels = labelling_of(run).learned
    return GridPlan(run, model, relax_steps) if labels is None else LearnedPlan(run, model, relax_steps, labels)
