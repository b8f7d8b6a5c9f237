"""Umbrella windows, harmonic and cosine, joined by MBAR: the surface of a toy in two dimensions against quadrature.

Windows are sampled by Metropolis steps, so frames are correlated, and the toy's mixed term keeps the restraint from
being a function of one coordinate. The limits on |z| are family-wise over all bins below 10 kT, at the false-alarm
rate of 3.5 sigma; only bins with an error bar of at most 0.05 kT count, and they must be most of them.
"""

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from openmm_gancl.free_energy.from_trajectories import analyse
from openmm_gancl.trajectories import UmbrellaWindows
from openmm_gancl.trajectories.observations import Observations
from openmm_gancl.trajectories.series import Series
from openmm_gancl.units import thermal_energy

from .analyses import counted_once
from .statistics import z_limit

TEMPERATURE = 300.0
KT = thermal_energy(TEMPERATURE)
BINS, N_STEPS, EVERY = 20, 48_000, 12


def harmonic_energy(x, y):
    """KT; two wells in x, a tilted trough in y."""
    return 6.0 * (x**2 - 1.0) ** 2 + 1.0 * x + 3.0 * (y - 0.4 * x) ** 2


def cosine_energy(x, y):
    """KT; on a torus."""
    return 3.0 * np.cos(x) + 2.5 * np.cos(2 * x - 0.6) + 2.5 * np.cos(y + 0.5 * np.sin(x)) + 1.5 * np.sin(2 * y)


def line_energy(x):
    """KT; two wells."""
    return 6.0 * (x**2 - 1.0) ** 2 + 1.0 * x


TOYS = {
    "line": (line_energy, np.inf, 1.6, 40.0, 0.3),
    "harmonic": (harmonic_energy, np.inf, 1.6, 25.0, 0.35),
    "cosine": (cosine_energy, 2 * np.pi, np.pi, 12.0, 0.5),
}
"""Energy, period, half the width, force constant (kT) and reach of a Metropolis step."""


def centres_of(form, n=10):
    half = TOYS[form][2]
    axis = np.linspace(-half, half, n + (form == "cosine"))[:n]
    return np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)


def sampled(form, centres, seed, n_steps=N_STEPS):
    """Frames of every window, shape=(n_windows, n_frames, d); all windows step at once."""
    energy, period, _, kappa, reach = TOYS[form]
    rng, places, frames = np.random.default_rng(seed), centres.copy(), []

    def total(places):
        difference = places - centres
        penalty = 1.0 - np.cos(difference) if form == "cosine" else 0.5 * difference**2
        return energy(*places.T) + kappa * penalty.sum(axis=1)

    now = total(places)
    for step in range(n_steps):
        tried = places + rng.normal(0.0, reach / 2, places.shape)
        then = total(tried)
        taken = np.log(rng.random(len(places))) < now - then
        places, now = np.where(taken[:, None], tried, places), np.where(taken, then, now)
        if step % EVERY == 0:
            frames.append(places)
    frames = np.stack(frames, axis=1)
    return (frames + np.pi) % (2 * np.pi) - np.pi if np.isfinite(period) else frames


def analysed(form, centres, frames, scale=1.0, method="kde"):
    n_windows, n_frames, d = frames.shape
    period, kappa = TOYS[form][1], TOYS[form][3] * KT * scale
    series = Series(
        ("x", "y")[:d],
        np.full(d, period),
        ("",) * d,
        frames.reshape(-1, d).astype(np.float32),
        n_frames * np.arange(n_windows + 1),
    )
    files = tuple(Path(f"window{i}") for i in range(n_windows))
    kind = "cosine" if form == "cosine" else "harmonic"
    windows = UmbrellaWindows.of_files(files, centres, np.full(centres.shape, kappa), kind)
    observations = Observations(series, d, TEMPERATURE, windows=windows, restrained=tuple(range(d)))
    return analyse(observations, bins=BINS, method=method)


def exact_bins(form, edges):
    """Free energies of bins, kT, by quadrature."""
    n, d = 8, len(edges)
    axes = [(axis[:-1, None] + np.diff(axis)[:, None] * (np.arange(n) + 0.5) / n).ravel() for axis in edges]
    density = np.exp(-TOYS[form][0](*np.meshgrid(*axes, indexing="ij")))
    shape = [part for axis in edges for part in (len(axis) - 1, n)]
    return -np.log(density.reshape(shape).mean(axis=tuple(range(1, 2 * d, 2))))


def deviations(form, surface):
    """z of the bins below 10 kT, and their error bars, kT."""
    exact, energy, error = exact_bins(form, surface.edges), surface.energy / KT, surface.error / KT
    low = (exact - exact.min() < 10.0) & (energy < 10.0)
    difference = energy[low] - exact[low]
    return (difference - difference.mean()) / error[low], error[low]


def scores(form, analysis):
    """z of the bins below 10 kT with an error bar of at most 0.05 kT; and how many of all below 10 kT they are."""
    z, error = deviations(form, analysis.surface)
    return z[error <= 0.05], (error <= 0.05).mean()


