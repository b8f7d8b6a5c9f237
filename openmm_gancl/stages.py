"""The science of a run's four stages; each reads what earlier ones wrote and writes into the folder it is given."""

import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from .diagnostics import effective_sample_size, pareto_index, reason_counts
from .encoder import fit_encoder
from .execution import TASK_SIZE
from .lift_surfaces import (
    LiftAnalysis,
    WeightedEnds,
    analyse_lifts,
    basin_populations,
    surface_from_ends,
    weighted_ends,
)
from .lifts import Lifts, load_lifts
from .model import LiftingModel, with_encoder_of
from .plotting import plot_surface
from .run_context import Run, restrained_windows, spread
from .run_options import PILOT_LABELS, PILOT_LIFTS, RELAX_CHOICES
from .sampling import (
    Frames,
    save_frames,
)
from .slow import Axes, FirstAxes
from .summary import Summary
from .surfaces import CEILING, FreeEnergySurface
from .system import Basin
from .training import train
from .units import FloatArray

ENCODER_LABELS = 16


def sample_stage(run: Run, out: Path) -> None:
    """Restrained windows: frames to train on, and others to check with."""
    from openmm.app import PDBFile

    s = run.settings
    frames = restrained_windows(
        run, "sampling", run.system, s.n_windows, s.steps_per_window, s.frames_per_window, run.seed("sample", "frames")
    )
    held_out = restrained_windows(
        run,
        "sampling for the check",
        run.system,
        s.n_held_out,
        s.held_out_steps,
        s.n_check_frames,
        run.seed("sample", "held out"),
    )
    for name, part in (("frames", frames), ("held_out", held_out)):
        save_frames(part, out / f"{name}.npz")
        if part.dropped:
            told = ", ".join(f"{count} {reason}" for reason, count in part.dropped.items())
            run.reporter.note(f"dropped {told} of {len(part) + sum(part.dropped.values())} frames ({name})")
    with open(out / "top.pdb", "w") as stream:
        PDBFile.writeFile(run.system.topology, 10.0 * run.system.positions, stream, keepIds=True)


