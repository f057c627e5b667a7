"""Published success rates beside a table's own, with a verdict for each cell."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from functools import cache
from math import hypot, isclose
from typing import Any

import numpy as np
import pandas as pd
import yaml
from pydantic import BaseModel
from scipy.special import stdtrit

from ..analysis.intervals import wilson_interval
from ..artifacts.comparable import network_of
from ..artifacts.record import JobRecord
from ..utils.package import find_asset
from .results import Results
from .trainings import without_training_seed

_CHANGED = re.compile(r"[(,] ?(\w+)=")
"""Settings in an attack's label, which differ from its defaults."""
_STEPS = {"steps", "step_size_255", "relative_step_size", "target_label"}
_OF_CLASS = {"name", "root", "norm", "target_label"}
_UNMARKED = dict.fromkeys(("white", "partial", "best", "undecided", "untested"), False)


class PublishedTable(BaseModel):
    """Settings of a published table; an entry of `assets/published.yaml`.

    Attributes:
        source: Repository, commit, file and licence.
        n: Number of images, all of which count.
        datasets: Names of data sets with these images.
        image_size: Side of the images in pixels, which the networks see unchanged.
        attacks: Published names of attacks, by our names.
        settings: Settings that differ from our attack's defaults, by our names.
        models: Published names of models, by public names or digests of weights.
        clean: Published clean accuracies of targets in percent.
        recipe: How the networks were trained, if cells have counts for several trainings. Then the
            models are networks, and any images of the data set are compared.
    """

    title: str
    source: str
    n: int
    datasets: tuple[str, ...]
    image_size: int
    protocol: str
    eps_255: float
    attacks: dict[str, str]
    settings: dict[str, dict[str, float]] = {}
    models: dict[str, str]
    clean: dict[str, float] = {}
    recipe: str = ""


@cache
def load_published() -> tuple[dict[str, PublishedTable], pd.DataFrame]:
    """Load the settings of the published tables by name, and their cells."""
    sections = yaml.safe_load(find_asset("assets/published.yaml").read_text("utf-8"))
    tables = {name: PublishedTable(**keys) for name, keys in sections.items()}
    cells = pd.read_csv(find_asset("assets/published.csv"), dtype={"attack": str})
    cells["eps_255"] = cells["table"].map({name: table.eps_255 for name, table in tables.items()})
    counts = pd.read_csv(find_asset("assets/transferlab.csv"))
    counts = counts.assign(table="transferlab", goal="untargeted")
    counts["steps"] = counts["attack"].map({"fgsm": 1, "pgd": 40})
    counts["step_size_255"] = counts["eps_255"] * counts["attack"].map({"fgsm": 1, "pgd": 0.25})
    counts["success_percent"] = 100 * counts["fooled"] / counts["joint"]
    return tables, pd.concat([cells, counts[[*cells]]], ignore_index=True)


def add_published(
    results: Results, pairs: pd.DataFrame, body: pd.DataFrame, keys: Sequence[str]
) -> tuple[pd.DataFrame, list[str]]:
    """Add a row below each attack that has a comparable published cell, and list the sources.

    Returns:
        The body of the table with these rows, whose column `verdict` is a text; and sentences on
        the sources of these rows, and on attacks without a comparable cell.
    """
    jobs = [row[0].job for row in results.attacked]
    records = dict[Any, JobRecord]()
    for job in jobs:
        network = network_of(job.record, job.record.source)
        records.setdefault((without_training_seed(job.attack), network), job.record)
        records[job.attack, job.record.source] = job.record
    parts, notes, left_out = [body], dict[str, None](), defaultdict[str, Counter[str]](Counter)
    for (attack, source), of_job in pairs.groupby(["attack", "source"], sort=False):
        found = [*_compare_all(records[attack, source], of_job)]
        for table, rows in found:
            if rows["reason"].eq("").any():
                first = body.index[body["attack"] == attack][0] + 0.5
                rows = rows.assign(attack=f"{attack}, {table.title}", **_UNMARKED)
                rows = rows[[*keys, "value", "verdict", *_UNMARKED]]
                parts.append(rows.set_axis([first] * len(rows)))
                notes[f"{table.title}: {table.source}; {_differences(of_job, table)}"] = None
            else:
                left_out[f"{attack}, {table.title}"].update(rows["reason"])
        if not found:
            notes[f"{attack}: no published values"] = None
    for name, reasons in left_out.items():
        cause = ", ".join(f"{reason} ({count} cells)" for reason, count in reasons.items())
        notes[f"{name}: not comparable: {cause}"] = None
    body = pd.concat(parts).sort_index(kind="stable").reset_index(drop=True)
    return body.assign(verdict=body["verdict"].fillna("")) if len(parts) > 1 else body, list(notes)


