"""Lifts of a generator with a density: exactly at their labels, drawn, or relaxed in base numbers too."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..engine.platforms import PlatformChoice
from ..engine.random_numbers import named_rng
from ..engine.tasks import Workers
from ..generator.invertible import InvertibleGenerator
from ..sampling.own_frames import hydrogens_in_order
from ..system.molecular_system import MolecularSystem
from ..units import FloatArray
from .draws import Draws
from .latent_relaxation import LatentMoves, lift_latent, relax_back
from .lifts import Lifts
from .mean_forces import slopes_of


def on_device_of(model: Any, platform: str) -> Any:
    """A model of any kind on the graphics card of a platform, where torch can use it."""
    import torch

    choice = PlatformChoice.read(platform)
    if choice.name != "CUDA" or not torch.cuda.is_available():
        return model
    device = int(choice.devices[0]) if choice.devices else 0
    # an executor's workers may have more devices than this machine
    return model.on(f"cuda:{device}") if device < torch.cuda.device_count() else model


@dataclass(frozen=True)
class FixedLifter:
    """Draws lifts whose labels stay as they are.

    Attributes:
        system: the real system.
        generator: of the draws.
        platform: an OpenMM platform.
        workers: local processes, or an executor.
    """

    system: MolecularSystem
    generator: InvertibleGenerator
    platform: str
    workers: Workers

    def lift(
        self, labels: FloatArray, moves: LatentMoves, *, seed: int, progress: Callable[[int], None] | None = None
    ) -> Lifts:
        """One lift of each label.

        Args:
            labels: shape=(n, d).
            moves: of base numbers; none leave the draws as they are.
            seed: of all random numbers.
            progress: called with the number of evaluations made, as they are made.
        """
        draws = lift_latent(
            self.system,
            on_device_of(self.generator, self.platform),
            labels,
            named_rng(seed, "lift", "fixed"),
            moves,
            platform=self.platform,
            workers=self.workers,
            progress=progress,
        )
        return self._lifts(draws, moves)

    def reverse(
        self, positions: FloatArray, moves: LatentMoves, *, seed: int, progress: Callable[[int], None] | None = None
    ) -> Lifts:
        """The way back from real frames, each at the label that it has.

        Args:
            positions: shape=(n, n_atoms, 3), nm, inside the state.
            moves: those of the lifts.
            seed: of all random numbers.
            progress: called with the number of evaluations made, as they are made.
        """
        ordered, _ = hydrogens_in_order(self.system, positions)
        coordinates = self.generator.chart.to_internal(ordered)
        draws = relax_back(
            self.system,
            on_device_of(self.generator, self.platform),
            coordinates,
            named_rng(seed, "reverse", "fixed"),
            moves,
            platform=self.platform,
            workers=self.workers,
            progress=progress,
        )
        return replace(self._lifts(draws, moves), positions=ordered)

    def _lifts(self, draws: Draws, moves: LatentMoves) -> Lifts:
        system, chart, n = self.system, self.generator.chart, len(draws)
        ok, d = np.isfinite(draws.log_weights), len(system.slow.names)
        positions = np.full((n, system.n_atoms, 3), np.nan)
        positions[ok] = chart.to_cartesian(draws.coordinates[ok])
        energies = np.full(n, np.nan)
        of_volume = chart.log_jacobian(draws.coordinates[ok])
        of_volume = of_volume + system.constraints.log_fixman(positions[ok], system.masses)
        energies[ok] = system.kT * (of_volume - draws.log_target[ok])
        with np.errstate(invalid="ignore"):
            work = -system.kT * draws.log_weights
        none = np.zeros(n)
        return Lifts(
            labels=draws.labels,
            cv_values=np.where(ok[:, None], draws.labels, np.nan),
            log_weights=np.where(ok, draws.log_weights, -np.inf),
            log_prior=none,
            log_encoder=none,
            log_encoder_label=none,
            work=work,
            reason=draws.reason,
            task=np.arange(n),
            latents=np.empty((n, 0)),
            positions=positions,
            energies=energies,
            mean_forces=slopes_of(self.generator, draws)[:, :d],
            evaluations=draws.evaluations,
            slow=system.slow,
            force_constants=np.zeros(d),
            mode="fixed",
            temperature=system.temperature,
            relax_steps=moves.n,
            system=system,
        )
