"""The strongest attacker: targets against whichever of several attacks and sources suits best."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src.analysis.intervals import FEWEST_IMAGES, wilson_interval
from src.analysis.matrices import TRANSFER, relation

_DRAWS = 2_000  # of the bootstrap: the ends of an interval vary by a tenth of its length

Successes = NDArray[np.bool_]


def strongest_attackers(rows: pd.DataFrame, white_box: bool = False) -> pd.DataFrame:
    """Rate the success against each target if the attacker may use any attack and source.

    An attacker is an attack from a source. All are compared over the images that every one of them
    counts; of untargeted attacks the target's accuracy is one minus a success rate.

    Args:
        rows: `image_outcomes` of jobs on the same images, with `attack` and `source`.
        white_box: Let the attackers use the target itself, or an ensemble that it is part of.

    Returns:
        One row per target, of untargeted attacks first: `targeted`, `target`, `attackers` (their
        number), `images`;

        - per set: the `attack` and `source` of the one that succeeds on most images, its rate
          `best`, and `best_low` and `best_high`, the 95 % percentile interval of a bootstrap over
          images that chooses the best anew in each draw, NaN below `FEWEST_IMAGES` images;
        - per image: `any`, the share of images on which at least one succeeds, and its 95 % Wilson
          interval, `any_low` and `any_high`; `none`, the number of images on which none does.
    """
    found = []
    for targeted, target, names, successes in _successes(rows, white_box):
        count, images = successes.shape
        rates = successes.mean(axis=1) if images else np.full(count, np.nan)
        best = int(np.argmax(rates)) if images else 0
        fooled = int(successes.any(axis=0).sum())
        low, high = _best_of_resamples(successes)
        any_low, any_high = (float(end) for end in wilson_interval(fooled, images))
        found.append(
            {
                "targeted": targeted,
                "target": target,
                "attackers": count,
                "images": images,
                "attack": names[best][0],
                "source": names[best][1],
                "best": rates[best],
                "best_low": low,
                "best_high": high,
                "any": fooled / images if images else np.nan,
                "any_low": any_low,
                "any_high": any_high,
                "none": images - fooled,
            }
        )
    return pd.DataFrame(found)


def fooled_by_at_least(rows: pd.DataFrame, white_box: bool = False) -> pd.DataFrame:
    """Count the images of each target on which at least k attackers succeed.

    Arguments and attackers are those of `strongest_attackers`.

    Returns:
        One row per target and k = 1, 2, ... up to the number of attackers: `targeted`, `target`,
        `attackers`, `k`, the number `fooled` of `images`, and their `share` with its 95 % Wilson
        interval, `low` and `high`.
    """
    parts = []
    for targeted, target, names, successes in _successes(rows, white_box):
        k = np.arange(1, len(names) + 1)
        fooled = (successes.sum(axis=0)[None, :] >= k[:, None]).sum(axis=1)
        images = successes.shape[1]
        low, high = wilson_interval(fooled, np.full(len(k), images))
        what = {"targeted": targeted, "target": target, "attackers": len(names), "k": k}
        counts = {
            "fooled": fooled,
            "images": images,
            "share": fooled / images if images else np.nan,
        }
        parts.append(pd.DataFrame({**what, **counts, "low": low, "high": high}))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _successes(
    rows: pd.DataFrame, white_box: bool
) -> Iterator[tuple[bool, str, list[tuple[str, str]], Successes]]:
    """Yield each target's attackers, and whether they succeed on their common images, (A, N)."""
    targets = rows["target"].unique()
    if not white_box:
        pairs = rows[["source", "target"]].drop_duplicates()
        kinds = map(relation, pairs["source"], pairs["target"])
        rows = rows.merge(pairs[[kind == TRANSFER for kind in kinds]])
    cells = rows.groupby(["attack", "source"], sort=False, observed=True)
    aimed = cells["target_label"].transform("count") > 0
    for targeted in (False, True):
        of_kind = rows[aimed == targeted]
        for target in targets:
            mine = of_kind[of_kind["target"] == target]
            if mine.empty:
                continue
            wide = mine.astype({"counted": float, "success": float}).pivot(
                index="index", columns=["attack", "source"], values=["counted", "success"]
            )
            counted, succeeds = (wide[name].to_numpy() == 1 for name in ("counted", "success"))
            names = [(str(attack), str(source)) for attack, source in wide["success"].columns]
            yield targeted, str(target), names, succeeds[counted.all(axis=1)].T


def _best_of_resamples(successes: Successes) -> tuple[float, float]:
    images = successes.shape[1]
    if images < FEWEST_IMAGES:
        return np.nan, np.nan
    chances = np.full(images, 1 / images)
    times = np.random.default_rng(0).multinomial(images, chances, _DRAWS)
    best = (times @ successes.T.astype(np.float64)).max(axis=1) / images
    low, high = np.percentile(best, [2.5, 97.5])
    return float(low), float(high)
