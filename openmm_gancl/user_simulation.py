"""A user's own Simulation as the target of exact lifts, or the reason why it cannot be one."""

from typing import Any

from .errors import InputError
from .exactness import why_not_exact
from .model import LiftingModel
from .simulation import system_from_simulation
from .system import MolecularSystem


def _refuse(simulation: Any) -> None:
    if reason := why_not_exact(simulation.system, simulation.topology):
        raise InputError(reason)
    groups = simulation.integrator.getIntegrationForceGroups()
    if any(not groups >> force.getForceGroup() & 1 for force in simulation.system.getForces()):
        raise InputError(
            "the integrator leaves force groups out, so its target is not the System's: set its integration force "
            "groups to all"
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
    _refuse(simulation)
    system = system_from_simulation(
        simulation, model.slow, restraint=restraint, time_step=time_step, friction=friction, barostat=False
    )
    model.check_system(system)
    return system
