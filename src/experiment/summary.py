"""The matrices and alarms of one command's jobs, printed and written beside them."""

import json
import re
from collections.abc import Mapping, Sequence
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
from src.experiment.matrix_tables import (
    excess_table,
    matrix_table,
    write_excess_csv,
    write_matrix_csv,
)
from src.experiment.provenance import ALARMS, PREDICTIONS
from src.report.stored import StoredJob
from src.utils.files import write_text


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
    found: dict[str, tuple[pd.DataFrame, dict[str, pd.DataFrame]]] = {}
    for name, done in by_attack(jobs).items():
        record = done[0].record
        eps = record.reference
        cells = matrix({job.record.source: job_rates(job) for job in done}, eps)
        beyond = _excess(done, eps)
        heading = f"{name} on {record.dataset}, eps = {eps:g}/255, protocol: {record.protocol}"
        console.print("", matrix_table(cells, heading, console.width))
        for control, table in beyond.items():
            console.print("", excess_table(table, heading, control, console.width))
        stem = re.sub(r"[^\w.=+-]+", "-", name).strip("-")[:150]
        found[f"{stem}-{len(found)}" if stem in found else stem] = cells, beyond
    console.print()
    for stem, (cells, beyond) in found.items():  # last: a full disk hides no matrix
        write_matrix_csv(cells, folder / f"matrix-{stem}.csv")
        if beyond:
            write_excess_csv(beyond, folder / f"matrix-{stem}-excess.csv")


def clean_accuracies(jobs: Sequence[StoredJob], console: Console) -> None:
    """Print the accuracy and confidence of every model of the jobs that attacked nothing."""
    rows = [job.clean for job in jobs if not job.attacked]
    if not rows:
        return
    headings = ("model", "", "right", "mean confidence")
    table = Table(*headings, title="clean images", box=box.SIMPLE_HEAD)
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
    texts: dict[Path, str] = {}
    for job in jobs:
        path = job.folder / ALARMS
        listed = json.loads(path.read_text()) if path.exists() else []
        late = [alarm._asdict() for alarm in _late_alarms(job, jobs)]
        if late:
            listed += [alarm for alarm in late if alarm not in listed]
            texts[path] = json.dumps(listed, indent=1)
        for alarm in listed:
            folders = where.setdefault(alarm["name"], {}).setdefault(alarm["finding"], [])
            folders.append(job.folder.name)
    for name, findings in where.items():
        lines = []
        for finding, (first, *others) in findings.items():
            more = f" (and {len(others)} more)" if others else ""
            lines.append(f"ALARM {first}{more}: {name}: {finding}")
        for line in [*lines, f"      {name}: {CAUSES.get(name, '')}"]:
            console.print(line, style="yellow", soft_wrap=True, markup=False, highlight=False)
    for path, text in texts.items():  # last: a full disk hides no alarm
        write_text(path, text)


def job_rates(job: StoredJob, protocol: str | None = None) -> pd.DataFrame:
    """Return a job's rates, under its own protocol or another one."""
    record = job.record
    return rates(job.predictions, record.source, record.targets, protocol or record.protocol)


def _excess(done: Sequence[StoredJob], eps_255: float) -> dict[str, pd.DataFrame]:
    """Return by control the matrix of excess, of the controls that all jobs have."""
    beyond = {}
    for control in CONTROL_NAMES:
        table = f"{PREDICTIONS}-{control}"
        if all(table in job.files for job in done):
            by_source = {}
            for job in done:
                own = job.record
                tables = job.predictions, job.table(table)
                by_source[own.source] = excess(*tables, own.source, own.targets, own.protocol)
            beyond[control] = excess_matrix(by_source, eps_255)
    return beyond


def _late_alarms(job: StoredJob, jobs: Sequence[StoredJob]) -> list[Alarm]:
    """Look at clean images, or compare an iterative attack with FGSM of the same source and aim."""
    record = job.record
    if not job.attacked:
        return clean_at_chance(job.predictions, len(record.class_names))
    for other in jobs if record.iterative else []:
        if other.record.attack == "fgsm" and _comparable(record.config, other.record.config):
            tables = (job.predictions, other.predictions)
            try:
                return weaker_than_fgsm(*tables, record.source, record.reference, record.label)
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
