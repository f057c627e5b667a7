"""Rankings of attacks and of sources by mean success on other models, with tests."""

from collections.abc import Iterator, Sequence
from itertools import combinations, permutations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src.analysis.image_outcomes import ImageOutcomes
from src.analysis.intervals import FEWEST_IMAGES, wilson_interval
from src.analysis.multiple_comparisons import LEVEL, PairTests, compare_pairs, detectable

COMMON_TARGETS = 2
"""Two sources with fewer common targets are not compared."""
_PLACE = ["kind", "defence", "attack", "source", "targets", "images", "mean"]
_TESTED = ["difference", "difference_low", "difference_high", "p", "undecided", "discordance"]
ATTACK_COLUMNS = [*_PLACE, "low", "high", "rank", *_TESTED, "detectable", "repetition", "effective"]
SOURCE_COLUMNS = [*_PLACE, "advantage", "rank", *_TESTED, "detectable"]

Values = NDArray[np.float64]


def rankings(outcomes: ImageOutcomes, against: str | None = None) -> pd.DataFrame:
    """Rank attacks by success on models other than the source, at one budget.

    The score of an image is its mean success over the other targets that count it; the score of an
    attack is the mean over images. There is one ranking per source, and one over all single sources
    that every attack has. Targeted attacks, ensembles, sources behind a defence and targets behind
    a defence have separate rankings.

    Args:
        outcomes: Outcomes of jobs on the same images.
        against: Attack that the others are compared with; None: the first of each ranking.

    Returns:
        One row per ranked attack, ordered by `kind`, by the targets' `defence`, the mean over
        sources first, then by decreasing mean:

        - `attack`, `source` (or `mean of N sources`), and the number of `targets` and of `images`;
        - `mean` success with its 95 % interval, `low` and `high` (NaN below `FEWEST_IMAGES`);
        - `rank`, and from `compare_pairs` the `difference` from the first with `difference_low` and
          `difference_high`, `p` and `discordance`: NaN for the first, and if a ranking lacks
          `against`;
        - `undecided`: the attack is the first, or not significantly weaker at level 0.05 (with
          `against`: neither weaker nor stronger); True if nothing is tested;
        - `detectable`: the difference that this number of images decides with a power of 80 %, at
          the median discordance;
        - `repetition`, see the function of this name, and the `effective` number of attacks.
    """
    parts = []
    for place, targets, jobs in _groups(outcomes):
        sources = sorted({source for its in jobs.values() for source in its})
        groups = {source: [source] for source in sources}
        if len(sources) > 1 and " " not in place["kind"]:
            groups = {f"mean of {len(sources)} sources": sources, **groups}
        for name, members in groups.items():
            cells = {
                attack: outcomes.cells([job for source in members for job in its[source]], targets)
                for attack, its in jobs.items()
                if its.keys() >= set(members)
            }
            scores = {attack: outcomes.scores(its) for attack, its in cells.items()}
            scores = {attack: its for attack, its in scores.items() if not np.isnan(its).all()}
            if scores:
                rows = _rank_attacks(list(scores), np.array(list(scores.values())), against)
                rows["targets"] = [len({target for _, target in cells[a]}) for a in rows["attack"]]
                parts.append(rows.assign(**place, source=name))
    return _joined(parts, ATTACK_COLUMNS)


