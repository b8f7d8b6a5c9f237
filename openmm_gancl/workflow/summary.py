"""The closing summary of a run, as data and as text."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import finite
from ..free_energy.basins import basin_table, formatted
from ..free_energy.weight_statistics import MAX_PARETO_INDEX
from ..lifting.reverse_check import Z_THRESHOLD

MIN_EFFECTIVE_SAMPLES = 20.0
"""Effective samples below which a bootstrapped error bar says nothing."""


@dataclass(frozen=True)
class Summary:
    """The results of a finished run.

    Attributes:
        system: its name.
        preset: of the run.
        acceptance: weights or metropolis.
        n_lifts: lifts that the surface is made of.
        reasons: how many of them ended for each reason.
        relax_steps: steps of each.
        effective_sample_size: Kish's, of the weights to the unrestrained equilibrium.
        pareto_index: tail index of the weights, less the surface itself, below 10 kT; NaN below 25 lifts.
        pooled_z: forward against reverse; NaN if no label could be checked.
        n_checked: labels of that check.
        efficiency: median over them of the mode-aware effective sample size per lift; NaN if there is none.
        median_error: of the surface below 10 kT, kT.
        target_error: requested, kT, or None.
        encoder: fitted, prior (the fitted one was no better) or none (no latent).
        force_evaluations: that the result depends on.
        basins: rows of the basin table.
        accepted: fraction of Metropolis proposals taken, or None.
    """

    system: str
    preset: str
    acceptance: str
    n_lifts: int
    reasons: dict[str, int]
    relax_steps: int
    effective_sample_size: float
    pareto_index: float
    pooled_z: float
    n_checked: int
    efficiency: float
    median_error: float
    target_error: float | None
    encoder: str
    force_evaluations: int
    basins: list[dict[str, Any]]
    accepted: float | None = None

    def doubts(self) -> list[str]:
        """Why the result is not to be trusted; empty if it is."""
        doubts = []
        if abs(self.pooled_z) > Z_THRESHOLD:
            doubts.append(
                f"lifts and reverse relaxations of real frames disagree (pooled z = {self.pooled_z:.1f}): "
                "the lifts miss something that is real; train on more windows, or relax for more steps"
            )
        elif not math.isfinite(self.pooled_z):
            doubts.append("no label could be checked against real frames: use more windows, or more relax steps")
        if self.pareto_index > MAX_PARETO_INDEX:
            doubts.append(
                f"a few weights decide (Pareto index {self.pareto_index:.2f}, above {MAX_PARETO_INDEX}): "
                "the error bars are too small; relax for more steps"
            )
        if self.effective_sample_size < MIN_EFFECTIVE_SAMPLES:
            doubts.append(
                f"the effective sample size is {self.effective_sample_size:.1f}: use more lifts or more relax steps"
            )
        return doubts

    @property
    def trusted(self) -> bool:
        """Whether exit code 0 is deserved; the quick preset is a trial and always is."""
        return self.preset == "quick" or not self.doubts()

    def as_json(self) -> dict[str, Any]:
        """JSON-ready; a number that does not exist is None."""
        return {**finite(asdict(self)), "trusted": not self.doubts(), "doubts": self.doubts()}

    def save(self, path: Path) -> None:
        """Write ``summary.json``."""
        path.write_text(json.dumps(self.as_json(), indent=1) + "\n")


def load_summary(path: Path) -> Summary:
    """Read what `Summary.save` wrote."""
    try:
        content = json.loads(path.read_text())
        values = {field.name: content[field.name] for field in fields(Summary)}
    except (OSError, ValueError, KeyError):
        raise InputError(f"{path} cannot be read: remove {path.parent} to make it again") from None
    for name in ("effective_sample_size", "pareto_index", "pooled_z", "efficiency", "median_error"):
        values[name] = math.nan if values[name] is None else values[name]
    return Summary(**values)


def summary_text(summary: Summary, seconds: Mapping[str, float], evaluations_spent: int, plot: Path) -> str:
    """The closing summary for people; doubts first.

    Args:
        summary: of the run.
        seconds: wall time of each stage.
        evaluations_spent: force evaluations of all attempts.
        plot: path of the picture.
    """
    reasons = ", ".join(f"{count} {reason}" for reason, count in summary.reasons.items())
    encoder = {
        "fitted": "fitted encoder kept",
        "prior": "r = p(z) (the fitted one was no better)",
        "none": "none (latent 0)",
    }[summary.encoder]
    z = f"z = {formatted(summary.pooled_z, '+.2f')} over {summary.n_checked} labels"
    target = "" if summary.target_error is None else f" (requested: {summary.target_error:g} kT)"
    redone = "" if evaluations_spent == summary.force_evaluations else f" ({evaluations_spent:,} with redone work)"
    heading = "not to be trusted" if summary.preset != "quick" else "a trial, not to be trusted"
    rows = [
        ("system", f"{summary.system}, preset {summary.preset}"),
        ("lifts", f"{summary.n_lifts} of {summary.relax_steps} steps: {reasons}"),
        ("effective sample size", f"{formatted(summary.effective_sample_size, '.0f')}"),
        ("Pareto index", f"{formatted(summary.pareto_index, '.2f')} (above {MAX_PARETO_INDEX}: not to be trusted)"),
        ("forward against reverse", f"{z} (beyond {Z_THRESHOLD:g}: not to be trusted)"),
        ("mode-aware efficiency", f"{formatted(summary.efficiency, '.2f')} effective samples a lift"),
        ("median error below 10 kT", f"{formatted(summary.median_error, '.2f')} kT{target}"),
        ("encoder", encoder),
        ("force evaluations", f"{summary.force_evaluations:,}{redone}"),
        ("seconds", ", ".join(f"{name} {value:.1f}" for name, value in seconds.items())),
    ]
    if summary.accepted is not None:
        rows.insert(2, ("Metropolis acceptance", f"{summary.accepted:.3f}"))
    width = max(len(name) for name, _ in rows)
    lines = [f"{heading}: {doubt}" for doubt in summary.doubts()]
    lines += [f"{name:<{width}}  {value}" for name, value in rows]
    return "\n".join([*lines, *basin_table(summary.basins), "", f"surface: {plot}"])
