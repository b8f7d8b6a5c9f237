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


def _read(
    trajectories: list[Path],
    top: Path | None,
    cvs: list[str],
    temperature: float,
    stride: int,
    log_weights: Path | None,
    colvars: list[Path],
    bias_columns: str | None,
    reporter: Any,
) -> tuple[Any, Any]:
    """The series of collective variables, and the log-weights of its frames or None."""
    from ..colvar import bias_log_weights, read_colvar, with_columns
    from ..trajectories import read_log_weights, read_series

    computed = [name for name in cvs if not name.startswith("column:")]
    if not colvars and (bias_columns or len(computed) < len(cvs)):
        raise InputError("columns are asked for, but no file that holds them: give --colvar FILE")
    if colvars and not bias_columns and len(computed) == len(cvs):
        raise InputError("a COLVAR file is given, but nothing of it asked for: give --bias-columns or --cv column:NAME")
    if bias_columns and log_weights is not None:
        raise InputError("both --bias-columns and --log-weights are given: choose one")
    if computed and not trajectories:
        raise InputError(f"--cv {computed[0]} needs trajectories: name them, or give --cv column:NAME")
    if trajectories and not computed:
        raise InputError("no --cv is computed from the trajectories: leave them out, or name one, as in phi:2")
    series = None
    if trajectories:
        if top is None:
            raise InputError("trajectories need --top FILE, a PDB file, say: name it")
        with reporter.step("reading", len(trajectories)) as done:
            finished = iter(range(1, len(trajectories) + 1))
            series = read_series(trajectories, top, computed, stride=stride, progress=lambda: done(next(finished)))
    logs = None
    if colvars:
        table = read_colvar(colvars)
        series, rows = with_columns(series, table, cvs)
        if bias_columns:
            logs = bias_log_weights(table, bias_columns.split(","), temperature, rows)
    if log_weights is not None and series is not None:
        logs = read_log_weights(log_weights, len(series.values))
    return series, logs


def fes(
    cv: Annotated[
        list[str],
        typer.Option(
            help="phi:2, psi:2, torsion:4,6,8,14, angle:a,b,c, distance:a,b, rg, rmsd:FILE, column:NAME; once or twice."
        ),
    ],
    temperature: Annotated[float, typer.Option(help="K.")],
    trajectories: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[TRAJ...]", help="Trajectories that mdtraj reads; none if a COLVAR file has it all."),
    ] = None,
    top: Annotated[Path | None, typer.Option(help="Topology of the trajectories, a PDB file, say.")] = None,
    output: shared.Output = None,
    log_weights: Annotated[
        Path | None, typer.Option(help="Log-weights of the frames, npy or text, one a frame.")
    ] = None,
    colvar: Annotated[
        list[Path] | None,
        typer.Option(help="A COLVAR file as PLUMED writes it, for column:NAME and --bias-columns; repeatable."),
    ] = None,
    bias_columns: Annotated[
        str | None, typer.Option(help="Columns of the COLVAR file, a,b, whose sum is the bias (kJ/mol).")
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
        from ..trajectory_surfaces import analyse_series
        from ..units import thermal_energy

        prefix, reporter = _prefix(output), make_reporter()
        series, logs = _read(
            trajectories or [], top, cv, temperature, stride, log_weights, colvar or [], bias_columns, reporter
        )
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
        prefix.parent.mkdir(parents=True, exist_ok=True)
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
