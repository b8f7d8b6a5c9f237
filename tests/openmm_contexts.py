"""One force in a Context of free particles."""

import numpy as np
import openmm

from openmm_gancl.engine.torch_force import torch_force_type

BACKENDS = ["torch", "python"] if torch_force_type() else ["python"]


def context_of(forces, n_atoms, positions, platform="Reference"):
    """Of a force, several, or a System."""
    system = forces
    if not isinstance(forces, openmm.System):
        system = openmm.System()
        for _ in range(n_atoms):
            system.addParticle(1.0)
        for force in forces if isinstance(forces, list) else [forces]:
            system.addForce(force)
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName(platform))
    context.setPositions(positions)
    return context


def energy_and_forces(context):
    state = context.getState(energy=True, forces=True)
    return state.getPotentialEnergy()._value, state.getForces(asNumpy=True)._value


def finite_differences(context, positions, step=1e-5):
    forces = np.empty_like(positions)
    for index in np.ndindex(positions.shape):
        energies = []
        for sign in (1, -1):
            moved = positions.copy()
            moved[index] += sign * step
            context.setPositions(moved)
            energies.append(context.getState(energy=True).getPotentialEnergy()._value)
        forces[index] = -(energies[0] - energies[1]) / (2 * step)
    context.setPositions(positions)
    return forces
