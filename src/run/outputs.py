"""Write a job's files: tables, images, alarms and its set of adversarial images."""

import json
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from inspect import signature
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import yaml

from ..analysis import flip_summary, trajectories
from ..analysis.trajectories import by_kind, typical_images
from ..artifacts import layout
from ..artifacts.finished_job import FinishedJob
from ..artifacts.record import JobRecord, clear, job_record, with_record
from ..artifacts.tables import NAMES, PREDICTION_SCHEMA, Alarm, checked, write_table
from ..attacks.libraries import LENGTHS
from ..attacks.steps import steepest_ascent
from ..data import to_unit
from ..defences import Defended
from ..images.attacker import Attack
from ..images.saved import write_set
from ..measure.attack_cost import most_pictures
from ..measure.prediction_rows import TOP_FIVE
from ..report import sanity_checks
from ..report.results import JobResults, Results, described_images, results_of
from ..utils.files import atomic_write, write_csv, write_text, writing
from ..utils.formats import format_cell
from ..utils.model_names import NO_DEFENCE
from ..utils.processes import from_first_process
from ..utils.terminal import with_progress
from .evaluate import Evaluation, JobTables
from .stages import JobContext

log = logging.getLogger(__name__)

IDLE = 0.5
"""Mean change of clean images, in 1/255, below which a defence is called idle."""
_IMAGES = 100  # clean images on which models are checked
_TOGETHER = 256  # adversarial images written at once


def make_job(job: JobContext, results: JobTables, record: JobRecord, folder: Path) -> FinishedJob:
    """Return a finished job: the tables of its files, checked, and the alarms that it raises."""
    schemas = {measurement.name: measurement.schema for measurement in job.measurements}
    tables = {
        name: _fit(table, schemas[name], NAMES[:1]) for name, table in results.diagnostics.items()
    } | _predictions(results, record)
    for name, table in tables.items():
        tables[name] = checked(table, folder / f"{name}.parquet", name, record)
    finished = FinishedJob(record, folder, {**tables})
    return replace(finished, raised=[*_raised_alarms(finished, job, results)])


def write_results(
    evaluation: Evaluation, finished: FinishedJob, pictures: Sequence[int]
) -> Results:
    """Write a finished job's files to its folder, and return its statistics.

    `pictures` are the images whose pictures are stored, see `choose_pictures`.
    The table of predictions is written last: if it exists, all other files exist.
    """
    job, record, folder = evaluation.job, finished.record, finished.folder
    alarms = [alarm._asdict() for alarm in finished.alarms]
    write_text(folder / layout.ALARMS, json.dumps(alarms, indent=1))
    write_csv(folder / layout.IMAGE_LIST, job.images.listed())
    write_text(folder / layout.CONFIG, yaml.safe_dump(record.config, sort_keys=False))
    statistics = results_of([finished])
    for (attacked,) in statistics.attacked:
        _write_tables(attacked, folder)
    if pictures:
        _write_pictures(evaluation, pictures, record.storage, folder)
    tables = {name: finished.read(name) for name in finished.tables}
    tables[layout.TOP_FIVE] = _top_five(evaluation, record.storage, pictures)
    tables[layout.PREDICTIONS] = tables.pop(layout.PREDICTIONS)
    for name, table in tables.items():
        write_table(with_record(table, name, record), folder / f"{name}.parquet")
    return statistics


def _fit(table: pa.Table, schema: pa.Schema, names: Sequence[pa.Field] = NAMES) -> pa.Table:
    """Return a table with the columns of a schema; `names` come after the image's columns."""
    place = sum(field.name in ("index", "image", "label", "target_label") for field in schema)
    fields = [*schema]
    fields[place:place] = [field for field in names if field.name in table.column_names]
    return table.select([field.name for field in fields]).cast(pa.schema(fields))


