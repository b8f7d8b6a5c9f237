"""The OpenMM objects and the labels that a card describes."""

from pathlib import Path
from typing import Any

import numpy as np
import openmm
from openmm import app, unit

from ..coordinates.residues import backbone_atoms, from_openmm
from ..coordinates.slow_coordinates import SlowCoordinates, slow_from_description
from ..engine.serialization import deserialized_system, refuse_code
from ..errors import InputError, first_line
from ..files import in_child
from ..units import FloatArray, number
from .card import CoordinateLabelCard, FlatBottomCard, ForceFieldCard, SystemCard, TorsionLabelCard, ToyCard
from .force_field_files import force_field_files, refuse_scripts
from .topology_file import SUFFIX, read_topology

_FLAT_BOTTOM = (
    "stiffness*max(0,distance-width)^2; distance=abs(delta-turn*floor(delta/turn+0.5)); "
    f"delta=theta-centre; turn={2 * np.pi!r}"
)

MOST_EVALUATED = 2000
"""Atoms of a System from others, up to which its energy is evaluated before it is used."""


def _toy(toy: ToyCard) -> tuple[Any, Any, FloatArray]:
    topology = app.Topology()
    topology.addAtom("X", None, topology.addResidue("TOY", topology.addChain()))
    system = openmm.System()
    system.addParticle(toy.mass)
    force = openmm.CustomExternalForce(" ".join(toy.energy.split()))
    for parameter, value in toy.parameters.items():
        force.addGlobalParameter(parameter, value)
    force.addParticle(0, [])
    system.addForce(force)
    try:
        context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
        context.setPositions([openmm.Vec3(*toy.start)])
        energy = number(context.getState(energy=True).getPotentialEnergy())
    except openmm.OpenMMException as error:
        raise InputError(f"key 'toy.energy': OpenMM refuses the expression ({first_line(error)})") from None
    if not np.isfinite(energy):
        raise InputError("key 'toy.energy': the energy is not finite at 'toy.start': move the start")
    return topology, system, np.array([toy.start])


def _structure(path: Path) -> tuple[Any, Any]:
    """Topology and positions; a topology file has none."""
    if not path.is_file():
        raise InputError(f"key 'structure': there is no file {path}: correct the path")
    if path.suffix == SUFFIX:
        return read_topology(path), None
    reader = app.PDBxFile if path.suffix in {".cif", ".mmcif"} else app.PDBFile
    try:
        structure = reader(str(path))
        if structure.topology.getNumAtoms() == 0:
            raise ValueError("it holds no atoms")
    except Exception as error:  # OpenMM's parsers raise whatever the text makes them stumble over
        raise InputError(
            f"key 'structure': cannot read {path} ({first_line(error)}): give a PDB or mmCIF file"
        ) from None
    return structure.topology, structure.getPositions(asNumpy=True).value_in_unit(unit.nanometer)


def _system_from_force_field(card: ForceFieldCard, topology: Any, folder: Path, trusted: bool) -> Any:
    files = force_field_files(card.files, folder)
    if not trusted:
        refuse_scripts(files)
    try:
        force_field = app.ForceField(*map(str, files))
    except Exception as error:  # whatever an XML file of any content makes the parser raise
        raise InputError(f"key 'force_field.files': {first_line(error)}: correct the list") from None
    for residue in force_field.getUnmatchedResidues(topology):
        raise InputError(
            f"no template of {', '.join(card.files)} matches residue {residue.name} {residue.id}: complete "
            "its atoms (hydrogens, caps) or add a force-field file that knows it"
        )
    try:
        return force_field.createSystem(
            topology,
            nonbondedMethod=getattr(app, card.nonbonded),
            nonbondedCutoff=card.cutoff,
            constraints=None if card.constraints == "none" else getattr(app, card.constraints),
            rigidWater=card.constraints != "none",
            removeCMMotion=False,
            hydrogenMass=card.hydrogen_mass,
        )
    except ValueError as error:
        raise InputError(f"table 'force_field': OpenMM cannot make the System ({first_line(error)})") from None


def _from_xml(key: str, path: Path, kind: type, trusted: bool = False) -> Any:
    """What OpenMM has serialized into the file of a key."""
    if not path.is_file():
        raise InputError(f"key '{key}': there is no file {path}: correct the path")
    try:
        text = path.read_text(encoding="utf-8")
        if not trusted:
            refuse_code(text)
        found = deserialized_system(text)
    except InputError as error:
        raise InputError(f"key '{key}': {path}: {error}") from None
    except (openmm.OpenMMException, ValueError, SyntaxError) as error:
        raise InputError(f"key '{key}': cannot read {path} ({first_line(error)})") from None
    if not isinstance(found, kind):
        raise InputError(f"key '{key}': {path} holds a {type(found).__name__}, not a {kind.__name__}")
    return found


