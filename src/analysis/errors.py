"""Whether two models err on the same clean images, and in the same way."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from src.analysis.exploration import need_columns
from src.analysis.intervals import wilson_interval


class ErrorAgreement(NamedTuple):
    """How the errors of two models agree on the same n images.

    Attributes:
        n: Images.
        first_accuracy: Share of them that the first model gets right, in [0, 1].
        second_accuracy: That of the second model.
        both_wrong: Images that both get wrong, a count.
        kappa: Cohen's kappa of being right, in [-1, 1]: 0 if the errors coincide as often as
            those of independent models of these accuracies, 1 if they are the same images. NaN
            without images, or if both models are always right or always wrong.
        same_wrong_class: Share of `both_wrong` for which both predict the same wrong class; NaN
            if there are none.
        same_wrong_low: Lower end of its 95 % Wilson interval.
        same_wrong_high: Upper end.
    """

    n: int
    first_accuracy: float
    second_accuracy: float
    both_wrong: int
    kappa: float
    same_wrong_class: float
    same_wrong_low: float
    same_wrong_high: float


def error_agreement(clean: pd.DataFrame, first: str, second: str) -> ErrorAgreement:
    """Compare the errors of two models on clean images.

    Args:
        clean: Clean rows (eps_255 = 0) of both models, or a whole predictions table, of which
            the clean rows are taken.
        first: One model.
        second: Another model, or the same.

    Raises:
        ValueError: If a column is missing, a model has no clean rows or two for an image, or the
            two have other images or labels.

    Reference:
        R. Geirhos, K. Meding, F. A. Wichmann, Beyond accuracy: quantifying trial-by-trial
        behaviour of CNNs and humans by measuring error consistency (2020), equations 1 and 3.
    """
    one, other = _answers(clean, first), _answers(clean, second)
    if not one.index.equals(other.index):
        only = one.index.symmetric_difference(other.index)
        raise ValueError(
            f"{first} and {second} were not shown the same clean images: image {only[0]} lacks."
        )
    if (one["label"] != other["label"]).any():
        raise ValueError(f"{first} and {second} have other labels for the same images.")
    label = one["label"].to_numpy()
    answers, other_answers = one["predicted"].to_numpy(), other["predicted"].to_numpy()
    right, also_right = answers == label, other_answers == label
    n, both_wrong = len(label), ~right & ~also_right
    wrong = int(both_wrong.sum())
    same = int((both_wrong & (answers == other_answers)).sum())
    low, high = wilson_interval(same, wrong)
    return ErrorAgreement(
        n=n,
        first_accuracy=_share(int(right.sum()), n),
        second_accuracy=_share(int(also_right.sum()), n),
        both_wrong=wrong,
        kappa=_kappa(int(right.sum()), int(also_right.sum()), int((right & also_right).sum()), n),
        same_wrong_class=_share(same, wrong),
        same_wrong_low=float(low),
        same_wrong_high=float(high),
    )


def _answers(clean: pd.DataFrame, model: str) -> pd.DataFrame:
    """Return a model's clean rows by image."""
    need_columns(clean, ["index", "target", "eps_255", "label", "predicted"], "predictions")
    rows = clean[((clean["target"] == model) & (clean["eps_255"] == 0)).to_numpy()]
    if rows.empty:
        present = ", ".join(map(str, clean["target"].unique()))
        raise ValueError(f"no clean rows of {model}; the table holds {present or 'none'}.")
    repeated = rows["index"].duplicated()
    if repeated.any():
        index = rows.loc[repeated, "index"].iloc[0]
        raise ValueError(f"image {index} has several clean rows of {model}.")
    return rows.set_index("index")[["label", "predicted"]].sort_index()


def _kappa(right: int, also_right: int, both_right: int, n: int) -> float:
    """Return Cohen's kappa of two models' being right, from counts."""
    # In whole numbers, so that agreement by necessity is found exactly.
    observed = n * (n - right - also_right + 2 * both_right)
    expected = right * also_right + (n - right) * (n - also_right)
    return (observed - expected) / (n * n - expected) if n * n > expected else float("nan")


def _share(count: int, total: int) -> float:
    return count / total if total else float(np.nan)
