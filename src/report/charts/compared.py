"""Attacks, sources, directions and variants compared on the same images."""

import altair as alt
import pandas as pd

from src.report.charts.dots import dot_plot
from src.report.charts.theme import Drawn, attack_colours, colours


def differences_chart(tests: pd.DataFrame, by: str, names: list[str]) -> Drawn:
    """Show differences of success rates on the same images.

    Args:
        tests: With `row` (what is compared, in words), `target` or `attack`, `n`, `first_success`,
            `second_success`, `difference` with its interval, and `p_holm`.
        by: Column of the colours, `target` or `attack`.
        names: All there are of them, in the order of their colours.
    """
    return dot_plot(
        tests,
        "difference",
        colour=alt.Color(f"{by}:N", scale=colours(names), legend=alt.Legend(title=by)),
        offset=by,
        title="difference of success rates",
        name="differences",
        divided_by=by,
        tooltips=["row", by, "n", "first_success", "second_success", "p_holm"],
    )


def variants_chart(variants: pd.DataFrame) -> Drawn:
    """Show the rates of one budget in every storage and of the controls.

    Args:
        variants: With `row` (attack and pair), `source`, `target`, `variant`, `k` of `n`, `rate`
            and its interval.
    """
    colour = alt.Color("variant:N", sort=None, legend=alt.Legend(title="images"))
    return dot_plot(
        variants,
        "rate",
        colour=colour,
        offset="variant",
        title="success rate",
        name="variants",
        divided_by="source",
        tooltips=["attack", "source", "target", "variant", "k", "n"],
    )


def excess_chart(excess: pd.DataFrame) -> Drawn:
    """Show what attacks achieve beyond a control, pair by pair.

    Args:
        excess: With `row` (the pair), `attack`, `source`, `target`, `control`, `success`,
            `control_success` of `denominator` images, and `excess` with its interval.
    """
    return dot_plot(
        excess,
        "excess",
        colour=attack_colours(excess),
        offset="attack",
        title="success rate beyond the control",
        name="excess",
        divided_by="source",
        tooltips=[
            "attack",
            "source",
            "target",
            "control",
            "success",
            "control_success",
            "denominator",
        ],
    )


def areas_chart(areas: pd.DataFrame) -> Drawn:
    """Show the mean of each robust accuracy curve over the budgets.

    Args:
        areas: With `row` (the pair), `attack`, `source`, `target`, `n`, and
            `robust_accuracy_area` with its interval.
    """
    return dot_plot(
        areas,
        "robust_accuracy_area",
        colour=attack_colours(areas),
        offset="attack",
        title="area under robust accuracy",
        name="areas",
        divided_by="source",
        tooltips=["attack", "source", "target", "n"],
    )
