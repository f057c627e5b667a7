"""Files of a job: tables, images, alarms, its set of adversarial images."""

import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pyarrow as pa
import yaml

from src.analysis import (
    Alarm,
    alarms,
    excess_by_control,
    flip_summary,
    over_budget,
    rates_by_protocol,
    trajectories,
)
from src.config.settings import Settings
from src.data import ImageDataset
from src.evaluation import SavedImages
from src.experiment.example_images import gallery_images, store_examples, store_images
from src.experiment.prepared import Results
from src.store.record import (
    ALARMS,
    EXAMPLES,
    FIGURES,
    IMAGES,
    PAGE,
    PREDICTIONS,
    JobRecord,
    job_record,
    remove_figures,
    with_record,
    without_top_five,
)
from src.utils.files import write_csv, write_text, writing
from src.utils.tables import write_table

log = logging.getLogger(__name__)

METRICS = "metrics.json"
SUMMARY = "summary.txt"
SAVED = "adversarial"
"""Folder of a job's adversarial images."""
_OF_JOB = (
    *("predictions*.parquet", "flips.parquet", "spectra.parquet", "filtered.parquet"),
    *("low_passed.parquet", "similarity.parquet", EXAMPLES, IMAGES, ALARMS, METRICS),
    *("rates.csv", "excess.csv", "minimum-budgets.csv", "flip-summary.csv", "config.yaml"),
)


def files_of_job(folder: Path) -> list[Path]:
    """Return a job's files in its folder, except its set of adversarial images."""
    return sorted(path for pattern in _OF_JOB for path in folder.glob(pattern))


def files_of_sweep(folder: Path) -> list[Path]:
    """Return a sweep's files beside its jobs: the report, its figures, the matrices."""
    first = (path for path in (folder / PAGE, folder / FIGURES) if path.exists())
    return [*first, *sorted(folder.glob("matrix-*.csv"), key=lambda path: path.stem)]


def write_results(
    settings: Settings,
    record: JobRecord,
    images: ImageDataset,
    clean: pa.Table,
    result: Results,
    saved: SavedImages | None,
    folder: Path,
) -> None:
    """Write a job's tables, example images and alarms into its folder.

    The tables of predictions come last, that of the primary variant after all other files: a
    job that has it has the others. `clean` are the predictions on the clean images, `saved` is the
    set that took the attack's place, if one did.
    """
    tables = {name: pa.concat_tables([clean, rows]) for name, rows in result.tables.items()}
    tables = tables or {record.storage: clean}  # nothing was attacked
    frames = {name: without_top_five(table).to_pandas() for name, table in tables.items()}
    primary = frames[record.storage]
    if settings.budgets:
        _write_rates(record, frames, folder)
        _write_flips(frames, record, folder)
        raised = [] if saved is None else _over_budget(saved, record)
        unrounded = frames.get("float32", primary)  # budgets below 1/255 change no 8-bit image
        raised += _alarms(record, unrounded, result)
        words = "equal images have other logits at the next call, or beside other images"
        raised += [Alarm("random_model", f"{name}: {words}") for name in result.unsteady]
        _write_images(settings, record, primary, images, result, folder)
        write_text(folder / ALARMS, json.dumps([alarm._asdict() for alarm in raised], indent=1))
        metrics = _metrics(result, images, raised, saved)
        write_text(folder / METRICS, json.dumps(metrics, indent=1))
    write_text(folder / "config.yaml", yaml.safe_dump(record.config, sort_keys=False))
    others = [(name, rows) for name, rows in tables.items() if name != record.storage]
    named = [(f"{PREDICTIONS}-{name}", rows) for name, rows in others]
    last = (PREDICTIONS, tables[record.storage])
    for name, table in [*result.diagnostics.items(), *named, last]:
        write_table(with_record(table, name, record), folder / f"{name}.parquet")


def _metrics(
    result: Results, images: ImageDataset, raised: list[Alarm], saved: SavedImages | None
) -> dict[str, float]:
    """Return a job's own metrics, without unknown ones."""
    metrics = {
        "gradients_per_image": result.gradients / len(images),
        "zero_gradients": result.zero_share,
        "images_per_second": len(images) / result.seconds,
        "alarms": len(raised),
        "n": len(images),
    }
    if saved is not None:
        metrics["budget_breaches"] = sum(breach.images for breach in saved.breaches)
    return {name: value for name, value in metrics.items() if not math.isnan(value)}


def _write_rates(record: JobRecord, frames: Mapping[str, pd.DataFrame], folder: Path) -> None:
    """Write rates of every variant under every protocol, and excess over every control."""
    pair = (record.source, record.targets)
    table = rates_by_protocol(frames, *pair, record.label, record.norm)
    table.insert(list(table).index("norm") + 1, "arithmetic", record.arithmetic)
    write_csv(folder / "rates.csv", table)
    beyond = excess_by_control(frames, record.storage, *pair, record.protocol)
    if len(beyond):
        write_csv(folder / "excess.csv", beyond)


def _alarms(record: JobRecord, frame: pd.DataFrame, result: Results) -> list[Alarm]:
    return alarms(
        frame,
        record.source,
        record.targets,
        len(record.class_names),
        result.zero_share,
        protocol=record.protocol,
        iterative=record.iterative,
    )


def _over_budget(saved: SavedImages, record: JobRecord) -> list[Alarm]:
    """Return an alarm for each budget that images of a saved set exceed."""
    if not saved.breaches:
        log.info("All %d images keep their budget at every eps.", len(saved))
    total, norm = len(saved), record.norm
    return [over_budget(record.label, *breach, total, norm) for breach in saved.breaches]


def _write_flips(frames: Mapping[str, pd.DataFrame], record: JobRecord, folder: Path) -> None:
    """Write each initially correct image's minimum adversarial budget among the tried ones."""
    unrounded = frames.get("float32", frames[record.storage])  # a saved set holds 8 bits alone
    pair = (record.source, record.targets)
    table = trajectories(unrounded, *pair, "target_correct", norm=record.norm)
    write_csv(folder / "minimum-budgets.csv", table)
    write_csv(folder / "flip-summary.csv", flip_summary(table))


def _write_images(
    settings: Settings,
    record: JobRecord,
    primary: pd.DataFrame,
    images: ImageDataset,
    result: Results,
    folder: Path,
) -> None:
    """Write the images that a report shows beside its charts."""
    if result.examples:
        store_examples(images, settings.budgets, result.examples, folder)
    if settings.report.name == "none":
        return
    exact = record.storage == "float32"  # bisection does not round
    flips = result.diagnostics.get("flips") if exact else None
    picked = gallery_images(primary, record, None if flips is None else flips.to_pandas())
    store_images(images, picked, folder)


def clear(folder: Path) -> None:
    """Remove an earlier job's files from a folder, except its set of adversarial images."""
    with writing(folder):
        for file in files_of_job(folder):
            file.unlink()
        _clear_summary(folder)


def clear_sweep(folder: Path) -> None:
    """Remove earlier commands' files from a sweep's own folder, and nothing of the user's."""
    if job_record(folder) is not None:  # left by a single run
        clear(folder)
    with writing(folder):
        _clear_summary(folder)


def _clear_summary(folder: Path) -> None:
    for pattern in ("matrix-*.csv", PAGE, SUMMARY):
        for file in folder.glob(pattern):
            file.unlink()
    remove_figures(folder / FIGURES)
