"""The shipped systems, and systems from cards."""

import shutil
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from ..coordinates.basin import Basin
from ..errors import InputError, checked
from ..units import FloatArray
from .build import labels_of_card, objects_of_card
from .card import SDECard, SystemCard, read_card
from .molecular_system import MolecularSystem, system_from_objects, target_of
from .one_molecule import OneMolecule


def system_of_card(card: SystemCard, topology: Any, system: Any, positions: FloatArray) -> MolecularSystem:
    """What a card says of OpenMM's objects that were made from it, or that it was made of.

    Args:
        card: of them.
        topology: ``openmm.app.Topology``.
        system: ``openmm.System``.
        positions: shape=(n_atoms, 3), nm.

    Raises:
        InputError: they do not fit together.
    """
    slow = labels_of_card(card, topology)
    if card.molecule is not None:
        one = OneMolecule.of(topology, target_of(system), positions, card.molecule)
        topology, system, positions, slow = one.topology, one.system, one.positions, one.labels(slow)
    return system_from_objects(
        topology,
        system,
        positions,
        temperature=card.temperature,
        slow=slow,
        force_constants=card.force_constants,
        friction=card.friction,
        time_step=card.time_step,
        basins=[Basin(b.name, tuple(np.array(box, dtype=float) for box in b.boxes)) for b in card.basins],
        name=card.name,
        chirality=card.state.chirality,
        trans_peptides=card.state.trans_peptides,
        card=card.model_dump(mode="json"),
        wide=card.wide,
        not_wide=card.not_wide or (),
    )


def systems_root() -> Path:
    """The folder of the shipped systems, in an installed package or next to it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "systems"
    return installed if installed.is_dir() else package.parent / "systems"


def _shipped() -> dict[str, Path]:
    return {path.parent.name: path for path in sorted(systems_root().glob("*/card.toml"))}


def card_path(name_or_path: str | Path) -> Path:
    """Where a card is: a shipped name wins over a folder of that name; ``./name`` is the folder."""
    shipped = _shipped()
    if isinstance(name_or_path, str) and name_or_path in shipped:
        return shipped[name_or_path]
    path = Path(name_or_path)
    if path.is_dir():
        return path / "card.toml"
    if path.suffix == ".toml" or path.is_file():
        return path
    near = get_close_matches(str(name_or_path), shipped, 1)
    meant = f" (do you mean {near[0]}?)" if near else ""
    raise InputError(
        f"there is no system '{name_or_path}'{meant}: give a card (TOML file or its folder) or one of "
        f"{', '.join(shipped)}"
    )


@checked
def load_system(name_or_path: str | Path, *, trust_force_field: bool = False) -> MolecularSystem:
    """A shipped system by its name, or any card by its path.

    Args:
        name_or_path: a name of `list_systems`, a TOML file, or a folder with ``card.toml``.
        trust_force_field: whether code that the card's files hold may run: scripts of a force field, forces of torch,
            Python or plugins in a System.

    Raises:
        InputError: one sentence that names the file, the key and the remedy.
    """
    path = card_path(name_or_path)
    card = read_card(path)
    if isinstance(card, SDECard):
        raise InputError(
            f"{path}: a stochastic differential equation has no energy, so its lifts have no weight: use "
            "openmm_gancl.load_sde and openmm_gancl.lift_sde"
        )
    try:
        trusted = trust_force_field or path in _shipped().values()
        return system_of_card(card, *objects_of_card(card, path.parent, trusted=trusted))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def list_systems() -> list[tuple[str, str]]:
    """Name and one-line description of every shipped system, those of `load_sde` among them."""
    return [(name, read_card(path).description) for name, path in _shipped().items()]


@checked
def copy_system(name: str, directory: str | Path) -> Path:
    """Copy a shipped system's folder for editing.

    Args:
        name: a name of `list_systems`.
        directory: the folder to make; an existing one must be empty.

    Returns:
        the folder, which `load_system` or `openmm_gancl.lifting.sde.load_sde` takes.

    Raises:
        InputError: no such system, or the folder cannot be made or is not empty.
    """
    shipped, target = _shipped(), Path(directory)
    if name not in shipped:
        raise InputError(f"there is no system '{name}' to copy: choose one of {', '.join(shipped)}")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{target} exists already and is not overwritten: name a new folder")
    try:
        shutil.copytree(shipped[name].parent, target, dirs_exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot copy to {target} ({error.strerror}): name a folder you may write") from None
    return target
