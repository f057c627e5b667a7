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
from .multiple_comparisons import LEVEL, compare_pairs, detectable
from .outcomes import Mask, Outcomes, Values
from .quantities import statistics_of
from .source_values import missing_target, source_values

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

Row = dict[str, Any]
"""Statistics of one attack or source by column; tables of few rows are slow to change."""

Seeds = Mapping[Pair, list[int]]
"""Positions of an attack's seeds, by pair of a source and a target that is another network."""


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
          the median discordance; NaN if fewer than six images differ in half of the pairs;
        - `depends_on`: for a first attack that is significantly ahead of all others, the targets
          without any one of which it is not; empty for other attacks, and if tests with `against`
          leave out a pair of the first;
        - `lacks`: pairs that the attack lacks; empty if it is ranked.
    """
    ranked: list[Row] = []
    for place, _, attacks in _groups(outcomes):
        sources = sorted({source for seeds in attacks.values() for source, _ in seeds})
        groups = {source: [source] for source in sources}
        if len(sources) > 1 and not (place["ensemble"] or place["source_defended"]):
            groups = {"": sources, **groups}
        for name, members in groups.items():
            rows = _rank_attacks(outcomes, attacks, members, against)
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
    for place, targets, attacks in _groups(outcomes):
        sources_of = {name: {source for source, _ in seeds} for name, seeds in attacks.items()}
        every_source = set.union(*sources_of.values())
        shared = [seeds for name, seeds in attacks.items() if sources_of[name] == every_source]
        groups = {f"mean of {len(shared)} attacks": shared} if len(shared) > 1 else {}
        groups |= {name: [seeds] for name, seeds in attacks.items() if len(sources_of[name]) > 1}
        places = {ALL_TARGETS: targets} if len(targets) > 1 else {}
        places |= {outcomes.targets[target].model: [target] for target in targets}
        for name, members in groups.items() if len(every_source) > 1 else ():
            for target, chosen in places.items():
                rows = _rank_sources(outcomes, members, chosen)
                if len(rows) > 1 and (target == next(iter(places)) or not rows[0]["lacks"]):
                    of = {"attack": name, "attacks": len(members), "target": target}
                    ranked += [row | place | of for row in rows]
    return pd.DataFrame(ranked, columns=SOURCE_COLUMNS)


def falling_order(means: Values, names: NDArray[np.str_]) -> NDArray[np.intp]:
    """Return the positions in decreasing order, NaN last.

    Means that differ by rounding alone are in the order of their names.
    """
    falling = np.argsort(-means, kind="stable")
    level = np.cumsum(np.diff(means[falling], prepend=np.inf) < -_ROUNDING)
    return falling[np.lexsort((names[falling], level))]


def _groups(outcomes: Outcomes) -> Iterator[tuple[dict[str, Any], list[int], Mapping[str, Seeds]]]:
    """Yield group and defence, the positions of targets, and the seeds of each attack.

    Sources that count no image are left out.
    """
    defences = [target.defence for target in outcomes.targets]
    groups = [
        RankingGroup(bool(targeted), source.is_ensemble, source.is_defended)
        for targeted, source in zip(outcomes.targeted, outcomes.sources, strict=True)
    ]
    for group in sorted({*groups}):
        for defence in dict.fromkeys(defences):
            targets = [place for place, of_target in enumerate(defences) if of_target == defence]
            pairs = outcomes.pairs((job for job, key in enumerate(groups) if key == group), targets)
            counting = {outcomes.jobs[pair[0]][1] for pair in pairs if outcomes.counted[pair].any()}
            attacks = dict[str, dict[Pair, list[int]]]()
            for job, target in pairs:
                attack, source = outcomes.jobs[job]
                if source in counting:
                    seeds = attacks.setdefault(attack, {})
                    seeds.setdefault((source, target), []).append(job)
            if attacks:
                yield {**group._asdict(), "defence": defence}, targets, attacks


def _rank_attacks(
    outcomes: Outcomes, attacks: Mapping[str, Seeds], members: Sequence[str], against: str | None
) -> list[Row]:
    """Rank the attacks of some sources; those that lack a pair of the others come last."""
    pairs = {
        attack: {pair: by_seed for pair, by_seed in seeds.items() if pair[0] in members}
        for attack, seeds in attacks.items()
    }
    pairs = {attack: measured for attack, measured in pairs.items() if measured}

    def texts(pairs: Iterable[Pair]) -> list[str]:
        return sorted(f"{source} -> {outcomes.targets[target]}" for source, target in pairs)

    def completeness(seen: Seeds) -> tuple[int, int, list[str]]:
        """Names decide between equals, so that the order of jobs does not."""
        return len(seen), sum(seen.keys() <= other.keys() for other in pairs.values()), texts(seen)

    complete = max(pairs.values(), key=completeness)
    names = [attack for attack, measured in pairs.items() if measured.keys() >= complete.keys()]
    scores = np.array(
        [[outcomes.scores(pairs[attack][pair], pair[1]) for pair in complete] for attack in names]
    )
    counted = np.isfinite(scores).all(axis=0)
    some = counted.any(axis=1)
    if not some.any():
        return []
    sources, targets = (np.array(axis) for axis in zip(*complete, strict=True))

    def over(chosen: Sequence[int]) -> tuple[Values, Values]:
        """Return what images contribute to the means over some targets, and at most."""
        at = some & np.isin(targets, chosen)
        weights = np.zeros((1, len(at)))
        weights[0, at] = nested_weights(targets[at], sources[at])
        values, largest = contributions(scores, counted, weights)
        images = largest[0] > 0
        return values[:, 0, images], largest[0, images]

    counting = {outcomes.targets[at].model: at for at in targets[some].tolist()}
    values, largest = over([*counting.values()])
    number = {"sources": len({*sources.tolist()})}
    numbers = intervals(values, largest, some.sum() == 1) | {"targets": len(counting)} | number
    ranked = _tested(
        pd.Index(names, name="attack"),
        numbers,
        values * values.shape[1],
        against,
        counting,
        lambda images: (part := over(images)[0]) * part.shape[1],
    )
    for attack in (attack for attack in pairs if attack not in names):
        first, *others = texts(complete.keys() - pairs[attack].keys())
        lacks = first + f" and {len(others)} more" * bool(others)
        ranked.append({"attack": attack, "lacks": lacks, **number, **_UNRANKED})
    return ranked


def _rank_sources(
    outcomes: Outcomes, attacks: Sequence[Seeds], targets: Sequence[int]
) -> list[Row]:
    """Rank the sources of some attacks, which all have them; on one target, the other sources."""
    pairs = [
        pair
        for pair in attacks[0]
        if pair[1] in targets and all(pair in seeds for seeds in attacks)
    ]
    one = len(targets) == 1
    sources = list(dict.fromkeys(source for source, _ in (pairs if one else attacks[0])))
    jobs = sorted({job for by_pair in attacks for seeds in by_pair.values() for job in seeds})
    tried = sorted({target for _, target in pairs})
    in_all = outcomes.counted_for_all(jobs, tried)
    targets = [target for target, images in zip(tried, in_all, strict=True) if images.any()]
    counted = in_all[in_all.any(axis=1)]
    lacks = "an image that a target counts for every source"
    measured = np.array([[(source, target) in pairs for target in targets] for source in sources])
    if targets:
        target_names = [str(outcomes.targets[target]) for target in targets]
        names = measured, sources, target_names, outcomes.networks
        lacks = "" if one else missing_target(*names)
    if lacks:
        return [{"source": source, "lacks": lacks, **_UNRANKED} for source in sources]
    scores = np.full((*measured.shape, len(outcomes.index)), np.nan)
    for row, column in np.argwhere(measured):
        pair = sources[row], targets[column]
        seeds = [outcomes.scores(by_pair[pair], pair[1]) for by_pair in attacks]
        scores[row, column] = np.mean(seeds, axis=0)
    values = source_contributions(scores, counted)
    mean = values.mean(axis=1)
    numbers = {
        "mean": mean,
        "images": values.shape[1],
        "targets": len(targets),
        "extrapolated": ~((mean >= -_ROUNDING) & (mean <= 1 + _ROUNDING)),
    }
    return _tested(
        pd.Index(sources, name="source"),
        numbers,
        values,
        None,
        {outcomes.targets[target].model: column for column, target in enumerate(targets)},
        lambda chosen: source_contributions(scores[:, chosen], counted[chosen]),
    )


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
    measured = np.isfinite(scores).sum(axis=2) > 0
    images = counted.any(axis=0)
    rates = np.where(counted, scores, 0) / counted.sum(axis=1, keepdims=True)
    values: Values = (source_values(measured) @ rates[measured])[:, images] * images.sum()
    return values


def _tested(
    names: "pd.Index[str]",
    numbers: Mapping[str, Any],
    values: Values,
    against: str | None,
    targets: Mapping[str, int],
    values_of: Callable[[list[int]], Values],
) -> list[Row]:
    """Return the rows of a ranking, with the tests of each row against `against` or the first.

    Args:
        names: What is ranked; the index's name is the column's.
        numbers: Columns, as arrays with a value for each name or one value for all.
        values: What images contribute to each mean.
        against: Name that the others are compared with; None: the first.
        targets: Positions of the targets that count an image, by name.
        values_of: Function that returns the contributions from some of the targets alone.
    """
    order = falling_order(numbers["mean"], names.to_numpy(str))
    first, *others = order.tolist()
    one = None if against is None or against not in names else names.tolist().index(against)
    tests = compare_pairs(values, one=one)
    place = first if against is None else one
    columns = np.full((4, len(names)), np.nan)
    if place is not None:
        matrices = (tests.difference, tests.margin, tests.p, tests.discordance)
        columns[:] = [matrix[:, place] for matrix in matrices]
        columns[:, place] = np.nan
    difference, margin, p, discordance = columns
    differing = (np.abs(values - values[place or 0]) > _ROUNDING).sum(axis=1)
    # Sign flips of five images never reach p < 0.05.
    compared = np.isfinite(discordance)
    is_usual = compared.any() and np.median(differing[compared]) >= 6
    usual = float(np.nanmedian(discordance)) if is_usual else np.nan
    depends = list[str]()
    if others and len(targets) > 1 and (tests.p[first, others] < LEVEL).all():
        for name in targets:
            rest = compare_pairs(
                values_of([targets[other] for other in targets if other != name]), one=first
            )
            ahead = (rest.difference[first] > 0) & (rest.p[first] < LEVEL)
            depends += [name] * (not ahead[others].all())
    of_columns = {
        str(names.name): names.to_numpy(),
        **numbers,
        "difference": difference,
        "difference_low": difference - margin,
        "difference_high": difference + margin,
        "p": p,
        "undecided": ~(p < LEVEL),
        "discordance": discordance,
        "detectable": detectable(tests.cutoff, usual, max(values.shape[1], 1)),
        "lacks": "",
        "depends_on": np.where(np.arange(len(names)) == first, ", ".join(depends), ""),
    }
    rows = (np.broadcast_to(column, len(names))[order].tolist() for column in of_columns.values())
    ranked = enumerate(zip(*rows, strict=True), 1)
    return [dict(zip(of_columns, row, strict=True), rank=float(rank)) for rank, row in ranked]
