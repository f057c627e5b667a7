"""Stored jobs to a report: every chapter is a pure function of their tables."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import pyarrow.parquet as pq

from src.analysis import is_white_box, rates_by_protocol
from src.analysis.hypothesis import Effect, initial_confidence_effect
from src.report.chapters.clean import clean_answer, clean_section
from src.report.chapters.comparisons import comparison_section, hypothesis_section
from src.report.chapters.drawing import file_name
from src.report.chapters.facts import facts
from src.report.chapters.matrices import answer, heat_maps, matrices
from src.report.chapters.notes import NOTES
from src.report.chapters.pairs import pair
from src.report.chapters.reasons import missing, reasons_section
from src.report.chapters.study import study_section
from src.report.content import Download, Drawing, Pair, Report, Section, Table
from src.report.stored import HEADLINE, StoredJob

_ROOM = 400_000  # bytes of tables inside a page; there they take a third more
T = TypeVar("T")
Progress = Callable[[str], None]


def build_report(
    jobs: Sequence[StoredJob],
    settings: Mapping[str, Any],
    progress: Progress = lambda words: None,
) -> Report:
    """Turn stored jobs into a report.

    What one chapter cannot tell of these jobs is said among what is missing; the others stand.

    Args:
        jobs: The jobs; those without an attack tell of their clean images alone.
        settings: The `report` section of a config.
        progress: Told what is being worked on.
    """
    attacked = [job for job in jobs if job.attacked]
    complete = [job for job in attacked if job.has_clean]
    told = _Told(progress)
    found = told.each("matrices", matrices, attacked) or ()
    effects = told.each("Hypothesis 1", _effects, complete) or {}
    wanted = _pairs(complete, int(settings["pairs"]))
    pairs = [
        one
        for number, (job, target) in enumerate(wanted, 1)
        if (one := _pair(told, job, target, effects, settings["budgets"], (number, len(wanted))))
        is not None
    ]
    groups = _groups(complete)
    sections = [
        *(_section(told, comparison_section, group, groups) for group in groups),
        *(_section(told, reasons_section, group, groups) for group in groups),
        told.each("study A", study_section, attacked) if attacked else None,
        *(told.each("clean images", clean_section, group) for group in _by_data(jobs)),
        told.each("heat maps", heat_maps, attacked) if attacked else None,
    ]
    absent = [*told.failed, *missing(attacked)]
    if len(pairs) < len(effects):
        absent.append(
            f"{len(pairs)} of {len(effects)} pairs are told in detail, the white boxes first; "
            f"report.pairs={len(effects)} tells all."
        )
    downloads, left_out = _downloads(jobs)
    names = dict.fromkeys(job.record.dataset for job in jobs)
    what = "Transfer of adversarial examples" if attacked else "Clean images"
    asked = list(effects.values())
    hypothesis = told.each("Hypothesis 1", hypothesis_section, asked) if asked else None
    return _unique(
        Report(
            title=f"{what}: {', '.join(names)}",
            answer=answer(found) if attacked else clean_answer(jobs),
            facts=facts(jobs),
            matrices=found,
            before=() if hypothesis is None else (hypothesis,),
            pairs=tuple(pairs),
            after=tuple(section for section in sections if section is not None),
            missing=(*absent, *left_out),
            notes=NOTES,
            downloads=downloads,
        )
    )


class _Told:
    """Works chapters out, and keeps in a sentence what could not be.

    Args:
        progress: Told what is being worked on.
    """

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.failed: list[str] = []

    def each(self, what: str, tell: Callable[..., T], *arguments: Any) -> T | None:
        """Return what a function tells, or None where its data do not allow it."""
        self.progress(what)
        try:
            return tell(*arguments)
        except ValueError as error:
            self.failed.append(f"Not told, {what}: {error}")
            return None


def _pair(
    told: _Told,
    job: StoredJob,
    target: str,
    effects: Mapping[tuple[str, str, str], Effect],
    budgets: Sequence[float] | None,
    place: tuple[int, int],
) -> Pair | None:
    """Tell of one pair, which is number so and so of so many."""
    name = (job.attack, job.record.source, target)
    if name not in effects:
        return None
    what = f"pair {place[0]} of {place[1]}, {job.attack} {job.record.source} -> {target}"
    return told.each(what, pair, job, target, effects[name], budgets)


def _section(
    told: _Told,
    tell: Callable[[Sequence[StoredJob]], Section | None],
    group: Sequence[StoredJob],
    groups: Sequence[Sequence[StoredJob]],
) -> Section | None:
    """Return a chapter on jobs that can be compared, named after them if there are others."""
    record = group[0].record
    name = f"{record.dataset}, {record.norm}, {record.standard:g}/255, {record.protocol}"
    section = told.each(f"comparisons on {name}", tell, group)
    if section is None or len(groups) == 1:
        return section
    return replace(section, title=f"{section.title} ({name})")


def _groups(jobs: Sequence[StoredJob]) -> list[list[StoredJob]]:
    """Return jobs that can be compared: of the same images, norm, headline budget and protocol."""
    groups: dict[object, list[StoredJob]] = {}
    for job in jobs:
        record = job.record
        key = (record.data, record.norm, record.standard, record.protocol)
        groups.setdefault(key, []).append(job)
    return list(groups.values())


def _by_data(jobs: Sequence[StoredJob]) -> list[list[StoredJob]]:
    groups: dict[str, list[StoredJob]] = {}
    for job in jobs:
        if (job.predictions["eps_255"] == 0).any():
            groups.setdefault(job.record.data, []).append(job)
    return list(groups.values())


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


def _pairs(jobs: Sequence[StoredJob], most: int) -> list[tuple[StoredJob, str]]:
    """Return the pairs to tell in detail; where they are too many, the white boxes first."""
    every = [(job, target) for job in jobs for target in job.record.targets]
    if len(every) <= most:
        return every
    ranked = sorted(every, key=lambda one: not is_white_box(one[0].record.source, one[1]))
    kept = {id(one) for one in ranked[:most]}
    return [one for one in every if id(one) in kept]


def _downloads(jobs: Sequence[StoredJob]) -> tuple[tuple[Download, ...], tuple[str, ...]]:
    """Return the jobs' tables as far as they fit into a page, predictions first, and what is out.

    Returns:
        The files, and at most one sentence.
    """
    files, left_out, room = [], [], _ROOM
    stems = [
        file_name(str(number), job.attack or "clean", job.record.source)
        for number, job in enumerate(jobs)
    ]
    for job, stem in zip(jobs, stems, strict=True):
        if job.attacked:
            record = job.record
            table = rates_by_protocol(
                job.predictions, record.source, record.targets, job.attack, record.norm
            )
            content = table.to_csv(index=False, lineterminator="\n").encode()
            room -= len(content)
            files.append(Download(f"{stem}-rates.csv", f"Rates of {_called(job)}", content))
    every = [
        (name != HEADLINE, path.stat().st_size, f"{stem}-{name}.parquet", name, job, path)
        for job, stem in zip(jobs, stems, strict=True)
        for name, path in job.files.items()
    ]
    for _, size, file, name, job, path in sorted(every, key=lambda one: one[:3]):
        if size > room:
            left_out.append(file)
            continue
        room -= size
        rows = pq.read_metadata(path).num_rows
        words = f"Table {name} of {_called(job)}, {rows} rows"
        files.append(Download(file, words, path.read_bytes(), "application/vnd.apache.parquet"))
    if not left_out:
        return tuple(files), ()
    return tuple(files), (
        f"Too large to be inside this page, and to be had from the jobs' folders: "
        f"{', '.join(sorted(left_out))}.",
    )


def _called(job: StoredJob) -> str:
    return f"{job.attack} made on {job.record.source}" if job.attacked else "the clean images"


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
