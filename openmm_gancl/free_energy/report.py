"""The files, the JSON record and the text of a surface from trajectories."""

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .from_trajectories import TrajectoryAnalysis
    from .window_weights import WindowWeights


OF_SOME_RUNS = ("_error", "_overlap", "_equilibration")
"""What names of pictures end in that only surfaces over two coordinates, or those from windows, have."""


def _pictures(analysis: "TrajectoryAnalysis", basins: Any, unit: str, axis_units: Sequence[str]) -> dict[str, Any]:
    """Figures by what their names end in."""
    from .plots import plot_convergence, plot_equilibration, plot_errors, plot_overlap, plot_surface

    surface = analysis.surface
    found = {} if basins else {row.name: place for row, place in zip(analysis.basins, analysis.minima, strict=True)}
    saddles = [barrier.place for barrier in analysis.barriers]
    pictures = {
        "": plot_surface(
            surface, basins=basins, minima=found, saddles=saddles, unit=unit, axis_units=axis_units
        ).figure,
        "_convergence": plot_convergence(analysis.convergence, surface.temperature, unit=unit),
    }
    if surface.energy.ndim == 2:
        pictures["_error"] = plot_errors(surface, unit=unit, axis_units=axis_units).figure
    if analysis.windows is not None:
        pictures["_overlap"] = plot_overlap(analysis.windows.mbar.overlap).figure
        blocks = analysis.blocks
        pictures["_equilibration"] = plot_equilibration(blocks.discarded, blocks.inefficiency).figure
    return pictures


def write_files(
    analysis: "TrajectoryAnalysis", basins: Any, prefix: Path, unit: str, axis_units: Sequence[str] = ()
) -> list[str]:
    """Everything to a temporary folder, then renamed: a full disk leaves what was there.

    Pictures that an earlier run of the same prefix made, and this one does not, are removed.
    """
    prefix.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=prefix.parent, prefix=".fes-") as folder:
        temporary = Path(folder) / prefix.name
        analysis.surface.save(f"{temporary}.npz")
        analysis.surface.save_dat(f"{temporary}.dat", unit)
        for ending, figure in _pictures(analysis, basins, unit, axis_units).items():
            figure.savefig(f"{temporary}{ending}.png", dpi=150)
        written = sorted(os.listdir(folder))
        for name in written:
            os.replace(Path(folder) / name, prefix.parent / name)
    for name in {f"{prefix.name}{ending}.png" for ending in OF_SOME_RUNS} - set(written):
        (prefix.parent / name).unlink(missing_ok=True)
    return [str(prefix.parent / name) for name in written]


LOWEST_FIRST, AS_GIVEN = "lowest minimum first", "as given"
"""Orders of basins: of those found on the surface, and of boxes."""


def _basin_records(analysis: "TrajectoryAnalysis", size: float, shown: Callable[[Any], list[float]]) -> Any:
    """Basins and barriers, energies over the size of their unit."""
    basins = [
        {
            "name": row.name,
            "population": row.population,
            "population_error": row.population_error,
            "free_energy": row.free_energy / size,
            "free_energy_error": row.free_energy_error / size,
            "minimum": shown(place),
        }
        for row, place in zip(analysis.basins, analysis.minima, strict=True)
    ]
    barriers = [
        {
            "names": list(row.names),
            "place": shown(row.place),
            "heights": [height / size for height in row.heights],
            "errors": [error / size for error in row.errors],
        }
        for row in analysis.barriers
    ]
    return {"basins": basins, "barriers": barriers}


def _window_record(windows: "WindowWeights", kT: float) -> dict[str, Any]:
    """Umbrella windows, energies in the unit in which kT is given."""
    mbar = windows.mbar
    return {
        "files": [str(path) for path in windows.windows.files],
        "free_energies": (mbar.free_energies * kT).tolist(),
        "frames": mbar.counts.tolist(),
        "least_overlap": mbar.weakest_link()[2] if len(mbar.counts) > 1 else None,
        "left_out": windows.left_out,
    }


