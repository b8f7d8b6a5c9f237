"""Lifts: propose, relax, weigh, accept; their check, their surfaces, structures at a label."""

from .draws import Draws as Draws
from .draws import draw as draw
from .encoder import fit_encoder as fit_encoder
from .label_proposals import KernelProposal as KernelProposal
from .label_proposals import LabelProposal as LabelProposal
from .label_proposals import TabulatedProposal as TabulatedProposal
from .label_proposals import UniformProposal as UniformProposal
from .label_regression import LabelRegression as LabelRegression
from .label_regression import fit_label_regression as fit_label_regression
from .lifter import Lifter as Lifter
from .lifts import Lifts as Lifts
from .loop import Learned as Learned
from .loop import LoopOptions as LoopOptions
from .loop import learn as learn
from .reverse_check import check_lifts as check_lifts
from .sde import StochasticSystem as StochasticSystem
from .sde import lift_sde as lift_sde
from .sde import load_sde as load_sde
from .structures import Structures as Structures
from .structures import structures_at as structures_at
from .surface import analyse_lifts as analyse_lifts
from .surface import basin_populations as basin_populations
from .surface import surface_from_lifts as surface_from_lifts
from .surface import window_free_energies as window_free_energies
from .weights import accept_metropolis as accept_metropolis
