"""Modes of coordinates that are no labels: a loop that starts in one of them finds all, with the right weights.

Surfaces against quadrature within 3.5 sigma at a combined error of at most 0.05 kT; what leaves modes out is found
beyond 5 sigma.
"""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from openmm_gancl import load_system
from openmm_gancl.coordinates.basin import Basin
from openmm_gancl.errors import InputError
from openmm_gancl.free_energy.grid import bin_centres
from openmm_gancl.generator.circular import CircularDensity
from openmm_gancl.generator.fit_options import FitOptions
from openmm_gancl.generator.invertible import InvertibleGenerator
from openmm_gancl.generator.network_training import with_network
from openmm_gancl.generator.score_fit import fit_triangular
from openmm_gancl.lifting import loop as of_loop
from openmm_gancl.lifting.draws import draw
from openmm_gancl.lifting.frame_check import check_frames
from openmm_gancl.lifting.label_regression import regression_populations
from openmm_gancl.lifting.loop import learn
from openmm_gancl.lifting.loop_coordinates import LoopCoordinates
from openmm_gancl.lifting.loop_options import LoopOptions
from openmm_gancl.lifting.rounds import pooled_log_weights
from openmm_gancl.reference.chart import CartesianCoordinates, chart_for
from openmm_gancl.reference.gradients import in_chart_frame, log_density_gradients
from openmm_gancl.reference.wide_torsions import turning_indices
from openmm_gancl.sampling.short_windows import ShortWindows, sample_short_windows

from . import amine as amine_module
from . import pentane as pentane_module
from .amine import amine
from .exact import FORKED, KT
from .pentane import pentane
from .statistics import score
from .valine import PDB, valine

FORK, PENTANE = "forked_oscillator", "pentane"
LIMIT, REJECTED, MAX_ERROR = 3.5, 5.0, 0.05
OPTIONS = LoopOptions(ShortWindows(n=20), n_first=500)
BASINS = {
    FORK: (Basin("left", (np.array([[-1.0, 0.0]]),)), Basin("right", (np.array([[0.0, 1.0]]),))),
    PENTANE: (
        Basin("gauche", (np.array([[-2.0, 2.0]]),)),
        Basin("trans", (np.array([[2.0, np.pi]]), np.array([[-np.pi, -2.0]]))),
    ),
}


@cache
def system_of(name):
    return load_system(name) if name == FORK else pentane()


def exact_surface(name, labels):
    """-log of the integral over all other coordinates, kT."""
    return FORKED.surface(labels) / KT if name == FORK else pentane_module.surface(labels)


def exact_difference(name):
    """Of the second basin from the first, kT."""
    grid = np.linspace(*system_of(name).slow.domain[0], 7201)
    grid = 0.5 * (grid[1:] + grid[:-1])
    density = np.exp(-exact_surface(name, grid))
    second = grid > 0 if name == FORK else np.abs(grid) > 2.0
    return -np.log(density[second].sum() / density[~second].sum())


def difference_and_error(name, learned):
    """The same of a loop, and its error bar, kT."""
    rows = regression_populations(learned.regression, system_of(name).slow, BASINS[name], 300.0)
    return rows[1].free_energy / KT, rows[1].free_energy_error / KT


@pytest.mark.parametrize("name", [FORK, PENTANE])
def test_the_loop_finds_all_modes(name):
    learned = learn(system_of(name), seed=1, max_evaluations=8000, options=OPTIONS)
    assert learned.model.map.n_wide == 1
    found, error = difference_and_error(name, learned)
    assert error < MAX_ERROR
    assert abs(found - exact_difference(name)) < LIMIT * error
    exact = exact_surface(name, learned.surface.centres[0])
    low = exact < exact.min() + 8.0
    off = learned.surface.energy[low] / KT - exact[low]
    assert (off - off.mean()).std() < MAX_ERROR
    assert learned.history[-1].effective_fraction > 0.7


def test_a_loop_without_the_second_mode_shows(monkeypatch):
    """The twin: a normal density of the fork's fast coordinate, and windows that begin where the structure is."""
    monkeypatch.setattr(LoopCoordinates, "other_components", None)
    learned = learn(system_of(FORK), seed=1, max_evaluations=8000, options=OPTIONS)
    assert learned.model.map.n_wide == 0
    found, error = difference_and_error(FORK, learned)
    assert error < MAX_ERROR
    assert abs(found - exact_difference(FORK)) > REJECTED * error


