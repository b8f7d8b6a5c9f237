"""The lift stage: rounds of lifts, each placed by the surface of those before, and the check against real frames."""

import errno
import json
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ...generator.model import load_lifting_model
from ...lifting.lifts import join_lifts, save_lifts
from ...lifting.one_structure import doubts_about_one_structure
from ...lifting.relaxation import TASK_SIZE
from ...lifting.reverse_check import ReverseCheck, check_lifts, pooled_z
from ...lifting.weights import accept_metropolis
from ...trajectories.files import set_dcd_title
from ...units import FloatArray
from ..budget import most_lifts
from ..context import Run
from ..labelling import Plan, labelling_of, plan_of

MAX_ROUNDS = 12


class _Rounds:
    """Lifts in rounds, each placed by the surface of those before, until the target or the limit is met."""

    def __init__(self, run: Run, plan: Plan, limit: int):
        self.run, self.plan, self.limit = run, plan, limit
        self.record: list[dict[str, float]] = []
        n = limit if self._in_one_round else min(run.settings.n_first, limit)
        lifter, labels = plan.round(None, n, 0)
        self.lifts = run.lift(lifter, "lifting", labels, run.seed("lift", "lifts", 0))
        self._analyse()

    @property
    def _in_one_round(self) -> bool:
        """Whether nothing is placed and no error requested: then one round is enough, of one chain over all lifts."""
        options = self.run.options
        return options.unrestrained and options.target_error is None and (options.slow == "torsions" or options.chain)

    def _analyse(self) -> None:
        with self.run.parts("placing lifts") as progress:
            self.surface = self.plan.surface(self.lifts, progress)
        error = self.surface.median_error / self.run.system.kT
        self.record.append({"lifts": len(self.lifts), "error_kT": error})

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
            lifter, labels = self.plan.round(self.surface, n, number)
            more = self.run.lift(lifter, f"lifting, round {number + 1}", labels, self.run.seed("lift", "lifts", number))
            self.lifts = join_lifts([self.lifts, more])
            if self.run.options.target_error is not None:
                self._analyse()


def save_trajectory(blocks: Iterable[FloatArray], path: Path) -> None:
    """Write positions, shape=(n, n_atoms, 3) each, nm: of each lift with a weight, in the order of lifts.npz."""
    from mdtraj.formats import DCDTrajectoryFile

    n_bytes = 0
    with DCDTrajectoryFile(str(path), "w") as file:
        for lifted in blocks:
            positions = 10 * lifted.astype(np.float32)  # in angstrom
            file.write(positions)
            n_bytes += positions.nbytes
    if path.stat().st_size < n_bytes:  # the writer does not check what the disk reports
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    set_dcd_title(path, "lifts by openmm_gancl")


def check_record(check: ReverseCheck) -> dict[str, Any]:
    """JSON-ready."""
    return {**asdict(check), "label": check.label.tolist()}


def lift_stage(run: Run, out: Path) -> None:
    """Lifts, their reverse relaxations, and what both say about each other."""
    model = load_lifting_model(run.folder.file("train", "model.safetensors"))
    relax_steps = run.train_report()["relax_steps"]
    plan = plan_of(run, model, relax_steps)
    rounds = _Rounds(run, plan, most_lifts(run, relax_steps))
    forward, reverse = plan.check(rounds.surface)
    rounds.go_on()
    lifts = rounds.lifts
    extra: dict[str, Any] = {}
    cost = lifts.force_evaluations + forward.force_evaluations + reverse.force_evaluations + plan.evaluations
    if run.options.chain:
        extra["accepted"] = accept_metropolis(lifts.log_weights, run.rng("lift", "acceptance"))[1]
    elif not run.options.unrestrained and len(forward):
        lifts = join_lifts([lifts, forward])
    if labelling_of(run).learned is not None:
        extra["learned_labels"] = labelling_of(run).system.slow.transform(lifts.positions)
        extra["card_labels"] = run.system.slow.transform(lifts.positions)
    save_lifts(lifts, out / "lifts.npz", **extra)
    save_lifts(reverse, out / "reverse.npz")
    save_trajectory([lifts.positions[lifts.ok]], out / "lifts.dcd")
    checks = check_lifts(forward, reverse, seed=run.seed("lift", "check", "bootstrap"))
    record = {
        "checks": [check_record(check) for check in checks],
        "pooled_z": pooled_z(checks) if checks else None,
        "rounds": rounds.record,
        "accepted": float(extra["accepted"].mean()) if run.options.chain else None,
        "force_evaluations": cost,
        "blind": list(doubts_about_one_structure(run.system, lifts.positions[lifts.ok])),
    }
    (out / "checks.json").write_text(json.dumps(record, indent=1) + "\n")
