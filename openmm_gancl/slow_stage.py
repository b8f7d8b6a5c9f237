"""The slow stage of a run: labels learned from the sampled frames, with a report, a picture and a torch module."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from .errors import InputError
from .features import parse_features
from .sampling import load_frames
from .slow_learning import LearnedSlow, learn_slow_coordinates, recovery
from .stages import Run

LEAST_RECOVERY = 0.9
"""Circular R^2 of the card's torsions below which the learned labels are said to miss something."""


def _report(learned: LearnedSlow, told: dict[str, float]) -> dict[str, Any]:
    fitted = learned.fitted
    return {
        "names": list(learned.labels.slow.names),
        "features": learned.features.describe(),
        "bandwidth": fitted.bandwidth_,
        "dimension": fitted.dimension_,
        "eigenvalues": fitted.eigenvalues_.tolist(),
        "rates": fitted.rates_.tolist(),
        "scores": learned.selection.scores.tolist(),
        "chosen": learned.chosen.tolist(),
        "recovery": told,
    }


def slow_stage(run: Run, out: Path) -> None:
    """Learn the labels from the sampled frames, and say how well they tell the card's on held-out frames."""
    import mdtraj

    system, options = run.system, run.options
    frames, held_out = (load_frames(run.folder.file("sample", f"{name}.npz")) for name in ("frames", "held_out"))
    topology = mdtraj.Topology.from_openmm(system.topology)
    with run.reporter.step("learning slow coordinates", 1) as done:
        learned = learn_slow_coordinates(
            system,
            frames.positions,
            features=parse_features(options.features.split(","), topology),
            keep=[name for name in options.keep.split(",") if name],
            most=options.coordinates,
            seed=run.seed(3, 0),
        )
        done(1)
    labels, slow = learned.labels, learned.labels.slow
    told = {}
    if np.isfinite(system.slow.periods).all():
        r_squared = recovery(
            labels.centres, frames.obtained, slow.transform(held_out.positions), held_out.obtained, slow.periods
        )
        told = {name: float(value) for name, value in zip(system.slow.names, r_squared, strict=True)}
        parts = ", ".join(f"{name} {value:.3f}" for name, value in told.items())
        run.reporter.note(f"labels {', '.join(slow.names)}; they tell (circular R^2, held-out frames): {parts}")
        if min(told.values()) < LEAST_RECOVERY:
            run.reporter.note("the labels do not tell all of the card's torsions: use other --features, or --keep one")
    labels.save(out / "labels.npz")
    (out / "slow.pt").write_bytes(slow.archive)
    (out / "report.json").write_text(json.dumps(_report(learned, told), indent=1) + "\n")
