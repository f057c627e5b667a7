"""The matrices and alarms of one command's jobs, printed and written beside them."""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

from src.analysis import (
    CAUSES,
    CONTROL_NAMES,
    Alarm,
    clean_at_chance,
    excess,
    excess_matrix,
    format_cell,
    matrix,
    rates,
    weaker_than_fgsm,
)
from src.analysis.confidence import top_k
from src.files import write_text
from src.report.stored import HEADLINE, StoredJob
from src.report.tables import excess_table, matrix_table, write_excess_csv, write_matrix_csv

ALARMS = "alarms.json"


def sweep_matrices(jobs: Sequence[StoredJob], folder: Path, console: Console) -> None:
    """Print the matrix of every attack among finished jobs and write it as CSV.

    Where all jobs of an attack have controls, the excess over them follows.

    Args:
        jobs: Finished jobs.
        folder: Where the files go.
        console: Where the tables are printed.

    Raises:
        ValueError: The jobs' tables do not fit into one matrix.
    """
    files: dict[str, Callable[[Path], None]] = {}  # written last: a full disk hides no matrix
    for name, done in by_attack(jobs).items():
        record = done[0].record
        standard = record.standard
        words = {"dataset": record.dataset, "attack": name, "protocol": record.protocol}
        cells = matrix({job.record.source: job_rates(job) for job in done}, standard)
        console.print()
        console.print(matrix_table(cells, **words, eps_255=standard, width=console.width))
        stem = re.sub(r"[^\w.=+-]+", "-", name).strip("-")[:150]
        if f"matrix-{stem}.csv" in files:  # of another label that begins alike
            stem = f"{stem}-{len(files)}"
        files[f"matrix-{stem}.csv"] = partial(write_matrix_csv, cells)
        beyond = _excess(done, standard)
        for control, table in beyond.items():
            shown = excess_table(
                table, **words, eps_255=standard, control=control, width=console.width
            )
            console.print()
            console.print(shown)
        if beyond:
            files[f"matrix-{stem}-excess.csv"] = partial(write_excess_csv, beyond)
    console.print()
    for file, write in files.items():
        write(folder / file)


def clean_accuracies(jobs: Sequence[StoredJob], console: Console) -> None:
    """Print the accuracy and confidence of every model of the jobs that attacked nothing."""
    rows = [job.with_top_five for job in jobs if not job.attacked]
    if not rows:
        return
    table = Table(title="clean images", box=box.SIMPLE_HEAD)
    for heading in ("model", "", "right", "mean confidence"):
        table.add_column(heading)
    for model, its in pd.concat(rows).groupby("target", sort=False):
        for row in top_k(its).to_dict("records"):
            cell = format_cell(row["correct"], row["n"])
            table.add_row(str(model), f"top {row['k']}", cell, f"{row['confidence']:.2%}")
    console.print(table)


def by_attack(jobs: Sequence[StoredJob]) -> dict[str, list[StoredJob]]:
    """Return the jobs that attacked, by what their matrix is called."""
    groups: dict[str, list[StoredJob]] = {}
    for job in jobs:
        if job.attacked:
            groups.setdefault(job.attack, []).append(job)
    return groups


def sweep_alarms(jobs: Sequence[StoredJob], console: Console) -> None:
    """Complete every job's alarms with what only the end can tell, and print a line for each.

    That is the comparison of iterative attacks with FGSM from the same source, and the alarms of
    jobs that attacked nothing. A finding that several jobs share is printed once, and so is what
    an alarm comes from; whole sentences are in the jobs' `alarms.json`.
    """
    where: dict[str, dict[str, list[str]]] = {}
    texts: dict[Path, str] = {}  # written last: a full disk hides no alarm
    for job in jobs:
        path = job.folder / ALARMS
        listed = json.loads(path.read_text()) if path.exists() else []
        late = _against_fgsm(job, jobs) if job.attacked else _of_clean_images(job)
        if late:
            listed += [alarm for alarm in (one._asdict() for one in late) if alarm not in listed]
            texts[path] = json.dumps(listed, indent=1)
        for alarm in listed:
            folders = where.setdefault(alarm["name"], {}).setdefault(alarm["finding"], [])
            folders.append(job.folder.name)
    for name, findings in where.items():
        lines = [
            f"ALARM {folders[0]}{_others(folders)}: {name}: {finding}"
            for finding, folders in findings.items()
        ]
        for line in [*lines, f"      {name}: {CAUSES[name]}"]:
            console.print(line, style="yellow", soft_wrap=True, markup=False, highlight=False)
    for path, text in texts.items():
        write_text(path, text)


def _others(folders: Sequence[str]) -> str:
    return f" (and {len(folders) - 1} more)" if len(folders) > 1 else ""


def job_rates(job: StoredJob, protocol: str | None = None) -> pd.DataFrame:
    """Return a job's rates, under its own protocol or another one."""
    record = job.record
    return rates(job.predictions, record.source, record.targets, protocol or record.protocol)


def _excess(done: Sequence[StoredJob], standard: float) -> dict[str, pd.DataFrame]:
    """Return by control the matrix of excess, of the controls that all jobs have."""
    beyond = {}
    for control in CONTROL_NAMES:
        if not all(f"{HEADLINE}-{control}" in job.files for job in done):
            continue
        by_source = {
            job.record.source: excess(
                job.predictions,
                job.table(f"{HEADLINE}-{control}"),
                job.record.source,
                job.record.targets,
                job.record.protocol,
            )
            for job in done
        }
        beyond[control] = excess_matrix(by_source, standard)
    return beyond


def _of_clean_images(job: StoredJob) -> list[Alarm]:
    """Return the alarms of a job that attacked nothing."""
    return clean_at_chance(job.predictions, len(job.record.class_names))


def _against_fgsm(job: StoredJob, done: Iterable[StoredJob]) -> list[Alarm]:
    """Compare an iterative job with the sweep's FGSM job of the same source, data and aim."""
    record = job.record
    if not record.iterative:
        return []
    for other in done:
        if other.record.attack == "fgsm" and _comparable(record.config, other.record.config):
            tables = (job.predictions, other.predictions)
            try:
                return weaker_than_fgsm(*tables, record.source, record.standard, record.label)
            except ValueError:  # other images or models after all
                continue
    return []


def _comparable(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Tell whether two jobs differ in nothing but how they attack."""
    alike = all(one.get(key) == other.get(key) for key in (set(one) | set(other)) - {"attack"})
    return alike and all(
        one["attack"].get(key, default) == other["attack"].get(key, default)
        for key, default in (("target_label", None), ("norm", "linf"), ("loss", "cross_entropy"))
    )