def _predictions(results: JobTables, record: JobRecord) -> dict[str, pa.Table]:
    """Return the tables of predictions by name, one per variant, each with the clean ones."""
    clean, source = results.clean, record.source_model.columns
    of_source = pc.and_(*map(pc.equal, [clean["target"], clean["defence"]], source))
    plain = pc.or_(pc.equal(clean["defence"], NO_DEFENCE), of_source)
    tables = {}
    for name, rows in (results.predictions or {record.storage: clean.slice(0, 0)}).items():
        primary = name == record.storage
        table = layout.PREDICTIONS if primary else f"{layout.PREDICTIONS}-{name}"
        parts = [clean if primary else clean.filter(plain), rows]
        tables[table] = pa.concat_tables(_fit(part, PREDICTION_SCHEMA) for part in parts)
    return tables


def _top_five(evaluation: Evaluation, primary: str, numbers: Sequence[int]) -> pa.Table:
    """Return the top five classes of all clean images, and of the shown ones at each budget."""
    results = evaluation.tables
    assert results is not None
    tables, index = [results.clean], pa.array(numbers, pa.int64())
    if (attacked := results.predictions.get(primary)) is not None:
        tables.append(attacked.filter(pc.is_in(attacked["index"], index)))
    return pa.concat_tables(_fit(table, TOP_FIVE) for table in tables)


def _write_pictures(
    evaluation: Evaluation, index: Sequence[int], storage: str, folder: Path
) -> None:
    """Write pictures of images in 8 bits: clean ones, and adversarial ones at all budgets."""
    order = np.argsort(index)  # images are read in the order of their index
    job, place = evaluation.job, np.argsort(order)
    attacked = evaluation.images(np.array(index)[order].tolist())
    versions = [np.rint(255 * version.as_stored(storage).numpy()) for version in attacked]
    with atomic_write(folder / layout.IMAGES) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            index=np.array(index),
            eps_255=np.array(job.budgets),
            clean=attacked[0].batch.images.numpy()[place],
            adversarial=np.stack(versions).astype(np.uint8)[:, place],
        )


def save_adversarial_images(evaluation: Evaluation, finished: FinishedJob) -> None:
    """Write a job's set of adversarial images to its folder."""
    record, folder = finished.record, finished.folder
    assert evaluation.tables is not None
    rows = evaluation.tables.predictions[record.storage]
    columns = (rows[name].to_pylist() for name in ("index", "target_label"))
    targets = dict(zip(*columns, strict=True))
    index = evaluation.job.images.indices
    starts = range(0, len(index), _TOGETHER)
    progress = with_progress(starts, "writing images", len(starts))
    parts = (index[first : first + _TOGETHER].tolist() for first in progress)
    batches = map(evaluation.images, parts)
    write_set(folder / layout.SAVED, record, batches, targets)
    log.info("Saved the adversarial images in %s", folder / layout.SAVED)


def _raised_alarms(finished: FinishedJob, job: JobContext, results: JobTables) -> Iterator[Alarm]:
    """Run a job's sanity checks, and yield the alarms that they raise."""
    record, saved = finished.record, job.saved
    classes, pair = len(record.class_names), (record.source, record.targets)
    if saved is not None:
        if not saved.breaches:
            log.info("All %d saved images are within their budgets.", len(saved))
        for breach in saved.breaches:
            yield sanity_checks.over_budget(record.label, *breach, len(saved), record.norm)
    if not finished.attacked:
        yield from sanity_checks.clean_at_chance(finished.predictions, classes)
    yield from sanity_checks.labels_permuted(finished.predictions, record.class_names)
    yield from sanity_checks.copies_of_images(job.images.pixel_digests[:, 1])
    for name, model in job.models.items():
        if model.trained_on is not None and (k := job.images.shared_with(model.trained_on).sum()):
            text = f"{name}: trained on {format_cell(k, len(job.images))} of the evaluated images"
            yield Alarm("trained_on_images", text)
    if not finished.attacked:
        return
    steps = record.config["attack"]["settings"].get("steps")
    yield from sanity_checks.alarms(
        _unrounded(finished),
        *pair,
        classes,
        results.zero_gradients,
        protocol=record.protocol,
        iterative=isinstance(steps, int | float) and steps > 1,
    )
    if job.attack.function is not None:
        yield from _attack_alarms(job, record.label, job.attack.function, results)
    if record.defences:
        yield from sanity_checks.many_abstentions(finished.defended, *pair, record.protocol)
    yield from _model_alarms(job)


