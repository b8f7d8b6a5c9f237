"""``gancl closures``: averages, mean force, the reduced model and consistency of a finished run."""

import json
from typing import Annotated

import typer

from . import options as shared
from .exit_codes import EXIT_NOT_TRUSTED, exit_codes
from .reporting import make_reporter, print_results
from .runs import RunArgument, Where, use_threads_of


def closures(
    run: RunArgument,
    labels: Annotated[
        int | None, typer.Option(help="At which short runs begin; 15 over one label, 20 over two.")
    ] = None,
    runs: Annotated[int | None, typer.Option(help="Short runs from each; 100 over one label, 50 over two.")] = None,
    length: Annotated[
        float | None, typer.Option(metavar="PS", help="How long each is; by default by the friction.")
    ] = None,
    lag: Annotated[
        float | None, typer.Option(metavar="PS", help="First lag, in place of the plateau's beginning.")
    ] = None,
    dynamics: Annotated[str, typer.Option(help="Of the runs: langevin or brownian (overdamped).")] = "langevin",
    time_step: Annotated[
        float | None, typer.Option(metavar="PS", help="Of the runs; the system's own, but of brownian ones.")
    ] = None,
    workers: shared.Workers = None,
    trust_force_field: shared.Trust = False,
    scheduler: shared.Scheduler = None,
    json_: shared.Json = False,
    debug: shared.Debug = False,
) -> None:
    """Closures of a finished run: conditional averages, mean force, reduced model, consistency."""
    with exit_codes(debug):
        use_threads_of(run)
        from ..workflow.closures import ClosureOptions, run_closures

        options = ClosureOptions(labels, runs, length, lag, dynamics, time_step)  # type: ignore[arg-type]  # checked there
        with Where(workers, scheduler).opened() as opened:
            found = run_closures(
                run, options, reporter=make_reporter(), workers=opened, trust_force_field=trust_force_field
            )
        if json_:
            typer.echo(shared.as_options(json.dumps({"run": str(found.folder), **found.record})))
            for doubt in found.doubts:
                typer.echo(f"warning: {shared.as_options(doubt)}", err=True)
        else:
            print_results(found.text())
        if found.doubts and not found.trial:
            raise typer.Exit(EXIT_NOT_TRUSTED)
