"""Force-field files of a card: where they are, and whether they hold code.

OpenMM runs the text of ``<InitializationScript>`` and ``<Script>`` as Python, and evaluates one attribute. Its own
files need that; one from somebody else may do anything with it.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from openmm import app

from ..engine.serialization import TRUST
from ..errors import InputError, first_line

SCRIPTS = ("InitializationScript", "Script")
EVALUATED, HARMLESS = "useDispersionCorrection", re.compile(r"\s*(True|False|None|[01])\s*")
"""An attribute whose text OpenMM evaluates as Python, and texts that are no more than a value."""


def _own_folders() -> list[Path]:
    """Where OpenMM keeps its force fields, and installed packages theirs."""
    return [Path(folder).resolve() for folder in app.forcefield._getDataDirectories()]


def _found(name: str, folder: Path) -> Path | None:
    """The file of a name in a folder, or OpenMM's of that name."""
    places = [place / name for place in (folder, *_own_folders())]
    return next((path.resolve() for path in places if path.is_file()), None)


def force_field_files(names: Sequence[str], folder: Path) -> list[Path]:
    """The files of a card's list, from its folder before OpenMM's own, and from nowhere else.

    Args:
        names: as in the card.
        folder: of the card.

    Raises:
        InputError: one is in neither.
    """
    files = []
    for name in names:
        path = _found(name, folder)
        if path is None:
            raise InputError(
                f"key 'force_field.files': there is no file '{name}' in {folder} or of OpenMM's own: correct the list"
            )
        files.append(path)
    return files


def refuse_scripts(files: Sequence[Path]) -> None:
    """See that no file that is not OpenMM's own holds code, nor any that it includes.

    Raises:
        InputError: one does, includes what is not there, or is no XML.
    """
    own, waiting, seen = _own_folders(), list(files), set[Path]()
    while waiting:
        path = waiting.pop()
        if path in seen or any(path.is_relative_to(folder) for folder in own):
            continue
        seen.add(path)
        try:
            root = ElementTree.parse(path).getroot()
        except ElementTree.ParseError as error:
            raise InputError(f"key 'force_field.files': {path} is no XML ({first_line(error)}): correct it") from None
        for element in root.iter():
            value = element.get(EVALUATED, "True")
            if element.tag in SCRIPTS or not HARMLESS.fullmatch(value):
                what = f"<{element.tag}>" if element.tag in SCRIPTS else f"{EVALUATED}='{value[:40]}'"
                raise InputError(f"key 'force_field.files': {path} holds {what}, which OpenMM would run, and {TRUST}")
        for include in root.findall("Include"):
            name = include.get("file", "")
            found = _found(name, path.parent)
            if found is None:
                raise InputError(f"key 'force_field.files': {path} includes '{name}', which is not there: add it")
            waiting.append(found)
