"""Transfer matrix and curves over the budget, linked."""

import math
from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

from src.analysis import CLEAN
from src.report.charts.theme import (
    GREY,
    PANEL,
    Drawn,
    budget_axis,
    colour_by,
    inline,
    menu,
    tooltip,
)

MOST_COUNTS = 8
"""With more targets a cell holds the rate alone; its counts are in the tooltip."""
_MOST_PANELS = 4
_WHITE_BOX = "indexof(split(datum.source, '+'), datum.target) >= 0 || datum.source == datum.target"
_COLUMNS = [
    *("attack", "protocol", "source", "target", "eps_255", "k", "n", "rate_low", "rate_high"),
    *("confidence", "confidence_low", "confidence_high", "counted"),
]


def answer_chart(
    rates: pd.DataFrame, *, attack: str, source: str, budget: float, protocol: str
) -> Drawn:
    """Link the transfer matrix with accuracy and confidence over the budget.

    Attack, budget and protocol are chosen from menus; a click on a cell of the matrix, or on an
    entry of a legend, selects what the curves show.

    Args:
        rates: A row per attack, protocol, source, target and budget: `attack`, `protocol`,
            `source` (`clean`: on clean images, at budget 0), `target`, `eps_255`, `k` of `n`
            counted images, the interval of their rate, `confidence` with its interval, and
            `counted` (what k counts).
        attack: Initial choice of the matrix.
        source: Initial choice of the curves where there are too many for all.
        budget: In 1/255; initial choice of the matrix.
        protocol: Initial choice.
    """
    attacked = rates[rates["source"] != CLEAN]
    attacks, sources, targets = (
        list(dict.fromkeys(attacked[name])) for name in ("attack", "source", "target")
    )
    budgets = sorted(set(attacked["eps_255"]))
    few = len(sources) <= _MOST_PANELS
    cell = alt.selection_point(
        name="cell",
        fields=["source", "target"],
        toggle="true",
        value=alt.Undefined if few else [{"source": source, "target": one} for one in targets],
    )
    drawn = attacks if len(attacks) <= 2 else list(dict.fromkeys([attack, *attacks]))[:2]
    # A parameter named as a column would hide it in the menus' labels.
    matrix_attack = menu("matrix_attack", "attack", attacks, attack)
    at = menu("budget", "budget (1/255)", [eps for eps in budgets if eps > 0], budget)
    counted = menu("counted", "protocol", list(dict.fromkeys(rates["protocol"])), protocol)
    data = inline(rates[_COLUMNS])
    matrix = _matrix(data, cell, sources, targets)
    curves = _curves(data, cell, drawn, attacks, sources, targets, budgets)
    return (
        alt.hconcat(matrix, curves, spacing=30)
        .add_params(matrix_attack, at, counted)
        .resolve_scale(color="independent", strokeDash="independent")
        .properties(
            description=(
                "Transfer matrix, rows: source, columns: target; beside it accuracy and mean "
                "confidence of every target over the budget."
            ),
        )
    )


def _matrix(
    data: alt.InlineData, cell: alt.Parameter, sources: Sequence[str], targets: Sequence[str]
) -> Drawn:
    """Return cells with their counts; those of adversarial images can be clicked."""
    wide = len(targets) <= MOST_COUNTS
    base = alt.Chart().encode(
        x=alt.X("target:N", sort=list(targets), title="target", axis=_names("top")),
        y=alt.Y("source:N", sort=[CLEAN, *sources], title="source", axis=_names("left")),
    )
    colour = alt.Color(
        "rate:Q",
        scale=alt.Scale(domain=[0, 1], scheme="viridis"),
        legend=alt.Legend(title="rate", format=".0%", orient="bottom", gradientLength=160),
    )
    # On the cells alone: words with a tooltip would catch the clicks.
    lines = tooltip(
        *("attack", "source", "target", "white_box", "counted", "k", "n"),
        shares=["rate", "rate_low", "rate_high", "confidence"],
    )
    rects = base.mark_rect(strokeWidth=2.5, invalid=None).encode(color=colour, tooltip=lines)
    clean = rects.transform_filter(f"datum.source == '{CLEAN}'")
    attacked = rects.transform_filter(f"datum.source != '{CLEAN}'").encode(
        stroke=alt.condition("datum.white_box", alt.value("#e15759"), alt.value("transparent")),
        opacity=alt.condition(cell, alt.value(1), alt.value(0.7)),
    )
    ink = alt.condition("datum.rate < 0.6", alt.value("white"), alt.value("black"))
    size, below = (13, 7) if wide else (10, 0)
    shares = base.mark_text(fontSize=size, dy=below, fontWeight="bold")
    layers = [clean, attacked.add_params(cell), shares.encode(text="share:N", color=ink)]
    if wide:
        counts = base.mark_text(fontSize=11, dy=-9)
        layers.append(counts.encode(text="counts:N", color=ink))
    title = alt.ExprRef("matrix_attack + ' at ' + budget + '/255, protocol ' + counted")
    return (
        alt.layer(*layers, data=data)
        .transform_filter(
            f"datum.attack == matrix_attack && (datum.source == '{CLEAN}' || "
            "datum.protocol == counted && datum.eps_255 == budget)"
        )
        .transform_calculate(
            rate="datum.n > 0 ? datum.k / datum.n : null",
            white_box=_WHITE_BOX,
            share="datum.n > 0 ? format(datum.k / datum.n, '.1%') : 'n/a'",
            counts="format(datum.k, ',') + ' / ' + format(datum.n, ',')",
        )
        .properties(
            width={"step": 82 if wide else 38},
            height={"step": 46 if wide else 24},
            title=alt.Title(title, subtitle="framed in red: white box"),
        )
    )


