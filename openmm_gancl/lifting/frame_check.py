"""The check of draws against independent frames of dynamics, at one evaluation a frame.

A frame x of restrained dynamics has a log-weight of its own: the real log target less the generator's log density. With
labels drawn from the restraint, ``E_frames[1/w] = 1/E_draws[w]``: where it does not hold, frames or draws miss
something. The windows begin at the system's own structure, and see no mode that they do not reach.
"""

from dataclasses import dataclass

import numpy as np

from ..coordinates.restraint_energies import sample_restraint
from ..engine.random_numbers import named_rng, named_seed
from ..errors import InputError
from ..generator.invertible import InvertibleGenerator
from ..sampling.labels import spread
from ..sampling.short_windows import MovingRestraint, ShortWindows
from ..system.molecular_system import MolecularSystem
from ..units import FloatArray
from .draws import draw, log_targets
from .reverse_check import ReverseCheck, check_reverse, pooled_z

LONGEST_STEP = 0.002
"""ps: frames are compared, not only learned from."""

WINDOW = ShortWindows(n=1, steering_steps=300, n_frames=12, stride=50)

N_DRAWS = 64
"""At each label."""


@dataclass(frozen=True)
class FrameCheck:
    """Draws against frames.

    Attributes:
        checks: one for each label with enough of both.
        pooled_z: of all; NaN if there is none.
        efficiency: median over them of the mode-aware effective samples a draw; NaN if there is none.
        log_likelihood: mean log q(y | s) of the frames, which no generator has seen.
        check_evaluations: what all this cost.
    """

    checks: list[ReverseCheck]
    pooled_z: float
    efficiency: float
    log_likelihood: float
    check_evaluations: int


def evaluations_of_check(n_labels: int) -> int:
    """Evaluations at so many labels; one window more, to equilibrate, comes first."""
    return n_labels and (n_labels + 1) * WINDOW.evaluations_each + n_labels * (WINDOW.n_frames + N_DRAWS)


def labels_of_check(max_evaluations: int) -> int:
    """How many labels can be checked for so many evaluations."""
    each = WINDOW.evaluations_each + WINDOW.n_frames + N_DRAWS
    return max((max_evaluations - WINDOW.evaluations_each) // each, 0)


def check_frames(
    system: MolecularSystem,
    generator: InvertibleGenerator,
    places: FloatArray,
    n_labels: int,
    *,
    seed: int,
    platform: str = "Reference",
) -> FrameCheck:
    """Compare draws with frames of restrained dynamics at several labels.

    Args:
        system: the real system.
        generator: of the draws.
        places: shape=(n, d), labels to choose from.
        n_labels: windows; nothing is known without any.
        seed: of all random numbers.
        platform: an OpenMM platform.
    """
    if not n_labels:
        return FrameCheck([], float("nan"), float("nan"), float("nan"), 0)
    rng = named_rng(seed, "frame check")
    slow = system.slow
    candidates = places[rng.permutation(len(places))[: 4 * n_labels]]
    labels = candidates[spread(candidates, slow.periods, np.ptp(slow.domain, axis=1), n_labels)]
    dynamics = MovingRestraint(system, WINDOW, platform, rng, LONGEST_STEP)
    own = slow.transform(system.positions[None])[0]
    last, at = dynamics.run(system.positions, own, own)[0][-1], own
    checks, likelihoods, constants = [], [], system.force_constants / system.kT
    for i, label in enumerate(labels):
        positions, _ = dynamics.run(last, at, label)
        last, at = positions[-1], label
        frames = positions[system.state.inside(positions)]
        if not len(frames):
            continue
        backward, log_density = _log_weights(system, generator, frames, platform)
        likelihoods.append(log_density)
        near = sample_restraint(slow, constants, np.tile(label, (N_DRAWS, 1)), rng)
        forward = draw(system, [generator], np.ones(1), near, rng, platform=platform).log_weights
        try:
            checks.append(check_reverse(label, forward, backward, seed=named_seed(seed, "frame check", i)))
        except InputError:  # too few of them have a weight
            continue
    return FrameCheck(
        checks=checks,
        pooled_z=pooled_z(checks),
        efficiency=float(np.median([one.efficiency for one in checks])) if checks else float("nan"),
        log_likelihood=float(np.mean(np.concatenate(likelihoods))) if likelihoods else float("nan"),
        check_evaluations=evaluations_of_check(len(labels)),
    )


def _log_weights(
    system: MolecularSystem, generator: InvertibleGenerator, frames: FloatArray, platform: str
) -> tuple[FloatArray, FloatArray]:
    """Log-weights of frames and their log densities, shape=(n,) each; a torsion's turn is the generator's choice."""
    coordinates = generator.chart.to_internal(frames)
    log_density = generator.log_density(coordinates)
    everywhere = np.ones(len(frames), dtype=bool)
    log_target, _, _ = log_targets(system, generator.chart, coordinates, everywhere, platform)
    return log_target - log_density, log_density
