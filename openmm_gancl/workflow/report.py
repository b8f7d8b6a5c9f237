"""The report of a finished run: one page of HTML with everything inside, doubts first."""

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..closures.drift_diffusion import Rates
from ..closures.plots import plot_average, plot_mean_force, plot_rates
from ..closures.reduced_model import load_reduced_model
from ..coordinates.basin import Basin
from ..errors import InputError
from ..files import check_writable, load_arrays, write_atomically
from ..free_energy.axes import axes_of
from ..free_energy.basins import formatted
from ..free_energy.plots import new_figure, plot_errors, plot_surface
from ..free_energy.surface import ALIGNMENT_CEILING, FreeEnergySurface, load_surface
from ..units import thermal_energy
from .folder import BESIDES, RunFolder
from .report_figures import (
    Figure,
    drawn,
    plot_check,
    plot_committor,
    plot_history,
    plot_lags,
    plot_rounds,
    plot_weights,
    stored,
)
from .summary import LoopSummary, Summary, load_summary, place_of_mode

REPORT = "report.html"
QUANTILES = (0.1, 0.5, 0.9, 1.0)
"""Of error bars below 10 kT."""


@dataclass(frozen=True)
class Table:
    """Rows of text; the first cell of each names it."""

    rows: Sequence[Sequence[str]]
    head: Sequence[str] = ()
    caption: str = ""


@dataclass(frozen=True)
class Section:
    """One part of the page.

    Attributes:
        name: one word, of its address.
        title: for people.
        text: paragraphs.
        figures: pictures.
        tables: tables.
        records: titles and long texts that are folded.
        wide: whether pictures need the whole width.
    """

    name: str
    title: str
    text: Sequence[str] = ()
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    records: Sequence[tuple[str, str]] = ()
    wide: bool = False


@dataclass(frozen=True)
class Report:
    """What was written.

    Attributes:
        path: of the page.
        doubts: sentences, why the run is not to be trusted.
        trusted: whether exit code 0 is deserved.
    """

    path: Path
    doubts: tuple[str, ...]
    trusted: bool


class FinishedRun:
    """What the files of a finished run hold, which are as they were written.

    Args:
        path: the run folder.

    Raises:
        InputError: it is no run folder or not finished, or a file of it is missing or has changed.
    """

    def __init__(self, path: Path):
        self.folder = folder = RunFolder.load(path)
        if not folder.is_done("surface"):
            raise InputError(f"{path} is not finished: go on with `gancl lift {path}` first")
        for stage in folder.manifest["stages"]:
            if folder.is_done(stage):
                folder.verify(stage)
        self.manifest: dict[str, Any] = folder.manifest
        self.card: dict[str, Any] = folder.manifest["system"]["card"]

    def json_of(self, stage: str, name: str) -> dict[str, Any] | None:
        """A record of a stage; None where that stage is not finished, or has no such file."""
        path = self.folder.file(stage, name)
        if not self.folder.is_done(stage) or not path.is_file():
            return None
        return dict(json.loads(path.read_text()))

    @cached_property
    def summary(self) -> Summary:
        """Of the run."""
        return load_summary(self.folder.file("surface", "summary.json"))

    @cached_property
    def surfaces(self) -> dict[str, FreeEnergySurface]:
        """All that were written, by the names of their files."""
        paths = sorted((self.folder.path / "surface").glob("fes*.npz"))
        return {path.stem: load_surface(path) for path in paths}

    @cached_property
    def closures(self) -> dict[str, Any] | None:
        """The record of `gancl closures`."""
        return self.json_of("closures", "closures.json")

    @cached_property
    def closure_arrays(self) -> dict[str, Any]:
        """Its arrays."""
        return dict(load_arrays(self.folder.file("closures", "closures.npz")))

    @property
    def basins(self) -> tuple[Basin, ...]:
        """Of the card, whose labels the surface of this name is over."""
        boxes = [tuple(np.array(box, dtype=float) for box in one["boxes"]) for one in self.card["basins"]]
        return tuple(Basin(one["name"], part) for one, part in zip(self.card["basins"], boxes, strict=True))

    def basins_of(self, surface: FreeEnergySurface) -> tuple[Basin, ...]:
        """Those that can be drawn over a surface."""
        own = tuple(label["name"] for label in self.card.get("labels", []))
        return tuple(basin.over(own, surface.periods) for basin in self.basins) if surface.names == own else ()


