"""Systems as XML text, with forces of openmm-torch in them or not."""

import hashlib
import io
import re
import zipfile

import openmm


def deserialized_system(xml: str) -> openmm.System:
    """The System of an XML text; what its forces of torch modules need is loaded first.

    Any process may read it: a worker, one that resumes a run, one that reads a card.
    """
    if "TorchForce" in xml or "PythonForce" in xml:
        import torch

        from .module_force import torch_force_type

        # a network that is evaluated every step is tens of times slower with more
        torch.set_num_threads(1)
        torch_force_type()
    return openmm.XmlSerializer.deserialize(xml)


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
    told = sorted((m.filename.partition("/")[2], m.CRC) for m in members)
    kept = [item for item in told if not item[0].endswith(("debug_pkl", "serialization_id"))]
    return hashlib.sha256(repr(kept).encode()).hexdigest()