@pytest.mark.parametrize("looks", [True, False])
def test_an_amine_inverts(looks):
    """Its surface is the same to either side of zero; the twin looks for no second form, and stays in the first."""
    learned = learn(amine(), seed=1, max_evaluations=12_000, options=replace(OPTIONS, wide=looks))
    assert learned.model.map.n_wide == looks
    exact = amine_module.surface(learned.surface.centres[0])
    low = exact < exact.min() + 8.0
    off, error = learned.surface.energy[low] / KT - exact[low], learned.surface.error[low].max() / KT
    off -= off.mean()
    assert error < MAX_ERROR
    assert np.abs(off).max() < 4.5 * error if looks else off.std() > max(0.5, 20 * error)


@cache
def one_mode(name):
    """Chart, its wide coordinate, coordinates and gradients of structures in one mode of it alone."""
    system = system_of(name)
    chart = chart_for(system.topology, system.slow, system.positions, system.constraints)
    if name == FORK:
        chart = CartesianCoordinates(1, system.slow.components, turned=[1], centres=[0.0], scales=[0.3])
    wide = turning_indices(system.topology, chart, system.state)
    frames = sample_short_windows(system, np.random.default_rng(1), ShortWindows(n=20))
    coordinates = chart.to_internal(frames.positions)
    forces = in_chart_frame(chart, frames.positions, frames.forces)
    gradients = log_density_gradients(chart, coordinates, forces, system.kT, system.constraints, system.masses)
    angles = coordinates[:, wide[0]]
    here = angles > 0 if name == FORK else np.abs(angles) > 2.0
    assert here.sum() > 200
    return chart, wide, coordinates[here], gradients[here]


@pytest.mark.parametrize("name", [FORK, PENTANE])
def test_the_uniform_share_reaches_a_mode_that_no_structure_showed(name):
    """``w exp(F(s))`` has mean one at all labels; the twin counts a share that was not drawn from."""
    system, (chart, wide, *structures) = system_of(name), one_mode(name)
    labels = np.random.default_rng(2).uniform(*system.slow.domain[0], (20_000, 1))
    with_share, without = (
        InvertibleGenerator(
            fit_triangular(chart, system.slow, *structures, wide=wide, options=FitOptions(uniform_share=share)),
            chart,
            system.slow,
        )
        for share in (0.3, 0.0)
    )
    free_energies = exact_surface(name, labels[:, 0])
    drawn, left_out = (
        draw(system, [one], np.ones(1), labels, np.random.default_rng(3)) for one in (with_share, without)
    )
    right = score(drawn.log_weights + free_energies, 0.0)
    wrong = score(left_out.log_target - with_share.log_density(left_out.coordinates) + free_energies, 0.0)
    assert right.relative_error < MAX_ERROR and abs(right.z) < LIMIT, right
    assert abs(wrong.z) > REJECTED, wrong


def test_no_coordinate_needs_to_be_narrow():
    """Both components beside the label are drawn from circular densities; the twin leaves out one of two modes."""
    system = system_of(FORK)
    frames = sample_short_windows(system, np.random.default_rng(1), ShortWindows(n=20))
    scales = [0.3, frames.positions[:, 0, 2].std()]
    chart = CartesianCoordinates(1, system.slow.components, turned=[1, 2], centres=[0.0, 0.0], scales=scales)
    coordinates, forces = chart.to_internal(frames.positions), in_chart_frame(chart, frames.positions, frames.forces)
    gradients = log_density_gradients(chart, coordinates, forces, system.kT, system.constraints, system.masses)
    options = FitOptions(uniform_share=0.3)
    of_map = fit_triangular(chart, system.slow, coordinates, gradients, wide=np.array([1, 2]), options=options)
    generator = InvertibleGenerator(of_map, chart, system.slow)
    assert of_map.narrow.n == 0 and of_map.n_wide == 2
    labels = np.random.default_rng(2).uniform(*system.slow.domain[0], (20_000, 1))
    drawn = draw(system, [generator], np.ones(1), labels, np.random.default_rng(3))
    log_ratios = drawn.log_weights + exact_surface(FORK, labels[:, 0])
    right = score(log_ratios, 0.0)
    wrong = score(np.where(drawn.coordinates[:, 1] > 0, log_ratios, -np.inf), 0.0)
    assert right.relative_error < MAX_ERROR and abs(right.z) < LIMIT and abs(wrong.z) > REJECTED, (right, wrong)
    numbers = torch.as_tensor(generator.sample_base(100, np.random.default_rng(4))), torch.as_tensor(labels[:100])
    assert all(map(torch.equal, torch.jit.script(of_map)(*numbers), of_map(*numbers)))
    with pytest.raises(InputError, match="every coordinate is a label or wide"):
        with_network(generator, coordinates, gradients, np.ones(len(coordinates)), seed=1)


