"""Agreement of stated predictions with the same predictions computed again."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

TOLERANCE, WIDE = 0.01, 0.4
"""Largest difference of two probabilities that counts as rounding.

The second is for adversarial images of more than 64 pixels, and for other formats than float32.
There an iterative attack follows the signs of small gradients, which rounding changes.
"""
HONEST = 0.002
"""Largest share of an honest card's outcomes that differ by more on another machine."""
_KEYS = ["target", "defence", "eps_255", "index"]


def wrong_outcomes(
    stated: pd.DataFrame, computed: pd.DataFrame, clean: float, attacked: float
) -> NDArray[np.bool_]:
    """Return for each computed outcome whether the stated one differs by more than rounding.

    Two outcomes differ if the probability of their predicted class or of the true class differs by
    more than a limit, or if the computed probability of the stated class is that far below the
    likeliest one's. An outcome that is not stated differs, and so does one of another image or
    label, of another number of passes through a defence, or with other correct passes: rounding
    changes one of them.

    Args:
        stated: Rows of a table of predictions.
        computed: The same rows for some images, with the five likeliest classes.
        clean: Limit for clean images.
        attacked: Limit for adversarial images.
    """
    both = computed.merge(stated, "left", _KEYS, suffixes=("", "_stated"))
    limit = np.where(both["eps_255"] > 0, attacked, clean)
    likely = zip(both["top5_classes"], both["top5_confidences"], strict=True)
    chances = [dict(zip(*pair, strict=True)) for pair in likely]
    classes = both["predicted_stated"]
    of_stated = [its.get(name, 0.0) for its, name in zip(chances, classes, strict=True)]
    wrong = (both["predicted"] < 0) != (classes < 0)  # one of the two abstains
    wrong |= both["confidence"] - of_stated > limit
    for name in ("confidence", "true_confidence"):  # NaN: unknown
        wrong |= (both[name] - both[f"{name}_stated"]).abs() > limit
    wrong |= (both["draws_correct"] - both["draws_correct_stated"]).abs() > 1
    for name in ("label", "target_label", "image", "draws"):
        wrong |= both[name].fillna(-1) != both[f"{name}_stated"].fillna(-1)
    return wrong.to_numpy(bool)


def most_wrong(outcomes: int, tests: int) -> int:
    """Return how many outcomes rounding may make wrong; honest ones exceed it in 1 % / tests."""
    return int(stats.binom.isf(0.01 / tests, outcomes, HONEST)) if outcomes else 0


def found_share(outcomes: int, most: int) -> float:
    """Return the share of changed outcomes that makes more than `most` wrong in 95 % of samples."""
    return float(stats.beta.ppf(0.95, most + 1, outcomes - most)) if outcomes > most else 1.0
