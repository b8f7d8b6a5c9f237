"""Lifts: the weighted results, in memory and on disk."""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ..coordinates.restraint_energies import restraint_form
from ..coordinates.slow_coordinates import SlowCoordinates
from ..engine.tasks import Workers
from ..errors import InputError
from ..system.molecular_system import MolecularSystem
from ..units import BoolArray, FloatArray, IntArray
from .reweighting import check_same_state, log_changes, overlap_of

Mode = Literal["restrained", "unrestrained", "fixed"]

REASONS = ("ok", "outside", "clash", "constraint", "nan", "state", "failed")
"""Why a lift has the weight it has; every reason but ``ok`` means a weight of zero, counted in the mean."""


def evaluations_of_paths(n: int, relax_steps: int) -> int:
    """Force evaluations of the real potential in n relaxations: one a kick, and one for the energy at an end."""
    return n * (relax_steps + 2)


@dataclass(frozen=True)
class Reweighted:
    """Lifts with the weights of another system.

    Attributes:
        lifts: as if drawn for it; without mean forces, whose noise the generator frees for its own system alone.
        overlap: between 0 and 1: by how much the change of weights divides the number of effective lifts. Of a few per
            cent, a handful of lifts has all the weight, and neither means nor error bars are to be trusted.
    """

    lifts: "Lifts"
    overlap: float


@dataclass(frozen=True)
class Lifts:
    """Weighted lifts (or reverse relaxations) of n labels.

    Attributes:
        labels: shape=(n, d), requested.
        cv_values: shape=(n, d), xi at the real end of the path; NaN where it failed.
        log_weights: shape=(n,), log w; minus infinity where ``reason`` is not ``ok``.
        log_prior: shape=(n,), log p(z | s).
        log_encoder: shape=(n,), log r(z | x, s).
        log_encoder_label: shape=(n,), log r(s | x) - log p(s) of unrestrained lifts, else 0.
        work: shape=(n,), H_1 - H_0 - Q, kJ/mol.
        reason: shape=(n,), one of `openmm_gancl.lifting.lifts.REASONS`.
        task: shape=(n,), the task that made it.
        latents: shape=(n, latent_size).
        positions: shape=(n, n_atoms, 3), nm, the real end of the path.
        energies: shape=(n,), U_A there, without restraint, kJ/mol; NaN where it failed.
        mean_forces: shape=(n, d), slopes of the log target along labels, freed of noise by the generator's map; no
            columns of lifts that moved in a Context.
        evaluations: shape=(n,), of the real potential that each cost.
        slow: the slow coordinates.
        force_constants: shape=(d,), kJ/mol (torsions) or kJ/mol/nm^2; zeros where labels are fixed.
        mode: restrained (the target holds the restraint), unrestrained, or fixed (each lift has exactly its label, and
            ``E[w | s] = exp(-beta F(s))``).
        temperature: K.
        relax_steps: steps of each path, or moves of each lift's base numbers.
        system: what they were drawn for; None of a file.
    """

    labels: FloatArray
    cv_values: FloatArray
    log_weights: FloatArray
    log_prior: FloatArray
    log_encoder: FloatArray
    log_encoder_label: FloatArray
    work: FloatArray
    reason: NDArray[np.str_]
    task: IntArray
    latents: FloatArray
    positions: FloatArray
    energies: FloatArray
    mean_forces: FloatArray
    evaluations: IntArray
    slow: SlowCoordinates
    force_constants: FloatArray
    mode: Mode
    temperature: float
    relax_steps: int
    system: MolecularSystem | None = None

    @classmethod
    def empty(cls, slow: SlowCoordinates, force_constants: FloatArray, temperature: float, relax_steps: int) -> "Lifts":
        """No restrained lifts.

        Args:
            slow: the slow coordinates.
            force_constants: shape=(d,).
            temperature: K.
            relax_steps: steps of each path.
        """
        labels, none = np.empty((0, len(slow.names))), np.empty(0)
        scalars = ("log_weights", "log_prior", "log_encoder", "log_encoder_label", "work", "energies")
        per_lift: dict[str, Any] = {name: none for name in scalars}
        return cls(
            **per_lift,
            labels=labels,
            cv_values=labels,
            reason=np.empty(0, dtype="U10"),
            task=np.empty(0, dtype=np.int64),
            latents=np.empty((0, 0)),
            positions=np.empty((0, 0, 3)),
            mean_forces=np.empty((0, 0)),
            evaluations=np.empty(0, dtype=np.int64),
            slow=slow,
            force_constants=force_constants,
            mode="restrained",
            temperature=temperature,
            relax_steps=relax_steps,
        )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def ok(self) -> BoolArray:
        """shape=(n,), True where the weight is finite."""
        return np.isfinite(self.log_weights)

    @property
    def force_evaluations(self) -> int:
        """Evaluations of the real potential that these lifts cost."""
        return int(self.evaluations.sum())

    def reweight(self, system: MolecularSystem, *, platform: str = "auto", workers: Workers = 1) -> "Reweighted":
        """The same lifts for another temperature or force field, one evaluation each, and how far apart the two are.

        Args:
            system: of the same atoms, labels and constraints. Restraints keep their energies in units of kT.
            platform: an OpenMM platform, or ``auto`` to measure.
            workers: local processes, or an executor.

        Raises:
            InputError: another molecule, or lifts that were read from a file, which has no positions.
        """
        before = self.system
        if before is None or self.positions.shape[1:] != (before.n_atoms, 3):
            raise InputError("these lifts have no positions (a file keeps none): reweight lifts in memory")
        check_same_state(before, system)
        positions = np.where(self.ok[:, None, None], self.positions, np.nan)
        change, energies = log_changes(before, system, positions, self.energies, platform=platform, workers=workers)
        weighs, evaluated = np.isfinite(change), np.isfinite(energies)
        log_weights = np.where(weighs, self.log_weights + np.where(weighs, change, 0.0), -np.inf)
        changed = replace(
            self,
            log_weights=log_weights,
            reason=np.where(self.ok & ~weighs, np.where(evaluated, "nan", "state"), self.reason),
            energies=energies,
            work=np.where(weighs, self.work * system.kT / before.kT - system.kT * change, self.work),
            mean_forces=np.empty((len(self), 0)),
            evaluations=self.evaluations + evaluated,
            force_constants=self.force_constants * system.kT / before.kT,
            temperature=system.temperature,
            system=system,
        )
        return Reweighted(changed, overlap_of(self.log_weights, log_weights))

    def select(self, which: BoolArray | IntArray) -> "Lifts":
        """The lifts of a mask or of indices."""
        chosen: dict[str, Any] = {
            field.name: getattr(self, field.name)[which] for field in fields(self) if field.name in _PER_LIFT
        }
        return replace(self, **chosen)


