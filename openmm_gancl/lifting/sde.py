"""Fast-slow stochastic differential equations: dynamics in OpenMM, closures in closed form, lifts without a weight.

An equation has no energy, hence no Boltzmann weight to accept with: a lift relaxes by integrating the fast
variables with the slow ones frozen (as E, Liu, Vanden-Eijnden 2005 average, doi 10.1002/cpa.20088), and is exact only
in the limit of a long relaxation and a small step.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import openmm
from openmm import app

from ..coordinates.slow_coordinates import ParticleCoordinates, checked_labels
from ..engine.platforms import make_context
from ..engine.random_numbers import named_rng, named_seed, openmm_seed
from ..errors import InputError, checked, first_line
from ..system.card import EXPRESSION_NAME, SDECard, read_card
from ..system.library import card_path
from ..system.molecular_system import MolecularSystem, system_from_objects
from ..units import GAS_CONSTANT, FloatArray, numbers

if TYPE_CHECKING:
    from ..generator.model import LiftingModel

PLATFORM = "Reference"
"""Double precision in one thread: a frozen variable keeps its last bit, and a seed its numbers."""

_COMPONENTS = ("_x(x)", "_y(x)", "_z(x)")


def _vector(expressions: list[str]) -> str:
    return f"vector({', '.join([*expressions, '0', '0'][:3])})"


def _context(integrator: Any, states: FloatArray, seed: int) -> Any:
    """A Context in which each row of states, shape=(n, n_variables), is a particle."""
    system = openmm.System()
    for _ in states:
        system.addParticle(1.0)
    context = make_context(system, integrator, PLATFORM, seed)
    context.setPositions(np.pad(states, ((0, 0), (0, 3 - states.shape[1]))))
    return context


def _positions(context: Any) -> FloatArray:
    return numbers(context.getState(positions=True).getPositions(asNumpy=True))


@dataclass(frozen=True, eq=False)
class StochasticSystem:
    """Ito's equations of at most three variables, ``dx_i = drift_i(x) dt + noise_i(x) dW_i``, some of them slow.

    Integrated by Euler and Maruyama's scheme inside OpenMM, each copy a particle, each variable one of its Cartesian
    components. The scheme takes any drift and noise; its price is a bias of first order in the step: the stationary
    variance of a linear relaxation in time tau is too large by the factor ``1 / (1 - time_step / (2 tau))``, half a
    percent at ``time_step = tau / 100``. States, times and rates are in the equations' own units.

    Args:
        name: as in the card.
        variables: at most three names.
        slow: the labels, components of a particle in OpenMM's sense.
        drift: by variable, expressions in OpenMM's syntax.
        noise: by variable, expressions in OpenMM's syntax.
        observed: by name, expressions of what is seen of a state.
        closures: by name in ``observed``, its exact mean given the slow variables; empty if unknown.
        parameters: numbers in the expressions.
        start: shape=(n_variables,).
        time_step: of the integration, at most.
        relaxation_time: of the slowest of the fast variables.
        card: the validated card, JSON-ready; empty if there is none.
    """

    name: str
    variables: tuple[str, ...]
    slow: ParticleCoordinates
    drift: dict[str, str]
    noise: dict[str, str]
    observed: dict[str, str]
    closures: dict[str, str]
    parameters: dict[str, float]
    start: FloatArray
    time_step: float
    relaxation_time: float
    card: dict[str, Any] = field(default_factory=dict)

    def observe(self, states: FloatArray) -> FloatArray:
        """What is seen of states, shape=(n, n_variables): shape=(n, n_observed), in the order of ``observed``."""
        return self._evaluate(list(self.observed.values()), self._checked(states))

    def exact_closures(self, labels: FloatArray) -> FloatArray:
        """The mean of what is seen given labels, shape=(n, d), in closed form: shape=(n, n_observed).

        Raises:
            InputError: the card has no closures, or a label is outside the domain.
        """
        if not self.closures:
            raise InputError(f"{self.name} has no exact closures: write them in its card as sde.closures")
        labels = checked_labels(labels, self.slow)
        states = self._with_labels(np.tile(self.start, (len(labels), 1)), labels)
        return self._evaluate([self.closures[name] for name in self.observed], states)

    def simulate(self, n_frames: int, interval: float, *, seed: int, states: FloatArray | None = None) -> FloatArray:
        """A trajectory of independent copies, every variable moving.

        Args:
            n_frames: frames to return.
            interval: time before the first and between two of them.
            seed: the same seed gives the same bytes.
            states: shape=(n_copies, n_variables), where they begin; one copy at ``start`` by default.

        Returns:
            shape=(n_frames, n_copies, n_variables).

        Raises:
            InputError: states of another shape or not finite, or the copies run away.
        """
        begin = self.start[None] if states is None else self._checked(states)
        return self._integrate(begin, n_frames, interval, seed, frozen=())

    def relax_frozen(self, states: FloatArray, time: float, *, seed: int) -> FloatArray:
        """Let the fast variables relax for a time, the slow ones unchanged to the last bit.

        Args:
            states: shape=(n, n_variables).
            time: zero or more.
            seed: the same seed gives the same bytes.

        Returns:
            shape=(n, n_variables).

        Raises:
            InputError: as `simulate` does.
        """
        states = self._checked(states)
        if time == 0:
            return states.copy()
        return self._integrate(states, 1, time, seed, frozen=self.slow.names)[0]

    def bursts(self, states: FloatArray, n_burst: int, time: float, *, seed: int) -> FloatArray:
        """Covariances of what is seen after many short runs from each state, divided by their time.

        In the limit of a short time it is ``J diag(noise^2) J^T``, J the derivative of what is seen: the local noise
        that a Mahalanobis metric divides out (Dsilva, Talmon, Gear, Coifman, Kevrekidis 2016, arXiv 1501.05195).

        Args:
            states: shape=(n, n_variables).
            n_burst: runs from each state.
            time: of one run; short against the curvature of what is seen, not only against the relaxation.
            seed: the same seed gives the same bytes.

        Returns:
            shape=(n, n_observed, n_observed), for ``DiffusionMap.fit(covariances=...)``.

        Raises:
            InputError: fewer than two runs, and as `simulate` does.
        """
        if n_burst < 2:
            raise InputError(f"a covariance of {n_burst} run(s): give at least 2, better some hundred")
        states = self._checked(states)
        ends = self._integrate(np.repeat(states, n_burst, axis=0), 1, time, seed, frozen=())[0]
        seen = self.observe(ends).reshape(len(states), n_burst, len(self.observed))
        seen -= seen.mean(axis=1, keepdims=True)
        return np.asarray(np.einsum("nba,nbc->nac", seen, seen) / ((n_burst - 1) * time))

    def as_molecular(self) -> MolecularSystem:
        """One particle without forces, its components the variables and kT = 1: what a generator is trained for.

        Its positions are states with a middle axis, zeros in unused components: see `to_positions`.
        """
        topology = app.Topology()
        topology.addAtom("X", None, topology.addResidue("SDE", topology.addChain()))
        system = openmm.System()
        system.addParticle(1.0)
        return system_from_objects(
            topology,
            system,
            self.to_positions(self.start[None])[0],
            temperature=1.0 / GAS_CONSTANT,
            slow=self.slow,
            force_constants=1.0,
            time_step=self.time_step,
            name=self.name,
        )

    def to_positions(self, states: FloatArray) -> FloatArray:
        """States, shape=(n, n_variables), as positions of `as_molecular`, shape=(n, 1, 3)."""
        states = self._checked(states)
        return np.pad(states, ((0, 0), (0, 3 - states.shape[1])))[:, None]

    def _with_labels(self, states: FloatArray, labels: FloatArray) -> FloatArray:
        states = states.copy()
        states[:, self.slow.components[:, 1]] = labels
        return states

    def _checked(self, states: FloatArray) -> FloatArray:
        states = np.asarray(states, dtype=float)
        if states.ndim != 2 or states.shape[1] != len(self.variables):
            raise InputError(
                f"states have shape {states.shape}, but {self.name} has {len(self.variables)} variables "
                f"({', '.join(self.variables)}): give one row of them a state"
            )
        if not np.isfinite(states).all():
            raise InputError("states hold NaN or infinity: remove those rows")
        return states

    def _compiled(self, expression: str) -> str:
        """The expression with numbers for parameters and components of OpenMM's position for variables."""
        meaning = dict(zip(self.variables, _COMPONENTS, strict=False))
        meaning |= {name: f"({value!r})" for name, value in self.parameters.items()}
        return EXPRESSION_NAME.sub(lambda match: meaning[match[0]], expression)

    def _evaluate(self, expressions: list[str], states: FloatArray) -> FloatArray:
        columns = []
        for first in range(0, len(expressions), 3):
            part = [self._compiled(expression) for expression in expressions[first : first + 3]]
            integrator = openmm.CustomIntegrator(1.0)
            integrator.addComputePerDof("x", _vector(part))
            context = _context(integrator, states, seed=1)
            integrator.step(1)
            columns.append(_positions(context)[:, : len(part)])
        return np.concatenate(columns, axis=1)

    def _integrate(
        self, states: FloatArray, n_frames: int, interval: float, seed: int, frozen: tuple[str, ...]
    ) -> FloatArray:
        if not (np.isfinite(interval) and interval > 0):
            raise InputError(f"the time of integration is {interval:g}: give a positive one")
        if n_frames < 1:
            raise InputError(f"{n_frames} frames are requested: give a positive number")
        n_steps = max(1, math.ceil(interval / self.time_step - 1e-9))
        drift, noise = (
            _vector(["0" if name in frozen else self._compiled(terms[name]) for name in self.variables])
            for terms in (self.drift, self.noise)
        )
        integrator = openmm.CustomIntegrator(interval / n_steps)
        integrator.addComputePerDof("x", f"x + dt*{drift} + sqrt(dt)*{noise}*gaussian")
        context = _context(integrator, states, openmm_seed(named_rng(seed, "sde")))
        frames = np.empty((n_frames, *states.shape))
        for i in range(n_frames):
            integrator.step(n_steps)
            frames[i] = _positions(context)[:, : states.shape[1]]
        if not np.isfinite(frames).all():
            raise InputError(f"the states of {self.name} run away to infinity: give its card a smaller sde.time_step")
        return frames


