"""The one random generator that all Contexts of the Reference platform share in a process."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import openmm

from .platforms import make_context


def _one_particle() -> openmm.System:
    system = openmm.System()
    system.addParticle(1.0)
    return system


@lru_cache
def _seeding_context() -> openmm.Context:
    """One whose integrator seeds the generator whenever it begins."""
    return make_context(_one_particle(), openmm.LangevinMiddleIntegrator(300, 1, 0.001), "Reference", 1)


def seed_reference_platform(seed: int) -> None:
    """Seed the one random generator that all Contexts of the Reference platform share in a process."""
    context = _seeding_context()
    context.getIntegrator().setRandomNumberSeed(seed)
    context.reinitialize()


@lru_cache
def _reference_context() -> openmm.Context:
    """One that draws no numbers; its checkpoint holds the generator that it shares."""
    platform = openmm.Platform.getPlatformByName("Reference")
    return openmm.Context(_one_particle(), openmm.VerletIntegrator(0.001), platform)


@contextmanager
def preserve_platform_rng() -> Iterator[None]:
    """The Reference platform has one random generator a process: a user's Simulation gets it back as it was."""
    context = _reference_context()
    checkpoint = context.createCheckpoint()
    try:
        yield
    finally:
        context.loadCheckpoint(checkpoint)


class ReferenceStream:
    """A stream of the Reference platform's one generator that no other Context of the process disturbs.

    Args:
        seed: as OpenMM takes it.
    """

    def __init__(self, seed: int):
        with preserve_platform_rng():
            seed_reference_platform(seed)
            self._state = _reference_context().createCheckpoint()

    @contextmanager
    def drawn_from(self) -> Iterator[None]:
        """Go on with it, and give the generator back as it was."""
        with preserve_platform_rng():
            _reference_context().loadCheckpoint(self._state)
            try:
                yield
            finally:
                self._state = _reference_context().createCheckpoint()
