"""What is learned of the fast degrees of freedom: networks, training, the model file, forces."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
