"""Moves wholly inside one Context against exact answers: the weights' mean, the chain's averages, and what is counted.

The z-scores of this file together have the false-alarm rate of 3.5 sigma (Bonferroni).
"""

import re

import numpy as np
import openmm
import pytest
import torch
from openmm import app
from torch import nn

from openmm_gancl import InputError, ParticleCoordinates, system_from_objects
from openmm_gancl.engine.torch_force import ModuleForce
from openmm_gancl.generator import forces as model_forces
from openmm_gancl.generator import untrained_model
from openmm_gancl.moves import InContextMove, context_move
from tests.openmm_contexts import BACKENDS

from .exact import DOUBLE_WELL
from .statistics import score, z_limit

NAME = DOUBLE_WELL.name
N_SCORES = 5 + 4 + 2 + 1 + 1
REJECTED = 5.0
N_MOVES, N_TWIN, N_NARROW, N_TWO, N_BLOCKS = 48_000, 6000, 2500, 7000, 60


def move_of(models, generator, relax_steps, **rest):
    system = models.system(NAME)
    model = models.with_prior_encoder(NAME, generator, 2)
    return InContextMove(system, model, relax_steps=relax_steps, seed=7, **rest)


def check(result, rough):
    """Within the error, which says something."""
    assert result.relative_error < (0.15 if rough else 0.05), result
    assert result.effective_sample_size > (50 if rough else 200), result
    assert abs(result.z) < z_limit(N_SCORES), result


@pytest.mark.parametrize(
    ("generator", "relax_steps", "factor", "n"),
    [
        ("trained", 100, 1.0, 2000),
        ("trained", 100, 2.0, 2000),
        ("trained", 1, 1.0, 4000),
        ("untrained", 200, 1.0, 2800),
        ("untrained", 1, 1.0, 10_000),
    ],
)
def test_mean_weight_is_the_partition_function(models, generator, relax_steps, factor, n):
    """At any step count and step size, and from a generator that has seen nothing."""
    move = move_of(models, generator, relax_steps, time_step=factor * models.system(NAME).time_step)
    chain = move.run(n)
    result = score(chain.log_weights, DOUBLE_WELL.log_z())
    check(result, rough=generator == "untrained" or relax_steps == 1)


def two_particles():
    """Wells of different stiffness in every direction, joined by a spring; labels on both. And log Z."""
    stiffness = np.array([[20.0, 300.0, 500.0], [400.0, 25.0, 600.0]])
    topology = app.Topology()
    for _ in range(2):
        topology.addAtom("X", None, topology.addResidue("X", topology.addChain()))
    system, wells = openmm.System(), openmm.CustomExternalForce("kx*x^2/2+ky*y^2/2+kz*z^2/2")
    for name in ("kx", "ky", "kz"):
        wells.addPerParticleParameter(name)
    for particle, row in enumerate(stiffness.tolist()):
        system.addParticle(20.0 + 5.0 * particle)
        wells.addParticle(particle, row)
    spring = openmm.CustomBondForce("20*r^2")
    spring.addBond(0, 1, [])
    system.addForce(wells)
    system.addForce(spring)
    labels = ParticleCoordinates(("x0", "y1"), [[0, 0], [1, 1]], [[-1.0, 1.2], [-1.1, 1.0]])
    made = system_from_objects(
        topology,
        system,
        np.zeros((2, 3)),
        temperature=300.0,
        slow=labels,
        force_constants=[150.0, 250.0],
        time_step=0.01,
    )
    hessian = np.array([[np.diag(pair) + 40.0 * np.array([[1, -1], [-1, 1]])] for pair in stiffness.T])
    return made, float(3 * np.log(2 * np.pi * made.kT) - 0.5 * np.linalg.slogdet(hessian)[1].sum())


def narrow_domain():
    """A well wider than the domain of its label, whose edges r(s | x) must know. And log Z."""
    topology, system, well = app.Topology(), openmm.System(), openmm.CustomExternalForce("10*x^2+150*(y^2+z^2)")
    topology.addAtom("X", None, topology.addResidue("X", topology.addChain()))
    system.addParticle(20.0)
    well.addParticle(0, [])
    system.addForce(well)
    labels = ParticleCoordinates(("x",), [[0, 0]], [[-0.3, 0.4]])
    made = system_from_objects(
        topology, system, np.zeros((1, 3)), temperature=300.0, slow=labels, force_constants=40.0, time_step=0.01
    )
    return made, float(1.5 * np.log(2 * np.pi * made.kT) - 0.5 * np.log(20.0 * 300.0 * 300.0))


