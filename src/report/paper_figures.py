"""Figures for papers: one panel of a printed size, without menus."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd
import vl_convert
from altair.typing import ChartType

from src.analysis import CLEAN, TRANSFER, WHITE_BOX
from src.artifacts.frame_jobs import Sweeps, jobs_of
from src.report.charts.theme import ACCENT, MEAN, PERCENT, WHITE_BOX_GREY, inline
from src.report.page.statistics import Measured, primary_rates
from src.report.page.view import View, make_view
from src.report.summary import summarise
from src.utils.defended_names import PLAIN
from src.utils.files import atomic_write
from src.utils.refusals import suggestion

POINTS = {"in": 72.0, "cm": 72 / 2.54, "mm": 72 / 25.4, "pt": 1.0}
"""Units of a length, in points of 1/72 inch."""
SUFFIXES = (".pdf", ".svg", ".png")
_AXES = ("attack", "source", "target")
_TEXT, _NAME_HEIGHT = 7.5, 9.0  # points

Names = Mapping[str, str]
Named = Sequence[str] | str | None


def figure(
    kind: str,
    folder: Sweeps | pd.DataFrame,
    *more: Sweeps,
    attack: Named = None,
    source: Named = None,
    target: Named = None,
    eps_255: float | None = None,
    protocol: str | None = None,
    width: str | float = "3.3in",
    height: str | float = "2in",
    names: Names | None = None,
) -> ChartType:
    """Draw a figure for a paper, of the size that it is printed in, with text of 7.5 points.

    Args:
        kind: `curves`: images fooled over the budget, a line per attack, source or target, of
            which several are shown; `ranking`: attacks by the mean on other models, with 95 %
            intervals, in colour the first and what cannot be told from it; `cost`: the same over
            gradients per image; `matrix`: sources and targets of one attack, white boxes grey.
        folder: A frame of `load_sweep` or `transfer`, or folders as for `table`.
        *more: Further folders.
        attack: The attacks that are shown; None: all. Of a matrix, and of lines per source or
            target, the one; None: the first ranked.
        source: The sources; None: all. Lines and points are means over them.
        target: The targets; None: all. Lines are means over them, without white boxes unless there
            is nothing else.
        eps_255: Budget in 1/255, of `curves` the largest one; None: the reference budget, or all.
        protocol: Images that are counted; None: that of the first job.
        width: Printed width, as `3.3in`, `8.4cm`, `84mm` or `240pt`; a number is in points.
        height: Printed height.
        names: Names to print in place of those of models and attacks.

    Returns:
        An Altair chart; `save_figure` writes it.

    Raises:
        ValueError: As `load_sweep`, a name or length is unknown, or nothing is left to draw.
    """
    kinds = {"curves": _curves, "ranking": _ranking, "cost": _cost, "matrix": _matrix}
    draw: Callable[..., Any] | None = kinds.get(kind)
    if draw is None:
        known = ", ".join(kinds)
        raise ValueError(f"figure={kind}: the figures are {known}.{suggestion(kind, [*kinds])}")
    summary = summarise(jobs_of(folder, *more))
    if not (jobs := summary.attacked):
        raise ValueError("The jobs hold clean images alone; figures are of attacks.")
    numbers = Measured(summary.rankings, tables={"rates": primary_rates(jobs)})
    view = make_view(jobs[0].job.record, numbers)
    chosen = {
        name: [value] if isinstance(value, str) else list(value or ())
        for name, value in zip(_AXES, (attack, source, target), strict=True)
    }
    rows = view.rows[view.rows["source"] != CLEAN]
    _check(rows, chosen, eps_255, protocol)
    rows = rows[(rows["protocol"] == (protocol or view.choice.protocol)) & _is_plain(rows)]
    size = points(width), points(height)
    chart = draw(view, rows, chosen, eps_255, names or {}, size[1])
    fit = alt.AutoSizeParams(type="fit", contains="padding")
    chart = chart.properties(width=size[0], height=size[1], autosize=fit)
    font: dict[str, Any] = {"labelFontSize": _TEXT, "titleFontSize": _TEXT}
    font |= {"titleFontWeight": "normal"}
    axis = font | {"gridOpacity": 0.35, "tickSize": 3, "domain": False, "labelLimit": 160}
    fonts = "Helvetica, Arial, Liberation Sans"
    drawn: ChartType = chart.configure(font=fonts, axis=axis, view={"stroke": None})
    return drawn


def points(length: str | float) -> float:
    """Return a length in points.

    >>> points("1in"), points("2.54 cm"), points(72)
    (72.0, 72.0, 72.0)
    """
    found = re.fullmatch(r"([\d.]+) *(in|cm|mm|pt)?", str(length))
    value = float(found[1]) * POINTS[found[2] or "pt"] if found and found[1] != "." else 0
    if not 36 <= value <= 2000:
        raise ValueError(f"length={length}: write it as 3.3in, 8.4cm, 84mm or 240pt, from 36pt on.")
    return value


def save_figure(chart: ChartType, path: Path) -> None:
    """Write a figure as PDF, SVG or PNG (600 dots per inch), by the file's suffix."""
    if path.suffix not in SUFFIXES:
        raise ValueError(f"out={path}: the suffix must be one of {', '.join(SUFFIXES)}.")
    spec: Any = chart.to_dict()
    if path.suffix == ".pdf":
        content = vl_convert.vegalite_to_pdf(spec)
    elif path.suffix == ".png":
        content = vl_convert.vegalite_to_png(spec, ppi=600)
    else:
        text = vl_convert.vegalite_to_svg(spec)
        content = re.sub(r'(width|height)="([\d.]+)"', r'\1="\2pt"', text, count=2).encode()
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


