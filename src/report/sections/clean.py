"""The clean images: classes, confidences, and the accuracy of every model."""

from collections.abc import Callable, Mapping

import altair as alt
import pandas as pd

from src.analysis import format_cell
from src.analysis.confidence import by_class, confidence_profiles, top_k
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
from src.report.measure import Measured
from src.report.page import Figure, Section
from src.report.sections.text import records

MOST_CLASSES = 40
"""Largest number of classes in a chart; its CSV file holds all."""


def clean_sentence(found: Measured) -> str:
    """Return every model's accuracies and confidences on clean images."""
    return " ".join(" ".join(_accuracies(models)) for models in found.clean.values())


def clean(found: Measured) -> tuple[Section, ...]:
    """Return the clean images of each data set: classes, confidences, accuracy of every model."""
    several = len(found.clean) > 1
    return tuple(
        _clean(f"-{number}" if several else "", f": {data}" if several else "", models)
        for number, (data, models) in enumerate(found.clean.items(), 1)
        if models
    )


def _clean(end: str, data: str, models: Mapping[str, pd.DataFrame]) -> Section:
    """Return one data set's section; `end` ends the names of its figures, `data` its title."""
    profiles, classes = _stacked(models, confidence_profiles), _stacked(models, by_class)
    names = next(iter(models.values())).drop_duplicates("label").set_index("label")["name"]
    classes = classes.assign(name=names.loc[classes["label"]].to_numpy())
    counts = classes.drop_duplicates("label")[["label", "name", "images"]]
    counts = counts.sort_values(["images", "label"], ascending=[False, True], ignore_index=True)
    total = int(counts["images"].sum())
    cut = f" The first {MOST_CLASSES} of {len(counts)} classes."
    cut = cut if len(counts) > MOST_CLASSES else ""
    figures = [
        Figure(
            f"class-counts{end}",
            "Images per class",
            f"{total} images of {len(counts)} classes.{cut}",
            _counts_chart(counts),
            counts,
        ),
        Figure(
            f"class-confidence{end}",
            "Mean confidence per class",
            f"Of {total} clean images, in descending order.{cut}",
            _class_confidence_chart(classes),
            classes,
        ),
    ]
    if len(profiles):  # else no image is near any of the levels
        profile = Figure(
            f"confidence-profiles{end}",
            "Top five by initial confidence",
            "Mean probability of the first to fifth class of the clean images whose confidence is "
            "within 2.5 points of each level; whiskers: 10 % to 90 % of them.",
            _profiles_chart(profiles),
            profiles,
        )
        figures.insert(1, profile)
    title = f"The clean images{data}"
    return Section(f"clean{end}", title, _accuracies(models), tuple(figures))


def _counts_chart(classes: pd.DataFrame) -> Drawn:
    whole = alt.Axis(tickCount=min(int(classes["images"].max()), 8), format="d")
    x = alt.X("images:Q", title="images", axis=whole)
    return _bars(classes.head(MOST_CLASSES)).encode(x=x, tooltip=tooltip("name", "images"))


def _class_confidence_chart(classes: pd.DataFrame) -> Drawn:
    rows = classes.groupby("model", sort=False).head(MOST_CLASSES)
    bars = _bars(rows).encode(
        x=alt.X("confidence:Q", title="mean confidence", scale=WHOLE, axis=PERCENT),
        tooltip=tooltip("model", "name", "images", shares=["confidence", "accuracy"]),
    )
    return one_part(bars, rows, "model")


def _bars(rows: pd.DataFrame) -> alt.Chart:
    y = alt.Y("name:N", sort=None, title=None)
    return alt.Chart(inline(rows)).mark_bar().encode(y=y).properties(width=320)


def _profiles_chart(profiles: pd.DataFrame) -> Drawn:
    base = alt.Chart(inline(profiles)).encode(
        x=alt.X("rank:O", title="class, by probability", axis=alt.Axis(labelAngle=0)),
        xOffset=alt.XOffset("level:N", sort="descending"),
    )
    bars = base.mark_bar().encode(
        y=alt.Y("confidence:Q", title="mean probability", axis=PERCENT),
        color=colour_of_levels("level"),
        tooltip=tooltip("model", "level", "rank", "images", shares=["confidence"]),
    )
    spread = base.mark_rule(color=GREY).encode(y="confidence_low:Q", y2="confidence_high:Q")
    return one_part(alt.layer(bars, spread).properties(width=460, height=220), profiles, "model")


def _accuracies(models: Mapping[str, pd.DataFrame]) -> tuple[str, ...]:
    """Return a sentence for each model: its accuracies with their intervals and confidences."""
    sentences = []
    for model, rows in models.items():
        parts = [
            f"top {row['k']} {format_cell(row['correct'], row['n'])} "
            f"[{row['accuracy_low']:.1%}, {row['accuracy_high']:.1%}], mean confidence "
            f"{'in the true class ' * (row['k'] > 1)}{row['confidence']:.1%}"
            for row in records(top_k(rows))
        ]
        sentences.append(f"{model}: {'; '.join(parts)}.")
    return tuple(sentences)


def _stacked(
    models: Mapping[str, pd.DataFrame], statistic: Callable[[pd.DataFrame], pd.DataFrame]
) -> pd.DataFrame:
    """Concatenate the statistic of each model, with a column `model`."""
    return pd.concat(
        [statistic(rows).assign(model=model) for model, rows in models.items()], ignore_index=True
    )