def _model_alarms(job: JobContext) -> Iterator[Alarm]:
    """Yield the alarms that defences and models raise on the clean images."""
    batch, networks = job.images[:_IMAGES], job.networks.items()
    defences = {pair.defence: net for pair, net in networks if isinstance(net, Defended)}
    for name, defended in defences.items():
        change = 255 * defended.mean_change(batch.images.to(job.device) / 255, batch.index)
        if change < IDLE:
            text = f"defence {name}: clean images change by {change:.2f}/255 on average"
            yield Alarm("idle_defence", text)
    text = "the same image gets different logits in another call or another batch"
    for pair, net in networks:
        if not getattr(net, "steady", True):
            yield Alarm("random_model", f"{pair}: {text}")
    spread = slice(None, None, -(-len(job.images) // _IMAGES))
    text = "its outputs are in [0, 1], as probabilities are"
    for pair, net in networks:
        suspect: Any = net if getattr(net, "probabilities", False) else None  # in its trial
        if suspect and suspect.returns_probabilities(to_unit(job.images[spread].images)):
            yield Alarm("probabilities", f"{pair}: {text}")


def _attack_alarms(
    job: JobContext, label: str, function: Attack, results: JobTables
) -> Iterator[Alarm]:
    """Yield the alarms that an attack's gradients and steps raise."""
    attack, budgets, passes = job.attack, job.budgets, len(job.members) * job.attack.draws
    if k := results.not_finite:
        cell, name = format_cell(k, len(job.images)), job.source.model
        finding = f"NaN or infinity in gradients for {cell} of the images"
        yield Alarm("gradients_not_finite", f"{name}: {finding}")
    if len(clipped := results.clipped):
        finding = f"{format_cell(len(clipped), len(job.images))} of the images exceeded the budget"
        moved = f"and were clipped to it, by up to {clipped.max():.3g}/255 in a pixel"
        yield Alarm("clipped", f"{label}: {finding} {moved}")
    has = {name: parameter.default for name, parameter in signature(function).parameters.items()}
    stated, alone = (attack.stated(count) for count in (len(budgets), 1))
    if stated is not None and alone is not None:
        taken, stated, alone = results.gradients_per_image / passes, stated / passes, alone / passes
        # Budgets in several gradient batches do not share their first gradient.
        apart = job.max_batch < len(budgets) or has.get("copies_average") == "logits"
        if not 0.99 * stated <= taken <= 1.01 * (len(budgets) * alone if apart else stated):
            text = f"{taken:g} gradients per image and member, but {stated:g} are stated or assumed"
            yield Alarm("gradients_not_as_stated", f"{label}: {text}")
    if "steps" in has and has.get("update") is steepest_ascent and job.norm == "linf":
        step = (has["step_size_255"] or 0) / budgets[-1] or has["relative_step_size"] or 1
        if has["steps"] * step < 1 - 1e-6:
            finding = f"its steps add up to {has['steps'] * step:.2g} of the budget {budgets[-1]:g}"
            yield Alarm("steps_too_short", f"{label}: {finding}/255")
    for key, share in _shares_of_budget(job, function).items():
        if share > 2:
            finding = f"{key} is {share:.3g} times the budget {budgets[-1]:g}/255"
            yield Alarm("steps_too_long", f"{label}: {finding}")


def _shares_of_budget(job: JobContext, function: Any) -> dict[str, float]:
    """Return typed step sizes, and an object's budget and step size, over the largest budget."""
    attack, largest = getattr(function, "func", function), job.budgets[-1]
    units = {"step_size_255": 1 / largest, "relative_step_size": 1.0}
    if getattr(attack, "draws_per_batch", False):  # of another library, with an L2 norm for L2
        values = job.images[:1].images[0].numel() if job.norm == "l2" else 1
        units |= dict.fromkeys(LENGTHS, 255 / largest / math.sqrt(values))
    now, usual = signature(function).parameters, signature(attack).parameters
    typed = {
        key: now[key].default
        for key in units.keys() & usual.keys()
        if now[key].default != usual[key].default
    }
    lengths = typed | getattr(attack, "lengths", {})
    numbers = {key: value for key, value in lengths.items() if isinstance(value, int | float)}
    return {key: numbers[key] * units[key] for key in sorted(numbers)}


def _write_tables(result: JobResults, folder: Path) -> None:
    """Write a job's tables of rates, excess, and minimum budget per initially correct image."""
    job, record = result.job, result.job.record
    write_csv(folder / layout.RATES, result.rates)
    if len(result.excess):
        write_csv(folder / layout.EXCESS, result.excess)
    pair = (record.source, record.targets)
    flips = trajectories(_unrounded(job), *pair, "target_correct", norm=record.norm)
    job.forget()
    write_csv(folder / layout.MINIMUM_BUDGETS, flips)
    write_csv(folder / layout.FLIP_SUMMARY, flip_summary(flips))


def _unrounded(job: FinishedJob) -> pd.DataFrame:
    """Return the predictions on unrounded images, as budgets below 1/255 change no 8-bit image.

    For a saved set, return those on its 8-bit images: it has no others.
    """
    name = f"{layout.PREDICTIONS}-float32"
    return job.table(name) if name in job.tables else job.predictions


def clear_sweep(folder: Path) -> None:
    """Remove files of earlier commands from a sweep's folder, but no files of the user."""
    if job_record(folder) is not None:  # left by a single run
        clear(folder)
    with writing(folder):
        layout.clear_summary(folder)


ATTACKED_AGAIN = 0.05
"""Share of a job's images that are attacked again for pictures, at most."""


def choose_pictures(evaluation: Evaluation, finished: FinishedJob | None) -> list[int]:
    """Return the images to show, the first ones first; all their adversarial versions are stored.

    Named images come first, then those that the predictions choose, then the other examples. Chosen
    images that a large job does not store are attacked again, up to `ATTACKED_AGAIN`. `finished` is
    the job; None: another process has it.
    """
    job = evaluation.job
    if not job.attack.function and not job.saved:
        return []
    chosen = list[int]()
    if finished is not None and job.examples:
        chosen = _affordable(job, _chosen(finished))
        finished.forget()
    index: Sequence[int] = from_first_process(chosen)
    if index and job.attack.function and not job.stores_all:
        evaluation.craft(index)
    return list(dict.fromkeys([*job.named, *index, *job.examples]))


def _chosen(finished: FinishedJob) -> list[int]:
    """Return the images that show a job's results, the most important ones first.

    For each target: a typical fooled image at the reference budget, the clearest one of each kind,
    and a typical one at the other budgets.
    """
    record = finished.record
    pair = (record.source, record.targets)
    typical = typical_images(finished.predictions, *pair, record.protocol)
    at_reference = [index for (_, eps), index in typical.items() if eps == record.reference]
    kinds = by_kind(described_images(finished)).values()
    clearest = [rows.drop_duplicates("target")["index"] for rows in kinds]
    return list(dict.fromkeys([*at_reference, *chain(*clearest), *typical.values()]))


def _affordable(job: JobContext, chosen: Sequence[int]) -> list[int]:
    """Return the first of the chosen images: as many as are stored or may be attacked again."""
    most = most_pictures(job.images.image_size, len(job.budgets))
    reported = {*job.named, *job.examples}
    if job.attack.function and not job.stores_all:
        # None if results would differ without the other images of a batch.
        again = int(ATTACKED_AGAIN * len(job.images)) if job.attack.keeps_images_apart else 0
        most = min(most, again)
    others = [index for index in chosen if index not in reported][:most]
    return [index for index in chosen if index in reported.union(others)]
