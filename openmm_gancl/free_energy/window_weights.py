"""Weights of the frames of umbrella windows, and how they follow the windows' free energies."""

from collections.abc import Iterator
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
from .window_consistency import SidesOfPlaces, sides_of_places
from .window_gaps import Gap, gaps_of_windows

CHUNK_SIZE = 1_000_000
"""Frames times windows in one batch."""

N_INITIAL_FRAMES = 50
"""Frames of each window that the free energies are first estimated from."""

MAX_BIASES = 40_000_000
"""Frames times windows; more frames are thinned out."""


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
        sides: where each window's frames are along each coordinate, and where all windows together predict them.
        gaps: between the frames along each coordinate, where there is one that is no chance.
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
    sides: list[SidesOfPlaces]
    gaps: list[Gap | None]
    left_out: list[str]
    kept: IntArray

    @property
    def inefficiency(self) -> FloatArray:
        """Frames of each window that count as one, at least one, shape=(n_windows,)."""
        return _inefficiency(self.blocks)


def _inefficiency(blocks: Blocks) -> FloatArray:
    n_independent = np.bincount(blocks.stratum) / blocks.correlation
    return np.asarray(np.maximum(np.bincount(blocks.stratum, blocks.sizes) / n_independent, 1.0))


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

    def places(blocks: Blocks) -> tuple[FloatArray, IntArray]:
        values = np.asarray(series.values[blocks.frames()][:, columns], dtype=float)
        return values, np.repeat(blocks.stratum, blocks.sizes)

    def solve(
        windows: UmbrellaWindows, blocks: Blocks, start: FloatArray | None
    ) -> tuple[MBAR, FloatArray, FloatArray]:
        n, frames, (values, owner) = len(windows), blocks.frames(), places(blocks)
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
    log_weights = mbar.log_weights
    if observations.log_weights is not None:  # of a bias that is part of the potential that MBAR joins
        log_weights = log_weights + observations.log_weights[blocks.frames()]
    response = _response(mbar, blocks, log_weights)
    values, owner = places(blocks)
    sides = sides_of_places(windows, values, owner, periods, mbar)
    n_independent, covariance = mbar.counts / _inefficiency(blocks), response.influence.T @ response.influence
    gaps = gaps_of_windows(windows, values, owner, n_independent, covariance, observations.temperature, periods)
    return WindowWeights(windows, blocks, log_weights, mbar, response, strain, expected, sides, gaps, left_out, kept)


def _response(mbar: MBAR, blocks: Blocks, log_weights: FloatArray) -> Response:
    """How the weights of the frames follow the windows' free energies."""
    block_of_frame = np.repeat(np.arange(len(blocks.start)), blocks.sizes)
    n = len(block_of_frame)
    pick = csr_array((np.ones(n), (block_of_frame, np.arange(n))), shape=(len(blocks.start), n))
    sums = np.asarray((pick @ mbar.responsibilities).toarray())
    np.subtract.at(sums, (np.arange(len(blocks.start)), blocks.stratum), blocks.sizes)
    shift = _without_common_shift(mbar, log_weights, mbar.influence(sums))
    return Response(shift, csr_array(mbar.responsibilities.T))


def _without_common_shift(mbar: MBAR, log_weights: FloatArray, influence: FloatArray) -> FloatArray:
    """Influences of the same change of weights, but for a common factor, that leave their sum as it is.

    One window's free energy is zero by definition. Where that window is a rare one, all others move against it, and to
    first order the sum of all weights could vanish.
    """
    weights = np.exp(log_weights - log_weights.max())
    shares = mbar.responsibilities.T @ weights / weights.sum()
    return influence - (influence @ shares)[:, None]
