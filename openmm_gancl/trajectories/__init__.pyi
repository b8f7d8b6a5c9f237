"""The user's files: trajectories, series, blocks, COLVAR files, window tables, static biases."""

from .observations import Observations as Observations
from .observations import read as read
from .static_bias import metadynamics_bias as metadynamics_bias
from .static_bias import opes_bias as opes_bias
from .umbrella import UmbrellaWindows as UmbrellaWindows
from .window_table import read_table_of_windows as read_table_of_windows
from .window_table import read_windows as read_windows
