"""The table of consistency: lifts against restrained dynamics; labels shuffled and weights dropped show in it."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest

import openmm_gancl as gancl
from openmm_gancl import InputError
from openmm_gancl.closures import LiftedEnsemble, check_consistency, consistency_of
from openmm_gancl.closures.consistency import coordinate_distances, energy_overlap
from openmm_gancl.generator.coupling import CouplingNetwork
from openmm_gancl.generator.training import train_model
from openmm_gancl.generator.wgan_gp import TrainingOptions
from openmm_gancl.reference.chart import chart_for
from tests.physics.exact import DOUBLE_WELL, KT

LABELS = np.array([[-1.0], [0.1], [0.9]])
EACH = 2000


@pytest.fixture(scope="module")
def about_labels(toy, learned):
    """Lifts about three labels with the restraint's density, their window, and exact frames of these windows."""
    rng, constant = np.random.default_rng(5), float(toy.force_constants[0])
    window = np.repeat(np.arange(3), EACH)
    near = LABELS[window] + np.sqrt(KT / constant) * rng.normal(size=(3 * EACH, 1))
    lifts = gancl.Lifter(toy, learned.model).lift(near, seed=6)
    positions = np.concatenate([DOUBLE_WELL.sample(EACH, rng, label, constant) for label in LABELS[:, 0]])
    frames = gancl.sample_windows(toy, LABELS, steps_per_window=1, frames_per_window=1, platform="Reference")
    frames = replace(
        frames,
        positions=positions,
        labels=LABELS[window],
        cv_values=positions[:, 0, :1],
        energies=DOUBLE_WELL.energy(positions[:, 0]),
        window=window,
    )
    return lifts, window, near, frames


def table_of(toy, about_labels, **changed):
    lifts, window, near, frames = about_labels
    chart = chart_for(toy.topology, toy.slow, toy.positions)
    ensemble = LiftedEnsemble.of_lifts("lifts", replace(lifts, **changed), window, near)
    return consistency_of([ensemble], frames, chart, toy)


def test_lifts_are_the_windows_ensembles(toy, about_labels):
    found = table_of(toy, about_labels)
    weighted, unweighted, halves = found.rows
    assert weighted.label_error < 1e-9 and not found.doubts()
    # two samples of 1,500 effective lifts and 2,000 frames are nearer than halves of these, which are 1,000 each
    assert weighted.distance < 1.3 * halves.distance < 0.15
    assert weighted.energy_overlap > 0.9
    # weights dropped show
    assert unweighted.distance > 2 * weighted.distance
    assert unweighted.ensemble == "lifts, unweighted" and len(found.table()) == 5
    assert found.names == ("particle 0, y", "particle 0, z") and found.distances.shape == (3, 2)


def test_shuffled_labels_dropped_weights_and_displaced_lifts_show(toy, about_labels):
    """The twins."""
    right = table_of(toy, about_labels)
    lifts = about_labels[0]
    shuffled = table_of(toy, about_labels, positions=np.roll(lifts.positions, EACH, axis=0))
    assert shuffled.rows[0].label_error > 0.5 and shuffled.rows[0].distance > 5 * right.rows[0].distance
    assert shuffled.doubts() and "restrained dynamics differ" in shuffled.doubts()[0]
    # weights that favour what lies high in y
    tilted = lifts.log_weights + 20 * (lifts.positions[:, 0, 1] - 0.25 * np.sin(1.5 * lifts.labels[:, 0]))
    wrong = table_of(toy, about_labels, log_weights=tilted)
    assert wrong.rows[0].distance > 3 * right.rows[0].distance
    assert wrong.rows[0].farthest == "particle 0, y" and wrong.doubts()
    assert wrong.rows[1].distance == right.rows[1].distance


def test_the_whole_check(toy, learned):
    found = check_consistency(
        toy, learned.model, LABELS, n_lifts=200, n_frames=100, stride=20, free_time=0.15, seed=1, platform="Reference"
    )
    assert not found.doubts() and found.rows[0].label_error < 1e-9
    names = [row.ensemble for row in found.rows]
    assert names == ["lifts, weighted", "lifts, unweighted", "lifts, minimised", "frames, half against half"]
    # all at the bottom of a well: other labels, no spread, and energies that no frame has
    minimised = found.rows[2]
    assert minimised.label_error > 0.05 and minimised.distance > 0.7 and minimised.energy_overlap < 0.4
    assert 0 < found.free_label_change < 0.2 and found.force_evaluations > 3 * (200 + 100 * 20)
    again = check_consistency(
        toy, learned.model, LABELS, n_lifts=200, n_frames=100, stride=20, free_time=0.15, seed=1, platform="Reference"
    )
    assert again.rows == found.rows


def test_a_network_and_the_map_alone_have_rows_of_their_own(toy, learned):
    """The network is the identity here: both draw the same; and one that draws something else shows."""
    narrow = learned.model.map.narrow
    network = CouplingNetwork(narrow.n, narrow.condition.n_network_features, hidden=8).double().requires_grad_(False)
    options = {"n_lifts": 100, "n_frames": 40, "stride": 20, "free_time": 0.015, "seed": 1, "platform": "Reference"}

    def rows_with(layers):
        with_network = replace(learned.model, map=deepcopy(learned.model.map))
        with_network.map.narrow.set_network(layers)
        found = check_consistency(toy, with_network, LABELS, **options)
        return {row.ensemble: row for row in found.rows}

    rows = rows_with(network)
    assert rows["triangular map alone, weighted"].distance == pytest.approx(rows["lifts, weighted"].distance, abs=1e-9)
    for layer in network.layers:
        layer.network[-1].bias += 0.5
    rows = rows_with(network)
    assert rows["lifts, unweighted"].distance > 1.5 * rows["triangular map alone, unweighted"].distance


