"""Rankings of attacks, and of sources, by mean success on other models, and their differences."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, permutations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src.analysis.image_outcomes import Cell, ImageOutcomes, kinds
from src.analysis.intervals import FEWEST_IMAGES, wilson_interval
from src.analysis.matrices import TRANSFER, relation
from src.analysis.pairwise import LEVEL, PairTests, compare_pairs, detectable
from src.utils.defended import parted

COMMON_TARGETS = 2
"""Fewest targets on which two sources are compared."""
_PLACE = ["kind", "defence", "attack", "source", "targets", "images", "mean"]
_TESTED = ["difference", "difference_low", "difference_high", "p", "undecided", "discordance"]
ATTACK_COLUMNS = [*_PLACE, "low", "high", "rank", *_TESTED, "detectable", "repetition", "effective"]
SOURCE_COLUMNS = [*_PLACE, "advantage", "rank", *_TESTED, "detectable"]

Values = NDArray[np.float64]


def rankings(found: ImageOutcomes, against: str | None = None) -> pd.DataFrame:
    """Rank attacks by success on models other than the source, at one budget.

    An image's score is the mean of its successes over the other targets that count it; an attack's
    is the mean over images. Attacks are ranked for each source, and over all single ones by those
    that were run from each of them. Targeted attacks, ensembles of sources, sources behind a
    defence, and targets behind each defence are ranked apart.

    Args:
        found: Outcomes of jobs on the same images.
        against: Attack that the others are compared with; None: the first of each ranking.

    Returns:
        One row per ranked attack, by `kind` (`untargeted` or `targeted`; `of ensembles`,
        `behind a defence`) and `defence` of the targets, the mean over sources first, then by
        falling mean:

        - `attack`, `source`: a source's name, or `mean of N sources`;
        - `targets`: number of the other targets; `images`: number of images in the mean;
        - `mean` success in [0, 1], with a 95 % interval, `low` and `high`: Wilson's at the
          effective number of images; NaN below `FEWEST_IMAGES`; `rank`, 1 for the largest mean;
        - `difference` of the mean from that of the first on the images counted for both, with the
          simultaneous 95 % interval of all pairs, `difference_low` and `difference_high`; `p`,
          corrected for all pairs of the ranking; and `discordance`, see `compare_pairs`. NaN for
          the first, and without `against`; tests need 30 images;
        - `undecided`: whether the attack is, or cannot be told from, the first at level 0.05;
        - `detectable`: smallest difference from the first that so many images decide with a power
          of 80 %, at the median discordance;
        - `repetition`: see `repetition`; `effective`: number of attacks that this comes to.
    """
    parts = []
    for place, attacks in _attack_groups(found):
        scores = np.array([found.scores(cells) for cells in attacks.values()])
        counted = np.count_nonzero(~np.isnan(scores), axis=1)
        names = [name for name, n in zip(attacks, counted, strict=True) if n]
        if names:
            ranked = _rank_attacks(names, scores[counted > 0], against)
            targets = [len({target for _, target in attacks[name]}) for name in ranked["attack"]]
            parts.append(ranked.assign(**place, targets=targets))
    return _table(parts, ATTACK_COLUMNS)


def source_rankings(found: ImageOutcomes) -> pd.DataFrame:
    """Rank sources by success on targets that are neither of two compared sources, at one budget.

    Sources are ranked for each attack, and over all attacks that were run from each of them, where
    every two sources have at least `COMMON_TARGETS` such targets. Kinds and defences are ranked
    apart as by `rankings`.

    Returns:
        One row per ranked source, with the columns of `rankings` but intervals of means: `attack`
        is an attack's name or `mean of N attacks`; `mean` success and `advantage`, by which the
        rows are ranked, are means over the comparisons with each other source, of the success and
        of the difference of the two.
    """
    parts = []
    for place, sources, cells in _source_groups(found):
        scores = np.array([found.scores(each) for each in cells.values()])
        sides = np.zeros((len(sources), len(sources)), np.intp)
        for row, pair in enumerate(cells):
            sides[pair] = row
        ranked = _rank_sources(sources, scores, sides)
        targets = min(len({target for _, target in each}) for each in cells.values())
        parts.append(ranked.assign(**place, targets=targets))
    return _table(parts, SOURCE_COLUMNS)


def repetition(scores: Values) -> float:
    """Return how far attacks succeed on the same images beyond the images' difficulty, in [-1, 1].

    It is the mean over all pairs of rows of scores (A, N) of their partial correlation given an
    image's mean over the other attacks, on the images that all count. Subtracting the mean over
    all attacks instead would make any pair look opposed. NaN for one attack, or without an image.
    """
    scores = scores[:, ~np.isnan(scores).any(axis=0)]
    if len(scores) < 2 or scores.shape[1] < 2:
        return np.nan
    covariance = np.cov(scores)
    rows, variance = covariance.sum(axis=1), np.diag(covariance)
    # Of row i with the sum of all rows but i and j, and of that sum with itself:
    with_rest = rows[:, None] - variance[:, None] - covariance
    rest = rows.sum() - 2 * (rows[:, None] + rows) + variance[:, None] + variance + 2 * covariance
    rest = np.where(rest > 1e-12, rest, np.inf)
    both = covariance - with_rest * with_rest.T / rest
    left = variance[:, None] - with_rest**2 / rest
    pairs = np.triu_indices(len(scores), 1)
    product = (left * left.T)[pairs]
    known = product > 1e-18
    return float(np.mean(both[pairs][known] / np.sqrt(product[known]))) if known.any() else np.nan


def resolution(ranked: pd.DataFrame) -> list[str]:
    """Say which differences the images of one ranking show, and how much its attacks repeat."""
    first, lines = ranked.iloc[0], []
    if first["detectable"] < 1:
        points = f"{100 * first['detectable']:.1f}"
        lines.append(f"{first['images']} images show differences from {points} points on")
    if len(ranked) > 1 and first.get("effective", np.nan) < len(ranked):
        lines.append(
            f"the {len(ranked)} attacks repeat each other (correlation "
            f"{first['repetition']:.2f}): they count as {first['effective']:.1f}"
        )
    return lines


def _attack_groups(found: ImageOutcomes) -> Iterator[tuple[dict[str, str], dict[str, list[Cell]]]]:
    """Yield the place of every ranking, and the cells of its attacks."""
    for kind, jobs, defence, targets in _groups(found):
        by_attack: dict[str, dict[str, list[Cell]]] = {}
        for job in jobs:
            attack, source = found.jobs[job]
            if cells := found.cells([job], targets):
                by_attack.setdefault(attack, {}).setdefault(source, []).extend(cells)
        sources = list(dict.fromkeys(source for its in by_attack.values() for source in its))
        from_all = {name: its for name, its in by_attack.items() if len(its) == len(sources)}
        place = {"kind": kind, "defence": defence}
        if len(sources) > 1 and from_all and " " not in kind:
            mean = {name: list(chain(*its.values())) for name, its in from_all.items()}
            yield {**place, "source": f"mean of {len(sources)} sources"}, mean
        for source in sorted(sources):
            mine = {name: its[source] for name, its in by_attack.items() if source in its}
            yield {**place, "source": source}, mine


def _source_groups(
    found: ImageOutcomes,
) -> Iterator[tuple[dict[str, str], list[str], dict[tuple[int, int], list[Cell]]]]:
    """Yield the place of every ranking of sources, these, and the cells of each against another."""
    for kind, jobs, defence, targets in _groups(found):
        place = {"kind": kind, "defence": defence}
        attacks: dict[str, dict[str, int]] = {}
        for job in jobs:
            attack, source = found.jobs[job]
            attacks.setdefault(attack, {})[source] = job
        sources = list(dict.fromkeys(source for its in attacks.values() for source in its))
        from_all = [its for its in attacks.values() if len(its) == len(sources)]
        groups = [(name, [its]) for name, its in attacks.items()]
        if len(from_all) > 1:
            groups.insert(0, (f"mean of {len(from_all)} attacks", from_all))
        for name, each in groups:
            names = list(each[0])
            cells = {
                (one, other): _against(found, each, names[one], names[other], targets)
                for one, other in permutations(range(len(names)), 2)
            }
            enough = [
                len({target for _, target in its}) >= COMMON_TARGETS for its in cells.values()
            ]
            if enough and all(enough):
                yield {**place, "attack": name}, names, cells


def _against(
    found: ImageOutcomes,
    attacks: Sequence[Mapping[str, int]],
    source: str,
    other: str,
    targets: Sequence[int],
) -> list[Cell]:
    """Return a source's cells on the targets that another source transfers to, too."""
    return [
        (job, target)
        for its in attacks
        for job, target in found.cells([its[source]], targets)
        if found.evaluated[its[other], target]
        and relation(other, found.targets[target]) == TRANSFER
    ]


