"""Ranking of sources for an unseen target, and predictors of transfer, for the terminal."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from src.analysis.image_outcomes import ImageOutcomes, image_outcomes, joined
from src.analysis.source_choice import (
    FEWEST_FOR_INTERVAL,
    FEWEST_SOURCES,
    Related,
    Transfer,
    choices,
    clean_measures,
    predictors,
    profiles,
    transfer_of,
    transfer_similarity,
)
from src.analysis.training_luck import FACTORS, training_luck
from src.artifacts.jobs import StoredJob, find_jobs
from src.artifacts.overlap import RELATED_BY, overlaps
from src.report.source_measures import Frames, pair_measures
from src.utils.defended_names import PLAIN

INTERVALS = "95 % intervals are for new targets and new images."
FEW_TARGETS = f"Below {FEWEST_FOR_INTERVAL} targets there is no interval."


@dataclass(frozen=True)
class SourceChoice:
    """The transfer between models and the statistics computed from it.

    An attribute that is not listed is the result of the function of the same name.

    Attributes:
        spread: Root mean square difference in success (see `profiles`) between two trainings of one
            network; NaN if no network has two.
        luck: Result of `training_luck`.
        similarity: Result of `transfer_similarity`.
    """

    heading: str
    transfer: Transfer
    profiles: pd.DataFrame
    spread: float
    choices: pd.DataFrame
    predictors: pd.DataFrame
    luck: pd.DataFrame
    similarity: pd.DataFrame


def choose_source(
    folders: Sequence[Path], attack: Sequence[str] | None = None, eps_255: float | None = None
) -> SourceChoice:
    """Rank the sources of the jobs in these folders for an unseen target.

    Args:
        folders: Folders of sweeps on the same images.
        attack: Attacks to use; None: all attacks that every source has.
        eps_255: Budget in 1/255; None: the first job's reference budget.

    Raises:
        ValueError: There are too few models, or the jobs are on different images.
    """
    jobs = [job for job in find_jobs(folders) if job.attacked]
    jobs = [job for job in jobs if attack is None or {job.attack, job.row} & {*attack}]
    if not jobs:
        raise ValueError(f"the folders hold no jobs with {', '.join(attack or ['an attack'])}.")
    first = jobs[0].record
    if any(job.record.data != first.data for job in jobs):
        raise ValueError("the jobs are on different images; name sweeps on the same images.")
    eps, parts = first.reference if eps_255 is None else eps_255, []
    for job in jobs:
        pair = job.record.source, job.record.targets
        outcomes = image_outcomes(job.defended, job.row, *pair, first.protocol)
        job.forget()
        if eps not in outcomes:
            raise ValueError(f"eps={eps:g}/255: {job.attack} from {pair[0]} lacks this budget.")
        parts.append(outcomes[eps])
    return source_choice(jobs, joined(parts), eps)


def source_choice(
    jobs: Sequence[StoredJob], outcomes: ImageOutcomes, eps_255: float
) -> SourceChoice:
    """Rank the sources of comparable jobs for an unseen target, from outcomes at one budget."""
    first, shared = jobs[0].record, _shared(jobs)
    records = {
        (name, job.record.source): job.record for job in jobs for name in (job.attack, job.row)
    }
    known = [place for place, name in enumerate(outcomes.jobs) if name in records]
    selection = outcomes.of_jobs(known)
    return choice_of(
        f"{first.dataset}, eps = {eps_255:g}/255, {first.protocol}",
        selection,
        _correct(jobs),
        pair_measures(jobs),
        lambda a, b: a == b or frozenset((a, b)) in shared,
        [records[name].weights for name in selection.jobs],
        first.seed,
    )


def choice_of(
    heading: str,
    outcomes: ImageOutcomes,
    correct: pd.DataFrame,
    of_pairs: Callable[[NDArray[np.int64], Sequence[str]], Frames],
    related: Related,
    weights: Sequence[Mapping[str, str]],
    seed: int = 0,
) -> SourceChoice:
    """Rank sources for an unseen target, from outcomes and measures of the models.

    Args:
        heading: Text with data set, budget and protocol.
        outcomes: Outcomes at one budget.
        correct: Whether each model (column) is correct on each clean image (row, by number).
        of_pairs: Function like the result of `pair_measures`.
        related: Whether two models are related.
        weights: Digests of the models' weights by name, for each job.
        seed: Seed for permutations and bootstrap.
    """
    transfer = transfer_of(outcomes)

    def members_related(first: str, second: str) -> bool:
        return any(related(a, b) for a, b in product(first.split("+"), second.split("+")))

    def measure(places: list[int]) -> Frames:
        rows = correct.iloc[places]
        return clean_measures(rows) | of_pairs(rows.index.to_numpy(), transfer.targets)

    ranked = profiles(transfer, members_related)
    return SourceChoice(
        f"{', '.join(transfer.attacks)} on {heading}",
        transfer,
        ranked,
        _spread(ranked),
        choices(transfer, members_related, seed),
        predictors(transfer.single, measure, related, seed),
        _luck(outcomes, weights, related),
        transfer_similarity(transfer),
    )


def network_of(model: str) -> str:
    """Return a model's name without the suffix that numbers its training.

    >>> network_of("resnet_small_seed1"), network_of("resnet_small")
    ('resnet_small', 'resnet_small')
    """
    return re.sub(r"_seed\d+$", "", model)


def _spread(ranked: pd.DataFrame) -> float:
    """Compute the root mean square difference between trainings of one network."""
    finished = ranked[ranked["epoch"].isna()]
    pairs = [
        first - second
        for _, its in finished.groupby(finished["source"].map(network_of))["success"]
        for first, second in combinations(its, 2)
    ]
    return float(np.sqrt(np.mean(np.square(pairs)))) if pairs else np.nan


def _luck(
    outcomes: ImageOutcomes, weights: Sequence[Mapping[str, str]], related: Related
) -> pd.DataFrame:
    """Compute `training_luck`; trainings have equal names except for `_seedN`, other weights.

    Jobs whose source has unknown weights, as a saved set may have, are left out.
    """
    plain = outcomes.select(defence=PLAIN)
    known = [job for job, (_, source) in enumerate(plain.jobs) if source in weights[job]]
    jobs = [job for job in known if plain.kind(job) == "untargeted"]
    trainings: list[tuple[str, str, str]] = []
    for attack, source in (plain.jobs[job] for job in jobs):
        name = re.sub(r" training\.seed=\d+| \([^()]*\)$", "", attack)
        trainings.append((name, network_of(source), weights[jobs[len(trainings)]][source]))
    return training_luck(plain.of_jobs(jobs), trainings, [weights[job] for job in jobs], related)


def _correct(jobs: Sequence[StoredJob]) -> pd.DataFrame:
    """Return whether each model (column) is correct on each clean image (row, by number)."""
    columns: dict[str, pd.Series] = {}
    for job in jobs:
        for model, rows in job.clean.groupby("target", observed=True):
            right = (rows["predicted"] == rows["label"]).set_axis(rows["index"])
            columns.setdefault(str(model), right)
    return pd.DataFrame(columns).sort_index()


def _shared(jobs: Sequence[StoredJob]) -> set[frozenset[str]]:
    """Return the pairs of models that share weights, architecture or family."""
    overlap: dict[frozenset[str], tuple[str, ...]] = {}
    for job in jobs:
        for first, second in combinations(job.record.weights, 2):
            pair = frozenset((first, second))
            if pair not in overlap:
                overlap[pair] = overlaps(job.record, first, second)
    return {pair for pair, shared in overlap.items() if RELATED_BY & {*shared}}


def source_tables(choice: SourceChoice) -> Group:
    """Lay out a choice of sources for the terminal."""
    mean = choice.choices.iloc[-1]
    lines = [
        f"chosen: {_span(mean, 'success')}; at random: {_span(mean, 'any')}; best on each target: "
        f"{_span(mean, 'most')}",
        f"either of two sources: {_span(mean, 'best_2')}"
        + f"; of three: {_span(mean, 'best_3')}" * bool(choice.choices["candidates"].max() > 2),
        f"{INTERVALS if np.isfinite(mean['success_low']) else FEW_TARGETS} Models related to the "
        "target are left out.",
    ]
    few = len(choice.transfer.single.sources) < FEWEST_SOURCES
    note = f"not tested: that needs {FEWEST_SOURCES} sources" if few else "p: models permuted"
    note += "; measures from one half of the images, transfer from the other, then swapped"
    parts: list[RenderableType] = [
        Text(f"Which source for an unseen target: {choice.heading}", style="bold"),
        _ranking(choice),
        Text(spread_text(choice), style="italic"),
        Text("\nEach target in turn as the unseen target", style="bold"),
        _choices(choice.choices),
        Text("\n".join(lines), style="italic"),
        Text("\nPredictors of success between two models (Spearman's rho)", style="bold"),
        _predictors(choice.predictors),
        Text(note, style="italic"),
    ]
    if not choice.luck.empty:
        parts += [Text("\nShares of the variance of success", style="bold"), _shares(choice.luck)]
        parts.append(Text(_ON_ONE_TARGET, style="italic"))
    return Group(*parts)


def spread_text(choice: SourceChoice) -> str:
    """Return how many sources are as good as the best within luck, or why that is unknown."""
    if lacks := choice.profiles["lacks"].iloc[0]:
        return f"The sources are not ranked: add {lacks}."
    if np.isnan(choice.spread):
        return "Luck is unknown: no network has two trainings in this sweep (NAME, NAME_seed1)."
    first = choice.profiles["success"].iloc[0]
    alike = choice.profiles["success"] >= first - choice.spread
    return (
        "~: behind the first by less than two trainings of one network differ in their success on "
        f"others, {choice.spread:.1%} (root mean square): {int(alike.sum()) - 1} sources."
    )


_ON_ONE_TARGET = (
    "on one target: difference in success between two trainings on a single target (root mean "
    "square). It is larger than the difference of their means over targets, which ~ uses."
)


def _table(**columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for name, side in columns.items():
        justify: Any = "left" if side == "l" else "right"
        table.add_column(name.replace("_", " "), justify=justify, overflow="fold")
    return table


def _ranking(choice: SourceChoice) -> Table:
    table = _table(source="l", on_others="r", on_itself="r")
    first = choice.profiles["success"].iloc[0]
    for place, row in enumerate(choice.profiles.to_dict("records")):
        mark = "~" if place and row["success"] >= first - choice.spread else " "
        shares = ["" if pd.isna(row[name]) else f"{row[name]:.1%}" for name in ("success", "own")]
        table.add_row(row["source"], mark + shares[0], shares[1])
    return table


def _choices(rows: pd.DataFrame) -> Table:
    table = _table(target="l", chosen="l", success="r", best="l", success_="r", random="r")
    for row in rows.iloc[:-1].to_dict("records"):
        shares = [f"{row[name]:.1%}" for name in ("success", "most", "any")]
        table.add_row(row["target"], row["chosen"], shares[0], row["best"], *shares[1:])
    means = [f"{rows.iloc[-1][name]:.1%}" for name in ("success", "most", "any")]
    table.add_row("mean", "", means[0], "", *means[1:])
    return table


def _predictors(rows: pd.DataFrame) -> Table:
    table = _table(measure="l", pairs="r", rho="r", beyond_accuracy="r", p="r")
    for row in rows.to_dict("records"):
        numbers = ["" if pd.isna(row[name]) else f"{row[name]:+.2f}" for name in ("rho", "added")]
        p = "" if pd.isna(row["p"]) else f"{row['p']:.3f}"
        table.add_row(row["measure"], str(row["pairs"]), *numbers, p)
    return table


def _shares(rows: pd.DataFrame) -> Table:
    columns = dict.fromkeys(("training", "seed", "image", "rest", "on_one_target"), "r")
    table = _table(network="l", trainings="r", seeds="r", images="r", **columns)
    for row in rows.to_dict("records"):
        counts = [f"{row[name]:.0f}" for name in ("trainings", "seeds", "images")]
        shares = [f"{row[name]:.1%}" for name in (*FACTORS, "rest", "difference")]
        table.add_row(row["network"], *counts, *shares)
    return table


def _span(row: pd.Series, name: str) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    ends = "" if pd.isna(low) else f" [{100 * low:.1f}, {100 * high:.1f}]"
    return f"{row[name]:.1%}{ends}"
