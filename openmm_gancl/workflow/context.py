"""What a stage of a run works with: system, folder, settings and progress; and the lifts and windows it computes."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..engine.random_numbers import Name, named_rng, named_seed
from ..engine.tasks import Workers
from ..files import load_json
from ..free_energy.surface import surface_name
from ..lifting.lifter import Lifter
from ..lifting.lifts import Lifts, evaluations_of_paths
from ..lifting.relaxation import TASK_SIZE
from ..lifting.surface import Progress
from ..sampling.frames import Frames, stored_evaluations
from ..sampling.langevin import evaluations_of_windows
from ..sampling.windows import WINDOWS_PER_TASK, sample_windows
from ..system.molecular_system import MolecularSystem
from ..units import FloatArray
from .folder import RunFolder
from .options import LoopSettings, RunOptions, Settings

EQUILIBRATION_STEPS = 1000


class Reporter(Protocol):
    """How a run reports its progress."""

    def step(self, title: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        """A piece of work; the callable takes how much of it is done."""
        ...

    def note(self, message: str) -> None:
        """One sentence."""
        ...


@dataclass(frozen=True)
class Stage:
    """One stage of a run.

    Attributes:
        name: of its folder.
        work: writes its files into a folder.
        results: names of those that are copied to the top of the run folder.
        accept: takes the folder of the finished stage, before the next one is asked for.
    """

    name: str
    work: Callable[[Path], None]
    results: tuple[str, ...] = ()
    accept: Callable[[Path], None] = lambda _: None


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
        numbers: that follow from the options.
        platform: the OpenMM platform, chosen once.
        workers: local processes, or an executor.
        reporter: of progress and notes.
    """

    system: MolecularSystem
    folder: RunFolder
    options: RunOptions
    numbers: Settings | LoopSettings
    platform: str
    workers: Workers
    reporter: Reporter

    @property
    def settings(self) -> Settings:
        """Of a run whose lifts are relaxed."""
        assert isinstance(self.numbers, Settings)
        return self.numbers

    @property
    def loop_settings(self) -> LoopSettings:
        """Of a run of the closed loop."""
        assert isinstance(self.numbers, LoopSettings)
        return self.numbers

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
    def evaluations(self, title: str, n: int) -> Iterator[None]:
        """Report about n force evaluations as they are spent; none for a fit."""
        with self.reporter.step(title, max(n, 1)) as done:
            with self.folder.watched(lambda spent: done(min(spent, n))):
                yield
            done(max(n, 1))

    @contextmanager
    def parts(self, title: str) -> Iterator[Progress]:
        """Report finished parts of a computation that says how many there are."""
        with self.reporter.step(title, 100) as done:
            yield lambda finished, n: done(100 * finished // n)

    def train_report(self) -> dict[str, Any]:
        """What the train stage recorded."""
        return dict(load_json(self.folder.file("train", "report.json")))

    @property
    def card_surface(self) -> str:
        """Name of the surface over the card's labels where others are lifted at: fes_phi_psi."""
        return surface_name(self.system.slow.names)

    def evaluations_before_lifts(self) -> int:
        """Force evaluations of the sample and train stages, redone work left out."""
        parts = [stored_evaluations(self.folder.file("sample", f"{name}.npz")) for name in ("frames", "held_out")]
        return int(self.train_report()["force_evaluations"]) + sum(parts)

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
