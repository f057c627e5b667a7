"""Every number of the first screen, for every selection, in arrays that the page looks up.

The numbers are those of `rankings`, `src.table` and `rates.csv`; the page's script computes none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from ...analysis import TRANSFER, WHITE_BOX
from ...analysis.image_outcomes import joined
from ...analysis.ranking import ALL_TARGETS, MEAN_OF, target_means
from ..cells import averaged_pairs, cell_means
from ..charts.theme import MEAN
from ..summary import Summary
from ..verdicts import on_target, verdict
from .view import View, ranked_sources

AXES = ["attack", "source", "target", "defence", "protocol", "eps_255"]
"""Axes of the values: source and target may be empty, which stands for their mean."""
_SHORT = {
    **{"success_rate": "s", "success_rate_low": "sl", "success_rate_high": "sh"},
    **{"robust_accuracy": "c", "robust_accuracy_low": "cl", "robust_accuracy_high": "ch"},
    **{"confidence": "f", "success": "k", "still_correct": "kc", "denominator": "n"},
    **{"success_rate_sd": "sd", "abstained": "a"},
}
_MEANS = ["success_rate", "robust_accuracy", "confidence"]
_ENDS = [name for name in _SHORT if name.endswith(("_low", "_high"))]
_COLOURS = 7
RANKING_KEYS = ("defence", "source", "eps_255")
"""Axes of the rankings of attacks."""
SOURCE_KEYS = ("defence", "attack", "eps_255", "target")
"""Axes of the rankings of sources."""

Axes = Mapping[str, list[Any]]


def selections(summary: Summary, view: View) -> dict[str, Any]:
    """Return the axes, the values of all selections, and the first selection.

    Returns:
        `axes`: names in order; `values`: columns in the order of the axes, the last fastest;
        `tiles`: the same without targets (`w`: success of white boxes, `wc`: correct, `wn`: their
        number, `hard`: position of the target fooled least); `ranking` and `sources`, by positions
        on axes joined by points; `colours`: number of an attack's colour.
    """
    rates = view.rates
    axes: dict[str, list[Any]] = {name: list(rates[name].unique()) for name in AXES}
    axes["attack"] = view.options["attack"]
    axes["source"] = [""] * bool(len(view.averaged)) + axes["source"]
    axes["target"] = ["", *axes["target"]]
    axes["eps_255"] = sorted(map(float, axes["eps_255"]))
    first = view.choice
    targeted = rates.groupby("attack")["targeted"].any()
    sources = view.averaged.groupby("attack")["source"].nunique()
    whole = _whole(rates[~rates["source"].isin(view.apart)], view.averaged)
    values = _with_intervals(_values(rates, view.averaged), summary, whole)
    return {
        "axes": axes,
        "values": _dense(values.rename(columns=_SHORT), axes, _SHORT.values()),
        "tiles": _tiles(view, values, axes),
        "relations": _relations(rates, axes),
        "ranking": _rankings(view, axes),
        "sources": _sources(summary, axes),
        "colours": _colours(view),
        "targeted": [bool(targeted[name]) for name in axes["attack"]],
        "pairs": view.pairs,
        "single": [int(sources.get(name, 0)) for name in axes["attack"]],
        "unlike": view.unlike,
        "top": _top(values, first.protocol),
        "first": {**asdict(first), "shown": "fooled", **_first_view(axes)},
    }


def _whole(rates: pd.DataFrame, averaged: pd.DataFrame) -> list[tuple[str, float]]:
    """Return attacks and budgets at which the sources are those of the attack's mean."""
    of_mean = {str(attack): {*its} for attack, its in averaged.groupby("attack")["source"]}
    sources: Any = rates.groupby(["attack", "eps_255"])["source"]
    return [place for place, its in sources if {*its} == of_mean.get(place[0])]


def _first_view(axes: Axes) -> dict[str, str]:
    """Return the part and the target shown first: a single network has no target but itself."""
    alone = len(axes["source"]) == 1 and axes["target"][1:] == axes["source"]
    return {"view": "images" if alone else "results", "target": axes["target"][-1] * alone}


def _values(rates: pd.DataFrame, averaged: pd.DataFrame) -> pd.DataFrame:
    """Return the values of all pairs, and the means over sources, targets and both.

    A white box is in no mean: what has only white boxes has no mean. Means over sources are those
    of the rows `averaged`. A mean of one pair has its intervals.
    """
    parts = [rates]
    for rows, empty in ((rates, ["target"]), (averaged, ["source"]), (averaged, AXES[1:3])):
        keys = [name for name in AXES if name not in empty]
        if len(rows):
            means = cell_means(averaged_pairs(rows, keys), keys, _MEANS, _ENDS)
            parts.append(means[~means["white"]].assign(**dict.fromkeys(empty, "")))
    return pd.concat(parts, ignore_index=True)[[*AXES, "relation", "targeted", *_SHORT]]


