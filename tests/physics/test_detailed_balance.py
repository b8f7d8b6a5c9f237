"""Exchanges on alanine dipeptide, vacuum and GBSA: populations stay, and go when every lift is accepted.

    python -m pytest -m slow tests/physics/test_detailed_balance.py

2,000 chains start from the exact weighted ensemble; five times over, 50 steps of dynamics at most and an attempt;
counted straight after the last attempt. Labels are proposed uniformly, as a user without a surface has it.
"""

from pathlib import Path

import numpy as np
import pytest

from openmm_gancl import Lifter, LiftMove, TrainingOptions, load_system, sample_windows, train
from openmm_gancl.engine.tasks import available_workers
from openmm_gancl.free_energy.weight_statistics import effective_sample_size
from openmm_gancl.generator import untrained_model
from openmm_gancl.lifting.label_proposals import TabulatedProposal

from .statistics import z_limit
from .test_moves import AlwaysAccepts, ends_of, move_of

pytestmark = pytest.mark.slow

DATA = Path(__file__).parents[1] / "data"
NAMES = ("alanine_dipeptide_vacuum", "alanine_dipeptide_gbsa")
N_CHAINS, N_TWIN, N_ROUNDS, MD_STEPS, RELAX_STEPS = 2000, 500, 5, 20, 500
N_SCORES = 2 * 2 * 4
PLACES = {"platform": "Reference", "workers": available_workers()}


class Case:
    """One system: its reference as label prior, its models, and starts from weighted lifts."""

    def __init__(self, name):
        self.system = load_system(name)
        with np.load(DATA / f"{name}.npz") as reference:
            energy, edges = reference["free_energy_kT"], reference["edges"]
        system = self.system
        self.prior = TabulatedProposal.from_energies(
            system.slow, system.force_constants, system.kT, (edges, edges), energy * system.kT
        )
        frames = sample_windows(system, n_windows=192, steps_per_window=3000, seed=1, **PLACES)
        self.models = {
            "trained": train(system, frames, seed=1, options=TrainingOptions(latent_size=0)),
            "untrained": untrained_model(system, seed=3, latent_size=2, strength=0.3),
        }
        lifter = Lifter(
            system,
            self.models["trained"],
            relax_steps=RELAX_STEPS,
            mode="unrestrained",
            label_proposal=self.prior,
            **PLACES,
        )
        self.lifts = lifter.lift(self.prior.sample(8000, np.random.default_rng(2)), seed=3)

    def regions(self, labels):
        """In which of four regions labels lie, shape=(n, 4)."""
        phi, psi = labels.T
        return np.stack([(phi < 0) & (psi > 1.8), (phi < 0) & (np.abs(psi) < 1.0), phi > 0, phi < -2.0], axis=1)

    def starts(self, n):
        """Frames by their weights, and the error of the ensemble's populations."""
        lifts = self.lifts
        weights = np.where(np.isfinite(lifts.log_weights), np.exp(lifts.log_weights - lifts.log_weights.max()), 0.0)
        weights /= weights.sum()
        rng = np.random.default_rng(4)
        # systematic resampling repeats a lift as seldom as can be
        rows = np.searchsorted(np.cumsum(weights), (rng.random() + np.arange(n)) / n).clip(max=len(weights) - 1)
        inside = self.regions(lifts.cv_values)
        error = np.sqrt(((weights[:, None] * (inside - weights @ inside)) ** 2).sum(axis=0))
        return rng.permutation(lifts.positions[rows]), error


@pytest.fixture(scope="module", params=NAMES)
def case(request):
    return Case(request.param)


def regions_around(case, generator, n, kind=LiftMove):
    """The move, in which regions chains began and ended, and the error of the ensemble that they began in."""
    move = move_of(case.system, case.models[generator], RELAX_STEPS, kind=kind)
    starts, error = case.starts(n)
    ends = ends_of(move, starts, MD_STEPS, N_ROUNDS)
    before, after = (case.regions(case.system.slow.transform(positions)) for positions in (starts, ends))
    return move, before, after, error


def scores(before, after, error):
    """Of the change of each population: its own error, and that of the ensemble that the chains began in."""
    change = after.astype(float) - before
    own = change.std(axis=0) / len(change) ** 0.5
    return change.mean(axis=0) / np.hypot(own, error), np.hypot(own, error)


@pytest.mark.parametrize("generator", ["trained", "untrained"])
def test_populations_stay(case, generator):
    assert effective_sample_size(case.lifts.log_weights) > 1000
    move, before, after, error = regions_around(case, generator, N_CHAINS)
    z, errors = scores(before, after, error)
    print(case.system.name, generator, "accepted", sum(r.accepted for r in move.history), "z", z.round(2))
    assert (errors < 0.02).all()
    assert np.abs(z).max() < z_limit(N_SCORES), z
    if generator == "trained":
        assert sum(record.accepted for record in move.history) >= 200


@pytest.mark.parametrize("generator", ["trained", "untrained"])
def test_accepting_every_lift_shows(case, generator):
    _, before, after, error = regions_around(case, generator, N_TWIN, AlwaysAccepts)
    z, _ = scores(before, after, error)
    print(case.system.name, generator, "always accepted: z", z.round(1))
    assert np.abs(z).max() > 5.0, z
