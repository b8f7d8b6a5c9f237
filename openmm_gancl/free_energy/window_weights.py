"""Weights of the frames of umbrella windows, and how they follow the windows' free energies."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import csr_array

from ..errors import InputError
from ..trajectories.blocks import Blocks
from ..trajectories.observations import Observations
from ..trajectories.umbrella import UmbrellaWindows
from ..units import FloatArray, IntArray, thermal_energy
from .block_counts import Response
from .mbar import MBAR, solve_mbar, sparse_biases

CHUNK_SIZE = 1_000_000
"""Frames times windows in one batch."""

N_INITIAL_FRAMES = 50
"""Frames of each window that the free energies are first estimated from."""

MAX_BIASES = 40_000_000
"""Frames times windows; more frames are thinned out."""

OVERLAP_THRESHOLD = 0.03
"""Overlap of two windows below which another one is needed between them (Klimovich, Shirts, Mobley 2015, doi
10.1007/s10822-015-9840-9)."""

MAX_RESTRAINT_ENERGY = 10.0
"""kT of restraint energy per coordinate, in the mean, above which a window and its file hardly belong together."""

USUAL_RESTRAINT_ENERGIES = (0.25, 2.5)
"""kT of restraint energy per coordinate, in the median over the windows, outside of which a note says so: half a kT
where the surface is even."""

MAX_STRAIN_DEVIATION, STRAIN_ERRORS = 0.1, 4.0
"""Of the logarithm of a window's restraint energy over what all windows predict, in the mean, and in standard errors of
that mean: more tells of centres or force constants that are not those of the run (compare Zhu and Hummer 2012, doi
10.1002/jcc.21989)."""

MAX_ODD_STRAIN, ODD_STRAIN_ERRORS = 0.3, 6.0
"""The same of one window from the median of all, as it is, and in standard errors and in spreads over the windows: its
row of the table, or its file, is another one's."""

MAX_UNLIKE_STRAIN, UNLIKE_STRAIN_ERRORS = 0.2, 2.5
"""Spread over the windows of that logarithm, as it is, and in standard errors of one: some are in another unit."""

MIN_WINDOWS = 5
"""That tell what is odd."""

MAX_FREE_ENERGY_ERROR = 0.5
"""kT of error of a window's free energy, above which error bars, which are to first order in it, are rough."""


@dataclass(frozen=True)
class WindowWeights:
    """Weights of the frames of umbrella windows.

    Attributes:
        windows: those that are connected, by overlap, to most of the frames.
        blocks: their frames.
        log_weights: shape=(n_frames,), of MBAR, with any bias undone that all windows had beside their restraints.
        mbar: their free energies.
        response: how the weights follow the free energies.
        strain: shape=(n_windows, d), mean restraint energy of each window's frames along each coordinate, kT.
        expected: shape=(n_windows, d), the same energies as all windows together predict them.
        left_out: descriptions of the windows that overlap with none of those.
        kept: shape=(n_windows,), which of the given windows these are.
    """

    windows: UmbrellaWindows
    blocks: Blocks
    log_weights: FloatArray
    mbar: MBAR
    response: Response
    strain: FloatArray
    expected: FloatArray
    left_out: list[str]
    kept: IntArray


def _of_windows(blocks: Blocks, chosen: IntArray) -> Blocks:
    """The blocks of some strata, numbered anew."""
    mine = np.isin(blocks.stratum, chosen)
    return replace(
        blocks,
        start=blocks.start[mine],
        stop=blocks.stop[mine],
        stratum=np.searchsorted(chosen, blocks.stratum[mine]),
        spans=blocks.spans[mine],
        correlation=blocks.correlation[chosen],
        n_independent=float(blocks.n_independent * blocks.sizes[mine].sum() / blocks.n_frames),
    )


