"""The sample stage: frames of restrained windows, to train on and to check with."""

from pathlib import Path

from ...sampling.frames import save_frames
from ...system.molecular_system import MolecularSystem
from ..context import Run, restrained_windows


def save_structure(system: MolecularSystem, path: Path) -> None:
    """A PDB file without OpenMM's header: its remark has the date, and lifts are in vacuum, without a box."""
    from openmm.app import PDBFile

    with open(path, "w") as stream:
        PDBFile.writeModel(system.topology, 10.0 * system.positions, stream, keepIds=True)
        PDBFile.writeFooter(system.topology, stream)


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
    save_structure(run.system, out / "top.pdb")
