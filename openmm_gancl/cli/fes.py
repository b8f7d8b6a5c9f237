"""``gancl fes``: a free-energy surface from trajectories."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError
from ..free_energy.report import as_json, as_text, write_files
from . import options as shared
from .exit_codes import EXIT_NOT_TRUSTED, exit_codes
from .reporting import make_reporter

if TYPE_CHECKING:
    from ..free_energy.from_trajectories import TrajectoryAnalysis
    from ..trajectories.observations import Observations

SUFFIXES = (".npz", ".dat", ".png")


def _prefix(output: Path | None) -> Path:
    prefix = Path("fes") if output is None else output
    if prefix.is_dir() or not prefix.name:
        prefix = prefix / "fes"
    return prefix.with_suffix("") if prefix.suffix in SUFFIXES else prefix


def _discard(text: str) -> Any:
    if text != "auto" and not text.isdecimal():
        raise InputError(f"`discard` is {text}: give auto or a number of frames")
    return text if text == "auto" else int(text)


def _method(text: str) -> Any:
    if text not in ("kde", "histogram"):
        raise InputError(f"`method` is {text}: choose kde or histogram")
    return text


def _basin(text: str, d: int) -> Any:
    import numpy as np

    from ..coordinates.basin import Basin

    name, *bounds = text.split(":")
    try:
        box = np.array([float(bound) for bound in bounds]).reshape(d, 2)
    except ValueError:
        form = ":".join(["name", *["low:high"] * d])
        raise InputError(f"--basin {text} is not understood: give {form}, in radians or nm") from None
    return Basin(name, (box,))


def _range(text: str) -> tuple[float, float]:
    try:
        low, high = (float(bound) for bound in text.split(":"))
    except ValueError:
        raise InputError(f"--bias-range {text} is not understood: give low:high, in radians or nm") from None
    if not low < high:
        raise InputError(f"--bias-range {text} is empty: give low:high")
    return low, high


def _bias(
    metadynamics: Path | None,
    ranges: list[str] | None,
    opes: Path | None,
    barrier: float | None,
    bias_factor: float | None,
    temperature: float,
) -> Callable[[Any], Any] | None:
    """What makes the static bias, once the periods of its variables are known."""
    from ..trajectories.static_bias import metadynamics_bias, opes_bias

    if opes is None and (barrier is not None or bias_factor is not None):
        raise InputError("--opes-barrier and --opes-bias-factor go with --opes FILE: add it, or leave them out")
    if metadynamics is None and ranges:
        raise InputError("--bias-range goes with --metadynamics DIR: add it, or leave it out")
    if metadynamics is not None and opes is not None:
        raise InputError("--metadynamics and --opes are given: choose one way to undo the bias")
    if metadynamics is not None:
        limits = [_range(text) for text in ranges] if ranges else None
        return lambda periods: metadynamics_bias(metadynamics, periods=periods, limits=limits)
    if opes is None:
        return None
    if barrier is None:
        raise InputError("--opes needs the barrier that OPES was given: add --opes-barrier, kJ/mol")
    return lambda periods: opes_bias(
        opes, temperature=temperature, barrier=barrier, periods=periods, bias_factor=bias_factor
    )


def _report(
    analysis: "TrajectoryAnalysis", basins: Any, prefix: Path, unit: str, biased: bool, reporter: Any, json_: bool
) -> None:
    """Write the files and print what was found."""
    for note in analysis.notes:
        reporter.note(note)
    if biased:
        reporter.note("frames are weighted by the last bias: cut those sampled while it still grew (`discard`)")
    results = as_json(analysis, unit, write_files(analysis, basins, prefix, unit))
    typer.echo(shared.as_options(json.dumps(results) if json_ else as_text(analysis, results, prefix)))
    if analysis.doubts:
        raise typer.Exit(EXIT_NOT_TRUSTED)


Cvs = Annotated[
    list[str],
    typer.Option(
        help="phi:2, psi:2, torsion:4,6,8,14, angle:a,b,c, distance:a,b, rg, rmsd:FILE, column:NAME, npy:FILE; "
        "once or twice."
    ),
]
Temperature = Annotated[float, typer.Option(help="K.")]
Trajectories = Annotated[
    list[Path] | None,
    typer.Argument(metavar="[TRAJ...]", help="Trajectories that mdtraj reads; none if other files have it all."),
]
Top = Annotated[Path | None, typer.Option(help="Topology of the trajectories, a PDB file, say.")]
LogWeights = Annotated[Path | None, typer.Option(help="Log-weights of the frames, npy or text, one a frame.")]
Colvars = Annotated[
    list[Path] | None,
    typer.Option(help="A COLVAR file as PLUMED writes it, for column:NAME and --bias-columns; repeatable."),
]
BiasColumns = Annotated[
    str | None, typer.Option(help="Columns of the COLVAR file, a,b, whose sum is the bias (kJ/mol).")
]
Windows = Annotated[
    Path | None,
    typer.Option(help="Umbrella windows, CSV: file, centre_0, kappa_0 (kJ/mol, nm, radians), centre_1, kappa_1."),
]
Form = Annotated[str, typer.Option(help="harmonic, kappa (x - s)^2 / 2, or cosine, kappa (1 - cos(x - s)).")]
Metadynamics = Annotated[
    Path | None, typer.Option(help="The biasDir of OpenMM's Metadynamics: undone by its last bias.")
]
BiasRanges = Annotated[
    list[str] | None,
    typer.Option(help="minValue:maxValue of a Metadynamics variable without a period; once for each."),
]
Opes = Annotated[
    Path | None, typer.Option(help="numpy.savez of openmm-opes' getState(), or its biasDir: undone likewise.")
]
OpesBarrier = Annotated[float | None, typer.Option(help="The barrier that OPES was given, kJ/mol.")]
OpesBiasFactor = Annotated[
    float | None, typer.Option(help="The bias factor that OPES was given; barrier / kT if none was.")
]
BiasCvs = Annotated[
    list[str] | None, typer.Option(help="What the windows or the bias act on, if not the --cv; repeatable.")
]
Bins = Annotated[int | None, typer.Option(min=4, help="Bins a coordinate; 72 in two, 120 in one dimension.")]
Kind = Annotated[str, typer.Option(help="kde or histogram.")]
Discard = Annotated[str, typer.Option(metavar="auto|N", help="Frames to cut from the beginning of each trajectory.")]
Stride = Annotated[int, typer.Option(min=1, help="Take every so many frames.")]
Unit = Annotated[str, typer.Option(help="kJ/mol, kcal/mol or kT; the npz file is always in kJ/mol.")]
Basins = Annotated[
    list[str] | None,
    typer.Option(
        help="name:low:high, or name:low:high:low:high; radians or nm; repeatable, the first is zero; found on the "
        "surface if none is given."
    ),
]


def _read(
    windows: Path | None, form: str, n_trajectories: int, temperature: float, reporter: Any, **sources: Any
) -> "Observations":
    """What was observed, with progress."""
    from ..trajectories.observations import read
    from ..trajectories.umbrella import read_windows

    if windows is None and form != "harmonic":
        raise InputError("`form` goes with `windows`: add it, or leave it out")
    table = None if windows is None else read_windows(windows, temperature, form)
    n_files = (n_trajectories or (len(table) if table else 0)) or 1
    with reporter.step("reading", n_files) as done:
        finished = iter(range(1, n_files + 1))
        observations = read(
            temperature=temperature, windows=table, progress=lambda: done(next(finished, n_files)), **sources
        )
        done(n_files)
    return observations


def fes(
    cv: Cvs,
    temperature: Temperature,
    trajectories: Trajectories = None,
    top: Top = None,
    output: shared.Output = None,
    log_weights: LogWeights = None,
    colvar: Colvars = None,
    bias_columns: BiasColumns = None,
    windows: Windows = None,
    window_form: Form = "harmonic",
    metadynamics: Metadynamics = None,
    bias_range: BiasRanges = None,
    opes: Opes = None,
    opes_barrier: OpesBarrier = None,
    opes_bias_factor: OpesBiasFactor = None,
    bias_cv: BiasCvs = None,
    bins: Bins = None,
    method: Kind = "kde",
    discard: Discard = "auto",
    stride: Stride = 1,
    unit: Unit = "kJ/mol",
    basin: Basins = None,
    seed: shared.Seed = 0,
    json_: shared.Json = False,
    debug: shared.Debug = False,
) -> None:
    """Free-energy surface over one or two collective variables, with error bars, from trajectories."""
    with exit_codes(debug):
        chosen = {"bins": bins, "method": _method(method), "discard": _discard(discard), "seed": seed}
        basins = tuple(_basin(text, len(cv)) for text in basin or [])
        from ..free_energy.from_trajectories import analyse
        from ..units import checked_temperature, energy_unit

        energy_unit(unit, checked_temperature(temperature))
        bias = _bias(metadynamics, bias_range, opes, opes_barrier, opes_bias_factor, temperature)
        prefix, reporter = _prefix(output), make_reporter()
        observations = _read(
            windows,
            window_form,
            len(trajectories or []),
            temperature,
            reporter,
            paths=trajectories or [],
            top=top,
            cvs=cv,
            log_weights=log_weights,
            colvar=colvar or [],
            bias_columns=bias_columns.split(",") if bias_columns else [],
            bias=bias,
            bias_cvs=bias_cv or [],
            stride=stride,
        )
        analysis = analyse(observations, basins=basins, **chosen)
        _report(analysis, basins, prefix, unit, bias is not None, reporter, json_)
