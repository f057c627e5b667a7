"""Which models are fooled, at which budget: the transfer matrix, and curves linked with it."""

import math
from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

from src.analysis import CLEAN, clean_rows, format_cell
from src.config.settings import CONTROLS
from src.experiment.provenance import JobRecord
from src.report.charts.dots import dot_plot
from src.report.charts.theme import (
    GREY,
    PANEL,
    STROKES,
    Drawn,
    budgets,
    colour_by,
    curve,
    inline,
    menu,
    tooltip,
)
from src.report.measure import Measured, group
from src.report.page import Figure, Section
from src.report.sections.text import pair_names

MOST_COUNTS = 8
"""With more targets a cell holds the rate alone; its counts are in the tooltip."""
_MOST_PANELS = 4
_PAIR = ["attack", "source", "target"]
_COLUMNS = [
    *("attack", "protocol", "source", "target", "eps_255", "k", "n", "rate", "rate_low"),
    *("rate_high", "confidence", "confidence_low", "confidence_high", "counted", "white_box"),
]
"""Of the rates behind the chart."""


def answer_sentence(record: JobRecord, found: Measured) -> str:
    """Name the strongest source and the most robust target at the reference budget.

    Compared are the jobs with the first one's data, norm, budget, protocol and kind of attack
    (targeted or not); and of them those with the most targets, since ensembles have fewer.
    """
    rows = _decisive(record, found.table("rates"))
    if rows.empty:
        return "No image was counted."
    where = f"At {record.reference:g}/255 ({record.norm}, {record.protocol})"
    best = _strongest(rows, ["attack", "source"])
    if not best["success"]:
        return f"{where} no image that was counted is fooled."
    attack, source, targeted = best["attack"], best["source"], rows["targeted"].any()
    models = f"{best['pairs']} other {'model' if best['pairs'] == 1 else 'models'}"
    white = rows["white_box"].all()
    does = "reaches its target labels on" if targeted else "fools"
    first = (
        f"{where} the strongest source is {source} with {attack}: it {does} "
        f"{'itself' if white else models} for {format_cell(best['success'], best['n'])} of the "
        "images counted."
    )
    mine = rows[rows["attack"] == attack]
    if white or mine["target"].nunique() < 2:
        return first
    least = _strongest(mine.assign(success=mine["n"] - mine["success"]), ["target"])
    return (
        f"{first} The most robust target of {attack} is {least['target']}: other sources succeed "
        f"on {format_cell(least['n'] - least['success'], least['n'])}."
    )


def _decisive(record: JobRecord, rates: pd.DataFrame) -> pd.DataFrame:
    """Return the rates that the sources are ranked by: without white boxes, if there are others."""
    at = rates["primary"] & rates["reference"] & (rates["n"] > 0)
    rows = rates[at & (rates["group"] == group(record))]
    rows = rows[rows["targeted"] == rows["targeted"].iloc[0]] if len(rows) else rows
    others = rows[~rows["white_box"]]
    return others if len(others) else rows


def _strongest(rows: pd.DataFrame, by: list[str]) -> pd.Series:
    """Add the pairs of each up, and return the highest rate of those with the most pairs."""
    sums = rows.groupby(by, sort=False).agg(
        success=("success", "sum"), n=("n", "sum"), pairs=("n", "size")
    )
    sums = sums[sums["pairs"] == sums["pairs"].max()].reset_index()
    return sums.iloc[(sums["success"] / sums["n"]).argmax()]


def answer(record: JobRecord, found: Measured) -> Section:
    """Return the linked matrix and curves, and the variants and controls beside the rates."""
    rates = found.table("rates")
    primary = rates[rates["primary"]]
    rows = pd.concat([clean_rows(primary).assign(white_box=False), primary])[_COLUMNS]
    decisive = _decisive(record, rates)
    first = _strongest(decisive, ["attack", "source"]) if len(decisive) else primary.iloc[0]
    chart = _linked(rows, record, str(first["attack"]), str(first["source"]))
    caption = (
        "Rows: source; columns: target; k / n of the images that the protocol counts, in the "
        "row clean of all clean images. Choose attack, budget and protocol; click cells or "
        "legend entries to choose curves. Bands: 95 % intervals (of confidences under the "
        "job's own protocol alone)."
    )
    title = "Transfer matrix, and accuracy and confidence over the budget"
    figures = [Figure("answer", title, caption, chart, rows)]
    where = f"{record.reference:g}/255 ({record.protocol})"
    if rates["group"].nunique() > 1:
        where = "each job's reference budget"
    variants = rates[rates["reference"]]
    if variants["variant"].nunique() > 1:
        variants = variants.assign(
            row=variants["attack"] + ": " + pair_names(variants),
            variant=variants["variant"].replace(CONTROLS),
        )
        caption = (
            f"Success rates at {where} of the same images in every storage, and of the controls, "
            f"on up to {variants['denominator'].max()} images; 95 % Wilson intervals."
        )
        columns = [*_PAIR, "variant", "success", "denominator"]
        chart = dot_plot(variants, "success_rate", "success rate", columns, by="variant")
        figures.append(Figure("variants", "Storage and controls", caption, chart, variants))
    beyond = found.table("excess")
    for control, rows in beyond.groupby("control", sort=False) if len(beyond) else ():
        rows = rows.assign(row=pair_names(rows))
        words = CONTROLS[str(control)]
        caption = (
            f"Success rate at {where} minus that of {words} of the same budget, on the same "
            f"up to {rows['denominator'].max()} images; Tango's 95 % interval."
        )
        columns = [*_PAIR, "success", "control_success", "denominator"]
        chart = dot_plot(rows, "excess", "success rate beyond the control", columns)
        figures.append(Figure(f"excess-{control}", f"Beyond {words}", caption, chart, rows))
    return Section("answer", "Which models are fooled, at which budget", figures=tuple(figures))


