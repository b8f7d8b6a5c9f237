"""``gancl train``: the train stage of a run, or a model from the user's own frames."""

import json
from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from . import options as shared
from .exit_codes import exit_codes
from .reporting import make_reporter
from .runs import RESUME_HINT, advance, check_run, print_outcome, use_threads_of


def _train_own(
    target: str,
    top: Path | None,
    trajectories: list[Path],
    cvs: list[str],
    log_weights: Path | None,
    output: Path | None,
    latent: int | None,
    seed: int,
) -> tuple[Path, str]:
    use_threads_of(Path("."))
    from ..files import check_writable
    from ..generator.model_file import check_model_name
    from ..generator.training import train_model
    from ..generator.wgan_gp import TrainingOptions
    from ..sampling.own_frames import check_cvs, load_own_frames
    from ..system.library import load_system

    if top is None or output is None:
        raise InputError("own frames need --top FILE and -o model.safetensors: name both")
    check_model_name(output)
    check_writable(output)
    system = load_system(target)
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


def train(
    target: Annotated[str, typer.Argument(metavar="RUN", help="A run folder, or with --traj a system's name or card.")],
    top: Annotated[Path | None, typer.Option(help="Topology of your own frames.")] = None,
    traj: Annotated[list[Path] | None, typer.Option(help="A trajectory of your own frames; repeatable.")] = None,
    cv: Annotated[
        list[str] | None,
        typer.Option(help="A label, as phi:2 or torsion:4,6,8,14; repeatable; must be those of the card."),
    ] = None,
    log_weights: Annotated[
        Path | None, typer.Option(help="Log-weights of the frames, npy or text, one a frame.")
    ] = None,
    output: shared.Output = None,
    latent: shared.Latent = None,
    seed: shared.Seed = 0,
    workers: shared.Workers = None,
    json_: shared.Json = False,
    debug: shared.Debug = False,
) -> None:
    """The train stage of a run; with --top and --traj, a model of a system from your own frames."""
    with exit_codes(debug, "repeat the command to start again" if traj else RESUME_HINT):
        if not traj:
            if top is not None or cv or log_weights is not None:
                raise InputError("--top, --cv and --log-weights belong to own frames: name them with --traj")
            check_run(target, "--traj FILE --top FILE -o model.safetensors (frames of your own), or begin a run")
            if output is not None or latent is not None or seed:
                raise InputError(
                    "-o, --latent and --seed belong to own frames (--traj): leave them out; gancl export writes a "
                    "run's model to a file"
                )
            print_outcome(advance(Path(target), None, None, workers, "train"), json_)
            return
        path, description = _train_own(target, top, traj, cv or [], log_weights, output, latent, seed)
        typer.echo(json.dumps({"model": str(path), "description": description}) if json_ else f"{path}: {description}")
