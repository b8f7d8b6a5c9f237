"""The command line."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={"commands": ["app"]})


def main() -> None:
    """Entry point of ``gancl``."""
    from .interrupts import listen

    listen()
    from .commands import app

    app()
