"""The closed loop in a run folder: ``rounds/NN/{frames,model,lifts}``, the last model, the check and the surface."""

import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError, first_line
from ...files import check_archive, finite, load_json
from ...free_energy.basins import BasinPopulation, weighted_populations
from ...free_energy.surface import surface_name
from ...free_energy.weight_statistics import effective_sample_size, pareto_index, tail_share
from ...generator.model import load_model
from ...generator.model_file import BROKEN
from ...generator.network_training import NetworkOptions
from ...learning.learned_labels import load_labels
from ...lifting.draws import Draws
from ...lifting.frame_check import N_FRAMES, check_frames, labels_of_check
from ...lifting.label_regression import regression_populations
from ...lifting.learned import Learned
from ...lifting.loop import Loop, Step
from ...lifting.loop_options import LoopOptions
from ...lifting.projected_labels import projected_surface, values_of
from ...lifting.reverse_check import reason_counts
from ...lifting.rounds import load_round, pooled_log_weights, round_shares, save_round
from ...lifting.stored_rows import blocks_of
from ...lifting.wide_modes import mode_rows, windows_that_changed
from ...reference.wide_torsions import interval_text, wide_names
from ...sampling.short_windows import ForceFrames, ShortWindows, load_force_frames, save_force_frames
from ...units import FloatArray
from ..context import Run, Stage
from ..options import LoopSettings, Relax
from ..summary import LoopSummary
from .lift import check_record, save_trajectory
from .sample import save_structure
from .slow import OF_LABELS, slow_stage_of_draws
from .surface import save_surface

MODEL = ("model.safetensors",)
RESULTS = ("fes.npz", "fes.dat", "fes.png", "lifts.npz", "lifts.dcd", "top.pdb")
"""Files that are copied to the top of the run folder."""

HARMFUL_DROPS = 0.1
"""Training frames outside the declared state, to one inside."""

LEFT_OUT = "(not wide)"
"""After the name of a coordinate, in the table of modes."""

CHECK_CEILING = 6.0
"""kT, up to which labels are checked."""


@dataclass(frozen=True)
class Stored:
    """How the result of a step is kept.

    Attributes:
        save: writes it into a folder.
        load: reads it from there.
    """

    save: Callable[[Any, Path], None]
    load: Callable[[Path], Any]


def loop_options(settings: LoopSettings, relax: Relax = "none") -> LoopOptions:
    """Of the loop, from a run's settings."""
    return LoopOptions(
        windows=ShortWindows(settings.n_windows, settings.steering_steps, settings.frames_per_window, settings.stride),
        window_length=settings.window_length,
        lifts=settings.lifts,
        n_first=settings.n_first,
        ceiling=settings.ceiling,
        network=NetworkOptions(n_steps=settings.network_steps) if settings.network_steps else None,
        relax=relax if relax != "context" else "none",
        n_moves=settings.moves,
    )


def loop_of(run: Run) -> Loop:
    """The loop of a run, which counts what it evaluates."""
    return Loop(
        run.system,
        seed=run.seed("loop"),
        max_evaluations=run.loop_settings.max_evaluations,
        target_error=run.options.target_error,
        options=loop_options(run.loop_settings, run.options.relaxed_by),
        platform=run.platform,
        workers=run.workers,
        progress=run.folder.spend,
        more_draws=run.folder.manifest.get("more_lifts", ()),
    )


def own_frames_stage(run: Run, positions: FloatArray, log_weights: FloatArray, out: Path) -> None:
    """Frames of the user's own in place of the first windows."""
    loop = loop_of(run)
    with run.reporter.step("evaluating frames", 1) as done:
        save_force_frames(loop.frames_of(positions, log_weights), out / "frames.npz")
        done(1)


