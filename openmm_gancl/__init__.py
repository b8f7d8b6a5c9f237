"""openmm-gancl: exactly weighted lifting of slow coordinates to configurations, in OpenMM."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .cgan import TrainingOptions
    from .diagnostics import check_lifts, effective_sample_size
    from .encoder import fit_encoder
    from .errors import InputError
    from .lift import Lifter, accept_metropolis
    from .lifts import Lifts
    from .model import LiftingModel, load_model, train, untrained_model
    from .sampling import Frames, sample_langevin, sample_windows
    from .slow import ParticleCoordinates, SlowCoordinates, Torsions
    from .surfaces import FreeEnergySurface, basin_populations, surface_from_lifts
    from .system import MolecularSystem, list_systems, load_system, system_from_objects
    from .trajectory_surfaces import surface_from_trajectories

__version__ = "0.1.0.dev0"

_HOME = {
    "cgan": ["TrainingOptions"],
    "diagnostics": ["check_lifts", "effective_sample_size"],
    "encoder": ["fit_encoder"],
    "errors": ["InputError"],
    "lift": ["Lifter", "accept_metropolis"],
    "lifts": ["Lifts"],
    "model": ["LiftingModel", "load_model", "train", "untrained_model"],
    "sampling": ["Frames", "sample_langevin", "sample_windows"],
    "slow": ["ParticleCoordinates", "SlowCoordinates", "Torsions"],
    "surfaces": ["FreeEnergySurface", "basin_populations", "surface_from_lifts"],
    "system": ["MolecularSystem", "list_systems", "load_system", "system_from_objects"],
    "trajectory_surfaces": ["surface_from_trajectories"],
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [  # sorted by module, not by letter
    "Frames",
    "FreeEnergySurface",
    "InputError",
    "Lifter",
    "LiftingModel",
    "Lifts",
    "MolecularSystem",
    "ParticleCoordinates",
    "SlowCoordinates",
    "Torsions",
    "TrainingOptions",
    "accept_metropolis",
    "basin_populations",
    "check_lifts",
    "effective_sample_size",
    "fit_encoder",
    "list_systems",
    "load_model",
    "load_system",
    "sample_langevin",
    "sample_windows",
    "surface_from_lifts",
    "surface_from_trajectories",
    "system_from_objects",
    "train",
    "untrained_model",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'openmm_gancl' has no attribute {name!r}")
    return getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)
