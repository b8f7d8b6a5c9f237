"""Numbers that come from a file, checked before a module is made of them, or filled with them."""

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError, first_line

MAX_NUMBERS = 2**27
"""Of one tensor that is made from sizes in a file (1 GiB)."""


def whole_size(value: Any, name: str, least: int, most: int) -> int:
    """A whole number within limits, as JSON has it.

    Raises:
        ValueError: it is another.
    """
    if type(value) is not int or not least <= value <= most:
        shown = value if isinstance(value, int | float) else type(value).__name__
        raise ValueError(f"{name} is {shown}, not a whole number from {least} to {most}")
    return value


def check_numbers(n: int, tensors: Mapping[str, Tensor]) -> None:
    """Refuse sizes that need more numbers than a file holds, before any memory is taken.

    Args:
        n: numbers of the largest tensors of the sizes.
        tensors: of the file.

    Raises:
        ValueError: there are fewer.
    """
    stored = sum(tensor.numel() for tensor in tensors.values())
    if n > stored:
        raise ValueError(f"the sizes need {n} numbers, the file holds {stored}")


def fill(module: nn.Module, tensors: Mapping[str, Tensor], names: Iterable[str] | None = None) -> None:
    """Give a module the tensors of a file.

    Args:
        module: of the sizes that the file names.
        tensors: exactly those of the module's state, of its shapes and types.
        names: those of the state that a file holds; all by default.

    Raises:
        ValueError: one is missing, unknown, of another shape or type, or not finite.
    """
    state = module.state_dict()
    wanted = {name: state[name] for name in (state if names is None else names)}
    if missing := sorted(wanted.keys() - tensors.keys()):
        raise ValueError(f"the tensor {missing[0]} is missing")
    if unknown := sorted(tensors.keys() - wanted.keys()):
        raise ValueError(f"the tensor {unknown[0]} belongs to nothing")
    for name, target in wanted.items():
        found = tensors[name]
        if found.shape != target.shape or found.dtype != target.dtype:
            raise ValueError(f"{name} is {described(found)}, not {described(target)}")
        if not torch.isfinite(found).all():
            raise ValueError(f"{name} is not finite")
    with torch.no_grad():
        for name, target in wanted.items():
            target.copy_(tensors[name])


def described(tensor: Tensor) -> str:
    """Type and shape, for people."""
    return f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)}"


def part_of(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): part for name, part in tensors.items() if name.startswith(prefix)}


def moved_to(module: Any, device: str) -> Any:
    """A copy of a module on a torch device.

    Args:
        module: the module, which stays where it is.
        device: as torch names it.

    Raises:
        InputError: torch cannot use it.
    """
    try:
        return copy.deepcopy(module).to(device)
    except (RuntimeError, AssertionError) as error:  # the second where torch was built without the device
        raise InputError(f"torch cannot use the device {device!r} ({first_line(error)}): see `gancl doctor`") from None
