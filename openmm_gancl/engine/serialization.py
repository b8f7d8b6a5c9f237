"""Systems as XML text, with forces of openmm-torch in them or not."""

import hashlib
import io
import re
import zipfile
import zlib
from functools import lru_cache
from typing import Any
from xml.etree import ElementTree

import openmm

from ..errors import InputError, first_line

MAX_EXPRESSION = 20_000
"""Characters of an attribute: OpenMM takes expressions of a System apart in a time that grows faster than they do."""

TOO_LONG = re.compile(rf"[^\"'<>]{{{MAX_EXPRESSION}}}")

TRUST = (
    "code in a file may do anything: read it yourself, and if you trust it add `trust_force_field`, or give the "
    "System to gancl.system_from_objects"
)


def refuse_code(xml: str) -> None:
    """See that nothing of an XML text that OpenMM would read runs code or belongs to a plugin.

    A PythonForce holds a pickle, a TorchForce TorchScript, and forces of plugins may hold scripts of their own.

    Raises:
        InputError: one that does, or a text that OpenMM did not write.
    """
    if TOO_LONG.search(xml):
        raise InputError(f"it holds an expression of more than {MAX_EXPRESSION} characters: shorten it")
    if "<!" in xml:  # OpenMM's parser ends comments elsewhere than others do
        raise InputError("it holds a comment or a declaration, which OpenMM does not write: remove it")
    try:
        for element in ElementTree.fromstring(xml).iter():
            kind = element.get("type", "")
            if kind == "PythonForce" or (kind[:1].isalpha() and not hasattr(openmm, kind)):
                raise InputError(f"a {kind} in it would run code that it holds or of a plugin, and {TRUST}")
    except ElementTree.ParseError as error:
        raise InputError(f"it is no XML ({first_line(error)}): write it anew") from None


def deserialized_system(xml: str) -> openmm.System:
    """The System of an XML text, with openmm-torch loaded where a force needs it.

    Any process may read it: a worker, one that resumes a run, a script that has the file of a System with a
    `openmm_gancl.torch_force` in it. Inspect a file from others first: a PythonForce runs code.
    """
    if "TorchForce" in xml or "PythonForce" in xml:
        from .torch_force import torch_force_type

        torch_force_type()
    return openmm.XmlSerializer.deserialize(xml)


def copied_system(system: openmm.System) -> openmm.System:
    """A copy of a System.

    Raises:
        InputError: a PythonForce runs what cannot be copied.
    """
    try:
        return openmm.XmlSerializer.clone(system)
    except openmm.OpenMMException as error:
        if "PythonForce" not in str(error):
            raise
        raise InputError(
            "a PythonForce of the System runs a function that cannot be pickled, and lifts need a copy of the System: "
            "define it with def at the top of a module or script, not as a lambda or inside another function"
        ) from None


def with_parameter_defaults(system: openmm.System, values: dict[str, float]) -> openmm.System:
    """A System whose global parameters of these names, of whatever force, have these defaults."""
    tree = ElementTree.fromstring(openmm.XmlSerializer.serialize(system))
    for element in tree.iter():
        if element.get("name") in values and element.get("default") is not None:
            element.set("default", repr(float(values[element.get("name", "")])))
    return deserialized_system(ElementTree.tostring(tree, encoding="unicode"))


def system_hash(system: openmm.System) -> str:
    """Of all that a System's XML says: the same for the same System in any process and version of OpenMM."""
    xml = re.sub(r' openmmVersion="[^"]*"', "", openmm.XmlSerializer.serialize(system))
    xml = re.sub(r'(?<=encodedFileContents=")[^"]*', lambda match: _archive_hash(match[0]), xml)
    return hashlib.sha256(xml.encode()).hexdigest()[:16]


def _archive_hash(encoded: str) -> str:
    """Of the members of a TorchScript archive, which is written anew each time, with other names for the same."""
    try:
        members = zipfile.ZipFile(io.BytesIO(bytes.fromhex(encoded))).infolist()
    except (ValueError, zipfile.BadZipFile):
        return encoded
    entries = sorted((m.filename.partition("/")[2], m.CRC) for m in members)
    kept = [item for item in entries if not item[0].endswith(("debug_pkl", "serialization_id"))]
    return hashlib.sha256(repr(kept).encode()).hexdigest()


class SystemXml(str):
    """XML text, a tenth as long where it is pickled: every task has it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _uncompressed, (zlib.compress(self.encode(), 1),)


def _uncompressed(compressed: bytes) -> SystemXml:
    return SystemXml(zlib.decompress(compressed).decode())


def serialized(system: openmm.System) -> SystemXml:
    """A System as XML text, for tasks."""
    return SystemXml(openmm.XmlSerializer.serialize(system))


@lru_cache(maxsize=4)
def deserialized(system_xml: str) -> openmm.System:
    """The System of an XML text; clone it before changing it."""
    return deserialized_system(system_xml)
