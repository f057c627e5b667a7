"""Charts of the clean images: classes and confidences."""

from typing import Any

import altair as alt
import pandas as pd

from src.report.charts.theme import GREY, Drawn, inline, menu, tooltip

MOST_CLASSES = 40
"""Most classes in a chart; the table of a figure holds all."""


def class_counts_chart(counts: pd.DataFrame) -> Drawn:
    """Show how many images each class has.

    Args:
        counts: With `name` and `images`, most images first.
    """
    return (
        alt.Chart(inline(counts.head(MOST_CLASSES)))
        .mark_bar()
        .encode(
            x=alt.X("images:Q", title="images", axis=alt.Axis(tickMinStep=1, format="d")),
            y=alt.Y("name:N", sort=None, title=None),
            tooltip=tooltip("name", "images", shares=["share"]),
        )
        .properties(width=320)
    )


def profiles_chart(profiles: pd.DataFrame) -> Drawn:
    """Show the mean of the five highest probabilities, by initial confidence.

    Args:
        profiles: With `model`, `level` (initial confidence), `rank`, `images`, and `confidence`
            with its 10 % and 90 % quantiles.
    """
    models = list(dict.fromkeys(profiles["model"]))
    chosen = menu("profiles_of", "model", models, models[0])
    scheme: Any = alt.SchemeParams(name="viridis", extent=[0.15, 0.95])
    levels = [f"{level:.0%}" for level in sorted(set(profiles["level"]), reverse=True)]
    frame = profiles.assign(level=[f"{level:.0%}" for level in profiles["level"]])
    base = (
        alt.Chart(inline(frame))
        .transform_filter("datum.model == profiles_of && datum.images > 0")
        .encode(
            x=alt.X("rank:O", title="class, by probability", axis=alt.Axis(labelAngle=0)),
            xOffset=alt.XOffset("level:N", sort=levels),
        )
    )
    colour = alt.Color(
        "level:O",
        sort=levels,
        scale=alt.Scale(scheme=scheme),
        legend=alt.Legend(title="initial confidence"),
    )
    y = alt.Y("confidence:Q", title="mean probability", axis=alt.Axis(format=".0%"))
    bars = base.mark_bar().encode(
        y=y,
        color=colour,
        tooltip=tooltip("model", "level", "rank", "images", shares=["confidence"]),
    )
    spread = base.mark_rule(color=GREY).encode(y="confidence_low:Q", y2="confidence_high:Q")
    return alt.layer(bars, spread).properties(width=460, height=220).add_params(chosen)


def class_confidence_chart(classes: pd.DataFrame) -> Drawn:
    """Show every class's mean confidence, highest first.

    Args:
        classes: With `model`, `name`, `images`, `confidence`, `accuracy`, `place` (from 1).
    """
    models = list(dict.fromkeys(classes["model"]))
    chosen = menu("classes_of", "model", models, models[0])
    return (
        alt.Chart(inline(classes[classes["place"] <= MOST_CLASSES]))
        .transform_filter("datum.model == classes_of")
        .mark_bar()
        .encode(
            x=alt.X(
                "confidence:Q",
                title="mean confidence",
                scale=alt.Scale(domain=[0, 1]),
                axis=alt.Axis(format=".0%"),
            ),
            y=alt.Y("name:N", sort=alt.EncodingSortField("place"), title=None),
            tooltip=tooltip("model", "name", "images", shares=["confidence", "accuracy"]),
        )
        .properties(width=320)
        .add_params(chosen)
    )
