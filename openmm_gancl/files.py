"""Files that are the old one or the new one at any moment, whatever is killed; arrays of files that may be broken."""

import math
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

from .errors import InputError, first_line

MAX_ARRAY_BYTES = 2**32
"""Of all arrays of an npz file, which a small one can hold compressed."""


def load_arrays(path: Path) -> Any:
    """The arrays of an npz file by name, or the array of an npy file; nothing of it is run.

    Raises:
        InputError: it cannot be read, or states sizes that it has not.
    """
    import numpy as np

    try:
        with open(path, "rb") as file:
            is_zip = file.read(2) == b"PK"
        if not is_zip:
            return np.array(np.load(path, allow_pickle=False, mmap_mode="r"))  # a map cannot outgrow the file
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > MAX_ARRAY_BYTES:
                raise InputError(f"{path} holds more than {MAX_ARRAY_BYTES // 2**30} GiB: give a smaller file")
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"there is no file {path}: check its name") from None
    except Exception as error:  # numpy and zlib stumble over broken files in any way
        raise InputError(f"cannot read {path} ({first_line(error)}): give the file as it was written") from None


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace a file as a whole, or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as stream:
            stream.write(content.encode() if isinstance(content, str) else content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def copy_atomically(source: Path, target: Path) -> None:
    """Copy a file's content; the target is the old one or the new one at any moment."""
    check_writable(target)
    temporary = target.with_name(target.name + ".tmp")
    try:
        shutil.copyfile(source, temporary)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """See that a file can be written, before the work that goes into it.

    Raises:
        InputError: it cannot, and why.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder: name a file in it")
    if not path.parent.is_dir():
        raise InputError(f"there is no folder {path.parent}: make it, or write elsewhere")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"{path.parent} is not yours to write: name another folder")


def finite(value: Any) -> Any:
    """With None in place of numbers that are not finite, as JSON wants it."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
