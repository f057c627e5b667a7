"""The clean images: classes, confidences, and the accuracy of every model."""

from collections.abc import Callable, Mapping

import pandas as pd

from src.analysis import format_cell
from src.analysis.confidence import by_class, confidence_profiles, top_k
from src.report.charts.clean import (
    MOST_CLASSES,
    class_confidence_chart,
    class_counts_chart,
    profiles_chart,
)
from src.report.measure import Measured
from src.report.page import Figure, Section, Table


def clean_sentence(found: Measured) -> str:
    """Return every model's accuracy and mean confidence on clean images."""
    sentences = []
    for model, rows in [pair for models in found.clean.values() for pair in models.items()]:
        first = top_k(rows).iloc[0]
        cell = format_cell(int(first["correct"]), int(first["n"]))
        sentences.append(f"{model}: {cell} correct, mean confidence {first['confidence']:.1%}.")
    return " ".join(sentences)


def clean(found: Measured) -> tuple[Section, ...]:
    """Return the clean images of each data set: classes, confidences, accuracy of every model."""
    several = len(found.clean) > 1
    return tuple(
        _clean(f"-{number}" if several else "", f": {data}" if several else "", models)
        for number, (data, models) in enumerate(found.clean.items(), 1)
        if models
    )


def _clean(end: str, data: str, models: Mapping[str, pd.DataFrame]) -> Section:
    """Return one data set; `end` and `data` distinguish it from others."""
    profiles, classes = _stacked(models, confidence_profiles), _stacked(models, by_class)
    names = next(iter(models.values())).drop_duplicates("label").set_index("label")["name"]
    classes = classes.assign(name=names.loc[classes["label"]].to_numpy())
    counts = classes.drop_duplicates("label").sort_values(
        ["images", "label"], ascending=[False, True], ignore_index=True
    )[["label", "name", "images"]]
    most, total = MOST_CLASSES, int(counts["images"].sum())
    cut = f" The first {most} of {len(counts)} classes." if len(counts) > most else ""
    figures = (
        Figure(
            f"class-counts{end}",
            "Images per class",
            f"{total} images of {len(counts)} classes.{cut}",
            class_counts_chart(counts),
            counts,
        ),
        Figure(
            f"confidence-profiles{end}",
            "Top five by initial confidence",
            "Mean probability of the first to fifth class of the clean images whose confidence is "
            "within 2.5 points of each level; whiskers: 10 % to 90 % of them.",
            profiles_chart(profiles),
            profiles,
        ),
        Figure(
            f"class-confidence{end}",
            "Mean confidence per class",
            f"Of {total} clean images, in descending order.{cut}",
            class_confidence_chart(classes),
            classes,
        ),
    )
    title = f"The clean images{data}"
    return Section(f"clean{end}", title, (), figures, (_top_table(models),))


def _top_table(models: Mapping[str, pd.DataFrame]) -> Table:
    rows = _stacked(models, top_k)
    cells = zip(rows["correct"], rows["n"], strict=True)
    frame = pd.DataFrame(
        {
            "model": rows["model"],
            "": [f"top {k}" for k in rows["k"]],
            "accuracy": [format_cell(int(k), int(n)) for k, n in cells],
            "95 % interval": [
                f"{low:.1%} to {high:.1%}"
                for low, high in zip(rows["accuracy_low"], rows["accuracy_high"], strict=True)
            ],
            "mean confidence": [f"{value:.2%}" for value in rows["confidence"]],
        }
    )
    caption = (
        "Top 1: mean confidence in the prediction, over all images. Top 5: mean confidence in the "
        "true class, over the images where it is among the five."
    )
    return Table("Accuracy and confidence on clean images", caption, frame)


def _stacked(
    models: Mapping[str, pd.DataFrame], statistic: Callable[[pd.DataFrame], pd.DataFrame]
) -> pd.DataFrame:
    """Put a table of each model below the others, with a column `model`."""
    tables = {model: statistic(rows) for model, rows in models.items()}
    return pd.concat(tables, names=["model"]).reset_index("model").reset_index(drop=True)
