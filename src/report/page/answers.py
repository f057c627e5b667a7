"""The answer in words: which attack or source transfers best, and whether that is decided."""

import numpy as np
import pandas as pd

from ...analysis import WHITE_BOX
from ...analysis.intervals import FEWEST_IMAGES
from ...analysis.multiple_comparisons import FEWEST_TESTED, LEVEL
from ...analysis.ranking import GROUP, MEAN_OF
from ...utils.model_names import NO_DEFENCE
from ..results import Results
from ..shown import Shown, over_sources
from ..verdicts import COUNTED, dependence, needed, too_few

Answer = tuple[str, str, str]
"""The lead, the rest of the sentence, and the details: what is counted and how it is tested."""


def answer_of(results: Results, shown: Shown) -> Answer:
    """State which attack, or source, transfers best, by how much, and if the tests decide it.

    The answer is that of the choice: at the reference budget.
    """
    first, rows = shown.choice, results.rankings
    rows = rows[rows["source"] == first.source] if first.source else over_sources(rows)
    rows = rows[(rows["eps_255"] == first.eps) & (rows["defence"] == first.defence)]
    rows = rows[rows["rank"].notna()]
    for name in ("group", *GROUP):
        rows = rows[rows[name] == rows[name].iloc[0]] if len(rows) else rows
    where = f" from {first.source}" * (bool(first.source) and len(rows) > 1)
    where += f" at {first.eps:g}/255" + f" behind {first.defence}" * (first.defence != NO_DEFENCE)
    if rows.empty or rows["images"].max() < FEWEST_IMAGES:
        return _one_pair(shown, where)
    if len(rows) == 1:
        return _best_source(results, rows.iloc[0], where, _images(results, rows.iloc[0]))
    return _decided(rows, "attack", where, _details(rows.iloc[0], _images(results, rows.iloc[0])))


def _images(results: Results, row: pd.Series) -> int:
    """Return the number of images of a ranked attack's jobs."""
    jobs = (its[0].job for its in results.attacked)
    return next(job.record.images for job in jobs if job.attack == row["attack"])


def _details(first: pd.Series, total: int) -> str:
    """Say what is counted, and how the means weigh targets and sources."""
    weight = f"weighs the {first['targets']:g} targets equally"
    parts = {weight: first["targets"] > 1, "leaves out white boxes": first.get("sources", 1) > 1}
    mean = " and ".join(part for part, holds in parts.items() if holds)
    part = f"{first['images']:g} of {total} " * (first["protocol"] != "all")
    union = ", in at least one pair; each pair has its own count" * any(parts.values())
    text = f"Counted: the {part}{COUNTED[first['protocol']]}{union * bool(part)}."
    return text + f" The mean {mean}." * bool(mean)


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
        return (lead, f"{where}{reaches}: {_levels(rows, of)}", details)
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


def _levels(rows: pd.DataFrame, of: str) -> str:
    """List the first three rows with their means."""
    named = [f"{row[of]} {100 * row['mean']:.1f} %" for _, row in rows.head(3).iterrows()]
    return ", ".join(named) + f" and {len(rows) - 3} more" * (len(rows) > 3)


def _best_source(results: Results, row: pd.Series, where: str, total: int) -> Answer:
    """State which source of the only attack transfers best."""
    details, attack = _details(row, total), row["attack"]
    reached = "reaches its target class on" if row["targeted"] else "fools"
    rest = f"{where} {reached} {100 * row['mean']:.1f} % of images"
    if not row["source"].startswith(MEAN_OF) or results.sources.empty:
        source = f" from {row['source']}" * (f"from {row['source']}" not in where)
        return (attack, f"{source}{rest}", details)
    keys = ["group", *GROUP, "eps_255", "defence", "attack"]
    its = results.sources[(results.sources[keys] == row[keys]).all(axis=1)]
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


def _one_pair(shown: Shown, where: str) -> Answer:
    """State the result of the first pair, if no ranking has enough images or other models."""
    first, rows = shown.choice, pd.DataFrame(shown.pairs, columns=["attack", "source", "target"])
    rows = rows.merge(shown.rows[shown.rows["n"] >= FEWEST_IMAGES])
    for name in ("eps", "defence", "protocol", *["source"] * bool(first.source)):
        rows = rows[rows["eps_255" if name == "eps" else name] == getattr(first, name)]
    if rows.empty:
        return (
            "Too few images to name a first",
            where,
            f"That needs {FEWEST_IMAGES} counted images.",
        )
    row = rows.iloc[0]
    reached = "reaches its target class on" if row["targeted"] else "fools"
    white = " (white box)" * (row["relation"] == WHITE_BOX)
    source = f" from {row['source']}" * (f"from {row['source']}" not in where)
    counts = f"{row['success']:g} of {row['n']:g} images"
    rest = f"{source}{where} {reached} {row['target']}{white} on {counts}"
    return (row["attack"], rest, f"Counted: {COUNTED[first.protocol]}.")
