"""Attacks ranked, the transfer matrix, curves, costs, and the main finding in a sentence."""

from math import nan

import numpy as np
import pandas as pd

from src.analysis import CLEAN, OWN, TRANSFER, WHITE_BOX, format_cell
from src.analysis.intervals import FEWEST_IMAGES
from src.analysis.ranking import resolution
from src.config.sections import CONTROLS
from src.report.charts.dot_plot import dot_plot
from src.report.charts.ranking import ranked, success_over
from src.report.charts.theme import MEAN
from src.report.charts.transfer_matrix import curves_chart, matrix_chart
from src.report.page.html import Figure, Section
from src.report.page.statistics import Measured
from src.report.page.view import View
from src.utils.defended_names import Evaluated

_AT_BUDGET = {"eps_255": "eps", "protocol": "protocol", "defence": "defence"}
_OF_ATTACK = {"attack": "attack", "protocol": "protocol", "defence": "defence"}


def answer_sentence(view: View, numbers: Measured) -> str:
    """Say which attack, or source, fools other models most, and whether that is decided."""
    rows = numbers.ranking[numbers.ranking["images"] >= FEWEST_IMAGES]
    if rows.empty:
        return _of_one_pair(view)
    rows = _first_ranking(rows)
    several = rows["attack"].nunique() > 1
    rows = rows[rows["source"] == rows["source"].iloc[0]] if several else _sources(rows, numbers)
    first = rows.iloc[0]
    place = (
        f"On {first['dataset']} at {first['eps_255']:g}/255 ({first['norm']}, {first['protocol']})"
    )
    mean = str(first["source"]).startswith("mean of")
    attacker = first["attack"] if mean else f"{first['attack']} from {first['source']}"
    most = " most" * (len(rows) > 1)
    share = f"{first['mean']:.1%} in the mean over {first['images']} images"
    share += "" if np.isnan(first["low"]) else f" [{first['low']:.1%}, {first['high']:.1%}]"
    share += f", {first['source']}" * mean
    verb = _verb(first["kind"].startswith("targeted"))
    sentence = f"{place} {attacker} {verb} {first['models']} models{most}: {share}."
    return sentence + _decided(rows, "attack" if several else "source") + _targets(view)


def _verb(targeted: bool) -> str:
    return "reaches its target labels on" if targeted else "fools"


def _first_ranking(rows: pd.DataFrame, *more: str) -> pd.DataFrame:
    """Return the rows of the first group of jobs, budget, kind and defence, and of `more`."""
    for name in ("group", "eps_255", "kind", "defence", *more):
        rows = rows[rows[name] == rows[name].iloc[0]]
    return rows


def _sources(rows: pd.DataFrame, numbers: Measured) -> pd.DataFrame:
    """Return the ranking of the sources of one attack; unranked, they are in the order of means."""
    if len(numbers.sources):
        alike = (
            numbers.sources[["group", "kind", "attack"]]
            == rows[["group", "kind", "attack"]].iloc[0]
        )
        ranked = numbers.sources[alike.all(axis=1) & (numbers.sources["images"] >= FEWEST_IMAGES)]
        if len(ranked):
            return _first_ranking(ranked).assign(low=nan, high=nan)
    single = rows[~rows["source"].str.match("mean of")]
    single = single.sort_values("mean", ascending=False, kind="stable")
    return single.assign(undecided=None, detectable=nan)


def _targets(view: View) -> str:
    """Say which targets fall most and least to what is shown first."""
    rows = view.at_choice(view.choice.attack, view.choice.source or MEAN)
    rates = rows[rows["relation"] == TRANSFER].set_index("target")["success_rate"].dropna()
    if len(rates) < 2:
        return ""
    rates = rates.sort_values(ascending=False)
    most, least = (
        f"{rates.index[at]} {verb} ({rates.iloc[at]:.0%})"
        for at, verb in ((0, "falls most"), (-1, "least"))
    )
    return f" Of the targets {most}, {least}."


