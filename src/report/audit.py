"""Success of attackers within q candidates: a frame, the cells of its table, audits of targets."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import nan
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from rich.console import Console
from rich.text import Text

from ..analysis.intervals import paired_interval
from ..analysis.outcomes import Outcomes, joined, outcomes_of
from ..analysis.tries import class_success, success_within
from ..artifacts.comparable import differences
from ..artifacts.finished_job import FinishedJob
from ..artifacts.jobs import rows_of_seeds, without_related
from ..artifacts.sweep_folders import Sweeps
from ..utils.model_names import ABSTAINED, NO_DEFENCE, renamed
from ..utils.vocabulary import Protocol
from .grid import Grid
from .results import Results, open_jobs
from .signature import signature_of
from .words import COUNTED, classes_sentence, reach_sentence, share

_SHOWN = (1, 2, 5, 10, 20, 50)
_LISTED = 10
"""Numbers of candidates in the table, and the length of the listed order."""
_HEADS = {"fooled": "fooled", "unseen": "unseen target", "single": "best single"}


def tries(
    folder: Sweeps | Results,
    *more: Sweeps | Results,
    eps_255: float | None = None,
    defence: str = NO_DEFENCE,
    protocol: Protocol = "target_correct",
) -> pd.DataFrame:
    """Compute the share of images that are fooled within q = 1, 2, ... candidates.

    A candidate is an attack with its source and its first seed, an untargeted one if there are any.
    An attacker tries candidates in an order that was learned on other images. Candidates from
    networks related to the target are skipped. Folders are as for `table`.

    Args:
        folder: What `load_sweep` or `transfer` returned, or folders.
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
    outcomes, costs, _ = _candidates(open_jobs(folder, *more), protocol, eps_255)
    outcomes = outcomes.select(defence=defence)
    if not outcomes.targets:
        raise ValueError(f"defence={defence}: no target is behind it.")
    return success_within(outcomes, costs)


def tries_table(
    results: Results,
    eps_255: float | None = None,
    defence: str = NO_DEFENCE,
    protocol: Protocol = "target_correct",
    names: Mapping[str, str] | None = None,
) -> Grid:
    """Lay out some rows of `tries`; a CSV has all of them."""
    frame = tries(results, eps_255=eps_255, defence=defence, protocol=protocol)
    for axis in ("attack", "source"):
        frame[axis] = [renamed(name, names or {}) for name in frame[axis]]
    order = [f"{row.q}. {row.attack} from {row.source}" for row in frame.itertuples()]
    rows, first = frame[frame["q"].isin([*_SHOWN, len(frame)])], frame.iloc[0]
    columns = pd.DataFrame({"candidates": rows["q"].map(str)})
    for column, head in _HEADS.items():
        columns[head] = [share(row, column).replace("%", "") for _, row in rows.iterrows()]
    columns["gradients"] = rows["gradients"].map("{:,.0f}".format)
    columns = columns.replace("nan", "n/a")
    caption = (
        f"Images fooled within so many candidates, in % with 95 % intervals: {first['candidates']} "
        f"candidates, targets: {first['targets']}. Counted if so for all candidates: "
        f"{COUNTED[protocol]}, {first['images']} in all. Order: {', '.join(order[:_LISTED])}"
    )
    eps = eps_255 or results.attacked[0][0].job.record.reference
    line = signature_of(results, results.pairs(eps_255=eps, protocol=protocol, defence=defence))
    cells = columns.to_numpy().tolist()
    return Grid([*columns], cells, caption, data=frame, signature=line)


class Audit(NamedTuple):
    """Reach of an attacker who knows only some sources, on one target.

    Attributes:
        target: The target, `NAME@DEFENCE` behind a defence; empty if there is no audit.
        sentence: How many candidates fool which share of images, or why there is no audit.
        classes: Whether classes differ, and which are most often fooled.
        tries: The rows of `success_within`; None without an audit.
        fooled: Whether each candidate, a column (attack, source), fools each counted image, a row;
            None without an audit, or if candidates are targeted.
    """

    target: str
    sentence: str
    classes: str = ""
    tries: Any = None
    fooled: Any = None