def _linked(rates: pd.DataFrame, record: JobRecord, attack: str, source: str) -> Drawn:
    """Link the transfer matrix with accuracy and confidence over the budget.

    Attack, budget and protocol are chosen from menus; a click on a cell of the matrix, or on an
    entry of a legend, selects what the curves show. The attack, the record's budget and protocol
    and, where there are too many for all, the source are the initial choices.
    """
    attacked = rates[rates["source"] != CLEAN]
    attacks, sources, targets = (
        list(dict.fromkeys(attacked[name])) for name in ("attack", "source", "target")
    )
    few = len(sources) <= _MOST_PANELS
    cell = alt.selection_point(
        name="cell",
        fields=["source", "target"],
        toggle="true",
        value=alt.Undefined if few else [{"source": source, "target": one} for one in targets],
    )
    drawn = attacks if len(attacks) <= 2 else list(dict.fromkeys([attack, *attacks]))[:2]
    tried = sorted(set(attacked["eps_255"]) - {0.0})
    # A parameter named as a column would hide it in the menus' labels.
    menus = (
        menu("matrix_attack", "attack", attacks, attack),
        menu("budget", "budget (1/255)", tried, record.reference),
        menu("counted", "protocol", list(dict.fromkeys(rates["protocol"])), record.protocol),
    )
    data = inline(rates)
    matrix = _matrix(data, cell, sources, targets)
    curves = _curves(data, attacked, cell, drawn)
    return (
        alt.hconcat(matrix, curves, spacing=30)
        .add_params(*menus)
        .resolve_scale(color="independent", strokeDash="independent")
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
        stroke=alt.condition(
            "datum.white_box == 'True'", alt.value("#e15759"), alt.value("transparent")
        ),
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
            share="datum.n > 0 ? format(datum.rate, '.1%') : 'n/a'",
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
    data: alt.InlineData, attacked: pd.DataFrame, cell: alt.Parameter, drawn: Sequence[str]
) -> Drawn:
    """Return accuracy and confidence of every selected pair with bands, a column a source."""
    sources, attacks = (list(dict.fromkeys(attacked[name])) for name in ("source", "attack"))
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
    legend: dict[str, Any] = {"orient": "bottom", **STROKES}
    patterns = alt.Legend(
        title="attack (click to select)",
        columns=4,
        symbolSize=700,
        symbolStrokeColor=GREY,
        **legend,
    )
    base = alt.Chart().encode(
        x=budgets(attacked),
        color=colour_by(
            "target", attacked["target"], "target (click to select)", columns=3, **legend
        ),
        detail="attack:N",
    )
    dashes = alt.StrokeDash("attack:N", scale=alt.Scale(domain=attacks), legend=patterns)
    lines = tooltip(
        *("attack", "source", "target", "eps_255", "measure", "n"),
        shares=["value", "value_low", "value_high"],
    )
    return (
        curve(base, "value", None, lines, strokeDash=dashes)
        .add_params(attack, target)
        .properties(
            data=data,
            width=PANEL if len(sources) > 1 else math.floor(PANEL * 1.6),
            height=150,
        )
        .facet(
            column=alt.Column("source:N", sort=sources, title="source"),
            row=alt.Row("measure:N", title=None, sort="descending"),
            spacing=16,
        )
        .transform_filter(f"datum.protocol == counted && datum.source != '{CLEAN}' && datum.n > 0")
        .transform_filter(cell)
        .transform_filter(attack)
        .transform_filter(target)
        .transform_fold(["rate", "confidence"], as_=["kind", "value"])
        .transform_calculate(
            value_low="datum.kind == 'rate' ? datum.rate_low : datum.confidence_low",
            value_high="datum.kind == 'rate' ? datum.rate_high : datum.confidence_high",
            measure="datum.kind == 'rate' ? datum.counted : 'mean confidence'",
        )
    )
