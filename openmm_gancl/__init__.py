"""openmm-gancl: exactly weighted lifting of slow coordinates to configurations, in OpenMM.

What is public is listed in ``__init__.pyi``, here and in every folder, and is loaded when it is first used.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, _listed = lazy_loader.attach_stub(__name__, __file__)
_FOLDERS = {
    "coordinates",
    "trajectories",
    "engine",
    "system",
    "reference",
    "sampling",
    "free_energy",
    "generator",
    "learning",
    "lifting",
    "closures",
    "moves",
    "workflow",
}
__all__ = [name for name in _listed if name not in _FOLDERS]
