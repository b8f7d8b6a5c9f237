"""Observables: numbers of a configuration. Any function of positions is one; these make some."""

from collections.abc import Callable
from typing import Any

import numpy as np
import openmm

from ..coordinates.slow_coordinates import SlowCoordinates, slow_as_module
from ..engine.serialization import deserialized, serialized
from ..errors import InputError, checked
from ..lifting.evaluation import evaluate
from ..system.molecular_system import MolecularSystem
from ..units import FloatArray, numbers
from .ensemble import Ensemble

Observable = Callable[[FloatArray], Any]
"""Takes positions, shape=(n, n_atoms, 3) in nm, and gives an array of shape (n,) or (n, m)."""

FRAMES_AT_ONCE = 5000


@checked
def of_trajectory(system: MolecularSystem, function: Callable[[Any], Any]) -> Observable:
    """An observable by a function of an ``mdtraj.Trajectory``, as ``mdtraj.compute_rg``.

    Args:
        system: whose topology the trajectory has.
        function: gives an array of shape (n_frames,) or (n_frames, m).
    """
    import mdtraj

    topology = mdtraj.Topology.from_openmm(system.topology)
    return lambda positions: function(mdtraj.Trajectory(positions, topology))


@checked
def group_energy(system: MolecularSystem, group: int, platform: str = "Reference") -> Observable:
    """The energy of the forces of one force group, kJ/mol.

    Args:
        system: whose ``openmm.System`` has the groups.
        group: from 0 to 31.
        platform: an OpenMM platform.

    Raises:
        InputError: no force is in it, or the reciprocal part of a NonbondedForce is in another group than the rest.
    """
    for force in system.system.getForces():
        own = force.getForceGroup()
        other = force.getReciprocalSpaceForceGroup() if isinstance(force, openmm.NonbondedForce) else -1
        if other not in (-1, own):
            raise InputError(
                f"the reciprocal part of the NonbondedForce is in group {other}, the rest in {own}: put both into one, "
                "as by setReciprocalSpaceForceGroup(-1)"
            )
    groups = sorted({force.getForceGroup() for force in system.system.getForces()})
    if group not in groups:
        raise InputError(f"no force is in group {group}: the System has {', '.join(map(str, groups))}")
    alone = deserialized(serialized(system.system))
    for i in reversed(range(alone.getNumForces())):
        if alone.getForce(i).getForceGroup() != group:
            alone.removeForce(i)
    xml = serialized(alone)
    return lambda positions: evaluate(xml, positions, platform, with_forces=False)[0]


@checked
def potential_energy(system: MolecularSystem, platform: str = "Reference") -> Observable:
    """The energy of all forces, kJ/mol.

    Args:
        system: the system.
        platform: an OpenMM platform.
    """
    xml = serialized(system.system)
    return lambda positions: evaluate(xml, positions, platform, with_forces=False)[0]


def forces_of(system: MolecularSystem, positions: FloatArray, platform: str = "Reference") -> FloatArray:
    """Forces of the whole potential, shape=(n, n_atoms, 3), kJ/mol/nm."""
    return evaluate(serialized(system.system), positions, platform)[1]


@checked
def projected_force(
    system: MolecularSystem, slow: SlowCoordinates | None = None, platform: str = "Reference"
) -> Observable:
    """The force along slow coordinates, ``f . v``, shape=(n, d), kJ/mol over the coordinate's unit.

    ``v = G^-1 grad xi``, ``G = grad xi . grad xi^T``, moves each coordinate at unit rate and no other. Its average is
    not the mean force yet: that has the metric term `metric_term` too.

    Args:
        system: of the forces.
        slow: the coordinates; the system's own by default.
        platform: an OpenMM platform.

    Raises:
        InputError: the System has constraints, against which v would move.
    """
    if len(system.constraints):
        raise InputError(
            "the System has constraints, for which this mean force is not written: give a system without, or lifts of "
            "an invertible generator, which have slopes"
        )
    coordinates = system.slow if slow is None else slow

    def observable(positions: FloatArray) -> FloatArray:
        directions = inverse_gradients(coordinates, positions, divergence=False)[0]
        forces = forces_of(system, positions, platform).reshape(len(positions), -1)
        return np.asarray(np.einsum("nda,na->nd", directions, forces))

    return observable


