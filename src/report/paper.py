"""Answers to what reviewers ask of an attack, from jobs of `experiment=paper`: `paper.md`."""

import shlex
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ..analysis.diagnostics import PERTURBATIONS
from ..analysis.multiple_comparisons import FEWEST_TESTED
from ..analysis.outcomes import Outcomes, joined, outcomes_of, target_labels, with_defence
from ..analysis.ranking import rankings
from ..artifacts.comparable import ALIKE, SETTINGS, differences, networks_of
from ..artifacts.jobs import FinishedJob
from ..artifacts.layout import PREDICTIONS
from ..artifacts.record import JobRecord
from ..utils.model_names import ModelRef
from ..utils.package import command
from ..utils.vocabulary import CONTROLS
from .beside import NEAR, Ranks, beside, margin_text, read_preset
from .grid import Grid
from .results import Results, titled_anew
from .sanity_checks import explained
from .words import COUNTED, costs_text, margins_sentence, said

QUESTIONS = {
    "primary": "Is it better than its base at equal cost?",
    "stored": "How does it rank among stored attacks at their own settings?",
    "equal_cost": "How does it rank among stored attacks of equal cost?",
    "budgets": "Does it hold at smaller and larger budgets?",
    "controls": "Is it more than noise, or another image's perturbation?",
    "frequencies": "Is it in the low or in the high frequencies?",
    "defence": "Does it hold behind a defence, also if the attacker knows it?",
    "trainings": "Does it hold from another training of a source?",
    "settings": "How sensitive is it to each of its settings?",
}
"""Questions by the names of the tables that answer them; the first is the primary one."""
_READING = (
    "Images: those that count for at least one source and target, on both sides of a row.",
    "Brackets hold 95 % intervals. p is from random signs over images. An interval contains 0 "
    "exactly where p >= 0.05.",
)
_PARTS = (
    "Low is below 0.125 cycles per pixel, high from 0.25 on. Each part is as long (L2) as "
    "random-sign noise at the budget: compare rows of one part only"
)
_SECONDARY = """# Secondary, not corrected

No test below is corrected for the number of questions and rows. Only the tests within each \
ranking of stored attacks are corrected for each other (max-T).

A stored attack of equal cost, `NAME at N gradients`, may have another step length or number of \
copies than `NAME`, which has its own settings. So the two have different means.

A rank is among all stored attacks. Its table shows the first, those of the attack's category, and \
neighbours."""
Jobs = Mapping[tuple[str, bool], list[FinishedJob]]
"""Jobs by what they answer, and whether they attack with the base."""


class Side(NamedTuple):
    """One side of a comparison: jobs, and which rows of their tables count.

    Attributes:
        question: What the jobs answer.
        of_base: Whether they attack with the base.
        table: Name of the table with the attacked rows.
        where: Which of these rows, as a query.
    """

    question: str = "primary"
    of_base: bool = False
    table: str = PREDICTIONS
    where: str = "defence == 'none'"


def jobs_of(results: Results) -> Jobs:
    """Return the jobs of `experiment=paper`; none of other jobs."""
    jobs = defaultdict[tuple[str, bool], list[FinishedJob]](list)
    for job in results.jobs:
        if question := _question(job):
            jobs[question, job.record.attack == job.record.config["base"]].append(job)
    return jobs


def _question(job: FinishedJob) -> str:
    return str(job.record.config.get("question") or "")


def primary_of(results: Results) -> Results:
    """Return the results without the jobs of a paper's other questions, which `paper.md` has."""
    pairs = zip(results.rows, results.groups, strict=True)
    main = [pair for pair in pairs if _question(pair[0][0].job) in ("", "primary")]
    if not main:
        return results
    rows, groups = zip(*main, strict=True)
    return replace(results, rows=titled_anew(rows), groups=groups)


