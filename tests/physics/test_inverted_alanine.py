"""Moves of an invertible generator on alanine dipeptide, vacuum and GBSA: populations and energies stay as they are.

    python -m pytest -m slow tests/physics/test_inverted_alanine.py

2,000 chains start from the exact weighted ensemble; five times over, 20 steps of dynamics and an attempt; counted
straight after the last attempt. Steps are a quarter of the card's: at 2 fs dynamics alone raises the mean energy by
0.65 kT, ten times its error here. Planted faults are found beyond 5 sigma; those that so few attempts of a molecule do
not show are in `test_inverted_moves`.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from openmm_gancl import Lifter, LiftMove, learn, load_system
from openmm_gancl.engine.platforms import PotentialEnergy
from openmm_gancl.engine.tasks import available_workers
from openmm_gancl.free_energy.weight_statistics import effective_sample_size
from openmm_gancl.lifting.label_proposals import TabulatedProposal
from openmm_gancl.moves import exchange
from openmm_gancl.moves.inverted import INDEPENDENT, LOCAL, Independent

from .statistics import z_limit
from .test_moves import ends_of, simulation_of

pytestmark = pytest.mark.slow

DATA = Path(__file__).parents[1] / "data"
NAMES = ("alanine_dipeptide_vacuum", "alanine_dipeptide_gbsa")
N_CHAINS, N_ROUNDS, MD_STEPS = 2000, 5, 20
N_TWIN = {"alanine_dipeptide_vacuum": 400, "alanine_dipeptide_gbsa": 2000}
"""Chains with a planted fault: with GBSA fewer do not show it beyond five standard errors."""

N_SCORES = 2 * 2 * 6
REJECTED = 5.0


class Case:
    """One system, its generator, p(s) of a surface that is wrong by some kT, and starts from weighted lifts."""

    def __init__(self, name):
        self.system = load_system(name)
        with np.load(DATA / f"{name}.npz") as reference:
            energy, edges = reference["free_energy_kT"], reference["edges"]
        system = self.system
        middles = 0.5 * (edges[1:] + edges[:-1])
        tilt = np.cos(middles - 1.0)[:, None] + 2.0 * np.cos(middles - 1.2)
        self.prior = TabulatedProposal.from_energies(
            system.slow, system.force_constants, system.kT, (edges, edges), (energy + tilt) * system.kT, smeared=False
        )
        self.model = learn(system, seed=1, max_evaluations=20_000).model
        labels = self.prior.sample(12_000, np.random.default_rng(2))
        lifts = Lifter(system, self.model, platform="Reference", workers=available_workers()).lift(labels, seed=3)
        self.lifts = replace(lifts, log_weights=lifts.log_weights - self.prior.log_prior(labels))
        self.energy = PotentialEnergy(system.system, "Reference")

    def numbers(self, positions):
        """In which of four regions configurations lie, their energies in kT, and squares of those, shape=(n, 6)."""
        phi, psi = self.system.slow.transform(positions).T
        regions = [(phi < 0) & (psi > 1.8), (phi < 0) & (np.abs(psi) < 1.0), phi > 0, phi < -2.0]
        energies = np.array([self.energy(one) for one in positions]) / self.system.kT
        return np.stack([*regions, energies, (energies - self.middle) ** 2], axis=1)

    @property
    def middle(self):
        return float(np.median(self.lifts.energies[np.isfinite(self.lifts.energies)])) / self.system.kT

    def starts(self, n):
        """Frames by their weights, and the error of the ensemble's averages."""
        log_weights = self.lifts.log_weights
        usable = np.flatnonzero(np.isfinite(log_weights))
        weights = np.exp(log_weights[usable] - log_weights[usable].max())
        weights /= weights.sum()
        rng = np.random.default_rng(4)
        # systematic resampling repeats a lift as seldom as can be
        rows = np.searchsorted(np.cumsum(weights), (rng.random() + np.arange(n)) / n).clip(max=len(weights) - 1)
        values = self.numbers(self.lifts.positions[usable])
        error = np.sqrt(((weights[:, None] * (values - weights @ values)) ** 2).sum(axis=0))
        return rng.permutation(self.lifts.positions[usable][rows]), error


@pytest.fixture(scope="module", params=NAMES)
def case(request):
    return Case(request.param)


def scores(case, moves, n):
    """Of the change of each average, and how many attempts were accepted."""
    simulation = simulation_of(replace(case.system, time_step=0.25 * case.system.time_step), 11)
    move = LiftMove(simulation, case.model, moves=moves, label_proposal=case.prior, seed=12)
    starts, error = case.starts(n)
    ends = ends_of(move, starts, MD_STEPS, N_ROUNDS)
    change = case.numbers(ends) - case.numbers(starts)
    own = change.std(axis=0) / len(change) ** 0.5
    z = change.mean(axis=0) / np.hypot(own, error)
    print(case.system.name, moves, "accepted", round(move.acceptance_rate, 3), "z", z.round(2))
    return z, move


@pytest.mark.parametrize("moves", [INDEPENDENT, LOCAL])
def test_populations_and_energies_stay(case, moves):
    assert effective_sample_size(case.lifts.log_weights) > 2000
    z, move = scores(case, moves, N_CHAINS)
    assert np.abs(z).max() < z_limit(N_SCORES), z
    assert sum(record.accepted for record in move.history) >= 500
    assert max(record.force_evaluations for record in move.history) == 4


def everything(monkeypatch, case):
    """w'/w replaced by one."""
    monkeypatch.setattr(exchange, "accepts", lambda after, before, rng: bool(np.isfinite([after, before]).all()))


def left_out(monkeypatch, case):
    """p(s) of independent proposals."""
    monkeypatch.setattr(Independent, "log_label_density", lambda self, labels: np.zeros(len(labels)))


@pytest.mark.parametrize(
    ("fault", "moves"),
    [
        (everything, INDEPENDENT),
        (everything, LOCAL),
        (left_out, INDEPENDENT),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_planted_fault_shows(case, fault, moves, monkeypatch):
    fault(monkeypatch, case)
    z, _ = scores(case, moves, N_TWIN[case.system.name])
    assert np.abs(z).max() > REJECTED, z