_PER_LIFT = (
    *("labels", "cv_values", "log_weights", "log_prior", "log_encoder", "log_encoder_label"),
    *("work", "reason", "task", "latents", "positions", "energies", "mean_forces", "evaluations"),
)


def join_lifts(parts: list[Lifts]) -> Lifts:
    """Concatenate lifts of one Lifter; tasks are renumbered so that they stay distinct."""
    offset, tasks = 0, []
    for part in parts:
        tasks.append(part.task + offset)
        offset += int(part.task.max(initial=-1)) + 1
    joined: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _PER_LIFT}
    return replace(parts[0], **{**joined, "task": np.concatenate(tasks)})


def save_lifts(lifts: Lifts, path: Path, **extra: Any) -> None:
    """Write ``lifts.npz`` without the positions (those go to a trajectory next to it).

    Args:
        lifts: what to write.
        path: the file.
        extra: further arrays to store (``accepted`` of a Metropolis chain, say).
    """
    per_lift = {name: getattr(lifts, name) for name in _PER_LIFT if name != "positions"}
    np.savez_compressed(
        path,
        **{**per_lift, "reason": lifts.reason.astype("U10")},
        mode=lifts.mode,
        force_constants=lifts.force_constants,
        restraint_form=restraint_form(lifts.slow),
        temperature=lifts.temperature,
        relax_steps=lifts.relax_steps,
        names=np.array(lifts.slow.names),
        periods=lifts.slow.periods,
        **extra,
    )


def _mode(name: str) -> Mode:
    for mode in get_args(Mode):
        if mode == name:
            return mode
    raise InputError(f"mode is {name!r}: choose {' or '.join(get_args(Mode))}")


def load_lifts(path: Path, slow: SlowCoordinates) -> Lifts:
    """Read what `save_lifts` wrote; positions are NaN of no atoms.

    Args:
        path: the file.
        slow: the slow coordinates that it belongs to.
    """
    with np.load(path, allow_pickle=False) as stored:
        if tuple(stored["names"]) != slow.names:
            raise InputError(f"{path} holds lifts over {', '.join(stored['names'])}, not {', '.join(slow.names)}")
        per_lift = {name: stored[name] for name in _PER_LIFT if name != "positions"}
        return Lifts(
            **per_lift,
            positions=np.empty((len(per_lift["labels"]), 0, 3)),
            slow=slow,
            force_constants=stored["force_constants"],
            mode=_mode(str(stored["mode"])),
            temperature=float(stored["temperature"]),
            relax_steps=int(stored["relax_steps"]),
        )
