"""The closing summary of a run, as data and as text."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar

from ..errors import InputError
from ..files import finite, load_json
from ..free_energy.basins import basin_table, formatted
from ..free_energy.weight_statistics import LEAST_TAIL, MAX_PARETO_INDEX
from ..lifting.reverse_check import Z_THRESHOLD

MIN_EFFECTIVE_SAMPLES = 20.0
"""Effective samples below which a bootstrapped error bar says nothing."""

UNKNOWN_IS_NAN = {
    "effective_sample_size",
    "pareto_index",
    "tail_share",
    "discovered",
    "pooled_z",
    "p_value",
    "efficiency",
    "median_error",
}

LEAST_P_VALUE = 1e-4
"""Of chi-squared of a check: errors come of ten frames a label, and one right run in 1,000 may have less."""

FEWEST_LABELS, FEWEST_COMPARED = 3, 2
"""Of a check, modes of hardly any weight included; that say whether labels differ."""

MOST_DISCOVERED = 0.1
"""Of the weight, in modes that few draws have found: a trial with more has no populations to speak of (valine 0.73 for
0.49, serine 0.28 for 0.81)."""

MIN_EFFICIENCY = 0.05
"""Effective samples a lift, against real frames."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The results of a finished run.

    Attributes:
        system: its name.
        preset: of the run.
        n_lifts: lifts that the surface is made of.
        reasons: how many of them ended for each reason.
        effective_sample_size: Kish's, of the weights to the unrestrained equilibrium.
        pareto_index: tail index of the weights, less the surface itself, below 10 kT; NaN below 25 lifts.
        pooled_z: lifts against real frames; NaN if no label could be checked.
        n_checked: labels of that check.
        efficiency: median over them of the mode-aware effective sample size per lift; NaN if there is none.
        median_error: of the surface below 10 kT, kT.
        target_error: requested, kT, or None.
        force_evaluations: that the result depends on.
        basins: rows of the basin table.
        most_different: where wide torsions are in that check where it disagrees most; empty without any.
        tail_share: share of the same weights that their tail has.
    """

    system: str
    preset: str
    n_lifts: int
    reasons: dict[str, int]
    effective_sample_size: float
    pareto_index: float
    pooled_z: float
    n_checked: int
    efficiency: float
    median_error: float
    target_error: float | None
    force_evaluations: int
    basins: list[dict[str, Any]]
    most_different: str = ""
    tail_share: float = math.nan

    better_model: ClassVar[str] = "raise `max_evaluations`"
    lighter_tail: ClassVar[str] = "raise `max_evaluations`"

    def doubts(self) -> list[str]:
        """Why the result is not to be trusted; empty if it is."""
        doubts = []
        if abs(self.pooled_z) > Z_THRESHOLD:
            doubts.append(
                f"lifts and real frames disagree (pooled z = {self.pooled_z:.1f}): the lifts miss something that is "
                f"real{_where('most', self.most_different)}; {self.better_model}"
            )
        elif not math.isfinite(self.pooled_z):
            doubts.append(f"no label could be checked against real frames: {self.better_model}")
        if self.pareto_index > MAX_PARETO_INDEX and not self.tail_share < LEAST_TAIL:
            doubts.append(
                f"a few weights decide (Pareto index {self.pareto_index:.2f}, above {MAX_PARETO_INDEX}): "
                f"the error bars are too small; {self.lighter_tail}"
            )
        if self.effective_sample_size < MIN_EFFECTIVE_SAMPLES:
            doubts.append(
                f"the effective sample size is {self.effective_sample_size:.1f}: use more lifts, or {self.lighter_tail}"
            )
        return doubts

    @property
    def trusted(self) -> bool:
        """Whether exit code 0 is deserved."""
        return self.preset == "quick" or not self.doubts()

    def rows(self, evaluations_spent: int) -> list[tuple[str, str]]:
        """Names and values for people.

        Args:
            evaluations_spent: force evaluations of all attempts.
        """
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.reasons.items())
        labels = "label" if self.n_checked == 1 else "labels"
        z = f"z = {formatted(self.pooled_z, '+.2f')} over {self.n_checked} {labels}"
        tail = f" of a tail that exceeds the rest by {formatted(100 * self.tail_share, '.1f')} % of the weight"
        tail += f" (above {MAX_PARETO_INDEX} and {LEAST_TAIL:.0%}: not to be trusted)"
        target = "" if self.target_error is None else f" (requested: {self.target_error:g} kT)"
        return [
            ("system", f"{self.system}, preset {self.preset}"),
            ("lifts", f"{self.n_lifts}{self.kind_of_lift()}: {reasons}"),
            ("effective sample size", f"{formatted(self.effective_sample_size, '.0f')}"),
            ("Pareto index", f"{formatted(self.pareto_index, '.2f')}{tail}"),
            ("lifts against real frames", f"{z} (beyond {Z_THRESHOLD:g}: not to be trusted)"),
            ("mode-aware efficiency", f"{formatted(self.efficiency, '.2f')} effective samples a lift"),
            ("median error below 10 kT", f"{formatted(self.median_error, '.2f')} kT{target}"),
            ("force evaluations", f"{self.force_evaluations:,}{self.extra_evaluations(evaluations_spent)}"),
        ]

    def tables(self) -> list[str]:
        """Lines below the rows."""
        return basin_table(self.basins)

    def kind_of_lift(self) -> str:
        """What a lift was, after their number."""
        return ""

    def extra_evaluations(self, evaluations_spent: int) -> str:
        """What was evaluated beyond what the result depends on."""
        redone = evaluations_spent - self.force_evaluations
        return f" ({evaluations_spent:,} with redone work)" if redone else ""

    def as_json(self) -> dict[str, Any]:
        """JSON-ready; a number that does not exist is None."""
        return {**finite(asdict(self)), "trusted": not self.doubts(), "doubts": self.doubts()}

    def save(self, path: Path) -> None:
        """Write ``summary.json``."""
        path.write_text(json.dumps(self.as_json(), indent=1) + "\n")


@dataclass(frozen=True, kw_only=True)
class RelaxedSummary(Summary):
    """Of a run whose lifts were relaxed.

    Attributes:
        acceptance: weights or metropolis.
        relax_steps: steps of each lift.
        encoder: fitted, prior (the fitted one was no better) or none (no latent).
        accepted: fraction of Metropolis proposals taken, or None.
        blind: sentences, on modes that neither lifts nor their check look for.
    """

    acceptance: str
    relax_steps: int
    encoder: str
    accepted: float | None = None
    blind: list[str] = field(default_factory=list)

    better_model: ClassVar[str] = "raise `windows`, or `relax_steps`"
    lighter_tail: ClassVar[str] = "raise `relax_steps`"

    @property
    def trusted(self) -> bool:
        """Whether exit code 0 is deserved: of a trial, whether every mode was looked for."""
        return not (self.blind if self.preset == "quick" else self.doubts())

    def doubts(self) -> list[str]:
        """With modes that are not looked for."""
        return [*self.blind, *super().doubts()]

    def kind_of_lift(self) -> str:
        """How long each was relaxed."""
        return f" of {self.relax_steps} steps"

    def rows(self, evaluations_spent: int) -> list[tuple[str, str]]:
        """With the encoder, and the acceptance of a chain."""
        rows = super().rows(evaluations_spent)
        encoder = {
            "fitted": "fitted encoder kept",
            "prior": "r = p(z) (the fitted one was no better)",
            "none": "none (latent 0)",
        }[self.encoder]
        rows.insert(len(rows) - 1, ("encoder", encoder))
        if self.accepted is not None:
            rows.insert(2, ("Metropolis acceptance", f"{self.accepted:.3f}"))
        return rows


@dataclass(frozen=True, kw_only=True)
class LoopSummary(Summary):
    """Of a run of the closed loop.

    Attributes:
        generator: what drew the lifts.
        check_evaluations: of the check against real frames, beside all others.
        p_value: of chi-squared of the check's labels about their common offset; NaN of fewer than two.
        rounds: what each round was worth, `openmm_gancl.lifting.rounds.Round`: its median error in kJ/mol.
        blind: sentences, where the lifts may miss a mode.
        missing: sentences, where the check found one that they miss.
        modes: rows of the table of wide coordinates, `openmm_gancl.lifting.wide_modes.ModeRow`.
        changed_windows: of the check, in which a wide coordinate changed its mode.
        least_efficient: where wide torsions are in the check whose lifts are worth least.
        n_weightless: further labels of the check, where its frames were in a mode that has hardly any weight.
        discovered: share of the newest rounds' weight in modes that few draws have found.
    """

    generator: str
    check_evaluations: int
    p_value: float
    rounds: list[dict[str, Any]]
    blind: list[str]
    missing: list[str]
    modes: list[dict[str, Any]]
    changed_windows: int
    least_efficient: str = ""
    n_weightless: int = 0
    discovered: float = 0.0

    @property
    def trusted(self) -> bool:
        """Whether exit code 0 is deserved: of a trial, whether no mode is missing or just being found."""
        if self.preset == "quick":
            return not self.missing and self.discovered < MOST_DISCOVERED
        return not self.doubts()

    def doubts(self) -> list[str]:
        """With modes that may be missed, a check that says little, and a target that was not reached."""
        doubts = [*self.missing, *self.blind, *super().doubts()]
        if self.p_value < LEAST_P_VALUE:
            doubts.append(
                f"lifts and real frames differ from label to label (chi-squared, p = {self.p_value:.1g}, below "
                f"{LEAST_P_VALUE:g}){_where('most', self.most_different)}: {self.better_model}"
            )
        # a trial has evaluations for one or two
        few = self.n_checked < FEWEST_COMPARED or self.n_checked + self.n_weightless < FEWEST_LABELS
        if self.preset != "quick" and self.n_checked and few:
            doubts.append(
                f"lifts could be checked against real frames at {self.n_checked} labels, and {self.n_weightless} more "
                f"were in modes of hardly any weight, of at least {FEWEST_COMPARED} and {FEWEST_LABELS} in all: "
                f"{self.better_model}"
            )
        if self.efficiency < MIN_EFFICIENCY:
            doubts.append(
                f"against real frames a lift is worth {self.efficiency:.3f} effective samples, less than "
                f"{MIN_EFFICIENCY:g}{_where('least', self.least_efficient)}: {self.better_model}"
            )
        elif self.n_checked and not math.isfinite(self.efficiency):
            doubts.append(f"no lift was checked in a mode that has weight at its label: {self.better_model}")
        if self.target_error is not None and not self.median_error <= self.target_error:
            doubts.append(
                f"the median error is {self.median_error:.2f} kT, not {self.target_error:g} as requested: "
                f"{self.better_model}"
            )
        return doubts

    def rows(self, evaluations_spent: int) -> list[tuple[str, str]]:
        """With the check's differences between labels."""
        rows = super().rows(evaluations_spent)
        p_value = f"p = {formatted(self.p_value, '.2g')} (below {LEAST_P_VALUE:g}: not to be trusted)"
        rows.insert(5, ("differences between labels", p_value))
        if self.n_weightless:
            name, z = rows[4]
            rows[4] = (name, f"{z}; {self.n_weightless} more in modes of hardly any weight")
        if self.modes:
            rows.insert(6, ("changes of mode", f"in {self.changed_windows} of the check's windows"))
        return rows

    def tables(self) -> list[str]:
        """With wide coordinates and their modes."""
        return [*super().tables(), *mode_table(self.modes)]

    def kind_of_lift(self) -> str:
        """Of which generator, in how many rounds, and how the last was relaxed."""
        moves = self.rounds[-1]["moves"] if self.rounds else 0
        relaxed = f", the last relaxed by {moves} moves" if moves else ""
        rounds = "1 round" if len(self.rounds) == 1 else f"{len(self.rounds)} rounds"
        return f" of the {self.generator} generator in {rounds}{relaxed}"

    def extra_evaluations(self, evaluations_spent: int) -> str:
        """With the check's."""
        redone = evaluations_spent - self.force_evaluations - self.check_evaluations
        return f", and {self.check_evaluations:,} of the check" + (f", {redone:,} of redone work" if redone > 0 else "")


