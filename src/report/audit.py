"""What an attacker can do to each target with the candidates of a sweep: sentences and curves."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import isnan
from typing import Any

import pandas as pd
from rich.console import Console
from rich.text import Text

from ..analysis.image_outcomes import ImageOutcomes
from ..analysis.multiple_comparisons import LEVEL
from ..analysis.tries import left_by_class, success_within
from ..artifacts.record import JobRecord
from ..utils.terminal import text_table
from .summary import Summary
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
        labels = group[0].job.predictions.groupby("index")["label"].first()
        group[0].job.forget()
        for target in outcomes.targets:
            name, defence = target.columns
            alone = outcomes.select(target=name, defence=defence)
            try:
                tries = success_within(alone, costs)
            except ValueError as error:
                yield Audit(str(target), f"{target}: {error}")
            else:
                classes = left_by_class(alone, labels.reindex(alone.index).to_numpy())
                yield _audit(alone, tries, *classes, group[0].job.record)


def _audit(
    outcomes: ImageOutcomes, tries: pd.DataFrame, classes: pd.DataFrame, p: float, record: JobRecord
) -> Audit:
    target, last = str(outcomes.targets[0]), tries.iloc[-1]
    row = tries[tries["fooled"] >= min(0.5, 0.95 * last["fooled"])].iloc[0]
    targeted = outcomes.target_labels[0] is not None
    fool = "reach the target class on" if targeted else "fool"
    images = f"{_share(row, 'fooled')} of the images of {target} at {record.reference:g}/255"
    sentence = (
        f"With public models an attacker needs {row['q']} candidate{'s' * bool(row['q'] > 1)} to "
        f"{fool} {images}; all {last['q']} {fool} {last['fooled']:.1%}."
    )
    if not last["fooled"]:
        sentence = f"With public models all {last['q']} candidates {fool} {images}."
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
    counted = f"that {target} and all sources classify correctly"
    if record.protocol != "joint":
        counted = f"that all candidates count (protocol: {record.protocol})"
    notes = (
        f"Counted: the {last['images']} of {record.images} images {counted}.",
        _describe_classes(classes, p, record.class_names),
    )
    return Audit(target, sentence, cells, notes, tries)


def _describe_classes(classes: pd.DataFrame, p: float, names: Sequence[str]) -> str:
    """Name the classes with the smallest and the largest shares of images that are left."""
    texts = [
        f"{names[its['label']]} {its['left']} / {its['n']} = {_share(its, 'share')}"
        for its in classes.to_dict("records")
    ]
    ends = min(_NAMED, len(texts) // 2)
    shown = f"Easiest classes (images on which no candidate succeeds): {', '.join(texts[:ends])}. "
    shown += f"Hardest: {', '.join(reversed(texts[-ends:]))}. "
    verdict = "Classes differ" if p < LEVEL else "Classes cannot be told apart"
    verdict += f" (p {'< 0.001' if p < 0.001 else f'= {p:.2g}'}, permutation test)."
    return shown * bool(ends) + verdict


def _share(row: Any, name: str) -> str:
    low, high = 100 * row[f"{name}_low"], 100 * row[f"{name}_high"]
    return f"{row[name]:.1%}" + f" [{low:z.1f}, {high:z.1f}]" * (not isnan(low))


def print_audits(summary: Summary, console: Console) -> None:
    """Print the audit of each target."""
    for audit in audits(summary):
        console.print("", Text(audit.sentence, style="bold"), sep="\n", soft_wrap=True)
        if audit.rows:
            table = text_table(HEADS, audit.rows, HEADS[-1:], ruled=True)
            console.print(table, Text("\n".join(audit.notes)), soft_wrap=True)
