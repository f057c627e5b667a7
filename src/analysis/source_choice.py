"""Choice of a source for an unseen target."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import stdtrit

from ..utils.model_names import NO_DEFENCE, ModelRef
from .outcomes import Mask, Outcomes, ratio

COMMON_TARGETS = 2
"""Sources are ranked if each two have as many targets in common, besides themselves."""
FEWEST_MODELS = 4
"""Fewest targets for leaving one out."""
FEWEST_FOR_INTERVAL = 5
"""Fewest targets for an interval of a mean over targets."""
_HALVES = 10
_NUMBERS = ["success", "most", "any", "best_2", "best_3"]

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Transfer:
    """Success of attacks from S sources on T targets for N images.

    Attributes:
        scores: Success in [0, 1] of A attacks with each seed, shape (A, S, T, N); averaged over
            seeds if jobs have different numbers of them; NaN for white boxes.
        counts: Images that a target counts for a source, shape (S, T, N); True where the pair was
            not evaluated.
        own: Success rate on the source itself, averaged over attacks, shape (S,); NaN if the source
            is not a target.
    """

    sources: Sequence[str]
    targets: Sequence[str]
    attacks: Sequence[str]
    scores: Values
    counts: Mask
    own: Values

    @cached_property
    def counted(self) -> Mask:
        """Images that a target counts for every source, shape (T, N)."""
        return np.logical_and.reduce(self.counts)

    @property
    def rates(self) -> Values:
        """Success rates averaged over attacks, shape (S, T); NaN for white boxes."""
        return self.rates_of(np.ones((1, self.counted.shape[-1])))[0]

    @property
    def single(self) -> "Transfer":
        """The transfer from single sources, without ensembles."""
        places = [
            place for place, name in enumerate(self.sources) if not ModelRef.parse(name).is_ensemble
        ]
        return Transfer(
            [self.sources[place] for place in places],
            self.targets,
            self.attacks,
            self.scores[:, places],
            self.counts[places],
            self.own[places],
        )

    def rates_of(self, weights: Values) -> Values:
        """Compute the rates, shape (B, S, T), for weights of images, shape (B, N)."""
        sums = np.where(self.counted, self.scores, 0).mean(axis=0) @ weights.T
        rates = np.moveaxis(ratio(sums, self.counted @ weights.T), -1, 0)
        missing: Values = np.where(np.isnan(self.scores).all(axis=(0, -1)), np.nan, rates)
        return missing


def transfer_of(outcomes: Outcomes) -> Transfer:
    """Extract the transfer of untargeted attacks between sources and targets without a defence.

    Attacks that some single source lacks are left out, then ensembles that lack an attack. A source
    with few correct predictions would count only easy images, so a target counts the same images
    for every source.

    Raises:
        ValueError: No attack is left.
    """
    plain = outcomes.select(defence=NO_DEFENCE)
    ran = {
        job: name
        for job, name in enumerate(plain.jobs)
        if not plain.targeted[job] and not plain.sources[job].is_defended
    }
    there = list(dict.fromkeys(source for _, source in ran.values()))
    single = [source for source in there if not ModelRef.parse(source).is_ensemble]
    attacks = [
        attack
        for attack in dict.fromkeys(attack for attack, _ in ran.values())
        if all((attack, source) in ran.values() for source in single)
    ]
    if not attacks or not single:
        raise ValueError("no attack was run from every source; add the missing jobs.")
    pairs = {source: {(attack, source) for attack in attacks} for source in there}
    sources = [source for source in there if pairs[source] <= {*ran.values()}]
    targets = [target.model for target in plain.targets]
    jobs_of = {name: [job for job, its in ran.items() if its == name] for name in ran.values()}
    counts_of_seeds = {len(jobs_of[attack, source]) for attack in attacks for source in sources}
    seeds = counts_of_seeds.pop() if len(counts_of_seeds) == 1 else 1
    scores = np.full((len(attacks) * seeds, len(sources), len(targets), len(plain.index)), np.nan)
    counts, white_box = np.ones(scores.shape[1:], bool), np.full(scores.shape[:2], np.nan)
    for at in np.ndindex(scores.shape[:3]):
        names, target = (attacks[at[0] // seeds], sources[at[1]]), at[2]
        mine = jobs_of[names][at[0] % seeds :: seeds]
        if not plain.evaluated[mine[0], target]:
            continue
        values = plain.scores(mine, target)
        counts[at[1], target] &= ~np.isnan(values)
        if plain.pairs(mine, [target]):
            scores[at] = values
        elif targets[target] == names[1] and not np.isnan(values).all():
            white_box[at[:2]] = np.nanmean(values)
    return Transfer(sources, targets, attacks, scores, counts, white_box.mean(axis=0))


def _values(rates: Values) -> Values:
    """Compute the values of sources from rates (S, T), NaN where missing; see `source_values`."""
    rates = rates[:, np.isfinite(rates).any(axis=0)]
    there = np.isfinite(rates)
    values: Values = source_values(there) @ rates[there]
    return values


def profiles(transfer: Transfer) -> pd.DataFrame:
    """Rank single sources by their success on other models, best first.

    Returns:
        One row per source: `success`, its value as in `source_rankings` (NaN if sources have too
        few common targets, and `lacks` says what to add), and `own`, its success on itself.
    """
    transfer = transfer.single
    rates = transfer.rates
    rows = pd.DataFrame({"source": transfer.sources, "own": transfer.own, "success": np.nan})
    rows["lacks"] = missing_target(np.isfinite(rates), transfer.sources, transfer.targets)
    if not rows["lacks"].any():
        rows["success"] = _values(rates)
    return rows.sort_values("success", ascending=False, kind="stable", ignore_index=True)


def choices(transfer: Transfer, seed: int = 0) -> pd.DataFrame:
    """Choose a source for each target by its success on the other targets, as if unseen.

    A source is chosen on one half of the images and judged on the other half, both ways, for
    `_HALVES` random halves. Two or three sources are combined: an image is fooled if one of them
    succeeds.

    Returns:
        One row per target, and a last row `mean` with means and 95 % intervals for new targets and
        new images (`NAME_low`, `NAME_high`; NaN below `FEWEST_FOR_INTERVAL` targets):

        - `chosen`: the source chosen on all images, and `success`, that of the chosen sources;
        - `best`: the best source on this target, and `most`, the success of those best on it;
        - `any`: success of a source chosen at random, the mean over the candidates;
        - `best_2`, `best_3`: success with the two or three best sources;
        - `candidates`: the number of candidate sources.
    """
    if len(transfer.targets) < FEWEST_MODELS:
        raise ValueError(
            f"choosing a source needs at least {FEWEST_MODELS} targets, and the sweep has "
            f"{len(transfer.targets)}: add some with targets=[...]."
        )
    random, count = np.random.default_rng(seed), transfer.counted.shape[-1]
    first = random.permuted(np.tile(np.arange(count) % 2 == 0, (_HALVES, 1)), axis=1)
    halves = np.vstack([np.ones((1, count), bool), first, ~first])
    rates = transfer.rates_of(halves.astype(np.float64))
    rows, contributions = [], []
    for target, name in enumerate(transfer.targets):
        able = np.flatnonzero(np.isfinite(rates[0, :, target]))
        seen = np.delete(rates[:, able], target, axis=2)
        values = np.array([_values(its) for its in seen])
        if len(able) < 2 or np.isnan(values).any():
            continue
        orders = able[np.argsort(-values.round(9), axis=1, kind="stable")]
        best: NDArray[np.intp] = able[rates[:, able, target].round(9).argmax(axis=1)]
        row = {"target": name, "candidates": len(able), "chosen": transfer.sources[orders[0][0]]}
        parts = []
        for half, order in enumerate(orders[1:], start=1):
            judged = ~halves[half] & transfer.counted[target]
            if not judged.any():
                continue
            scores = transfer.scores[:, :, target]
            groups = [order[:1], best[half, None], order[:2], order[:3]]
            fooled = [scores[:, group].max(axis=1).mean(axis=0) for group in groups]
            fooled.insert(2, scores[:, able].mean(axis=(0, 1)))
            parts.append(np.where(judged, [*fooled, np.ones(count)], 0) / judged.sum())
        rows.append(row | {"best": transfer.sources[best[0]]})
        contributions.append(np.mean(parts, axis=0))
    if not rows:
        raise ValueError(
            "no target has two sources that are other networks and count an image; add models."
        )
    images = np.array(contributions)  # shape (targets, numbers and weight, images)
    frame = pd.DataFrame(rows)
    frame[_NUMBERS] = images[:, :-1].sum(axis=2)
    last = {"target": "mean", **_mean_of_new_targets(images)}
    return pd.concat([frame, pd.DataFrame([last])], ignore_index=True)


def _mean_of_new_targets(images: Values) -> dict[str, float]:
    """Return means over targets, with intervals from the variances over targets and over images.

    Args:
        images: Contributions of N images to the numbers of T targets, and their weights, shape
            (T, numbers + 1, N).
    """
    targets, count = len(images), images.shape[-1]
    rates, (*parts, weights) = images.sum(axis=2), images.mean(axis=0)
    numbers = dict(zip(_NUMBERS, rates[:, :-1].mean(axis=0).tolist(), strict=True))
    ends: dict[str, float] = {}
    for place, (name, mean) in enumerate(numbers.items()):
        half = np.nan
        if targets >= FEWEST_FOR_INTERVAL:
            spread = rates[:, place].var(ddof=1) / targets
            spread += np.square(parts[place] - mean * weights).sum() * count / (count - 1)
            half = float(stdtrit(targets - 1, 0.975) * np.sqrt(spread))
        ends |= {f"{name}_low": mean - half, f"{name}_high": mean + half}
    return numbers | ends


def source_values(there: Mask) -> Values:
    """Return the matrix from the rates of S sources on T targets to the sources' values.

    A value is the mean over all targets of the least-squares fit rate = source + target.

    Args:
        there: The pairs that have a rate, shape (S, T).

    Returns:
        The matrix, shape (S, pairs), for rates in the order of `rates[there]`; NaN for sources that
        the targets do not connect with the others.
    """
    source, target = np.nonzero(there)
    design = np.zeros((len(source), sum(there.shape)))
    rows = np.arange(len(source))
    design[rows, source] = design[rows, len(there) + target] = 1
    wanted = np.full((len(there), design.shape[1]), 1 / max(there.shape[1], 1))
    wanted[:, : len(there)] = np.eye(len(there))
    matrix: Values = wanted @ np.linalg.pinv(design)
    matrix[~np.isclose(matrix @ design, wanted).all(axis=1)] = np.nan
    return matrix


def missing_target(there: Mask, sources: Sequence[str], targets: Sequence[str]) -> str:
    """Return what to add so that each two sources have enough common targets; empty if nothing.

    Args:
        there: The pairs of source and target that can be compared, shape (S, T).
        sources: Names of the sources.
        targets: Names of the targets.
    """
    for first, second in combinations(range(len(sources)), 2):
        if (more := COMMON_TARGETS - int((there[first] & there[second]).sum())) > 0:
            both = sources[first], sources[second]
            other = there[first] ^ there[second]
            names = [name for name, its in zip(targets, other, strict=True) if its]
            own = {member for name in both for member in ModelRef.parse(name).members}
            if known := [name for name in names if not own & {*ModelRef.parse(name).members}]:
                return f"{known[0]} as a target of both {both[0]} and {both[1]}"
            return f"{more} more target{'s' * (more > 1)} besides {', '.join(sources)}"
    return ""
