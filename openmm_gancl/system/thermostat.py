"""Which temperature a user's Simulation keeps, and whether it does."""

import re
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import openmm
from openmm import amd

from ..errors import InputError
from ..units import checked_temperature, number, thermal_energy

QUANTUM_INTEGRATORS = tuple(
    getattr(openmm, name) for name in ("QTBIntegrator", "RPMDIntegrator") if hasattr(openmm, name)
)
"""Integrators that have a temperature and another distribution."""

BOOSTED_INTEGRATORS = (amd.AMDIntegrator, amd.AMDForceGroupIntegrator, amd.DualAMDIntegrator)
"""Integrators of another potential than the System's."""

CONSERVING_INTEGRATORS = (openmm.VerletIntegrator, openmm.VariableVerletIntegrator)
"""Integrators that keep the energy where no force is a thermostat."""

TEMPERATURE_TOLERANCE = 1e-6
"""K."""

FEWEST_KINETIC, FEWEST_INDEPENDENT = 64, 16
"""Kinetic energies from whose later half a temperature is judged, and independent ones among these."""

MAX_HEATING, HEATING_Z = 0.05, 4.0
"""Part by which a temperature may be off, and standard errors."""

WITHOUT_VELOCITIES = (openmm.BrownianIntegrator,)
"""Integrators whose velocities are no momenta."""

FRICTION = 1.0
"""1/ps, of integrators that state none."""

ALL_GROUPS = 2**32 - 1
"""Force groups of an integrator that leaves none out."""

WITHOUT_ENERGY = ("CMMotionRemover", "AndersenThermostat", "Barostat")
"""Forces, by their name's end, that push nothing, whatever their group."""

GROUPS_OF_FORCES = re.compile(r"\bf(\d*)\b")

_groups_of_programs: WeakKeyDictionary[Any, set[str]] = WeakKeyDictionary()
"""Of CustomIntegrators, as their steps name them: reading a program takes longer than an energy."""


def current_integrator(integrator: Any) -> Any:
    """The one that steps: of a CompoundIntegrator the present one."""
    if isinstance(integrator, openmm.CompoundIntegrator):
        return integrator.getIntegrator(integrator.getCurrentIntegrator())
    return integrator


def _stated(simulation: Any) -> tuple[str, float | None]:
    """What keeps a Simulation's temperature, and which, K; None where nothing says."""
    integrator = current_integrator(simulation.integrator)
    kind = type(integrator).__name__
    if isinstance(integrator, QUANTUM_INTEGRATORS):
        raise InputError(
            f"{kind} samples nuclei as quantum particles, and weights are of Boltzmann's distribution: use "
            "LangevinMiddleIntegrator"
        )
    if isinstance(integrator, BOOSTED_INTEGRATORS):
        raise InputError(
            f"{kind} samples a boosted potential, and a move's target is the System's: use LangevinMiddleIntegrator"
        )
    if isinstance(integrator, openmm.NoseHooverIntegrator):
        chains = sorted({number(integrator.getTemperature(i)) for i in range(integrator.getNumThermostats())})
        if len(chains) > 1:
            kept = " and ".join(f"{one:g} K" for one in chains)
            raise InputError(f"{kind} keeps {kept} in parts of the System: give all its thermostats one temperature")
    thermostat = not isinstance(integrator, openmm.NoseHooverIntegrator) or integrator.getNumThermostats() > 0
    if hasattr(integrator, "getTemperature") and thermostat:
        return kind, number(integrator.getTemperature())
    if isinstance(integrator, openmm.MTSLangevinIntegrator):  # keeps it as a variable
        return kind, round(integrator.getGlobalVariableByName("kT") / thermal_energy(1.0), 6)
    parameters = simulation.context.getParameters()
    if (name := openmm.AndersenThermostat.Temperature()) in parameters:
        return "AndersenThermostat", float(parameters[name])
    return kind, None


def temperature_of(simulation: Any, given: Any = None) -> float:
    """The temperature that a Simulation keeps, K.

    Args:
        simulation: an ``openmm.app.Simulation``.
        given: K, of one that does not say; it must be what the others say.

    Raises:
        InputError: it keeps none, does not say which, says another than is given, or samples another distribution than
            Boltzmann's at that temperature.
    """
    kind, stated = _stated(simulation)
    if given is not None:
        given = checked_temperature(given)
    if stated is not None:
        if given is not None and abs(given - stated) > TEMPERATURE_TOLERANCE:
            raise InputError(f"temperature is {given:g} K, and {kind} keeps {stated:g} K: leave temperature out")
        return stated
    integrator = current_integrator(simulation.integrator)
    if isinstance(integrator, (*CONSERVING_INTEGRATORS, openmm.NoseHooverIntegrator)):
        raise InputError(
            f"{kind} keeps the energy, not a temperature: add an openmm.AndersenThermostat to the System before the "
            "Simulation is made, or use LangevinMiddleIntegrator"
        )
    if given is None:
        raise InputError(
            f"{kind} does not say which temperature it keeps: give temperature=, or use LangevinMiddleIntegrator"
        )
    return float(given)


