"""Draws whose coordinates stay in files are the same draws."""

import numpy as np
import pytest

from openmm_gancl.free_energy import label_tables
from openmm_gancl.free_energy.label_functions import LabelFunctions
from openmm_gancl.free_energy.label_tables import LabelTables
from openmm_gancl.lifting import loop as loop_module
from openmm_gancl.lifting.draws import join_draws, load_draws, save_draws
from openmm_gancl.lifting.loop import Loop
from openmm_gancl.lifting.loop_options import LoopOptions
from openmm_gancl.lifting.stored_rows import StoredRows, join_rows
from openmm_gancl.sampling.short_windows import ShortWindows
from openmm_gancl.system.library import load_system

MANY = LoopOptions(windows=ShortWindows(8, 50, 10, 2), n_first=300)


@pytest.fixture
def rows(tmp_path):
    whole = np.random.default_rng(1).normal(size=(17, 3))
    for number, part in enumerate((whole[:5], whole[5:6], whole[9:])):
        np.save(tmp_path / f"{number}.npy", part)
    parts = [tmp_path / "0.npy", tmp_path / "1.npy", whole[6:9], tmp_path / "2.npy"]
    return whole, StoredRows(parts)


@pytest.mark.parametrize(
    "index",
    [
        np.arange(17) % 3 == 0,
        np.array([16, 0, 5, 5, 8]),
        slice(4, 12),
        slice(None),
        np.array([], dtype=int),
        (slice(None), [2, 0]),
        (slice(2, 9), slice(1, 3)),
    ],
)
def test_rows_are_those_of_the_array(rows, index):
    whole, stored = rows
    np.testing.assert_array_equal(stored[index], whole[index])
    assert len(stored) == 17 and stored.shape == whole.shape
    np.testing.assert_array_equal(np.asarray(join_rows([stored, whole])), np.concatenate([whole, whole]))


def rounds_of(loop, folders=None):
    """All draws of a loop, and its surface."""
    for step in loop.steps():
        if folders is None or not step.draws:
            step.accept(step.compute())
            continue
        (folder := folders / step.name).mkdir(parents=True)
        found = step.compute(folder)
        save_draws(found.draws, folder / "lifts.npz")
        step.accept(loop_module.replace(found, draws=load_draws(folder / "lifts.npz")))
    return join_draws(loop.drawn), loop.surface()


def loop_of():
    return Loop(load_system("double_well_oscillators"), seed=3, max_evaluations=1700, options=MANY)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Of the same loop: draws in memory with their surface, and in files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop_module, "ROWS_AT_ONCE", 200)
        return rounds_of(in_memory := loop_of()), rounds_of(loop_of(), tmp_path_factory.mktemp("draws")), in_memory


def test_a_loop_that_keeps_draws_in_files_draws_the_same(both):
    (in_memory, surface), (stored, again), _ = both
    assert isinstance(in_memory.coordinates, np.ndarray) and isinstance(stored.coordinates, StoredRows)
    assert len(stored.coordinates.parts) > 4
    for name in ("coordinates", "gradients", "log_target", "log_density", "labels", "reason", "round"):
        np.testing.assert_array_equal(np.asarray(getattr(stored, name)), getattr(in_memory, name))
    np.testing.assert_array_equal(again.energy, surface.energy)


def test_parts_in_another_order_would_show(both):
    """The twin: weights would belong to other structures, and nothing else would tell."""
    stored, slow = both[1][0], load_system("double_well_oscillators").slow
    turned = StoredRows(stored.coordinates.parts[::-1])
    index = slow.components[:, 0] * 3 + slow.components[:, 1]
    assert np.abs(stored.coordinates[:, index] - stored.labels).max() < 1e-9
    assert np.abs(turned[:, index] - stored.labels).max() > 1


def test_a_fit_sees_so_many_draws_at_most(both, monkeypatch):
    loop = both[2]
    every = loop._training_structures()
    monkeypatch.setattr(loop_module, "MOST_TRAINING", 300)
    some = loop._training_structures()
    n_frames = len(loop.frames.weights)
    assert len(some.weights) == n_frames + 300 < len(every.weights)
    # in the mean each counts for as many as it stands for
    ratio = some.weights[n_frames:].sum() / every.weights[n_frames:].sum()
    assert abs(ratio - 1) < 4 * every.weights[n_frames:].std() / every.weights[n_frames:].mean() / np.sqrt(300)


@pytest.mark.parametrize("system", ["double_well_oscillators", "alanine_dipeptide_vacuum"])
def test_tables_that_are_not_kept_give_the_same_sums(system, monkeypatch):
    slow = load_system(system).slow
    functions, rng = LabelFunctions(slow), np.random.default_rng(2)
    places = rng.uniform(*slow.domain.T, size=(2500, len(slow.names)))
    weights, coefficients = rng.normal(size=2500), rng.normal(size=len(functions))
    kept = LabelTables(functions, places)
    monkeypatch.setattr(label_tables, "MOST_KEPT_WAVES", 0)
    anew = LabelTables(functions, places)
    for axis in (None, *range(len(slow.names))):
        np.testing.assert_array_equal(anew.combine(coefficients, axis), kept.combine(coefficients, axis))
        np.testing.assert_array_equal(anew.project(weights, axis), kept.project(weights, axis))
    np.testing.assert_array_equal(anew.gram(weights), kept.gram(weights))
