"""What trajectories say of slow dynamics: passages between basins, and relaxations as a reduced model sees them."""

from dataclasses import dataclass

import numpy as np

from ..coordinates.basin import Basin
from ..errors import InputError, checked
from ..units import FloatArray, IntArray
from .backward_equation import Relaxations
from .reduced_model import ReducedModel

BETWEEN, LOST = -1, -2
"""Of a copy: in no basin, and nowhere."""

MOST_UNSEEN = 0.1
"""Of the passages, that may be lost when every other frame is left out: then hardly any is lost between frames."""


@dataclass(frozen=True)
class PassageTimes:
    """Passages from one basin to the other and back along trajectories.

    Attributes:
        mean: shape=(2,), ps, from entering one basin to reaching the other; ``inf`` without a passage.
        error: shape=(2,), one sigma, from the scatter of copies, or of counts where there are few.
        counts: shape=(2,), passages.
        counts_by_half: shape=(2,), passages that every other frame shows.
    """

    mean: FloatArray
    error: FloatArray
    counts: IntArray
    counts_by_half: IntArray

    def doubts(self) -> list[str]:
        """Sentences, why they are not to be trusted."""
        n, seen = int(self.counts.sum()), int(self.counts_by_half.sum())
        usual = MOST_UNSEEN * n
        if n - seen <= usual + 2 * np.sqrt(usual):
            return []
        return [
            f"every other frame shows {seen} of {n} passages, so that their number depends on the interval: basins are "
            "so near that a path crosses again and again (give their cores), or frames too far apart (save more of "
            "them)"
        ]


@checked
def passage_times(labels: FloatArray, interval: float, first: Basin, second: Basin) -> PassageTimes:
    """Count passages: the time that the last basin was the first, over the passages from it, and the other way.

    Frames before a copy is in either basin are left out, and so are those after a frame that is NaN, until it is in
    one again. A passage there and back between two frames is not seen.

    Args:
        labels: shape=(n_frames, n_copies, d); NaN where a copy has ended, or its run failed.
        interval: ps from frame to frame.
        first: a basin.
        second: another.

    Raises:
        InputError: labels of another shape, or basins that overlap.
    """
    if labels.ndim != 3:
        raise InputError(f"labels have shape {labels.shape}: give (n_frames, n_copies, d)")
    n_frames, n_copies, d = labels.shape
    inside = [basin.contains(labels.reshape(-1, d)).reshape(n_frames, n_copies) for basin in (first, second)]
    if (inside[0] & inside[1]).any():
        raise InputError(f"basins {first.name} and {second.name} overlap: give two that do not")
    states = np.select([inside[0], inside[1], np.isnan(labels).any(axis=2)], [0, 1, LOST], BETWEEN)
    frames, counts = _frames_and_passages(states)
    times, n, total = frames * interval, counts.sum(axis=1), frames.sum(axis=1) * interval
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = total / n
        # passages are rare events: their number scatters at least like a Poisson variable's
        scatter = ((counts - times / mean[:, None]) ** 2).sum(axis=1) * n_copies / max(n_copies - 1, 1)
        error = mean * np.sqrt(np.maximum(np.where(n_copies > 1, scatter, 0.0), n)) / n
    return PassageTimes(mean, error, n, _frames_and_passages(states[::2])[1].sum(axis=1))


def _frames_and_passages(states: IntArray) -> tuple[IntArray, IntArray]:
    """Frames since each copy was last in a basin and not in the other, and passages from there, shape=(2, n_copies)."""
    seen = np.where(states != BETWEEN, np.arange(len(states))[:, None], 0)
    last = np.take_along_axis(states, np.maximum.accumulate(seen, axis=0), axis=0)
    of_side = [last[:-1] == side for side in (0, 1)]
    passed = [mine & (last[1:] == 1 - side) for side, mine in enumerate(of_side)]
    return np.sum(of_side, axis=1), np.sum(passed, axis=1)


@checked
def time_scales_along(
    model: ReducedModel, slowest: Relaxations, labels: FloatArray, lag: int, interval: float
) -> FloatArray:
    """Time scales of a full trajectory projected onto a reduced model's eigenfunctions, shape=(k,), ps.

    ``-lag / log C(lag)``, C the autocorrelation of each eigenfunction along the trajectory: for a trajectory of the
    equilibrium a lower bound of its own time scale (Noe and Nueske 2013, doi 10.1137/110858616).

    Args:
        model: the model.
        slowest: its relaxations.
        labels: shape=(n_frames, n_copies, d).
        lag: frames.
        interval: ps from frame to frame.

    Raises:
        InputError: a lag longer than the trajectory, or labels where the model knows nothing.
    """
    n_frames, n_copies, d = labels.shape
    if not 0 < lag < n_frames:
        raise InputError(f"a lag of {lag} frames for a trajectory of {n_frames}: give a shorter one")
    found = []
    for function in slowest.functions:
        values = projected(model, function, labels.reshape(-1, d)).reshape(n_frames, n_copies)
        values = values - values.mean()
        correlation = (values[lag:] * values[:-lag]).mean() / (values**2).mean()
        found.append(-lag * interval / np.log(correlation) if correlation > 0 else 0.0)
    return np.array(found)


@checked
def projected(model: ReducedModel, field: FloatArray, labels: FloatArray) -> FloatArray:
    """A field of a reduced model (committor, eigenfunction) along a trajectory projected onto it, shape=(n,).

    Args:
        model: the model.
        field: shape=(n_0, ...).
        labels: shape=(n, d).

    Raises:
        InputError: a label outside the domain, or where the field is not known.
    """
    cells = model.cells_of(labels)
    outside = cells < 0
    found = np.full(len(cells), np.nan)
    found[~outside] = np.asarray(field).ravel()[cells[~outside]]
    if (unknown := np.isnan(found)).any():
        raise InputError(
            f"{unknown.sum()} of {len(found)} frames lie where the reduced model knows nothing: leave them out, or "
            "lift more there"
        )
    fine = model.interpolated(field, labels)
    # beside a wall there is nothing to interpolate with
    return np.where(np.isfinite(fine), fine, found)
