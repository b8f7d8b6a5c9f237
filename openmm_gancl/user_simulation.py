"""A user's own Simulation as the target of exact lifts, or the reason why it cannot be one."""

from typing import Any

import numpy as np

from .chart import Chart, InternalCoordinates
from .errors import InputError
from .execution import PotentialEnergy
from .model import LiftingModel
from .simulation import count_molecules, system_from_simulation
from .system import MolecularSystem

WINDOWS = "umbrella windows (gancl.sample_windows)"
"""What serves where a lift has no exact weight."""

SAME_ENERGY = 1e-3
"""kT by which a turned and shifted molecule may differ."""


def why_not_exact(system: Any, topology: Any) -> str | None:
    """What of a System has no exact lift, and what serves instead, in a sentence; None where nothing."""
    for name in (type(force).__name__ for force in system.getForces()):
        if "Barostat" in name:
            return f"the System has a {name}, and an exact lift needs a fixed volume: use {WINDOWS}"
        if name.startswith("Drude"):
            return f"the System has Drude particles, whose lifts have no exact weight: use {WINDOWS}"
    virtual = sum(system.isVirtualSite(i) for i in range(system.getNumParticles()))
    if virtual:
        return f"the System has {virtual} virtual sites, which have no coordinates of their own: use {WINDOWS}"
    molecules = count_molecules(topology)
    if molecules > 1:
        return (
            f"the System holds {molecules} molecules, and an exact lift is of one in vacuum: use {WINDOWS}, or make a "
            "System of the solute alone"
        )
    if molecules and system.usesPeriodicBoundaryConditions():
        return f"the System is periodic, and an exact lift is of a molecule in vacuum: use {WINDOWS}"
    return None


def _refuse(simulation: Any) -> None:
    if reason := why_not_exact(simulation.system, simulation.topology):
        raise InputError(reason)
    groups = simulation.integrator.getIntegrationForceGroups()
    if any(not groups >> force.getForceGroup() & 1 for force in simulation.system.getForces()):
        raise InputError(
            "the integrator leaves force groups out, so its target is not the System's: set its integration force "
            "groups to all"
        )


def check_rigid_motion(system: MolecularSystem, chart: Chart) -> None:
    """A chart of internal coordinates knows no place and no direction."""
    if not isinstance(chart, InternalCoordinates):
        return
    energy = PotentialEnergy(system.system, "Reference")
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    turned = system.positions @ (turn * np.linalg.det(turn)) + np.array([0.3, -0.2, 0.1])
    if abs(energy(turned) - energy(system.positions)) > SAME_ENERGY * system.kT:
        raise InputError(
            "the energy changes when the whole molecule is moved or turned (a restraint of its place?), which a lift "
            f"cannot weigh: leave that force out, or use {WINDOWS}"
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
    check_rigid_motion(system, model.chart)
    return system
