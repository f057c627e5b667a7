"""The charts of the page."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
from altair.typing import ChartType

from ...analysis import OWN, with_cell_columns
from ...analysis.confidence import by_class, confidence_profiles
from ...utils.formats import span
from ...utils.model_names import ABSTAINED, NO_DEFENCE, ModelRef
from ...utils.vocabulary import CONTROLS
from ..charts.curves import series_chart
from ..charts.dot_plot import dot_plot, success_over
from ..charts.theme import (
    GREY,
    MEAN,
    PAGE_THEME,
    PANEL,
    PERCENT,
    ROWS,
    STROKES,
    WHOLE,
    colour_by,
    curve,
    extent,
    tooltip,
)
from ..diagnostics import CHARTS, draw_own
from ..results import Results
from ..shown import Shown, pairs_of
from .html import ENOUGH, OF_PAIR, Figure, vega_of
from .images import PageData

MOST_CLASSES = 40
"""Largest number of classes in a chart."""


_TICK = "M-0.15,-1H0.15V1H-0.15Z"
"""A vertical bar, as a symbol of a legend."""


def why_figures(results: Results, shown: Shown, numbers: PageData) -> Iterator[Figure]:
    """Yield the charts of the part Why: diagnostics, confidence, defences and controls."""
    effects = numbers.table("effects")
    if len(effects) and (effects["n"] >= ENOUGH).any():
        rows = effects[effects["n"] >= ENOUGH].reset_index(drop=True)
        yield _hypothesis(rows, shown.options["attack"])
    for name, chart in CHARTS.items():
        if name in numbers.tables and len((figure := chart.draw(numbers.tables[name])).data):
            yield figure
    for name, rows in numbers.own.items():
        yield draw_own(name, rows)
    yield from _visibility(shown, numbers.table("visibility"))
    if len(rows := numbers.table("iterations")):
        yield _iterations(rows)
    yield from _variants(results, numbers)


def _hypothesis(rows: pd.DataFrame, attacks: Sequence[str]) -> Figure:
    """Draw the effect of initial confidence: one tick per pair in the row of its target."""
    counts = ", ".join(f"{name} for {n}" for name, n in rows["verdict"].value_counts().items())
    caption = (
        "Spearman's correlation between initial confidence and minimum adversarial budget, over "
        f"{span(rows['n'])} initially correct images. Right of 0, more confident images need a "
        f"larger budget: {counts} of {len(rows)} pairs (95 % intervals, not corrected)."
    )
    known = rows[rows["rho"].notna()]
    # The source tells the ticks of a single attack apart.
    of, names = ("attack", attacks) if len(attacks) > 1 else ("source", known["source"])
    lines = tooltip("attack", "source", "target", "n", numbers=["rho", "rho_low", "rho_high"])
    scale = extent(known.assign(at=0.0), "at", "rho", "rho_low", "rho_high")
    x = alt.X("rho:Q", title="rank correlation", axis=alt.Axis(format=".2~f"), scale=scale)
    ticks = (
        alt.Chart(ROWS)
        .mark_tick(thickness=2.5, size=17)
        .encode(
            y=alt.Y("target:N", sort=None, title="target", axis=alt.Axis(grid=True)),
            x=x,
            color=colour_by(of, names, orient="bottom", symbolType=_TICK, symbolOpacity=1),
            opacity=alt.value(0.8),
            tooltip=lines,
        )
    )
    rule = alt.Chart(alt.InlineData([{"at": 0}])).mark_rule(color=GREY)
    rule = rule.encode(x=alt.X("at:Q", title="rank correlation", scale=scale))
    height = 26 * rows["target"].nunique()
    chart = alt.layer(rule, ticks).properties(width=PANEL, height=height)
    title = "Initial confidence and minimum budget, all pairs"
    return Figure("hypothesis", title, caption, chart, known)


def _visibility(shown: Shown, sizes: pd.DataFrame) -> Iterator[Figure]:
    """Yield the chart of mean success over the visibility of the perturbations."""
    if sizes.empty:
        return
    means = shown.overall[shown.overall["reference"] & (shown.overall["source"] == MEAN)]
    columns = ["attack", "source", "psnr", "ssim"]
    both = pd.concat([sizes[columns], means[columns].dropna(subset="ssim")])
    rows = shown.first_ranking.merge(both, on=["attack", "source"]).dropna(subset="mean")
    if len(rows):
        caption = (
            "Mean share fooled at the reference budget, over the similarity of up to "
            f"{sizes['images'].max()} clean and adversarial images. Changes are from "
            f"{sizes['rms_255'].min():.2f} to {sizes['rms_255'].max():.2f} / 255 (RMS)."
        )
        chart = alt.concat(
            success_over("ssim", "SSIM (1: unchanged)"),
            success_over("psnr", "PSNR in dB"),
            columns=1,
        )
        yield Figure("visibility", "Success over visibility", caption, chart, rows)


def tries_figure(shown: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw the share fooled over the number of candidates, one curve per target."""
    rows = pd.concat([its.assign(target=target) for target, its in shown.items()])
    axis = alt.Axis(tickMinStep=1, grid=False)
    colour = colour_by("target", rows["target"], orient="bottom", **STROKES)
    base = alt.Chart(ROWS).encode(
        x=alt.X("q:Q", title="candidates", axis=axis),
        color=colour if len(shown) > 1 else colour.legend(None),
    )
    ends = ["fooled", "fooled_low", "fooled_high"]
    chart = curve(base, "fooled", tooltip("target q attack source", shares=ends))
    caption = (
        "Share fooled within so many candidates (one attack from one source), in an order that was "
        "learned on other images. 95 % intervals."
    )
    chart = chart.properties(width=PANEL, height=220)
    title = f"Fooled within q candidates{f', {next(iter(shown))}' * (len(shown) == 1)}"
    return Figure("tries", title, caption, chart, rows)


