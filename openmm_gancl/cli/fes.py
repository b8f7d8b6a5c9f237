"""``gancl fes``: a free-energy surface from trajectories."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError
from ..free_energy.report import as_json, as_text, write_files
from ..trajectories.topologies import suffix_of
from ..units import ANGLES
from . import options as shared
from .exit_codes import EXIT_NOT_TRUSTED, exit_codes
from .help_text import Command
from .reporting import make_reporter, print_results

if TYPE_CHECKING:
    from ..free_energy.from_trajectories import TrajectoryAnalysis
    from ..trajectories.observations import Observations

SUFFIXES = (".npz", ".dat", ".png")

TRAJECTORY_SUFFIXES = [
    ".dcd",
    ".xtc",
    ".trr",
    ".nc",
    ".ncdf",
    ".netcdf",
    ".h5",
    ".hdf5",
    ".lh5",
    ".binpos",
    ".mdcrd",
    ".crd",
    ".pdb",
    ".ent",
    ".pdbx",
    ".cif",
    ".mmcif",
    ".gro",
    ".lammpstrj",
    ".xyz",
    ".arc",
    ".gsd",
    ".dtr",
    ".stk",
    ".tng",
]
"""What names of trajectories end in; other files after ``--colvar`` are tables too."""

TOPOLOGY_SUFFIXES = (".prmtop", ".parm7", ".psf", ".top", ".tpr")
"""What names of topologies end in, that are no trajectories."""

MANY_FILES = ("--colvar", "--hills")


def _each_with_its_option(arguments: list[str]) -> list[str]:
    """``--colvar A B`` as ``--colvar A --colvar B``: options of files take all that follow, up to a trajectory."""
    spread: list[str] = []
    option = ""
    for i, argument in enumerate(arguments):
        if argument.startswith("-"):
            name, mark, _ = argument.partition("=")
            option = name if name in MANY_FILES else ""
            if option and mark:
                spread.append(argument)
                continue
        elif option and arguments[i - 1] != option:
            if suffix_of(Path(argument)) in TRAJECTORY_SUFFIXES:
                option = ""
            else:
                spread.append(option)
        spread.append(argument)
    return spread


class FilesCommand(Command):
    """A command whose options of files take several of them."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Divide them first."""
        return super().parse_args(ctx, _each_with_its_option(args))


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


def _bound(text: str) -> float:
    """A number, or one with pi as PLUMED has it; "nan" is refused where it is used."""
    from ..trajectories.periods import plumed_number

    value = plumed_number(text)
    return value if value == value else float(text)


def _basin(text: str, d: int) -> Any:
    import numpy as np

    from ..coordinates.basin import Basin

    name, *bounds = text.split(":")
    try:
        box = np.array([_bound(bound) for bound in bounds]).reshape(d, 2)
    except ValueError:
        form = ":".join(["name", *["low:high"] * d])
        raise InputError(f"--basin {text} is not understood: give {form}, in the coordinate's unit") from None
    return Basin(name, (box,))


def _range(text: str, option: str) -> tuple[float, float]:
    try:
        low, high = (_bound(bound) for bound in text.split(":"))
    except ValueError:
        raise InputError(f"{option} {text} is not understood: give low:high, in the coordinate's unit") from None
    if not low < high:
        raise InputError(f"{option} {text} is empty: give low:high")
    return low, high


def _bias(
    metadynamics: Path | None,
    ranges: list[str] | None,
    opes: Path | None,
    barrier: float | None,
    bias_factor: float | None,
    kernel_shape: str,
    temperature: float,
) -> Callable[[Any], Any] | None:
    """What makes the static bias, once the periods of its variables are known."""
    from ..trajectories.static_bias import metadynamics_bias, opes_bias

    if opes is None and kernel_shape != "gaussian":
        raise InputError("--opes-kernels goes with --opes FILE: add it, or leave it out")
    if opes is None and (barrier is not None or bias_factor is not None):
        raise InputError("--opes-barrier and --opes-bias-factor go with --opes FILE: add it, or leave them out")
    if metadynamics is None and ranges:
        raise InputError("--bias-range goes with --metadynamics DIR: add it, or leave it out")
    if metadynamics is not None and opes is not None:
        raise InputError("--metadynamics and --opes are given: choose one way to undo the bias")
    if metadynamics is not None:
        limits = [_range(text, "--bias-range") for text in ranges] if ranges else None
        return lambda periods: metadynamics_bias(metadynamics, periods=periods, limits=limits)
    if opes is None:
        return None
    return lambda periods: opes_bias(
        opes,
        temperature=temperature,
        barrier=barrier,
        periods=periods,
        bias_factor=bias_factor,
        kernel_shape=kernel_shape,
    )


