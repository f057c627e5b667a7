"""Charts of the transfer matrix, and of rate and confidence over the budget."""

from typing import Any

import altair as alt
import pandas as pd
from altair.typing import ChartType

from src.analysis import CLEAN, OWN, RELATED, TRANSFER, WHITE_BOX, clean_rows
from src.analysis.quantities import QUANTITIES, SHARE
from src.report.charts.theme import (
    ACCENT,
    CORRECT,
    FOOLED,
    MEAN,
    PANEL,
    PERCENT,
    RATES,
    WHITE_BOX_GREY,
    WHOLE,
    budgets,
    chosen,
    colour_by,
    curve,
    inline,
    points,
    tooltip,
    where,
)
from src.utils.model_names import NO_DEFENCE

MOST_COUNTS = 8
"""Up to this number of targets, cells show counts; otherwise only the tooltips do."""
MOST_COLOURS = 10
"""Up to this number of targets, each curve has a colour; else only the chosen one stands out."""
_SHOWN = "chosen_target == '' || datum.target == chosen_target"
_DRAWN = [quantity for quantity in QUANTITIES.values() if quantity.drawn]
_COLUMNS = [
    *("attack", "protocol", "source", "target", "defence", "eps_255"),
    *(name for quantity in _DRAWN for name in quantity.drawn_columns),
    *("success_rate_sd", "relation", "overlap", "targeted"),
]
_LINES = sorted((entry for entry in _DRAWN if entry.tooltip), key=lambda entry: entry.tooltip)
COUNTS = tooltip(
    "attack source target relation overlap defence",
    *(quantity.drawn for quantity in _LINES if quantity.form != SHARE),
    "interval",
    shares=[quantity.drawn for quantity in _LINES if quantity.form == SHARE],
)
"""Tooltip of a cell: names, counts and denominator."""
_WHITE = f"datum.relation == '{WHITE_BOX}'"
INTERVAL = (
    "isValid(datum.success_rate_low) ? format(datum.success_rate_low, '.1%') + ' to ' + "
    "format(datum.success_rate_high, '.1%') : 'none'"
)
"""Expression for the interval in the tooltip."""
SPREAD = (
    f"(datum.source != '{CLEAN}' && isValid(datum.success_rate_sd) ? "
    "' \N{PLUS-MINUS SIGN} ' + format(100 * datum.success_rate_sd, '.1f') : '')"
)
"""Expression for the standard deviation over seeds, in points."""