def kept_as(run: Run, step: Step) -> Stored:
    """The files of a step: frames, a model, or lifts with their regression."""
    if step.name.endswith("frames"):
        return Stored(
            lambda frames, out: save_force_frames(frames, out / "frames.npz"),
            lambda folder: load_force_frames(folder / "frames.npz"),
        )
    if step.name.endswith("model"):
        return Stored(
            lambda generator, out: generator.save(out / "model.safetensors"),
            lambda folder: load_model(folder / "model.safetensors"),
        )
    return Stored(save_round, lambda folder: load_round(folder, run.system.slow))


def title_of(name: str) -> str:
    """What a step does, for people."""
    kind = name.split("/")[-1]
    if kind.isdigit():
        return "lifting more"
    if kind == "lifts":
        return f"lifting, round {int(name.split('/')[1]) + 1}"
    return {"frames": "sampling", "model": "fitting"}[kind]


def compute_and_save(run: Run, step: Step, stored: Stored, out: Path) -> None:
    """One step, whose result goes into a folder."""
    with run.evaluations(title_of(step.name), step.evaluations):
        stored.save(step.compute(out) if step.draws else step.compute(), out)


def check_stage(run: Run, loop: Loop, out: Path) -> None:
    """Draws of the last model against independent frames."""
    assert loop.regression is not None
    places = loop.coordinates.places
    log_density = loop.regression.log_density(places)
    low = places[log_density > log_density.max() - CHECK_CEILING]
    n_labels = labels_of_check(run.system, run.loop_settings.check_evaluations)
    with run.reporter.step("checking", 1) as done:
        check = check_frames(
            run.system, loop.generators[-1], low, n_labels, seed=run.seed("check"), platform=run.platform
        )
        run.folder.spend(check.check_evaluations)
        done(1)
    record = {
        **asdict(check),
        "checks": [check_record(one) for one in check.checks],
        "wide_angles": check.wide_angles.tolist(),
    }
    (out / "checks.json").write_text(json.dumps(finite(record), indent=1) + "\n")


def surface_stage(run: Run, loop: Loop, out: Path) -> None:
    """The surface, its picture, all lifts, and the summary."""
    system, learned = run.system, loop.learned()
    draws, pairs, more = learned.lifts, pairs_of(run), dict[str, FloatArray]()
    with run.reporter.step("surface", 1 + len(pairs)) as done:
        if run.options.slow == "torsions":
            save_surface(learned.surface, () if pairs else system.basins, out, "fes")
        else:
            more["learned_labels"] = _learned_surface(run, learned, out)
        if run.options.slow != "torsions" and not pairs:
            save_surface(learned.surface, system.basins, out, run.card_surface)
        done(1)
        for number, pair in enumerate(pairs, start=1):
            surface = learned.surface if number == 1 else learned.surface_over(*pair)
            save_surface(surface, (), out, surface_name(pair))
            done(1 + number)
    np.savez_compressed(
        out / "lifts.npz",
        labels=draws.labels,
        cv_values=draws.labels,
        log_weights=pooled_log_weights(draws),
        log_density=draws.log_density,
        log_label_density=draws.log_label_density,
        reason=draws.reason.astype("U10"),
        round=draws.round,
        names=np.array(system.slow.names),
        periods=system.slow.periods,
        temperature=system.temperature,
        generator=run.options.draws_from,
        relaxation=run.options.relaxed_by,
        evaluations=draws.evaluations,
        **more,  # type: ignore[arg-type]
    )
    chart, blocks = loop.coordinates.chart, blocks_of(draws.reason == "ok")
    save_trajectory((chart.to_cartesian(draws.coordinates[rows]) for rows in blocks), out / "lifts.dcd")
    save_structure(system, out / "top.pdb")
    _summary(run, loop, learned, [asdict(row) for row in _populations(run, learned)]).save(out / "summary.json")


def _learned_surface(run: Run, learned: Learned, out: Path) -> FloatArray:
    """Save the surface over the first one or two learned labels; all labels of all draws, shape=(n, d)."""
    slow = load_labels(run.folder.file("slow", "labels.npz")).slow
    last_round = load_json(run.folder.file("slow", "report.json"))["last_round"]
    values = values_of(learned, slow)
    save_surface(projected_surface(learned, slow, values, last_round), (), out, "fes")
    return values