def _compare_all(
    record: JobRecord, pairs: pd.DataFrame
) -> Iterator[tuple[PublishedTable, pd.DataFrame]]:
    """Yield the tables that have an attack, and a job's pairs with their verdicts."""
    tables, cells = load_published()
    for name, table in tables.items():
        theirs = cells[(cells["table"] == name) & (cells["attack"] == _name(record, table))]
        theirs = theirs[theirs["goal"].eq("targeted").eq(bool(pairs["targeted"].iloc[0]))]
        if not theirs.empty:
            rows = [_compare(record, pair, table, theirs) for pair in pairs.to_dict("records")]
            yield table, pairs.assign(**pd.DataFrame(rows, pairs.index))


def _name(record: JobRecord, table: PublishedTable) -> str | None:
    """Return the published name of a job's attack; TransferAttack's own classes have it already."""
    if record.attack == "transferattack" and table.title == "TransferAttack":
        return str(record.config["attack"]["settings"]["name"])
    return table.attacks.get(record.attack)


def _compare(
    record: JobRecord, pair: dict[Any, Any], table: PublishedTable, theirs: pd.DataFrame
) -> dict[str, Any]:
    """Return the published value, the verdict, and the reason if a pair is not comparable."""
    source, target = (_identify(record, pair[key], table) for key in ("source", "target"))
    same = (theirs["source"] == source) & (theirs["target"] == target)
    theirs = theirs[same & (pair["defence"] == "none")]
    models, side = record.config["model"], round((record.values / 3) ** 0.5)
    sizes = {models.get(pair[key], {}).get("input_size") or side for key in ("source", "target")}
    eps_255, budgets = pair["eps_255"], {*theirs["eps_255"]}
    theirs = theirs[theirs["eps_255"].eq(eps_255) | (eps_255 not in budgets)]
    rows = theirs.to_dict("records")
    same_steps = theirs[np.array([_has_steps(record, eps_255, row, table) for row in rows], bool)]
    reasons = {
        "weights": theirs.empty,
        "size": sizes | {side} != {table.image_size},
        "images": record.dataset not in table.datasets
        or (record.images != table.n and not table.recipe),
        "denominator": pair["protocol"] != table.protocol or np.isnan(pair["success_rate"]),
        "steps": same_steps.empty,
        "budget": record.norm != "linf" or eps_255 not in budgets,
    }
    reason = next((reason for reason, holds in reasons.items() if holds), "")
    values = same_steps["success_percent"] / 100
    value = np.nan if values.empty else values.mean()
    if table.recipe and not reason:
        trainings = int(pair.get("source_trainings", 1))
        verdict = compare_trainings(pair["success_rate"], [*values], trainings)
        return {"value": value, "reason": "", "verdict": verdict}
    has_clean = target in table.clean and not pair["targeted"]
    clean_gap = table.clean[str(target)] / 100 - pair["clean_accuracy"] if has_clean else None
    numbers = pair["success_rate"], pair["denominator"], value, table.n, clean_gap
    verdict = f"not comparable: {reason}" if reason else compare(*numbers)
    return {"value": value, "reason": reason, "verdict": verdict}


