"""A user's own Simulation as a system: what it samples, and its present state; the Simulation is never changed."""

from dataclasses import replace
from typing import Any

import numpy as np
import openmm
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ..coordinates.slow_coordinates import SlowCoordinates
from ..errors import InputError
from ..units import FloatArray, masses_of, number, numbers
from .constraints import constraints_of
from .molecular_system import MolecularSystem, system_from_objects
from .state import DeclaredState

QUANTUM_INTEGRATORS = tuple(
    getattr(openmm, name) for name in ("QTBIntegrator", "RPMDIntegrator") if hasattr(openmm, name)
)
"""Integrators that have a temperature and another distribution."""

LIGHT_MASS = 2.0
"""amu; without constraints and with lighter particles, 1 fs is the default time step."""


def temperature_of(integrator: Any) -> float:
    """The temperature that an integrator keeps, K.

    Raises:
        InputError: it keeps none, does not say which, or samples another distribution than Boltzmann's.
    """
    if isinstance(integrator, openmm.CompoundIntegrator):
        integrator = integrator.getIntegrator(integrator.getCurrentIntegrator())
    if isinstance(integrator, QUANTUM_INTEGRATORS):
        raise InputError(
            f"{type(integrator).__name__} samples nuclei as quantum particles, and weights are of Boltzmann's "
            "distribution: use LangevinMiddleIntegrator"
        )
    thermostat = not isinstance(integrator, openmm.NoseHooverIntegrator) or integrator.getNumThermostats() > 0
    if hasattr(integrator, "getTemperature") and thermostat:
        return number(integrator.getTemperature())
    raise InputError(
        f"{type(integrator).__name__} does not say which temperature it keeps: use LangevinMiddleIntegrator"
    )


def positions_of(simulation: Any) -> FloatArray:
    """Positions of a Simulation, shape=(n_atoms, 3), nm."""
    state = simulation.context.getState(positions=True)
    return np.array(numbers(state.getPositions(asNumpy=True)))


def count_molecules(topology: Any) -> int:
    """Molecules by the bonds of an ``openmm.app.Topology``; 0 where it has no bonds at all."""
    bonds = np.array([(a.index, b.index) for a, b in topology.bonds()], dtype=np.int64).reshape(-1, 2)
    if not len(bonds):
        return 0
    n = topology.getNumAtoms()
    graph = coo_array((np.ones(len(bonds)), (bonds[:, 0], bonds[:, 1])), shape=(n, n))
    return int(connected_components(graph, directed=False)[0])


def default_time_step(system: Any) -> float:
    """1 fs where a light particle is in no constraint, else 2 fs, in ps."""
    constrained = set(constraints_of(system).pairs.ravel().tolist())
    light = (i for i, mass in enumerate(masses_of(system)) if 0 < mass <= LIGHT_MASS)
    return 0.001 if any(i not in constrained for i in light) else 0.002


def _set_defaults(force: Any, parameters: dict[str, float]) -> None:
    """Make what a Context holds the defaults of a force, and of those inside it."""
    for i in range(force.getNumGlobalParameters() if hasattr(force, "getNumGlobalParameters") else 0):
        force.setGlobalParameterDefaultValue(i, parameters[force.getGlobalParameterName(i)])
    if isinstance(force, openmm.CustomCVForce):
        for i in range(force.getNumCollectiveVariables()):
            _set_defaults(force.getCollectiveVariable(i), parameters)
    if isinstance(force, openmm.MonteCarloBarostat):
        force.setDefaultPressure(parameters[force.Pressure()])
    if hasattr(force, "setDefaultTemperature") and force.Temperature() in parameters:
        force.setDefaultTemperature(parameters[force.Temperature()])


def _with_present_state(simulation: Any) -> Any:
    """A copy of the System with the box and the global parameters that the Context has now.

    Raises:
        InputError: a parameter whose default cannot be set.
    """
    system = openmm.XmlSerializer.clone(simulation.system)
    parameters = dict(simulation.context.getParameters())
    for force in system.getForces():
        _set_defaults(force, parameters)
    if system.usesPeriodicBoundaryConditions():
        system.setDefaultPeriodicBoxVectors(*simulation.context.getState().getPeriodicBoxVectors())
    platform = openmm.Platform.getPlatformByName("Reference")
    copied = dict(openmm.Context(system, openmm.VerletIntegrator(0.001), platform).getParameters())
    for name, value in parameters.items():
        if name in copied and abs(copied[name] - value) > 1e-9 * max(abs(value), 1.0):
            raise InputError(
                f"the Context's parameter {name} is {value:g}, its default in the System {copied[name]:g}: make the "
                "System with that default"
            )
    return system


def system_of_user(topology: Any, system: Any, positions: Any, **options: Any) -> MolecularSystem:
    """`system_from_objects` of what a user runs: no state is declared, and a time step of None is the default one."""
    if options["time_step"] is None:
        options["time_step"] = default_time_step(system)
    found = system_from_objects(topology, system, positions, chirality="none", trans_peptides=False, **options)
    # also a long bond is part of what a user's dynamics samples
    return replace(found, state=DeclaredState())


def system_from_simulation(
    simulation: Any,
    slow: SlowCoordinates,
    *,
    force_constants: float | FloatArray = 200.0,
    time_step: float | None = None,
    friction: float = 1.0,
    barostat: bool = True,
) -> MolecularSystem:
    """What a Simulation samples, as a system: forces, bias parameters, box and positions as they are now.

    Args:
        simulation: an ``openmm.app.Simulation`` whose Context has positions.
        slow: the labels.
        force_constants: one number or one a label, kJ/mol (torsions) or kJ/mol/nm^2.
        time_step: ps; 0.002 by default, 0.001 where light particles are without constraints.
        friction: 1/ps.
        barostat: keep the Simulation's barostat, so that windows sample its ensemble.

    Raises:
        InputError: its integrator keeps no temperature, or the labels do not fit.
    """
    return system_of_user(
        simulation.topology,
        _with_present_state(simulation),
        positions_of(simulation),
        temperature=temperature_of(simulation.integrator),
        slow=slow,
        force_constants=force_constants,
        friction=friction,
        time_step=time_step,
        name="the simulation",
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
