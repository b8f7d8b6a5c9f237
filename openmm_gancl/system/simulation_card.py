"""A user's Simulation as a card with its files: what it samples, so that any process may read it again."""

import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import openmm

from ..coordinates.slow_coordinates import ParticleCoordinates, SlowCoordinates, Torsions
from ..errors import InputError, checked
from ..files import write_atomically
from .bonds import check_in_one_piece, count_molecules
from .build import positions_of_state
from .card import SystemCard
from .context_check import positions_of
from .library import system_of_card
from .molecular_system import MolecularSystem
from .simulation import system_from_simulation
from .topology_file import topology_text

CARD, TOPOLOGY, SYSTEM, STATE = "card.toml", "topology.json", "system.xml", "state.xml"

NAME = "simulation"


@dataclass(frozen=True)
class SimulationCard:
    """What a Simulation samples, at positions of a molecule in one piece.

    Attributes:
        card: of the system.
        whole: everything that the Simulation has.
    """

    card: SystemCard
    whole: MolecularSystem

    @cached_property
    def system(self) -> MolecularSystem:
        """Made by the card, of the molecule that it names or of all; its state is that of the positions."""
        return system_of_card(self.card, self.whole.topology, self.whole.system, self.whole.positions)

    def write(self, folder: str | Path) -> None:
        """Write the card, and beside it topology, System and State; `load_system` of the folder is the same system."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / TOPOLOGY, topology_text(self.whole.topology))
        write_atomically(folder / SYSTEM, openmm.XmlSerializer.serialize(self.whole.system))
        write_atomically(folder / STATE, _state_text(self.whole))
        write_atomically(folder / CARD, _toml(self.card))  # the last: a folder with a card has all of it

    def begun_in(self, folder: Path) -> "SimulationCard":
        """The same with the positions that a folder's card was written with.

        Raises:
            InputError: the folder's topology is another one, or the positions are of another isomer than those.
        """
        if json.loads((folder / TOPOLOGY).read_text()) != json.loads(topology_text(self.whole.topology)):
            raise InputError(
                f"{folder.parent} was begun with another topology (atoms, residues or bonds): name a new folder"
            )
        here, stored = self.whole.positions, positions_of_state(folder / STATE)
        if len(stored) != len(here):
            raise InputError(f"{folder / STATE} has {len(stored)} atoms, the Simulation {len(here)}: name a new folder")
        begun = SimulationCard(self.card, replace(self.whole, positions=stored))
        if reason := str(begun.system.state.violations(self.system.positions[None])[0]):
            what = {"cis": "a peptide bond that is trans there is cis", "chirality": "a chiral centre is turned over"}
            raise InputError(
                f"{folder.parent} was begun with another isomer of the molecule ({what.get(reason, reason)} now): name "
                "a new folder, or put its structure back"
            )
        return begun


def _state_text(system: MolecularSystem) -> str:
    platform = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(system.system, openmm.VerletIntegrator(0.001), platform)
    context.setPositions(system.positions)
    return openmm.XmlSerializer.serialize(context.getState(positions=True))


def _toml(card: SystemCard) -> str:
    """What of a card is not its default; strings and lists of numbers are written in TOML as in JSON."""
    content = card.model_dump(mode="json", exclude_defaults=True)
    labels, state = content.pop("labels"), content.pop("state")
    lines = [f"{key} = {json.dumps(value)}" for key, value in content.items()]
    for label in labels:
        lines += ["", "[[labels]]", *(f"{key} = {json.dumps(value)}" for key, value in label.items())]
    lines += ["", "[state]", *(f"{key} = {json.dumps(value)}" for key, value in state.items())]
    return "\n".join(lines) + "\n"


def _label_tables(slow: SlowCoordinates) -> list[dict[str, Any]]:
    if isinstance(slow, Torsions):
        rows = slow.atoms.tolist()
        return [{"kind": "torsion", "name": name, "atoms": row} for name, row in zip(slow.names, rows, strict=True)]
    if not isinstance(slow, ParticleCoordinates):
        raise InputError("labels of a module are no coordinates of a chart: label torsions or particle components")
    return [
        {"kind": "coordinate", "name": name, "particle": particle, "axis": "xyz"[axis], "domain": domain}
        for name, (particle, axis), domain in zip(
            slow.names, slow.components.tolist(), slow.domain.tolist(), strict=True
        )
    ]


@checked
def card_of_simulation(simulation: Any, slow: SlowCoordinates, **options: Any) -> SimulationCard:
    """What a Simulation samples, as a card and its system; the Simulation is not changed.

    The declared state is that of its positions: chiral centres and trans peptide bonds stay as they are.

    Args:
        simulation: an ``openmm.app.Simulation`` whose Context has positions.
        slow: the labels, torsions or components of particles.
        options: of `system_from_simulation`.

    Raises:
        InputError: what does not fit.
    """
    tables, positions = _label_tables(slow), positions_of(simulation)
    if len(positions) > 1 and not positions.any():  # what OpenMM says of those that were never set
        raise InputError("the Simulation has no positions yet: set them, simulation.context.setPositions")
    found = system_from_simulation(simulation, slow, **options, barostat=False)
    check_in_one_piece(found.topology, found.positions[None])
    several = count_molecules(found.topology) > 1
    card = SystemCard.model_validate(
        {
            "name": NAME,
            "temperature": found.temperature,
            "friction": found.friction,
            "time_step": found.time_step,
            "structure": TOPOLOGY,
            "system_xml": SYSTEM,
            "state_xml": STATE,
            "molecule": int(slow.atoms[0, 0]) if several and isinstance(slow, Torsions) else None,
            "labels": tables,
            "force_constants": found.force_constants.tolist(),
            "state": {"chirality": "structure", "trans_peptides": "auto"},
        }
    )
    made = SimulationCard(card, found)
    assert made.system.n_atoms  # what does not fit is refused now
    return made