def source_rankings(outcomes: ImageOutcomes) -> pd.DataFrame:
    """Rank sources at one budget; two sources are compared on the targets that are neither of them.

    There is one ranking per attack, and one over all attacks that every source has. Each two
    sources need at least `COMMON_TARGETS` such targets.

    Returns:
        One row per ranked source, with the columns of `rankings`. `attack` is the name of an attack
        or `mean of N attacks`. `mean` success and `advantage` (mean difference) are averages over
        the comparisons with every other source; `advantage` determines the rank.
    """
    parts = []
    for place, targets, jobs in _groups(outcomes):
        sources = {source for its in jobs.values() for source in its}
        shared = [its for its in jobs.values() if len(its) == len(sources)]
        groups = {f"mean of {len(shared)} attacks": shared} if len(shared) > 1 else {}
        for name, members in {**groups, **{attack: [its] for attack, its in jobs.items()}}.items():
            names = list(members[0])
            cells = {
                (first, second): [
                    cell
                    for its in members
                    for cell in outcomes.cells(
                        its[names[first]],
                        [target for _, target in outcomes.cells(its[names[second]][:1], targets)],
                    )
                ]
                for first, second in permutations(range(len(names)), 2)
            }
            common = [len({target for _, target in its}) for its in cells.values()]
            if common and min(common) >= COMMON_TARGETS:
                sides = np.zeros((len(names), len(names)), np.intp)
                sides[tuple(zip(*cells, strict=True))] = np.arange(len(cells))
                scores = np.array([outcomes.scores(its) for its in cells.values()])
                tests = compare_pairs(scores, sides)
                if np.isfinite(tests.difference).all():  # every pair has common images
                    rows = _rank_sources(names, scores, sides, tests)
                    parts.append(rows.assign(**place, attack=name, targets=min(common)))
    return _joined(parts, SOURCE_COLUMNS)


def repetition(scores: Values) -> float:
    """Compute how much attacks repeat each other beyond the images' difficulty, in [-1, 1].

    The result is the mean over all pairs of rows of `scores`, shape (A, N), of their partial
    correlation given the image's mean over the other attacks. Only images that all attacks count
    are used. NaN for two attacks, or without such an image.
    """
    scores = scores[:, ~np.isnan(scores).any(axis=0)]
    if len(scores) < 3 or scores.shape[1] < 2:
        return np.nan
    covariance, values = np.cov(scores), []
    rows = covariance.sum(axis=1)
    for pair in combinations(range(len(scores)), 2):
        both = covariance[np.ix_(pair, pair)]
        with_rest = rows[[*pair]] - both.sum(axis=1)  # products with the sum of all other rows
        rest = rows.sum() - 2 * rows[[*pair]].sum() + both.sum()
        both = both - np.outer(with_rest, with_rest) / (rest if rest > 1e-12 else np.inf)
        if both[0, 0] * both[1, 1] > 1e-18:
            values.append(both[0, 1] / np.sqrt(both[0, 0] * both[1, 1]))
    return float(np.mean(values)) if values else np.nan


def resolution(ranked: pd.DataFrame) -> list[str]:
    """Describe which differences one ranking can detect, and how much its attacks repeat."""
    first, lines = ranked.iloc[0], []
    if first["detectable"] < 1:
        points = f"{100 * first['detectable']:.1f}"
        lines.append(f"{first['images']} images detect differences of {points} points or more")
    if first.get("effective", np.nan) < len(ranked):
        lines.append(
            f"the {len(ranked)} attacks repeat each other (correlation "
            f"{first['repetition']:.2f}): they count as {first['effective']:.1f}"
        )
    return lines


def _groups(
    outcomes: ImageOutcomes,
) -> Iterator[tuple[dict[str, str], list[int], dict[str, dict[str, list[int]]]]]:
    """Yield kind and defence, the positions of targets, and those of seeds by attack and source."""
    defences = [target.defence for target in outcomes.targets]
    kinds = [outcomes.kind(job) for job in range(len(outcomes.jobs))]
    for kind in sorted(set(kinds), key=lambda kind: (kind.startswith("targeted"), kind)):
        for defence in dict.fromkeys(defences):
            targets = [place for place, its in enumerate(defences) if its == defence]
            jobs: dict[str, dict[str, list[int]]] = {}
            for job, (attack, source) in enumerate(outcomes.jobs):
                cells = outcomes.cells([job], targets) if kinds[job] == kind else []
                if any(outcomes.counted[cell].any() for cell in cells):
                    jobs.setdefault(attack, {}).setdefault(source, []).append(job)
            yield {"kind": kind, "defence": defence}, targets, jobs


