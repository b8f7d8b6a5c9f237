"""From a Simulation to a move in one call: what `gancl run` does, on what the Simulation samples."""

import os
import shutil
import tempfile
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..coordinates.slow_coordinates import ModuleCoordinates, SlowCoordinates, Torsions
from ..coordinates.torsion_labels import Label, torsions_from_labels
from ..engine.platform_rng import preserve_platform_rng
from ..engine.random_numbers import named_rng
from ..errors import InputError, checked
from ..files import load_arrays
from ..free_energy.surface import load_surface_over
from ..generator.model import load_model
from ..lifting.label_proposals import KernelProposal
from ..lifting.requirements import check_exact, check_simulation
from ..reference.chart import chart_for
from ..system.bonds import count_molecules, molecule_with
from ..system.simulation_card import SimulationCard, card_of_simulation
from ..units import FloatArray, whole_number
from ..workflow.folder import RunFolder
from ..workflow.manifest import MANIFEST
from ..workflow.options import RunOptions
from ..workflow.run import run
from ..workflow.summary import Summary, load_summary
from .learning_progress import TimedReporter
from .lift_move import LiftMove

NOT_TRUSTED = "what was learned is not to be trusted, though moves of it are exact"

N_CENTRES, KERNEL_WIDTH = 2000, 0.2
"""Where labels are proposed over more of them than a surface has: labels of lifts, and parts of the domain / 2 pi."""


