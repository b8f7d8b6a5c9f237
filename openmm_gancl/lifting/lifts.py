"""Lifts: the weighted results, in memory and on disk."""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..coordinates.restraint_energies import restraint_form
from ..coordinates.slow_coordinates import SlowCoordinates
from ..errors import InputError
from ..units import BoolArray, FloatArray, IntArray

Mode = Literal["restrained", "unrestrained"]

REASONS = ("ok", "outside", "clash", "constraint", "nan", "state", "failed")
"""Why a lift has the weight it has; every reason but ``ok`` means a weight of zero, counted in the mean."""


def evaluations_of_paths(n: int, relax_steps: int) -> int:
    """Force evaluations of the real potential in n relaxations: one a kick, and one for the energy at an end."""
    return n * (relax_steps + 2)


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
        slow: the slow coordinates.
        force_constants: shape=(d,), kJ/mol (torsions) or kJ/mol/nm^2.
        mode: restrained (the target holds the restraint) or unrestrained.
        temperature: K.
        relax_steps: steps of each path.
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
    slow: SlowCoordinates
    force_constants: FloatArray
    mode: Mode
    temperature: float
    relax_steps: int

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
        per_lift = {name: none for name in ("log_weights", "log_prior", "log_encoder", "log_encoder_label", "work")}
        return cls(
            **per_lift,
            labels=labels,
            cv_values=labels,
            reason=np.empty(0, dtype="U10"),
            task=np.empty(0, dtype=np.int64),
            latents=np.empty((0, 0)),
            positions=np.empty((0, 0, 3)),
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
        """Evaluations of the real potential that these paths cost."""
        return evaluations_of_paths(int((self.reason != "outside").sum()), self.relax_steps)

    def select(self, which: BoolArray | IntArray) -> "Lifts":
        """The lifts of a mask or of indices."""
        chosen: dict[str, Any] = {
            field.name: getattr(self, field.name)[which] for field in fields(self) if field.name in _PER_LIFT
        }
        return replace(self, **chosen)


_PER_LIFT = (
    *("labels", "cv_values", "log_weights", "log_prior", "log_encoder", "log_encoder_label"),
    *("work", "reason", "task", "latents", "positions"),
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
            mode="restrained" if str(stored["mode"]) == "restrained" else "unrestrained",
            temperature=float(stored["temperature"]),
            relax_steps=int(stored["relax_steps"]),
        )