def pairs_of(run: Run) -> list[tuple[str, str]]:
    """Of more than two labels, each pair has a surface of its own."""
    names = run.system.slow.names
    return list(combinations(names, 2)) if len(names) > 2 else []


def _populations(run: Run, learned: Learned) -> list[BasinPopulation]:
    """Of basins: integrals of the regression, or of more than two labels sums of weights."""
    system, draws = run.system, learned.lifts
    if not pairs_of(run):
        return regression_populations(learned.regression, system.slow, system.basins, system.temperature)
    log_weights = pooled_log_weights(draws)
    weights = np.exp(log_weights - log_weights.max())
    # of independent lifts, whose number was fixed beforehand
    return weighted_populations(
        system.basins, weights, draws.labels, system.temperature, lambda terms: float(np.sqrt((terms**2).sum()))
    )


def _summary(run: Run, loop: Loop, learned: Learned, basins: list[dict[str, Any]]) -> LoopSummary:
    system, draws = run.system, learned.lifts
    checks = load_json(run.folder.file("check", "checks.json"))
    angles = angles_of_check(checks, loop)
    log_ratios, low = loop.log_ratios(draws)
    in_surface = log_ratios + np.log(round_shares(draws))
    return LoopSummary(
        system=system.name,
        preset=run.options.preset,
        n_lifts=len(draws),
        reasons=reason_counts(draws),
        effective_sample_size=effective_sample_size(pooled_log_weights(draws)),
        pareto_index=pareto_index(in_surface[low]),
        tail_share=tail_share(in_surface[low]),
        pooled_z=_number(checks["pooled_z"]),
        n_checked=len(checks["checks"]),
        p_value=_number(checks["p_value"]),
        efficiency=_number(checks["efficiency"]),
        median_error=learned.surface.median_error / system.kT,
        target_error=run.options.target_error,
        force_evaluations=learned.surface.force_evaluations,
        check_evaluations=checks["check_evaluations"],
        basins=basins,
        generator=run.options.draws_from,
        rounds=[asdict(one) for one in learned.history],
        blind=list(loop.doubts(angles)),
        missing=checks["unseen"],
        least_efficient=checks.get("least_efficient", ""),
        most_different=checks.get("most_different", ""),
        n_weightless=checks.get("n_weightless", 0),
        discovered=loop.weight_being_discovered(),
        **_modes(loop, draws, angles),
    )


def angles_of_check(checks: dict[str, Any], loop: Loop) -> FloatArray:
    """Of the coordinates that turn, shape=(n_windows, n_frames, n_turning); no windows where nothing was checked."""
    n_windows, now = len(checks["wide_angles"]), loop.coordinates.turning_names
    if n_windows and now and tuple(checks["wide_names"]) != now:
        raise InputError(
            f"the folder's check is of the wide coordinates {', '.join(checks['wide_names']) or '(none)'}, and this "
            f"version finds {', '.join(now)}: start a new run folder"
        )
    shape = (n_windows, N_FRAMES, len(checks["wide_names"]) if n_windows else len(loop.coordinates.turning))
    return np.array(checks["wide_angles"], dtype=float).reshape(shape)


def _modes(loop: Loop, draws: Draws, check: FloatArray) -> dict[str, Any]:
    """The table of wide coordinates; the check's frames outside the declared state are left out."""
    if not len(turning := loop.coordinates.turning):
        return {"modes": [], "changed_windows": 0}
    lifts, log_weights = draws.coordinates[:, turning], pooled_log_weights(draws)
    known = check[np.isfinite(check).all(axis=2)]
    names, left_out = loop.coordinates.turning_names, _left_out(loop)
    names = tuple(f"{name} {LEFT_OUT}" if name in left_out else name for name in names)
    rows = mode_rows(names, loop.frames.coordinates[:, turning], lifts, log_weights, known)
    index = dict(zip(names, turning.tolist(), strict=True))
    where = (interval_text(loop.coordinates.chart, index[row.name], row.low, row.high) for row in rows)
    return {
        "modes": [{**asdict(row), "where": place} for row, place in zip(rows, where, strict=True)],
        "changed_windows": windows_that_changed(check, lifts, log_weights),
    }


