"""From exceptions to exit codes: 1 a bug of ours, 2 bad input or environment, 130 Ctrl-C."""

import contextlib
import errno
import logging
import signal
import sys
import warnings
from collections.abc import Iterator

import typer

from ..errors import InputError
from .options import as_options

BUG, BAD_INPUT, EXIT_NOT_TRUSTED, INTERRUPTED = 1, 2, 3, 130


def _fail(message: str, code: int) -> typer.Exit:
    typer.echo(f"error: {as_options(message)}", err=True)
    return typer.Exit(code)


def _environment(error: OSError) -> str:
    place = f" ({error.filename})" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no space left on the disk{place}: free some and repeat the command, finished stages are kept"
    return f"{error.strerror or error}{place}: check that it exists and that you may read and write it"


def _stop_workers() -> None:
    """End worker processes without waiting for their tasks."""
    if "loky" in sys.modules:
        from loky import get_reusable_executor

        # its manager thread complains of futures that are cancelled already
        logging.getLogger("concurrent.futures").disabled = True
        get_reusable_executor(reuse=True).shutdown(wait=True, kill_workers=True)


@contextlib.contextmanager
def exit_codes(debug: bool, after_interrupt: str = "repeat the command to start again") -> Iterator[None]:
    """Turn exceptions into one sentence on stderr and an exit code.

    Args:
        debug: let them through, with their tracebacks.
        after_interrupt: what to do after Ctrl-C.
    """
    try:
        with warnings.catch_warnings():
            if not debug:
                warnings.simplefilter("ignore")  # of other packages; ours are notes and doubts
            yield
    except KeyboardInterrupt:
        with contextlib.suppress(ValueError):  # not in the main thread
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        _stop_workers()
        if debug:
            raise
        raise _fail(f"interrupted: {after_interrupt}", INTERRUPTED) from None
    except (typer.Exit, typer.Abort, typer.BadParameter):
        raise
    except Exception as error:
        if debug:
            raise
        if isinstance(error, InputError):
            raise _fail(str(error), BAD_INPUT) from None
        if isinstance(error, OSError):
            raise _fail(_environment(error), BAD_INPUT) from None
        if isinstance(error, MemoryError):
            raise _fail("not enough memory: use fewer --workers or fewer --lifts", BAD_INPUT) from None
        message = str(error).strip().split("\n")[0]
        raise _fail(
            f"a bug of ours ({type(error).__name__}: {message}): please report it with the output of --debug", BUG
        ) from None
