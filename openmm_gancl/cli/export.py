"""``gancl export``: the model of a run as TorchScript, for OpenMM."""

import json
from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from . import options as shared
from .exit_codes import exit_codes


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder with a trained model.")],
    output: shared.Output = Path("model.pt"),
    json_: shared.Json = False,
    debug: shared.Debug = False,
) -> None:
    """Write a run's model as TorchScript, for OpenMM; gancl itself reads model.safetensors."""
    with exit_codes(debug):
        from ..files import check_writable
        from ..workflow.folder import RunFolder

        folder, target = RunFolder.load(run), output or Path("model.pt")
        stage = folder.last_model()
        if stage is None:
            raise InputError(f"{run} has no lifting model yet: train one with `gancl train {run}`")
        if target.suffix == ".safetensors":
            raise InputError(f"{target} would be a model without code by its name: name it model.pt, or copy the run's")
        check_writable(target)
        folder.verify(stage)
        from ..generator.model import load_model

        load_model(folder.file(stage, "model.safetensors")).export(target)
        typer.echo(json.dumps({"model": str(target)}) if json_ else str(target))
