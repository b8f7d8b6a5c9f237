"""A slow coordinate inside OpenMM: as a restraint, and as a collective variable that a bias acts on."""

from typing import Any, Protocol

import numpy as np
import openmm

from ..coordinates.slow_coordinates import ModuleCoordinates, ParticleCoordinates, SlowCoordinates, Torsions
from ..errors import InputError, checked
from ..units import FloatArray


class Restraint(Protocol):
    """A restraint in a Context, whose centre can be moved.

    Attributes:
        force: to add to a System; None where nothing is restrained.
    """

    force: Any

    def move(self, context: openmm.Context, label: FloatArray) -> None:
        """Move the centre to a label, shape=(d,), in a Context that has the force."""
        ...


class _NoRestraint:
    force = None

    def move(self, context: openmm.Context, label: FloatArray) -> None:
        pass


class _CosineRestraint:
    def __init__(self, slow: Torsions, kappa: FloatArray):
        self.slow, self.kappa = slow, kappa
        self.force = openmm.PeriodicTorsionForce()
        for atoms, k in zip(slow.atoms, kappa, strict=True):
            self.force.addTorsion(*map(int, atoms), 1, np.pi, float(k))

    def move(self, context: openmm.Context, label: FloatArray) -> None:
        for i, (atoms, k, s) in enumerate(zip(self.slow.atoms, self.kappa, label, strict=True)):
            self.force.setTorsionParameters(i, *map(int, atoms), 1, float(s) + np.pi, float(k))
        self.force.updateParametersInContext(context)


class _HarmonicRestraint:
    def __init__(self, slow: ParticleCoordinates, kappa: FloatArray):
        self.slow, self.stiffness = slow, _on_axes(slow, kappa)
        self.particles = [int(particle) for particle in slow.components[:, 0]]
        self.force = harmonic_wells(self.particles, np.zeros((len(kappa), 3)), self.stiffness)

    def move(self, context: openmm.Context, label: FloatArray) -> None:
        for i, centre in enumerate(_on_axes(self.slow, label)):
            self.force.setParticleParameters(i, self.particles[i], [*centre, *self.stiffness[i]])
        self.force.updateParametersInContext(context)


class _ParameterRestraint:
    """Centres and constants are global parameters: (prefix)_centre_0, ..., (prefix)_constant_0, ..."""

    def __init__(self, slow: SlowCoordinates, kappa: FloatArray, backend: Any, prefix: str):
        self.centres = [f"{prefix}_centre_{i}" for i in range(len(kappa))]
        constants = {f"{prefix}_constant_{i}": float(k) for i, k in enumerate(kappa)}
        self.force = _force_of_parameters(slow, {**dict.fromkeys(self.centres, 0.0), **constants}, backend)

    def move(self, context: openmm.Context, label: FloatArray) -> None:
        for name, value in zip(self.centres, label, strict=True):
            context.setParameter(name, float(value))


def _force_of_parameters(slow: SlowCoordinates, parameters: dict[str, float], backend: Any) -> Any:
    if isinstance(slow, ModuleCoordinates):
        from .torch_force import module_force, restraint_module

        return module_force(restraint_module(slow), parameters, backend)
    # each term has one of the labels switched on
    d, one = len(slow.names), np.eye(len(slow.names))
    pairs = list(zip(list(parameters)[:d], list(parameters)[d:], strict=True))
    force: Any
    if isinstance(slow, Torsions):
        terms = [f"is_{i}*{constant}*(1-cos(theta-{centre}))" for i, (centre, constant) in enumerate(pairs)]
        force = openmm.CustomTorsionForce("+".join(terms))
        add, label_of, columns = force.addTorsion, force.addPerTorsionParameter, slow.atoms.tolist()
    elif isinstance(slow, ParticleCoordinates):
        terms = [f"is_{i}*0.5*{constant}*(q-{centre})^2" for i, (centre, constant) in enumerate(pairs)]
        force = openmm.CustomExternalForce("+".join(terms) + ";q=on_x*x+on_y*y+on_z*z")
        add, label_of, columns = force.addParticle, force.addPerParticleParameter, slow.components[:, :1].tolist()
        one = np.concatenate([one, np.eye(3)[slow.components[:, 1]]], axis=1)
    else:
        raise InputError(f"slow coordinates of type {type(slow).__name__} have no restraint")
    for name in [f"is_{i}" for i in range(d)] + ["on_x", "on_y", "on_z"][: one.shape[1] - d]:
        label_of(name)
    for name, value in parameters.items():
        force.addGlobalParameter(name, value)
    for particles, row in zip(columns, one.tolist(), strict=True):
        add(*particles, row)
    return force


