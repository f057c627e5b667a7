"""Answers in words: which attack or source transfers best, and whether that is decided."""

from typing import Any

import numpy as np
import pandas as pd

from ...analysis import WHITE_BOX
from ...analysis.image_outcomes import GROUP
from ...analysis.intervals import FEWEST_IMAGES
from ...analysis.multiple_comparisons import FEWEST_TESTED, LEVEL
from ...analysis.ranking import MEAN_OF
from ...utils.model_names import NO_DEFENCE
from ..charts.theme import MEAN
from ..summary import Summary
from ..verdicts import COUNTED, dependence, needed, too_few
from .html import ENOUGH, TOO_FEW
from .view import View, over_sources

Answer = tuple[str, str, str]
"""The lead, the rest of the sentence, and the details: what is counted and how it is tested."""
NO_ANSWER: Answer = ("No result", " for this selection: it counts no image", "")


def answer_of(
    summary: Summary,
    view: View,
    values: pd.DataFrame,
    *,
    defence: str,
    source: str,
    protocol: str,
    eps_255: float,
) -> Answer:
    """State which attack, or source, transfers best, by how much, and if the tests decide it.

    `values` has the mean success of each attack in this selection, which is the answer under a
    protocol that the ranking does not have; empty: there are only white boxes.
    """
    record = summary.attacked[0].job.record
    of_source = f" from {source}" * (bool(source) and len(values) > 1)
    where = f"{of_source} at {eps_255:g}/255" + f" behind {defence}" * (defence != NO_DEFENCE)
    if values.empty:
        return _one_pair(view, source, defence, eps_255, protocol, where)
    rows = _ranking(summary, source, defence, eps_255)
    if protocol != view.choice.protocol:
        complete = values[~values["attack"].isin(_lacking(summary, source, defence, eps_255))]
        ordered = (complete if len(complete) else values).sort_values(
            "success_rate", ascending=False, kind="stable"
        )
        detail = (
            f"Counted: {_counted(protocol, '', record.images)}. Not tested: the ranking counts by "
            f"{view.choice.protocol}."
        )
        return (f"Mean success{where}:", " " + _levels(ordered, "attack", "success_rate"), detail)
    if rows.empty or rows["images"].max() < FEWEST_IMAGES:
        return _one_pair(view, source, defence, eps_255, protocol, where)
    if len(rows) == 1:
        return _best_source(summary, rows.iloc[0], where, record.images)
    return _decided(rows, "attack", where, _details(rows.iloc[0], record.images))


def _ranking(summary: Summary, source: str, defence: str, eps_255: float) -> pd.DataFrame:
    """Return the ranked attacks of the first group; an empty source stands for the mean."""
    rows = _all_rows(summary, source, defence, eps_255)
    rows = rows[rows["rank"].notna()]
    for name in ("group", *GROUP):
        rows = rows[rows[name] == rows[name].iloc[0]] if len(rows) else rows
    return rows


def _all_rows(summary: Summary, source: str, defence: str, eps_255: float) -> pd.DataFrame:
    rows = summary.rankings
    rows = rows[rows["source"] == source] if source else over_sources(rows)
    return rows[(rows["eps_255"] == eps_255) & (rows["defence"] == defence)]


def _lacking(summary: Summary, source: str, defence: str, eps_255: float) -> set[str]:
    """Return the attacks that lack a pair, so that no ranking has them."""
    rows = _all_rows(summary, source, defence, eps_255)
    return {*rows["attack"]} - {*rows.loc[rows["rank"].notna(), "attack"]}


def _details(first: pd.Series, total: int) -> str:
    """Say what is counted, and how the means weigh targets and sources."""
    weight = f"weighs the {first['targets']:g} targets equally"
    parts = {weight: first["targets"] > 1, "leaves out white boxes": first.get("sources", 1) > 1}
    mean = " and ".join(part for part, holds in parts.items() if holds)
    unrelated = " Related networks are in no mean." * (first["models"] == "unrelated")
    counted = _counted(first["protocol"], f"{first['images']:g}", total)
    union = ", in at least one pair; each pair has its own count" * any(parts.values())
    text = f"Counted: the {counted}{union * (first['protocol'] != 'all')}."
    return text + f" The mean {mean}." * bool(mean) + unrelated


