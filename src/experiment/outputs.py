"""What a job leaves in its folder: tables, images, alarms, its set of adversarial images."""

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
from omegaconf import OmegaConf

from src.analysis import (
    Alarm,
    alarms,
    excess,
    first_flips,
    flip_summary,
    rates,
    rates_by_protocol,
)
from src.config.read import Job
from src.data import ImageDataset
from src.evaluation import (
    CONTROLS,
    DatasetFacts,
    Evaluation,
    SavedImagesFacts,
    SavedImagesWriter,
    write_table,
)
from src.experiment.example_images import gallery_images, store_examples, store_images
from src.experiment.provenance import ALARMS, EXAMPLES, HEADLINE, IMAGES, JobRecord, with_record
from src.score_job import breach_alarms
from src.utils.files import write_csv, write_text, writing

log = logging.getLogger(__name__)

SET = "adversarial"
MANIFEST = "adversarial-manifest.json"
_LEFT = (
    *("predictions*.parquet", "flips.parquet", "spectra.parquet", "filtered.parquet"),
    *("low_passed.parquet", "similarity.parquet", EXAMPLES, IMAGES),
    *("rates.csv", "excess.csv", "storage.csv", "first-flips.csv", "flip-summary.csv"),
    *("matrix-*.csv", "report.html", "figures/*.png", "figures/*.svg", "figures/*.csv"),
    *("figures/*.vl.json",),
    *(ALARMS, MANIFEST),
)


@dataclass(frozen=True)
class Outcome:
    """What a job found.

    Attributes:
        frames: Predictions by form, the headline's first, without the top five.
        excess: By control, the rows of `src.analysis.excess`.
        alarms: Signs that the attack is broken.
        figures: Of the job as a whole.
    """

    frames: dict[str, pd.DataFrame]
    excess: dict[str, pd.DataFrame]
    alarms: list[Alarm]
    figures: dict[str, float]


def write_results(
    job: Job,
    dataset: ImageDataset,
    clean: pa.Table | None,
    result: Evaluation,
    folder: Path,
    record: JobRecord,
) -> Outcome:
    """Write a job's tables, example images and alarms into its folder.

    Args:
        job: What was run.
        dataset: Its images.
        clean: The models' answers on the clean images; None where those are not at hand, and
            nothing is said that needs them.
        result: What the pass over the images yielded.
        folder: Where the files go.
        record: What the tables say of the job.
    """
    tables = {
        form: rows if clean is None else pa.concat_tables([clean, rows])
        for form, rows in result.tables.items()
    }
    frames = {
        form: table.drop_columns(["top5_classes", "top5_confidences"]).to_pandas()
        for form, table in tables.items()
    }
    headline = next(iter(frames.values()))
    _write_storages(job, frames, folder)
    beyond = _write_excess(job, frames, folder)
    raised: list[Alarm] = []
    if clean is not None:
        _write_flips(frames, folder, record.norm)
        raised = [*breach_alarms(job), *_alarms(record, headline, result)]
    write_text(folder / ALARMS, json.dumps([alarm._asdict() for alarm in raised], indent=1))
    every = rates_by_protocol(headline, job.source, job.targets, job.attack.label, record.norm)
    write_csv(folder / "rates.csv", every)
    if clean is not None and result.examples:  # drawn beside the clean images
        store_examples(dataset, job.budgets, result.examples, folder)
    if clean is not None and job.config.report.name != "none":
        exact = record.config.get("storage") == "float32"  # bisection does not round
        probed = result.diagnostics.get("flips") if exact else None
        flips = None if probed is None else probed.to_pandas()
        picked = gallery_images(headline, record, flips)
        store_images(dataset, picked, folder)
    _write_tables(job, tables, result.diagnostics, folder, record)
    figures = {
        "gradients_per_image": result.gradients,
        "zero_gradients": result.zero_gradients,
        "images_per_second": result.images_per_second,
        "alarms": len(raised),
        "n": len(dataset),
    }
    known = {name: value for name, value in figures.items() if not math.isnan(value)}
    return Outcome(frames, beyond, raised, known)