def _is_plain(rows: pd.DataFrame) -> pd.Series:
    return rows["defence"] == PLAIN


def _check(
    rows: pd.DataFrame, chosen: dict[str, list[str]], eps_255: float | None, protocol: str | None
) -> None:
    """Refuse names, a budget or a protocol that the jobs lack."""
    asked: dict[str, list[Any]] = dict(chosen)
    asked |= {"eps": [eps_255] if eps_255 else [], "protocol": [protocol] if protocol else []}
    for name, values in asked.items():
        column = {"eps": "eps_255"}.get(name, name)
        known = [value for value in dict.fromkeys(rows[column]) if value != MEAN]
        for value in values:
            if value not in known:
                listed = ", ".join(f"{one:g}" if column == "eps_255" else one for one in known)
                raise ValueError(f"{name}={value}: there are {listed}.")


def _curves(
    view: View, rows: pd.DataFrame, chosen: dict[str, list[str]], eps_255: float | None,
    names: Names, height: float,
) -> ChartType:  # fmt: skip
    """Return lines over the budget with their names at their ends."""
    rows = _named(rows[rows["source"] != MEAN], chosen)
    if (rows["relation"] == TRANSFER).any():  # else a single model, attacked itself
        rows = rows[rows["relation"] == TRANSFER]
    rows = rows[(rows["n"] > 0) & (rows["eps_255"] <= (eps_255 or rows["eps_255"].max()))]
    if rows.empty:
        raise ValueError("nothing to draw: no pair of a source and another model is left.")
    several = [name for name in _AXES if len(chosen[name]) > 1]
    several += [name for name in _AXES if rows[name].nunique() > 1 and not chosen[name]]
    by = several[0] if several else "attack"
    if by != "attack" and not chosen["attack"]:  # a mean over attacks would be of no attacker
        rows = rows[rows["attack"] == view.choice.attack]
    lines = rows.groupby([by, "eps_255"], sort=False)["success_rate"].mean().reset_index()
    lines["name"] = [names.get(value, value) for value in lines[by]]
    last = lines[lines["eps_255"] == lines["eps_255"].max()]
    ends = _spread(last.sort_values("success_rate"), height)
    title, largest = "budget (1/255), square-root scale", float(lines["eps_255"].max())
    scale = alt.Scale(type="sqrt", domain=[0, largest])
    axis = alt.Axis(values=sorted(set(lines["eps_255"])), labelOverlap="greedy", format=".6~g")
    x = alt.X("eps_255:Q", title=title, scale=scale, axis=axis)
    y = alt.Y("success_rate:Q", title="fooled", axis=PERCENT, scale=alt.Scale(domain=[0, 1]))
    order = ends["name"].tolist()[::-1]
    colour = alt.Color("name:N", legend=None, sort=order, scale=alt.Scale(scheme="tableau10"))
    drawn = alt.Chart(inline(lines)).mark_line(point=alt.OverlayMarkDef(size=12), strokeWidth=1.2)
    named = alt.Chart(inline(ends)).encode(color=colour)
    words = named.mark_text(align="left", dx=14, fontSize=_TEXT).encode(
        x=x, y=alt.Y("place:Q"), text="name:N"
    )
    rules = named.mark_rule(strokeWidth=0.5, xOffset=2, x2Offset=12).encode(
        x=x, x2="eps_255:Q", y="success_rate:Q", y2="place:Q"
    )
    return alt.layer(drawn.encode(x=x, y=y, color=colour), rules, words)


