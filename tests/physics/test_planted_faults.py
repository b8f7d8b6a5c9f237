"""Each mistake that the weight could hold, planted: the exactness statistic must reject it by more than 5 sigma.

Every fault is a patch under which the same paths are weighed again; unpatched they pass (its twin), with the
false-alarm rate of 3.5 sigma over all twins of this file.
"""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm

from openmm_gancl import Lifter, TrainingOptions
from openmm_gancl.generator.model import LiftingModel, with_encoder
from openmm_gancl.generator.training import train_model
from openmm_gancl.lifting import proposals as proposals_module
from openmm_gancl.lifting import weights
from openmm_gancl.lifting.label_proposals import UniformProposal
from openmm_gancl.reference.chart import InternalCoordinates
from openmm_gancl.reference.potential import ReferenceParameters, ReferencePotential

from .exact import CHAIN, DOUBLE_WELL, FORKED, KT, exact_frames
from .paths import run_paths, with_folds
from .statistics import score, z_limit

N_TWINS = 9
REJECTED = 5.0

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


def lifter_of(models, name, model, **options):
    return Lifter(models.system(name), model, platform="Reference", **options)


def window(models, exact, label):
    return exact.log_z(label, float(models.system(exact.name).force_constants[0]))


def assert_twins(right, wrong, log_z, sign=1):
    """sign -1: the reverse statistic, mean(1/w) against 1/Z."""
    passed, failed = (score(sign * log_weights, sign * log_z) for log_weights in (right, wrong))
    assert passed.relative_error < 0.05, passed
    assert abs(passed.z) < z_limit(N_TWINS), passed
    assert abs(failed.z) > REJECTED, failed


@pytest.fixture(scope="module")
def chain_paths(models):
    model = models.with_prior_encoder("bonded_chain", "trained", 0)
    lifter = lifter_of(models, "bonded_chain", model, relax_steps=50)
    return run_paths(lifter, np.full((4000, 1), CHAIN.labels[0]), seed=1)


@pytest.fixture(scope="module")
def chain_log_weights(chain_paths):
    return chain_paths.log_weights()


def drop_log_jacobian(chart, coordinates):
    return np.where(chart.inside(coordinates), 0.0, -np.inf)


def drop_root_atoms(chart, coordinates, whole=InternalCoordinates.log_jacobian):
    first_bonds, first_angle = coordinates[:, :2], coordinates[:, chart.n_bonds]
    return whole(chart, coordinates) - 2 * np.log(first_bonds).sum(axis=1) - np.log(np.sin(first_angle))


@pytest.mark.parametrize("fault", [drop_log_jacobian, drop_root_atoms])
def test_volume_element(fault, models, chain_paths, chain_log_weights, monkeypatch):
    monkeypatch.setattr(InternalCoordinates, "log_jacobian", fault)
    log_z = window(models, CHAIN, CHAIN.labels[0])
    assert_twins(chain_log_weights, chain_paths.log_weights(), log_z)


def test_fold_divides_log_z(models, monkeypatch):
    """The branch is proposed in two wells, of which the target has one; Z_ref is the same for every fold."""
    model = models.with_prior_encoder("bonded_chain", "trained", 0)
    branch = int(np.flatnonzero(np.arange(model.chart.n_coordinates)[-2:] != model.chart.label_indices[0])[0])
    model = with_folds(model, [2 if i == branch else 1 for i in range(2)])
    lifter = lifter_of(models, "bonded_chain", model, relax_steps=50)
    paths = run_paths(lifter, np.full((6000, 1), CHAIN.labels[0]), seed=2)
    right = paths.log_weights()
    whole = ReferencePotential.log_partition

    def divided(reference, parameters):
        return whole(reference, parameters) - np.log(reference.chart.folds).sum()

    monkeypatch.setattr(ReferencePotential, "log_partition", divided)
    assert_twins(right, paths.log_weights(), window(models, CHAIN, CHAIN.labels[0]))


