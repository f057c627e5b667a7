"""Success of attacks over the visibility of their perturbations."""

import altair as alt
import pandas as pd
from altair.typing import ChartType

from src.report.charts.theme import PERCENT, colour_by, inline, tooltip


def success_over_visibility(rows: pd.DataFrame) -> ChartType:
    """Return points of mean success over SSIM and over PSNR, with the attacks' names.

    The rows are those of `success_over_stealth`, all with a `success`.
    """
    lines = tooltip(
        *("attack", "source", "targets", "images", "rms_255", "linf_255", "psnr", "ssim"),
        shares=["success"],
    )
    panels = []
    for name, title in (("ssim", "SSIM (1: unchanged)"), ("psnr", "PSNR in dB")):
        base = alt.Chart().encode(
            x=alt.X(f"{name}:Q", scale=alt.Scale(zero=False, padding=24)).title(title),
            y=alt.Y("success:Q", axis=PERCENT, scale=alt.Scale(zero=False)).title("mean success"),
            color=colour_by("source", rows["source"], orient="bottom"),
            tooltip=lines,
        )
        points = base.mark_point(filled=True, size=60, opacity=1)
        names = base.mark_text(align="left", dx=6, fontSize=10).encode(text="attack:N")
        panels.append(alt.layer(points, names).properties(width=300, height=220))
    return alt.concat(*panels, columns=2, data=inline(rows))
