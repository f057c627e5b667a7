"""The source for a target that nobody sees, and what predicts transfer between two models."""

import altair as alt
import pandas as pd

from src.report.charts.dot_plot import dot_plot
from src.report.charts.theme import PANEL, inline, tooltip
from src.report.page.html import Figure, Section
from src.report.page.statistics import Measured
from src.report.source_choice import SourceChoice

_SOURCES = {
    "success": "chosen by the other targets",
    "any": "chosen blindly",
    "most": "best in hindsight",
}


def unseen_target(numbers: Measured) -> Section | None:
    """Return what a choice of the source is worth; None where there are too few models."""
    if numbers.choice is None:
        return None
    figures = (_choices(numbers.choice), _predictors(numbers.choice))
    return Section("sources", "Which source for a target that nobody sees", figures=figures)


def _choices(found: SourceChoice) -> Figure:
    """Return the success on each target of the source that the other targets choose."""
    rows = found.choices
    parts = [
        rows.assign(choice=words, rate=rows[name], rate_low=rows[f"{name}_low"])
        .assign(rate_high=rows[f"{name}_high"], source=rows["best" if name == "most" else "chosen"])
        .loc[:, ["target", "choice", "source", "candidates", "rate", "rate_low", "rate_high"]]
        for name, words in _SOURCES.items()
    ]
    drawn = pd.concat(parts, ignore_index=True)
    drawn.loc[drawn["choice"] == _SOURCES["any"], "source"] = "mean of all"
    mean = rows.iloc[-1]
    caption = (
        f"{found.heading}. Each target is left out with its relatives, and the source that does "
        "best on the others is attacked. The row mean has 95 % intervals over targets and images. "
        f"With the two best sources, of which one suffices, {mean['best_2']:.0%} of the images "
        f"that both count fall, with three {mean['best_3']:.0%}."
    )
    chart = dot_plot(
        drawn,
        "rate",
        "success rate",
        ["target", "choice", "source", "candidates"],
        **{"by": "choice", "shown": "true", "heading": "'source chosen without the target'"},
    )
    return Figure("unseen", "Success on an unseen target", caption, chart, drawn)


def _predictors(found: SourceChoice) -> Figure:
    """Return the rank correlations of measures with transfer."""
    rows = found.predictors.melt(
        ["measure", "pairs", "p"], ["rho", "added"], var_name="kind", value_name="correlation"
    )
    rows["kind"] = rows["kind"].map({"rho": "alone", "added": "beyond both accuracies"})
    tested = found.predictors["p"].notna().any()
    caption = (
        "Spearman's rank correlation of a measure with success between two unrelated models, "
        f"{rows['pairs'].iloc[0]} pairs, which share models. A measure is computed on half of the "
        "images and success on the other half, then swapped. "
    )
    caption += "p: permutations of the models." if tested else "Not tested: that needs six sources."
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