def paired(plain: Audit, defended: Audit) -> dict[str, Any]:
    """Compare the candidates that a target without and behind a defence share.

    Returns:
        `tries`, the number of these candidates; `images`, the number of images that count for both
        targets; of these those `fooled` without the defence, of them those `stopped` behind it, and
        those `added`, which are fooled behind it alone; `change`, the share fooled without it minus
        the share behind it, with its 95 % interval `low` to `high`; and `p` of the exact McNemar
        test.
    """
    from scipy.stats import binomtest  # slow to import

    shared = plain.fooled.columns.intersection(defended.fooled.columns)
    sides = (side.fooled[shared].any(axis=1) for side in (plain, defended))
    one, other = pd.concat(sides, axis=1, join="inner").to_numpy().T
    stopped, added = int((one & ~other).sum()), int((other & ~one).sum())
    low, high = (float(end) for end in paired_interval(stopped, added, len(one)))
    change = (stopped - added) / len(one) if len(one) else nan
    p = float(binomtest(stopped, stopped + added).pvalue) if stopped + added else 1.0
    counts = {"tries": len(shared), "images": len(one), "fooled": int(one.sum())}
    counts |= {"stopped": stopped, "added": added}
    return {**counts, "change": change, "low": low, "high": high, "p": p}


def audited(results: Results) -> Results:
    """Return the results with an audit of each target, and of each of its defences.

    Candidates and images are those of `tries`, at the reference budget.
    """
    jobs = [part.job for row in results.attacked for part in row]
    if not jobs:
        return results
    try:
        whole, costs, labels = _candidates(jobs, "target_correct")
    except ValueError as error:
        return replace(results, audits=[Audit("", f"No audit: {error}")])
    audits, record = [], jobs[0].record
    for target in dict.fromkeys(pair for job in jobs for pair in job.record.evaluated):
        model, defence = target.columns
        outcomes = whole.select(target=model, defence=defence)
        try:
            rows = success_within(outcomes, costs)
        except ValueError as error:
            audits.append(Audit(str(target), f"{target}: {error}"))
            continue
        sources = {whole.jobs[job][1] for job, _ in outcomes.pairs(range(len(whole.jobs)), [0])}
        place = f"{record.images} that {target} classifies correctly, at {record.reference:g}/255"
        sentence = reach_sentence(rows, len(sources), bool(outcomes.targeted[0]), place)
        classes = classes_sentence(*class_success(outcomes, labels), record.class_names)
        fooled = None if outcomes.targeted[0] else _fooled(outcomes)
        audits.append(Audit(str(target), sentence, classes, rows, fooled))
    return replace(results, audits=audits)


def _fooled(outcomes: Outcomes) -> pd.DataFrame:
    """Return which candidates fool which counted images of the only target."""
    tried = outcomes.transfers[:, 0]
    counted = outcomes.counted[tried, 0].all(axis=0)
    names = [outcomes.jobs[at] for at in np.flatnonzero(tried)]
    masks = outcomes.fooled[tried, 0][:, counted].T
    return pd.DataFrame(masks, outcomes.index[counted], pd.MultiIndex.from_tuples(names))


def print_audits(results: Results, console: Console) -> None:
    """Print the audit of each target."""
    for audit in results.audits:
        console.print("", Text(audit.sentence, style="bold"), sep="\n", soft_wrap=True)
        if audit.classes:
            console.print(Text(audit.classes), soft_wrap=True)


def _candidates(
    jobs: Sequence[FinishedJob], protocol: str, eps_255: float | None = None
) -> tuple[Outcomes, list[float], np.ndarray]:
    """Return the candidates' outcomes at a budget, their gradients per image, the images' classes.

    An image on which the target abstains counts as not fooled, so that all candidates have the same
    images.
    """
    rows = rows_of_seeds(
        replace(job, record=job.record.model_copy(update={"protocol": protocol}))
        for job in without_related(jobs)
        if job.attacked
    )
    if not rows:
        raise ValueError("tries needs an attack whose source is unrelated to a target.")
    if unlike := ", ".join(differences(*(seeds[0].record for seeds in rows))):
        raise ValueError(f"tries needs attacks that a ranking compares; these differ in {unlike}.")
    eps = rows[0][0].record.reference if eps_255 is None else eps_255
    parts, labels = list[tuple[Outcomes, float]](), pd.Series(dtype=np.int64)
    for job, *seeds in rows:
        record, table = job.record, job.defended
        title = job.row_title if seeds else job.attack
        abstains = (table["predicted"] == ABSTAINED) & (table["eps_255"] > 0)
        table = table.assign(predicted=table["predicted"].mask(abstains, table["label"]))
        cost = job.predictions.query("eps_255 > 0")["gradients"].mean()
        job.forget()
        if eps in record.budgets:
            pair = record.source, record.targets
            parts.append((outcomes_of(table, title, *pair, protocol, eps), float(cost)))
            labels = table.drop_duplicates("index").set_index("index")["label"]
    if not parts:
        raise ValueError(f"eps_255={eps:g}: there are no images with this budget.")
    parts = [part for part in parts if not part[0].targeted[0]] or parts
    whole = joined([outcomes for outcomes, _ in parts])
    classes = labels.reindex(whole.index, fill_value=-1).to_numpy()
    return whole, [cost for _, cost in parts], classes
