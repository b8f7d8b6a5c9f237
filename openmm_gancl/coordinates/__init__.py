"""What maps positions to numbers: slow coordinates, collective variables, features, restraint energies, basins."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
