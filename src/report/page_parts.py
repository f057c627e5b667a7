"""What the page's template is filled with: figures, tables and files as text."""

import base64
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd
from markupsafe import Markup, escape

from src.report.content import Download, Drawing, Pair, Table
from src.report.svg import embedded_picture, inline_svg

FIRST_ROWS = 50
"""So many rows of a drawing's data are shown; the file holds all."""
_SHORT = 40  # characters
_JOINTS = re.compile(r"([-+_/.])")


@dataclass(frozen=True)
class Grid:
    """A frame as text.

    Attributes:
        columns: Headings.
        kinds: By column, `n` (numbers only, set flush right), `s` (short words, kept on one
            line) or nothing.
        rows: Cells.
        total: Number of rows of the frame, of which `rows` may be the first.
    """

    columns: list[str]
    kinds: list[str]
    rows: list[list[str]]
    total: int


def csv_of(frame: pd.DataFrame) -> str:
    """Write a frame as CSV with nine significant digits, enough for any float32."""
    return frame.to_csv(index=False, float_format="%.9g", lineterminator="\n")


def address(content: bytes, media_type: str) -> str:
    """Return a `data:` address that holds a file, in the shorter of the two encodings."""
    plain = quote(content, safe=" ,;:/?@&=+$!*'()<>[]{}|^`\\~-_.")
    coded = base64.b64encode(content).decode("ascii")
    if len(plain) < len(coded) + len(";base64"):
        return f"data:{media_type},{plain}"
    return f"data:{media_type};base64,{coded}"


def csv_address(frame: pd.DataFrame) -> str:
    """Return a `data:` address that holds a frame as CSV."""
    return address(csv_of(frame).encode(), "text/csv;charset=utf-8")


def size_of(content: bytes) -> str:
    """Write the size of a file for readers.

    >>> size_of(b"12"), size_of(bytes(2_300_000))
    ('2 bytes', '2.3 MB')
    """
    size = len(content)
    if size < 1000:
        return f"{size} bytes"
    return f"{size / 1000:.0f} kB" if size < 1_000_000 else f"{size / 1e6:.1f} MB"


def grid_of(frame: pd.DataFrame, most: int | None = None) -> Grid:
    """Write the cells of a frame, or of its first rows, as text."""
    chosen = frame if most is None else frame.head(most)
    columns = [[_written(value) for value in chosen.iloc[:, i]] for i in range(frame.shape[1])]
    return Grid(
        columns=[str(column) for column in frame.columns],
        kinds=[_kind(column) for column in columns],
        rows=[list(row) for row in zip(*columns, strict=True)],
        total=len(frame),
    )


def table_parts(table: Table) -> dict[str, Any]:
    """Prepare a table."""
    data = table.frame if table.data is None else table.data
    return {
        "name": table.name,
        "title": table.title,
        "caption": table.caption,
        "grid": grid_of(table.frame),
        "file": csv_address(data),
    }


def drawing_parts(drawing: Drawing, most: int) -> dict[str, Any]:
    """Prepare a drawing: its markup, its data as text and as a file.

    Args:
        drawing: What to draw.
        most: Length of a picture, see `embedded_picture`.
    """
    parts: dict[str, Any] = {
        "drawing": drawing,
        "svg": None,
        "picture": None,
        "light": True,
        "grid": None,
    }
    if drawing.figure is not None and drawing.picture:
        parts["picture"] = embedded_picture(drawing.figure, most)
        parts["width"] = parts["picture"][1]
    elif drawing.figure is not None:
        # No drawing's name makes this one that of its neighbour `name-2`, see `inline_svg`.
        name = f"svg-{drawing.name}"
        svg, parts["light"] = inline_svg(drawing.figure, name, drawing.title, drawing.alt)
        parts["svg"] = Markup(svg)
        parts["width"] = round(96 * drawing.figure.get_size_inches()[0])
    if drawing.data is not None:
        parts["grid"] = grid_of(drawing.data, FIRST_ROWS)
        parts["file"] = csv_address(drawing.data)
    return parts


def download_parts(download: Download) -> dict[str, str]:
    """Prepare a file inside the page."""
    return {
        "name": download.name,
        "description": download.description,
        "size": size_of(download.content),
        "file": address(download.content, download.media_type),
    }


def breakable(name: str) -> Markup:
    """Let a long name go on in the next line after signs that join its parts."""
    joint = Markup("<wbr>")
    parts = _JOINTS.split(name)  # every second one is such a sign
    return Markup("").join(
        escape(part) + (joint if place % 2 else "") for place, part in enumerate(parts)
    )


def pair_ids(pairs: Iterable[Pair]) -> dict[tuple[str, str, str], str]:
    """Name the anchor of every pair after its attack, source and target.

    Raises:
        ValueError: A pair is there twice.
    """
    anchors: dict[tuple[str, str, str], str] = {}
    for pair in pairs:
        key = (pair.attack, pair.source, pair.target)
        if key in anchors:
            raise ValueError(
                f"the pair attack '{key[0]}', source '{key[1]}', target '{key[2]}' is there twice; "
                "each may be there once."
            )
        words = "--".join(_letters(word) for word in key)
        anchor, number = f"pair-{words}", 2
        while anchor in anchors.values():
            anchor, number = f"pair-{words}-{number}", number + 1
        anchors[key] = anchor
    return anchors


def _written(value: Any) -> str:
    """Write a cell: short floats, nothing for missing values, lists with commas."""
    if isinstance(value, (list, tuple, np.ndarray)):
        return ", ".join(_written(part) for part in value)
    if value is None or value is pd.NA or value is pd.NaT:
        return ""
    if isinstance(value, (float, np.floating)):
        number = float(value)
        whole = number.is_integer() and abs(number) < 1e9
        return "" if math.isnan(number) else f"{number:.0f}" if whole else f"{number:.4g}"
    return str(value)


def _kind(cells: Sequence[str]) -> str:
    filled = [cell for cell in cells if cell not in ("", "n/a")]
    if filled and all(_is_number(cell) for cell in filled):
        return "n"
    return "s" if max(map(len, cells), default=0) <= _SHORT else ""


def _is_number(cell: str) -> bool:
    try:
        float(cell.rstrip("%").strip())
    except ValueError:
        return False
    return True


def _letters(name: str) -> str:
    """Keep of a name what may stand in an address."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "_.+") else "-" for c in name)
    return "-".join(part for part in kept.split("-") if part) or "unnamed"
