"""``gancl train``: the train stage of a run, or a model from the user's own frames."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError
from . import options as shared
from .exit_codes import exit_codes
from .reporting import make_reporter
from .runs import (
    RESUME_HINT,
    Where,
    advance,
    check_no_options,
    check_run,
    print_outcome,
    run_options,
    use_threads_of,
)

if TYPE_CHECKING:
    from ..system.molecular_system import MolecularSystem
    from ..units import FloatArray
    from ..workflow.options import RunOptions
    from ..workflow.run import Outcome


def _train_own(
    target: str,
    top: Path | None,
    trajectories: list[Path],
    cvs: list[str],
    log_weights: Path | None,
    output: Path | None,
    latent: int | None,
    seed: int,
    trust_force_field: bool,
) -> tuple[Path, str]:
    use_threads_of(Path("."))
    from ..files import check_writable
    from ..generator.model_file import check_model_name
    from ..generator.training import train_model
    from ..generator.wgan_gp import TrainingOptions
    from ..sampling.own_frames import check_cvs, load_own_frames
    from ..system.library import load_system

    if top is None or output is None:
        raise InputError("own frames need --top FILE, and -o model.safetensors or -o RUN: name both")
    check_model_name(output)
    check_writable(output)
    system = load_system(target, trust_force_field=trust_force_field)
    check_cvs(system, cvs)
    reporter = make_reporter()
    positions = load_own_frames(system, top, trajectories, log_weights, seed, reporter.note)
    if latent is not None and latent < 0:
        raise InputError(f"--latent is {latent}: give at least 0")
    options = TrainingOptions() if latent is None else TrainingOptions(latent_size=latent)
    with reporter.step("training", options.generator_steps + 1) as done:
        model = train_model(
            system,
            positions,
            system.slow.transform(positions),
            seed=seed,
            options=options,
            progress=lambda step, _: done(step + 1),
        )
    model.save(output)
    return output, model.describe()


def _own_frames_of_a_run(
    target: str,
    top: Path | None,
    trajectories: list[Path],
    cvs: list[str],
    log_weights: Path | None,
    output: Path | None,
    begun_with: "RunOptions",
    where: Where,
    trust_force_field: bool,
) -> "Outcome":
    folder = Path(target) if output is None else output
    use_threads_of(folder)
    from ..sampling.own_frames import check_cvs, read_own_frames
    from ..workflow.run import use_own_frames

    if top is None:
        raise InputError("own frames need --top FILE: name it")
    reporter, topology = make_reporter(), top

    def frames(system: "MolecularSystem") -> "tuple[FloatArray, FloatArray]":
        check_cvs(system, cvs)
        return read_own_frames(system, topology, trajectories, log_weights, reporter.note)

    system, options = (None, None) if output is None else (target, begun_with)
    with where.opened() as workers:
        return use_own_frames(
            folder, system, options, frames, reporter=reporter, workers=workers, trust_force_field=trust_force_field
        )


def _check_no_frames(target: str, of_frames: bool, output: Path | None, given: dict[str, Any], platform: str) -> None:
    """Raise an `InputError` where options of own frames are given without any."""
    if of_frames:
        raise InputError("--top, --cv and --log-weights belong to own frames: name them with --traj")
    check_run(target, "--traj FILE --top FILE -o model.safetensors (frames of your own), or begin a run")
    defaults = {"latent": None, "seed": 0, "preset": "default", "max_evaluations": None}
    if output is not None or given != defaults or platform != "auto":
        raise InputError(
            "-o, --latent, --seed, --preset, --max-evaluations and --platform belong to own frames (--traj): "
            "leave them out; gancl export writes a run's model to a file"
        )


def train(
    target: Annotated[str, typer.Argument(metavar="RUN", help="A run folder, or with --traj a system's name or card.")],
    top: Annotated[Path | None, typer.Option(help="Topology of your own frames.")] = None,
    traj: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="A trajectory of your own frames; repeatable.")
    ] = None,
    cv: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CV", help="A label, as phi:2 or torsion:4,6,8,14; repeatable; must be those of the card."
        ),
    ] = None,
    log_weights: Annotated[
        Path | None, typer.Option(help="Log-weights of the frames, npy or text, one a frame.")
    ] = None,
    output: shared.Output = None,
    latent: shared.Latent = None,
    preset: shared.Preset = "default",
    max_evaluations: shared.MaxEvaluations = None,
    seed: shared.Seed = 0,
    platform: shared.Platform = "auto",
    workers: shared.Workers = None,
    trust_force_field: shared.Trust = False,
    scheduler: shared.Scheduler = None,
    json_: shared.Json = False,
    debug: shared.Debug = False,
) -> None:
    """The train stage of a run, or a model from your own frames.

    RUN alone goes on with a run as far as its first model. With --traj and --top, your frames take the place of the
    run's first windows; a system in place of RUN begins one in the folder -o RUN. A system with -o model.safetensors
    gets the model of the product generator, without a run.
    """
    with exit_codes(debug, "repeat the command to start again" if traj else RESUME_HINT):
        if not traj:
            given = {"latent": latent, "seed": seed, "preset": preset, "max_evaluations": max_evaluations}
            _check_no_frames(target, top is not None or bool(cv) or log_weights is not None, output, given, platform)
            where = Where(workers, scheduler)
            print_outcome(advance(Path(target), None, None, where, "train", trust_force_field), json_)
            return
        from ..workflow.folder import is_run_folder

        own = (target, top, traj, cv or [], log_weights, output)
        if is_run_folder(Path(target)) or (output is not None and not output.suffix):
            if latent is not None:
                raise InputError("--latent is of the product generator: leave it out, or name -o model.safetensors")
            options = run_options(
                preset=preset, max_evaluations=max_evaluations, seed=seed, platform=platform, relax_steps=None
            )
            if is_run_folder(Path(target)):
                check_no_options(vars(options), vars(run_options(relax_steps=None)))
                if output is not None:
                    raise InputError(f"{target} is a run folder, where the model goes: leave -o out")
            outcome = _own_frames_of_a_run(*own, options, Where(workers, scheduler), trust_force_field)
            print_outcome(outcome, json_)
            return
        path, description = _train_own(*own, latent, seed, trust_force_field)
        typer.echo(json.dumps({"model": str(path), "description": description}) if json_ else f"{path}: {description}")
