"""Charts of the clean images: classes and confidences."""

import altair as alt
import pandas as pd

from src.report.charts.theme import (
    GREY,
    PERCENT,
    WHOLE,
    Drawn,
    colour_of_levels,
    inline,
    one_part,
    tooltip,
)

MOST_CLASSES = 40
"""Most classes in a chart; the table of a figure holds all."""


def class_counts_chart(classes: pd.DataFrame) -> Drawn:
    """Show how many images each class has.

    Args:
        classes: With `name` and `images`, most images first.
    """
    x = alt.X("images:Q", title="images", axis=alt.Axis(tickMinStep=1, format="d"))
    return _bars(classes.head(MOST_CLASSES)).encode(x=x, tooltip=tooltip("name", "images"))


def class_confidence_chart(classes: pd.DataFrame) -> Drawn:
    """Show every class's mean confidence, highest first.

    Args:
        classes: With `model`, `name`, `images`, `confidence`, `accuracy`.
    """
    rows = classes.groupby("model", sort=False).head(MOST_CLASSES)
    bars = _bars(rows).encode(
        x=alt.X("confidence:Q", title="mean confidence", scale=WHOLE, axis=PERCENT),
        tooltip=tooltip("model", "name", "images", shares=["confidence", "accuracy"]),
    )
    return one_part(bars, rows, "model")


def profiles_chart(profiles: pd.DataFrame) -> Drawn:
    """Show the mean of the five highest probabilities, by initial confidence.

    Args:
        profiles: With `model`, `level` (initial confidence), `rank`, `images`, and `confidence`
            with its 10 % and 90 % quantiles.
    """
    frame = profiles.assign(words=[f"{level:.0%}" for level in profiles["level"]])
    base = alt.Chart(inline(frame)).encode(
        x=alt.X("rank:O", title="class, by probability", axis=alt.Axis(labelAngle=0)),
        xOffset=alt.XOffset("level:N", sort="descending"),
    )
    bars = base.mark_bar().encode(
        y=alt.Y("confidence:Q", title="mean probability", axis=PERCENT),
        color=colour_of_levels("words", frame, "level"),
        tooltip=tooltip("model", "words", "rank", "images", shares=["confidence"]),
    )
    spread = base.mark_rule(color=GREY).encode(y="confidence_low:Q", y2="confidence_high:Q")
    return one_part(alt.layer(bars, spread).properties(width=460, height=220), frame, "model")


def _bars(rows: pd.DataFrame) -> alt.Chart:
    y = alt.Y("name:N", sort=None, title=None)
    return alt.Chart(inline(rows)).mark_bar().encode(y=y).properties(width=320)
