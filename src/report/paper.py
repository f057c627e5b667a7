"""What reviewers ask of an attack, from the jobs of `experiment=paper`: tables, and one page."""

import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.text import Text

from ..analysis.outcomes import Outcomes, joined, outcomes_of
from ..analysis.ranking import rankings
from ..artifacts.jobs import FinishedJob
from ..artifacts.layout import PREDICTIONS
from ..config.paper import AWARE
from ..utils.model_names import NO_DEFENCE
from ..utils.package import command
from ..utils.vocabulary import CONTROLS
from .beside import NEAR, Ranks, beside, cost_of, read_preset, tested_images
from .grid import Grid
from .results import Results
from .words import (
    COUNTED,
    difference_text,
    differences_sentence,
    margin_sentence,
    place_text,
    sentences,
)

Table = Callable[[FinishedJob], pd.DataFrame]
"""Gives a job's predictions at the targets of a question, with the clean ones."""
Side = tuple[Sequence[FinishedJob], Table]
Row = dict[str, Any]
_STATED = "the stated setting"


@dataclass(frozen=True)
class Paper:
    """The jobs of `experiment=paper` by what they answer.

    Attributes:
        jobs: The attacked jobs with a base.
        known: Ranks of the attack among stored ones, if they are computed already.
    """

    jobs: Sequence[FinishedJob]
    known: Ranks = field(default_factory=Ranks)

    @classmethod
    def of(cls, results: Results) -> "Paper":
        """Return the jobs of a sweep; refuse one without a finished first comparison."""
        paper = cls([job for job in results.jobs if job.record.config.get("base")], results.ranks)
        if not (paper.of_kind("first") and paper.of_kind("first", base=True)):
            raise ValueError("There is no finished comparison of experiment=paper in these jobs.")
        return paper

    def of_kind(self, kind: str, base: bool = False) -> list[FinishedJob]:
        """Return the jobs of the attack, or of its base, of one kind."""
        ours = [its for its in self.jobs if (its.record.attack == self.base) == base]
        return [job for job in ours if self.kind_of(job) == kind]

    def kind_of(self, job: FinishedJob) -> str:
        """Return `first`, `aware`, `budgets`, `training`, or a changed setting, `KEY=VALUE`."""
        record = job.record
        if record.config.get("controls"):
            return "first"
        if record.source_model.is_defended:
            return "aware"
        settings = (its for its in record.overrides if its.startswith("attack."))
        others = [its.removeprefix("attack.") for its in settings if its not in self.stated]
        return "budgets" if len(record.budgets) > 2 else next(iter(others), "training")

    @cached_property
    def stated(self) -> set[str]:
        """The overrides of the first comparison."""
        first = (job.record for job in self.jobs if job.record.config.get("controls"))
        return {word for record in first for word in record.overrides}

    @property
    def base(self) -> str:
        """The base's name."""
        return str(self.jobs[0].record.config["base"]) if self.jobs else ""

    @cached_property
    def names(self) -> tuple[str, str]:
        """The names of the attack and of its base, which states its number of gradients."""
        first, base = (self.of_kind("first", its)[0].record for its in (False, True))
        return first.attack, base.label

    @cached_property
    def preset(self) -> tuple[Mapping[str, Any], Sequence[FinishedJob]]:
        """Facts and jobs of the preset; without one, no image is for tuning."""
        name = self.jobs[0].record.config.get("beside")
        return read_preset(name) if name else ({"tuning": []}, [])

    @cached_property
    def tuning(self) -> np.ndarray:
        """Numbers of the images for tuning, found by their digests."""
        (facts, stored), rows = self.preset, self.of_kind("first")[0].predictions
        if not stored:
            return np.array([], np.int64)
        known = stored[0].predictions
        digests = known.loc[known["index"].isin(facts["tuning"]), "image"]
        return rows.loc[rows["image"].isin(digests), "index"].unique()

    @cached_property
    def reporting(self) -> np.ndarray:
        """Numbers of the images for reporting; all, if these are too few to test."""
        index = self.of_kind("first")[0].predictions["index"].unique()
        return tested_images(index, {"tuning": self.tuning})

    @cached_property
    def ranks(self) -> Ranks:
        """The attack among the stored attacks of the preset; empty without one."""
        name = self.jobs[0].record.config.get("beside")
        return self.known or (beside(self.of_kind("first"), name) if name else Ranks())

    def margin(
        self,
        what: str,
        one: Side,
        other: Side,
        than: str = "",
        eps: float | None = None,
        images: np.ndarray | None = None,
    ) -> Row:
        """Compare two sets of jobs from equal sources on equal images, with one paired test."""
        sources = {job.record.source_model.model for job in one[0]}
        sources &= {job.record.source_model.model for job in other[0]}
        parts = [
            _outcomes(job, name, table(job), eps).on_images(
                self.reporting if images is None else images
            )
            for name, (jobs, table) in (("one", one), ("other", other))
            for job in jobs
            if job.record.source_model.model in sources
        ]
        ranked = rankings(joined(parts), against="other")
        mean = ranked[ranked["source"] == ranked["source"].iloc[0]].set_index("attack")
        row: Row = mean.loc["one"].to_dict() | {"what": what, "than": than or self.names[1]}
        row |= {"low": row["difference_low"], "high": row["difference_high"]}
        costs = (float(np.mean([*map(cost_of, jobs)])) for jobs, _ in (one, other))
        row |= dict(zip(("gradients", "gradients_other"), costs, strict=True))
        return row | {"other": mean["mean"]["other"]}


