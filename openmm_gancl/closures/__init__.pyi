"""Closures: averages at a label, mean force, drift and diffusion, reduced models, and their consistency."""

from .averages import ConditionalAverage as ConditionalAverage
from .averages import LabelAverages as LabelAverages
from .averages import averages_at_labels as averages_at_labels
from .averages import conditional_average as conditional_average
from .averages import ensemble_average as ensemble_average
from .ensemble import Ensemble as Ensemble
from .mean_force import MeanForceTest as MeanForceTest
from .mean_force import closure_test as closure_test
from .mean_force import mean_force_values as mean_force_values
from .observables import group_energy as group_energy
from .observables import metric_term as metric_term
from .observables import of_trajectory as of_trajectory
from .observables import projected_force as projected_force