def _decided(rows: pd.DataFrame, of: str) -> str:
    """Say which attacks, or sources, cannot be told from the first, and which could be."""
    others = rows.iloc[1:]
    if others.empty:
        return ""
    if rows["p"].isna().all() and not others["undecided"].isna().all():
        return " Not tested: that needs 30 images."
    if others["undecided"].isna().all():
        return " Sources are not compared: that needs two targets that are neither of them."
    tied = others.loc[others["undecided"].astype(bool), of].tolist()
    named = ", ".join(tied[:3]) + f" and {len(tied) - 3} more" * (len(tied) > 3)
    weaker, second = len(others) - len(tied), others.iloc[0]
    if tied:
        text = f" Not decided: it cannot be told from {named}"
        text += f"; the other {weaker} {'are' if weaker > 1 else 'is'} weaker" * (weaker > 0)
    else:
        numbers = -100 * second[["difference", "difference_high", "difference_low"]].astype(float)
        by = "by {:.1f} points [{:.1f}, {:.1f}] (p < 0.05)".format(*numbers)
        rest = others.iloc[1][of] if weaker == 2 else f"the other {weaker - 1}"
        text = f" That is decided: {second[of]} is weaker {by}" + f", and {rest} too" * (weaker > 1)
    return f"{text}."


def _of_one_pair(view: View) -> str:
    """Say what the first pair shows, where no ranking has enough images or other models."""
    choice, (attack, source, target) = view.choice, view.pairs[0]
    rows = view.at_choice(attack, source)
    row = rows[rows["target"] == target].iloc[0]
    if row["n"] < FEWEST_IMAGES:
        return f"No pair has the {FEWEST_IMAGES} images counted that a ranking needs."
    if row["relation"] == WHITE_BOX:
        target += ", the model that it was crafted on,"
    share = format_cell(row["success"], row["n"])
    return (
        f"At {choice.eps:g}/255 ({choice.protocol}) {attack} from {source} "
        f"{_verb(row['targeted'])} {target} for {share} of the images counted."
    )


def answer(view: View, numbers: Measured) -> Section:
    """Return what was swept at a glance: attacks ranked, sources x targets, budgets, costs."""
    attacked = view.rows[view.rows["source"] != CLEAN]
    targets = attacked.loc[attacked["relation"] == TRANSFER, "target"].nunique()
    figures = []
    if attacked["attack"].nunique() > 1 and targets:
        figures.append(_ranked(view, numbers))
    figures.append(_curves(view, attacked))
    if attacked.loc[attacked["source"] != MEAN, "source"].nunique() > 1 or len(figures) == 1:
        caption = (
            "Rows: sources; columns: targets; k / n of the images that the protocol counts. The "
            "row clean: accuracy on all clean images."
        )
        chart, keys = matrix_chart(view.rows), {"attack": "attack"}
        shape = ("fit", view.choice, keys)
        figures.append(Figure("matrix", "Sources and targets", caption, chart, view.rows, *shape))
    return Section("answer", "What transfers", figures=(*figures, *_costs(view)))


def _ranked(view: View, numbers: Measured) -> Figure:
    """Return the attacks by rank, with what the ranking resolves in the caption."""
    models = numbers.ranking["models"].iloc[0] if len(numbers.ranking) else "other"
    caption = (
        "Rows: attacks by rank; columns: targets. The mean is over the images' means over the "
        f"{models} targets ({view.choice.protocol}), with its interval; = and colour: the first, "
        "and what cannot be told from it (all pairs tested together, "
        "p \N{GREATER-THAN OR EQUAL TO} 0.05); tooltips show the difference from the first. "
        "Gradients per image are those of all budgets together. White box: the target is the "
        "source, or a member of it. Click a cell to follow it."
    )
    if len(numbers.ranking):
        for line in resolution(_first_ranking(numbers.ranking, "source")):
            caption += f" {line[0].upper()}{line[1:]}."
    chart = ranked(view.rows, view.ranking, view.choice)
    shape = ("fit", view.choice, _AT_BUDGET)
    return Figure("ranking", "Attacks, ranked", caption, chart, view.ranking, *shape)


