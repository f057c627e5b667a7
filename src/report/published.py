"""Published success rates beside those of comparable jobs, in one table."""

import re
from collections.abc import Mapping
from math import isclose
from typing import Any

import numpy as np
import pandas as pd
import yaml

from ..artifacts.comparable import network_of
from ..artifacts.record import JobRecord
from ..utils.formats import format_cell
from ..utils.model_names import NO_DEFENCE
from ..utils.package import find_asset
from .grid import Grid
from .results import JobResults, Results

_CHANGED = re.compile(r"[(,] ?(\w+)=")
"""Settings in an attack's label, which differ from its defaults."""
_STEPS = {"steps", "step_size_255", "relative_step_size", "target_label"}
_OF_CLASS = {"name", "root", "norm", "target_label"}
_KEYS = ["goal", "eps_255", "their_source", "their_target", "steps", "step_size_255"]
"""What a rate and a published one share; of a class of theirs, the steps are its own."""


def published_table(results: Results) -> Grid:
    """Lay out rates beside comparable published ones: a row per attack, source, target and budget.

    Raises:
        ValueError: No published rate is comparable.
    """
    tables = yaml.safe_load(find_asset("assets/published.yaml").read_text("utf-8"))
    rates = pd.read_csv(find_asset("assets/published.csv"), dtype={"attack": str})
    rates = rates.rename(columns={"source": "their_source", "target": "their_target"})
    jobs = [result for row in results.attacked for result in row]
    parts = [
        _join(job, table, rates[rates["table"] == name])
        for job in jobs
        for name, table in tables.items()
    ]
    rows = pd.concat(parts, ignore_index=True)
    if rows.empty:
        raise ValueError(
            "No published rate is comparable: networks, image size, data set, number of images, "
            "attack and budget must be equal. See docs/tables.md."
        )
    cells = rows[["attack", "source", "target"]].assign(
        eps=rows["eps_255"].map("{:g}/255".format),
        here=[format_cell(*pair) for pair in rows[["success", "denominator"]].to_numpy()],
        published=rows["success_percent"].map("{:.1f}%".format),
        difference=(100 * rows["success_rate"] - rows["success_percent"]).map("{:+z.1f}".format),
        table=rows["title"],
    )
    notes = [*dict.fromkeys(rows["title"] + ": " + rows["origin"])]
    caption = "Success rates here and published; differences in points"
    return Grid(
        [*cells], cells.to_numpy().tolist(), caption, notes=notes, left=(0, 1, 2), data=rows
    )


def _join(result: JobResults, table: Mapping[str, Any], theirs: pd.DataFrame) -> pd.DataFrame:
    """Return a job's rates that are comparable with those of a published table, and both rates."""
    record, rows = result.job.record, result.rates
    settings, keys, allowed = record.config["attack"]["settings"], _KEYS, _STEPS
    expected = table.get("settings", {}).get(record.attack, {})
    name = table["attacks"].get(record.attack)
    if record.attack == "transferattack" == table["title"].lower():
        name, keys, allowed = settings["name"], _KEYS[:4], _OF_CLASS
    alike = {*_CHANGED.findall(record.label)} <= allowed | {*expected} and record.norm == "linf"
    alike &= record.dataset in table["datasets"]
    alike &= record.images == table["n"] or "recipe" in table
    alike &= all(isclose(settings[key], expected[key], rel_tol=1e-3) for key in expected)
    rows = rows[(rows["variant"] == record.storage) & (rows["protocol"] == table["protocol"])]
    rows = rows[(rows["defence"] == NO_DEFENCE) & (rows["denominator"] > 0) & alike]
    steps, names = settings.get("steps", 1), _names(record, table)
    size = rows["eps_255"] * (settings.get("relative_step_size") or 1 / steps)
    recipe = f"; mean of its trainings: {table['recipe']}" if "recipe" in table else ""
    rows = rows.assign(
        goal=np.where(rows["targeted"].astype(bool), "targeted", "untargeted"),
        their_source=rows["source"].map(names).astype(object),
        their_target=rows["target"].map(names).astype(object),
        steps=steps,
        step_size_255=settings.get("step_size_255") or size.round(6),
        title=table["title"],
        origin=f"{table['n']:,} images, {table['protocol']}; {table['source']}{recipe}",
    ).dropna(subset=["their_source", "their_target"])
    return rows.merge(theirs[theirs["attack"] == name][[*keys, "success_percent"]], on=keys)


def _names(record: JobRecord, table: Mapping[str, Any]) -> dict[str, str]:
    """Return the published names of the models that see a table's images and have its weights."""
    side, names = round((record.values / 3) ** 0.5), dict[str, str]()
    for model, section in record.config["model"].items():
        public = section["network"].get("name") if section.get("weights") == "included" else None
        weights = network_of(record, model) if "recipe" in table else record.weights.get(model)
        name = table["models"].get(weights) or table["models"].get(public)
        if name and side == (section.get("input_size") or side) == table["image_size"]:
            names[model] = name
    return names