def test_kinetic_energy_dropped(models, monkeypatch):
    model = models.with_prior_encoder("double_well_oscillators", "trained", 0)
    lifter = lifter_of(models, "double_well_oscillators", model, relax_steps=2)
    paths = run_paths(lifter, np.full((6000, 1), 1.0), seed=3)
    right = paths.log_weights()

    def potential_and_heat_alone(relaxed, reference_energies, reverse):
        return relaxed.real_energies - reference_energies - relaxed.heat

    monkeypatch.setattr(weights, "path_work", potential_and_heat_alone)
    assert_twins(right, paths.log_weights(), window(models, DOUBLE_WELL, 1.0))


def test_restraint_counted_at_the_start_without_having_been_drawn_from(models, monkeypatch):
    """The label coordinate gets a reference of its own, stiffer than the restraint; the restraint is in the kicks."""
    system = models.system("double_well_oscillators")

    def own_reference(parameters, model, labels, force_constants, kT):
        centres, widths = parameters.centres.copy(), parameters.widths.copy()
        centres[:, model.chart.label_indices] = labels
        widths[:, model.chart.label_indices] = np.sqrt(kT / force_constants / 2)
        return ReferenceParameters(centres, widths)

    monkeypatch.setattr(proposals_module, "restraint_reference", own_reference)
    model = models.with_prior_encoder("double_well_oscillators", "trained", 0)
    lifter = lifter_of(models, "double_well_oscillators", model, relax_steps=100)
    paths = run_paths(lifter, np.full((4000, 1), 1.0), seed=4)
    right = paths.log_weights()
    whole = ReferencePotential.energies

    def with_restraint(reference, coordinates, parameters):
        deviation = (coordinates - parameters.centres)[:, model.chart.label_indices]
        return whole(reference, coordinates, parameters) + (0.5 * system.force_constants * deviation**2).sum(axis=1)

    monkeypatch.setattr(ReferencePotential, "energies", with_restraint)
    assert_twins(right, paths.log_weights(), window(models, DOUBLE_WELL, 1.0))


def untrained_with_posterior(models):
    """A fork whose latent decides much, and an encoder that knows: the posterior of an unrelaxed draw."""
    model = models.with_prior_encoder("forked_oscillator", "untrained", 4)
    exponents = np.ones(model.chart.n_coordinates)
    exponents[model.chart.label_indices] = 0.0
    return with_encoder(model, exponents, 16, 5)


def test_latent_prior_dropped_beside_an_encoder(models, monkeypatch):
    lifter = lifter_of(models, "forked_oscillator", untrained_with_posterior(models), relax_steps=5)
    paths = run_paths(lifter, np.full((20000, 1), 0.0), seed=5)
    right = paths.log_weights()
    monkeypatch.setattr(LiftingModel, "log_prior", lambda model, latents, labels: np.zeros(len(labels)))
    assert_twins(right, paths.log_weights(), window(models, FORKED, 0.0))


def test_encoder_ratio_dropped_where_the_latent_was_drawn_from_it(models, monkeypatch):
    """In reverse z ~ r; mean(1/w) over exact frames is 1/Z only with log r - log p in the weight. Trained at no price
    of information, the latent determines much of the coordinates.
    """
    system, n = models.system("double_well_oscillators"), 8000
    options = TrainingOptions(latent_size=4, generator_steps=150, information_price=1.0)
    model = train_model(system, *models.frames("double_well_oscillators"), seed=2, options=options)
    model = with_encoder(model, np.array([0.0, 1.0, 1.0]), 16, 1)
    lifter = lifter_of(models, "double_well_oscillators", model, relax_steps=1)
    frames = exact_frames(system, DOUBLE_WELL, n, np.random.default_rng(6), 1.0)
    paths = run_paths(lifter, np.full((n, 1), 1.0), seed=7, frames=frames)
    right = paths.log_weights()
    monkeypatch.setattr(LiftingModel, "log_prior", lambda model, latents, labels: np.zeros(len(latents)))
    forgotten = [
        (task, replace(drawn, log_encoder=np.zeros(len(drawn.labels))), relaxed) for task, drawn, relaxed in paths.parts
    ]
    assert_twins(right, replace(paths, parts=forgotten).log_weights(), window(models, DOUBLE_WELL, 1.0), sign=-1)


