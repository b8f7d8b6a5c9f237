"""What is learned of the fast degrees of freedom: networks, training, the model file, forces."""

from .forces import torch_force as torch_force
from .invertible import InvertibleGenerator as InvertibleGenerator
from .model import LiftingModel as LiftingModel
from .model import load_model as load_model
from .network_training import NetworkOptions as NetworkOptions
from .network_training import with_network as with_network
from .score_fit import fit_triangular as fit_triangular
from .torsion_windows import restrain_torsions as restrain_torsions
from .torsion_windows import wide_torsions as wide_torsions
from .training import train as train
from .training import untrained_model as untrained_model
from .wgan_gp import TrainingOptions as TrainingOptions