@checked
def make_restraint(
    slow: SlowCoordinates,
    kappa: FloatArray,
    force_group: int,
    *,
    parameters: bool = False,
    backend: Any = "auto",
    prefix: str = "window",
) -> Restraint:
    """The restraint U_C: kappa (1 - cos(xi - s)) of periodic coordinates, kappa (xi - s)^2 / 2 of others.

    Args:
        slow: the slow coordinates.
        kappa: shape=(d,), kJ/mol (periodic), kJ/mol/nm^2 (particles) or kJ/mol (learned).
        force_group: the force group to put it in.
        parameters: make centres and constants global parameters of the Context (``window_centre_0``, ...,
            ``window_constant_0``, ...), as they are of learned coordinates anyhow: for windows of a script's own, a
            sampler of many thermodynamic states, say.
        backend: of learned ones; see `openmm_gancl.engine.torch_force.module_force`.
        prefix: of the parameters' names; two restraints of one System need different ones, since OpenMM takes
            parameters of one name for one.

    Raises:
        InputError: coordinates of a type that has no restraint.
    """
    restraint: Restraint
    if isinstance(slow, Torsions) and not parameters:
        restraint = _CosineRestraint(slow, kappa)
    elif isinstance(slow, ParticleCoordinates) and not parameters:
        restraint = _HarmonicRestraint(slow, kappa)
    else:
        restraint = _ParameterRestraint(slow, kappa, backend, prefix)
    restraint.force.setForceGroup(force_group)
    return restraint


PARAMETER_PREFIX = "gancl_restraint"
"""Prefix of the parameters of a restraint that this package adds: the System may have others of the user's script."""


def add_restraint(system: openmm.System, slow: SlowCoordinates, kappa: FloatArray, force_group: int) -> Restraint:
    """`make_restraint`, its force added to a System; constants that are all zero add none."""
    if not kappa.any():
        return _NoRestraint()
    restraint = make_restraint(slow, kappa, force_group, prefix=PARAMETER_PREFIX)
    system.addForce(restraint.force)
    return restraint


@checked
def coordinate_forces(slow: SlowCoordinates, *, backend: Any = "auto") -> list[openmm.Force]:
    """Each coordinate as a force whose energy is its value: for CustomCVForce, Metadynamics' BiasVariable and others.

    Args:
        slow: the slow coordinates.
        backend: of learned ones; see `openmm_gancl.engine.torch_force.module_force`.

    Raises:
        InputError: coordinates of a type that OpenMM has no force for.
    """
    forces: list[Any] = []
    if isinstance(slow, Torsions):
        for atoms in slow.atoms:
            forces.append(openmm.CustomTorsionForce("theta"))
            forces[-1].addTorsion(*map(int, atoms), [])
    elif isinstance(slow, ParticleCoordinates):
        for particle, axis in slow.components:
            forces.append(openmm.CustomExternalForce("xyz"[axis]))
            forces[-1].addParticle(int(particle), [])
    elif isinstance(slow, ModuleCoordinates):
        from .torch_force import coordinate_module, module_force

        forces = [module_force(coordinate_module(slow, i), {}, backend) for i in range(len(slow.names))]
    else:
        raise InputError(f"slow coordinates of type {type(slow).__name__} have no force")
    return forces


def harmonic_wells(particles: list[int], centres: FloatArray, stiffness: FloatArray) -> Any:
    """Independent wells 0.5 k (q - q0)^2 per Cartesian component, kJ/mol and nm."""
    force = openmm.CustomExternalForce("0.5*(kx*(x-x0)^2+ky*(y-y0)^2+kz*(z-z0)^2)")
    for name in ("x0", "y0", "z0", "kx", "ky", "kz"):
        force.addPerParticleParameter(name)
    for particle, centre, k in zip(particles, centres, stiffness, strict=True):
        force.addParticle(particle, [*map(float, centre), *map(float, k)])
    return force


def _on_axes(slow: ParticleCoordinates, values: Any) -> FloatArray:
    spread = np.zeros((len(slow.names), 3))
    spread[np.arange(len(slow.names)), slow.components[:, 1]] = values
    return spread
