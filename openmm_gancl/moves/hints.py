"""Why lifts are hardly ever accepted, and what to change."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..system.state import other_isomers
from ..units import FloatArray
from .exchange import NO_PROPOSAL_THERE
from .records import LiftRecord
from .relaxed_lifts import RELAXED

FEWEST, NEAR_ZERO = 64, 0.015
"""Attempts from which acceptance is judged, and a rate that is near zero: of 64 none, or one in a hundred."""

OF_CONFIGURATIONS = {
    NO_PROPOSAL_THERE: "p(s) is zero at its label: leave label_proposal out, or give it a uniform share",
    "outside": "it is outside the domain of the labels, or the model's coordinates: give a model of labels that reach "
    "there",
    "state": "it is outside the state that the model is of (another chirality, a cis bond)",
}


def other_isomer(topology: Any, drawn: FloatArray, here: FloatArray) -> str | None:
    """In what a configuration is another isomer than a model draws, in a sentence; None where it is the same.

    Args:
        topology: ``openmm.app.Topology`` with bonds.
        drawn: shape=(n_atoms, 3), nm, by the model.
        here: shape=(n_atoms, 3), nm.
    """
    for what in other_isomers(topology, here, drawn[None]):
        return f"{what} of the Simulation is the other way around than the model draws it: give a model of this isomer"
    return None


def why_hardly_accepted(
    history: Sequence[LiftRecord], has_surface: bool, by_pilot: bool, isomer: Callable[[], str | None]
) -> str | None:
    """Why the last lifts were hardly accepted, and what to change, in a sentence; None where they were.

    Args:
        history: of a move.
        has_surface: whether labels are drawn by a surface, or any other p(s) of the user's.
        by_pilot: whether a pilot has chosen the moves.
        isomer: what `other_isomer` says.
    """
    last = history[-max(FEWEST, len(history) // 2) :]
    n, accepted = len(last), sum(record.accepted for record in last)
    if n < FEWEST or accepted > NEAR_ZERO * n:
        return None
    begin = f"{accepted} of the last {n} lifts were accepted: "
    if other := isomer():
        return begin + other
    reason, count = Counter(record.reason_before for record in last if record.reason_before).most_common(1)[0]
    if reason != "ok" and count > n / 2:
        why = OF_CONFIGURATIONS.get(reason, "its energy is not finite, or too high, for a way back")
        return f"{begin}the configuration had no weight {count} times ({reason}), and nothing leads away from it; {why}"
    failed = Counter(record.reason for record in last if record.reason != "ok")
    if sum(failed.values()) > n / 2:
        reason = failed.most_common(1)[0][0]
        return (
            f"{begin}{sum(failed.values())} had no weight (mostly: {reason}), so the model hardly fits this "
            "Simulation: train it for this force field, or for more evaluations"
        )
    gaps = np.array([record.log_weight_before - record.log_weight for record in last])
    gap = float(np.median(gaps[np.isfinite(gaps)])) if np.isfinite(gaps).any() else float("nan")
    relaxed = last[-1].move == RELAXED
    remedies = [] if has_surface else ["give surface= of the run, for labels are drawn evenly over their whole domain"]
    if relaxed:
        remedies += ["raise relax_steps", "call move.refresh() where a bias has changed"]
    elif not by_pilot:
        remedies += ["give moves='auto'"]
    remedies += ["train for this force field and bias, or for more evaluations"]
    return (
        f"{begin}in the median they weigh exp(-{gap:.0f}) of the configuration that they would replace; "
        + ", or ".join(remedies)
    )
