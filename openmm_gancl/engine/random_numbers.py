"""Random numbers: every stream has a name, and streams of different names never meet.

A stream follows from a seed and a name, a path such as ``("lift", "labels", 3)``. The name enters through the
``spawn_key`` of numpy's SeedSequence, whole: appended to the seed instead, a name that ends in zeros would be the same
as without them, and a generator of the bare seed (a user's own, say) would be a stream of the program. A stream is used
once. Names that begin with ``"fixed"`` are the exception: the same numbers each time on purpose, to try a network at,
say; nothing that is sampled is made of them.
"""

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from operator import index
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError

if TYPE_CHECKING:
    import torch

Name = str | int


def _sequence(seed: int, name: tuple[Name, ...]) -> np.random.SeedSequence:
    try:
        entropy = index(seed)  # not through a float, which would round a seed of 63 bits
    except TypeError:
        entropy = -1
    if entropy < 0:
        raise InputError(f"the seed is {seed}: give a whole number from 0 up")
    digest = blake2b(json.dumps([part if isinstance(part, str) else index(part) for part in name]).encode()).digest()
    return np.random.SeedSequence(entropy, spawn_key=np.frombuffer(digest[:16], dtype="<u4").tolist())


def named_rng(seed: int, *name: Name) -> np.random.Generator:
    """The random generator of one stream: a pure function of a seed and the stream's name.

    Args:
        seed: not negative.
        name: of the stream: what it is for, and which of several.
    """
    return np.random.default_rng(_sequence(seed, name))


def named_seed(seed: int, *name: Name) -> int:
    """The seed of a function that is called: 63 bits, of which streams of its own are made.

    Args:
        seed: not negative.
        name: as for `named_rng`.
    """
    return int(_sequence(seed, name).generate_state(1, np.uint64)[0] >> np.uint64(1))


def fresh_seed() -> int:
    """A seed that nobody chose, from the operating system: two calls never give the same."""
    return secrets.randbits(63)


def openmm_seed(rng: np.random.Generator) -> int:
    """A seed that OpenMM takes as a seed (zero would mean: from the clock)."""
    return int(rng.integers(1, 2**31 - 1))


def torch_rng(seed: int, *name: Name) -> "torch.Generator":
    """The same as `named_rng` for torch."""
    import torch

    return torch.Generator().manual_seed(named_seed(seed, *name))


@contextmanager
def torch_seeded(seed: int, *name: Name) -> Iterator[None]:
    """torch's own generator, which initialises layers, as this stream; afterwards it goes on as before."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(named_seed(seed, *name))
        yield
