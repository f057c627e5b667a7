"""Success of attackers within q candidates: a frame, a table for papers, and audits of targets."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import isnan, nan
from typing import Any

import pandas as pd
from rich.console import Console
from rich.text import Text

from ..analysis.image_outcomes import ImageOutcomes, image_outcomes, joined
from ..analysis.multiple_comparisons import LEVEL
from ..analysis.tries import class_success, success_within
from ..artifacts.frame_jobs import Sweeps, jobs_of
from ..artifacts.jobs import FinishedJob
from ..artifacts.likeness import is_public
from ..artifacts.sweep_state import unfinished
from ..config.sections import Protocol
from ..utils.files import no_formula
from ..utils.model_names import ABSTAINED, NO_DEFENCE, renamed
from ..utils.terminal import text_table
from .cells import TableSpec
from .paper import ESCAPES
from .source_choice import share
from .summary import JobSummary, Summary, summarise
from .verdicts import COUNTED

SHOWN = (1, 2, 5, 10, 20, 50)
_LISTED = 10
"""Numbers of candidates in the table, and the length of the listed order."""
_HEADS = {"fooled": "fooled", "unseen": "unseen target", "single": "best single"}
_NAMED = 3
"""Number of the classes most often fooled, and least often, that the text names."""
_RELATED = "the target itself, or related to it by weights, architecture or family"
_DIGESTS = ["images", "program's code"]
"""Facts of comparable jobs that name no setting."""
_ORDERS = "The last column is the order learned on all images. The others are of orders that were "
_ORDERS += "learned on some of the images and tried on others."


def tries(
    folder: Sweeps | pd.DataFrame,
    *more: Sweeps,
    eps_255: float | None = None,
    defence: str = NO_DEFENCE,
    protocol: Protocol = "target_correct",
) -> pd.DataFrame:
    """Compute the share of images that are fooled within q = 1, 2, ... candidates.

    A candidate is an attack with its source and its first seed, an untargeted one if there are any.
    An attacker tries candidates in an order that was learned on other images. Candidates from
    networks related to the target are skipped, as by `related="exclude"`. Folders are as for
    `table`.

    Args:
        folder: A frame from `load_sweep` or `transfer`, or folders.
        *more: Further folders.
        eps_255: Budget in units of 1/255; None: the reference budget.
        defence: Defence of the targets.
        protocol: Images that count for a target, whatever the jobs' own protocol. By default those
            that the target classifies correctly when clean. Where the source must be right, the
            sources of all the target's candidates must be. An adversarial image on which the target
            abstains counts as not fooled.

    Returns:
        The rows of `success_within`, with one row per q.

    Raises:
        ValueError: No ranking compares the jobs; no image counts; or there is no such budget,
            defence or protocol.
    """
    groups = comparable(jobs_of(folder, *more), protocol)
    if len(groups) != 1:
        known = " / ".join(_places(groups)) or "none"
        raise ValueError(f"tries needs attacks that a ranking compares. There are {known}.")
    every, costs = candidates_of(groups[0], eps_255)
    every = every.select(defence=defence)
    if not every.targets:
        raise ValueError(f"defence={defence}: no target is behind it.")
    return success_within(every, costs)


def comparable(jobs: Sequence[FinishedJob], protocol: str) -> list[list[JobSummary]]:
    """Group jobs as `Summary.groups`, under one protocol and without related targets."""
    same = {"protocol": protocol}
    units = [replace(job, record=job.record.model_copy(update=same)) for job in jobs]
    return summarise(units, "exclude").groups


def candidates_of(
    group: Sequence[JobSummary], eps_255: float | None = None
) -> tuple[ImageOutcomes, list[float]]:
    """Return the outcomes of comparable jobs at a budget, and their gradients per image.

    Only first seeds count, and if there are any, only untargeted attacks. An image on which the
    target abstains counts as not fooled, so that all candidates have the same images.
    """
    eps = group[0].job.record.reference if eps_255 is None else eps_255
    parts = list[tuple[ImageOutcomes, float]]()
    for its in group:
        job, record = (its.seeds or [its])[0].job, its.job.record
        names = (its.job.attack, record.source, record.targets, record.protocol)
        rows = job.defended
        abstains = (rows["predicted"] == ABSTAINED) & (rows["eps_255"] > 0)
        rows = rows.assign(predicted=rows["predicted"].mask(abstains, rows["label"]))
        budgets = image_outcomes(rows, *names)
        job.forget()
        if eps in budgets:
            budgets[eps].leave_out(its.left_out)
            parts.append((budgets[eps], its.cost.get("gradients_per_image", nan)))
    if not parts:
        raise ValueError(f"eps_255={eps:g}: there are no images with this budget.")
    parts = [part for part in parts if part[0].target_labels[0] is None] or parts
    return joined([outcomes for outcomes, _ in parts]), [cost for _, cost in parts]


def _places(groups: Sequence[Sequence[JobSummary]]) -> list[str]:
    """Return the reference budget of each group of jobs, and what else tells the groups apart."""
    records = [group[0].job.record for group in groups]
    facts = pd.DataFrame(
        {f"dataset.{key}": value for key, value in its.config["dataset"].items()}
        | {"n_images": its.images, "version": its.versions.get("transferability")}
        | json.loads(group[0].group)
        for its, group in zip(records, groups, strict=True)
    )
    facts = facts.drop(columns=_DIGESTS, errors="ignore").fillna("another").astype(str)
    unlike = [str(name) for name, its in facts.items() if its.nunique() > 1]
    if "dataset.name" in unlike:
        unlike = [name for name in unlike if name == "dataset.name" or "dataset." not in name]
    places = [f"{its.reference:g}/255" for its in records]
    for number, its in enumerate(facts.to_dict("records") if len(groups) > 1 else ()):
        texts = [f"{name}={its[name]}" for name in unlike] or [f"group {number + 1}"]
        places[number] += f" ({', '.join(texts)})"
    return places


def tries_table(*folders: Sweeps, **options: Any) -> str:
    """Lay out the rows of `tries` as Markdown, LaTeX or CSV; CSV has all of them, as numbers.

    The options are the keywords of `table`: `eps_255`, `defence`, `protocol`, `names` and `to`.
    """
    spec = TableSpec(**options)
    names = ("eps_255", "defence", "protocol")
    given: Any = {name: its for name in names if (its := getattr(spec, name)) is not None}
    if spec != TableSpec(**given, names=spec.names, to=spec.to):
        raise ValueError("--tries takes only --eps, --defence, --protocol, --names, --to, --out.")
    frame = tries(*folders, **given)
    for axis in ("attack", "source"):
        frame[axis] = [renamed(name, spec.names or {}) for name in frame[axis]]
    if spec.to == "csv":
        return frame.map(no_formula).to_csv(index=False, lineterminator="\n")
    escape = ESCAPES[spec.to or "markdown"]
    order = [f"{row.q}. {row.attack} from {row.source}" for row in frame.itertuples()]
    shown = frame[frame["q"].isin([*SHOWN, len(frame)])]
    texts = pd.DataFrame({"candidates": shown["q"].astype(str)})
    for column, head in _HEADS.items():
        ends = zip(*(100 * shown[f"{column}{end}"] for end in ("", "_low", "_high")), strict=True)
        texts[head] = [_percent(*its) for its in ends]
    texts["gradients"] = ["n/a" if isnan(its) else f"{its:,.0f}" for its in shown["gradients"]]
    first = frame.iloc[0]
    caption = (
        f"Images fooled within so many candidates, in % with 95 % intervals: {first['candidates']} "
        f"candidates, mean over {first['targets']} targets. Counted if so for all candidates: "
        f"{COUNTED[given.get('protocol', 'target_correct')]}, {first['images']} in all. Order: "
        f"{', '.join(order[:_LISTED])}."
    )
    if spec.to == "latex":
        styler = texts.map(escape).style.hide(axis="index").set_caption(escape(caption))
        return styler.to_latex(hrules=True, position="t", position_float="centering")
    lines = [list(texts), ["---"] * texts.shape[1], *texts.to_numpy()]
    return "\n".join([*(f"| {' | '.join(line)} |" for line in lines), "", escape(caption), ""])


def _percent(value: float, low: float, high: float) -> str:
    if isnan(value):
        return "n/a"
    return f"{value:z.1f}" + f" [{low:z.1f}, {high:z.1f}]" * (not isnan(low))


@dataclass(frozen=True)
class Audit:
    """Reach of an attacker who knows only public models, on one target.

    Attributes:
        target: The target, `NAME@DEFENCE` behind a defence, and what tells its audits apart.
        sentence: How many candidates fool which share of images.
        rows: The heads, and the curve at some numbers of candidates, as texts.
        notes: The images that count, what takes no part, and the classes most often fooled.
        tries: The rows of `success_within`; empty if no image counts.
    """

    target: str
    sentence: str
    rows: Sequence[tuple[str, ...]] = ()
    notes: tuple[str, ...] = ()
    tries: pd.DataFrame = field(default_factory=pd.DataFrame)


def compute_audits(summary: Summary) -> Iterator[Audit]:
    """Yield the audit of each target, and of each of its defences, at the reference budget.

    Candidates, units and skipped sources are those of `tries`.
    """
    jobs = [its.job for first in summary.attacked for its in first.seeds or [first]]
    lacking, groups = _count_unfinished(jobs), comparable(jobs, "target_correct")
    for group, place in zip(groups, _places(groups), strict=True):
        outcomes, costs = candidates_of(group)
        for target in outcomes.targets:
            name, defence = target.columns
            alone = outcomes.select(target=name, defence=defence)
            title = f"{target} at {place}" if len(groups) > 1 else str(target)
            try:
                tries = success_within(alone, costs)
            except ValueError as error:
                reason = str(error) if _tried(alone) else f"Every source is {_RELATED}."
                yield Audit(title, f"{title}: {reason}{lacking}")
            else:
                audit = _audit(alone, tries, group, place)
                yield replace(audit, target=title, sentence=audit.sentence + lacking)


def _count_unfinished(jobs: Sequence[FinishedJob]) -> str:
    """Say how many jobs have finished if the sweeps' folders show that some have not."""
    counts = unfinished({job.sweep_folder for job in jobs}).values()
    left, every = map(sum, zip(*counts, strict=True)) if counts else (0, 0)
    return f" {left} of {every} jobs are not done." * bool(left)


