"""Sentences on where a result may be blind: said where they apply, and not where they do not."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from openmm import app

from openmm_gancl import InputError, learn, load_system
from openmm_gancl.coordinates.slow_coordinates import FirstAxes, ParticleCoordinates, Torsions
from openmm_gancl.lifting.doubts import (
    _doubts_about_rings,
    doubts_about_coordinates,
    doubts_about_fit,
    doubts_about_ratios,
    doubts_about_rounds,
    doubts_about_size,
    doubts_about_weights,
    weight_being_discovered,
)
from openmm_gancl.lifting.loop import Loop
from openmm_gancl.reference.chart import CartesianCoordinates
from openmm_gancl.reference.wide_torsions import interval_text, place_text
from openmm_gancl.system.library import systems_root
from openmm_gancl.system.molecular_system import system_from_objects

FIRST = np.array([0])
PARTICLE = CartesianCoordinates(1, [[0, 2]], turned=[0], centres=[0.1], scales=[0.2])
TORSION = None
"""Any chart that is not of particles."""


def angles(n):
    return np.random.default_rng(1).uniform(-np.pi, np.pi, (n, 1))


def test_even_weights_leave_no_doubt():
    assert not list(doubts_about_weights(["chi"], angles(2000), np.zeros(2000), TORSION, FIRST))
    assert not list(doubts_about_rounds(np.random.default_rng(2).exponential(1.0, 2000)))


def test_a_mode_of_few_draws_is_said():
    turned = np.full((2000, 1), 1.0)
    turned[:3] = -1.8
    log_weights = np.zeros(2000)
    log_weights[:3] = np.log(100.0)
    (sentence,) = doubts_about_weights(["chi"], turned, log_weights, TORSION, FIRST)
    assert sentence.startswith("chi has 13% of its weight at -120 to -90 degrees, and that from 3 effective")
    assert np.isclose(weight_being_discovered(turned, log_weights), 300 / (300 + 1997))
    (sentence,) = doubts_about_weights(["y"], turned, log_weights, PARTICLE, FIRST)
    assert sentence.startswith("y has 13% of its weight at above -0.25 nm and below -0.10 nm, and that from 3")


def test_places_of_few_draws_are_one_sentence():
    """What they have together may be much where each of them has little; the twin: twenty draws at each."""
    for n, weight in ((4, 60.0), (20, 12.0)):
        turned, log_weights = np.full((2000, 1), 1.0), np.zeros(2000)
        for i, angle in enumerate((-1.8, 0.3, 2.8)):
            turned[i * n : (i + 1) * n], log_weights[i * n : (i + 1) * n] = angle, np.log(weight)
        said = list(doubts_about_weights(["chi"], turned, log_weights, TORSION, FIRST))
        found = weight_being_discovered(turned, log_weights)
        assert len(said) == (n == 4) and np.isclose(found, 720 / (720 + 1988) if said else weight / (720 + 1940))
        assert all(" (27% at 3 such places): a mode is being discovered" in sentence for sentence in said), said


def test_a_place_is_said_as_its_users_know_it():
    """An angle of a particle's component stands for nm, and half a turn for infinity; a torsion has degrees."""
    half = np.pi / 2
    assert place_text(TORSION, 0, np.radians(-61.0)) == "-60 degrees" and place_text(PARTICLE, 0, half) == "0.30 nm"
    assert interval_text(TORSION, 0, -half, half) == "-90 to 90 degrees"
    for (low, high), text in {
        (-half, half): "above -0.10 nm and below 0.30 nm",
        (half, -half): "above 0.30 nm or below -0.10 nm",
        (-half, np.pi): "above -0.10 nm",
        (np.radians(-178), -half): "below -0.10 nm",
        (half, np.radians(-178)): "above 0.30 nm",
        (-np.pi, np.pi): "anywhere",
    }.items():
        assert interval_text(PARTICLE, 0, low, high) == text


def test_one_draw_with_much_weight_is_said():
    log_weights = np.zeros(1000)
    log_weights[0] = np.log(500.0)
    assert "one draw has 33% of all weight" in next(
        iter(doubts_about_weights([], np.empty((1000, 0)), log_weights, TORSION, FIRST[:0]))
    )


def test_rounds_that_disagree_are_said():
    (sentence,) = doubts_about_rounds(1.5 * np.random.default_rng(2).exponential(1.0, 2000))
    assert "weights of the last round are 1.47 times" in sentence


@pytest.mark.parametrize(
    ("n_axes", "effective", "n", "said"), [(4, 10, 1000, 0), (6, 200, 1000, 0), (6, 10, 1000, 1), (10, 1, 4, 1)]
)
def test_windows_are_offered_where_many_axes_leave_lifts_little(n_axes, effective, n, said):
    """Also where one of four low lifts is all there is."""
    found = list(doubts_about_size(n_axes, effective, n))
    assert len(found) == said and all("gancl fes --windows" in sentence for sentence in found)


@pytest.mark.parametrize(("n_combinations", "n_windows", "said"), [(9, 60, False), (243, 180, True)])
def test_many_combinations_are_said(n_combinations, n_windows, said):
    found = list(doubts_about_coordinates(load_system("alanine_dipeptide_vacuum"), 5, n_combinations, n_windows))
    assert bool(found) == said


def proline():
    folder = Path(__file__).parents[1] / "data" / "molecules"
    pdb = app.PDBFile(str(folder / "pro.pdb"))
    made = app.ForceField("amber14/protein.ff14SB.xml").createSystem(pdb.topology)
    names = {(atom.residue.index, atom.name): atom.index for atom in pdb.topology.atoms()}
    psi = Torsions(("psi",), np.array([[names[key] for key in ((1, "N"), (1, "CA"), (1, "C"), (2, "N"))]]))
    return system_from_objects(pdb.topology, made, pdb.positions, temperature=300.0, slow=psi, time_step=0.001)


