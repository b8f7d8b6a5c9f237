"""Whether a Simulation's Context computes what its System says: a force added later is in the one and not the other.

OpenMM does not tell which forces a Context has, so energies are compared: those of the Context with those of a copy
that is made of the System now, where the Simulation is and at distorted configurations. The latter see restraints that
are flat where the Simulation is.
"""

from typing import Any

import numpy as np
import openmm

from ..engine.random_numbers import named_rng
from ..errors import InputError
from ..units import FloatArray, number, numbers, thermal_energy

TOLERANCE = 0.1 * thermal_energy(300.0)
"""kJ/mol by which energies of the same forces may differ."""

ROUNDING = {"Reference": 1e-9}
"""Parts of an energy by which it may differ besides, by platform."""

SINGLE = 2e-5
"""Those of any other platform, whose sums may be in single precision."""

DISPLACEMENTS, SCALES = (0.02, 0.1, *(0.3,) * 16), (0.6, 2.0, 6.0)
"""nm, standard deviations of displacements, and factors of all distances, of a molecule in vacuum: in a box of solvent
everything would clash."""

SMALL_DISPLACEMENT, CONSTRAINT_TOLERANCE = 0.003, 1e-5
"""nm by which constraints are broken, to see which are there, and how well they are mended."""

FAST, MASS_TOLERANCE = 1e8, 1e-3
"""nm/ps, and the part by which kinetic energies of the same masses may differ."""

BLOWN_UP = 1e8
"""kJ/mol, in size."""

REMEDY = "simulation.context.reinitialize(preserveState=True) brings it up to date"


def check_is_simulation(given: Any) -> None:
    """Raise an `InputError` where something else is in place of a Simulation."""
    if not hasattr(given, "context"):
        raise InputError(f"given is a {type(given).__name__}: give an openmm.app.Simulation")


def positions_of(simulation: Any) -> FloatArray:
    """Positions of a Simulation, shape=(n_atoms, 3), nm."""
    state = simulation.context.getState(positions=True)
    return np.array(numbers(state.getPositions(asNumpy=True)))


def context_like(context: Any, system: Any) -> openmm.Context:
    """A Context of a System on another Context's platform, with its properties."""
    platform = context.getPlatform()
    values = {name: platform.getPropertyValue(context, name) for name in platform.getPropertyNames()}
    # what a user may choose; others follow from it
    chosen = {name: value for name, value in values.items() if name in ("Precision", "DeviceIndex", "Threads")}
    return openmm.Context(system, openmm.VerletIntegrator(0.001), platform, chosen)


def check_parameters(simulation: Any, parameters: dict[str, float]) -> None:
    """See that the Context has every parameter that a force of the System reads.

    Raises:
        InputError: a force was added to the System after the Context was made.
    """
    for force in simulation.system.getForces():
        for name in _parameters_of(force):
            if name not in parameters:
                raise InputError(
                    f"the System has a {type(force).__name__} with a parameter {name}, which the Simulation's Context "
                    f"does not have: the force was added after the Simulation was made; {REMEDY}"
                )


def _parameters_of(force: Any) -> list[str]:
    if isinstance(force, openmm.PythonForce):
        return list(dict(force.getGlobalParameters()))
    n = force.getNumGlobalParameters() if hasattr(force, "getNumGlobalParameters") else 0
    return [force.getGlobalParameterName(i) for i in range(n)]


def check_energies(simulation: Any, system: Any, copy: openmm.Context) -> None:
    """See that a Simulation's Context has the energies of a copy; the Simulation is left where it is.

    Args:
        simulation: an ``openmm.app.Simulation``.
        system: a copy of its System.
        copy: a Context of that, with the Simulation's parameters and box.

    Raises:
        InputError: it has others; the message names the force that is missing in the Context, if one explains it.
    """
    context, here = simulation.context, positions_of(simulation)
    if not np.isfinite(here).all():
        raise InputError("the Simulation's positions are NaN, it has blown up: load its last checkpoint")
    rounding = ROUNDING.get(context.getPlatform().getName(), SINGLE)
    rng, places = named_rng(0, "fixed", "distortions"), [here]
    if not system.usesPeriodicBoundaryConditions() and here.any():
        places += [here + size * rng.standard_normal(here.shape) for size in DISPLACEMENTS]
        places += [here.mean(axis=0) + scale * (here - here.mean(axis=0)) for scale in SCALES]
    try:
        for positions in places:
            theirs, ours = (_energy(one, positions) for one in (context, copy))
            tolerance = TOLERANCE + rounding * abs(ours)
            # both are NaN where a distorted molecule clashes
            if abs(theirs - ours) > tolerance or np.isfinite(theirs) != np.isfinite(ours):
                raise InputError(_why(system, copy, positions, theirs, ours, tolerance))
    finally:
        context.setPositions(here)