@checked
def metric_term(system: MolecularSystem, slow: SlowCoordinates | None = None) -> Observable:
    """``kT div v``, shape=(n, d), kJ/mol over the coordinate's unit: what the volume at a label adds to its mean force.

    ``-F'(s) = <f . v + kT div v>`` given s (den Otter 2000, doi 10.1063/1.481329; Ciccotti, Kapral,
    Vanden-Eijnden 2005, doi 10.1002/cphc.200400669).

    Args:
        system: of the temperature.
        slow: the coordinates; the system's own by default.
    """
    coordinates = system.slow if slow is None else slow
    return lambda positions: system.kT * inverse_gradients(coordinates, positions)[1]


def inverse_gradients(
    slow: SlowCoordinates, positions: FloatArray, divergence: bool = True
) -> tuple[FloatArray, FloatArray]:
    """``v = G^-1 grad xi`` of each coordinate and its divergence.

    Args:
        slow: the coordinates.
        positions: shape=(n, n_atoms, 3), nm.
        divergence: whether it is wanted; zeros otherwise.

    Returns:
        v, shape=(n, d, 3 n_atoms); div v, shape=(n, d), by automatic differentiation.
    """
    import torch

    module, parts = slow_as_module(slow).module, []
    moving = _moving_components(slow, positions)
    for begin in range(0, len(positions), FRAMES_AT_ONCE):
        some = torch.tensor(positions[begin : begin + FRAMES_AT_ONCE])
        flat = some.reshape(len(some), -1).requires_grad_()
        values = module(flat.reshape(some.shape))
        gradients = [torch.autograd.grad(column.sum(), flat, create_graph=True)[0] for column in values.unbind(1)]
        gradient = torch.stack(gradients, dim=1)
        directions = torch.linalg.solve(gradient @ gradient.transpose(1, 2), gradient)
        found = torch.zeros(values.shape, dtype=values.dtype)
        if divergence and directions.requires_grad:
            for i in range(values.shape[1]):
                for a in moving:
                    (slope,) = torch.autograd.grad(
                        directions[:, i, a].sum(), flat, retain_graph=True, allow_unused=True
                    )
                    found[:, i] += 0.0 if slope is None else slope[:, a]
        parts.append((directions.detach().numpy(), found.detach().numpy()))
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


def _moving_components(slow: SlowCoordinates, positions: FloatArray) -> list[int]:
    """Cartesian components that the coordinates depend on at all."""
    atoms = getattr(slow, "atoms", None)
    if atoms is None and hasattr(slow, "components"):
        return [int(3 * particle + axis) for particle, axis in slow.components]
    indices = np.arange(positions.shape[1]) if atoms is None else np.unique(atoms)
    return [int(3 * atom + axis) for atom in indices for axis in range(3)]


def observe(ensemble: Ensemble, observable: Observable) -> FloatArray:
    """Values of an observable at all configurations with a weight, shape=(n, m); zero at the others.

    Args:
        ensemble: the configurations.
        observable: a function of positions.

    Raises:
        InputError: it returns another shape, or NaN.
    """
    ok = ensemble.ok
    n = int(ok.sum())
    found = numbers(observable(ensemble.positions[ok]))
    if found.ndim not in (1, 2) or len(found) != n or (found.ndim == 2 and not found.shape[1]):
        raise InputError(
            f"the observable returns an array of shape {found.shape} for {n} configurations: let it return ({n},) or "
            f"({n}, m)"
        )
    found = found.reshape(n, -1)
    if (bad := ~np.isfinite(found).all(axis=1)).any():
        raise InputError(
            f"the observable is NaN or infinite at {bad.sum()} of {n} configurations, the first of them number "
            f"{np.flatnonzero(ok)[np.argmax(bad)]}: let it return a number for each, or leave those out"
        )
    values = np.zeros((len(ensemble), found.shape[1]))
    values[ok] = found
    return values
