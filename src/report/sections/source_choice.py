"""The section on choosing a source for an unseen target, and on predictors of transfer."""

import altair as alt
import pandas as pd

from src.report.charts.dot_plot import dot_plot
from src.report.charts.theme import (
    GREY,
    PANEL,
    extent,
    inline,
    tooltip,
)
from src.report.page.html import Figure, Section
from src.report.page.page_data import PageData
from src.report.source_choice import FEW_TARGETS, INTERVALS, SourceChoice, spread_text

_SOURCES = {
    "success": "best on other targets",
    "any": "chosen at random",
    "most": "best on each target",
}


def unseen_target(numbers: PageData) -> Section | None:
    """Build the section on the choice of a source; None if there are too few models."""
    if numbers.choice is None:
        return None
    choice = numbers.choice
    both = choice.profiles[["own", "success"]].notna().all(axis=1)
    figures = [_profiles(choice)] if both.any() else []
    figures += [_choices(choice), _predictors(choice)]
    figures += [] if choice.similarity.isna().all(axis=None) else [_similarity(choice)]
    return Section("sources", "Which source for an unseen target", figures=(*figures,))


def _profiles(choice: SourceChoice) -> Figure:
    """Draw the success of each source on unrelated models over its success on itself."""
    rows = choice.profiles
    caption = (
        f"{choice.heading}. Share fooled on unrelated models, adjusted for the targets, over the "
        "share fooled on the source itself; robust sources are on the left. "
        "Lines join the epochs of one training. "
        + "Sources that are not targets are left out. " * bool(rows["own"].isna().any())
        + spread_text(choice)
    )
    middle = (rows["own"].min() + rows["own"].max()) / 2
    axis = alt.Axis(format=".3~%", tickCount=5)
    base = alt.Chart(inline(rows)).encode(
        x=alt.X("own:Q", title="fooled: itself", axis=axis, scale=extent(rows, "own")),
        y=alt.Y("success:Q", title="fooled: others", axis=axis, scale=extent(rows, "success")),
        detail="model:N",
        tooltip=tooltip("source", "epoch", shares=["success", "own"]),
    )
    marks = (
        base.transform_filter("isValid(datum.epoch)").mark_line(color=GREY).encode(order="epoch:Q"),
        base.mark_point(filled=True, size=60, opacity=1),
        base.transform_filter(alt.datum.own <= middle)
        .mark_text(align="left", dx=7, fontSize=10)
        .encode(text="source:N"),
        base.transform_filter(alt.datum.own > middle)
        .mark_text(align="right", dx=-7, fontSize=10)
        .encode(text="source:N"),
    )
    chart = alt.layer(*marks).properties(width=2 * PANEL, height=PANEL)
    return Figure("profiles", "Success on other models and on itself", caption, chart, rows)


def _similarity(choice: SourceChoice) -> Figure:
    """Draw the matrix of similarity between models, measured by the transfer between them."""
    names = [*map(str, choice.similarity)]
    rows = choice.similarity.rename_axis("model").reset_index()
    rows = rows.melt("model", var_name="other", value_name="similarity").dropna()
    caption = (
        f"{choice.heading}. ln(100 s), where s is the mean share fooled in both directions (arXiv "
        "2210.11407). Similar models are adjacent (average linkage)."
    )
    side = max(18, min(36, 2 * PANEL // max(len(names), 1)))
    chart = (
        alt.Chart(inline(rows))
        .mark_rect()
        .encode(
            x=alt.X("other:N", sort=names, title=None, axis=alt.Axis(labelAngle=-40)),
            y=alt.Y("model:N", sort=names, title=None),
            color=alt.Color("similarity:Q", scale=alt.Scale(scheme="blues"), title="ln(100 s)"),
            tooltip=tooltip("model", "other", numbers=["similarity"]),
        )
        .properties(width={"step": side}, height={"step": side})
    )
    return Figure("similarity-of-models", "Models alike by what transfers", caption, chart, rows)


def _choices(choice: SourceChoice) -> Figure:
    """Draw the success on each target of the source that is best on the other targets."""
    rows = choice.choices
    parts = [
        rows.assign(choice=label, rate=rows[name], rate_low=rows[f"{name}_low"])
        .assign(rate_high=rows[f"{name}_high"], source=rows["best" if name == "most" else "chosen"])
        .loc[:, ["target", "choice", "source", "candidates", "rate", "rate_low", "rate_high"]]
        for name, label in _SOURCES.items()
    ]
    drawn = pd.concat(parts, ignore_index=True)
    drawn.loc[drawn["choice"] == _SOURCES["any"], "source"] = "mean of all"
    mean = rows.iloc[-1]
    caption = (
        f"{choice.heading}. For each target, the source is chosen by its success on the other "
        "targets, without related models, on one half of the images, and judged on the other half. "
        f"{INTERVALS if pd.notna(mean['success_low']) else FEW_TARGETS} If either of the two best "
        f"sources may succeed, {mean['best_2']:.0%} of the images are fooled"
        + f", with three {mean['best_3']:.0%}" * bool(rows["candidates"].max() > 2)
        + "."
    )
    chart = dot_plot(
        drawn,
        "rate",
        "fooled",
        ["target", "choice", "source", "candidates"],
        **{"by": "choice", "shown": "true", "heading": "'source chosen without the target'"},
    )
    return Figure("unseen", "Unseen targets fooled", caption, chart, drawn)


def _predictors(choice: SourceChoice) -> Figure:
    """Draw the rank correlation of each measure with transfer."""
    rows = choice.predictors.melt(
        ["measure", "pairs", "p"], ["rho", "added"], var_name="kind", value_name="correlation"
    )
    rows["kind"] = rows["kind"].map({"rho": "alone", "added": "beyond both accuracies"})
    tested = choice.predictors["p"].notna().any()
    caption = (
        "Spearman's rank correlation between a measure of two unrelated models and the share "
        "fooled from one to the other, over "
        f"{rows['pairs'].iloc[0]} pairs, which share models. The measure is computed on one half "
        "of the images, the share fooled on the other half, then swapped. "
    )
    caption += "p: permutations of the models." if tested else "Not tested: this needs six sources."
    x = alt.X("correlation:Q", title="rank correlation", scale=alt.Scale(domain=[-1, 1]))
    base = alt.Chart(inline(rows)).encode(
        x=x,
        y=alt.Y("measure:N", sort=None, title=None),
        yOffset=alt.YOffset("kind:N", sort=None),
        color=alt.Color("kind:N", sort=None, legend=alt.Legend(title=None, orient="bottom")),
        tooltip=tooltip("measure", "kind", "pairs", numbers=["correlation", "p"]),
    )
    chart = base.mark_point(filled=True, size=60, opacity=1)
    zero = alt.Chart(alt.InlineData([{"at": 0}])).mark_rule(color="#888").encode(x="at:Q")
    chart = alt.layer(zero, chart).properties(width=PANEL, height=24 * rows["measure"].nunique())
    return Figure("predictors", "What predicts transfer", caption, chart, rows)
