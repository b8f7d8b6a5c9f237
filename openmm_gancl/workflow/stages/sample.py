"""The sample stage: frames of restrained windows, to train on and to check with."""

from pathlib import Path

from ...errors import InputError
from ...sampling.frames import Frames, save_frames
from ...system.molecular_system import MolecularSystem
from ..context import Run, restrained_windows

MOST_LOST = 0.01
"""Frames that may be NaN, of all."""


def save_structure(system: MolecularSystem, path: Path) -> None:
    """A PDB file without OpenMM's header: its remark has the date, and lifts are in vacuum, without a box."""
    from openmm.app import PDBFile

    with open(path, "w") as stream:
        PDBFile.writeModel(system.topology, 10.0 * system.positions, stream, keepIds=True)
        PDBFile.writeFooter(system.topology, stream)


def _check_finite(system: MolecularSystem, frames: Frames) -> None:
    """See that windows did not blow up, whose frames would be missing where the potential is steep.

    Raises:
        InputError: more than a few did.
    """
    n, lost = len(frames) + sum(frames.dropped.values()), frames.dropped.get("nan", 0)
    if lost > MOST_LOST * n:
        constants = ", ".join(f"{k:g}" for k in system.force_constants)
        raise InputError(
            f"{lost} of {n} frames of restrained windows are NaN, so that steep places would be missing: the time step "
            f"({system.time_step:g} ps) is too long, or the force constants ({constants}) are too large; halve the "
            "first, or quarter the others"
        )


def sample_stage(run: Run, out: Path) -> None:
    """Restrained windows: frames to train on, and others to check with."""
    s = run.settings
    frames = restrained_windows(
        run, "sampling", run.system, s.n_windows, s.steps_per_window, s.frames_per_window, run.seed("sample", "frames")
    )
    held_out = restrained_windows(
        run,
        "sampling for the check",
        run.system,
        s.n_held_out,
        s.held_out_steps,
        s.n_check_frames,
        run.seed("sample", "held out"),
    )
    for name, part in (("frames", frames), ("held_out", held_out)):
        save_frames(part, out / f"{name}.npz")
        if part.dropped:
            dropped = ", ".join(f"{count} {reason}" for reason, count in part.dropped.items())
            run.reporter.note(f"dropped {dropped} of {len(part) + sum(part.dropped.values())} frames ({name})")
        _check_finite(run.system, part)
    save_structure(run.system, out / "top.pdb")
