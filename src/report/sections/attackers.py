"""Targets under the strongest of several attackers, and attacks over visibility and iterations."""

import altair as alt
import pandas as pd
from altair.typing import ChartType

from src.analysis.strongest import fooled_by_at_least, strongest_attackers
from src.report.charts.dots import dot_plot
from src.report.charts.iterations import over_iterations
from src.report.charts.stealth import success_over_visibility
from src.report.charts.theme import PANEL, PERCENT, WHOLE, colour_by, inline, tooltip
from src.report.measure import Measured
from src.report.page import Figure, Section
from src.report.view import View

_KINDS = {"best": "the best one for all images", "any": "any of them for each image"}


def attackers(view: View, found: Measured) -> Section | None:
    """Return what is left of targets if the attacker may choose, and the costs of success."""
    figures = _strongest(found) if len(found.table("outcomes")) else []
    visible = found.table("stealth")
    if len(visible) and len(visible := visible.dropna(subset=["success"])):
        caption = (
            f"Mean success on other models at {visible['eps_255'].max():g}/255 over the similarity "
            f"of up to {visible['images'].max()} clean and adversarial images. Attacks of one "
            f"budget differ in size, here from {visible['rms_255'].min():.2f} to "
            f"{visible['rms_255'].max():.2f} / 255 (RMS)."
        )
        chart = success_over_visibility(visible)
        figures.append(Figure("stealth", "Success over visibility", caption, chart, visible))
    iterates = found.table("iterations")
    if len(iterates):
        caption = (
            "Success on these iterates of one run at the reference budget, dashed in the white "
            "box; a shorter run takes other steps where their length is the budget over their "
            "number. 95 % Wilson intervals."
        )
        chart, title = over_iterations(iterates), "Success over iterations"
        figures.append(Figure("iterations", title, caption, chart, iterates, choice=view.choice))
    title = "The attacker: choice, visibility, iterations"
    return Section("attackers", title, figures=tuple(figures)) if figures else None


def _strongest(found: Measured) -> list[Figure]:
    """Return the success of the best attack and source, of any of them, and of at least k."""
    rows = found.table("outcomes")
    rows = rows[rows["group"] == rows["group"].iloc[0]]
    table = strongest_attackers(rows)
    if table.empty:  # no target beside the source
        return []
    table = table[(table["attackers"] > 1) & (table["targeted"] == table["targeted"].min())]
    if table.empty:
        return []
    parts = [
        table.assign(
            attacker=words,
            **{f"rate{end}": table[f"{kind}{end}"] for end in ("", "_low", "_high")},
        )
        for kind, words in _KINDS.items()
    ]
    drawn = pd.concat(parts, ignore_index=True)
    caption = (
        f"Success against each target if the attacker may use any of up to "
        f"{table['attackers'].max()} pairs of attack and source, without the target's own white "
        f"box, on the {table['images'].min()} to {table['images'].max()} images that all of them "
        "count. 95 % intervals: of the best by a bootstrap over images, of any by Wilson."
    )
    columns = ["target", "attackers", "images", "attack", "source"]
    how = {"by": "attacker", "shown": "true", "heading": "'any attack and source of the sweep'"}
    chart = dot_plot(drawn, "rate", "success rate", columns, **how)
    counts = fooled_by_at_least(rows)
    counts = counts[counts["targeted"] == counts["targeted"].min()]
    words = (
        "Share of the images on which at least k attackers succeed: the left end is what any of "
        "them fools, and what is missing there to 100 % is fooled by none."
    )
    return [
        Figure("strongest", "If the attacker may choose", caption, chart, drawn),
        Figure("at-least", "Fooled by at least k attackers", words, _at_least(counts), counts),
    ]


def _at_least(counts: pd.DataFrame) -> ChartType:
    """Return curves of the share of images over the number of attackers that fool them."""
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
