"""The first section: main finding, rankings, transfer matrix, curves, costs and defences."""

from math import nan

import numpy as np
import pandas as pd

from src.analysis import CLEAN, OWN, TRANSFER, WHITE_BOX, format_cell
from src.analysis.image_outcomes import GROUP
from src.analysis.intervals import FEWEST_IMAGES
from src.analysis.multiple_comparisons import FEWEST_FOR_WINNER
from src.analysis.ranking import needed, resolution
from src.config.sections import CONTROLS
from src.report.charts.dot_plot import dot_plot
from src.report.charts.ranking import ranked, ranked_sources, success_over
from src.report.charts.theme import MEAN
from src.report.charts.transfer_matrix import curves_chart, matrix_chart
from src.report.matrix_tables import OF_SOURCES
from src.report.page.html import Answer, Figure, Section
from src.report.page.page_data import PageData
from src.report.page.view import View
from src.utils.model_names import NO_DEFENCE, ModelRef

_AT_BUDGET = {"eps_255": "eps", "protocol": "protocol", "defence": "defence"}
_TESTED = (
    "= and colour: the first, and all that are not significantly weaker (p "
    "\N{GREATER-THAN OR EQUAL TO} 0.05, all pairs tested together)."
)
_OF_ATTACK = {"attack": "attack", "protocol": "protocol", "defence": "defence"}


def answers(view: View, numbers: PageData) -> dict[float, Answer]:
    """Return the main finding for each budget, the reference budget first."""
    return {eps: _answer(view, numbers, eps) for eps in view.ranking["eps_255"].unique()}


def _answer(view: View, numbers: PageData, eps: float) -> Answer:
    """State which attack, or source, transfers best, by how much, and if the tests decide it."""
    rows = numbers.ranking[numbers.ranking["images"] >= FEWEST_IMAGES]
    rows = rows[(rows["eps_255"] == eps) & (rows["defence"] == view.choice.defence)]
    if rows.empty:
        return _of_one_pair(view, eps)
    rows = _first_ranking(rows)
    several = rows["attack"].nunique() > 1
    rows = rows[rows["source"] == rows["source"].iloc[0]] if several else _sources(rows, numbers)
    first = rows.iloc[0]
    mean, targeted = first.get("sources", 1) > 1, first["targeted"]
    attacker = first["attack"] if several else f"{first['attack']} from {first['source']}"
    verb = "reaches its target class on" if targeted else "fools"
    models = (
        f"the {first['models']} model" if first["targets"] == 1 else f"{first['models']} models"
    )
    details = [f"{first['dataset']}, {first['norm']}, protocol {first['protocol']}"]
    if view.choice.defence != NO_DEFENCE:
        models += f" behind {view.choice.defence}"
    elif len(view.menus["defence"]) > 1:
        details.append("targets without a defence")
    beyond = " (extrapolated)" * bool(first.get("extrapolated", False))
    share = f"{first['mean']:.0%}{beyond}"
    sentence = f"At {first['eps_255']:g}/255 it {verb} {models} on {share} of images"
    details += [f"{first['images']:g} images", first["source"] if mean or several else ""]
    if not np.isnan(first["low"]):
        interval = f"{first['mean']:.1%} [{first['low']:.1%}, {first['high']:.1%}]"
        details.append(f"mean over targets {interval}")
    lead, more, tested = _decided(rows, "attack" if several else "source", attacker)
    return Answer(lead, f"{sentence}{more}.", "; ".join([*filter(None, details), *tested]) + ".")


def _first_ranking(rows: pd.DataFrame, *more: str) -> pd.DataFrame:
    """Return the rows of the first ranking: one group, budget, defence, and `more`."""
    for name in ("group", *GROUP, "eps_255", "defence", *more):
        rows = rows[rows[name] == rows[name].iloc[0]]
    return rows


def _sources(rows: pd.DataFrame, numbers: PageData) -> pd.DataFrame:
    """Return the ranking of one attack's sources or, if there is none, the sources by mean."""
    lacks = ""
    if len(numbers.sources):
        keys = ["group", *GROUP, "attack", "eps_255", "defence"]
        mine = numbers.sources[(numbers.sources[keys] == rows[keys].iloc[0]).all(axis=1)]
        lacks = "".join(mine["lacks"].head(1))
        ranked = mine[mine["images"] >= FEWEST_IMAGES]
        if len(ranked):
            return _first_ranking(ranked).assign(low=nan, high=nan)
    single = rows[rows["sources"] == 1]
    single = single.sort_values("mean", ascending=False, kind="stable")
    return single.assign(undecided=None, detectable=nan, lacks=lacks)