def _tried(outcomes: ImageOutcomes) -> set[str]:
    """Return the sources that are tried on the only target."""
    return {outcomes.jobs[job][1] for job, _ in outcomes.pairs(range(len(outcomes.jobs)), [0])}


def _audit(
    outcomes: ImageOutcomes, tries: pd.DataFrame, group: Sequence[JobSummary], place: str
) -> Audit:
    target, last = str(outcomes.targets[0]), tries.iloc[-1]
    targeted = outcomes.target_labels[0] is not None
    least = 0.5 if last["fooled"] > 0.5 - 1e-9 else 0.95 * last["fooled"]
    row = tries[tries["fooled"] > least - 1e-9].iloc[0] if last["fooled"] else last
    shown = tries[tries["q"].isin([*SHOWN, row["q"], len(tries)])]
    head = "target class reached" if targeted else "fooled"
    heads = ("candidates", head, "gradients / image", "typical order (all images)")
    cells = [
        (
            str(its["q"]),
            share(its, "fooled"),
            "n/a" if isnan(its["gradients"]) else f"{its['gradients']:,.0f}",
            f"{its['attack']} from {its['source']}",
        )
        for its in shown.to_dict("records")
    ]
    records = [its.job.record for its in group if its.job.record.source in _tried(outcomes)]
    public = all(is_public(its, name) for its in records for name in its.source_model.members)
    fool = "reach the target class on" if targeted else "fool"
    images = f"{share(row, 'fooled')} of the {last['images']} images that {target} classifies "
    images += f"correctly, at {place}"
    if row["q"] < last["q"]:
        needed = f"an attacker needs {row['q']} candidate{'s' * bool(row['q'] > 1)} to {fool}"
        images += f"; all {last['q']} {fool} {last['fooled']:.1%}"
    else:
        needed = f"all {last['q']} candidates" if last["q"] > 1 else "the only candidate can"
        needed += f" {fool}"
    sentence = f"With {'public models' if public else 'these sources'} {needed} {images}."
    notes = tuple(_notes(outcomes, tries, group))
    return Audit(target, sentence, [heads, *cells], notes, tries)


