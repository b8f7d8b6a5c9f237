"""The lift stage: rounds of lifts, each placed by the surface of those before, and the check against real frames."""

import errno
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from .diagnostics import ReverseCheck, check_lifts, pooled_z
from .errors import InputError
from .execution import TASK_SIZE
from .lift import Lifter, accept_metropolis
from .lift_surfaces import analyse_lifts
from .lifts import Lifts, join_lifts, save_lifts
from .model import LiftingModel, load_model
from .placement import place_labels
from .run_options import PILOT_LABELS, PILOT_LIFTS, RELAX_CHOICES, Settings
from .sampling import MINIMISER_ITERATIONS, Frames, load_frames, scattered_labels
from .stages import EQUILIBRATION_STEPS, Run, spread
from .surfaces import FreeEnergySurface
from .system import MolecularSystem
from .units import FloatArray, IntArray

PLACEMENT_CEILING, CHECK_CEILING = 12.0, 7.0
"""kT above the minimum: where lifts go, and where labels are checked against real frames."""

PLACEMENT_BINS = 36
"""A coordinate: coarser than the surface of the result, and several times faster."""

MAX_ROUNDS, FEWEST_LIFTS = 12, 64


def least_evaluations(settings: Settings) -> int:
    """Force evaluations of a run with the fewest lifts that make sense."""
    s = settings
    windows = s.n_windows * (EQUILIBRATION_STEPS + s.steps_per_window + 2 * MINIMISER_ITERATIONS)
    windows += s.n_held_out * (EQUILIBRATION_STEPS + s.held_out_steps + 2 * MINIMISER_ITERATIONS)
    pilot = 0
    if not s.relax_steps:
        pilot = PILOT_LABELS * PILOT_LIFTS * sum(steps + 2 for steps in RELAX_CHOICES)
    paths = FEWEST_LIFTS + s.n_check_labels * (s.n_check_lifts + s.n_check_frames)
    paths += s.n_pilot + s.n_encoder_reverse if s.latent else 0
    return windows + pilot + paths * ((s.relax_steps or max(RELAX_CHOICES)) + 2)