def _with_intervals(
    values: pd.DataFrame, summary: Summary, whole: Sequence[tuple[str, float]]
) -> pd.DataFrame:
    """Add the rankings' means and intervals, and those of single targets over several sources.

    Those over sources are added for attacks and budgets that are `whole`.
    """
    ranked, mean = summary.rankings, summary.rankings["source"].str.startswith(MEAN_OF)
    parts = [ranked.assign(target="", source=ranked["source"].mask(mean, ""))]
    for jobs in summary.groups:
        for eps in sorted({eps for job in jobs for eps in job.outcomes}):
            outcomes = joined([job.outcomes[eps] for job in jobs if eps in job.outcomes])
            its = target_means(outcomes)
            protocol = jobs[0].job.record.protocol
            parts.append(its.assign(source="", eps_255=eps, protocol=protocol))
    known = pd.concat(parts, ignore_index=True).dropna(subset=["mean"])
    places = pd.MultiIndex.from_frame(known[["attack", "eps_255"]])
    known = known[(known["source"] != "") | places.isin(whole)]
    known = known.drop_duplicates(AXES).set_index(AXES)[["mean", "low", "high"]].astype(float)
    joined_ = values.join(known, on=AXES)
    means = (joined_[["source", "target"]] == "").any(axis=1)
    untargeted = joined_["robust_accuracy"] + joined_["success_rate"] > 1 - 1e-9
    at = joined_[means & joined_["mean"].notna()].index
    values.loc[at, "success_rate"] = joined_.loc[at, "mean"]
    both = joined_.index.isin(at) & untargeted
    values.loc[both, "robust_accuracy"] = 1 - joined_.loc[both, "mean"]
    for end, other in (("low", "high"), ("high", "low")):
        values.loc[at, f"success_rate_{end}"] = joined_.loc[at, end]
        values.loc[both, f"robust_accuracy_{other}"] = 1 - joined_.loc[both, end]
    return values


def _tiles(view: View, values: pd.DataFrame, axes: Axes) -> dict[str, list[Any]]:
    """Return the mean over white boxes, and the target that is fooled least."""
    keys = [name for name in AXES if name != "target"]
    every = pd.concat([view.rates, view.averaged.assign(source="")])
    boxes = every[every["relation"] == WHITE_BOX].groupby(keys)
    table = boxes[["success_rate", "robust_accuracy"]].mean().assign(wn=boxes.size())
    columns = values[(values["target"] != "") & (values["relation"].isin([TRANSFER, np.nan]))]
    columns = columns[columns["success_rate"].notna() & (columns["eps_255"] > 0)]
    least = columns.loc[columns.groupby(keys)["success_rate"].idxmin()].set_index(keys)["target"]
    place = {name: number for number, name in enumerate(axes["target"])}
    table = table.join(least.map(place).rename("hard"), how="outer").reset_index()
    table = table.rename(columns={"success_rate": "w", "robust_accuracy": "wc"})
    of_axes = {name: axes[name] for name in keys}
    return _dense(table, of_axes, ["w", "wc", "wn", "hard"])


def _relations(rates: pd.DataFrame, axes: Axes) -> dict[str, list[str]]:
    """Return relation and overlap of the pairs that are not plain transfer, by positions."""
    keys = ["source", "target", "defence"]
    rows = rates.drop_duplicates(keys)
    rows = rows[(rows["relation"] != TRANSFER) | (rows["overlap"] != "")]
    return {
        key_of(axes, row, keys): [row["relation"], row["overlap"]]
        for row in rows.to_dict("records")
    }


def _rankings(view: View, axes: Axes) -> dict[str, list[dict[str, Any]]]:
    """Return the ranked attacks by defence, source and budget, with headings of several rankings.

    A row has name, rank, verdict, statistics in the order of the ranking, cost and what it lacks.
    """
    place = dict[str, list[dict[str, Any]]]()
    rows = view.ranking.assign(of=view.ranking["of"].replace(MEAN, ""))
    for names, its in rows.groupby(["defence", "of", "eps_255"], sort=False):
        key = key_of(axes, dict(zip(RANKING_KEYS, names, strict=True)), RANKING_KEYS)
        place[key] = [_ranked(row, "attack") for row in its.to_dict("records")]
    return place


def _sources(summary: Summary, axes: Axes) -> dict[str, list[dict[str, Any]]]:
    """Return the ranked sources by defence, attack, budget and target, or what they lack.

    The first has a `text`, as in the terminal: what the tests say.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for defence in axes["defence"]:
        rows = ranked_sources(summary.sources, defence)
        rows = rows[rows["attack"].isin(axes["attack"])] if len(rows) else rows
        for _, ranked in rows.groupby([*SOURCE_KEYS], sort=False) if len(rows) else ():
            records = ranked.to_dict("records")
            key = key_of(axes, {**records[0], **_target(records[0], axes)}, SOURCE_KEYS)
            first, *others = found[key] = [_ranked(row, "source") for row in records]
            for place in others:  # the interval of the difference, drawn from the first
                if place["dl"] is not None:
                    place["l"] = round(first["m"] - place["dh"], 6)
                    place["h"] = round(first["m"] - place["dl"], 6)
            tested = summary.sources.loc[ranked.index]
            all_targets = records[0]["target"] == ALL_TARGETS
            lines = verdict(tested) if all_targets else [on_target(tested)]
            first["text"] = "; ".join(lines)
    if len(summary.sources):
        unranked = summary.sources[summary.sources["rank"].isna()]
        for row in unranked.drop_duplicates(SOURCE_KEYS).to_dict("records"):
            if row["attack"] in axes["attack"]:
                key = key_of(axes, {**row, **_target(row, axes)}, SOURCE_KEYS)
                found.setdefault(key, [{"lacks": row["lacks"]}])
    return found


def _target(row: Mapping[Any, Any], axes: Axes) -> dict[str, str]:
    """Return the place of a ranking of sources on the axis of targets; empty: all, or the only."""
    single = row["target"] in axes["target"] and len(axes["target"]) > 2
    return {"target": row["target"] if single else ""}


def _ranked(row: Mapping[Any, Any], of: str) -> dict[str, Any]:
    """Return a row of a ranking for the page; points are those behind the first."""
    if row.get("heading"):
        return {"heading": row["heading"]}
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


def _colours(view: View) -> dict[str, int]:
    """Return the colours of the best-ranked attacks at the reference budget, from 1 on."""
    return {name: n for n, name in enumerate(view.options["attack"][:_COLOURS], 1)}


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