def _surface(run: FinishedRun) -> Section:
    figures = []
    for name, surface in run.surfaces.items():
        caption = f"Free energy over {' and '.join(surface.names)}"
        figures.append(drawn(name, caption, plot_surface, surface, basins=run.basins_of(surface)))
    rows = Table([list(row) for row in run.summary.rows(run.folder.evaluations_spent(BESIDES))])
    return Section("surface", "Surface", figures=figures, tables=[rows])


def _errors(run: FinishedRun) -> Section:
    rows, figures = [], []
    for name, surface in run.surfaces.items():
        kT = thermal_energy(surface.temperature)
        low = surface.energy < ALIGNMENT_CEILING * kT
        values = np.quantile(surface.error[low], QUANTILES)
        unknown = 1 - np.isfinite(surface.energy).mean()
        rows.append([name, *(f"{value:.2f} ({value / kT:.2f} kT)" for value in values), f"{unknown:.0%}"])
        if surface.energy.ndim == 2:
            caption = f"Standard error over {' and '.join(surface.names)}"
            figures.append(drawn(f"{name}-error", caption, plot_errors, surface))
    head = ["surface", "10 % below", "median", "90 % below", "largest", "unknown bins"]
    caption = "Standard errors below 10 kT, kJ/mol, after aligning the mean there"
    return Section("errors", "Errors", figures=figures, tables=[Table(rows, head, caption)])


def _training(run: FinishedRun) -> Section:
    if isinstance(run.summary, LoopSummary):
        kT = thermal_energy(next(iter(run.surfaces.values())).temperature)
        # rounds hold kJ/mol
        rounds = [{**one, "median_error": _in_kT(one["median_error"], kT)} for one in run.summary.rounds]
        values = [[one[name] for one in rounds] for name in ("force_evaluations", "median_error", "effective_fraction")]
        figures = [drawn("rounds", "What each round of lifts was worth", plot_rounds, *map(_numbers, values))]
        rows = [
            [
                str(i),
                f"{one['force_evaluations']:,}",
                *(formatted(one[name], ".3f") for name in _OF_ROUND),
                str(one["moves"]),
            ]
            for i, one in enumerate(rounds, start=1)
        ]
        head = ["round", "force evaluations so far", "effective samples a lift", "mean weight", "error (kT)", "moves"]
        caption = "Mean weight: of a round's lifts over the surface's, one where they agree"
        return Section("training", "Training", figures=figures, tables=[Table(rows, head, caption)])
    report = run.json_of("train", "report.json") or {}
    history = {name: part for name, part in report.get("history", {}).items() if np.ndim(part) == 1 and len(part) > 1}
    text = [f"Relaxations of {report.get('relax_steps', 'unknown')} steps."]
    figures = [drawn("history", "Recorded while training", plot_history, history)] if history else []
    return Section("training", "Training", text, figures)


def _in_kT(error: float | None, kT: float) -> float | None:
    return None if error is None else error / kT


_OF_ROUND = ("effective_fraction", "mean_ratio", "median_error")


def _numbers(values: Sequence[float | None]) -> Any:
    return np.array([np.nan if value is None else value for value in values], dtype=float)


def _weights(run: FinishedRun) -> Section:
    reasons = Table([[reason, f"{count:,}"] for reason, count in run.summary.reasons.items()], ["lifts", "number"])
    if not isinstance(run.summary, LoopSummary):
        text = ["Weights of relaxed lifts hold the restraint of each label, and are no shares of one total."]
        return Section("weights", "Weights", text, tables=[reasons])
    log_weights = np.asarray(load_arrays(run.folder.file("surface", "lifts.npz"))["log_weights"], dtype=float)
    found = log_weights[np.isfinite(log_weights)]
    shares = np.exp(found - found.max()) / np.exp(found - found.max()).sum()
    text = [
        f"The heaviest lift has {shares.max():.2%} of the total weight. Weights hold the free energy of their labels, "
        "too: the Pareto index above is without it."
    ]
    if lost := len(log_weights) - len(found):
        text.insert(0, f"{lost:,} of {len(log_weights):,} lifts have no weight, and count as zero.")
    picture = drawn("weights", "How much of the total weight the heaviest lifts have", plot_weights, shares)
    return Section("weights", "Weights", text, [picture], [reasons])


