"""``gancl export``: the lifting model of a run as a file of its own."""

import json
from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from . import options as shared
from .exit_codes import exit_codes


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder with a finished train stage.")],
    output: shared.Output = Path("model.pt"),
    json_: shared.Json = False,
    debug: shared.Debug = False,
) -> None:
    """Copy a run's lifting model to a file."""
    with exit_codes(debug):
        from ..files import copy_atomically
        from ..workflow.folder import RunFolder

        folder, target = RunFolder.load(run), output or Path("model.pt")
        if not folder.is_done("train"):
            raise InputError(f"{run} has no lifting model yet: train one with `gancl train {run}`")
        folder.verify("train")
        copy_atomically(folder.file("train", "model.pt"), target)
        typer.echo(json.dumps({"model": str(target)}) if json_ else str(target))