def ring_of_three(n_hydrogens):
    topology = app.Topology()
    residue = topology.addResidue("RNG", topology.addChain())
    ring = [topology.addAtom(f"C{i}", app.Element.getBySymbol("C"), residue) for i in range(3)]
    for i in range(3):
        topology.addBond(ring[i - 1], ring[i])
        for _ in range(n_hydrogens):
            topology.addBond(ring[i], topology.addAtom("H", app.Element.getBySymbol("H"), residue))
    return topology


def test_rings_that_are_not_flat_are_said():
    assert not list(_doubts_about_rings(ring_of_three(1)))
    (sentence,) = _doubts_about_rings(ring_of_three(2))
    assert sentence.startswith("the ring of C0, C1, C2 is not proposed in forms")


@pytest.mark.parametrize(("means", "said"), [((0.5, -0.5), False), ((0.5, 0.6), True), ((0.5, -0.1), True)])
def test_a_check_that_held_both_forms_of_a_ring_leaves_no_doubt(means, said):
    """Of proline, whose ring has two: the torsion along it is the wide one."""
    loop = Loop(proline(), seed=1, max_evaluations=35_000)
    assert loop.coordinates.wide_names == ("PRO2:CG-CB-CA-N",)
    assert any("the ring of" in doubt for doubt in loop.blind_spots())
    check = np.array(means)[:, None, None] + np.random.default_rng(1).normal(0.0, 0.1, (2, 10, 1))
    assert any("the ring of" in doubt for doubt in loop.blind_spots(check)) == said


def test_particles_without_labels():
    assert not list(doubts_about_coordinates(load_system("forked_oscillator"), 1, 3, 30))


def fitted(d, n, seed, narrow=0.0, sigma=0.5):
    """Labels over a domain, and log-normal weights over a fit that has missed a well of so many kT."""
    rng = np.random.default_rng(seed)
    axes = FirstAxes(tuple("xyz"[:d]), np.full(d, np.inf), np.tile([-1.0, 1.0], (d, 1)), ("",) * d)
    labels = rng.uniform(-1.0, 1.0, (n, d))
    missed = narrow * np.exp(-0.5 * ((labels[:, 0] - 0.5) / 0.03) ** 2)
    return axes, labels, np.exp(missed + sigma * rng.standard_normal(n) - 0.5 * sigma**2)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_a_well_that_the_fit_has_missed_is_said(d):
    """Of fits that have missed nothing, weights with long tails among them, none of 60 is doubted."""
    n = 30_000
    for seed in range(3):
        axes, labels, ratios = fitted(d, n, seed, narrow=0.3)
        (sentence,) = doubts_about_fit(axes, labels, ratios, np.ones(n))
        assert "weights near x = 0." in sentence and "a narrower `domain`" in sentence
    for seed in range(20):
        for sigma in (0.3, 1.0, 2.0):
            assert not list(doubts_about_fit(*fitted(d, n, seed, sigma=sigma), np.ones(n)))


def test_shares_count_in_the_comparison_with_the_fit():
    """A round that was wrong but hardly counts leaves no doubt; the twin: it counts like the others."""
    axes, labels, ratios = fitted(1, 30_000, 0)
    early = np.arange(len(labels)) < 8000
    wrong = np.where(early & (labels[:, 0] > 0.4), 1.6 * ratios, ratios)
    assert not list(doubts_about_fit(axes, labels, wrong, np.where(early, 0.01, 1.0)))
    assert list(doubts_about_fit(axes, labels, wrong, np.ones(len(labels))))


def test_few_weights_that_decide_are_said():
    rng = np.random.default_rng(0)
    assert not list(doubts_about_ratios(0.7 * rng.standard_normal(1000)))
    for log_ratios in (4.0 * rng.standard_normal(1000), np.where(np.arange(200) < 5, 0.0, -20.0)):
        (sentence,) = doubts_about_ratios(log_ratios)
        assert "a few weights decide" in sentence and "effective ones" in sentence


def test_a_card_without_chirality_is_said(tmp_path):
    """Nothing turns a centre into its mirror image: the surface is that of one form."""
    path = systems_root() / "alanine_dipeptide_vacuum" / "card.toml"
    assert not any("mirror image" in one for one in doubts_about_coordinates(load_system(path), 0, 1, 60))
    text = path.read_text()
    text = re.sub(r'(structure = ")', rf"\1{path.parent}/", text, count=1)
    text = text.replace("[[labels]]", '[state]\nchirality = "none"\n\n[[labels]]', 1) if "[state]" not in text else text
    text = re.sub(r'chirality = "\w+"', 'chirality = "none"', text)
    card = tmp_path / "card.toml"
    card.write_text(text)
    (sentence,) = (one for one in doubts_about_coordinates(load_system(card), 0, 1, 60) if "mirror image" in one)
    assert "ALA" in sentence and "CA" in sentence and "`chirality`" in sentence


def test_a_system_of_labels_alone_is_refused():
    toy = load_system("double_well_oscillators")
    slow = ParticleCoordinates(("x", "y", "z"), np.array([[0, 0], [0, 1], [0, 2]]), np.tile([-2.0, 2.0], (3, 1)))
    with pytest.raises(InputError, match="every coordinate of the system is a label, and nothing is left to draw"):
        learn(replace(toy, slow=slow, force_constants=np.full(3, 100.0), basins=()), seed=1)
