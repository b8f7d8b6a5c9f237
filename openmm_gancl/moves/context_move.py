"""Moves wholly inside one Context: proposed, weighed and accepted in a step of its integrator, then dynamics."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openmm
import torch

from ..coordinates.slow_coordinates import Torsions
from ..engine.platform_rng import ReferenceStream, preserve_platform_rng
from ..engine.platforms import (
    REAL_GROUP,
    PlatformChoice,
    make_context,
    named_failures,
    put_in_group,
    resolved_platform,
)
from ..engine.random_numbers import fresh_seed, named_rng, openmm_seed
from ..engine.threads import torch_threads
from ..engine.torch_force import Backend, check_module, module_force
from ..errors import InputError
from ..free_energy.surface import FreeEnergySurface
from ..generator.invertible import InvertibleGenerator
from ..lifting.placement import GridPlacement
from ..lifting.relaxation import CONSTRAINT_TOLERANCE, RelaxProtocol
from ..lifting.requirements import check_exact
from ..system.molecular_system import MolecularSystem
from ..units import BoolArray, FloatArray, numbers, whole_number
from .context_modules import NO_DENSITY, Proposals, even_placement, force_modules
from .sources import low_labels
from .velocities import TRIAL_TIME

DYNAMICS = "the dynamics between attempts"

PROPOSAL_GROUP, DENSITY_GROUP = 2, 3
"""Force groups of what is proposed, and of the density of the present configuration."""

MAX_LOG_WEIGHT = 1e10
"""A log-weight beyond this, or NaN, is no weight."""

TRIALS = 64
"""Proposals, of which one at least must be possible."""


@dataclass(frozen=True)
class ContextChain:
    """Steps of a move: an attempt each, then dynamics.

    Attributes:
        positions: shape=(n, n_atoms, 3), nm, of the chain after each step.
        labels: shape=(n, d), of these.
        log_weights: shape=(n,), log w' - log p(s') of each proposal; minus infinity where it has none.
        log_weights_before: shape=(n,), log w - log p(s) of the configuration that it was compared with; minus infinity
            where that has none, and no proposal is accepted.
        accepted: shape=(n,).
        seed: of the move.
    """

    positions: FloatArray
    labels: FloatArray
    log_weights: FloatArray
    log_weights_before: FloatArray
    accepted: BoolArray
    seed: int


class InContextMove:
    """Independent proposals of a generator, accepted inside one Context; each step of its integrator is one attempt.

    Guarantee: attempts leave the Boltzmann distribution of the System exactly invariant, whatever the generator, the
    surface and the dynamics: a proposal is accepted with ``min(1, [w'/p(s')] / [w/p(s)])``, and the weight
    ``log w = -beta U + log J + 0.5 log det Z - log q(y | s)`` of the present configuration is computed anew at every
    attempt (independence Metropolis-Hastings). A configuration outside the chart, the domain of the labels or the
    declared state stays where it is; so does one whose proposal has no weight. The dynamics (Langevin, in the manner of
    OpenMM's LangevinMiddleIntegrator) have the error of their time step, and may leave the declared state.

    A proposed molecule lies where its chart puts it, its first atom at the origin and its second on the first axis:
    the potential knows no place and no orientation, which is tested, so any that does not depend on the present
    configuration is right. Velocities are drawn anew where a proposal is accepted, and keep the constraints.

    The generator's whole map, from normal numbers to positions, is one force, and its inverse with the density of the
    present configuration another; each is evaluated once an attempt, in a force group that nothing else uses. A
    step costs ``md_steps + 1`` evaluations of the real potential, one more where a proposal is accepted (of its
    velocities: `openmm_gancl.moves.velocities`), and two where nothing runs in between.

    On the Reference platform, whose Contexts share one random generator, `run` and `step` draw from a stream of the
    move's own.

    Args:
        system: one molecule, or particles in an external field.
        generator: an invertible generator for it, `gancl.learn(system).model` say.
        md_steps: of dynamics after each attempt; 0 for a chain of attempts alone.
        surface: over the labels, if one is known (that of `gancl.learn`, or a file fes.npz): labels are then proposed
            where it is low, which is accepted far more often. It need not be right.
        time_step: of the dynamics, ps; the system's own by default.
        friction: of the dynamics, 1/ps; the system's own by default.
        platform: an OpenMM platform, or ``auto`` to measure.
        backend: of the generator's forces; see `openmm_gancl.engine.torch_force.module_force`.
        seed: of OpenMM's generator, which draws everything; a fresh one by default.

    Attributes:
        seed: also in what `run` returns.
        placement: p(s).
        context: the Context, at the system's positions. Its energy is that of force group 1 alone.
        integrator: its globals ``log_weight``, ``log_weight_before``, ``accepted``, ``n_accepted`` and ``n_attempts``
            may be read.

    Raises:
        InputError: the generator does not fit the system, the System has no exact lifts, or the structure has no
            weight: its label outside the domain, or it outside the declared state.
    """

    def __init__(
        self,
        system: MolecularSystem,
        generator: InvertibleGenerator,
        *,
        md_steps: int = 100,
        surface: FreeEnergySurface | str | Path | None = None,
        time_step: float | None = None,
        friction: float | None = None,
        platform: str = "Reference",
        backend: Backend = "auto",
        seed: int | None = None,
    ):
        _check_kinds(system)
        self.seed = fresh_seed() if seed is None else seed
        if not isinstance(generator, InvertibleGenerator):
            raise InputError(
                "a move inside a Context needs the density of what is proposed, which the product generator does not "
                "know: give an invertible generator (gancl.learn, `gancl run`)"
            )
        generator.check_system(system)
        with preserve_platform_rng():
            check_exact(system, generator.chart)
        self.system, self.md_steps = system, whole_number("md_steps", md_steps, 0)
        protocol = RelaxProtocol.linear(
            1,
            system.time_step if time_step is None else time_step,
            system.friction if friction is None else friction,
            system.temperature,
        )
        self.placement = even_placement(system.slow) if surface is None else _below(surface, system)
        proposals = Proposals(generator, self.placement, system).requires_grad_(False)
        with torch_threads(1):
            _check_proposals(proposals, system)
            forces = _forces(proposals, system, backend)
        with preserve_platform_rng():
            platform = resolved_platform(platform, system.system, system.positions)
            self.integrator = _integrator(system, protocol, self.md_steps, platform)
            whole = openmm.XmlSerializer.clone(system.system)
            put_in_group(whole, REAL_GROUP)
            for force in forces:
                whole.addForce(force)
            stream = openmm_seed(named_rng(self.seed, "in-context move"))
            self.context = make_context(whole, self.integrator, platform, stream)
        self._stream = ReferenceStream(stream)
        self.context.setPositions(system.positions)
        with self._stream.drawn_from():
            self.context.setVelocitiesToTemperature(system.temperature, stream)

    @property
    def acceptance_rate(self) -> float:
        """Accepted attempts since the beginning; NaN before the first."""
        value = self.integrator.getGlobalVariableByName
        return float(value("n_accepted") / value("n_attempts")) if value("n_attempts") else float("nan")

    def step(self, n: int) -> None:
        """n times an attempt and the dynamics after it, without a record."""
        with self._stream.drawn_from(), torch_threads(1), named_failures(DYNAMICS):
            self.integrator.step(n)
        self._positions()

    def run(self, n: int) -> ContextChain:
        """The same, each recorded."""
        positions = np.empty((n, self.system.n_atoms, 3))
        log_weights, before, accepted = np.empty(n), np.empty(n), np.empty(n, dtype=bool)
        value = self.integrator.getGlobalVariableByName
        with self._stream.drawn_from(), torch_threads(1), named_failures(DYNAMICS):
            for i in range(n):
                self.integrator.step(1)
                positions[i] = self._positions()
                log_weights[i], before[i] = value("log_weight"), value("log_weight_before")
                accepted[i] = bool(value("accepted"))
        labels = self.system.slow.transform(positions)
        return ContextChain(positions, labels, _weights(log_weights), _weights(before), accepted, self.seed)

    def _positions(self) -> FloatArray:
        positions = numbers(self.context.getState(positions=True).getPositions(asNumpy=True))
        if not np.isfinite(positions).all():
            raise InputError(f"{DYNAMICS} have blown up, positions are NaN: give a shorter time_step")
        return positions


def _check_kinds(system: Any) -> None:
    if hasattr(system, "context"):
        raise InputError(
            "InContextMove has a Context and an integrator of its own and takes a system, not a Simulation: give "
            "gancl.system_from_simulation(simulation, model.slow), or use gancl.LiftMove(simulation, model)"
        )
    if not isinstance(system, MolecularSystem):
        raise InputError(f"{type(system).__name__} is no system: give gancl.load_system, or system_from_objects")


def _weights(values: FloatArray) -> FloatArray:
    return np.where(np.abs(values) < MAX_LOG_WEIGHT, values, -np.inf)


def _below(surface: FreeEnergySurface | str | Path, system: MolecularSystem) -> GridPlacement:
    found = low_labels(surface, system, smeared=False)
    return GridPlacement(found.edges, found.probabilities)


def _check_proposals(proposals: Proposals, system: MolecularSystem) -> None:
    """See that something is proposed, and that the structure has a density."""
    rng = named_rng(0, "fixed", "proposals")
    _, log_density = proposals(torch.as_tensor(rng.standard_normal((TRIALS, proposals.n_coordinates))))
    if not (log_density > NO_DENSITY).any():
        raise InputError(
            f"none of {TRIALS} proposals of the model is finite, in the chart and in the declared state: train it again"
        )
    here = torch.as_tensor(system.positions[None])
    if (proposals.log_density(here) > NO_DENSITY).item():
        return
    labels = system.slow.transform(system.positions[None])[0]
    outside = ~((labels >= system.slow.domain[:, 0]) & (labels <= system.slow.domain[:, 1]))
    if not isinstance(system.slow, Torsions) and outside.any():
        i = int(np.flatnonzero(outside)[0])
        low, high = system.slow.domain[i].tolist()
        why = f"its label {system.slow.names[i]} is {labels[i]:g}, outside its domain of {low:g} to {high:g}"
    elif violation := str(system.state.violations(system.positions[None])[0]):
        why = f"it is outside the declared state ({violation})"
    else:
        why = "the model gives it no finite density"
    raise InputError(f"the structure of {system.name} has no weight, and would never move: {why}; give another")


def _forces(proposals: Proposals, system: MolecularSystem, backend: Backend) -> list[openmm.Force]:
    found = []
    places = (np.zeros_like(system.positions), system.positions)
    for module, place, group in zip(force_modules(proposals), places, (PROPOSAL_GROUP, DENSITY_GROUP), strict=True):
        check_module(module, place, {}, with_forces=True)
        force = module_force(module, {}, backend, with_forces=True)
        force.setForceGroup(group)
        found.append(force)
    return found


def _integrator(system: MolecularSystem, protocol: RelaxProtocol, md_steps: int, platform: str) -> Any:
    integrator = openmm.CustomIntegrator(protocol.time_step)
    integrator.setConstraintTolerance(CONSTRAINT_TOLERANCE.get(PlatformChoice.read(platform).name, 1e-6))
    integrator.setIntegrationForceGroups({REAL_GROUP})
    for name in ("real_energy", "log_density", "log_density_before", "log_weight", "log_weight_before"):
        integrator.addGlobalVariable(name, 0.0)
    for name in ("accepted", "n_accepted", "n_attempts", "md_step"):
        integrator.addGlobalVariable(name, 0.0)
    integrator.addGlobalVariable("kT", system.kT)
    integrator.addGlobalVariable("md_steps", md_steps)
    kept = float(np.exp(-protocol.friction * protocol.time_step))
    integrator.addGlobalVariable("kept", kept)
    integrator.addGlobalVariable("drawn", float(np.sqrt((1.0 - kept**2) * system.kT)))
    for name in ("before", "force", "shift"):
        integrator.addPerDofVariable(name, 0.0)
    constrained = len(system.constraints) > 0
    _add_attempt(integrator, constrained)
    _add_dynamics(integrator, constrained)
    return integrator


def _add_attempt(integrator: Any, constrained: bool) -> None:
    """The weight of the present configuration, a proposal with its own, and min(1, w'/w)."""
    integrator.addComputeGlobal("real_energy", f"energy{REAL_GROUP}")
    integrator.addComputePerDof("force", f"f{REAL_GROUP}")
    integrator.addComputeGlobal("log_density_before", f"energy{DENSITY_GROUP}")
    integrator.addComputeGlobal("log_weight_before", "-real_energy/kT-log_density_before")
    integrator.addComputePerDof("before", "x")
    integrator.addComputePerDof("x", "gaussian")
    integrator.addComputeGlobal("log_density", f"energy{PROPOSAL_GROUP}")
    # in a line of its own: with x on its left the generator would be evaluated again
    integrator.addComputePerDof("shift", f"f{PROPOSAL_GROUP}")
    integrator.addComputeGlobal("log_weight", f"{-NO_DENSITY!r}")
    integrator.beginIfBlock(f"log_density > {-MAX_LOG_WEIGHT!r}")
    integrator.addComputePerDof("x", "x+shift")
    integrator.addComputeGlobal("real_energy", f"energy{REAL_GROUP}")
    integrator.addComputeGlobal("log_weight", "-real_energy/kT-log_density")
    integrator.endBlock()
    # step(NaN) is 0
    usable = f"step({MAX_LOG_WEIGHT!r}-abs(log_weight))*step({MAX_LOG_WEIGHT!r}-abs(log_weight_before))"
    integrator.addComputeGlobal("accepted", f"step(log_weight-log_weight_before-log(uniform))*{usable}")
    integrator.addComputeGlobal("n_attempts", "n_attempts+1")
    integrator.addComputeGlobal("n_accepted", "n_accepted+accepted")
    integrator.beginIfBlock("accepted = 1")
    integrator.addComputePerDof("force", f"f{REAL_GROUP}")
    integrator.addComputePerDof("v", "sqrt(kT/m)*gaussian")
    if constrained:
        # moves nothing, for a proposal keeps the constraints: projections start from the positions of the one before
        integrator.addConstrainPositions()
        integrator.addConstrainVelocities()
    integrator.beginIfBlock("md_steps > 0")
    _add_half_a_step_before(integrator)
    if constrained:
        integrator.addConstrainVelocities()
    integrator.endBlock()
    integrator.endBlock()
    integrator.beginIfBlock("accepted = 0")
    # not by a factor of zero or one, which would keep a NaN
    integrator.addComputePerDof("x", "before")
    integrator.endBlock()


def _add_half_a_step_before(integrator: Any) -> None:
    """Velocities from those that were drawn, as in `openmm_gancl.moves.velocities`; one evaluation."""
    integrator.addComputePerDof("before", "x")
    integrator.addComputePerDof("x", f"x+{TRIAL_TIME!r}*v")
    slower = f"v+0.125*dt^2*(f{REAL_GROUP}-force)/({TRIAL_TIME!r}*m)"
    integrator.addComputePerDof("v", f"{slower}-0.5*dt*force/m")
    integrator.addComputePerDof("x", "before")


def _add_dynamics(integrator: Any, constrained: bool) -> None:
    """Steps as those of LangevinMiddleIntegrator (doi 10.1021/acs.jpca.9b02771), each force evaluated once."""
    integrator.addComputeGlobal("md_step", "0")
    integrator.beginWhileBlock("md_step < md_steps")
    integrator.beginIfBlock("md_step > 0")  # the first is known from the attempt
    integrator.addComputePerDof("force", f"f{REAL_GROUP}")
    integrator.endBlock()
    integrator.addComputePerDof("v", "v+dt*force/m")
    if constrained:
        integrator.addConstrainVelocities()
    integrator.addComputePerDof("x", "x+0.5*dt*v")
    integrator.addComputePerDof("v", "kept*v+drawn*gaussian/sqrt(m)")
    integrator.addComputePerDof("x", "x+0.5*dt*v")
    if constrained:
        integrator.addComputePerDof("before", "x")
        integrator.addConstrainPositions()
        integrator.addComputePerDof("v", "v+(x-before)/dt")
    integrator.addComputeGlobal("md_step", "md_step+1")
    integrator.endBlock()