def _spread(ends: pd.DataFrame, height: float) -> pd.DataFrame:
    """Return the lines' ends with a `place` for their names, which keep a distance."""
    gap = _NAME_HEIGHT / (height - 34)
    places: list[float] = []
    for value in ends["success_rate"]:
        places.append(max(value, places[-1] + gap) if places else max(value, 0.0))
    over = max(places[-1] - 1.0, 0.0)
    for number in range(len(places) - 1, -1, -1):  # what reaches beyond the top goes down
        above = places[number + 1] - gap if number + 1 < len(places) else places[-1] - over
        places[number] = min(places[number], above)
    return ends.assign(place=places)


def _named(rows: pd.DataFrame, chosen: dict[str, list[str]]) -> pd.DataFrame:
    for name, values in chosen.items():
        if values:
            rows = rows[rows[name].isin(values)]
    return rows


def _ranked(view: View, chosen: dict[str, list[str]], eps_255: float | None) -> pd.DataFrame:
    """Return the ranking of the mean over sources, or of the one source named or there is."""
    rows = view.ranking[view.ranking["mean"].notna()]
    rows = rows[rows["eps_255"] == (view.choice.eps if eps_255 is None else eps_255)]
    if chosen["target"] or len(chosen["source"]) > 1:
        raise ValueError("source, target: a ranking is of one source, or all, on all targets.")
    (source,) = chosen["source"] or [MEAN if (rows["source"] == MEAN).any() else ""]
    rows = rows[rows["source"] == source] if source else rows
    rows = rows[rows["attack"].isin(chosen["attack"])] if chosen["attack"] else rows
    if rows.empty:
        raise ValueError("nothing to draw: these attacks have no ranking, which needs 10 images.")
    return rows[rows["kind"] == rows["kind"].iloc[0]].drop_duplicates("attack")


def _ranking(
    view: View, rows: pd.DataFrame, chosen: dict[str, list[str]], eps_255: float | None,
    names: Names, height: float,
) -> ChartType:  # fmt: skip
    """Return a point with an interval per attack, the first on top."""
    ranked = _ranked(view, chosen, eps_255)
    ranked = ranked.assign(name=[names.get(value, value) for value in ranked["attack"]])
    axis = alt.Axis(format=".0%", tickCount=5, grid=True)
    scale = alt.Scale(zero=False, nice=True)
    x, low = (
        alt.X(f"{name}:Q", title="other models fooled (mean, 95 %)", axis=axis, scale=scale)
        for name in ("mean", "low")
    )
    first = "datum.undecided == 'yes' || datum.undecided == 'first'"
    colour = alt.condition(first, alt.value(ACCENT), alt.value("#6b7788"))
    base = alt.Chart(inline(ranked[["name", "mean", "low", "high", "undecided"]])).encode(
        y=alt.Y("name:N", sort=None, title=None, axis=alt.Axis(ticks=False)), color=colour
    )
    ends = base.mark_rule(strokeWidth=1).encode(x=low, x2="high:Q")
    return alt.layer(ends, base.mark_point(filled=True, size=22, opacity=1).encode(x=x))


