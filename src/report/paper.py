"""Answers to what reviewers ask of an attack, from jobs of `experiment=paper`: `paper.md`."""

import shlex
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..analysis.diagnostics import PERTURBATIONS
from ..analysis.outcomes import joined, outcomes_of
from ..analysis.ranking import rankings
from ..artifacts.jobs import FinishedJob
from ..artifacts.layout import PREDICTIONS
from ..utils.model_names import NO_DEFENCE
from ..utils.package import command
from ..utils.vocabulary import CONTROLS
from .beside import Ranks, beside, cost_of, margin_text, read_preset
from .grid import Grid
from .results import Results
from .words import COUNTED, margins_sentence, sentences

QUESTIONS = {
    "primary": "Is it better than its base at equal cost?",
    "stored": "Is it better than stored attacks of its category at their own settings?",
    "equal_cost": "Is it better than stored attacks of equal cost?",
    "budgets": "Does it hold at smaller and larger budgets?",
    "controls": "Is it more than noise, or another image's perturbation?",
    "frequencies": "Is it in the low or in the high frequencies?",
    "defence": "Does it hold behind a defence, also if the attacker knows it?",
    "trainings": "Does it hold from another training of a source?",
    "settings": "How sensitive is it to each of its settings?",
}
"""Questions by the names of the tables that answer them; the first is the primary one."""
Jobs = Mapping[tuple[str, bool], list[FinishedJob]]
"""Jobs by what they answer, and whether they attack with the base."""
Side = tuple[list[FinishedJob], Callable[[FinishedJob], pd.DataFrame]]
"""Jobs, and what gives their predictions at one budget with the clean ones."""


def jobs_of(results: Results) -> Jobs:
    """Return the jobs of `experiment=paper`; none of other jobs."""
    jobs = defaultdict[tuple[str, bool], list[FinishedJob]](list)
    for job in results.jobs:
        config = job.record.config
        if config.get("question"):
            jobs[config["question"], job.record.attack == config["base"]].append(job)
    return jobs


def is_paper(results: Results) -> bool:
    """Return True if the primary comparison of `experiment=paper` is finished."""
    jobs = jobs_of(results)
    return all(jobs["primary", of_base] for of_base in (False, True))


def ranks_of(results: Results) -> Ranks:
    """Return the attack among stored ones, those of its category, or of its base's, named."""
    first = jobs_of(results)["primary", False]
    preset = first[0].record.config.get("beside") if first else None
    if preset is None:
        return Ranks()
    facts, stored = read_preset(preset)
    kinds = {job.record.attack: _category(job) for job in stored}
    base = kinds.get(first[0].record.config["base"])
    kind = _category(first[0]) if _category(first[0]) in kinds.values() else base
    named = [name for name in kinds if kinds[name] == kind]
    try:
        return beside(first, preset, named, (facts, stored))
    except ValueError as error:  # nothing can be compared
        ranks = Ranks()
        ranks.notes = (str(error),)
        return ranks


def _category(job: FinishedJob) -> str:
    return str(job.record.config["attack"]["about"]["category"])


def _asked(jobs: Jobs, base: str) -> Iterator[tuple[str, str, str, Side, Side]]:
    """Yield a question, the name of a row and of its other side, and both sides."""
    both: Any = [(jobs["primary", of_base], _plain) for of_base in (False, True)]
    one, other = (jobs for jobs, _ in both)
    yield "primary", "", base, *both
    for eps in jobs["budgets", False][0].record.budgets[1:] if jobs["budgets", False] else ():
        pair: Any = [(jobs["budgets", of], partial(_plain, eps=eps)) for of in (False, True)]
        yield "budgets", f"at {eps:g}/255", base, *pair
    for name, text in CONTROLS.items():
        yield "controls", "", text, both[0], (one, partial(_instead, f"{PREDICTIONS}-{name}"))
    for band in ("low", "high"):
        part, noise = (partial(_instead, "filtered", band=band, kind=of) for of in PERTURBATIONS)
        yield "frequencies", f"{band}-pass", base, (one, part), (other, part)
        yield "frequencies", f"{band}-pass", f"{band}-pass noise", (one, part), (one, noise)
    blind: Any = [(jobs, _behind) for jobs in (one, other)]
    aware: Any = [(jobs["known", of_base], _behind) for of_base in (False, True)]
    for defence in one[0].record.defences[-1:]:
        yield "defence", f"{defence}, unknown", base, *blind
        yield "defence", f"{defence}, known", base, *aware
        yield "defence", f"{defence}, known", "the same, unknown", aware[0], blind[0]
    for (question, of_base), side in [*jobs.items()]:
        if question.startswith("from ") and not of_base:
            yield "trainings", question, base, (side, _plain), (jobs[question, True], _plain)
        elif "=" in question:
            yield "settings", question, "the stated setting", (side, _plain), both[0]


def _plain(job: FinishedJob, eps: float | None = None) -> pd.DataFrame:
    rows = job.predictions
    return rows if eps is None else rows[rows["eps_255"].isin([0, eps])]


def _behind(job: FinishedJob) -> pd.DataFrame:
    """Return the predictions behind the defence, and the source's clean ones."""
    rows, source = job.defended, job.record.source_model
    of_source = (rows["target"] == source.model) & (rows["defence"] == source.defence)
    behind = rows["defence"] == job.record.defences[-1]
    return rows[behind | (of_source & (rows["eps_255"] == 0))]


def _instead(name: str, job: FinishedJob, **where: str) -> pd.DataFrame:
    """Return rows of another table in place of the attacked ones."""
    rows, plain = job.table(name), job.predictions
    for key, value in where.items():
        rows = rows[rows[key] == value]
    attacked = plain[plain["eps_255"] > 0].drop_duplicates("index").set_index("index")
    rows = rows[rows["eps_255"] > 0].assign(defence=NO_DEFENCE)
    rows = rows.assign(target_label=rows["index"].map(attacked["target_label"]))
    return pd.concat([plain[plain["eps_255"] == 0], rows])