def _names(orient: Any) -> alt.Axis:
    angle = -40 if orient == "top" else 0
    return alt.Axis(orient=orient, labelAngle=angle, ticks=False, domain=False, labelLimit=220)


def _curves(
    data: alt.InlineData,
    cell: alt.Parameter,
    drawn: Sequence[str],
    attacks: Sequence[str],
    sources: Sequence[str],
    targets: Sequence[str],
    budgets: Sequence[float],
) -> Drawn:
    """Return accuracy and confidence of every selected pair with bands, a column a source."""
    attack = alt.selection_point(
        name="drawn_attacks",
        fields=["attack"],
        bind="legend",
        toggle="true",
        value=[{"attack": one} for one in drawn],
    )
    target = alt.selection_point(
        name="drawn_targets", fields=["target"], bind="legend", toggle="true"
    )
    band, line = _band_and_line(attacks, targets, budgets)
    width = PANEL if len(sources) > 1 else math.floor(PANEL * 1.6)
    return (
        alt.layer(band.add_params(attack, target), line, data=data)
        .properties(width=width, height=150)
        .facet(
            column=alt.Column("source:N", sort=list(sources), title="source"),
            row=alt.Row("measure:N", title=None, sort="descending"),
            spacing=16,
        )
        .transform_filter(f"datum.protocol == counted && datum.source != '{CLEAN}' && datum.n > 0")
        .transform_filter(cell)
        .transform_filter(attack)
        .transform_filter(target)
        .transform_calculate(rate="datum.k / datum.n")
        .transform_fold(["rate", "confidence"], as_=["kind", "value"])
        .transform_calculate(
            lower="datum.kind == 'rate' ? datum.rate_low : datum.confidence_low",
            upper="datum.kind == 'rate' ? datum.rate_high : datum.confidence_high",
            measure="datum.kind == 'rate' ? datum.counted : 'mean confidence'",
        )
    )


def _band_and_line(
    attacks: Sequence[str], targets: Sequence[str], budgets: Sequence[float]
) -> tuple[alt.Chart, alt.Chart]:
    """Return a panel's bands and curves: a colour a target, a dash pattern an attack."""
    base = alt.Chart().encode(
        x=alt.X("eps_255:Q", **budget_axis(list(budgets))),
        color=colour_by(
            "target",
            targets,
            "target (click to select)",
            orient="bottom",
            columns=3,
            symbolOpacity=1,
            symbolType="stroke",
            symbolStrokeWidth=4,
        ),
    )
    value = alt.Y(
        "value:Q", title=None, scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format=".0%")
    )
    band = base.mark_area(opacity=0.13).encode(
        y=alt.Y("lower:Q", title=None), y2="upper:Q", detail="attack:N"
    )
    line = base.mark_line(point=alt.OverlayMarkDef(size=28)).encode(
        y=value,
        strokeDash=alt.StrokeDash(
            "attack:N",
            scale=alt.Scale(domain=list(attacks)),
            legend=alt.Legend(
                title="attack (click to select)",
                orient="bottom",
                columns=4,
                symbolType="stroke",
                symbolSize=700,
                symbolStrokeColor=GREY,
            ),
        ),
        tooltip=tooltip(
            *("attack", "source", "target", "eps_255", "measure", "n"),
            shares=["value", "lower", "upper"],
        ),
    )
    return band, line
