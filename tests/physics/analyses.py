"""What several analyses of the same frames have in common, computed once."""

from contextlib import contextmanager

import pytest

from openmm_gancl.free_energy import from_trajectories


@contextmanager
def counted_once():
    """Analyses of the same frames by one method after the other, which take blocks, weights and counts alike."""
    kept, of, count = {}, from_trajectories._Weighted.of, from_trajectories._Weighted.counts

    def once(name, compute, *arguments):
        if name not in kept:
            kept[name] = compute(*arguments)
        return kept[name]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(from_trajectories._Weighted, "of", staticmethod(lambda *given: once("weighted", of, *given)))
        patch.setattr(from_trajectories._Weighted, "counts", lambda *given: once("counts", count, *given))
        yield
