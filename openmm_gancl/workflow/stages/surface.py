"""The surface stage: surfaces from lifts, and the summary."""

import math
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from ...coordinates.basin import Basin
from ...coordinates.slow_coordinates import Axes, FirstAxes
from ...files import load_json
from ...free_energy.plots import plot_surface
from ...free_energy.surface import ALIGNMENT_CEILING, FreeEnergySurface
from ...free_energy.weight_statistics import effective_sample_size, pareto_index, tail_share
from ...lifting.lifts import Lifts, load_lifts
from ...lifting.reverse_check import reason_counts
from ...lifting.surface import (
    LiftAnalysis,
    Progress,
    WeightedEnds,
    analyse_lifts,
    basin_populations,
    in_turn,
    surface_from_ends,
    weighted_ends,
)
from ...units import FloatArray
from ..context import Run
from ..labelling import labelling_of
from ..summary import RelaxedSummary


def _ratios_below_ceiling(surface: FreeEnergySurface, ends: WeightedEnds, kT: float) -> FloatArray:
    """Log-weights with the surface itself divided out, shape=(n_low,): what makes its error bars."""
    energies = surface.energy_at(ends.cv_values) / kT
    low = energies < ALIGNMENT_CEILING
    return np.asarray(ends.log_weights[low] + energies[low])


def save_surface(surface: FreeEnergySurface, basins: tuple[Basin, ...], out: Path, name: str) -> None:
    """Write a surface as ``.npz``, ``.dat`` and ``.png``."""
    surface.save(out / f"{name}.npz")
    surface.save_dat(out / f"{name}.dat")
    plot_surface(surface, basins=basins).figure.savefig(out / f"{name}.png", dpi=150)


def _learned_surfaces(run: Run, lifts: Lifts, cost: int, out: Path, progress: Progress) -> LiftAnalysis:
    """Surfaces over the first one or two learned coordinates, and over the card's labels, which is returned."""
    ends = weighted_ends(lifts, in_turn(progress, 0, 3))
    with np.load(run.folder.file("lift", "lifts.npz"), allow_pickle=False) as stored:
        learned, card_labels = (stored[name][lifts.ok] for name in ("learned_labels", "card_labels"))
    own = FirstAxes.of(labelling_of(run).system.slow, 2)

    def over(axes: Axes, values: FloatArray, number: int) -> FreeEnergySurface:
        return surface_from_ends(
            ends,
            values,
            axes,
            temperature=lifts.temperature,
            force_evaluations=cost,
            progress=in_turn(progress, number, 3),
        )

    save_surface(over(own, learned[:, : len(own.names)], 1), (), out, "fes")
    surface = over(run.system.slow, card_labels, 2)
    save_surface(surface, run.system.basins, out, run.card_surface)
    return LiftAnalysis(surface, replace(ends, cv_values=card_labels))


def surface_stage(run: Run, out: Path) -> None:
    """The surface, its picture, the basin table and the summary."""
    system, kT = run.system, run.system.kT
    lifts = load_lifts(run.folder.file("lift", "lifts.npz"), labelling_of(run).lifting_system.slow)
    checks = load_json(run.folder.file("lift", "checks.json"))
    cost = run.evaluations_before_lifts() + checks["force_evaluations"]
    with run.parts("surface") as progress:
        if labelling_of(run).learned is None:
            analysis = analyse_lifts(lifts, force_evaluations=cost, progress=progress)
            save_surface(analysis.surface, system.basins, out, "fes")
        else:
            analysis = _learned_surfaces(run, lifts, cost, out, progress)
    surface = analysis.surface
    basins = basin_populations(analysis.ends, system.basins, system.temperature)
    efficiencies = [check["efficiency"] for check in checks["checks"]]
    encoder, ratios = run.train_report().get("encoder"), _ratios_below_ceiling(surface, analysis.ends, kT)
    RelaxedSummary(
        system=system.name,
        preset=run.options.preset,
        acceptance=run.options.acceptance,
        n_lifts=len(lifts),
        reasons=reason_counts(lifts),
        relax_steps=lifts.relax_steps,
        effective_sample_size=effective_sample_size(analysis.ends.log_weights),
        pareto_index=pareto_index(ratios),
        tail_share=tail_share(ratios),
        pooled_z=math.nan if checks["pooled_z"] is None else checks["pooled_z"],
        n_checked=len(efficiencies),
        efficiency=float(np.median(efficiencies)) if efficiencies else math.nan,
        median_error=surface.median_error / kT,
        target_error=run.options.target_error,
        encoder="none" if encoder is None else "fitted" if encoder["kept"] else "prior",
        force_evaluations=cost,
        basins=[asdict(row) for row in basins],
        accepted=checks["accepted"],
        blind=checks.get("blind", []),
    ).save(out / "summary.json")
