"""From exceptions to exit codes: 1 a bug of ours, 2 bad input or environment, 130 Ctrl-C."""

import contextlib
import errno
import signal
import sys
import warnings
from collections.abc import Iterator

import typer

from ..engine.interrupts import interrupts
from ..errors import InputError
from .interrupts import INTERRUPTED, answered, in_command
from .options import as_options

BUG, BAD_INPUT, EXIT_NOT_TRUSTED = 1, 2, 3


def _fail(message: str, code: int) -> typer.Exit:
    typer.echo(f"error: {as_options(message)}", err=True)
    return typer.Exit(code)


def _environment(error: OSError) -> str:
    place = f" ({error.filename})" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no space left on the disk{place}: free some and repeat the command, finished stages are kept"
    if error.errno == errno.EFBIG:
        return f"a file grew beyond the limit of this shell or disk{place}: raise it (ulimit -f) and repeat the command"
    return f"{error.strerror or error}{place}: check that it exists and that you may read and write it"


def _after_interrupt(advice: str) -> typer.Exit:
    """The sentence, when workers have ended without waiting for their tasks."""
    with contextlib.suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    if "loky" in sys.modules:
        from ..engine.tasks import stop_local_workers

        stop_local_workers()
    answered()
    return _fail(f"interrupted: {advice}", INTERRUPTED)


def _failure(error: Exception) -> typer.Exit:
    if isinstance(error, InputError):
        return _fail(str(error), BAD_INPUT)
    if isinstance(error, OSError):
        return _fail(_environment(error), BAD_INPUT)
    if isinstance(error, MemoryError):
        return _fail("not enough memory: use fewer --workers or fewer --lifts", BAD_INPUT)
    if isinstance(error, ModuleNotFoundError) and not (error.name or "").startswith("openmm_gancl"):
        return _fail(f"{error.name} is not installed: install it (`gancl doctor` lists what is needed)", BAD_INPUT)
    message = str(error).strip().split("\n")[0]
    return _fail(f"a bug of ours ({type(error).__name__}: {message}): please report it with the output of --debug", BUG)


@contextlib.contextmanager
def exit_codes(debug: bool, after_interrupt: str = "repeat the command to start again") -> Iterator[None]:
    """Turn exceptions into one sentence on stderr and an exit code.

    Args:
        debug: let them through, with their tracebacks.
        after_interrupt: what to do after Ctrl-C.
    """
    before = interrupts()
    try:
        with warnings.catch_warnings(), in_command(after_interrupt):
            if not debug:
                warnings.simplefilter("ignore")  # of other packages; ours are notes and doubts
            yield
            if interrupts() > before:  # and a library has lost it
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        ended = _after_interrupt(after_interrupt)
        if debug:
            raise
        raise ended from None
    except (typer.Exit, typer.Abort, typer.BadParameter):
        raise
    except Exception as error:
        if debug:
            raise
        if interrupts() > before:
            raise _after_interrupt(after_interrupt) from None
        raise _failure(error) from None
