"""Bins that cannot show what was sampled are a doubt, others are not."""

from dataclasses import replace

import numpy as np
import pytest

from openmm_gancl.free_energy.from_trajectories import analyse
from openmm_gancl.trajectories import read

RNG = np.random.default_rng(0)
ANGLES = RNG.vonmises(0.3, 1.0, 3000)
LENGTHS = RNG.normal(1.0, 0.1, 3000)
CASES = {
    "radians within 360 degrees": (
        ANGLES[np.abs(ANGLES) < 2.4],
        ":360",
        {},
        "of 120 bins, each 3 degrees wide: name it with",
    ),
    "values that stand for none": (
        np.where(np.arange(3000) % 100, LENGTHS, -9999.0),
        "",
        {},
        "in 1 of 120 bins, each 83.3 wide: give `ranges`",
    ),
    "a range in another unit": (LENGTHS, "", {"ranges": [(0.0, 100.0)]}, "wide: give `ranges`"),
    "rounded to ten degrees": (10 * np.round(np.degrees(ANGLES) / 10), ":360", {}, "36 values only, 10 degrees apart"),
    "counted": (RNG.binomial(10, 0.4, 3000), "", {}, "1 apart, its bins are 0."),
    "degrees": (np.degrees(ANGLES), ":360", {}, ""),
    "rounded to one degree": (np.round(np.degrees(ANGLES)), ":360", {}, ""),
    "rounded, in as many bins": (10 * np.round(np.degrees(ANGLES) / 10), ":360", {"bins": 36}, ""),
    "one outlier": (np.where(np.arange(3000) == 7, 1e4, LENGTHS), "", {}, ""),
    "a stiff angle": (RNG.normal(0.0, 7.0, 3000), ":360", {"bins": 72}, ""),
}


@pytest.mark.parametrize("name", CASES)
def test_bins_that_cannot_show_what_was_sampled(tmp_path, name):
    values, period, options, message = CASES[name]
    np.save(tmp_path / "x.npy", np.asarray(values, dtype=float))
    observations = read([], None, f"npy:{tmp_path / 'x.npy'}{period}", 300.0)
    doubts = analyse(observations, discard=0, n_bootstrap=4, **options).doubts
    assert [message in doubt for doubt in doubts] == [True] * bool(message)


def test_a_stiff_torsion_of_frames_is_no_doubt(tmp_path):
    """Its unit is known, whatever of the circle it fills."""
    np.save(tmp_path / "x.npy", RNG.normal(0.0, 0.01, 3000))
    observed = read([], None, f"npy:{tmp_path / 'x.npy'}:2pi", 300.0)
    assert len(analyse(observed, discard=0, n_bootstrap=4).doubts) == 1
    computed = replace(observed, series=replace(observed.series, resolved=("C of A/ALA1, N CA C of A/ALA2",)))
    assert not analyse(computed, discard=0, n_bootstrap=4).doubts
