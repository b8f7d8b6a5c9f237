"""What is simulated: cards, Systems, the declared state, constraints, a user's Simulation."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
