"""Angles without their period: certain ones are refused, doubtful ones noted, distances left alone."""

import numpy as np
import pytest

from openmm_gancl import InputError
from openmm_gancl.trajectories.periods import check_period, check_same_turn, check_turns

N = 4000


def walk(seed, step):
    """An angle that diffuses around the circle, in (-pi, pi)."""
    x = np.cumsum(np.random.default_rng(seed).normal(0, step, N))
    return (x + np.pi) % (2 * np.pi) - np.pi


@pytest.mark.parametrize("scale", [1.0, 180 / np.pi])
@pytest.mark.parametrize("low", [-1.0, 0.0])
@pytest.mark.parametrize("kind", ["diffusing", "independent"])
def test_an_angle_without_its_period_is_refused(scale, low, kind):
    values = walk(0, 0.3) if kind == "diffusing" else np.random.default_rng(1).uniform(-np.pi, np.pi, N)
    values = scale * (values if low < 0 else values % (2 * np.pi))
    unit = "2pi" if scale == 1 else "360"
    with pytest.raises(InputError, match=f"column:x:{unit}, or column:x:none"):
        check_period("x", "column:x", values, np.inf, [0, N])
    assert check_period("x", "column:x", values, 2 * np.pi * scale, [0, N]) == ""
    with pytest.raises(InputError, match="has a period of"):
        check_period("x", "column:x", values, 360.0 if scale == 1 else 2 * np.pi, [0, N])


@pytest.mark.parametrize(
    "values",
    [
        np.random.default_rng(2).normal(0.0, 1.0, N),
        np.random.default_rng(3).uniform(0.0, 5.5, N),
        np.random.default_rng(4).uniform(2.0, 9.0, N),
        walk(6, 0.02)[:200],
    ],
    ids=["normal", "even", "elsewhere", "an angle that stays"],
)
def test_what_may_be_no_angle_is_not_refused(values):
    note = check_period("x", "column:x", values, np.inf, [0, len(values)])
    assert note == "" or "if it is an angle, give the period" in note


def test_jumps_from_one_trajectory_to_the_next_are_none():
    values = np.concatenate([np.full(10, 3.1), np.full(10, -3.1)] * 20)
    starts = np.arange(0, len(values) + 1, 10)
    assert check_period("x", "column:x", values, np.inf, starts) == ""
    with pytest.raises(InputError):
        check_period("x", "column:x", values, np.inf, [0, len(values)])


def test_a_period_given_for_a_column_that_has_another_is_refused():
    check_same_turn("x", 2 * np.pi, np.pi)
    check_same_turn("x", 2 * np.pi, None)
    for own, given in ((2 * np.pi, 360.0), (360.0, 2 * np.pi), (2 * np.pi, 3.0)):
        with pytest.raises(InputError, match="by its file's SET lines"):
            check_same_turn("x", own, given)


@pytest.mark.parametrize("low", [-180.0, 0.0])
def test_degrees_with_a_period_in_radians_are_refused(low):
    values = np.random.default_rng(7).uniform(low + 40, low + 320, N)  # which never go across the edge
    assert check_period("x", "column:x", values, 2 * np.pi, [0, N]) == ""
    with pytest.raises(InputError, match="as angles in degrees do: give column:x:360"):
        check_turns("x", "column:x", values, 2 * np.pi, [0, N])
    # the twins: their own period, a part of it, and an angle in radians that was made continuous
    for period in (360.0, 120.0):
        check_turns("x", "column:x", values, period, [0, N])
    check_turns("x", "column:x", np.cumsum(np.random.default_rng(8).normal(0, 0.5, N)), 2 * np.pi, [0, N])