def _check_expressions(sde: StochasticSystem) -> None:
    for key in ("drift", "noise", "observed", "closures"):
        for name, expression in getattr(sde, key).items():
            try:
                value = sde._evaluate([expression], sde.start[None])
            except openmm.OpenMMException as error:
                reason = first_line(error).rstrip(".")
                raise InputError(f"key 'sde.{key}.{name}': OpenMM refuses the expression ({reason})") from None
            if not np.isfinite(value).all():
                raise InputError(f"key 'sde.{key}.{name}': not finite at 'sde.start': move the start")


@checked
def load_sde(name_or_path: str | Path) -> StochasticSystem:
    """A shipped stochastic differential equation by its name, or any card with a table 'sde' by its path.

    Args:
        name_or_path: as for `openmm_gancl.system.library.load_system`.

    Raises:
        InputError: one sentence that names the file, the key and the remedy.
    """
    path = card_path(name_or_path)
    card = read_card(path)
    if not isinstance(card, SDECard):
        raise InputError(f"{path}: no stochastic differential equation (no table 'sde'): use openmm_gancl.load_system")
    table = card.sde
    sde = StochasticSystem(
        name=card.name,
        variables=tuple(table.variables),
        slow=ParticleCoordinates(
            tuple(table.slow),
            np.array([[0, table.variables.index(name)] for name in table.slow]),
            np.array([table.domain[name] for name in table.slow], dtype=float),
        ),
        drift=table.drift,
        noise=table.noise,
        observed=table.observed,
        closures=table.closures,
        parameters=table.parameters,
        start=np.array([table.start[name] for name in table.variables]),
        time_step=table.time_step,
        relaxation_time=table.relaxation_time,
        card=card.model_dump(mode="json"),
    )
    try:
        _check_expressions(sde)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return sde


