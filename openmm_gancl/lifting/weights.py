"""The weight of a lift: its work, why it has none, and the Metropolis choice by weights."""

import numpy as np
from numpy.typing import NDArray

from ..coordinates.restraint_energies import restraint_energies
from ..errors import checked
from ..free_energy.weight_statistics import checked_log_weights
from ..generator.invertible import InvertibleGenerator
from ..generator.model import LiftingModel
from ..system.constraints import MAX_CONSTRAINT_ERROR
from ..system.molecular_system import MolecularSystem
from ..units import BoolArray, FloatArray, IntArray
from .label_proposals import LabelProposal
from .lifts import Lifts, evaluations_of_paths
from .proposals import Proposals
from .relaxation import CLASH_ENERGY, Relaxed, RelaxTask


def path_work(relaxed: Relaxed, reference_energies: FloatArray, reverse: bool) -> FloatArray:
    """``H_1 - H_0 - Q`` of each forward path, ``H_1 - H_0 + Q`` of each reverse path, kJ/mol, shape=(n,)."""
    change = relaxed.real_energies - reference_energies
    kinetic = relaxed.kinetic_end - relaxed.kinetic_start
    return change - kinetic + relaxed.heat if reverse else change + kinetic - relaxed.heat


def _ends(
    model: LiftingModel | InvertibleGenerator, task: RelaxTask, proposals: Proposals, relaxed: Relaxed
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Positions at both ends, the real and the reference one, and coordinates at the latter."""
    if task.reverse:
        return task.positions, relaxed.positions, model.chart.to_internal(relaxed.positions)
    return relaxed.positions, task.positions, proposals.coordinates


def _log_latents(
    model: LiftingModel | InvertibleGenerator, proposals: Proposals, real_end: FloatArray, reverse: bool
) -> tuple[FloatArray, FloatArray]:
    """log p(z | s) and log r(z | x, s), shape=(n,) each; zero where there are no latents."""
    if isinstance(model, InvertibleGenerator):
        none = np.zeros(len(proposals.labels))
        return none, none
    log_prior = model.log_prior(proposals.latents, proposals.labels)
    if reverse:
        return log_prior, proposals.log_encoder
    at_the_end = model.chart.to_internal(real_end)
    return log_prior, model.log_encoder(proposals.latents, at_the_end, proposals.labels)


def weigh(
    model: LiftingModel | InvertibleGenerator,
    system: MolecularSystem,
    task: RelaxTask,
    proposals: Proposals,
    relaxed: Relaxed,
    label_proposal: LabelProposal | None,
) -> Lifts:
    """Turn the paths of one task into lifts with their exact log-weights (task number 0).

    Args:
        model: of the proposals.
        system: the real system, with its declared state.
        task: what was run.
        proposals: what it was run from.
        relaxed: what it brought back.
        label_proposal: p(s) of unrestrained lifts; None for restrained ones.
    """
    kT, labels, reference = system.kT, proposals.labels, task.reference
    with np.errstate(all="ignore"):
        real_end, start, reference_end = _ends(model, task, proposals, relaxed)
        cv_values = system.slow.transform(real_end)
        work = path_work(relaxed, reference.energies(reference_end, proposals.parameters), task.reverse)
        restraint = restraint_energies(system.slow, task.force_constants, cv_values, labels)
        work = work if label_proposal is None else work - restraint
        log_prior, log_encoder = _log_latents(model, proposals, real_end, task.reverse)
        log_encoder_label = label_proposal.log_ratio(labels, cv_values) if label_proposal else np.zeros(len(labels))
        log_weights = (
            -work / kT
            + reference.log_volume(reference_end, proposals.parameters)
            + system.constraints.log_fixman(start, system.masses)
            + log_encoder
            - log_prior
            + log_encoder_label
        )
        broken = system.constraints.violations(relaxed.positions) > MAX_CONSTRAINT_ERROR
        reason = _reasons(task, relaxed, work, broken, system.state.inside(real_end), log_weights)
    return Lifts(
        labels=labels,
        cv_values=cv_values,
        log_weights=np.where(reason == "ok", log_weights, -np.inf),
        log_prior=log_prior,
        log_encoder=log_encoder,
        log_encoder_label=log_encoder_label,
        work=work,
        reason=reason,
        task=np.zeros(len(labels), dtype=np.int64),
        latents=proposals.latents,
        positions=real_end,
        energies=np.where(reason == "ok", relaxed.real_energies - restraint, np.nan),
        mean_forces=np.empty((len(labels), 0)),
        evaluations=np.where(reason == "outside", 0, evaluations_of_paths(1, task.protocol.relax_steps)),
        slow=system.slow,
        force_constants=task.force_constants,
        mode="restrained" if label_proposal is None else "unrestrained",
        temperature=system.temperature,
        relax_steps=task.protocol.relax_steps,
        system=system,
    )


def _reasons(
    task: RelaxTask,
    relaxed: Relaxed,
    work: FloatArray,
    broken: BoolArray,
    inside_state: BoolArray,
    log_weights: FloatArray,
) -> NDArray[np.str_]:
    sizes = np.abs([relaxed.heat, relaxed.real_energies, relaxed.kinetic_start, relaxed.kinetic_end, work])
    finite = np.isfinite(sizes).all(axis=0) & np.isfinite(relaxed.positions).all(axis=(1, 2))
    checks = [
        (~task.runnable, "outside"),
        (relaxed.failed, "failed"),
        (~finite, "nan"),
        (broken, "constraint"),
        (sizes.max(axis=0) > CLASH_ENERGY, "clash"),
        (~inside_state, "state"),
        (np.isnan(log_weights) | (log_weights == np.inf), "nan"),
        (log_weights == -np.inf, "outside"),
    ]
    return np.select([mask for mask, _ in checks], [name for _, name in checks], default="ok")


def accepts(after: float, before: float | None, rng: np.random.Generator) -> bool:
    """min(1, w'/w), compared as logarithms.

    Where the reverse relaxation has no weight there is none from there either: the configuration stays.

    Args:
        after: log w' of the proposal.
        before: log w of a chain's configuration; None of a chain that has none yet: then any weight will do.
        rng: draws one number, whatever the weights.
    """
    log_u = float(np.log(rng.random()))
    if not np.isfinite(after):
        return False
    return before is None or bool(np.isfinite(before) and log_u < after - before)


@checked
def accept_metropolis(log_weights: FloatArray, rng: np.random.Generator) -> tuple[IntArray, BoolArray]:
    """Independence Metropolis chain over lifts: exact, with the state carrying its weight.

    Restrained lifts: run one chain a label (particle independent Metropolis-Hastings, Andrieu, Doucet, Holenstein
    2010, doi 10.1111/j.1467-9868.2009.00736.x).

    Args:
        log_weights: shape=(n,), in the order of the proposals.
        rng: the generator.

    Returns:
        states, shape=(n,): the lift that the chain is at after each proposal (-1 before the first finite weight);
        accepted, shape=(n,): whether the proposal was taken.
    """
    log_weights = checked_log_weights(log_weights)
    states = np.empty(len(log_weights), dtype=np.int64)
    accepted = np.zeros(len(log_weights), dtype=bool)
    current = -1
    for i, log_weight in enumerate(log_weights):
        accepted[i] = accepts(log_weight, None if current < 0 else log_weights[current], rng)
        states[i] = current = i if accepted[i] else current
    return states, accepted
