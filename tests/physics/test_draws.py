"""Exactness of draws without relaxation: ``E[w | s] = exp(-beta F(s))`` against quadrature, whatever the training.

Labels are drawn evenly, so that ``w exp(beta F(s))`` has mean one. The z-scores of this file together have the
false-alarm rate of 3.5 sigma (Bonferroni); planted faults are found beyond 5 sigma. A trained generator's mean counts
with an error of at most 5 %, an untrained one's with 15 %.
"""

from functools import cache

import numpy as np
import pytest
import torch

from openmm_gancl.generator.invertible import InvertibleGenerator
from openmm_gancl.generator.score_fit import fit_triangular, untrained_triangular
from openmm_gancl.lifting import label_regression
from openmm_gancl.lifting.draws import draw
from openmm_gancl.lifting.loop import learn
from openmm_gancl.lifting.loop_options import LoopOptions
from openmm_gancl.sampling.short_windows import ShortWindows

from .exact import CHAIN, KT
from .statistics import score, z_limit
from .toy_generators import NAMES, domain, exact_log_density, generator, structures, system_and_chart

GENERATORS = ("trained", "shuffled", "untrained")
N_DRAWS = {"trained": 3000, "shuffled": 20_000, "untrained": 30_000}
DEMAND = {"trained": (0.05, 200), "shuffled": (0.05, 200), "untrained": (0.15, 50)}
N_SCORES = len(NAMES) * len(GENERATORS) + 3
REJECTED = 5.0


@cache
def draws(name, kind):
    system, _ = system_and_chart(name)
    labels = np.random.default_rng(4).uniform(*domain(name), (N_DRAWS[kind], 1))
    return draw(system, [generator(name, kind)], np.ones(1), labels, np.random.default_rng(5))


@pytest.mark.parametrize("kind", GENERATORS)
@pytest.mark.parametrize("name", NAMES)
def test_mean_weight_is_the_density_of_the_label(name, kind):
    found = draws(name, kind)
    result = score(found.log_weights - exact_log_density(name, found.labels), 0.0)
    largest_error, least_size = DEMAND[kind]
    assert result.relative_error <= largest_error and result.effective_sample_size >= least_size, result
    assert abs(result.z) < z_limit(N_SCORES), result


def planted(name, kind, log_weights):
    found = draws(name, kind)
    return score(log_weights - exact_log_density(name, found.labels), 0.0)


def test_a_volume_left_out_shows():
    found = draws(CHAIN.name, "trained")
    _, chart = system_and_chart(CHAIN.name)
    wrong = planted(CHAIN.name, "trained", found.log_weights - chart.log_jacobian(found.coordinates))
    assert abs(wrong.z) > REJECTED, wrong


@pytest.mark.parametrize("name", NAMES[:2])
def test_the_density_of_another_label_shows(name):
    found, made = draws(name, "trained"), generator(name, "trained")
    moved = found.coordinates.copy()
    moved[:, made.chart.label_indices] += 0.1
    wrong = planted(name, "trained", found.log_target - made.log_density(moved))
    assert abs(wrong.z) > REJECTED, wrong


def test_wider_tails_carry_a_generator_that_is_too_narrow():
    """By a factor of 1.7; left out of the density, they show."""
    name = "double_well_oscillators"
    system, chart = system_and_chart(name)
    made = fit_triangular(chart, system.slow, *structures(name))
    made.narrow.log_width[0] -= np.log(1.7)
    narrow = InvertibleGenerator(made, chart, system.slow)
    labels = np.random.default_rng(4).uniform(*domain(name), (20_000, 1))
    found = draw(system, [narrow], np.ones(1), labels, np.random.default_rng(5))
    ratios = found.log_weights - exact_log_density(name, labels)
    right = score(ratios, 0.0)
    assert right.relative_error < 0.05 and right.effective_sample_size > 200, right
    assert abs(right.z) < z_limit(N_SCORES), right
    normals, _ = narrow.invert(found.coordinates)
    _, log_slope = made.narrow.tails(torch.as_tensor(normals))
    wrong = score(ratios - log_slope.sum(dim=1).numpy(), 0.0)
    assert abs(wrong.z) > REJECTED, wrong


def test_dropped_zeros_show():
    """An angle five times too wide leaves the chart often: such draws have weight zero, and count."""
    system, chart = system_and_chart(CHAIN.name)
    made = fit_triangular(chart, system.slow, *structures(CHAIN.name))
    angle = int(np.flatnonzero(made.narrow_indices.numpy() == chart.n_bonds)[0])
    made.narrow.log_width[0, angle] += np.log(5.0)
    labels = np.random.default_rng(4).uniform(*domain(CHAIN.name), (10_000, 1))
    found = draw(system, [InvertibleGenerator(made, chart, system.slow)], np.ones(1), labels, np.random.default_rng(5))
    ratios = found.log_weights - exact_log_density(CHAIN.name, labels)
    assert (found.reason == "outside").sum() > 500 and not np.isnan(ratios).any()
    right = score(ratios, 0.0)
    assert right.relative_error < 0.05 and right.effective_sample_size > 200, right
    assert abs(right.z) < z_limit(N_SCORES), right
    wrong = score(ratios[np.isfinite(ratios)], 0.0)
    assert wrong.z > REJECTED, wrong


def test_truncated_weights_show():
    found = draws("double_well_oscillators", "untrained")
    ratios = found.log_weights - exact_log_density("double_well_oscillators", found.labels)
    wrong = score(np.minimum(ratios, 1.0), 0.0)
    assert wrong.z < -REJECTED, wrong


