"""`Lifter` with an invertible generator: exact weights forward and back, and in a Context from its own potential.

The z-scores of this file together have the false-alarm rate of 3.5 sigma (Bonferroni); planted faults are found beyond
5 sigma. A trained generator's mean counts with an error of at most 5 %, another's with 15 %.
"""

from functools import cache

import numpy as np
import pytest

from openmm_gancl import InputError, Lifter, load_system, structures_at, surface_from_lifts
from openmm_gancl.generator import untrained_model
from openmm_gancl.generator.density_reference import DensityReference
from openmm_gancl.generator.invertible import InvertibleGenerator
from openmm_gancl.generator.score_fit import fit_triangular, untrained_triangular
from openmm_gancl.generator.trained_for import system_metadata
from openmm_gancl.lifting import check_lifts, latent_relaxation
from openmm_gancl.lifting.surface import weighted_ends
from openmm_gancl.reference.chart import chart_for
from openmm_gancl.reference.gradients import in_chart_frame, log_density_gradients
from openmm_gancl.sampling.short_windows import ShortWindows, sample_short_windows

from .exact import CHAIN, DOUBLE_WELL, EXACT, exact_frames
from .rigid import LABEL, rigid_chain, window_by_quadrature
from .statistics import score, z_limit
from .toy_generators import domain, exact_log_density, generator

NAMES = (DOUBLE_WELL.name, CHAIN.name)
BAD = {DOUBLE_WELL.name: "shuffled", CHAIN.name: "untrained"}
DEMAND = {"trained": (0.05, 200), "bad": (0.15, 50), "random gan": (0.05, 200)}
N_FORWARD = {("trained", 3): 400, ("trained", 30): 512, ("bad", 30): 768, ("random gan", 10): 512}
FIXED = {"none": None, "latent": 8}
N_SCORES = len(NAMES) * (len(N_FORWARD) + 1 + len(FIXED)) + 1
REJECTED = 5.0
COPIES = 256


def made(name, kind):
    return generator(name, BAD[name] if kind == "bad" else kind)


def in_context(name, kind, steps):
    return Lifter(load_system(name), made(name, kind), relax="context", relax_steps=steps, packed=COPIES)


def labels_of(name, n):
    return np.random.default_rng(4).uniform(*domain(name), (n, 1))


@cache
def log_windows(name):
    """Exact log Z of restrained windows on a fine grid of labels, to interpolate."""
    grid = np.linspace(*domain(name), 400)
    constants = float(load_system(name).force_constants[0])
    return grid, np.array([EXACT[name].log_z(label, constants) for label in grid])


def scored(name, lifts):
    grid, values = log_windows(name)
    return score(lifts.log_weights - np.interp(lifts.labels[:, 0], grid, values), 0.0)


def check(result, kind):
    largest_error, least_size = DEMAND[kind]
    assert result.relative_error <= largest_error and result.effective_sample_size >= least_size, result
    assert abs(result.z) < z_limit(N_SCORES), result


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("kind", "steps"), N_FORWARD)
def test_relaxed_in_a_context_the_mean_weight_is_the_window(name, kind, steps):
    lifter, n = in_context(name, kind, steps), N_FORWARD[kind, steps]
    lifts = lifter.lift(labels_of(name, n), seed=3)
    assert lifts.mode == "restrained" and lifts.force_evaluations == (lifts.reason != "outside").sum() * (steps + 2)
    check(scored(name, lifts), kind)


@pytest.mark.parametrize("name", NAMES)
def test_and_back(name):
    system, label = load_system(name), np.array([0.4])
    frames = exact_frames(system, EXACT[name], 512, np.random.default_rng(6), label)
    lifts = in_context(name, "trained", 10).reverse(frames, np.tile(label, (len(frames), 1)), seed=3)
    log_z = EXACT[name].log_z(label[0], float(system.force_constants[0]))
    check(score(log_z - lifts.log_weights, 0.0), "trained")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("relax", FIXED)
def test_frames_weigh_as_lifts_at_their_labels(name, relax):
    system = load_system(name)
    frames = exact_frames(system, EXACT[name], 1500, np.random.default_rng(6), np.array([0.4]))
    lifts = Lifter(system, made(name, "trained"), relax=relax, relax_steps=FIXED[relax]).reverse(
        frames, np.zeros((len(frames), 1)), seed=3
    )
    assert lifts.mode == "fixed"
    check(score(exact_log_density(name, lifts.labels) - lifts.log_weights, 0.0), "trained")


