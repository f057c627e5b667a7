"""What reviewers ask of an attack, from the jobs of `experiment=paper`: tables, and `paper.md`."""

import shlex
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.text import Text

from ..analysis.diagnostics import PERTURBATIONS
from ..analysis.outcomes import Outcomes, joined, outcomes_of
from ..analysis.ranking import rankings
from ..artifacts.jobs import FinishedJob
from ..artifacts.layout import PREDICTIONS
from ..config.paper import AWARE
from ..utils.model_names import NO_DEFENCE
from ..utils.package import command
from ..utils.vocabulary import CONTROLS
from .beside import NEAR, Ranks, beside, cost_of, margin_text, read_preset
from .grid import Grid
from .results import Results
from .words import COUNTED, margins_sentence, sentences

QUESTIONS = {
    "primary": "Is it better than its base at equal cost?",
    "stored": "Is it better than stored attacks at their own settings?",
    "equal_cost": "Is it better than stored attacks of equal cost?",
    "budgets": "Does it hold at smaller and larger budgets?",
    "controls": "Is it more than noise, or another image's perturbation?",
    "frequencies": "Is it in the low or in the high frequencies?",
    "defence": "Does it hold behind a defence, also if the attacker knows it?",
    "trainings": "Does it hold from another training of a source?",
    "settings": "How sensitive is it to each of its settings?",
}
"""What the tables answer, by their names; the first is the primary comparison."""
Jobs = Mapping[tuple[str, bool], list[FinishedJob]]
"""Jobs by what they answer, and whether they attack with the base."""
Side = tuple[Sequence[FinishedJob], Callable[[FinishedJob], pd.DataFrame]]
"""Jobs, and what gives their predictions at one budget and the clean ones."""


def jobs_of(results: Results) -> Jobs:
    """Return the jobs of `experiment=paper`; none of other jobs."""
    jobs = defaultdict[tuple[str, bool], list[FinishedJob]](list)
    for job in results.jobs:
        if base := job.record.config.get("base"):
            jobs[job.record.config["question"], job.record.attack == base].append(job)
    return jobs


def ranks_of(results: Results) -> Ranks:
    """Return the attack among all stored ones, those of its category, or of its base's, named."""
    first = jobs_of(results)["primary", False]
    config = first[0].record.config if first else {}
    if not config.get("beside"):
        return Ranks()
    facts, stored = read_preset(config["beside"])
    kinds = {its.record.attack: its.record.config["attack"]["about"]["category"] for its in stored}
    kind, base = config["attack"]["about"]["category"], config["base"]
    kind = kind if kind in kinds.values() else kinds.get(base)
    named = [name for name in kinds if kinds[name] == kind or name == base]
    return beside(first, config["beside"], named, (facts, stored))


def _asked(jobs: Jobs, base: str) -> Iterator[tuple[str, str, str, Side, Side]]:
    """Yield a question, a row's name, the name of the other side, and both sides."""
    both = (jobs["primary", False], _plain), (jobs["primary", True], _plain)
    one, other = (jobs for jobs, _ in both)
    yield "primary", "", base, *both
    for eps in jobs["budgets", False][0].record.budgets[1:] if jobs["budgets", False] else ():
        sides = ((jobs["budgets", its], partial(_plain, eps=eps)) for its in (False, True))
        yield "budgets", f"at {eps:g}/255", base, *sides
    for name, text in CONTROLS.items():
        control = one, partial(_instead, f"{PREDICTIONS}-{name}")
        yield "controls", "", text, both[0], control
    for band in ("low", "high"):
        part, noise = (
            partial(_instead, "filtered", band=band, kind=kind) for kind in PERTURBATIONS
        )
        yield "frequencies", f"{band}-pass", base, (one, part), (other, part)
        yield "frequencies", f"{band}-pass", f"{band}-pass noise", (one, part), (one, noise)
    blind, aware = (
        [(jobs[its, of], _behind) for of in (False, True)] for its in ("primary", AWARE)
    )
    yield "defence", f"{AWARE}, unknown", base, *blind
    yield "defence", f"{AWARE}, known", base, *aware
    yield "defence", f"{AWARE}, known", "the same, unknown", aware[0], blind[0]
    for (question, of_base), its in [*jobs.items()]:
        if question.startswith("from ") and not of_base:
            yield "trainings", question, base, (its, _plain), (jobs[question, True], _plain)
        elif "=" in question:
            yield "settings", question, "the stated setting", (its, _plain), both[0]


def _plain(job: FinishedJob, eps: float | None = None) -> pd.DataFrame:
    rows = job.predictions
    return rows if eps is None else rows[rows["eps_255"].isin([0, eps])]


def _behind(job: FinishedJob) -> pd.DataFrame:
    """Return the predictions behind the defence, and the source's clean ones."""
    rows, source = job.defended, job.record.source_model
    of_source = (rows["target"] == source.model) & (rows["defence"] == source.defence)
    return rows[(rows["defence"] == AWARE) | (of_source & (rows["eps_255"] == 0))]


def _instead(name: str, job: FinishedJob, **where: str) -> pd.DataFrame:
    """Return rows of another table in place of the attacked ones."""
    rows, plain = job.table(name), job.predictions
    for key, value in where.items():
        rows = rows[rows[key] == value]
    attacked = plain[plain["eps_255"] > 0].drop_duplicates("index").set_index("index")
    rows = rows[rows["eps_255"] > 0].assign(defence=NO_DEFENCE)
    rows = rows.assign(target_label=rows["index"].map(attacked["target_label"]))
    return pd.concat([plain[plain["eps_255"] == 0], rows])