def chain_of_the_narrow_domain():
    system, log_z = narrow_domain()
    model = untrained_model(system, seed=2, latent_size=1, strength=0.2, widths={"cartesian": 0.1})
    return InContextMove(system, model, relax_steps=10, seed=6).run(N_NARROW), log_z


def test_labels_near_the_edges_of_their_domain():
    chain, log_z = chain_of_the_narrow_domain()
    check(score(chain.log_weights, log_z), rough=False)


def test_a_forgotten_edge_shows(monkeypatch):
    planted(monkeypatch, "log_weight", lambda line: re.sub(r"-log\(erfc.*\);", "-log(2);", line))
    chain, log_z = chain_of_the_narrow_domain()
    assert abs(score(chain.log_weights, log_z).z) > REJECTED


@pytest.mark.openmmtorch
@pytest.mark.parametrize("relax_steps", [1, 30])
def test_two_particles_with_a_label_each(relax_steps):
    system, log_z = two_particles()
    model = untrained_model(system, seed=2, latent_size=1, strength=0.3, widths={"cartesian": 0.15})
    chain = InContextMove(system, model, relax_steps=relax_steps, seed=5).run(N_TWO)
    result = score(chain.log_weights, log_z)
    check(result, rough=True)
    assert chain.positions.shape == (N_TWO, 2, 3) and 0.0 < chain.accepted.mean() < 1.0


def scores(positions):
    """z of four averages of a chain by the spread of its blocks, and the blocks' relative errors."""
    exact = DOUBLE_WELL.sample(400_000, np.random.default_rng(3))[:, 0]
    features = [lambda q: q[:, 0] > 0.0, lambda q: q[:, 0] ** 2, lambda q: q[:, 1] ** 2, lambda q: q[:, 2] ** 2]
    z, errors = [], []
    for feature in features:
        blocks = feature(positions[:, 0]).reshape(N_BLOCKS, -1).mean(axis=1)
        truth = feature(exact)
        error = np.hypot(blocks.std(ddof=1) / N_BLOCKS**0.5, truth.std() / len(truth) ** 0.5)
        z.append((blocks.mean() - truth.mean()) / error)
        errors.append(error / truth.mean())
    return np.array(z), np.array(errors)


@pytest.mark.slow
def test_marginals_are_exact(models):
    move = move_of(models, "trained", 20)
    move.step(200)
    z, errors = scores(move.run(N_MOVES).positions)
    assert 0.1 < move.acceptance_rate < 0.95
    assert (errors < 0.02).all(), errors
    assert np.abs(z).max() < z_limit(N_SCORES), z


def planted(monkeypatch, name, expression):
    """The same integrator with another line for one of its globals."""
    add = openmm.CustomIntegrator.addComputeGlobal

    def other(self, variable, line):
        return add(self, variable, expression(line) if variable == name else line)

    monkeypatch.setattr(openmm.CustomIntegrator, "addComputeGlobal", other)


def test_accepting_every_lift_shows(models, monkeypatch):
    planted(monkeypatch, "accepted", lambda line: "1")
    z, _ = scores(move_of(models, "trained", 1).run(N_TWIN).positions)
    assert np.abs(z).max() > REJECTED, z


def test_a_heat_counted_in_part_shows(models, monkeypatch):
    planted(monkeypatch, "log_weight", lambda line: line.replace("-heat", "-0.8*heat"))
    result = score(move_of(models, "trained", 100).run(4000).log_weights, DOUBLE_WELL.log_z())
    assert abs(result.z) > REJECTED, result


@pytest.mark.openmmtorch
def test_both_backends_and_platforms_make_the_same_moves(models):
    chains = [move_of(models, "trained", 20, backend=backend).run(20) for backend in BACKENDS]
    for chain in chains[1:]:
        np.testing.assert_allclose(chain.log_weights, chains[0].log_weights, rtol=1e-9)
        np.testing.assert_allclose(chain.positions, chains[0].positions, rtol=0, atol=1e-9)
    again = move_of(models, "trained", 20).run(20)
    assert np.array_equal(again.positions, chains[0].positions)


