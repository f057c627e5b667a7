"""Tables for papers: rows, columns and value of choice, as LaTeX, Markdown or CSV."""

import html
import re
from collections.abc import Callable, Hashable, Sequence
from math import nan
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.io.formats.style import Styler

from src.analysis.summary import summarise
from src.frames.caption import caption_of
from src.frames.cells import AVERAGE, AXES, VALUES, Cells, cells_of
from src.frames.frame import jobs_of

_LATEX = str.maketrans(
    {each: f"\\{each}" for each in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
)
ESCAPES: dict[str, Callable[[str], str]] = {
    "html": html.escape,
    "latex": lambda text: text.translate(_LATEX),
    "markdown": lambda text: re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", text),
    # A spreadsheet would take the rest for a formula.
    "csv": lambda text: f"'{text}" if text[:1] in tuple("=+-@\t\r") else text,
}
"""Names as each format needs them."""
_SMALL = {"latex": r" {{\scriptsize [{}, {}]}}", "html": " <small>[{}, {}]</small>"}
_FORMS = {"gradients": "{:,.0f}", "rms": "{:.2f}", "psnr": "{:.1f}", "ssim": "{:.3f}"}
_NONE = {"latex": "--", "html": "&ndash;"}
Place = tuple[str, ...]
Cell = dict[Hashable, Any]


def table(
    folder: str | Path | pd.DataFrame,
    *more: str | Path,
    rows: str | Sequence[str] = ("source", "attack"),
    columns: str | Sequence[str] = "target",
    value: str = "success",
    eps_255: float | None = None,
    protocol: str | None = None,
    average: bool = True,
    white_boxes: bool = True,
    intervals: bool = False,
    strongest: bool = False,
    to: str | None = None,
) -> Styler | str:
    r"""Lay out a table of a sweep for a paper, with a caption that says what its numbers are.

    A cell is the value of a pair of source and target or, where it holds several, their mean
    without white boxes. Of the attacks that share all else the best is bold, and in italics stand
    those that cannot be told from it, as in the report's ranking.

    Args:
        folder: A frame of `load_sweep` or `transfer`; a sweep's folder, or any other that holds
            such folders.
        *more: Further folders.
        rows: What a row is: one or more of `attack`, `source`, `target` and `defence`.
        columns: What a column is, likewise.
        value: `success`, `accuracy` (robust accuracy), `confidence` or `gradients` (an image); of
            jobs with `diagnostics.stealth=true` also `rms` (change in 1/255), `psnr` and `ssim`.
        eps_255: Budget in units of 1/255; None: each job's reference budget.
        protocol: Images that are counted; None: each job's own.
        average: Add a column of means over the row's cells but white boxes.
        white_boxes: Show white boxes in grey; False leaves them out.
        intervals: Add the 95 % intervals of single pairs in small print.
        strongest: Add rows of targets against the strongest attacker, per set and per image.
        to: `latex` (booktabs and xcolor), `markdown` or `csv` (numbers without a caption); None: a
            pandas Styler, which a notebook shows.

    Raises:
        ValueError: As `load_sweep`; an argument is unknown; or several attacks share a cell.
    """
    rows, columns = ([each] if isinstance(each, str) else list(each) for each in (rows, columns))
    jobs = summarise(jobs_of(folder, *more)).attacked
    if not jobs:
        raise ValueError("There are clean images alone, of which there is no such table.")
    _check(rows, columns, value, to, strongest)
    cells = cells_of(jobs, value, eps_255, protocol)
    keys = [*rows, *columns]
    if "attack" not in keys and len(names := cells.pairs["attack"].unique()) > 1:
        raise ValueError(f"rows or columns must have attack: there are {', '.join(names)}.")
    parts = [cells.table(keys)]
    several = len(parts[0][columns].drop_duplicates()) > 1
    if average and several:
        parts.append(_averages(parts[0], cells, rows, columns))
    if strongest:
        extra = cells.strongest()
        if "defence" not in keys and len(names := extra["defence"].unique()) > 1:
            raise ValueError(
                f"strongest needs defence in rows or columns: there are {', '.join(names)}."
            )
        parts += [extra, *([_averages(extra, cells, rows, columns)] if len(parts) > 1 else [])]
    body = pd.concat(parts, ignore_index=True)
    options: dict[str, Any] = {"rows": rows, "columns": columns, "average": average and several}
    options |= {"white_boxes": white_boxes, "intervals": intervals, "strongest": strongest}
    text = caption_of([one.job for one in jobs], cells, body, **options)
    shown = body if white_boxes else body[~body["white"]]
    places = _places(body, rows), _places(body, columns)
    return _rendered(shown, rows, columns, places, value, intervals, text, to)


def _check(
    rows: Sequence[str], columns: Sequence[str], value: str, to: str | None, strongest: bool
) -> None:
    for key, given, known in (
        ("rows", rows, AXES),
        ("columns", columns, AXES),
        ("value", [value], VALUES),
        ("to", [to] if to else [], ("latex", "markdown", "csv")),
    ):
        if set(given) - set(known) or (key != "to" and not given):
            raise ValueError(f"{key}={','.join(given)}: there are {', '.join(known)}.")
    if set(rows) & set(columns):
        raise ValueError(f"{', '.join(set(rows) & set(columns))} is in rows and in columns.")
    wanted = {"attack": rows, "target": columns, value: ("success", "accuracy")}
    if strongest and not all(key in given for key, given in wanted.items()):
        raise ValueError(
            "strongest needs attack in rows, target in columns, and the value success or accuracy."
        )


def _averages(
    body: pd.DataFrame, cells: Cells, rows: Sequence[str], columns: Sequence[str]
) -> pd.DataFrame:
    """Return the means over the cells of each row, without white boxes, as a further column."""
    means = body[~body["white"]].groupby(list(rows), sort=False, as_index=False)["value"].mean()
    blank = dict.fromkeys(columns, "") | {columns[0]: AVERAGE}
    numbers = {"low": nan, "high": nan, "white": False, "least": nan, "most": nan}
    return cells.marked(means.assign(**numbers), rows).assign(**blank)


def _rendered(
    body: pd.DataFrame,
    rows: Sequence[str],
    columns: Sequence[str],
    places: tuple[list[Place], list[Place]],
    value: str,
    intervals: bool,
    caption: str,
    to: str | None,
) -> Styler | str:
    """Return cells in the places of a table, in one of the formats."""
    how, escape = to or "html", ESCAPES[to or "html"]
    below, beside = places
    found = {
        (tuple(cell[key] for key in rows), tuple(cell[key] for key in columns)): cell
        for cell in body.to_dict("records")
    }
    if how == "csv":
        return _csv(found, rows, below, beside, intervals)
    shown: list[list[str]] = []
    styles: list[list[str]] = []
    before: Place = ()
    for place in below:
        new = [part if place[: n + 1] != before[: n + 1] else "" for n, part in enumerate(place)]
        its = [found.get((place, at)) for at in beside]
        shown.append([*map(escape, new), *(_text(cell, value, intervals, how) for cell in its)])
        styles.append([""] * len(rows) + list(map(_style, its)))
        before = place
    levels = [(name, *[""] * (len(columns) - 1)) for name in rows] + beside
    heads = [tuple(map(escape, map(str, level))) for level in levels]
    header = pd.MultiIndex.from_tuples(heads) if len(columns) > 1 else [head[0] for head in heads]
    display = pd.DataFrame(shown, columns=header)
    if how == "markdown":
        return _markdown(shown, styles, heads, escape(caption))
    css = pd.DataFrame(styles, columns=header)
    styler = display.style.apply(lambda _: css, axis=None).hide(axis="index")
    styler = styler.set_caption(escape(caption))
    if how == "html":
        return styler
    form = "l" * len(rows) + "r" * len(beside)
    float_at: dict[str, Any] = {"position": "t", "position_float": "centering"}
    made = styler.to_latex(
        hrules=True, convert_css=True, column_format=form, multicol_align="c", **float_at
    )
    lines = ["% needs \\usepackage{booktabs} and \\usepackage{xcolor}", *str(made).splitlines()]
    first = lines.index(r"\midrule") + 1
    for number in range(len(below) - 1, 0, -1):
        if len(rows) > 1 and below[number][0] != below[number - 1][0]:
            lines.insert(first + number, r"\midrule")
    return "\n".join(lines) + "\n"


def _places(body: pd.DataFrame, axes: Sequence[str]) -> list[Place]:
    """Return the rows, or the columns, in blocks of equal names, each as they first appear."""
    order = [list(body[axis].unique()) for axis in axes]
    found = body[list(axes)].drop_duplicates().itertuples(index=False, name=None)
    places = sorted(found, key=lambda place: list(map(list.index, order, place)))
    return sorted(places, key=lambda place: place[0] == AVERAGE)


def _text(cell: Cell | None, value: str, intervals: bool, how: str) -> str:
    if cell is None:
        return _NONE.get(how, "\N{EN DASH}")
    if pd.isna(cell["value"]):
        return "n/a"
    form = _FORMS.get(value, "{:.1%}")
    ends = (form.format(cell[each]).rstrip("%") for each in ("low", "value", "high"))
    low, number, high = ends
    if not intervals or pd.isna(cell["low"]):
        return number
    return number + _SMALL.get(how, " [{}, {}]").format(low, high)


def _style(cell: Cell | None) -> str:
    if cell is None:
        return ""
    bold, italic, grey = "font-weight: bold", "font-style: italic", "color: #777777"
    words = {"best": bold, "undecided": italic, "white": grey}
    return "; ".join(css for key, css in words.items() if cell[key])


def _markdown(
    shown: list[list[str]], styles: list[list[str]], heads: list[Place], caption: str
) -> str:
    marks = {"bold": "**", "italic": "*"}
    lines = [[" ".join(filter(None, head)) for head in heads]]
    lines.append(["---"] * len(heads))
    for row, css in zip(shown, styles, strict=True):
        ends = [marks.get(each.rpartition(" ")[2], "") for each in css]
        lines.append([f"{end}{text}{end}" for end, text in zip(ends, row, strict=True)])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{table}\n\n{caption}\n"


def _csv(
    found: dict[tuple[Place, Place], Cell],
    rows: Sequence[str],
    below: list[Place],
    beside: list[Place],
    intervals: bool,
) -> str:
    escape, ends = ESCAPES["csv"], ("value", *(("low", "high") if intervals else ()))
    lines = []
    for place in below:
        line: dict[str, Any] = dict(zip(rows, map(escape, place), strict=True))
        for at in beside:
            name = " ".join(filter(None, at))
            for end in ends:
                key = escape(name if end == "value" else f"{name} {end}")
                line[key] = found.get((place, at), {}).get(end)
        lines.append(line)
    return pd.DataFrame(lines).to_csv(index=False, lineterminator="\n")
