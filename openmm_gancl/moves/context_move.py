"""Lifts of particles in an external field wholly inside one Context: proposed, relaxed and accepted in one step."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import openmm

from ..coordinates.slow_coordinates import ParticleCoordinates
from ..engine.packing import CopyLattice, add_guard, names_its_particles
from ..engine.platform_rng import ReferenceStream, preserve_platform_rng
from ..engine.platforms import REAL_GROUP, REFERENCE_GROUP, make_context
from ..engine.random_numbers import named_rng, openmm_seed
from ..engine.threads import torch_threads
from ..engine.torch_force import Backend
from ..errors import InputError
from ..generator.forces import torch_force
from ..generator.model import LiftingModel
from ..lifting.lifter import Lifter
from ..lifting.relaxation import add_relaxation_step, add_relaxation_variables
from ..system.molecular_system import MolecularSystem
from ..units import BoolArray, FloatArray, IntArray, numbers

MAX_LOG_WEIGHT = 1e10
"""A log-weight beyond this, or NaN, is no weight."""

MAX_PARTICLES = 16
"""The integrator has a few lines a particle."""


@dataclass(frozen=True)
class ContextChain:
    """A Metropolis chain of lifts.

    Attributes:
        positions: shape=(n, n_atoms, 3), nm, of the chain after each move.
        labels: shape=(n, d), of each proposal.
        log_weights: shape=(n,), log w' of each proposal, minus infinity where it failed.
        accepted: shape=(n,).
    """

    positions: FloatArray
    labels: FloatArray
    log_weights: FloatArray
    accepted: BoolArray


class InContextMove:
    """A chain of unrestrained lifts inside one Context; each step of its integrator is one move.

    Guarantee: the Boltzmann distribution of the System stays invariant (independence Metropolis-Hastings with the
    exact weights of relaxed lifts, the state carrying its weight), at any model, step count and step size, if nothing
    else moves the particles. The label is uniform over the domain, the latent standard normal, and r = p(z): a fitted
    encoder is not used here.

    The network is one force, evaluated once a proposal, in a force group that nothing else uses. Each atom has a
    second particle without mass of its own in the energy, a ghost, whose "force" carries the widths of the reference;
    while a lift relaxes it is a free particle, whose heat and kinetic energy cancel in the weight.

    A lift that blows up has no weight, as one has that ends beyond 1e6 nm. On the Reference platform, whose Contexts
    share one random generator, `run` and `step` draw from a stream of the move's own.

    Args:
        system: of particles in an external field, with components as labels, without a declared state; its forces
            name their particles.
        model: a lifting model for it.
        relax_steps: of each relaxation.
        time_step: ps; the system's own by default.
        friction: 1/ps; the system's own by default.
        force_constants: shape=(d,), kJ/mol/nm^2; the system's own by default.
        platform: an OpenMM platform.
        backend: of the network; see `openmm_gancl.engine.torch_force.module_force`.
        seed: of OpenMM's generator, which draws everything.

    Attributes:
        context: the Context; the first ``n_atoms`` particles are the system's, the others ghosts.
        integrator: its globals ``log_weight``, ``current_log_weight``, ``accepted`` and ``n_accepted`` may be read.

    Raises:
        InputError: molecules, and what cannot be lifted exactly.
    """

    def __init__(
        self,
        system: MolecularSystem,
        model: LiftingModel,
        *,
        relax_steps: int = 100,
        time_step: float | None = None,
        friction: float | None = None,
        force_constants: FloatArray | None = None,
        platform: str = "Reference",
        backend: Backend = "auto",
        seed: int = 0,
    ):
        if reason := _why_not_inside(system, model):
            raise InputError(f"{reason}: use Lifter or LiftMove")
        assert isinstance(system.slow, ParticleCoordinates)
        self.system = system
        # a Lifter checks all that a lift needs, and has its protocol
        lifter = Lifter(
            system,
            model,
            relax_steps=relax_steps,
            time_step=time_step,
            friction=friction,
            force_constants=force_constants,
            mode="unrestrained",
            platform=platform,
        )
        openmm_stream = openmm_seed(named_rng(seed, "in-context move"))
        doubled = openmm.XmlSerializer.clone(system.system)
        for force in doubled.getForces():
            force.setForceGroup(REAL_GROUP)
        for mass in system.masses:
            doubled.addParticle(float(mass))
        doubled.addForce(
            torch_force(
                model, "proposal", force_constants=lifter.force_constants, force_group=REFERENCE_GROUP, backend=backend
            )
        )
        self.integrator = _move_integrator(lifter, model)
        self.integrator.setIntegrationForceGroups({REAL_GROUP})
        with preserve_platform_rng():
            self.context = make_context(doubled, self.integrator, lifter.platform, openmm_stream)
        self._stream = ReferenceStream(openmm_stream)
        self.context.setPositions(np.concatenate([system.positions, np.zeros_like(system.positions)]))
        self._set_masks(system.n_atoms, system.slow.components, lifter.force_constants)

    def _set_masks(self, n_atoms: int, components: IntArray, force_constants: FloatArray) -> None:
        """Per-DOF constants: which DOFs are whose, and the restraint of the labels."""
        n = 2 * n_atoms
        for atom in range(n_atoms):
            for name, row in ((f"atom_{atom}", atom), (f"ghost_{atom}", n_atoms + atom)):
                mask = np.zeros((n, 3))
                mask[row] = 1.0
                self.integrator.setPerDofVariableByName(name, mask)
        restraint = np.zeros((n, 3))
        for i, ((atom, axis), k) in enumerate(zip(components, force_constants, strict=True)):
            mask = np.zeros((n, 3))
            mask[atom, axis] = 1.0
            self.integrator.setPerDofVariableByName(f"is_label_{i}", mask)
            restraint += k * mask
        self.integrator.setPerDofVariableByName("restraint", restraint)

    @property
    def acceptance_rate(self) -> float:
        """Accepted moves since the beginning; NaN before the first."""
        value = self.integrator.getGlobalVariableByName
        return float(value("n_accepted") / value("n_moves")) if value("n_moves") else float("nan")

    def step(self, n: int) -> None:
        """n moves without a record."""
        with self._stream.drawn_from(), torch_threads(1):
            self.integrator.step(n)

    def run(self, n: int) -> ContextChain:
        """n moves, each recorded."""
        positions = np.empty((n, self.system.n_atoms, 3))
        labels = np.empty((n, len(self.system.slow.names)))
        log_weights, accepted = np.empty(n), np.empty(n, dtype=bool)
        value = self.integrator.getGlobalVariableByName
        names = [f"label_{j}" for j in range(labels.shape[1])]
        with self._stream.drawn_from(), torch_threads(1):
            for i in range(n):
                self.integrator.step(1)
                state = self.context.getState(positions=True)
                positions[i] = numbers(state.getPositions(asNumpy=True))[: self.system.n_atoms]
                labels[i] = [self.context.getParameter(name) for name in names]
                log_weights[i], accepted[i] = value("log_weight"), bool(value("accepted"))
        usable = np.abs(log_weights) < MAX_LOG_WEIGHT
        return ContextChain(positions, labels, np.where(usable, log_weights, -np.inf), accepted)


def _why_not_inside(system: MolecularSystem, model: LiftingModel) -> str:
    """Why moves of a system cannot be made inside a Context; empty where they can."""
    if not isinstance(system.slow, ParticleCoordinates) or system.n_atoms > MAX_PARTICLES:
        return f"a move inside the Context is for at most {MAX_PARTICLES} particles in an external field"
    if not system.state.is_empty:
        return f"{system.name} has a declared state, which a move inside the Context does not check"
    for force in system.system.getForces():
        if not names_its_particles(force):
            return f"the System has a {type(force).__name__}, which would feel the ghosts of a move inside the Context"
    return ""


def _move_integrator(lifter: Lifter, model: LiftingModel) -> Any:
    integrator = openmm.CustomIntegrator(lifter.protocol.time_step)
    add_relaxation_variables(integrator, lifter.protocol)
    n_atoms, d = model.chart.n_atoms, len(model.slow.names)
    for name in ("log_q", "log_weight", "real_energy", "kinetic_start", "kinetic_end", "n_broken"):
        integrator.addGlobalVariable(name, 0.0)
    for name in ("accepted", "n_accepted", "n_moves"):
        integrator.addGlobalVariable(name, 0.0)
    integrator.addGlobalVariable("kT", lifter.system.kT)
    # any first weight is accepted
    integrator.addGlobalVariable("current_log_weight", -MAX_LOG_WEIGHT)
    for i in range(d):
        integrator.addGlobalVariable(f"obtained_{i}", 0.0)
        integrator.addPerDofVariable(f"is_label_{i}", 0.0)
    for atom in range(n_atoms):
        integrator.addPerDofVariable(f"atom_{atom}", 0.0)
        integrator.addPerDofVariable(f"ghost_{atom}", 0.0)
    for axis in "xyz":
        integrator.addGlobalVariable(f"width_{axis}", 0.0)
    for name in ("current", "noise_drawn", "shift", "centre", "width", "stiffness", "restraint"):
        integrator.addPerDofVariable(name, 0.0)
    check = add_guard(integrator, CopyLattice(), lifter.protocol.time_step)
    _add_proposal(integrator, lifter, model)
    integrator.addComputePerDof("broken", "0")
    integrator.addComputePerDof("v", "sqrt(kT/m)*gaussian")
    integrator.addComputeSum("kinetic_start", "0.5*m*v*v")
    integrator.addComputeGlobal("n", "0")
    integrator.beginWhileBlock("n < n_steps")
    # the restraint of the label's coordinate is added to the real force, and is its reference
    add_relaxation_step(integrator, f"f{REAL_GROUP}-restraint*(x-centre)", "-stiffness*(x-centre)", check=check)
    integrator.endBlock()
    _add_acceptance(integrator, lifter)
    return integrator


def _add_proposal(integrator: Any, lifter: Lifter, model: LiftingModel) -> None:
    """x0 = c + width * noise, with c and width of every DOF: one evaluation of the network."""
    integrator.addComputePerDof("current", "x")
    for i, (low, high) in enumerate(model.slow.domain.tolist()):
        integrator.addComputeGlobal(f"label_{i}", f"{low!r}+{high - low!r}*uniform")
    for i in range(model.latent_size):
        integrator.addComputeGlobal(f"latent_{i}", "gaussian")
    integrator.addComputePerDof("noise_drawn", "gaussian")
    integrator.addComputePerDof("x", "noise_drawn")
    integrator.addComputeGlobal("log_q", f"energy{REFERENCE_GROUP}")
    # in a line of its own: with x on its left the network would be evaluated again
    integrator.addComputePerDof("shift", f"f{REFERENCE_GROUP}")
    integrator.addComputePerDof("width", "0")
    integrator.addComputePerDof("x", "0")
    for atom in range(model.chart.n_atoms):
        for axis in "xyz":
            # a scalar is summed over three DOFs
            integrator.addComputeSum(f"width_{axis}", f"ghost_{atom}*_{axis}(shift)/3")
        integrator.addComputePerDof("width", f"width+atom_{atom}*vector(width_x, width_y, width_z)")
        integrator.addComputePerDof("x", f"x+atom_{atom}*(noise_drawn+shift)")
    integrator.addComputePerDof("centre", "x-width*noise_drawn")
    # ghosts are free particles
    integrator.addComputePerDof("stiffness", "select(width, kT/width^2, 0)")


def _add_acceptance(integrator: Any, lifter: Lifter) -> None:
    """log w' = -beta (U_A + K_1 - K_0 - Q) - log q(x0 | s, z) + log r(s | x) - log p(s), and min(1, w'/w)."""
    integrator.addComputeGlobal("real_energy", f"energy{REAL_GROUP}")
    integrator.addComputeSum("kinetic_end", "0.5*m*v*v")
    integrator.addComputeGlobal("log_weight", "-(real_energy+kinetic_end-kinetic_start-heat)/kT-log_q")
    for i, ((low, high), k) in enumerate(zip(lifter.system.slow.domain.tolist(), lifter.force_constants, strict=True)):
        width, half, middle = float(np.sqrt(lifter.system.kT / k)), 0.5 * (high - low), 0.5 * (high + low)
        integrator.addComputeSum(f"obtained_{i}", f"is_label_{i}*x")
        # the restraint's Boltzmann factor over the labels of the domain; erfc of both ends, from the nearer one
        integrator.addComputeGlobal(
            "log_weight",
            f"log_weight-0.5*((label_{i}-obtained_{i})/{width!r})^2"
            f"+{float(np.log(2 * half / width * np.sqrt(2 / np.pi)))!r}"
            f"-log(erfc((away-{half!r})/{width * 2**0.5!r})-erfc((away+{half!r})/{width * 2**0.5!r}));"
            f"away=abs(obtained_{i}-{middle!r})",
        )
    integrator.addComputeSum("n_broken", "broken")
    integrator.addComputeGlobal("log_weight", f"select(n_broken, {-2 * MAX_LOG_WEIGHT!r}, log_weight)")
    integrator.addComputeGlobal(
        "accepted", f"step(log_weight-current_log_weight-log(uniform))*step({MAX_LOG_WEIGHT!r}-abs(log_weight))"
    )
    integrator.addComputeGlobal("n_moves", "n_moves+1")
    integrator.addComputeGlobal("n_accepted", "n_accepted+accepted")
    integrator.beginIfBlock("accepted = 1")
    integrator.addComputeGlobal("current_log_weight", "log_weight")
    integrator.endBlock()
    integrator.beginIfBlock("accepted = 0")
    # not by a factor of zero or one, which would keep a NaN
    integrator.addComputePerDof("x", "current")
    integrator.endBlock()