def _rank_attacks(names: Sequence[str], scores: Values, against: str | None) -> pd.DataFrame:
    alike = repetition(scores)
    frame = pd.DataFrame({"attack": names, **_means(scores)}).assign(
        repetition=alike, effective=len(names) / (1 + (len(names) - 1) * max(alike, 0.0))
    )
    if against is None:
        return _beside(frame, compare_pairs(scores), int(np.argmax(frame["mean"])), "mean")
    place = names.index(against) if against in names else None
    return _beside(frame, compare_pairs(scores), place, "mean", either=True)


def _rank_sources(
    names: Sequence[str], scores: Values, sides: NDArray[np.intp], tests: PairTests
) -> pd.DataFrame:
    others = ~np.eye(len(names), dtype=bool)
    means = np.where(others, np.nanmean(scores, axis=1)[sides], 0).sum(axis=1)
    frame = pd.DataFrame({"source": names, "mean": means / (len(names) - 1)}).assign(
        images=tests.images.min(axis=1, initial=scores.shape[1], where=others).astype(int),
        advantage=tests.difference.sum(axis=1) / (len(names) - 1),
    )
    return _beside(frame, tests, int(np.argmax(frame["advantage"])), "advantage")


def _means(scores: Values) -> dict[str, Values]:
    """Compute means with Wilson intervals at the effective sample size.

    The effective size is the number of zeros and ones whose mean would vary as much. Two extra
    images with the variance of zeros and ones keep the interval from vanishing where nearly all
    scores agree.

    Reference:
        C. Franco et al., Comparative study of confidence intervals for proportions in complex
        sample surveys, J. Surv. Stat. Methodol. 7 (2019).
    """
    images, sums = np.count_nonzero(~np.isnan(scores), axis=1), np.nansum(scores, axis=1)
    mean, few = sums / images, np.minimum(sums, images - sums)
    squares, largest = np.nansum((scores - mean[:, None]) ** 2, axis=1), mean * (1 - mean)
    variance = (few * squares / np.maximum(images - 1, 1) + 2 * largest) / (few + 2)
    alike = np.divide(largest, variance, out=np.ones_like(mean), where=variance > 0)
    trials = images * np.maximum(alike, 1)
    low, high = np.where(images < FEWEST_IMAGES, np.nan, wilson_interval(mean * trials, trials))
    return {"images": images, "mean": mean, "low": low, "high": high}


def _beside(
    frame: pd.DataFrame, tests: PairTests, place: int | None, key: str, either: bool = False
) -> pd.DataFrame:
    """Add rank, detectable difference, and the tested difference from the row at `place`.

    A row is decided if it is weaker than that row or, with `either`, stronger.
    """
    columns = np.full((4, len(frame)), np.nan)
    if place is not None:
        numbers = (tests.difference, tests.margin, tests.p, tests.discordance)
        columns[:] = [matrix[:, place] for matrix in numbers]
        columns[:, place] = np.nan
    difference, margin, p, discordance = columns
    frame = frame.assign(
        difference=difference,
        difference_low=difference - margin,
        difference_high=difference + margin,
        p=p,
        # Ranks use means over each row's own images, so a row may beat the first one directly.
        undecided=~((p < LEVEL) & ((difference < 0) | either)),
        discordance=discordance,
    )
    usual = frame[["discordance", "images"]].median()
    frame["detectable"] = detectable(tests.cutoff, usual["discordance"], usual["images"])
    frame = frame.sort_values(key, ascending=False, kind="stable")
    return frame.assign(rank=range(1, len(frame) + 1))


def _joined(parts: Sequence[pd.DataFrame], columns: Sequence[str]) -> pd.DataFrame:
    if not parts:
        return pd.DataFrame(columns=list(columns))
    return pd.concat(parts, ignore_index=True)[list(columns)]
