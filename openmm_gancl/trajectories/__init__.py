"""The user's files: trajectories, series, blocks, COLVAR files, window tables, static biases."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
