"""Draws of a mixture: exact weights on a toy by quadrature, zeros counted with a reason, and never NaN."""

from dataclasses import replace

import numpy as np
import openmm
import pytest
import torch

from openmm_gancl import load_system
from openmm_gancl.engine.restraint_forces import add_restraint
from openmm_gancl.generator.invertible import InvertibleGenerator
from openmm_gancl.generator.score_fit import untrained_triangular
from openmm_gancl.lifting.draws import draw, join_draws, mixture_log_density
from openmm_gancl.lifting.lifts import REASONS
from openmm_gancl.reference.chart import chart_for
from tests.physics.exact import EXACT, KT
from tests.physics.statistics import score, z_limit

TOY = "double_well_oscillators"
N_SCORES = 2


def generator_of(system, scale, seed=1, strength=0.0):
    """About the system's own structure."""
    chart = chart_for(system.topology, system.slow, system.positions, system.constraints)
    scales = np.broadcast_to(scale, chart.n_coordinates)
    origin, rng = chart.to_internal(system.positions[None])[0], np.random.default_rng(seed)
    made = untrained_triangular(chart, system.slow, origin, scales, rng, strength)
    return InvertibleGenerator(made, chart, system.slow)


@pytest.fixture(scope="module")
def toy():
    return load_system(TOY)


@pytest.fixture(scope="module")
def pair(toy):
    """A wide generator, and a narrow one elsewhere."""
    wide, narrow = (generator_of(toy, scale) for scale in (0.2, 0.1))
    for one, origin in ((wide, {1: 0.05, 2: 0.15}), (narrow, {1: -0.05, 2: 0.13})):
        ordered = [origin[int(i)] for i in one.map.narrow_indices]
        one.map.narrow.origin.copy_(torch.tensor(ordered, dtype=torch.float64))
    return [wide, narrow]


@pytest.fixture(scope="module")
def draws(toy, pair):
    labels = np.random.default_rng(1).uniform(-1.4, 1.4, (20_000, 1))
    return draw(toy, pair, np.array([0.3, 0.7]), labels, np.random.default_rng(2), round_number=3)


def ratios(draws, log_density=None):
    """log of w exp(beta F(s)), of mean one."""
    log_density = draws.log_density if log_density is None else log_density
    return draws.log_target - log_density + EXACT[TOY].surface(draws.labels[:, 0]) / KT


def test_the_mean_weight_of_a_mixture_is_exact(draws):
    found = score(ratios(draws), 0.0)
    assert found.relative_error < 0.05 and found.effective_sample_size > 500
    assert abs(found.z) < z_limit(N_SCORES)


@pytest.mark.parametrize("which", [0, 1])
def test_the_density_of_one_generator_for_draws_of_both_shows(draws, pair, which):
    log_density = pair[which].log_density(draws.coordinates)
    wrong = score(ratios(draws, log_density), 0.0)
    assert wrong.z > 5.0, wrong


def test_density_and_gradients_are_those_of_mixture_and_target(toy, draws, pair):
    rows = draws.select(slice(5))
    densities = [np.log(share) + one.log_density(rows.coordinates) for share, one in zip((0.3, 0.7), pair, strict=True)]
    assert np.allclose(rows.log_density, np.logaddexp(*densities), rtol=0, atol=1e-12)
    assert np.array_equal(mixture_log_density(pair, np.array([0.3, 0.7]), rows.coordinates), rows.log_density)
    assert np.allclose(rows.log_target, -EXACT[TOY].energy(rows.coordinates) / KT, rtol=1e-6, atol=1e-6)
    step = 1e-6 * np.eye(3)
    for coordinates, gradient in zip(rows.coordinates, rows.gradients, strict=True):
        up, down = (EXACT[TOY].energy(coordinates + sign * step) for sign in (1, -1))
        assert np.allclose(gradient, -(up - down) / 2e-6 / KT, rtol=1e-4, atol=1e-4)


def test_draws_are_counted_and_labelled(draws):
    assert len(draws) == draws.force_evaluations == 20_000
    assert (draws.round == 3).all() and (draws.reason == "ok").all()
    assert np.array_equal(draws.coordinates[:, :1], draws.labels)


def test_joined_and_selected_draws(draws):
    parts = [draws.select(slice(0, 3)), draws.select(draws.labels[:, 0] > 1.39)]
    joined = join_draws(parts)
    assert len(joined) == 3 + len(parts[1])
    assert np.array_equal(joined.log_weights, np.concatenate([part.log_weights for part in parts]))


def test_the_same_seed_gives_the_same_draws(toy, pair, draws):
    labels = draws.labels[:1500]
    one, other, third = (
        draw(toy, pair, np.array([0.3, 0.7]), labels, np.random.default_rng(seed), workers=workers)
        for seed, workers in ((5, 1), (5, 2), (6, 1))
    )
    assert one.coordinates.tobytes() == other.coordinates.tobytes()
    assert (
        one.log_weights.tobytes() == other.log_weights.tobytes()
        and one.gradients.tobytes() == other.gradients.tobytes()
    )
    assert not np.array_equal(one.coordinates, third.coordinates)


