"""openmm-gancl: exactly weighted lifting of slow coordinates to configurations, in OpenMM."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .cgan import TrainingOptions
    from .diagnostics import check_lifts, effective_sample_size
    from .diffusion_map import DiffusionMap
    from .distillation import distill
    from .encoder import fit_encoder
    from .errors import InputError
    from .features import Features, parse_features
    from .held import hold_torsions, wide_torsions
    from .in_context import ContextChain, InContextMove
    from .lift import Lifter, accept_metropolis
    from .lift_surfaces import analyse_lifts, basin_populations, surface_from_lifts
    from .lifts import Lifts
    from .model import LiftingModel, load_model
    from .model_forces import torch_force
    from .moves import LiftMove, LiftRecord, LiftReporter
    from .openmmtools_move import LiftMCMCMove
    from .sampling import Frames, sample_langevin
    from .sde import StochasticSystem, lift_sde, load_sde
    from .selection import select_coordinates
    from .simulation import system_from_simulation
    from .slow import ModuleCoordinates, ParticleCoordinates, SlowCoordinates, Torsions
    from .slow_force import coordinate_forces, make_restraint
    from .slow_learning import learn_slow_coordinates
    from .slow_plots import plot_slow
    from .slow_report import spectral_gap
    from .static_bias import metadynamics_bias, opes_bias
    from .structures import Structures, structures_at
    from .surfaces import FreeEnergySurface, load_surface
    from .swarms import Swarm, sample_swarm
    from .system import MolecularSystem, list_systems, load_system, system_from_objects
    from .training import train, untrained_model
    from .trajectory_surfaces import TrajectoryAnalysis, analyse_trajectories, surface_from_trajectories
    from .umbrella import UmbrellaWindows, read_windows
    from .windows import analyse_windows, sample_windows, window_table

__version__ = "0.1.0.dev0"

_HOME = {
    "cgan": ["TrainingOptions"],
    "diagnostics": ["check_lifts", "effective_sample_size"],
    "encoder": ["fit_encoder"],
    "errors": ["InputError"],
    "held": ["hold_torsions", "wide_torsions"],
    "lift": ["Lifter", "accept_metropolis"],
    "lifts": ["Lifts"],
    "model": ["LiftingModel", "load_model"],
    "training": ["train", "untrained_model"],
    "moves": ["LiftMove", "LiftRecord", "LiftReporter"],
    "openmmtools_move": ["LiftMCMCMove"],
    "sampling": ["Frames", "sample_langevin"],
    "sde": ["StochasticSystem", "lift_sde", "load_sde"],
    "slow": ["ModuleCoordinates", "ParticleCoordinates", "SlowCoordinates", "Torsions"],
    "diffusion_map": ["DiffusionMap"],
    "distillation": ["distill"],
    "features": ["Features", "parse_features"],
    "selection": ["select_coordinates"],
    "slow_force": ["coordinate_forces", "make_restraint"],
    "slow_learning": ["learn_slow_coordinates"],
    "slow_plots": ["plot_slow"],
    "slow_report": ["spectral_gap"],
    "lift_surfaces": ["analyse_lifts", "basin_populations", "surface_from_lifts"],
    "static_bias": ["metadynamics_bias", "opes_bias"],
    "structures": ["Structures", "structures_at"],
    "surfaces": ["FreeEnergySurface", "load_surface"],
    "swarms": ["Swarm", "sample_swarm"],
    "system": ["MolecularSystem", "list_systems", "load_system", "system_from_objects"],
    "model_forces": ["torch_force"],
    "in_context": ["ContextChain", "InContextMove"],
    "trajectory_surfaces": ["TrajectoryAnalysis", "analyse_trajectories", "surface_from_trajectories"],
    "umbrella": ["UmbrellaWindows", "read_windows"],
    "windows": ["analyse_windows", "sample_windows", "window_table"],
    "simulation": ["system_from_simulation"],
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
