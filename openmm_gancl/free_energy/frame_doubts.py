"""What the frames of windows, and the System that they were sampled in, say against a surface from them."""

import numpy as np
import openmm

from ..coordinates.slow_coordinates import Torsions
from ..sampling.frames import Frames
from ..system.molecular_system import MolecularSystem


def _blown_up(frames: Frames) -> list[str]:
    if not (n := frames.dropped.get("nan", 0)):
        return []
    return [
        f"{n} frames are NaN: the dynamics of a window blew up, and what it visited before may be too hot: sample the "
        "windows anew, with a shorter time step"
    ]


def _bias(system: MolecularSystem) -> list[str]:
    """The table of collective variables that Metadynamics adds."""
    forces = [force for force in system.system.getForces() if isinstance(force, openmm.CustomCVForce)]
    if not any(force.getEnergyFunction().startswith("table(") for force in forces):
        return []
    return [
        "the System has the bias of Metadynamics (a CustomCVForce of a table), and the surface is that of the biased "
        "potential: take the force out of the System before windows are sampled"
    ]


def _other_isomers(system: MolecularSystem, frames: Frames) -> list[str]:
    """Windows that end as another isomer than the system's structure is, to which no window's dynamics would turn."""
    if frames.positions.shape[1] != system.n_atoms:
        return []
    windows, last = np.unique(frames.window[::-1], return_index=True)
    for what, others in system.other_isomers(frames.positions[::-1][last]).items():
        return [
            f"{others.sum()} windows end as another isomer than the structure ({what} is the other way around; window "
            f"{windows[others][0]} is the first): start all from one isomer, or pull more slowly"
        ]
    return []


def frame_notes(system: MolecularSystem) -> tuple[str, ...]:
    """That a force acts on the labels alone, as a restraint or a bias of the user's own does."""
    if not isinstance(system.slow, Torsions):
        return ()
    labels = {tuple(row) for atoms in (system.slow.atoms, system.slow.atoms[:, ::-1]) for row in atoms.tolist()}
    forces = [force for force in system.system.getForces() if isinstance(force, openmm.CustomTorsionForce)]
    rows = [{tuple(force.getTorsionParameters(i)[:4]) for i in range(force.getNumTorsions())} for force in forces]
    if not any(row and row <= labels for row in rows):
        return ()
    return (
        "the System has a CustomTorsionForce of the labels alone (a restraint or bias of your own?), and the surface "
        "is that with it",
    )


def frame_doubts(system: MolecularSystem, frames: Frames) -> tuple[str, ...]:
    """Why a surface from windows may be wrong by more than their error bars say, one sentence each."""
    return (*_blown_up(frames), *_bias(system), *_other_isomers(system, frames))