def _low_windows(run: Run, frames: Frames, n: int) -> FloatArray:
    """Labels of windows far apart among the third with the lowest mean energies, shape=(n, d)."""
    windows, first, window = np.unique(frames.window, return_index=True, return_inverse=True)
    energies = np.bincount(window, frames.energies) / np.bincount(window)
    low = np.argsort(energies, kind="stable")[: max(len(windows) // 3, n)]
    labels, slow = frames.labels[first[low]], run.labelled_system.slow
    return labels[spread(labels, slow.periods, np.ptp(slow.domain, axis=1), n)]


def _measured_relax_steps(run: Run, model: LiftingModel, labels: FloatArray) -> tuple[int, dict[str, float], int]:
    """The step count with the least cost of an effective lift, what was measured, and what that cost."""
    costs, evaluations = {}, 0
    for steps in RELAX_CHOICES:
        repeated = np.repeat(labels, PILOT_LIFTS, axis=0)
        lifts = run.lift(
            run.lifter(model, steps), f"pilot of {steps} steps", repeated, run.seed("train", "step pilot", steps)
        )
        evaluations += lifts.force_evaluations
        sizes = [effective_sample_size(row) for row in lifts.log_weights.reshape(len(labels), PILOT_LIFTS)]
        costs[steps] = (steps + 2) / max(float(np.mean(sizes)) / PILOT_LIFTS, 1e-6)
    best = min(costs, key=lambda steps: costs[steps])
    return best, {str(steps): round(cost, 1) for steps, cost in costs.items()}, evaluations


def train_stage(run: Run, out: Path) -> None:
    """Generator and encoder, and the step count if it is to be measured."""
    from .cgan import TrainingOptions

    s, frames, system = run.settings, run.training_frames(), run.labelled_system
    options = TrainingOptions(latent_size=s.latent, generator_steps=s.generator_steps)
    adversarial = s.generator_steps if s.latent else 0
    with run.reporter.step("training", adversarial + 1) as done:

        def progress(step: int, _: int) -> None:
            run.folder.spend(0)
            done(step + 1)

        model = train(system, frames, seed=run.seed("train", "generator"), options=options, progress=progress)
    report: dict[str, Any] = {"history": model.history, "relax_steps": s.relax_steps, "force_evaluations": 0}
    if not s.relax_steps:
        at = run.windows(model, _low_windows(run, frames, PILOT_LABELS), run.seed("train", "step pilot", "windows"))
        report["relax_steps"], report["cost_of_effective_lift"], cost = _measured_relax_steps(run, *at)
        report["force_evaluations"] += cost
        run.reporter.note(f"relax steps: {report['relax_steps']} (measured)")
    if s.latent:
        lifted, labels = run.windows(
            model, _low_windows(run, frames, ENCODER_LABELS), run.seed("train", "encoder", "windows")
        )
        n_tasks = -(-s.n_pilot // TASK_SIZE) + -(-s.n_encoder_reverse // TASK_SIZE)
        with run.tasks("fitting the encoder", n_tasks, TASK_SIZE * (report["relax_steps"] + 2)) as tick:
            fit = fit_encoder(
                run.lifting_system,
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
    model.save(out / "model.pt")
    (out / "report.json").write_text(json.dumps(report, indent=1) + "\n")


def _pareto_below_ceiling(surface: FreeEnergySurface, ends: WeightedEnds, kT: float) -> float:
    """Tail index of the weights with the surface itself divided out: of what makes its error bars."""
    energies = surface.energy_at(ends.obtained) / kT
    low = energies < CEILING
    return pareto_index(ends.log_weights[low] + energies[low])


def _save_surface(surface: FreeEnergySurface, basins: tuple[Basin, ...], out: Path, name: str) -> None:
    surface.save(out / f"{name}.npz")
    surface.save_dat(out / f"{name}.dat")
    plot_surface(surface, basins=basins).figure.savefig(out / f"{name}.png", dpi=150)


def _learned_surfaces(run: Run, lifts: Lifts, cost: int, out: Path) -> LiftAnalysis:
    """Surfaces over the first one or two learned coordinates, and over the card's labels, which is returned."""
    ends = weighted_ends(lifts)
    with np.load(run.folder.file("lift", "lifts.npz"), allow_pickle=False) as stored:
        learned, card_labels = (stored[name][lifts.ok] for name in ("learned_labels", "card_labels"))
    own = FirstAxes.of(run.labelled_system.slow, 2)

    def over(axes: Axes, values: FloatArray) -> FreeEnergySurface:
        return surface_from_ends(ends, values, axes, temperature=lifts.temperature, force_evaluations=cost)

    _save_surface(over(own, learned[:, : len(own.names)]), (), out, "fes")
    surface = over(run.system.slow, card_labels)
    _save_surface(surface, run.system.basins, out, run.card_surface)
    return LiftAnalysis(surface, replace(ends, obtained=card_labels))


def surface_stage(run: Run, out: Path) -> None:
    """The surface, its picture, the basin table and the summary."""
    system, kT = run.system, run.system.kT
    lifts = load_lifts(run.folder.file("lift", "lifts.npz"), run.lifting_system.slow)
    checks = json.loads(run.folder.file("lift", "checks.json").read_text())
    cost = run.evaluations_before_lifts() + checks["force_evaluations"]
    with run.reporter.step("surface", 1) as done:
        if run.learned_labels is None:
            analysis = analyse_lifts(lifts, force_evaluations=cost)
            _save_surface(analysis.surface, system.basins, out, "fes")
        else:
            analysis = _learned_surfaces(run, lifts, cost, out)
        done(1)
    surface = analysis.surface
    basins = basin_populations(analysis.ends, system.basins, system.temperature)
    efficiencies = [check["efficiency"] for check in checks["checks"]]
    encoder = run.train_report().get("encoder")
    Summary(
        system=system.name,
        preset=run.options.preset,
        acceptance=run.options.acceptance,
        n_lifts=len(lifts),
        reasons=reason_counts(lifts),
        relax_steps=lifts.relax_steps,
        effective_sample_size=effective_sample_size(analysis.ends.log_weights),
        pareto_index=_pareto_below_ceiling(surface, analysis.ends, kT),
        pooled_z=math.nan if checks["pooled_z"] is None else checks["pooled_z"],
        n_checked=len(efficiencies),
        efficiency=float(np.median(efficiencies)) if efficiencies else math.nan,
        median_error=surface.median_error / kT,
        target_error=run.options.target_error,
        encoder="none" if encoder is None else "fitted" if encoder["kept"] else "prior",
        force_evaluations=cost,
        basins=[asdict(row) for row in basins],
        accepted=checks["accepted"],
    ).save(out / "summary.json")
