"""TorchScript of modules, which OpenMM's forces are made of, without newer torch's warning that it is deprecated."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

WARNING = r"`torch\.jit\.\w+` is deprecated"
"""Of torch 2.10 and newer; what is to replace TorchScript is no force of openmm-torch."""


@contextmanager
def _quietly() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", WARNING)
        yield


@_quietly()
def scripted(module: Any) -> Any:
    """A module as TorchScript, or one that is scripted already as it is."""
    import torch

    return torch.jit.script(module)


@_quietly()
def archived(module: Any, files: dict[str, str] | None = None) -> bytes:
    """A scripted module as the bytes of a TorchScript archive, with texts beside it."""
    import torch

    stream = io.BytesIO()
    torch.jit.save(module, stream, _extra_files=files)
    return stream.getvalue()


@_quietly()
def loaded(archive: bytes) -> Any:
    """The scripted module of an archive."""
    import torch

    return torch.jit.load(io.BytesIO(archive))
