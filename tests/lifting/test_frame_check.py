"""The check against independent frames: silent where the generator is right, and a name where it misses a mode."""

import copy
import re
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy.special import erfc
from scipy.stats import norm, t

from openmm_gancl import load_system
from openmm_gancl.coordinates.slow_coordinates import Torsions
from openmm_gancl.generator.circular import CircularDensity
from openmm_gancl.generator.invertible import InvertibleGenerator
from openmm_gancl.lifting import frame_check
from openmm_gancl.lifting.frame_check import (
    check_frames,
    differences_p_value,
    evaluations_of_check,
    labels_of_check,
)
from openmm_gancl.lifting.loop import learn
from openmm_gancl.lifting.loop_options import LoopOptions
from openmm_gancl.lifting.reverse_check import ReverseCheck, check_reverse, pooled_z
from openmm_gancl.reference.wide_torsions import turning_indices
from openmm_gancl.sampling.labels import scattered_labels
from openmm_gancl.sampling.short_windows import ShortWindows

from ..physics.pentane import pentane

FORK, PENTANE = "forked_oscillator", "pentane"
PLACES = {
    FORK: np.linspace(-0.25, 0.25, 41)[:, None],
    PENTANE: np.radians(np.concatenate([np.linspace(-80, -50, 20), np.linspace(50, 80, 20)]))[:, None],
}
N_LABELS = 6


@cache
def system_of(name):
    return load_system(name) if name == FORK else pentane()


@cache
def learned(name, wide=True, not_wide=()):
    options = LoopOptions(ShortWindows(n=20), n_first=500, wide=wide)
    return learn(replace(system_of(name), not_wide=not_wide), seed=1, max_evaluations=8000, options=options)


def check(name, model, n=N_LABELS, seed=3, not_wide=()):
    return check_frames(replace(system_of(name), not_wide=not_wide), model, PLACES[name], n, seed=seed)


@pytest.mark.parametrize("name", [FORK, PENTANE])
def test_a_right_generator_leaves_no_doubt(name):
    """Chi-squared below 1e-4 in one of 10,000; each z-score beyond 4.5 in one of 20,000 for 6 labels."""
    found = check(name, learned(name).model)
    assert len(found.checks) == N_LABELS and not found.unseen
    assert found.p_value > 1e-4 and max(abs(one.z) for one in found.checks) < 4.5
    assert abs(found.pooled_z) < 4.0 and found.efficiency > 0.3
    assert found.wide_angles.shape == (N_LABELS, 10, 1) and np.isfinite(found.wide_angles).all()


@pytest.mark.parametrize(("name", "what"), [(FORK, "particle 0, y is elsewhere"), (PENTANE, "C5-C4-C3-C2 is near")])
def test_a_mode_that_is_not_drawn_has_a_name(name, what):
    """The twin: nothing is looked for, and training sees the structure's own mode."""
    found = check(name, learned(name, wide=False).model)
    assert found.unseen and all(what in sentence for sentence in found.unseen), found.unseen
    assert len(found.checks) < N_LABELS


def test_a_coordinate_that_the_card_leaves_out_is_pulled_at_all_the_same():
    """Of pentane's second torsion training sees one state, as if it were known to have no other."""
    left_out = ("C5-C4-C3-C2",)
    model = learned(PENTANE, not_wide=left_out).model
    assert model.map.n_wide == 0
    found = check(PENTANE, model, not_wide=left_out)
    assert found.wide_names == left_out and found.unseen
    assert all("C5-C4-C3-C2 is near" in sentence for sentence in found.unseen)
    assert all("let the card's 'wide' or 'not_wide' say so" in sentence for sentence in found.unseen)


def even(model):
    """The same generator, its wide torsion drawn evenly: right weights, which differ from mode to mode."""
    of_map = copy.deepcopy(model.map)
    before = of_map.circular[0]
    of_map.circular[0] = CircularDensity(before.functions, 0.0 * before.coefficients, 1, 1.0)
    return InvertibleGenerator(of_map, model.chart, model.slow, model.metadata)


