"""The benchmark of peers measures what it says: errors, counts and umbrella sampling against what is known."""

import json

import numpy as np
import pytest

from tests.benchmarks import efficiency
from tests.benchmarks.efficiency import Estimate, accuracy, bin_energies, mbar_surface, table, walk

EDGES = np.linspace(-np.pi, np.pi, 73)


def energy(x, y):
    """KT."""
    return 2.0 * np.cos(x) + 1.5 * np.cos(2 * y - 0.6) + np.sin(x + y)


def binned(n_fine=16):
    axis = (np.arange(72 * n_fine) + 0.5) * 2 * np.pi / (72 * n_fine) - np.pi
    density = np.exp(-energy(axis[:, None], axis[None]))
    return -np.log(density.reshape(72, n_fine, 72, n_fine).mean(axis=(1, 3)))


def test_a_table_at_nodes_gives_the_energies_of_bins():
    axis = np.linspace(-np.pi, np.pi, efficiency.NODES)
    found = bin_energies(energy(axis[:, None], axis[None]), 72)
    assert np.abs(found - binned()).max() < 1e-3


def test_what_is_missing_counts_as_ten_kT():
    reference = np.array([[0.0, 2.0], [6.0, 9.0]])
    exact = accuracy(reference + 3.0, np.full((2, 2), True), reference)
    assert exact == {"rms_kT": 0.0, "finite_fraction": 1.0}
    lacking = np.array([[3.0, 5.0], [np.inf, np.nan]])
    found = accuracy(lacking, np.isfinite(lacking), reference)
    assert found["rms_kT"] == pytest.approx(np.std([0.0, 0.0, 4.0]), abs=1e-4)
    assert found["finite_fraction"] == pytest.approx(2 / 3, abs=1e-4)
    assert accuracy(np.minimum(lacking, 40.0), np.isfinite(lacking), reference) == found


@pytest.mark.parametrize("per_axis", [6, 12])
def test_windows_drawn_exactly_give_the_surface(per_axis):
    """Ten frames a bin, over 36 bins, are 0.05 kT; the constants of MBAR add a little."""
    rng, axis = np.random.default_rng(0), (EDGES[:-1] + EDGES[1:]) / 2
    places = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    middle = (np.arange(per_axis) + 0.5) * 2 * np.pi / per_axis - np.pi
    centres = np.stack(np.meshgrid(middle, middle, indexing="ij"), axis=-1).reshape(-1, 2)
    stiffness, windows = (np.pi / per_axis) ** -2, []
    for centre in centres:
        u = energy(*places.T) + stiffness * (1.0 - np.cos(places - centre)).sum(axis=1)
        weights = np.exp(u.min() - u)
        drawn = places[rng.choice(len(places), 50_000 // len(centres), p=weights / weights.sum())]
        windows.append(drawn)
    deviation = mbar_surface(windows, centres, stiffness, EDGES, 1.0) - energy(*places.T).reshape(72, 72)
    assert deviation.reshape(12, 6, 12, 6).mean(axis=(1, 3)).std() < 0.1


def test_a_walk_takes_every_window_once_from_one_before():
    axis = np.linspace(-np.pi, np.pi, 8)[:-1]
    centres = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    steps = list(walk(centres, np.array([0.1, 0.2])))
    assert sorted(window for window, _ in steps) == list(range(len(centres)))
    before = {-1}
    for window, source in steps:
        assert source in before
        before.add(window)
        if source >= 0:
            assert (1.0 - np.cos(centres[window] - centres[source])).sum() < 1.01 * (1.0 - np.cos(2 * np.pi / 7))


@pytest.mark.parametrize("name", list(efficiency.METHODS))
def test_every_evaluation_counts(name, monkeypatch):
    monkeypatch.setattr(efficiency, "BUDGETS", (9000, 12_000))
    found = efficiency.count_evaluations(name, "alanine_dipeptide_vacuum")
    assert found["counted"] == pytest.approx(found["evaluations"], rel=0.01)
    assert found["evaluations"] <= (21_000 if name in {"umbrella", "triangular"} else 12_000)


def test_files_are_made_once_and_tabled(tmp_path, monkeypatch, capsys):
    calls = []

    def estimates(target, system, seed, budgets, settings, edges):
        calls.append(seed)
        surface = np.add.outer(0.01 * seed * np.arange(72.0), np.zeros(72))
        yield Estimate(budgets[0], surface, surface > -1, 11_990)

    method = efficiency.Method(estimates, efficiency.Plain())
    monkeypatch.setattr(efficiency, "METHODS", {"plain": method})
    for seeds in ([1, 2], [1, 2, 3]):
        efficiency.run_missing(["plain"], seeds, "alanine_dipeptide_vacuum", tmp_path, False)
    assert calls == [1, 2, 3]
    assert capsys.readouterr().out.split() == ["plain-1", "plain-2", "plain-3"]
    results = efficiency.load_results(tmp_path)
    assert [one["evaluations"] for one in results["plain"][12_000]] == [11_990] * 3
    assert "| 12,000 | " in table(results)
    efficiency.plot(results, "alanine_dipeptide_vacuum", tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 1000


def test_surfaces_of_runs_are_added_budget_by_budget(tmp_path):
    edges, reference, _ = efficiency.load_reference("alanine_dipeptide_vacuum")
    kT = efficiency.load_system("alanine_dipeptide_vacuum").kT
    path, arguments = tmp_path / "fes.npz", ("alanine_dipeptide_vacuum", tmp_path)
    np.savez(path, energy=reference * kT, edges_0=edges, edges_1=edges, force_evaluations=17_000)
    efficiency.add_surface(path, "lifts", 4, 18_000, *arguments)
    efficiency.add_surface(path, "lifts", 4, 30_000, *arguments)
    result = json.loads((tmp_path / "lifts-4.json").read_text())
    assert result["budgets"]["18000"] == {"rms_kT": 0.0, "finite_fraction": 1.0, "evaluations": 17_000}
    assert list(result["budgets"]) == ["18000", "30000"]


def test_committed_results_are_small_and_whole():
    for path in efficiency.RESULTS.rglob("*.json"):
        result = json.loads(path.read_text())
        assert path.stat().st_size < 2048, path
        assert path.stem == f"{result['method']}-{result['seed']}"
        assert set(result) == {"system", "method", "seed", "settings", "versions", "budgets"}
        for budget, values in result["budgets"].items():
            assert set(values) == {"rms_kT", "finite_fraction", "evaluations"}
            assert 0.9 * int(budget) < values["evaluations"] < 1.01 * int(budget), path