def _counted(protocol: str, images: str, total: int) -> str:
    part = f"{images} of {total} " if images and protocol != "all" else ""
    return f"{part}{COUNTED[protocol]}"


def _decided(rows: pd.DataFrame, of: str, where: str, details: str) -> Answer:
    """Return the answer for ranked attacks or sources, depending on the tests."""
    first, others = rows.iloc[0], rows.iloc[1:]
    name, reaches = first[of], " (target class reached)" * bool(first["targeted"])
    if lead := too_few(first):
        tested = "Nothing is tested." if first["images"] < FEWEST_TESTED else ""
        more = needed(rows)
        details = " ".join(
            filter(None, [details, tested, f"{more[:1].upper()}{more[1:]}." * bool(more)])
        )
        return (lead, f"{where}{reaches}: {_levels(rows, of, 'mean')}", details)
    if np.ptp(rows["mean"]) < 1e-9:
        return (f"{name} and {len(others)} more are equal", where + reaches, details)
    behind = _behind(others, of)
    if rows["p"].isna().all():
        return (f"{name} is ahead, untested,", f"{where}{reaches}: {behind}", details)
    tied = others.loc[others["undecided"].astype(bool), of].tolist()
    if not tied:
        decided = "differences are" if len(others) > 1 else "difference is"
        details += f" The {decided} decided (tested together, p < {LEVEL})."
        but = dependence(rows)
        details += f" But {but}." * bool(but)
        lead = f"{name} leads on average" if first["depends_on"] else f"{name} transfers best"
        return (lead, f"{where}{reaches}: {behind}", details)
    named = ", ".join(tied[:3]) + f" and {len(tied) - 3} more" * (len(tied) > 3)
    verb = "is" if len(tied) == 1 else "are"
    details += f" {named} {verb} not significantly weaker (tested together, p < {LEVEL})."
    return (f"{name} leads, undecided,", f"{where}{reaches}: {behind}", details)


def _behind(others: pd.DataFrame, of: str) -> str:
    """Say by how many points the first is ahead of two others, or of the next of many."""
    points = [f"{abs(100 * row['difference']):.1f}" for _, row in others.iterrows()]
    names = others[of].tolist()
    text = f"{points[0]} point{'s' * (points[0] != '1.0')} ahead of "
    if len(names) > 2:
        return f"{text}the next, {names[0]}"
    return text + names[0] + "".join(f", {points[1]} ahead of {name}" for name in names[1:])


def _levels(rows: pd.DataFrame, of: str, column: str) -> str:
    """List the first three rows with their values."""
    named = [f"{row[of]} {100 * row[column]:.1f} %" for _, row in rows.head(3).iterrows()]
    return ", ".join(named) + f" and {len(rows) - 3} more" * (len(rows) > 3)


def _best_source(summary: Summary, row: pd.Series, where: str, total: int) -> Answer:
    """State which source of the only attack transfers best."""
    details, attack = _details(row, total), row["attack"]
    reached = "reaches its target class on" if row["targeted"] else "fools"
    rest = f"{where} {reached} {100 * row['mean']:.1f} % of images"
    if not row["source"].startswith(MEAN_OF) or summary.sources.empty:
        source = f" from {row['source']}" * (f"from {row['source']}" not in where)
        return (attack, f"{source}{rest}", details)
    keys = ["group", *GROUP, "eps_255", "defence", "attack"]
    its = summary.sources[(summary.sources[keys] == row[keys]).all(axis=1)]
    every, its = its, its[its["target"] == its["target"].head(1).squeeze()]
    ranked = its[its["rank"].notna()].assign(low=np.nan, high=np.nan)
    if len(ranked) < 2 or ranked["images"].max() < FEWEST_IMAGES:
        lacks = "".join(its["lacks"].head(1))
        over = " over all targets" * (len(every) > len(its))
        text = f" Sources are not ranked{over}: that needs {lacks}." * bool(lacks)
        return (attack, rest, details + text)
    lead, rest, tested = _decided(ranked, "source", f" as a source of {attack}{where}", details)
    images = f"the {ranked['images'].iloc[0]:g} images that count for all of them"
    return (lead, rest, f"{tested} Sources are compared on {images}.")