@pytest.mark.parametrize(("width", "right"), [(frame_check.MODE_WIDTH, True), (10.0, False)])
def test_draws_are_compared_within_the_mode_of_a_window(width, right, monkeypatch):
    """The twin compares them with draws of all modes, of which the window's frames are no sample."""
    monkeypatch.setattr(frame_check, "MODE_WIDTH", width)
    found = check(PENTANE, even(learned(PENTANE).model), n=16)
    assert len(found.checks) == 16 and not found.unseen
    assert (found.p_value > 1e-4) == right, found.p_value


def test_a_window_that_jumps_is_compared_in_the_mode_where_it_was_longer():
    """Two wide torsions, one at the seam; of all frames together no mode's share would be known."""
    angles = np.radians([[178.0, 60], [-175, 70], [-179, 55], [170, 175], [-178, 180], [-177, -170], [179, 65]])
    mode = frame_check._Mode.of(np.array([1, 2]), np.full(2, frame_check.MODE_WIDTH), np.insert(angles, 0, 9.0, axis=1))
    assert np.degrees(mode.frames[:, 2]).round().tolist() == [60, 70, 55, 65]
    assert mode.holds(np.radians([[0.0, 150, 30], [0, -150, 90], [0, 180, 180], [0, 60, 60]])).tolist() == [1, 1, 0, 0]


def test_enough_draws_are_looked_for_in_the_mode(monkeypatch):
    """A third of a batch is in it."""
    monkeypatch.setattr(frame_check, "N_DRAWS", 1500)
    found = check(PENTANE, even(learned(PENTANE).model), n=4)
    assert [one.n_forward for one in found.checks] == [1500 - frame_check.N_ANYWHERE] * 4


@pytest.mark.parametrize(("noteworthy", "counts"), [(frame_check.NOTEWORTHY, True), (1e9, False)])
def test_efficiency_is_of_modes_that_have_weight(noteworthy, counts, monkeypatch):
    """The twin asks for more than all of it; the check itself is of all modes, and names the worst."""
    monkeypatch.setattr(frame_check, "NOTEWORTHY", noteworthy)
    found = check(PENTANE, even(learned(PENTANE).model), n=6)
    assert len(found.checks) == 6 and np.isfinite(found.efficiency) == counts
    if counts:
        assert found.efficiency == np.median([one.efficiency for one in found.checks])
    worst = min(found.checks, key=lambda one: one.efficiency), max(found.checks, key=lambda one: abs(one.z))
    for one, place in zip(worst, (found.least_efficient, found.most_different), strict=True):
        assert re.fullmatch(r"where C5-C4-C3-C2 is near -?\d+0? degrees", place), place
        row = [np.array_equal(one.label, other.label) for other in found.checks].index(True)
        angle = np.angle(np.exp(1j * found.wide_angles[row]).mean())
        assert np.cos(angle - np.radians(float(place.split()[4]))) > np.cos(np.radians(15.0))


@pytest.mark.parametrize(("poor", "matter"), [(2.0, True), (0.0, True), (2.0, False)])
def test_more_is_drawn_where_draws_are_worth_little(poor, matter, monkeypatch):
    """The twins: worth enough, and a mode without weight, which is left out."""
    monkeypatch.setattr(frame_check, "POOR", poor)
    monkeypatch.setattr(frame_check, "NOTEWORTHY", frame_check.NOTEWORTHY if matter else 1e9)
    found = check(PENTANE, even(learned(PENTANE).model), n=4)
    first, most = frame_check.N_DRAWS - frame_check.N_ANYWHERE, evaluations_of_check(system_of(PENTANE), 4)
    assert found.n_weightless == (0 if matter else 4)
    n_more = [one.n_forward - first for one in found.checks]
    assert n_more == ([3 * frame_check.SPARE, 0, 0, 0] if poor else [0] * 4) * matter
    assert found.check_evaluations == most - (0 if poor and matter else 3 * frame_check.SPARE)


