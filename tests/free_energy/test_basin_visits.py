"""Populations that rest on few visits, or on what was cut, are doubted; and nothing that is right."""

import numpy as np
import pytest

from openmm_gancl.coordinates.basin import Basin
from openmm_gancl.free_energy import analyse, from_trajectories
from openmm_gancl.trajectories import read

MINOR = Basin("minor", [[[0.0, 4.0]]])
POPULATION, N_FRAMES, N_RUNS = 0.05, 4000, 40


def decayed(noise, correlation, start):
    """A series with exponential correlations."""
    series = np.empty(len(noise))
    series[0] = start
    for i in range(1, len(noise)):
        series[i] = correlation * series[i - 1] + np.sqrt(1 - correlation**2) * noise[i]
    return series


def two_states(rng, passages):
    """Two narrow wells at -1 and 1; so many passages on average."""
    rate = passages / N_FRAMES / (2 * POPULATION * (1 - POPULATION))
    stay, state = [], rng.random() < POPULATION
    while sum(map(len, stay)) < N_FRAMES:
        stay.append(np.full(rng.geometric(rate * (1 - POPULATION if state else POPULATION)), 2.0 * state - 1.0))
        state = not state
    return np.concatenate(stay)[:N_FRAMES] + 0.2 * decayed(rng.normal(size=N_FRAMES), 0.5, 0.0)


def analysed(series, tmp_path, basins=()):
    np.save(tmp_path / "x.npy", series)
    return analyse(read([], None, f"npy:{tmp_path / 'x.npy'}", 300.0), n_bootstrap=40, bins=40, basins=basins)


def far_off(passages, tmp_path):
    """Of runs without a doubt: how many, and the fraction whose population is beyond 3.5 of its errors."""
    scores = []
    for seed in range(N_RUNS):
        found = analysed(two_states(np.random.default_rng(seed), passages), tmp_path, [MINOR])
        row = found.basins[0]
        if not found.doubts:
            scores.append(abs(row.population - POPULATION) / row.population_error)
    return len(scores), np.mean(np.array(scores) > 3.5)


def test_populations_of_few_visits_are_doubted(tmp_path, monkeypatch):
    """Some ten visits a run: of those left hardly one is far off. The twin: without the checks, many are."""
    n, far = far_off(20, tmp_path)
    assert n >= 10 and far <= 0.1
    monkeypatch.setattr(from_trajectories, "basin_notes", lambda *_, **__: ([], []))
    n, far = far_off(20, tmp_path)
    assert n >= 20 and far > 0.15


def test_a_basin_that_only_cut_frames_came_into(tmp_path):
    """Three visits in the first third: the rest has the most independent samples, and no second well."""
    rng = np.random.default_rng(1)
    series = -1.0 + 0.2 * decayed(rng.normal(size=N_FRAMES), 0.5, 0.0)
    for begin in (300, 700, 1100):
        series[begin : begin + 60] += 2.0
    found = analysed(series, tmp_path, [MINOR])
    assert found.blocks.discarded[0] > 1000 and found.basins[0].population < 1e-3
    assert any("cut as equilibration, came 3 times into the basin near x = " in one for one in found.doubts)


@pytest.mark.parametrize("n_visits", [5, 30])
def test_visits_are_counted(n_visits, tmp_path):
    rng = np.random.default_rng(2)
    series = -1.0 + 0.2 * decayed(rng.normal(size=N_FRAMES), 0.5, 0.0)
    for begin in np.linspace(50, N_FRAMES - 120, n_visits).astype(int):
        series[begin : begin + 40] += 2.0
    doubts = analysed(series, tmp_path).doubts
    assert [f"came only {n_visits} times into the basin near" in one for one in doubts] == [True] * (n_visits == 5)
    named = analysed(series, tmp_path, [MINOR]).doubts
    assert [f"came only {n_visits} times into minor near" in one for one in named] == [True] * (n_visits == 5)


def test_a_well_beyond_the_surface_is_said(tmp_path):
    rng = np.random.default_rng(3)
    series = -1.0 + 0.2 * decayed(rng.normal(size=N_FRAMES), 0.5, 0.0)
    assert not any("independent samples lie beyond" in one for one in analysed(series, tmp_path).notes)
    series[2000:2020] += 4.0
    (note,) = [one for one in analysed(series, tmp_path).notes if "independent samples lie beyond" in one]
    assert note.startswith("x is from -1.") and " to 3." in note
    doubts = analysed(series, tmp_path, [Basin("far", [[[2.0, 4.0]]])]).doubts
    assert any("far lies beyond the surface" in one for one in doubts)


@pytest.mark.parametrize(
    "make",
    [
        lambda rng: decayed(rng.normal(size=N_FRAMES), np.exp(-1 / 20), 0.0),
        lambda rng: decayed(rng.normal(size=N_FRAMES), np.exp(-1 / 40), 10.0),
        lambda rng: np.where(rng.random(N_FRAMES) < 0.03, 2.0, -2.0) + 0.3 * rng.normal(size=N_FRAMES),
        lambda rng: two_states(rng, 400),
    ],
    ids=["one well", "equilibration", "independent frames", "many visits"],
)
def test_what_is_right_is_not_doubted(make, tmp_path):
    """Five runs each: a false alarm in 20 would be seen in a quarter of these tests."""
    for seed in range(5):
        assert not analysed(make(np.random.default_rng(seed)), tmp_path).doubts


@pytest.mark.parametrize("stay", [True, False], ids=["each in its own", "all in both"])
def test_trajectories_that_stay_where_they_began_are_a_doubt(tmp_path, stay):
    """Two wells, and as many runs as begin in the first: their populations are those of the beginnings."""
    rng = np.random.default_rng(0)
    paths = []
    for i in range(36):
        well = np.full(200, i % 3 == 0) if stay else np.repeat(rng.random(20) < 1 / 3, 10)
        paths.append(tmp_path / f"{i}.dat")
        np.savetxt(paths[-1], 2.0 * well - 1.0 + 0.2 * rng.normal(size=200))
    doubts = analyse(read([], None, "column:1", 300.0, colvar=paths), n_bootstrap=20, bins=40, discard=0).doubts
    assert ["stays in a place of its own" in doubt for doubt in doubts] == [True] * stay
