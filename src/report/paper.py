"""Answers to what reviewers ask of an attack, from jobs of `experiment=paper`: `paper.md`."""

import shlex
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..analysis.diagnostics import PERTURBATIONS
from ..analysis.multiple_comparisons import FEWEST_TESTED
from ..analysis.outcomes import joined, outcomes_of
from ..analysis.ranking import rankings
from ..artifacts.comparable import ALIKE, differences, networks_of
from ..artifacts.jobs import FinishedJob
from ..artifacts.layout import PREDICTIONS
from ..utils.model_names import NO_DEFENCE
from ..utils.package import command
from ..utils.vocabulary import CONTROLS
from .beside import NEAR, Ranks, beside, cost_of, margin_text, read_preset
from .grid import Grid
from .results import Results, titled_anew
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
_SHARED = (*ALIKE, "attack.target_label")
Jobs = Mapping[tuple[str, bool], list[FinishedJob]]
"""Jobs by what they answer, and whether they attack with the base."""


Side = list[tuple[FinishedJob, pd.DataFrame]]
"""Jobs, each with its predictions at one budget, and the clean ones."""


def jobs_of(results: Results) -> Jobs:
    """Return the jobs of `experiment=paper`; none of other jobs."""
    jobs = defaultdict[tuple[str, bool], list[FinishedJob]](list)
    for job in results.jobs:
        config = job.record.config
        if config.get("question"):
            jobs[config["question"], job.record.attack == config["base"]].append(job)
    return jobs


def primary_of(results: Results) -> Results:
    """Return the results without the jobs of a paper's other questions, which `paper.md` has."""
    pairs = zip(results.rows, results.groups, strict=True)
    asked = (None, "", "primary")
    main = [pair for pair in pairs if pair[0][0].job.record.config.get("question") in asked]
    if not main:
        return results
    rows, groups = zip(*main, strict=True)
    return replace(results, rows=titled_anew(rows), groups=groups)


def check_primary(jobs: Jobs) -> None:
    """Refuse jobs of several papers, and an unfinished primary comparison.

    Raises:
        ValueError: The jobs are not those of one paper, or one of its first jobs is missing.
    """
    sides = [jobs["primary", of_base] for of_base in (False, True)]
    sources = [[job.record.source for job in side] for side in sides]
    if not all(sides) or {*sources[0]} != {*sources[1]}:
        lacking = ", ".join(sorted({*sources[0]} ^ {*sources[1]})) or "all sources"
        raise ValueError(f"The primary comparison of experiment=paper lacks jobs from {lacking}.")
    records = [job.record for job in (*sides[0], *sides[1])]
    several = differences(*records, fields=_SHARED)
    titles = {job.record.label for job in sides[0]}, {job.record.attack for job in sides[1]}
    several += ["attacks"] * any(len(names) > 1 for names in titles)
    several += ["defences"] * (len({record.defences for record in records}) > 1)
    several += ["runs of one source"] * any(len(names) > len({*names}) for names in sources)
    for (question, of_base), side in jobs.items():
        key = question.partition("=")[0]
        stated = [_settings(job, key) for job in sides[of_base]]
        what = "settings (" + "base, " * of_base + f"{question})"
        several += [what] * any(_settings(job, key) not in stated for job in side)
    if several:
        raise ValueError(f"These jobs are not of one paper: they differ in {', '.join(several)}.")


def _settings(job: FinishedJob, but: str) -> dict[str, Any]:
    """Return the settings of a job's attack, but one that may differ."""
    settings = job.record.config["attack"]["settings"]
    return {key: value for key, value in settings.items() if key != but}


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

    def both(
        question: str, rows: Callable[[FinishedJob], pd.DataFrame] = _plain
    ) -> tuple[Side, Side]:
        sides = (jobs.get((question, of_base), []) for of_base in (False, True))
        left, other = ([(job, rows(job)) for job in side] for side in sides)
        return left, other

    first, one = both("primary"), jobs["primary", False]
    yield "primary", "", base, *first
    for eps in jobs["budgets", False][0].record.budgets[1:] if ("budgets", False) in jobs else ():
        yield "budgets", f"at {eps:g}/255", base, *both("budgets", partial(_plain, eps=eps))
    for name, text in CONTROLS.items():
        yield "controls", "", text, first[0], _instead(one, f"{PREDICTIONS}-{name}")
    for band in ("low", "high"):
        kinds = zip(
            (one, jobs["primary", True], one), (PERTURBATIONS[0], *PERTURBATIONS), strict=True
        )
        left, other, noise = (_instead(of, "filtered", band=band, kind=kind) for of, kind in kinds)
        yield "frequencies", f"{band}-pass", base, left, other
        yield "frequencies", f"{band}-pass", f"{band}-pass noise", left, noise
    for defence in one[0].record.defences[-1:]:
        blind, aware = both("primary", _behind), both("known", _behind)
        yield "defence", f"{defence}, unknown", base, *blind
        yield "defence", f"{defence}, known", base, *aware
        yield "defence", f"{defence}, known", "the same, unknown", aware[0], blind[0]
    for question, of_base in [*jobs]:
        if question.startswith("from ") and not of_base:
            yield "trainings", question, base, *both(question)
        elif "=" in question:
            yield "settings", question, "the stated setting", both(question)[0], first[0]


