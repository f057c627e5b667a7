"""The strongest attacker: targets against whichever of several attacks and sources suits best."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from statsmodels.stats.proportion import proportion_confint

from src.analysis.image_outcomes import ImageOutcomes
from src.analysis.intervals import wilson_interval
from src.analysis.multiple_comparisons import LEVEL
from src.analysis.outcomes import Mask
from src.utils.defended_names import Evaluated


def strongest_attackers(found: ImageOutcomes) -> pd.DataFrame:
    """Rate the success against each target if the attacker may use any attack and source.

    An attacker is an attack from a source other than the target. All are compared over the images
    that every one of them counts; of untargeted attacks the target's accuracy is one minus a
    success rate.

    Returns:
        One row per target, of untargeted attacks first: `targeted`, `target`, `defence`,
        `attackers` (their number A), `images`;

        - per set: the `attack` and `source` of the one that succeeds on most images, its rate
          `best`, and `best_low` and `best_high`: the lower end of its exact interval (Clopper and
          Pearson) at the level 1 - 0.05 / A, since it was chosen of A by the same images, and the
          upper end of its Wilson interval at 0.95;
        - per image: `any`, the share of images on which at least one succeeds, and its 95 % Wilson
          interval, `any_low` and `any_high`; `none`, the number of images on which none does.
    """
    rows = []
    for targeted, target, jobs, successes in _successes(found):
        count, images = successes.shape
        totals = successes.sum(axis=1)
        best = int(np.argmax(totals))
        fooled = int(successes.any(axis=0).sum())
        any_low, any_high = (float(end) for end in wilson_interval(fooled, images))
        attack, source = found.jobs[jobs[best]]
        rows.append(
            {
                "targeted": targeted,
                **target._asdict(),
                "attackers": count,
                "images": images,
                "attack": attack,
                "source": source,
                "best": totals[best] / images if images else np.nan,
                "best_low": proportion_confint(totals[best], images, LEVEL / count, "beta")[0]
                if images
                else np.nan,
                "best_high": float(wilson_interval(totals[best], images)[1]),
                "any": fooled / images if images else np.nan,
                "any_low": any_low,
                "any_high": any_high,
                "none": images - fooled,
            }
        )
    return pd.DataFrame(rows)


def fooled_by_at_least(found: ImageOutcomes) -> pd.DataFrame:
    """Count the images of each target on which at least k attackers succeed.

    The attackers are those of `strongest_attackers`.

    Returns:
        One row per target and k = 1, 2, ... up to the number of attackers: `targeted`, `target`,
        `defence`, `attackers`, `k`, the number `fooled` of `images`, and their `share` with its
        95 % Wilson interval, `low` and `high`.
    """
    parts = []
    for targeted, target, jobs, successes in _successes(found):
        k, images = np.arange(1, len(jobs) + 1), successes.shape[1]
        by = np.bincount(successes.sum(axis=0), minlength=len(jobs) + 1)
        fooled = by[::-1].cumsum()[::-1][1:]
        low, high = wilson_interval(fooled, np.full(len(k), images))
        what = {"targeted": targeted, **target._asdict(), "attackers": len(jobs), "k": k}
        counts = {
            "fooled": fooled,
            "images": images,
            "share": fooled / images if images else np.nan,
        }
        parts.append(pd.DataFrame({**what, **counts, "low": low, "high": high}))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _successes(found: ImageOutcomes) -> Iterator[tuple[bool, Evaluated, list[int], Mask]]:
    """Yield each target's attackers, and whether they succeed on their common images, (A, N)."""
    for targeted in (False, True):
        jobs = [job for job, its in enumerate(found.target_labels) if (its is not None) == targeted]
        for target, name in enumerate(found.targets):
            mine = [job for job, _ in found.cells(jobs, [target])]
            if mine:
                common = found.unpack(np.bitwise_and.reduce(found.counted[mine, target]))
                yield targeted, name, mine, found.unpack(found.fooled[mine, target])[:, common]
