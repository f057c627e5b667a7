"""Every number of the first screen, for every selection, in arrays that the page looks up.

The numbers are those of `rankings`, `src.table` and `rates.csv`; the page's script computes none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from ...analysis import TRANSFER, WHITE_BOX, estimates
from ...analysis.ranking import GROUP
from ..charts.theme import MEAN
from ..results import Results
from ..shown import Shown, over_sources, pairs_of, undecided
from ..words import on_target, ranking_legend, ranking_notes, said, sentences, unranked

AXES = ["attack", "source", "target", "defence", "protocol", "eps_255"]
"""Axes of the values: source and target may be empty, which stands for their mean."""
_SHORT = {
    **{"success_rate": "s", "success_rate_low": "sl", "success_rate_high": "sh"},
    **{"robust_accuracy": "c", "robust_accuracy_low": "cl", "robust_accuracy_high": "ch"},
    **{"confidence": "f", "success": "k", "still_correct": "kc", "denominator": "n"},
    **{"success_rate_sd": "sd", "abstained": "a"},
}
_COUNTS = ["success", "still_correct", "denominator", "abstained"]
"""Columns that means do not show."""
_COLOURS = 7
"""Number of colours: of the best-ranked attacks at the reference budget."""
RANKING_KEYS = ("defence", "source", "eps_255")
"""Axes of the rankings of attacks."""
SOURCE_KEYS = ("defence", "attack", "eps_255", "target")
"""Axes of the rankings of sources."""

Axes = Mapping[str, list[Any]]


def selections(results: Results, shown: Shown) -> dict[str, Any]:
    """Return the axes, the values of all selections, and the first selection.

    Returns:
        `axes`: names in order; `values`: columns in the order of the axes, the last fastest;
        `tiles`: the same without targets (`w`: success of white boxes, `wc`: correct, `wn`: their
        number, `hard`: position of the target fooled least); `ranking` and `sources`, by positions
        on axes joined by points, with `notes` on the rankings of attacks and a `legend` for all;
        `colours`: number of an attack's colour.
    """
    rates, first = pairs_of(shown.rows), shown.choice
    values = shown.rows.assign(
        source=shown.rows["source"].replace(MEAN, ""),
        target=shown.rows["target"].replace(estimates.MEAN, ""),
    )
    over_sources = values[(values["source"] == "") & (values["target"] == "")]
    axes: dict[str, list[Any]] = {name: list(rates[name].unique()) for name in AXES}
    axes["attack"] = shown.options["attack"]
    axes["source"] = [""] * bool(len(over_sources)) + axes["source"]
    axes["target"] = ["", *axes["target"]]
    axes["eps_255"] = sorted(map(float, axes["eps_255"]))
    targeted = rates.groupby("attack")["targeted"].any()
    sources = over_sources.groupby("attack")["sources"].max()
    ranking, notes = _rankings(results, shown, axes)
    of_pair = (values["source"] != "") & (values["target"] != "")
    of_transfer = values.loc[of_pair | (values["relation"] == TRANSFER), [*AXES, *_SHORT]]
    of_transfer[_COUNTS] = of_transfer[_COUNTS].where(of_pair)
    return {
        "axes": axes,
        "values": _dense(of_transfer.rename(columns=_SHORT), axes, _SHORT.values()),
        "tiles": _tiles(values, axes),
        "relations": _relations(rates, axes),
        "ranking": ranking,
        "sources": _sources(results, axes),
        "notes": notes,
        "legend": ranking_legend(first.protocol),
        "colours": {name: n for n, name in enumerate(axes["attack"][:_COLOURS], 1)},
        "targeted": [bool(targeted[name]) for name in axes["attack"]],
        "pairs": shown.pairs,
        "single": [int(sources.get(name, 0)) for name in axes["attack"]],
        "top": _top(of_transfer, first.protocol),
        "first": {**asdict(first), "shown": "fooled", **_first_view(axes)},
    }


def _first_view(axes: Axes) -> dict[str, str]:
    """Return the part and the target shown first: a single network has no target but itself."""
    alone = len(axes["source"]) == 1 and axes["target"][1:] == axes["source"]
    return {"view": "images" if alone else "results", "target": axes["target"][-1] * alone}


def _tiles(values: pd.DataFrame, axes: Axes) -> dict[str, list[Any]]:
    """Return the mean over white boxes, and the target that is fooled least."""
    keys = [name for name in AXES if name != "target"]
    of_means, boxes = values["target"] == "", values["relation"] == WHITE_BOX
    table = values[of_means & boxes].set_index(keys)[["success_rate", "robust_accuracy", "pairs"]]
    columns = values[~of_means & (values["relation"] == TRANSFER)]
    columns = columns[columns["success_rate"].notna() & (columns["eps_255"] > 0)]
    least = columns.loc[columns.groupby(keys)["success_rate"].idxmin()].set_index(keys)["target"]
    place = {name: number for number, name in enumerate(axes["target"])}
    table = table.join(least.map(place).rename("hard"), how="outer").reset_index()
    names = {"success_rate": "w", "robust_accuracy": "wc", "pairs": "wn"}
    of_axes = {name: axes[name] for name in keys}
    return _dense(table.rename(columns=names), of_axes, ["w", "wc", "wn", "hard"])


def _relations(rates: pd.DataFrame, axes: Axes) -> dict[str, list[str]]:
    """Return relation and overlap of the pairs that are not plain transfer, by positions."""
    keys = ["source", "target", "defence"]
    rows = rates.drop_duplicates(keys)
    rows = rows[(rows["relation"] != TRANSFER) | (rows["overlap"] != "")]
    return {
        key_of(axes, row, keys): [row["relation"], row["overlap"]]
        for row in rows.to_dict("records")
    }


def _rankings(
    results: Results, shown: Shown, axes: Axes
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, list[str]]]:
    """Return the ranked attacks by defence, source and budget, with headings of several rankings.

    A row has name, rank, verdict, statistics in the order of the ranking, cost and what it lacks.
    The second value has notes on the rankings.
    """
    place, notes = dict[str, list[dict[str, Any]]](), dict[str, list[str]]()
    known = pd.concat([over_sources(results.rankings).assign(source=MEAN), results.rankings])
    rows = shown.ranking.assign(of=shown.ranking["of"].replace(MEAN, ""))
    for (*names, _), its in rows.groupby(["defence", "of", "eps_255", "part"], sort=False):
        key = key_of(axes, dict(zip(RANKING_KEYS, names, strict=True)), RANKING_KEYS)
        heading = its["heading"].iloc[0]
        listed = place.setdefault(key, [])
        listed += [{"heading": heading}] * bool(heading)
        listed += [_ranked(row, "attack") for row in its.to_dict("records")]
        ranked = its[["attack", "source", "defence", "eps_255"]].merge(known)
        texts = sentences(ranking_notes(ranked, "attack"))
        several = heading and ranked["rank"].notna().any()
        notes.setdefault(key, []).extend([*said((f"{heading}:", several)), *texts])
    return place, notes


def _sources(results: Results, axes: Axes) -> dict[str, list[dict[str, Any]]]:
    """Return the ranked sources by defence, attack, budget and target, or what they lack.

    The first has `notes` on the ranking, and the `text` on one target.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    rows = results.sources[results.sources["attack"].isin(axes["attack"])]
    of_attack = rows.groupby("attack")
    first_of = [rows[name] == of_attack[name].transform("first") for name in GROUP]
    ranked = rows[np.logical_and.reduce(first_of) & rows["rank"].notna()]
    for _, tested in ranked.groupby([*SOURCE_KEYS], sort=False):
        shown = tested.assign(undecided=undecided(tested, [*SOURCE_KEYS]))
        records = shown.to_dict("records")
        key = key_of(axes, {**records[0], **_target(records[0], axes)}, SOURCE_KEYS)
        first, *others = found[key] = [_ranked(row, "source") for row in records]
        for place in others:  # the interval of the difference, drawn from the first
            if place["dl"] is not None:
                place["l"] = round(first["m"] - place["dh"], 6)
                place["h"] = round(first["m"] - place["dl"], 6)
        first |= {"text": on_target(tested), "notes": sentences(ranking_notes(tested, "source"))}
    for _, lacking in rows[rows["rank"].isna()].groupby([*SOURCE_KEYS], sort=False):
        row = lacking.iloc[0].to_dict()
        key = key_of(axes, {**row, **_target(row, axes)}, SOURCE_KEYS)
        found.setdefault(key, [{"notes": sentences(unranked(lacking, "source"))}])
    return found


