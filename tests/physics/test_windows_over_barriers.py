"""Windows that stay on their side of a barrier: the surface is wrong, its error bars are small, and a doubt says so.

The barrier is as high as that of a torsion about a double bond, and the restraints leave it in place. With restraints
that do not, and where the barrier is low, there is no doubt: limits are for all sets of windows together.
"""

import numpy as np
import pytest

from openmm_gancl.free_energy import analyse, from_trajectories, window_checks
from openmm_gancl.trajectories import UmbrellaWindows
from openmm_gancl.trajectories.observations import Observations
from openmm_gancl.trajectories.series import Series

from .test_umbrella import KT, TEMPERATURE, TOYS, analysed, deviations, sampled

N_STEPS = 12_000


def ridge_energy(height):
    """KT; two wells beside a narrow barrier."""
    return lambda x: height * np.exp(-((x / 0.35) ** 2)) + 5.0 * (np.abs(x) - 1.0) ** 2 + 0.8 * x


def torus_energy(height):
    """KT; a narrow barrier at x = 0 and a broad one opposite, and a torsion beside it."""

    def energy(x, y):
        around = (x + np.pi) % (2 * np.pi) - np.pi
        opposite = x % (2 * np.pi) - np.pi
        return (
            height * np.exp(-((around / 0.35) ** 2))
            + 5.0 * np.exp(-((opposite / 0.8) ** 2))
            + np.cos(x - 1.2)
            + 2.0 * np.cos(y + 0.5 * np.sin(x))
            + np.sin(2 * y)
        )

    return energy


def line(n):
    return np.linspace(-2.0, 2.0, n)[:, None]


def torus(n=6):
    axis = np.linspace(-np.pi, np.pi, n + 1)[:n]
    return np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)


@pytest.fixture
def analyses(monkeypatch):
    """Of several samplings: root mean square of z, and the doubts."""

    def run(energy, kappa, centres, seeds, n_steps=N_STEPS):
        cosine = centres.shape[1] == 2 or np.isclose(np.ptp(centres) + np.diff(centres[:2, 0])[0], 2 * np.pi)
        form = "cosine" if cosine else "line"
        monkeypatch.setitem(TOYS, form, (energy, 2 * np.pi if cosine else np.inf, 2.0, kappa, 0.5))
        found = []
        for seed in seeds:
            analysis = analysed(form, centres, sampled(form, centres, seed, n_steps))
            z = deviations(form, analysis.surface)[0]
            found.append((float(np.sqrt((z[np.isfinite(z)] ** 2).mean())), analysis))
        return found

    return run


def test_restraints_too_soft_for_the_barrier_are_a_doubt(analyses):
    """12 kT between windows 0.22 wide: the wells are wrong by 2 kT with bars of 0.05 kT. All such sets are told."""
    found = analyses(ridge_energy(12.0), 20.0, line(11), range(8))
    wrong = [analysis for z, analysis in found if z > 10.0]
    assert len(wrong) >= 4
    for analysis in wrong:
        (doubt,) = analysis.doubts
        assert "where all windows together predict" in doubt and "comes over a barrier" in doubt
        assert any(f"window{k} at" in doubt for k in (4, 5, 6)) and "x = " in doubt, doubt


def test_restraints_that_hold_windows_on_the_barrier_are_none(analyses):
    """The twin: the same barrier, stiffer restraints and more windows."""
    for z, analysis in analyses(ridge_energy(12.0), 200.0, line(31), range(8)):
        assert not analysis.doubts and z < 2.5, (z, analysis.doubts)


def test_without_the_check_nothing_is_said(analyses, monkeypatch):
    """The twin of the doubt: it is this check that tells, and that of gaps."""
    monkeypatch.setattr(window_checks, "consistency_doubts", lambda *_: [])
    assert all(analysis.doubts for z, analysis in analyses(ridge_energy(12.0), 20.0, line(11), range(4)) if z > 10.0)
    monkeypatch.setattr(window_checks, "gap_doubts", lambda *_: [])
    found = analyses(ridge_energy(12.0), 20.0, line(11), range(4))
    assert any(z > 10.0 and not analysis.doubts for z, analysis in found)


def test_windows_that_leave_the_barrier_and_seldom_come_over_it_are_a_doubt(analyses, monkeypatch):
    """16 kT: some sets look alike on both sides and are wrong by 4 kT. The twin: two more windows in each gap."""
    found = analyses(ridge_energy(16.0), 20.0, line(11), range(8, 16))
    assert sum(z > 10.0 for z, _ in found) >= 4 and all(analysis.doubts for _, analysis in found)
    gaps = [doubt for _, analysis in found for doubt in analysis.doubts if "no frame lies between x = -0." in doubt]
    assert any("over it never: the free energy between its sides is not known" in one for one in gaps), gaps
    assert any("over it twice: the free energy between its sides is known to 1.4 kT at best" in one for one in gaps)
    for z, analysis in analyses(ridge_energy(16.0), 200.0, line(31), range(8, 12)):
        assert not analysis.doubts and z < 2.5, (z, analysis.doubts)
    monkeypatch.setattr(window_checks, "gap_doubts", lambda *_: [])
    assert any(z > 10.0 and not analysis.doubts for z, analysis in analyses(ridge_energy(16.0), 20.0, line(11), [10]))