def _one_pair(
    view: View, source: str, defence: str, eps_255: float, protocol: str, where: str
) -> Answer:
    """State the result of the first pair, if no ranking has enough images or other models."""
    rows = view.rows
    rows = rows[(rows["eps_255"] == eps_255) & (rows["defence"] == defence)]
    rows = rows[(rows["protocol"] == protocol) & (rows["source"] != MEAN)]
    for attack, its, target in view.pairs:
        row = rows[(rows["attack"] == attack) & (rows["target"] == target)]
        row = row[row["source"] == (source or its)]
        if len(row) and row["n"].iloc[0] >= FEWEST_IMAGES:
            return _of_pair(row.iloc[0], where)
    return ("Too few images to name a first", where, f"That needs {FEWEST_IMAGES} counted images.")


def _of_pair(row: pd.Series, where: str) -> Answer:
    reached = "reaches its target class on" if row["targeted"] else "fools"
    white = " (white box)" * (row["relation"] == WHITE_BOX)
    counts = f"{row['success']:g} of {row['n']:g} images"
    source = f" from {row['source']}" * (f"from {row['source']}" not in where)
    rest = f"{source}{where} {reached} {row['target']}{white} on {counts}"
    return (row["attack"], rest, f"Counted: {COUNTED[row['protocol']]}.")


def own_answer(groups: pd.DataFrame, effect: dict[str, Any]) -> Answer:
    """State what an attack leaves correct of its own network, most confident images first.

    `groups` are equal groups by initial confidence at one budget; `effect` is their row of
    `initial_confidence_effect`.
    """
    attack, target, eps = (groups[name].iloc[0] for name in ("attack", "target", "eps_255"))
    groups = groups.sort_values("group")
    counts = groups[["still_correct", "n"]].to_numpy(int)
    (top, of_top), (others, of_others) = counts[0], counts[1:].sum(axis=0)
    total, n = counts.sum(axis=0)
    details = (
        f"Counted: the {n} image{'s' * bool(n != 1)} that {target} classifies correctly when clean."
    )
    where = f" at {eps:g}/255"
    if n < ENOUGH:
        left = f" leaves {total} of {n} images correct{where}"
        return (f"{attack}", left, f"{details} Not compared by confidence: {TOO_FEW}.")
    verdicts = {
        "supported": "confident images are harder to manipulate",
        "contradicted": "confident images are easier to manipulate",
        "undecided": "whether confident images are harder to manipulate is undecided",
    }
    if (verdict := effect.get("verdict")) in verdicts:
        span = f"[{effect['rho_low']:.2f}, {effect['rho_high']:.2f}]"
        details += f" Over all budgets: {verdicts[verdict]} (rho {effect['rho']:.2f} {span})."
    if total == 0 or len(counts) < 2:
        return (f"{attack} leaves {total or 'none'} of {n} images correct", where, details)
    from scipy.stats import fisher_exact  # slow to import

    p = fisher_exact([[top, of_top - top], [others, of_others - others]]).pvalue
    shown = "p < 0.001" if p < 0.001 else f"p = {p:.2g}"
    test = f"{shown}, Fisher's exact test"
    differs = "differs" if p < LEVEL else "is not shown to differ"
    details += f" At this budget alone the most confident group {differs} from the others ({test})."
    if p < LEVEL and top * of_others > others * of_top:
        only = "only " * bool(others == 0)
        rest = f": {top} of {of_top}{where}, {others or 'none'} of {of_others} others"
        return (f"{attack} spares {only}confident images", rest, details)
    return (f"{attack} leaves {total} of {n} images correct", where, details)