@pytest.fixture(scope="module", params=["harmonic", "cosine"])
def form(request):
    return request.param


@pytest.fixture(scope="module")
def frames(form):
    return sampled(form, centres_of(form), 3)


@pytest.fixture(scope="module")
def analyses(form, frames):
    """By both methods."""
    with counted_once():
        return {method: analysed(form, centres_of(form), frames, method=method) for method in ("kde", "histogram")}


@pytest.mark.parametrize("method", ["kde", "histogram"])
def test_windows_give_the_exact_surface(form, analyses, method):
    analysis = analyses[method]
    z, share = scores(form, analysis)
    assert share > 0.6 and len(z) > 100, share
    assert np.abs(z).max() < z_limit(len(z)), z
    assert not analysis.doubts and analysis.effective_samples > 200


LINE_CENTRES = np.linspace(-1.7, 1.7, 16)[:, None]


@cache
def line_frames(seed):
    """One short sampling of the line."""
    return sampled("line", LINE_CENTRES, seed, 4_800)


def covered(repetitions):
    """Share of bins, pooled over repetitions, within one error bar; the line's errors add up over its barrier."""
    pooled = []
    for seed in range(repetitions):
        analysis = analysed("line", LINE_CENTRES, line_frames(seed), method="histogram")
        pooled.append(np.abs(deviations("line", analysis.surface)[0]))
    return (np.concatenate(pooled) < 1.0).mean()


def test_bars_cover():
    """Bins of one repetition are correlated: about four independent numbers each, so 4 % is one sigma of the share."""
    assert 0.60 <= covered(40) <= 0.76


def test_basins_and_barriers_are_right_within_their_bars():
    """Of the line, twenty samplings: the free energy between its wells, and the barrier from either side."""
    scores = []
    x = np.linspace(-1.8, 1.8, 36_001)
    density, top = np.exp(-line_energy(x)), 0.0421
    between = np.log(density[x < top].sum() / density[x > top].sum())
    for seed in range(20):
        analysis = analysed("line", LINE_CENTRES, line_frames(seed))
        second = analysis.basins[1]
        (barrier,) = analysis.barriers
        (edges,) = analysis.surface.edges
        exact = exact_bins("line", analysis.surface.edges)
        low = [exact[(np.diff(edges) / 2 + edges[:-1] < 0) == side].min() for side in (True, False)]
        saddle = exact[np.abs(0.5 * (edges[1:] + edges[:-1])) < 0.3].max()
        scores.append(
            [
                (second.free_energy / KT - between) / (second.free_energy_error / KT),
                *((barrier.heights[i] / KT - (saddle - low[i])) / (barrier.errors[i] / KT) for i in range(2)),
            ]
        )
    scores = np.array(scores)
    assert np.abs(scores).max() < z_limit(scores.size), scores
    assert (np.sqrt((scores**2).mean(axis=0)) > 0.55).all() and (np.sqrt((scores**2).mean(axis=0)) < 1.55).all()


def test_bars_that_take_the_free_energies_of_windows_as_known_do_not_cover(monkeypatch):
    """The twin: weights do not follow the windows' free energies."""
    monkeypatch.setattr("openmm_gancl.free_energy.mbar.MBAR.influence", lambda mbar, sums: np.zeros(sums.shape))
    assert covered(20) < 0.5


def test_a_wrong_force_constant_is_wrong(form, frames):
    """The twin: the table says nine tenths of the force constant."""
    z, _ = deviations(form, analysed(form, centres_of(form), frames[:, ::4], scale=0.9).surface)
    assert np.abs(z).max() > 2 * z_limit(len(z))


def test_a_window_left_out_is_named(form, frames):
    """Of the grid of centres, one in the middle."""
    centres = centres_of(form)
    rest = np.delete(np.arange(100), 44)
    notes = analysed(form, centres[rest], frames[rest][:, :400]).notes
    place = ", ".join(f"{x:.4g}" for x in centres[44])
    assert any("a gap of 1 in their grid" in note and f"({place})" in note for note in notes), notes


def test_windows_that_no_others_overlap_are_left_out_and_named():
    """One column of harmonic windows, but for those on the barrier."""
    centres = centres_of("harmonic", 13)
    column = centres[centres[:, 1] == 0.0]
    frames = sampled("harmonic", column, 5)[:, :600]
    rest = np.delete(np.arange(13), [5, 6, 7, 8])
    analysis = analysed("harmonic", column[rest], frames[rest])
    (doubt,) = analysis.doubts
    assert "4 of 9 windows overlap with none of the others" in doubt and "window5 at (0.8, 0)" in doubt
    assert any("gap of 4 in their grid" in note for note in analysis.notes), analysis.notes
    assert analysis.surface.edges[0][-1] < 0.5
    whole = analysed("harmonic", column, frames)
    assert not whole.doubts and np.isfinite(whole.surface.energy).any(axis=1)[1:-1].all()
