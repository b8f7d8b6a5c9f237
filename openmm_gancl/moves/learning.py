"""From a Simulation to a move in one call: what `gancl run` does, on what the Simulation samples."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..errors import checked
from .learning_progress import Tell, TimedReporter, print_progress

if TYPE_CHECKING:
    from ..coordinates.slow_coordinates import SlowCoordinates
    from ..coordinates.torsion_labels import Label
    from .learned_move import LearnedMove


@checked
def learn_move(
    simulation: Any,
    labels: "Label | Sequence[Label] | SlowCoordinates",
    *,
    folder: str | os.PathLike[str] | None = None,
    max_evaluations: int | None = None,
    target_error: float | None = None,
    force_constants: float | Sequence[float] = 200.0,
    time_step: float | None = None,
    temperature: Any = None,
    platform: str = "auto",
    seed: int | None = None,
    progress: Tell | None = None,
) -> "LearnedMove":
    """Learn a generator on what a Simulation samples, and make the move of it; the Simulation is not changed.

    Bias forces and parameters of the Context are part of what is learned; chiral centres and trans peptide bonds stay
    as they are. Of several molecules, in vacuum or implicit solvent, the one of the labels is learned and moved: the
    others are held where they are during learning, and the molecule's place too (`openmm_gancl.system.one_molecule`),
    so that what is learned, its surface also, is of the molecule beside these; moves follow others that have moved.
    The results are those of ``gancl run --generator triangular`` on the same System and State. By hand:
    `openmm_gancl.system.card_of_simulation`, `learn` of its ``.system``, `LiftMove` with ``.model`` and ``.surface``.

    Args:
        simulation: an ``openmm.app.Simulation`` in vacuum or implicit solvent, with positions.
        labels: torsions, by residue (``"phi:2"``), by four atom numbers from 0 or names (``"CA"``, or ``"ALA2-CA"``
            where several have it); or slow coordinates, as `Torsions`, or learned ones, drawn by their torsions.
        folder: where everything is kept, a run folder; one that is there is gone on with, or just read if it is
            finished. By default a temporary one, which goes when the move does: see `LearnedMove.save`.
        max_evaluations: of the real potential, less those of a check, a fifth of them; by default 35,000, and more for
            labels or wide coordinates from the third on.
        target_error: kT, median error of the surface at which learning ends.
        force_constants: of windows, one number or one a label, kJ/mol (torsions) or kJ/mol/nm^2.
        time_step: of windows, ps; 0.002 by default, 0.001 where light particles are without constraints.
        temperature: K, of an integrator that does not say.
        platform: for learning; ``auto`` measures.
        seed: of learning (0 by default) and of the moves (a fresh one by default).
        progress: called at least every five seconds, from another thread too; by default prints to standard error.

    Raises:
        InputError: what cannot be learned or moved exactly, and what to use instead; or a folder of something else.
        KeyboardInterrupt: with a note that says where the finished steps are, and how to go on.
    """
    reporter = TimedReporter(progress or print_progress)
    of_windows = {"force_constants": force_constants, "time_step": time_step}
    of_run = {"max_evaluations": max_evaluations, "target_error": target_error, "platform": platform}
    with reporter.running():
        from .learned_move import learned_in_a_run  # torch and all: seconds, which the progress shows too

        how: dict[str, Any] = {"seed": seed, "temperature": temperature, "of_windows": of_windows, "of_run": of_run}
        return learned_in_a_run(simulation, labels, folder, reporter, **how)