def _iterations(rows: pd.DataFrame) -> Figure:
    """Draw the success of the iterates of one run, dashed for white boxes."""
    caption = (
        "Success of the iterates of one run at the reference budget; dashed: white box. A shorter "
        "run can differ, because the step size may depend on the number of steps. 95 % Wilson "
        "intervals."
    )
    tried = sorted(set(rows["iteration"]))
    lines = tooltip(
        "attack source target relation iteration step_255 denominator", shares=["success_rate"]
    )
    axis = alt.Axis(values=tried, labelOverlap="greedy")
    scale = alt.Scale(type="sqrt", domain=[0, max(tried)])
    base = alt.Chart(ROWS).encode(
        x=alt.X("iteration:Q", title="iteration", scale=scale, axis=axis),
        color=colour_by("target", rows["target"], orient="bottom", **STROKES),
    )
    dashes = alt.StrokeDash("relation:N", legend=None)
    chart = curve(base, "success_rate", lines, strokeDash=dashes)
    chart = chart.properties(width=PANEL, height=220)
    return Figure("iterations", "Success over iterations", caption, chart, rows, OF_PAIR)


def _variants(results: Results, numbers: PageData) -> Iterator[Figure]:
    """Yield the charts of defences, storage formats and controls."""
    names, excess = ["attack", "source", "target"], numbers.table("excess")
    rates = with_cell_columns(pairs_of(results.over_seeds))
    if (rates["defence"] != NO_DEFENCE).any():
        yield _defences(rates[rates["primary"]])
    shown = rates[rates["reference"] & (rates["defence"] == NO_DEFENCE)]
    if shown["variant"].nunique() > 1:
        shown = shown.assign(variant=shown["variant"].replace(CONTROLS))
        caption = (
            "Share fooled at the reference budget, in each storage format and by the controls. "
            f"Up to {shown['denominator'].max():g} images; 95 % Wilson intervals."
        )
        columns = [*names, "variant", "success", "denominator"]
        chart = dot_plot(shown, "success_rate", "success rate", columns, by="variant")
        yield Figure("variants", "Storage and controls", caption, chart, shown, OF_PAIR)
    if len(excess):
        excess = excess.assign(control=excess["control"].replace(CONTROLS))
        caption = (
            "Share fooled by the attack minus share fooled by the control, at the reference "
            f"budget, on the same images (up to {excess['denominator'].max()}); 95 % intervals "
            "(Tango)."
        )
        columns = [*names, "control", "success", "control_success", "denominator"]
        chart = dot_plot(excess, "excess", "fooled beyond the control", columns, by="control")
        yield Figure("excess", "Beyond the controls", caption, chart, excess, OF_PAIR)


