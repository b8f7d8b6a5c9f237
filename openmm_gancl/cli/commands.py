"""The commands of ``gancl``; nothing heavy is imported before one needs it."""

from typing import Annotated

import typer

from . import closures, doctor, export, fes, options, report, runs, systems, train
from .help_text import Command, Group

app = typer.Typer(
    name="gancl",
    cls=Group,
    help="Exactly weighted lifting of slow coordinates to molecular configurations, in OpenMM.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(wanted: bool) -> None:
    if wanted:
        from .. import __version__

        typer.echo(f"openmm-gancl {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


options.APPS.append(app)
app.command("systems", cls=Command, short_help="List the shipped systems, or copy one.")(systems.systems)
app.command("run", cls=Command, short_help="From a card to its free-energy surface.")(runs.run)
app.command("sample", cls=Command, short_help="The sample stage of a run.")(runs.sample)
app.command("slow", cls=Command, short_help="The slow stage of a run: learned labels.")(runs.slow)
app.command("train", cls=Command, short_help="The train stage, or a model from own frames.")(train.train)
app.command("lift", cls=Command, short_help="The lift stage and its surface, or more lifts.")(runs.lift)
app.command("closures", cls=Command, short_help="What a finished run says of dynamics.")(closures.closures)
app.command("report", cls=Command, short_help="A finished run as one page of HTML.")(report.report)
app.command("fes", cls=fes.FilesCommand, short_help="A free-energy surface from trajectories.")(fes.fes)
app.command("export", cls=Command, short_help="A run's model as TorchScript, for OpenMM.")(export.export)
app.command("doctor", cls=Command, short_help="What works on this machine, and remedies.")(doctor.doctor)
