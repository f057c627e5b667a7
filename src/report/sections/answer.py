"""Transfer matrix with linked curves, and the main finding in a sentence."""

import pandas as pd

from src.analysis import OWN, TRANSFER, WHITE_BOX, format_cell
from src.analysis.intervals import FEWEST_IMAGES
from src.analysis.summary import comparable
from src.config.settings import CONTROLS
from src.report.charts.dots import dot_plot
from src.report.charts.transfer import drawn_rows, linked, success_over_cost
from src.report.measure import Measured
from src.report.page import Figure, Section
from src.report.sections.text import pair_names
from src.store.record import JobRecord
from src.utils.defended import defended

_PAIR = ["attack", "source", "target"]


def answer_sentence(record: JobRecord, found: Measured) -> str:
    """Name the strongest source at the reference budget, as measured.

    Compared are the jobs of the first one's group and kind of attack (targeted or not), without
    ensembles where there are single sources, and pairs with enough images.
    """
    rows = _decisive(record, found.table("rates"))
    if rows.empty:
        return f"No pair has the {FEWEST_IMAGES} images counted that a ranking needs."
    where = f"On {record.dataset} at {record.reference:g}/255 ({record.norm}, {record.protocol})"
    does = "reaches its target labels on" if rows["targeted"].any() else "fools"
    white = (rows["relation"] == WHITE_BOX).all()
    if not rows["success"].any():
        return f"{where} no source {does} {'its own' if white else 'another'} model with any image."
    ranked = _ranked(rows)
    best, equal = ranked.iloc[0], int((ranked["rate"] == ranked["rate"].iloc[0]).sum())
    if equal > 1:
        return f"{where} no source stands out: the first {equal} are equally strong."
    one = best["pairs"] == 1
    others = "models that it was crafted on" if white else "other models"
    whom = best["target"] if one else f"{best['pairs']} {others}"
    of = "the images counted" if one else "the image-target pairs counted"
    name = f"{best['source']} with {best['attack']}"
    said = f"{does} {whom} for {format_cell(best['success'], best['n'])} of {of}"
    if len(ranked) == 1:
        return f"{where} {name} {said}."
    return f"{where} the strongest source, as measured, is {name}: it {said}."


def _decisive(record: JobRecord, rates: pd.DataFrame) -> pd.DataFrame:
    """Return the rates that are ranked: without white boxes and ensembles, if there are others.

    A source that was attacked behind a defence is no other model for itself.
    """
    at = rates["primary"] & rates["reference"] & (rates["n"] >= FEWEST_IMAGES)
    rows = rates[at & (rates["group"] == comparable(record))]
    rows = rows[rows["targeted"] == rows["targeted"].iloc[0]] if len(rows) else rows
    rows = rows[rows["relation"] != OWN]
    for left_out in (rows["relation"] == WHITE_BOX, rows["source"].str.contains("+", regex=False)):
        kept = rows[~left_out.loc[rows.index]]
        rows = kept if len(kept) else rows
    return rows


def _ranked(rows: pd.DataFrame) -> pd.DataFrame:
    """Rank sources by their mean success rate; `target` is the first of a source's targets."""
    counts = {"success": ("success", "sum"), "n": ("n", "sum"), "pairs": ("n", "size")}
    groups = rows.assign(rate=rows["success"] / rows["n"]).groupby(["attack", "source"], sort=False)
    sums = groups.agg(**counts, rate=("rate", "mean"), target=("target", "first")).reset_index()
    return sums.sort_values("rate", ascending=False, kind="stable", ignore_index=True)


def _defences(record: JobRecord, rates: pd.DataFrame) -> Figure:
    """Return robust accuracy beside clean accuracy behind each defence."""
    clean = rates[(rates["protocol"] == "all") & (rates["eps_255"] == 0)]
    clean = clean.drop_duplicates(["source", "target", "defence"]).assign(images="clean")
    attacked = rates[rates["reference"]]
    rows = pd.concat([clean, attacked.assign(images=attacked["attack"])])
    rows = rows.assign(target=list(map(defended, rows["target"], rows["defence"])))
    own = rows["relation"].map({OWN: " (own)"}).fillna("")
    rows = rows.assign(row=pair_names(rows) + own).sort_values("row", kind="stable")
    caption = (
        f"Clean accuracy, and what is left of it at {record.reference:g}/255 ({record.protocol}), "
        "behind each defence; 95 % Wilson intervals. A plain transfer attack is not an adaptive "
        "one: a defence that withstands it may only mask gradients. source_defence=NAME attacks "
        "the source behind one. (own): the source's network behind another defence."
    )
    columns = ["source", "target", "images", "k", "n", "abstained"]
    chart = dot_plot(rows, "rate", str(attacked["counted"].iloc[0]), columns, by="images")
    return Figure("defences", "Behind defences", caption, chart, rows)


def _costs(record: JobRecord, rates: pd.DataFrame) -> Figure | None:
    """Return success on other models over what attacks cost, of several attacks."""
    rows = rates[rates["reference"] & (rates["relation"] == TRANSFER)]
    rows = rows[(rows["n"] >= FEWEST_IMAGES) & (rows["gradients_per_image"] > 0)]
    means = {"success_rate": ("success_rate", "mean"), "targets": ("target", "size")}
    means["gradients_per_image"] = ("gradients_per_image", "first")
    rows = rows.groupby(["attack", "source"], sort=False).agg(**means).reset_index()
    if rows["attack"].nunique() < 2:
        return None
    caption = (
        f"Mean success on other models at {record.reference:g}/255 ({record.protocol}), a point "
        "for each attack and source, over the gradients that an image took at all budgets together."
    )
    return Figure("costs", "Success over cost", caption, success_over_cost(rows), rows)


def answer(record: JobRecord, found: Measured) -> Section:
    """Return the linked matrix and curves, and the variants and controls beside the rates."""
    rates = found.table("rates")
    behind = found.table("behind_defences")
    primary = rates[rates["primary"]]
    rows = drawn_rows(pd.concat([primary, behind]))
    decisive = _decisive(record, rates)
    first = (_ranked(decisive) if len(decisive) else primary).iloc[0]
    chosen = (record.reference, record.protocol, str(first["attack"]), str(first["source"]))
    chart = linked(rows, *chosen)
    caption = (
        "Rows: source; columns: target; k / n of the images that the protocol counts, in the "
        "row clean of all clean images. Choose attack, budget and protocol; click cells or "
        "legend entries to choose curves. Bands: 95 % intervals. Gradients and forward passes an "
        "image, in the tooltips, are those of all budgets together."
    )
    title = "Transfer matrix, and accuracy and confidence over the budget"
    figures = [Figure("answer", title, caption, chart, rows)]
    if costs := _costs(record, primary):
        figures.append(costs)
    if len(behind):
        figures.append(_defences(record, pd.concat([primary, behind])))
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
    if len(beyond):
        beyond = beyond.assign(
            row=beyond["attack"] + ": " + pair_names(beyond),
            control=beyond["control"].replace(CONTROLS),
        )
        caption = (
            f"Success rate at {where} minus that of the control of the same budget, on the same "
            f"up to {beyond['denominator'].max()} images; Tango's 95 % interval."
        )
        columns = [*_PAIR, "control", "success", "control_success", "denominator"]
        chart = dot_plot(beyond, "excess", "success rate beyond the control", columns, by="control")
        figures.append(Figure("excess", "Beyond the controls", caption, chart, beyond))
    return Section("answer", "Which models are fooled, at which budget", figures=tuple(figures))
