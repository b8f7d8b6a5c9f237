"""A user's own Simulation as a system: what it samples, and its present state; the Simulation is never changed."""

from dataclasses import replace
from typing import Any

import openmm

from ..coordinates.slow_coordinates import SlowCoordinates
from ..engine.platform_rng import preserve_platform_rng
from ..errors import InputError, checked
from ..units import FloatArray, masses_of
from .constraints import constraints_of
from .molecular_system import MolecularSystem, system_from_objects, target_of
from .state import DeclaredState

LIGHT_MASS = 2.0
"""amu; without constraints and with lighter particles, 1 fs is the default time step."""


def default_time_step(system: Any) -> float:
    """1 fs where a light particle is in no constraint, else 2 fs, in ps."""
    constrained = set(constraints_of(system).pairs.ravel().tolist())
    light = (i for i, mass in enumerate(masses_of(system)) if 0 < mass <= LIGHT_MASS)
    return 0.001 if any(i not in constrained for i in light) else 0.002


def _set_defaults(force: Any, parameters: dict[str, float]) -> None:
    """Make what a Context holds the defaults of a force, and of those inside it."""
    for i in range(force.getNumGlobalParameters() if hasattr(force, "setGlobalParameterDefaultValue") else 0):
        force.setGlobalParameterDefaultValue(i, parameters[force.getGlobalParameterName(i)])
    if isinstance(force, openmm.CustomCVForce):
        for i in range(force.getNumCollectiveVariables()):
            _set_defaults(force.getCollectiveVariable(i), parameters)
    if hasattr(force, "PressureX"):
        along = (force.PressureX(), force.PressureY(), force.PressureZ())
        force.setDefaultPressure(openmm.Vec3(*(parameters[name] for name in along)))
    elif hasattr(force, "setDefaultPressure"):
        force.setDefaultPressure(parameters[force.Pressure()])
    if hasattr(force, "setDefaultSurfaceTension"):
        force.setDefaultSurfaceTension(parameters[force.SurfaceTension()])
    if hasattr(force, "setDefaultTemperature") and force.Temperature() in parameters:
        force.setDefaultTemperature(parameters[force.Temperature()])


def _with_present_state(simulation: Any) -> Any:
    """A copy of the System with the box and the global parameters that the Context has now.

    Raises:
        InputError: the Context was made of another System.
    """
    from ..engine.serialization import copied_system, with_parameter_defaults
    from .context_check import check_constraints, check_energies, check_masses, check_parameters, context_like

    system = copied_system(simulation.system)
    parameters = dict(simulation.context.getParameters())
    check_parameters(simulation, parameters)
    for force in system.getForces():
        _set_defaults(force, parameters)
    if system.usesPeriodicBoundaryConditions():
        system.setDefaultPeriodicBoxVectors(*simulation.context.getState().getPeriodicBoxVectors())
    copy = context_like(simulation.context, system)
    copied = dict(copy.getParameters())
    others = {name: value for name, value in parameters.items() if copied.get(name, value) != value}
    for name, value in others.items():
        copy.setParameter(name, value)
    check_energies(simulation, system, copy)
    check_constraints(simulation, copy)
    check_masses(simulation, copy)
    return with_parameter_defaults(system, others) if others else system


def system_of_user(topology: Any, system: Any, positions: Any, **options: Any) -> MolecularSystem:
    """`system_from_objects` of what a user runs: no state is declared, and a time step of None is the default one."""
    if options["time_step"] is None:
        options["time_step"] = default_time_step(system)
    found = system_from_objects(topology, system, positions, chirality="none", trans_peptides=False, **options)
    # also a long bond is part of what a user's dynamics samples
    return replace(found, state=DeclaredState())


@checked
def system_from_simulation(
    simulation: Any,
    slow: SlowCoordinates,
    *,
    force_constants: float | FloatArray = 200.0,
    time_step: float | None = None,
    friction: float = 1.0,
    barostat: bool = True,
    temperature: Any = None,
    molecule: int | None = None,
) -> MolecularSystem:
    """What a Simulation samples, as a system: forces, bias parameters, box and positions as they are now.

    Args:
        simulation: an ``openmm.app.Simulation`` whose Context has positions.
        slow: the labels; of one molecule with its own numbers of atoms.
        force_constants: one number or one a label, kJ/mol (torsions) or kJ/mol/nm^2.
        time_step: ps; 0.002 by default, 0.001 where light particles are without constraints.
        friction: 1/ps.
        barostat: keep the Simulation's barostat, so that windows sample its ensemble.
        temperature: K, of an integrator that does not say.
        molecule: an atom of the one molecule that is meant, the others held where they are; by default all atoms are.

    Raises:
        InputError: its integrator keeps no temperature or leaves forces out, the labels do not fit, or the Context was
            made of another System: forces were added later.
    """
    from .context_check import check_is_simulation, positions_of
    from .one_molecule import OneMolecule
    from .thermostat import check_no_force_left_out, check_one_temperature, temperature_of

    check_is_simulation(simulation)
    check_one_temperature(simulation)
    check_no_force_left_out(simulation)
    with preserve_platform_rng():
        system = _with_present_state(simulation)
        topology, positions = simulation.topology, positions_of(simulation)
        if molecule is not None:
            one = OneMolecule.of(topology, target_of(system), positions, molecule)
            topology, system, positions = one.topology, one.system, one.positions
    return system_of_user(
        topology,
        system,
        positions,
        temperature=temperature_of(simulation, temperature),
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
        if options.get("temperature") is not None:
            raise InputError("a system has a temperature of its own: leave temperature out, or give a Simulation")
        return system_or_simulation
    if not hasattr(system_or_simulation, "context"):
        raise InputError(f"{type(system_or_simulation).__name__} is neither a system nor a Simulation: give one")
    if slow is None:
        raise InputError("a Simulation has no labels: give slow, Torsions say")
    return system_from_simulation(system_or_simulation, slow, **options)