def check_constraints(simulation: Any, copy: openmm.Context) -> None:
    """See that a Simulation's Context constrains what a copy does; the Simulation is left where it is.

    Raises:
        InputError: a constraint was added to the System, or taken from it, after the Context was made.
    """
    context, here = simulation.context, positions_of(simulation)
    near = here + SMALL_DISPLACEMENT * named_rng(0, "fixed", "constraints").standard_normal(here.shape)
    found = []
    try:
        for one in (context, copy):
            one.setPositions(near)
            one.applyConstraints(CONSTRAINT_TOLERANCE)
            found.append(numbers(one.getState(positions=True).getPositions(asNumpy=True)))
    except openmm.OpenMMException:
        return  # positions that were never set
    finally:
        context.setPositions(here)
    if np.abs(found[0] - found[1]).max() > 0.1 * SMALL_DISPLACEMENT:
        raise InputError(
            "the Simulation's Context does not have the System's constraints: they were added or taken out after the "
            f"Simulation was made; {REMEDY}"
        )


def check_masses(simulation: Any, copy: openmm.Context) -> None:
    """See that a Simulation's Context has the masses of a copy, by kinetic energies of the same, very fast velocities.

    The Simulation is left as it is. Integrators that define a kinetic energy of their own are not checked.

    Raises:
        InputError: masses were changed in the System after the Context was made.
    """
    integrator, context = simulation.integrator, simulation.context
    if isinstance(integrator, openmm.CustomIntegrator | openmm.CompoundIntegrator | openmm.BrownianIntegrator):
        return
    state = context.getState(positions=True, velocities=True, energy=True)
    if not abs(number(state.getPotentialEnergy())) < BLOWN_UP:  # the push is not small there
        return
    before = state.getVelocities(asNumpy=True)
    copy.setPositions(state.getPositions(asNumpy=True))
    # so fast that half a step's push, which some integrators add, is nothing beside it
    copy.setVelocities(FAST * named_rng(0, "fixed", "masses").standard_normal(before.shape))
    try:
        copy.applyVelocityConstraints(CONSTRAINT_TOLERANCE)
        context.setVelocities(copy.getState(velocities=True).getVelocities(asNumpy=True))
        theirs, ours = (number(one.getState(energy=True).getKineticEnergy()) for one in (context, copy))
    except openmm.OpenMMException:
        return  # positions that were never set
    finally:
        context.setVelocities(before)
    if abs(theirs - ours) > MASS_TOLERANCE * ours:
        raise InputError(
            f"the Simulation's Context does not have the System's masses: they were changed after the Simulation was "
            f"made; {REMEDY}"
        )


def _energy(context: Any, positions: FloatArray) -> float:
    try:
        context.setPositions(positions)
        return number(context.getState(energy=True).getPotentialEnergy())
    except openmm.OpenMMException:
        return float("nan")


def _why(system: Any, copy: openmm.Context, positions: FloatArray, theirs: float, ours: float, tolerance: float) -> str:
    energies = _of_each_force(system, copy, positions)
    names = [type(force).__name__ for force in system.getForces()]
    for missing in _candidates(len(names)):
        if abs(sum(energies[i] for i in missing) - (ours - theirs)) <= tolerance:
            which = " and ".join(
                f"{names[i]} (number {i}, force group {system.getForce(i).getForceGroup()})" for i in missing
            )
            return (
                f"the System's {which} is not in the Simulation's Context: it was added, or changed, after the "
                f"Simulation was made; {REMEDY}"
            )
    return (
        f"the Simulation's Context has an energy of {theirs:.2f} kJ/mol where its System has {ours:.2f}: a force was "
        f"changed after the Simulation was made; {REMEDY}, or updateParametersInContext of that force"
    )


def _candidates(n: int) -> list[range]:
    """Forces that may be missing: the last few, for they are appended; else any one."""
    return [*(range(n - k, n) for k in range(1, n)), *(range(i, i + 1) for i in range(n))]


def _of_each_force(system: Any, copy: openmm.Context, positions: FloatArray) -> list[float]:
    found = []
    for i in range(system.getNumForces()):
        alone = openmm.XmlSerializer.clone(system)
        for j in reversed(range(system.getNumForces())):
            if j != i:
                alone.removeForce(j)
        try:
            context = context_like(copy, alone)
        except openmm.OpenMMException:  # a barostat without the force that has the box
            found.append(0.0)
            continue
        # as dictionaries: to iterate over them is a crash where faiss has loaded an iterator of its own
        for name in dict(context.getParameters()).keys() & dict(copy.getParameters()).keys():
            context.setParameter(name, copy.getParameter(name))
        found.append(_energy(context, positions))
    return found
