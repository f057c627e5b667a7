"""Colours, markers and small text helpers that all figures share."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from src.files import whole_file

PALETTE = (
    "#0072B2",  # blue
    "#D55E00",  # vermillion
    "#009E73",  # bluish green
    "#CC79A7",  # reddish purple
    "#E69F00",  # orange
    "#56B4E9",  # sky blue
    "#000000",  # black
    "#8C7B00",  # yellow, darkened to stand out from white paper
)
"""Colour-blind-safe palette of Okabe and Ito (2008)."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINE_STYLES = ("-", "--", "-.", ":")

RIGHT = ("\u2713", "#0062A0")
WRONG = ("\u2717", "#B84A00")
"""Symbol and colour of a correct and of a wrong prediction."""

DPI = 150
TITLE_SIZE = 11
TEXT_SIZE = 9
SMALL_SIZE = 8
_TITLE_INCHES_PER_CHARACTER = 0.09


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all; equal figures give equal bytes."""
    with whole_file(path) as temporary:
        # The version of matplotlib would otherwise be written into the file.
        figure.savefig(temporary, format="png", dpi=DPI, metadata={"Software": None})


def short_name(name: str, limit: int = 18) -> str:
    """Shorten a class name to its first synonym and at most `limit` characters.

    >>> short_name("ballplayer, baseball player")
    'ballplayer'
    """
    first = name.split(",")[0].strip()
    return first if len(first) <= limit else first[: limit - 1].rstrip() + "\u2026"


def budget(eps_255: float) -> str:
    """Write a budget as a fraction of the pixel range, e.g. `8/255`."""
    return f"{eps_255:g}/255"


def thin_ticks(values: Sequence[float], least_gap: float = 0.055) -> list[float]:
    """Choose ticks among rising values so that labels do not touch.

    Args:
        values: Candidates, rising. The first and the last are kept.
        least_gap: Smallest distance between two ticks, as a share of the range.
    """
    if len(values) < 3:
        return list(values)
    gap = least_gap * (values[-1] - values[0])
    kept = [values[-1]]
    for value in reversed(values[1:-1]):
        if kept[-1] - value >= gap and value - values[0] >= gap:
            kept.append(value)
    return [values[0], *reversed(kept)]


def add_title(figure: Figure, *parts: str | None) -> None:
    """Head a figure with the parts that are given, wrapped to its width and made room for."""
    text = ", ".join(part for part in parts if part)
    if not text:
        return
    width, height = figure.get_size_inches()
    lines = textwrap.wrap(text, max(16, int(width / _TITLE_INCHES_PER_CHARACTER)))
    figure.set_size_inches(width, height + 0.2 * (len(lines) - 1))
    figure.suptitle("\n".join(lines), fontsize=TITLE_SIZE)
