"""Pack sweeps into a card of the findings, or into the stored baselines of a preset.

Attacks of files `ATTACK_own` and `ATTACK_100_steps`, as `findings.costs` writes them, are `ATTACK`
and `ATTACK at 100 gradients: 100 x 1` in a card. A preset has the better way of each attack alone,
`ATTACK at 100 gradients`. Overrides, flags and folders of one machine are left out, and so is the
number of images of a data set, which versions before 0.5.0 stored twice.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from findings.board import tuned_ways, way_of
from findings.collect import ABSOLUTE
from findings.costs import COSTS
from src.artifacts import PREDICTIONS, FinishedJob, JobRecord, find_jobs, write_card
from src.config import PRESETS
from src.data import balanced_subset

TUNING = 200
"""Number of images for tuning in the preset `small`: those of the demo."""
VERSION = 3
"""Version of the presets; it rises if a stored value changes."""
_FILE = re.compile(r"(.+)_(?:own|(\d+)_(?:steps|copies))")


def pack_preset(name: str, folders: Sequence[Path], images: int, page: str = "") -> None:
    """Write the card of a preset from the finished jobs in some folders.

    Args:
        name: Name of the preset.
        folders: Folders of sweeps.
        images: Number of the images that are for tuning.
        page: Page about images and networks that are not in the package; may be empty.
    """
    jobs = find_jobs(folders)
    rows = jobs[0].defended.drop_duplicates("index").sort_values("index")
    tuning = list[int]()
    if images:
        chosen = np.sort(balanced_subset(rows["label"].to_numpy(), min(images, len(rows))))
        tuning = rows["index"].to_numpy(np.int64)[chosen].tolist()
    facts: dict[str, Any] = {"preset": name, "preset_version": VERSION, "tuning": tuning}
    facts |= {"page": page} if page else {}
    better = dict[str, str]()
    for cost in COSTS:
        rows = tuned_ways(jobs, cost, jobs[0].record, facts).sort_values("mean", kind="stable")
        better |= dict(zip(rows["attack"] + f" at {cost} gradients", rows["way"], strict=True))
    packed = list[FinishedJob]()
    for job in _packed(jobs):
        title, _, way = job.record.label.partition(": ")
        if not way or better.get(title, way) == way:
            record = job.record.model_copy(update={"label": title})
            names = (name for name in job.tables if name.startswith(PREDICTIONS))
            tables = {name: _coarse(job.read(name)) for name in names}
            packed.append(replace(job, record=record, tables=tables))
    _write(PRESETS / f"{name}.card", packed, coarse=True, **facts)


def pack(path: Path, jobs: Sequence[FinishedJob]) -> None:
    """Write a card of jobs."""
    _write(path, [*_packed(jobs)])


def _write(path: Path, jobs: Sequence[FinishedJob], **facts: Any) -> None:
    """Write a card, its jobs in the order of their names."""
    ordered = sorted(jobs, key=lambda job: (job.record.source, job.record.label))
    places = (Path(path.stem, f"{number}-job") for number in range(len(jobs)))
    placed = [replace(job, folder=place) for job, place in zip(ordered, places, strict=True)]
    write_card(placed, path, **facts)
    print(f"{path}: {len(placed)} jobs, {path.stat().st_size / 1e6:.2f} MB")


def _coarse(table: pa.Table) -> pa.Table:
    """Return predictions with the middle of one of 16 equal steps for each confidence."""
    for name in ("confidence", "true_confidence"):
        steps = pc.min_element_wise(pc.floor(pc.multiply(table[name], 16)), 15)
        middles = pc.divide(pc.add(steps, 0.5), 16).cast(table[name].type)
        table = table.set_column(table.column_names.index(name), name, middles)
    return table


def _packed(jobs: Sequence[FinishedJob]) -> Iterator[FinishedJob]:
    """Yield the jobs under the names that they have in a ranking."""
    for job in jobs:
        attack, label = job.record.attack, job.record.label
        if file := _FILE.fullmatch(attack):
            attack = label = file[1]
            label += f" at {file[2]} gradients: {way_of(job.record)}" if file[2] else ""
        facts: dict[str, Any] = {"attack": attack, "label": label, "overrides": (), "flags": ()}
        facts["gradients"] = _gradients(job)  # also those of an earlier run, whose rows were stored
        config = job.record.config
        dataset = {key: value for key, value in config["dataset"].items() if key != "n_images"}
        facts["config"] = config | {"model": _models(config["model"]), "dataset": dataset}
        record = job.record.model_copy(update=facts)
        record = JobRecord.model_validate_json(ABSOLUTE.sub("", record.model_dump_json()))
        yield replace(job, record=record, written=job.record, raised=())
        job.forget()


def _gradients(job: FinishedJob) -> int:
    """Return the number of gradients that the attack of a job took for all of its images."""
    costs = job.defended.groupby("index")["gradients"].max()
    return round(costs.sum())


def _models(section: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of models, whose weights are files of any clone."""
    return {
        name: {
            key: re.sub(r"^.*/(?=src/assets/)", "", value) if key == "weights" else value
            for key, value in model.items()
        }
        for name, model in section.items()
    }
