"""A Topology as a JSON file: every atom, residue, chain and bond by the names that it has, which a PDB file changes."""

import json
from pathlib import Path
from typing import Any

from openmm import app

from ..errors import InputError, first_line
from ..files import load_json

SUFFIX = ".json"


def topology_text(topology: Any) -> str:
    """JSON of an ``openmm.app.Topology``; its box is left out, which a System has."""
    residues = [
        [chain.index, residue.name, residue.id, residue.insertionCode]
        for chain in topology.chains()
        for residue in chain.residues()
    ]
    atoms = [
        [atom.residue.index, atom.name, atom.element.symbol if atom.element else None, atom.id]
        for atom in topology.atoms()
    ]
    bonds = [[bond[0].index, bond[1].index] for bond in topology.bonds()]
    chains = [chain.id for chain in topology.chains()]
    return json.dumps({"chains": chains, "residues": residues, "atoms": atoms, "bonds": bonds}) + "\n"


def read_topology(path: Path) -> Any:
    """The Topology whose `topology_text` a file holds.

    Raises:
        InputError: it cannot be read.
    """
    try:
        stored = load_json(path)
        topology = app.Topology()
        chains = [topology.addChain(name) for name in stored["chains"]]
        residues = [topology.addResidue(name, chains[i], id_, code) for i, name, id_, code in stored["residues"]]
        for i, name, symbol, id_ in stored["atoms"]:
            element = None if symbol is None else app.element.get_by_symbol(symbol)
            topology.addAtom(name, element, residues[i], id_)
        atoms = list(topology.atoms())
        for first, second in stored["bonds"]:
            topology.addBond(atoms[first], atoms[second])
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise InputError(f"cannot read the topology {path} ({first_line(error)}): give it as it was written") from None
    return topology
