"""Rankings of attacks and sources, and success over the cost of attacks."""

from typing import Any

import altair as alt
import pandas as pd
from altair.typing import ChartType

from src.analysis import CLEAN, TRANSFER, WHITE_BOX
from src.analysis.quantities import SHARE, STATISTICS
from src.report.charts.theme import (
    ACCENT,
    GREY,
    MEAN,
    PERCENT,
    RATES,
    Choice,
    chosen,
    inline,
    points,
    tooltip,
    where,
)
from src.report.charts.transfer_matrix import COUNTS, INTERVAL, ink, of_success, shown_words
from src.utils.model_names import NO_DEFENCE

_FEW_ROWS = 30
_AT = "(chosen_source == '' ? datum.position : datum.own_position)"
_OF_CHOSEN = f"isValid({_AT}) && (chosen_source == '' || datum.source == chosen_source)"
"""Expression that selects the rows of the chosen source, or of the mean over sources."""
_VIEW = f"datum.eps_255 == chosen_eps && {_OF_CHOSEN}"


def ranked_sources(sources: pd.DataFrame) -> ChartType:
    """Draw the sources of the chosen attack by rank; `sources` comes from a `View`."""
    base = alt.Chart(inline(sources)).transform_filter(chosen("attack", "eps_255"))
    y = alt.Y("at:O", axis=None)
    title = "'source of ' + chosen_attack + ' at ' + format(chosen_eps, '.6~g') + '/255'"
    panels = [
        _names(base, "source", sources["source"], y),
        means(base, y, "adjusted mean"),
        _behind(base, y),
    ]
    heading = alt.Title(alt.ExprRef(title), offset=14)
    chart = alt.hconcat(*panels, spacing=6, title=heading)
    return chart.resolve_scale(y="shared", x="independent")


def ranked(rows: pd.DataFrame, ranking: pd.DataFrame, first: Choice) -> ChartType:
    """Draw the attacks by rank under the first protocol, with a heat map of success.

    `rows` and `ranking` come from a `View`. Both have the position of the attack in the chart:
    `position` if the mean over sources is chosen (NaN: not shown), `own_position` if the row's
    source is chosen.
    """
    data = inline(rows)
    rows = rows[rows["source"] != CLEAN]
    transfer = set(rows.loc[rows["relation"] == TRANSFER, "target"])
    targets = [name for name in dict.fromkeys(rows["target"]) if name in transfer]
    few = (ranking["eps_255"] == first.eps).sum() <= _FEW_ROWS
    height = {"step": 22 if few else 17}
    step = 42 if len(targets) <= 8 else 38 if len(targets) <= 12 else 21
    y = alt.Y("at:O", axis=None, scale=alt.Scale(paddingInner=0.04))
    cells = (
        alt.Chart(data)
        .transform_filter(f"{_VIEW} && {chosen('defence', 'protocol')}")
        .transform_calculate(at=_AT, interval=INTERVAL)
    )
    black_box = cells.transform_filter(f"datum.relation == '{TRANSFER}'")
    head = alt.Axis(orient="top", labelAngle=-40, ticks=False, title=None, labelLimit=160)
    x = alt.X("target:N", sort=targets, axis=head, scale=alt.Scale(paddingInner=0.03))
    frame = where(chosen("attack", "target"), ACCENT, "transparent")
    rects = black_box.mark_rect(strokeWidth=2.5, cursor="pointer", invalid=None).encode(
        x=x, y=y, color=of_success(rows, legend=step < 30), stroke=frame, tooltip=COUNTS
    )
    layers = [rects]
    if step > 30:
        text = black_box.transform_calculate(share=f"format({RATES['rate']}, '.0%')")
        text = text.mark_text(fontSize=11.5)
        layers.append(text.encode(x=x, y=y, text="share:N", color=ink(), tooltip=COUNTS))
    base = alt.Chart(inline(ranking)).transform_filter(_VIEW).transform_calculate(at=_AT)
    panels = [
        _names(base, "attack", ranking["attack"], y),
        means(base, y, "mean on other models, 95 %", "low", "high"),
        _behind(base, y),
        alt.layer(*layers).properties(width={"step": step}, height=height),
        _white_box(cells, y, of_success(rows, legend=False)),
        _costs(base, y),
    ]
    title = (
        f"{shown_words(rows)} + ' at ' + format(chosen_eps, '.6~g') + '/255, ' + "
        f"(chosen_source == '' ? '{MEAN}' : 'source ' + chosen_source) + "
        f"', protocol ' + chosen_protocol + "
        f"(chosen_defence == '{NO_DEFENCE}' ? '' : ', behind ' + chosen_defence)"
    )
    behind = "no defence" if first.defence == NO_DEFENCE else f"behind {first.defence}"
    order = f"order and means: protocol {first.protocol}, {behind}"
    heading = alt.Title(alt.ExprRef(title), subtitle=order, offset=14)
    chart = alt.hconcat(*panels, spacing=6, title=heading)
    return chart.resolve_scale(y="shared", x="independent")


