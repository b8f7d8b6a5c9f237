"""The exchange of `openmm_gancl.moves.lift_move` as a move of openmmtools' samplers (extra ``openmmtools``)."""

from pathlib import Path
from typing import Any

import numpy as np
from openmm import app, unit

from ..engine.platform_rng import preserve_platform_rng
from ..errors import InputError
from ..generator.model import load_lifting_model
from ..lifting.lifter import Lifter
from ..lifting.requirements import why_not_exact
from ..system.molecular_system import MolecularSystem
from ..system.simulation import system_of_user
from .exchange import LiftSource, labels_of

try:
    from openmmtools.mcmc import MCMCMove
except ImportError as error:
    raise InputError(f"openmmtools cannot be imported ({error}): pip install 'openmm-gancl[openmmtools]'") from None


class LiftMCMCMove(MCMCMove):
    """An exchange with a fresh lift: the Boltzmann distribution of the thermodynamic state stays invariant.

    Nilmeier et al. 2011, doi 10.1073/pnas.1106094108; see `openmm_gancl.LiftMove`. Files, not objects, are given, so
    that openmmtools can store the move and restore it.

    Args:
        model: a lifting model's file.
        topology: a PDB file of the molecule.
        relax_steps: of each relaxation.
        force_constants: of labels during relaxations, kJ/mol (torsions) or kJ/mol/nm^2.
        surface: a surface's file, or none; see `openmm_gancl.LiftMove`.
        time_step: of the relaxation, ps; 0.002 by default, 0.001 where light particles are without constraints.
        friction: of the relaxation, 1/ps.
        platform: of the lifts; ``auto`` measures.
        seed: of every random number; two moves of one sequence need different ones.

    Attributes:
        n_proposed: attempts.
        n_accepted: accepted ones.
    """

    def __init__(
        self,
        model: str | Path,
        topology: str | Path,
        *,
        relax_steps: int = 500,
        force_constants: float = 200.0,
        surface: str | Path | None = None,
        time_step: float | None = None,
        friction: float = 1.0,
        platform: str = "auto",
        seed: int = 0,
    ):
        super().__init__()
        self._settings: dict[str, Any] = {
            "model": str(model),
            "topology": str(topology),
            "relax_steps": relax_steps,
            "force_constants": force_constants,
            "surface": None if surface is None else str(surface),
            "time_step": time_step,
            "friction": friction,
            "platform": platform,
            "seed": seed,
        }
        self.n_proposed = self.n_accepted = 0
        self._stream: tuple[int, ...] = ()
        self._copies = 0
        self._made_for: Any = None
        self._source: LiftSource | None = None

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
            attempt = self._source_of(thermodynamic_state, sampler_state).exchange(self.n_proposed, positions)
        self.n_proposed += 1
        if attempt.velocities is not None:
            sampler_state.positions = attempt.lift.positions[0] * unit.nanometer
            sampler_state.velocities = attempt.velocities * unit.nanometer / unit.picosecond
            self.n_accepted += 1

    def _source_of(self, thermodynamic_state: Any, sampler_state: Any) -> LiftSource:
        state = thermodynamic_state.__getstate__()
        if self._source is None or state != self._made_for:
            system = self._system_of(thermodynamic_state, sampler_state)
            settings = self._settings
            lifter = Lifter(
                system,
                load_lifting_model(settings["model"]),
                relax_steps=settings["relax_steps"],
                mode="unrestrained",
                label_proposal=labels_of(settings["surface"], system),
                platform=settings["platform"],
            )
            self._source, self._made_for = LiftSource(lifter, settings["seed"], self._stream), state
        return self._source

    def _system_of(self, thermodynamic_state: Any, sampler_state: Any) -> MolecularSystem:
        if thermodynamic_state.pressure is not None:
            raise InputError(
                "the thermodynamic state has a pressure, and an exact lift needs a fixed volume: leave it out"
            )
        topology = app.PDBFile(self._settings["topology"]).topology
        system = thermodynamic_state.get_system(remove_thermostat=True)
        if reason := why_not_exact(system, topology):
            raise InputError(reason)
        return system_of_user(
            topology,
            system,
            sampler_state.positions,
            temperature=thermodynamic_state.temperature,
            slow=load_lifting_model(self._settings["model"]).slow,
            force_constants=self._settings["force_constants"],
            friction=self._settings["friction"],
            time_step=self._settings["time_step"],
            name="the thermodynamic state",
        )
