"""Files of a job: tables, images, alarms, its set of adversarial images."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import yaml

from src.analysis import (
    alarms,
    clean_at_chance,
    flip_summary,
    many_abstentions,
    over_budget,
    trajectories,
)
from src.analysis.summary import JobSummary, Summary, described_images, summarise
from src.analysis.trajectories import galleries, moments
from src.evaluation import SavedImages
from src.experiment.attack_pass import adversarial_images, stored_images
from src.experiment.prepared import Job, Results
from src.store.jobs import StoredJob
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
)
from src.store.tables import Alarm, with_defences
from src.utils.defended import parted
from src.utils.files import atomic_write, write_csv, write_text, writing
from src.utils.tables import write_table

log = logging.getLogger(__name__)

SUMMARY = "summary.txt"
ATTACKS, SOURCES = "attacks.csv", "sources.csv"
SAVED = "adversarial"
"""Folder of a job's adversarial images."""
_DRAFT = f".{PREDICTIONS}.parquet"  # until the job's other files are there
_OF_JOB = [_DRAFT, "predictions*.parquet", "flips.parquet", "spectra.parquet", "filtered.parquet"]
_OF_JOB += ["low_passed.parquet", "similarity.parquet", "stealth.parquet", "iterations.parquet"]
_OF_JOB += ["rates.csv", "excess.csv", "minimum-budgets.csv", "flip-summary.csv", "config.yaml"]
_OF_JOB += ["images.csv", EXAMPLES, IMAGES, ALARMS]


def files_of_job(folder: Path) -> list[Path]:
    """Return a job's files in its folder, except its set of adversarial images."""
    return sorted(path for pattern in _OF_JOB for path in folder.glob(pattern))


def files_of_sweep(folder: Path) -> list[Path]:
    """Return a sweep's files beside its jobs: report, figures, rankings and matrices."""
    named = (folder / name for name in (PAGE, FIGURES, ATTACKS, SOURCES))
    first = (path for path in named if path.exists())
    return [*first, *sorted(folder.glob("matrix-*.csv"), key=lambda path: path.stem)]


def write_results(job: Job, result: Results, record: JobRecord, folder: Path) -> Summary:
    """Write a job's files into its folder, and return their summary.

    The predictions of the primary variant get their name last: a job that has them has its other
    files.
    """
    named = prediction_tables(job, result, record)
    primary = named.pop(PREDICTIONS)
    files = {name: folder / f"{name}.parquet" for name in (*result.diagnostics, *named)}
    files[PREDICTIONS] = draft = folder / _DRAFT
    try:
        for name, table in {**result.diagnostics, **named, PREDICTIONS: primary}.items():
            write_table(with_record(table, name, record), files[name])
        stored = StoredJob(record, folder, files)
        raised = raised_alarms(stored, job.saved, result)
        write_text(folder / ALARMS, json.dumps([alarm._asdict() for alarm in raised], indent=1))
        write_csv(folder / "images.csv", job.images.listed())
        write_text(folder / "config.yaml", yaml.safe_dump(record.config, sort_keys=False))
        summary = summarise([stored])
        for one in summary.attacked:
            _write_tables(one, folder)
            _write_images(job, stored, folder)
        files[PREDICTIONS] = folder / f"{PREDICTIONS}.parquet"
        with atomic_write(files[PREDICTIONS]) as temporary:
            draft.replace(temporary)
    finally:
        draft.unlink(missing_ok=True)
    return summary


def prediction_tables(job: Job, result: Results, record: JobRecord) -> dict[str, pa.Table]:
    """Return a job's predictions with those of the clean images, by table; one a variant."""
    plain = pc.is_in(job.clean["target"], pa.array([*record.weights, record.source]))
    named = {}
    for name, rows in (result.tables or {record.storage: job.clean.slice(0, 0)}).items():
        primary = name == record.storage
        clean = job.clean if primary else job.clean.filter(plain)
        table = PREDICTIONS if primary else f"{PREDICTIONS}-{name}"
        named[table] = with_defences(pa.concat_tables([clean, rows]))
    return named


