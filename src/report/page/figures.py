"""The charts of the part Data, and the curves of the page."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from ...analysis.confidence import by_class, confidence_profiles
from ...utils.model_names import ABSTAINED
from .. import charts
from ..charts.theme import PANEL
from ..diagnostics import panel_of
from .html import PageFigure, vega_of
from .images import PageData

MOST_CLASSES = 40
"""Largest number of classes in a chart."""
HEIGHTS = {"success": 128, "correct": 128, "confidence": 90, "image": 80, "group": 200}
"""Heights of the curves over the budget by name."""
_CLASSES = panel_of("confidence", "row", "", {"marks": "bars"}, confidence="mean confidence")


def clean_figures(numbers: PageData) -> Iterator[PageFigure]:
    """Yield the charts of the part Data, whose rows are those of one model."""
    models = numbers.clean
    if not models:
        return
    entry: dict[str, Any] = {"keys": {"model": "model"}, "part": "data"}
    bins = _of_models(models, _bins)
    title, caption = "Images by confidence when clean", "Ten bins of 10 points."
    yield PageFigure("confidences", title, caption, charts.histogram(), bins, **entry)
    profiles = _of_models(models, confidence_profiles)
    if len(profiles):
        caption = (
            "Mean probability of the five most likely classes, over the clean images with an "
            "initial confidence within 2.5 points of each level."
        )
        title, chart = "Top five by initial confidence", charts.profiles()
        yield PageFigure("confidence-profiles", title, caption, chart, profiles, **entry)
    classes = _of_models(
        models, lambda rows: by_class(rows).merge(rows[["label", "name"]].drop_duplicates())
    )
    if classes["images"].max() > 1:  # else a class's mean is one image's value
        cut = classes.groupby("model", sort=False).head(MOST_CLASSES)
        cut = cut.assign(row=cut["name"] + " (" + cut["images"].astype(str) + ")")
        images, count = len(next(iter(models.values()))), classes["label"].nunique()
        caption = f"{images} clean images; classes by decreasing confidence, with their counts."
        caption += f" The first {MOST_CLASSES} of {count} classes." * (count > MOST_CLASSES)
        title = "Images and mean confidence per class"
        yield PageFigure("classes", title, caption, charts.statistic(cut, _CLASSES), cut, **entry)


def _of_models(
    models: Mapping[str, pd.DataFrame], compute: Callable[[pd.DataFrame], pd.DataFrame]
) -> pd.DataFrame:
    """Return the statistics of all models, computed from the rows of each."""
    parts = [compute(rows).assign(model=model) for model, rows in models.items()]
    return pd.concat([part for part in parts if len(part)] or parts, ignore_index=True)


def _bins(rows: pd.DataFrame) -> pd.DataFrame:
    """Count correct and wrong clean images of one model by confidence, in ten bins."""
    rows = rows[rows["predicted"] != ABSTAINED]
    low = np.clip((10 * rows["confidence"].to_numpy(float)).astype(int), 0, 9) / 10
    right = np.where(rows["predicted"] == rows["label"], "correct", "wrong")
    table = pd.DataFrame({"low": low, "high": low + 0.1, "images_are": right}).value_counts()
    return table.rename("images").reset_index().sort_values(["low", "images_are"])


def page_charts(
    tried: Sequence[float],
    top: float,
    heights: Mapping[str, int] = HEIGHTS,
    end: float | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Return the curves over the budget as Vega specifications, by name.

    `top` and `end` are those of the axes of success and of the budget; `options` are for `curves`.
    """
    specs = {}
    for name, height in heights.items():
        scale, named = alt.Scale(domain=[0, top if name == "success" else 1]), name != "group"
        chart = charts.curves(tried, height, scale, named, at=True, end=end, **options)
        specs[name] = vega_of(chart.properties(width=PANEL).to_dict(validate=False))
    return specs
