"""Transfer matrix with linked curves, and the main finding in a sentence."""

import numpy as np
import pandas as pd
from scipy.sparse.csgraph import connected_components
from scipy.stats import ttest_1samp

from src.analysis import format_cell, is_white_box
from src.analysis.intervals import FEWEST_IMAGES
from src.config.settings import CONTROLS
from src.report.charts.dots import dot_plot
from src.report.charts.transfer import drawn_rows, linked
from src.report.measure import Measured, group
from src.report.page import Figure, Section
from src.report.sections.text import pair_names
from src.store.record import JobRecord

_PAIR = ["attack", "source", "target"]


def answer_sentence(record: JobRecord, found: Measured) -> str:
    """Name the strongest source and the most robust target at the reference budget, as measured.

    Compared are the jobs of the first one's group and kind of attack (targeted or not), without
    ensembles where there are single sources, and pairs with enough images. The sentence also says
    whether the strongest source leads the next one by more than chance.
    """
    rows = _decisive(record, found.table("rates"))
    if rows.empty:
        return f"No pair has the {FEWEST_IMAGES} images counted that a ranking needs."
    where = f"At {record.reference:g}/255 ({record.norm}, {record.protocol})"
    does = "reaches its target labels on" if rows["targeted"].any() else "fools"
    white = rows["white_box"].all()
    if not rows["success"].any():
        return f"{where} no source {does} {'itself' if white else 'another model'} with any image."
    ranked = _ranked_sources(rows)
    best = ranked.iloc[0]
    if _tied(ranked):
        equal = ranked.head(_tied(ranked) + 1)
        what = "source" if equal["source"].nunique() > 1 else "attack"
        return f"{where} no {what} stands out: the first {len(equal)} are equally strong."
    whom = _whom(best, rows)
    if record.protocol in ("all", "source_correct") and not rows["targeted"].any():
        whom += ", errors on clean images included"
    first = f"{where} {best['source']} with {best['attack']} {does} {whom}."
    if len(ranked) > 1:
        first = (
            f"{where} the strongest source, as measured, is {best['source']} with "
            f"{best['attack']}: it {does} {whom}.{_lead(best, ranked.iloc[1], found, record)}"
        )
    mine = rows[rows["attack"] == best["attack"]]
    mine = mine[_single(mine["source"])]
    robust = _ranked(mine.assign(success=mine["n"] - mine["success"]), ["target"], "source")
    if white or best["pairs"] == 1 or _tied(robust):
        return first
    least = robust.iloc[0]
    return (
        f"{first} The most robust target of {best['attack']} is {least['target']}: other sources "
        f"succeed on {format_cell(least['n'] - least['success'], least['n'])}."
    )


def _lead(best: pd.Series, second: pd.Series, found: Measured, record: JobRecord) -> str:
    """Compare the first two sources, image by image: means over their common targets, in points."""
    rows = found.table("outcomes")
    if rows.empty:
        return ""
    white = [is_white_box(*pair) for pair in zip(rows["source"], rows["target"], strict=True)]
    rows = rows[(rows["group"] == group(record)) & rows["counted"] & ~np.array(white)]
    own = [
        rows[(rows["attack"] == one["attack"]) & (rows["source"] == one["source"])]
        for one in (best, second)
    ]
    both = set(own[0]["target"]) & set(own[1]["target"]) or set(rows["target"])
    means = [one[one["target"].isin(both)].groupby("index")["success"].mean() for one in own]
    lead = 100 * (means[0] - means[1]).dropna()
    name = f"{second['source']} with {second['attack']}"
    if len(lead) < FEWEST_IMAGES or not lead.std():
        return f" Too few images tell it from {name}."
    low, high = ttest_1samp(lead, 0).confidence_interval()
    verdict = "is beyond its interval" if low > 0 else "is not decided"
    return (
        f" Its lead over {name}, {lead.mean():.1f} points [{low:.1f}, {high:.1f}] on {len(lead)} "
        f"images, {verdict}."
    )


def _whom(best: pd.Series, rows: pd.DataFrame) -> str:
    """Return the targets that the best source fools, and for how many of which images."""
    mine = rows[(rows["attack"] == best["attack"]) & (rows["source"] == best["source"])]
    one = best["pairs"] == 1
    whom = mine["target"].iloc[0] if one else f"{best['pairs']} other models"
    if mine["white_box"].all():
        whom = "itself" if one and whom == best["source"] else "its members"
    of = "the images counted" if one else "the image-target pairs counted"
    return f"{whom} for {format_cell(best['success'], best['n'])} of {of}"


def _single(sources: pd.Series) -> pd.Series:
    """Tell which sources are single models; all, where there are ensembles alone."""
    single = ~sources.str.contains("+", regex=False)
    return single if single.any() else ~single