def test_the_cpu_platform_is_exact_too(models):
    chain = move_of(models, "trained", 50, platform="CPU").run(1500)
    check(score(chain.log_weights, DOUBLE_WELL.log_z()), rough=False)


@pytest.mark.openmmtorch
def test_a_seed_belongs_to_its_chain(models):
    """Whatever else draws from the generator that the Reference platform shares."""
    alone = move_of(models, "trained", 5).run(10)
    one, other = move_of(models, "trained", 5), move_of(models, "untrained", 5)
    parts = []
    for _ in range(2):
        other.step(3)
        parts.append(one.run(5).positions)
    np.testing.assert_array_equal(np.concatenate(parts), alone.positions)


@pytest.mark.parametrize("platform", ["Reference", "CPU"])
def test_a_lift_that_blows_up_ends_nothing(platform):
    """In a well so stiff that the step is far too long."""
    system, _ = narrow_domain()
    stiff = openmm.CustomExternalForce("1e7*x^6")
    stiff.addParticle(0, [])
    system.system.addForce(stiff)
    move = InContextMove(system, untrained_model(system, seed=2), relax_steps=20, platform=platform, time_step=0.1)
    chain = move.run(100)
    lost = np.isneginf(chain.log_weights)
    assert 5 < lost.sum() < 100 and not chain.accepted[lost].any() and np.isfinite(chain.positions).all()


class Counting(nn.Module):
    """The same proposal, its energy the number of evaluations so far."""

    count: torch.Tensor

    def __init__(self, inner):
        super().__init__()
        self.inner = inner
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    def forward(self, positions, a0, b0, b1):
        _, forces = self.inner(positions, a0, b0, b1)
        self.count += 1.0
        return self.count.clone(), forces


@pytest.mark.openmmtorch
@pytest.mark.parametrize("backend", BACKENDS)
def test_one_evaluation_of_the_network_a_proposal(models, monkeypatch, backend):
    make, calls = model_forces.module_force, []
    if backend == "torch":

        def counting(module, *arguments, **rest):
            return make(torch.jit.script(Counting(module)), *arguments, **rest)

        monkeypatch.setattr(model_forces, "module_force", counting)
    else:
        call = ModuleForce.__call__
        monkeypatch.setattr(ModuleForce, "__call__", lambda self, state: calls.append(1) or call(self, state))
    move = move_of(models, "trained", 50, backend=backend)
    move.step(25)
    counted = move.integrator.getGlobalVariableByName("log_q") if backend == "torch" else len(calls)
    assert counted == 25


def test_the_network_is_no_part_of_the_dynamics(models):
    """Of the Context's energy without its group nothing is missing."""
    move, system = move_of(models, "trained", 5), models.system(NAME)
    move.run(3)
    state = move.context.getState(positions=True, energy=True, groups={context_move.REAL_GROUP})
    positions = state.getPositions(asNumpy=True)._value[:1]
    assert state.getPotentialEnergy()._value == pytest.approx(DOUBLE_WELL.energy(positions)[0], rel=1e-9)
    assert system.system.getNumParticles() == 1
    assert move.integrator.getIntegrationForceGroups() == 1 << context_move.REAL_GROUP


def test_what_the_ghosts_would_change_is_refused(models):
    system = models.system("bonded_chain")
    with pytest.raises(InputError, match=r"for at most 16 particles.*use Lifter or LiftMove"):
        InContextMove(system, untrained_model(system, seed=1))
    system, _ = narrow_domain()
    model = untrained_model(system, seed=1)
    with pytest.raises(InputError, match=r"`force_constants` \[1.0, 2.0\]: give one number, or 1"):
        InContextMove(system, model, force_constants=[1.0, 2.0])
    with pytest.raises(InputError, match="time step nan"):
        InContextMove(system, model, time_step=float("nan"))
    system.system.addForce(openmm.NonbondedForce())
    with pytest.raises(InputError, match=r"NonbondedForce, which would feel the ghosts.*use Lifter or LiftMove"):
        InContextMove(system, model)
