"""openmm-gancl: exactly weighted lifting of slow coordinates to configurations, in OpenMM."""

from . import coordinates as coordinates
from . import engine as engine
from . import free_energy as free_energy
from . import generator as generator
from . import learning as learning
from . import lifting as lifting
from . import moves as moves
from . import reference as reference
from . import sampling as sampling
from . import system as system
from . import trajectories as trajectories
from . import workflow as workflow
from .coordinates.basin import Basin as Basin
from .coordinates.slow_coordinates import ModuleCoordinates as ModuleCoordinates
from .coordinates.slow_coordinates import ParticleCoordinates as ParticleCoordinates
from .coordinates.slow_coordinates import Torsions as Torsions
from .errors import InputError as InputError
from .free_energy.from_trajectories import analyse_trajectories as analyse_trajectories
from .free_energy.from_trajectories import surface_from_trajectories as surface_from_trajectories
from .free_energy.from_windows import analyse_windows as analyse_windows
from .free_energy.plots import plot_surface as plot_surface
from .free_energy.surface import FreeEnergySurface as FreeEnergySurface
from .free_energy.surface import load_surface as load_surface
from .generator.forces import torch_force as torch_force
from .generator.model import LiftingModel as LiftingModel
from .generator.model import load_model as load_model
from .generator.training import train as train
from .generator.wgan_gp import TrainingOptions as TrainingOptions
from .learning.diffusion_map import DiffusionMap as DiffusionMap
from .learning.learned_labels import learn_slow_coordinates as learn_slow_coordinates
from .lifting.lifter import Lifter as Lifter
from .lifting.lifts import Lifts as Lifts
from .lifting.structures import structures_at as structures_at
from .lifting.surface import surface_from_lifts as surface_from_lifts
from .moves.lift_move import LiftMove as LiftMove
from .moves.lift_move import LiftReporter as LiftReporter
from .sampling.labels import grid_labels as grid_labels
from .sampling.windows import sample_windows as sample_windows
from .system.library import list_systems as list_systems
from .system.library import load_system as load_system
from .system.molecular_system import MolecularSystem as MolecularSystem
from .system.molecular_system import system_from_objects as system_from_objects
from .system.simulation import system_from_simulation as system_from_simulation

__version__: str
