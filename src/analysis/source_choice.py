"""Choice of a source for an unseen target."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import stdtrit

from ..utils.model_names import ModelRef
from .outcomes import Mask, Outcomes, Values, network_of, ratio

COMMON_TARGETS = 2
"""Sources are ranked if each two have as many targets in common, besides themselves."""
FEWEST_MODELS = 4
"""Fewest targets for leaving one out."""
FEWEST_FOR_INTERVAL = 5
"""Fewest networks of targets for an interval of a mean over them."""
_HALVES = 10
_NUMBERS = ["success", "most", "any", "best_2", "best_3"]


def choices(outcomes: Outcomes, seed: int = 0) -> pd.DataFrame:
    """Choose a source for each target by its success on the other targets, as if unseen.

    Other trainings of the target are left out with it. A source is chosen on one half of the images
    and judged on the other half, both ways, for `_HALVES` random halves. Two or three
    sources are combined: an image is fooled if one of them succeeds. A target counts the images
    that it counts for every source: a source with few correct predictions would otherwise count
    only easy images.

    Args:
        outcomes: Outcomes of the same untargeted attacks from each source.
        seed: Seed of the halves.

    Returns:
        One row per target, and a last row `mean` with means over networks, each the mean over its
        trainings, and 95 % intervals for new networks and new images (`NAME_low`, `NAME_high`; NaN
        below `FEWEST_FOR_INTERVAL` networks of targets):

        - `chosen`: the source chosen on all images, and `success`, that of the chosen sources;
        - `best`: the best source on this target, and `most`, the success of those best on it;
        - `any`: success of a source chosen at random, the mean over the candidates;
        - `best_2`, `best_3`: success with the two or three best sources;
        - `candidates`: the number of candidate sources.

        No rows if no target has two sources that are other networks and that are compared on
        further networks.
    """
    if len(outcomes.targets) < FEWEST_MODELS:
        raise ValueError(
            f"choosing a source needs at least {FEWEST_MODELS} targets, and the sweep has "
            f"{len(outcomes.targets)}: add some with targets=[...]."
        )
    sources = list(dict.fromkeys(source for _, source in outcomes.jobs))
    runs = runs_of(outcomes, sources)
    measured = outcomes.transfers[runs].all(axis=0)
    fooled = outcomes.fooled[runs].astype(np.float64)
    counted = outcomes.counted_for_all(*map(range, outcomes.evaluated.shape))
    random, count = np.random.default_rng(seed), len(outcomes.index)
    first = random.permuted(np.tile(np.arange(count) % 2 == 0, (_HALVES, 1)), axis=1)
    halves = np.vstack([np.ones((1, count), bool), first, ~first])
    weights = halves.T.astype(np.float64)
    sums = (counted * fooled.mean(axis=0)) @ weights
    rates = np.moveaxis(ratio(sums, counted.astype(np.float64) @ weights), -1, 0)
    rates[:, ~measured] = np.nan
    networks = np.array([network_of(name.model, outcomes.networks) for name in outcomes.targets])
    rows, contributions, of_network = [], list[Values](), defaultdict[str, list[Values]](list)
    for target, name in enumerate(outcomes.targets):
        seen = rates[..., networks != networks[target]]
        usable = np.isfinite(rates[0, :, target]) & np.isfinite(seen).any(axis=(0, 2))
        able, seen = np.flatnonzero(usable), seen[:, usable]
        values = np.array([_values(half) for half in seen])
        if len(able) < 2 or np.isnan(values).any():
            continue
        orders = able[np.argsort(-values.round(9), axis=1, kind="stable")]
        best: NDArray[np.intp] = able[rates[:, able, target].round(9).argmax(axis=1)]
        chosen = {"chosen": sources[orders[0][0]], "best": sources[best[0]]}
        parts = []
        for half, order in enumerate(orders[1:], start=1):
            judged = ~halves[half] & counted[target]
            if not judged.any():
                continue
            groups = [order[:1], best[half, None], order[:2], order[:3]]
            shares = [fooled[:, group, target].max(axis=1).mean(axis=0) for group in groups]
            shares.insert(2, fooled[:, able, target].mean(axis=(0, 1)))
            parts.append(np.where(judged, [*shares, np.ones(count)], 0) / judged.sum())
        rows.append({"target": name.model, "candidates": len(able), **chosen})
        contributions.append(np.mean(parts, axis=0))
        of_network[networks[target]].append(contributions[-1])
    if not rows:
        return pd.DataFrame(columns=["target", "chosen", "best", *_NUMBERS])
    images = np.array(contributions)  # shape (targets, numbers and weight, images)
    frame = pd.DataFrame(rows)
    frame[_NUMBERS] = images[:, :-1].sum(axis=2)
    of_networks = np.array([np.mean(trainings, axis=0) for trainings in of_network.values()])
    last = {"target": "mean", **_mean_of_new_networks(of_networks)}
    return pd.concat([frame, pd.DataFrame([last])], ignore_index=True)


def runs_of(outcomes: Outcomes, sources: Sequence[str]) -> NDArray[np.intp]:
    """Return the positions of the jobs of each attack and seed, shape (runs, S).

    The seeds of a job that has fewer of them than another are used again.
    """
    jobs = dict[str, dict[str, list[int]]]()
    for at, (attack, source) in enumerate(outcomes.jobs):
        jobs.setdefault(attack, {}).setdefault(source, []).append(at)
    return np.array(
        [
            [seeds[source][number % len(seeds[source])] for source in sources]
            for seeds in jobs.values()
            for number in range(max(map(len, seeds.values())))
        ]
    )


def _values(rates: Values) -> Values:
    """Compute the values of sources from rates (S, T), NaN where missing; see `source_values`."""
    rates = rates[:, np.isfinite(rates).any(axis=0)]
    measured = np.isfinite(rates)
    values: Values = source_values(measured) @ rates[measured]
    return values


def _mean_of_new_networks(images: Values) -> dict[str, float]:
    """Return means over target networks, with intervals from variances over these and over images.

    Args:
        images: Contributions of N images to the numbers of T networks, and their weights, shape
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


