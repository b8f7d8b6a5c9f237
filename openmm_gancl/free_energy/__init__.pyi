"""Free-energy surfaces and their error bars: from trajectories, from windows, and their pictures."""

from .from_trajectories import TrajectoryAnalysis as TrajectoryAnalysis
from .from_trajectories import analyse as analyse
from .from_trajectories import analyse_trajectories as analyse_trajectories
from .from_trajectories import surface_from_trajectories as surface_from_trajectories
from .from_windows import SampledWindows as SampledWindows
from .from_windows import analyse_windows as analyse_windows
from .from_windows import frames_needed as frames_needed
from .from_windows import median_error as median_error
from .from_windows import sample_until as sample_until
from .from_windows import window_table as window_table
from .plots import plot_convergence as plot_convergence
from .plots import plot_equilibration as plot_equilibration
from .plots import plot_errors as plot_errors
from .plots import plot_overlap as plot_overlap
from .plots import plot_surface as plot_surface
from .surface import FreeEnergySurface as FreeEnergySurface
from .surface import load_surface as load_surface
from .weight_statistics import effective_sample_size as effective_sample_size
from .weight_statistics import pareto_index as pareto_index
