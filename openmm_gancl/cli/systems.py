"""``gancl systems``: list the shipped systems, or copy one for editing."""

import json
from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from . import options as shared
from .exit_codes import exit_codes

Words = Annotated[
    list[str] | None, typer.Argument(metavar="copy NAME DIR", help="Copy a system's card and files to a folder.")
]


def systems(words: Words = None, json_: shared.Json = False, debug: shared.Debug = False) -> None:
    """List the shipped systems, or copy one: `gancl systems copy NAME DIR`."""
    with exit_codes(debug):
        if words and (words[0] != "copy" or len(words) != 3):
            raise InputError(f"'{' '.join(words)}' is not understood: say `gancl systems copy NAME DIR`")
        from ..system.library import copy_system, list_systems

        if words:
            folder = copy_system(words[1], Path(words[2]))
            typer.echo(json.dumps({"folder": str(folder)}) if json_ else str(folder / "card.toml"))
            return
        found = list_systems()
        if json_:
            typer.echo(json.dumps(dict(found)))
            return
        width = max(len(name) for name, _ in found)
        for name, description in found:
            typer.echo(f"{name:<{width}}  {description}")
