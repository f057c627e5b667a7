"""Which models are fooled, at which budget: the transfer matrix, and curves linked with it."""

import pandas as pd

from src.analysis import format_cell
from src.config.settings import CONTROLS
from src.experiment.provenance import JobRecord
from src.report.charts.dots import dot_plot
from src.report.charts.transfer import drawn_rows, linked
from src.report.measure import Measured, group
from src.report.page import Figure, Section
from src.report.sections.text import pair_names

_PAIR = ["attack", "source", "target"]


def answer_sentence(record: JobRecord, found: Measured) -> str:
    """Name the strongest source and the most robust target at the reference budget.

    Compared are the jobs with the first one's data, norm, budget, protocol and kind of attack
    (targeted or not); and of them those with the most targets, since ensembles have fewer.
    """
    rows = _decisive(record, found.table("rates"))
    if rows.empty:
        return "No image was counted."
    where = f"At {record.reference:g}/255 ({record.norm}, {record.protocol})"
    best = _strongest(rows, ["attack", "source"])
    if not best["success"]:
        return f"{where} no image that was counted is fooled."
    attack, source, targeted = best["attack"], best["source"], rows["targeted"].any()
    models = f"{best['pairs']} other {'model' if best['pairs'] == 1 else 'models'}"
    white = rows["white_box"].all()
    does = "reaches its target labels on" if targeted else "fools"
    first = (
        f"{where} the strongest source is {source} with {attack}: it {does} "
        f"{'itself' if white else models} for {format_cell(best['success'], best['n'])} of the "
        "images counted."
    )
    mine = rows[rows["attack"] == attack]
    if white or mine["target"].nunique() < 2:
        return first
    least = _strongest(mine.assign(success=mine["n"] - mine["success"]), ["target"])
    return (
        f"{first} The most robust target of {attack} is {least['target']}: other sources succeed "
        f"on {format_cell(least['n'] - least['success'], least['n'])}."
    )


def _decisive(record: JobRecord, rates: pd.DataFrame) -> pd.DataFrame:
    """Return the rates that the sources are ranked by: without white boxes, if there are others."""
    at = rates["primary"] & rates["reference"] & (rates["n"] > 0)
    rows = rates[at & (rates["group"] == group(record))]
    rows = rows[rows["targeted"] == rows["targeted"].iloc[0]] if len(rows) else rows
    others = rows[~rows["white_box"]]
    return others if len(others) else rows


def _strongest(rows: pd.DataFrame, by: list[str]) -> pd.Series:
    """Add the pairs of each up, and return the highest rate of those with the most pairs."""
    sums = rows.groupby(by, sort=False).agg(
        success=("success", "sum"), n=("n", "sum"), pairs=("n", "size")
    )
    sums = sums[sums["pairs"] == sums["pairs"].max()].reset_index()
    return sums.iloc[(sums["success"] / sums["n"]).argmax()]


def answer(record: JobRecord, found: Measured) -> Section:
    """Return the linked matrix and curves, and the variants and controls beside the rates."""
    rates = found.table("rates")
    primary = rates[rates["primary"]]
    rows = drawn_rows(primary)
    decisive = _decisive(record, rates)
    first = _strongest(decisive, ["attack", "source"]) if len(decisive) else primary.iloc[0]
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
