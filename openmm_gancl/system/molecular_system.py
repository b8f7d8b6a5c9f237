"""What is simulated: a user's own OpenMM objects with slow coordinates and a declared state, checked."""

import copy
import pickle
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from openmm import unit

from ..coordinates.basin import Basin
from ..coordinates.slow_coordinates import ModuleCoordinates, ParticleCoordinates, SlowCoordinates, Torsions
from ..engine.serialization import system_hash
from ..errors import InputError, checked
from ..units import BoolArray, FloatArray, masses_of, number, numbers, thermal_energy
from .bonds import bonds_of, check_in_one_piece, check_lengths, molecule_numbers, thermal_lengths
from .constraints import Constraints, constraints_of
from .state import Chirality, DeclaredState, TransPeptides, declare_state, other_isomers

_NOT_PART_OF_THE_TARGET = ("CMMotionRemover", "AndersenThermostat")
"""Forces, by their name's end, that change momenta behind the integrator's back."""

MAX_TIME_STEP = 0.1
"""ps, of a molecule; above it the user thinks in fs."""

LEAST_SINE = 1e-3
"""Of the two angles of a torsion that is a label, at the structure."""

DRUDE_MESSAGE = (
    "the System has Drude particles, whose thermostat of two temperatures neither lifts nor windows have: sample with "
    "OpenMM's DrudeLangevinIntegrator, and join its umbrella windows with gancl fes --windows"
)


@dataclass(frozen=True, eq=False)
class MolecularSystem:
    """Everything that the target distribution and its dynamics consist of; pickles.

    Args:
        name: as in the card.
        topology: ``openmm.app.Topology``.
        system: ``openmm.System`` with all forces, extra restraints included; no barostat, no CMMotionRemover.
        positions: shape=(n_atoms, 3), nm.
        temperature: K.
        friction: 1/ps.
        time_step: ps.
        slow: the labels.
        force_constants: shape=(d,), of the default window restraint, kJ/mol (torsions) or kJ/mol/nm^2.
        state: the declared state.
        basins: regions of interest.
        card: the validated card, JSON-ready; empty if there is none.
        wide: the wide coordinates, by name; None where they are to be found.
        not_wide: names of those found that are not to be.
    """

    name: str
    topology: Any
    system: Any
    positions: FloatArray
    temperature: float
    friction: float
    time_step: float
    slow: SlowCoordinates
    force_constants: FloatArray
    state: DeclaredState
    basins: tuple[Basin, ...] = ()
    card: dict[str, Any] = field(default_factory=dict)
    wide: tuple[str, ...] | None = None
    not_wide: tuple[str, ...] = ()

    @property
    def kT(self) -> float:
        """Thermal energy, kJ/mol."""
        return thermal_energy(self.temperature)

    @property
    def n_atoms(self) -> int:
        """Number of particles."""
        return len(self.positions)

    @cached_property
    def masses(self) -> FloatArray:
        """Masses as integrated, shape=(n_atoms,), amu."""
        return masses_of(self.system)

    @cached_property
    def constraints(self) -> Constraints:
        """Bonds with a fixed length."""
        return constraints_of(self.system)

    def other_isomers(self, positions: FloatArray) -> dict[str, BoolArray]:
        """Which configurations are another isomer than the structure, but for what the labels turn about.

        Args:
            positions: shape=(n, n_atoms, 3), nm.

        Returns:
            by what is the other way around in any (a chiral centre, a peptide bond), shape=(n,).
        """
        labels = self.slow.atoms if isinstance(self.slow, Torsions) else None
        return other_isomers(self.topology, self.positions, positions, labels)

    @property
    def force_field_hash(self) -> str:
        """Sixteen hex digits of the SHA-256 of the serialized System, whatever OpenMM's version."""
        return system_hash(self.system)


def _check_in_no_line(slow: Torsions, positions: FloatArray) -> None:
    """See that each torsion is defined at the structure."""
    for name, atoms in zip(slow.names, slow.atoms, strict=True):
        steps = np.diff(positions[atoms], axis=0)
        sines = np.linalg.norm(np.cross(steps[:-1], steps[1:]), axis=1)
        lengths = np.linalg.norm(steps, axis=1)
        if not (sines > LEAST_SINE * lengths[:-1] * lengths[1:]).all():
            raise InputError(
                f"label {name} has three atoms in a line at the structure ({', '.join(map(str, atoms))}), where no "
                "torsion is defined: label another one"
            )


