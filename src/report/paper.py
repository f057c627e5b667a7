"""Answers to what reviewers ask of an attack, from jobs of `experiment=paper`: `paper.md`."""

import shlex
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..analysis.diagnostics import PERTURBATIONS
from ..analysis.outcomes import Outcomes, joined, outcomes_of, target_labels, with_defence
from ..analysis.ranking import rankings
from ..artifacts.comparable import ALIKE, SETTINGS, differences, networks_of
from ..artifacts.finished_job import FinishedJob
from ..artifacts.layout import PREDICTIONS
from ..artifacts.record import JobRecord
from ..utils.model_names import ModelRef
from ..utils.package import command
from ..utils.vocabulary import CONTROLS
from .beside import NEAR, Ranks, beside, margin_text, read_preset, tested_images
from .grid import Grid
from .images_text import images_text
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
        if question := job.record.config.get("question"):
            jobs[question, job.record.attack == job.record.config["base"]].append(job)
    return jobs


def primary_of(results: Results) -> Results:
    """Return the results without the jobs of a paper's other questions, which `paper.md` has."""
    questions = [row[0].job.record.config.get("question") for row in results.rows]
    main = [at for at, question in enumerate(questions) if question in (None, "primary")]
    if not main:
        return results
    rows = titled_anew([results.rows[at] for at in main])
    return replace(results, rows=rows, groups=[results.groups[at] for at in main])


def _check(jobs: Jobs) -> None:
    """Refuse jobs of several papers, and an unfinished primary comparison."""
    sides = [[job.record for job in jobs["primary", of_base]] for of_base in (False, True)]
    first, base = ({record.source for record in side} for side in sides)
    if lacking := ", ".join(sorted(first ^ base)) or "all sources" * (not first):
        raise ValueError(f"The primary comparison of experiment=paper lacks jobs from {lacking}.")
    several = differences(*sides[0], *sides[1], fields=(*ALIKE, "attack.target_label"))
    several += differences(*sides[0], fields=(SETTINGS,))
    several += ["base"] * (len({record.config["base"] for record in sides[0]}) > 1)
    for (question, of_base), side in jobs.items():
        varied, records = {question.partition("=")[0]: None}, [job.record for job in side]
        stated = [record.config["attack"]["settings"] | varied for record in sides[of_base]]
        settings = [record.config["attack"]["settings"] | varied for record in records]
        once = len({record.source for record in records}) == len(records)
        if not once or any(values not in stated for values in settings):
            several.append(f"the jobs of {question}")
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
    one = Side()
    yield ("primary", "", base, one, Side(of_base=True))
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
        yield ("defence", f"{defence}, unknown", base, blind, blind._replace(of_base=True))
        yield ("defence", f"{defence}, known", base, aware, aware._replace(of_base=True))
        yield ("defence", f"{defence}, known", "the same, unknown", aware, blind)
        yield ("defence", f"{defence}, known", "the same without a defence", aware, one)
    for side in [Side(question) for question, of_base in jobs if not of_base]:
        if side.question.startswith("from "):
            yield ("trainings", side.question, base, side, side._replace(of_base=True))
        if "=" in side.question:
            yield ("settings", side.question, "the stated settings", side, Side("stated"))


def _outcomes(jobs: Jobs, side: Side, name: str) -> Iterator[Outcomes]:
    """Yield the outcomes of each job of a side, the defences of its source and targets aside."""
    for job in (job for job in jobs[side[:2]] if side.table in job.tables):  # a card lacks some
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