def load_summary(path: Path) -> Summary:
    """Read what `Summary.save` wrote."""
    try:
        content = load_json(path)
        kind = LoopSummary if "generator" in content else RelaxedSummary
        values = {
            part.name: content[part.name]
            for part in fields(kind)
            if part.name in content or part.default is part.default_factory is MISSING
        }
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path} cannot be read: remove {path.parent} to make it again") from None
    for name in UNKNOWN_IS_NAN & values.keys():
        values[name] = math.nan if values[name] is None else values[name]
    return kind(**values)


def summary_text(summary: Summary, seconds: Mapping[str, float], evaluations_spent: int, plot: Path) -> str:
    """The closing summary for people; doubts first.

    Args:
        summary: of the run.
        seconds: wall time of each stage; what a stage is made of (``rounds/00/lifts``) is summed.
        evaluations_spent: force evaluations of all attempts.
        plot: path of the picture.
    """
    heading = "not to be trusted" if summary.preset != "quick" else "a trial, not to be trusted"
    rows = summary.rows(evaluations_spent)
    of_groups: dict[str, float] = {}
    for name, value in seconds.items():
        group = name.split("/")[0]
        of_groups[group] = of_groups.get(group, 0.0) + value
    rows.append(("seconds", ", ".join(f"{group} {value:.1f}" for group, value in of_groups.items())))
    width = max(len(name) for name, _ in rows)
    lines = [f"{heading}: {doubt}" for doubt in summary.doubts()]
    lines += [f"{name:<{width}}  {value}" for name, value in rows]
    return "\n".join([*lines, *summary.tables(), "", f"surface: {plot}"])


def _where(most: str, place: str) -> str:
    """What follows a doubt about the check: nothing where no place is known."""
    return f", {most} {place}" if place else ""


def place_of_mode(row: Mapping[str, Any]) -> str:
    """Where a mode is; runs of before this was stored have angles alone."""
    stored: str | None = row.get("where")
    return stored or f"{math.degrees(row['low']):.0f} to {math.degrees(row['high']):.0f} degrees"


def mode_table(modes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines of the table of wide coordinates, as dictionaries of `ModeRow`; none for none."""
    if not modes:
        return []
    width = max(len("wide coordinate"), *(len(row["name"]) for row in modes))
    places = [place_of_mode(row) for row in modes]
    room = max(len("mode"), *map(len, places))
    lines = [f"{'wide coordinate':<{width}}  {'mode':<{room}}  frames  lifts  check  population"]
    for row, place in zip(modes, places, strict=True):
        parts = "  ".join(f"{formatted(row[name], '.2f'):>5}" for name in ("lifts", "check"))
        population = f"{row['weight']:.3f} +- {row['weight_error']:.3f}"
        lines.append(f"{row['name']:<{width}}  {place:<{room}}  {row['frames']:>6.2f}  {parts}  {population}")
    return ["", *lines]