def _groups(found: ImageOutcomes) -> Iterator[tuple[str, list[int], str, list[int]]]:
    """Yield the kinds of jobs with their places, for each defence with those of its targets."""
    defences = [parted(name)[1] for name in found.targets]
    for kind, jobs in kinds(found):
        for defence in dict.fromkeys(defences):
            yield kind, jobs, defence, [at for at, its in enumerate(defences) if its == defence]


def _rank_attacks(names: Sequence[str], scores: Values, against: str | None) -> pd.DataFrame:
    images = np.count_nonzero(~np.isnan(scores), axis=1)
    sums = np.nansum(scores, axis=1)
    low, high = np.where(images < FEWEST_IMAGES, np.nan, _mean_interval(scores))
    alike = repetition(scores)
    frame = pd.DataFrame(
        {
            "attack": names,
            "images": images,
            "mean": sums / images,
            "low": low,
            "high": high,
            "repetition": alike,
            "effective": len(names) / (1 + (len(names) - 1) * max(alike, 0.0)),
        }
    )
    if against is None:
        against = names[int(np.argmax(frame["mean"]))]
    place = names.index(against) if against in names else None
    return _ranked(_beside(frame, compare_pairs(scores), place), "mean")


def _mean_interval(scores: Values) -> tuple[Values, Values]:
    """Return Wilson's interval of means at the number of 0s and 1s that would vary as much.

    Two more images that vary as 0 and 1 do keep it from vanishing where nearly all scores agree.

    Reference:
        C. Franco et al., Comparative study of confidence intervals for proportions in complex
        sample surveys, J. Surv. Stat. Methodol. 7 (2019).
    """
    images, sums = np.count_nonzero(~np.isnan(scores), axis=1), np.nansum(scores, axis=1)
    mean, few = sums / images, np.minimum(sums, images - sums)
    squares = np.nansum((scores - mean[:, None]) ** 2, axis=1)
    largest = mean * (1 - mean)
    variance = (few * squares / np.maximum(images - 1, 1) + 2 * largest) / (few + 2)
    trials = images * np.divide(largest, variance, out=np.ones_like(mean), where=variance > 0)
    trials = np.maximum(trials, images)
    return wilson_interval(mean * trials, trials)


