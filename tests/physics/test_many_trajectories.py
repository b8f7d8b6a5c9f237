"""Many trajectories, each shorter than a slow motion: their spread sets the error bars, and a drift of all is a doubt.

A state that seldom changes moves the coordinate, or makes it wider. The exact surface is that of both states together.
"""

import numpy as np
import pytest

from openmm_gancl.free_energy import analyse, basin_visits, from_trajectories
from openmm_gancl.trajectories import blocks
from openmm_gancl.trajectories.observations import Observations
from openmm_gancl.trajectories.series import Series
from openmm_gancl.units import thermal_energy

TEMPERATURE = 300.0
KT = thermal_energy(TEMPERATURE)


def states(rng, shape, jumps, first=None):
    """Of each trajectory, 0 or 1, with so many changes in the mean; ``first`` of all, else in equilibrium."""
    begin = rng.random(shape[0]) < 0.5 if first is None else np.full(shape[0], first)
    changes = np.cumsum(rng.random(shape) < jumps / shape[1], axis=1)
    return (begin[:, None] + changes) % 2


def decaying(rng, shape, time):
    """Gaussian numbers of unit variance, correlated over such a time."""
    rho, x = np.exp(-1.0 / time), rng.normal(size=shape)
    for i in range(1, shape[1]):
        x[:, i] = rho * x[:, i - 1] + np.sqrt(1.0 - rho**2) * x[:, i]
    return x


def sampled(seed, shape, jumps, means, widths, first=None):
    """Trajectories, shape=(n_trajectories, n_frames)."""
    rng = np.random.default_rng(seed)
    state = states(rng, shape, jumps, first)
    return np.array(means)[state] + np.array(widths)[state] * decaying(rng, shape, 1.5)


def observed(trajectories):
    starts = np.cumsum([0, *map(len, trajectories)])
    values = np.concatenate(trajectories)[:, None].astype(np.float32)
    return Observations(Series(("x",), np.array([np.inf]), ("",), values, starts), 1, TEMPERATURE)


def analysed(trajectories):
    return analyse(observed(trajectories), bins=30, discard=0, n_bootstrap=60)


def deviation(surface, means, widths):
    """Root mean square of z below 6 kT."""
    (edges,) = surface.edges
    x = edges[:-1, None] + np.diff(edges)[:, None] * (np.arange(20) + 0.5) / 20
    density = sum(np.exp(-0.5 * ((x - m) / w) ** 2) / w for m, w in zip(means, widths, strict=True)).mean(axis=1)
    exact, energy, error = -np.log(density), surface.energy / KT, surface.error / KT
    low = (exact - exact.min() < 6.0) & (energy < 10.0)
    difference = (energy - exact)[low]
    z = (difference - difference.mean()) / error[low]
    return float(np.sqrt((z**2).mean()))


def pooled_deviation(means, widths, n_sets):
    """Of sets of ten trajectories, half of which change once."""
    sets = (sampled(seed, (10, 1000), 0.5, means, widths) for seed in range(n_sets))
    z = np.array([deviation(analysed(one).surface, means, widths) for one in sets])
    return float(np.sqrt((z**2).mean()))


@pytest.mark.parametrize(("means", "widths"), [((0.0, 0.8), (1.0, 1.0)), ((0.0, 0.0), (1.0, 0.3))])
def test_bars_hold_what_trajectories_differ_by(means, widths, monkeypatch):
    """A slow state that shifts the coordinate, and one that makes it wider; the twin: each trajectory by itself."""
    together = pooled_deviation(means, widths, 10)
    monkeypatch.setattr(blocks, "_spread_inefficiency", lambda *_: 1.0)
    alone = pooled_deviation(means, widths, 10)
    assert together < 1.6 < 1.7 < alone, (together, alone)


WELLS = (-1.0, 1.0), (0.3, 0.3)


def begun(first, seed):
    """Two hundred short trajectories."""
    return analysed(sampled(seed, (200, 60), 0.45, *WELLS, first))


def test_trajectories_that_all_begin_in_one_well_are_a_doubt(monkeypatch):
    """The twin begins in equilibrium; and without the check some are wrong and nothing is said."""
    for seed in range(6):
        analysis = begun(0, seed)
        assert deviation(analysis.surface, *WELLS) > 4.0
        (doubt,) = [one for one in analysis.doubts if "the trajectories drift" in one]
        assert "% of the earlier halves of them lie above x = " in doubt and "sample each for longer" in doubt
        right = begun(None, seed)
        assert deviation(right.surface, *WELLS) < 4.0 and not any("drift" in one for one in right.doubts)
    monkeypatch.setattr(from_trajectories, "drift_doubts", lambda *_: [])
    assert any(not begun(0, seed).doubts for seed in range(6))


def right_sets(n):
    """Short and long, correlated and not, of two states, skew, and of uneven lengths."""
    rng = np.random.default_rng(1)
    for k in range(n):
        shape, time = (int(rng.choice([8, 20, 60])), int(rng.choice([20, 60, 200]))), rng.choice([0.5, 5.0, 100.0])
        x = decaying(rng, shape, time)
        if k % 4 == 1:
            state = states(rng, shape, rng.choice([0.3, 3.0]))
            x = np.array([-1.0, 1.0])[state] + np.array([1.0, 0.3])[state] * x
        lengths = rng.integers(shape[1] // 4, shape[1] + 1, shape[0]) if k % 4 > 1 else np.full(shape[0], shape[1])
        yield [(np.exp(row) if k % 4 == 2 else row)[:length] for row, length in zip(x, lengths, strict=True)]


def alarms(n):
    """How many right sets have a drift."""
    found = 0
    for k, one in enumerate(right_sets(n)):
        series = observed(one).series
        frames = blocks.independent_blocks(series, 0)
        logs = 0.7 * series.values[frames.frames(), 0].astype(float) if k % 5 == 0 else None
        found += bool(basin_visits.drift_doubts(series, 1, frames, logs))
    return found


def test_right_sets_do_not_drift():
    assert alarms(100) == 0


@pytest.mark.slow
def test_false_alarms():
    """At most one in 300."""
    assert alarms(900) <= 3


def test_trajectories_that_do_not_move_by_themselves():
    """Constant ones, each in its own place, and one among others: no drift, no division by zero."""
    rng = np.random.default_rng(0)
    still = observed([np.full(30, x) for x in rng.normal(size=12)]).series
    mixed = observed([*decaying(rng, (12, 200), 2.0), np.zeros(200)]).series
    for series in (still, mixed):
        assert not basin_visits.drift_doubts(series, 1, blocks.independent_blocks(series, 0), None)
