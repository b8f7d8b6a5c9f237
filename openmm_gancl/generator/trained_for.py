"""The system that a model was trained for, as its file names it, and whether another is the same."""

import re
from collections.abc import Collection, Mapping
from typing import Any

from ..coordinates.slow_coordinates import SlowCoordinates
from ..errors import InputError
from ..reference.chart import Chart
from ..system.molecular_system import MolecularSystem
from ..units import checked_temperature

MAY_DIFFER = ("residue numbers", "temperature")
"""What a user may let a model and a Simulation differ in: weights are exact all the same."""


def atom_names(topology: Any) -> list[str]:
    """Residue and atom name of every atom, as ``ALA2-CA``."""
    return [f"{atom.residue.name}{atom.residue.id}-{atom.name}" for atom in topology.atoms()]


def system_metadata(system: MolecularSystem) -> dict[str, Any]:
    """What `check_trained_for` compares, JSON-ready, and the force field's hash for the record."""
    return {
        "system": system.name,
        "atom_names": atom_names(system.topology),
        "temperature": system.temperature,
        "force_field_hash": system.force_field_hash,
    }


def check_system_metadata(metadata: Mapping[str, Any], n_atoms: int) -> None:
    """Refuse what `system_metadata` never is, as a file may have it.

    Args:
        metadata: of a model.
        n_atoms: of its chart.

    Raises:
        ValueError: what is wrong; KeyError: what is missing.
    """
    names = metadata["atom_names"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or len(names) != n_atoms:
        raise ValueError(f"atom names that are not those of {n_atoms} atoms")
    if not isinstance(metadata["system"], str):
        raise ValueError("a name of its system that is none")
    checked_temperature(metadata["temperature"])


def check_trained_for(
    metadata: Mapping[str, Any], chart: Chart, slow: SlowCoordinates, system: MolecularSystem
) -> None:
    """Refuse another system than the one that a model was trained for.

    Args:
        metadata: of the model.
        chart: of the model.
        slow: the labels of the model.
        system: the system at hand.

    Raises:
        InputError: what does not fit.
    """
    remedy = "use the system that the model was trained for, or train a new one"
    if not metadata:
        raise InputError(f"the model does not say what it was trained for: {remedy}")
    ours, theirs = metadata["atom_names"], atom_names(system.topology)
    if len(ours) != len(theirs):
        raise InputError(f"the model has {len(ours)} atoms, {system.name} has {len(theirs)}: {remedy}")
    for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if a != b:
            numbers = _without_numbers([a]) == _without_numbers([b])
            more = "; a move takes may_differ=['residue numbers']" if numbers else ""
            raise InputError(f"atom {i} is {a} in the model, but {b} in {system.name}: {remedy}{more}")
    if slow.describe() != system.slow.describe():
        raise InputError(
            f"the model's labels are {slow.describe()}, those of {system.name} {system.slow.describe()}: {remedy}"
        )
    if chart.constraints != system.constraints:
        raise InputError(
            f"the model has {len(chart.constraints)} constrained bonds, {system.name} has "
            f"{len(system.constraints)} or others: {remedy}"
        )
    if abs(metadata["temperature"] - system.temperature) > 1e-6:
        raise InputError(
            f"the model was trained at {metadata['temperature']:g} K, {system.name} is at "
            f"{system.temperature:g} K: {remedy}; a move takes may_differ=['temperature'] (exact, accepted less often)"
        )


def metadata_for(metadata: Mapping[str, Any], system: MolecularSystem, may_differ: Collection[str]) -> dict[str, Any]:
    """The metadata of a model that a user gives a system that differs in some respects from what it was trained for.

    Args:
        metadata: of the model.
        system: the system at hand.
        may_differ: some of `MAY_DIFFER`.

    Raises:
        InputError: another word among them.
    """
    if isinstance(may_differ, str) or (unknown := set(may_differ) - set(MAY_DIFFER)):
        given = may_differ if isinstance(may_differ, str) else sorted(unknown)
        raise InputError(f"may_differ is {given!r}: give a list of some of {', '.join(MAY_DIFFER)}")
    found, ours = dict(metadata), system_metadata(system)
    if "temperature" in may_differ and found:
        found["temperature"] = ours["temperature"]
    if "residue numbers" in may_differ and found:
        here = _without_numbers(ours["atom_names"])
        if _without_numbers(found["atom_names"]) == here:
            found["atom_names"] = ours["atom_names"]
    return found


def _without_numbers(names: Collection[str]) -> list[str]:
    """``ALA-CA`` of ``ALA2-CA``; numbers may be negative, and have a letter behind."""
    return [re.sub(r"-?\d+[A-Za-z]?-", "-", name, count=1) for name in names]