def positions_of_state(path: Path) -> FloatArray:
    """Positions of a State that OpenMM has serialized, shape=(n_atoms, 3), nm.

    Raises:
        InputError: no such file, or a State without positions.
    """
    state = _from_xml("state_xml", path, openmm.State)
    try:
        return np.array(state.getPositions(asNumpy=True).value_in_unit(unit.nanometer))
    except openmm.OpenMMException:
        raise InputError(f"key 'state_xml': the State of {path} has no positions: save it with them") from None


def _flat_bottom_force(restraints: list[FlatBottomCard], n_atoms: int) -> Any:
    force = openmm.CustomTorsionForce(_FLAT_BOTTOM)
    for parameter in ("centre", "width", "stiffness"):
        force.addPerTorsionParameter(parameter)
    for i, restraint in enumerate(restraints):
        if max(restraint.atoms) >= n_atoms:
            raise InputError(
                f"key 'state.flat_bottom[{i}].atoms' names atom {max(restraint.atoms)}, but the structure "
                f"has atoms 0 to {n_atoms - 1}: correct them (they count from 0)"
            )
        force.addTorsion(*restraint.atoms, [restraint.centre, restraint.width, restraint.stiffness])
    return force


def _objects(card: SystemCard, folder: Path, trusted: bool) -> tuple[Any, Any, FloatArray]:
    if card.toy is not None:
        topology, system, positions = _toy(card.toy)
    else:
        topology, positions = _structure(folder / str(card.structure))
        if card.force_field is not None:
            system = _system_from_force_field(card.force_field, topology, folder, trusted)
        else:
            system = _from_xml("system_xml", folder / str(card.system_xml), openmm.System, trusted)
        if card.state_xml is not None:
            positions = positions_of_state(folder / card.state_xml)
        elif positions is None:
            raise InputError(f"key 'structure': {card.structure} has no positions: add 'state_xml'")
    if card.state.flat_bottom:
        system.addForce(_flat_bottom_force(card.state.flat_bottom, system.getNumParticles()))
    return topology, system, positions


def _evaluated_objects(card: SystemCard, folder: Path) -> tuple[Any, Any, FloatArray]:
    """The objects of a card, after OpenMM has made a Context of them and, of few atoms, evaluated it."""
    topology, system, positions = _objects(card, folder, trusted=False)
    if len(positions) != system.getNumParticles():
        return topology, system, positions  # said later, in better words
    try:
        context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
        if len(positions) <= MOST_EVALUATED and np.isfinite(positions).all():
            context.setPositions(positions)
            context.getState(energy=True, forces=True)
    except openmm.OpenMMException as error:
        raise InputError(f"OpenMM cannot use the System ({first_line(error)}): correct its force field") from None
    return topology, system, positions


def _size_of_files(card: SystemCard, folder: Path) -> int:
    files = force_field_files(card.force_field.files, folder) if card.force_field else []
    files += [folder / name for name in (card.structure, card.state_xml, card.system_xml) if name is not None]
    return sum(path.stat().st_size for path in files if path.is_file())


def objects_of_card(card: SystemCard, folder: Path, *, trusted: bool = False) -> tuple[Any, Any, FloatArray]:
    """Topology, System and positions (nm) of a card.

    Files from others are read, and a Context is made of them, in a child process within limits of time and memory.

    Args:
        card: the checked card.
        folder: where its relative paths start.
        trusted: whether its files may hold code, and are read in this process.

    Raises:
        InputError: a file is missing or unreadable, or OpenMM cannot make the System from it.
    """
    folder = folder.resolve()
    if trusted:
        return _objects(card, folder, trusted)
    return in_child(lambda: _evaluated_objects(card, folder), "the system", _size_of_files(card, folder))


def _named_torsion(torsion: str, topology: Any) -> list[int]:
    """Atoms of phi:RES or psi:RES, RES being the residue number of the structure."""
    kind, residue = torsion.split(":")
    try:
        return backbone_atoms(kind, residue, torsion, from_openmm(topology))
    except InputError as error:
        raise InputError(f"key 'labels': {error}") from None


def labels_of_card(card: SystemCard, topology: Any) -> SlowCoordinates:
    """The slow coordinates of a card, whose labels are all of one kind."""
    names = [label.name for label in card.labels]
    torsions = [label for label in card.labels if isinstance(label, TorsionLabelCard)]
    if torsions:
        atoms = [label.atoms or _named_torsion(str(label.torsion), topology) for label in torsions]
        return slow_from_description({"kind": "torsions", "names": names, "atoms": atoms})
    coordinates = [label for label in card.labels if isinstance(label, CoordinateLabelCard)]
    return slow_from_description(
        {
            "kind": "particle",
            "names": names,
            "components": [[label.particle, "xyz".index(label.axis)] for label in coordinates],
            "domain": [label.domain for label in coordinates],
        }
    )
