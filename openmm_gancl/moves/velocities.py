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
from ..system.one_molecule import AmongOthers, rotation_onto
from ..system.thermostat import current_integrator
from ..units import FloatArray, masses_of, number, numbers

HALF_A_STEP_BEFORE = (
    openmm.LangevinMiddleIntegrator,
    openmm.LangevinIntegrator,
    openmm.VariableLangevinIntegrator,
    openmm.NoseHooverIntegrator,
    openmm.VerletIntegrator,
    openmm.VariableVerletIntegrator,
    openmm.DPDIntegrator,
)
"""Integrators that keep velocities so; of one that a user has written, nothing is known."""

VELOCITY_TOLERANCE = 1e-8
"""Of constraints of the others, relative."""

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
    here = _accelerations(context, system.masses, positions)
    beyond = _accelerations(context, system.masses, positions + TRIAL_TIME * drawn)
    context.setPositions(positions)
    # sqrt(1 - (dt/2)^2 omega^2) of what was drawn, to first order, and half a kick back
    slower = drawn + 0.5 * half**2 * (beyond - here) / TRIAL_TIME
    found = system.constraints.tangent((slower - half * here)[None], positions[None], system.masses)[0]
    return (found if np.isfinite(found).all() else drawn), 2


def go_to(
    simulation: Any,
    system: MolecularSystem,
    among: AmongOthers | None,
    lifted: FloatArray,
    drawn: FloatArray,
    before: FloatArray,
) -> int:
    """Take a lift, with velocities to go on with; the evaluations that finding these took.

    A molecule alone gets the drawn velocities, turned as it is. Others beside the molecule keep their velocities, and
    the molecule its momentum: those of a whole step, from which those of half a step before follow by the new forces.
    Drawn momenta would be wrong where a CMMotionRemover holds the sum of all at zero: what it then takes from the
    others cools them.

    Args:
        simulation: an ``openmm.app.Simulation``, or what has its parts.
        system: of what is lifted.
        among: which atoms that has, whose place is kept; None of particles that have no other coordinates.
        lifted: shape=(n, 3), nm, where it may be anywhere beside others.
        drawn: shape=(n, 3), nm/ps, of it, from Maxwell's distribution, without parts along constraints.
        before: shape=(n_atoms, 3), nm, where all atoms were.
    """
    integrator, context = current_integrator(simulation.integrator), simulation.context
    if among is None:
        return _renew(simulation, system, lifted, drawn)
    positions, atoms = among.placed(lifted, before), among.atoms
    if len(atoms) == len(before):
        return _renew(simulation, system, positions, drawn @ rotation_onto(lifted, positions))
    velocities = numbers(context.getState(velocities=True).getVelocities(asNumpy=True))
    # what was drawn without its resultant, turned as the molecule is
    weights = among.masses / among.masses.sum()
    drawn = (drawn - weights @ drawn) @ rotation_onto(lifted, positions[atoms])
    half, cost = 0.5 * number(integrator.getStepSize()), 0
    own, others, middle = drawn, velocities, weights @ velocities[atoms]
    if isinstance(integrator, HALF_A_STEP_BEFORE) and half:
        masses, moved = masses_of(simulation.system), np.zeros_like(positions)
        moved[atoms] = drawn
        old, here, beyond = (
            _accelerations(context, masses, at) for at in (before, positions, positions + TRIAL_TIME * moved)
        )
        slower = drawn + (0.5 * half**2 * (beyond - here) / TRIAL_TIME - half * here)[atoms]
        own = system.constraints.tangent(slower[None], positions[None, atoms], system.masses)[0]
        others, middle, cost = velocities + half * (old - here), middle + half * (weights @ old[atoms]), 3
    found = others.copy()
    found[atoms] = own + middle
    context.setPositions(positions)
    context.setVelocities(found if np.isfinite(found).all() else velocities)
    if simulation.system.getNumConstraints():
        context.applyVelocityConstraints(VELOCITY_TOLERANCE)
    return cost


def _renew(simulation: Any, system: MolecularSystem, positions: FloatArray, drawn: FloatArray) -> int:
    """All positions and velocities anew; what the velocities cost."""
    simulation.context.setPositions(positions)
    velocities, cost = velocities_after(simulation, system, positions, drawn)
    simulation.context.setVelocities(velocities)
    return cost


def _accelerations(context: Any, masses: FloatArray, positions: FloatArray) -> FloatArray:
    """shape=(n_atoms, 3), nm/ps^2; of particles without a mass zero."""
    context.setPositions(positions)
    forces = numbers(context.getState(forces=True).getForces(asNumpy=True))
    return np.asarray(np.where(masses[:, None] > 0, forces / np.where(masses > 0, masses, 1.0)[:, None], 0.0))