def _notes(
    outcomes: ImageOutcomes, tries: pd.DataFrame, group: Sequence[JobSummary]
) -> Iterator[str]:
    """Yield what the numbers of an audit count, what takes no part, and the classes."""
    target = outcomes.targets[0]
    sources = {
        its.job.record.source: its.job for its in group if target in its.job.record.evaluated
    }
    job = next(iter(sources.values()))
    record, here = job.record, "eps_255 == 0 & target == @target.model & defence == @target.defence"
    clean = job.defended.query(here).set_index("index")
    job.forget()
    aimed = " and that are not of the target class" * (outcomes.target_labels[0] is not None)
    abstains = " An image on which it abstains is not fooled." * target.is_defended
    count = f"the {tries['images'].iloc[0]} of {record.images} images"
    yield "A candidate is one attack from one source."
    yield f"Counted: {count} that {target} classifies correctly{aimed}.{abstains}"
    yield _ORDERS
    every = {(its.job.attack, its.job.record.source) for its in group}
    candidates = {source for _, source in outcomes.jobs}
    if skipped := sorted(candidates.intersection(sources) - _tried(outcomes)):
        yield f"Skipped: {', '.join(skipped)} ({_RELATED})."
    if every - {*outcomes.jobs} or any(its.seeds for its in group):
        yield "Only untargeted attacks and first seeds are candidates; the sweep has others."
    labels = clean["label"].reindex(outcomes.index, fill_value=-1).to_numpy()
    yield _describe_classes(*class_success(outcomes, labels), record.class_names)


