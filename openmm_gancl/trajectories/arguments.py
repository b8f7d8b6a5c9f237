"""Arguments as people give them: one or several, names or objects, with or without units."""

from collections.abc import Callable, Iterable
from os import PathLike
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..units import checked_temperature, whole_number


def is_trajectory(value: Any) -> bool:
    """Whether it is an mdtraj.Trajectory, without loading mdtraj."""
    return all(hasattr(value, name) for name in ("xyz", "topology", "unitcell_lengths"))


def _several(name: str, value: Any, one: Callable[[Any], Any], example: str) -> tuple[Any, ...]:
    """Each of what is given, or the only one."""
    if value is None:
        return ()
    if isinstance(value, str | PathLike) or is_trajectory(value) or not isinstance(value, Iterable):
        value = [value]
    found = [one(item) for item in value]
    if any(item is None for item in found):
        wrong = next(item for item, one_ in zip(value, found, strict=True) if one_ is None)
        raise InputError(f"`{name}` holds {wrong!r}, which is a {type(wrong).__name__}: give {example}")
    return tuple(found)


def _path(item: Any) -> Path | None:
    return Path(item) if isinstance(item, str | PathLike) else None


def paths_of(name: str, value: Any) -> tuple[Path, ...]:
    """Files, from one name or several."""
    return _several(name, value, _path, "names of files")


def trajectories_of(name: str, value: Any) -> tuple[Any, ...]:
    """Trajectories, from one name or mdtraj.Trajectory, or several."""
    return _several(
        name, value, lambda item: item if is_trajectory(item) else _path(item), "names of files, or mdtraj.Trajectory"
    )


def words_of(name: str, value: Any) -> tuple[str, ...]:
    """Texts, from one or several."""
    return _several(name, value, lambda item: str(item) if isinstance(item, str) else None, "texts, as phi:2")


def stride_of(name: str, value: Any) -> int:
    """A whole number from 1 up."""
    return whole_number(f"`{name}`", value)


def temperature_of(name: str, value: Any) -> float:
    """K, from a number or a Quantity."""
    return checked_temperature(value)


ARGUMENTS: dict[str, Callable[[str, Any], Any]] = {
    "paths": trajectories_of,
    "cvs": words_of,
    "temperature": temperature_of,
    "colvar": paths_of,
    "bias_columns": words_of,
    "hills": paths_of,
    "bias_cvs": words_of,
    "stride": stride_of,
}
"""What each argument of `read` becomes."""
