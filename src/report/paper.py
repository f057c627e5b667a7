"""Tables for papers, with chosen rows, columns and values, as LaTeX, Markdown or CSV."""

import html
import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from math import nan
from typing import Any

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from src.artifacts.frame_jobs import Sweeps, jobs_of
from src.report.caption import PARTIAL, caption_of, details_of
from src.report.cells import (
    AVERAGE,
    AXES,
    DIFFERENCE,
    VALUES,
    Cells,
    cells_of,
    seeds_of,
)
from src.report.summary import summarise
from src.utils.files import no_formula
from src.utils.model_ref import renamed

_LATEX = str.maketrans(
    {mark: f"\\{mark}" for mark in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
)
ESCAPES: dict[str, Callable[[Any], str]] = {
    "html": html.escape,
    "latex": lambda text: text.translate(_LATEX),
    "markdown": lambda text: re.sub(
        r"([\\`*{}\[\]<>|#]|(?<![^\W_])_|_(?![^\W_]))",  # Markdown keeps _ within a word
        r"\\\1",
        text,
    ),
}
"""Functions that escape names for each format."""
_SMALL = {"latex": r" {{\scriptsize [{}, {}]}}", "html": " <small>[{}, {}]</small>"}
_NONE = {"latex": "--", "html": "&ndash;"}
_STYLES = {
    "best": "font-weight: bold",
    "undecided": "font-style: italic",
    "white": "color: #777777",
}
_ALONE = {"attack", "defence"}
"""Axes that are never averaged."""
_MARKS, _DAGGER = {"best": "**", "undecided": "*"}, "\N{DAGGER}"


def table(
    folder: Sweeps | pd.DataFrame,
    *more: Sweeps,
    rows: str | Sequence[str] = ("source", "attack"),
    columns: str | Sequence[str] = "target",
    value: str = "success",
    eps_255: float | None = None,
    protocol: str | None = None,
    average: bool = True,
    white_boxes: bool = True,
    intervals: bool = False,
    strongest: bool = False,
    differences: bool = False,
    related: str = "keep",
    defence: str | None = None,
    names: Mapping[str, str] | None = None,
    wide: bool = False,
    small: bool = False,
    to: str | None = None,
) -> Styler | str:
    r"""Lay out a table for a paper, with a caption that explains its numbers and marks.

    A cell shows the value for one pair of source and target, or the mean over several pairs without
    white boxes. The best of the comparable attacks is bold. Attacks that are not significantly
    weaker are in italics, as tested in the report's ranking.

    Args:
        folder: A frame from `load_sweep` or `transfer`, a folder that contains sweeps, or several
            folders by name, as in `{"day1": "outputs/DATE"}`.
        *more: Further folders.
        rows: One or more of `attack`, `source`, `target` and `defence`.
        columns: One or more of the same axes.
        value: `success`, `accuracy` (robust accuracy), `confidence`, `success_confidence` (over
            fooled images only) or `gradients` (per image); with `diagnostics=full` also `rms`
            (change in 1/255), `psnr` and `ssim`.
        eps_255: Budget in units of 1/255; None: each job's reference budget.
        protocol: Images to count; None: each job's protocol.
        average: Add a column with the mean over targets, each over the sources other than itself,
            if the columns are sources or targets; for success that is the mean of `rankings`.
        white_boxes: Show white boxes in grey; False leaves them out.
        intervals: Add the 95 % intervals of single pairs in small print.
        strongest: Add rows for the strongest attacker on each target, per set and per image.
        differences: Add a column of differences from the first attack in the ranking, in points,
            with simultaneous 95 % intervals.
        related: `exclude` treats networks with the source's weights, architecture or family as
            white boxes.
        defence: Show only targets behind this defence, such as `none`.
        names: Printed names of attacks, models and defences, by their own names.
        wide: LaTeX: span both columns of the page.
        small: LaTeX: use smaller type and less space between columns.
        to: `latex` (needs booktabs and xcolor), `markdown` or `csv` (numbers without a caption).
            None: a pandas Styler, which a notebook displays.

    Raises:
        ValueError: As `load_sweep`; an argument has an unknown value; or a cell would combine
            several attacks or several defences (of targets or of sources).
    """
    rows, columns = ([axes] if isinstance(axes, str) else list(axes) for axes in (rows, columns))
    jobs = summarise(jobs_of(folder, *more), related).attacked
    if not jobs:
        raise ValueError("These jobs have only clean images; a table needs jobs with an attack.")
    _check(rows, columns, value, to, strongest)
    if differences and not (average and "attack" in rows and value == "success"):
        raise ValueError("differences needs attack in rows, value=success and average=True.")
    cells = cells_of(jobs, value, eps_255, protocol)
    cells = cells if defence is None else cells.behind(defence)
    _check_means(cells.pairs, [*rows, *columns])
    body = _body(cells, rows, columns, average, strongest, differences)
    place = partial(_wide, rows=rows, columns=columns, white_boxes=white_boxes, names=names or {})
    if to == "csv":
        return _csv(place(body), intervals)
    caption = caption_of(
        jobs,
        cells,
        body,
        rows,
        columns,
        white_boxes=white_boxes,
        intervals=intervals,
        strongest=strongest,
        white=_DAGGER if to == "markdown" else "grey",
    )
    form, records = VALUES[value].form, body.to_dict("records")
    signed = [form.replace(":", ":+") if cell[columns[0]] == DIFFERENCE else "" for cell in records]
    body["text"] = [
        _text(cell, sign or form, intervals or bool(sign), to or "html")
        for cell, sign in zip(records, signed, strict=True)
    ]
    body["css"] = ["; ".join(css for key, css in _STYLES.items() if cell[key]) for cell in records]
    laid_out = _lay_out(place(body), caption, details_of(jobs, cells), to or "html")
    return _sized(laid_out, wide, small) if isinstance(laid_out, str) else laid_out


def _check(
    rows: Sequence[str], columns: Sequence[str], value: str, to: str | None, strongest: bool
) -> None:
    for key, names, known in (
        ("rows", rows, AXES),
        ("columns", columns, AXES),
        ("value", [value], VALUES),
        ("to", [to] if to else [], ("latex", "markdown", "csv")),
    ):
        if set(names) - set(known) or (key != "to" and not names):
            raise ValueError(f"{key}={','.join(names)}: choose from {', '.join(known)}.")
    if set(rows) & set(columns):
        raise ValueError(f"{', '.join(set(rows) & set(columns))} is in both rows and columns.")
    needed = {"attack": rows, "target": columns, value: ("success", "accuracy")}
    if strongest and not all(name in names for name, names in needed.items()):
        raise ValueError(
            "strongest needs attack in rows, target in columns, and value=success or accuracy."
        )


def _check_means(pairs: pd.DataFrame, keys: Sequence[str]) -> None:
    """Raise a `ValueError` if a cell combines several attacks, defences or defended sources."""
    several = {axis: list(pairs[axis].unique()) for axis in sorted(_ALONE)}
    several["source"] = [f"sources behind {name}" for name in pairs["source_defence"].unique()]
    for axis, names in several.items():
        if axis not in keys and len(names) > 1:
            raise ValueError(f"add {axis} to rows or columns: there are {', '.join(names)}.")


def _body(
    cells: Cells,
    rows: Sequence[str],
    columns: Sequence[str],
    average: bool,
    strongest: bool,
    differences: bool,
) -> pd.DataFrame:
    """Return the cells of a table, including averages and strongest attackers."""
    pairs = cells.table([*rows, *columns])
    several = len(pairs[[*columns]].drop_duplicates()) > 1
    average &= several and all(pairs[key].nunique() == 1 for key in _ALONE & {*columns})
    if differences and not average:
        raise ValueError("differences are those of averages over columns of sources or targets.")
    parts = [pairs]
    blank: dict[str, Any] = dict.fromkeys(columns, "") | {columns[0]: AVERAGE}
    blank |= dict.fromkeys(("low", "high", "least", "most"), nan)
    if average:
        means = cells.table(rows)
        parts.append(means[~means["white"]].assign(**blank))
    if differences:
        parts.append(_differences(parts[-1], columns))
    if strongest:
        parts.append(cells.strongest())
    if strongest and average:
        groups = parts[-1].groupby(list(rows), sort=False, as_index=False)
        marks = dict.fromkeys(("white", "partial", "best", "undecided"), False)
        parts.append(groups[["value"]].mean().assign(**blank, **marks))
    body = pd.concat(parts, ignore_index=True)
    return body.assign(sd=body[seeds_of(body)].std(axis=1).round(12))


def _differences(means: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Compute the column of differences between each averaged attack and the first."""
    cells = means.dropna(subset=DIFFERENCE).drop(columns=seeds_of(means))
    ends = {end or "value": cells[f"{DIFFERENCE}{end and '_'}{end}"] for end in ("", "low", "high")}
    marks = dict.fromkeys(("best", "undecided", "partial"), False)
    return cells.assign(**ends, **marks, **{columns[0]: DIFFERENCE})


def _wide(
    cells: pd.DataFrame,
    rows: Sequence[str],
    columns: Sequence[str],
    white_boxes: bool,
    names: Mapping[str, str],
) -> pd.DataFrame:
    """Pivot the cells: for each column of `cells`, a block of rows and columns of the table.

    Names keep the order of their first cells.
    """
    for axis in (*rows, *columns):
        new = cells[axis].map(lambda name: renamed(name, names))
        if new.nunique() < cells[axis].nunique():
            raise ValueError("names: two rows or columns would get the same new name.")
        cells = cells.assign(**{axis: new})
    cells = cells.assign(
        **{axis: pd.Categorical(cells[axis], cells[axis].unique()) for axis in (*rows, *columns)}
    )
    axes: dict[str, Any] = {"index": list(rows), "columns": list(columns)}
    wide = cells.pivot(**axes)
    return wide if white_boxes else cells[~cells["white"]].pivot(**axes).reindex_like(wide)


def _csv(wide: pd.DataFrame, intervals: bool) -> str:
    """Return the table's numbers as CSV.

    Further columns have the ends of the intervals, the standard deviation over the seeds, the value
    for each seed, and whether the number is `partial`.
    """
    escape, seeds = no_formula, ["sd", *seeds_of(wide)]
    frame = wide.index.to_frame(index=False).astype(object).map(escape)
    for place in _places(wide):
        ends = ["value", *(("low", "high") if intervals or place[0] == DIFFERENCE else ())]
        ends += [end for end in seeds if wide[(end, *place)].notna().any()]
        ends += ["partial"] * bool(wide[("partial", *place)].eq(True).any())
        for end in ends:
            names = [*place, "" if end == "value" else end]
            frame[escape(" ".join(filter(None, names)))] = wide[(end, *place)].to_numpy()
    return frame.to_csv(index=False, lineterminator="\n")


def _lay_out(wide: pd.DataFrame, caption: str, details: Sequence[str], to: str) -> Styler | str:
    """Return row names and cell texts as Markdown, LaTeX or a Styler.

    The details follow the caption; in LaTeX they are comments.
    """
    escape, places = ESCAPES[to], _places(wide)
    full_caption = f"{caption} {'. '.join(details)}."
    names = wide.index.to_frame(index=False).astype(object)
    new = names.ne(names.shift()).cummax(axis=1)  # this name, or one left of it, differs
    heads = [(name, *[""] * (len(places[0]) - 1)) for name in names] + places
    heads = [tuple(map(escape, head)) for head in heads]
    texts = wide["text"].fillna(_NONE.get(to, "\N{EN DASH}")).to_numpy()
    shown = np.hstack([names.map(escape).where(new, "").to_numpy(), texts])
    if to == "markdown":
        lines = [[" ".join(filter(None, head)) for head in heads], ["---"] * len(heads), *shown]
        return (
            "\n".join(f"| {' | '.join(line)} |" for line in lines) + f"\n\n{escape(full_caption)}\n"
        )
    header = pd.MultiIndex.from_tuples(heads) if len(heads[0]) > 1 else [head[0] for head in heads]
    css = pd.DataFrame("", range(len(shown)), header)
    css.iloc[:, names.shape[1] :] = wide["css"].fillna("").to_numpy()
    styler = pd.DataFrame(shown, columns=header).style.apply(lambda _: css, axis=None)
    styler = styler.hide(axis="index").set_caption(
        escape(caption if to == "latex" else full_caption)
    )
    if to == "html":
        return styler
    latex = styler.to_latex(
        hrules=True,
        convert_css=True,
        column_format="l" * names.shape[1] + "r" * len(places),
        multicol_align="c",
        position="t",
        position_float="centering",
    )
    spanned = r"\\multicolumn{2}{l}{\1} &"  # otherwise these names widen the second column
    latex = re.sub(r"^ & (strongest per \w+) &", spanned, latex, flags=re.MULTILINE)
    comments = [f"% {' '.join(line.split())}" for line in details]
    needs = "% needs \\usepackage{booktabs} and \\usepackage{xcolor}"
    lines = [needs, *comments, *latex.splitlines()]
    first = lines.index(r"\midrule") + 1
    for number in reversed(np.flatnonzero(new.iloc[1:, 0]) if names.shape[1] > 1 else ()):
        lines.insert(first + number + 1, r"\midrule")
    return "\n".join(lines) + "\n"


def _sized(latex: str, wide: bool, small: bool) -> str:
    """Make a LaTeX table span both columns (`wide`), or use small type without outer margins."""
    if wide:
        latex = re.sub(r"(\\(?:begin|end)\{table)", r"\1*", latex)
    if small:
        head = r"\\footnotesize\n\\setlength{\\tabcolsep}{2pt}\n\\begin{tabular}{@{}\1@{}}"
        latex = re.sub(r"\\begin\{tabular\}\{(\w+)\}", head, latex)
    return latex


def _places(wide: pd.DataFrame) -> list[tuple[Any, ...]]:
    """Return the names that head each column."""
    return [place if isinstance(place, tuple) else (place,) for place in wide["value"]]


def _text(cell: Mapping[Hashable, Any], form: str, intervals: bool, to: str) -> str:
    if pd.isna(cell["value"]):
        return "n/a"
    low, text, high = (form.format(cell[name]).rstrip("%") for name in ("low", "value", "high"))
    if not pd.isna(cell["sd"]):
        text += f" \N{PLUS-MINUS SIGN} {form.format(cell['sd']).rstrip('%')}"
    if intervals and not pd.isna(cell["low"]):
        text += _SMALL.get(to, " [{}, {}]").format(low, high)
    text = text.replace("-", "$-$") if to == "latex" else text
    notes = f" {PARTIAL}" * bool(cell["partial"])
    if to != "markdown":
        return text + notes
    marks = "".join(mark for key, mark in _MARKS.items() if cell[key])
    return f"{marks}{text}{marks}{notes}" + f" {_DAGGER}" * bool(cell["white"])
