"""Slow coordinates of packed copies of a molecule."""

import numpy as np

from ..errors import InputError
from .slow_coordinates import ModuleCoordinates, ParticleCoordinates, SlowCoordinates, Torsions
from .torchscript import archived, scripted


def repeated(slow: SlowCoordinates, n: int, n_atoms: int) -> SlowCoordinates:
    """The coordinates of n packed copies of a molecule, those of the first copy first.

    Args:
        slow: of one copy.
        n: copies.
        n_atoms: atoms in a copy.

    Raises:
        InputError: for coordinates of another type.
    """
    if n == 1:
        return slow
    names = tuple(f"{name}_{copy}" for copy in range(n) for name in slow.names)
    first = np.repeat(np.arange(n) * n_atoms, len(slow.names))[:, None]
    if isinstance(slow, Torsions):
        return Torsions(names, np.tile(slow.atoms, (n, 1)) + first)
    if isinstance(slow, ParticleCoordinates):
        components = np.tile(slow.components, (n, 1)) + first * np.array([1, 0])
        return ParticleCoordinates(names, components, np.tile(slow.domain, (n, 1)))
    if isinstance(slow, ModuleCoordinates):
        from .torch_modules import Copies

        module = scripted(Copies(slow.module, n_atoms))
        return ModuleCoordinates(names, np.tile(slow.periods, n), np.tile(slow.domain, (n, 1)), archived(module))
    raise InputError(f"labels of type {type(slow).__name__} cannot be computed for packed copies: use packed=1")
