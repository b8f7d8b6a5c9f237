"""The exception for bad input or environment, what refuses arguments of another kind, and a filter for warnings."""

import inspect
import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from types import UnionType
from typing import Any, ParamSpec, TypeVar, get_args, get_origin

P = ParamSpec("P")
R = TypeVar("R")

PLAIN = (type(None), bool, int, float, complex, str, bytes, list, tuple, dict, set)
"""Kinds of arguments that are in place of something else by mistake; any other may behave as what is expected."""

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


def _kinds(annotation: Any) -> list[str]:
    """What an argument may be, if text, a path, a function or a class of this package or numpy's: their names."""
    found = []
    for one in get_args(annotation) if isinstance(annotation, UnionType) else (annotation,):
        if one is Path or get_origin(one) is os.PathLike:
            found.append("path")
        elif get_origin(one) is Callable:
            found.append("function")
        elif isinstance(one, type) and one.__module__.startswith("numpy.random."):
            found.append(f"numpy.random.{one.__name__}")
        elif isinstance(one, type) and (one in (str, type(None)) or one.__module__.startswith(f"{__package__}.")):
            found.append(one.__name__)
        else:
            return []
    return [] if found == ["NoneType"] else found


def _with_article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiouAEIOU' else 'a'} {noun}"


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """A function that refuses in a sentence an argument of another kind: the name of a system in place of it, say.

    Looked at are text, numbers, lists, arrays and None where text, a path, a function or a class of this package or of
    numpy.random is expected.
    """
    expected = {name: _kinds(annotation) for name, annotation in function.__annotations__.items()}
    names, title = list(inspect.signature(function).parameters), function.__qualname__.removesuffix(".__init__")

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        for name, value in (*zip(names, args, strict=False), *kwargs.items()):
            kinds, kind = expected.get(name, []), type(value)
            fits = not kinds or kind.__name__ in kinds or (kind is str and "path" in kinds)
            if not fits and (kind in PLAIN or kind.__module__ == "numpy"):
                given = "None" if value is None else _with_article(kind.__name__)
                wanted = " or ".join(_with_article(one) for one in kinds if one != "NoneType")
                raise InputError(f"`{name}` of {title} is {given}: give {wanted}")
        return function(*args, **kwargs)

    return call


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