def _outcomes(job: FinishedJob, name: str, rows: pd.DataFrame) -> Outcomes:
    """Return a job's outcomes at one defence of the targets, as if its source had none."""
    record = job.record
    place = record.source, record.targets, record.protocol, rows["eps_255"].max()
    part = outcomes_of(rows, name, *place)
    pairs = zip(part.targets, part.evaluated[0], strict=True)
    defence = next(target.defence for target, its in pairs if its)
    return replace(part.select(defence=defence), jobs=[(name, record.source_model.model)])


def _margin(sides: Sequence[Side], images: np.ndarray, costs: Mapping[str, float]) -> Any:
    """Compare two sides from equal sources on equal images, with one paired test."""
    shared = [{job.record.source_model.model for job in jobs} for jobs, _ in sides]
    parts = [
        _outcomes(job, name, table(job)).on_images(images)
        for name, (jobs, table) in zip(("one", "other"), sides, strict=True)
        for job in jobs
        if job.record.source_model.model in set.intersection(*shared)
    ]
    ranked = rankings(joined(parts), against="other")
    mean = ranked[ranked["source"] == ranked["source"].iloc[0]].set_index("attack")
    taken = []
    for jobs in {id(jobs): jobs for jobs, _ in sides}.values():
        known = [cost_of(job) for job in jobs]
        taken += [costs[jobs[0].record.attack] if np.isnan(known).any() else np.mean(known)]
    row = {**mean.loc["one"], "other": mean["mean"]["other"], "text": margin_text(mean.loc["one"])}
    return row | {"gradients": " / ".join(f"{its:g}" for its in taken)}


def paper_grids(results: Results) -> dict[str, Grid]:
    """Return the tables of `QUESTIONS` that the finished jobs answer; captions say what they say.

    Raises:
        ValueError: The primary comparison of `experiment=paper` is not among the jobs.
    """
    jobs, ranks = jobs_of(results), results.ranks or ranks_of(results)
    if not (jobs["primary", False] and jobs["primary", True]):
        raise ValueError("The jobs have no finished primary comparison of experiment=paper.")
    (first, base), rows = (
        (jobs["primary", of][0] for of in (False, True)),
        jobs["primary", False][0].predictions,
    )
    record, every, grids = first.record, rows["index"].unique(), dict[str, Grid]()
    costs = {job.record.attack: cost_of(job) for job in (first, base)}
    tested = rows[rows["image"].isin(ranks[0].images)]["index"].unique() if ranks else every
    answers = defaultdict[str, list[Any]](list)
    for question, what, than, *sides in _asked(jobs, base.record.label):
        images = np.setdiff1d(every, tested) if question == "settings" else tested
        if len(images) and all(its for its, _ in sides):
            row = _margin(sides, images, costs) | {"what": what, "than": than, "of": len(images)}
            answers[question].append(row)
    heads = ["", "beside", f"{record.attack}, %", "beside, %", "difference, points", "images"]
    for question, found in answers.items():
        cells = [
            [
                *(
                    row["what"],
                    row["than"],
                    f"{100 * row['mean']:.1f}",
                    f"{100 * row['other']:.1f}",
                ),
                *(row["text"], f"{row['images']:g}", row["gradients"]),
            ]
            for row in found
        ]
        text = margins_sentence(
            found, record.attack, "tuning" if question == "settings" else "reporting"
        )
        grids[question] = Grid(
            [*heads, "gradients"], cells, text, [COUNTED[record.protocol]], left=(0, 1)
        )
    stored = zip(("stored", "equal_cost"), ranks[0].grids if ranks else (), strict=False)
    place = f"at {record.reference:g}/255 and {costs[record.attack]:g} gradients per image"
    grids |= {name: replace(its, caption=f"{its.caption}, {place}") for name, its in stored}
    mark = "Secondary, not corrected"
    return {
        name: grids[name]
        if name == "primary"
        else replace(grids[name], caption=f"{mark}: {grids[name].caption}")
        for name in QUESTIONS
        if name in grids
    }


def paper_table(results: Results, question: str = "primary") -> Grid:
    """Lay out the answer to one question of `experiment=paper`; its caption is the answer."""
    grids = paper_grids(results)
    if question not in grids:
        raise ValueError(f"question={question}: these jobs answer {', '.join(grids)}.")
    return grids[question]


def print_paper(results: Results, console: Console) -> None:
    """Print the primary comparison, if the jobs have one."""
    if all(jobs_of(results)["primary", of] for of in (False, True)):
        console.print(Text(f"{paper_table(results).caption}.\n", "bold"), soft_wrap=True)


def paper_text(results: Results) -> str:
    """Return `paper.md`: the primary comparison, notes, and the answer to each question."""
    grids, ranks, first = paper_grids(results), results.ranks, jobs_of(results)["primary", False]
    folder, alarms = first[0].sweep_folder, [its.finding for job in first for its in job.alarms]
    notes = dict.fromkeys([*(ranks[0].notes if ranks else ()), *sentences(alarms)])
    lines = [f"# What reviewers ask of {first[0].record.attack}"]
    for name, asked in QUESTIONS.items():
        lines += [f"## {asked}"] * (name != "primary")
        if grid := grids.get(name):
            make = f"{command('table')} {shlex.quote(str(folder))} --as paper --question {name}"
            table = replace(grid, caption="").markdown().strip()
            lines += [f"{grid.caption}.", table, f"LaTeX: `{make} --to latex`"]
        else:
            lines += ["No finished job, and no stored attack, answers this."]
        lines += ["\n".join(f"- {its}" for its in notes if AWARE not in its)] * (name == "primary")
    return "\n\n".join(lines) + "\n"
