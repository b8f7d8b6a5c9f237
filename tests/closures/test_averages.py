"""Averages of observables given the label, and over all labels, against closed forms; what is planted shows."""

import copy
from dataclasses import replace

import mdtraj
import numpy as np
import openmm
import pytest
from scipy.signal import lfilter

import openmm_gancl as gancl
from openmm_gancl import InputError
from openmm_gancl.closures import (
    Ensemble,
    averages_at_labels,
    conditional_average,
    ensemble_average,
    group_energy,
    of_trajectory,
)
from openmm_gancl.lifting import load_sde
from tests.physics.exact import DOUBLE_WELL, KT
from tests.physics.statistics import z_limit

from .conftest import LABELS


def fast(positions):
    """y, y squared and z of the toy."""
    y, z = positions[:, 0, 1], positions[:, 0, 2]
    return np.stack([y, y**2, z], axis=1)


def exact_fast(labels):
    x = labels[:, 0]
    mean = 0.25 * np.sin(1.5 * x)
    return np.stack([mean, mean**2 + KT / (2000 * np.exp(0.8 * np.tanh(2 * x))), 0.2 * np.cos(x)], axis=1)


def largest_z(ensemble, function):
    values, errors = function(ensemble)
    return np.abs((values - exact_fast(LABELS)) / errors).max()


def smooth(ensemble):
    return conditional_average(ensemble, fast).at(LABELS)


def single(ensemble):
    found = averages_at_labels(ensemble, fast)
    np.testing.assert_allclose(found.labels, LABELS)
    return found.mean, found.error


LIMIT = z_limit(2 * 3 * len(LABELS))


def test_averages_given_a_label_are_the_closed_forms(ensemble, at_labels, wide):
    assert largest_z(ensemble, smooth) < LIMIT
    for lifts in (at_labels, wide):
        assert largest_z(lifts, single) < LIMIT
        assert largest_z(lifts, smooth) < LIMIT


def test_a_function_of_all_labels_is_more_precise_than_a_number_for_each(wide):
    """By how much depends on the weights, here in closed form."""
    assert np.median(smooth(wide)[1] / single(wide)[1]) < 0.95


def without_weights(ensemble):
    return replace(ensemble, log_weights=np.where(ensemble.ok, 0.0, -np.inf))


def test_shares_change_no_average(wide):
    """Only errors: lifts on one side count a tenth."""
    counted = replace(wide, shares=np.where(wide.labels[:, 0] < 0, 0.1, 1.0))
    assert largest_z(counted, single) < LIMIT and largest_z(counted, smooth) < LIMIT
    mean, error = ensemble_average(counted, equilibrium)
    assert np.abs((mean - exact_equilibrium()) / error).max() < z_limit(3)


def test_dropped_weights_and_shuffled_labels_show(ensemble, wide):
    """The twins."""
    assert largest_z(without_weights(wide), single) > 1.5 * LIMIT
    assert largest_z(without_weights(wide), smooth) > 1.5 * LIMIT
    shuffled = replace(ensemble, labels=np.random.default_rng(1).permutation(ensemble.labels))
    assert largest_z(shuffled, smooth) > 2 * LIMIT


def equilibrium(positions):
    x = positions[:, 0, 0]
    return np.stack([x > 0, x**2, positions[:, 0, 1]], axis=1)


def exact_equilibrium():
    x = DOUBLE_WELL.grid
    density = np.exp(DOUBLE_WELL.log_density() - DOUBLE_WELL.log_density().max())
    return density @ np.stack([x > 0, x**2, 0.25 * np.sin(1.5 * x)], axis=1) / density.sum()


@pytest.mark.parametrize("fixture", ["ensemble", "at_labels"])
def test_averages_over_all_labels(fixture, request, monkeypatch):
    """With a known density of labels, and from the integral over labels of one's own choice; and the twin."""
    lifts = request.getfixturevalue(fixture)
    mean, error = ensemble_average(lifts, equilibrium)
    assert np.abs((mean - exact_equilibrium()) / error).max() < z_limit(6)
    # without weights as much as anywhere is beyond the last labels
    monkeypatch.setattr("openmm_gancl.closures.averages.MOST_FAR", 0.05)
    dropped, error = ensemble_average(without_weights(lifts), equilibrium)
    assert np.abs((dropped - exact_equilibrium()) / error).max() > 2 * z_limit(6)


