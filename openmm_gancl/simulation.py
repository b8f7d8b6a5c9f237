"""A user's own Simulation as a system: what it samples, and where it stands; the Simulation is never changed."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import openmm
from openmm import unit
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from .errors import InputError
from .slow import SlowCoordinates
from .system import MolecularSystem, system_from_objects
from .units import FloatArray

LIGHT = 2.0
"""amu; without constraints and with lighter particles, 1 fs is the default time step."""


def temperature_of(integrator: Any) -> float:
    """The temperature that an integrator keeps, K.

    Raises:
        InputError: it keeps none, or does not say which.
    """
    if isinstance(integrator, openmm.CompoundIntegrator):
        integrator = integrator.getIntegrator(integrator.getCurrentIntegrator())
    if hasattr(integrator, "getTemperature"):
        return float(integrator.getTemperature().value_in_unit(unit.kelvin))
    raise InputError(
        f"{type(integrator).__name__} does not say which temperature it keeps: use LangevinMiddleIntegrator"
    )


def positions_of(simulation: Any) -> FloatArray:
    """Positions of a Simulation, shape=(n_atoms, 3), nm."""
    state = simulation.context.getState(positions=True)
    return np.array(state.getPositions(asNumpy=True).value_in_unit(unit.nanometer))


@contextmanager
def undisturbed(simulation: Any) -> Iterator[None]:
    """The Reference platform has one random generator a process: a Simulation gets it back as it was.

    Anything without a Context, a system say, is passed over.
    """
    context: Any = getattr(simulation, "context", None)
    shared = context is not None and context.getPlatform().getName() == "Reference"
    checkpoint = context.createCheckpoint() if shared else None
    try:
        yield
    finally:
        if shared:
            context.loadCheckpoint(checkpoint)


def count_molecules(topology: Any) -> int:
    """Molecules by the bonds of an ``openmm.app.Topology``; 0 where it has no bonds at all."""
    bonds = np.array([(a.index, b.index) for a, b in topology.bonds()], dtype=np.int64).reshape(-1, 2)
    if not len(bonds):
        return 0
    n = topology.getNumAtoms()
    graph = coo_array((np.ones(len(bonds)), (bonds[:, 0], bonds[:, 1])), shape=(n, n))
    return int(connected_components(graph, directed=False)[0])


def default_time_step(system: Any) -> float:
    """2 fs with constraints or repartitioned masses, else 1 fs, in ps."""
    masses = [system.getParticleMass(i)._value for i in range(system.getNumParticles())]
    lightest = min(mass for mass in masses if mass > 0)
    return 0.002 if system.getNumConstraints() or lightest > LIGHT else 0.001


def _as_it_stands(simulation: Any) -> Any:
    """A copy of the System with the box and the global parameters that the Context has now."""
    system = openmm.XmlSerializer.clone(simulation.system)
    parameters = dict(simulation.context.getParameters())
    for force in system.getForces():
        if not hasattr(force, "getNumGlobalParameters"):
            continue
        for i in range(force.getNumGlobalParameters()):
            force.setGlobalParameterDefaultValue(i, parameters[force.getGlobalParameterName(i)])
    if system.usesPeriodicBoundaryConditions():
        system.setDefaultPeriodicBoxVectors(*simulation.context.getState().getPeriodicBoxVectors())
    return system


def system_from_simulation(
    simulation: Any,
    slow: SlowCoordinates,
    *,
    restraint: float | FloatArray = 200.0,
    time_step: float | None = None,
    friction: float = 1.0,
    barostat: bool = True,
) -> MolecularSystem:
    """What a Simulation samples, as a system: forces, bias parameters, box and positions as they are now.

    Args:
        simulation: an ``openmm.app.Simulation`` whose Context has positions.
        slow: the labels.
        restraint: one number or one a label, kJ/mol (torsions) or kJ/mol/nm^2.
        time_step: ps; 0.002 by default, 0.001 where light particles are without constraints.
        friction: 1/ps.
        barostat: keep the Simulation's barostat, so that windows sample its ensemble.

    Raises:
        InputError: its integrator keeps no temperature, or the labels do not fit.
    """
    return system_from_objects(
        simulation.topology,
        _as_it_stands(simulation),
        positions_of(simulation),
        temperature=temperature_of(simulation.integrator),
        labels=slow,
        restraint=restraint,
        friction=friction,
        time_step=time_step or default_time_step(simulation.system),
        name="the simulation",
        chirality="none",
        trans_peptides=False,
        barostat=barostat,
    )


def as_system(system_or_simulation: Any, slow: SlowCoordinates | None, **options: Any) -> MolecularSystem:
    """A system as it is, or what a Simulation samples over given labels; options of `system_from_simulation`."""
    if isinstance(system_or_simulation, MolecularSystem):
        if slow is not None:
            raise InputError("a system has labels of its own: leave slow out, or give a Simulation")
        return system_or_simulation
    if not hasattr(system_or_simulation, "context"):
        raise InputError(f"{type(system_or_simulation).__name__} is neither a system nor a Simulation: give one")
    if slow is None:
        raise InputError("a Simulation has no labels: give slow, Torsions say")
    return system_from_simulation(system_or_simulation, slow, **options)
