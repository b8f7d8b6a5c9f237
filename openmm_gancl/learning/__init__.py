"""Slow coordinates learned from frames: diffusion map, spectrum, torch map, distillation."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
