"""What an attacker can do to each target with the candidates of a sweep: sentences and curves."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import isnan

import pandas as pd
from rich.console import Console
from rich.text import Text

from ..analysis.image_outcomes import ImageOutcomes
from ..analysis.multiple_comparisons import LEVEL
from ..analysis.tries import left_by_class, success_within
from ..utils.terminal import text_table
from .summary import JobSummary, Summary
from .tries import SHOWN, candidates_of

HEADS = ("candidates", "fooled", "gradients / image", "the last of them")
_NAMED = 3
"""Number of hardest, and of easiest, classes that the text names."""


@dataclass(frozen=True)
class Audit:
    """What an attacker can do to one target.

    Attributes:
        target: The target, `NAME@DEFENCE` behind a defence.
        sentence: How many candidates fool which share of images.
        rows: The curve at some numbers of candidates, as texts in the columns `HEADS`.
        notes: The images that count, and the hardest and easiest classes.
        tries: The rows of `success_within`; empty if no image counts.
    """

    target: str
    sentence: str
    rows: Sequence[tuple[str, ...]] = ()
    notes: tuple[str, ...] = ()
    tries: pd.DataFrame = field(default_factory=pd.DataFrame)


def audits(summary: Summary) -> Iterator[Audit]:
    """Yield an audit for each target, and each defence of it, at the reference budget."""
    for group in summary.groups:
        outcomes, costs = candidates_of(group)
        for target in outcomes.targets:
            name, defence = target.columns
            alone = outcomes.select(target=name, defence=defence)
            try:
                tries = success_within(alone, costs)
            except ValueError as error:
                yield Audit(str(target), f"{target}: {error}")
            else:
                yield _audit(str(target), alone, tries, group)


def _audit(
    target: str, outcomes: ImageOutcomes, tries: pd.DataFrame, group: Sequence[JobSummary]
) -> Audit:
    job = group[0].job
    eps, fools = job.record.reference, "fool"
    if outcomes.target_labels[0] is not None:
        fools = "reach the target class on"
    last = tries.iloc[-1]
    row = tries[tries["fooled"] >= min(0.5, 0.95 * last["fooled"])].iloc[0]
    sentence = (
        f"With public models an attacker needs {row['q']} candidate{'s' * bool(row['q'] > 1)} to "
        f"{fools} {_share(row, 'fooled')} of the images of {target} at {eps:g}/255; all "
        f"{last['q']} fool {last['fooled']:.1%}."
    )
    shown = tries[tries["q"].isin([*SHOWN, row["q"], len(tries)])]
    cells = [
        (
            str(its["q"]),
            _share(its, "fooled"),
            "n/a" if isnan(its["gradients"]) else f"{its['gradients']:,.0f}",
            f"{its['attack']} from {its['source']}",
        )
        for its in shown.to_dict("records")
    ]
    labels = job.predictions.groupby("index")["label"].first()
    job.forget()
    classes, p = left_by_class(outcomes, labels.reindex(outcomes.index).to_numpy())
    counted = f"that {target} and all sources classify correctly"
    if job.record.protocol != "joint":
        counted = f"that all candidates count (protocol: {job.record.protocol})"
    notes = (
        f"Counted: {tries['images'].iloc[0]} of {job.record.images} images, {counted}.",
        _describe_classes(classes, p, len(tries), job.record.class_names),
    )
    return Audit(target, sentence, cells, notes, tries)


def _describe_classes(
    classes: pd.DataFrame, p: float, candidates: int, names: Sequence[str]
) -> str:
    """Name the classes of which the candidates leave the most and the fewest images."""
    texts = [
        f"{names[its['label']]} {its['left']} / {its['n']} = {_share(its)}"
        for its in classes.assign(share=classes["left"] / classes["n"]).to_dict("records")
    ]
    ends = min(_NAMED, len(texts) // 2)
    shown = f"Easiest to fool (left correct by all {candidates} candidates): "
    shown += f"{', '.join(texts[:ends])}. Hardest: {', '.join(reversed(texts[-ends:]))}. "
    verdict = "Classes differ" if p < LEVEL else "Classes cannot be told apart"
    verdict += f" (p {'< 0.001' if p < 0.001 else f'= {p:.2g}'}, permutation test)."
    return shown * bool(ends) + verdict


def _share(row: pd.Series | dict[str, float], name: str = "share") -> str:
    start = "" if name == "share" else f"{name}_"
    low, high = row[f"{start}low"], row[f"{start}high"]
    return f"{row[name]:.1%}" + f" [{100 * low:z.1f}, {100 * high:z.1f}]" * (not isnan(low))


def print_audits(summary: Summary, console: Console) -> None:
    """Print the audit of each target."""
    for audit in audits(summary):
        console.print("", Text(audit.sentence, style="bold"), sep="\n", soft_wrap=True)
        if audit.rows:
            table = text_table(HEADS, audit.rows, HEADS[-1:], ruled=True)
            console.print(table, Text("\n".join(audit.notes)), soft_wrap=True)