def _check_nearest_images(slow: Torsions, topology: Any, system: Any, positions: FloatArray) -> None:
    """See that molecules that share a torsion are where their periodic box has them nearest to each other."""
    box, molecules = numbers(system.getDefaultPeriodicBoxVectors()), molecule_numbers(topology)
    for name, atoms in zip(slow.names, slow.atoms, strict=True):
        steps = np.diff(positions[atoms], axis=0) @ np.linalg.inv(box)
        far = (np.abs(steps) > 0.5).any(axis=1) & (np.diff(molecules[atoms]) != 0)
        if far.any():
            one, other = atoms[far.argmax() + np.arange(2)]
            raise InputError(
                f"label {name} is across atoms {one} and {other} of two molecules that are nearer in another periodic "
                "image: put the molecules beside each other, in one image"
            )


def _checked_slow(slow: SlowCoordinates, topology: Any, system: Any, positions: FloatArray) -> SlowCoordinates:
    if len(set(slow.names)) < len(slow.names):
        raise InputError(f"labels share a name ({', '.join(slow.names)}): give each its own")
    used: Any = []
    if isinstance(slow, Torsions):
        used = slow.atoms
    elif isinstance(slow, ParticleCoordinates):
        used = slow.components[:, :1]
    for name, atoms in zip(slow.names, used, strict=False):
        wrong = [int(atom) for atom in atoms if not 0 <= atom < len(positions)]
        if wrong:
            raise InputError(
                f"label {name} names atom {wrong[0]}, but the structure has atoms 0 to {len(positions) - 1}: "
                "correct it (atoms count from 0)"
            )
    if isinstance(slow, Torsions):
        _check_in_no_line(slow, positions)
        if system.usesPeriodicBoundaryConditions():
            # torsions are of positions as they are: bonded forces may know the box, and have no energy that tells
            check_in_one_piece(topology, positions[None], near=slow.atoms.ravel())
            _check_nearest_images(slow, topology, system, positions)
    if isinstance(slow, ModuleCoordinates):
        slow.check(positions)
    if not np.isfinite(slow.transform(positions[None])).all():
        raise InputError(f"labels {', '.join(slow.names)} are not finite at the structure: check their atoms")
    return slow


def _checked_force_constants(force_constants: Any, slow: SlowCoordinates) -> FloatArray:
    values = numbers(force_constants)
    d = len(slow.names)
    if values.shape not in {(), (d,)} or not (np.isfinite(values) & (values > 0)).all():
        raise InputError(
            f"`force_constants` {values.tolist()} must be {d} positive number(s), one a label ({', '.join(slow.names)})"
        )
    return np.broadcast_to(values, (d,)).copy()


def _declared(
    topology: Any,
    system: Any,
    positions: FloatArray,
    slow: SlowCoordinates,
    temperature: float,
    chirality: Chirality,
    trans_peptides: TransPeptides,
) -> DeclaredState:
    """The declared state, with peptide bonds free that labels turn about, and bonds as long as heat makes them."""
    labels = slow.atoms if isinstance(slow, Torsions) else None
    state = declare_state(topology, positions, chirality=chirality, trans_peptides=trans_peptides, labels=labels)
    reach = thermal_lengths(system, state.bonds, thermal_energy(temperature))
    return replace(state, longest_bonds=np.maximum(state.longest_bonds, reach))


def _positive(**values: Any) -> dict[str, Any]:
    numbers = {name: number(value) for name, value in values.items()}
    for name, value in numbers.items():
        if not (np.isfinite(value) and value > 0):
            raise InputError(f"{name} is {value:g}: give a positive number")
    return numbers


def _checked_choice(wide: Sequence[str] | None, not_wide: Sequence[str]) -> dict[str, Any]:
    if wide is not None and not_wide:
        raise InputError("'wide' names the wide coordinates, so that 'not_wide' says nothing more: give one of them")
    return {"wide": None if wide is None else tuple(wide), "not_wide": tuple(not_wide)}


def _checked_positions(positions: Any, n_particles: int, n_topology: int) -> FloatArray:
    if unit.is_quantity(positions):
        positions = positions.value_in_unit(unit.nanometer)
    array = np.array(positions, dtype=float)
    if array.shape != (n_particles, 3) or n_topology != n_particles:
        raise InputError(
            f"the System has {n_particles} particles, but the structure has {n_topology} atoms and positions "
            f"of shape {array.shape}: give the structure that the System was made from"
        )
    bad = ~np.isfinite(array).all(axis=1)
    if bad.any():
        raise InputError(f"the position of atom {int(bad.argmax())} is NaN or infinite: repair the structure")
    return array


