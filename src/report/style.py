"""Colours, markers and small text helpers that all figures share."""

import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

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
INK = "#555555"
WHISKER = "black"
PALE = "#BBBBBB"
GRID = "#DDDDDD"
"""Inks of legend symbols, of whiskers on bars, of bands in legends, and of the grid."""

_TITLE_INCHES_PER_CHARACTER = 0.09
_WIDE = 20  # a larger ratio of the budgets takes a square-root scale


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all; equal figures give equal bytes."""
    with whole_file(path) as temporary:
        # The version of matplotlib would otherwise be written into the file.
        figure.savefig(temporary, format="png", dpi=DPI, metadata={"Software": None})


def plain_text(text: str) -> str:
    r"""Escape a name so that matplotlib shows it as it is, on one line.

    Two dollar signs would otherwise make a formula of what stands between them.

    >>> print(plain_text("US$ and A$"))
    US\$ and A\$
    """
    return " ".join(text.split()).replace("$", r"\$")


def short_name(name: str, limit: int = 18) -> str:
    """Shorten a class name to its first synonym and at most `limit` characters.

    Dollar signs are escaped as by `plain_text`, which does not count.

    >>> short_name("ballplayer, baseball player")
    'ballplayer'
    """
    first = " ".join(name.split(",")[0].split())
    # Escaped last: a cut between a dollar sign and its escape would undo it.
    return plain_text(first if len(first) <= limit else first[: limit - 1].rstrip() + "\u2026")


def class_labels(labels: Iterable[int], class_names: Sequence[str], limit: int = 18) -> list[str]:
    """Return short names of classes that stand in one list.

    Args:
        labels: Numbers of the classes, from 0.
        class_names: Name of every class.
        limit: Most characters of a name.

    Returns:
        The short names; an empty one is replaced by the number of the class, and names that
        are equal once shortened are followed by it.

    Raises:
        ValueError: If a class has no place in `class_names`.

    >>> class_labels([1, 0, 2], ["crane, bird", "crane, machine", "crow"])
    ['crane (1)', 'crane (0)', 'crow']
    """
    numbers = [int(label) for label in labels]
    for number in numbers:
        if not 0 <= number < len(class_names):
            raise ValueError(
                f"class {number} has no name: class_names holds {len(class_names)} names."
            )
    names = [short_name(class_names[n], limit) or f"class {n}" for n in numbers]
    owners = Counter(name for _, name in set(zip(numbers, names, strict=True)))
    pairs = zip(numbers, names, strict=True)
    return [f"{name} ({n})" if owners[name] > 1 else name for n, name in pairs]


def model_name(name: str, limit: int = 26) -> str:
    """Shorten the name of a model, or of an attack, in its middle; escaped as by `plain_text`.

    >>> model_name("tf_efficientnetv2_s.in21k_ft_in1k", 20)
    'tf_efficie\u2026k_ft_in1k'
    """
    if len(name) > limit:
        name = f"{name[: limit // 2]}\u2026{name[limit // 2 + 1 - limit :]}"
    return plain_text(name)


def pair_name(source: str, target: str, limit: int = 22) -> str:
    """Write a pair of models as `source` -> `target`, with a real arrow.

    Args:
        source: Model that the images were made on.
        target: Model that they are shown to.
        limit: Most characters of each.
    """
    return f"{model_name(source, limit)} \u2192 {model_name(target, limit)}"


def budget(eps_255: float) -> str:
    """Write a budget as a fraction of the pixel range, e.g. `8/255`."""
    return f"{eps_255:g}/255"


def per_cent(share: float) -> str:
    """Write a share in [0, 1] in per cent, without the sign: one decimal, more if below 1 %.

    >>> per_cent(0.8449), per_cent(1), per_cent(0.000418)
    ('84.5', '100', '0.042')
    """
    value = 100 * share
    return f"{value:.2g}" if value < 0.95 else f"{value:.1f}".removesuffix(".0")


def count_range(counts: Iterable[float]) -> str:
    """Write numbers of images that belong together, e.g. `12` or `12 to 15`."""
    known = sorted({int(count) for count in counts})
    return f"{known[0]}" if len(known) == 1 else f"{known[0]} to {known[-1]}"


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


def wrap_title(axes: Axes, text: str, inches: float) -> None:
    """Head one panel, wrapped to so many inches."""
    lines = textwrap.wrap(text, max(12, int(inches / (0.8 * _TITLE_INCHES_PER_CHARACTER))))
    axes.set_title("\n".join(lines), fontsize=TEXT_SIZE)


def tidy(axes: Axes) -> None:
    """Give a panel the common look: light grid behind the data, no box, small numbers."""
    axes.tick_params(labelsize=SMALL_SIZE)
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def percent_axis(axes: Axes, label: str) -> None:
    """Let the vertical axis of a panel run from 0 to 100 %."""
    axes.set_ylim(-3, 103)
    axes.set_yticks(range(0, 101, 20))
    axes.set_ylabel(f"{label} (%)" if label else "", fontsize=TEXT_SIZE)


def budget_axis(axes: Axes, budgets: Iterable[float], also: Iterable[float] = ()) -> None:
    """Let the horizontal axis of a panel show budgets, in units of 1/255.

    Where the smallest budget above 0 is less than 1/20 of the largest one, the scale is that of
    square roots, so that small budgets are not on top of each other; the label says so.

    Args:
        axes: The panel.
        budgets: Budgets of at least 0, in any order; where there is room they get ticks.
        also: Further ones that the scale must show.
    """
    grid = np.unique(np.asarray(list(budgets), dtype=np.float64))
    attacked = np.unique([*grid[grid > 0], *also])
    rooted = len(attacked) > 0 and attacked[0] < attacked[-1] / _WIDE
    places = np.sqrt(grid) if rooted else grid
    ends = places[[0, -1]] + np.array([-1, 1]) * (0.04 * np.ptp(places) or 0.5)
    if rooted:
        axes.set_xscale("function", functions=(_root, _square))
        ends = _square(ends)
    axes.set_xlim(*ends)
    ticks = grid[np.isin(places, thin_ticks(places.tolist()))]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    scale = ", square-root scale" if rooted else ""
    axes.set_xlabel(f"budget $\\epsilon$ (1/255){scale}", fontsize=TEXT_SIZE)


def _root(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Take square roots, and of negative values those of their size: margins reach below 0."""
    return np.copysign(np.sqrt(np.abs(values)), values)