def _describe_classes(classes: pd.DataFrame, p: float, names: Sequence[str]) -> str:
    """Name the classes with the largest and smallest shares fooled, if classes differ."""
    test = f"(p {'< 0.001' if p < 0.001 else f'= {p:.2g}'}, permutation test)"
    if p >= LEVEL:
        return f"Classes cannot be told apart {test}."
    rows = classes.to_dict("records")
    most, least = _first_of(rows, names), _first_of(rows[::-1], names)
    shown = f"Classes most often fooled (images on which a candidate succeeds): {most}. "
    return shown + f"Least often: {least}. Classes differ {test}."


def _first_of(rows: Sequence[Any], names: Sequence[str]) -> str:
    """List the first `_NAMED` classes, but at most half, and count more that tie."""
    listed = rows[: min(_NAMED, len(rows) // 2)]
    texts = [
        f"{names[its['label']]}: {its['fooled']} / {its['n']} = {share(its, 'share')}"
        for its in listed
    ]
    more = sum(its["share"] == rows[0]["share"] for its in rows) - len(listed)
    return ", ".join(texts) + f" and {more} more with the first share" * (more > 0)


def print_audits(summary: Summary, console: Console) -> None:
    """Print the audit of each target."""
    for audit in summary.audits:
        console.print("", Text(audit.sentence, style="bold"), sep="\n", soft_wrap=True)
        if audit.rows:
            heads, *lines = audit.rows
            table = text_table(heads, lines, heads[-1:], ruled=True)
            console.print(table, Text("\n".join(audit.notes)), soft_wrap=True)
