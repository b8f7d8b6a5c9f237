"""The train stage: generator and encoder, and the step count if it is to be measured."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from ...free_energy.weight_statistics import effective_sample_size
from ...generator.model import LiftingModel, with_encoder_of
from ...generator.training import train
from ...lifting.encoder import fit_encoder
from ...lifting.lifts import evaluations_of_paths
from ...lifting.relaxation import TASK_SIZE
from ...sampling.frames import Frames
from ...sampling.labels import spread
from ...units import FloatArray
from ..context import Run
from ..labelling import labelling_of
from ..options import PILOT_LABELS, PILOT_LIFTS, RELAX_CHOICES

ENCODER_LABELS = 16


def _low_windows(run: Run, frames: Frames, n: int) -> FloatArray:
    """Labels of windows far apart among the third with the lowest mean energies, shape=(n, d)."""
    windows, first, window = np.unique(frames.window, return_index=True, return_inverse=True)
    energies = np.bincount(window, frames.energies) / np.bincount(window)
    low = np.argsort(energies, kind="stable")[: max(len(windows) // 3, n)]
    labels, slow = frames.labels[first[low]], labelling_of(run).system.slow
    return labels[spread(labels, slow.periods, np.ptp(slow.domain, axis=1), n)]


def _measured_relax_steps(run: Run, model: LiftingModel, labels: FloatArray) -> tuple[int, dict[str, float], int]:
    """The step count with the least cost of an effective lift, what was measured, and what that cost."""
    costs, evaluations = {}, 0
    for steps in RELAX_CHOICES:
        repeated = np.repeat(labels, PILOT_LIFTS, axis=0)
        lifts = run.lift(
            labelling_of(run).lifter(model, steps),
            f"pilot of {steps} steps",
            repeated,
            run.seed("train", "step pilot", steps),
        )
        evaluations += lifts.force_evaluations
        sizes = [effective_sample_size(row) for row in lifts.log_weights.reshape(len(labels), PILOT_LIFTS)]
        costs[steps] = evaluations_of_paths(1, steps) / max(float(np.mean(sizes)) / PILOT_LIFTS, 1e-6)
    best = min(costs, key=lambda steps: costs[steps])
    return best, {str(steps): round(cost, 1) for steps, cost in costs.items()}, evaluations


def train_stage(run: Run, out: Path) -> None:
    """Generator and encoder, and the step count if it is to be measured."""
    from ...generator.wgan_gp import TrainingOptions

    s, labelling = run.settings, labelling_of(run)
    frames, system = labelling.training_frames(), labelling.system
    options = TrainingOptions(latent_size=s.latent, generator_steps=s.generator_steps)
    adversarial = s.generator_steps if s.latent else 0
    with run.reporter.step("training", adversarial + 1) as done:

        def progress(step: int, _: int) -> None:
            run.folder.spend(0)
            done(step + 1)

        model = train(system, frames, seed=run.seed("train", "generator"), options=options, progress=progress)
    report: dict[str, Any] = {"history": model.history, "relax_steps": s.relax_steps, "force_evaluations": 0}
    if not s.relax_steps:
        at = labelling.windows(
            model, _low_windows(run, frames, PILOT_LABELS), run.seed("train", "step pilot", "windows")
        )
        report["relax_steps"], report["cost_of_effective_lift"], cost = _measured_relax_steps(run, *at)
        report["force_evaluations"] += cost
        run.reporter.note(f"relax steps: {report['relax_steps']} (measured)")
    if s.latent:
        lifted, labels = labelling.windows(
            model, _low_windows(run, frames, ENCODER_LABELS), run.seed("train", "encoder", "windows")
        )
        n_tasks = -(-s.n_pilot // TASK_SIZE) + -(-s.n_encoder_reverse // TASK_SIZE)
        with run.tasks("fitting the encoder", n_tasks, evaluations_of_paths(TASK_SIZE, report["relax_steps"])) as tick:
            fit = fit_encoder(
                labelling.lifting_system,
                lifted,
                labels,
                relax_steps=report["relax_steps"],
                seed=run.seed("train", "encoder"),
                n_pilot=s.n_pilot,
                n_reverse=s.n_encoder_reverse,
                platform=run.platform,
                workers=run.workers,
                progress=tick,
            )
            tick.settle(fit.force_evaluations)
        model = with_encoder_of(fit.model, model)
        report["encoder"] = {name: value for name, value in vars(fit).items() if name != "model"}
        report["force_evaluations"] += fit.force_evaluations
    model.save(out / "model.safetensors")
    (out / "report.json").write_text(json.dumps(report, indent=1) + "\n")
