"""The slow stage of a run: labels learned from frames or draws, with a report, a picture and a torch module."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...coordinates.features import Features, parse_features
from ...coordinates.residues import from_openmm
from ...generator.torsion_windows import wide_torsions
from ...learning.learned_labels import LearnedLabels, LearnedSlow, kept_torsions, learn_slow_coordinates, recovery
from ...learning.plots import plot_slow
from ...learning.spectrum import spectral_gap
from ...lifting.draws import join_draws
from ...lifting.loop import Loop
from ...lifting.projected_labels import structures_to_learn
from ...sampling.frames import load_frames
from ...system.molecular_system import MolecularSystem
from ...units import FloatArray
from ..context import Run
from ..options import RunOptions

MIN_R_SQUARED = 0.9
"""Circular R^2 of the card's torsions below which the learned labels are said to miss something."""

OF_LABELS = ("slow.pt", "slow.png")
"""Files that are copied to the top of the run folder."""

HELD_OUT_EVERY = 10
"""Of the loop's structures one is held out."""


def requested_features(system: MolecularSystem, options: RunOptions) -> tuple[Features, list[str]]:
    """The features and the torsions to keep that options name.

    Raises:
        InputError: the topology has no such features, or the card no such torsions.
    """
    keep = [name for name in options.keep.split(",") if name]
    kept_torsions(system.slow, keep)
    return parse_features(options.features.split(","), from_openmm(system.topology)), keep


def _report(learned: LearnedSlow, r_squared: dict[str, float]) -> dict[str, Any]:
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
        "recovery": r_squared,
    }


def slow_stage(run: Run, out: Path) -> None:
    """Learn the labels from the sampled frames, and report how well they predict the card's on held-out frames."""
    frames, held_out = (load_frames(run.folder.file("sample", f"{name}.npz")) for name in ("frames", "held_out"))
    labels = learn_labels(run, frames.positions, held_out.positions, out)
    if run.options.restrained == "torsions":
        names = wide_torsions(run.system, labels.slow, frames.positions).names
        run.reporter.note(f"restrained during relaxations: {', '.join(names)}")


def slow_stage_of_draws(run: Run, loop: Loop, out: Path) -> None:
    """Learn the labels from what the loop drew so far; the last part of it is held out."""
    assert loop.regression is not None
    coordinates = structures_to_learn(join_draws(loop.drawn), loop.regression, run.seed("slow"))
    positions = loop.coordinates.chart.to_cartesian(coordinates)
    held_out = np.arange(len(positions)) % HELD_OUT_EVERY == 0
    learn_labels(run, positions[~held_out], positions[held_out], out, {"last_round": len(loop.drawn) - 1})


def learn_labels(
    run: Run, positions: FloatArray, held_out: FloatArray, out: Path, record: Mapping[str, Any] | None = None
) -> LearnedLabels:
    """Learn labels from some structures, and report how well they predict the card's on others.

    Args:
        run: the run.
        positions: shape=(n, n_atoms, 3), nm.
        held_out: shape=(m, n_atoms, 3).
        out: folder of the stage.
        record: more to write into ``report.json``.
    """
    system, options = run.system, run.options
    features, keep = requested_features(system, options)
    with run.reporter.step("learning slow coordinates", 1) as done:
        learned = learn_slow_coordinates(
            system,
            positions,
            features=features,
            keep=keep,
            most=options.coordinates,
            seed=run.seed("slow"),
        )
        done(1)
    for line in spectral_gap(learned.fitted, learned.selection).describe().splitlines():
        run.reporter.note(line)
    for doubt in learned.doubts():
        run.reporter.note(f"not to be trusted: {doubt}")
    labels, slow = learned.labels, learned.labels.slow
    r_squared, angles = dict[str, float](), {}
    if np.isfinite(system.slow.periods).all():
        torsions, others = system.slow.transform(positions), system.slow.transform(held_out)
        angles = dict(zip(system.slow.names, torsions.T, strict=True))
        values = recovery(labels.centres, torsions, slow.transform(held_out), others, slow.periods)
        r_squared = {name: float(value) for name, value in zip(system.slow.names, values, strict=True)}
        parts = ", ".join(f"{name} {value:.3f}" for name, value in r_squared.items())
        run.reporter.note(f"labels {', '.join(slow.names)}; they predict (circular R^2, held-out frames): {parts}")
        if min(r_squared.values()) < MIN_R_SQUARED:
            run.reporter.note(
                "the labels do not predict all of the card's torsions: use other `features`, or `keep` one"
            )
    plot_slow(learned.fitted, learned.selection, angles, out / "slow.png")
    labels.save(out / "labels.npz")
    (out / "slow.pt").write_bytes(slow.archive)
    report = {**_report(learned, r_squared), **(record or {})}
    (out / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    return labels