def test_the_loop_finds_the_surface():
    """Of the double well, from 8,000 evaluations, within its bars; below 8 kT."""
    name = "double_well_oscillators"
    system, _ = system_and_chart(name)
    learned = learn(system, seed=6, max_evaluations=8000, options=LoopOptions(ShortWindows(n=20), n_first=500))
    surface = learned.surface
    centres = surface.centres[0]
    exact = -exact_log_density(name, centres[:, None]) * KT
    low = exact < exact.min() + 8.0 * KT
    difference = (surface.energy - exact)[low]
    difference -= difference.mean()
    assert np.isfinite(difference).all()
    assert difference.std() < 0.05 * KT
    # bins are correlated: their root mean square z is that of a few independent ones
    assert np.sqrt(np.mean((difference / surface.error[low]) ** 2)) < 2.0
    assert learned.history[-1].force_evaluations == surface.force_evaluations <= 8000
    assert all(abs(one.mean_ratio - 1.0) < 0.15 for one in learned.history)


def wide_torsions(inside=None):
    """Of a generator whose torsions are normal with a width of four radians, most weights those of the cut."""
    system, chart = system_and_chart(CHAIN.name)
    scales = np.concatenate(
        [np.full(chart.n_bonds, 0.02), np.full(chart.n_angles, 0.2), np.full(chart.n_torsions, 4.0)]
    )
    origin = chart.to_internal(system.positions[None])[0]
    made = untrained_triangular(chart, system.slow, origin, scales, np.random.default_rng(2), strength=0.0)
    generator = InvertibleGenerator(made, chart, system.slow)
    if inside is not None:
        object.__setattr__(generator, "inside", inside)
    labels = np.random.default_rng(4).uniform(*domain(CHAIN.name), (20_000, 1))
    found = draw(system, [generator], np.ones(1), labels, np.random.default_rng(5))
    return score(found.log_weights - exact_log_density(CHAIN.name, labels), 0.0)


def test_a_narrow_torsion_that_is_not_cut_at_half_a_turn_shows():
    """Beyond it the same structure is counted again."""
    _, chart = system_and_chart(CHAIN.name)
    right, wrong = wide_torsions(), wide_torsions(chart.inside)
    assert right.relative_error < 0.05 and abs(right.z) < z_limit(N_SCORES), right
    assert wrong.z > REJECTED, wrong


def test_rounds_joined_with_later_densities_and_generators_refitted_before_the_weights_show():
    """The deterministic mixture with densities that were fitted on these very draws, or the next density alone.

    Rounds of 32.
    Fitted by moments: forces of this toy are linear in what is drawn, and say the same whatever was drawn.
    """
    name, n_rounds = "narrow_barrier", 3
    system, chart = system_and_chart(name)

    def normal(centre, width):
        made = untrained_triangular(chart, system.slow, centre, width, np.random.default_rng(8))
        return InvertibleGenerator(made, chart, system.slow)

    def fitted(parts):
        past = np.concatenate([one.coordinates for one in parts])
        ratios = np.concatenate([one.log_weights - exact_log_density(name, one.labels) for one in parts])
        weights = np.exp(np.clip(ratios, -5.0, 1.5))
        centre = np.average(past, axis=0, weights=weights)
        variance = np.average((past - centre) ** 2, axis=0, weights=weights)
        return normal(centre, np.maximum(1.1 * np.sqrt(variance), 0.02))

    rng, right, later, refitted = np.random.default_rng(7), [], [], []
    for _ in range(200):
        made, parts = [normal(np.array([0.0, 0.0, 0.2]), np.full(3, 0.12))], []
        for _ in range(n_rounds):
            labels = rng.uniform(-0.2, 0.2, (32, 1))
            parts.append(draw(system, made[-1:], np.ones(1), labels, rng))
            made.append(fitted(parts))
        for part in parts:
            densities = np.logaddexp.reduce([one.log_density(part.coordinates) for one in made[:n_rounds]], axis=0)
            exact = exact_log_density(name, part.labels)
            right.append(np.exp(part.log_weights - exact))
            later.append(np.exp(part.log_target - densities + np.log(n_rounds) - exact))
        for part in parts[1:]:  # which are drawn from what is nearly right already
            exact = exact_log_density(name, part.labels)
            refitted.append(np.exp(part.log_target - fitted([part]).log_density(part.coordinates) - exact))
    means = [np.array(one).reshape(200, -1).mean(axis=1) for one in (right, later, refitted)]
    z = [(mean.mean() - 1) / (mean.std(ddof=1) / len(mean) ** 0.5) for mean in means]
    assert abs(z[0]) < 3.5, z
    assert min(abs(z[1]), abs(z[2])) > REJECTED, z


def barrier_deviation():
    """Of the loop's surface of the narrow barrier from the exact one, below 8 kT, kT."""
    name = "narrow_barrier"
    options = LoopOptions(ShortWindows(n=20), n_first=500)
    surface = learn(system_and_chart(name)[0], seed=1, max_evaluations=6000, options=options).surface
    exact = -exact_log_density(name, surface.centres[0][:, None]) * KT
    low = exact < exact.min() + 8.0 * KT
    return (surface.energy - exact)[low].std() / KT


def test_a_sharp_feature_is_no_clash(monkeypatch):
    """Slopes of a tenth of all draws are far from a first guess without the barrier; cut as clashes, they hide it."""
    assert barrier_deviation() < 0.05
    monkeypatch.setattr(label_regression, "NEVER_CUT", 0.0)
    assert barrier_deviation() > 0.2
