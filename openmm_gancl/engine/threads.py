"""How many threads the linear algebra uses."""

from collections.abc import Iterator
from contextlib import contextmanager

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""Of the environment, read when numpy and torch are first imported."""


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """So many threads for torch inside, afterwards as before; a few microseconds.

    One for small networks: where other processes use the cores, a second thread makes them several times slower.
    And a fixed number where bytes must repeat, for last digits depend on it.

    Args:
        threads: of one operation.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