def _check(jobs: Jobs) -> None:
    """Refuse jobs of several papers, and an unfinished primary comparison."""
    sides = [[job.record for job in jobs["primary", of_base]] for of_base in (False, True)]
    first, base = ({record.source for record in side} for side in sides)
    if not (first and base) or first != base:
        lacking = ", ".join(sorted(first ^ base)) or "all sources"
        raise ValueError(f"The primary comparison of experiment=paper lacks jobs from {lacking}.")
    several = differences(*sides[0], *sides[1], fields=(*ALIKE, "attack.target_label"))
    several += differences(*sides[0], fields=(SETTINGS,))
    several += ["base"] * (len({record.config["base"] for record in sides[0]}) > 1)
    for (question, of_base), side in jobs.items():
        varied = {question.partition("=")[0]: None}
        stated = [record.config["attack"]["settings"] | varied for record in sides[of_base]]
        settings = [job.record.config["attack"]["settings"] | varied for job in side]
        once = len({job.record.source for job in side}) == len(side)
        alike = all(each in stated for each in settings)
        several += [f"the jobs of {question}"] * (not (alike and once))
    if several:
        raise ValueError(f"These jobs are not of one paper: they differ in {', '.join(several)}.")


def ranks_of(results: Results) -> Ranks:
    """Return the attack among stored ones, those of its category, or of its base's, named."""
    ranks, first = Ranks(), jobs_of(results)["primary", False]
    if not first or (preset := first[0].record.config.get("beside")) is None:
        return ranks
    facts, stored = read_preset(preset)
    kinds = {job.record.attack: _category(job) for job in stored}
    kind, base = _category(first[0]), first[0].record.config["base"]
    kind = kind if kind in kinds.values() else kinds.get(base, "")
    named = [name for name in kinds if kinds[name] == kind]
    try:
        ranks = beside(first, preset, named, (facts, stored))
    except ValueError as error:  # nothing can be compared
        ranks.notes = (str(error),)
    return ranks


def _category(job: FinishedJob) -> str:
    return str(job.record.config["attack"]["about"]["category"])


def _compared(jobs: Jobs) -> Iterator[tuple[str, str, str, Side, Side]]:
    """Yield questions, the names of a row and of what is beside it, and both sides."""
    primary, base = jobs["primary", False][0].record, jobs["primary", True][0].record.label
    one, other = Side(), Side(of_base=True)
    yield ("primary", "", base, one, other)
    for eps in (eps for job in jobs["budgets", False][:1] for eps in job.record.budgets[1:]):
        side = Side("budgets", where=f"eps_255 == {eps}")
        yield ("budgets", f"at {eps:g}/255", base, side, side._replace(of_base=True))
    for name, text in CONTROLS.items():
        yield ("controls", "", text, one, Side(table=f"{PREDICTIONS}-{name}"))
    for band in ("low", "high"):
        attack, noise = (
            Side(table="filtered", where=f"band == '{band}' and kind == '{kind}'")
            for kind in PERTURBATIONS
        )
        yield ("frequencies", f"{band}-pass", base, attack, attack._replace(of_base=True))
        yield ("frequencies", f"{band}-pass", f"{band}-pass noise", attack, noise)
    for defence in primary.defences[-1:]:
        blind = Side(where=f"defence == '{defence}'")
        aware = blind._replace(question="known")
        for knows, side in (("unknown", blind), ("known", aware)):
            yield ("defence", f"{defence}, {knows}", base, side, side._replace(of_base=True))
        yield ("defence", f"{defence}, known", "the same, unknown", aware, blind)
        yield ("defence", f"{defence}, known", "the same without a defence", aware, one)
    asked = [question for question, of_base in jobs if not of_base]
    for name in (name for name in asked if name.startswith("from ")):
        yield ("trainings", name, base, Side(name), Side(name, of_base=True))
    for name in (name for name in asked if "=" in name):
        yield ("settings", name, "the stated settings", Side(name), Side("stated"))


