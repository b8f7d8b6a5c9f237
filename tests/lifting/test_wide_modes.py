"""Modes of wide coordinates: where they end, and how often frames, lifts and the check are in them."""

import numpy as np
import pytest

from openmm_gancl.lifting.wide_modes import mode_edges, mode_rows, windows_that_changed

CENTRES, SHARES = np.array([np.pi, -1.0, 1.1]), np.array([0.6, 0.3, 0.1])


def angles(n, seed=1, shares=SHARES):
    rng = np.random.default_rng(seed)
    return np.angle(np.exp(1j * rng.vonmises(CENTRES[rng.choice(3, n, p=shares)], 20.0)))


def test_three_modes_have_edges_between_them():
    edges = mode_edges(angles(5000), np.ones(5000))
    assert len(edges) == 3
    assert -2.6 < edges[0] < -1.6 and -0.5 < edges[1] < 0.6 and 1.6 < edges[2] < 2.6


def test_one_mode_and_none():
    rng = np.random.default_rng(2)
    assert len(mode_edges(rng.vonmises(3.0, 20.0, 5000), np.ones(5000))) == 0
    assert len(mode_edges(rng.uniform(-np.pi, np.pi, 5000), np.ones(5000))) == 0


def test_rows_say_what_frames_lifts_check_and_weights_have():
    """Lifts drawn evenly over the modes, weighted to their shares; the twin without weights has a third in each."""
    drawn = angles(30_000, shares=np.full(3, 1 / 3))[:, None]
    nearest = np.abs(np.exp(1j * drawn) - np.exp(1j * CENTRES)).argmin(axis=1)
    log_weights = np.log(SHARES[nearest])
    rows = mode_rows(["chi"], angles(300, seed=5)[:, None], drawn, log_weights, np.full((4, 1), -1.0))
    assert [row.name for row in rows] == ["chi"] * 3
    by_place = {round(float(np.angle(np.exp(0.5j * (row.low + row.high)))), 0): row for row in rows}
    populations = sorted(row.weight for row in rows)
    errors = [row.weight_error for row in sorted(rows, key=lambda row: row.weight)]
    assert np.abs((np.array(populations) - np.sort(SHARES)) / errors).max() < 4.0
    assert max(errors) < 0.005 and all(abs(row.lifts - 1 / 3) < 0.02 for row in rows)
    assert sorted(row.check for row in rows) == [0.0, 0.0, 1.0] and by_place[-1.0].check == 1.0
    assert sum(row.frames for row in rows) == pytest.approx(1.0)
    unweighted = mode_rows(["chi"], drawn, drawn, np.zeros(len(drawn)), drawn[:0])
    assert all(abs(row.weight - 1 / 3) < 0.02 and np.isnan(row.check) for row in unweighted)


def test_windows_that_change_their_mode_are_counted():
    lifts = angles(3000)[:, None]
    check = np.full((4, 5, 1), -1.0)
    check[1, 3:] = 1.1
    check[2, 2] = np.nan
    # the same mode on either side of the cut of the circle
    check[3] = np.array([3.0, -3.0, 3.1, -3.1, 3.0])[:, None]
    assert windows_that_changed(check, lifts, np.zeros(3000)) == 1
