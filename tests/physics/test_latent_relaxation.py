"""Exactness of lifts relaxed in base numbers: ``E[w | s] = exp(-beta F(s))`` at any number of moves and any step.

The z-scores of this file together have the false-alarm rate of 3.5 sigma (Bonferroni); planted faults are found beyond
5 sigma. A trained generator's mean counts with an error of at most 5 %, an untrained one's with 15 %.
"""

from dataclasses import dataclass

import numpy as np
import pytest
from scipy.special import i0

from openmm_gancl import load_system
from openmm_gancl.free_energy.weight_statistics import effective_sample_size
from openmm_gancl.lifting import latent_relaxation
from openmm_gancl.lifting.draws import Draws
from openmm_gancl.lifting.latent_relaxation import STEPS, LatentMoves, choose_moves, choose_step, lift_latent

from .statistics import score, z_limit
from .toy_generators import NAMES, NETWORKS, domain, exact_log_density, generator

N_LIFTS = {("trained", 1): 1500, ("trained", 5): 1000, ("trained", 50): 300}
N_LIFTS |= {("bad", 1): 12_000, ("bad", 5): 3500, ("bad", 50): 900}
N_OF_NETWORKS = {1: 1500, 5: 1000, 50: 300}
N_LIFTS |= {(kind, n): N_OF_NETWORKS[n] for kind in NETWORKS for n in N_OF_NETWORKS}
DEMAND = {"trained": (0.05, 200), "bad": (0.15, 50), **dict.fromkeys(NETWORKS, (0.05, 200))}
BAD = {"double_well_oscillators": "shuffled", "narrow_barrier": "untrained", "bonded_chain": "untrained"}
"""An untrained generator of the double well would leave a few effective lifts of ten thousand."""

CASES = [(name, kind, n) for name in NAMES for kind, n in N_LIFTS if name != "narrow_barrier" or kind == "bad"]
N_SCORES = len(CASES)
REJECTED = 5.0
STEP = 0.5
SHIFT = 1.5


def made(name, kind):
    return generator(name, BAD[name] if kind == "bad" else kind)


def lifts(name, kind, moves, n=None, seed=5):
    labels = np.random.default_rng(4).uniform(*domain(name), (n or N_LIFTS[kind, moves.n], 1))
    return lift_latent(load_system(name), made(name, kind), labels, np.random.default_rng(seed), moves)


def scored(name, found):
    return score(found.log_weights - exact_log_density(name, found.labels), 0.0)


@pytest.mark.parametrize(("name", "kind", "n_moves"), CASES)
def test_mean_weight_is_the_density_of_the_label(name, kind, n_moves):
    found = lifts(name, kind, LatentMoves(n_moves, STEP))
    result = scored(name, found)
    largest_error, least_size = DEMAND[kind]
    assert result.relative_error <= largest_error and result.effective_sample_size >= least_size, result
    assert abs(result.z) < z_limit(N_SCORES), result


def test_moves_are_worth_something_and_are_counted():
    name = "bonded_chain"
    sizes = []
    for n in (1, 10):
        found = lifts(name, "bad", LatentMoves(n, STEP), n=2000)
        sizes.append(effective_sample_size(found.log_weights - exact_log_density(name, found.labels)))
        # one evaluation at the start, one a move of those that are alive, none outside the chart
        assert found.evaluations.max() == n + 1 and found.force_evaluations <= 2000 * (n + 1)
    assert sizes[1] > 1.3 * sizes[0], sizes


def shift_target(monkeypatch, shift, k):
    """A target in closed form: k normal base numbers moved by a shift, and a von Mises of the circular one.

    ``r = shift eps - shift^2 / 2`` each, and ``cos(2 pi t) - log I_0(1)``, so Z = 1.
    """

    def exact(system, generator, base, labels, **_):
        n, zero = len(base), np.zeros(len(base))
        return Draws(
            base,
            labels,
            generator.log_density(base),
            zero,
            zero,
            base,
            np.full(n, "ok"),
            zero.astype(int),
            np.ones(n, dtype=int),
        )

    monkeypatch.setattr(latent_relaxation, "draw_base", exact)

    class Base:
        class map:  # as a generator has it
            n_circular = 1

        def sample_base(self, n, rng):
            return np.column_stack([rng.random(n), rng.standard_normal((n, k))])

        def log_density(self, base):
            """Of a target that is one."""
            circular = np.cos(2 * np.pi * base[:, 0]) - np.log(i0(1.0))
            return -circular - (shift * base[:, 1:] - 0.5 * shift**2).sum(axis=1)

    return Base()


