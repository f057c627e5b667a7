"""Tables for the terminal."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text


def text_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    left: Collection[str],
    ruled: bool = False,
) -> Table:
    """Lay out texts; columns that are not `left` are right-aligned, `ruled` underlines the head."""
    look: dict[str, Any] = {"box": None}
    if ruled:
        look = {"box": box.SIMPLE_HEAD, "show_edge": False, "padding": (0, 1, 0, 0)}
    table = Table(pad_edge=False, **look)
    for name in columns:
        side: Any = "left" if name in left else "right"
        table.add_column(Text(name), justify=side, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))  # Text, because rich reads [..] in a str as a style
    return table