def _modes(run: FinishedRun) -> Section:
    summary = run.summary
    if not isinstance(summary, LoopSummary) or not summary.modes:
        return Section("modes", "Modes", ["No coordinate beside the labels turns between modes."])
    rows = [
        [
            row["name"],
            place_of_mode(row),
            *(formatted(row[name], ".2f") for name in ("frames", "lifts", "check")),
            f"{row['weight']:.3f} ± {row['weight_error']:.3f}",
        ]
        for row in summary.modes
    ]
    head = ["coordinate", "mode", "training frames", "lifts", "check", "population"]
    caption = "Modes of coordinates that turn and are no labels, as shares of frames and lifts"
    return Section("modes", "Modes", tables=[Table(rows, head, caption)])


def _check(run: FinishedRun) -> Section:
    record = run.json_of("check", "checks.json") or run.json_of("lift", "checks.json") or {"checks": []}
    checks = record["checks"]
    if not checks:
        return Section("check", "Check", ["No label could be checked against real frames."])
    rows = [
        [
            str(i),
            ", ".join(f"{x:.3g}" for x in one["label"]),
            *(formatted(one[name], "+.3f" if name == "difference" else ".2f") for name in _OF_CHECK),
            f"{one['n_forward']}, {one['n_reverse']}",
        ]
        for i, one in enumerate(checks, start=1)
    ]
    names = ", ".join(label["name"] for label in run.card.get("labels", []))
    head = [
        "number",
        f"label ({names})",
        "difference (kT)",
        "error (kT)",
        "z",
        "effective samples a lift",
        "lifts and frames",
    ]
    picture = drawn(
        "check",
        "Lifts against independent real frames, one standard error",
        plot_check,
        *(np.array([one[name] for one in checks], dtype=float) for name in ("difference", "error")),
    )
    return Section("check", "Check", figures=[picture], tables=[Table(rows, head)])


_OF_CHECK = ("difference", "error", "z", "efficiency")


def _learned_labels(run: FinishedRun) -> Section | None:
    report, picture = run.json_of("slow", "report.json"), run.folder.file("slow", "slow.png")
    if report is None:
        return None
    rows = [[name, f"{value:.3f}"] for name, value in report["recovery"].items()]
    table = Table(rows, ["torsion of the card", "circular R²"], "Predicted by the labels, on held-out frames")
    caption = "Spectrum, choice of bandwidth and coordinates of the diffusion map"
    figures = [stored(picture, caption)] if picture.is_file() else []
    text = [f"{', '.join(report['names'])}, of {report['features']}."]
    return Section("labels", "Learned labels", text, figures, [table] if rows else [], wide=True)


def _without_closures(run: FinishedRun, name: str, title: str) -> Section:
    return Section(name, title, [f"Not computed for these lifts: gancl closures {run.folder.path}"])


def _card_surface(run: FinishedRun) -> FreeEnergySurface:
    """Over the card's labels, as closures are."""
    names = tuple(map(str, run.closure_arrays["names"]))
    return next(surface for surface in run.surfaces.values() if surface.names == names)


def _on_grid(run: FinishedRun, energy: str, error: str) -> FreeEnergySurface:
    """A surface of the closures."""
    arrays, own = run.closure_arrays, _card_surface(run)
    edges = tuple(arrays[f"edges_{i}"] for i in range(len(own.names)))
    return FreeEnergySurface(
        arrays[energy], arrays[error], edges, own.names, own.periods, own.temperature, 0, own.units, own.labels
    )