def drawn_rows(rates: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that the charts draw, from `primary_rates`, with source `clean` first."""
    costs = [quantity.drawn for quantity in _DRAWN if not quantity.of_predictions]
    clean = clean_rows(rates).assign(**dict.fromkeys(costs, 0.0))
    return pd.concat([clean, rates], ignore_index=True)[_COLUMNS]


def word(rows: pd.DataFrame) -> str:
    """Return the name of a success: `fooled`, unless all rows are of targeted attacks."""
    return "target class reached" if rows["targeted"].all() else FOOLED


def shown_words(rows: pd.DataFrame) -> str:
    """Return the expression for the name of the rate that the reader chose to see."""
    return f"(chosen_shown == '{CORRECT}' ? '{CORRECT}' : '{word(rows)}')"


def of_success(rows: pd.DataFrame, legend: bool = True) -> Any:
    """Return the colour for a success rate, dark where the attack succeeds; white boxes grey."""
    drawn: dict[str, Any] = {"orient": "bottom", "titleOrient": "left", "format": ".0%"}
    drawn |= {"gradientLength": 180, "gradientThickness": 10, "values": [0, 0.5, 1]}
    named = alt.Legend(title=word(rows), **drawn) if legend else None
    scale = alt.Scale(domain=[0, 1], scheme="blues")
    rate = alt.Color("success_rate:Q", scale=scale, legend=named)
    return alt.when(_WHITE).then(alt.value(WHITE_BOX_GREY)).otherwise(rate)


def ink() -> Any:
    """Return a colour for text that is legible on the colour of the cell."""
    return where(f"datum.success_rate > 0.55 && !({_WHITE})", "white", "#1d2127")


def matrix_chart(rows: pd.DataFrame, printed: bool = False, angle: float = -40) -> ChartType:
    """Draw the chosen attack's transfer matrix, sources x targets, with counts in the cells.

    A `printed` matrix has no counts and no title. `angle` is that of the targets' names.
    """
    attacked = rows[rows["source"] != CLEAN]
    sources, targets = (list(dict.fromkeys(attacked[name])) for name in ("source", "target"))
    wide = len(targets) <= MOST_COUNTS and not printed
    several = bool(attacked["success_rate_sd"].notna().any())
    axis: dict[str, Any] = {"ticks": False, "labelLimit": 220}
    top, left = (
        alt.Axis(orient="top", labelAngle=angle, **axis),
        alt.Axis(orient="left", labelAngle=0, **axis),
    )
    base = alt.Chart().encode(
        x=alt.X("target:N", sort=targets, title="target", axis=top),
        y=alt.Y("source:N", sort=[CLEAN, *sources], title="source", axis=left),
    )
    clean = base.transform_filter(f"datum.source == '{CLEAN}'").encode(color=alt.value("#888888"))
    cells = base.transform_filter(f"datum.source != '{CLEAN}'")
    rects = cells.mark_rect(strokeWidth=2, invalid=None, cursor="pointer").encode(
        color=of_success(attacked, legend=not printed), stroke=_frame(), tooltip=COUNTS
    )
    layers = [rects]
    for part, colour in ((cells, {"color": ink()}), (clean, {})):
        text = part.mark_text(dy=-7 if wide else 0, style="cell" if wide else "small-cell")
        layers.append(text.encode(text="share:N", tooltip=COUNTS, **colour))
        if wide:
            text = part.mark_text(style="counts", dy=8)
            layers.append(text.encode(text="counts:N", tooltip=COUNTS, **colour))
    title = (
        f"chosen_attack + ': ' + {shown_words(attacked)} + ' at ' + format(chosen_eps, '.6~g') + "
        f"'/255, protocol ' + chosen_protocol + "
        f"(chosen_defence == '{NO_DEFENCE}' ? '' : ', behind ' + chosen_defence)"
    )
    subtitle = "grey: white box; row clean: accuracy on all clean images"
    subtitle += "; violet: related networks" * bool((attacked["relation"] == RELATED).any())
    subtitle += "; \N{PLUS-MINUS SIGN}: standard deviation over the seeds" * several
    chart = (
        alt.layer(*layers, data=inline(rows))
        .transform_filter(
            f"{chosen('attack', 'defence')} && (datum.source == '{CLEAN}' || "
            f"datum.source != '{MEAN}' && {chosen('protocol', 'eps_255')})"
        )
        .transform_calculate(
            interval=INTERVAL,
            clean=f"datum.source == '{CLEAN}' || chosen_shown == '{CORRECT}'",
            share=f"datum.n > 0 ? format(datum.source == '{CLEAN}' ? datum.still_correct / datum.n "
            f": {RATES['rate']}, '{'.0%' if printed else '.1%'}') + {SPREAD} : 'n/a'",
            counts="format(datum.clean ? datum.still_correct : datum.success, ',') + ' / ' + "
            "format(datum.n, ',')",
        )
        .properties(
            width={"step": (84 if wide else 38) + 28 * several},
            height={"step": 42 if wide else 24},
        )
    )
    heading = alt.Title(alt.ExprRef(title), subtitle=subtitle)
    return chart if printed else chart.properties(title=heading)


def curves_chart(rows: pd.DataFrame, by: str = "target") -> ChartType:
    """Draw rate and mean confidence over the budget with 95 % bands, or dots at a single budget.

    Each curve is a target under the chosen attack. With `by="attack"` each curve is an attack on
    the chosen target or, if no target is chosen, on the mean over other models (if there are any).
    """
    attacked = rows[(rows["source"] != CLEAN) & (rows["n"] > 0)]
    single = attacked.loc[attacked["eps_255"] > 0, "eps_255"].nunique() <= 1
    name = f"(chosen_source == '' ? '{MEAN}' : 'source ' + chosen_source)"
    others = (attacked["relation"] == TRANSFER).any()
    subject, shown = "chosen_attack", chosen("attack")
    if by == "attack":
        mean = f"datum.relation == '{TRANSFER}'" if others else "true"
        shown = f"(chosen_target == '' ? {mean} : datum.target == chosen_target)"
        other = "'other models'" if others else "'all attacks'"
        subject = f"(chosen_target == '' ? {other} : chosen_target)"
    panels: list[Any] = []
    for value, label in (("rate", shown_words(attacked)), ("confidence", "'confidence'")):
        title = alt.Title(alt.ExprRef(f"{label} + ': ' + {subject} + ', ' + {name}"))
        panel = _dots(attacked, value) if single else _over_budgets(attacked, value, by)
        panels.append(panel.properties(title=title))
    of_source = f"datum.source == (chosen_source == '' ? '{MEAN}' : chosen_source)"
    mean = f"(datum.source != '{MEAN}' || datum.relation != '{WHITE_BOX}')"
    test = f"datum.n > 0 && {chosen('protocol', 'defence')} && {of_source} && {mean} && {shown}"
    chart = alt.concat(*panels, columns=2, data=inline(rows), spacing=24)
    chart = chart.transform_filter(test).transform_calculate(**RATES)
    if by == "attack":
        means = [
            alt.AggregatedFieldDef(op="mean", field=name, **{"as": name})
            for name in ("rate", "confidence", "n")
        ]
        chart = chart.transform_aggregate(means, groupby=["attack", "source", "eps_255"])
    return chart


def _over_budgets(rows: pd.DataFrame, value: str, by: str) -> Any:
    """Draw curves over the budget, one colour per target or attack, with names at their ends."""
    names = list(dict.fromkeys(rows[by]))
    few = len(names) <= MOST_COLOURS
    colour = where(f"datum.{by} == chosen_{by}", ACCENT, "#8894a5")
    if few:
        colour = colour_by(by, names).legend(None)
    base = alt.Chart().encode(x=budgets(rows), detail=["source:N", f"{by}:N"], color=colour)
    if by == "target":
        dash, shares = where(_WHITE, [5, 3], [1, 0]), [value, f"{value}_low", f"{value}_high"]
        lines = tooltip("attack", "source", "target", "eps_255", "n", shares=shares)
        band, line = curve(base, value, lines, strokeDash=dash).layer
        opacities = [(band, (0.13, 0.03)), (line, (1, 0.2))]
        parts = [part.encode(opacity=where(_SHOWN, *opacity)) for part, opacity in opacities]
    else:
        lines = tooltip("attack", "source", "eps_255", shares=[value])
        parts = [curve(base, value, lines).layer[1]]
    if few:
        parts += names_at_ends(by, value, at_last(by), colour)
    return alt.layer(*parts).properties(width=PANEL - 70 * few, height=190)


def at_last(by: str) -> alt.Chart:
    """Return a chart of the rows at the largest budget for each value of the column `by`."""
    last: Any = [alt.JoinAggregateFieldDef(op="max", field="eps_255", **{"as": "last"})]
    chart = alt.Chart().transform_joinaggregate(last, groupby=[by])
    return chart.transform_filter("datum.eps_255 == datum.last")


def names_at_ends(
    by: str,
    value: str,
    ends: alt.Chart,
    colour: Any,
    x: str = "eps_255",
    step: float = 0.085,
    scale: alt.Scale = WHOLE,
) -> list[Any]:
    """Write names to the right of points (`x`, `value`), without overlap, with lines to them.

    A name is at least one `step` below the name above it, and within the domain of the `scale`.
    """
    low = scale.to_dict()["domain"][0]
    by_value: Any = [alt.SortField(value, order="descending")]
    placed = (
        ends.transform_window(rank="row_number()", sort=by_value)
        .transform_joinaggregate(count="count()")
        .transform_calculate(shifted=f"datum.{value} + datum.rank * {step}")
        .transform_window(least="min(shifted)", sort=by_value, frame=[None, 0])
        .transform_calculate(
            place=f"max(datum.least, {low} + datum.count * {step}) - datum.rank * {step}"
        )
    )
    line = placed.mark_rule(strokeWidth=0.8, xOffset=3, x2Offset=22).encode(
        x=f"{x}:Q", x2=f"{x}:Q", y=alt.Y(f"{value}:Q", scale=scale), y2="place:Q"
    )
    labels = placed.mark_text(align="left", dx=25, style="name", cursor="pointer").encode(
        x=f"{x}:Q", y=alt.Y("place:Q", scale=scale), text=f"{by}:N"
    )
    opacity = where(_SHOWN, 1, 0.3) if by == "target" else alt.value(1)
    return [part.encode(color=colour, opacity=opacity) for part in (line, labels)]


def _dots(rows: pd.DataFrame, value: str) -> Any:
    """Draw values with their intervals at the single budget, one row per target."""
    targets = list(dict.fromkeys(rows["target"]))
    base = alt.Chart().transform_filter("datum.eps_255 > 0")
    base = base.encode(
        y=alt.Y("target:N", title=None, sort=targets, axis=alt.Axis(grid=True)),
        yOffset=alt.YOffset("source:N", sort=None),
        opacity=where(_SHOWN, 1, 0.3),
        color=where(_WHITE, "#9aa3ae", "#3b76af"),
        tooltip=tooltip(
            "attack",
            "source",
            "target",
            "eps_255",
            "n",
            shares=[value, f"{value}_low", f"{value}_high"],
        ),
    )
    ends = (f"{value}_low", f"{value}_high")
    layers = points(base, "x", value, *ends, title=None, scale=WHOLE, axis=PERCENT)
    return alt.layer(*layers).properties(width=PANEL, height=22 * len(targets))


def _frame() -> Any:
    """Return the colour of a cell's frame, by the choice or the relation to the source."""
    frame = alt.when(chosen("source", "target")).then(alt.value(ACCENT))
    for name, colour in ((OWN, "#f2b28e"), (RELATED, "#a58fcf")):
        frame = frame.when(f"datum.relation == '{name}'").then(alt.value(colour))
    return frame.otherwise(alt.value("transparent"))
