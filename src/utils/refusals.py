"""Messages: warnings that come once, suggestions, first lines, printable text."""

import re
import shlex
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from functools import cache
from logging import getLogger
from typing import Any, TypeVar

from pydantic import ValidationError

from .package import PACKAGE

Item = TypeVar("Item")
warn_once = cache(getLogger(PACKAGE).warning)
"""Log a text once. As a warning, because much is opened before Hydra sets up the log."""
_NOT_XML = (range(0, 9), (11, 12), range(14, 32), range(0xD800, 0xE000), (0xFFFE, 0xFFFF))
_HIDDEN = (range(127, 160), range(0x202A, 0x202F), range(0x2066, 0x206A))  # C1 and text directions
_PRINTABLE = dict.fromkeys(
    (code for codes in (*_NOT_XML, *_HIDDEN) for code in codes), "\N{REPLACEMENT CHARACTER}"
)


def printable(text: str) -> str:
    r"""Replace characters that XML or UTF-8 cannot encode, or that control a terminal.

    >>> printable("a\x1b[31m \x9b \u202e").replace("\N{REPLACEMENT CHARACTER}", "?")
    'a?[31m ? ?'
    """
    return text.translate(_PRINTABLE)


def printable_all(data: Any) -> Any:
    """Return JSON data with `printable` texts."""
    if isinstance(data, str):
        return printable(data)
    if isinstance(data, list):
        return [printable_all(value) for value in data]
    if isinstance(data, dict):
        return {printable(key): printable_all(value) for key, value in data.items()}
    return data


def suggestion(name: str, available: Sequence[str], cutoff: float = 0.7) -> str:
    """Return a "Did you mean" question with the nearest known word; empty if none is similar.

    >>> suggestion("nrom", ["norm", "loss"])
    ' Did you mean norm?'
    """
    matches = get_close_matches(name, available, n=1, cutoff=cutoff)
    return f" Did you mean {matches[0]}?" if matches else ""


def choose(key: str, value: Item, options: Iterable[object]) -> Item:
    """Return a value that is one of the options of a key; refuse another one with them.

    >>> choose("to", "latx", ["latex", "html"])
    Traceback (most recent call last):
    ValueError: to=latx: choose from latex, html. Did you mean latex?
    """
    available = [*options]
    if value in available:
        return value
    names = [*map(str, available)]
    near = suggestion(str(value), names)
    raise ValueError(f"{key}={value}: choose from {', '.join(names)}.{near}")


def shortened(names: Sequence[str]) -> str:
    """Return the first three names as text.

    >>> shortened("abcd")
    'a, b, c, ...'
    """
    return ", ".join(names[:3]) + ", ..." * (len(names) > 3)


def class_order(names: Sequence[str]) -> str:
    """Return the setting that numbers classes in an order, or of over 20 what it takes.

    >>> print(class_order("ab"))
    'dataset.class_names=["a","b"]'
    """
    if len(names) > 20:
        return f"a dataset.class_names of all {len(names)} names in the network's order"
    return shlex.quote(f"dataset.class_names=[{','.join(map(quoted, names))}]")


def quoted(text: str) -> str:
    """Return a text in double quotes, which Hydra's parser reads as this text."""
    doubled = re.sub(r'\\+(?="|\Z)', r"\g<0>\g<0>", text)
    return '"' + doubled.replace('"', r"\"") + '"'


def first_line(error: BaseException) -> str:
    """Return an error's first line, without additions by libraries."""
    line = str(error).strip().split("\n")[0].split(", set env var HYDRA_FULL_ERROR")[0]
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        line = f"{place}: {first['msg'].removeprefix('Value error, ')}".removeprefix(": ")
    return re.sub(r"\s+", " ", line)
