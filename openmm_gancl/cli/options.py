"""Options that several commands share, and their names in messages."""

import re
from functools import cache
from pathlib import Path
from typing import Annotated

import typer

Output = Annotated[Path | None, typer.Option("--output", "-o", metavar="PATH", help="Where the result goes.")]
Seed = Annotated[int, typer.Option(min=0, help="Of every random number; the same seed gives the same result.")]
Platform = Annotated[str, typer.Option(help="An OpenMM platform, or auto to measure once.")]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Local processes; by default all cores, or one if lifts are not relaxed.")
]
Trust = Annotated[
    bool,
    typer.Option("--trust-force-field", help="Run code in the card's files: scripts, and forces of torch or Python."),
]
CheckTimeStep = Annotated[
    bool, typer.Option("--check-time-step", help="Make the surface at half the time step too, and compare.")
]
Scheduler = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS|FILE", help="Of a Dask cluster, whose workers take the place of local processes."),
]
Json = Annotated[bool, typer.Option("--json", help="Print the results as one line of JSON.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]
Preset = Annotated[str, typer.Option(help="default (minutes) or quick (under one minute, for trials and tests).")]
Generator = Annotated[
    str | None,
    typer.Option(help="gan, triangular (no network on top; the default of quick) or product (lifts are relaxed)."),
]
Relax = Annotated[
    str | None,
    typer.Option(help="none, latent (moves of base numbers), auto (a pilot decides), or context (of product alone)."),
]
RelaxSteps = Annotated[
    str | None,
    typer.Option(metavar="N|auto", help="Steps of each relaxation, auto to measure the best count; moves of latent."),
]
WindowCount = Annotated[
    int | None,
    typer.Option("--windows", help="Training windows; as many again for each label or wide coordinate after two."),
]
WindowLength = Annotated[
    float | None, typer.Option(metavar="PS", help="How long each training window is, in picoseconds.")
]
LiftCount = Annotated[int | None, typer.Option("--lifts", help="Lifts that the surface is made of.")]
MaxEvaluations = Annotated[
    int | None, typer.Option(help="Force evaluations that the run may not exceed, training included.")
]
TargetError = Annotated[
    float | None,
    typer.Option(help="Lift until the median error of the surface below 10 kT is this small, in kT."),
]
Acceptance = Annotated[str, typer.Option(help="weights, or metropolis (unrestrained lifts, one chain over them).")]
Latent = Annotated[
    int | None, typer.Option(help="Dimension of the generator's latent; 0 is the conditional-Gaussian baseline.")
]
Slow = Annotated[str, typer.Option(help="torsions (the card's labels), or diffusion-map (learned ones too).")]
Features = Annotated[
    str,
    typer.Option(help="Of the diffusion map: distances[:SEL], torsions:NAMES, positions:SEL; comma-separated."),
]
Keep = Annotated[
    str, typer.Option(metavar="NAMES", help="Torsions of the card that stay labels together with learned ones.")
]
Coordinates = Annotated[int | None, typer.Option(help="Learned labels at most.")]
Restrain = Annotated[
    str | None,
    typer.Option(
        help="During a lift: labels (each a window), torsions (learned labels, by the wide torsions), or none "
        "(labels are drawn too)."
    ),
]

SPELLED = {
    "basins": "basin",
    "barrier": "opes-barrier",
    "bias_cvs": "bias-cv",
    "cvs": "cv",
    "form": "window-form",
    "latent_size": "latent",
    "kernel_shape": "opes-kernels",
    "limits": "bias-range",
    "ranges": "range",
}
"""Options whose names are not those of the parameters that they become."""


APPS: list[typer.Typer] = []
"""Whose options messages name; the module of all commands knows."""


@cache
def _all_options() -> frozenset[str]:
    """Of all commands, as ``--top``."""
    commands = [command for app in APPS for command in typer.main.get_command(app).commands.values()]  # type: ignore[attr-defined]  # of a group
    return frozenset(name for command in commands for option in command.params for name in option.opts)


def as_options(message: str) -> str:
    """A message of the library, which names parameters (`top`, `discard=0`), for users of the command line.

    Args:
        message: any text; ``--top`` and ``--discard 0`` come of these examples; what is no option, a key of a card
            say, stays.
    """

    def option(found: re.Match[str]) -> str:
        name, _, value = found.groups()
        spelled = f"--{SPELLED.get(name, name.replace('_', '-'))}"
        return spelled + (f" {value}" if value else "") if spelled in _all_options() else found[0]

    return re.sub(r"`(\w+)(?:=('?)([^`']*)\2)?`", option, message)