def _reduced(observations: Observations, windows: UmbrellaWindows, values: FloatArray, frames: IntArray) -> FloatArray:
    """Of every window at every frame, kT of the window, less the frame's own of the surface's temperature."""
    periods, kT = observations.series.periods[list(observations.restrained)], thermal_energy(observations.temperature)
    biases = windows.biases(values, periods)
    if windows.temperatures is None or observations.energies is None:
        return biases / kT
    beta = 1.0 / thermal_energy(1.0) / windows.temperatures
    energies = observations.energies[frames] - observations.energies.mean()
    return np.asarray(beta * biases + (beta - 1.0 / kT) * energies[:, None])


def _strain(
    windows: UmbrellaWindows, values: FloatArray, owner: IntArray, periods: FloatArray, mbar: MBAR
) -> tuple[FloatArray, FloatArray]:
    """Mean restraint energies of each window's frames along each coordinate, and as all windows predict them, kJ/mol.

    Args:
        windows: n_windows of them, over d coordinates.
        values: shape=(n, d), of the frames.
        owner: shape=(n,), the window of each.
        periods: shape=(d,).
        mbar: of the same frames.
    """
    found, expected = np.zeros((2, len(windows), windows.n_coordinates))
    shares = mbar.responsibilities.tocsc()
    for k in range(len(windows)):
        part = slice(shares.indptr[k], shares.indptr[k + 1])
        mine, others = values[owner == k], values[shares.indices[part]]
        for i in range(windows.n_coordinates):
            along = windows.only([k]).along(i)
            found[k, i] = along.biases(mine[:, i : i + 1], periods[i : i + 1]).mean()
            energies = along.biases(others[:, i : i + 1], periods[i : i + 1])[:, 0]
            expected[k, i] = shares.data[part] @ energies / mbar.counts[k]
    return found, expected