def _decided(rows: pd.DataFrame, of: str, attacker: str) -> tuple[str, str, list[str]]:
    """Return the lead, the end of the sentence and the details, depending on the tests."""
    first, others = rows.iloc[0], rows.iloc[1:]
    if others.empty:
        return f"{attacker}.", "", []
    shares = ", ".join(f"from {row[of]} {row['mean']:.0%}" for _, row in others[:3].iterrows())
    if others["undecided"].isna().all():
        why = f"sources are not ranked: that needs {first['lacks']}" * bool(first["lacks"])
        return f"{attacker}.", f", {shares}", [why or "sources are not ranked"]
    if first["images"] < FEWEST_FOR_WINNER:
        lead = f"{first['images']:g} images name no winner; {attacker} is ahead in them."
        return lead, "", list(filter(None, [needed(rows)]))
    if rows["p"].isna().all():
        return f"{attacker} is ahead, untested.", "", ["not tested: this needs 30 images"]
    tied = others.loc[others["undecided"].astype(bool), of].tolist()
    if np.ptp(rows["mean"]) < 1e-9:
        return f"{attacker} and {len(others)} more are equal.", "", []
    if tied:
        named = ", ".join(tied[:3]) + f" and {len(tied) - 3} more" * (len(tied) > 3)
        weaker = len(others) - len(tied)
        rest = [f"weaker (p < 0.05): the other {weaker}"] * (weaker > 0)
        return (
            f"{attacker} is ahead, but not clearly.",
            f"; not significantly weaker: {named}",
            rest,
        )
    second = others.iloc[0]
    by, low, high = -100 * second[["difference", "difference_high", "difference_low"]].astype(float)
    details = f"ahead of {second[of]} by {by:.1f} points [{low:.1f}, {high:.1f}]"
    shown = f"{by:.0f}" if by >= 0.95 else f"{by:.1f}"
    more = f", {shown} point{'s' * (shown != '1')} more than {second[of]} (p < 0.05)"
    return f"{attacker} transfers best.", more, [details]


def _of_one_pair(view: View, eps: float) -> Answer:
    """State the result of the first pair, if no ranking has enough images or other models."""
    attack, source, target = view.pairs[0]
    rows = view.of_pair(attack, source, eps)
    row = rows[rows["target"] == target].iloc[0]
    if row["n"] < FEWEST_IMAGES:
        return Answer("", f"A ranking needs {FEWEST_IMAGES} counted images; no pair has that many.")
    if view.choice.defence != NO_DEFENCE:
        target += f" behind {view.choice.defence}"
    if row["relation"] == WHITE_BOX:
        target += " (white box)"
    share = format_cell(row["success"], row["n"])
    verb = "reaches its target class on" if row["targeted"] else "fools"
    return Answer(
        f"{attack} from {source}.",
        f"At {eps:g}/255 it {verb} {target} on {share} of the counted images.",
        f"Protocol {view.choice.protocol}.",
    )


def answer(view: View, numbers: PageData) -> Section:
    """Build the section with rankings, sources x targets, curves over the budget, and costs."""
    attacked = view.rows[view.rows["source"] != CLEAN]
    targets = attacked.loc[attacked["relation"] == TRANSFER, "target"].nunique()
    figures = []
    if attacked["attack"].nunique() > 1 and targets:
        figures.append(_ranked(view, numbers))
    if len(view.sources):
        figures.append(_ranked_sources(view, explained=bool(figures)))
    figures += _curves(view, attacked)
    if (
        attacked.loc[attacked["source"] != MEAN, "source"].nunique() > 1
        or attacked["attack"].nunique() == 1
    ):
        caption = (
            "Rows: sources; columns: targets; cells: k / n of the images that the protocol counts. "
            "Row clean: accuracy on all clean images."
        )
        chart, keys = matrix_chart(view.rows), {"attack": "attack"}
        shape = ("fit", view.choice, keys)
        figures.append(Figure("matrix", "Sources and targets", caption, chart, view.rows, *shape))
    return Section("answer", "What transfers", figures=(*figures, *_costs(view)))


def _ranked(view: View, numbers: PageData) -> Figure:
    """Draw the attacks by rank; the caption states which differences the ranking can detect."""
    caption = f"{_TESTED} White box: the target is the source, or a member of it."
    if len(numbers.ranking):
        lines = resolution(_first_ranking(numbers.ranking, "source"))
        caption += f" At {view.choice.eps:g}/255, {'; '.join(lines)}." if lines else ""
    chart = ranked(view.rows, view.ranking, view.choice)
    shape = ("fit", view.choice, _AT_BUDGET)
    return Figure("ranking", "Attacks, ranked", caption, chart, view.ranking, *shape)


def _ranked_sources(view: View, explained: bool) -> Figure:
    """Draw the sources of an attack by rank."""
    caption = (
        f"Sources by adjusted mean (rate = source + target, least squares) over "
        f"{view.sources['targets'].max():g} targets, on {OF_SOURCES}."
        f"{'' if explained else ' ' + _TESTED}"
        + " For the chosen attack only; sources.csv ranks them over all attacks."
        * explained
    )
    shape = ("fit", view.choice, {"eps_255": "eps", "attack": "attack"})
    chart = ranked_sources(view.sources)
    return Figure("sources-ranked", "Sources, ranked", caption, chart, view.sources, *shape)


