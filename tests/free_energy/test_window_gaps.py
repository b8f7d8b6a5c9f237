"""Gaps between the frames of windows against a plain count of crossings, on a line and around circles of any period."""

import numpy as np
import pytest

from openmm_gancl.free_energy.window_gaps import MIN_CROSSINGS, Gap, gap_doubts, gaps_of_windows
from openmm_gancl.trajectories import UmbrellaWindows
from openmm_gancl.units import thermal_energy

N_FRAMES, N_WINDOWS, TEMPERATURE = 1000, 8, 300.0
WIDTH = 0.25
CENTRES = 0.5 * np.arange(N_WINDOWS)


def frames(places, rng):
    """Of windows held at ``CENTRES``, in blocks; none within 0.15 of one of the places."""
    found = []
    for centre in CENTRES:
        values = centre + WIDTH * rng.normal(size=40 * N_FRAMES)
        free = np.all([np.abs(values - place) > 0.15 for place in [*places, np.inf]], axis=0)
        found.append(values[free][:N_FRAMES])
    return np.array(found)


def gap_of(values, period, owner=None):
    constant = thermal_energy(TEMPERATURE) / WIDTH**2
    windows = UmbrellaWindows(tuple("abcdefgh"), CENTRES, np.full(N_WINDOWS, constant))
    owner = np.repeat(np.arange(N_WINDOWS), N_FRAMES) if owner is None else owner
    n_independent, covariance = np.full(N_WINDOWS, 500.0), 0.01 * np.eye(N_WINDOWS)
    (found,) = gaps_of_windows(
        windows, values.reshape(-1, 1), owner, n_independent, covariance, TEMPERATURE, np.array([period])
    )
    return found


def test_a_gap_and_its_crossings():
    values = frames([1.25], np.random.default_rng(0))
    values = np.where(np.arange(N_WINDOWS)[:, None] < 3, np.minimum(values, 2.5 - values), values)  # left ones stay
    values[3:] = np.maximum(values[3:], 2.5 - values[3:])
    assert (found := gap_of(values, np.inf)) and found.n_crossings == 0
    assert 1.05 < found.low < 1.11 and 1.39 < found.high < 1.45
    assert found.stated_error == pytest.approx(np.sqrt(0.02)) and found.error == np.inf
    there_and_back = values.copy()
    there_and_back[3, 100:105] = 2.5 - there_and_back[3, 100:105]
    assert gap_of(there_and_back, np.inf).n_crossings == 2
    assert gap_of(frames([], np.random.default_rng(0)), np.inf) is None


@pytest.mark.parametrize("period", [2 * np.pi, 4.0])
def test_around_a_circle_one_gap_joins_what_the_other_parts(period):
    """Where windows are all around; of 2 pi, none is between 3.5 and 6.28, which is no gap that one was held in."""
    rng = np.random.default_rng(1)
    one, two = frames([1.25], rng), frames([1.25, 2.75], rng)
    assert gap_of(one, period) is None
    two = two.reshape(-1)
    owner = np.repeat(np.arange(N_WINDOWS), N_FRAMES)
    inside = (two > 1.25) & (two < 2.75)
    for part in (inside, ~inside):  # no window crosses but at the order of the two
        assert part.sum() > N_FRAMES
    order = np.lexsort((inside, owner))
    found = gap_of(two[order], period, owner[order])
    assert found is not None and found.n_crossings < MIN_CROSSINGS
    turned = two + period * rng.integers(-2, 3, two.shape)
    again = gap_of(turned[order], period, owner[order])
    assert again.n_crossings == found.n_crossings and again.low == pytest.approx(found.low)


def test_a_tail_is_no_side():
    """Three frames of eight windows far beyond the others."""
    values = np.minimum(frames([], np.random.default_rng(2)), 2.5)
    values[7, :3] = 3.5
    assert gap_of(values, np.inf) is None


def test_what_is_a_doubt():
    """Fewer crossings than the error bars have counted on."""
    assert not gap_doubts([None, Gap(0.1, 0.3, MIN_CROSSINGS, 0.01)], ["x", "y"])
    assert not gap_doubts([Gap(0.1, 0.3, 4, 0.9)], ["x"])
    (doubt,) = gap_doubts([None, Gap(0.1, 0.3, 4, 0.2)], ["x", "y"])
    assert "between y = 0.1 and 0.3" in doubt and "came over it 4 times" in doubt and "to 1.0 kT at best" in doubt
    (doubt,) = gap_doubts([Gap(0.1, 0.3, 0, np.inf)], ["x"])
    assert "came over it never" in doubt and "is not known" in doubt