def _left_out(loop: Loop) -> tuple[str, ...]:
    """Names of coordinates that could be wide, and by the card are not."""
    found = loop.coordinates
    return wide_names(loop.system.topology, found.chart, np.setdiff1d(found.turning, found.wide))


def _number(stored: float | None) -> float:
    return float("nan") if stored is None else float(stored)


def loop_stages(run: Run) -> Iterator[Stage]:
    """The steps of the loop, the check and the surface; the next one is asked for when this one is accepted."""
    loop, learning = loop_of(run), run.options.slow != "torsions"
    if wide := loop.coordinates.wide_names:
        run.reporter.note(
            f"{', '.join(wide)}: not labelled, and free to turn (or to invert); windows are scattered over them, and "
            "lifts may take any value"
        )
    if left_out := _left_out(loop):
        run.reporter.note(
            f"{', '.join(left_out)}: free to turn (or to invert), and by the card not wide; the check pulls windows "
            "over them all the same"
        )
    for step in loop.steps():
        # what is drawn from here on knows nothing of the draws that labels are learned from
        if learning and (step.name == "model" or len(loop.drawn) == _n_rounds_to_learn(loop)):
            learning = False
            yield Stage("slow", partial(slow_stage_of_draws, run, loop), OF_LABELS)
        yield _stage_of(run, step)
        if step.name == "model":
            yield Stage("check", partial(check_stage, run, loop))
    names = [surface_name(pair) for pair in pairs_of(run)]
    if run.options.slow != "torsions" and not names:
        names = [run.card_surface]
    pictures = tuple(name + suffix for name in names for suffix in (".npz", ".dat", ".png"))
    yield Stage("surface", partial(surface_stage, run, loop), RESULTS + pictures)


def _n_rounds_to_learn(loop: Loop) -> int:
    """Rounds that labels are learned from: two, or one of two."""
    of_frames = loop.force_evaluations - sum(draws.force_evaluations for draws in loop.drawn)
    n_rounds = len(loop.options.n_draws(loop.max_evaluations, of_frames))
    return min(2, max(n_rounds - 1, 1))


def _stage_of(run: Run, step: Step) -> Stage:
    stored = kept_as(run, step)
    return Stage(
        step.name,
        partial(compute_and_save, run, step, stored),
        MODEL if step.name == "model" else (),
        # read again: a run that was taken up goes on with the same numbers
        lambda folder: _accept(run, step, _loaded(stored, folder)),
    )


def _loaded(stored: Stored, folder: Path) -> Any:
    """What a folder holds.

    Raises:
        InputError: something else, whatever its checksums say.
    """
    try:
        for file in folder.glob("*.npz"):
            check_archive(file)
        return stored.load(folder)
    except InputError:
        raise
    except (zipfile.BadZipFile, OSError, *BROKEN) as error:
        raise InputError(
            f"{folder} does not hold what this program writes ({first_line(error)}): remove it to compute it again"
        ) from None


def _accept(run: Run, step: Step, value: Any) -> None:
    step.accept(value)
    if isinstance(value, ForceFrames) and value.n_dropped > HARMFUL_DROPS * (n := len(value.positions)):
        run.reporter.note(
            f"{value.n_dropped} of {value.n_dropped + n} training frames left the declared state (a cis peptide bond, "
            "say) and are left out, which leaves labels without any: hold the torsion by a `flat_bottom` of the card"
        )
    pilot = value.metadata.get("pilot") if step.name == "model" else None
    if pilot is not None and pilot["used"] != run.options.draws_from:
        why = pilot.get("reason") or (
            f"the network was no better than the map below it ({pilot['gan']:.2f} and {pilot['triangular']:.2f} "
            "effective samples a lift of a pilot)"
        )
        run.reporter.note(f"{why}: the model is the map alone")
