"""What the user should know about umbrella windows: gaps, weak overlap, files that hardly belong to them, barriers."""

from collections.abc import Sequence

import numpy as np

from ..trajectories.umbrella import UmbrellaWindows
from ..units import FloatArray, IntArray
from .window_consistency import consistency_doubts
from .window_gaps import gap_doubts
from .window_weights import WindowWeights

OVERLAP_THRESHOLD = 0.03
"""Overlap of two windows below which another one is needed between them (Klimovich, Shirts, Mobley 2015, doi
10.1007/s10822-015-9840-9)."""

MAX_RESTRAINT_ENERGY = 10.0
"""kT of restraint energy per coordinate, in the mean, above which a window and its file hardly belong together."""

USUAL_RESTRAINT_ENERGIES = (0.25, 2.5)
"""kT of restraint energy per coordinate, in the median over the windows, outside of which a note says so: half a kT
where the surface is even."""

MAX_STRAIN_DEVIATION, STRAIN_ERRORS = 0.1, 4.0
"""The mean over windows of log(restraint energy found / predicted by all windows), and that in its standard errors:
more tells of centres or force constants that are not those of the run (compare Zhu and Hummer 2012, doi
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
    rows, ratios = np.flatnonzero(known), np.log(strain[known] / expected[known])
    along = f" along {name}" if weights.strain.shape[1] > 1 else ""
    doubts = [
        *_odd_window(weights, rows, ratios, along),
        *_unlike_windows(weights, rows, ratios, along),
    ]
    # of few windows the spread is known badly
    n, errors = len(ratios), _ratio_errors(weights, rows)
    error = max(float(ratios.std(ddof=1)) / np.sqrt(n), float(np.linalg.norm(errors)) / n)
    limit = max(MAX_STRAIN_DEVIATION, STRAIN_ERRORS * error)
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
    doubts = doubts or consistency_doubts(windows, weights.sides, weights.inefficiency, names)
    doubts = doubts or gap_doubts(weights.gaps, names)
    if weights.blocks.stride > 1:
        notes.append(f"every {weights.blocks.stride}th frame of the windows is used")
    return notes, doubts