def _report(analysis: "TrajectoryAnalysis", basins: Any, prefix: Path, given: Any, biased: bool, reporter: Any) -> None:
    """Write the files and print what was found."""
    for note in analysis.notes:
        reporter.note(note)
    if biased:
        reporter.note("frames are weighted by the last bias: cut those sampled while it still grew (`discard`)")
    units = given.axis_unit or ()
    files = write_files(analysis, basins, prefix, given.unit, units)
    results = as_json(analysis, given.unit, files, units, given=bool(basins))
    if given.json_:
        typer.echo(shared.as_options(json.dumps(results)))
    else:
        print_results(as_text(analysis, results, prefix))
    if analysis.doubts:
        raise typer.Exit(EXIT_NOT_TRUSTED)


Cvs = Annotated[
    list[str],
    typer.Option(
        metavar="CV",
        help="phi:2 (the residue's number in the topology's file), phi:B/52A (chain, insertion code), psi:2, "
        "torsion:4,6,8,14, angle:a,b,c, distance:a,b, rg, rmsd:FILE, column:NAME, npy:FILE; "
        "once or twice.",
    ),
]
Temperature = Annotated[float, typer.Option(help="K.")]
Trajectories = Annotated[
    list[Path] | None,
    typer.Argument(metavar="TRAJ", help="Trajectories that mdtraj reads; none if other files have it all."),
]
Top = Annotated[Path | None, typer.Option(help="Topology of the trajectories, a PDB file, say.")]
LogWeights = Annotated[Path | None, typer.Option(help="Log-weights of the frames, npy or text, one a frame.")]
Weights = Annotated[Path | None, typer.Option(help="Weights themselves, likewise.")]
Colvars = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="FILE...",
        help="Tables for column:NAME and --bias-columns: COLVAR files of PLUMED, xvg of GROMACS, colvars.traj, "
        "cpptraj's dat, CSV, plain columns (column:2 is the second); one or more, wildcards too.",
    ),
]
BiasColumns = Annotated[
    str | None,
    typer.Option(
        help="Columns of these tables, a,b or *.bias, whose sum is the bias; beside --windows or --hills another one."
    ),
]
HillsFiles = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="FILE...",
        help="HILLS of PLUMED: undone as at each frame, less c(t); alone, their centres are the frames.",
    ),
]
Windows = Annotated[
    Path | None,
    typer.Option(
        help="Umbrella windows, CSV: file, centre_0, kappa_0 (kJ/mol, the coordinate's unit), centre_1, kappa_1; or "
        "metadata of WHAM."
    ),
]
Form = Annotated[
    str,
    typer.Option(
        help="harmonic, kappa (x - s)^2 / 2; cosine, kappa (1 - cos(x - s)); or amber, kappa (x - s)^2, without "
        "the half."
    ),
]
CentreUnit = Annotated[
    str | None,
    typer.Option(help="Of the windows' centres: degrees, radians, nm, angstrom; the coordinate's by default."),
]
KappaUnit = Annotated[
    str | None, typer.Option(help="Of kappa, as kcal/mol/rad^2, kJ/mol/degree^2, kcal/mol/angstrom^2.")
]
InputUnit = Annotated[
    str | None,
    typer.Option(
        help="Of energies in the files, kJ/mol, kcal/mol or kT, and of columns that tell none, as kcal/mol,degrees."
    ),
]
EnergyColumn = Annotated[
    str | None, typer.Option(help="Potential energy without restraints, for windows of several temperatures.")
]
Metadynamics = Annotated[
    Path | None, typer.Option(help="The biasDir of OpenMM's Metadynamics: undone by its last bias.")
]
BiasRanges = Annotated[
    list[str] | None,
    typer.Option(
        metavar="LOW:HIGH",
        help="minValue:maxValue of each Metadynamics variable; with periods only where the frames do not tell them.",
    ),
]
Opes = Annotated[
    Path | None,
    typer.Option(help="numpy.savez of openmm-opes' getState(), or its biasDir; KERNELS or STATE of PLUMED: likewise."),
]
OpesBarrier = Annotated[
    float | None, typer.Option(help="The barrier that OPES was given, kJ/mol; PLUMED's files tell it.")
]
OpesBiasFactor = Annotated[
    float | None, typer.Option(help="The bias factor that OPES was given; barrier / kT if none was.")
]
OpesKernels = Annotated[
    str,
    typer.Option(
        help="gaussian, or compact: the kernelShape that openmm-opes was given, which its state does not tell."
    ),
]
BiasCvs = Annotated[
    list[str] | None,
    typer.Option(metavar="CV", help="What the windows or the bias act on, if not the --cv; repeatable."),
]
Bins = Annotated[int | None, typer.Option(min=4, help="Bins a coordinate; 72 in two, 120 in one dimension.")]
Kind = Annotated[str, typer.Option(help="kde or histogram.")]
Discard = Annotated[
    str,
    typer.Option(metavar="auto|N", help="Frames to cut from the beginning of each trajectory, counted after --stride."),
]
Stride = Annotated[int, typer.Option(min=1, help="Take every so many frames.")]
Ranges = Annotated[
    list[str] | None,
    typer.Option(
        "--range",
        metavar="LOW:HIGH",
        help="low:high of the surface, once for each coordinate without a period; as far as enough samples reach by "
        "default.",
    ),
]
Labels = Annotated[
    list[str] | None,
    typer.Option(metavar="TEXT", help="Name of an axis, as 'phi of ALA2'; once for each coordinate."),
]
AxisUnits = Annotated[
    list[str] | None,
    typer.Option(
        metavar="UNIT",
        help="degrees, radians, nm or angstrom, once for all or for each coordinate: of places in table, pictures and "
        "JSON, and of --basin and --range. Without it tables and pictures show angles in degrees, and --basin and "
        "--range are in the coordinate's own unit (radians for phi:2).",
    ),
]
Unit = Annotated[str, typer.Option(help="kJ/mol, kcal/mol or kT; the npz file is always in kJ/mol.")]
Basins = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME:BOX",
        help="name:low:high, or name:low:high:low:high; the coordinate's unit; repeatable, the first is zero; found on "
        "the surface if none is given.",
    ),
]


