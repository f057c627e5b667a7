"""The section on the strongest attacker, and on success over visibility and iterations."""

from collections.abc import Sequence
from dataclasses import replace

import altair as alt
import pandas as pd
from altair.typing import ChartType

from src.analysis.image_outcomes import ImageOutcomes
from src.analysis.strongest import fooled_by_at_least, strongest_attackers
from src.analysis.visibility import SIZES
from src.report.charts.dot_plot import OF_SOURCE, SOURCE_TITLE, dot_plot
from src.report.charts.ranking import success_over
from src.report.charts.theme import (
    MEAN,
    PANEL,
    PERCENT,
    STROKES,
    WHOLE,
    colour_by,
    curve,
    inline,
    tooltip,
)
from src.report.page.html import Figure, Section
from src.report.page.page_data import PageData
from src.report.page.view import View
from src.report.sections.text import span

_KINDS = {"best": "best pair for all images", "any": "best pair for each image"}


def attackers(view: View, numbers: PageData) -> Section | None:
    """Build the section: success if the attacker may choose, and over visibility and iterations."""
    figures = _strongest(numbers.outcomes)
    figures += _visibility(view, numbers.table("visibility"))
    iterates = numbers.table("iterations")
    if len(iterates):
        caption = (
            "Success of the iterates of one run at the reference budget; dashed: white box. A "
            "shorter run can differ, because the step size may depend on the number of steps. 95 % "
            "Wilson intervals."
        )
        chart, title = _over_iterations(iterates), "Success over iterations"
        figures.append(Figure("iterations", title, caption, chart, iterates, choice=view.choice))
    title = "The attacker: choice, visibility, iterations"
    return Section("attackers", title, figures=tuple(figures)) if figures else None


def _strongest(groups: Sequence[ImageOutcomes]) -> list[Figure]:
    """Return the figures for each group of comparable jobs, with unique names."""
    return [
        replace(figure, name=f"{figure.name}-{number}" if number else figure.name)
        for number, figures in enumerate(filter(None, map(_strongest_of, groups)))
        for figure in figures
    ]


def _strongest_of(outcomes: ImageOutcomes) -> list[Figure]:
    """Draw the success of the best pair per set and per image, and of at least k pairs."""
    table = strongest_attackers(outcomes)
    if table.empty:  # no target except the source
        return []
    table = table[(table["attackers"] > 1) & (table["targeted"] == table["targeted"].min())]
    if table.empty:
        return []
    ends = ("", "_low", "_high")
    parts = [
        table.assign(attacker=name, **{f"rate{end}": table[f"{kind}{end}"] for end in ends})
        for kind, name in _KINDS.items()
    ]
    drawn = pd.concat(parts, ignore_index=True)
    attacks = list(dict.fromkeys(attack for attack, _ in outcomes.jobs))
    caption = (
        f"Success on each target if the attacker may use any of up to "
        f"{table['attackers'].max()} pairs of attack ({', '.join(attacks[:5])}"
        f"{', ...' * (len(attacks) > 5)}) and source, except white boxes. "
        f"{span(table['images'])} images that all pairs count. "
        "95 % Wilson intervals; the lower end for the best pair is exact and corrected for the "
        "number of pairs."
    )
    chart = dot_plot(
        drawn,
        "rate",
        "fooled",
        ["target", "attackers", "images", "attack", "source"],
        **{"by": "attacker", "shown": "true", "heading": "'any attack and source of the sweep'"},
    )
    counts = fooled_by_at_least(outcomes)
    counts = counts[counts["targeted"] == counts["targeted"].min()]
    explanation = (
        "Share of the images that at least k of these attackers fool. At k = 1, the distance to "
        "100 % is the share that no attacker fools."
    )
    return [
        Figure("strongest", "If the attacker may choose", caption, chart, drawn),
        Figure(
            "at-least", "Fooled by at least k attackers", explanation, _at_least(counts), counts
        ),
    ]


def _visibility(view: View, sizes: pd.DataFrame) -> list[Figure]:
    """Draw the mean success of each attack over the visibility of its perturbations."""
    if sizes.empty:
        return []
    means = sizes.groupby("attack", as_index=False)[[*SIZES]].mean().assign(source=MEAN)
    sizes_and_means = pd.concat([sizes.rename(columns={"images": "measured"}), means])
    reference = view.ranking[view.ranking["eps_255"] == view.choice.eps]
    rows = reference.merge(sizes_and_means, on=["attack", "source"]).dropna(subset="mean")
    if rows.empty:
        return []
    caption = (
        "Mean share fooled from the chosen source, or from all, at the reference budget, over the "
        f"similarity of up to {sizes['images'].max()} clean and adversarial images. At one budget, "
        f"perturbations differ in size: here from {sizes['rms_255'].min():.2f} to "
        f"{sizes['rms_255'].max():.2f} / 255 (RMS)."
    )
    chart = alt.concat(
        success_over(rows, "ssim", "SSIM (1: unchanged)", "linear"),
        success_over(rows, "psnr", "PSNR in dB", "linear"),
        columns=2,
    )
    return [
        Figure("visibility", "Success over visibility", caption, chart, rows, choice=view.choice)
    ]


def _over_iterations(rows: pd.DataFrame) -> ChartType:
    """Draw curves for the chosen attack and source, dashed for white boxes."""
    tried = sorted(set(rows["iteration"]))
    lines = tooltip(
        "attack source target relation iteration step_255 denominator",
        shares=["success_rate", "success_rate_low", "success_rate_high"],
    )
    axis = alt.Axis(values=tried, labelOverlap="greedy")
    scale = alt.Scale(type="sqrt", domain=[0, max(tried)])
    base = (
        alt.Chart(inline(rows))
        .transform_filter(OF_SOURCE)
        .encode(
            x=alt.X("iteration:Q", title="iteration", scale=scale, axis=axis),
            color=colour_by("target", rows["target"], orient="bottom", **STROKES),
        )
    )
    dashes = alt.StrokeDash("relation:N", legend=None)
    heading = alt.Title(alt.ExprRef(SOURCE_TITLE))
    drawn = curve(base, "success_rate", lines, strokeDash=dashes)
    return drawn.properties(width=PANEL, height=220, title=heading)


def _at_least(counts: pd.DataFrame) -> ChartType:
    """Draw the share of images over the number of attackers that fool them."""
    lines = tooltip("target", "k", "attackers", "fooled", "images", shares=["share", "low", "high"])
    return (
        alt.Chart(inline(counts))
        .mark_line(interpolate="step-after", point=True)
        .encode(
            x=alt.X("k:Q", title="at least k attackers", axis=alt.Axis(tickMinStep=1, format="d")),
            y=alt.Y("share:Q", title="share of images", axis=PERCENT, scale=WHOLE),
            color=colour_by("target", counts["target"], orient="bottom"),
            tooltip=lines,
        )
        .properties(width=PANEL, height=220)
    )
