"""Lift: propose, relax, weigh, accept; forward for lifts, in reverse for the check against real frames.

``log w = -beta (H_1 - H_0 - Q) + log J(x0) + log Z_ref + log r(z | x, s) - log p(z | s)``, and the Fixman term of
constraints at x0, is the exact importance weight of one lift: ``mean(w)`` over all lifts, the failed ones included, is
the configurational integral of the restrained (or unrestrained) real potential, at any step count, step size and
generator.
"""

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial
from typing import get_args

import numpy as np
import openmm

from ..coordinates.slow_coordinates import checked_constants, checked_labels
from ..engine.packing import Copies
from ..engine.platforms import PlatformChoice, resolved_platform
from ..engine.random_numbers import named_rng, openmm_seed
from ..engine.tasks import run_tasks
from ..engine.threads import torch_threads
from ..errors import InputError
from ..generator.model import LiftingModel
from ..sampling.langevin import maxwell_boltzmann
from ..system.molecular_system import MolecularSystem
from ..units import FloatArray
from .label_proposals import LabelProposal, UniformProposal
from .lifts import Lifts, Mode, join_lifts
from .packed_relaxation import copies_of_lifts, run_packed
from .proposals import Proposals, propose, propose_reverse
from .relaxation import TASK_SIZE, Relaxed, Relaxer, RelaxProtocol, RelaxTask, relax
from .requirements import check_exact
from .weights import weigh


def _on_device_of(model: LiftingModel, platform: str) -> LiftingModel:
    """The model on the graphics card that the lifts relax on, where torch can use it."""
    import torch

    choice = PlatformChoice.read(platform)
    if choice.name != "CUDA" or not torch.cuda.is_available():
        return model
    device = int(choice.devices[0]) if choice.devices else 0
    # an executor's workers may have more devices than this machine
    return model.on(f"cuda:{device}") if device < torch.cuda.device_count() else model