def test_every_other_window_begins_where_weight_is(monkeypatch):
    """All weight is planted near gauche minus, whatever the label; the twin: windows all over the circle."""
    real, model = frame_check._DrawsAtLabel.log_weights, learned(PENTANE).model
    wide = int(turning_indices(system_of(PENTANE).topology, model.chart, system_of(PENTANE).state)[-1])

    def planted(draws, rows):
        return real(draws, rows) - 200.0 * (1 - np.cos(draws.drawn[rows, wide] + np.pi / 3))

    monkeypatch.setattr(frame_check._DrawsAtLabel, "log_weights", planted)
    gauche = np.cos(check(PENTANE, even(model), n=12).wide_angles[:, 0, 0] + np.pi / 3) > 0.5
    assert gauche[1::2].sum() >= 5 and gauche[::2].sum() <= 4


def test_every_other_window_is_pulled_all_over_the_circles():
    """Of two torsions both; the twin takes every other one of consecutive places, all in one half of the second."""
    torsions = Torsions(("first", "second"), np.array([[0, 1, 2, 3], [1, 2, 3, 4]]))
    for seed in range(10):
        rng = np.random.default_rng(seed)
        windows = frame_check._IndependentWindows(pentane(), learned(PENTANE).model, 8, "Reference", rng)
        assert len(np.unique(windows.turned, axis=0)) == 4 and np.array_equal(windows.turned[::2], windows.turned[1::2])
        pairs = scattered_labels(torsions, 4, np.random.default_rng(seed))
        assert ((pairs > 0).any(axis=0) & (pairs < 0).any(axis=0)).all()
        twin = scattered_labels(torsions, 8, np.random.default_rng(seed))[::2, 1]
        assert (twin > 0).all() or (twin < 0).all()


def test_a_torsion_that_is_drawn_beyond_half_a_turn_has_a_name():
    """The map takes it for narrow; the twins: as it was fitted, and a torsion that does not turn."""
    model = learned(PENTANE, wide=False).model
    drawn, _ = model.sample(np.zeros((500, 1)), np.random.default_rng(1))
    torsions = model.map.narrow_indices.numpy()[model.map.periodic.numpy()]
    assert not len(frame_check._leaving(model, drawn, torsions))
    drawn[:, torsions[0]] *= 100.0
    assert frame_check._leaving(model, drawn, torsions).tolist() == [torsions[0]]
    assert not len(frame_check._leaving(model, drawn, torsions[1:]))


@pytest.mark.parametrize(("population", "matters"), [(0.1, True), (0.005, False)])
def test_a_mode_of_few_draws_matters_by_its_population(population, matters):
    """Of a thousandth of the draws: their weights are as much larger, and scatter; frames are of that mode alone."""
    share, rng = 1e-3, np.random.default_rng(2)
    scatter = rng.normal(0.0, 1.0, 10_000)
    anywhere, none = np.full(256, np.log((1 - population) / (1 - share))), np.empty(0)
    for frames in (scatter + 0.5, np.zeros(10)):
        assert frame_check._may_matter(anywhere, none, np.log(population / share) + frames, share) == matters


def test_a_mode_matters_by_its_draws_where_frames_lie_in_a_corner():
    """Of all draws: their weights are one; the twin has none of them."""
    corner, alike = np.full(10, -8.0), np.zeros(64)
    assert frame_check._may_matter(alike, alike, corner, 1.0)
    assert not frame_check._may_matter(alike, alike[:0], corner, 1.0)


def test_differences_between_labels_show_where_no_offset_does(monkeypatch):
    """Frames and draws have the same density: what is planted is in the draws' weights alone."""
    real = frame_check._log_weights

    def planted(system, generator, coordinates, labels, inside, platform):
        log_weights, log_density = real(system, generator, coordinates, labels, inside, platform)
        is_frame = (labels == labels[0]).all()
        return log_weights + (0.0 if is_frame else 1.0 * np.sign(labels[0, 0])), log_density

    monkeypatch.setattr(frame_check, "_log_weights", planted)
    found = check(FORK, learned(FORK).model)
    assert found.p_value < 1e-4 and found.p_value < 2 * norm.sf(abs(found.pooled_z))
    assert abs(found.pooled_z) < max(abs(one.difference / one.error) for one in found.checks)


