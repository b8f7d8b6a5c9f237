"""Slow coordinates learned from frames: diffusion map, spectrum, torch map, distillation."""

from .diffusion_map import DiffusionMap as DiffusionMap
from .distillation import distill as distill
from .learned_labels import learn_slow_coordinates as learn_slow_coordinates
from .plots import plot_slow as plot_slow
from .spectrum import select_coordinates as select_coordinates
from .spectrum import spectral_gap as spectral_gap
