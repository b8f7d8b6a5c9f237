"""A user's own Simulation as the target of exact lifts, or the reason why it cannot be one."""

from typing import Any

from .errors import InputError
from .exactness import why_not_exact
from .model import LiftingModel
from .simulation import system_from_simulation, temperature_of
from .system import MolecularSystem


def _refuse(simulation: Any, model: Any) -> None:
    if not hasattr(simulation, "context") or not isinstance(model, LiftingModel):
        raise InputError(
            f"given are a {type(simulation).__name__} and a {type(model).__name__}: give an openmm.app.Simulation and "
            "a model (gancl.load_model reads one)"
        )
    if reason := why_not_exact(simulation.system, simulation.topology):
        raise InputError(reason)
    _check_groups(simulation)


def _check_groups(simulation: Any) -> None:
    groups = simulation.integrator.getIntegrationForceGroups()
    if any(not groups >> force.getForceGroup() & 1 for force in simulation.system.getForces()):
        raise InputError(
            "the integrator leaves force groups out, so its target is not the System's: set its integration force "
            "groups to all"
        )


def check_integrator(simulation: Any, system: MolecularSystem) -> None:
    """Refuse an integrator that no longer samples what a copy of its Simulation was made of.

    Raises:
        InputError: another temperature, or force groups left out.
    """
    _check_groups(simulation)
    temperature = temperature_of(simulation.integrator)
    if abs(temperature - system.temperature) > 1e-6:
        raise InputError(
            f"the integrator keeps {temperature:g} K now, and the lifts are for {system.temperature:g} K: make a new "
            "LiftMove, with a model of that temperature"
        )


def system_of_simulation(
    simulation: Any, model: LiftingModel, restraint: Any, time_step: float | None, friction: float
) -> MolecularSystem:
    """What a Simulation samples, as a system that a model can be lifted in; the Simulation is not changed.

    Args:
        simulation: an ``openmm.app.Simulation`` whose Context has positions.
        model: of its atoms, at its temperature.
        restraint: one number or one a label, kJ/mol (torsions) or kJ/mol/nm^2.
        time_step: of relaxations, ps; 0.002 by default, 0.001 where light particles are without constraints.
        friction: of relaxations, 1/ps.

    Raises:
        InputError: what cannot be lifted exactly, and what to use instead.
    """
    _refuse(simulation, model)
    system = system_from_simulation(
        simulation, model.slow, restraint=restraint, time_step=time_step, friction=friction, barostat=False
    )
    model.check_system(system)
    return system
