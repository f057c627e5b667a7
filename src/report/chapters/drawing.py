"""Drawings that are made, or say why they cannot be."""

import re
from collections.abc import Callable

import pandas as pd
from matplotlib.figure import Figure

from src.report.content import Drawing
from src.report.style import DPI


def drawn(
    name: str,
    title: str,
    caption: str,
    alt: str,
    draw: Callable[[], Figure],
    data: pd.DataFrame | None = None,
    *,
    picture: bool = False,
) -> Drawing:
    """Draw a figure; if its data do not allow one, keep the reason in its place."""
    figure, reason = None, ""
    try:
        figure = draw()
        figure.set_dpi(DPI)  # letters have other widths at another one
    except ValueError as error:
        reason = str(error)
    return Drawing(file_name(name), title, caption, alt, figure, reason, data, picture)


def file_name(*parts: str) -> str:
    """Return a file's stem of names that may hold any character."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", "-".join(parts))[:120]