def check_one_temperature(simulation: Any) -> None:
    """See that integrator and AndersenThermostat, where there are both, keep the same temperature.

    Raises:
        InputError: they do not.
    """
    parameters, name = simulation.context.getParameters(), openmm.AndersenThermostat.Temperature()
    kind, stated = _stated(simulation)
    if name in parameters and stated is not None and abs(parameters[name] - stated) > TEMPERATURE_TOLERANCE:
        raise InputError(
            f"{kind} keeps {stated:g} K and the AndersenThermostat {parameters[name]:g} K: give both the same, or "
            "leave one out"
        )


def integrated_groups(integrator: Any) -> int:
    """The force groups that push velocities, as a bit mask."""
    integrator = current_integrator(integrator)
    mask = int(integrator.getIntegrationForceGroups())
    if not isinstance(integrator, openmm.CustomIntegrator):
        return mask
    if integrator not in _groups_of_programs:
        steps = [integrator.getComputationStep(i) for i in range(integrator.getNumComputations())]
        _groups_of_programs[integrator] = {
            group for _, _, expression in steps for group in GROUPS_OF_FORCES.findall(expression)
        }
    found = _groups_of_programs[integrator]
    if "" in found or not found:
        return mask
    return sum(1 << int(group) for group in found)


def check_no_force_left_out(simulation: Any) -> None:
    """See that an integrator steps by every force of the System.

    Raises:
        InputError: it leaves out the force group of one, so that it samples another potential.
    """
    groups = integrated_groups(simulation.integrator)
    if groups & ALL_GROUPS == ALL_GROUPS:  # a System's list of forces takes longer to make than a small one's energy
        return
    for force in simulation.system.getForces():
        kind, used = type(force).__name__, [force.getForceGroup()]
        if kind.endswith(WITHOUT_ENERGY):
            continue
        if isinstance(force, openmm.NonbondedForce) and force.getReciprocalSpaceForceGroup() >= 0:
            used.append(force.getReciprocalSpaceForceGroup())
        for group in used:
            if not groups >> group & 1:
                raise InputError(
                    f"the integrator leaves force groups out (group {group}, of a {kind}), so its target is not the "
                    "System's: set its integration force groups to all, or give an integrator that steps by that group "
                    "the group too"
                )


def degrees_of_freedom(system: Any) -> int:
    """Of the velocities: those of particles with a mass, less constraints, less the motion that is removed."""
    moving = sum(system.getParticleMass(i)._value > 0 for i in range(system.getNumParticles()))
    removed = any(isinstance(force, openmm.CMMotionRemover) for force in system.getForces())
    return int(3 * moving - system.getNumConstraints() - 3 * removed)


@dataclass
class KineticTemperatures:
    """Kinetic temperatures in the order of time, as parts of the temperature that is kept.

    Attributes:
        ratios: those parts.
        times: of each, ps.
        draws: how often velocities had been drawn anew before each.
        drawn: how often they have been drawn anew by now.
    """

    ratios: list[float] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    draws: list[int] = field(default_factory=list)
    drawn: int = 0

    def add(self, ratio: float, time: float) -> None:
        """One more."""
        self.ratios.append(ratio)
        self.times.append(time)
        self.draws.append(self.drawn)

    def independent(self, first: int, friction: float) -> float:
        """How many of those from the first are independent: by draws, and by the time that heat takes to leave."""
        renewed = self.draws[-1] - self.draws[first] + 0.5 * friction * abs(self.times[-1] - self.times[first])
        return min(renewed, len(self.ratios) - first)


def heating(kinetic: KineticTemperatures, temperature: float, simulation: Any, degrees: int) -> str | None:
    """That velocities have another temperature than is kept, in a sentence; None where they do not.

    Where they have it, the parts have the variance ``2 / degrees``; by that, and not by their own, since velocities of
    a Simulation that blows up now and then vary without bounds.

    Args:
        kinetic: what was seen.
        temperature: K.
        simulation: whose integrator it is.
        degrees: of freedom of the velocities.
    """
    first = len(kinetic.ratios) // 2
    later, integrator = np.asarray(kinetic.ratios[first:], dtype=float), current_integrator(simulation.integrator)
    kind = type(integrator).__name__
    if len(kinetic.ratios) < FEWEST_KINETIC or isinstance(integrator, WITHOUT_VELOCITIES):
        return None
    friction = number(integrator.getFriction()) if hasattr(integrator, "getFriction") else FRICTION
    independent = kinetic.independent(first, friction)
    if independent < FEWEST_INDEPENDENT:
        return None
    change, error = abs(later.mean() - 1.0), (2.0 / (degrees * independent)) ** 0.5
    if change <= max(MAX_HEATING, HEATING_Z * error):
        return None
    variable = "a smaller error tolerance, " if kind.startswith("Variable") else ""
    return (
        f"{kind} is to keep {temperature:g} K, and the Simulation's velocities have {temperature * later.mean():.0f} K "
        f"(mean of the last {len(later)} attempts): what it samples between attempts is not the target; use {variable}"
        "a shorter time step, LangevinMiddleIntegrator, or its true temperature (and set velocities before the start)"
    )
