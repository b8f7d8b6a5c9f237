"""The check of draws against independent frames of dynamics, at one evaluation a frame.

A frame x of restrained dynamics has a log-weight of its own: the real log target less the generator's log density. With
labels drawn from the restraint, ``E_frames[1/w] = 1/E_draws[w]``: where it does not hold, frames or draws miss
something. The windows share no start with those of training: each is pulled, hot, to a label, every other one to wide
torsions all over the circle, whether the generator takes these for wide or not, the others to those of a draw that has
weight, and runs freely from there. Its frames stay in one mode, in general not as often as that mode is populated:
draws are compared within the same mode.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.special import chdtrc, logsumexp

from ..coordinates.geometry import wrap
from ..coordinates.restraint_energies import sample_restraint
from ..coordinates.slow_coordinates import Axes, ParticleCoordinates
from ..engine.random_numbers import named_rng, named_seed
from ..errors import InputError, checked
from ..free_energy.weight_statistics import log_mean_weight, shares_of_weight
from ..generator.invertible import InvertibleGenerator
from ..reference.chart import Chart, InternalCoordinates
from ..reference.wide_components import other_components
from ..reference.wide_torsions import (
    WIDE_FORCE_CONSTANT,
    place_text,
    reaches,
    torsions_of,
    turning_indices,
    wide_names,
    with_more_labels,
)
from ..sampling.labels import scattered_labels, spread
from ..sampling.short_windows import MovingRestraint, ShortWindows, displaced_positions, step_of_windows
from ..system.molecular_system import MolecularSystem
from ..units import BoolArray, FloatArray, IntArray
from .draws import weigh_coordinates
from .reverse_check import ReverseCheck, check_reverse, efficiency_in_mode, normal_score, pooled_z

LONGEST_STEP = 0.002
"""ps: frames are compared, not only learned from."""

PULL = ShortWindows(n=1, steering_steps=200, n_frames=1, stride=1)
"""To labels and wide torsions."""

HOT = 2.0
"""Times the temperature, while pulling."""

N_FRAMES, APART, LEAST_STRIDE = 10, 0.2, 100
"""Of a window at the temperature, after two such times to cool: frames, ps from one to the next, and steps at least.
With so many frames all but independent, z-scores of a right generator have a standard deviation of 0.95 (alanine
dipeptide, 96 labels; 1.17 with frames 0.1 ps apart)."""

FRICTION = 10.0
"""1/ps, of these windows: what they sample does not depend on it."""

N_DRAWS, N_ANYWHERE = 256, 64
"""At each label, of which the best weights may decide: of 64 the mean weight of threonine lay low at every label; of
them so many in any mode."""

MOST_DRAWS, SPARE = 2048, 80
"""At a label where draws are worth little in a mode that has weight; what is set aside for such labels, the first of
which takes it, at each label but one.

The mean weight of few effective draws lies lower than a bootstrap of them can tell: z-scores at such labels of
threonine, right in every mode, had a mean of -2.0 with `N_DRAWS` and of -0.6 with `MOST_DRAWS`. Pooled over eight
labels those of all had a mean of -1.1 and a standard deviation of 1.7, and have 0.0 and 1.0 (28 checks).
"""

N_PROPOSED, MOST_BATCHES = 2048, 8
"""Drawn at each label, as often, to find enough in the mode of its frames; only these are evaluated."""

FEWEST_PROPOSED = 8
"""Draws in a mode that is compared; where there are fewer in a batch, the mode is hardly ever drawn."""

MODE_WIDTH = np.pi / 3
"""Of a wide torsion, on either side of the middle of its mode."""

NOTEWORTHY = 0.02
"""Share of the weight at a label that a mode without draws may have, unsaid, and that a mode has whose efficiency
counts: of the rotamers of threonine one in three has as much, and windows begin in all of them alike."""

POOR = 0.05
"""Effective draws to a draw at a label, below which more are drawn, or a mode without weight is not compared."""

MOST_LEAVING = 0.1
"""Of draws, that may have a torsion beyond half a turn."""

NEAR, NEAR_WIDTHS = 0.35, 5.0
"""Radians, or standard deviations of a particle's draws: frames farther from every draw are in a mode of their own."""