def _consistency(run: FinishedRun) -> Section:
    record = run.closures
    if record is None:
        return _without_closures(run, "consistency", "Consistency")
    text, figures, tables = list[str](), list[Figure](), list[Table]()
    if (test := record["mean_force"]) is not None:
        text.append(
            f"Surfaces from mean forces and from weights differ by {formatted(test['rms'], '.3f')} kT (z = "
            f"{formatted(test['z'], '+.1f')}, beyond 4: not to be trusted) over {test['labels']} labels."
        )
        surface = _on_grid(run, "weights_energy", "weights_error")
        of_force = _on_grid(run, "mean_force_energy", "mean_force_error")
        figures.append(drawn("force", "Mean force against weights", plot_mean_force, surface, of_force))
        arrays, name = run.closure_arrays, "mean potential energy given the label (kJ/mol)"
        values = (arrays["potential_energy"], arrays["potential_energy_error"])
        figures.append(drawn("energy", "Potential energy given the label", plot_average, surface, *values, name))
    energy = record["potential_energy"]
    text.append(
        f"Mean potential energy {formatted(energy['mean'], '.2f')} ± {formatted(energy['error'], '.2f')} kJ/mol."
    )
    if (found := record["consistency"]) is not None:
        rows = [
            [
                row["ensemble"],
                *(formatted(row[name], ".2g") for name in _OF_CONSISTENCY),
                formatted(row.get("effective"), ".0f"),
                row["farthest"],
            ]
            for row in found["rows"]
        ]
        head = ["ensemble", "label error", "distance", "largest", "energy overlap", "effective", "farthest coordinate"]
        caption = (
            f"Against frames of restrained dynamics at {len(found['labels'])} labels: Wasserstein distance of internal "
            "coordinates in standard deviations, and the shared part of the distributions of energies"
        )
        tables.append(Table(rows, head, caption))
        text.append(
            f"In {found['free_time']:g} ps without restraint the label changes by "
            f"{formatted(found['free_label_change'], '.2g')} (root mean square)."
        )
    return Section("consistency", "Consistency", text, figures, tables)


_OF_CONSISTENCY = ("label_error", "distance", "largest_distance", "energy_overlap")


def _reduced_model(run: FinishedRun) -> Section:
    record = run.closures
    if record is None:
        return _without_closures(run, "reduced", "Reduced model")
    if (found := record["dynamics"]) is None:
        return Section("reduced", "Reduced model", ["None could be made; the doubts say why."])
    arrays = run.closure_arrays
    rates = Rates(
        model=load_reduced_model(run.folder.file("closures", "reduced_model.npz")),
        **{name: arrays[name] for name in ("labels", "drift", "drift_error", "diffusion", "diffusion_error")},
    )
    surface = _card_surface(run)
    of_two = [f"Diffusion of {name}" for name in surface.names]
    captions = of_two if len(surface.names) == 2 else ["Drift", "Diffusion"]
    inertia = found.get("inertial") is not None
    if inertia:
        captions = [f"{caption} of the overdamped model, which is not the one in use" for caption in captions]
    figures = [drawn(f"rates-{i}", caption, _one_of_rates, rates, surface, i) for i, caption in enumerate(captions)]
    chosen = found["lags"].index(found["lag"])
    axes, by_lag = axes_of(surface), (arrays["lags"], arrays["diffusion_by_lag"], chosen)
    names = [axis.label for axis in axes]
    figures.append(drawn("lags", "Slopes from each first lag on", plot_lags, *by_lag, names))
    if "committor" in arrays:
        edges = [axis.shown(part) for axis, part in zip(axes, rates.model.edges, strict=True)]
        titles, basins = [axis.title for axis in axes], run.basins
        caption = (
            f"Committor from {basins[0].name} to {basins[1].name}, of the reduced model in the limit of high friction "
            "(overdamped)"
        )
        figures.append(drawn("committor", caption, plot_committor, edges, arrays["committor"], titles))
    rows = [
        [f"{row['first']} to {row['second']}", f"{formatted(row['there'], '.4g')}", f"{formatted(row['back'], '.4g')}"]
        for row in found["passages"]
    ]
    scales = ", ".join(formatted(scale, ".3g") for scale in found["time_scales"]) or "no"
    limit = " (in the limit of high friction)" if inertia else ""
    text = [
        f"{found['runs']:,} short runs from {found['labels']} labels; a plateau was "
        f"{'found' if found['has_plateau'] else 'not found'}, lags from {found['lag']:.3g} to {found['last']:.3g} ps.",
        f"Slowest relaxations: {scales} ps{limit}.",
    ]
    if "why" in found:
        text.append(f"Model in use, {found['model']}: {found['why']}.")
    of_model = "of the model with inertia" if inertia else "of the overdamped model"
    caption = f"Mean passage times between the cores of basins, {of_model}"
    table = Table(rows, ["passage", "there (ps)", "back (ps)"], caption)
    return Section("reduced", "Reduced model", text, figures, [table] if rows else [])


def _one_of_rates(rates: Rates, surface: FreeEnergySurface, number: int, ax: Any) -> None:
    """One of the two pictures of rates; the other goes onto a figure that is not kept."""
    panels = [new_figure((1, 1)).add_subplot(), ax]
    plot_rates(rates, surface, panels[:: 1 if number else -1])


