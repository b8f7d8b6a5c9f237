"""A finished run's surface at half its time step, made anew with other random numbers, and the difference."""

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from ..engine.tasks import Workers
from ..errors import InputError
from ..files import write_atomically
from ..free_energy.surface import ALIGNMENT_CEILING, FreeEnergySurface, load_surface
from ..units import thermal_energy
from .context import Reporter
from .folder import RunFolder
from .run import HalfTimeStep, options_of, run, target_of

FOLDER, RECORD = "half_time_step", "time_step.json"

MOST_TIMES_EXPECTED = 2.5
"""Of the difference over what the error bars of both surfaces let expect; bins of one surface err together."""


@dataclass(frozen=True)
class TimeStepCheck:
    """Two surfaces of one system, each below 10 kT of the first, their means aligned.

    Attributes:
        time_step: of the run, ps; the other's is half of it.
        difference: root mean square, kT.
        expected: root mean square by the error bars of both, kT.
        largest: kT.
    """

    time_step: float
    difference: float
    expected: float
    largest: float

    @property
    def doubt(self) -> str | None:
        """A sentence, where the time step matters."""
        if self.difference <= MOST_TIMES_EXPECTED * self.expected:
            return None
        return (
            f"at half the time step the surface is another one ({self.difference:.2f} kT, {self.expected:.2f} expected "
            "of the error bars): begin a run with a shorter 'time_step' in the card"
        )

    def text(self) -> str:
        """A line for people."""
        return (
            f"surface at {self.time_step:g} and {self.time_step / 2:g} ps: root-mean-square difference "
            f"{self.difference:.3f} kT, {self.expected:.3f} expected of the error bars, {self.largest:.2f} at most"
        )


def compared(surface: FreeEnergySurface, other: FreeEnergySurface, time_step: float) -> TimeStepCheck:
    """The difference of two surfaces over the same bins.

    Args:
        surface: at the time step.
        other: at half of it.
        time_step: ps.

    Raises:
        InputError: they have no bins in common.
    """
    kT = thermal_energy(surface.temperature)
    common = (surface.energy < ALIGNMENT_CEILING * kT) & np.isfinite(other.energy) & np.isfinite(other.error)
    common &= np.isfinite(surface.error)
    if not common.any():
        raise InputError("the surface at half the time step has no bins in common with the run's: lift more")
    difference = (other.energy - surface.energy)[common] / kT
    difference -= difference.mean()
    errors = np.hypot(surface.error, other.error)[common] / kT
    return TimeStepCheck(
        time_step=time_step,
        difference=float(np.sqrt(np.mean(difference**2))),
        expected=float(np.sqrt(np.mean(errors**2))),
        largest=float(np.abs(difference).max()),
    )


def check_time_step(
    path: str | os.PathLike[str],
    *,
    reporter: Reporter,
    workers: Workers | None = None,
    trust_force_field: bool = False,
) -> TimeStepCheck:
    """Make a finished run's surface at half its time step, in a run folder inside its own, and compare.

    What it costs is counted in that folder's manifest, not in the run's. Interrupted and called again it goes on.

    Args:
        path: the run folder.
        reporter: of progress and notes.
        workers: local processes, or an executor.
        trust_force_field: see `load_system`.

    Raises:
        InputError: the run is not finished.
    """
    folder = RunFolder.load(Path(path))
    if not folder.is_done("surface"):
        raise InputError(f"{path} is not finished: go on with `gancl lift {path}` first")
    begun = options_of(folder)
    # other random numbers: errors of one kind would cancel
    options = replace(begun, seed=begun.seed + 1, platform=folder.manifest["platform"])
    half = folder.path / FOLDER
    target = HalfTimeStep(target_of(folder))
    run(half, target, options, reporter=reporter, workers=workers, trust_force_field=trust_force_field)
    found = compared(
        load_surface(folder.file("surface", "fes.npz")),
        load_surface(half / "fes.npz"),
        float(folder.manifest["system"]["card"]["time_step"]),
    )
    write_atomically(half / RECORD, json.dumps({**asdict(found), "doubt": found.doubt}, indent=1) + "\n")
    return found