def _rank_sources(names: Sequence[str], scores: Values, sides: NDArray[np.intp]) -> pd.DataFrame:
    tests, others = compare_pairs(scores, sides), ~np.eye(len(names), dtype=bool)
    means = np.where(others, np.nanmean(scores, axis=1)[sides], 0).sum(axis=1)
    frame = pd.DataFrame(
        {
            "source": names,
            "images": tests.images.min(axis=1, initial=scores.shape[1], where=others),
            "mean": means / (len(names) - 1),
            "advantage": tests.difference.sum(axis=1) / (len(names) - 1),
        }
    )
    return _ranked(_beside(frame, tests, int(np.argmax(frame["advantage"]))), "advantage")


def _beside(frame: pd.DataFrame, tests: PairTests, place: int | None) -> pd.DataFrame:
    """Add the difference from one row, its interval and test, and what is detectable."""
    columns = np.full((4, len(frame)), np.nan)
    if place is not None:
        numbers = (tests.difference, tests.margin, tests.p, tests.discordance)
        columns[:] = [matrix[:, place] for matrix in numbers]
        columns[:, place] = np.nan
    difference, margin, p, discordance = columns
    known = discordance[~np.isnan(discordance)]
    usual = float(np.median(known)) if len(known) else np.nan
    return frame.assign(
        difference=difference,
        difference_low=difference - margin,
        difference_high=difference + margin,
        p=p,
        undecided=~(p < LEVEL),
        discordance=discordance,
        detectable=detectable(tests.cutoff, usual, float(frame["images"].median())),
    )


def _ranked(frame: pd.DataFrame, key: str) -> pd.DataFrame:
    frame = frame.sort_values(key, ascending=False, kind="stable")
    return frame.assign(rank=range(1, len(frame) + 1))


def _table(parts: Sequence[pd.DataFrame], columns: Sequence[str]) -> pd.DataFrame:
    if not parts:
        return pd.DataFrame(columns=list(columns))
    return pd.concat(parts, ignore_index=True)[list(columns)]