def learned_from_trans_frames():
    """Frames of the user's own, all trans about the bond that turns."""
    system, (chart, wide, *_) = system_of(PENTANE), one_mode(PENTANE)
    frames = sample_short_windows(system, np.random.default_rng(1), ShortWindows(n=20)).positions
    trans = frames[np.abs(chart.to_internal(frames)[:, wide[0]]) > 2.0]
    assert len(trans) > 400
    return learn(system, seed=1, max_evaluations=8000, options=OPTIONS, frames=trans)


def test_frames_of_one_mode_alone_lead_to_all_of_them():
    """The uniform share draws the others."""
    learned = learned_from_trans_frames()
    found, error = difference_and_error(PENTANE, learned)
    assert error < MAX_ERROR and abs(found - exact_difference(PENTANE)) < LIMIT * error
    assert learned.history[0].effective_fraction < 0.3 < 0.8 < learned.history[-1].effective_fraction


def trans_alone(of_map, regressions, conditions, uniform_share):
    """In place of the regressions' densities: what the frames show, and no uniform share."""
    only = torch.tensor([[-12.0, 0.0]], dtype=torch.float64)
    of_map.circular[0] = CircularDensity(torch.tensor([0]), only, 1, 0.0)


def test_without_the_uniform_share_the_check_names_what_frames_did_not_show(monkeypatch):
    """The twin: nothing draws the other states, and what the check finds ends even a trial with code 3."""
    monkeypatch.setattr(of_loop, "set_wide_densities", trans_alone)
    learned = learned_from_trans_frames()
    drawn = learned.lifts.coordinates[:, learned.model.map.circular_indices[0].item()]
    assert (np.abs(drawn) < 1.8).mean() < 1e-3
    places = np.radians(np.concatenate([np.linspace(-80, -50, 20), np.linspace(50, 80, 20)]))[:, None]
    check = check_frames(system_of(PENTANE), learned.model, places, 6, seed=3)
    assert check.unseen and all("C5-C4-C3-C2 is near" in sentence for sentence in check.unseen)


@pytest.mark.slow
def test_rotamers_of_valine():
    """Of chi1, which is no label: populations of 0.490, 0.247 and 0.264, each +- 0.007; about 170 s.

    The reference (``valine_dipeptide_vacuum.npz``: 1.5e7 steps twice under a static bias over phi, psi and chi1,
    reweighted) is good for 0.14 kT a bin: a surface without error would deviate so much.
    """
    learned = learn(valine(), seed=1, max_evaluations=50_000)
    draws = learned.lifts.select(learned.lifts.round >= 2)
    weights = np.exp(pooled_log_weights(draws))
    chi = draws.coordinates[:, learned.model.map.circular_indices[0]]
    third = np.floor(np.mod(chi, 2 * np.pi) / (2 * np.pi / 3)).astype(int)
    # trans, gauche plus, gauche minus
    populations = np.bincount(third, weights, 3)[[1, 0, 2]] / weights.sum()
    with np.load(PDB.with_name("valine_dipeptide_vacuum.npz")) as reference:
        exact, low = reference["free_energy_kT"], reference["free_energy_kT"] < 8.4
        assert np.abs(populations - reference["populations"][:3]).max() < 0.1, populations
    # a bin of the reference is a mean over it, on walls of several kT a bin another number than its middle's
    fine = learned.surface.energy_at(bin_centres((np.linspace(-np.pi, np.pi, 5 * 48 + 1),) * 2)) / KT
    means = -np.log(np.exp(-fine).reshape(48, 5, 48, 5).mean(axis=(1, 3)))
    difference = (means - exact)[low]
    assert (difference - difference.mean()).std() < 0.35
