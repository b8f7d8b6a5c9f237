"""A slow coordinate as a restraint inside OpenMM, with native forces."""

from typing import Any

import numpy as np
import openmm

from .errors import InputError
from .slow import ParticleCoordinates, SlowCoordinates, Torsions
from .units import FloatArray

RESTRAINT_FORMS = {"torsions": "cosine", "particle": "harmonic"}
"""kappa (1 - cos(xi - s)) for torsions, kappa (xi - s)^2 / 2 for particle components."""


def restraint_force(slow: SlowCoordinates, kappa: FloatArray, force_group: int) -> openmm.Force:
    """The restraint U_C as an OpenMM force; its centre is set with `set_restraint_centre`.

    Args:
        slow: the slow coordinates.
        kappa: shape=(d,), kJ/mol (cosine) or kJ/mol/nm^2 (harmonic).
        force_group: the force group to put it in.
    """
    if isinstance(slow, Torsions):
        force = openmm.PeriodicTorsionForce()
        for atoms, k in zip(slow.atoms, kappa, strict=True):
            force.addTorsion(*map(int, atoms), 1, np.pi, float(k))
    elif isinstance(slow, ParticleCoordinates):
        force = harmonic_wells(
            [int(particle) for particle in slow.components[:, 0]],
            np.zeros((len(kappa), 3)),
            _on_axes(slow, kappa),
        )
    else:
        raise InputError(f"slow coordinates of type {type(slow).__name__} have no native restraint")
    force.setForceGroup(force_group)
    return force


def set_restraint_centre(force: openmm.Force, slow: SlowCoordinates, kappa: FloatArray, label: FloatArray) -> None:
    """Move the centre of a restraint; call ``force.updateParametersInContext`` afterwards.

    Args:
        force: what `restraint_force` made.
        slow: the slow coordinates.
        kappa: shape=(d,), as given to `restraint_force`.
        label: shape=(d,), the new centre.
    """
    if isinstance(slow, Torsions):
        for i, (atoms, k, s) in enumerate(zip(slow.atoms, kappa, label, strict=True)):
            force.setTorsionParameters(i, *map(int, atoms), 1, float(s) + np.pi, float(k))
    elif isinstance(slow, ParticleCoordinates):
        centres, stiffness = _on_axes(slow, label), _on_axes(slow, kappa)
        for i, particle in enumerate(slow.components[:, 0]):
            force.setParticleParameters(i, int(particle), [*centres[i], *stiffness[i]])


def restraint_energies(
    slow: SlowCoordinates, kappa: FloatArray, obtained: FloatArray, labels: FloatArray
) -> FloatArray:
    """U_C in kJ/mol of obtained labels under restraints at given labels.

    Args:
        slow: the slow coordinates.
        kappa: shape=(d,).
        obtained: shape=(..., d), xi(x).
        labels: shape=(..., d), restraint centres; broadcast against ``obtained``.

    Returns:
        the broadcast shape without its last axis.
    """
    difference = obtained - labels
    periodic = np.isfinite(slow.periods)
    terms = np.where(periodic, 1.0 - np.cos(difference), 0.5 * difference**2)
    return np.asarray((terms * kappa).sum(axis=-1))


def harmonic_wells(particles: list[int], centres: FloatArray, stiffness: FloatArray) -> openmm.Force:
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