def _write_tables(
    job: Job,
    tables: Mapping[str, pa.Table],
    probed: Mapping[str, pa.Table],
    folder: Path,
    record: JobRecord,
) -> None:
    """Write the config, the diagnostics' tables and the predictions of every form.

    The headline's are `predictions.parquet`, another form's `predictions-FORM.parquet`. The
    headline's come last of all files: a job that has them has the others.
    """
    write_text(folder / "config.yaml", OmegaConf.to_yaml(job.stored_config(), resolve=False))
    named = {
        HEADLINE if form == job.forms.primary else f"{HEADLINE}-{form}": table
        for form, table in tables.items()
    }
    for name, table in [*probed.items(), *reversed(named.items())]:
        write_table(with_record(table, name, record), folder / f"{name}.parquet")


def _write_storages(job: Job, frames: Mapping[str, pd.DataFrame], folder: Path) -> None:
    """Write the rates of the images in every storage, if there is more than one."""
    storages = {
        form: rates(rows, job.source, job.targets, job.protocol)
        for form, rows in frames.items()
        if form not in CONTROLS
    }
    if len(storages) > 1:
        _stack(storages, "storage", folder / "storage.csv")


def _write_excess(
    job: Job, frames: Mapping[str, pd.DataFrame], folder: Path
) -> dict[str, pd.DataFrame]:
    """Write what the attack achieves beyond each control, and return it."""
    attacked = next(iter(frames.values()))
    beyond = {
        name: excess(attacked, frames[name], job.source, job.targets, job.protocol)
        for name in CONTROLS
        if name in frames
    }
    if beyond:
        _stack(beyond, "control", folder / "excess.csv")
    return beyond


def _stack(tables: Mapping[str, pd.DataFrame], name: str, path: Path) -> None:
    """Write tables below each other, told apart by a first column."""
    write_csv(path, pd.concat(tables, names=[name]).reset_index(name))


def _alarms(record: JobRecord, frame: pd.DataFrame, result: Evaluation) -> list[Alarm]:
    """Return the job's alarms, which the end of the command prints."""
    return alarms(
        frame,
        record.source,
        record.targets,
        len(record.class_names),
        0.0 if math.isnan(result.zero_gradients) else result.zero_gradients,
        round(result.gradients * record.images),
        protocol=record.protocol,
        iterative=record.iterative,
    )


def _write_flips(frames: Mapping[str, pd.DataFrame], folder: Path, norm: str) -> None:
    """Write each image's smallest flipping budget, and whether 8 bits can hold that image."""
    headline = next(iter(frames.values()))  # of a stored set: what it would be in float is lost
    rounded = frames.get("uint8") if "float32" in frames else None
    flips = first_flips(frames.get("float32", headline), rounded, norm)
    write_csv(folder / "first-flips.csv", flips)
    write_csv(folder / "flip-summary.csv", flip_summary(flips))


def clear(folder: Path) -> None:
    """Remove what an earlier job has left in a folder, but for its set of adversarial images."""
    with writing(folder):
        for pattern in _LEFT:
            for file in folder.glob(pattern):
                file.unlink()


def save_set(
    job: Job,
    dataset: ImageDataset,
    weights: Mapping[str, str],
    writer: SavedImagesWriter,
    folder: Path,
) -> None:
    """Complete the job's set of adversarial images, and put its manifest beside the results."""
    facts = SavedImagesFacts(
        source=job.source,
        ensemble=job.ensemble,
        weights=dict(weights),
        attack=job.attack.stored(),
        norm=job.attack.norm,
        seed=job.seed,
        dataset=DatasetFacts(
            name=job.config.dataset.name,
            digest=dataset.digest(),
            num_classes=dataset.num_classes,
            class_names=tuple(dataset.class_names),
        ),
        budgets_255=job.budgets,
    )
    manifest = writer.finish(facts, dataset.indices)
    write_text(folder / MANIFEST, manifest.read_text(encoding="utf-8"))
    log.info("Saved the adversarial images in %s", manifest.parent)
