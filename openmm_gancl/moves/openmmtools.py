"""The moves of `openmm_gancl.moves.lift_move` as a move of openmmtools' samplers (extra ``openmmtools``)."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import openmm
from openmm import app, unit

from ..engine.platform_rng import preserve_platform_rng
from ..engine.platforms import PotentialEnergy, resolved_platform
from ..engine.random_numbers import fresh_seed, named_rng
from ..errors import InputError
from ..generator.invertible import InvertibleGenerator
from ..generator.model import LiftingModel, load_model
from ..generator.torsion_windows import over_torsions
from ..lifting.requirements import fitted_to, why_not_exact
from ..system.molecular_system import MolecularSystem
from ..system.simulation import system_of_user
from ..units import FloatArray
from .exchange import Exchange
from .sources import FORCE_CONSTANT, FRICTION, MoveOptions, MovesOrShares, source_for

try:
    from openmmtools.mcmc import MCMCMove
except ImportError as error:
    raise InputError(f"openmmtools cannot be imported ({error}): pip install 'openmm-gancl[openmmtools]'") from None


class _SafeEnergy:
    """U in a Context of its own; NaN where OpenMM fails."""

    def __init__(self, system: openmm.System, platform: str):
        self._energy = PotentialEnergy(system, platform)

    def __call__(self, positions: FloatArray) -> float:
        try:
            return self._energy(positions)
        except openmm.OpenMMException:
            return float("nan")


class LiftMCMCMove(MCMCMove):
    """A proposal of a model and its acceptance: the Boltzmann distribution of the thermodynamic state stays invariant.

    See `openmm_gancl.LiftMove`, also for the options. Files, not objects, are given, so that openmmtools can store the
    move and restore it.

    Args:
        model: a model's file.
        topology: a PDB file of the molecule.
        moves: of an invertible generator.
        relax: ``none`` or ``latent`` of an invertible generator.
        relax_steps: of each relaxation.
        force_constants: of labels during relaxations in a Context, kJ/mol (torsions) or kJ/mol/nm^2.
        surface: a surface's file, or none.
        time_step: of relaxations in a Context, ps.
        friction: of these, 1/ps.
        platform: of a Context of its own, where everything is evaluated; ``auto`` measures.
        seed: of every random number; two moves of one sequence need different ones. A fresh one by default, stored
            with the move.
        may_differ: see `openmm_gancl.LiftMove`.

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
        }
        self.n_proposed = self.n_accepted = 0
        self._stream: tuple[int, ...] = ()
        self._copies = 0
        self._made_for: Any = None
        self._exchange: Exchange | None = None

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
            thermodynamic_state: at constant volume, of one molecule.
            sampler_state: is changed.
            context_cache: is not used: lifts have a Context of their own.

        Raises:
            InputError: what cannot be lifted exactly, and what to use instead.
        """
        positions = np.array(sampler_state.positions.value_in_unit(unit.nanometer))
        with preserve_platform_rng():
            attempt = self._exchange_of(thermodynamic_state, sampler_state).attempt(self.n_proposed, positions)
        self.n_proposed += 1
        if attempt.velocities is not None:
            sampler_state.positions = attempt.after.positions * unit.nanometer
            sampler_state.velocities = attempt.velocities * unit.nanometer / unit.picosecond
            self.n_accepted += 1

    def _exchange_of(self, thermodynamic_state: Any, sampler_state: Any) -> Exchange:
        state = thermodynamic_state.__getstate__()
        if self._exchange is None or state != self._made_for:
            settings = self._settings
            model = load_model(settings["model"])
            model = over_torsions(model) if isinstance(model, LiftingModel) else model
            named = ("moves", "relax", "relax_steps", "surface", "force_constants", "time_step", "friction")
            options = MoveOptions(**{name: settings[name] for name in named}).checked_for(model)
            system = self._system_of(thermodynamic_state, sampler_state, model, options)
            platform = resolved_platform(settings["platform"], system.system, system.positions)
            energy = _SafeEnergy(system.system, platform)
            rng = named_rng(settings["seed"], "move", "pilot")
            model = fitted_to(model, system, settings["may_differ"])
            source = source_for(system, model, replace(options, platform=platform), energy, rng).source
            self._exchange, self._made_for = Exchange(source, system, settings["seed"], self._stream), state
        return self._exchange

    def _system_of(
        self,
        thermodynamic_state: Any,
        sampler_state: Any,
        model: LiftingModel | InvertibleGenerator,
        options: MoveOptions,
    ) -> MolecularSystem:
        if thermodynamic_state.pressure is not None:
            raise InputError(
                "the thermodynamic state has a pressure, and an exact lift needs a fixed volume: leave it out"
            )
        topology = app.PDBFile(self._settings["topology"]).topology
        system = thermodynamic_state.get_system(remove_thermostat=True)
        if reason := why_not_exact(system, topology):
            raise InputError(reason)
        found = system_of_user(
            topology,
            system,
            sampler_state.positions,
            temperature=thermodynamic_state.temperature,
            slow=model.slow,
            force_constants=FORCE_CONSTANT if options.force_constants is None else options.force_constants,
            friction=FRICTION if options.friction is None else options.friction,
            time_step=options.time_step,
            name="the thermodynamic state",
        )
        fitted_to(model, found, self._settings["may_differ"]).check_system(found)
        return found
