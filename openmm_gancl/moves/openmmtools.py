"""The moves of `openmm_gancl.moves.lift_move` as a move of openmmtools' samplers (extra ``openmmtools``)."""

import copy
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import openmm
from openmm import app, unit

from ..engine.platform_rng import preserve_platform_rng
from ..engine.platforms import resolved_platform
from ..engine.random_numbers import fresh_seed, named_rng
from ..errors import InputError
from ..generator.invertible import InvertibleGenerator
from ..generator.model import LiftingModel, load_model
from ..generator.torsion_windows import over_torsions
from ..lifting.requirements import fitted_to, molecule_of_model, placed_atoms, why_not_exact
from ..system.molecular_system import MolecularSystem, target_of
from ..system.one_molecule import OneMolecule
from ..system.simulation import system_of_user
from ..units import IntArray
from .exchange import Exchange
from .simulation_energy import SimulationEnergy
from .sources import FORCE_CONSTANT, FRICTION, MoveOptions, MovesOrShares, source_for
from .velocities import go_to

try:
    from openmmtools.mcmc import MCMCMove
except ImportError as error:
    raise InputError(f"openmmtools cannot be imported ({error}): pip install 'openmm-gancl[openmmtools]'") from None


@dataclass(frozen=True)
class _InCache:
    """What of a Simulation there is in a sampler's cache."""

    context: Any
    integrator: Any
    system: Any


