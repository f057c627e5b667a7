"""Checks of configured values; a refusal names the key, the value and what is allowed."""

import math
import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any


def check_whole_number(key: str, value: Any, lowest: int, highest: int | None = None) -> None:
    """Refuse what is not a whole number of at least `lowest`, and of at most `highest`.

    Raises:
        ValueError: It is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
        raise ValueError(f"{key} must be a whole number of at least {lowest}, not {value}.")
    if highest is not None and value > highest:
        raise ValueError(f"{key} must be a whole number of at most {highest}, not {value}.")


def check_number(
    key: str,
    value: Any,
    low: float,
    high: float,
    *,
    open_low: bool = False,
    open_high: bool = False,
) -> None:
    """Refuse what is not a finite number between two bounds; an open bound is itself refused.

    Raises:
        ValueError: It is not.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if (
        not number
        or not low <= value <= high
        or (open_low and value == low)
        or (open_high and value == high)
    ):
        interval = f"{'(' if open_low else '['}{low:g}, {high:g}{')' if open_high else ']'}"
        raise ValueError(f"{key} must be a number in {interval}, not {value}.")


def check_choice(key: str, value: Any, allowed: Iterable[Any]) -> None:
    """Refuse what is not among the choices.

    Raises:
        ValueError: It is not.
    """
    choices = list(allowed)
    if value not in choices:
        listed = ", ".join("null" if choice is None else str(choice) for choice in choices)
        raise ValueError(f"{key}={value} is not one of {listed}.")


def meant(given: str, known: Sequence[str]) -> str:
    """Return a question that follows a refusal, or nothing where no known word is near.

    >>> meant("nrom", ["norm", "loss"])
    ' Did you mean norm?'
    """
    words = " or ".join(get_close_matches(given, known, n=2, cutoff=0.7))
    return f" Did you mean {words}?" if words else ""


def first_line(error: BaseException) -> str:
    """Return an error's first line, without what libraries add to it and below it."""
    line = str(error).strip().split("\n")[0].split(", set env var HYDRA_FULL_ERROR")[0]
    return re.sub(r"\s+", " ", line)
