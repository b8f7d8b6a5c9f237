"""Generators of the toys with an exact answer, and that answer."""

import copy
from functools import cache

import numpy as np
import torch

from openmm_gancl import load_system
from openmm_gancl.generator.coupling import CouplingNetwork
from openmm_gancl.generator.invertible import InvertibleGenerator
from openmm_gancl.generator.score_fit import fit_triangular, untrained_triangular
from openmm_gancl.generator.trained_for import system_metadata
from openmm_gancl.reference.chart import chart_for
from openmm_gancl.reference.gradients import in_chart_frame, log_density_gradients
from openmm_gancl.sampling.short_windows import ShortWindows, sample_short_windows

from .exact import CHAIN, EXACT, KT, log_integral

NAMES = ("double_well_oscillators", "narrow_barrier", "bonded_chain")
SCALES = {"bond": 0.03, "angle": 0.35, "torsion": 0.8, "cartesian": 0.15}
"""Of untrained generators."""

NETWORKS = {"gan": 0.03, "random gan": 0.1}
"""Parameters' standard deviations of a network on top of a trained map: a small change of it, and one that harms."""


def exact_log_density(name, labels):
    """log of exp(-beta F(s)), with its constant."""
    if name == CHAIN.name:
        others = CHAIN.log_z() - log_integral(CHAIN.log_turns(), CHAIN.circle)
        return others - CHAIN.torsion_energy(labels[:, 0]) / KT
    return -EXACT[name].surface(labels[:, 0]) / KT


@cache
def system_and_chart(name):
    system = load_system(name)
    return system, chart_for(system.topology, system.slow, system.positions, system.constraints)


@cache
def structures(name):
    """Coordinates and gradients of a few short windows."""
    system, chart = system_and_chart(name)
    frames = sample_short_windows(system, np.random.default_rng(1), ShortWindows(n=20))
    coordinates = chart.to_internal(frames.positions)
    forces = in_chart_frame(chart, frames.positions, frames.forces)
    return coordinates, log_density_gradients(chart, coordinates, forces, system.kT, system.constraints, system.masses)


def with_network(made, strength):
    """A copy with a network that nothing has trained on top of its map.

    Args:
        made: the generator.
        strength: standard deviation of the network's parameters.
    """
    changed = copy.deepcopy(made)
    narrow, rng = changed.map.narrow, torch.Generator().manual_seed(1)
    network = CouplingNetwork(narrow.n, narrow.condition.n_network_features)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=strength, generator=rng)
    narrow.set_network(network.requires_grad_(False))
    return changed


@cache
def generator(name, kind):
    if kind in NETWORKS:
        return with_network(generator(name, "trained"), NETWORKS[kind])
    system, chart = system_and_chart(name)
    coordinates, gradients = structures(name)
    if kind == "untrained":
        kinds = ["cartesian"] * 3
        if name == CHAIN.name:
            kinds = ["bond"] * chart.n_bonds + ["angle"] * chart.n_angles + ["torsion"] * chart.n_torsions
        scales = np.array([SCALES[one] for one in kinds])
        origin = chart.to_internal(system.positions[None])[0]
        made = untrained_triangular(chart, system.slow, origin, scales, np.random.default_rng(2), strength=0.2)
    else:
        if kind == "shuffled":
            coordinates = coordinates.copy()
            rng = np.random.default_rng(3)
            coordinates[:, chart.label_indices] = rng.permutation(coordinates[:, chart.label_indices])
        made = fit_triangular(chart, system.slow, coordinates, gradients)
    return InvertibleGenerator(made, chart, system.slow, system_metadata(system))


def domain(name):
    """Where labels are drawn: below 12 kT or so."""
    return (-np.pi, np.pi) if name == CHAIN.name else (-1.4, 1.4)