def source_values(measured: Mask) -> Values:
    """Return the matrix from the rates of S sources on T targets to the sources' values.

    A value is the mean over all targets of the least-squares fit rate = source + target.

    Args:
        measured: The pairs that have a rate, shape (S, T).

    Returns:
        The matrix, shape (S, pairs), for rates in the order of `rates[there]`; NaN for sources that
        the targets do not connect with the others.
    """
    source, target = np.nonzero(measured)
    design = np.zeros((len(source), sum(measured.shape)))
    rows = np.arange(len(source))
    design[rows, source] = design[rows, len(measured) + target] = 1
    wanted = np.full((len(measured), design.shape[1]), 1 / max(measured.shape[1], 1))
    wanted[:, : len(measured)] = np.eye(len(measured))
    matrix: Values = wanted @ np.linalg.pinv(design)
    matrix[~np.isclose(matrix @ design, wanted).all(axis=1)] = np.nan
    return matrix


def missing_target(
    measured: Mask, sources: Sequence[str], targets: Sequence[str], networks: Mapping[str, str]
) -> str:
    """Return what to add so that each two sources have enough common targets; empty if nothing.

    Args:
        measured: The pairs of source and target that can be compared, shape (S, T).
        sources: Names of the sources.
        targets: Names of the targets.
        networks: The network of each model; a model that it lacks is its own.
    """
    of = {
        name: {network_of(member, networks) for member in ModelRef.parse(name).members}
        for name in (*sources, *targets)
    }
    for first, second in combinations(range(len(sources)), 2):
        if (more := COMMON_TARGETS - int((measured[first] & measured[second]).sum())) > 0:
            both = sources[first], sources[second]
            other = measured[first] ^ measured[second]
            names = [name for name, is_missing in zip(targets, other, strict=True) if is_missing]
            if others := [name for name in names if not of[name] & (of[both[0]] | of[both[1]])]:
                return f"{others[0]} as a target of both {both[0]} and {both[1]}"
            return f"{more} more target{'s' * (more > 1)} besides {', '.join(sources)}"
    return ""