def _curves(view: View, attacked: pd.DataFrame) -> Figure:
    """Return success and confidence over the budgets, or at the only one."""
    single = attacked.loc[attacked["eps_255"] > 0, "eps_255"].nunique() == 1
    caption = (
        "Of the attack and source chosen"
        + "; a click on a name of the legend singles a target out" * (not single)
        + ". Confidence: mean probability of the predicted class, right or wrong, over all images "
        "counted (on those fooled alone: tooltips of matrices). 95 % Wilson intervals; means over "
        "sources have none."
    )
    title = "At the budget" if single else "Over the budget"
    shape = ("rest", view.choice, _OF_ATTACK)
    return Figure("curves", title, caption, curves_chart(view.rows), view.rows, *shape)


def _costs(view: View) -> list[Figure]:
    """Return success on other models over what attacks cost."""
    rows = view.ranking[view.ranking["eps_255"] == view.choice.eps]
    rows = rows.assign(gradients_per_image=rows["gradients"] + rows["fit_gradients"])
    rows = rows[(rows["gradients_per_image"] > 0) & rows["mean"].notna()]
    if rows["attack"].nunique() < 2:
        return []
    caption = "Mean success on other models at the reference budget, with its interval."
    title = "gradients per image"
    if rows["fit_gradients"].any():
        title += ", those of fits included"
        caption += " The gradients of a fit are shared out among the images evaluated."
    chart = success_over(rows, "gradients_per_image", title, "log")
    return [Figure("costs", f"Success over {title}", caption, chart, rows, "rest", view.choice)]


def variants(view: View, numbers: Measured) -> Section | None:
    """Return storage formats, controls and defences of the attack and source chosen."""
    rates, excess = numbers.table("rates"), numbers.table("excess")
    behind = numbers.table("behind_defences")
    names = ["attack", "source", "target"]
    figures = []
    if len(behind):
        figures.append(_defences(view, pd.concat([rates[rates["primary"]], behind])))
    shown = rates[rates["reference"]]
    if shown["variant"].nunique() > 1:
        shown = shown.assign(variant=shown["variant"].replace(CONTROLS))
        caption = (
            "Success at the reference budget of the same images in every storage, and of the "
            f"controls, on up to {shown['denominator'].max()} images; 95 % Wilson intervals."
        )
        columns = [*names, "variant", "success", "denominator"]
        chart = dot_plot(shown, "success_rate", "success rate", columns, by="variant")
        figures.append(
            Figure("variants", "Storage and controls", caption, chart, shown, "half", view.choice)
        )
    if len(excess):
        excess = excess.assign(control=excess["control"].replace(CONTROLS))
        caption = (
            "Success at the reference budget minus that of the control of the same budget, on the "
            f"same up to {excess['denominator'].max()} images; Tango's 95 % interval."
        )
        columns = [*names, "control", "success", "control_success", "denominator"]
        chart = dot_plot(excess, "excess", "success rate beyond the control", columns, by="control")
        figures.append(
            Figure("excess", "Beyond the controls", caption, chart, excess, "half", view.choice)
        )
    title = "Defences, storage and controls" if len(behind) else "Storage and controls"
    return Section("variants", title, figures=tuple(figures)) if figures else None


def _defences(view: View, rates: pd.DataFrame) -> Figure:
    """Return robust accuracy beside clean accuracy behind each defence."""
    clean = rates[(rates["protocol"] == "all") & (rates["eps_255"] == 0)].assign(images="clean")
    attacked = rates[rates["reference"]].assign(images="attacked")
    rows = pd.concat([clean, attacked])
    mark = rows["relation"].map({OWN: " (own)"}).fillna("")
    pairs = map(Evaluated, rows["target"], rows["defence"])
    rows = rows.assign(target=list(map(str, pairs)) + mark)
    rows = rows.sort_values("target", kind="stable")
    caption = (
        "Clean accuracy, and what is left of it at the reference budget, behind each defence; 95 % "
        "Wilson intervals. A plain transfer attack says little about attackers who know the "
        "defence: source_defence=NAME attacks the source behind it. "
        "(own): the source's network behind another defence."
    )
    columns = ["attack", "source", "target", "images", "k", "n", "abstained"]
    counted = str(attacked["counted"].iloc[0])
    chart = dot_plot(rows, "rate", counted, columns, by="images")
    return Figure("defences", "Behind defences", caption, chart, rows, "half", view.choice)