def _answer(jobs: Jobs, sides: Sequence[Side], images: NDArray[np.int64]) -> dict[str, Any]:
    """Compare two sides on equal images, with one paired test.

    Returns:
        The statistics of the first, the mean of the `other`, and the `costs` of the jobs of both;
        empty if jobs of a side are missing, or no image is counted.
    """
    pairs = zip(("one", "other"), sides, strict=True)
    parts = [part.on_images(images) for name, side in pairs for part in _outcomes(jobs, side, name)]
    ranked = rankings(joined(parts), against="other") if parts else pd.DataFrame({"source": []})
    mean, *sources = ranked["source"].unique() if len(ranked) else [""]
    rows: Any = ranked[ranked["source"] == mean].dropna(subset="rank")
    if len(rows) < len(sides):
        return {}
    rows = rows.set_index("attack").to_dict("index")
    attacks = dict.fromkeys(side[:2] for side in sides)
    costs = [np.mean([_cost(job) for job in jobs[attack]]) for attack in attacks]
    lead = "".join(row["depends_on"] for row in rows.values())
    numbers = {"other": rows["other"]["mean"], "costs": costs, "depends_on": lead}
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
    first, rows = jobs["primary", False][0], defaultdict[str, list[dict[str, Any]]](list)
    everything = first.predictions["index"].unique()
    tuning = np.unique([n for job in jobs["stated", False] for n in job.predictions["index"]])
    reporting = tested_images(everything, {"tuning": tuning})
    use = " for reporting" if len(reporting) < len(everything) else ", also for tuning"
    all_of = f"{len(reporting)} images{use * bool(len(tuning))}"
    for question, what, than, *sides in _compared(jobs):
        images, of = reporting, all_of
        if question == "settings":
            images, of = tuning, f"{len(tuning)} images for tuning"
        if answer := _answer(jobs, sides, images):
            text = margin_text(answer)
            rows[question].append({"what": what, "than": than, "text": text, "of": of, **answer})
    if "primary" not in rows:
        raise ValueError("No image counts on a target of another network than the source.")
    grids = {
        question: _grid(question, rows[question], first.record)
        for question in QUESTIONS
        if question in rows
    }
    for rank in ranks[:1]:
        for question, grid in zip(("stored", "equal_cost"), rank.grids, strict=False):
            caption = f"{grid.caption} ({rank.title}; {rank.cost:g} gradients per image)"
            grids[question] = replace(grid, caption=caption)
    return grids


def _grid(question: str, rows: Sequence[dict[str, Any]], record: JobRecord) -> Grid:
    """Lay out the rows of an answer; the caption is the sentence that they say."""
    attack, aimed = record.attack, record.config["attack"]["target_label"] is not None
    at = "" if question == "budgets" else f", at {record.reference:g}/255"
    caption = margins_sentence(rows, attack, at, aimed)
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
    notes = [
        f"{record.label} on {record.dataset}, norm {record.norm}, seed {record.seed}.",
        "Values are means over targets, each over the sources that are other networks.",
        f"Targets: {', '.join(record.targets)}.",
        "Images: those that count for at least one source and target, on both sides of a row.",
        "Brackets hold 95 % intervals. p is from random signs over images. An interval contains 0 "
        "exactly where p >= 0.05.",
        *(explained(alarm) for job in first for alarm in job.alarms),
        *(note for part in (results.ranks, *results.ranks) for note in part.notes),
    ]
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
    varied = {question.partition("=")[0] for question, _ in jobs}
    stated, folder = record.config["attack"]["settings"], first[0].sweep_folder
    rest = [f"{key}={stated[key]}" for key in stated if key not in {"_target_", *varied}]
    table = f"{command('table')} {shlex.quote(str(folder))} --as paper --to latex --question NAME"
    budgets = [job for side in (False, True) for job in jobs["budgets", side]]
    places = shlex.join(str(job.folder) for job in budgets)
    figure = f"{command('figure')} curves {places} --out curves.pdf"
    title = ", ".join(filter(None, ["PDF of the budgets", images_text(budgets)]))
    lines += said(
        (f"Signature of the primary comparison: `{primary_of(results).signature}`", True),
        (f"Not varied: {', '.join(rest) or 'none'}.", "function" not in stated),
        (f"LaTeX of a table: `{table}`, where NAME is {', '.join(grids)}.", folder != Path()),
        (f"{title}: `{figure}`", budgets and folder != Path()),
    )
    return "\n\n".join(lines) + "\n"
