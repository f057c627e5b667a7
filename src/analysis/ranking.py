"""Rankings of attacks and of sources by their success on other models, with tests.

The success of an attack is the mean over targets of each target's mean over the sources other than
itself, where a pair of source and target has k / n. An image therefore contributes
sum over pairs of x / (n * sources of the target * targets), where x is 1 if it is fooled. All
tests and intervals are those of this number.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .estimates import contributions, intervals, nested_weights
from .multiple_comparisons import (
    LEVEL,
    PairTests,
    compare_pairs,
    detectable,
)
from .outcomes import Mask, Outcomes
from .quantities import statistics_of
from .source_choice import missing_target, source_values

ALL_TARGETS = "all targets"
"""Target of a ranking of sources over several targets."""
MEAN_OF = "mean of "
"""Start of the `source` of a mean over sources; such a mean may have one source left."""

Pair = tuple[str, int]
"""A source and the position of a target."""


class RankingGroup(NamedTuple):
    """Properties that the jobs of one ranking share; they are columns of rankings.

    Attributes:
        targeted: Whether the attacks have target labels.
        ensemble: Whether the sources are ensembles.
        source_defended: Whether the sources are behind a defence.
    """

    targeted: bool
    ensemble: bool
    source_defended: bool


GROUP = [*RankingGroup._fields]

_ROUNDING = 1e-9
_UNRANKED = {"undecided": True, "depends_on": ""}
_PLACE = [*GROUP, "defence", "attack", "source"]
ATTACK_COLUMNS = [*_PLACE, *statistics_of("attack")]
SOURCE_COLUMNS = [*_PLACE, "target", *statistics_of("source")]

Values = NDArray[np.float64]
Row = dict[str, Any]
"""Statistics of one attack or source by column; tables of few rows are slow to change."""

Jobs = Mapping[str, Mapping[str, list[int]]]
"""Positions of the seeds of a job, by attack and source."""


def rankings(outcomes: Outcomes, against: str | None = None) -> pd.DataFrame:
    """Rank attacks by success on models other than the source, at one budget.

    There is one ranking per source, and one over all single sources. Targeted attacks, ensembles,
    sources behind a defence and targets behind a defence have separate rankings. A ranking has the
    pairs of its most complete attacks, and the images that count for all of them. An attack that
    lacks a pair is listed last, without a rank.

    Args:
        outcomes: Outcomes of jobs on the same images.
        against: Attack that the others are compared with, in tests of these pairs alone; None: the
            first of each ranking, in tests of all pairs.

    Returns:
        One row per attack, ordered by the columns of `RankingGroup`, by the targets' `defence`, the
        mean over sources first, then by decreasing mean:

        - `attack`, `source` (or `mean of N sources`, those of the ranked attacks), the number of
          `sources`, of `targets`, and of `images` counted in any pair;
        - `mean` success with its 95 % interval, `low` and `high` (NaN below `FEWEST_IMAGES`);
        - `rank`, and from `compare_pairs` the `difference` from the first with `difference_low` and
          `difference_high`, `p` and `discordance`: NaN for the first, and if a ranking lacks
          `against`;
        - `undecided`: the attack is the first, or not significantly weaker at level 0.05 (with
          `against`: neither weaker nor stronger); True if nothing is tested;
        - `detectable`: the difference that this number of images decides with a power of 80 %, at
          the median discordance;
        - `depends_on`: for a first attack that is significantly ahead of all others, the targets
          without any one of which it is not; empty for other attacks;
        - `lacks`: pairs that the attack lacks; empty if it is ranked.
    """
    ranked: list[Row] = []
    for place, targets, jobs in _groups(outcomes):
        sources = sorted({source for its in jobs.values() for source in its})
        groups = {source: [source] for source in sources}
        if len(sources) > 1 and not (place["ensemble"] or place["source_defended"]):
            groups = {"": sources, **groups}
        for name, members in groups.items():
            rows = _rank_attacks(outcomes, jobs, members, targets, against)
            for row in rows:
                mean = f"{MEAN_OF}{row['sources']} source{'s' * (row['sources'] > 1)}"
                ranked.append(row | place | {"source": name or mean})
    return pd.DataFrame(ranked, columns=ATTACK_COLUMNS)


def source_rankings(outcomes: Outcomes) -> pd.DataFrame:
    """Rank sources at one budget, on the images that a target counts for every source.

    A source with few correct predictions would otherwise count only easy images. The rates of
    sources on targets are fitted as a source effect plus a target effect, by least squares: a
    source is no target of its own. The value of a source is the mean of its fitted rates over all
    targets. Each two sources need `COMMON_TARGETS` common targets besides themselves. There is one
    ranking per attack, and one over all attacks that every source has; if there are several
    targets, each of these is followed by a ranking on each target, of the other sources' rates.

    Returns:
        One row per source, with the columns of `rankings`, but no interval of the mean. `attack` is
        the name of an attack or `mean of N attacks`, and `attacks` their number; `target` is
        `ALL_TARGETS` or the only target; `extrapolated` is True for a mean outside 0 to 1. Without
        enough common targets, no source has a rank, and `lacks` says what to add.
    """
    ranked: list[Row] = []
    for place, targets, jobs in _groups(outcomes):
        sources = {source for its in jobs.values() for source in its}
        shared = [its for its in jobs.values() if len(its) == len(sources)]
        groups = {f"mean of {len(shared)} attacks": shared} if len(shared) > 1 else {}
        for name, members in {**groups, **{attack: [its] for attack, its in jobs.items()}}.items():
            every = {ALL_TARGETS: targets} if len(targets) > 1 else {}
            every |= {outcomes.targets[target].model: [target] for target in targets}
            for target, its in every.items() if len(members[0]) > 1 else ():
                rows = _rank_sources(outcomes, members, its)
                if len(rows) > 1 and (target == next(iter(every)) or not rows[0]["lacks"]):
                    of = {"attack": name, "attacks": len(members), "target": target}
                    ranked += [row | place | of for row in rows]
    return pd.DataFrame(ranked, columns=SOURCE_COLUMNS)


def by_mean(rows: pd.DataFrame, of: str) -> pd.DataFrame:
    """Sort rows by decreasing `mean`; means that differ by rounding alone, by the name in `of`."""
    return rows.iloc[_falling(rows["mean"].to_numpy(float), rows[of].to_numpy(str))]


def _falling(means: Values, names: NDArray[np.str_]) -> NDArray[np.intp]:
    """Return the positions in decreasing order, NaN last; equal means in the order of names."""
    falling = np.argsort(-means, kind="stable")
    level = np.cumsum(np.diff(means[falling], prepend=np.inf) < -_ROUNDING)
    return falling[np.lexsort((names[falling], level))]


def _groups(outcomes: Outcomes) -> Iterator[tuple[dict[str, Any], list[int], Jobs]]:
    """Yield group and defence, the positions of targets, and of seeds by attack and source."""
    defences = [target.defence for target in outcomes.targets]
    groups = [
        RankingGroup(bool(targeted), source.is_ensemble, source.is_defended)
        for targeted, source in zip(outcomes.targeted, outcomes.sources, strict=True)
    ]
    for group in sorted({*groups}):
        for defence in dict.fromkeys(defences):
            targets = [place for place, its in enumerate(defences) if its == defence]
            mine = [job for job, its in enumerate(groups) if its == group]
            pairs = outcomes.pairs(mine, targets)
            counting = {outcomes.jobs[pair[0]][1] for pair in pairs if outcomes.counted[pair].any()}
            jobs: dict[str, dict[str, list[int]]] = {}
            for job in dict.fromkeys(job for job, _ in pairs):
                attack, source = outcomes.jobs[job]
                if source in counting:
                    jobs.setdefault(attack, {}).setdefault(source, []).append(job)
            if jobs:
                yield {**group._asdict(), "defence": defence}, targets, jobs


def _pairs(
    outcomes: Outcomes, jobs: Mapping[str, list[int]], targets: Sequence[int]
) -> dict[Pair, list[int]]:
    """Return the seeds by pair of a source and a target that is another network."""
    return {
        (source, target): seeds
        for source, seeds in jobs.items()
        for _, target in outcomes.pairs(seeds[:1], targets)
    }


def _rank_attacks(
    outcomes: Outcomes,
    jobs: Jobs,
    members: Sequence[str],
    targets: Sequence[int],
    against: str | None,
) -> list[Row]:
    """Rank the attacks of some sources; those that lack a pair of the others come last."""
    pairs = {
        attack: _pairs(outcomes, {name: its[name] for name in members if name in its}, targets)
        for attack, its in jobs.items()
    }
    pairs = {attack: its for attack, its in pairs.items() if its}
    # Names decide between equals, so that the order of jobs does not.
    complete = max(
        pairs.values(),
        key=lambda its: (len(its), _holders(pairs, its), _names(outcomes, its)),
    )
    names = [attack for attack, its in pairs.items() if its.keys() >= complete.keys()]
    scores = np.array(
        [[outcomes.scores(pairs[attack][pair], pair[1]) for pair in complete] for attack in names]
    )
    counted = np.isfinite(scores).all(axis=0)
    some = counted.any(axis=1)
    if not some.any():
        return []
    shared = np.array([*complete], object)[some]
    scores, counted = np.where(counted, scores, 0.0)[:, some], counted[some]

    def over(targets: Sequence[int]) -> tuple[Values, Values]:
        """Return what images contribute to the means over some targets, and at most."""
        at = np.isin(shared[:, 1].astype(int), targets)
        weights = nested_weights(*shared[at].T[::-1])[None]
        values, largest = contributions(scores[:, at], counted[at], weights)
        chosen = largest[0] > 0
        return values[:, 0, chosen], largest[0, chosen]

    counting = [*dict.fromkeys(shared[:, 1].tolist())]
    values, largest = over(counting)
    numbers = intervals(values, largest, len(shared) == 1)
    own = {"sources": len({source for source, _ in complete})}
    numbers |= {"targets": len(counting)} | own
    order = _falling(numbers["mean"], np.array(names))
    place: int | None = int(order[0])
    if against is not None:
        place = names.index(against) if against in names else None
    tests = compare_pairs(_per_image(values), one=place if against is not None else None)
    ranked = _tested(_rows("attack", names, numbers), order, tests, place)
    _add_dependence(
        ranked,
        order,
        {outcomes.targets[at].model: at for at in counting if against is None},
        lambda its: _per_image(over(its)[0]),
    )
    others = [attack for attack in pairs if attack not in names]
    lacking = [_first(outcomes, complete.keys() - pairs[attack].keys()) for attack in others]
    unranked = zip(others, lacking, strict=True)
    return ranked + [{"attack": name, "lacks": its, **own, **_UNRANKED} for name, its in unranked]


def _per_image(values: Values) -> Values:
    """Scale contributions so that the mean over images is their sum."""
    return values * values.shape[1]


def _rows(of: str, names: Sequence[str], numbers: Mapping[str, Any]) -> list[Row]:
    """Return a row per name; a number is one for all names, or an array with one for each."""
    columns = {key: np.broadcast_to(its, len(names)).tolist() for key, its in numbers.items()}
    rows = zip(names, *columns.values(), strict=True)
    return [dict(zip([of, *columns], row, strict=True)) for row in rows]


def _holders(pairs: Mapping[str, Mapping[Pair, Any]], its: Mapping[Pair, Any]) -> int:
    """Return how many attacks have these pairs."""
    return sum(other.keys() >= its.keys() for other in pairs.values())


def _names(outcomes: Outcomes, pairs: Iterable[Pair]) -> list[str]:
    """Return pairs as texts, sorted."""
    return sorted(f"{source} -> {outcomes.targets[target]}" for source, target in pairs)


def _first(outcomes: Outcomes, pairs: Iterable[Pair]) -> str:
    """Return the first of some pairs, and the number of the others, as text."""
    first, *others = _names(outcomes, pairs)
    return f"{first} and {len(others)} more" if others else first


def _rank_sources(
    outcomes: Outcomes, attacks: Sequence[Mapping[str, list[int]]], targets: Sequence[int]
) -> list[Row]:
    """Rank the sources of some attacks, which all have them; on one target, the other sources."""
    sources = list(attacks[0])
    of_attacks = [_pairs(outcomes, its, targets) for its in attacks]
    pairs = [pair for pair in of_attacks[0] if all(pair in its for its in of_attacks)]
    if one := len(targets) == 1:
        sources = [source for source in sources if (source, targets[0]) in pairs]
    jobs = [seed for its in attacks for seeds in its.values() for seed in seeds]
    common = {}
    for target in sorted({target for _, target in pairs}):
        images = (outcomes.counted[jobs, target] | ~outcomes.evaluated[jobs, target, None]).all(
            axis=0
        )
        if images.any():
            common[target] = images
    targets, lacks = list(common), "an image that a target counts for every source"
    there = np.array([[(source, target) in pairs for target in targets] for source in sources])
    if targets:
        known = [str(outcomes.targets[target]) for target in targets]
        lacks = "" if one else missing_target(there, sources, known)
    if lacks:
        return [{"source": source, "lacks": lacks, **_UNRANKED} for source in sources]
    scores = np.full((*there.shape, len(outcomes.index)), np.nan)
    for row, column in np.argwhere(there):
        seeds = [its[sources[row]] for its in attacks]
        scores[row, column] = np.mean([outcomes.scores(s, targets[column]) for s in seeds], axis=0)
    counted = np.array([*common.values()])
    values = source_contributions(scores, counted)
    mean = values.mean(axis=1)
    numbers = {
        "mean": mean,
        "images": values.shape[1],
        "targets": len(targets),
        "extrapolated": ~((mean >= -_ROUNDING) & (mean <= 1 + _ROUNDING)),
    }
    order = _falling(mean, np.array(sources))
    rows = _rows("source", sources, numbers)
    ranked = _tested(rows, order, compare_pairs(values), int(order[0]))
    columns = {outcomes.targets[target].model: column for column, target in enumerate(targets)}
    _add_dependence(
        ranked,
        order,
        columns,
        lambda its: source_contributions(scores[:, its], counted[its]),
    )
    return ranked


def _add_dependence(
    ranked: Sequence[Row],
    order: NDArray[np.intp],
    targets: Mapping[str, int],
    values_of: Callable[[list[int]], Values],
) -> None:
    """Set `depends_on` of the first of a ranking.

    Args:
        ranked: The ranking.
        order: Position of each of its rows in the values.
        targets: Positions of the targets that count an image, by name.
        values_of: Function that returns the contributions from some of the targets alone.
    """
    first, *others = order
    depends = list[str]()
    if others and len(targets) > 1 and not any(row["undecided"] for row in ranked[1:]):
        for name, place in targets.items():
            tests = compare_pairs(
                values_of([its for its in targets.values() if its != place]), one=first
            )
            ahead = (tests.difference[first] > 0) & (tests.p[first] < LEVEL)
            depends += [name] * (not ahead[others].all())
    ranked[0]["depends_on"] = ", ".join(depends)


def source_contributions(scores: Values, counted: Mask) -> Values:
    """Compute what each image contributes to the value of each source.

    Args:
        scores: Success from S sources on T targets for N images, shape (S, T, N); NaN for pairs
            that cannot be compared.
        counted: Images that a target counts for every source, shape (T, N).

    Returns:
        Contributions (S, M) on the M images counted for any target, scaled so that the mean over
        images is the source's value.
    """
    there = np.isfinite(scores).sum(axis=2) > 0
    images = counted.any(axis=0)
    rates = np.where(counted, scores, 0) / counted.sum(axis=1, keepdims=True)
    values: Values = (source_values(there) @ rates[there])[:, images] * images.sum()
    return values


def _tested(
    rows: Sequence[Row], order: NDArray[np.intp], tests: PairTests, place: int | None
) -> list[Row]:
    """Add rank, detectable difference, and the tested difference from the row at `place`."""
    columns = np.full((4, len(rows)), np.nan)
    if place is not None:
        numbers = (tests.difference, tests.margin, tests.p, tests.discordance)
        columns[:] = [matrix[:, place] for matrix in numbers]
        columns[:, place] = np.nan
    discordance = columns[3]
    usual = float(np.nanmedian(discordance)) if np.isfinite(discordance).any() else np.nan
    least = detectable(tests.cutoff, usual, max(rows[0]["images"], 1))
    ranked = []
    for rank, at in enumerate(order, 1):
        difference, margin, p, its = columns[:, at].tolist()
        tested = {
            "rank": float(rank),
            "difference": difference,
            "difference_low": difference - margin,
            "difference_high": difference + margin,
            "p": p,
            "undecided": not p < LEVEL,
            "discordance": its,
            "detectable": least,
        }
        ranked.append(rows[at] | tested | {"lacks": "", "depends_on": ""})
    return ranked
