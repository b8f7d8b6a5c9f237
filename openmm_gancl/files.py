"""Files that are the old one or the new one at any moment, whatever is killed."""

import os
import shutil
from pathlib import Path


def write_atomically(path: Path, text: str) -> None:
    """Replace a file as a whole, or not at all."""
    beside = path.with_name(path.name + ".tmp")
    with open(beside, "w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(beside, path)


def copy_atomically(source: Path, target: Path) -> None:
    """Copy a file's content; the target is the old one or the new one at any moment."""
    beside = target.with_name(target.name + ".tmp")
    shutil.copyfile(source, beside)
    os.replace(beside, target)
