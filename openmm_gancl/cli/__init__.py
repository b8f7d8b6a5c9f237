"""The command line."""

import os

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={"commands": ["app"]})


def main() -> None:
    """Entry point of ``gancl``."""
    from .interrupts import listen

    listen()
    # a notebook hands its own on, which is not installed wherever gancl is
    os.environ["MPLBACKEND"] = "agg"
    from .commands import app

    app()
