"""Files of a job: tables, images, alarms, its set of adversarial images."""

import json
import logging
import math
from collections.abc import Sequence
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
from src.analysis.sanity_checks import Alarm
from src.analysis.trajectories import galleries, moments
from src.artifacts.jobs import StoredJob
from src.artifacts.layout import (
    ALARMS,
    CONFIG,
    DRAFT,
    EXAMPLES,
    EXCESS,
    FLIP_SUMMARY,
    IMAGE_LIST,
    IMAGES,
    MINIMUM_BUDGETS,
    PREDICTIONS,
    RATES,
    TOP_FIVE,
    clear,
    clear_summary,
)
from src.artifacts.record import JobRecord, job_record, with_record
from src.artifacts.tables import columns_of
from src.images.saved_images import SavedImages
from src.report.summary import JobSummary, Summary, described_images, summarise
from src.run.passes import adversarial_images, stored_images
from src.run.stages import Job, Results
from src.utils.defended_names import PLAIN, split_source
from src.utils.files import atomic_write, write_csv, write_text, writing
from src.utils.parquet import write_table

log = logging.getLogger(__name__)


def write_results(job: Job, result: Results, record: JobRecord, folder: Path) -> Summary:
    """Write a job's files into its folder, and return their summary.

    The predictions get their name last: a job that has them has its other files.
    """
    tables = {**result.diagnostics, **prediction_tables(job, result, record)}
    files = {name: folder / f"{name}.parquet" for name in tables}
    files[PREDICTIONS] = draft = folder / DRAFT
    try:
        for name, table in tables.items():
            write_table(with_record(table.select(columns_of(name)), name, record), files[name])
        stored = StoredJob(record, folder, files)
        raised = raised_alarms(stored, job.saved, result)
        write_text(folder / ALARMS, json.dumps([alarm._asdict() for alarm in raised], indent=1))
        write_csv(folder / IMAGE_LIST, job.images.listed())
        write_text(folder / CONFIG, yaml.safe_dump(record.config, sort_keys=False))
        summary = summarise([stored])
        shown: list[int] = []
        for attacked in summary.attacked:
            _write_tables(attacked, folder)
            shown = _write_images(job, stored, folder)
        table = with_record(_top_five(job, result, shown), TOP_FIVE, record)
        write_table(table, folder / f"{TOP_FIVE}.parquet")
        files[PREDICTIONS] = folder / f"{PREDICTIONS}.parquet"
        with atomic_write(files[PREDICTIONS]) as temporary:
            draft.replace(temporary)
    finally:
        draft.unlink(missing_ok=True)
    return summary


def prediction_tables(job: Job, result: Results, record: JobRecord) -> dict[str, pa.Table]:
    """Return a job's predictions with those of the clean images, by table; one a variant."""
    source = split_source(record.source)
    of_source = pc.and_(*map(pc.equal, [job.clean["target"], job.clean["defence"]], source))
    plain = pc.or_(pc.equal(job.clean["defence"], PLAIN), of_source)
    tables = {}
    for name, rows in (result.tables or {record.storage: job.clean.slice(0, 0)}).items():
        primary = name == record.storage
        clean = job.clean if primary else job.clean.filter(plain)
        table = PREDICTIONS if primary else f"{PREDICTIONS}-{name}"
        tables[table] = pa.concat_tables([clean, rows]).select(columns_of(table))
    return tables


def _top_five(job: Job, result: Results, shown: Sequence[int]) -> pa.Table:
    """Return the five likeliest classes of clean images, and of some at each of their budgets."""
    tables = [result.diagnostics.get("flips"), result.tables.get(job.variants.primary)]
    index = pa.array(shown, pa.int64())
    attacked = [
        table.filter(pc.and_(pc.is_valid(table["eps_255"]), pc.is_in(table["index"], index)))
        for table in tables
        if table is not None
    ]
    columns = columns_of(TOP_FIVE)
    return pa.concat_tables(table.select(columns) for table in (job.clean, *attacked))


