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
from src.experiment.matrix_tables import excess_table, matrix_table, wide_excess, wide_matrix
from src.experiment.provenance import ALARMS, PREDICTIONS
from src.report.stored import StoredJob
from src.utils.files import write_csv, write_text


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
    attacks: dict[str, list[StoredJob]] = {}
    for job in jobs:
        if job.attacked:
            attacks.setdefault(job.attack, []).append(job)
    files: dict[str, pd.DataFrame] = {}
    for name, done in attacks.items():
        record = done[0].record
        eps = record.reference
        tables = [(job.predictions, job.record) for job in done]
        cells = matrix(
            {r.source: rates(t, r.source, r.targets, r.protocol) for t, r in tables}, eps
        )
        beyond = _excess(done, eps)
        heading = f"{name} on {record.dataset}, eps = {eps:g}/255, protocol: {record.protocol}"
        console.print("", matrix_table(cells, heading, console.width))
        for control, table in beyond.items():
            console.print("", excess_table(table, heading, control, console.width))
        stem = "matrix-" + re.sub(r"[^\w.=+-]+", "-", name).strip("-")[:150]
        stem = f"{stem}-{len(files)}" if stem in files else stem
        files[stem] = wide_matrix(cells)
        if beyond:
            files[f"{stem}-excess"] = wide_excess(beyond)
    console.print()
    for stem, frame in files.items():  # last: a full disk hides no matrix
        write_csv(folder / f"{stem}.csv", frame)


def clean_accuracies(jobs: Sequence[StoredJob], console: Console) -> None:
    """Print the accuracy and confidence of every model of the jobs without an attack."""
    rows = [job.clean for job in jobs if not job.attacked]
    if not rows:
        return
    headings = ("model", "", "correct", "mean confidence")
    table = Table(*headings, title="clean images", box=box.SIMPLE_HEAD)
    for model, its in pd.concat(rows).groupby("target", sort=False):
        for row in top_k(its).to_dict("records"):
            cell = format_cell(row["correct"], row["n"])
            table.add_row(str(model), f"top {row['k']}", cell, f"{row['confidence']:.2%}")
    console.print(table)


def sweep_alarms(jobs: Sequence[StoredJob], console: Console) -> None:
    """Complete every job's alarms with those of the whole sweep, and print a line for each.

    Iterative attacks are compared with FGSM from the same source, and jobs without an attack are
    checked. A finding of several jobs is printed once, and so are the causes of an alarm; the
    whole sentences are in the jobs' `alarms.json`.
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


def _excess(done: Sequence[StoredJob], eps_255: float) -> dict[str, pd.DataFrame]:
    """Return by control the matrix of excess, of the controls that all jobs have."""
    beyond = {}
    for control in CONTROL_NAMES:
        name = f"{PREDICTIONS}-{control}"
        if all(name in job.files for job in done):
            by_source = {}
            for job in done:
                own = job.record
                tables = job.predictions, job.table(name)
                by_source[own.source] = excess(*tables, own.source, own.targets, own.protocol)
            beyond[control] = excess_matrix(by_source, eps_255)
    return beyond


def _late_alarms(job: StoredJob, jobs: Sequence[StoredJob]) -> list[Alarm]:
    """Check clean images, or compare an iterative attack with FGSM of the same settings."""
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
    """Tell whether two jobs differ in nothing but the rule of their attack."""
    alike = all(one.get(key) == other.get(key) for key in (set(one) | set(other)) - {"attack"})
    rules = [
        (attack["target_label"], attack["norm"], attack["settings"].get("loss", "cross_entropy"))
        for attack in (one["attack"], other["attack"])
    ]
    return alike and rules[0] == rules[1]