def _decisive(record: JobRecord, rates: pd.DataFrame) -> pd.DataFrame:
    """Return the rates that the sources are ranked by: without white boxes, if there are others."""
    at = rates["primary"] & rates["reference"] & (rates["n"] >= FEWEST_IMAGES)
    rows = rates[at & (rates["group"] == group(record))]
    rows = rows[rows["targeted"] == rows["targeted"].iloc[0]] if len(rows) else rows
    others = rows[~rows["white_box"]]
    return others if len(others) else rows


def _ranked(rows: pd.DataFrame, by: list[str], over: str) -> pd.DataFrame:
    """Rank sources, or targets, by their effect on the success rate; the first is the highest.

    Effects are those of an additive fit of the rates to `by` and `over`, each pair with the same
    weight: no source has itself as a target, so that sums would be over different targets.
    """
    units, others = (rows.groupby(names, sort=False).ngroup() for names in (by, [over]))
    design = np.hstack([np.eye(each.max() + 1)[each] for each in (units, others)])
    fitted = np.linalg.lstsq(design, rows["success"] / rows["n"])[0]
    count = units.max() + 1
    # What has no pair in common, as two models with each other, is compared by its own average.
    part = connected_components(design.T @ design)[1]
    apart = pd.Series(fitted[count:]).groupby(part[count:]).mean()
    effects = fitted[:count] + apart[part[:count]].to_numpy()
    counts = {"success": ("success", "sum"), "n": ("n", "sum"), "pairs": ("n", "size")}
    sums = rows.groupby(by, sort=False).agg(**counts).assign(effect=effects).reset_index()
    return sums.sort_values("effect", ascending=False, kind="stable", ignore_index=True)


def _ranked_sources(rows: pd.DataFrame) -> pd.DataFrame:
    """Rank attacks and sources, but for ensembles, which have fewer targets than others."""
    ranked = _ranked(rows, ["attack", "source"], "target")
    return ranked[_single(ranked["source"])].reset_index(drop=True)


def _tied(ranked: pd.DataFrame) -> int:
    """Return how many others have the effect of the first one."""
    return int(np.isclose(ranked["effect"], ranked["effect"].iloc[0], rtol=0, atol=1e-9).sum()) - 1


def answer(record: JobRecord, found: Measured) -> Section:
    """Return the linked matrix and curves, and the variants and controls beside the rates."""
    rates = found.table("rates")
    primary = rates[rates["primary"]]
    rows = drawn_rows(primary)
    decisive = _decisive(record, rates)
    best = _ranked_sources(decisive) if len(decisive) else primary
    first = best.iloc[0]
    chosen = (record.reference, record.protocol, str(first["attack"]), str(first["source"]))
    chart = linked(rows, *chosen)
    caption = (
        "Rows: source; columns: target; k / n of the images that the protocol counts, in the "
        "row clean of all clean images. Choose attack, budget and protocol; click cells or "
        "legend entries to choose curves. Bands: 95 % intervals (of confidences under the "
        "job's own protocol alone)."
    )
    title = "Transfer matrix, and accuracy and confidence over the budget"
    figures = [Figure("answer", title, caption, chart, rows)]
    where = f"{record.reference:g}/255 ({record.protocol})"
    if rates["group"].nunique() > 1:
        where = "each job's reference budget"
    variants = rates[rates["reference"]]
    if variants["variant"].nunique() > 1:
        variants = variants.assign(
            row=variants["attack"] + ": " + pair_names(variants),
            variant=variants["variant"].replace(CONTROLS),
        )
        caption = (
            f"Success rates at {where} of the same images in every storage, and of the controls, "
            f"on up to {variants['denominator'].max()} images; 95 % Wilson intervals."
        )
        columns = [*_PAIR, "variant", "success", "denominator"]
        chart = dot_plot(variants, "success_rate", "success rate", columns, by="variant")
        figures.append(Figure("variants", "Storage and controls", caption, chart, variants))
    beyond = found.table("excess")
    for control, rows in beyond.groupby("control", sort=False) if len(beyond) else ():
        rows = rows.assign(row=pair_names(rows))
        words = CONTROLS[str(control)]
        caption = (
            f"Success rate at {where} minus that of {words} of the same budget, on the same "
            f"up to {rows['denominator'].max()} images; Tango's 95 % interval."
        )
        columns = [*_PAIR, "success", "control_success", "denominator"]
        chart = dot_plot(rows, "excess", "success rate beyond the control", columns)
        figures.append(Figure(f"excess-{control}", f"Beyond {words}", caption, chart, rows))
    return Section("answer", "Which models are fooled, at which budget", figures=tuple(figures))
