"""Accuracy on clean images without their high frequencies."""

from collections.abc import Callable

import altair as alt
import pandas as pd

from src.analysis.frequency_bands import low_pass_accuracy
from src.artifacts.jobs import FinishedJob
from src.report.charts.theme import PANEL, STROKES, colour_by, curve, inline, tooltip
from src.report.page.html import Figure
from src.utils.model_names import NO_DEFENCE

_NYQUIST = 0.5


def summarise(table: pd.DataFrame, job: FinishedJob, rename: Callable[[str], str]) -> pd.DataFrame:
    """Compute each model's accuracy by cutoff."""
    rows = job.predictions
    clean = rows[(rows["eps_255"] == 0) & (rows["defence"] == NO_DEFENCE)]
    accuracies = low_pass_accuracy(table, clean)
    return accuracies.assign(target=[rename(str(target)) for target in accuracies["target"]])


def draw(rows: pd.DataFrame) -> Figure:
    """Draw the accuracy of each model over the cutoff."""
    rows = rows.drop_duplicates(["target", "cutoff"]).drop(columns=["attack", "source"])
    caption = (
        f"Accuracy on clean images without frequencies above the cutoff. {rows['n'].max()} images, "
        "95 % Wilson intervals."
    )
    frame = rows.assign(
        at=rows["cutoff"].clip(upper=_NYQUIST),  # unfiltered images are drawn here
        kept=[f"below {c:g}" if c < _NYQUIST else "everything" for c in rows["cutoff"]],
    ).drop(columns="cutoff")
    base = alt.Chart(inline(frame)).encode(
        x=alt.X("at:Q", title="frequencies kept (cycles per pixel; last: everything)"),
        color=colour_by("target", frame["target"], "model", orient="bottom", **STROKES),
    )
    lines = tooltip("target", "kept", "correct", "n", shares=["accuracy"])
    chart = curve(base, "accuracy", lines).properties(width=PANEL, height=240)
    title = "Accuracy on low-passed clean images"
    return Figure("low-passed", title, caption, chart, rows)