@dataclass(frozen=True, eq=False)
class StochasticLifts:
    """Lifts of an equation; they have no weight.

    Attributes:
        labels: shape=(n, d), kept exactly.
        states: shape=(n, n_variables), relaxed.
        observed: shape=(n, n_observed), what is seen of them.
    """

    labels: FloatArray
    states: FloatArray
    observed: FloatArray


@checked
def lift_sde(
    sde: StochasticSystem, model: "LiftingModel", labels: FloatArray, relaxation_times: float, *, seed: int
) -> StochasticLifts:
    """One lift of each label: a proposal of the generator, then the fast variables alone for some relaxation times.

    Guarantee: none at a finite time, for there is no energy and hence no weight that would correct the generator. The
    error of an average falls to that of the integrator as ``exp(-relaxation_times)`` times what the proposals miss,
    to that of the sampling as ``1 / sqrt(n)``. Compare two relaxation times before you believe one.

    Args:
        sde: the equation.
        model: trained, or untrained, for ``sde.as_molecular()``.
        labels: shape=(n, d); repeat a label for several lifts of it.
        relaxation_times: how long, in units of the equation's relaxation time; zero returns the proposals.
        seed: the same seed gives the same bytes.

    Raises:
        InputError: a model of something else, labels outside the domain, a negative time, or proposals that run away.
    """
    from .proposals import propose

    if not (np.isfinite(relaxation_times) and relaxation_times >= 0):
        raise InputError(f"relaxation_times is {relaxation_times:g}: give zero or a positive number")
    particle = sde.as_molecular()
    model.check_system(particle)
    labels = checked_labels(labels, sde.slow)
    rng = named_rng(seed, "sde", "lift")
    coordinates = propose(model, labels, particle.force_constants, particle.kT, rng).coordinates
    states = sde._with_labels(coordinates[:, : len(sde.variables)], labels)
    states = sde.relax_frozen(
        states, relaxation_times * sde.relaxation_time, seed=named_seed(seed, "sde", "relaxation")
    )
    return StochasticLifts(labels, states, sde.observe(states))