@pytest.fixture(scope="module")
def products(toy):
    """Product generators fitted to exact configurations, and to the same with the labels of others."""
    rng, x = np.random.default_rng(8), np.linspace(-1.4, 1.4, 3000)
    ((_, my, sy),), mz, sz = DOUBLE_WELL.fast(x)
    positions = np.stack([x, rng.normal(my, sy), rng.normal(mz, sz)], axis=1)[:, None]
    baseline = TrainingOptions(latent_size=0)
    return [train_model(toy, positions, labels, seed=1, options=baseline) for labels in (x[:, None], -x[:, None])]


def test_lifts_of_a_product_generator_as_drawn_and_relaxed(toy, learned, products):
    """What weights and relaxing contribute; a generator that learned wrong labels shows until either repairs it."""
    options = {"n_lifts": 400, "n_frames": 200, "stride": 20, "free_time": 0.015, "seed": 2, "platform": "Reference"}

    def rows_with(product):
        found = check_consistency(toy, learned.model, LABELS, product=product, **options)
        return found, {row.ensemble.removeprefix("product generator, "): row for row in found.rows}

    found, right = rows_with(products[0])
    assert not found.doubts() and [row.ensemble for row in found.rows][2:6] == [
        "product generator, not relaxed, weighted",
        "product generator, not relaxed, unweighted",
        "product generator, relaxed, weighted",
        "product generator, relaxed, unweighted",
    ]
    halves = right["frames, half against half"]
    width = np.sqrt(KT / float(toy.force_constants[0]))
    for name in ("not relaxed, weighted", "relaxed, weighted", "relaxed, unweighted"):
        # the restraint's width at a label is the error of frames and lifts alike
        assert right[name].label_error == pytest.approx(halves.label_error, rel=0.3)
        assert right[name].distance < halves.distance + 0.1 and right[name].energy_overlap > 0.75
    assert halves.label_error == pytest.approx(width, rel=0.3)
    assert right["not relaxed, unweighted"].effective == pytest.approx(400)
    # within a window x and y go together, which no product has: weights pay for it
    assert 20 < right["not relaxed, weighted"].effective < 200
    _, wrong = rows_with(products[1])
    assert wrong["not relaxed, unweighted"].distance > 5 * right["not relaxed, unweighted"].distance
    assert wrong["relaxed, unweighted"].distance < 0.5 * wrong["not relaxed, unweighted"].distance
    assert wrong["not relaxed, weighted"].effective < 0.2 * right["not relaxed, weighted"].effective


def test_shuffled_labels_of_a_product_generator_show(toy, about_labels, products):
    """The twin: its lifts about one label, said to be of another."""
    frames = about_labels[3]
    lifts = gancl.Lifter(toy, products[0], relax_steps=20, platform="Reference").lift(
        np.repeat(LABELS, 60, axis=0), seed=9
    )
    each, chart = np.repeat(np.arange(3), 60), chart_for(toy.topology, toy.slow, toy.positions)
    rows = []
    for positions in (lifts.positions, np.roll(lifts.positions, 60, axis=0)):
        ensemble = LiftedEnsemble.of_lifts("lifts", replace(lifts, positions=positions), each, LABELS[each])
        rows.append(consistency_of([ensemble], frames, chart, toy).rows[0])
    assert rows[1].label_error > 5 * rows[0].label_error
    assert rows[1].distance > 5 * rows[0].distance


def test_distances_and_overlaps_are_the_closed_forms():
    """Of two normals a shift apart, of a circle cut where nothing lies, and of weights in place of repeats."""
    rng = np.random.default_rng(7)
    a, b = rng.normal(0.5, 1, 20_000), rng.normal(0, 1, 20_000)
    even = np.full(20_000, 1 / 20_000)
    line, circle = np.array([np.inf]), np.array([2 * np.pi])
    assert coordinate_distances(a[:, None], b[:, None], even, even, line)[0] == pytest.approx(0.5, abs=0.03)
    around = np.angle(np.exp(1j * (0.2 * np.stack([a, b]) + np.pi)))
    assert coordinate_distances(around[0][:, None], around[1][:, None], even, even, circle)[0] == pytest.approx(
        0.5, abs=0.03
    )
    # 2 Phi(-0.25), less what bins lose
    assert energy_overlap(a, b, even, even) == pytest.approx(0.803, abs=0.02)
    tilted = np.exp(0.5 * b) / np.exp(0.5 * b).sum()
    assert coordinate_distances(b[:, None], a[:, None], tilted, even, line)[0] < 0.03


def test_what_a_comparison_refuses(toy, about_labels):
    with pytest.raises(InputError, match="label number 1 has 0 lifts with a weight: give more"):
        table_of(toy, about_labels, log_weights=np.full(3 * EACH, -np.inf))