def first_jobs(results: Results) -> list[FinishedJob]:
    """Return the jobs of the attack's first comparison; empty if these are no jobs of a paper."""
    return Paper([job for job in results.jobs if job.record.config.get("base")]).of_kind("first")


def _outcomes(job: FinishedJob, name: str, rows: pd.DataFrame, eps: float | None) -> Outcomes:
    """Return a job's outcomes at one defence of the targets, as if its source had none."""
    record = job.record
    budget = record.reference if eps is None else eps
    part = outcomes_of(rows, name, record.source, record.targets, record.protocol, budget)
    pairs = zip(part.targets, part.evaluated[0], strict=True)
    defence = next(target.defence for target, its in pairs if its)
    return replace(part.select(defence=defence), jobs=[(name, record.source_model.model)])


def _plain(job: FinishedJob) -> pd.DataFrame:
    return job.predictions


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


def _primary(paper: Paper) -> list[Row]:
    one, other = paper.of_kind("first"), paper.of_kind("first", base=True)
    at = f"{one[0].record.reference:g}/255"
    return [paper.margin(at, (one, _plain), (other, _plain))]


def _stored(paper: Paper, name: str) -> list[Row]:
    """Return the attack minus each stored attack of its category, or its base's, and its base."""
    if not paper.ranks:
        return []
    ranked, base = getattr(paper.ranks[0], name), paper.base
    stored = {job.row_title: job.record for job in paper.preset[1]}
    category = {job.attack: job.config["attack"]["about"]["category"] for job in stored.values()}
    kind = paper.of_kind("first")[0].record.config["attack"]["about"]["category"]
    kind = kind if kind in category.values() else category.get(base)
    rows, one = ranked.dropna(subset="difference"), ranked.set_index("attack")
    alike = [
        its in stored and (category[stored[its].attack] == kind or stored[its].attack == base)
        for its in rows["attack"]
    ]
    return [
        row
        | {"what": row["attack"], "than": row["attack"], "other": row["mean"]}
        | {"mean": one["mean"][paper.ranks[0].attack], "difference": -row["difference"]}
        | {"low": -row["difference_high"], "high": -row["difference_low"]}
        | {"gradients": paper.ranks[0].cost, "gradients_other": row["gradients"]}
        for row in rows[alike].to_dict("records")
    ]


def _budgets(paper: Paper) -> list[Row]:
    one, other = paper.of_kind("budgets"), paper.of_kind("budgets", base=True)
    costs = {key: _primary(paper)[0][key] for key in ("gradients", "gradients_other")}
    return [
        paper.margin(f"{eps:g}/255", (one, _plain), (other, _plain), eps=eps) | costs
        for eps in (one[0].record.budgets[1:] if one and other else ())
    ]


def _controls(paper: Paper) -> list[Row]:
    jobs, none = paper.of_kind("first"), {"gradients_other": 0.0}
    return [
        paper.margin(text, (jobs, _plain), (jobs, partial(_instead, f"{PREDICTIONS}-{its}")), text)
        | none
        for its, text in CONTROLS.items()
    ]


def _frequencies(paper: Paper) -> list[Row]:
    one, base = paper.of_kind("first"), paper.of_kind("first", base=True)
    rows = list[Row]()
    for band in ("low", "high"):
        part, noise = (
            partial(_instead, "filtered", band=band, kind=its) for its in ("attack", "noise")
        )
        rows += [
            paper.margin(f"{band} frequencies", (one, part), (base, part)),
            paper.margin(f"{band} frequencies", (one, part), (one, noise), f"{band}-pass noise")
            | {"gradients_other": 0.0},
        ]
    return rows


def _defence(paper: Paper) -> list[Row]:
    first, aware = (
        [(paper.of_kind(kind, base), _behind) for base in (False, True)]
        for kind in ("first", "aware")
    )
    if not all(jobs for jobs, _ in aware):
        return []
    return [
        paper.margin(f"{AWARE}, not known to the attacker", *first),
        paper.margin(f"{AWARE}, known to the attacker", *aware),
        paper.margin(f"{AWARE}, known", aware[0], first[0], "the same, not known"),
    ]


def _changes(paper: Paper) -> list[Row]:
    kinds, stated = dict.fromkeys(map(paper.kind_of, paper.jobs)), (paper.of_kind("first"), _plain)
    return [
        paper.margin(its, (paper.of_kind(its), _plain), stated, _STATED, images=paper.tuning)
        for its in kinds
        if "=" in its
    ]