def test_label_prior_left_out_of_unrestrained_lifts(models, monkeypatch):
    """r(s | x) is normalised over the domain at every x, so mean(w) is the whole partition function."""
    model = models.with_prior_encoder("double_well_oscillators", "trained", 0)
    lifter = lifter_of(models, "double_well_oscillators", model, relax_steps=100, mode="unrestrained")
    labels = lifter.label_proposal.sample(8000, np.random.default_rng(8))
    paths = run_paths(lifter, labels, seed=9)
    right = paths.log_weights()
    monkeypatch.setattr(UniformProposal, "log_prior", lambda prior, labels: np.zeros(len(labels)))
    assert_twins(right, paths.log_weights(), DOUBLE_WELL.log_z())


def numpy_lifts(toy, label, force_constants, widths, relax_steps, time_step, friction, n, seed):
    """The method's scheme without OpenMM; log-weights from heat, and from protocol work alone (trapezoid)."""
    rng = np.random.default_rng(seed)
    mass, h, decay = 20.0, time_step, np.exp(-friction * time_step)
    (_, my, _), *_ = toy.fast(np.array(label))[0]
    centres = np.array([label, float(my), float(toy.fast(np.array(label))[1])])
    widths = np.array([np.sqrt(KT / force_constants), *widths])

    def reference(x):
        return 0.5 * KT * (((x - centres) / widths) ** 2).sum(axis=-1)

    def real(x):
        return toy.energy(x) + 0.5 * force_constants * (x[:, 0] - label) ** 2

    def force(x, share):
        restrained = np.zeros_like(x)
        restrained[:, 0] = force_constants * (x[:, 0] - label)
        return -share * (toy.gradient(x) + restrained) - (1 - share) * KT * (x - centres) / widths**2

    def kinetic(v):
        return 0.5 * mass * (v**2).sum(axis=1)

    x = centres + rng.standard_normal((n, 3)) * widths
    v = rng.standard_normal((n, 3)) * np.sqrt(KT / mass)
    start, heat, protocol = reference(x) + kinetic(v), np.zeros(n), np.zeros(n)
    for step in range(relax_steps + 1):
        share = step / relax_steps
        v = v + (0.5 if step in (0, relax_steps) else 1.0) * h * force(x, share) / mass
        if step < relax_steps:
            protocol += 0.5 / relax_steps * (real(x) - reference(x))
            x = x + v * h / 2
            heat -= kinetic(v)
            v = decay * v + np.sqrt((1 - decay**2) * KT / mass) * rng.standard_normal((n, 3))
            heat += kinetic(v)
            x = x + v * h / 2
            protocol += 0.5 / relax_steps * (real(x) - reference(x))
    log_partition = 0.5 * 3 * np.log(2 * np.pi) + np.log(widths).sum()
    return log_partition - (real(x) + kinetic(v) - start - heat) / KT, log_partition - protocol / KT


def test_shadow_work_dropped():
    """Four times the default time step, little friction: protocol work alone belongs to another Hamiltonian."""
    right, wrong = numpy_lifts(
        DOUBLE_WELL, 1.0, 175.0, (0.04, 0.06), relax_steps=40, time_step=0.06, friction=0.5, n=30000, seed=10
    )
    assert_twins(right, wrong, DOUBLE_WELL.log_z(1.0, 175.0))


def test_the_statistic_of_a_right_mean_is_normal():
    """On log-normal weights: the limits mean what they say."""
    rng = np.random.default_rng(11)
    scores = np.array([score(rng.normal(-0.5, 1.0, size=1000), 0.0, seed).z for seed in range(200)])
    # Kolmogorov's distance of 200 draws at the false-alarm rate of 3.5 sigma is 0.145; the skew may add 0.05
    distance = np.abs(np.sort(norm.cdf(scores)) - (np.arange(200) + 0.5) / 200).max()
    assert distance < 0.195