def _defences(rates: pd.DataFrame) -> Figure:
    """Draw robust accuracy next to clean accuracy behind each defence."""
    clean = rates[(rates["protocol"] == "all") & (rates["eps_255"] == 0)].assign(images="clean")
    attacked = rates[rates["reference"]].assign(images="attacked")
    rows = pd.concat([clean, attacked])
    mark = rows["relation"].map({OWN: " (own)"}).fillna("")
    pairs = map(ModelRef.parse, rows["target"], rows["defence"])
    rows = rows.assign(target=list(map(str, pairs)) + mark)
    rows = rows.sort_values("target", kind="stable")
    kept = {f"rate{end}": rows[f"robust_accuracy{end}"] for end in ("", "_low", "_high")}
    rows = rows.assign(k=rows["still_correct"], counted="still correct", **kept)
    caption = (
        "Accuracy behind each defence, on clean images and at the reference budget; 95 % Wilson "
        "intervals. A plain transfer attack says little about attackers who know the defence: "
        "set source_defence=NAME to attack the source behind it. "
        "(own): the source's network behind another defence."
    )
    columns = ["attack", "source", "target", "images", "k", "n", "abstained"]
    chart = dot_plot(rows, "rate", "still correct", columns, by="images")
    return Figure("defences", "Behind defences", caption, chart, rows, OF_PAIR)


def clean_figures(numbers: PageData) -> Iterator[Figure]:
    """Yield the charts of the part Data, whose rows are those of one model."""
    models = numbers.models
    if not models:
        return
    shown: dict[str, Any] = {"keys": {"model": "model"}, "part": "data"}
    bins = pd.concat([_histogram(rows).assign(model=model) for model, rows in models])
    bars = (
        alt.Chart(ROWS)
        .mark_rect(stroke="var(--back)")
        .encode(
            x=alt.X("low:Q", title=None, axis=alt.Axis(format=".0%", grid=False), scale=WHOLE),
            x2="high:Q",
            y=alt.Y("start:Q", title=None, axis=alt.Axis(tickMinStep=1, tickCount=4)),
            y2="end:Q",
            color=alt.Color(
                "images_are:N",
                scale=alt.Scale(domain=["correct", "wrong"], range=["#6b7788", "#d08a3c"]),
                legend=alt.Legend(title=None, orient="bottom"),
            ),
            tooltip=tooltip("images_are", "images", shares=["low", "high"]),
        )
    )
    title, caption = "Images by confidence when clean", "Ten bins of 10 points."
    chart = bars.properties(width=PANEL, height=160)
    yield Figure("confidences", title, caption, chart, bins, **shown)
    parts = [confidence_profiles(rows).assign(model=model) for model, rows in models]
    profiles = pd.concat([part for part in parts if len(part)] or parts, ignore_index=True)
    if len(profiles):
        caption = (
            "Mean probability of the five most likely classes, over the clean images with an "
            "initial confidence within 2.5 points of each level."
        )
        title = "Top five by initial confidence"
        yield Figure("confidence-profiles", title, caption, profiles_chart(), profiles, **shown)
    parts = [
        by_class(rows).assign(model=model).merge(rows[["label", "name"]].drop_duplicates())
        for model, rows in models
    ]
    classes = pd.concat(parts, ignore_index=True)
    total = len(models[0][1])
    if classes["images"].max() > 1:  # else a class's mean is one image's value
        cut = classes.groupby("model", sort=False).head(MOST_CLASSES)
        cut = cut.assign(row=cut["name"] + " (" + cut["images"].astype(str) + ")")
        caption = f"{total} clean images; classes by decreasing confidence, with their counts."
        few = classes["label"].nunique() > MOST_CLASSES
        caption += f" The first {MOST_CLASSES} of {classes['label'].nunique()} classes." * few
        title = "Images and mean confidence per class"
        yield Figure("classes", title, caption, _classes(), cut, **shown)


