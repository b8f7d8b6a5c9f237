"""The manifest of a run folder: JSON with a checksum of its own, checked as a whole before any of it is used."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import InputError
from ..files import load_json, write_atomically

SCHEMA_VERSION = 3
MANIFEST = "manifest.json"
CHECKSUM = "checksum"

MAX_THREADS = 1024

StageName = Annotated[str, Field(pattern=r"^[a-z]+(/[0-9]+(/[a-z]+)?)?$")]
FileName = Annotated[str, Field(pattern=r"^[^/\\\x00]+$")]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]


class _Table(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class _Attempt(_Table):
    started: str
    seconds: float = Field(ge=0)
    force_evaluations: Count


class _Stage(_Table):
    done: bool
    checksums: dict[FileName, Digest]
    attempts: list[_Attempt]


class _System(_Table):
    name: str
    source: str = Field(min_length=1)
    card: dict[str, Any]
    force_field_hash: str
    positions: list[list[float]]


class _Manifest(_Table):
    created: str
    system: _System
    options: dict[str, Any]
    settings: dict[str, Any]
    seed: Count
    versions: dict[str, str]
    platform: str
    threads: int = Field(ge=1, le=MAX_THREADS)
    stages: dict[StageName, _Stage]
    more_lifts: list[Annotated[int, Field(ge=1)]] = Field(default_factory=list)


def checksum_of(content: Mapping[str, Any]) -> str:
    """SHA-256 of all that a manifest says but this, hexadecimal."""
    rest = {key: value for key, value in content.items() if key != CHECKSUM}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def write_manifest(folder: Path, content: Mapping[str, Any]) -> None:
    """Write the manifest of a run folder."""
    text = json.dumps({**content, CHECKSUM: checksum_of(content)}, indent=1)
    write_atomically(folder / MANIFEST, text + "\n")


def read_manifest(folder: Path) -> dict[str, Any]:
    """What `write_manifest` wrote.

    Raises:
        InputError: there is none, it is damaged, was changed by hand, or is of another schema version.
    """
    file = folder / MANIFEST
    if not file.is_file():
        raise InputError(f"{folder} is not a run folder (it has no {MANIFEST}): make one with `gancl run`")
    content = load_json(file)
    if not isinstance(content, dict) or not isinstance(version := content.get("schema_version"), int):
        raise InputError(f"{file} is no manifest of a run: restore it, or start a new run folder")
    if version != SCHEMA_VERSION:
        raise InputError(
            f"{folder} has schema version {version % 10**9}, this program reads {SCHEMA_VERSION}: start a new run "
            "folder, or install the version that wrote it"
        )
    if content.get(CHECKSUM) != checksum_of(content):
        raise InputError(
            f"{file} is not as it was written (damaged, or changed by hand): restore it, or start a new run folder"
        )
    try:
        _Manifest.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise InputError(f"{file}: {place}: {first['msg'].lower()}: restore it, or start a new run folder") from None
    return content