def test_labels_that_leave_out_a_well_have_no_average_over_all(at_labels, monkeypatch):
    """The twin goes on there by its prior."""
    left = at_labels.select(at_labels.labels[:, 0] < 0.3)
    with pytest.raises(InputError, match=r"of the density of labels lies, as far as can be told, where there are no"):
        ensemble_average(left, equilibrium)
    gap = at_labels.select(np.abs(at_labels.labels[:, 0]) > 0.3)
    mean, error = ensemble_average(gap, equilibrium)
    assert np.abs((mean - exact_equilibrium()) / error).max() < z_limit(3)
    monkeypatch.setattr("openmm_gancl.closures.averages.MOST_FAR", 1.0)
    mean, error = ensemble_average(left, equilibrium)
    assert np.abs((mean - exact_equilibrium()) / error).max() > 2 * z_limit(3)


def test_error_bars_cover():
    """Of frames whose labels and values are exact: the smooth fit's errors are those of many repetitions."""
    toy, scores = gancl.load_system("double_well_oscillators"), []
    wells = LABELS[[1, 2, 3, -4, -3]]
    for seed in range(20):
        frames = DOUBLE_WELL.sample(400, np.random.default_rng(seed))
        values, errors = conditional_average(Ensemble.of_positions(frames, toy), fast).at(wells)
        scores.append((values - exact_fast(wells)) / errors)
    assert 0.75 < np.sqrt(np.mean(np.square(scores))) < 1.25


def above(positions):
    """y less its centre at x: zero at any label, and over all."""
    return positions[:, 0, 1] - 0.25 * np.sin(1.5 * positions[:, 0, 0])


def test_frames_that_follow_one_another_are_not_as_many():
    """Of a trajectory whose y remembers 25 frames; the twin takes each frame as a draw of its own."""
    toy, scores = gancl.load_system("double_well_oscillators"), {True: [], False: []}
    for seed in range(10):
        rng = np.random.default_rng(seed)
        frames, noise = DOUBLE_WELL.sample(1500, rng), rng.normal(size=1500)
        noise[1:] *= np.sqrt(1 - np.exp(-2 / 25))
        _, centre, width = DOUBLE_WELL.fast(frames[:, 0, 0])[0][0]
        frames[:, 0, 1] = centre + width * lfilter([1], [1, -np.exp(-1 / 25)], noise)
        for in_time, found in scores.items():
            ensemble = replace(Ensemble.of_positions(frames, toy), in_time=in_time)
            given, overall = conditional_average(ensemble, above).at([[1.0]]), ensemble_average(ensemble, above)
            found.append([given[0].item() / given[1].item(), overall[0].item() / overall[1].item()])
    right, wrong = (np.sqrt(np.mean(np.square(scores[in_time]), axis=0)) for in_time in (True, False))
    assert (right < 1.8).all() and right[1] > 0.4 and (wrong > 2.5).all(), (right, wrong)


def test_frames_outside_the_domain_are_no_frames_of_it(monkeypatch):
    """The functions of a fit repeat themselves there: the right well would be laid over the left one, the twin."""
    toy, labels = gancl.load_system("double_well_oscillators"), np.linspace(-1.3, -0.5, 9)[:, None]
    left = replace(toy, slow=replace(toy.slow, domain=np.array([[-1.6, -0.4]])), basins=())
    frames = Ensemble.of_positions(DOUBLE_WELL.sample(3000, np.random.default_rng(0)), left)

    def largest():
        values, errors = conditional_average(frames, fast).at(labels)
        return np.abs((values - exact_fast(labels)) / errors).max()

    assert largest() < z_limit(27)
    monkeypatch.setattr(Ensemble, "within_domain", lambda self: self)
    assert largest() > 2 * z_limit(27)
    monkeypatch.undo()
    right = frames.select(frames.labels[:, 0] > 0)
    with pytest.raises(InputError, match="every configuration lies outside the domain"):
        conditional_average(right, fast)