def _trainings(paper: Paper) -> list[Row]:
    """Return the attack minus its base from each training of a network that has several."""
    sides = [paper.of_kind("first", its) + paper.of_kind("training", its) for its in (False, True)]
    names = [job.record.source_model for job in sides[0]]
    several = Counter(its.architecture for its in names)
    rows = list[Row]()
    for name in sorted(its.model for its in names if several[its.architecture] > 1):
        pair = [([job for job in jobs if job.record.source == name], _plain) for jobs in sides]
        rows += [paper.margin(f"from {name}", *pair)]
    return rows


QUESTIONS: dict[str, tuple[str, Callable[[Paper], list[Row]], str]] = {
    "primary": ("Is it better than its base at equal cost?", _primary, ""),
    "stored": (
        "Is it better than the stored attacks of its category, at their own settings?",
        partial(_stored, name="own"),
        "tested together",
    ),
    "equal_cost": (
        "And than those of equal cost?",
        partial(_stored, name="equal_cost"),
        "tested together",
    ),
    "budgets": ("Does it hold at smaller and larger budgets?", _budgets, ""),
    "controls": ("Is it more than noise, or another image's perturbation?", _controls, ""),
    "frequencies": (
        "Is it in the low or in the high frequencies?",
        _frequencies,
        "each part is scaled to the L2 norm of the same part of noise",
    ),
    "defence": ("Does it hold behind a defence, also if the attacker knows it?", _defence, ""),
    "trainings": ("Does it hold from another training of a source?", _trainings, ""),
    "changes": ("How sensitive is it to each of its settings?", _changes, ""),
}
"""Each question with the rows that answer it, and a note; the first is the primary comparison."""


def paper_table(results: Results, question: str = "primary") -> Grid:
    """Lay out the answer to one question of `experiment=paper`; its caption says what it says."""
    if question not in QUESTIONS:
        raise ValueError(f"question={question}: choose from {', '.join(QUESTIONS)}.")
    return _grid(Paper.of(results), question)


def _grid(paper: Paper, question: str) -> Grid:
    """Lay out the answer to a question; without one, there is only a caption."""
    rows, (attack, base) = QUESTIONS[question][1](paper), paper.names
    if not rows:
        return Grid((), (), "no finished job and no stored attack answers this")
    record = paper.of_kind("first")[0].record
    tuned = question == "changes" or bool(np.isin(paper.reporting, paper.tuning).any())
    images = paper.tuning if question == "changes" else paper.reporting
    eps = "the budgets below" if question == "budgets" else f"{record.reference:g}/255"
    place = place_text(rows, len(images), "tuning" if tuned else "reporting", eps)
    if question == "primary":
        text = margin_sentence(rows[0], attack, base, NEAR)
    else:
        text = f"Secondary, not corrected: {differences_sentence(rows, attack)}"
    cells = [
        [
            row["what"],
            row["than"],
            f"{100 * row['mean']:.1f}",
            f"{100 * row['other']:.1f}",
            difference_text(row),
            "" if np.isnan(row["p"]) else f"{row['p']:.2g}",
            f"{row['images']:g}",
            f"{row['gradients']:g} / {row['gradients_other']:g}",
        ]
        for row in rows
    ]
    heads = ["", "compared with", f"{attack}, %", "other, %", "points", "p", "images", "gradients"]
    counted = f"fooled, mean over sources and other networks; counted: {COUNTED[record.protocol]}"
    legend = [*filter(None, [counted, QUESTIONS[question][2]])]
    return Grid(heads, cells, f"{text} ({place})", legend, left=(0, 1), data=pd.DataFrame(rows))


def print_paper(results: Results, console: Console) -> None:
    """Print the primary comparison, if the jobs are those of a paper."""
    if first_jobs(results):
        text = f"{paper_table(results).caption}.\n"
        console.print(Text(text, "bold"), soft_wrap=True)


def paper_text(results: Results) -> str:
    """Return `paper.md`: the primary comparison, notes, and the answer to each question."""
    paper = Paper.of(results)
    (attack, base), first = paper.names, paper.of_kind("first")
    folder, ranks = shlex.quote(str(first[0].sweep_folder)), paper.ranks
    alarms = [its.finding for job in first for its in job.alarms]
    notes = dict.fromkeys([*(ranks[0].notes if ranks else ()), *ranks.notes, *sentences(alarms)])
    lines = [f"# {attack} beside {base}"]
    for name, (asked, *_) in QUESTIONS.items():
        grid = _grid(paper, name)
        if name == "stored":
            lines += ["\n".join(f"- {its}" for its in notes if AWARE not in its)]
            lines += ["## Secondary, not corrected"]
        lines += [f"### {asked}"] * (name != "primary") + [f"{grid.caption}."]
        if grid.cells:
            make = f"{command('table')} {folder} --as paper --question {name} --to latex"
            lines += [replace(grid, caption="").markdown().strip(), f"LaTeX: `{make}`"]
    return "\n\n".join(lines) + "\n"
