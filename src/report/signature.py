"""The signature of an output: one line that says what its numbers are numbers of.

Its parts are readable choices, a digest over all facts of the jobs, and the program's version.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import quote

import pandas as pd

from ..analysis.transfer_rates import TRANSFER
from ..artifacts.comparable import ALIKE, digest, experiment, facts
from ..artifacts.jobs import find_jobs
from ..utils.model_names import NO_DEFENCE
from ..utils.package import INSTALLED
from ..utils.refusals import printable
from .results import JobResults, Results, results_of
from .trainings import without_training_seed

_PARTS = (
    *("value and protocol", "images counted", "images", "budget", "attack", "source", "targets"),
    *("data set", "defences", "arithmetic", "seed", "digest", "version"),
)
"""Names of what a signature states, in this order."""
_MAY_DIFFER = {"images counted", "attack", "source", "targets", "defences", "digest"}
"""What may differ between numbers of one table."""
_SHARED = [name for name in ALIKE if name != "program's code"]
"""Facts that may not differ between numbers of one table; the version tells programs apart."""
_MOST = 4
"""Number of names that are listed; of more there is their number."""
_SHORT = {"steps", "step_size_255", "relative_step_size", "decay"}
"""Settings that have words of their own."""


def signature_of(results: Results, pairs: pd.DataFrame, value: str = "success") -> str:
    """Return the signature of the numbers for some pairs; an empty text without pairs.

    Args:
        results: The results.
        pairs: Rows of its frame that are no means over sources or targets.
        value: Name of what is shown, as in `src.table`.
    """
    if pairs.empty:
        return ""
    titles = {*map(without_training_seed, pairs["attack"])}
    jobs = [job for row in results.attacked for job in row]
    jobs = [job for job in jobs if without_training_seed(job.job.attack) in titles]
    records = [job.job.record for job in jobs]
    labels = sorted({record.label for record in records})
    attacks = [_attack([job for job in jobs if job.job.record.label == label]) for label in labels]
    success = pairs["targeted"].map({True: "reached", False: "fooled"})
    values = _listed(success if value == "success" else [value])
    counted = pairs[["least", "most"]].round().to_numpy().ravel()
    counts = f"{_span(counted)}/{_span(record.images for record in records)}"
    budgets = "+".join(f"{eps:g}" for eps in sorted({*pairs["eps_255"]}))
    white = bool((pairs["relation"] != TRANSFER).any())
    trainers = [record.config["trainer"] for record in records]
    formats = {(of["precision"], of["attack_precision"]) for of in trainers}
    versions = {f"{r.versions.get(INSTALLED)}+{r.code.get('program', '')[:6]}" for r in records}
    parts = (
        f"{values},{_listed(pairs['protocol'])},n={counts}",
        f"{_listed(pairs['norm'])} {budgets}/255 {_listed(r.storage for r in records)}",
        ",".join(attacks) if len(attacks) <= _MOST else f"attacks={len(attacks)}",
        f"src={_listed(pairs['source'])}",
        f"tgt={pairs['target'].nunique()},{'no ' * (not white)}white box",
        f"img={_listed(r.dataset for r in records)}",
        f"def={_listed(pairs['defence'])}",
        _listed("+".join(dict.fromkeys(names)) for names in formats).replace("32-true", "fp32"),
        f"seed={','.join(map(str, sorted({r.seed for r in records})))}",
        f"#{digest(sorted({experiment(r) for r in records}))[:8]}",
        f"v{_listed(versions)}",
    )
    return "|".join(parts)


def _attack(jobs: Sequence[JobResults]) -> str:
    """Return an attack, its settings, and its gradients per image as they were counted."""
    record = jobs[0].job.record
    name, _, typed = record.label.removesuffix(")").partition(" (")
    words = [word for word in re.split(r", (?=\w+=)", typed) if "=" in word]
    words = [name, *(word for word in words if word.partition("=")[0] not in _SHORT)]
    stated = record.config["attack"]["settings"]
    steps, size, share = map(stated.get, ("steps", "step_size_255", "relative_step_size"))
    words += [f"steps={steps}"] * (steps is not None)
    if steps is not None and "step_size_255" in stated:
        relative = f"eps*{share}" if share else f"eps/{steps}"
        words.append(f"step={f'{size}'.removesuffix('.0')}/255" if size else f"step={relative}")
    words += [f"mu={stated.get('decay')}".removesuffix(".0")] * ("decay" in stated)
    if counts := [count for job in jobs if (count := job.cost.get("gradients_per_image"))]:
        words.append(f"grad={_span(counts)}")
    return " ".join(map(_escaped, words))


def _listed(names: Iterable[str]) -> str:
    """Return a few names, or the number of many."""
    listed = sorted({*names}, key=lambda name: (name != NO_DEFENCE, name))
    return ",".join(map(_escaped, listed)) if len(listed) <= _MOST else f"{len(listed)}"


def _span(numbers: Iterable[float]) -> str:
    ends = sorted({*numbers})
    return "-".join(f"{end:.10g}" for end in dict.fromkeys([ends[0], ends[-1]]))


def _escaped(text: str) -> str:
    """Return a text without the characters that part a signature."""
    return re.sub(r"[%|,#`\s]", lambda mark: quote(mark[0]), printable(text))


def compare_signatures(one: str, other: str) -> tuple[list[str], bool]:
    """Say in what two signatures differ, and return whether their numbers may be in one table.

    A folder or a card stands for its signature. Of two of them the facts behind the digest that
    jobs of one mean share are compared, too.

    Raises:
        ValueError: An argument is no signature, or its jobs have none.
    """
    (parts, behind), (others, shared) = map(_read, (one, other))
    unlike = {name: [text, others[name]] for name, text in parts.items() if text != others[name]}
    alone, both = [*unlike] == ["digest"], bool(behind and shared)
    for name in sorted(behind.keys() & shared) if unlike else ():
        if behind[name] != shared[name]:
            unlike[name] = [", ".join(sorted(texts[name])) for texts in (behind, shared)]
    lines = [f"{name}: {' -> '.join(texts)}" for name, texts in unlike.items()]
    wrong = [name for name in unlike if name not in _MAY_DIFFER]
    wrong += ["targets, weights, files or settings"] * (alone and not both)
    verdict = "may not be in one table: that needs equal" if wrong else "may be in one table"
    lines.append(f"The numbers {' '.join([verdict, ', '.join(wrong)]).strip()}.")
    more = "Two folders or cards show what else differs." if unlike else "The same experiment."
    return lines + [more] * (not (unlike and both)), not wrong


def _read(place: str) -> tuple[dict[str, str], dict[str, set[str]]]:
    """Return the parts of a signature by name, and of a folder or card shared facts of its jobs."""
    shared = defaultdict[str, set[str]](set)
    if "|" not in place:
        results = results_of(find_jobs([Path(place)]))
        place = results.signature
        for job in results.jobs:
            for name, text in facts(job.record, _SHARED).items():
                shared[name].add(text)
    texts = place.strip("`% \n").split("|")
    start, _, counts = texts[0].rpartition(",n=")
    texts[0:1] = [start, *counts.partition("/")[::2]]
    if len(texts) != len(_PARTS):
        raise ValueError(f"{place[:80]}: no signature, which has 11 parts between bars.")
    return dict(zip(_PARTS, texts, strict=True)), shared
