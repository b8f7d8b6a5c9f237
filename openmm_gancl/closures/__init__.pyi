"""Closures: averages at a label, mean force, drift and diffusion, reduced models, and their consistency."""

from .averages import ConditionalAverage as ConditionalAverage
from .averages import LabelAverages as LabelAverages
from .averages import averages_at_labels as averages_at_labels
from .averages import conditional_average as conditional_average
from .averages import ensemble_average as ensemble_average
from .backward_equation import Relaxations as Relaxations
from .backward_equation import committor as committor
from .backward_equation import mean_passage_times as mean_passage_times
from .backward_equation import mean_passage_times_to as mean_passage_times_to
from .backward_equation import relaxations as relaxations
from .effective_dynamics import EffectiveDynamics as EffectiveDynamics
from .effective_dynamics import effective_dynamics as effective_dynamics
from .ensemble import Ensemble as Ensemble
from .mean_force import MeanForceTest as MeanForceTest
from .mean_force import closure_test as closure_test
from .mean_force import mean_force_values as mean_force_values
from .observables import group_energy as group_energy
from .observables import metric_term as metric_term
from .observables import of_trajectory as of_trajectory
from .observables import projected_force as projected_force
from .passages import PassageTimes as PassageTimes
from .passages import passage_times as passage_times
from .passages import projected as projected
from .passages import time_scales_along as time_scales_along
from .reduced_model import ReducedModel as ReducedModel
from .reduced_model import load_reduced_model as load_reduced_model
