"""Pack sweeps into a card of the findings, or into the stored baselines of a preset.

Attacks of files `ATTACK_own`, `ATTACK_10` and `ATTACK_100`, as `findings.costs` writes them, are
`ATTACK`, `ATTACK at 10 gradients` and `ATTACK at 100 gradients` in the card; others keep their
names. Overrides, flags and folders of one machine are left out, and so is the number of images of a
data set, which versions before 0.5.0 stored twice.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from findings.collect import ABSOLUTE
from findings.costs import COSTS
from src.artifacts import CardJob, FinishedJob, JobRecord, find_jobs, read_facts, write_card
from src.config import PRESETS
from src.data import balanced_subset

TUNING = 200
"""Number of images for tuning in the preset `small`: those of the demo."""
VERSION = 2
"""Version of the presets; it rises if a stored value changes."""
_SETTINGS = ("own", *map(str, COSTS))


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
    path = PRESETS / f"{name}.card"
    facts: dict[str, Any] = {"preset": name, "preset_version": VERSION, "tuning": tuning}
    facts |= {"page": page} if page else {}
    cards = [read_facts(place) for place in folders if place.is_file()]
    facts["coarse"] = any(card.get("coarse", False) for card in cards)
    pack(path, jobs, **facts)


def pack(path: Path, jobs: Sequence[FinishedJob], **facts: Any) -> None:
    """Write a card of jobs, with facts about it."""
    packed = sorted(_packed(path.stem, jobs), key=lambda job: (job.record.source, job.record.label))
    write_card(packed, path, **facts)
    print(f"{path}: {len(packed)} jobs, {path.stat().st_size / 1e6:.2f} MB")


def _packed(name: str, jobs: Sequence[FinishedJob]) -> Iterator[CardJob]:
    """Yield the jobs under the names that they have in a ranking."""
    for number, job in enumerate(jobs):
        attack, label = job.record.attack, job.record.label
        name_of, _, setting = attack.rpartition("_")
        if setting in _SETTINGS:
            attack = name_of
            label = attack if setting == "own" else f"{attack} at {setting} gradients"
        facts: dict[str, Any] = {"attack": attack, "label": label, "overrides": (), "flags": ()}
        facts["gradients"] = _gradients(job)  # also those of an earlier run, whose rows were stored
        config = job.record.config
        dataset = {key: value for key, value in config["dataset"].items() if key != "n_images"}
        facts["config"] = config | {"model": _models(config["model"]), "dataset": dataset}
        card, record = job.as_card(), job.record.model_copy(update=facts)
        record = JobRecord.model_validate_json(ABSOLUTE.sub("", record.model_dump_json()))
        place = card.place if card.place[0] == name else (name, number)  # packed again: as before
        yield CardJob(record, place, (), card.tables)
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