def as_json(
    analysis: "TrajectoryAnalysis", unit: str, files: list[str], axis_units: Sequence[str] = (), given: bool = False
) -> dict[str, Any]:
    """The record of an analysis, JSON-ready.

    Args:
        analysis: the analysis.
        unit: of energies.
        files: that were written.
        axis_units: of places; see `axes_of`.
        given: whether the basins were given, not found.
    """
    from ..files import finite
    from ..units import energy_unit, thermal_energy
    from .axes import axes_of

    surface, blocks = analysis.surface, analysis.blocks
    size, kT = energy_unit(unit, surface.temperature), thermal_energy(surface.temperature)
    axes, resolved = axes_of(surface, axis_units), surface.resolved or ("",) * len(surface.names)

    def shown(place: Any) -> list[float]:
        return [float(axis.shown(x)) for axis, x in zip(axes, place, strict=True)]

    results: dict[str, Any] = {
        "files": files,
        "unit": unit,
        "frames": blocks.n_frames,
        "discarded": blocks.discarded,
        "inefficiency": [round(g, 2) for g in blocks.inefficiency],
        "effective_samples": round(analysis.effective_samples, 1),
        "coordinates": [
            {"name": name, "label": axis.label, "unit": axis.unit, "atoms": atoms}
            for name, axis, atoms in zip(surface.names, axes, resolved, strict=True)
        ],
        "bandwidths": [float(f"{h:.4g}") for h in shown(analysis.density.bandwidths)],
        "smoothed": analysis.density.smoothed,
        "median_error_kT": round(surface.median_error / kT, 4),
        "basin_order": AS_GIVEN if given else LOWEST_FIRST,
        **_basin_records(analysis, size, shown),
        "warnings": analysis.notes,
        "doubts": analysis.doubts,
        "trusted": not analysis.doubts,
    }
    if analysis.windows is not None:
        results["windows"] = _window_record(analysis.windows, kT / size)
    return finite(results)


def _resolved(coordinate: dict[str, Any]) -> str:
    return f"{coordinate['label']}: {coordinate['atoms']}"


def _with_units(texts: list[str], units: list[str]) -> str:
    """Numbers with their units, once where all have the same."""
    if len(set(units)) == 1:
        return f"{', '.join(texts)} {units[0]}".rstrip()
    return ", ".join(f"{text} {unit}".rstrip() for text, unit in zip(texts, units, strict=True))


def _bandwidths(results: dict[str, Any], units: list[str]) -> str:
    """With what is smoothed: one of half a turn is a surprise where that is not said."""
    if not results["smoothed"]:
        return "none (histogram)"
    return f"{_with_units([f'{h:.3g}' for h in results['bandwidths']], units)}, of the {results['smoothed']}"


def as_text(analysis: "TrajectoryAnalysis", results: dict[str, Any], prefix: Path) -> str:
    """The same for people; doubts first."""
    from .basins import barrier_table, basin_table

    unit, coordinates = results["unit"], results["coordinates"]
    units = [coordinate["unit"] for coordinate in coordinates]
    lines = [
        *((coordinate["name"], _resolved(coordinate)) for coordinate in coordinates if coordinate["atoms"]),
        ("frames", f"{results['frames']:,} after discarding {sum(analysis.blocks.discarded):,}"),
        ("independent samples", f"{analysis.effective_samples:.0f}"),
        ("median error below 10 kT", f"{results['median_error_kT']:.2f} kT"),
        ("bandwidths", _bandwidths(results, units)),
    ]
    if analysis.windows is not None:
        windows = results["windows"]
        lines.insert(-3, ("windows", f"{len(windows['files'])}, least overlap {windows['least_overlap'] or 0:.3f}"))
    others = [file for file in results["files"] if Path(file).stem != prefix.name]
    return "\n".join(
        [
            *(f"not to be trusted: {doubt}" for doubt in analysis.doubts),
            *(f"{name:<25} {text}" for name, text in lines),
            *basin_table(results["basins"], unit, results["basin_order"]),
            *barrier_table(results["barriers"], unit, units),
            "",
            f"surface: {prefix}.npz, {prefix}.dat, {prefix}.png",
            f"other files: {', '.join(others)}",
        ]
    )
