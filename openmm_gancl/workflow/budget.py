"""Force evaluations: what a run costs at least, and how many lifts a limit leaves."""

from ..errors import InputError
from ..lifting.lifts import evaluations_of_paths
from ..sampling.langevin import evaluations_of_windows
from .context import EQUILIBRATION_STEPS, Run
from .labelling import LABEL_PILOTS
from .options import PILOT_LABELS, PILOT_LIFTS, RELAX_CHOICES, RunOptions, Settings

MIN_LIFTS = 64


def _of_windows(n: int, steps: int) -> int:
    return evaluations_of_windows(n, EQUILIBRATION_STEPS + steps)


def _other_than_lifts(options: RunOptions, settings: Settings, relax_steps: int) -> int:
    """Force evaluations of the check, and of what learned labels need before it."""
    s, paths = settings, settings.n_check_labels * (settings.n_check_lifts + settings.n_check_frames)
    if options.slow == "torsions":
        return evaluations_of_paths(paths, relax_steps)
    paths += min(LABEL_PILOTS, s.n_first) if options.unrestrained else 0
    return evaluations_of_paths(paths, relax_steps) + _of_windows(s.n_check_labels, s.held_out_steps)


def least_evaluations(options: RunOptions, settings: Settings) -> int:
    """Force evaluations of a run with the fewest lifts that make sense."""
    s = settings
    windows = _of_windows(s.n_windows, s.steps_per_window) + _of_windows(s.n_held_out, s.held_out_steps)
    pilot = 0
    if not s.relax_steps:
        pilot = sum(evaluations_of_paths(PILOT_LABELS * PILOT_LIFTS, steps) for steps in RELAX_CHOICES)
    relax_steps = s.relax_steps or max(RELAX_CHOICES)
    paths = MIN_LIFTS + (s.n_pilot + s.n_encoder_reverse if s.latent else 0)
    return windows + pilot + evaluations_of_paths(paths, relax_steps) + _other_than_lifts(options, s, relax_steps)


def most_lifts(run: Run, relax_steps: int) -> int:
    """How many lifts options and evaluations allow, the check's left out."""
    s, most = run.settings, run.options.max_evaluations
    if most is None:
        return s.n_lifts
    reserved = _other_than_lifts(run.options, s, relax_steps)
    allowed = (most - run.evaluations_before_lifts() - reserved) // evaluations_of_paths(1, relax_steps)
    if allowed < MIN_LIFTS:
        raise InputError(
            f"`max_evaluations` of {most} leaves only {max(allowed, 0)} lifts of {relax_steps} steps: "
            "start a new run with more evaluations, or with fewer `relax_steps`"
        )
    return min(s.n_lifts, allowed)