def _histogram(rows: pd.DataFrame) -> pd.DataFrame:
    """Count correct and wrong clean images of one model by confidence, in ten bins."""
    rows = rows[rows["predicted"] != ABSTAINED]
    bins = np.clip((10 * rows["confidence"].to_numpy(float)).astype(int), 0, 9)
    right = np.where(rows["predicted"] == rows["label"], "correct", "wrong")
    counts = pd.DataFrame({"low": bins / 10, "images_are": right}).value_counts()
    table = counts.rename("images").reset_index().sort_values(["low", "images_are"])
    end = table.groupby("low")["images"].cumsum()
    return table.assign(high=table["low"] + 0.1, start=end - table["images"], end=end)


def _classes() -> ChartType:
    bars = (
        alt.Chart(ROWS)
        .mark_bar(color="#6b7788")
        .encode(
            x=alt.X("confidence:Q", title="mean confidence", scale=WHOLE, axis=PERCENT),
            y=alt.Y("row:N", sort=None, title=None),
            tooltip=tooltip("model", "name", "images", shares=["confidence", "accuracy"]),
        )
    )
    return bars.properties(width=PANEL, height={"step": 20})


def profiles_chart() -> ChartType:
    """Draw the five highest probabilities, one colour per level of initial confidence."""
    scheme: Any = alt.SchemeParams(name="viridis", extent=[0.15, 0.95])
    named = alt.Legend(title="initial confidence", format=".0%", orient="bottom")
    scale = alt.Scale(scheme=scheme)
    bars = (
        alt.Chart(ROWS)
        .mark_bar()
        .encode(
            x=alt.X("rank:O", title="class, by probability", axis=alt.Axis(labelAngle=0)),
            xOffset=alt.XOffset("level:N", sort="descending"),
            y=alt.Y("confidence:Q", title="mean probability", axis=PERCENT),
            color=alt.Color("level:O", sort="descending", scale=scale, legend=named),
            tooltip=tooltip("model", "level", "rank", "images", shares=["confidence"]),
        )
    )
    return bars.properties(width=PANEL, height=160)


def page_charts(tried: Sequence[float], top: float) -> dict[str, Any]:
    """Return the curves over the budget as Vega specifications, by name."""
    part = alt.Scale(domain=[0, top])
    charts = {
        "success": series_chart(tried, 128, part),
        "correct": series_chart(tried, 128),
        "confidence": series_chart(tried, 90),
        "image": series_chart(tried, 80),
        "group": series_chart(tried, 200, names=False),
    }
    return {name: _vega_chart(its) for name, its in charts.items()}


def half_chart(tried: Sequence[float], top: float, end: float) -> dict[str, Any]:
    """Return the curves of one of two sweeps, on axes that both share."""
    return _vega_chart(series_chart(tried, 158, alt.Scale(domain=[0, top]), end=end))


def _vega_chart(chart: ChartType) -> dict[str, Any]:
    with alt.theme.enable(PAGE_THEME):
        return vega_of(chart.properties(width=PANEL).to_dict(validate=False))
