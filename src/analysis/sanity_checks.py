"""Sanity checks: signs that an attack or a model is broken, rather than a model robust.

Each check returns an `Alarm`, or None if all is well. Intervals are Wilson's, 95 %.
"""

from collections.abc import Sequence

import pandas as pd

from src.analysis.intervals import FEWEST_IMAGES, wilson_interval
from src.analysis.matrices import format_cell, is_white_box
from src.analysis.outcomes import Outcomes, outcomes
from src.store.tables import Alarm

ZERO_GRADIENTS = 0.01
"""Share of gradients without any nonzero pixel above which there is an alarm."""

CAUSES = {
    "zero_gradients": "usual causes: masked gradients (a saturated softmax, quantisation or "
    "rounding inside the model) or a precision too low for them",
    "above_chance": "usual causes: masked gradients, wrong normalisation, a wrong sign of the "
    "loss, too few steps, or a small largest budget",
    "clean_at_chance": "usual causes: wrong mean or std, another order of the labels, weights of "
    "other classes or of none (not trained), a wrong input size",
    "over_budget": "the rates stand at the stated budget; usual causes: eps_255 in another "
    "unit or norm, other clean images, resizing or JPEG after the attack",
    "few_images": f"rates of fewer than {FEWEST_IMAGES} images mean little: give more images, or "
    "models that classify more of them correctly",
    "random_model": "usual causes: dropout or noise that stays on, a counter; its numbers hold for "
    "this run alone",
}
"""Usual causes of each alarm, by its name."""


def explained(alarm: Alarm) -> str:
    """Return an alarm's finding with its usual causes."""
    return f"{alarm.finding}; {CAUSES.get(alarm.name, 'unknown causes')}."


def alarms(
    table: pd.DataFrame,
    source: str,
    targets: Sequence[str],
    num_classes: int,
    zero_gradients: float,
    *,
    protocol: str,
    iterative: bool,
) -> list[Alarm]:
    """Run the sanity checks of one job, each an alarm by its name.

    - `clean_at_chance`: see `clean_at_chance`.
    - `few_images`: the protocol counts fewer than 10 images for a pair.
    - `zero_gradients`: more than 1 % of the gradients are zero in every pixel.
    - `above_chance`: the white box's accuracy under an untargeted iterative attack, over all
      images at the largest budget, is above 1 / `num_classes`.

    Shares are judged by the lower ends of their intervals. `table` holds the predictions, clean
    rows of every target included; `zero_gradients` is a share, NaN if unknown; an `iterative`
    attack takes more than one step.
    """
    found = outcomes(table, source, targets, protocol)
    raised: list[Alarm | None] = [*clean_at_chance(table, num_classes)]
    if zero_gradients > ZERO_GRADIENTS:
        finding = f"{source}: {zero_gradients:.2%} of the gradients are zero in every pixel"
        raised.append(Alarm("zero_gradients", finding))
    for place, target in enumerate(targets):
        raised.append(_few_images(found, place, protocol))
        if is_white_box(source, target) and iterative and found.target_labels is None:
            raised.append(_above_chance(found, place, num_classes))
    return [alarm for alarm in raised if alarm is not None]


def clean_at_chance(table: pd.DataFrame, num_classes: int) -> list[Alarm]:
    """Return an alarm for each model that is no better than guessing on the clean images.

    Its accuracy over all of them (eps_255 = 0) is not above 1 / `num_classes` by the lower end of
    its interval.
    """
    clean = table[table["eps_255"] == 0]
    correct = clean["predicted"] == clean["label"]
    raised = []
    for model, its in correct.groupby(clean["target"].astype(object), sort=False):
        k, n = int(its.sum()), len(its)
        chance = 1 / num_classes
        if wilson_interval(k, n)[0] <= chance < wilson_interval(n, n)[0]:  # else n is too small
            counts = f"correct on {format_cell(k, n)} of the clean images"
            finding = f"{model}: {counts}, chance is {_chance(num_classes)}"
            raised.append(Alarm("clean_at_chance", finding))
    return raised


def over_budget(
    attack: str, stated: float, measured: float, count: int, total: int, norm: str
) -> Alarm:
    """Return the alarm of `count` of `total` images that change by more than their stated budget.

    Stated budget and largest measured change are in units of 1/255.
    """
    finding = (
        f"{attack}: {format_cell(count, total)} of the images change by more than the "
        f"stated {stated:g}/255, by up to {measured:g}/255 ({norm})"
    )
    return Alarm("over_budget", finding)


def _few_images(found: Outcomes, place: int, protocol: str) -> Alarm | None:
    n = int(found.counted[place].sum())
    finding = f"{found.source} -> {found.targets[place]}: images counted: {n} ({protocol})"
    return Alarm("few_images", finding) if n < FEWEST_IMAGES else None


def _above_chance(found: Outcomes, place: int, num_classes: int) -> Alarm | None:
    """Compare the accuracy at the largest budget with guessing."""
    eps = found.eps_255[-1]
    k, n = (int(mask[place, :, -1].sum()) for mask in (found.correct, found.present))
    if not wilson_interval(k, n)[0] > 1 / num_classes:
        return None
    finding = (
        f"{found.source} -> {found.targets[place]}, white box at {eps:g}/255: still correct on "
        f"{format_cell(k, n)}, chance is {_chance(num_classes)}"
    )
    return Alarm("above_chance", finding)


def _chance(num_classes: int) -> str:
    return f"1 / {num_classes} = {1 / num_classes:.2%}"