def test_one_barrier_of_a_circle_may_have_no_frames(analyses):
    """All windows meet on the other side; the twin: a barrier there as well."""

    def energy(*barriers):
        return lambda x: sum(16.0 * np.exp(8.0 * (np.cos(x - place) - 1.0)) for place in barriers)

    ring = torus(12)[::12, :1]
    for _, analysis in analyses(energy(0.3), 6.0, ring, range(3)):
        assert analysis.windows.gaps == [None]
    for _, analysis in analyses(energy(0.3, 2.9), 6.0, ring, range(3)):
        (gap,) = analysis.windows.gaps
        assert gap.n_crossings < 12 and analysis.doubts, gap


def test_two_torsions(analyses):
    """Windows over a barrier of 12 kT around one of them, and of 2 kT."""
    for z, analysis in analyses(torus_energy(12.0), 6.0, torus(), range(3)):
        assert z > 1.2 and any("where all windows together predict" in doubt for doubt in analysis.doubts), z
    for z, analysis in analyses(torus_energy(2.0), 6.0, torus(), range(3)):
        assert z < 1.5 and not analysis.doubts, (z, analysis.doubts)


@pytest.mark.slow
def test_false_alarms(analyses):
    """Of 200 sets that are right, short ones among them, none has a doubt: the largest deviation is far below."""
    cases = [(2.0, 30.0, 12, N_STEPS), (2.0, 30.0, 12, 1_200), (12.0, 200.0, 31, N_STEPS), (4.0, 60.0, 21, 4_800)]
    found = [
        analysis
        for height, kappa, n, n_steps in cases
        for _, analysis in analyses(ridge_energy(height), kappa, line(n), range(50), n_steps)
    ]
    assert len(found) == 200 and not any(analysis.doubts for analysis in found)


@pytest.mark.parametrize("slope", [0.0, 8.0])
def test_a_slow_motion_beside_the_coordinate(monkeypatch, slope):
    """Half of the windows in another state of something else, where the surface has a slope; and the twin of one."""
    centres, frames = line(12), []
    for number, tilt in enumerate((0.0, slope)):
        ridge = ridge_energy(2.0)
        monkeypatch.setitem(TOYS, "line", (lambda x, t=tilt, e=ridge: e(x) + t * x, np.inf, 2.0, 30.0, 0.5))
        frames.append(sampled("line", centres, number, N_STEPS))
    first = (np.arange(len(centres)) < 6)[:, None, None]
    doubts = analysed("line", centres, np.where(first, *frames)).doubts
    assert any("a state of something slow" in doubt for doubt in doubts) == bool(slope) == bool(doubts), doubts


def with_a_run(monkeypatch, height, curvature, seed):
    """Short, stiff windows over a barrier, and a run without a restraint that begins in the left well."""

    def energy(x):
        return height * np.exp(-((x / 0.35) ** 2)) + curvature * (np.abs(x) - 1.0) ** 2 + 0.8 * x

    parts = []
    for kappa, centres, n_steps in ((200.0, line(31), 1_200), (0.0, np.array([[-1.0]]), N_STEPS)):
        monkeypatch.setitem(TOYS, "line", (energy, np.inf, 2.0, kappa, 0.5))
        parts += list(sampled("line", centres, seed, n_steps))
    centres, kappa = np.append(line(31), -1.0), np.append(np.full(31, 200.0 * KT), 0.0)
    windows = UmbrellaWindows((*(f"window{i}" for i in range(31)), "run"), centres, kappa)
    starts = np.cumsum([0, *map(len, parts)])
    series = Series(("x",), np.array([np.inf]), ("",), np.concatenate(parts).astype(np.float32), starts)
    analysis = analyse(Observations(series, 1, TEMPERATURE, windows=windows, restrained=(0,)), bins=20)
    z = deviations("line", analysis.surface)[0]
    return float(np.sqrt((z[np.isfinite(z)] ** 2).mean())), analysis


def test_a_run_among_windows_that_stays_in_its_well_is_a_doubt(monkeypatch):
    """It drags the other well up by a kT and more; the twin: a barrier that it comes over, often."""
    for seed in range(4):
        z, analysis = with_a_run(monkeypatch, 10.0, 5.0, seed)
        assert z > 4.0 and any("of the frames of run without a restraint" in one for one in analysis.doubts), z
        z, analysis = with_a_run(monkeypatch, 0.5, 0.5, seed)
        assert z < 2.5 and not analysis.doubts, (z, analysis.doubts)
    monkeypatch.setattr(from_trajectories, "_unrestrained_doubts", lambda *_: [])
    assert any(not with_a_run(monkeypatch, 10.0, 5.0, seed)[1].doubts for seed in range(4))
