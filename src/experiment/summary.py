"""Matrices and alarms of one command's jobs, printed and written beside them."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.text import Text

from src.analysis import (
    CAUSES,
    Alarm,
    clean_at_chance,
    excess_by_control,
    format_excess,
    matrix,
    rates_by_protocol,
    weaker_than_fgsm,
)
from src.config.settings import CONTROLS
from src.experiment.matrix_tables import matrix_table, wide_matrix
from src.store.jobs import StoredJob
from src.store.record import ALARMS, PREDICTIONS, JobRecord
from src.store.tables import read_alarms
from src.utils.files import write_csv, write_text

SINGLE_STEP = ("fgsm", "fgsm_l2", "llc")
"""Attacks that iterative ones are compared with."""


def sweep_matrices(jobs: Sequence[StoredJob], folder: Path, console: Console) -> None:
    """Print the matrix of every attack, then its excess over controls, and write it as CSV."""
    attacked = [job for job in jobs if job.attacked]
    files: dict[str, pd.DataFrame] = {}
    for name, *others in dict.fromkeys(map(_of_one_matrix, attacked)):
        done = [job for job in attacked if _of_one_matrix(job) == (name, *others)]
        heading, cells = print_matrix(done, console)
        controlled = [job for job in done if f"{PREDICTIONS}-noise" in job.files]
        beyond = pd.concat(map(_excess, controlled)) if controlled else None
        for control, table in () if beyond is None else beyond.groupby("control", sort=False):
            above = f"excess transfer over {CONTROLS[str(control)]}\n{heading}"
            console.print("", matrix_table(table, above, console.width))
        stem = "matrix-" + re.sub(r"[^\w.=+-]+", "-", name).strip("-")[:150]
        stem = f"{stem}-{len(files)}" if stem in files else stem
        files[stem] = wide_matrix(cells)
    console.print()
    for stem, frame in files.items():  # last: a full disk hides no matrix
        write_csv(folder / f"{stem}.csv", frame)


def _of_one_matrix(job: StoredJob) -> tuple[str, float, str]:
    """Return the attack, reference budget and protocol that jobs of one matrix share."""
    return job.attack, job.record.reference, job.record.protocol


def print_matrix(jobs: Sequence[StoredJob], console: Console) -> tuple[str, pd.DataFrame]:
    """Print the matrix of one attack's jobs, and return its heading and its cells."""
    attack, record = jobs[0].attack, jobs[0].record
    eps = record.reference
    cells = matrix(pd.concat(map(_rates, jobs), ignore_index=True), eps, record.protocol)
    heading = f"{attack} on {record.dataset}, eps = {eps:g}/255, protocol: {record.protocol}"
    arithmetic = " / ".join(dict.fromkeys(job.record.arithmetic for job in jobs))
    heading += f", {arithmetic}" if arithmetic != "float32" else ""
    console.print("", matrix_table(cells, heading, console.width))
    return heading, cells


def sweep_alarms(jobs: Sequence[StoredJob], console: Console) -> None:
    """Complete every job's alarms with those of the whole sweep, and print a line for each.

    Iterative attacks are compared with FGSM from the same source, clean accuracies with chance.
    A finding of several jobs is printed once, and so are the causes of an alarm.
    """
    where: dict[str, dict[str, list[str]]] = {}
    texts: dict[Path, str] = {}
    for job in jobs:
        listed, late = read_alarms(job.folder), _late_alarms(job, jobs)
        listed += [alarm for alarm in late if alarm not in listed]
        if late:
            texts[job.folder / ALARMS] = json.dumps([one._asdict() for one in listed], indent=1)
        for name, finding in listed:
            where.setdefault(name, {}).setdefault(finding, []).append(job.folder.name)
        job.forget()
    lines = []
    for name, findings in where.items():
        for finding, (first, *others) in findings.items():
            more = f" (and {len(others)} more)" if others else ""
            lines.append(f"ALARM {first}{more}: {name}: {finding}")
        lines.append(f"      {name}: {CAUSES.get(name, '')}")
    if lines:
        words = Text("\n".join(lines), style="yellow")
        console.print(words, soft_wrap=True)
    for path, text in texts.items():  # last: a full disk hides no alarm
        write_text(path, text)


def _rates(job: StoredJob) -> pd.DataFrame:
    own = job.record
    tables = {own.storage: job.predictions}
    job.forget()  # a matrix of many sources has more rows than memory
    return rates_by_protocol(tables, own.source, own.targets, job.attack, own.norm)


def _excess(job: StoredJob) -> pd.DataFrame:
    """Return a job's excess over its controls at the reference budget."""
    own, tables = job.record, job.variants()
    job.forget()
    table = excess_by_control(tables, own.storage, own.source, own.targets, own.protocol)
    here = table[table["eps_255"] == own.reference]
    return here.assign(source=own.source, cell=[format_excess(row) for _, row in here.iterrows()])


def _late_alarms(job: StoredJob, jobs: Sequence[StoredJob]) -> list[Alarm]:
    """Check clean images, or compare an iterative attack with FGSM of the same settings."""
    own = job.record
    if not job.attacked:
        return clean_at_chance(job.predictions, len(own.class_names))
    for other in jobs if own.iterative else []:
        if other.record.attack in SINGLE_STEP and _comparable(own, other.record):
            tables = (job.predictions, other.predictions)
            other.forget()
            return weaker_than_fgsm(*tables, own.source, own.targets, own.reference, own.label)
    return []


def _comparable(one: JobRecord, other: JobRecord) -> bool:
    """Tell whether two jobs differ in nothing but the attack's rule."""
    configs = []
    for record in (one, other):
        attack = record.config["attack"]
        loss = attack["settings"].get("loss", "cross_entropy")
        rule = (attack["target_label"], attack["norm"], loss)
        trainer = {**record.config["trainer"], "batch_size": None, "devices": None}  # may differ
        configs.append({**record.config, "attack": rule, "trainer": trainer})
    return (one.data, one.weights, configs[0]) == (other.data, other.weights, configs[1])
