"""What a stage of a run works with: system, folder, settings and progress; and the lifts and windows it computes."""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from ..coordinates.slow_coordinates import SlowCoordinates, Torsions
from ..engine.random_numbers import Name, named_rng, named_seed
from ..generator.model import LiftingModel
from ..generator.torsion_windows import restrain_torsions, wide_torsions
from ..learning.learned_labels import LearnedLabels, load_labels
from ..lifting.label_proposals import KernelProposal, LabelProposal
from ..lifting.lifter import Lifter
from ..lifting.lifts import Lifts, Mode, evaluations_of_paths
from ..lifting.relaxation import TASK_SIZE
from ..lifting.surface import Progress
from ..sampling.frames import Frames, load_frames, stored_evaluations
from ..sampling.langevin import evaluations_of_windows
from ..sampling.windows import WINDOWS_PER_TASK, sample_windows
from ..system.molecular_system import MolecularSystem
from ..units import FloatArray
from .folder import RunFolder
from .options import RunOptions, Settings

EQUILIBRATION_STEPS = 1000

WINDOW_WIDTH = 0.3
"""Standard deviation of a restraint on learned coordinates, whose own is one."""

TORSION_WIDTH = 0.12
"""Radians: standard deviation of a restraint on a torsion."""


class Reporter(Protocol):
    """How a run reports its progress."""

    def step(self, title: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        """A piece of work; the callable takes how much of it is done."""
        ...

    def note(self, message: str) -> None:
        """One sentence."""
        ...


class TaskCounter:
    """Counts finished tasks and what they cost, so that the effort of a killed attempt is known."""

    def __init__(self, folder: RunFolder, cost: int, done: Callable[[int], None]):
        self.folder, self.cost, self.done, self.finished = folder, cost, done, 0

    def __call__(self) -> None:
        """One more task is finished."""
        self.finished += 1
        self.folder.spend(self.cost)
        self.done(self.finished)

    def settle(self, force_evaluations: int) -> None:
        """All are finished, and this is what they cost."""
        self.folder.spend(force_evaluations - self.cost * self.finished)


@dataclass(frozen=True, eq=False)
class Run:
    """What a stage needs to know.

    Attributes:
        system: the system.
        folder: the run folder, locked.
        options: as given.
        settings: the numbers that follow.
        platform: the OpenMM platform, chosen once.
        workers: local processes.
        reporter: of progress and notes.
    """

    system: MolecularSystem
    folder: RunFolder
    options: RunOptions
    settings: Settings
    platform: str
    workers: int
    reporter: Reporter

    def seed(self, *name: Name) -> int:
        """The seed of one call: a pure function of the run's seed and the call's name."""
        return named_seed(self.options.seed, "run", *name)

    def rng(self, *name: Name) -> np.random.Generator:
        """The random generator of a stream of this name."""
        return named_rng(self.options.seed, "run", *name)

    @contextmanager
    def tasks(self, title: str, n_tasks: int, cost: int) -> Iterator["TaskCounter"]:
        """Report finished tasks of about ``cost`` force evaluations each."""
        with self.reporter.step(title, n_tasks) as done:
            yield TaskCounter(self.folder, cost, done)

    @contextmanager
    def parts(self, title: str) -> Iterator[Progress]:
        """Report finished parts of a computation that says how many there are."""
        with self.reporter.step(title, 100) as done:
            yield lambda finished, n: done(100 * finished // n)

    @cached_property
    def learned_labels(self) -> LearnedLabels | None:
        """Of the slow stage; None where the labels are the card's."""
        if self.options.slow == "torsions":
            return None
        return load_labels(self.folder.file("slow", "labels.npz"))

    @cached_property
    def labelled_system(self) -> MolecularSystem:
        """The system with the labels that the generator is trained at."""
        learned = self.learned_labels
        return self.system if learned is None else self._over(learned.slow, WINDOW_WIDTH)

    @cached_property
    def lifting_system(self) -> MolecularSystem:
        """The system with the coordinates that lifts are restrained in."""
        if self.options.restrained != "torsions" or self.learned_labels is None:
            return self.labelled_system
        frames = load_frames(self.folder.file("sample", "frames.npz"))
        return self._over(wide_torsions(self.system, self.learned_labels.slow, frames.positions), TORSION_WIDTH)

    def _over(self, slow: SlowCoordinates, width: float) -> MolecularSystem:
        force_constants = np.full(len(slow.names), self.system.kT / width**2)
        return replace(self.system, slow=slow, force_constants=force_constants, basins=())

    def windows(self, model: LiftingModel, labels: FloatArray, seed: int) -> tuple[LiftingModel, FloatArray]:
        """The model to lift with, and labels for it: windows over torsions, if these are restrained."""
        torsions = self.lifting_system.slow
        if self.options.restrained != "torsions" or not isinstance(torsions, Torsions):
            return model, labels
        return restrain_torsions(model, torsions, labels, seed)

    def training_frames(self) -> Frames:
        """Frames with the labels that the generator is trained at."""
        frames, learned = load_frames(self.folder.file("sample", "frames.npz")), self.learned_labels
        if learned is None:
            return frames
        return replace(
            frames,
            labels=KernelProposal.around_frames(learned, learned.widths).blur(self.seed("train", "label kernels")),
            cv_values=learned.centres,
        )

    def train_report(self) -> dict[str, Any]:
        """What the train stage recorded."""
        return dict(json.loads(self.folder.file("train", "report.json").read_text()))

    @property
    def card_surface(self) -> str:
        """Name of the surface over the card's labels where others are lifted at: fes_phi_psi."""
        return "_".join(["fes", *self.system.slow.names])

    def evaluations_before_lifts(self) -> int:
        """Force evaluations of the sample and train stages, redone work left out."""
        parts = [stored_evaluations(self.folder.file("sample", f"{name}.npz")) for name in ("frames", "held_out")]
        return int(self.train_report()["force_evaluations"]) + sum(parts)

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
            platform=self.platform,
            workers=self.workers,
        )

    def lift(self, lifter: Lifter, title: str, labels: FloatArray, seed: int) -> Lifts:
        """One lift of each label."""
        cost = evaluations_of_paths(TASK_SIZE, lifter.protocol.relax_steps)
        with self.tasks(title, -(-len(labels) // TASK_SIZE), cost) as tick:
            lifts = lifter.lift(labels, seed=seed, progress=tick)
            tick.settle(lifts.force_evaluations)
            return lifts


def restrained_windows(
    run: Run,
    title: str,
    system: MolecularSystem,
    n: int,
    steps: int,
    n_frames: int,
    seed: int,
    labels: FloatArray | None = None,
    starts: FloatArray | None = None,
) -> Frames:
    """Frames of n windows, scattered or at labels of the system."""
    cost = evaluations_of_windows(WINDOWS_PER_TASK, EQUILIBRATION_STEPS + steps)
    with run.tasks(title, -(-n // WINDOWS_PER_TASK), cost) as tick:
        frames = sample_windows(
            system,
            labels,
            starts=starts,
            n_windows=n,
            steps_per_window=steps,
            frames_per_window=n_frames,
            equilibration_steps=EQUILIBRATION_STEPS,
            seed=seed,
            platform=run.platform,
            workers=run.workers,
            progress=tick,
        )
        tick.settle(frames.force_evaluations)
        return frames
