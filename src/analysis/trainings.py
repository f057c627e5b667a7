"""Differences between networks for new trainings and new images."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from .multiple_comparisons import FEWEST_TESTED, LEVEL
from .outcomes import Mask, Outcomes, Values, network_of
from .source_values import source_values

FEWEST_TRAININGS = 3
"""With fewer trainings nothing is said about networks in general."""
NETWORK_COLUMNS = ["source", "trainings", "mean", "difference", "difference_low"]
NETWORK_COLUMNS += ["difference_high", "p", "degrees"]


def compare_networks(
    fooled: Values,
    counted: Mask,
    measured: Mask,
    models: tuple[Sequence[str], Sequence[str]],
    networks: Mapping[str, str],
) -> pd.DataFrame:
    """Compare source networks, for new trainings of them and new images.

    A rate of two networks is the mean over the source's trainings of the means over the target's
    trainings. The value of a network is the mean over target networks of these rates, fitted as in
    `source_rankings`. The variance of a difference of two values is the sum of

    - the variance over images, with N - 1 degrees of freedom;
    - for each network with several trainings, the jackknife variance over them, with one degree of
      freedom less than trainings. A training is left out as a source and as a target; for a network
      that is no target this is the variance of its trainings' values, divided by their number.

    Its degrees of freedom are Satterthwaite's, (sum v)^2 / sum (v^2 / degrees). Intervals and
    p-values are Bonferroni's for all pairs of networks with at least `FEWEST_TRAININGS` trainings.
    Target networks with one training count as they are.

    Args:
        fooled: Success from S sources on T targets for N images, in [0, 1], shape (S, T, N).
        counted: Images that a target counts for every source, shape (T, N).
        measured: Pairs of trainings of different networks that were measured, shape (S, T).
        models: Names of the sources and of the targets; a training has one name in both.
        networks: The network of each training.

    Returns:
        One row per source network, by decreasing `mean`: `source`, the number of its `trainings` as
        a source, and the `difference` from the first with enough trainings, with its simultaneous
        95 % interval `difference_low` and `difference_high`, `p`, and `degrees` of freedom. The
        last five are NaN for that one, for networks with fewer trainings, and below
        `FEWEST_TESTED` images.

    Reference:
        F. E. Satterthwaite, An approximate distribution of estimates of variance components,
        Biometrics Bulletin 2 (1946); B. Efron and C. Stein, The jackknife estimate of variance,
        Ann. Stat. 9 (1981).
    """
    n, images = counted.sum(axis=1), np.count_nonzero(counted.any(axis=0))
    measured = measured & (n > 0)
    rates = np.where(counted, fooled, 0).sum(axis=2) / np.maximum(n, 1)
    parts = np.where(counted, fooled - rates[..., None], 0) / np.maximum(n, 1)[:, None]
    of = [np.array([networks[name] for name in names]) for names in models]
    names = np.array([*dict.fromkeys(of[0].tolist())])
    chosen = [axis == np.array([*dict.fromkeys(axis.tolist())])[:, None] for axis in of]
    trainings = [*dict.fromkeys((*models[0], *models[1]))]
    all_count = pd.Series([networks[name] for name in trainings]).value_counts()
    count = pd.Series([networks[name] for name in dict.fromkeys(models[0])]).value_counts()

    def values(numbers: Values, pairs: Mask) -> Values:
        """Return the values of the networks from numbers of pairs, shape (S, T, ...)."""
        both = np.einsum("st,as,bt->abst", pairs, *chosen)
        of_target = both.sum(axis=3, keepdims=True)
        of_pair = np.count_nonzero(of_target, axis=2)[:, :, None]
        rates = np.einsum("abst,st...->ab...", both / np.maximum(of_target * of_pair, 1), numbers)
        whole = both.any(axis=(2, 3))
        return np.asarray(source_values(whole) @ rates[whole])

    mean, by_image = values(rates, measured), values(parts, measured)
    without = dict[str, list[Values]]()
    for name in (name for name in trainings if all_count[networks[name]] > 1):
        kept = [np.array(axis) != name for axis in models]
        pairs = measured & kept[0][:, None] & kept[1]
        without.setdefault(networks[name], []).append(values(rates, pairs))
    tested = (count[names] >= FEWEST_TRAININGS).to_numpy() & (images >= FEWEST_TESTED)
    tests, rows = max(tested.sum() * (tested.sum() - 1) / 2, 1), []
    order = np.argsort(-mean, kind="stable").tolist()
    first = next((at for at in order if tested[at]), order[0])
    for at in order:
        rows.append(row := {"source": names[at], "mean": mean[at]})
        if tested[at] and at != first:
            squares = np.square(by_image[at] - by_image[first]).sum()
            variances, degrees = [squares * images / (images - 1)], [images - 1]
            for left_out in without.values():
                differences = np.array([value[at] - value[first] for value in left_out])
                variances.append(differences.var() * (len(left_out) - 1))
                degrees.append(np.intp(len(left_out) - 1))
            total, squares = sum(variances), np.square(variances) / degrees
            if not total:  # no image and no training differs
                continue
            freedom = total**2 / max(squares.sum(), 1e-300)
            difference, error = mean[at] - mean[first], np.sqrt(total)
            half = stdtrit(freedom, 1 - LEVEL / 2 / tests) * error
            p = min(2 * tests * stdtr(freedom, -abs(difference) / error), 1)
            row |= {"difference": difference, "p": p, "degrees": freedom}
            ends = np.clip([difference - half, difference + half], -1, 1)
            row |= {"difference_low": ends[0], "difference_high": ends[1]}
    frame = pd.DataFrame(rows).reindex(columns=NETWORK_COLUMNS)
    return frame.assign(trainings=count[frame["source"]].to_numpy())


def network_rankings(outcomes: Outcomes) -> pd.DataFrame:
    """Compare the networks of the single sources of some outcomes, see `compare_networks`.

    Returns:
        Its rows for the mean over the attacks; none if no source network has two trainings.
    """
    single = [str(source) for source in outcomes.sources if not source.is_ensemble]
    sources, targets = [*dict.fromkeys(single)], [str(target) for target in outcomes.targets]
    networks = {name: network_of(name, outcomes.networks) for name in (*sources, *targets)}
    if len({networks[name] for name in sources}) in (1, len(sources)):
        return pd.DataFrame(columns=NETWORK_COLUMNS)
    runs = _runs(outcomes, sources)
    measured: Mask = np.all(outcomes.transfers[runs], axis=0)
    counted = outcomes.counted_for_all(runs.ravel().tolist(), range(len(targets)))
    fooled = outcomes.fooled[runs].mean(axis=0)
    return compare_networks(fooled, counted, measured, (sources, targets), networks)


def _runs(outcomes: Outcomes, sources: Sequence[str]) -> NDArray[np.intp]:
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