def _plain(job: FinishedJob, eps: float | None = None) -> pd.DataFrame:
    rows = job.predictions
    return rows if eps is None else rows[rows["eps_255"].isin([0, eps])]


def _behind(job: FinishedJob) -> pd.DataFrame:
    """Return the predictions behind the defence, and the source's clean ones."""
    rows, source = job.defended, job.record.source_model
    of_source = (rows["target"] == source.model) & (rows["defence"] == source.defence)
    behind = rows["defence"] == job.record.defences[-1]
    return rows[behind | (of_source & (rows["eps_255"] == 0))]


def _instead(jobs: Sequence[FinishedJob], name: str, **where: str) -> Side:
    """Return rows of another table in place of the attacked ones; nothing for jobs of a card."""
    side = Side()
    for job in (job for job in jobs if name in job.files):
        rows, plain = job.table(name), job.predictions
        for key, value in where.items():
            rows = rows[rows[key] == value]
        labels = plain[plain["eps_255"] > 0].drop_duplicates("index").set_index("index")
        rows = rows[rows["eps_255"] > 0].assign(defence=NO_DEFENCE)
        rows = rows.assign(target_label=rows["index"].map(labels["target_label"]))
        side.append((job, pd.concat([plain[plain["eps_255"] == 0], rows])))
    return side


def _margin(sides: Sequence[Side], images: np.ndarray) -> dict[str, Any]:
    """Compare two sides from equal sources on equal images, with one paired test.

    Returns:
        The row of an answer; nothing if no target is another network than the source.
    """
    shared = set.intersection(*({job.record.source_model.model for job, _ in of} for of in sides))
    parts = []
    for name, side in zip(("one", "other"), sides, strict=True):
        for job, rows in side:
            record, source = job.record, job.record.source_model.model
            place = record.targets, record.protocol, rows["eps_255"].max()
            part = outcomes_of(rows, name, record.source, *place, networks_of(record))
            pairs = zip(part.targets, part.evaluated[0], strict=True)
            defence = next(target.defence for target, used in pairs if used)
            part = replace(part.select(defence=defence), jobs=[(name, source)])
            parts += [part.on_images(images)] * (source in shared)
    ranked = rankings(joined(parts), against="other")
    if ranked.empty:
        return {}
    sources = sorted({*ranked["source"]} & shared)
    mean = ranked[ranked["source"] == ranked["source"].iloc[0]].set_index("attack")
    alike = {tuple(job.record.key for job, _ in side): side for side in sides}.values()
    counted = ([job for job, _ in of if job.record.source_model.model in sources] for of in alike)
    attacked = (pd.concat(job.predictions.query("eps_255 > 0") for job in jobs) for jobs in counted)
    costs = [float(rows["gradients"].mean()) for rows in attacked]  # of all budgets
    row = {**mean.loc["one"], "other": mean["mean"]["other"], "text": margin_text(mean.loc["one"])}
    return row | {"costs": costs, "sources": sources}


def paper_table(results: Results, question: str = "primary") -> Grid:
    """Lay out the answer to one question of `experiment=paper`; its caption is the answer."""
    grids = paper_grids(results)
    if question not in grids:
        raise ValueError(f"question={question}: these jobs answer {', '.join(grids)}.")
    return grids[question]


