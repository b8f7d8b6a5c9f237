"""``gancl fes``: a free-energy surface from trajectories."""

import json
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import InputError
from . import options as shared
from .exit_codes import exit_codes
from .reporting import make_reporter

SUFFIXES = (".npz", ".dat", ".png")


def _prefix(output: Path | None) -> Path:
    prefix = Path("fes") if output is None else output
    return prefix.with_suffix("") if prefix.suffix in SUFFIXES else prefix


def _discard(text: str) -> Any:
    if text != "auto" and not text.isdigit():
        raise InputError(f"--discard is {text}: give auto or a number of frames")
    return text if text == "auto" else int(text)


def _basin(text: str, d: int) -> Any:
    import numpy as np

    from ..system import Basin

    name, *bounds = text.split(":")
    try:
        box = np.array([float(bound) for bound in bounds]).reshape(d, 2)
    except ValueError:
        form = ":".join(["name", *["low:high"] * d])
        raise InputError(f"--basin {text} is not understood: give {form}, in radians or nm") from None
    return Basin(name, (box,))


def fes(
    trajectories: Annotated[list[Path], typer.Argument(metavar="TRAJ...", help="Trajectories that mdtraj reads.")],
    top: Annotated[Path, typer.Option(help="Topology of the trajectories, a PDB file, say.")],
    cv: Annotated[
        list[str],
        typer.Option(help="phi:2, psi:2, torsion:4,6,8,14, angle:a,b,c, distance:a,b, rg, rmsd:FILE; once or twice."),
    ],
    temperature: Annotated[float, typer.Option(help="K.")],
    output: shared.Output = None,
    log_weights: Annotated[
        Path | None, typer.Option(help="Log-weights of the frames, npy or text, one a frame.")
    ] = None,
    bins: Annotated[int | None, typer.Option(min=4, help="Bins a coordinate; 72 in two, 120 in one dimension.")] = None,
    method: Annotated[str, typer.Option(help="kde or histogram.")] = "kde",
    discard: Annotated[
        str, typer.Option(metavar="auto|N", help="Frames to cut from the beginning of each trajectory.")
    ] = "auto",
    stride: Annotated[int, typer.Option(min=1, help="Take every so many frames.")] = 1,
    basin: Annotated[
        list[str] | None,
        typer.Option(help="name:low:high, or name:low:high:low:high; radians or nm; repeatable, the first is zero."),
    ] = None,
    seed: shared.Seed = 0,
    json_: shared.Json = False,
    debug: shared.Debug = False,
) -> None:
    """Free-energy surface over one or two collective variables, with error bars, from trajectories."""
    with exit_codes(debug):
        if method not in ("kde", "histogram"):
            raise InputError(f"--method is {method}: choose kde or histogram")
        frames_to_cut = _discard(discard)
        basins = tuple(_basin(text, len(cv)) for text in basin or [])
        from ..plotting import plot_surface
        from ..summary import basin_table
        from ..trajectories import read_log_weights, read_series
        from ..trajectory_surfaces import analyse_series
        from ..units import thermal_energy

        prefix, reporter = _prefix(output), make_reporter()
        prefix.parent.mkdir(parents=True, exist_ok=True)
        with reporter.step("reading", len(trajectories)) as done:
            finished = iter(range(1, len(trajectories) + 1))
            series = read_series(trajectories, top, cv, stride=stride, progress=lambda: done(next(finished)))
        logs = None if log_weights is None else read_log_weights(log_weights, len(series.values))
        with reporter.step("estimating", 1) as done:
            analysis = analyse_series(
                series,
                temperature,
                log_weights=logs,
                bins=bins,
                method="kde" if method == "kde" else "histogram",
                discard=frames_to_cut,
                seed=seed,
            )
            done(1)
        for warning in analysis.warnings:
            reporter.note(warning)
        surface = analysis.surface
        rows = [
            {key: value if isinstance(value, str) or isfinite(value) else None for key, value in asdict(row).items()}
            for row in analysis.basins(basins)
        ]
        surface.save(f"{prefix}.npz")
        surface.save_dat(f"{prefix}.dat")
        plot_surface(surface, basins=basins).figure.savefig(f"{prefix}.png", dpi=150)
        results = {
            "files": [f"{prefix}{suffix}" for suffix in SUFFIXES],
            "frames": len(analysis.blocks.kept),
            "discarded": analysis.blocks.discarded,
            "inefficiency": [round(g, 2) for g in analysis.blocks.inefficiency],
            "effective_samples": round(analysis.effective_samples, 1),
            "bandwidths": [float(f"{h:.4g}") for h in analysis.density.bandwidths],
            "median_error_kT": round(surface.median_error / thermal_energy(temperature), 4),
            "basins": rows,
            "warnings": analysis.warnings,
        }
        if json_:
            typer.echo(json.dumps(results))
            return
        lines = [
            ("frames", f"{results['frames']:,} after discarding {sum(analysis.blocks.discarded):,}"),
            ("independent samples", f"{analysis.effective_samples:.0f}"),
            ("median error below 10 kT", f"{results['median_error_kT']:.2f} kT"),
            ("bandwidths", ", ".join(f"{h:.3g}" for h in analysis.density.bandwidths)),
        ]
        typer.echo("\n".join([*(f"{name:<25} {text}" for name, text in lines), *basin_table(rows)]))
        typer.echo(f"\nsurface: {prefix}.npz, {prefix}.dat, {prefix}.png")