def weigh_windows(observations: Observations, blocks: Blocks) -> WindowWeights:
    """Weights that undo umbrella windows, by MBAR.

    Args:
        observations: with windows, one a trajectory.
        blocks: of each window's frames.
    """
    series, windows = observations.series, observations.windows
    if windows is None:
        raise InputError("no windows are given: give `windows`")
    columns, kT = list(observations.restrained), thermal_energy(observations.temperature)
    periods = series.periods[columns]

    def solve(
        windows: UmbrellaWindows, blocks: Blocks, start: FloatArray | None
    ) -> tuple[MBAR, FloatArray, FloatArray]:
        frames = blocks.frames()
        values = np.asarray(series.values[frames][:, columns], dtype=float)
        n, owner = len(windows), np.repeat(blocks.stratum, blocks.sizes)
        step = max(CHUNK_SIZE // n, 1)

        def reduced(values: FloatArray, frames: IntArray) -> Iterator[FloatArray]:
            parts = (slice(i, i + step) for i in range(0, len(values), step))
            return (_reduced(observations, windows, values[part], frames[part]) for part in parts)

        # free energies from a few frames: with them, biases of windows that do not matter can be left out
        few = np.concatenate(
            [np.flatnonzero(owner == k)[:: max((owner == k).sum() // N_INITIAL_FRAMES, 1)] for k in range(n)]
        )
        few_biases = sparse_biases(reduced(values[few], frames[few]))
        first = solve_mbar(few_biases, np.bincount(owner[few], minlength=n), start)
        biases = sparse_biases(reduced(values, frames), near=first.free_energies)
        mbar = solve_mbar(biases, np.bincount(owner, minlength=n), first.free_energies)
        energies = _strain(windows, values, owner, periods, mbar)
        return mbar, energies[0] / kT, energies[1] / kT

    given = observations.free_energies
    start = given if given is not None and np.isfinite(given).all() else None
    mbar, strain, expected = solve(windows, blocks, start)
    groups, left_out, kept = mbar.groups(), [], np.arange(len(windows))
    if groups.max() > 0:
        largest = int(np.bincount(groups, mbar.counts).argmax())
        kept = np.flatnonzero(groups == largest)
        left_out = [windows.describe(int(i)) for i in np.flatnonzero(groups != largest)]
        blocks, windows = _of_windows(blocks, kept), windows.only(kept)
        mbar, strain, expected = solve(windows, blocks, None)
    block_of_frame = np.repeat(np.arange(len(blocks.start)), blocks.sizes)
    n = len(block_of_frame)
    pick = csr_array((np.ones(n), (block_of_frame, np.arange(n))), shape=(len(blocks.start), n))
    sums = np.asarray((pick @ mbar.responsibilities).toarray())
    np.subtract.at(sums, (np.arange(len(blocks.start)), blocks.stratum), blocks.sizes)
    log_weights = mbar.log_weights
    if observations.log_weights is not None:  # of a bias that is part of the potential that MBAR joins
        log_weights = log_weights + observations.log_weights[blocks.frames()]
    shift = _without_common_shift(mbar, log_weights, mbar.influence(sums))
    response = Response(shift, csr_array(mbar.responsibilities.T))
    return WindowWeights(windows, blocks, log_weights, mbar, response, strain, expected, left_out, kept)


def _without_common_shift(mbar: MBAR, log_weights: FloatArray, influence: FloatArray) -> FloatArray:
    """Influences of the same change of weights, but for a common factor, that leave their sum as it is.

    One window's free energy is zero by definition. Where that window is a rare one, all others move against it, and to
    first order the sum of all weights could vanish.
    """
    weights = np.exp(log_weights - log_weights.max())
    shares = mbar.responsibilities.T @ weights / weights.sum()
    return influence - (influence @ shares)[:, None]


def _ratio_errors(weights: WindowWeights, known: IntArray) -> FloatArray:
    """Of the logarithms of restraint energies: that of one harmonic restraint has a variance of 2 (kT / 2)^2."""
    blocks = weights.blocks
    n_independent = np.maximum(np.bincount(blocks.stratum)[known] / blocks.correlation[known], 1.0)
    return np.asarray(np.sqrt(2.0 / n_independent))


def _unlike_windows(weights: WindowWeights, known: IntArray, ratios: FloatArray, along: str) -> list[str]:
    """A doubt where the windows' restraint energies deviate from what is predicted each in its own way."""
    deviations = np.abs(ratios - np.median(ratios))
    spread = 1.4826 * float(np.median(deviations))
    in_errors = 1.4826 * float(np.median(deviations / _ratio_errors(weights, known)))
    if len(known) < MIN_WINDOWS or spread < MAX_UNLIKE_STRAIN or in_errors < UNLIKE_STRAIN_ERRORS:
        return []
    low, high = np.exp(np.quantile(ratios, [0.1, 0.9]))
    return [
        f"the restraint energies of the windows' frames{along} are from {low:.2g} to {high:.2g} times what all windows "
        "together predict, which chance does not explain: check that all force constants are in one unit, and all "
        "centres"
    ]


def _odd_window(weights: WindowWeights, known: IntArray, ratios: FloatArray, along: str) -> list[str]:
    """A doubt about the one window whose restraint energy is not what the others predict, as theirs are."""
    deviations = ratios - np.median(ratios)
    spread = 1.4826 * float(np.median(np.abs(deviations)))
    errors = np.maximum(spread, _ratio_errors(weights, known))
    odd = np.abs(deviations) / np.maximum(MAX_ODD_STRAIN, ODD_STRAIN_ERRORS * errors)
    worst = int(odd.argmax())
    if len(known) < MIN_WINDOWS or odd[worst] < 1.0:
        return []
    return [
        f"the restraint energy of the frames of {weights.windows.describe(int(known[worst]))}{along} is "
        f"{np.exp(deviations[worst]):.2g} times what the other windows predict: check its file, centre and force "
        "constant, or sample it for longer"
    ]


def _strain_along(weights: WindowWeights, i: int, name: str) -> tuple[list[str], list[str]]:
    """Notes and doubts about the restraint energy along one coordinate."""
    strain, expected = weights.strain[:, i], weights.expected[:, i]
    known = (weights.windows.force_constants[:, i] > 0) & (expected > 0) & (strain > 0)
    if known.sum() < 2:
        return [], []
    ratios = np.log(strain[known] / expected[known])
    along = f" along {name}" if weights.strain.shape[1] > 1 else ""
    doubts = [
        *_odd_window(weights, np.flatnonzero(known), ratios, along),
        *_unlike_windows(weights, np.flatnonzero(known), ratios, along),
    ]
    limit = max(MAX_STRAIN_DEVIATION, STRAIN_ERRORS * float(ratios.std(ddof=1)) / np.sqrt(len(ratios)))
    median = float(np.median(strain[known]))
    if abs(ratios.mean()) > limit:
        return [], [
            *doubts,
            f"the restraint energy of the windows' frames{along}, {median:.2g} kT in the median, is "
            f"{np.exp(ratios.mean()):.2g} times what all windows together predict: check the force constants and "
            "centres, their units and form (`kappa_unit`, `centre_unit`, `form`)",
        ]
    if USUAL_RESTRAINT_ENERGIES[0] < median < USUAL_RESTRAINT_ENERGIES[1]:
        return [], doubts
    return [
        f"the restraint energy of the windows' frames{along} is {median:.2g} kT in the median, which is unusual: check "
        "the force constants and centres, and their units"
    ], doubts


def strain_notes(weights: WindowWeights, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Notes and doubts about the restraint energy of the windows' frames: both too much and too little are wrong.

    Args:
        weights: of the windows.
        names: of the coordinates that they restrain.
    """
    windows, strain = weights.windows, weights.strain.mean(axis=1)
    notes: list[str] = []
    doubts: list[str] = []
    worst = int(strain.argmax())
    if strain[worst] > MAX_RESTRAINT_ENERGY:
        doubts.append(
            f"the frames of {windows.describe(worst)} lie {strain[worst]:.0f} kT up its restraint in the mean: "
            "check its file, centre and force constant (radians, nm, kJ/mol)"
        )
    if windows.temperatures is not None:
        return notes, doubts
    for i, name in enumerate(names):
        more = _strain_along(weights, i, name)
        notes, doubts = notes + more[0], doubts + more[1]
    return notes, doubts


def window_notes(given: UmbrellaWindows, weights: WindowWeights, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Notes and doubts about windows: places without one, weak overlap, files that hardly belong to their windows."""
    windows = weights.windows
    notes: list[str] = []
    doubts: list[str] = []
    if weights.left_out:
        shown = ", ".join(weights.left_out[:3]) + (" ..." if len(weights.left_out) > 3 else "")
        doubts.append(
            f"{len(weights.left_out)} of {len(given)} windows overlap with none of the others and are left out "
            f"({shown}): sample windows in between"
        )
    if missing := given.missing_centres():
        places = ", ".join("(" + ", ".join(f"{x:.4g}" for x in place) + ")" for place in missing[:3])
        notes.append(f"the windows leave a gap of {len(missing)} in their grid, at {places}: sample a window there")
    if len(windows) > 1:
        first, second, overlap = weights.mbar.weakest_link()
        if overlap < OVERLAP_THRESHOLD:
            notes.append(
                f"{windows.describe(first)} and {windows.describe(second)} overlap by {overlap:.4f}, less than "
                f"{OVERLAP_THRESHOLD}: sample a window in between"
            )
    errors = np.sqrt((weights.response.influence**2).sum(axis=0))
    if errors.max() > MAX_FREE_ENERGY_ERROR:
        notes.append(
            f"the free energy of {windows.describe(int(errors.argmax()))} is known to {errors.max():.1f} kT only: "
            "sample for longer, or in more windows"
        )
    more = strain_notes(weights, names)
    notes, doubts = notes + more[0], doubts + more[1]
    if weights.blocks.stride > 1:
        notes.append(f"every {weights.blocks.stride}th frame of the windows is used")
    return notes, doubts