def _write_images(job: Job, stored: StoredJob, folder: Path) -> None:
    """Write the images of a report: examples with their adversarial versions, and galleries.

    Clean images are uint8 (N, 3, H, W), adversarial ones of the examples float32 (K, N, 3, H, W) in
    [0, 1], of K budgets `eps_255`.
    """
    if examples := sorted(job.examples):
        variants, attacked = job.variants, adversarial_images(job, examples)
        batch = attacked[0].batch
        with atomic_write(folder / EXAMPLES) as temporary, temporary.open("wb") as file:
            np.savez(
                file,
                index=batch.index.numpy(),
                label=batch.labels.numpy(),
                eps_255=np.array(job.settings.budgets),
                clean=batch.images.numpy(),
                adversarial=np.stack([variants.make(variants.primary, one) for one in attacked]),
            )
    if job.settings.report.name == "none":
        return
    chosen = galleries(described_images(stored))
    stored.forget()
    if index := sorted(chosen["index"].unique().tolist()):
        batch = job.images[np.searchsorted(job.images.indices, index)]
        adversarial = _gallery_images(job, chosen, index)
        with atomic_write(folder / IMAGES) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, index=index, clean=batch.images.numpy(), **adversarial)


def _gallery_images(job: Job, chosen: pd.DataFrame, index: list[int]) -> dict[str, Any]:
    """Return the adversarial images that galleries show, as far as they were kept.

    They are `adversarial`, uint8 (M, 3, H, W), of the images `of` at the tried budgets `eps_255`.
    """
    kept = index if job.saved is not None else sorted(stored_images(job, index))
    tried = np.array(job.settings.budgets)
    wanted = sorted(
        {
            (int(row["index"]), float(tried[np.searchsorted(tried, eps)]))
            for row in chosen[chosen["index"].isin(kept)].to_dict("records")
            for eps, _ in moments(row["kind"], row, tried[-1])
        }
    )
    if not wanted:
        return {}
    make, primary = job.variants.make, job.variants.primary
    levels = np.stack([make(primary, one) for one in adversarial_images(job, kept)])
    of, eps = map(np.array, zip(*wanted, strict=True))
    images = levels[np.searchsorted(tried, eps), np.searchsorted(kept, of)]
    return {"of": of, "eps_255": eps, "adversarial": np.rint(images * 255).astype(np.uint8)}


def raised_alarms(job: StoredJob, saved: SavedImages | None, result: Results) -> list[Alarm]:
    """Run the sanity checks of a job."""
    own = job.record
    if not job.attacked:
        return clean_at_chance(job.predictions, len(own.class_names))
    breaches, total = ((), 0) if saved is None else (saved.breaches, len(saved))
    if saved is not None and not breaches:
        log.info("All %d saved images are within their budgets.", total)
    raised = [over_budget(own.label, *breach, total, own.norm) for breach in breaches]
    raised += alarms(
        _unrounded(job),
        own.source,
        own.targets,
        len(own.class_names),
        result.zero_share,
        protocol=own.protocol,
        iterative=own.iterative,
    )
    if own.defences:
        raised += many_abstentions(job.defended, own.source, own.evaluated, own.protocol)
    words = "equal images have other logits at the next call, or beside other images"
    raised += [Alarm("random_model", f"{name}: {words}") for name in result.unsteady]
    words = "its outputs are never negative and sum to 1, as probabilities do"
    return raised + [Alarm("softmax", f"{name}: {words}") for name in result.softmax]


def _write_tables(summary: JobSummary, folder: Path) -> None:
    """Write a job's rates, excess, and each initially correct image's minimum budget as tried."""
    job, own = summary.job, summary.job.record
    models = [parted(target)[0] for target in summary.rates["target"]]
    write_csv(folder / "rates.csv", summary.rates.assign(target=models))
    if len(summary.excess):
        write_csv(folder / "excess.csv", summary.excess)
    pair = (own.source, own.targets)
    flips = trajectories(_unrounded(job), *pair, "target_correct", norm=own.norm)
    job.forget()
    write_csv(folder / "minimum-budgets.csv", flips)
    write_csv(folder / "flip-summary.csv", flip_summary(flips))


def _unrounded(job: StoredJob) -> pd.DataFrame:
    """Return the predictions on unrounded images; budgets below 1/255 change no 8-bit image.

    A saved set has 8 bits alone.
    """
    name = f"{PREDICTIONS}-float32"
    return job.table(name) if name in job.files else job.predictions


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
    for pattern in ("matrix-*.csv", ATTACKS, SOURCES, PAGE, SUMMARY):
        for file in folder.glob(pattern):
            file.unlink()
    remove_figures(folder / FIGURES)
