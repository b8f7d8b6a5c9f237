"""How OpenMM runs things: platforms, tasks, threads, random numbers, packed copies, restraint and torch forces, XML."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
