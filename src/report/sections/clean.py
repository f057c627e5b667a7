"""The section on clean images: classes, confidences and the accuracy of each model."""

from collections.abc import Callable, Mapping

import altair as alt
import pandas as pd
from altair.typing import ChartType

from src.analysis import format_cell
from src.analysis.confidence import by_class, confidence_profiles, top_k
from src.report.charts.theme import (
    PANEL,
    PERCENT,
    WHOLE,
    colour_of_levels,
    inline,
    one_model,
    tooltip,
)
from src.report.page.html import Figure, Section
from src.report.page.page_data import PageData

MOST_CLASSES = 40
"""Largest number of classes in a chart; its CSV file has all classes."""


def clean_sentence(numbers: PageData) -> str:
    """Return a sentence with the accuracy of each model on clean images."""
    parts = []
    for models in numbers.clean.values():
        for model, rows in models.items():
            first = top_k(rows).iloc[0]
            parts.append(f"{model} {format_cell(first['correct'], first['n'])}")
    return f"Correct: {', '.join(parts)}."


def clean(numbers: PageData) -> tuple[Section, ...]:
    """Build one section per data set: classes, confidences and accuracy on clean images."""
    several = len(numbers.clean) > 1
    return tuple(
        _clean(f"-{number}" * several, f": {data}" * several, models)
        for number, (data, models) in enumerate(numbers.clean.items(), 1)
        if models
    )


def _clean(end: str, data: str, models: Mapping[str, pd.DataFrame]) -> Section:
    """Build the section of one data set; `end` is appended to figure names, `data` to the title."""
    profiles, classes = _stacked(models, confidence_profiles), _stacked(models, by_class)
    names = next(iter(models.values())).drop_duplicates("label").set_index("label")["name"]
    classes = classes.assign(name=names.loc[classes["label"]].to_numpy())
    total, number = len(next(iter(models.values()))), len(names)
    cut = f" The first {MOST_CLASSES} of {number} classes." if number > MOST_CLASSES else ""
    figures = []
    if len(profiles):  # empty if no image is near any level
        title, caption = (
            "Top five by initial confidence",
            "Mean probability of the five most likely classes, over the clean images with an "
            "initial confidence within 2.5 points of each level.",
        )
        name, chart = f"confidence-profiles{end}", _profiles_chart(profiles)
        figures.append(Figure(name, title, caption, chart, profiles))
    title, caption = (
        "Images and mean confidence per class",
        f"{total} clean images; classes by decreasing confidence, with their image counts.{cut}",
    )
    figures.append(Figure(f"classes{end}", title, caption, _classes_chart(classes), classes))
    heading = f"The clean images{data}"
    return Section(f"clean{end}", heading, figures=tuple(figures), table=_table(models))


def _classes_chart(classes: pd.DataFrame) -> ChartType:
    rows = classes.groupby("model", sort=False).head(MOST_CLASSES)
    rows = rows.assign(row=rows["name"] + " (" + rows["images"].astype(str) + ")")
    height = 20 * rows.groupby("model").size().max()
    bars = (
        alt.Chart(inline(rows))
        .mark_bar()
        .encode(
            x=alt.X("confidence:Q", title="mean confidence", scale=WHOLE, axis=PERCENT),
            y=alt.Y("row:N", sort=None, title=None),
            tooltip=tooltip("model", "name", "images", shares=["confidence", "accuracy"]),
        )
    )
    return one_model(bars.properties(width=PANEL, height=height), rows)


def _profiles_chart(profiles: pd.DataFrame) -> ChartType:
    bars = (
        alt.Chart(inline(profiles))
        .mark_bar()
        .encode(
            x=alt.X("rank:O", title="class, by probability", axis=alt.Axis(labelAngle=0)),
            xOffset=alt.XOffset("level:N", sort="descending"),
            y=alt.Y("confidence:Q", title="mean probability", axis=PERCENT),
            color=colour_of_levels("level", orient="bottom"),
            tooltip=tooltip("model", "level", "rank", "images", shares=["confidence"]),
        )
    )
    return one_model(bars.properties(width=PANEL, height=220), profiles)


def _table(models: Mapping[str, pd.DataFrame]) -> tuple[tuple[str, ...], ...]:
    """Return the heading and one row per model: accuracies with intervals, and confidences."""
    heading = ["model"]
    lines: list[tuple[str, ...]] = []
    for model, rows in models.items():
        line = [model]
        for row in top_k(rows).to_dict("records"):
            share = format_cell(row["correct"], row["n"])
            line.append(f"{share} [{row['accuracy_low']:.1%}, {row['accuracy_high']:.1%}]")
            line.append(f"{row['confidence']:.1%}")
            if not lines:
                whose = "in the true class" if row["k"] > 1 else "in the first class"
                heading += [f"top {row['k']}", f"confidence {whose}"]
        lines.append(tuple(line))
    return (tuple(heading), *lines)


def _stacked(
    models: Mapping[str, pd.DataFrame], statistic: Callable[[pd.DataFrame], pd.DataFrame]
) -> pd.DataFrame:
    """Concatenate a statistic over all models, with a column `model`."""
    return pd.concat(
        [statistic(rows).assign(model=model) for model, rows in models.items()], ignore_index=True
    )
