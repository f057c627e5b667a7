"""Checks of configured values; a refusal names the key, the value and what is allowed."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
"""Lightning's precisions that keep images and weights in float32."""


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


def check_name(key: str, value: Any) -> None:
    """Refuse what cannot name a folder, an experiment and a column alike.

    Raises:
        ValueError: It is not 1 to 100 letters, digits and `_ . + -`, or it is `.` or `..`.
    """
    fits = isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_.+-]{1,100}", value)
    if not fits or value in (".", ".."):
        raise ValueError(
            f"{key} must be a name of letters, digits and _ . + -, at most 100 of them, not "
            f"{str(value)[:120]!r}."
        )


def check_units(key: str, budgets: Sequence[float]) -> None:
    """Refuse budgets that are all so small that they must be meant in [0, 1], not in 1/255.

    Raises:
        ValueError: The largest is positive and below 0.1.
    """
    if 0 < max(budgets) < 0.1:
        levels = [f"{round(255 * eps) or 255 * eps:g}" for eps in budgets]
        given = ", ".join(f"{eps:g}" for eps in budgets)
        raise ValueError(f"{key}={given} is in units of 1/255: did you mean {', '.join(levels)}?")


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


def check_report(settings: Mapping[str, Any]) -> None:
    """Refuse a `report` section that no report can have.

    Raises:
        ValueError: It is one.
    """
    check_whole_number("report.examples", settings["examples"], 0)
    check_whole_number("report.pairs", settings["pairs"], 0)
    check_choice("report.figures", settings["figures"], (True, False))
    budgets = settings["budgets"]
    if budgets is not None and not isinstance(budgets, list):
        raise ValueError(f"report.budgets={budgets} is not a list of budgets in 1/255, or null.")
    for eps in budgets or []:
        check_number("report.budgets", eps, 0, 255)


def names_of(value: Any) -> list[Any]:
    """Return one name or a list of names as a list."""
    return list(value) if isinstance(value, ListConfig) else [value]


def plain(config: DictConfig, key: str) -> Any:
    """Return one resolved section of a config as plain data.

    Raises:
        ValueError: A value is missing or refers to one that is not there.
    """
    try:
        value = OmegaConf.select(config, key, throw_on_missing=True)
        return OmegaConf.to_container(value, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ValueError(f"{key} in the config: {first_line(error)}") from error
