"""Frames of the real potential: labels, Langevin dynamics, windows, steering, swarms, a user's own frames."""

from .frames import Frames as Frames
from .frames import Walkers as Walkers
from .frames import load_frames as load_frames
from .frames import save_frames as save_frames
from .labels import grid_labels as grid_labels
from .labels import scattered_labels as scattered_labels
from .langevin import sample_langevin as sample_langevin
from .short_windows import ShortWindows as ShortWindows
from .short_windows import sample_short_windows as sample_short_windows
from .swarms import Swarm as Swarm
from .swarms import sample_swarm as sample_swarm
from .windows import sample_windows as sample_windows
