"""Free-energy surfaces and their error bars: from trajectories, from windows, and their pictures."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
