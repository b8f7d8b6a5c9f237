"""Frames on both sides of places, counted against a plain count; around circles of any period, and on a line."""

import numpy as np
import pytest

from openmm_gancl.free_energy.mbar import solve_mbar
from openmm_gancl.free_energy.window_checks import strain_notes
from openmm_gancl.free_energy.window_consistency import N_PLACES, consistency_doubts, sides_of_places
from openmm_gancl.free_energy.window_weights import weigh_windows
from openmm_gancl.trajectories import UmbrellaWindows
from openmm_gancl.trajectories.blocks import independent_blocks
from openmm_gancl.trajectories.observations import Observations
from openmm_gancl.trajectories.series import Series
from openmm_gancl.units import thermal_energy

N_FRAMES, KT = 300, thermal_energy(300.0)
CENTRES = np.array([0.5, 1.5, 2.4])


def windows_and_frames(period):
    rng = np.random.default_rng(3)
    windows = UmbrellaWindows(("a", "b", "c"), CENTRES, np.full(3, 4.0))
    values = (CENTRES[:, None] + 0.5 * rng.normal(size=(3, N_FRAMES))).reshape(-1, 1)
    owner = np.repeat(np.arange(3), N_FRAMES)
    mbar = solve_mbar(windows.biases(values, np.array([period])), np.full(3, N_FRAMES))
    return windows, values, owner, mbar


@pytest.mark.parametrize("period", [np.inf, 2 * np.pi, 4.0])
def test_both_sides_are_counted(period):
    windows, values, owner, mbar = windows_and_frames(period)
    (found,) = sides_of_places(windows, values, owner, np.array([period]), mbar)
    shares = mbar.responsibilities.toarray()
    assert len(found.places) == N_PLACES
    for i, place in enumerate(found.places):
        ahead = values[:, 0] - place
        if np.isfinite(period):
            ahead = (ahead + 0.5 * period) % period - 0.5 * period
        near = np.abs(ahead) < 0.25 * period
        for side, mine in enumerate((near & (ahead < 0), near & (ahead >= 0))):
            assert found.own[side, :, i] == pytest.approx(np.bincount(owner[mine], minlength=3))
            assert found.predicted[side, :, i] == pytest.approx(shares[mine].sum(axis=0), abs=1e-9)


def test_turns_of_an_angle_change_nothing():
    windows, values, owner, mbar = windows_and_frames(2 * np.pi)
    turned = values + 2 * np.pi * np.random.default_rng(0).integers(-2, 3, values.shape)
    one, other = (sides_of_places(windows, x, owner, np.array([2 * np.pi]), mbar)[0] for x in (values, turned))
    assert (one.own == other.own).all() and one.predicted == pytest.approx(other.predicted)


def test_only_what_chance_does_not_explain_is_told():
    """Frames that are where they should be; the twins: one window's above its centre are gone, or below."""
    windows, values, owner, mbar = windows_and_frames(np.inf)
    inefficiency = np.ones(3)
    (sides,) = sides_of_places(windows, values, owner, np.array([np.inf]), mbar)
    assert not consistency_doubts(windows, [sides], inefficiency, ["x"])
    for side, word in ((values[:, 0] < CENTRES[1], "above"), (values[:, 0] >= CENTRES[1], "below")):
        stay = (owner != 1) | side
        counts = np.bincount(owner[stay])
        less = solve_mbar(windows.biases(values[stay], np.array([np.inf])), counts)
        found = sides_of_places(windows, values[stay], owner[stay], np.array([np.inf]), less)
        (doubt,) = consistency_doubts(windows, found, inefficiency, ["x"])
        assert f"0 % of the frames of b at (1.5) lie {word} x = 1.5" in doubt, doubt
        # as many frames as if hardly any were independent
        assert not consistency_doubts(windows, found, 100.0 * inefficiency, ["x"])


@pytest.mark.parametrize("n_windows", [2, 4])
def test_few_windows_of_few_frames_are_not_doubted(n_windows):
    """Sixty sets of normal deviates: the error of a mean of few restraint energies is not their spread alone."""
    doubted = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        centres = 0.3 * np.arange(n_windows)
        values = centres[:, None] + np.sqrt(KT / 100.0) * rng.normal(size=(n_windows, 60))
        series = Series(("x",), np.array([np.inf]), ("",), values.reshape(-1, 1), 60 * np.arange(n_windows + 1))
        windows = UmbrellaWindows(tuple("abcd"[:n_windows]), centres, np.full(n_windows, 100.0))
        observations = Observations(series, 1, 300.0, windows=windows, restrained=(0,))
        weights = weigh_windows(observations, independent_blocks(series, 0, windows=True))
        doubted += bool(strain_notes(weights, ["x"])[1])
    assert doubted <= 1