def _target(row: Mapping[Any, Any], axes: Axes) -> dict[str, str]:
    """Return the place of a ranking of sources on the axis of targets; empty: all, or the only."""
    single = row["target"] in axes["target"] and len(axes["target"]) > 2
    return {"target": row["target"] if single else ""}


def _ranked(row: Mapping[Any, Any], of: str) -> dict[str, Any]:
    """Return a row of a ranking for the page; points are those behind the first."""
    numbers = {
        name: _number(row.get(column))
        for name, column in (
            *(("m", "mean"), ("l", "low"), ("h", "high"), ("rank", "rank")),
            *(("d", "difference"), ("dl", "difference_high"), ("dh", "difference_low")),
            *(("images", "images"), ("targets", "targets")),
            *(("gradients", "gradients"), ("fit", "fit_gradients")),
        )
    }
    for name in ("d", "dl", "dh"):
        numbers[name] = None if numbers[name] is None else round(-numbers[name], 6)
    text = {"name": row[of], "tie": row["undecided"]}
    text["source"] = "" if row["source"] == MEAN else row["source"]
    return {**numbers, **text, "lacks": row.get("lacks", "")}


def _top(values: pd.DataFrame, protocol: str) -> float:
    """Return the end of the axis for means over the budget."""
    rows = values[(values["target"] == "") & (values["protocol"] == protocol)]
    highest = rows["success_rate"].max()
    return float(np.ceil(5 * max(highest, 0.1)) / 5) if highest == highest else 1.0


def key_of(axes: Axes, row: Mapping[Any, Any], keys: Sequence[str]) -> str:
    """Join the places of a row on axes by points."""
    return ".".join(str(axes[name].index(row[name])) for name in keys)


def _dense(frame: pd.DataFrame, axes: Axes, columns: Any) -> dict[str, list[Any]]:
    """Return columns as lists with a place for each combination of the axes."""
    places = [pd.Index(names).get_indexer(pd.Index(frame[axis])) for axis, names in axes.items()]
    known = np.logical_and.reduce([place >= 0 for place in places])
    shape = tuple(len(names) for names in axes.values())
    at = np.ravel_multi_index([place[known] for place in places], shape)
    dense = {}
    for column in columns:
        values = np.full(int(np.prod(shape)), np.nan)
        values[at] = frame[column].to_numpy(float)[known]
        dense[column] = [_number(value) for value in values.tolist()]
    return dense


def _number(value: Any) -> Any:
    """Return a JSON number of up to six decimals; None for NaN."""
    if value is None or value != value:
        return None
    rounded = round(float(value), 6)
    return int(rounded) if rounded == int(rounded) else rounded
