"""Workers on many machines: a Dask cluster that is running somewhere."""

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import InputError, first_line

CONNECTING = 30.0
"""Seconds to wait for a scheduler."""


def _connected(scheduler: str) -> Any:  # pragma: no cover - needs Dask, which tests marked executors have
    from distributed import Client

    where = {"address": scheduler} if "://" in scheduler else {"scheduler_file": scheduler}
    try:
        return Client(**where, timeout=CONNECTING, set_as_default=False)
    except Exception as error:  # a file or an address may be wrong in any way
        raise InputError(
            f"no Dask scheduler answers at {scheduler} ({first_line(error)}): start one with dask scheduler"
        ) from None


@contextmanager
def dask_executor(scheduler: str) -> Iterator[Executor]:
    """Tasks run by the workers of a Dask cluster, however many there are at a time.

    Args:
        scheduler: its address (``tcp://node7:8786``), or the file that ``dask scheduler --scheduler-file`` writes.

    Raises:
        InputError: Dask is not installed, or no scheduler answers.
    """
    if "://" not in scheduler and not Path(scheduler).is_file():
        raise InputError(
            f"`scheduler` {scheduler} is no file and no address: give one like tcp://host:8786, or the file of "
            "dask scheduler --scheduler-file"
        )
    try:
        client = _connected(scheduler)
    except ImportError:
        raise InputError("a `scheduler` needs Dask: pip install 'openmm-gancl[dask]'") from None
    with client:
        yield client.get_executor(pure=False)