def _cost(
    view: View, rows: pd.DataFrame, chosen: dict[str, list[str]], eps_255: float | None,
    names: Names, height: float,
) -> ChartType:  # fmt: skip
    """Return a point per attack over the gradients that an image takes."""
    ranked = _ranked(view, chosen, eps_255)
    cost = ranked["gradients"] + ranked["fit_gradients"].fillna(0)
    ranked = ranked.assign(cost=cost, name=[names.get(value, value) for value in ranked["attack"]])
    ranked = ranked[ranked["cost"] > 0]
    if ranked.empty:
        raise ValueError("nothing to draw: these attacks took no gradient.")
    ends_of = [float(ranked["cost"].min()) / 2, float(ranked["cost"].max()) * 4]  # room for names
    axis = alt.Axis(format="~s", values=[10**power for power in range(7)])
    across = alt.Scale(type="log", domain=ends_of, nice=False)
    x = alt.X("cost:Q", title="gradients per image", scale=across, axis=axis)
    y = alt.Y("mean:Q", title="other models fooled", axis=PERCENT, scale=alt.Scale(zero=False))
    base = alt.Chart(inline(ranked[["name", "mean", "low", "high", "cost"]])).encode(x=x)
    ends = base.mark_rule(strokeWidth=0.7, opacity=0.45).encode(
        y=alt.Y("low:Q", title="other models fooled"), y2="high:Q"
    )
    dots = base.mark_point(filled=True, size=18, opacity=1).encode(y=y)
    words = base.mark_text(align="left", dx=3, dy=-4, fontSize=_TEXT).encode(y=y, text="name:N")
    return alt.layer(ends, dots, words)


def _matrix(
    view: View, rows: pd.DataFrame, chosen: dict[str, list[str]], eps_255: float | None,
    names: Names, height: float,
) -> ChartType:  # fmt: skip
    """Return sources and targets of one attack, with per cent in the cells."""
    if len(chosen["attack"]) > 1:
        raise ValueError("attack: a matrix is of one attack.")
    (attack,) = chosen["attack"] or [view.choice.attack]
    rows = _named(rows[rows["source"] != MEAN], chosen | {"attack": [attack]})
    rows = rows[(rows["eps_255"] == (view.choice.eps if eps_255 is None else eps_255))]
    rows = rows[rows["n"] > 0]
    if rows.empty:
        raise ValueError("nothing to draw: no pair is left.")
    cells = rows[["source", "target", "success_rate", "relation"]]
    for name in ("source", "target"):
        cells = cells.assign(**{name: [names.get(value, value) for value in cells[name]]})
    grey = f"datum.relation == '{WHITE_BOX}'"
    rate = alt.Color("success_rate:Q", legend=None, scale=alt.Scale(domain=[0, 1], scheme="blues"))
    base = alt.Chart(inline(cells)).encode(
        x=alt.X("target:N", sort=None, axis=alt.Axis(orient="top", labelAngle=-40, ticks=False)),
        y=alt.Y("source:N", sort=None, axis=alt.Axis(ticks=False)),
    )
    rects = base.mark_rect(stroke="white").encode(
        color=alt.when(grey).then(alt.value(WHITE_BOX_GREY)).otherwise(rate)
    )
    dark = f"datum.success_rate > 0.55 && !({grey})"
    words = base.mark_text(fontSize=_TEXT).encode(
        text=alt.Text("success_rate:Q", format=".0%"),
        color=alt.condition(dark, alt.value("white"), alt.value("black")),
    )
    return alt.layer(rects, words)