class Lifter:
    """Draws exactly weighted lifts of a system with a lifting model.

    Guarantee: each lift's weight is exact for the discretised dynamics at hand; ``mean(w)`` is unbiased
    (Nilmeier et al. 2011, doi 10.1073/pnas.1106094108).

    Args:
        system: the real system.
        model: the lifting model.
        relax_steps: steps of each relaxation.
        time_step: ps; the system's own by default.
        friction: 1/ps; the system's own by default.
        force_constants: shape=(d,); the system's own by default; zeros leave unrestrained lifts free on their way.
        schedule: shape=(relax_steps + 1,), the kick list from 0 to 1; linear by default.
        mode: ``restrained`` (each label its own free energy) or ``unrestrained`` (labels drawn too).
        label_proposal: p(s) and r(s | x) of unrestrained lifts; uniform over the domain by default.
        platform: an OpenMM platform, or ``auto`` to measure.
        workers: local processes.
        executor: any `concurrent.futures.Executor` instead of local processes.
        packed: lifts side by side in one Context; by default many on a graphics card, where the System can be packed,
            and one elsewhere, which is faster there; but 32 wherever a restraint of learned labels would cost each a
            call of torch a step.

    Raises:
        InputError: the model does not fit the system, the System has no exact lifts, or a number that cannot be.
    """

    def __init__(
        self,
        system: MolecularSystem,
        model: LiftingModel,
        *,
        relax_steps: int = 500,
        time_step: float | None = None,
        friction: float | None = None,
        force_constants: FloatArray | None = None,
        schedule: FloatArray | None = None,
        mode: Mode = "restrained",
        label_proposal: LabelProposal | None = None,
        platform: str = "auto",
        workers: int = 1,
        executor: Executor | None = None,
        packed: Copies = "auto",
    ):
        if not isinstance(system, MolecularSystem) or not isinstance(model, LiftingModel):
            given = f"{type(system).__name__} and {type(model).__name__}"
            raise InputError(f"given are {given}: give a system (gancl.load_system) and a model (gancl.load_model)")
        if mode not in get_args(Mode):
            raise InputError(f"mode is {mode!r}: choose {' or '.join(get_args(Mode))}")
        model.check_system(system)
        check_exact(system, model.chart)
        self.system, self.mode = system, mode
        self.protocol = RelaxProtocol.linear(
            relax_steps,
            system.time_step if time_step is None else time_step,
            system.friction if friction is None else friction,
            system.temperature,
        )
        if schedule is not None:
            if len(schedule) != relax_steps + 1:
                raise InputError(f"the schedule has {len(schedule)} kicks: give relax_steps + 1 = {relax_steps + 1}")
            self.protocol = replace(self.protocol, schedule=np.asarray(schedule, dtype=float))
        self.force_constants = checked_constants(
            system.force_constants if force_constants is None else force_constants, system.slow
        )
        self.platform = resolved_platform(platform, system.system, system.positions)
        if executor is None:
            PlatformChoice.read(self.platform).check_here()
        self.model = _on_device_of(model, self.platform)
        self.packed = copies_of_lifts(packed, system.system, system.slow, self.force_constants, self.platform)
        self.workers, self.executor = workers, executor
        self._system_xml = openmm.XmlSerializer.serialize(system.system)
        self.label_proposal = label_proposal or UniformProposal(system.slow, self.force_constants, system.kT)
        if mode == "unrestrained" and isinstance(self.label_proposal, UniformProposal):
            self.label_proposal.check_normalisable()

    def lift(self, labels: FloatArray, *, seed: int, progress: Callable[[], None] | None = None) -> Lifts:
        """One lift of each label.

        Args:
            labels: shape=(n, d), radians or nm; repeat a label for several lifts of it. Unrestrained: drawn from
                `label_proposal`.
            seed: the same seed gives the same lifts, whatever the workers; how many are packed changes their noise.
            progress: called once for each finished task of 32 lifts.
        """
        labels = checked_labels(labels, self.system.slow)
        return self._run([labels[i : i + TASK_SIZE] for i in range(0, len(labels), TASK_SIZE)], None, seed, progress)

    def reverse(
        self,
        positions: FloatArray,
        labels: FloatArray,
        *,
        seed: int,
        progress: Callable[[], None] | None = None,
    ) -> Lifts:
        """Relax real frames back to the reference: ``E[1/w] = 1/mean(w)`` if the lifts see what is real.

        Args:
            positions: shape=(n, n_atoms, 3), nm: equilibrium frames of the lift's own target, inside the state.
            labels: shape=(n, d), the label whose restrained ensemble each frame belongs to; ignored in
                unrestrained mode, where labels are drawn from r(s | x).
            seed: as for `lift`.
            progress: as for `lift`.
        """
        labels = checked_labels(labels, self.system.slow)
        if not self.system.state.inside(positions).all():
            raise InputError("some frames lie outside the declared state: drop them before a reverse relaxation")
        starts = range(0, len(labels), TASK_SIZE)
        frames = [positions[i : i + TASK_SIZE] for i in starts]
        return self._run([labels[i : i + TASK_SIZE] for i in starts], frames, seed, progress)

    def _run(
        self,
        label_chunks: list[FloatArray],
        frames: list[FloatArray] | None,
        seed: int,
        progress: Callable[[], None] | None,
    ) -> Lifts:
        kind = "lift" if frames is None else "reverse"
        prepared = [
            self._prepare(chunk, None if frames is None else frames[i], named_rng(seed, kind, i))
            for i, chunk in enumerate(label_chunks)
        ]
        tasks = [task for task, _ in prepared]
        run = partial(run_tasks, self._relax) if self.packed == 1 else partial(run_packed, copies=self.packed)
        relaxed = run(tasks, workers=self.workers, executor=self.executor, progress=progress)
        return join_lifts([self._weigh(*one, result) for one, result in zip(prepared, relaxed, strict=True)])

    @property
    def _relax(self) -> Callable[[RelaxTask], Relaxed]:
        """In a Context that tasks share, where they run in this process and the noise of one is the same in it."""
        here = self.workers == 1 and self.executor is None
        return Relaxer() if here and self.platform == "Reference" else relax

    def run(
        self, relaxer: Relaxer, rng: np.random.Generator, labels: FloatArray, frames: FloatArray | None = None
    ) -> Lifts:
        """One task in a Context that stays: lifts of labels, or reverse relaxations of frames.

        Args:
            relaxer: keeps the Context; of this lifter alone.
            rng: of all that is drawn but the noise of the paths.
            labels: shape=(n, d), as for `lift` and `reverse`.
            frames: shape=(n, n_atoms, 3), nm.
        """
        task, proposals = self._prepare(labels, frames, rng)
        with torch_threads(1):
            return self._weigh(task, proposals, relaxer(task))

    def _weigh(self, task: RelaxTask, proposals: Proposals, relaxed: Relaxed) -> Lifts:
        label_proposal = self.label_proposal if self.mode == "unrestrained" else None
        return weigh(self.model, self.system, task, proposals, relaxed, label_proposal)

    def _prepare(
        self, labels: FloatArray, frames: FloatArray | None, rng: np.random.Generator
    ) -> tuple[RelaxTask, Proposals]:
        system, model, kT = self.system, self.model, self.system.kT
        if frames is None:
            proposals = propose(model, labels, self.force_constants, kT, rng)
            positions = model.chart.to_cartesian(proposals.coordinates)
            runnable = model.chart.inside(proposals.coordinates)
        else:
            if self.mode == "unrestrained":
                labels = self.label_proposal.sample_encoder(system.slow.transform(frames), rng)
            proposals = propose_reverse(model, frames, labels, self.force_constants, kT, rng)
            positions, runnable = frames, np.ones(len(frames), dtype=bool)
        task = RelaxTask(
            system_xml=self._system_xml,
            chart=model.chart,
            slow=system.slow,
            force_constants=self.force_constants,
            protocol=self.protocol,
            platform=self.platform,
            seed=openmm_seed(rng),
            reverse=frames is not None,
            labels=proposals.labels,
            parameters=proposals.parameters,
            positions=positions,
            velocities=maxwell_boltzmann(system.masses, len(labels), kT, rng),
            runnable=runnable,
        )
        return task, proposals