@cache
def rigid_generator():
    system = rigid_chain()
    chart = chart_for(system.topology, system.slow, system.positions, system.constraints)
    frames = sample_short_windows(system, np.random.default_rng(1), ShortWindows(n=20))
    coordinates = chart.to_internal(frames.positions)
    forces = in_chart_frame(chart, frames.positions, frames.forces)
    gradients = log_density_gradients(chart, coordinates, forces, system.kT, system.constraints, system.masses)
    fitted = fit_triangular(chart, system.slow, coordinates, gradients)
    return system, InvertibleGenerator(fitted, chart, system.slow, system_metadata(system))


def test_with_constraints():
    system, generator = rigid_generator()
    lifter = Lifter(system, generator, relax="context", relax_steps=2)
    assert lifter.packed == 1
    lifts = lifter.lift(np.full((320, 1), LABEL), seed=3)
    check(score(lifts.log_weights, window_by_quadrature()[0]), "trained")


def test_a_force_of_the_generator_that_is_wrong_costs_no_exactness(monkeypatch):
    """Restrained to the middle of the domain, wherever the label is."""
    monkeypatch.setattr(DensityReference, "set_parameters", lambda *_: None)
    lifts = in_context(CHAIN.name, "trained", 5).lift(np.full((256, 1), 0.3), seed=3)
    assert abs(scored(CHAIN.name, lifts).z) < z_limit(N_SCORES)


def test_the_volume_left_out_of_the_potential_shows(monkeypatch):
    """U_B without log J, as the force and at the start of a path alike."""
    whole = DensityReference.energies

    def without(self, coordinates, parameters):
        return whole(self, coordinates, parameters) - self.kT * self.generator.chart.log_jacobian(coordinates)

    monkeypatch.setattr(DensityReference, "energies", without)
    wrong = scored(CHAIN.name, in_context(CHAIN.name, "trained", 5).lift(labels_of(CHAIN.name, 256), seed=3))
    assert abs(wrong.z) > REJECTED, wrong


def test_the_density_of_another_label_shows(monkeypatch):
    whole = InvertibleGenerator.log_density

    def of_another(self, coordinates):
        moved = coordinates.copy()
        moved[:, self.chart.label_indices] += 0.15
        return whole(self, moved)

    lifter = in_context(DOUBLE_WELL.name, "trained", 1)
    monkeypatch.setattr(InvertibleGenerator, "log_density", of_another)
    wrong = scored(DOUBLE_WELL.name, lifter.lift(labels_of(DOUBLE_WELL.name, 512), seed=3))
    assert abs(wrong.z) > REJECTED, wrong


def test_moves_back_at_the_wrong_fraction_show(monkeypatch):
    accepted = latent_relaxation._accepted
    monkeypatch.setattr(
        latent_relaxation, "_accepted", lambda now, new, fraction, rng: accepted(now, new, 0.3 * fraction, rng)
    )
    name = CHAIN.name
    system = load_system(name)
    frames = exact_frames(system, EXACT[name], 3000, np.random.default_rng(6), np.array([0.4]))
    lifter = Lifter(system, made(name, "bad"), relax="latent", relax_steps=8)
    lifts = lifter.reverse(frames, np.zeros((len(frames), 1)), seed=3)
    wrong = score(exact_log_density(name, lifts.labels) - lifts.log_weights, 0.0)
    assert abs(wrong.z) > REJECTED, wrong


def test_surface_of_lifts_at_fixed_labels():
    name = DOUBLE_WELL.name
    lifts = Lifter(load_system(name), made(name, "trained")).lift(labels_of(name, 3000), seed=1)
    surface = surface_from_lifts(lifts)
    centres = surface.edges[0][:-1] + 0.5 * np.diff(surface.edges[0])
    exact = -exact_log_density(name, centres[:, None])
    low = (np.abs(centres) < 1.35) & (exact < exact.min() + 8)
    difference = surface.energy[low] / load_system(name).kT - exact[low]
    assert np.std(difference) < 0.05 and surface.force_evaluations == 3000
    with pytest.raises(InputError, match="use surface_from_lifts"):
        weighted_ends(lifts)
    with pytest.raises(InputError, match=r"by lifting.check_frames"):
        check_lifts(lifts, lifts, seed=1)


