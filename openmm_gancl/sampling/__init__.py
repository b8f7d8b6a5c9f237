"""Frames of the real potential: labels, Langevin dynamics, windows, steering, swarms, a user's own frames."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
