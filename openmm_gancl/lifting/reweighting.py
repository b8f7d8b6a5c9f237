"""Lifts of one potential as lifts of another: a temperature or a force field of its own, one evaluation a lift."""

from dataclasses import replace

import numpy as np
from scipy.special import logsumexp

from ..coordinates.slow_coordinates import SlowCoordinates
from ..engine.platforms import resolved_platform
from ..engine.serialization import serialized
from ..engine.tasks import Workers
from ..errors import InputError
from ..generator.trained_for import atom_names
from ..reference.chart import Chart
from ..system.constraints import Constraints
from ..system.molecular_system import MolecularSystem
from ..units import FloatArray
from .draws import Draws, log_targets
from .evaluation import evaluate

NO_WEIGHT = 30.0
"""Of a logarithm below the largest one."""


def log_changes(
    before: MolecularSystem,
    after: MolecularSystem,
    positions: FloatArray,
    energies: FloatArray,
    *,
    platform: str,
    workers: Workers,
) -> tuple[FloatArray, FloatArray]:
    """What lifts' log-weights gain in another system, and their energies there, kJ/mol; shape=(n,) each.

    Args:
        before: what the lifts were drawn for.
        after: the other system.
        positions: shape=(n, n_atoms, 3), nm; what is not finite, or outside the declared state, gains nothing known.
        energies: shape=(n,), before, kJ/mol.
        platform: an OpenMM platform, or ``auto`` to measure.
        workers: local processes, or an executor.
    """
    finite = np.isfinite(positions).all(axis=(1, 2))
    inside = np.zeros(len(positions), dtype=bool)
    inside[finite] = after.state.inside(positions[finite])
    xml = serialized(after.system)
    chosen = resolved_platform(platform, after.system, after.positions)
    found = np.full(len(positions), np.nan)
    places = positions[inside]
    found[inside], _ = evaluate(xml, places, chosen, with_forces=False, workers=workers)
    change = energies / before.kT - found / after.kT
    # constraints are the same, the masses in their volume may differ
    change[inside] += after.constraints.log_fixman(places, after.masses)
    change[inside] -= before.constraints.log_fixman(places, before.masses)
    return change, found


def overlap_of(before: FloatArray, after: FloatArray) -> float:
    """``(sum w r)^2 / (sum w sum w r^2)`` of the ratios r of new to old weights w, both given as logarithms.

    Among those that had a weight, and times the share of the new weights that these have.
    """
    # those that had no weight, as clashes have, may gain most and are no part of what was sampled
    had = np.isfinite(after) & (before > before.max() - NO_WEIGHT)
    if not had.any():
        return 0.0
    share = np.exp(logsumexp(after[had]) - logsumexp(after))
    of_squares = logsumexp(before) + logsumexp(2 * after[had] - before[had])
    return float(share * np.exp(2 * logsumexp(after[had]) - of_squares))


def reweight_draws(draws: Draws, chart: Chart, system: MolecularSystem, *, platform: str, workers: Workers) -> Draws:
    """Draws for another system, with its gradients; those that had no weight have none.

    Args:
        draws: of a system of the same atoms and constraints.
        chart: of their coordinates.
        system: the other one.
        platform: an OpenMM platform.
        workers: local processes, or an executor.
    """
    ok = np.isfinite(draws.log_weights)
    target, gradients, reason = log_targets(system, chart, np.asarray(draws.coordinates), ok, platform, workers)
    return replace(
        draws,
        log_target=target,
        gradients=gradients,
        reason=np.where(ok, reason, draws.reason),
        evaluations=draws.evaluations + ok,
    )


def check_same_state(before: MolecularSystem, after: MolecularSystem) -> None:
    """Raise an `InputError` where a system has other atoms, labels, constraints, chirality or peptide bonds.

    Args:
        before: what lifts were drawn for.
        after: the other system.
    """
    check_same_molecule(atom_names(before.topology), before.slow, before.constraints, after)
    for name in ("chiral_centres", "chirality", "trans_peptides"):
        if not np.array_equal(getattr(before.state, name), getattr(after.state, name)):
            raise InputError(f"{after.name} has another declared state than {before.name}: give one with the same")


def check_same_molecule(
    names: list[str], slow: SlowCoordinates, constraints: Constraints, after: MolecularSystem
) -> None:
    """Raise an `InputError` where a system differs in more than its energies.

    Args:
        names: of the atoms before.
        slow: the labels before.
        constraints: before.
        after: the other system.
    """
    if names != atom_names(after.topology):
        raise InputError(f"{after.name} has other atoms than the lifts: give a system of the same molecule")
    if slow.describe() != after.slow.describe():
        raise InputError(f"{after.name} has other labels than the lifts: give a system with the same")
    if constraints != after.constraints:
        raise InputError(f"{after.name} has other constraints than the lifts, which keep those that they have")