def test_auto_keeps_what_its_pilot_found_for_lifts_and_frames():
    name = CHAIN.name
    lifter = Lifter(load_system(name), made(name, "trained"), relax="auto")
    lifts = lifter.lift(labels_of(name, 100), seed=1)
    cost = lifter.pilot_evaluations
    assert lifts.relax_steps == 0 and 0 < cost < 4000 and lifts.force_evaluations <= 100
    assert lifter.reverse(lifts.positions, lifts.labels, seed=2).relax_steps == 0
    assert lifter.pilot_evaluations == cost


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"relax": "warm"}, "none, latent, context, auto"),
        ({"relax": "none", "relax_steps": 5}, "`relax_steps` has no meaning"),
        ({"relax": "latent", "force_constants": 5.0}, "`force_constants` has no meaning"),
        ({"relax": "none", "mode": "restrained"}, "`mode` has no meaning"),
        ({"relax": "auto", "packed": 4}, "`packed` has no meaning"),
        ({"relax": "context", "mode": "unrestrained"}, "are restrained"),
        ({"relax": "context", "force_constants": 0.0}, "give positive ones"),
    ],
)
def test_options_that_mean_nothing_are_refused(options, message):
    name = DOUBLE_WELL.name
    with pytest.raises(InputError, match=message):
        Lifter(load_system(name), made(name, "trained"), **options).lift(np.zeros((1, 1)), seed=1)


def test_a_solvated_system_without_the_models_atoms_is_refused():
    water = load_system("alanine_dipeptide_water")
    with pytest.raises(InputError, match=r"the System has no atom .* of the model: give the model of its solute"):
        structures_at(water, made(DOUBLE_WELL.name, "trained"), [[0.0]])


@pytest.mark.slow
def test_a_solute_in_water_is_put_at_its_label_and_clashes_are_relaxed():
    """Draws of an untrained generator, at labels far from the structure's."""
    water, vacuum = load_system("alanine_dipeptide_water"), load_system("alanine_dipeptide_vacuum")
    chart = chart_for(vacuum.topology, vacuum.slow, vacuum.positions)
    scales = np.repeat([0.003, 0.05, 0.1], [chart.n_bonds, chart.n_angles, chart.n_torsions])
    origin = chart.to_internal(vacuum.positions[None])[0]
    fitted = untrained_triangular(chart, vacuum.slow, origin, scales, np.random.default_rng(2), strength=0.0)
    model = InvertibleGenerator(fitted, chart, vacuum.slow, system_metadata(vacuum))
    labels = np.array([[-1.4, 1.2], [1.1, -0.8]])
    found = structures_at(water, model, labels, equilibration_steps=200, platform="CPU", seed=1)
    assert found.log_weights is None and found.guarantee.startswith("no weights (the System holds 729 molecules")
    assert np.isfinite(found.energies).all() and np.abs(found.label_errors(water.slow)).max() < 0.6
    # as low as liquid water of that many molecules, -40 kJ/mol each, and no clash
    assert (found.energies < -20.0 * 749).all()
    assert (water.constraints.violations(found.positions) < 1e-4).all()


@pytest.mark.parametrize("name", NAMES)
def test_structures_at_a_label_are_the_ensemble_there(name):
    """Kept by weight, the weights of one label alike: averages of energy and of the integral over the label."""
    system, n = load_system(name), 150
    labels = np.array([[-0.8], [0.4]])
    found = structures_at(system, made(name, "trained"), labels, n, seed=3, platform="Reference")
    z = []
    for i, label in enumerate(labels[:, 0]):
        log_weight = found.log_weights[i * n]
        assert (found.log_weights[i * n : (i + 1) * n] == log_weight).all()
        drawn = Lifter(system, made(name, "trained")).lift(np.full((8 * n, 1), label), seed=4)
        error = score(drawn.log_weights, log_weight).relative_error
        z.append((log_weight - exact_log_density(name, np.array([[label]]))[0]) / error)
    assert np.abs(z).max() < z_limit(6), z
    # quadratic fast coordinates: kT/2 each; of the chain four bonds and three angles, and a cosine of ten kJ/mol
    if name == DOUBLE_WELL.name:
        fast = found.energies - 10 * (found.labels[:, 0] ** 2 - 1) ** 2
        assert abs(fast.mean() - system.kT) / (fast.std() / len(fast) ** 0.5) < z_limit(6)


def test_a_product_generator_relaxes_in_a_context_alone():
    system = load_system(DOUBLE_WELL.name)
    model = untrained_model(system, seed=1, latent_size=0)
    with pytest.raises(InputError, match="knows no density"):
        Lifter(system, model, relax="latent")
    assert Lifter(system, model, relax="auto", relax_steps=3).mode == "restrained"