def _check_windows(run: Run, surface: FreeEnergySurface, frames: Frames) -> IntArray:
    """Held-out windows, far apart where the surface is low, with frames enough."""
    windows, first, counts = np.unique(frames.window, return_index=True, return_counts=True)
    labels, slow = frames.labels[first], run.system.slow
    energies = surface.energy_at(labels) / run.system.kT
    energies[counts < run.settings.n_check_frames // 2] = np.inf
    order = np.argsort(energies, kind="stable")
    order = order[energies[order] < CHECK_CEILING]
    if not len(order):
        return order
    widths = np.ptp(slow.domain, axis=1)
    return windows[order[spread(labels[order], slow.periods, widths, run.settings.n_check_labels)]]


def _check(run: Run, model: LiftingModel, relax_steps: int, surface: FreeEnergySurface) -> tuple[Lifts, Lifts]:
    """Lifts at the labels of held-out windows, and reverse relaxations of those windows' frames."""
    frames = load_frames(run.folder.file("sample", "held_out.npz"))
    chosen = frames.select(np.isin(frames.window, _check_windows(run, surface, frames)))
    lifter = run.lifter(model, relax_steps)
    labels = np.unique(chosen.labels, axis=0)
    if not len(labels):
        nothing = lifter.lift(frames.labels[:1], seed=0).select(np.zeros(1, dtype=bool))
        return nothing, nothing
    repeated = np.repeat(labels, run.settings.n_check_lifts, axis=0)
    forward = run.lift(lifter, "check: lifts", repeated, run.seed(2, 1))
    cost = TASK_SIZE * (relax_steps + 2)
    with run.tasks("check: reverse", -(-len(chosen) // TASK_SIZE), cost) as tick:
        reverse = lifter.reverse(chosen.positions, chosen.labels, seed=run.seed(2, 2), progress=tick)
        tick.settle(reverse.force_evaluations)
    return forward, reverse


class _Rounds:
    """Lifts in rounds, each placed by the surface of those before, until the target or the limit is met."""

    def __init__(self, run: Run, lifter: Lifter, limit: int):
        self.run, self.lifter, self.limit = run, lifter, limit
        self.record: list[dict[str, float]] = []
        n = min(run.settings.n_first, limit)
        if lifter.mode == "unrestrained" and run.options.target_error is None:
            n = limit
        labels = self._labels(None, n)
        self.lifts = run.lift(lifter, "lifting", labels, run.seed(2, 0))
        self._analyse()

    def _analyse(self) -> None:
        with self.run.reporter.step("placing lifts", 1) as done:
            self.surface = analyse_lifts(self.lifts, bins=PLACEMENT_BINS).surface
            done(1)
        error = self.surface.median_error / self.run.system.kT
        self.record.append({"lifts": len(self.lifts), "error_kT": error})

    def _labels(self, surface: FreeEnergySurface | None, n: int) -> FloatArray:
        number, slow = len(self.record), self.run.system.slow
        seed = self.run.seed(2, 0, number)
        if self.lifter.mode == "unrestrained":
            return self.lifter.label_prior.sample(n, np.random.default_rng(seed))
        if surface is None:
            return scattered_labels(slow, n, seed)
        return place_labels(surface, slow, n, ceiling=PLACEMENT_CEILING, seed=seed)

    def _next(self) -> int:
        """How many lifts the next round has; 0 to stop."""
        left, target = self.limit - len(self.lifts), self.run.options.target_error
        if left <= 0 or target is None:
            return max(left, 0)
        error = self.record[-1]["error_kT"]
        if error <= target or len(self.record) >= MAX_ROUNDS:
            return 0
        wanted = len(self.lifts) * ((error / target) ** 2 - 1) if np.isfinite(error) else np.inf
        n = int(min(max(wanted, len(self.lifts) / 4, 2 * TASK_SIZE), 2 * len(self.lifts)))
        return min(-(-n // TASK_SIZE) * TASK_SIZE, left)

    def go_on(self) -> None:
        """Lift until there is nothing more to do."""
        while n := self._next():
            number = len(self.record)
            labels = self._labels(self.surface, n)
            more = self.run.lift(self.lifter, f"lifting, round {number + 1}", labels, self.run.seed(2, 3, number))
            self.lifts = join_lifts([self.lifts, more])
            if self.run.options.target_error is not None:
                self._analyse()


def _limit(run: Run, relax_steps: int) -> int:
    """How many lifts options and evaluations allow, the check's left out."""
    s, most = run.settings, run.options.max_evaluations
    if most is None:
        return s.n_lifts
    reserved = s.n_check_labels * (s.n_check_lifts + s.n_check_frames) * (relax_steps + 2)
    allowed = (most - run.evaluations_before_lifts() - reserved) // (relax_steps + 2)
    if allowed < FEWEST_LIFTS:
        raise InputError(
            f"--max-evaluations {most} leaves only {max(allowed, 0)} lifts of {relax_steps} steps: "
            "start a new run with more evaluations, or with fewer --relax-steps"
        )
    return min(s.n_lifts, allowed)


def _save_trajectory(lifts: Lifts, system: MolecularSystem, path: Path) -> None:
    """One frame a lift with a weight, in the order of lifts.npz."""
    import mdtraj

    topology = mdtraj.Topology.from_openmm(system.topology)
    positions = lifts.positions[lifts.ok].astype(np.float32)
    mdtraj.Trajectory(positions, topology).save_dcd(str(path))
    if path.stat().st_size < positions.nbytes:  # the writer does not look at what the disk says
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def _check_record(check: ReverseCheck) -> dict[str, Any]:
    return {**asdict(check), "label": check.label.tolist()}


def lift_stage(run: Run, out: Path) -> None:
    """Lifts, their reverse relaxations, and what both say about each other."""
    model = load_model(run.folder.file("train", "model.pt"))
    relax_steps = run.train_report()["relax_steps"]
    metropolis = run.options.acceptance == "metropolis"
    lifter = run.lifter(model, relax_steps, "unrestrained" if metropolis else "restrained")
    rounds = _Rounds(run, lifter, _limit(run, relax_steps))
    forward, reverse = _check(run, model, relax_steps, rounds.surface)
    rounds.go_on()
    lifts, extra = rounds.lifts, {}
    cost = lifts.force_evaluations + forward.force_evaluations + reverse.force_evaluations
    if metropolis:
        rng = np.random.default_rng(run.seed(2, 4))
        extra["accepted"] = accept_metropolis(lifts.log_weights, rng)[1]
    else:
        lifts = join_lifts([lifts, forward]) if len(forward) else lifts
    save_lifts(lifts, out / "lifts.npz", **extra)
    save_lifts(reverse, out / "reverse.npz")
    _save_trajectory(lifts, run.system, out / "lifts.dcd")
    checks = check_lifts(forward, reverse, seed=run.seed(2, 5))
    record = {
        "checks": [_check_record(check) for check in checks],
        "pooled_z": pooled_z(checks) if checks else None,
        "rounds": rounds.record,
        "accepted": float(extra["accepted"].mean()) if metropolis else None,
        "force_evaluations": cost,
    }
    (out / "checks.json").write_text(json.dumps(record, indent=1) + "\n")