def scales_of(chart, bond, angle, torsion):
    parts = [
        np.full(n, size) for n, size in ((chart.n_bonds, bond), (chart.n_angles, angle), (chart.n_torsions, torsion))
    ]
    return np.concatenate(parts)


@pytest.fixture(scope="module")
def alanine():
    return load_system("alanine_dipeptide_vacuum")


def drawn(system, scales, n=300):
    generator = generator_of(system, scales, strength=0.1)
    labels = np.random.default_rng(3).uniform(-np.pi, np.pi, (n, 2))
    return draw(system, [generator], np.ones(1), labels, np.random.default_rng(4))


def test_zeros_have_a_reason(alanine):
    chart = generator_of(alanine, 0.1).chart
    draws = drawn(alanine, scales_of(chart, 0.02, 0.7, 0.9), n=1000)
    found = dict(zip(*np.unique(draws.reason, return_counts=True), strict=True))
    assert set(found) <= set(REASONS) and found["outside"] > 10 and found["state"] > 10
    zero = draws.reason != "ok"
    assert (draws.log_weights[zero] == -np.inf).all() and np.isfinite(draws.log_weights[~zero]).all()
    assert (draws.gradients[zero] == 0).all() and np.isfinite(draws.gradients).all()
    assert draws.force_evaluations == len(draws) - found["outside"]


def test_the_state_is_part_of_the_target(alanine):
    chart = generator_of(alanine, 0.1).chart
    scales = scales_of(chart, 0.002, 0.05, 0.9)
    draws = drawn(alanine, scales)
    inside = draws.reason != "outside"
    in_state = alanine.state.inside(chart.to_cartesian(draws.coordinates[inside]))
    assert (draws.reason[inside][~in_state] != "ok").all() and (draws.reason[inside][in_state] != "state").all()
    assert 10 < in_state.sum() < inside.sum() - 10


def test_energies_that_are_not_finite_are_zeros(alanine):
    """A force whose energy is NaN on one side of a plane, and large beyond a second one."""
    system = openmm.XmlSerializer.clone(alanine.system)
    force = openmm.CustomTorsionForce("sqrt(theta + 1.5) + 1e9 * step(theta - 1.5)")
    force.addTorsion(*map(int, alanine.slow.atoms[0]))
    system.addForce(force)
    broken = replace(alanine, system=system)
    chart = generator_of(alanine, 0.1).chart
    draws = drawn(broken, scales_of(chart, 0.002, 0.05, 0.1))
    inside = draws.reason != "outside"
    below, above = draws.labels[:, 0] < -1.5, draws.labels[:, 0] > 1.5
    assert (draws.reason[inside & below] == "nan").all()
    assert (draws.reason[inside & above] == "clash").all()
    assert (draws.reason[inside & ~below & ~above] == "ok").any()
    assert not np.isnan(draws.log_weights).any() and (draws.gradients[below] == 0).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_density_that_is_no_number_is_a_zero(toy, pair, value, monkeypatch):
    real = InvertibleGenerator.log_density

    def broken(self, coordinates):
        found = real(self, coordinates)
        found[::7] = value
        return found

    monkeypatch.setattr(InvertibleGenerator, "log_density", broken)
    labels = np.linspace(-1, 1, 50)[:, None]
    draws = draw(toy, pair, np.array([0.5, 0.5]), labels, np.random.default_rng(0))
    assert not np.isnan(draws.log_weights).any() and not (draws.log_weights == np.inf).any()
    assert (draws.reason[::7] == "nan").all() and (draws.log_weights[::7] == -np.inf).all()
    assert (draws.gradients[::7] == 0).all()


def test_no_draw_inside_is_no_error(alanine):
    chart = generator_of(alanine, 0.1).chart
    scales = scales_of(chart, 0.002, 0.05, 0.1)
    scales[0] = 1e6
    generator = generator_of(alanine, scales)
    generator.map.narrow.origin[generator.map.narrow_indices == 0] = -1e9
    draws = draw(alanine, [generator], np.ones(1), np.zeros((4, 2)), np.random.default_rng(0))
    assert (draws.reason == "outside").all() and (draws.log_weights == -np.inf).all()
    assert draws.force_evaluations == 0


def test_a_restraint_of_the_system_is_in_the_weights(alanine):
    """The system's own forces are the target, whatever they are."""
    system = openmm.XmlSerializer.clone(alanine.system)
    restraint = add_restraint(system, alanine.slow, alanine.force_constants, 1)
    chart = generator_of(alanine, 0.1).chart
    scales = scales_of(chart, 0.002, 0.05, 0.1)
    plain, restrained = drawn(alanine, scales, 20), drawn(replace(alanine, system=system), scales, 20)
    ok = plain.reason == "ok"
    assert restraint is not None and ok.any()
    assert (np.abs(plain.log_weights - restrained.log_weights)[ok] > 1e-3).any()