def _basins(run: FinishedRun) -> Section:
    rows = []
    for i, row in enumerate(run.summary.basins):
        population = f"{formatted(row['population'], '.4f')} ± {formatted(row['population_error'], '.4f')}"
        free = f"{formatted(row['free_energy'], '.2f')} ± {formatted(row['free_energy_error'], '.2f')}"
        rows.append([row["name"], population, free if i else "reference"])
    if not rows:
        return Section("basins", "Basins", ["The card names no basins."])
    return Section("basins", "Basins", tables=[Table(rows, ["basin", "population", "free energy (kJ/mol)"])])


def _provenance(run: FinishedRun) -> Section:
    manifest, folder = run.manifest, run.folder
    rows = [
        ["begun", manifest["created"]],
        ["seed", str(manifest["seed"])],
        ["platform", f"{manifest['platform']}, {manifest['threads']} threads"],
        ["force field", manifest["system"]["force_field_hash"]],
        *([name, version] for name, version in manifest["versions"].items()),
    ]
    seconds = folder.seconds()
    stages = []
    for name, entry in manifest["stages"].items():
        evaluations = sum(one["force_evaluations"] for one in entry["attempts"])
        stages.append([name, f"{seconds[name]:.1f}", f"{evaluations:,}", str(len(entry["attempts"]))])
    sums = [
        f"{stage}/{name} {digest}"
        for stage, entry in manifest["stages"].items()
        for name, digest in entry["checksums"].items()
    ]
    records = [
        (title, json.dumps(part, indent=1))
        for title, part in (
            ("Card", run.card),
            ("Options", manifest["options"]),
            ("Settings", manifest["settings"]),
        )
    ]
    tables = [Table(rows), Table(stages, ["stage", "seconds", "force evaluations", "attempts"])]
    return Section(
        "provenance", "Provenance", tables=tables, records=[*records, ("Checksums (SHA-256)", "\n".join(sums))]
    )


SECTIONS: tuple[Callable[[FinishedRun], Section | None], ...] = (
    _surface,
    _errors,
    _training,
    _weights,
    _modes,
    _check,
    _learned_labels,
    _consistency,
    _reduced_model,
    _basins,
    _provenance,
)
"""In the order of the page."""


def _verdict(run: FinishedRun, doubts: Sequence[str]) -> str:
    if run.summary.preset == "quick":
        return "A trial (preset quick), not to be trusted" + (":" if doubts else ".")
    return "Not to be trusted:" if doubts else "No doubt was found."


def _with_code(text: str) -> Any:
    """A message as markup, its names of parameters as code."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(text))))


def _page(run: FinishedRun, doubts: Sequence[str]) -> str:
    """HTML."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    pages = Environment(loader=PackageLoader(__package__), autoescape=True, undefined=StrictUndefined)
    pages.filters["code"] = _with_code
    about = [run.card.get("description"), f"{run.card['temperature']:g} K", f"preset {run.summary.preset}"]
    content: Mapping[str, Any] = {
        "title": run.summary.system,
        "subtitle": "; ".join(part for part in about if part),
        "verdict": _verdict(run, doubts),
        "doubts": doubts,
        "good": not doubts and run.summary.preset != "quick",
        "sections": [section for make in SECTIONS if (section := make(run)) is not None],
        "version": run.manifest["versions"]["openmm-gancl"],
    }
    return pages.get_template("report.html").render(content)


def _doubts(run: FinishedRun) -> Iterator[str]:
    yield from run.summary.doubts()
    if run.closures is not None:
        yield from run.closures["doubts"]


def write_report(path: str | os.PathLike[str], target: str | os.PathLike[str] | None = None) -> Report:
    """Write the page of a finished run.

    Args:
        path: the run folder.
        target: of the page; ``report.html`` in the folder by default.

    Raises:
        InputError: it is no run folder or not finished, a file of it has changed, or the target cannot be written.
    """
    run = FinishedRun(Path(path))
    page = Path(path) / REPORT if target is None else Path(target)
    check_writable(page)
    doubts = tuple(_doubts(run))
    write_atomically(page, _page(run, doubts))
    # doubts of closures are as good as those of the run: of a trial, none
    trusted = run.summary.trusted and (run.summary.preset == "quick" or not doubts)
    return Report(page, doubts, trusted)
