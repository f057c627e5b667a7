"""The strongest attacker: success if the best of several attacks and sources may be chosen."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy.special import betaincinv

from ..utils.model_names import ModelRef
from .image_outcomes import ImageOutcomes
from .intervals import wilson_interval
from .multiple_comparisons import LEVEL
from .outcomes import Mask


def strongest_attackers(outcomes: ImageOutcomes) -> pd.DataFrame:
    """Compute the success on each target if the attacker may use any attack and source.

    An attacker is an attack from a source other than the target. All attackers are compared on the
    images that every one of them counts.

    Returns:
        One row per target, untargeted attacks first: `targeted`, `target`, `defence`, `attackers`
        (their number A), `images`;

        - best attacker per set: the `attack` and `source` that succeed on most images, their rate
          `best`, and its bounds `best_low` and `best_high`. The lower bound is exact (Clopper and
          Pearson) at level 1 - 0.05 / A, because the same images chose the best of A attackers. The
          upper bound is from the 95 % Wilson interval;
        - best attacker per image: `any`, the share of images on which at least one succeeds, with
          its 95 % Wilson interval, `any_low` and `any_high`; `none`, the number of images on which
          none succeeds.
    """
    columns = ["targeted", "target", "defence", "attackers", "images", "attack", "source", "best"]
    columns += ["best_low", "best_high", "any", "any_low", "any_high", "none"]
    rows = []
    for targeted, target, jobs, successes in _successes(outcomes):
        count, images = successes.shape
        totals = successes.sum(axis=1)
        first = int(np.argmax(totals))
        best, either = totals[first], int(successes.any(axis=0).sum())
        rate, low, any_rate = np.nan, np.nan, np.nan
        if images:
            rate, any_rate = best / images, either / images
            low = betaincinv(best, images - best + 1, LEVEL / count / 2) if best else 0.0
        high = float(wilson_interval(best, images)[1])
        ends = map(float, wilson_interval(either, images))
        names = (targeted, *target.columns, count, images, *outcomes.jobs[jobs[first]])
        rows.append((*names, rate, low, high, any_rate, *ends, images - either))
    return pd.DataFrame(rows, columns=columns)


def _successes(outcomes: ImageOutcomes) -> Iterator[tuple[bool, ModelRef, list[int], Mask]]:
    """Yield each target with its attackers and their successes on common images, shape (A, N)."""
    for targeted in (False, True):
        jobs = [
            job for job, its in enumerate(outcomes.target_labels) if (its is not None) == targeted
        ]
        for target, name in enumerate(outcomes.targets):
            others = [job for job, _ in outcomes.pairs(jobs, [target])]
            if others:
                common = outcomes.unpack(np.bitwise_and.reduce(outcomes.counted[others, target]))
                yield (
                    targeted,
                    name,
                    others,
                    outcomes.unpack(outcomes.fooled[others, target])[:, common],
                )
