"""Closures: averages at a label, mean force, drift and diffusion, reduced models, and their consistency."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