def _check_objects(topology: Any, system: Any, positions: FloatArray, time_step: float) -> None:
    masses = masses_of(system)
    wrong = ~(np.isfinite(masses) & (masses >= 0))
    if wrong.any():
        i = int(wrong.argmax())
        raise InputError(
            f"atom {i} has a mass of {masses[i]:g} (a hydrogen mass larger than what its neighbour has to give?): give "
            "masses of zero or more"
        )
    bonds = bonds_of(topology)
    if len(same := np.flatnonzero((positions[bonds[:, 0]] == positions[bonds[:, 1]]).all(axis=1))):
        one, other = bonds[same[0]]
        raise InputError(
            f"atoms {one} and {other} are bonded and in one place (positions that were never set?): set the positions"
        )
    check_lengths(topology, system, positions)
    if len(bonds) and time_step > MAX_TIME_STEP:
        raise InputError(f"time_step is {time_step:g} ps, too long for any bond: 0.002 is usual (2 fs)")
    if any(type(force).__name__.startswith("Drude") for force in system.getForces()):
        raise InputError(DRUDE_MESSAGE)


def target_of(system: Any, barostat: bool = False) -> Any:
    """A copy of a System without the forces that are no part of the target, with its barostat or without."""
    system = copy.deepcopy(system)
    left_out = _NOT_PART_OF_THE_TARGET if barostat else (*_NOT_PART_OF_THE_TARGET, "Barostat")
    for i in reversed(range(system.getNumForces())):
        if type(system.getForce(i)).__name__.endswith(left_out):
            system.removeForce(i)
    return system


def _checked_barostats(target: Any, temperature: float) -> Any:
    """A target whose barostats have its temperature."""
    for force in target.getForces():
        # no other force of a target has one
        if hasattr(force, "getDefaultTemperature") and abs(number(force.getDefaultTemperature()) - temperature) > 1e-3:
            raise InputError(
                f"the {type(force).__name__} is of {number(force.getDefaultTemperature()):g} K and the temperature is "
                f"{temperature:g} K, so that volumes would be of neither: give both the same"
            )
    return target


def _copied_topology(topology: Any) -> Any:
    # OpenMM's deep copy of a Topology leaves its bonds on the old atoms; pickling does not.
    return pickle.loads(pickle.dumps(topology))


@checked
def system_from_objects(
    topology: Any,
    system: Any,
    positions: Any,
    *,
    temperature: Any,
    slow: SlowCoordinates,
    force_constants: float | Sequence[float] | FloatArray = 200.0,
    friction: Any = 1.0,
    time_step: Any = 0.002,
    basins: Sequence[Basin] = (),
    name: str = "user",
    chirality: Chirality = "structure",
    trans_peptides: TransPeptides = "auto",
    card: dict[str, Any] | None = None,
    wide: Sequence[str] | None = None,
    not_wide: Sequence[str] = (),
    barostat: bool = False,
) -> MolecularSystem:
    """A MolecularSystem from OpenMM objects, which are copied, never changed.

    Args:
        topology: ``openmm.app.Topology``; the declared state needs its bonds.
        system: ``openmm.System``; CMMotionRemover and thermostat forces are left out of the copy.
        positions: shape=(n_atoms, 3), nm or a Quantity.
        temperature: K or a Quantity.
        slow: the slow coordinates.
        force_constants: one number or one a label, kJ/mol (torsions) or kJ/mol/nm^2 (coordinates).
        friction: 1/ps or a Quantity.
        time_step: ps or a Quantity.
        basins: regions of interest.
        name: for results.
        chirality: see `openmm_gancl.system.state.declare_state`.
        trans_peptides: see `openmm_gancl.system.state.declare_state`.
        card: the card that it comes from, if any.
        wide: coordinates with several modes that are no labels, in place of those that `learn` finds: ``chi1:2``, ...
        not_wide: or those found that you know to have one mode, by name as a run lists them.
        barostat: keep a barostat in the copy: windows then sample at its pressure. Lifts need a fixed volume.

    Raises:
        InputError: the objects do not fit together.
    """
    if not (hasattr(topology, "getNumAtoms") and hasattr(system, "getNumParticles")):
        kinds = f"a {type(topology).__name__} and a {type(system).__name__}"
        raise InputError(f"given are {kinds}: give an OpenMM Topology and a System, in this order")
    positions = _checked_positions(positions, system.getNumParticles(), topology.getNumAtoms())
    _check_objects(topology, system, positions, number(time_step))
    return MolecularSystem(
        name=name,
        topology=_copied_topology(topology),
        system=_checked_barostats(target_of(system, barostat), number(temperature)),
        positions=positions,
        **_positive(temperature=temperature, friction=friction, time_step=time_step),
        slow=_checked_slow(slow, topology, system, positions),
        force_constants=_checked_force_constants(force_constants, slow),
        state=_declared(topology, system, positions, slow, number(temperature), chirality, trans_peptides),
        basins=tuple(basin.over(slow.names, slow.periods) for basin in basins),
        card=card or {},
        **_checked_choice(wide, not_wide),
    )
