"""The exception for bad input or environment, and a filter for needless warnings of other packages."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

MAX_BEGINNING, MAX_END = 450, 200
"""Characters of a text that are kept; files may put anything between."""


class InputError(ValueError):
    """Bad input or environment, explained in one sentence that names the remedy (exit code 2).

    Args:
        text: the sentence; what it quotes of a file is made printable, and cut where it is too long.
    """

    def __init__(self, text: str):
        plain = "".join(sign if sign.isprintable() else "?" for sign in text.replace("\n", " "))
        if len(plain) > MAX_BEGINNING + MAX_END:
            plain = f"{plain[:MAX_BEGINNING]} ... {plain[-MAX_END:]}"
        super().__init__(plain)


def first_line(error: BaseException) -> str:
    """The first sentence of an exception's text, or its kind."""
    return re.split(r"\n|\.\s", str(error).strip(), maxsplit=1)[0].rstrip(".") or type(error).__name__


def last_line(error: BaseException) -> str:
    """The last line of an exception's text, where TorchScript gives its reason, or its kind."""
    return (str(error).strip().split("\n")[-1] or type(error).__name__).rstrip(".")


@contextmanager
def quiet(package: str | None) -> Iterator[None]:
    """Without the warnings that a package logs whenever it is imported; None where it logs them as the root."""
    logger = logging.getLogger(package)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
