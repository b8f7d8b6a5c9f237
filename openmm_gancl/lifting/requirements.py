"""Which Systems and Simulations have exact lifts, and what to use for the others."""

from collections.abc import Collection
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from ..coordinates.geometry import wrap
from ..coordinates.slow_coordinates import SlowCoordinates
from ..engine.platforms import PotentialEnergy
from ..engine.random_numbers import named_rng
from ..errors import InputError, last_line
from ..generator.invertible import InvertibleGenerator
from ..generator.model import LiftingModel
from ..generator.trained_for import atom_names, metadata_for
from ..reference.chart import Chart, InternalCoordinates
from ..system.bonds import bound_across, count_bound_parts, count_molecules, molecule_with, molecules_of
from ..system.context_check import check_is_simulation
from ..system.molecular_system import DRUDE_MESSAGE, MolecularSystem
from ..system.one_molecule import BONDED_ACROSS
from ..system.simulation import system_from_simulation
from ..system.thermostat import check_no_force_left_out, check_one_temperature, temperature_of
from ..units import FloatArray, IntArray, masses_of

ALTERNATIVE = "umbrella windows (gancl.sample_windows)"
"""What to use where a lift has no exact weight."""

LABEL_TOLERANCE = 1e-3
"""Of labels of such a molecule, which single precision may differ in."""

ENERGY_TOLERANCE = 1e-3
"""kT by which a turned and shifted molecule may differ."""

Model = TypeVar("Model", bound=LiftingModel | InvertibleGenerator)

TRIAL_SHIFTS = (0.4, 2.0, 10.0, 50.0)
"""nm: a wall, or a droplet's, is flat near the structure and steep further away."""


def why_not_exact(system: Any, topology: Any, molecule: IntArray | None = None) -> str | None:
    """Why a System has no exact lift, and what to use instead, in a sentence; None where it has one.

    Args:
        system: an ``openmm.System``.
        topology: its ``openmm.app.Topology``.
        molecule: atoms of the one molecule that is lifted beside others; by default all of a System are.
    """
    lifted = list(range(system.getNumParticles())) if molecule is None else molecule.tolist()
    for name in (type(force).__name__ for force in system.getForces()):
        if "Barostat" in name:
            return f"the System has a {name}, and an exact lift needs a fixed volume: use {ALTERNATIVE}"
        if name.startswith("Drude"):
            return DRUDE_MESSAGE
    virtual = _virtual_sites(system, set(lifted))
    if virtual:
        return f"the System has {virtual} virtual sites, which have no coordinates of their own: use {ALTERNATIVE}"
    if massless := int((masses_of(system)[lifted] == 0).sum()):
        return f"{massless} particles have no mass, and an exact lift moves all of them: use {ALTERNATIVE}"
    molecules = count_molecules(topology)
    if molecule is not None and (pair := bound_across(system, molecule)):
        return BONDED_ACROSS.format(*pair)
    if molecules > 1 and molecule is None and (bound := count_bound_parts(system)) < molecules:
        return (
            f"the Topology lacks bonds: by them the System is {molecules} molecules, by its forces {bound}: add them "
            "(topology.addBond, or createStandardBonds)"
        )
    if molecules > 1 and (molecule is None or system.usesPeriodicBoundaryConditions()):
        return (
            f"the System holds {molecules} molecules, and an exact lift is of one in vacuum or implicit solvent: use "
            f"{ALTERNATIVE}, or make a System of the solute alone"
        )
    if molecules and system.usesPeriodicBoundaryConditions():
        return f"the System is periodic, and an exact lift is of a molecule in vacuum: use {ALTERNATIVE}"
    return None


def _virtual_sites(system: Any, lifted: set[int]) -> int:
    """Those among atoms that are lifted, or that follow them."""
    sites = [(i, system.getVirtualSite(i)) for i in range(system.getNumParticles()) if system.isVirtualSite(i)]
    return sum(
        not lifted.isdisjoint([i, *(site.getParticle(k) for k in range(site.getNumParticles()))]) for i, site in sites
    )


def molecule_of_model(topology: Any, model: Any, molecule: int | None = None) -> IntArray | None:
    """The atoms of a model in a larger System; None where the System is the molecule, or has none that fits.

    Args:
        topology: an ``openmm.app.Topology``.
        model: an invertible generator or a lifting model.
        molecule: an atom of it, where a user says.

    Raises:
        InputError: several molecules have the model's residue and atom names.
    """
    if count_molecules(topology) <= 1 or not model.metadata:
        return None
    names, wanted = atom_names(topology), model.metadata["atom_names"]
    if molecule is not None:
        atoms = molecule_with(topology, molecule)
        if len(atoms) != len(wanted):
            raise InputError(
                f"the model has {len(wanted)} atoms, the molecule of atom {molecule} {len(atoms)}: name another"
            )
        return atoms
    fitting = [atoms for atoms in molecules_of(topology) if [names[i] for i in atoms] == wanted]
    if len(fitting) > 1:
        first = ", ".join(str(atoms[0]) for atoms in fitting)
        raise InputError(
            f"{len(fitting)} molecules have the model's residue and atom names (their first atoms: {first}): say which "
            "one moves, molecule= one of these"
        )
    return fitting[0] if fitting else None


def placed_atoms(system: Any, model: Any, molecule: IntArray | None) -> IntArray | None:
    """Atoms whose internal coordinates a model draws, in the place that they have; None of a Cartesian chart.

    Args:
        system: an ``openmm.System``.
        model: an invertible generator or a lifting model.
        molecule: its atoms beside others.
    """
    if molecule is not None or not isinstance(getattr(model, "chart", None), InternalCoordinates):
        return molecule
    return np.arange(system.getNumParticles())