def _margin(sides: list[Side], images: np.ndarray) -> dict[str, Any]:
    """Compare two sides from equal sources on equal images, with one paired test."""
    shared = [{job.record.source_model.model for job in jobs} for jobs, _ in sides]
    parts = []
    for name, (jobs, table) in zip(("one", "other"), sides, strict=True):
        for job in jobs:
            record, rows, source = job.record, table(job), job.record.source_model.model
            place = record.targets, record.protocol, rows["eps_255"].max()
            part = outcomes_of(rows, name, record.source, *place)
            pairs = zip(part.targets, part.evaluated[0], strict=True)
            defence = next(target.defence for target, used in pairs if used)
            part = replace(part.select(defence=defence), jobs=[(name, source)])
            parts += [part.on_images(images)] * (source in set.intersection(*shared))
    ranked = rankings(joined(parts), against="other")
    mean = ranked[ranked["source"] == ranked["source"].iloc[0]].set_index("attack")
    costs = [cost_of(jobs[0]) for jobs in {id(jobs): jobs for jobs, _ in sides}.values()]
    row = {**mean.loc["one"], "other": mean["mean"]["other"], "text": margin_text(mean.loc["one"])}
    return row | {"gradients": " / ".join(f"{cost:g}" for cost in costs)}


def paper_table(results: Results, question: str = "primary") -> Grid:
    """Lay out the answer to one question of `experiment=paper`; its caption is the answer."""
    grids = paper_grids(results)
    if question not in grids:
        raise ValueError(f"question={question}: these jobs answer {', '.join(grids)}.")
    return grids[question]


def paper_grids(results: Results) -> dict[str, Grid]:
    """Return the answers to `QUESTIONS` that the jobs give.

    Raises:
        ValueError: The primary comparison of `experiment=paper` is not among the jobs.
    """
    jobs, ranks = jobs_of(results), results.ranks or ranks_of(results)
    if not is_paper(results):
        raise ValueError("The jobs have no finished primary comparison of experiment=paper.")
    first, base = (jobs["primary", of_base][0] for of_base in (False, True))
    rows, record = first.predictions, first.record
    tested = rows.loc[rows["image"].isin(ranks[0].images), "index"] if ranks else rows["index"]
    rates = defaultdict[str, list[Any]](list)
    for question, what, than, *sides in _asked(jobs, base.record.label):
        if all(jobs for jobs, _ in sides):
            few = question == "settings"
            images = (sides[0][0][0].predictions["index"] if few else tested).unique()
            row = _margin(sides, images) | {"what": what, "than": than, "of": len(images)}
            row["use"] = "tuning" if few or (ranks and not ranks[0].reported) else "reporting"
            if question == "budgets":  # whose gradients are of several budgets
                row["gradients"] = rates["primary"][0]["gradients"]
            rates[question].append(row)
    place = f"at {record.reference:g}/255"
    heads = ("", "beside", f"{record.attack}, %", "other, %", "points", "images", "gradients")
    grids = {
        question: Grid(
            heads,
            [
                (
                    *(row["what"], row["than"]),
                    *(f"{100 * row[key]:.1f}" for key in ("mean", "other")),
                    *(row["text"], f"{row['images']:g}", row["gradients"]),
                )
                for row in answers
            ],
            margins_sentence(answers, record.attack, place * (question != "budgets")),
            [COUNTED[record.protocol]],
            left=(0, 1),
        )
        for question, answers in rates.items()
    }
    n, cost = rates["primary"][0]["images"], rates["primary"][0]["gradients"]
    for question, grid in zip(QUESTIONS, (None, *ranks[0].grids) if ranks else (), strict=False):
        if grid:
            text = f"{grid.caption} (n = {n:g}; {place}; {cost.partition(' ')[0]} gradients)"
            grids[question] = replace(grid, caption=text.replace("\n", " "))
    return {key: grids[key] for key in QUESTIONS if key in grids}


def paper_text(results: Results) -> str:
    """Return `paper.md`: the primary comparison, notes, and the answer to each question."""
    results = replace(results, ranks=results.ranks or ranks_of(results))
    grids, first = paper_grids(results), jobs_of(results)["primary", False]
    folder, alarms = first[0].sweep_folder, [alarm.finding for job in first for alarm in job.alarms]
    notes = [*results.ranks.notes, *(note for rank in results.ranks for note in rank.notes)]
    notes += sentences(alarms)
    stored = folder != Path()
    lines = [f"# {grids['primary'].caption}."]
    for name, asked in QUESTIONS.items():
        if name == "stored":
            lines += ["\n".join(f"- {note}" for note in dict.fromkeys(notes))]
            lines += ["# Secondary, not corrected"]
        lines += [f"## {asked}"]
        if grid := grids.get(name):
            words = f"{shlex.quote(str(folder))} --as paper --question {name} --to latex"
            lines += [f"{grid.caption}."] * (name != "primary")
            lines += [replace(grid, caption="").markdown().strip()]
            lines += [f"LaTeX: `{command('table')} {words}`"] * stored
        else:
            lines += ["No finished job, and no stored attack, answers this."]
    budgets = [part for key, part in jobs_of(results).items() if key[0] == "budgets"]
    folders = shlex.join(str(job.folder) for part in budgets for job in part)
    pdf = f"PDF of the budgets: `{command('figure')} curves {folders} --out curves.pdf`"
    lines += [pdf] * (stored and bool(budgets))
    return "\n\n".join(lines) + "\n"