def _curves(view: View, attacked: pd.DataFrame) -> list[Figure]:
    """Draw success and confidence over the budget, by target and by attack."""
    single = attacked.loc[attacked["eps_255"] > 0, "eps_255"].nunique() == 1
    targets, attacks = (attacked[name].nunique() for name in ("target", "attack"))
    confidence = (
        " Confidence: mean probability of the predicted class, right or wrong, over all images "
        "counted."
    )
    figures = []
    if targets > 1 or attacks == 1 or single:
        caption = "The chosen attack and source"
        caption += "; click a name to highlight its target" * (not single)
        caption += f".{confidence} 95 % Wilson intervals; means over sources have none."
        title = "At the budget" if single else "Targets over the budget"
        shape = ("rest", view.choice, _OF_ATTACK)
        chart = curves_chart(view.rows)
        figures.append(Figure("curves", title, caption, chart, view.rows, *shape))
    if attacks > 1 and not single:
        caption = (
            "All attacks from the chosen source, on the chosen target or else the mean over "
            f"targets, as in the ranking.{confidence}"
        )
        keys = {name: _OF_ATTACK[name] for name in ("protocol", "defence")}
        shape = ("rest", view.choice, keys)
        chart, title = curves_chart(view.rows, "attack"), "Attacks over the budget"
        figures.insert(0, Figure("attacks-over-budget", title, caption, chart, view.rows, *shape))
    return figures


def _costs(view: View) -> list[Figure]:
    """Draw success on other models over the gradients per image."""
    rows = view.ranking[view.ranking["eps_255"] == view.choice.eps]
    rows = rows.assign(gradients_per_image=rows["gradients"] + rows["fit_gradients"])
    rows = rows[(rows["gradients_per_image"] > 0) & rows["mean"].notna()]
    if rows["attack"].nunique() < 2:
        return []
    caption = "Mean share fooled on other models at the reference budget, with its 95 % interval."
    title = "gradients per image"
    if rows["fit_gradients"].any():
        title += ", including fits"
        caption += " The gradients of a fit are divided by the number of evaluated images."
    chart = success_over(rows, "gradients_per_image", title, "log")
    return [Figure("costs", f"Fooled over {title}", caption, chart, rows, "fit", view.choice)]


def variants(view: View, numbers: PageData) -> Section | None:
    """Build the section on storage formats, controls and defences; None if there are none."""
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
            "Share fooled at the reference budget, in each storage format and by the controls. Up "
            f"to {shown['denominator'].max()} images; 95 % Wilson intervals."
        )
        columns = [*names, "variant", "success", "denominator"]
        chart = dot_plot(shown, "success_rate", "success rate", columns, by="variant")
        figures.append(
            Figure("variants", "Storage and controls", caption, chart, shown, "half", view.choice)
        )
    if len(excess):
        excess = excess.assign(control=excess["control"].replace(CONTROLS))
        caption = (
            "Share fooled by the attack minus share fooled by the control, at the reference "
            f"budget, on the same images (up to {excess['denominator'].max()}); 95 % intervals "
            "(Tango)."
        )
        columns = [*names, "control", "success", "control_success", "denominator"]
        chart = dot_plot(excess, "excess", "fooled beyond the control", columns, by="control")
        figures.append(
            Figure("excess", "Beyond the controls", caption, chart, excess, "half", view.choice)
        )
    title = "Defences, storage and controls" if len(behind) else "Storage and controls"
    return Section("variants", title, figures=tuple(figures)) if figures else None


def _defences(view: View, rates: pd.DataFrame) -> Figure:
    """Draw robust accuracy next to clean accuracy behind each defence."""
    clean = rates[(rates["protocol"] == "all") & (rates["eps_255"] == 0)].assign(images="clean")
    attacked = rates[rates["reference"]].assign(images="attacked")
    rows = pd.concat([clean, attacked])
    mark = rows["relation"].map({OWN: " (own)"}).fillna("")
    pairs = map(ModelRef.parse, rows["target"], rows["defence"])
    rows = rows.assign(target=list(map(str, pairs)) + mark)
    rows = rows.sort_values("target", kind="stable")
    caption = (
        "Accuracy behind each defence, on clean images and at the reference budget; 95 % Wilson "
        "intervals. A plain transfer attack says little about attackers who know the defence: "
        "set source_defence=NAME to attack the source behind it. "
        "(own): the source's network behind another defence."
    )
    columns = ["attack", "source", "target", "images", "k", "n", "abstained"]
    counted = str(attacked["counted"].iloc[0])
    chart = dot_plot(rows, "rate", counted, columns, by="images")
    return Figure("defences", "Behind defences", caption, chart, rows, "half", view.choice)