def _write_images(job: Job, stored: StoredJob, folder: Path) -> list[int]:
    """Write the images of a report: examples with their adversarial versions, and galleries.

    Return the index of these images. Clean images are uint8 (N, 3, H, W), adversarial ones of the
    examples float32 (K, N, 3, H, W) in [0, 1], of K budgets `eps_255`.
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
                adversarial=np.stack(
                    [variants.make(variants.primary, versions) for versions in attacked]
                ),
            )
    if job.settings.report.name == "none":
        return examples
    chosen = galleries(described_images(stored))
    stored.forget()
    if index := sorted(chosen["index"].unique().tolist()):
        batch = job.images[np.searchsorted(job.images.indices, index)]
        adversarial = _gallery_images(job, chosen, index)
        with atomic_write(folder / IMAGES) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, index=index, clean=batch.images.numpy(), **adversarial)
    return sorted({*examples, *index})


def _gallery_images(job: Job, chosen: pd.DataFrame, index: list[int]) -> dict[str, Any]:
    """Return the adversarial images that galleries show, as far as they were kept.

    They are `adversarial`, uint8 (M, 3, H, W), of the images `of` at the tried budgets `eps_255`.
    """
    stored = index if job.saved is not None else sorted(stored_images(job, index))
    tried = np.array(job.settings.budgets)
    wanted = sorted(
        {
            (int(row["index"]), float(tried[np.searchsorted(tried, eps)]))
            for row in chosen[chosen["index"].isin(stored)].to_dict("records")
            for eps, _ in moments(row["kind"], row, tried[-1])
        }
    )
    if not wanted:
        return {}
    make, primary = job.variants.make, job.variants.primary
    levels = np.stack([make(primary, versions) for versions in adversarial_images(job, stored)])
    of, eps = map(np.array, zip(*wanted, strict=True))
    images = levels[np.searchsorted(tried, eps), np.searchsorted(stored, of)]
    return {"of": of, "eps_255": eps, "adversarial": np.rint(images * 255).astype(np.uint8)}


def raised_alarms(job: StoredJob, saved: SavedImages | None, result: Results) -> list[Alarm]:
    """Run the sanity checks of a job."""
    record = job.record
    if not job.attacked:
        return clean_at_chance(job.predictions, len(record.class_names))
    breaches, total = ((), 0) if saved is None else (saved.breaches, len(saved))
    if saved is not None and not breaches:
        log.info("All %d saved images are within their budgets.", total)
    raised = [over_budget(record.label, *breach, total, record.norm) for breach in breaches]
    raised += alarms(
        _unrounded(job),
        record.source,
        record.targets,
        len(record.class_names),
        result.zero_gradients / result.gradients if result.gradients else math.nan,
        protocol=record.protocol,
        iterative=record.iterative,
    )
    if record.defences:
        pair = (record.source, record.targets)
        raised += many_abstentions(job.defended, *pair, record.protocol)
    text = "equal images have other logits at the next call, or beside other images"
    raised += [Alarm("random_model", f"{name}: {text}") for name in result.unsteady]
    text = "its outputs are never negative and sum to 1, as probabilities do"
    return raised + [Alarm("softmax", f"{name}: {text}") for name in result.softmax]


def _write_tables(summary: JobSummary, folder: Path) -> None:
    """Write a job's rates, excess, and each initially correct image's minimum budget as tried."""
    job, record = summary.job, summary.job.record
    write_csv(folder / RATES, summary.rates)
    if len(summary.excess):
        write_csv(folder / EXCESS, summary.excess)
    pair = (record.source, record.targets)
    flips = trajectories(_unrounded(job), *pair, "target_correct", norm=record.norm)
    job.forget()
    write_csv(folder / MINIMUM_BUDGETS, flips)
    write_csv(folder / FLIP_SUMMARY, flip_summary(flips))


def _unrounded(job: StoredJob) -> pd.DataFrame:
    """Return the predictions on unrounded images; budgets below 1/255 change no 8-bit image.

    A saved set has 8 bits alone.
    """
    name = f"{PREDICTIONS}-float32"
    return job.table(name) if name in job.files else job.predictions


def clear_sweep(folder: Path) -> None:
    """Remove earlier commands' files from a sweep's own folder, and nothing of the user's."""
    if job_record(folder) is not None:  # left by a single run
        clear(folder)
    with writing(folder):
        clear_summary(folder)