class LearnedMove(LiftMove):
    """A `LiftMove` with what was learned for it, which lies in one folder.

    Args:
        simulation: an ``openmm.app.Simulation`` whose Context has positions.
        folder: of a finished run.
        options: of `LiftMove`, its model, surface and label proposal left out.

    Attributes:
        folder: with model, surface, lifts and record, as `gancl run` writes them.
        surface: over the labels, the first two of more.
        summary: of the run.

    Raises:
        InputError: the run is not finished, or of another molecule.
    """

    @checked
    def __init__(self, simulation: Any, folder: str | Path, **options: Any):
        self.folder, self._learned = Path(folder), tuple[str, ...]()
        run_folder = RunFolder.load(self.folder)
        if not run_folder.is_done("surface"):
            raise InputError(
                f"{folder} is not finished: go on with the same learn_move and folder={str(folder)!r}, or with "
                f"`gancl lift {folder}`"
            )
        self.summary: Summary = load_summary(self.folder / "surface" / "summary.json")
        model = load_model(self.folder / "model.safetensors")
        if (molecule := run_folder.manifest["system"]["card"].get("molecule")) is not None:
            options.setdefault("molecule", molecule)
        self.surface = load_surface_over(self.folder / "fes.npz", model.slow.names)
        if self.surface.names == model.slow.names:
            super().__init__(simulation, model, surface=self.surface, **options)
        else:
            super().__init__(simulation, model, label_proposal=_proposal_of_lifts(self.folder, model.slow), **options)
        self._learned = tuple(f"{NOT_TRUSTED}: {doubt}" for doubt in self.summary.doubts())
        for doubt in self._learned:
            warnings.warn(doubt, stacklevel=3)

    @property
    def doubts(self) -> list[str]:
        """Those of `LiftMove`, after those about what was learned, for which `gancl run` has exit code 3."""
        return [*self._learned, *super().doubts]

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write what was learned as a run folder, which `load_move` and `gancl lift` read.

        Args:
            folder: a new one.

        Raises:
            InputError: it exists, or cannot be made.
        """
        target = Path(folder)
        if target.exists():
            raise InputError(f"{target} exists already and is not overwritten: name a new folder")
        try:
            shutil.copytree(self.folder, target)
        except OSError as error:
            raise InputError(f"cannot write {target} ({error.strerror}): name a folder you may write") from None
        self.folder = target


def _proposal_of_lifts(folder: Path, slow: SlowCoordinates) -> KernelProposal:
    """p(s) over any number of labels: kernels around those of lifts, drawn by their weights."""
    lifts = load_arrays(folder / "lifts.npz")
    weights = np.exp(lifts["log_weights"] - lifts["log_weights"].max())
    rng = named_rng(0, "fixed", "label kernels")
    centres = lifts["labels"][rng.choice(len(weights), N_CENTRES, p=weights / weights.sum())]
    widths: FloatArray = KERNEL_WIDTH * np.ptp(slow.domain, axis=1) / (2 * np.pi)
    return KernelProposal(centres, widths, widths, np.isfinite(slow.periods))


@checked
def load_move(simulation: Any, folder: str | os.PathLike[str], **options: Any) -> LearnedMove:
    """The move of what `learn_move`, `LearnedMove.save` or ``gancl run`` left in a folder, without learning.

    Args:
        simulation: an ``openmm.app.Simulation`` of the same atoms, constraints and temperature.
        folder: of the run.
        options: of `LiftMove`, its model, surface and label proposal left out.

    Raises:
        InputError: the folder has no finished run, or one of another molecule.
    """
    return LearnedMove(simulation, Path(folder), **options)


def _torsions_of(labels: ModuleCoordinates, note: Callable[[str], None]) -> list[list[int]]:
    """What learned labels are drawn by: the torsions that the molecule turns about."""
    if not len(labels.chart_torsions):
        raise InputError(
            f"learned labels {', '.join(labels.names)} name no torsions (`chart_torsions`) that a generator could draw "
            "them by: make them by gancl.learn_slow_coordinates, or label torsions"
        )
    rows: list[list[int]] = labels.chart_torsions.tolist()
    names = ", ".join(",".join(map(str, row)) for row in rows)
    note(f"{', '.join(labels.names)} are drawn by their torsions {names}, which are the labels of the move")
    return rows


def _checked_card(simulation: Any, labels: Any, note: Callable[[str], None], **options: Any) -> SimulationCard:
    """What is to be learned, refused before anything is sampled where moves would be refused."""
    if not hasattr(simulation, "topology"):
        check_simulation(simulation)
    if isinstance(labels, ModuleCoordinates):
        labels = _torsions_of(labels, note)
    known = isinstance(labels, SlowCoordinates)
    slow = labels if known else torsions_from_labels(labels, simulation.topology)
    several = count_molecules(simulation.topology) > 1 and isinstance(slow, Torsions)
    check_simulation(simulation, molecule_with(simulation.topology, int(slow.atoms[0, 0])) if several else None)
    card = card_of_simulation(simulation, slow, **options)
    system = card.system
    check_exact(system, chart_for(system.topology, system.slow, system.positions, system.constraints))
    return card


def _run_options(*, max_evaluations: Any, target_error: Any, seed: Any, platform: str) -> RunOptions:
    return RunOptions(
        generator="triangular",
        max_evaluations=None if max_evaluations is None else whole_number("max_evaluations", max_evaluations),
        target_error=None if target_error is None else float(target_error),
        seed=0 if seed is None else whole_number("seed", seed, 0),
        platform=platform,
    )


@contextmanager
def _kept(folder: str | os.PathLike[str] | None) -> Iterator[Path]:
    """The folder, or one of the system's temporary ones; what is left in it by an interrupt or an error is said."""
    path = Path(tempfile.mkdtemp(prefix="gancl-")) if folder is None else Path(folder)
    try:
        yield path
    except BaseException as error:
        begun = (path / MANIFEST).is_file()
        if begun and (folder is None or isinstance(error, KeyboardInterrupt)):
            error.add_note(f"finished steps are kept: the same call with folder={str(path)!r} goes on from there")
        elif folder is None:
            shutil.rmtree(path, ignore_errors=True)
        raise


def learned_in_a_run(
    simulation: Any,
    labels: Label | Sequence[Label] | SlowCoordinates,
    folder: str | os.PathLike[str] | None,
    reporter: TimedReporter,
    *,
    seed: int | None,
    temperature: Any,
    of_windows: dict[str, Any],
    of_run: dict[str, Any],
) -> LearnedMove:
    """See `openmm_gancl.learn_move`.

    Args:
        simulation: an ``openmm.app.Simulation``.
        labels: torsions as a script names them, or slow coordinates.
        folder: of the run; None for a temporary one.
        reporter: that is running.
        seed: of learning and moves.
        temperature: K, of an integrator that does not say.
        of_windows: options of `system_from_simulation`.
        of_run: of `openmm_gancl.workflow.options.RunOptions`.
    """
    options = _run_options(seed=seed, **of_run)
    with preserve_platform_rng(), _kept(folder) as path:
        card = _checked_card(simulation, labels, reporter.note, temperature=temperature, **of_windows)
        run(path, card, options, reporter=reporter, workers=1)
        move = LearnedMove(simulation, path, temperature=temperature, seed=seed)
    if folder is None:
        weakref.finalize(move, shutil.rmtree, path, ignore_errors=True)
    return move