def test_one_frame_with_nearly_all_weight_has_no_error_bar(toy):
    frames = DOUBLE_WELL.sample(500, np.random.default_rng(1))
    log_weights = np.where(np.arange(500) == 7, 25.0, 0.0)
    with pytest.raises(InputError, match=r"the weights leave 1\.0 effective configurations, of which no error"):
        ensemble_average(Ensemble.of_positions(frames, toy, log_weights), equilibrium)
    mean, error = ensemble_average(Ensemble.of_positions(frames, toy, 0.02 * log_weights), equilibrium)
    assert np.abs((mean - exact_equilibrium()) / error).max() < z_limit(3)


@pytest.mark.parametrize("name", ["half_moon", "quadratic"])
def test_closures_of_stochastic_equations(name):
    """E[x | u], E[y | u] and E[y1 | x1] of relaxed states; and the twin, labels that are not theirs."""
    sde = load_sde(name)
    rng = np.random.default_rng(1)
    states = np.tile(sde.start, (2000, 1))
    states[:, 0] = rng.uniform(*sde.slow.domain[0], len(states))
    states = sde.relax_frozen(states, 5 * sde.relaxation_time, seed=2)
    ensemble = Ensemble.of_positions(sde.to_positions(states), sde.as_molecular())
    labels = np.linspace(*(0.8 * sde.slow.domain[0]), 7)[:, None]
    limit = z_limit(2 * 2 * 7)

    def largest(one):
        values, errors = conditional_average(one, lambda x: sde.observe(x[:, 0, : len(sde.variables)])).at(labels)
        return np.abs((values - sde.exact_closures(labels)) / errors).max()

    assert largest(ensemble) < limit
    moved = np.clip(ensemble.labels + 0.1 * np.ptp(sde.slow.domain), *sde.slow.domain[0])
    assert largest(replace(ensemble, labels=moved)) > limit


def test_observables_of_trajectories_and_of_force_groups(toy, at_labels):
    positions = at_labels.positions[at_labels.ok][:5]
    found = of_trajectory(toy, lambda trajectory: trajectory.xyz[:, 0, 1].astype(float))(positions)
    np.testing.assert_allclose(found, positions[:, 0, 1], atol=1e-6)
    np.testing.assert_allclose(group_energy(toy, 0)(positions), DOUBLE_WELL.energy(positions[:, 0]), rtol=1e-9)
    with pytest.raises(InputError, match="no force is in group 7: the System has 0"):
        group_energy(toy, 7)


def test_the_reciprocal_part_in_a_group_of_its_own_is_refused(toy):
    """It would be counted with the rest of the force."""
    nonbonded = openmm.NonbondedForce()
    for _ in range(toy.system.getNumParticles()):
        nonbonded.addParticle(0.0, 0.3, 0.0)
    nonbonded.setReciprocalSpaceForceGroup(2)
    apart = copy.deepcopy(toy.system)
    apart.addForce(nonbonded)
    with pytest.raises(InputError, match="reciprocal part of the NonbondedForce is in group 2, the rest in 0"):
        group_energy(replace(toy, system=apart), 0)


def test_an_mdtraj_function_is_an_observable():
    chain = gancl.load_system("bonded_chain")
    positions = chain.positions + 0.01 * np.random.default_rng(1).normal(size=(4, 5, 3))
    radii = of_trajectory(chain, mdtraj.compute_rg)(positions)
    centred = positions - positions.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(radii, np.sqrt((centred**2).sum(axis=2).mean(axis=1)), rtol=1e-4)