def check_exact(system: MolecularSystem, chart: Chart) -> None:
    """See that a system has exact lifts in a chart.

    Raises:
        InputError: what has none, and what to use instead.
    """
    if reason := why_not_exact(system.system, system.topology):
        raise InputError(reason)
    # a chart of internal coordinates has no position and no orientation
    if not isinstance(chart, InternalCoordinates):
        return
    check_invariant(system.slow, system.positions)
    energy = PotentialEnergy(system.system, "Reference")
    rng, here = named_rng(0, "fixed", "rigid motions"), energy(system.positions)
    for far in TRIAL_SHIFTS:
        if abs(energy(_moved(system.positions, far, rng)) - here) <= ENERGY_TOLERANCE * system.kT:
            continue
        raise InputError(
            "the energy changes when the whole molecule is moved or turned (a restraint of its place?), which a lift "
            f"cannot weigh: leave that force out, or use {ALTERNATIVE}"
        )


def _moved(positions: FloatArray, far: float, rng: np.random.Generator) -> FloatArray:
    """A molecule, shape=(n_atoms, 3), turned, and moved so far, nm."""
    turn, shift = np.linalg.qr(rng.normal(size=(3, 3)))[0], rng.normal(size=3)
    return np.asarray(positions @ (turn * np.linalg.det(turn)) + far * shift / np.linalg.norm(shift))


def check_invariant(slow: SlowCoordinates, positions: FloatArray) -> None:
    """Refuse coordinates that tell where a molecule, shape=(n_atoms, 3), nm, is or how it is turned.

    Raises:
        InputError: there are such, or they cannot be computed of so many atoms.
    """
    moved = _moved(positions, 0.4, named_rng(0, "fixed", "rigid motions"))
    try:
        here, there = slow.transform(np.stack([positions, moved]))
    except Exception as error:  # modules of any kind
        raise InputError(
            f"{', '.join(slow.names)} cannot be computed of {len(positions)} atoms ({last_line(error)}): give "
            "coordinates of this molecule"
        ) from None
    if not (np.abs(wrap(there - here, slow.periods)) < LABEL_TOLERANCE * (1.0 + np.abs(here))).all():
        raise InputError(
            f"{', '.join(slow.names)} change when the whole molecule is moved or turned, and a lift has no place and "
            "no orientation: take distances, angles or torsions"
        )


def check_simulation(simulation: Any, molecule: IntArray | None = None) -> None:
    """Refuse what has no exact lifts.

    Args:
        simulation: an ``openmm.app.Simulation``.
        molecule: atoms of the one molecule that is lifted beside others.

    Raises:
        InputError: no Simulation, or one of what System, and what to use instead.
    """
    check_is_simulation(simulation)
    if reason := why_not_exact(simulation.system, simulation.topology, molecule):
        raise InputError(reason)
    check_no_force_left_out(simulation)


def check_integrator(simulation: Any, temperature: float, given: Any = None) -> None:
    """Refuse an integrator that no longer samples what lifts are for.

    Args:
        simulation: an ``openmm.app.Simulation``.
        temperature: of the lifts, K.
        given: what a user says of an integrator that does not.

    Raises:
        InputError: another temperature, or force groups left out.
    """
    check_no_force_left_out(simulation)
    check_one_temperature(simulation)
    kept = temperature_of(simulation, given)
    if abs(kept - temperature) > 1e-6:
        raise InputError(
            f"the integrator keeps {kept:g} K now, and the lifts are for {temperature:g} K: make a new LiftMove, with "
            "a model of that temperature, or with may_differ=['temperature'], which follows it"
        )


def fitted_to(model: Model, system: MolecularSystem, may_differ: Collection[str]) -> Model:
    """A model as one of a system that differs in what the user says may differ; exact all the same.

    Args:
        model: an invertible generator or a lifting model.
        system: the system at hand.
        may_differ: some of `openmm_gancl.generator.trained_for.MAY_DIFFER`.
    """
    return replace(model, metadata=metadata_for(model.metadata, system, may_differ))


def system_of_simulation(
    simulation: Any,
    model: LiftingModel | InvertibleGenerator,
    force_constants: Any,
    time_step: float | None,
    friction: float,
    temperature: Any = None,
    may_differ: Collection[str] = (),
    molecule: IntArray | None = None,
) -> MolecularSystem:
    """What a Simulation samples, as a system that a model can be lifted in; the Simulation is not changed.

    Args:
        simulation: an ``openmm.app.Simulation`` whose Context has positions.
        model: of its atoms, at its temperature.
        force_constants: one number or one a label, kJ/mol (torsions) or kJ/mol/nm^2.
        time_step: of relaxations, ps; 0.002 by default, 0.001 where light particles are without constraints.
        friction: of relaxations, 1/ps.
        temperature: K, of an integrator that does not say.
        may_differ: in what the model may differ from the Simulation: ``residue numbers``, ``temperature``.
        molecule: its atoms, where there are others, which are held as they are.

    Raises:
        InputError: what cannot be lifted exactly, and what to use instead.
    """
    if not isinstance(model, LiftingModel | InvertibleGenerator):
        raise InputError(f"given is a {type(model).__name__} as a model: gancl.load_model reads one")
    check_simulation(simulation, molecule)
    which = None if molecule is None else int(molecule[0])
    options = {"molecule": which, "force_constants": force_constants, "time_step": time_step, "friction": friction}
    system = system_from_simulation(simulation, model.slow, barostat=False, temperature=temperature, **options)
    fitted_to(model, system, may_differ).check_system(system)
    return system
