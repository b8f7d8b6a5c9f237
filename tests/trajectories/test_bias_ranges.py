"""Where the grid of OpenMM's Metadynamics begins, and which variable is its first: files do not tell, frames do."""

from functools import partial

import numpy as np
import pytest

from openmm_gancl import InputError
from openmm_gancl.free_energy.from_trajectories import analyse
from openmm_gancl.trajectories import metadynamics_bias
from openmm_gancl.trajectories.observations import read

from .known_surface import GRID, KT, TEMPERATURE, deviation, drawn, energy

GAMMA = 8.0
FULL = {"0 to 2 pi": (0.0, 2 * np.pi), "around zero": (-np.pi, np.pi)}


def built_up(x):
    """What well-tempered Metadynamics ends at, kJ/mol."""
    return (1 - 1 / GAMMA) * (energy(GRID).max() - energy(x))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Frames under the bias, and the bias on grids that begin at different places."""
    folder = tmp_path_factory.mktemp("ranges")
    np.save(folder / "phi.npy", drawn(4000, 1, lambda x: energy(x) + built_up(x)))
    np.save(folder / "even.npy", np.random.default_rng(2).uniform(-np.pi, np.pi, 4000))
    for name, (low, high) in FULL.items():
        (folder / name).mkdir()
        np.save(folder / name / "bias_1_7.npy", built_up(np.linspace(low, high, 201)))
    return folder


def undone(folder, name, series="phi", limits=None):
    make = partial(make_bias, folder / name, limits)
    return read([], None, [f"npy:{folder / series}.npy:2pi"], TEMPERATURE, bias=make)


def make_bias(path, limits, periods):
    return metadynamics_bias(path, periods=periods, limits=limits)


@pytest.mark.parametrize("name", FULL)
def test_the_range_that_was_not_given_is_the_one_that_the_frames_fit(folder, name):
    observed = undone(folder, name)
    assert deviation(analyse(observed, bins=48, discard=0, n_bootstrap=20).surface)[0] < 0.12
    said = [note for note in observed.notes if "is taken to begin and end at 0:6.28319" in note]
    assert bool(said) == (name == "0 to 2 pi") and not observed.doubts


def test_the_other_range_would_be_wrong_and_is_a_doubt_if_it_is_given(folder):
    """Planted: the range of half of the cases for the other half."""
    observed = undone(folder, "0 to 2 pi", limits=[FULL["around zero"]])
    assert "the frames fit a bias that begins and ends at 0:6.28319 better" in observed.doubts[0]
    assert deviation(analyse(observed, bins=48, discard=0, n_bootstrap=20).surface)[0] > 1.0
    assert not undone(folder, "0 to 2 pi", limits=[FULL["0 to 2 pi"]]).doubts


def test_frames_that_tell_nothing_need_the_range(folder):
    with pytest.raises(InputError, match=r"the frames do not tell it: give .*`limits=-3.14159:3.14159`"):
        undone(folder, "around zero", "even")
    assert undone(folder, "around zero", "even", limits=[FULL["around zero"]]).log_weights is not None


def test_frames_outside_a_range_without_a_period_are_refused(folder):
    """As limits in the wrong unit are: beyond them the bias would count as zero."""
    with pytest.raises(InputError, match=r"100 % of the frames are outside the range -0.01:0.01"):
        read(
            [],
            None,
            [f"npy:{folder / 'phi'}.npy:none"],
            TEMPERATURE,
            bias=partial(make_bias, folder / "around zero", [(-0.01, 0.01)]),
        )


def test_a_bias_on_two_variables_in_the_other_order_is_refused(folder):
    """OpenMM stores the first variable last; a name in the wrong place would turn the bias over."""
    phi, psi = drawn(4000, 3, lambda x: energy(x) + built_up(x)), drawn(4000, 4, lambda x: 4 * np.cos(x) / GAMMA)
    axis = np.linspace(-np.pi, np.pi, 101)
    table = built_up(axis)[None, :] + (1 - 1 / GAMMA) * (4 - 4 * np.cos(axis))[:, None]
    np.save(folder / "bias_2_1.npy", table)
    for name, values in (("one", phi), ("two", psi)):
        np.save(folder / f"{name}.npy", values)
    cvs = [f"npy:{folder / name}.npy:2pi" for name in ("one", "two")]
    make = partial(make_bias, folder / "bias_2_1.npy", [FULL["around zero"]] * 2)
    observed = read([], None, cvs, TEMPERATURE, bias=make)
    expected = built_up(phi) + (1 - 1 / GAMMA) * (4 - 4 * np.cos(psi))
    assert observed.log_weights == pytest.approx(expected / KT, abs=0.01)
    with pytest.raises(InputError, match="in the other order than two, one"):
        read([], None, cvs[::-1], TEMPERATURE, bias=make)


def test_a_free_energy_is_no_bias(folder, tmp_path):
    """What `getFreeEnergy` returns is the negative of the bias, and more."""
    np.save(tmp_path / "free.npy", -GAMMA / (GAMMA - 1) * built_up(np.linspace(-np.pi, np.pi, 201)))
    with pytest.raises(InputError, match=r"holds negative energies, as getFreeEnergy\(\) does [^:]*: give its biasDir"):
        metadynamics_bias(tmp_path / "free.npy", periods=[2 * np.pi], limits=[FULL["around zero"]])