def _outcomes(jobs: Jobs, side: Side, name: str) -> Iterator[Outcomes]:
    """Yield the outcomes of each job of a side, the defences of its source and targets aside."""
    for job in (job for job in jobs[side[:2]] if side.table in job.files):  # a card lacks some
        record, clean = job.record, job.defended.query("eps_255 == 0")
        rows = with_defence(job.table(side.table)).query(f"eps_255 > 0 and {side.where}")
        if rows.empty:
            continue
        if (labels := target_labels(job.defended)) is not None:
            rows = rows.assign(target_label=labels.reindex(rows["index"]).to_numpy())
        place = record.targets, record.protocol, rows["eps_255"].iloc[0], networks_of(record)
        part = outcomes_of(pd.concat([clean, rows]), name, record.source, *place)
        part = part.select(defence=rows["defence"].iloc[0])
        targets = [ModelRef.parse(target.model) for target in part.targets]
        yield replace(part, jobs=[(name, record.source_model.model)], targets=targets)


def _answer(jobs: Jobs, sides: Sequence[Side], images: Collection[int]) -> dict[str, Any]:
    """Compare two sides on equal images, with one paired test.

    Returns:
        The statistics of the first, the mean of the `other`, and the `costs` of the jobs of both;
        empty if jobs of a side are missing, or no image is counted.
    """
    index, pairs = np.array([*images]), [*zip(("one", "other"), sides, strict=True)]
    parts = [part.on_images(index) for name, side in pairs for part in _outcomes(jobs, side, name)]
    if not parts:
        return {}
    ranked = rankings(joined(parts), against="other")
    first = ranked[ranked["source"].isin(ranked["source"].head(1))].set_index("attack")
    if first["rank"].count() < len(pairs):
        return {}
    rows: Any = first.to_dict("index")
    mean, *sources = ranked["source"].unique()
    attacks = dict.fromkeys(side[:2] for side in sides)
    costs = [np.mean([_cost(job) for job in jobs[attack]]) for attack in attacks]
    numbers = {"other": rows["other"]["mean"], "costs": costs}
    return {**rows["one"], **numbers, "source": ", ".join(sources) or mean}


def _cost(job: FinishedJob) -> float:
    """Return the gradients per image, for all budgets together."""
    return float(job.predictions.query("eps_255 > 0")["gradients"].mean())


def paper_table(results: Results, question: str = "primary") -> Grid:
    """Lay out the answer to one question of `experiment=paper`; its caption is the answer."""
    grids = paper_grids(results)
    if question not in grids:
        raise ValueError(f"question={question}: these jobs answer {', '.join(grids)}.")
    return grids[question]


def paper_grids(results: Results) -> dict[str, Grid]:
    """Return the answers to `QUESTIONS` that the jobs give; refuse jobs that are not of one paper.

    Questions on settings have the images for tuning alone. The others leave these out, unless fewer
    than `FEWEST_TESTED` images would be left.
    """
    jobs, ranks = jobs_of(results), results.ranks or ranks_of(results)
    _check(jobs)
    first = jobs["primary", False][0]
    everything = {*first.predictions["index"]}
    tuning = {index for job in jobs["stated", False] for index in job.predictions["index"]}
    reporting, use = everything - tuning, " for reporting" * bool(tuning)
    if len(reporting) < FEWEST_TESTED:
        reporting, use = everything, ", also for tuning" * bool(tuning)
    grids = dict[str, Grid]()
    for question, compared in groupby(_compared(jobs), lambda row: row[0]):
        used, images = reporting, f"{len(reporting)} images{use}"
        if question == "settings":
            used, images = tuning, f"{len(tuning)} images for tuning"
        rows = [
            {"what": what, "than": than, "text": margin_text(answer), **answer}
            for _, what, than, *sides in compared
            if (answer := _answer(jobs, sides, used))
        ]
        if rows:
            grids[question] = _grid(question, rows, first.record, images)
    if "primary" not in grids:
        raise ValueError("No image counts on a target of another network than the source.")
    for rank in ranks[:1]:
        for question, grid in zip(("stored", "equal_cost"), rank.grids, strict=False):
            caption = f"{grid.caption} ({rank.title}; {rank.cost:g} gradients per image)"
            grids[question] = replace(grid, caption=caption)
    return grids