def _square(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Undo `_root`."""
    return np.copysign(np.square(values), values)


def percents(rows: pd.DataFrame, column: str) -> NDArray[np.float64]:
    """Return a column of shares in per cent, what is missing as NaN."""
    return 100 * rows[column].to_numpy(dtype=np.float64, na_value=np.nan)


def drawable(frame: pd.DataFrame, columns: Sequence[str], numbers: Sequence[str]) -> pd.DataFrame:
    """Return the rows of a table that can be drawn.

    Args:
        frame: Table that a figure is made of.
        columns: Columns that it must have, beside `numbers`.
        numbers: Columns of which every drawn row has a finite number.

    Raises:
        ValueError: If a column is missing, or there is nothing to draw.
    """
    missing = [name for name in (*columns, *numbers) if name not in frame.columns]
    if missing:
        raise ValueError(f"the table to draw lacks the columns {', '.join(missing)}.")
    if frame.empty:
        raise ValueError("there is nothing to draw: the table has no row.")
    values = frame[list(numbers)].to_numpy(dtype=np.float64, na_value=np.nan)
    rows = frame[np.isfinite(values).all(axis=1)]
    if rows.empty:
        raise ValueError(
            f"there is nothing to draw: no row of the table has a number for {', '.join(numbers)}."
        )
    return rows