def _names(base: alt.Chart, column: str, known: pd.Series, y: alt.Y) -> ChartType:
    """Draw the names in a column with their ranks, and headings if there are several rankings."""
    mark = "(datum.undecided == 'yes' ? '= ' : '') + datum.rank"
    base = base.transform_calculate(place=f"isValid(datum.rank) ? {mark} : ''")
    lines = tooltip("attack", "source", "rank", "undecided", "p")
    named = base.transform_filter(f"isValid(datum.{column})")
    labels = named.mark_text(align="left", x=34, cursor="pointer", fontSize=12.5, limit=150)
    ranks = base.mark_text(align="right", x=29, fontSize=11.5, color=GREY)
    colour = where(chosen(column), ACCENT, "currentColor")
    names = labels.encode(y=y, text=f"{column}:N", color=colour, tooltip=lines)
    heads = base.transform_filter("datum.heading").mark_text(
        align="left", x=0, fontSize=12, fontStyle="italic", limit=600
    )
    width = min(max(60, 40 + 7 * int(known.str.len().max())), 190)
    layers = (ranks.encode(y=y, text="place:N"), names, heads.encode(y=y, text="heading:N"))
    return alt.layer(*layers).properties(width=width)


def _white_box(cells: alt.Chart, y: alt.Y, colour: alt.Color) -> ChartType:
    """Draw success on the source itself, or on its members, in a separate column."""
    head = alt.Axis(orient="top", labelAngle=-40, ticks=False, title=None)
    names = ["success_rate", "robust_accuracy", "confidence"]
    means: Any = [alt.AggregatedFieldDef(op="mean", field=name, **{"as": name}) for name in names]
    base = (
        cells.transform_filter(f"datum.relation == '{WHITE_BOX}'")
        .transform_aggregate(means, groupby=["at", "attack", "source", "relation"])
        .transform_calculate(on="'white box'", share=f"format({RATES['rate']}, '.0%')")
        .encode(x=alt.X("on:N", axis=head), y=y)
    )
    lines = tooltip("attack", "source", shares=names)
    rects = base.mark_rect(cursor="pointer", invalid=None).encode(color=colour, tooltip=lines)
    text = base.mark_text(fontSize=11.5).encode(text="share:N", color=ink(), tooltip=lines)
    return alt.layer(rects, text).properties(width={"step": 42})


def means(base: alt.Chart, y: alt.Y, title: str, *ends: str) -> ChartType:
    """Draw the mean success with its interval (columns `ends`), undecided attacks in colour."""
    head = alt.Axis(
        orient="top", format=".3~%", tickCount=4, grid=True, labelFlush=True, title=title
    )
    domain = alt.Scale(zero=False, nice=True)
    ranking = "attack" if ends else "source"
    shown = [entry for entry in STATISTICS if entry.tooltip and ranking in entry.of]
    lines = tooltip(
        *("attack", "source", "kind"),
        *(entry.column for entry in shown if not entry.form),
        shares=[entry.column for entry in shown if entry.form == SHARE],
        numbers=[entry.column for entry in shown if entry.form not in ("", SHARE)],
    )
    base = base.transform_filter("isValid(datum.mean)")
    colour = where("datum.undecided == 'yes' || datum.undecided == 'first'", ACCENT, "#6b7788")
    base = base.encode(y=y, color=colour, tooltip=lines)
    low, high = ends or ("mean", "mean")
    layers = points(base, "x", "mean", low, high, scale=domain, axis=head)
    return alt.layer(*layers).properties(width=125)


def _behind(base: alt.Chart, y: alt.Y) -> ChartType:
    """Write how many points each row is behind the first, with the simultaneous interval."""
    text = base.transform_calculate(on="'points behind'").mark_text(fontSize=11.5)
    text = text.transform_filter("datum.behind")
    x = alt.X("on:N", axis=alt.Axis(orient="top", labelAngle=0, ticks=False, title=None))
    return text.encode(x=x, y=y, text="behind:N").properties(width=96)


def _costs(base: alt.Chart, y: alt.Y) -> ChartType:
    """Write the gradients per image, and after a plus sign those of a fit."""
    fit = "datum.fit_gradients ? ' + ' + format(datum.fit_gradients, ',.0f') : ''"
    number = f"format(datum.gradients, ',.0f') + ({fit})"
    base = base.transform_calculate(on="'gradients'", number=number)
    base = base.transform_filter("isValid(datum.gradients)")
    text = base.mark_text(align="right", dx=23, fontSize=11.5, color=GREY)
    x = alt.X("on:N", axis=alt.Axis(orient="top", labelAngle=0, ticks=False, title=None))
    return text.encode(x=x, y=y, text="number:N").properties(width=50)


def success_over(rows: pd.DataFrame, column: str, title: str, scale: Any = "log") -> ChartType:
    """Draw the `mean` success in a ranking over a column, with the names of the attacks."""
    lines = tooltip("attack", "source", "kind", "targets", column, shares=["mean", "low", "high"])
    powers = [10**power for power in range(7)] if scale == "log" else alt.Undefined
    form = "~s" if scale == "log" else ".4~g"  # `~s` would turn 0.9 into 900m
    zero = alt.Undefined if scale == "log" else False
    across = alt.Scale(type=scale, padding=34, zero=zero)
    axis = alt.Axis(format=form, grid=True, values=powers)
    base = (
        alt.Chart(inline(rows))
        .transform_filter(_OF_CHOSEN)
        .encode(
            x=alt.X(f"{column}:Q", scale=across, axis=axis).title(title),
            color=where(chosen("attack"), ACCENT, "#3b76af"),
            tooltip=lines,
        )
    )
    up = alt.Scale(zero=False, padding=10)
    layers = points(base, "y", "mean", "low", "high", title=None, axis=PERCENT, scale=up)
    names = base.mark_text(align="left", dx=7, dy=-5, fontSize=11)
    layers.append(names.encode(text="attack:N", y=alt.Y("mean:Q", scale=up)))
    return alt.layer(*layers).properties(width=560, height=260)
