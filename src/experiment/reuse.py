"""Reuse of rows that finished jobs hold for targets of the same adversarial images."""

import logging
import math
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from src.config.settings import CONTROLS
from src.evaluation import Evaluation, is_complete_set, renamed
from src.experiment.job_files import read_images, read_job_table
from src.experiment.outputs import SAVED
from src.experiment.provenance import (
    EXAMPLES,
    PREDICTIONS,
    TOP_FIVE,
    JobRecord,
    OtherFormatError,
    folder_of_command,
    read_record,
)
from src.utils.files import writing

log = logging.getLogger(__name__)

_DIAGNOSTICS = {"bisection": "flips", "spectra": "spectra", "filters": "filtered"}
"""Settings of the attack's diagnostics, with their tables."""


def jobs_beside(folder: Path) -> list[Path]:
    """Return the folders of finished jobs in a job's and neighbouring sweeps, newest first."""
    here = folder_of_command(folder).absolute().parent
    tables = [*here.glob(f"*/{PREDICTIONS}.parquet"), *here.glob(f"*/*/{PREDICTIONS}.parquet")]
    tables.sort(key=_time_of_change, reverse=True)
    return [path.parent for path in tables]


def _time_of_change(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # another command has just removed it
        return 0.0


def known_targets(
    folders: Iterable[Path],
    crafting: str,
    target_keys: Mapping[str, str],
    examples: Sequence[int],
    *,
    with_set: bool,
) -> tuple[dict[str, Evaluation], Path | None]:
    """Return finished jobs' evaluations by target, and the last folder that one is from.

    `crafting` is the key of their adversarial images (see `crafting_key`), `target_keys` those
    of the models, `examples` the indices of images whose adversarial versions must be there;
    `with_set` asks for the saved images too. A folder with damaged files is logged and skipped.
    """
    known: dict[str, Evaluation] = {}
    place = None
    for folder in folders:
        missing = {name: key for name, key in target_keys.items() if name not in known}
        if not missing:
            break
        try:
            _, record = read_record(folder / f"{PREDICTIONS}.parquet") or ("", None)
            if record is None or record.crafting != crafting:
                continue
            own = {record.target_keys.get(name): name for name in record.targets}
            found = {name: own[key] for name, key in missing.items() if key in own}
            if found and (not with_set or is_complete_set(folder / SAVED)):
                whole = _evaluation(folder, record, examples)
                known |= {name: _of_target(whole, old, name) for name, old in found.items()}
                place = folder
        except OtherFormatError:
            continue
        except Exception as error:  # whatever an edited file leads to stops no other job
            words = error if isinstance(error, ValueError) else repr(error)[:400]
            log.warning("%s What %s found is computed again.", words, folder)
    return known, place


def combined(
    known: Mapping[str, Evaluation], computed: Evaluation, targets: Sequence[str]
) -> Evaluation:
    """Merge the known evaluations and a new one into that of all targets, in their order."""
    if not known:
        return computed
    parts = [known.get(name) or _of_target(computed, name, name) for name in targets]
    tables, diagnostics = (
        {name: pa.concat_tables(table[name] for table in these) for name in these[0]}
        for these in ([part.tables for part in parts], [part.diagnostics for part in parts])
    )
    for name, table in parts[0].diagnostics.items():
        if "target" not in table.column_names:
            diagnostics[name] = table  # the same whatever the targets
    return replace(parts[0], tables=tables, diagnostics=diagnostics, seconds=math.nan)


def link_set(place: Path, folder: Path) -> None:
    """Give a job another one's saved images, without a second copy where that is possible."""
    if place.resolve() == folder.resolve():
        return

    def link(source: str, target: str) -> None:
        try:
            os.link(source, target)
        except OSError:  # across file systems, say
            shutil.copy2(source, target)

    with writing(folder / SAVED):
        shutil.rmtree(folder / SAVED, ignore_errors=True)
        shutil.copytree(place / SAVED, folder / SAVED, copy_function=link)


def _evaluation(folder: Path, record: JobRecord, examples: Sequence[int]) -> Evaluation:
    """Return a job's evaluation from its files, as the pass over the images gave it."""
    stored = read_images(folder / EXAMPLES, record)
    kept = {n: stored["adversarial"][:, at] for at, n in enumerate(stored.get("index", ()))}
    if lacking := set(examples) - kept.keys():
        raise ValueError(f"{folder} lacks example images ({len(lacking)}), which are made again.")

    def table(name: str) -> pa.Table:
        found = read_job_table(folder / f"{name}.parquet", name, record)
        if name != "spectra" and TOP_FIVE[0] not in found.column_names:
            raise ValueError(f"{folder} lacks the five likeliest classes.")
        # The rows of filtered noise, which need no attack, are kept elsewhere.
        return found.filter(pc.field("kind") == "attack") if name == "filtered" else found

    config, chosen = record.config, record.config["diagnostics"]
    variants = (*config["variants"], *(CONTROLS if config["controls"] else ()))
    names = {one: f"{PREDICTIONS}-{one}" for one in variants} | {record.storage: PREDICTIONS}
    whole = {one: table(name) for one, name in names.items()}
    clean = pc.any(pc.equal(whole[record.storage]["eps_255"], 0)).as_py()
    tables = {one: rows.filter(pc.field("eps_255") > 0) for one, rows in whole.items()}
    diagnostics = {
        name: table(name) for setting, name in _DIAGNOSTICS.items() if clean and chosen[setting]
    }
    return Evaluation(
        tables,
        diagnostics,
        {number: kept[number] for number in examples},
        record.gradients,
        record.zero_gradients,
        batch_size=record.config["trainer"]["batch_size"],
    )


def _of_target(whole: Evaluation, target: str, name: str) -> Evaluation:
    """Return one target's part of an evaluation, under a new name."""

    def rows(table: pa.Table) -> pa.Table:
        if "target" not in table.column_names:
            return table
        return renamed(table.filter(pc.equal(table["target"], target)), name)

    tables = {name: rows(table) for name, table in whole.tables.items()}
    diagnostics = {name: rows(table) for name, table in whole.diagnostics.items()}
    return replace(whole, tables=tables, diagnostics=diagnostics)
