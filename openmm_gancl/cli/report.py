"""``gancl report``: a finished run as one page."""

import json

import typer

from . import options as shared
from .exit_codes import EXIT_NOT_TRUSTED, exit_codes
from .runs import RunArgument, use_threads_of


def report(
    run: RunArgument,
    output: shared.Output = None,
    json_: shared.Json = False,
    debug: shared.Debug = False,
) -> None:
    """A finished run as one page of HTML with everything inside, doubts first: RUN/report.html, or -o FILE."""
    with exit_codes(debug):
        use_threads_of(run)
        from ..workflow.report import write_report

        found = write_report(run, output)
        doubts = [shared.as_options(doubt) for doubt in found.doubts]
        if json_:
            typer.echo(json.dumps({"report": str(found.path), "doubts": doubts, "trusted": found.trusted}))
        else:
            for doubt in doubts:
                typer.echo(f"{'a trial, ' if found.trusted else ''}not to be trusted: {doubt}")
            typer.echo(f"report: {found.path}")
        if not found.trusted:
            raise typer.Exit(EXIT_NOT_TRUSTED)
