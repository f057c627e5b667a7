"""Pack the stored baselines of a preset: `python -m findings baselines NAME FOLDER ...`.

The folders hold finished sweeps of files `ATTACK_own`, `ATTACK_10` and `ATTACK_100` as
`findings.costs` writes them. In the card these attacks are `ATTACK`, `ATTACK at 10 gradients` and
`ATTACK at 100 gradients`. Overrides, flags and folders of one machine are left out, and so is the
number of images of a data set, which versions before 0.5.0 stored twice.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from src.artifacts.card import CardJob, write_card
from src.artifacts.jobs import FinishedJob, find_jobs
from src.config.fields import PRESETS
from src.data.subset import balanced_subset

TUNING = 200
"""Number of images for tuning: those of the demo."""
VERSION = 1
"""Version of the presets; it rises if a stored value changes."""


def pack(name: str, folders: Sequence[Path]) -> None:
    """Write the card of a preset from the finished jobs in some folders."""
    jobs = find_jobs(folders)
    rows = jobs[0].defended.drop_duplicates("index").sort_values("index")
    chosen = balanced_subset(rows["label"].to_numpy(), min(TUNING, len(rows)))
    tuning = rows["index"].to_numpy(np.int64)[chosen].tolist()
    packed = sorted(_packed(name, jobs), key=lambda job: (job.record.source, job.record.label))
    path = PRESETS / f"{name}.card"
    write_card(packed, path, coarse=True, preset=name, preset_version=VERSION, tuning=tuning)
    print(f"{path}: {len(packed)} jobs, {path.stat().st_size / 1e6:.2f} MB")


def _packed(name: str, jobs: list[FinishedJob]) -> Iterator[CardJob]:
    """Yield the jobs under the names that they have in a ranking."""
    for number, job in enumerate(jobs):
        attack, _, setting = job.record.attack.rpartition("_")
        label = attack if setting == "own" else f"{attack} at {setting} gradients"
        facts: dict[str, Any] = {"attack": attack, "label": label, "overrides": (), "flags": ()}
        config = job.record.config
        dataset = {key: value for key, value in config["dataset"].items() if key != "n_images"}
        facts["config"] = config | {"model": _models(config["model"]), "dataset": dataset}
        card = job.as_card()
        yield CardJob(job.record.model_copy(update=facts), (name, number), (), card.tables)
        job.forget()


def _models(section: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of models, whose weights are files of any clone."""
    return {
        name: {
            key: re.sub(r"^.*/(?=src/assets/)", "", value) if key == "weights" else value
            for key, value in model.items()
        }
        for name, model in section.items()
    }