@pytest.fixture
def shifted(monkeypatch):
    """Scores of lifts of two numbers that are moved, by `SHIFT` if nothing is said."""

    def scored_lifts(moves, shift=SHIFT, n=40_000):
        generator = shift_target(monkeypatch, shift, 2)
        found = lift_latent(load_system(NAMES[0]), generator, np.zeros((n, 1)), np.random.default_rng(1), moves)
        return score(found.log_weights, 0.0)

    return scored_lifts


def test_a_shifted_normal_has_its_integral(shifted):
    for n in (1, 10):
        right = shifted(LatentMoves(n, STEP))
        assert right.relative_error < 0.05 and abs(right.z) < 3.5, right


def test_moves_at_the_fraction_before_show(shifted, monkeypatch):
    accepted = latent_relaxation._accepted

    def one_late(now, new, fraction, rng):
        return accepted(now, new, fraction - 1 / 11, rng)

    monkeypatch.setattr(latent_relaxation, "_accepted", one_late)
    wrong = shifted(LatentMoves(10, STEP))
    assert wrong.z < -REJECTED, wrong


def test_steps_from_the_acceptances_of_the_path_itself_show(shifted, monkeypatch):
    """None at all once a move was taken: the lift stays where it is."""
    accepted, ever = latent_relaxation._accepted, {}

    def remembered(now, new, fraction, rng):
        taken = accepted(now, new, fraction, rng)
        ever["taken"] = ever.get("taken", False) | (taken & (new != now))
        return taken

    @dataclass(frozen=True)
    class Adaptive(LatentMoves):
        def propose(self, base, n_circular, rng):
            moved = super().propose(base, n_circular, rng)
            return np.where(np.broadcast_to(ever.get("taken", False), len(base))[:, None], base, moved)

    monkeypatch.setattr(latent_relaxation, "_accepted", remembered)
    wrong = shifted(Adaptive(10, 0.9))
    assert abs(wrong.z) > REJECTED, wrong


def test_walks_that_forget_the_base_distribution_show(shifted):
    @dataclass(frozen=True)
    class Walk(LatentMoves):
        def propose(self, base, n_circular, rng):
            return base + self.step * rng.standard_normal(base.shape)

    wrong = shifted(Walk(10, STEP))
    assert abs(wrong.z) > REJECTED, wrong


def test_circular_numbers_moved_as_if_they_were_normal_show(shifted):
    """They lean to zero then, and are uniform no longer: by one per cent of the mean."""

    @dataclass(frozen=True)
    class AllNormal(LatentMoves):
        def propose(self, base, n_circular, rng):
            moved = np.sqrt(1.0 - self.step**2) * base + self.step * rng.standard_normal(base.shape)
            moved[:, :n_circular] %= 1.0
            return moved

    right, wrong = (shifted(kind(10, 0.2), shift=0.0, n=100_000) for kind in (LatentMoves, AllNormal))
    assert right.relative_error < 0.05 and abs(right.z) < 3.5, right
    assert abs(wrong.z) > REJECTED, wrong


def test_the_pilot_takes_a_step_of_its_list_and_says_what_it_cost():
    system = load_system(NAMES[0])
    labels = np.linspace(-1.2, 1.2, 50)[:, None]
    step, cost = choose_step(system, made(NAMES[0], "bad"), labels, np.random.default_rng(1))
    assert step in STEPS and latent_relaxation.PILOT < cost <= 7 * latent_relaxation.PILOT


@pytest.mark.parametrize(("shift", "moves"), [(0.3, False), (2.5, True)])
def test_a_pilot_takes_moves_where_they_give_more_at_the_same_price(monkeypatch, shift, moves):
    """Of four numbers: log-weights have a variance of 0.4, or of 25, where each draw is as good as lost."""
    generator = shift_target(monkeypatch, shift, 4)
    chosen, cost = choose_moves(load_system(NAMES[0]), generator, np.zeros((10, 1)), np.random.default_rng(1))
    assert (chosen.n > 0) == moves and 0 < cost < 8 * latent_relaxation.PILOT_EVALUATIONS


def test_the_same_generator_of_random_numbers_gives_the_same_lifts():
    first, second = (lifts(NAMES[2], "trained", LatentMoves(3, STEP), n=100) for _ in range(2))
    assert np.array_equal(first.log_weights, second.log_weights)
    other = lifts(NAMES[2], "trained", LatentMoves(3, STEP), n=100, seed=6)
    assert not np.array_equal(first.log_weights, other.log_weights)