def _grid(question: str, rows: Sequence[dict[str, Any]], record: JobRecord, images: str) -> Grid:
    """Lay out the rows of an answer; the caption is the sentence that they say."""
    attack, aimed = record.attack, record.config["attack"]["target_label"] is not None
    at = "" if question == "budgets" else f", at {record.reference:g}/255"
    caption = margins_sentence(rows, attack, images, at, aimed)
    heads = ("", "beside", f"{attack}, %", "other, %", "points", "images", "sources", "gradients")
    cells = [
        (
            *(row["what"], row["than"], f"{100 * row['mean']:.1f}", f"{100 * row['other']:.1f}"),
            *(row["text"], f"{row['images']:g}", f"{row['sources']:g}", costs_text(row["costs"])),
        )
        for row in rows
    ]
    equal = all(np.ptp(row["costs"]) <= NEAR * row["costs"][-1] for row in rows)
    total = ", for all budgets together: budgets may share gradients" * (question == "budgets")
    notes = said(
        (f"Gradients per image: {attack} / other{total}", True),
        ("The costs are not equal", not equal and question != "settings"),
        (_PARTS, question == "frequencies"),
    )
    return Grid(heads, cells, caption, [COUNTED[record.protocol]], notes, left=(0, 1))


def paper_text(results: Results, missing: int = 0) -> str:
    """Return `paper.md`: the primary comparison, notes, and the answer to each question.

    `missing` is the number of jobs that are missing or have failed. Without the primary comparison
    the text says what is missing.
    """
    results = replace(results, ranks=results.ranks or ranks_of(results))
    start = f"# Not finished, {missing} jobs are missing or have failed: " if missing else "# "
    try:
        grids = paper_grids(results)
    except ValueError as error:
        return f"{start}{error}\n"
    jobs = jobs_of(results)
    first, record = jobs["primary", False], jobs["primary", False][0].record
    notes = said(
        (f"{record.label} on {record.dataset}, norm {record.norm}, seed {record.seed}.", True),
        ("Values are means over targets, each over the sources that are other networks.", True),
        (f"Targets: {', '.join(record.targets)}.", True),
        *((text, True) for text in _READING),
        *((explained(alarm), True) for job in first for alarm in job.alarms),
        *((note, True) for part in (results.ranks, *results.ranks) for note in part.notes),
    )
    varied = {question.partition("=")[0] for question, _ in jobs}
    stated = record.config["attack"]["settings"]
    rest = [f"{key}={stated[key]}" for key in stated if key not in {"_target_", *varied}]
    unvaried = [] if "function" in stated else [f"Not varied: {', '.join(rest) or 'none'}."]
    lines = [f"{start}{grids['primary'].caption}."]
    for name, asked in QUESTIONS.items():
        if name == "stored":
            lines += ["\n".join(f"- {note}" for note in dict.fromkeys(notes)), _SECONDARY]
        lines += [f"## {asked}"]
        if grid := grids.get(name):
            lines += [f"{grid.caption}."] * (name != "primary")
            lines += [replace(grid, caption="").markdown().strip()]
        else:
            lines += ["No job of this sweep, and no stored attack, answers this."]
        lines += unvaried * (name == "settings")
    folder = first[0].sweep_folder
    table = f"{command('table')} {shlex.quote(str(folder))} --as paper --to latex --question"
    budgets = shlex.join(str(job.folder) for side in (False, True) for job in jobs["budgets", side])
    figure = f"{command('figure')} curves {budgets} --out curves.pdf"
    lines += said(
        (f"LaTeX of a table: `{table} NAME`, where NAME is {', '.join(grids)}.", folder != Path()),
        (f"PDF of the budgets: `{figure}`", budgets and folder != Path()),
    )
    return "\n\n".join(lines) + "\n"