def _read(given: Any, bias: Any, reporter: Any) -> "Observations":
    """What was observed, with progress."""
    from ..trajectories.observations import read
    from ..trajectories.window_table import read_table_of_windows

    options = {"form": given.window_form, "centre_unit": given.centre_unit, "kappa_unit": given.kappa_unit}
    odd = [name for name, value in options.items() if value not in (None, "harmonic")]
    if given.windows is None and odd:
        raise InputError(f"`{odd[0]}` goes with `windows`: add it, or leave it out")
    d, table = len(given.bias_cv or given.cv), None
    if given.windows is not None:
        table = read_table_of_windows(given.windows, **options, d=d)
    n_files = (len(given.trajectories or []) or (len(table.files) if table else 0)) or 1
    with reporter.step("reading", n_files) as done:
        finished = iter(range(1, n_files + 1))
        observations = read(
            given.trajectories or [],
            given.top,
            given.cv,
            given.temperature,
            log_weights=given.log_weights,
            weights=given.weights,
            colvar=given.colvar or [],
            bias_columns=given.bias_columns.split(",") if given.bias_columns else [],
            hills=given.hills or [],
            windows=table,
            bias=bias,
            bias_cvs=given.bias_cv or [],
            energy_column=given.energy_column,
            input_unit=given.input_unit,
            stride=given.stride,
            progress=lambda: done(next(finished, n_files)),
        )
        done(n_files)
    return observations


def _labelled(observations: "Observations", labels: list[str] | None) -> "Observations":
    """With names for the axes, where they are given."""
    if not labels:
        return observations
    series, d = observations.series, observations.n_surface
    if len(labels) != d:
        raise InputError(f"{len(labels)} --label for {d} coordinates: give one each")
    return replace(observations, series=replace(series, labels=(*labels, *series.names[d:])))


