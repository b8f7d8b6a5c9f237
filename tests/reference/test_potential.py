"""The reference potential against its own density, quadrature and OpenMM; false-alarm rates are those of a family."""

import numpy as np
import openmm
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import kstest, norm

from openmm_gancl import Lifter, ParticleCoordinates, Torsions, load_system
from openmm_gancl.generator import untrained_model
from openmm_gancl.generator.networks import Generator
from openmm_gancl.lifting.proposals import propose
from openmm_gancl.reference.chart import CartesianCoordinates, InternalCoordinates, chart_for
from openmm_gancl.reference.potential import ReferenceParameters, ReferencePotential

KT = 2.5
FALSE_ALARM = float(2 * norm.sf(3.5))
BENT = InternalCoordinates(
    np.array([[0, -1, -1, -1], [1, 0, -1, -1], [2, 1, 0, -1], [3, 2, 1, 0], [4, 3, 2, 1], [5, 4, 3, 2]]),
    np.array([1, 2, 3]),
    np.array([9]),
)
"""Six atoms in a chain whose torsions have folds 1, 2 and 3."""

CARTESIAN = CartesianCoordinates(2, np.array([[0, 0]]))


def example(chart, torsion_width=0.5, n=1):
    rng = np.random.default_rng(8)
    if isinstance(chart, CartesianCoordinates):
        centres, widths = rng.normal(0, 0.3, chart.n_coordinates), rng.uniform(0.02, 0.2, chart.n_coordinates)
    else:
        kinds = [chart.n_bonds, chart.n_angles, chart.n_torsions]
        centres = np.repeat([0.15, 1.9, 2.0], kinds) + rng.normal(0, 0.01, chart.n_coordinates)
        widths = np.repeat([0.01, 0.1, torsion_width], kinds) * rng.uniform(0.7, 1.4, chart.n_coordinates)
    return ReferenceParameters(np.tile(centres, (n, 1)), np.tile(widths, (n, 1)))


def density(reference, parameters, index):
    """exp(-u) along one coordinate, the others at their centres, where they cost nothing."""

    def values(places):
        one = ReferenceParameters(parameters.centres[:1], parameters.widths[:1])
        coordinates = np.repeat(one.centres, np.size(places), axis=0)
        coordinates[:, index] = places
        return np.exp(-reference.energies(coordinates, one) / reference.kT)

    return values


def interval(chart, parameters, index):
    """The circle from the centre's far side, or ten widths."""
    centre, width = parameters.centres[0, index], parameters.widths[0, index]
    return (centre - np.pi, centre + np.pi) if chart.periodic[index] else (centre - 10 * width, centre + 10 * width)


@pytest.mark.parametrize("torsion_width", [0.08, 0.4, 1.0, 4.0])
@pytest.mark.parametrize("chart", [BENT, CARTESIAN], ids=["internal", "cartesian"])
def test_log_partition_is_the_integral_of_every_term(chart, torsion_width):
    reference, parameters = ReferencePotential(chart, KT), example(chart, torsion_width)
    total = 0.0
    for index in range(chart.n_coordinates):
        low, high = interval(chart, parameters, index)
        wells = np.linspace(low, high, 2 * int(chart.folds[index]) + 1)
        value = density(reference, parameters, index)
        total += np.log(quad(lambda x, value=value: value(x)[0], low, high, points=wells, limit=200)[0])
    assert reference.log_partition(parameters)[0] == pytest.approx(total, abs=1e-7)


@pytest.mark.parametrize("torsion_width", [0.15, 1.0])
@pytest.mark.parametrize("chart", [BENT, CARTESIAN], ids=["internal", "cartesian"])
def test_sampler_has_the_density_of_every_term(chart, torsion_width):
    """Kolmogorov-Smirnov, one test a coordinate and a case, Bonferroni."""
    reference, parameters = ReferencePotential(chart, KT), example(chart, torsion_width, n=5000)
    drawn = reference.sample(parameters, np.random.default_rng(1))
    for index in range(chart.n_coordinates):
        low, high = interval(chart, parameters, index)
        grid = np.linspace(low, high, 4001)
        values = density(reference, parameters, index)(grid)
        cumulative = np.concatenate([[0], np.cumsum(0.5 * (values[1:] + values[:-1]))])
        unrolled = drawn[:, index]
        if chart.periodic[index]:
            unrolled = low + np.mod(unrolled - low, 2 * np.pi)
            assert (np.abs(drawn[:, index]) <= np.pi).all()
        test = kstest(unrolled, lambda x, g=grid, c=cumulative: np.interp(x, g, c / c[-1]))
        assert test.pvalue > FALSE_ALARM / (2 * (BENT.n_coordinates + CARTESIAN.n_coordinates)), (index, test)


def test_terms_are_drawn_independently():
    """Every pair of coordinates, correlation below its Bonferroni limit."""
    n = 5000
    reference, parameters = ReferencePotential(BENT, KT), example(BENT, n=n)
    deviation = reference.sample(parameters, np.random.default_rng(2)) - parameters.centres
    deviation = np.where(BENT.periodic, np.sin(BENT.folds * deviation), deviation)
    correlation = np.corrcoef(deviation.T)[np.triu_indices(BENT.n_coordinates, 1)]
    assert np.abs(correlation).max() * n**0.5 < norm.isf(FALSE_ALARM / 2 / len(correlation))


