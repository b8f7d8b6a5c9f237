"""openmm-gancl: exactly weighted lifting of slow coordinates to configurations, in OpenMM."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .coordinates.features import Features, parse_features
    from .coordinates.slow_coordinates import ModuleCoordinates, ParticleCoordinates, SlowCoordinates, Torsions
    from .engine.restraint_forces import coordinate_forces, make_restraint
    from .errors import InputError
    from .free_energy.from_trajectories import TrajectoryAnalysis, analyse_trajectories, surface_from_trajectories
    from .free_energy.from_windows import analyse_windows, window_table
    from .free_energy.surface import FreeEnergySurface, load_surface
    from .free_energy.weight_statistics import effective_sample_size
    from .generator.forces import torch_force
    from .generator.model import LiftingModel, load_model
    from .generator.torsion_windows import hold_torsions, wide_torsions
    from .generator.training import train, untrained_model
    from .generator.wgan_gp import TrainingOptions
    from .learning.diffusion_map import DiffusionMap
    from .learning.distillation import distill
    from .learning.learned_labels import learn_slow_coordinates
    from .learning.plots import plot_slow
    from .learning.spectrum import select_coordinates, spectral_gap
    from .lifting.encoder import fit_encoder
    from .lifting.lifter import Lifter
    from .lifting.lifts import Lifts
    from .lifting.reverse_check import check_lifts
    from .lifting.sde import StochasticSystem, lift_sde, load_sde
    from .lifting.structures import Structures, structures_at
    from .lifting.surface import analyse_lifts, basin_populations, surface_from_lifts
    from .lifting.weights import accept_metropolis
    from .moves.context_move import ContextChain, InContextMove
    from .moves.lift_move import LiftMove, LiftRecord, LiftReporter
    from .moves.openmmtools import LiftMCMCMove
    from .sampling.frames import Frames
    from .sampling.langevin import sample_langevin
    from .sampling.swarms import Swarm, sample_swarm
    from .sampling.windows import sample_windows
    from .system.library import list_systems, load_system
    from .system.molecular_system import MolecularSystem, system_from_objects
    from .system.simulation import system_from_simulation
    from .trajectories.static_bias import metadynamics_bias, opes_bias
    from .trajectories.umbrella import UmbrellaWindows, read_windows

__version__ = "0.1.0.dev0"

_HOME = {
    "errors": ["InputError"],
    "coordinates.features": ["Features", "parse_features"],
    "coordinates.slow_coordinates": ["ModuleCoordinates", "ParticleCoordinates", "SlowCoordinates", "Torsions"],
    "trajectories.static_bias": ["metadynamics_bias", "opes_bias"],
    "trajectories.umbrella": ["UmbrellaWindows", "read_windows"],
    "engine.restraint_forces": ["coordinate_forces", "make_restraint"],
    "system.library": ["list_systems", "load_system"],
    "system.molecular_system": ["MolecularSystem", "system_from_objects"],
    "system.simulation": ["system_from_simulation"],
    "sampling.frames": ["Frames"],
    "sampling.langevin": ["sample_langevin"],
    "sampling.swarms": ["Swarm", "sample_swarm"],
    "sampling.windows": ["sample_windows"],
    "free_energy.from_trajectories": ["TrajectoryAnalysis", "analyse_trajectories", "surface_from_trajectories"],
    "free_energy.from_windows": ["analyse_windows", "window_table"],
    "free_energy.surface": ["FreeEnergySurface", "load_surface"],
    "free_energy.weight_statistics": ["effective_sample_size"],
    "generator.forces": ["torch_force"],
    "generator.model": ["LiftingModel", "load_model"],
    "generator.torsion_windows": ["hold_torsions", "wide_torsions"],
    "generator.training": ["train", "untrained_model"],
    "generator.wgan_gp": ["TrainingOptions"],
    "learning.diffusion_map": ["DiffusionMap"],
    "learning.distillation": ["distill"],
    "learning.learned_labels": ["learn_slow_coordinates"],
    "learning.plots": ["plot_slow"],
    "learning.spectrum": ["select_coordinates", "spectral_gap"],
    "lifting.encoder": ["fit_encoder"],
    "lifting.lifter": ["Lifter"],
    "lifting.lifts": ["Lifts"],
    "lifting.reverse_check": ["check_lifts"],
    "lifting.sde": ["StochasticSystem", "lift_sde", "load_sde"],
    "lifting.structures": ["Structures", "structures_at"],
    "lifting.surface": ["analyse_lifts", "basin_populations", "surface_from_lifts"],
    "lifting.weights": ["accept_metropolis"],
    "moves.context_move": ["ContextChain", "InContextMove"],
    "moves.lift_move": ["LiftMove", "LiftRecord", "LiftReporter"],
    "moves.openmmtools": ["LiftMCMCMove"],
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [  # sorted by module, not by letter
    "ContextChain",
    "DiffusionMap",
    "Features",
    "Frames",
    "FreeEnergySurface",
    "InContextMove",
    "InputError",
    "LiftMCMCMove",
    "LiftMove",
    "LiftRecord",
    "LiftReporter",
    "Lifter",
    "LiftingModel",
    "Lifts",
    "ModuleCoordinates",
    "MolecularSystem",
    "ParticleCoordinates",
    "SlowCoordinates",
    "StochasticSystem",
    "Structures",
    "Swarm",
    "Torsions",
    "TrainingOptions",
    "TrajectoryAnalysis",
    "UmbrellaWindows",
    "accept_metropolis",
    "analyse_lifts",
    "analyse_trajectories",
    "analyse_windows",
    "basin_populations",
    "check_lifts",
    "coordinate_forces",
    "distill",
    "effective_sample_size",
    "fit_encoder",
    "hold_torsions",
    "learn_slow_coordinates",
    "lift_sde",
    "list_systems",
    "load_model",
    "load_sde",
    "load_surface",
    "load_system",
    "make_restraint",
    "metadynamics_bias",
    "opes_bias",
    "parse_features",
    "plot_slow",
    "read_windows",
    "sample_langevin",
    "sample_swarm",
    "sample_windows",
    "select_coordinates",
    "spectral_gap",
    "structures_at",
    "surface_from_lifts",
    "surface_from_trajectories",
    "system_from_objects",
    "system_from_simulation",
    "torch_force",
    "train",
    "untrained_model",
    "wide_torsions",
    "window_table",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'openmm_gancl' has no attribute {name!r}")
    return getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
