"""Moves inside a Context on alanine dipeptide, flexible and with HBonds: the population of C7ax.

    python -m pytest -m slow tests/physics/test_in_context_alanine.py

The generator has an invertible network (`gan`); ten steps of dynamics run between attempts. Flexible, the population is
compared with the reference data; with constraints, with that of weighted draws, which need no dynamics. The z-scores
of this file together have the false-alarm rate of 3.5 sigma (Bonferroni); a planted fault is found beyond 5.
"""

from functools import cache
from pathlib import Path

import numpy as np
import openmm
import pytest
from openmm import app

from openmm_gancl import learn, load_system
from openmm_gancl.generator.network_training import NetworkOptions
from openmm_gancl.lifting.draws import draw
from openmm_gancl.lifting.loop_options import LoopOptions
from openmm_gancl.moves import InContextMove
from openmm_gancl.system.molecular_system import system_from_objects
from tests.openmm_contexts import BACKENDS

from .statistics import z_limit

pytestmark = pytest.mark.slow

DATA = Path(__file__).parents[1] / "data"
POPULATION, ERROR = 0.0297, 0.0005
"""Of 0 < phi < 2.5, in the reference data."""

N_STEPS, N_BLOCKS, N_DRAWS = 6000, 30, 20_000
CASES = [(name, backend) for name in ("flexible", "HBonds") for backend in BACKENDS]
N_SCORES = len(CASES)
REJECTED = 5.0


def system_of(name):
    vacuum = load_system("alanine_dipeptide_vacuum")
    if name == "flexible":
        return vacuum
    pdb = app.PDBFile(str(DATA / "alanine_dipeptide.pdb"))
    force_field = app.ForceField("amber14/protein.ff14SB.xml")
    rigid = force_field.createSystem(pdb.topology, nonbondedMethod=app.NoCutoff, constraints=app.HBonds)
    return system_from_objects(pdb.topology, rigid, pdb.positions, temperature=300.0, slow=vacuum.slow)


@cache
def learned(name):
    system = system_of(name)
    options = LoopOptions(network=NetworkOptions())
    return system, learn(system, seed=1, max_evaluations=20_000, options=options)


@cache
def expected(name):
    """The population, and its error."""
    if name == "flexible":
        return POPULATION, ERROR
    system, found = learned(name)
    rng = np.random.default_rng(3)
    placement = InContextMove(system, found.model, surface=found.surface).placement
    labels = placement.sample(N_DRAWS, rng)
    drawn = draw(system, [found.model], np.ones(1), labels, rng)
    log_w = drawn.log_weights - placement.log_density(labels)
    weights = np.exp(log_w - log_w.max())
    phi = labels[:, 0]
    right = ((phi > 0) & (phi < 2.5)).astype(float)
    share = (weights * right).sum() / weights.sum()
    return share, float(np.sqrt((weights**2 * (right - share) ** 2).sum()) / weights.sum())


def population(name, backend="auto"):
    """Of the C7ax side by a chain, its error from blocks, and how many times that side is entered or left."""
    system, found = learned(name)
    move = InContextMove(system, found.model, md_steps=10, surface=found.surface, backend=backend, seed=5)
    phi = move.run(N_STEPS).labels[:, 0]
    right = (phi > 0) & (phi < 2.5)
    blocks = right.reshape(N_BLOCKS, -1).mean(axis=1)
    return right.mean(), blocks.std(ddof=1) / N_BLOCKS**0.5, int((right[1:] != right[:-1]).sum())


@pytest.mark.parametrize(("name", "backend"), CASES)
def test_the_population_is_that_of_the_reference(name, backend):
    share, error, crossings = population(name, backend)
    truth, its_error = expected(name)
    assert crossings > 60 and error < 0.2 * truth, (share, error, crossings, truth, its_error)
    assert abs(share - truth) < z_limit(N_SCORES) * np.hypot(error, its_error), (share, error, truth, its_error)


def test_the_ratio_of_weights_replaced_by_one_shows(monkeypatch):
    add = openmm.CustomIntegrator.addComputeGlobal

    def other(self, variable, line):
        return add(self, variable, "step(1e10-abs(log_weight))" if variable == "accepted" else line)

    monkeypatch.setattr(openmm.CustomIntegrator, "addComputeGlobal", other)
    share, error, _ = population("flexible")
    assert abs(share - POPULATION) > REJECTED * np.hypot(error, ERROR), (share, error)