def _check_pi(given: Any, units: Sequence[str], periodic: Sequence[bool]) -> None:
    """Refuse pi in a bound of a coordinate that is not in radians, shape=(d,) each; of an unknown unit it may be."""
    ranges = given.range_ or []
    open_ = [unit for unit, closed in zip(units, periodic, strict=True) if not closed]
    bounds = [(text, units[i // 2]) for basin in given.basin or [] for i, text in enumerate(basin.split(":")[1:])]
    bounds += zip(ranges, open_ if len(ranges) == len(open_) else units, strict=False)
    for text, unit in bounds:
        if "pi" in text.lower() and unit not in ("", "radians"):
            raise InputError(f"{text} has pi, and its coordinate is in {unit}: give a number in that unit")


def _with_units(observations: "Observations", given: Any) -> tuple["Observations", Any]:
    """With notes of coordinates of unknown unit; sizes of the units of basins and ranges, in the own ones, (d,)."""
    import numpy as np

    from ..free_energy.axes import unit_by_period, units_of

    series, d, chosen = observations.series, observations.n_surface, given.axis_unit or ()
    own = list(map(unit_by_period, series.units[:d], series.periods[:d].tolist()))
    shown, sizes = zip(*units_of(series.names[:d], series.units[:d], series.periods[:d], chosen), strict=True)
    _check_pi(given, shown if chosen else own, np.isfinite(series.periods[:d]).tolist())
    notes = [
        f"the unit of {name} is not known and taken to be PLUMED's, {'radians' if unit in ANGLES else 'nm'}: if it is "
        "another one, give `input_unit`"
        for name, known, unit in zip(series.names, own, shown, strict=False)
        if chosen and not known
    ]
    noted = replace(observations, notes=(*observations.notes, *notes))
    return noted, np.array(sizes) if chosen else np.ones(d)


def _in_own_unit(ranges: list[tuple[float, float]], observations: "Observations", scales: Any) -> list[Any]:
    """Ranges of each coordinate without a period, or of each coordinate, in its own unit."""
    import numpy as np

    open_ = np.isinf(observations.series.periods[: len(scales)])
    mine = scales[open_] if len(ranges) == open_.sum() else scales
    return [(low * size, high * size) for (low, high), size in zip(ranges, [*mine, *[1.0] * len(ranges)], strict=False)]


def _divide(given: Any) -> None:
    """Tables among the trajectories go where tables are."""
    paths = given.trajectories or []
    if tops := [path for path in paths if suffix_of(path) in TOPOLOGY_SUFFIXES]:
        raise InputError(f"{tops[0]} is a topology: give it by --top")
    tables = [path for path in paths if suffix_of(path) not in TRAJECTORY_SUFFIXES and path.is_file()]
    columns = given.bias_columns or given.windows or any(cv.startswith("column:") for cv in given.cv)
    if tables and not columns:
        raise InputError(
            f"{tables[0]} has no name of a trajectory (*.dcd, *.xtc and others, which mdtraj knows by their ends), and "
            "nothing of a table is requested: rename it, or give --bias-columns or column:NAME in --cv"
        )
    given.trajectories = [path for path in paths if path not in tables]
    given.colvar = [*(given.colvar or []), *tables]


def _surface(given: Any) -> None:
    """Read, analyse and report."""
    _divide(given)
    chosen = {"bins": given.bins, "method": _method(given.method), "discard": _discard(given.discard)}
    basins = tuple(_basin(text, len(given.cv)) for text in given.basin or [])
    from ..coordinates.basin import Basin
    from ..free_energy.from_trajectories import analyse
    from ..units import checked_temperature, energy_unit

    energy_unit(given.unit, checked_temperature(given.temperature))
    bias = _bias(
        given.metadynamics,
        given.bias_range,
        given.opes,
        given.opes_barrier,
        given.opes_bias_factor,
        given.opes_kernels,
        given.temperature,
    )
    prefix, reporter = _prefix(given.output), make_reporter()
    observations, scales = _with_units(_labelled(_read(given, bias, reporter), given.label), given)
    boxes = [Basin(basin.name, tuple(box * scales[:, None] for box in basin.boxes)) for basin in basins]
    ranges = _in_own_unit([_range(text, "--range") for text in given.range_ or []], observations, scales)
    analysis = analyse(observations, basins=boxes, ranges=ranges, seed=given.seed, **chosen)
    _report(analysis, boxes, prefix, given, bias is not None, reporter)


def fes(
    cv: Cvs,
    temperature: Temperature,
    trajectories: Trajectories = None,
    top: Top = None,
    output: shared.Output = None,
    log_weights: LogWeights = None,
    weights: Weights = None,
    colvar: Colvars = None,
    bias_columns: BiasColumns = None,
    hills: HillsFiles = None,
    windows: Windows = None,
    window_form: Form = "harmonic",
    centre_unit: CentreUnit = None,
    kappa_unit: KappaUnit = None,
    energy_column: EnergyColumn = None,
    input_unit: InputUnit = None,
    metadynamics: Metadynamics = None,
    bias_range: BiasRanges = None,
    opes: Opes = None,
    opes_barrier: OpesBarrier = None,
    opes_bias_factor: OpesBiasFactor = None,
    opes_kernels: OpesKernels = "gaussian",
    bias_cv: BiasCvs = None,
    bins: Bins = None,
    method: Kind = "kde",
    discard: Discard = "auto",
    stride: Stride = 1,
    unit: Unit = "kJ/mol",
    basin: Basins = None,
    range_: Ranges = None,
    label: Labels = None,
    axis_unit: AxisUnits = None,
    seed: shared.Seed = 0,
    json_: shared.Json = False,
    debug: shared.Debug = False,
) -> None:
    """Free-energy surface over one or two collective variables, with error bars, from trajectories."""
    given = SimpleNamespace(**locals())
    with exit_codes(debug):
        _surface(given)
