"""``gancl export``: the model of a run as TorchScript, for OpenMM."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InputError
from . import options as shared
from .exit_codes import exit_codes

if TYPE_CHECKING:
    from ..workflow.folder import RunFolder


def _newest_model(folder: "RunFolder") -> str | None:
    """The finished stage that made the run's model: relaxed lifts have one, a closed loop one a round and a last."""
    rounds = sorted((name for name in folder.manifest["stages"] if name.startswith("rounds/")), reverse=True)
    names = ["model", "train", *(name for name in rounds if name.endswith("/model"))]
    return next((name for name in names if folder.is_done(name)), None)


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder with a finished train stage.")],
    output: shared.Output = Path("model.pt"),
    json_: shared.Json = False,
    debug: shared.Debug = False,
) -> None:
    """Write a run's model as TorchScript, for OpenMM; gancl itself reads model.safetensors."""
    with exit_codes(debug):
        from ..files import check_writable
        from ..workflow.folder import RunFolder

        folder, target = RunFolder.load(run), output or Path("model.pt")
        stage = _newest_model(folder)
        if stage is None:
            raise InputError(f"{run} has no lifting model yet: train one with `gancl train {run}`")
        if target.suffix == ".safetensors":
            raise InputError(f"{target} would be a model without code by its name: name it model.pt, or copy the run's")
        check_writable(target)
        folder.verify(stage)
        from ..generator.model import load_model

        load_model(folder.file(stage, "model.safetensors")).export(target)
        typer.echo(json.dumps({"model": str(target)}) if json_ else str(target))
