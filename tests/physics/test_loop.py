"""The loop on alanine dipeptide against the reference surface; below 8.4 kT (5 kcal/mol)."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from openmm import app

from openmm_gancl import InputError, Torsions, load_system
from openmm_gancl.lifting.label_regression import fit_label_regression
from openmm_gancl.lifting.loop import Loop, learn
from openmm_gancl.lifting.loop_options import LoopOptions
from openmm_gancl.system.molecular_system import system_from_objects

REFERENCE = Path(__file__).parents[1] / "data" / "alanine_dipeptide_vacuum.npz"
REFERENCE_ERROR = 0.044
"""kT, of a bin."""


@pytest.fixture(scope="module")
def learned():
    return learn(load_system("alanine_dipeptide_vacuum"), seed=1, max_evaluations=13_000)


def deviations(surface, kT):
    """From the reference, and the error of each, kT; one offset fitted."""
    with np.load(REFERENCE) as reference:
        exact = reference["free_energy_kT"]
    low = exact < 8.4
    difference = surface.energy[low] / kT - exact[low]
    return difference - difference.mean(), np.hypot(surface.error[low] / kT, REFERENCE_ERROR)


def test_the_surface_is_right_within_its_bars(learned):
    """Smooth errors are those of some tens of independent places: a root mean square z of 1.5 is beyond 5 sigma."""
    kT = load_system("alanine_dipeptide_vacuum").kT
    difference, error = deviations(learned.surface, kT)
    assert np.isfinite(difference).all()
    assert np.sqrt(np.mean((difference / error) ** 2)) < 1.5
    assert difference.std() < 0.2


def test_weights_and_evaluations_are_counted(learned):
    draws, surface = learned.lifts, learned.surface
    windows = LoopOptions().windows.force_evaluations
    assert surface.force_evaluations == windows + draws.force_evaluations <= 13_000
    assert [one.force_evaluations for one in learned.history][-1] == surface.force_evaluations
    assert (np.isfinite(draws.log_weights) == (draws.reason == "ok")).all()
    assert learned.history[-1].effective_fraction > 0.15


def test_the_density_of_another_label_shows(learned):
    """The twin: the last round's weights with the density at labels a tenth of a turn away."""
    system = load_system("alanine_dipeptide_vacuum")
    last = learned.lifts.select(learned.lifts.round == learned.lifts.round.max())
    moved = last.coordinates.copy()
    moved[:, learned.model.chart.label_indices] += 2 * np.pi / 10
    z = []
    for log_density in (last.log_density, learned.model.log_density(moved)):
        log_weights = np.where(last.reason == "ok", last.log_target - log_density, -np.inf)
        surface = fit_label_regression(system.slow, last.labels, log_weights).surface(system.slow, 300.0, 0)
        difference, error = deviations(surface, system.kT)
        known = np.isfinite(difference)
        z.append(np.sqrt(np.mean(((difference - difference[known].mean()) / error)[known] ** 2)))
    assert z[0] < 1.5 and z[1] > 3.0, z


def test_the_same_seed_gives_the_same_numbers():
    system = load_system("bonded_chain")
    options = LoopOptions(windows=replace(LoopOptions().windows, n=10), n_first=200)
    first, second, other = (
        learn(system, seed=seed, max_evaluations=3000, options=options, workers=workers)
        for seed, workers in ((3, 1), (3, 2), (4, 1))
    )
    assert np.array_equal(first.lifts.log_weights, second.lifts.log_weights)
    assert np.array_equal(first.surface.energy, second.surface.energy)
    assert not np.array_equal(first.lifts.log_weights, other.lifts.log_weights)


def test_rounds_end_at_the_target_error():
    """And not far below it: the last round draws about what is missing."""
    system, target = load_system("narrow_barrier"), 0.1
    options = LoopOptions(windows=replace(LoopOptions().windows, n=10), n_first=200)
    learned = learn(system, seed=3, max_evaluations=100_000, target_error=target, options=options)
    errors = np.array([one.median_error for one in learned.history]) / system.kT
    assert 0.4 * target < errors[-1] <= target < errors[:-1].min(), errors
    assert learned.surface.median_error == learned.history[-1].median_error


@pytest.mark.parametrize("rounds", [1, 99])
def test_a_round_without_a_known_bin_ends_nothing(rounds, monkeypatch):
    """As over ten labels; the twin has none in the end either, and is refused."""
    surface = Loop.surface

    def unknown(self):
        if len(self.drawn) <= rounds:
            raise InputError("the draws are too few")
        return surface(self)

    monkeypatch.setattr(Loop, "surface", unknown)
    options = LoopOptions(windows=replace(LoopOptions().windows, n=10), n_first=200)
    with nullcontext() if rounds == 1 else pytest.raises(InputError, match="the draws are too few"):
        learned = learn(load_system("bonded_chain"), seed=3, max_evaluations=3000, options=options)
        errors = np.array([one.median_error for one in learned.history])
        assert len(errors) > 1 and np.isinf(errors[0]) and np.isfinite(errors[1:]).all()


def test_too_few_evaluations_are_refused():
    with pytest.raises(InputError, match=r"`max_evaluations` 100 is less than frames and one round need: give .* \d+"):
        learn(load_system("bonded_chain"), seed=0, max_evaluations=100)


def test_a_label_that_turns_a_bond_of_a_ring_is_refused():
    """Phi of proline; psi is outside the ring."""
    pdb = app.PDBFile(str(REFERENCE.parent / "molecules" / "pro.pdb"))
    made = app.ForceField("amber14/protein.ff14SB.xml").createSystem(pdb.topology, nonbondedMethod=app.NoCutoff)

    index = {(atom.residue.name, atom.name): atom.index for atom in pdb.topology.atoms()}
    backbone = [index[key] for key in [("ACE", "C"), ("PRO", "N"), ("PRO", "CA"), ("PRO", "C"), ("NME", "N")]]

    def labelled(*names):
        slow = Torsions(names, np.array([backbone[:4] if name == "phi" else backbone[1:] for name in names]))
        return system_from_objects(pdb.topology, made, pdb.positions, temperature=300.0, slow=slow)

    with pytest.raises(InputError, match="label phi turns a bond of a ring, which cannot turn all the way round"):
        Loop(labelled("phi", "psi"), seed=1, max_evaluations=20_000)
    assert Loop(labelled("psi"), seed=1, max_evaluations=20_000)
