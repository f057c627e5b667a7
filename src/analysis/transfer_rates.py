"""Rates of pairs of source and target, with denominators, and their matrix in long form."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..utils.model_names import TARGET_COLUMNS, ModelRef
from .estimates import share_columns
from .outcomes import JobOutcomes, Mask, evaluated_pairs, job_outcomes, same_network
from .quantities import QUANTITIES

CLEAN = "clean"
"""Name of the matrix row for clean images."""
WHITE_BOX, OWN, TRANSFER = "white box", "own", "transfer"
ANOTHER_TRAINING = "another training"
"""Relations of a target to a source, see `relation`."""


def with_cell_columns(rates: pd.DataFrame) -> pd.DataFrame:
    """Add the numbers in a matrix cell: success for targeted attacks, else robust accuracy.

    The added columns are `k` of `n` images, their `rate` with `rate_low` and `rate_high`, and
    `counted`: what k counts, in words.
    """
    targeted = rates["targeted"].to_numpy(bool)
    columns = {"k": ("success", "still_correct")}
    columns |= {
        f"rate{end}": (f"success_rate{end}", f"robust_accuracy{end}")
        for end in ("", "_low", "_high")
    }
    cells: dict[str, Any] = {
        name: np.where(targeted, rates[one], rates[other]) for name, (one, other) in columns.items()
    }
    counted = np.where(targeted, "target class reached", "still correct")
    return rates.assign(n=rates["denominator"], counted=counted, **cells)


def clean_rows(
    rates: pd.DataFrame, keys: Sequence[str] = ("attack", "target", "defence")
) -> pd.DataFrame:
    """Return the `with_cell_columns` rates on all clean images, with source and relation `clean`.

    There is one row per combination of the `keys`. It is left out if jobs count differently, for
    example because the target labels depend on the source.
    """
    rows = rates[(rates["protocol"] == "all") & (rates["eps_255"] == 0)]
    alike = rows.groupby([*keys], sort=False)[["k", "n"]].transform("nunique").eq(1).all(axis=1)
    return rows[alike].drop_duplicates([*keys]).assign(source=CLEAN, relation=CLEAN)


def transfer_matrix(rates: pd.DataFrame, eps_255: float, protocol: str) -> pd.DataFrame:
    """Build the transfer matrix of one attack at one budget, in long form.

    `rates` comes from `rates_by_protocol`, for jobs with the same attack and for the primary
    variant only.

    Returns:
        One row per cell, with the columns of `with_cell_columns`. The first rows, with `source` =
        `clean`, are for clean images, and count all images under any protocol.
    """
    rows = with_cell_columns(rates)
    here = (rows["protocol"] == protocol) & (rows["eps_255"] == eps_255)
    cells = pd.concat([clean_rows(rows), rows[here]], ignore_index=True)
    spread = cells["success_rate_sd"].mask(cells["source"] == CLEAN)
    return cells.assign(success_rate_sd=spread)


def relation(source: ModelRef, target: ModelRef, networks: Mapping[str, str] | None = None) -> str:
    """Return the relation of a target to the source of the images.

    It is `white box` if model and defence are the source's, `own` if the target is the source's
    model, or a member of it, behind another defence, `another training` if both are trainings of
    one network (see `same_network`), and `transfer` otherwise.

    >>> vgg, resnet, both = map(ModelRef.parse, ["vgg16", "resnet50", "vgg16+resnet50"])
    >>> relation(both, resnet), relation(vgg, vgg.behind("jpeg")), relation(vgg, resnet)
    ('white box', 'own', 'transfer')
    """
    if not source.includes(target):
        return ANOTHER_TRAINING if same_network(source, target, networks or {}) else TRANSFER
    return WHITE_BOX if source.defence == target.defence else OWN


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
        - `conditional_images`: images that source and target classify correctly when clean and on
          which the attack succeeds on the source, under any protocol; `conditional_success`: those
          of them on which it succeeds on the target; `conditional`, `conditional_low` and `_high`:
          their ratio and its interval, NaN below 10 images. The counts are 0 for the source's own
          networks and where the source was not evaluated;
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
    pairs = evaluated_pairs(predictions, targets)
    return pd.DataFrame(rates_of(job_outcomes(predictions, source, pairs, protocol)))


def evaluated_budgets(outcome: JobOutcomes) -> tuple[dict[str, NDArray[Any]], Mask]:
    """Return the evaluated budgets: columns target, defence, eps_255, and a mask (T, K)."""
    evaluated: Mask = np.any(outcome.present | outcome.abstained, axis=1)
    target, budget = np.nonzero(evaluated)
    names = np.array([pair.columns for pair in outcome.targets], object)[target]
    named = {name: names[:, place] for place, name in enumerate(TARGET_COLUMNS)}
    return named | {"eps_255": outcome.eps_255[budget]}, evaluated


def rates_of(outcome: JobOutcomes) -> dict[str, NDArray[Any]]:
    """Return the columns of `rates`."""
    columns, evaluated = evaluated_budgets(outcome)
    source = outcome.source
    relations = [relation(source, pair, outcome.networks) for pair in outcome.targets]
    same = {
        "ensemble": source.is_ensemble,
        "source_defence": source.defence,
        "targeted": outcome.target_labels is not None,
    }
    columns["relation"] = np.array(relations, object)[np.nonzero(evaluated)[0]]
    rows = len(columns["relation"])
    for name, value in same.items():
        columns[name] = np.full(rows, value, object if isinstance(value, str) else bool)
    for name, quantity in QUANTITIES.items():
        if quantity.compute is not None:
            columns[name] = quantity.compute(outcome)[evaluated]
        elif quantity.count:
            n = np.where(columns[quantity.of] < quantity.fewest, 0, columns[quantity.of])
            k = np.minimum(columns[quantity.count], n)
            columns |= share_columns(name, k, n)
    return columns
