"""Robust accuracy, success rate and confidence per target and budget, with denominators."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..utils.model_names import TARGET_COLUMNS
from .intervals import wilson_interval
from .matrices import relation
from .outcomes import Mask, Outcomes, evaluated_pairs, outcomes, ratio, under
from .quantities import QUANTITIES


def rates(
    predictions: pd.DataFrame, source: str, targets: Sequence[str], protocol: str = "joint"
) -> pd.DataFrame:
    """Compute robust accuracy, success rate and confidence per target and budget.

    An untargeted attack succeeds on an image that is no longer classified correctly, a targeted
    attack on an image that is classified as its `target_label`. If the `target_label` is the true
    class, an image could be both correct and a success, so no protocol counts it.

    Args:
        predictions: One row per (index, target, defence, eps_255). Without a column `defence` there
            is no defence; clean images have eps_255 = 0. If attacked rows have a `target_label`,
            the attack is targeted.
        source: Model that the adversarial images were crafted on, or an ensemble joined by `+`. The
            protocols `source_correct`, `joint` and `common` need its clean rows; all protocols need
            the clean rows of the targets.
        targets: Models that the images were evaluated on, in the order of the result; each also
            behind the defences that it was evaluated behind.
        protocol: Images that form the denominator: `all` images, or the images that are classified
            correctly when clean by the source (`source_correct`), by the target
            (`target_correct`), by both (`joint`), or by both where the target must be correct
            behind all defences (`common`).

    Returns:
        One row per (target, defence, eps_255), no defence first, in the order of `targets` and of
        increasing budget, with

        - `relation`: the target's `relation` to the source;
        - `ensemble`, `source_defence`: whether the source is an ensemble, and its defence;
        - `targeted`: whether the attack has target labels;
        - `clean_accuracy`: accuracy of the target on all clean images;
        - `abstained`: images of the protocol on which the target abstains; they are in no
          numerator and in no denominator;
        - `denominator` (by protocol), `still_correct`, `robust_accuracy` in [0, 1],
          `success`, `success_rate`;
        - `robust_accuracy_low` and `_high`, `success_rate_low` and `_high`: 95 % Wilson score
          intervals;
        - `confidence` and `true_confidence`: mean probability of the predicted and of the
          true class over the images of the denominator;
        - `success_confidence`: mean probability of the predicted class over the successes only,
          NaN if there is none;
        - `draws_correct`: mean share of the draws from a randomised defence that predict the true
          class, over the images of the denominator; for other targets the robust accuracy.

        Rates, intervals and confidences are NaN if the denominator is 0.

    Raises:
        ValueError: The table lacks the clean rows that the protocol needs.
    """
    return _rates(
        outcomes(predictions, source, evaluated_pairs(predictions, targets), protocol), {}
    )


def rates_by_protocol(
    variants: Mapping[str, pd.DataFrame],
    source: str,
    targets: Sequence[str],
    attack: str,
    norm: str,
) -> pd.DataFrame:
    """Compute a job's rates for every variant, under every protocol whose clean rows exist.

    `variants` holds predictions by the name of a variant, such as `float32`, or of a control. The
    rows are those of `rates`, after the columns `variant`, `attack`, `source`, `norm` and
    `protocol`.
    """
    parts = []
    for name, predictions in variants.items():
        outcome = outcomes(predictions, source, evaluated_pairs(predictions, targets), "all")
        for protocol in outcome.protocols:
            origin = {"variant": name, "attack": attack, "source": source, "norm": norm}
            parts.append(_rates(under(outcome, protocol), {**origin, "protocol": protocol}))
    return pd.concat(parts, ignore_index=True)


def evaluated_budgets(outcome: Outcomes) -> tuple[pd.DataFrame, Mask]:
    """Return the evaluated budgets: rows (target, defence, eps_255), and a mask (T, K)."""
    evaluated: Mask = np.any(outcome.present | outcome.abstained, axis=1)
    target, budget = np.nonzero(evaluated)
    names = [outcome.targets[place].columns for place in target]
    table = pd.DataFrame(names, columns=[*TARGET_COLUMNS])
    return table.assign(eps_255=outcome.eps_255[budget]), evaluated


def _rates(outcome: Outcomes, origin: Mapping[str, str]) -> pd.DataFrame:
    """Return the rates behind columns of equal names, `origin`."""
    table, evaluated = evaluated_budgets(outcome)
    source, relations = outcome.source, [relation(outcome.source, its) for its in outcome.targets]
    columns: dict[str, Any] = {  # added at once: each addition to a frame takes a millisecond
        "relation": [relations[place] for place in np.nonzero(evaluated)[0]],
        "ensemble": source.is_ensemble,
        "source_defence": source.defence,
        "targeted": outcome.target_labels is not None,
    }
    for name, quantity in QUANTITIES.items():
        if quantity.compute is not None:
            columns[name] = quantity.compute(outcome)[evaluated]
        elif quantity.count:
            k, n = columns[quantity.count], columns["denominator"]
            columns[name] = ratio(k, n)
            columns[f"{name}_low"], columns[f"{name}_high"] = wilson_interval(k, n)
    named: dict[str, Any] = {**origin, **{name: table[name] for name in table.columns}}
    return pd.DataFrame(named | columns)
