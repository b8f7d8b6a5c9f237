"""Lifts: propose, relax, weigh, accept; their check, their surfaces, structures at a label."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