def paper_grids(results: Results) -> dict[str, Grid]:
    """Return the answers to `QUESTIONS` that the jobs give; raise as `check_primary` does.

    The images for tuning are those of the preset, and those of jobs with changed settings. The
    other answers leave them out, unless fewer than `FEWEST_TESTED` images would be left.
    """
    jobs, ranks = jobs_of(results), results.ranks or ranks_of(results)
    check_primary(jobs)
    first, base = (jobs["primary", of_base] for of_base in (False, True))
    record, rows = first[0].record, first[0].predictions
    tuning = _tuning_images(jobs)
    reporting = rows.loc[~rows["image"].isin(tuning), "index"].unique()
    few = len(reporting) < FEWEST_TESTED
    tested = rows["index"].unique() if few else reporting
    of = f"{len(tested)} images" + (", also for tuning" if few else " for reporting") * bool(tuning)
    at, models = f", at {record.reference:g}/255", list[str]()
    rates = defaultdict[str, list[Any]](list)
    for question, what, than, *sides in _asked(jobs, base[0].record.label):
        if all(sides):
            tuned = question == "settings"
            images = sides[0][0][1]["index"].unique() if tuned else tested
            if not (row := _margin(sides, images)):
                continue
            models = models or row["sources"]
            row |= {"than": than, "of": f"{len(images)} images for tuning" if tuned else of}
            alone = row["sources"] != models and question != "trainings"
            row["what"] = f"{what} from {', '.join(row['sources'])} alone" if alone else what
            shares = (f"{100 * row[key]:.1f}" for key in ("mean", "other"))
            numbers = row["text"], f"{row['images']:g}", costs_text(row["costs"])
            row["cells"] = (row["what"], than, *shares, *numbers)
            rates[question].append(row)
    if "primary" not in rates:
        raise ValueError("No target is another network than the source.")
    place = f"from {', '.join(models)}"
    places = {"budgets": f"{place}; of all budgets", "trainings": f"each row from its source{at}"}
    aimed = bool(record.config["attack"]["target_label"])
    heads = ("", "beside", f"{record.attack}, %", "other, %", "points", "images", "gradients")
    grids = {
        question: Grid(
            heads,
            [row["cells"] for row in answers],
            margins_sentence(answers, record.attack, places.get(question, place + at), aimed),
            [COUNTED[record.protocol]],
            left=(0, 1),
        )
        for question, answers in rates.items()
    }
    for question, grid in zip(QUESTIONS, (None, *ranks[0].grids) if ranks else (), strict=False):
        if grid:
            n = f"n = {ranks[0].own_settings['images'].max():g}"
            text = f"{grid.caption} ({ranks[0].title}; {n}; {ranks[0].cost:g} gradients per image)"
            grids[question] = replace(grid, caption=text.replace("\n", " "))
    return {key: grids[key] for key in QUESTIONS if key in grids}


def _tuning_images(jobs: Jobs) -> set[str]:
    """Return the digests of the images on which settings are chosen."""
    changed = [side for (question, _), side in jobs.items() if "=" in question]
    images = {image for side in changed for job in side for image in job.predictions["image"]}
    if preset := jobs["primary", False][0].record.config.get("beside"):
        facts, stored = read_preset(preset)
        rows = stored[0].predictions
        images |= {*rows.loc[rows["index"].isin(facts["tuning"] or ()), "image"]}
    return images


def paper_text(results: Results, missing: int = 0) -> str:
    """Return `paper.md`: the primary comparison, notes, and the answer to each question.

    `missing` is the number of jobs that are missing or have failed. Without the primary comparison
    the text says what is missing.
    """
    results = replace(results, ranks=results.ranks or ranks_of(results))
    try:
        grids = paper_grids(results)
    except ValueError as error:
        return f"# {'Not finished: ' * (missing > 0)}{error}\n"
    first, base = (jobs_of(results)["primary", of_base] for of_base in (False, True))
    folder, alarms = first[0].sweep_folder, [alarm.finding for job in first for alarm in job.alarms]
    costs, others = ({job.record.source: cost_of(job) for job in side} for side in (first, base))
    unlike = [name for name in costs if not abs(costs[name] - others[name]) <= NEAR * others[name]]
    unequal = (f"{costs[name]:g} and {others[name]:g} from {name}" for name in unlike)
    record = first[0].record
    notes = said(
        (f"{record.label} on {record.dataset}, norm {record.norm}, seed {record.seed}", True),
        (f"Targets, with equal weights: {', '.join(record.targets)}", True),
        (f"Not finished: {missing} of the jobs are missing or have failed", missing > 0),
        (f"The costs are not equal: {', '.join(unequal)}", unlike),
    )
    notes = [f"{note}." for note in (*notes, *alarms)]
    notes += [*results.ranks.notes, *(note for rank in results.ranks for note in rank.notes)]
    stored = folder != Path()
    lines = [f"# {'Not finished: ' * (missing > 0)}{grids['primary'].caption}."]
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
            lines += ["No job of this sweep, and no stored attack, answers this."]
    budgets = [side for key, side in jobs_of(results).items() if key[0] == "budgets"]
    folders = shlex.join(str(job.folder) for side in budgets for job in side)
    pdf = f"PDF of the budgets: `{command('figure')} curves {folders} --out curves.pdf`"
    lines += [pdf] * (stored and bool(budgets))
    return "\n\n".join(lines) + "\n"
