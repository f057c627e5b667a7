"""Stored jobs to a report: every chapter is a pure function of their tables."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow.parquet as pq

from src.analysis import is_white_box
from src.analysis.hypothesis import Effect, initial_confidence_effect
from src.report.chapters.clean import clean_section
from src.report.chapters.comparisons import comparison_section, hypothesis_section
from src.report.chapters.drawing import file_name
from src.report.chapters.facts import facts
from src.report.chapters.matrices import answer, heat_maps, matrices
from src.report.chapters.notes import NOTES
from src.report.chapters.pairs import pair
from src.report.chapters.reasons import missing, reasons_section
from src.report.chapters.study import study_section
from src.report.content import Download, Drawing, Report, Section, Table
from src.report.stored import StoredJob
from src.report.sweep_files import job_rates

_LARGEST_DOWNLOAD = 2**20
Progress = Callable[[str], None]


def build_report(
    jobs: Sequence[StoredJob],
    settings: Mapping[str, Any],
    progress: Progress = lambda words: None,
) -> Report:
    """Turn stored jobs into a report.

    Args:
        jobs: The jobs; all of them attacked, or none of them.
        settings: The `report` section of a config.
        progress: Told what is being worked on.

    Raises:
        ValueError: The jobs do not fit into one report.
    """
    attacked = [job for job in jobs if job.attacked]
    datasets = {job.record.data: job.record.dataset for job in jobs}
    title = "Clean images" if not attacked else "Transfer of adversarial examples"
    whole = Report(
        title=f"{title}: {', '.join(dict.fromkeys(datasets.values()))}",
        answer="What the models say of the clean images.",
        facts=facts(jobs),
        notes=NOTES,
        downloads=_downloads(jobs),
    )
    progress("clean images")
    clean = tuple(
        clean_section([job for job in jobs if job.record.data == data]) for data in datasets
    )
    if not attacked:
        return _unique(replace(whole, before=clean))
    progress("matrices")
    found = matrices(attacked)
    progress("Hypothesis 1")
    effects = _effects(attacked)
    told = _told(attacked, int(settings["pairs"]))
    absent = missing(attacked)
    total = len(effects)
    if len(told) < total:
        absent += (
            f"{len(told)} of {total} pairs are told in detail, the white boxes first; "
            f"report.pairs={total} tells all.",
        )
    pairs = []
    for job, target in told:
        progress(f"{job.attack} {job.record.source} -> {target}")
        effect = effects[job.attack, job.record.source, target]
        pairs.append(pair(job, target, effect, settings["budgets"]))
    progress("comparisons")
    before = [hypothesis_section(list(effects.values()))]
    after = [
        comparison_section(attacked),
        reasons_section(attacked),
        study_section(attacked),
        *clean,
        heat_maps(attacked),
    ]
    return _unique(
        replace(
            whole,
            answer=answer(found),
            matrices=found,
            before=tuple(before),
            pairs=tuple(pairs),
            after=tuple(section for section in after if section is not None),
            missing=absent,
        )
    )


def _effects(jobs: Sequence[StoredJob]) -> dict[tuple[str, str, str], Effect]:
    """Return the answer to Hypothesis 1 for every pair."""
    return {
        (job.attack, job.record.source, target): initial_confidence_effect(
            job.predictions,
            job.record.source,
            target,
            job.attack,
            job.record.protocol,
            job.flips,
        )
        for job in jobs
        for target in job.record.targets
    }


def _told(jobs: Sequence[StoredJob], most: int) -> list[tuple[StoredJob, str]]:
    """Return the pairs to tell in detail; where they are too many, the white boxes first."""
    every = [(job, target) for job in jobs for target in job.record.targets]
    if len(every) <= most:
        return every
    ranked = sorted(every, key=lambda one: not is_white_box(one[0].record.source, one[1]))
    kept = {id(one) for one in ranked[:most]}
    return [one for one in every if id(one) in kept]


def _downloads(jobs: Sequence[StoredJob]) -> tuple[Download, ...]:
    """Return the jobs' tables: rates always, whole predictions where they are small."""
    files = []
    for number, job in enumerate(jobs):
        stem = file_name(str(number), job.attack or "clean", job.record.source)
        if job.attacked:
            rates = job_rates(job).to_csv(index=False, lineterminator="\n").encode()
            words = f"{job.attack} made on {job.record.source}"
            files.append(Download(f"{stem}-rates.csv", f"Rates of {words}", rates))
        else:
            words = "the clean images"
        for name, path in job.files.items():
            if path.stat().st_size <= _LARGEST_DOWNLOAD // max(1, len(jobs)):
                files.append(
                    Download(
                        f"{stem}-{name}.parquet",
                        f"Table {name} of {words}, {pq.read_metadata(path).num_rows} rows",
                        path.read_bytes(),
                        "application/vnd.apache.parquet",
                    )
                )
    return tuple(files)


def _unique(report: Report) -> Report:
    """Give drawings, tables and sections of one name different ones."""
    files: Counter[str] = Counter()
    anchors: Counter[str] = Counter()

    def own(name: str, seen: Counter[str] = files) -> str:
        seen[name] += 1
        return name if seen[name] == 1 else own(f"{name}-{seen[name]}", seen)

    def drawings(found: Sequence[Drawing]) -> tuple[Drawing, ...]:
        return tuple(replace(one, name=own(one.name)) for one in found)

    def tables(found: Sequence[Table]) -> tuple[Table, ...]:
        return tuple(replace(one, name=own(one.name)) for one in found)

    def sections(found: Sequence[Section]) -> tuple[Section, ...]:
        return tuple(
            replace(
                one,
                id=own(one.id, anchors),
                drawings=drawings(one.drawings),
                tables=tables(one.tables),
            )
            for one in found
        )

    return replace(
        report,
        before=sections(report.before),
        pairs=tuple(
            replace(one, drawings=drawings(one.drawings), tables=tables(one.tables))
            for one in report.pairs
        ),
        after=sections(report.after),
    )