def compare(
    ours: float, n_ours: float, theirs: float, n_theirs: float, clean_gap: float | None = None
) -> str:
    """Return the verdict on two success rates, by Newcombe's 95 % interval of their difference.

    `clean_gap` is their clean accuracy minus ours; None if it is unknown.

    Reference:
        R. G. Newcombe, Interval estimation for the difference between independent proportions,
        Stat. Med. 17 (1998), method 10.
    """
    counts = [ours * n_ours, theirs * n_theirs]
    (low, their_low), (high, their_high) = wilson_interval(counts, [n_ours, n_theirs])
    least = ours - theirs - hypot(ours - low, their_high - theirs)
    most = ours - theirs + hypot(high - ours, theirs - their_low)
    if least <= 0 <= most:
        return "inside"
    if clean_gap is not None and least <= clean_gap <= most:
        return "inside after the clean difference"
    return f"off by {100 * (ours - theirs):+z.1f}"


def compare_trainings(ours: float, theirs: Sequence[float], trainings: int) -> str:
    """Return whether the mean of some new trainings is in the 95 % prediction interval of others.

    The interval is mean +- t(R - 1) s sqrt(1 / R + 1 / m) from R published values with standard
    deviation s, for the mean of m new values: other trainings on the same images, by one recipe.

    Reference:
        G. J. Hahn and W. Q. Meeker, Statistical Intervals (1991), 4.7.
    """
    count, mean = len(theirs), np.mean(theirs)
    spread = np.std(theirs, ddof=1) * np.sqrt(1 / count + 1 / trainings)
    half = stdtrit(count - 1, 0.975) * spread
    place = "inside" if abs(ours - mean) <= half else "outside"
    low, high, width = (100 * x for x in (mean - half, mean + half, 2 * half))
    return f"{place} {low:z.1f} to {high:z.1f}, {width:.1f} wide"


def _differences(pairs: pd.DataFrame, table: PublishedTable) -> str:
    """Say what the verdicts on a table are, and what differs from it."""
    if not table.recipe:
        return "published, and our value minus it"
    here = pairs.groupby("target", sort=False)["clean_accuracy"].mean()
    here = here.rename(table.models)[lambda row: row.index.isin([*table.clean])]
    accuracies = (
        f"{name} {100 * x:.1f} ({table.clean[str(name)]:.1f})" for name, x in here.items()
    )
    counted = f"{pairs['denominator'].max():g} images counted at most (theirs: of {table.n:,})"
    clean = f"clean accuracy in % here (theirs): {', '.join(accuracies)}"
    recipe = f"their recipe: {table.recipe}"
    return f"mean of their trainings, 95 % prediction for ours; {counted}; {clean}; {recipe}"


def _identify(record: JobRecord, name: str, table: PublishedTable) -> str | None:
    """Return the published name of a model by the digest of its weights, or by its public name."""
    section = record.config["model"].get(name, {})
    network = section.get("network", {})
    public = network.get("name") if section.get("weights") == "included" else None
    model = network_of(record, name) if table.recipe else record.weights.get(name, "")
    return table.models.get(model) or table.models.get(str(public))


def _has_steps(
    record: JobRecord, eps_255: float, row: dict[Any, Any], table: PublishedTable
) -> bool:
    """Return True if a job has a row's steps and step size, and otherwise the table's settings."""
    settings, changed = record.config["attack"]["settings"], set(_CHANGED.findall(record.label))
    if record.attack == "transferattack":  # a class of theirs, with its own steps
        return changed <= _OF_CLASS
    steps, expected = settings.get("steps", 1), table.settings.get(record.attack, {})
    size = settings.get("step_size_255") or eps_255 * (
        settings.get("relative_step_size") or 1 / steps
    )
    return (
        changed <= _STEPS | expected.keys()
        and (steps, isclose(size, row["step_size_255"])) == (row["steps"], True)
        and all(isclose(settings[key], value, rel_tol=1e-3) for key, value in expected.items())
    )
