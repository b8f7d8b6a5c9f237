"""The command line."""

import os

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={"commands": ["app"]})


def main() -> None:
    """Entry point of ``gancl``."""
    import signal

    # nohup, or a shell's background job, ignores it; what hears it better takes a while to import
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)
    from .interrupts import listen

    listen()
    # a notebook hands its own on, which is not installed wherever gancl is
    os.environ["MPLBACKEND"] = "agg"
    from .commands import app

    app()


def _end(number: int, frame: object) -> None:
    os.write(2, b"error: interrupted: repeat the command\n")
    os._exit(130)
