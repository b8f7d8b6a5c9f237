"""Torsions as a script names them: by residue, by numbers or names of their atoms."""

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import InputError
from .residues import from_openmm
from .slow_coordinates import Torsions
from .specification import parse_cv

Label = str | Sequence[int] | Sequence[str]
"""``phi:2``, ``torsion:4,6,8,14``; four atom numbers from 0; or four atom names, ``CA`` or ``ALA2-CA``."""

MAX_LISTED = 8
"""Atoms that a message names."""


def _atom_of(name: str, label: Label, topology: Any) -> int:
    """The only atom of a name, alone or after its residue's as in ALA2-CA."""
    found = {atom.index: f"{atom.residue.name}{atom.residue.id}-{atom.name}" for atom in topology.atoms()}
    matching = [index for index, full in found.items() if name in (full, full.rpartition("-")[2])]
    if len(matching) == 1:
        return matching[0]
    if matching:
        several = ", ".join(found[index] for index in matching[:MAX_LISTED])
        raise InputError(f"label {tuple(label)}: {len(matching)} atoms are named {name}: name one of {several}")
    raise InputError(
        f"label {tuple(label)}: no atom is named {name}: names are as in {', '.join(list(found.values())[:MAX_LISTED])}"
    )


def _torsion(label: Label, topology: Any) -> tuple[str, list[int]]:
    """Name and atoms of a label."""
    if isinstance(label, str):
        found = parse_cv(label, from_openmm(topology))
        if not np.isfinite(found.period):
            raise InputError(f"label {label} is no torsion: label torsions, as phi:2 or torsion:4,6,8,14")
        return label, found.atoms.tolist()
    parts: list[Any] = list(label)
    if len(parts) != 4:
        raise InputError(f"label {tuple(parts)} names {len(parts)} atoms: a torsion has four")
    if all(isinstance(part, str) for part in parts):
        return "-".join(map(str, parts)), [_atom_of(str(part), label, topology) for part in parts]
    try:
        atoms = [operator.index(part) for part in parts]
    except TypeError:
        raise InputError(f"label {tuple(parts)}: give four atom numbers, or four atom names") from None
    return _torsion("torsion:" + ",".join(map(str, atoms)), topology)


def torsions_from_labels(labels: Label | Sequence[Label], topology: Any) -> Torsions:
    """Torsions by residue (``phi:2``), by numbers of four atoms from 0, or by their names.

    Args:
        labels: one or more.
        topology: an ``openmm.app.Topology``.

    Raises:
        InputError: one that matches nothing, or more than one.
    """
    every: list[Any] = [labels] if isinstance(labels, str) else list(labels)
    if not every:
        raise InputError("there are no labels: name torsions, as phi:2")
    if len(every) == 4 and not any(":" in one if isinstance(one, str) else hasattr(one, "__len__") for one in every):
        every = [every]  # the four atoms of one
    found = [_torsion(label, topology) for label in every]
    return Torsions(tuple(name for name, _ in found), np.array([atoms for _, atoms in found]))