def one_check(difference, error, n_reverse=10**9):
    return ReverseCheck(np.zeros(1), 0.0, 0.0, error, difference, difference / error, 0.5, 10**9, n_reverse)


def test_chi_squared_of_differences():
    """Of errors that are known; an offset that all labels share is none."""
    errors = np.array([0.1, 0.2, 0.1, 0.4])
    checks = [one_check(0.1 * i, error) for i, error in enumerate(errors)]
    values = 0.1 * np.arange(4)
    mean = np.average(values, weights=errors**-2)
    chi2 = (((values - mean) / errors) ** 2).sum()
    closed_form = erfc(np.sqrt(chi2 / 2)) + np.sqrt(2 * chi2 / np.pi) * np.exp(-chi2 / 2)
    assert differences_p_value(checks) == pytest.approx(closed_form)
    shifted = [replace(one, difference=one.difference + 5.0) for one in checks]
    assert differences_p_value(shifted) == pytest.approx(differences_p_value(checks))
    assert np.isnan(differences_p_value(checks[:1]))


def checks_of_right_generators(n_frames):
    rng = np.random.default_rng(5)
    samples = [(rng.normal(-0.25, 0.7, 64), rng.normal(0.25, 0.7, n_frames)) for _ in range(240)]
    return [check_reverse(np.zeros(1), *one, seed=i) for i, one in enumerate(samples)]


def known(checks):
    """Their errors taken for those of many."""
    return [replace(one, n_forward=10**9, n_reverse=10**9) for one in checks]


def test_right_generators_are_seldom_doubted():
    """Log-weights of draws and of frames are normal, and both directions agree: p below 0.01 in 2 % of 300 at most.

    Binomial: in 13 of 300 once in 10,000. The twin takes errors from ten frames for known ones.
    """
    checks = checks_of_right_generators(10)
    chosen = [np.random.default_rng(i).choice(len(checks), 48, replace=False) for i in range(300)]
    found = [[differences_p_value([one[i] for i in rows]) for rows in chosen] for one in (checks, known(checks))]
    right, twin = (np.array(found) < 0.01).sum(axis=1)
    assert right <= 13 and twin > 30, (right, twin)


def test_pooled_scores_of_few_frames_are_seldom_large():
    """Beyond 2.576 likewise, of two labels with four frames each."""
    checks = checks_of_right_generators(4)
    chosen = [np.random.default_rng(i).choice(len(checks), 2, replace=False) for i in range(300)]
    found = [[pooled_z([one[i] for i in rows]) for rows in chosen] for one in (checks, known(checks))]
    right, twin = (np.abs(found) > 2.576).sum(axis=1)
    assert right <= 13 < twin, (right, twin)


def test_scores_of_differences():
    """Known errors give the ratio; of few samples it is less; an error of nothing gives none."""
    assert pooled_z([one_check(0.3, 0.1), one_check(-0.1, 0.1)]) == pytest.approx(0.2 / (0.1 * np.sqrt(2)))
    assert pooled_z([one_check(0.3, 0.1, n_reverse=4)]) == pytest.approx(
        norm.isf(t.sf(3.0 / np.sqrt(4 / 3), 3)), rel=1e-9
    )
    two = [one_check(0.3, 0.1, n_reverse=4), one_check(0.1, 0.1, n_reverse=4)]
    assert pooled_z(two) == pytest.approx(norm.isf(t.sf(0.4 / np.sqrt(2 * 0.01 * 4 / 3), 6)), rel=1e-9)
    assert pooled_z([one_check(-9.0, 0.1)]) < -36 and np.isfinite(pooled_z([one_check(-9.0, 0.1)]))
    assert pooled_z([replace(one_check(0.3, 0.1), error=0.0)]) == 0.0


def test_no_labels_say_nothing():
    found = check_frames(system_of(FORK), learned(FORK).model, PLACES[FORK], 0, seed=1)
    assert not found.checks and np.isnan(found.p_value) and found.check_evaluations == 0
    for n in (1, 2, 5):
        most = evaluations_of_check(system_of(FORK), n)
        assert labels_of_check(system_of(FORK), most) == n == 1 + labels_of_check(system_of(FORK), most - 1)
