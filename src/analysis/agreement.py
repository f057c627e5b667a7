"""Agreement of stated predictions with the same predictions computed again."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

TOLERANCE = 0.01
"""Largest difference of two probabilities that counts as rounding."""
HONEST = 0.002
"""Largest share of an honest card's outcomes that differ by more on another machine."""
_KEYS = ["target", "defence", "eps_255", "index"]


def wrong_outcomes(stated: pd.DataFrame, computed: pd.DataFrame, step: float) -> NDArray[np.bool_]:
    """Return for each computed outcome whether the stated one differs by more than rounding.

    Two outcomes differ if their probabilities (of the predicted class, or of the true one) differ
    by more than `TOLERANCE`. Other predicted classes differ unless the two likeliest classes are
    that near to each other. An outcome that is not stated differs, and so does one of another image
    or label.

    Args:
        stated: Rows of a table of predictions, with probabilities as the middles of steps.
        computed: The same rows for some images, with the five likeliest classes.
        step: Size of a step.
    """
    both = computed.merge(stated, "left", _KEYS, suffixes=("", "_stated"))
    limit, probabilities = TOLERANCE + step / 2, both["top5_confidences"].map(np.array)
    wrong = np.zeros(len(both), bool)
    for name in ("confidence", "true_confidence"):  # NaN: the target abstains, or a coarse card
        wrong |= (both[name] - both[f"{name}_stated"]).abs().to_numpy() > limit
    near = probabilities.map(lambda its: len(its) > 1 and its[0] - its[1] <= limit)
    wrong |= ((both["predicted"] != both["predicted_stated"]) & ~near).to_numpy()
    for name in ("label", "target_label", "image"):
        wrong |= (both[name].fillna(-1) != both[f"{name}_stated"].fillna(-1)).to_numpy()
    return wrong


def most_wrong(outcomes: int, tests: int) -> int:
    """Return how many outcomes rounding may make wrong; honest ones exceed it in 1 % / tests."""
    return int(stats.binom.isf(0.01 / tests, outcomes, HONEST)) if outcomes else 0


def found_share(outcomes: int, most: int) -> float:
    """Return the share of changed outcomes that makes more than `most` wrong in 95 % of samples."""
    return float(stats.beta.ppf(0.95, most + 1, outcomes - most)) if outcomes > most else 1.0
