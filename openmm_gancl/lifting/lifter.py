"""Lift: propose, relax, weigh, accept; forward for lifts, in reverse for the check against real frames.

``log w = -beta (H_1 - H_0 - Q) + log J(x0) + log Z_ref + log r(z | x, s) - log p(z | s)``, and the Fixman term of
constraints at x0, is the exact importance weight of one lift: ``mean(w)`` over all lifts, the failed ones included, is
the configurational integral of the restrained (or unrestrained) real potential, at any step count, step size and
generator.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Literal, get_args

import numpy as np

from ..coordinates.slow_coordinates import checked_constants, checked_labels
from ..engine.packing import Copies
from ..engine.platforms import PlatformChoice, resolved_platform
from ..engine.random_numbers import named_rng, openmm_seed
from ..engine.serialization import serialized
from ..engine.tasks import Workers, run_tasks
from ..engine.threads import torch_threads
from ..errors import InputError
from ..generator.density_reference import DensityReference
from ..generator.invertible import InvertibleGenerator
from ..generator.model import LiftingModel
from ..sampling.langevin import maxwell_boltzmann
from ..sampling.own_frames import hydrogens_in_order
from ..system.molecular_system import MolecularSystem
from ..units import FloatArray, numbers, whole_number
from .fixed_lifts import FixedLifter, on_device_of
from .label_proposals import LabelProposal, UniformProposal
from .latent_relaxation import LatentMoves, choose_moves, choose_step
from .lifts import Lifts, Mode, join_lifts
from .packed_relaxation import copies_of_lifts, run_packed
from .proposals import Proposals, propose, propose_density, propose_reverse
from .relaxation import TASK_SIZE, Relaxed, Relaxer, RelaxProtocol, RelaxTask, relax
from .requirements import check_exact
from .weights import weigh

Relax = Literal["none", "latent", "context", "auto"]

PATH_MODES = ("restrained", "unrestrained")
"""Of lifts that move in a Context."""

RELAX_STEPS, N_MOVES = 500, 10
"""Steps in a Context, and moves of base numbers, where nothing is said."""


def _relaxation(relax: str | None, model: LiftingModel | InvertibleGenerator) -> Relax:
    """How lifts of a model are relaxed, where nothing is said, or `auto`, too."""
    if relax is not None and relax not in get_args(Relax):
        raise InputError(f"relax is {relax!r}: choose {', '.join(get_args(Relax))}")
    if isinstance(model, InvertibleGenerator):
        return next(one for one in get_args(Relax) if one == (relax or "none"))
    if relax not in (None, "context", "auto"):
        raise InputError(
            f"the product generator knows no density of its lifts, so relax={relax!r} is not for it: leave it out, or "
            "give an invertible generator"
        )
    return "context"


def _of_tasks(progress: Callable[[], None] | None) -> Callable[[int], None] | None:
    """Called with evaluations, where tasks are asked for."""
    return None if progress is None else lambda _: progress()


class Lifter:
    """Draws exactly weighted lifts of a system with a generator.

    Guarantee: each lift's weight is exact, whatever the generator's training: ``mean(w)`` is unbiased, also for the
    discretised dynamics of relaxations in a Context (Nilmeier et al. 2011, doi 10.1073/pnas.1106094108).

    ==========  ===================================================================  ==================================
    ``relax``   how                                                                  lifts, and what one costs
    ==========  ===================================================================  ==================================
    none        drawn, and that is all (invertible generators)                       fixed labels; one evaluation
    latent      moves of base numbers (invertible generators)                        fixed labels; one more each move
    context     morphed from the generator's own potential into the real one in an   restrained or unrestrained labels;
                OpenMM Context (every generator)                                     ``relax_steps + 2``
    auto        invertible: latent where a pilot finds moves clearly better an       as chosen
                evaluation, else none; product: context
    ==========  ===================================================================  ==================================

    Args:
        system: the real system.
        model: an invertible generator, or a lifting model of independent terms (the product generator).
        relax: see the table; none for an invertible generator and context for a product one by default.
        relax_steps: steps of each relaxation in a Context, 500 by default, or moves of base numbers, 10 by default.
        time_step: ps; the system's own by default. Like all that follow, but the last four, of a Context alone.
        friction: 1/ps; the system's own by default.
        force_constants: shape=(d,); the system's own by default; zeros leave unrestrained lifts free on their way.
        schedule: shape=(relax_steps + 1,), the kick list from 0 to 1; linear by default.
        mode: ``restrained`` (each label its own free energy) or ``unrestrained`` (labels drawn too; product alone).
        label_proposal: p(s) and r(s | x) of unrestrained lifts; uniform over the domain by default.
        packed: lifts side by side in one Context; by default many on a graphics card, where the System can be packed,
            and one elsewhere, which is faster there; but 32 wherever a restraint of learned labels, and 128 wherever an
            invertible generator, would cost each a call of torch a step.
        platform: an OpenMM platform, or ``auto`` to measure.
        workers: local processes, or an executor.

    Attributes:
        pilot_evaluations: what pilots of moves have cost so far; no lift counts them.

    Raises:
        InputError: the model does not fit the system, the System has no exact lifts, an option has no meaning for the
            relaxation, or a number that cannot be.
    """

    def __init__(
        self,
        system: MolecularSystem,
        model: LiftingModel | InvertibleGenerator,
        *,
        relax: Relax | None = None,
        relax_steps: int | None = None,
        time_step: float | None = None,
        friction: float | None = None,
        force_constants: FloatArray | None = None,
        schedule: FloatArray | None = None,
        mode: Mode | None = None,
        label_proposal: LabelProposal | None = None,
        platform: str = "auto",
        workers: Workers = 1,
        packed: Copies = "auto",
    ):
        if not isinstance(system, MolecularSystem) or not isinstance(model, LiftingModel | InvertibleGenerator):
            given = f"{type(system).__name__} and {type(model).__name__}"
            raise InputError(f"given are {given}: give a system (gancl.load_system) and a model (gancl.load_model)")
        self.relax = _relaxation(relax, model)
        model.check_system(system)
        check_exact(system, model.chart)
        self.system, self.model, self.workers = system, model, workers
        self.platform = resolved_platform(platform, system.system, system.positions)
        if isinstance(workers, int):
            PlatformChoice.read(self.platform).check_here()
        self.pilot_evaluations, self._moves = 0, LatentMoves(0, 0.0) if self.relax == "none" else None
        if self.relax == "context":
            self._set_path(relax_steps, time_step, friction, schedule)
            self._set_target(force_constants, mode, label_proposal, packed)
            return
        of_paths = {
            "time_step": time_step,
            "friction": friction,
            "force_constants": force_constants,
            "schedule": schedule,
            "mode": mode,
            "label_proposal": label_proposal,
            "packed": None if packed == "auto" else packed,
            "relax_steps": None if self.relax == "latent" else relax_steps,
        }
        for name, value in of_paths.items():
            if value is not None:
                raise InputError(f"`{name}` has no meaning with relax={self.relax!r}: leave it out")
        self.mode: Mode = "fixed"
        self._n_moves = whole_number("relax_steps", N_MOVES if relax_steps is None else relax_steps)

    def _set_path(
        self, relax_steps: int | None, time_step: float | None, friction: float | None, schedule: FloatArray | None
    ) -> None:
        system, relax_steps = self.system, RELAX_STEPS if relax_steps is None else relax_steps
        self.protocol = RelaxProtocol.linear(
            relax_steps,
            system.time_step if time_step is None else time_step,
            system.friction if friction is None else friction,
            system.temperature,
        )
        if schedule is not None:
            kicks = numbers(schedule)
            if kicks.shape != (relax_steps + 1,) or not np.isfinite(kicks).all():
                raise InputError(
                    f"the schedule has {kicks.size} kicks, {int(np.isfinite(kicks).sum())} of them numbers: give "
                    f"relax_steps + 1 = {relax_steps + 1}"
                )
            self.protocol = replace(self.protocol, schedule=kicks)

    def _set_target(
        self,
        force_constants: FloatArray | None,
        mode: Mode | None,
        label_proposal: LabelProposal | None,
        packed: Copies,
    ) -> None:
        system, model = self.system, self.model
        self.mode = "restrained" if mode is None else mode
        self.force_constants = checked_constants(
            system.force_constants if force_constants is None else force_constants, system.slow
        )
        if self.mode not in PATH_MODES:
            raise InputError(f"mode is {mode!r}: choose {' or '.join(PATH_MODES)}")
        self._density: DensityReference | None = None
        if isinstance(model, InvertibleGenerator):
            if self.mode != "restrained" or label_proposal is not None:
                raise InputError(
                    "lifts of an invertible generator in a Context are restrained: leave `mode` and `label_proposal` "
                    "out"
                )
            self._density = DensityReference(model, system.kT, self.force_constants)
        else:
            self.model = on_device_of(model, self.platform)
        torch_a_step = self._density is not None
        self.packed = copies_of_lifts(
            packed, system.system, system.slow, self.force_constants, self.platform, torch_a_step
        )
        self._system_xml = serialized(system.system)
        self.label_proposal = label_proposal or UniformProposal(system.slow, self.force_constants, system.kT)
        if self.mode == "unrestrained" and isinstance(self.label_proposal, UniformProposal):
            self.label_proposal.check_normalisable()

    def lift(self, labels: FloatArray, *, seed: int, progress: Callable[[], None] | None = None) -> Lifts:
        """One lift of each label.

        Args:
            labels: shape=(n, d), radians or nm; repeat a label for several lifts of it. Unrestrained: drawn from
                `label_proposal`.
            seed: the same seed gives the same lifts, whatever the workers; how many are packed changes their noise, and
                moves are those that a pilot found at the first labels.
            progress: called once for each finished task, of 32 lifts in a Context.
        """
        labels = checked_labels(labels, self.system.slow)
        if self.relax != "context":
            return self._fixed.lift(labels, self._moves_at(labels, seed), seed=seed, progress=_of_tasks(progress))
        return self._run([labels[i : i + TASK_SIZE] for i in range(0, len(labels), TASK_SIZE)], None, seed, progress)

    def reverse(
        self,
        positions: FloatArray,
        labels: FloatArray,
        *,
        seed: int,
        progress: Callable[[], None] | None = None,
    ) -> Lifts:
        """Relax real frames back to the generator: ``E[1/w] = 1/mean(w)`` if the lifts see what is real.

        Args:
            positions: shape=(n, n_atoms, 3), nm: equilibrium frames of the lift's own target, inside the state.
            labels: shape=(n, d), the label whose restrained ensemble each frame belongs to; ignored in
                unrestrained mode, where labels are drawn from r(s | x), and where labels are fixed: each frame has its
                own, and compares with lifts there.
            seed: as for `lift`.
            progress: as for `lift`.
        """
        labels, positions = checked_labels(labels, self.system.slow), numbers(positions)
        if positions.shape != (len(labels), self.system.n_atoms, 3):
            raise InputError(
                f"positions have shape {positions.shape}: give ({len(labels)}, {self.system.n_atoms}, 3), a label each"
            )
        if not self.system.state.inside(positions).all():
            raise InputError("some frames lie outside the declared state: drop them before a reverse relaxation")
        if self.relax != "context":
            moves = self._moves_at(self.system.slow.transform(positions), seed)
            return self._fixed.reverse(positions, moves, seed=seed, progress=_of_tasks(progress))
        if self._density is not None:
            positions, _ = hydrogens_in_order(self.system, positions)
        starts = range(0, len(labels), TASK_SIZE)
        frames = [positions[i : i + TASK_SIZE] for i in starts]
        return self._run([labels[i : i + TASK_SIZE] for i in starts], frames, seed, progress)

    @property
    def _fixed(self) -> FixedLifter:
        assert isinstance(self.model, InvertibleGenerator)
        return FixedLifter(self.system, self.model, self.platform, self.workers)

    def _moves_at(self, labels: FloatArray, seed: int) -> LatentMoves:
        """Of base numbers: none, or what a pilot finds at the first labels; lifts and frames have the same."""
        assert isinstance(self.model, InvertibleGenerator)
        if self._moves is None:
            rng, on = named_rng(seed, "lift", "pilot"), {"platform": self.platform}
            if self.relax == "auto":
                self._moves, cost = choose_moves(self.system, self.model, labels, rng, **on)
            else:
                step, cost = choose_step(self.system, self.model, labels, rng, **on)
                self._moves = LatentMoves(self._n_moves, step)
            self.pilot_evaluations += cost
        return self._moves

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
        relaxed = run(tasks, workers=self.workers, progress=progress)
        return join_lifts([self._weigh(*one, result) for one, result in zip(prepared, relaxed, strict=True)])

    @property
    def _relax(self) -> Callable[[RelaxTask], Relaxed]:
        """In a Context that the tasks of a process share, where the noise of one is the same in it."""
        return Relaxer() if self.platform == "Reference" else relax

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
        if self._density is not None:
            proposals, runnable = propose_density(self._density, labels, frames, rng)
        elif frames is None:
            assert isinstance(model, LiftingModel)
            proposals = propose(model, labels, self.force_constants, kT, rng)
            runnable = model.chart.inside(proposals.coordinates)
        else:
            assert isinstance(model, LiftingModel)
            if self.mode == "unrestrained":
                labels = self.label_proposal.sample_encoder(system.slow.transform(frames), rng)
            proposals = propose_reverse(model, frames, labels, self.force_constants, kT, rng)
            runnable = np.ones(len(frames), dtype=bool)
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
            positions=model.chart.to_cartesian(proposals.coordinates) if frames is None else frames,
            velocities=maxwell_boltzmann(system.masses, len(labels), kT, rng),
            runnable=runnable,
            density=self._density,
        )
        return task, proposals