@pytest.mark.parametrize(
    ("name", "slow"),
    [
        ("alanine_dipeptide_vacuum", Torsions(("phi", "psi"), np.array([[4, 6, 8, 14], [6, 8, 14, 16]]))),
        ("bonded_chain", Torsions(("phi",), np.array([[0, 1, 2, 3]]))),
        ("double_well_oscillators", ParticleCoordinates(("x",), np.array([[0, 0]]), np.array([[-1.6, 1.6]]))),
    ],
)
def test_native_forces_have_the_same_energy(name, slow):
    system = load_system(name)
    chart = chart_for(system.topology, slow, system.positions)
    reference = ReferencePotential(chart, system.kT)
    rng = np.random.default_rng(3)
    n = 25
    coordinates = np.repeat(chart.to_internal(system.positions[None]), n, axis=0)
    scale = np.full(chart.n_coordinates, 0.3)
    if isinstance(chart, InternalCoordinates):
        scale = np.repeat([0.01, 0.1, 1.0], [chart.n_bonds, chart.n_angles, chart.n_torsions])
        assert name != "alanine_dipeptide_vacuum" or chart.folds.max() == 3
    parameters = ReferenceParameters(
        coordinates + rng.normal(0, 1, coordinates.shape) * scale, scale * rng.uniform(0.3, 1.5, coordinates.shape)
    )
    positions = chart.to_cartesian(coordinates + rng.normal(0, 1, coordinates.shape) * scale)
    bare = openmm.System()
    for mass in system.masses:
        bare.addParticle(mass)
    forces = reference.forces(3)
    for force in forces:
        bare.addForce(force)
    platform = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(bare, openmm.VerletIntegrator(0.001), platform)
    expected = reference.energies(chart.to_internal(positions), parameters)
    for index in range(n):
        reference.set_parameters(forces, parameters, index, context)
        context.setPositions(positions[index])
        energy = context.getState(energy=True, groups={3}).getPotentialEnergy()._value
        assert energy == pytest.approx(expected[index], rel=1e-6)


def test_draws_outside_the_chart_have_weight_zero_and_count():
    """mean(w) over all draws is what mean(w) over the others is, times their share; nothing is redrawn."""
    system = load_system("bonded_chain")
    model = untrained_model(system, seed=1, strength=0.1, latent_size=1, widths={"bond": 0.12, "angle": 0.8})
    labels = np.zeros((1000, 1))
    proposals = propose(model, labels, system.force_constants, system.kT, np.random.default_rng(0))
    outside = ~model.chart.inside(proposals.coordinates)
    assert 0.1 < outside.mean() < 0.9
    lifts = Lifter(system, model, relax_steps=1, platform="Reference").lift(labels, seed=2)
    missed = lifts.reason == "outside"
    assert len(lifts) == 1000
    # two binomials of the same share, 3.5 sigma
    assert abs(missed.mean() - outside.mean()) < 3.5 * (2 * outside.mean() * (1 - outside.mean()) / 1000) ** 0.5
    assert (lifts.log_weights[missed] == -np.inf).all()
    assert np.isfinite(lifts.log_weights[~missed]).any()
    assert lifts.force_evaluations == (~missed).sum() * 3


def generators():
    for name in ("alanine_dipeptide_vacuum", "double_well_oscillators"):
        system = load_system(name)
        chart = chart_for(system.topology, system.slow, system.positions)
        origin = chart.to_internal(system.positions[None])[0]
        yield chart, Generator(chart, system.slow, 2, origin, np.full(chart.n_coordinates, 0.1))


GENERATORS = list(generators())
RAW = st.one_of(st.floats(-30, 30), st.floats(allow_nan=False, allow_infinity=False))


@pytest.mark.parametrize(("chart", "generator"), GENERATORS, ids=["internal", "cartesian"])
@settings(max_examples=200, deadline=None, derandomize=True)
@given(data=st.data())
def test_no_raw_output_leaves_the_physical_domain(chart, generator, data):
    shift, sine, width = (data.draw(RAW) for _ in range(3))
    raw = np.repeat([shift, sine, width], chart.n_coordinates)[None]
    with torch.no_grad():
        centres, widths = (part.numpy()[0] for part in generator.squash(torch.as_tensor(raw)))
    assert np.isfinite(widths).all() and (widths > 0).all()
    if isinstance(chart, InternalCoordinates):
        n, m = chart.n_bonds, chart.n_bonds + chart.n_angles
        assert np.isfinite(centres).all()
        assert (centres[:n] > 0).all()
        assert (centres[n:m] > 0).all() and (centres[n:m] < np.pi).all()
        origin = generator.origin.numpy()[m:]
        assert (np.abs(centres[m:] - origin) <= np.pi / chart.folds[m:] + 1e-12).all()
        # and so the reference is one that can be drawn from and weighed
    parameters = ReferenceParameters(np.nan_to_num(centres)[None], widths[None])
    reference = ReferencePotential(chart, KT)
    assert np.isfinite(reference.log_partition(parameters)).all()
    assert np.isfinite(reference.sample(parameters, np.random.default_rng(0))).all()
