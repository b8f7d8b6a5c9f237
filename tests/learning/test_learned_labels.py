"""Labels of frames that are repeated, few, broken, in angstrom or cut: learned all the same, refused, or a doubt."""

import numpy as np
import pytest

import openmm_gancl as gancl
from openmm_gancl import InputError
from openmm_gancl.learning import learned_labels
from openmm_gancl.learning.diffusion_map import DiffusionMap
from openmm_gancl.learning.spectrum import select_coordinates

from .test_distillation import turned


@pytest.fixture(scope="module")
def system():
    return gancl.load_system("alanine_dipeptide_vacuum")


@pytest.fixture(scope="module")
def positions():
    return turned(800).xyz.astype(float)


def every_one(points):
    """The twin of `distinct`: no frame is the same as another."""
    return np.arange(len(points)), np.arange(len(points))


def test_a_frame_given_several_times_weighs_so_many_times(monkeypatch):
    points = np.random.default_rng(0).uniform(0, 1, (600, 2)) * [1.0, 0.5]
    repeats = np.where(np.arange(600) < 60, 20, 1)
    several, places = np.repeat(points, repeats, axis=0), np.repeat(np.arange(600), repeats)
    once, often = DiffusionMap(4).fit(points, weights=repeats), DiffusionMap(4).fit(several)
    np.testing.assert_allclose(often.rates_, once.rates_, rtol=1e-6)
    np.testing.assert_allclose(often.coordinates_, once.coordinates_[places], atol=1e-6)
    assert np.array_equal(several[often.landmarks_], points[once.landmarks_])
    few = DiffusionMap(4, n_landmarks=300).fit(several)
    assert len(np.unique(several[few.landmarks_], axis=0)) == 300 and few.coordinates_.shape == (len(several), 4)
    monkeypatch.setattr("openmm_gancl.learning.diffusion_map.distinct", every_one)
    assert (np.abs(DiffusionMap(4).fit(several).rates_ / once.rates_ - 1) > 0.1).any()


def test_a_frame_is_not_predicted_by_its_copies(monkeypatch):
    coordinates = np.random.default_rng(1).normal(size=(120, 6))
    scores = select_coordinates(coordinates).scores
    several = np.repeat(coordinates, 5, axis=0)
    np.testing.assert_allclose(select_coordinates(several).scores, scores)
    monkeypatch.setattr("openmm_gancl.learning.spectrum.distinct", every_one)
    assert select_coordinates(several).scores[5] < 0.5 * scores[5]


def test_few_frames_and_outliers_are_doubts(system, positions):
    learned = gancl.learn_slow_coordinates(system, positions, most=2)
    assert not learned.doubts()
    (doubt,) = gancl.learn_slow_coordinates(system, np.repeat(positions[:40], 5, axis=0), most=2).doubts()
    assert doubt.startswith("40 frames that differ are too few to learn labels from")
    broken = np.where(np.arange(800)[:, None, None] == 7, 1.2 * positions, positions)
    found = gancl.learn_slow_coordinates(system, broken, most=2)
    assert any("label dm1 tells some frames, fewer than 1%, from all others" in doubt for doubt in found.doubts())


def test_positions_that_are_no_nanometres_or_no_molecule_are_refused(system, positions, monkeypatch):
    """A map of them is as good as ever, but none of positions in nm, the twin."""
    halves = positions + np.where(np.arange(22)[:, None] < 8, 3.0, 0.0)
    for wrong, words in (
        (10 * positions, r"bonds are 10 times as long as the System has them \(median\): give positions in nm"),
        (halves, "cut by a periodic box"),
        (positions[:, :21], r"positions have shape \(800, 21, 3\): give \(n, 22, 3\)"),
    ):
        with pytest.raises(InputError, match=words):
            gancl.learn_slow_coordinates(system, wrong)
    for wrong, words in (
        ({"most": 0}, "most is 0: give a whole number from 1 up"),
        ({"most": -1}, "most is -1"),
        ({"most": 1.5}, "most is 1.5"),
        ({"n_coordinates": 0}, "n_coordinates is 0"),
        ({"keep": ("phi", "phi")}, "`keep` names a torsion twice"),
    ):
        with pytest.raises(InputError, match=words):
            gancl.learn_slow_coordinates(system, positions, **wrong)
    with pytest.raises(InputError, match="bonds are 10 times as long"):
        gancl.closures.Ensemble.of_positions(10 * positions, system)
    monkeypatch.setattr(learned_labels, "check_lengths", lambda *arguments: None)
    monkeypatch.setattr(learned_labels, "check_in_one_piece", lambda *arguments: None)
    slow = gancl.learn_slow_coordinates(system, 10 * positions, most=1).labels.slow
    assert np.ptp(slow.transform(positions)) < 0.1 * np.ptp(slow.transform(10 * positions))