def test_what_averages_refuse(toy, ensemble, at_labels):
    with pytest.raises(InputError, match=r"returns an array of shape \(1,\) for \d+ configurations"):
        conditional_average(ensemble, lambda positions: np.zeros(1))
    with pytest.raises(InputError, match=r"is NaN or infinite at 1 of \d+ configurations"):
        conditional_average(ensemble, lambda positions: np.where(np.arange(len(positions)) == 3, np.nan, 1.0))
    with pytest.raises(InputError, match=r"label \(0.123\) has 0 lifts with a weight: lift at least two"):
        averages_at_labels(at_labels, fast, [[0.123]])
    few = ensemble.select(ensemble.labels[:, 0] < -0.5)
    with pytest.raises(InputError, match=r"label \(\S+\) has no lifts about it"):
        conditional_average(few, fast).at(LABELS)
    with pytest.raises(InputError, match="no configuration has a weight"):
        replace(ensemble, log_weights=np.full(len(ensemble), -np.inf))
    with pytest.raises(InputError, match=r"positions have shape \(3, 1\): give \(n, 1, 3\)"):
        Ensemble.of_positions(np.zeros((3, 1)), toy)


def test_a_constant_has_no_error_and_few_lifts_are_said(at_labels):
    values, errors = conditional_average(at_labels, lambda positions: np.full(len(positions), 2.0)).at(LABELS)
    np.testing.assert_allclose(values, 2.0)
    assert errors.max() < 1e-3
    some = at_labels.select(np.arange(len(at_labels)) % 300 < 6)
    (doubt,) = averages_at_labels(some, fast).doubts()
    assert "of 15 labels have fewer than 10 effective lifts" in doubt


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ({"labels": np.zeros((3, 2))}, r"labels of shape \(3, 2\) and log-weights of shape \(3,\): give \(3, 1\)"),
        ({"log_weights": np.zeros(4)}, r"log-weights of shape \(4,\): give \(3, 1\) and \(3,\)"),
        ({"log_weights": np.array([0.0, np.nan, 0.0])}, "log-weights are NaN or infinite: give minus infinity"),
        ({"log_weights": np.array([0.0, np.inf, 0.0])}, "log-weights are NaN or infinite: give minus infinity"),
        ({"labels": np.array([[0.0], [np.nan], [0.0]])}, "with a weight has NaN in its positions or labels"),
        ({"positions": np.full((3, 1, 3), np.nan)}, "with a weight has NaN in its positions or labels"),
    ],
)
def test_what_is_no_ensemble(toy, part, words):
    """An average would be NaN, or of rows that do not belong together."""
    whole = Ensemble.of_positions(0.1 * np.arange(9.0).reshape(3, 1, 3), toy)
    assert whole.ok.all()
    with pytest.raises(InputError, match=words):
        replace(whole, **part)


def test_lifts_at_fixed_labels_are_an_ensemble_and_those_of_a_file_none(toy, learned, at_labels):
    lifts = gancl.Lifter(toy, learned.model).lift(LABELS, seed=3)
    assert lifts.mode == "fixed" and at_labels.fixed
    found = Ensemble.of_lifts(lifts)
    assert found.fixed and found.log_label_density is None and np.array_equal(found.labels, LABELS)
    with pytest.raises(InputError, match="these lifts have no positions"):
        Ensemble.of_lifts(replace(lifts, positions=np.empty((len(lifts), 0, 3))))


def test_copies_count_once(toy, ensemble):
    """Three hundred frames of thirty different ones: averages are the same, errors as of thirty, not of 300."""
    some = np.flatnonzero(ensemble.ok)[:30]
    positions, order = ensemble.positions[some], np.random.default_rng(0).permutation(np.repeat(np.arange(30), 10))
    copied, once = Ensemble.of_positions(positions[order], toy), Ensemble.of_positions(positions, toy)
    assert copied.ok.sum() == 30 and len(copied) == 300
    (mean, error), (of_once, error_of_once) = (ensemble_average(one, fast) for one in (copied, once))
    np.testing.assert_allclose(mean, of_once, rtol=1e-12)
    np.testing.assert_allclose(error, error_of_once, rtol=0.5)


def test_lifts_of_another_system_are_refused(toy, learned):
    for other in (replace(toy, temperature=330.0), gancl.load_system("forked_oscillator")):
        with pytest.raises(InputError, match=r"has other (energies|labels|atoms)"):
            Ensemble.of_learned(learned, other)
    warmer = replace(toy, temperature=330.0)
    assert len(Ensemble.of_learned(learned.reweight(warmer), warmer)) == len(learned.lifts)
