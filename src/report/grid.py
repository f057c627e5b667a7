"""A table of texts and numbers, and its formats: terminal, Markdown, LaTeX, HTML and CSV."""

import html
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

import pandas as pd
from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from ..utils.files import csv_of

PARTIAL, DAGGER = "\N{DOUBLE DAGGER}", "\N{DAGGER}"
FORMATS = ("latex", "markdown", "html", "csv")
_LATEX = str.maketrans(
    {mark: f"\\{mark}" for mark in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
)
_SPECIAL = re.compile(r"([\\`*{}\[\]<>|#]|(?<![^\W_])_|_(?![^\W_]))")  # Markdown keeps a_b
_ESCAPES: Mapping[str, Callable[[str], str]] = {
    "html": html.escape,
    "latex": lambda text: text.translate(_LATEX),
    "markdown": lambda text: _SPECIAL.sub(r"\\\1", text),
}
_GREY = {"latex": r"\color[HTML]{{777777}} {}", "html": '<span style="color: #777777">{}</span>'}
_MARKS: Mapping[str, Mapping[str, str]] = {
    "bold": {"markdown": "**{}**", "latex": r"\bfseries {}", "html": "<b>{}</b>"},
    "italic": {"markdown": "*{}*", "latex": r"\itshape {}", "html": "<i>{}</i>"},
    "partial": dict.fromkeys(_ESCAPES, f"{{}} {PARTIAL}"),
    "white": {"markdown": f"{{}} {DAGGER}", **_GREY},
    "grey": {"markdown": "{}", **_GREY},
}
_SMALL = {"latex": r" {{\scriptsize {}}}", "html": " <small>{}</small>", "markdown": " {}"}
_NONE = {"markdown": "\N{EN DASH}", "latex": "--", "html": "&ndash;"}


class Cell(NamedTuple):
    """A cell of a table.

    Attributes:
        text: What people read; None: there is no cell.
        marks: Some of `bold`, `italic`, `partial` (a double dagger), `white` (grey, in Markdown a
            dagger) and `grey`, in this order.
        small: Small print behind the text, such as an interval.
    """

    text: str | None
    marks: Sequence[str] = ()
    small: str = ""

    def formatted(self, to: str, number: bool) -> str:
        """Return the cell in a format; minus signs of numbers are long in LaTeX."""
        if self.text is None:
            return _NONE[to]
        plain = self.text.replace("|", r"\|")  # Markdown needs no more for numbers
        text = plain if number and to == "markdown" else _ESCAPES[to](self.text)
        text += _SMALL[to].format(self.small) * bool(self.small)
        text = text.replace("-", "$-$") if number and to == "latex" else text
        for mark in self.marks:
            text = _MARKS[mark][to].format(text)
        return text


@dataclass(frozen=True)
class Grid:
    """A table; as text it is Markdown, and a notebook shows it.

    Attributes:
        heads: A name above each column, or several, one below the other.
        cells: The cells of each row, or their texts or numbers.
        caption: What the table shows.
        legend: What its marks mean; `DAGGER` stands for white boxes.
        notes: What else there is to say; LaTeX has them as comments.
        left: Positions of the columns of names, which are left-aligned; others have numbers.
        data: The rows of a CSV; None: the cells' texts.
        signature: What the numbers are numbers of; a CSV lacks it, LaTeX has it as a comment.
    """

    heads: Sequence[str | Sequence[str]]
    cells: Sequence[Sequence[Any]]
    caption: str = ""
    legend: Sequence[str] = ()
    notes: Sequence[str] = ()
    left: Collection[int] = (0,)
    data: pd.DataFrame | None = None
    signature: str = ""

    def __str__(self) -> str:
        return self.markdown()

    def _repr_html_(self) -> str:
        return self.html()

    @property
    def rows(self) -> list[list[Cell]]:
        """The cells of each row."""
        return [[x if isinstance(x, Cell) else Cell(str(x)) for x in row] for row in self.cells]

    @property
    def texts(self) -> list[list[str]]:
        """The texts of each row for the terminal."""
        return [[" ".join(filter(None, [x.text, x.small])) for x in row] for row in self.rows]

    def rich_table(self, ruled: bool = True) -> Table:
        """Return the table alone for the terminal; `ruled` underlines the heads."""
        edge: dict[str, Any] = {"show_edge": False, "padding": (0, 1, 0, 0)} if ruled else {}
        table = Table(pad_edge=False, box=box.SIMPLE_HEAD if ruled else None, **edge)
        for place, head in enumerate(self.heads):
            side: Any = "left" if place in self.left else "right"
            table.add_column(Text(_joined(head)), justify=side, overflow="fold")
        for row in self.texts:
            table.add_row(*map(Text, row))  # Text, because rich reads [..] in a str as a style
        return table

    def terminal(self, ruled: bool = True) -> Group:
        """Return the table for the terminal, between its caption and its legend."""
        below = "\n".join(filter(None, [*self.legend, *self.notes, self.signature]))
        table = self.rich_table(ruled) if self.heads else None
        parts: list[Any] = [Text(self.caption, "bold"), table, Text(below, "italic")]
        return Group(*filter(None, parts))

    def markdown(self) -> str:
        """Return the table in Markdown, with the caption below."""
        heads = [_ESCAPES["markdown"](_line(head)) for head in self.heads]
        lines = (heads, ["---"] * len(heads), *self._in("markdown"))
        rows = [f"| {' | '.join(line)} |" for line in lines]
        signature = [f"`{self.signature}`", ""] if self.signature else []
        return "\n".join([*rows, "", self._words("markdown", self.notes), "", *signature])

    def html(self) -> str:
        """Return the table in HTML."""
        tags = ["th" if place in self.left else "td" for place in range(len(self.heads))]
        rows = ["".join(f"<th>{_ESCAPES['html'](_line(head))}</th>" for head in self.heads)]
        for row in self._in("html"):
            cells = (f"<{tag}>{text}</{tag}>" for tag, text in zip(tags, row, strict=True))
            rows.append("".join(cells))
        signature = f"<br><code>{html.escape(self.signature)}</code>" * bool(self.signature)
        caption = f"<caption>{self._words('html', self.notes)}{signature}</caption>"
        lines = [f'<table class="plain">{caption}', *(f"<tr>{row}</tr>" for row in rows)]
        return "\n".join([*lines, "</table>", ""])

    def latex(self, wide: bool = False, small: bool = False) -> str:
        """Return the table in LaTeX; `wide` spans both columns of a page, `small` uses 8 pt."""
        star, edge = "*" * wide, "@{}" * small
        sides = "".join("l" if place in self.left else "r" for place in range(len(self.heads)))
        lines = [
            r"% needs \usepackage{booktabs} and \usepackage{xcolor}",
            *(
                f"% {' '.join(note.split())}"
                for note in filter(None, [*self.notes, self.signature])
            ),
            rf"\begin{{table{star}}}[t]",
            r"\centering",
            rf"\caption{{{self._words('latex')}}}",
            *[r"\footnotesize", r"\setlength{\tabcolsep}{2pt}"] * small,
            rf"\begin{{tabular}}{{{edge}{sides}{edge}}}",
            r"\toprule",
            *self._heads_in_latex(),
            r"\midrule",
        ]
        for number, row in enumerate(self._in("latex")):
            new = number and row[0] and {0, 1} <= {*self.left}  # the first of several names
            lines += [*[r"\midrule"] * bool(new), rf"{' & '.join(row)} \\"]
        ends = [r"\bottomrule", r"\end{tabular}", rf"\end{{table{star}}}", ""]
        return "\n".join([*lines, *ends])

    def csv(self) -> str:
        """Return the values as CSV, without formulas that a spreadsheet would evaluate."""
        texts, heads = [[cell.text for cell in row] for row in self.rows], map(_line, self.heads)
        return csv_of(pd.DataFrame(texts, columns=[*heads]) if self.data is None else self.data)

    def _in(self, to: str) -> Iterator[list[str]]:
        for row in self.rows:
            yield [cell.formatted(to, place not in self.left) for place, cell in enumerate(row)]

    def _heads_in_latex(self) -> Iterator[str]:
        """Yield the lines of heads; equal ones side by side are one, except in the last line."""
        heads = [(head,) if isinstance(head, str) else tuple(head) for head in self.heads]
        last = len(heads[0]) - 1
        for level in range(last + 1):
            keys = [(*head[: level + 1], at * (level == last)) for at, head in enumerate(heads)]
            names = list[str]()
            for key, same in groupby(keys):
                name, count = _ESCAPES["latex"](_line(str(key[-2]))), len([*same])
                names.append(rf"\multicolumn{{{count}}}{{c}}{{{name}}}" if count > 1 else name)
            yield rf"{' & '.join(names)} \\"

    def _words(self, to: str, notes: Sequence[str] = ()) -> str:
        """Return caption, legend and notes as sentences."""
        legend = "; ".join(self.legend)
        legend = legend if to == "markdown" else legend.replace(DAGGER, "grey")
        parts = filter(None, [self.caption, legend[:1].upper() + legend[1:], *notes])
        return _ESCAPES[to](" ".join(f"{part}." for part in parts))


def fitting(grids: Sequence[Grid], width: int) -> Grid:
    """Return the first table that fits a terminal of so many characters, or else the last."""
    console = Console(width=10_000)
    fits = (grid for grid in grids if console.measure(grid.rich_table()).maximum <= width)
    return next(fits, grids[-1])


def _joined(head: str | Sequence[str]) -> str:
    return head if isinstance(head, str) else " ".join(filter(None, head))


def _line(head: str | Sequence[str]) -> str:
    return _joined(head).replace("\n", " ")