@dataclass(frozen=True)
class FrameCheck:
    """Draws against frames.

    Attributes:
        checks: one for each label with enough of both.
        pooled_z: of all; NaN if there is none.
        efficiency: median of the mode-aware effective samples a draw, over those in modes that have weight at their
            label; NaN if there is none.
        log_likelihood: mean log q(y | s) of the frames, which no generator has seen.
        check_evaluations: what all this cost.
        p_value: of chi-squared of the differences between labels, a common offset left out; NaN of fewer than two.
        unseen: sentences, where frames have a mode that the generator hardly draws.
        wide_names: of the wide torsions or components.
        wide_angles: shape=(n_labels, n_frames, n_wide), of the frames; NaN outside the declared state.
        least_efficient: where wide torsions are in the check whose draws are worth least; empty without any.
        most_different: the same of the check whose difference is the most standard errors.
        n_weightless: further labels, where frames were in a mode that is hardly drawn and has hardly any weight.
    """

    checks: list[ReverseCheck]
    pooled_z: float
    efficiency: float
    log_likelihood: float
    check_evaluations: int
    p_value: float = float("nan")
    unseen: tuple[str, ...] = ()
    wide_names: tuple[str, ...] = ()
    wide_angles: FloatArray = field(default_factory=lambda: np.empty((0, 0, 0)))
    least_efficient: str = ""
    most_different: str = ""
    n_weightless: int = 0


def window_of(system: MolecularSystem) -> ShortWindows:
    """The part of a window that frames are taken from."""
    stride = max(LEAST_STRIDE, int(np.ceil(APART / step_of_windows(system, LONGEST_STEP) - 1e-9)))
    return ShortWindows(n=1, steering_steps=2 * stride, n_frames=N_FRAMES, stride=stride)


def evaluations_of_check(system: MolecularSystem, n_labels: int) -> int:
    """Evaluations at so many labels, at most."""
    of_window = PULL.evaluations_each + window_of(system).evaluations_each
    return n_labels * (of_window + N_FRAMES + N_DRAWS) + _spare(n_labels)


def _spare(n_labels: int) -> int:
    return max(n_labels - 1, 0) * SPARE


