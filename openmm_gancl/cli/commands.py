"""The commands of ``gancl``; nothing heavy is imported before one needs it."""

from typing import Annotated

import typer

from . import closures, doctor, export, fes, options, report, runs, systems, train

app = typer.Typer(
    name="gancl",
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
app.command("systems")(systems.systems)
app.command("run")(runs.run)
app.command("sample")(runs.sample)
app.command("slow")(runs.slow)
app.command("train")(train.train)
app.command("lift")(runs.lift)
app.command("closures")(closures.closures)
app.command("report")(report.report)
app.command("fes", cls=fes.FilesCommand)(fes.fes)
app.command("export")(export.export)
app.command("doctor")(doctor.doctor)
