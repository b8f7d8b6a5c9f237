"""``gancl run``, and its stages ``sample``, ``slow`` and ``lift`` one by one."""

import json
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from ..engine.threads import THREAD_VARIABLES
from ..errors import InputError
from . import options as shared
from .exit_codes import EXIT_NOT_TRUSTED, exit_codes
from .reporting import make_reporter, print_results

if TYPE_CHECKING:
    from ..engine.tasks import Workers
    from ..workflow.options import RunOptions
    from ..workflow.run import Outcome

RESUME_HINT = "finished stages are kept, the same command goes on from there"

LAST_STAGE = "surface"
SYSTEM = typer.Argument(metavar="SYSTEM", help="A system's name, or a card (TOML file or folder).")
RUN_OR_SYSTEM = typer.Argument(metavar="RUN", help="A run folder, or with -o a system to begin one with.")
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]


def use_threads_of(folder: Path) -> None:
    """Set the thread count of the linear algebra, which is read when numpy and torch are first imported."""
    from ..workflow.manifest import read_manifest
    from ..workflow.options import N_THREADS

    try:
        threads = read_manifest(folder)["threads"]
    except InputError:  # said later
        threads = N_THREADS
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))


def run_options(**given: Any) -> "RunOptions":
    """Options of a run from those of the command line."""
    from ..workflow.options import RunOptions

    steps = given.pop("relax_steps")
    if steps is not None and steps != "auto":
        try:
            steps = int(steps)
        except ValueError:
            raise InputError(f"`relax_steps` is {steps!r}: give a number or auto") from None
    return RunOptions(**given, relax_steps=cast("int | Literal['auto'] | None", steps))


@dataclass(frozen=True)
class Where:
    """Where tasks run: local processes, or the workers of a scheduler.

    Raises:
        InputError: both.
    """

    workers: int | None
    scheduler: str | None

    def __post_init__(self) -> None:
        if self.workers is not None and self.scheduler is not None:
            raise InputError("--workers are local processes, and --scheduler has workers of its own: give one of them")

    def opened(self) -> "AbstractContextManager[Workers | None]":
        """The workers, connected to as long as they are needed."""
        if self.scheduler is None:
            return nullcontext(self.workers)
        from ..engine.clusters import dask_executor

        return dask_executor(self.scheduler)


def advance(
    folder: Path,
    target: str | None,
    options: "RunOptions | None",
    where: Where,
    until: str,
    trust_force_field: bool = False,
) -> "Outcome":
    """Compute a run's stages up to one."""
    use_threads_of(folder)
    from ..workflow.run import run as advance_run

    with where.opened() as workers:
        return advance_run(
            folder,
            target,
            options,
            reporter=make_reporter(),
            workers=workers,
            until=until,
            trust_force_field=trust_force_field,
        )


def check_run(target: str, missing: str) -> None:
    """See that a run is meant where a system could be.

    Raises:
        InputError: it is a system.
    """
    from ..system.library import card_path
    from ..workflow.folder import is_run_folder

    if is_run_folder(Path(target)):
        return
    try:
        card_path(target)
    except InputError:
        return
    raise InputError(f"{target} is a system and no run folder: add {missing}")


