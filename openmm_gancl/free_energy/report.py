"""The files, the JSON record and the text of a surface from trajectories."""

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .from_trajectories import TrajectoryAnalysis


def _pictures(analysis: "TrajectoryAnalysis", basins: Any, unit: str) -> dict[str, Any]:
    """Figures by what their names end in."""
    from .plots import plot_convergence, plot_equilibration, plot_errors, plot_overlap, plot_surface

    surface = analysis.surface
    found = {} if basins else {row.name: place for row, place in zip(analysis.basins, analysis.minima, strict=True)}
    saddles = [barrier.place for barrier in analysis.barriers]
    pictures = {
        "": plot_surface(surface, basins=basins, minima=found, saddles=saddles, unit=unit).figure,
        "_convergence": plot_convergence(analysis.convergence, surface.temperature, unit=unit),
    }
    if surface.energy.ndim == 2:
        pictures["_error"] = plot_errors(surface, unit=unit).figure
    if analysis.windows is not None:
        pictures["_overlap"] = plot_overlap(analysis.windows.mbar.overlap).figure
        blocks = analysis.blocks
        pictures["_equilibration"] = plot_equilibration(blocks.discarded, blocks.inefficiency).figure
    return pictures


def write_files(analysis: "TrajectoryAnalysis", basins: Any, prefix: Path, unit: str) -> list[str]:
    """Everything to a temporary folder, then renamed: a full disk leaves what was there."""
    prefix.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=prefix.parent, prefix=".fes-") as folder:
        temporary = Path(folder) / prefix.name
        analysis.surface.save(f"{temporary}.npz")
        analysis.surface.save_dat(f"{temporary}.dat", unit)
        for ending, figure in _pictures(analysis, basins, unit).items():
            figure.savefig(f"{temporary}{ending}.png", dpi=150)
        written = sorted(os.listdir(folder))
        for name in written:
            os.replace(Path(folder) / name, prefix.parent / name)
    return [str(prefix.parent / name) for name in written]


def as_json(analysis: "TrajectoryAnalysis", unit: str, files: list[str]) -> dict[str, Any]:
    """The record of an analysis, JSON-ready, energies in a unit."""
    from ..files import finite
    from ..units import energy_unit, thermal_energy

    temperature = analysis.surface.temperature
    size, kT = energy_unit(unit, temperature), thermal_energy(temperature)
    results: dict[str, Any] = {
        "files": files,
        "unit": unit,
        "frames": analysis.blocks.n_frames,
        "discarded": analysis.blocks.discarded,
        "inefficiency": [round(g, 2) for g in analysis.blocks.inefficiency],
        "effective_samples": round(analysis.effective_samples, 1),
        "bandwidths": [float(f"{h:.4g}") for h in analysis.density.bandwidths],
        "median_error_kT": round(analysis.surface.median_error / kT, 4),
        "basins": [
            {
                "name": row.name,
                "population": row.population,
                "population_error": row.population_error,
                "free_energy": row.free_energy / size,
                "free_energy_error": row.free_energy_error / size,
                "minimum": list(map(float, place)),
            }
            for row, place in zip(analysis.basins, analysis.minima, strict=True)
        ],
        "barriers": [
            {
                "names": list(row.names),
                "place": list(row.place),
                "heights": [height / size for height in row.heights],
                "errors": [error / size for error in row.errors],
            }
            for row in analysis.barriers
        ],
        "warnings": analysis.notes,
        "doubts": analysis.doubts,
        "trusted": not analysis.doubts,
    }
    if analysis.windows is not None:
        mbar = analysis.windows.mbar
        results["windows"] = {
            "files": [str(path) for path in analysis.windows.windows.files],
            "free_energies": (mbar.free_energies * kT / size).tolist(),
            "frames": mbar.counts.tolist(),
            "least_overlap": mbar.weakest_link()[2] if len(mbar.counts) > 1 else None,
            "left_out": analysis.windows.left_out,
        }
    return finite(results)


def as_text(analysis: "TrajectoryAnalysis", results: dict[str, Any], prefix: Path) -> str:
    """The same for people; doubts first."""
    from .basins import barrier_table, basin_table

    unit = results["unit"]
    lines = [
        ("frames", f"{results['frames']:,} after discarding {sum(analysis.blocks.discarded):,}"),
        ("independent samples", f"{analysis.effective_samples:.0f}"),
        ("median error below 10 kT", f"{results['median_error_kT']:.2f} kT"),
        ("bandwidths", ", ".join(f"{h:.3g}" for h in analysis.density.bandwidths)),
    ]
    if analysis.windows is not None:
        windows = results["windows"]
        lines.insert(1, ("windows", f"{len(windows['files'])}, least overlap {windows['least_overlap'] or 0:.3f}"))
    others = [Path(file).name for file in results["files"] if Path(file).stem != prefix.name]
    return "\n".join(
        [
            *(f"not to be trusted: {doubt}" for doubt in analysis.doubts),
            *(f"{name:<25} {text}" for name, text in lines),
            *basin_table(results["basins"], unit),
            *barrier_table(results["barriers"], unit),
            "",
            f"surface: {prefix}.npz, {prefix}.dat, {prefix}.png",
            f"other files: {', '.join(others)}",
        ]
    )