class LiftMCMCMove(MCMCMove):
    """A proposal of a model and its acceptance: the Boltzmann distribution of the thermodynamic state stays invariant.

    See `openmm_gancl.LiftMove`, also for the options. Files, not objects, are given, so that openmmtools can store the
    move and restore it.

    An attempt evaluates both configurations in the Context of the sampler's cache that serves the thermodynamic state,
    as it is then. Velocities after an accepted lift are as the integrator of that Context, the last that stepped in
    that state, has them: half a step before the positions for `LangevinDynamicsMove`
    (`openmm_gancl.moves.velocities`), as they are drawn for integrators of openmmtools' own.

    Args:
        model: a model's file.
        topology: a PDB file of the molecule, or of all molecules of which it is one.
        moves: of an invertible generator.
        relax: ``none`` or ``latent`` of an invertible generator.
        relax_steps: of each relaxation.
        force_constants: of labels during relaxations in a Context, kJ/mol (torsions) or kJ/mol/nm^2.
        surface: a surface's file, or none.
        time_step: of relaxations in a Context, ps.
        friction: of these, 1/ps.
        platform: of relaxed lifts; ``auto`` measures.
        seed: of every random number; two moves of one sequence need different ones. A fresh one by default, stored
            with the move.
        may_differ: see `openmm_gancl.LiftMove`.
        molecule: see `openmm_gancl.LiftMove`.

    Attributes:
        n_proposed: attempts.
        n_accepted: accepted ones.
    """

    def __init__(
        self,
        model: str | Path,
        topology: str | Path,
        *,
        moves: MovesOrShares = "auto",
        relax: str | None = None,
        relax_steps: int | None = None,
        force_constants: float | None = None,
        surface: str | Path | None = None,
        time_step: float | None = None,
        friction: float | None = None,
        platform: str = "auto",
        seed: int | None = None,
        may_differ: Collection[str] = (),
        molecule: int | None = None,
    ):
        super().__init__()
        self._settings: dict[str, Any] = {
            "model": str(model),
            "topology": str(topology),
            "moves": moves,
            "relax": relax,
            "relax_steps": relax_steps,
            "force_constants": force_constants,
            "surface": None if surface is None else str(surface),
            "time_step": time_step,
            "friction": friction,
            "platform": platform,
            "seed": fresh_seed() if seed is None else seed,
            "may_differ": list(may_differ),
            "molecule": molecule,
        }
        self.n_proposed = self.n_accepted = 0
        self._stream: tuple[int, ...] = ()
        self._copies = 0
        self._made_for: Any = None
        self._exchange: Exchange | None = None
        self._energy: SimulationEnergy | None = None

    @property
    def statistics(self) -> dict[str, int]:
        """What openmmtools stores with the move."""
        return {"n_proposed": self.n_proposed, "n_accepted": self.n_accepted}

    @statistics.setter
    def statistics(self, value: dict[str, int]) -> None:
        self.n_proposed, self.n_accepted = value["n_proposed"], value["n_accepted"]

    def __deepcopy__(self, memo: Any) -> "LiftMCMCMove":
        """Samplers copy a move for every replica: each copy has random numbers of its own, and the counts so far."""
        self._copies += 1
        new = LiftMCMCMove(**self._settings)
        new.statistics = self.statistics
        new._stream = (*self._stream, self._copies)
        return new

    def __getstate__(self) -> dict[str, Any]:
        return {**self._settings, **self.statistics, "stream": list(self._stream)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        more = {name: state[name] for name in ("n_proposed", "n_accepted", "stream")}
        self.__init__(**{name: value for name, value in state.items() if name not in more})  # type: ignore[misc]
        self._stream, self.statistics = tuple(more.pop("stream")), more

    def apply(self, thermodynamic_state: Any, sampler_state: Any, context_cache: Any = None) -> None:
        """One attempt; on acceptance the sampler state gets the lift's positions and fresh velocities.

        Args:
            thermodynamic_state: at constant volume, of a molecule, alone or beside others.
            sampler_state: is changed.
            context_cache: of the sampler; openmmtools' own by default.

        Raises:
            InputError: what cannot be lifted exactly, and what to use instead.
        """
        _check_volume(thermodynamic_state)
        with preserve_platform_rng():
            context, integrator = _context_of(self._get_context_cache(context_cache), thermodynamic_state)
            sampler_state.apply_to_context(context)
            here = _InCache(context, integrator, context.getSystem())
            exchange, energy = self._made(thermodynamic_state, sampler_state, here)
            positions = np.array(sampler_state.positions.value_in_unit(unit.nanometer))
            with energy.put_back(positions):
                attempt = exchange.attempt(self.n_proposed, energy.lifted(positions))
            self.n_proposed += 1
            if attempt.velocities is not None:
                go_to(here, exchange.system, energy.among, attempt.after.positions, attempt.velocities, positions)
                state = context.getState(positions=True, velocities=True)
                sampler_state.positions = state.getPositions(asNumpy=True)
                sampler_state.velocities = state.getVelocities(asNumpy=True)
                self.n_accepted += 1

    def _made(self, thermodynamic_state: Any, sampler_state: Any, here: _InCache) -> tuple[Exchange, SimulationEnergy]:
        """Proposals and energy, made anew where the System or its temperature is another."""
        then = self._made_for
        same = then is not None and then.is_state_compatible(thermodynamic_state)
        if (
            self._exchange is None
            or self._energy is None
            or not same
            or then.temperature != thermodynamic_state.temperature
        ):
            settings = self._settings
            model = load_model(settings["model"])
            model = over_torsions(model) if isinstance(model, LiftingModel) else model
            named = ("moves", "relax", "relax_steps", "surface", "force_constants", "time_step", "friction")
            options = MoveOptions(**{name: settings[name] for name in named}).checked_for(model)
            system, molecule = self._system_of(thermodynamic_state, sampler_state, model, options)
            platform = resolved_platform(settings["platform"], system.system, system.positions)
            self._energy = SimulationEnergy(here, placed_atoms(here.system, model, molecule))
            rng = named_rng(settings["seed"], "move", "pilot")
            model = fitted_to(model, system, settings["may_differ"])
            options = replace(options, platform=platform)
            positions = sampler_state.positions.value_in_unit(unit.nanometer)
            with self._energy.put_back(np.array(positions)):
                source = source_for(system, model, options, self._energy, rng, changes=True).source
            self._exchange = Exchange(source, system, settings["seed"], self._stream)
            self._made_for = copy.deepcopy(thermodynamic_state)
        self._energy.simulation = here
        return self._exchange, self._energy

    def _system_of(
        self,
        thermodynamic_state: Any,
        sampler_state: Any,
        model: LiftingModel | InvertibleGenerator,
        options: MoveOptions,
    ) -> tuple[MolecularSystem, IntArray | None]:
        topology = app.PDBFile(self._settings["topology"]).topology
        system = thermodynamic_state.get_system(remove_thermostat=True)
        molecule = molecule_of_model(topology, model, self._settings["molecule"])
        if reason := why_not_exact(system, topology, molecule):
            raise InputError(reason)
        positions = np.array(sampler_state.positions.value_in_unit(unit.nanometer))
        if molecule is not None:
            one = OneMolecule.of(topology, target_of(system), positions, int(molecule[0]))
            topology, system, positions = one.topology, one.system, one.positions
        found = system_of_user(
            topology,
            system,
            positions,
            temperature=thermodynamic_state.temperature,
            slow=model.slow,
            force_constants=FORCE_CONSTANT if options.force_constants is None else options.force_constants,
            friction=FRICTION if options.friction is None else options.friction,
            time_step=options.time_step,
            name="the thermodynamic state",
        )
        fitted_to(model, found, self._settings["may_differ"]).check_system(found)
        return found, molecule


def _context_of(cache: Any, thermodynamic_state: Any) -> tuple[Any, Any]:
    """The last Context that was used in a state, and its integrator."""
    try:
        return tuple(cache.get_context(thermodynamic_state))
    except openmm.OpenMMException:  # where there is none, openmmtools' own integrator has names of parameters
        return tuple(cache.get_context(thermodynamic_state, openmm.VerletIntegrator(0.001)))


def _check_volume(thermodynamic_state: Any) -> None:
    if thermodynamic_state.pressure is not None:
        raise InputError("the thermodynamic state has a pressure, and an exact lift needs a fixed volume: leave it out")