def labels_of_check(system: MolecularSystem, max_evaluations: int) -> int:
    """How many labels can be checked for so many evaluations."""
    first, second = (evaluations_of_check(system, n) for n in (1, 2))
    return max(0, 1 + (max_evaluations - first) // (second - first))


def differences_p_value(checks: Sequence[ReverseCheck]) -> float:
    """Of chi-squared of the labels' differences about their common offset; NaN for fewer than two.

    A common offset is a factor of all weights, which no surface feels. Were differences over bootstrapped errors
    taken for normal scores, p below 1e-4 would come once in some 300 right generators at 6 labels, and once in ten
    at 96.
    """
    errors = np.array([one.standard_error for one in checks])
    if len(checks) < 2 or not (errors > 0).all():
        return float("nan")
    differences = np.array([one.difference for one in checks])
    offset = np.average(differences, weights=errors**-2.0)
    scores = normal_score(differences - offset, errors, np.array([one.degrees for one in checks]))
    return float(chdtrc(len(checks) - 1, (scores**2).sum()))


class _IndependentWindows:
    """Frames of windows that begin in modes of their own.

    Args:
        system: the real system.
        generator: whose chart says which torsions are wide.
        n: windows; the wide torsions that every other one is pulled to fill the circle evenly.
        platform: an OpenMM platform.
        rng: of the windows.

    Attributes:
        angles: shape=(n, n_frames, n_wide), radians, of the frames so far; NaN outside the declared state.
    """

    def __init__(
        self,
        system: MolecularSystem,
        generator: InvertibleGenerator,
        n: int,
        platform: str,
        rng: np.random.Generator,
    ):
        self.system, self.chart, self.rng = system, generator.chart, rng
        self.wide = turning_indices(system.topology, self.chart, system.state)
        self.others: ParticleCoordinates | None = None
        pulled = replace(system, temperature=HOT * system.temperature)
        self.names = wide_names(system.topology, self.chart, self.wide)
        self.turned, self.widths = np.empty((n, 0)), np.full(len(self.wide), MODE_WIDTH)
        self.angles = np.full((n, N_FRAMES, len(self.wide)), np.nan)
        self.in_ring = np.zeros(len(self.wide), dtype=bool)
        if isinstance(self.chart, InternalCoordinates) and len(self.wide):
            torsions = torsions_of(system.topology, self.chart, self.wide)
            pulled = with_more_labels(pulled, torsions, WIDE_FORCE_CONSTANT)
            reach = reaches(system.topology, self.chart, self.wide)
            # of consecutive places every other one lies in the same half of some axis
            pairs = np.repeat(scattered_labels(torsions, (n + 1) // 2, rng), 2, axis=0)[:n]
            self.in_ring = reach < np.pi
            self.turned = reach / np.pi * np.where(self.in_ring, scattered_labels(torsions, n, rng), pairs)
            self.widths = np.where(reach < np.pi, 0.5 * reach, MODE_WIDTH)
        elif isinstance(system.slow, ParticleCoordinates):
            self.others = other_components(system.slow, system.positions)
        self.pulled = pulled
        self.pull = MovingRestraint(pulled, PULL, platform, rng, LONGEST_STEP, FRICTION)
        self.hold = MovingRestraint(system, window_of(system), platform, rng, LONGEST_STEP, FRICTION)
        self.last = np.asarray(system.positions)

    def turn_like(self, i: int, drawn: FloatArray, log_weights: FloatArray) -> None:
        """Pull the wide torsions of window i to those of one of the draws at its label, shape=(n, n_coordinates)."""
        if self.turned.shape[1] and np.isfinite(log_weights).any():
            chosen = self.rng.choice(len(drawn), p=shares_of_weight(log_weights))
            found = np.angle(np.exp(1j * drawn[chosen, self.wide]))
            # rings are to be seen in all forms, by few windows
            self.turned[i] = np.where(self.in_ring, self.turned[i], found)

    def place(self, mode: "_Mode") -> str:
        """Of a mode, in words; empty without wide torsions."""
        return f"where {_near(self.names, self.chart, self.wide, mode.centres)}" * bool(self.names)

    def mode(self, i: int, label: FloatArray) -> "_Mode | None":
        """That most frames of window i at a label are in; None where none is in the declared state."""
        slow, start = self.pulled.slow, self.last
        if self.others is not None:
            start = displaced_positions(start, self.others, self.rng)
        begin, centre = slow.transform(start[None])[0], np.concatenate([label, self.turned[i]])
        try:
            start = self.pull.run(start, begin, centre)[0][-1]
            positions, _ = self.hold.run(start, label, label)
        except InputError:  # it failed, hot as it was
            return None
        inside = np.asarray(self.system.state.inside(positions))
        if inside[-1]:
            self.last = positions[-1]
        if not inside.any():
            return None
        coordinates = self.chart.to_internal(positions[inside])
        self.angles[i, inside] = coordinates[:, self.wide]
        return _Mode.of(self.wide, self.widths, coordinates)


@dataclass(frozen=True)
class _Mode:
    """Where the wide torsions of a window are most of the time.

    A window that jumps once is in both modes, but not as often as either is populated: one of them is compared.

    Attributes:
        wide: shape=(n_wide,), indices of coordinates.
        centres: shape=(n_wide,), radians.
        widths: shape=(n_wide,), radians.
        frames: shape=(n, n_coordinates), those in it.
    """

    wide: IntArray
    centres: FloatArray
    widths: FloatArray
    frames: FloatArray

    @classmethod
    def of(cls, wide: IntArray, widths: FloatArray, coordinates: FloatArray) -> "_Mode":
        """Of frames, shape=(n, n_coordinates): about the one that has most others near it."""
        angles = coordinates[:, wide]
        gaps = np.abs(wrap(angles[:, None] - angles, np.full(len(wide), 2 * np.pi)))
        near = np.asarray((gaps < widths).all(axis=2))
        together = angles[near[near.sum(axis=1).argmax()]]
        mode = cls(wide, np.angle(np.exp(1j * together).mean(axis=0)), widths, coordinates)
        return replace(mode, frames=coordinates[mode.holds(coordinates)])

    def holds(self, coordinates: FloatArray) -> BoolArray:
        """Which of them are in it, shape=(n,)."""
        off = np.abs(wrap(coordinates[:, self.wide] - self.centres, np.full(len(self.wide), 2 * np.pi)))
        return np.asarray((off < self.widths).all(axis=1))


@checked
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
    labels = _spread_labels(system.slow, places, n_labels, rng)
    windows = _IndependentWindows(system, generator, len(labels), platform, rng)
    checked, likelihoods, unseen = list[tuple[ReverseCheck, bool, str]](), list[FloatArray](), dict[str, None]()
    spare, n_weightless = _spare(len(labels)), 0
    for i, label in enumerate(labels):
        draws = _DrawsAtLabel(system, generator, label, rng, platform)
        if i % 2:
            windows.turn_like(i, draws.drawn[:N_ANYWHERE], draws.anywhere)
        if (mode := windows.mode(i, label)) is None:
            continue
        found = _compare(draws, mode, min(spare, MOST_DRAWS - N_DRAWS))
        spare -= found.n_more
        likelihoods.append(found.log_density)
        if found.unseen is not None:
            unseen[found.unseen] = None
            continue
        if (check := found.check(label, named_seed(seed, "frame check", i))) is None:
            continue
        if check.efficiency < POOR and not found.matters:
            n_weightless += 1
            continue
        checked.append((check, found.matters, windows.place(mode)))
    checks = [check for check, _, _ in checked]
    efficient = [check.efficiency for check, matters, _ in checked if matters]
    return FrameCheck(
        checks=checks,
        pooled_z=pooled_z(checks),
        efficiency=float(np.median(efficient)) if efficient else float("nan"),
        log_likelihood=float(np.mean(np.concatenate(likelihoods))) if likelihoods else float("nan"),
        check_evaluations=evaluations_of_check(system, len(labels)) - spare,
        p_value=differences_p_value(checks),
        unseen=tuple(unseen),
        wide_names=windows.names,
        wide_angles=windows.angles,
        least_efficient=min(checked, key=lambda one: one[0].efficiency)[2] if checked else "",
        most_different=max(checked, key=lambda one: abs(one[0].z))[2] if checked else "",
        n_weightless=n_weightless,
    )


def _spread_labels(slow: Axes, places: FloatArray, n: int, rng: np.random.Generator) -> FloatArray:
    """Of places, shape=(m, d), those that are far from one another among four times as many by chance, shape=(n, d)."""
    candidates = places[rng.permutation(len(places))[: 4 * n]]
    return np.asarray(candidates[spread(candidates, slow.periods, np.ptp(slow.domain, axis=1), n)])


@dataclass(frozen=True)
class _Compared:
    """Draws and frames at one label.

    Attributes:
        forward: shape=(n,), log-weights of draws in the mode of the frames; none where these are too few.
        backward: shape=(m,), of the frames.
        log_density: shape=(m,), of the frames.
        unseen: a sentence, where the generator hardly draws what the frames show.
        matters: whether the mode may have weight at its label.
        n_more: draws beyond `N_DRAWS`.
    """

    forward: FloatArray
    backward: FloatArray
    log_density: FloatArray
    unseen: str | None
    matters: bool
    n_more: int = 0

    def check(self, label: FloatArray, seed: int) -> ReverseCheck | None:
        """Of draws against frames; None where too few of them have a weight."""
        try:
            return check_reverse(label, self.forward, self.backward, seed=seed)
        except InputError:
            return None


class _DrawsAtLabel:
    """Draws at one label, each at a label of its own from the restraint there.

    Args:
        system: the real system.
        generator: of the draws.
        label: shape=(d,).
        rng: of the draws.
        platform: an OpenMM platform.
    """

    def __init__(
        self,
        system: MolecularSystem,
        generator: InvertibleGenerator,
        label: FloatArray,
        rng: np.random.Generator,
        platform: str,
    ):
        self.system, self.generator, self.label, self.rng, self.platform = system, generator, label, rng, platform
        self.near, self.drawn = self._batch()
        self.anywhere = self.log_weights(np.arange(N_ANYWHERE))

    def _batch(self) -> tuple[FloatArray, FloatArray]:
        tiled = np.tile(self.label, (N_PROPOSED, 1))
        near = sample_restraint(self.system.slow, self.system.force_constants / self.system.kT, tiled, self.rng)
        return near, self.generator.sample(near, self.rng)[0]

    def in_mode(self, mode: _Mode, n: int) -> IntArray:
        """The first n that are in a mode, or all of the last batch; not those that may have chosen the mode."""
        while (inside := mode.holds(self.drawn[N_ANYWHERE:])).sum() < n and len(self.drawn) < MOST_BATCHES * N_PROPOSED:
            near, drawn = self._batch()
            self.near, self.drawn = np.concatenate([self.near, near]), np.concatenate([self.drawn, drawn])
        return N_ANYWHERE + np.flatnonzero(inside)[:n]

    def log_weights(self, rows: IntArray) -> FloatArray:
        """Of some of them, shape=rows.shape."""
        drawn = self.drawn[rows]
        inside = self.generator.inside(drawn)
        return _log_weights(self.system, self.generator, drawn, self.near[rows], inside, self.platform)[0]

    def of_frames(self, frames: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Log-weights of frames of the window at the label, and their log densities, shape=(n,) each."""
        # a torsion's turn is the generator's choice: none of a frame is too far from its origin
        everywhere, at = np.ones(len(frames), dtype=bool), np.tile(self.label, (len(frames), 1))
        return _log_weights(self.system, self.generator, frames, at, everywhere, self.platform)


def _compare(draws: _DrawsAtLabel, mode: _Mode, spare: int) -> _Compared:
    """Draws and frames in their mode; `spare` draws more where these say little of a mode that has weight."""
    system, generator, frames = draws.system, draws.generator, mode.frames
    backward, log_density = draws.of_frames(frames)
    rows = draws.in_mode(mode, N_DRAWS - N_ANYWHERE)
    share = mode.holds(draws.drawn).mean()
    hardly = share < FEWEST_PROPOSED / N_PROPOSED
    forward = draws.log_weights(rows)
    matters = _may_matter(draws.anywhere, forward, backward, share + hardly / len(draws.drawn))
    batch, unseen, n_more = draws.drawn[:N_PROPOSED], None, 0
    far = np.union1d(_far_coordinates(generator.chart, frames, batch), _leaving(generator, batch, mode.wide))
    if len(far) or (hardly and matters):
        unseen = _unseen(system, generator.chart, far if len(far) else mode.wide, frames)
    elif spare and matters and efficiency_in_mode(forward, backward) < POOR:
        more = draws.in_mode(mode, len(rows) + spare)[len(rows) :]
        n_more, forward = len(more), np.concatenate([forward, draws.log_weights(more)])
    if len(forward) < FEWEST_PROPOSED:
        forward = forward[:0]
    return _Compared(forward, backward, log_density, unseen, matters, n_more)


def _far_coordinates(chart: Chart, frames: FloatArray, drawn: FloatArray) -> IntArray:
    """Torsions, or components of particles, in which most frames are far from every draw."""
    torsions = np.flatnonzero(chart.periodic) if isinstance(chart, InternalCoordinates) else np.arange(frames.shape[1])
    found = []
    for i in np.setdiff1d(torsions, chart.label_indices):
        period = np.array([2 * np.pi if chart.periodic[i] else np.inf])
        gaps = np.abs(wrap((frames[:, i, None] - drawn[:, i])[..., None], period))[..., 0]
        near = NEAR if chart.periodic[i] else NEAR_WIDTHS * drawn[:, i].std()
        if (gaps.min(axis=1) > near).mean() > 0.5:
            found.append(i)
    return np.array(found, dtype=np.int64)


def _leaving(generator: InvertibleGenerator, drawn: FloatArray, turning: IntArray) -> IntArray:
    """Torsions that turn and that a generator takes for narrow, but draws beyond half a turn, where no draw counts."""
    if not isinstance(generator.chart, InternalCoordinates):
        return np.empty(0, dtype=np.int64)
    narrow, origin = (part.numpy() for part in (generator.map.narrow_indices, generator.map.narrow.origin))
    leaves = (np.abs(drawn[:, narrow] - origin) > np.pi).mean(axis=0) > MOST_LEAVING
    return np.intersect1d(narrow[leaves], turning)


def _may_matter(anywhere: FloatArray, forward: FloatArray, backward: FloatArray, share: float) -> bool:
    """Whether a mode may have weight at its label.

    Mean of 1/w over its frames is its share of the draws over its own part of Z; the mean of w over draws in it says
    the same where frames lie in a corner that is hardly drawn.

    Args:
        anywhere: log-weights of draws in any mode.
        forward: of draws in the mode.
        backward: of its frames.
        share: of all draws, that are in the mode.
    """
    anywhere, backward = (part[np.isfinite(part)] for part in (anywhere, backward))
    if not len(anywhere) or not len(backward):
        return False
    part = np.log(len(backward)) - logsumexp(-backward)
    if np.isfinite(forward).any():
        part = max(part, log_mean_weight(forward))
    return bool(np.log(share) + part - log_mean_weight(anywhere) > np.log(NOTEWORTHY))


def _unseen(system: MolecularSystem, chart: Chart, indices: IntArray, frames: FloatArray) -> str:
    """A sentence on frames in a mode that is not drawn."""
    names = wide_names(system.topology, chart, indices)
    if isinstance(chart, InternalCoordinates):
        where = _near(names, chart, indices, np.angle(np.exp(1j * frames[:, indices]).mean(axis=0)))
    else:
        where = " and ".join(f"{name} is elsewhere" for name in names)
    chosen = system.wide is not None or len(system.not_wide) > 0
    remedy = "let the card's 'wide' or 'not_wide' say so, label it" if chosen else "label it"
    return (
        f"frames of the check stay where {where}, in a mode that the generator hardly draws: {remedy}, "
        "or give frames of it"
    )


def _near(names: Sequence[str], chart: Chart, indices: IntArray, angles: FloatArray) -> str:
    """Where coordinates are that turn, roughly: windows in one mode make one sentence."""
    places = (place_text(chart, index, angle) for index, angle in zip(indices.tolist(), angles.tolist(), strict=True))
    return " and ".join(f"{name} is near {place}" for name, place in zip(names, places, strict=True))


def _log_weights(
    system: MolecularSystem,
    generator: InvertibleGenerator,
    coordinates: FloatArray,
    labels: FloatArray,
    inside: BoolArray,
    platform: str,
) -> tuple[FloatArray, FloatArray]:
    """Log-weights of draws or frames and their log densities, shape=(n,) each."""
    log_density = np.full(len(coordinates), -np.inf)
    log_density[inside] = generator.log_density(coordinates[inside])
    found = weigh_coordinates(
        system, generator.chart, coordinates, labels, np.where(inside, log_density, 0.0), inside, platform=platform
    )
    return found.log_weights, log_density
