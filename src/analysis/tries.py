"""Success within q tries: an attacker tries candidates in an order learned on other images.

A candidate is an attack with its source. A target skips candidates whose source is, contains or is
related to the target. A unit is an image and a target for which all candidates of the target count
the image.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .estimates import contributions, intervals
from .outcomes import Mask, Outcomes, Values

_PARTS = 11
_DRAWS = 9_999
_CURVES = ("fooled", "unseen", "single")


def success_within(outcomes: Outcomes, gradients: Sequence[float]) -> pd.DataFrame:
    """Compute the share of units that are fooled within q = 1, 2, ... candidates.

    Orders are greedy: the next candidate fools most of the units that those before it do not, as a
    mean over the targets that do not skip it. Each image is judged once, by an order learned on
    other images: the images are in `_PARTS` random parts on a circle, and each part is judged by
    the order learned on the next five. So no two images judge each other, and outcomes of different
    images are uncorrelated, as the interval needs. A share is the mean over targets. Its 95 %
    interval, see `means`, is for other images with these orders.

    Args:
        outcomes: One job per candidate. Under `target_correct` a target counts the same images for
            all candidates, so the share that all of them fool never falls if there are more.
        gradients: Gradients per image of each candidate; NaN: unknown.

    Returns:
        One row per q, up to the least number of candidates that a target has: `q`, and with `_low`
        and `_high`

        - `fooled`: one order for all targets;
        - `unseen`: the target that is judged takes no part in the learning; NaN with one target;
        - `single`: the best single candidate, learned in the same way, that needs at most as many
          gradients as the q candidates; NaN if some costs are unknown;

        `gradients`, the mean number per image for all q candidates; `attack` and `source`, the next
        candidate in the order learned on all images; the numbers of `images`, `targets` and
        `candidates`.

    Raises:
        ValueError: No target has a candidate, or no unit is left.
    """
    jobs = sorted(range(len(outcomes.jobs)), key=lambda job: outcomes.jobs[job])
    fooled, counted, available = _units(outcomes, jobs)
    if not counted.size:
        raise ValueError(
            "No image is left: a target needs images that it classifies correctly, and a source "
            "that is another network."
        )
    costs = np.array(gradients, np.float64)[jobs]
    tries = int(available.sum(axis=0).min())
    shares, spent = _judged(fooled, counted, available, costs, tries)
    frame = pd.DataFrame({"q": np.arange(1, tries + 1), "gradients": spent})
    weights = np.full((1, len(counted)), 1 / len(counted))
    curves = intervals(*contributions(shares, counted, weights), len(counted) == 1)
    for at, name in enumerate(_CURVES):
        for key, end in (("mean", ""), ("low", "_low"), ("high", "_high")):
            frame[f"{name}{end}"] = curves[key][at, :, 0]
    for name, unknown in {"unseen": len(counted) < 2, "single": np.isnan(costs).any()}.items():
        if unknown:
            frame[[name, f"{name}_low", f"{name}_high"]] = np.nan
    order, _ = _learn(fooled, counted, available)
    names = pd.DataFrame(
        [outcomes.jobs[jobs[at]] for at in order[:tries]], columns=["attack", "source"]
    )
    return frame.join(names).assign(
        images=int(counted.any(axis=0).sum()), targets=len(counted), candidates=len(jobs)
    )


def class_success(outcomes: Outcomes, labels: NDArray[np.int64]) -> tuple[pd.DataFrame, float]:
    """Count the units of each class that a candidate fools, and test if all classes are alike.

    Args:
        outcomes: As for `success_within`, of one target.
        labels: Class of each image, shape (N,).

    Returns:
        One row per class with units, the largest share first: `label`, and `fooled` of `n` units;
        and the p-value of a permutation test, in which the units that are left are drawn from all
        classes at random.
    """
    fooled, counted, _ = _units(outcomes, range(len(outcomes.jobs)))
    units = pd.DataFrame({"label": labels[counted[0]], "k": (counted & fooled.any(0))[counted]})
    rows = units.groupby("label", as_index=False).agg(fooled=("k", "sum"), n=("k", "size"))
    k, n = rows["fooled"].to_numpy(), rows["n"].to_numpy()
    left = n - k
    draws = np.random.default_rng(1).multivariate_hypergeometric(n, left.sum(), size=_DRAWS)
    extreme = (draws**2 / n).sum(axis=1) >= (left**2 / n).sum() - 1e-9
    rows = rows.iloc[np.lexsort((n, -k / n))]
    return rows, float((1 + extreme.sum()) / (1 + _DRAWS))


def _judged(
    fooled: Mask, counted: Mask, available: Mask, costs: Values, tries: int
) -> tuple[Values, Values]:
    """Judge each part of the images by the order learned on the next parts.

    Returns:
        Whether a unit is fooled within q candidates, by curve (3, Q, T, N), and the mean gradients
        per image of q candidates (Q,).
    """
    shares, spent = np.zeros((len(_CURVES), tries, *counted.shape)), np.zeros(tries)
    images = counted.shape[1]
    part = np.random.default_rng(1).permutation(images) * _PARTS // images
    for number in range(_PARTS):
        ahead = (part - number) % _PARTS
        judged, learned = ahead == 0, (ahead > 0) & (ahead <= _PARTS // 2)
        order, alone = _learn(fooled, counted & learned, available)
        for target, usable in enumerate(available.T):
            others = np.arange(len(counted)) != target
            unseen, _ = _learn(fooled[:, others], counted[others] & learned, available[:, others])
            tried = [candidate for candidate in order if usable[candidate]][:tries]
            blind = [candidate for candidate in unseen if usable[candidate]][:tries]
            most = np.cumsum(costs[tried])
            cheap = usable & ~(costs > most[:, None])
            single = np.where(cheap, alone, -1).argmax(axis=1)
            shares[0, :, target] += np.logical_or.accumulate(fooled[tried, target]) & judged
            shares[1, :, target] += np.logical_or.accumulate(fooled[blind, target]) & judged
            shares[2, :, target] += fooled[single, target] & judged
            spent += most * judged.sum()
    return shares, spent / counted.size


def _units(outcomes: Outcomes, jobs: Sequence[int]) -> tuple[Mask, Mask, Mask]:
    """Return successes (C, T, N), units (T, N), and the candidates that targets try (C, T).

    Targets without a unit are left out.
    """
    available = outcomes.transfers[jobs]
    counted: Mask = np.all(outcomes.counted[jobs] | ~available[:, :, None], axis=0)
    chosen = available.any(axis=0) & counted.any(axis=1)
    fooled = outcomes.fooled[jobs] & available[:, :, None] & counted
    return fooled[:, chosen], counted[chosen], available[:, chosen]


def _learn(fooled: Mask, units: Mask, available: Mask) -> tuple[list[int], Values]:
    """Return the greedy order of all candidates, and the success of each candidate alone.

    A success is the mean over the targets that try the candidate. Among equals the more successful
    candidate alone comes first, then the earlier one.
    """
    usable = np.maximum(available.sum(axis=1), 1)
    weights = units / np.maximum(units.sum(axis=1, keepdims=True), 1)
    rows, left = fooled.reshape(len(fooled), -1).astype(np.float64), weights.ravel()
    alone: Values = (rows @ left / usable).round(9)
    rest, order = list(np.argsort(-alone, kind="stable")), list[int]()
    while rest:
        gains = (rows[rest] @ left / usable[rest]).round(9)
        if not gains.any():
            break
        order.append(int(rest.pop(int(gains.argmax()))))
        left = left * (rows[order[-1]] == 0)
    return [*order, *map(int, rest)], alone