def check_no_options(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Refuse options for an existing run that are settled when it begins.

    Raises:
        InputError: naming the first option that is.
    """
    for name, value in given.items():
        if value != defaults[name]:
            flag = "--" + name.replace("_", "-")
            raise InputError(f"{flag} is settled when a run begins: leave it out, or begin one with -o RUN")


def print_outcome(outcome: "Outcome", as_json: bool) -> None:
    """The closing summary, or the finished stages; exit code 3 if it is not to be trusted."""
    from ..workflow.summary import summary_text

    summary, plot = outcome.summary, outcome.folder / "fes.png"
    if as_json:
        record = {
            "run": str(outcome.folder),
            "stages": list(outcome.done),
            "seconds": outcome.seconds,
            "force_evaluations_spent": outcome.evaluations_spent,
        }
        record |= {} if summary is None else {**summary.as_json(), "plot": str(plot)}
        typer.echo(shared.as_options(json.dumps(record)))
    elif summary is None:
        spent = ", ".join(f"{name} {outcome.seconds[name]:.1f} s" for name in outcome.done)
        typer.echo(f"{outcome.folder}: finished {spent}")
    else:
        print_results(summary_text(summary, outcome.seconds, outcome.evaluations_spent, plot))
    if summary is not None:
        if as_json:
            for doubt in summary.doubts():
                typer.echo(f"warning: {shared.as_options(doubt)}", err=True)
        if not summary.trusted:
            raise typer.Exit(EXIT_NOT_TRUSTED)


def _checked_time_step(outcome: "Outcome", where: Where, trust_force_field: bool) -> str | None:
    """Compare with half the time step, say what was found on stderr, and give the doubt, if any."""
    from ..workflow.time_step_check import check_time_step

    with where.opened() as workers:
        found = check_time_step(
            outcome.folder, reporter=make_reporter(), workers=workers, trust_force_field=trust_force_field
        )
    if found.doubt is not None:
        typer.echo(f"warning: not to be trusted: {shared.as_options(found.doubt)}", err=True)
    typer.echo(found.text(), err=True)
    return found.doubt


def _begin(
    target: str,
    output: Path | None,
    options: "RunOptions",
    where: Where,
    until: str,
    trust_force_field: bool,
    check_time_step: bool,
    json_: bool,
) -> None:
    """Begin a run in the folder ``output``, or go on with the one that ``target`` is."""
    if check_time_step and until != LAST_STAGE:
        raise InputError("--check-time-step compares surfaces: say `gancl run`, or leave it out")
    if output is None:
        from ..system.library import card_path
        from ..workflow.folder import is_run_folder

        if until == LAST_STAGE and not is_run_folder(Path(target)):
            card_path(target)  # a name that is misspelled is the first thing to say
            raise InputError("there is no place for the results: name a run folder with -o RUN")
        check_run(target, "-o RUN")
        check_no_options(vars(options), vars(run_options(relax_steps=None)))
        outcome = advance(Path(target), None, None, where, until, trust_force_field)
    else:
        outcome = advance(output, target, options, where, until, trust_force_field)
    doubt = _checked_time_step(outcome, where, trust_force_field) if check_time_step else None
    print_outcome(outcome, json_)
    if doubt is not None:
        raise typer.Exit(EXIT_NOT_TRUSTED)


def _beginning(until: str, argument: Any, doc: str) -> Callable[..., None]:
    """A command that takes all options of a run and computes its stages as far as one."""

    def command(
        target: str = argument,
        output: shared.Output = None,
        preset: shared.Preset = "default",
        generator: shared.Generator = None,
        relax: shared.Relax = None,
        relax_steps: shared.RelaxSteps = None,
        windows: shared.WindowCount = None,
        window_length: shared.WindowLength = None,
        lifts: shared.LiftCount = None,
        max_evaluations: shared.MaxEvaluations = None,
        target_error: shared.TargetError = None,
        acceptance: shared.Acceptance = "weights",
        latent: shared.Latent = None,
        slow: shared.Slow = "torsions",
        features: shared.Features = "distances",
        keep: shared.Keep = "",
        coordinates: shared.Coordinates = None,
        restrain: shared.Restrain = None,
        seed: shared.Seed = 0,
        platform: shared.Platform = "auto",
        workers: shared.Workers = None,
        trust_force_field: shared.Trust = False,
        check_time_step: shared.CheckTimeStep = False,
        scheduler: shared.Scheduler = None,
        json_: shared.Json = False,
        debug: shared.Debug = False,
    ) -> None:
        with exit_codes(debug, RESUME_HINT):
            options = run_options(
                preset=preset,
                generator=generator,
                relax=relax,
                relax_steps=relax_steps,
                windows=windows,
                window_length=window_length,
                lifts=lifts,
                max_evaluations=max_evaluations,
                target_error=target_error,
                acceptance=acceptance,
                latent=latent,
                slow=slow,
                features=features,
                keep=keep,
                coordinates=coordinates,
                restrain=restrain,
                seed=seed,
                platform=platform,
            )
            where = Where(workers, scheduler)
            _begin(target, output, options, where, until, trust_force_field, check_time_step, json_)

    command.__doc__ = doc
    return command


def _going_on(until: str, doc: str) -> Callable[..., None]:
    """A command that goes on with a run as far as one stage."""

    def command(
        run: RunArgument,
        workers: shared.Workers = None,
        trust_force_field: shared.Trust = False,
        scheduler: shared.Scheduler = None,
        json_: shared.Json = False,
        debug: shared.Debug = False,
    ) -> None:
        with exit_codes(debug, RESUME_HINT):
            print_outcome(advance(run, None, None, Where(workers, scheduler), until, trust_force_field), json_)

    command.__doc__ = doc
    return command


run = _beginning(
    LAST_STAGE,
    SYSTEM,
    "From a card to its free-energy surface: sample, train, lift, surface; a run folder in place of SYSTEM goes on.",
)
sample = _beginning(
    "sample",
    RUN_OR_SYSTEM,
    "The sample stage of a run; `gancl sample SYSTEM -o RUN` begins one, with the options of `gancl run`.",
)
slow = _going_on(
    "slow", "The slow stage of a run begun with `--slow diffusion-map`, and before it whatever is missing."
)


def lift(
    run: RunArgument,
    lifts: Annotated[
        int | None, typer.Option("--lifts", min=1, help="So many more from the last model of a finished run.")
    ] = None,
    workers: shared.Workers = None,
    trust_force_field: shared.Trust = False,
    scheduler: shared.Scheduler = None,
    json_: shared.Json = False,
    debug: shared.Debug = False,
) -> None:
    """The lift stage of a run and the surface made of it, and before it whatever is missing; or more lifts."""
    with exit_codes(debug, RESUME_HINT):
        where = Where(workers, scheduler)
        if lifts is None:
            print_outcome(advance(run, None, None, where, LAST_STAGE, trust_force_field), json_)
            return
        use_threads_of(run)
        from ..workflow.run import lift_more

        with where.opened() as opened:
            more: dict[str, Any] = {"reporter": make_reporter(), "workers": opened}
            print_outcome(lift_more(run, lifts, **more, trust_force_field=trust_force_field), json_)
