"""Agreement of stored predictions with the same predictions computed again."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

KEYS = ["target", "defence", "eps_255", "index"]
"""Columns that identify an outcome of a job."""
TOLERANCE = 0.01
"""Largest difference of probabilities that counts as rounding."""
HONEST = 0.002
"""Share of outcomes whose probabilities differ by more, at most, on another machine."""
_FACTS = ["label", "target_label"]
_PROBABILITIES = ["confidence", "true_confidence"]


def distances(stated: pd.DataFrame, computed: pd.DataFrame) -> pd.DataFrame:
    """Return the outcomes in `computed` with how far the stated ones are from them.

    An outcome's `distance` is the largest difference between the stated and the computed
    probability of the predicted class and of the true class. If the predicted classes differ, it is
    at least the computed gap between the two classes. It is infinite if an outcome is not stated,
    if only one of the two abstains, or if the labels differ.

    Args:
        stated: Rows of a table of predictions.
        computed: Rows of the same table for some of its images, with the five likeliest classes.
    """
    columns = [*KEYS, *_FACTS, "predicted", *_PROBABILITIES]
    both = computed.merge(stated[columns], "left", KEYS, suffixes=("", "_stated"))
    other = (both["predicted"] != both["predicted_stated"]).to_numpy()
    likely = both["confidence"].to_numpy(np.float64, copy=True)
    likely[other] = [_probability(row) for row in both[other].to_dict("records")]
    gaps = np.where(other, both["confidence"] - likely, 0)
    errors = [
        np.abs(both["confidence_stated"] - likely),
        np.abs(both["true_confidence_stated"] - both["true_confidence"]).fillna(0),
    ]
    distance = np.nan_to_num(np.max([gaps, *errors], axis=0), nan=np.inf)
    distance[~other & (both["predicted"] < 0)] = 0  # both abstain
    for name in _FACTS:
        same = both[name].fillna(-1) == both[f"{name}_stated"].fillna(-1)
        distance[~same] = np.inf
    return both[KEYS].assign(distance=distance)


def _probability(row: dict[str, object]) -> float:
    """Return the computed probability of the stated class, 0 if it is not among the likeliest."""
    if row["predicted_stated"] == row["label"]:
        return float(row["true_confidence"])  # type: ignore[arg-type]
    pairs = zip(row["top5_classes"], row["top5_confidences"], strict=True)  # type: ignore[call-overload]
    return float(dict(pairs).get(row["predicted_stated"], 0))


class Agreement(NamedTuple):
    """A test of whether stated outcomes are those of a machine, except for rounding.

    Attributes:
        outcomes: Number of outcomes compared.
        wrong: Number of them that differ by more than rounding.
        most: Largest number that rounding explains; honest outcomes exceed it in 1 % of cases.
    """

    outcomes: int
    wrong: int
    most: int

    @property
    def holds(self) -> bool:
        """True if the outcomes agree."""
        return self.wrong <= self.most

    @property
    def found(self) -> float:
        """Share of changed outcomes above which they are found with a probability of 95 %."""
        if self.most >= self.outcomes:
            return 1.0
        return float(stats.beta.ppf(0.95, self.most + 1, self.outcomes - self.most))


def agreement(distance: ArrayLike, rounding: float, tests: int) -> Agreement:
    """Test outcomes by their distances from computed ones; `tests` are judged together."""
    values = np.asarray(distance)
    most = int(stats.binom.isf(0.01 / tests, len(values), HONEST)) if len(values) else 0
    return Agreement(len(values), int((values > rounding).sum()), most)
