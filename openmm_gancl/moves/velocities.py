"""Velocities to go on with from a lift: as the integrator's own steps have them at a configuration.

OpenMM's built-in integrators keep velocities half a step before the positions. There they are not independent of
these: to second order in the time step of a harmonic mode they have the mean -(dt/2) f/m and the variance
kT/m (1 - (omega dt/2)^2), given the position. Velocities that are drawn freely are kicked by a whole step of the
force, which heats a mode by (omega dt)^2: of a molecule with flexible bonds and 2 fs the temperature, all modes
together, by some ten per cent after every lift. The variance is that of the BAOAB splitting between its half kicks
(Leimkuhler and Matthews 2013, doi 10.1063/1.4802990), of which LangevinMiddleIntegrator is a shifted form.
"""

from typing import Any

import numpy as np
import openmm

from ..system.molecular_system import MolecularSystem
from ..system.thermostat import current_integrator
from ..units import FloatArray, number, numbers

HALF_A_STEP_BEFORE = (
    openmm.LangevinMiddleIntegrator,
    openmm.LangevinIntegrator,
    openmm.VariableLangevinIntegrator,
    openmm.NoseHooverIntegrator,
    openmm.VerletIntegrator,
    openmm.VariableVerletIntegrator,
)
"""Integrators that keep velocities so; of one that a user has written, nothing is known."""

TRIAL_TIME = 1e-4
"""ps, for which a structure moves by its velocities to see how forces change along them."""


def velocities_after(
    simulation: Any, system: MolecularSystem, positions: FloatArray, drawn: FloatArray
) -> tuple[FloatArray, int]:
    """Velocities to set at positions, shape=(n_atoms, 3), nm/ps, and the evaluations that finding them took.

    Args:
        simulation: whose positions are these, and are again afterwards.
        system: whose masses and constraints they keep.
        positions: shape=(n_atoms, 3), nm.
        drawn: from Maxwell's distribution, without parts along constraints, shape=(n_atoms, 3), nm/ps.
    """
    integrator, context = current_integrator(simulation.integrator), simulation.context
    if not isinstance(integrator, HALF_A_STEP_BEFORE) or not (half := 0.5 * number(integrator.getStepSize())):
        return drawn, 0
    here = _accelerations(context, system, positions)
    beyond = _accelerations(context, system, positions + TRIAL_TIME * drawn)
    context.setPositions(positions)
    # sqrt(1 - (dt/2)^2 omega^2) of what was drawn, to first order, and half a kick back
    slower = drawn + 0.5 * half**2 * (beyond - here) / TRIAL_TIME
    found = system.constraints.tangent((slower - half * here)[None], positions[None], system.masses)[0]
    return (found if np.isfinite(found).all() else drawn), 2


def _accelerations(context: Any, system: MolecularSystem, positions: FloatArray) -> FloatArray:
    context.setPositions(positions)
    forces = context.getState(forces=True).getForces(asNumpy=True)
    return np.asarray(numbers(forces) / system.masses[:, None])
