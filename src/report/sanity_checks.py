"""Sanity checks: signs that an attack or a model is broken rather than a model robust.

Each check yields the alarms that it raises. All intervals are 95 % Wilson intervals.
"""

from collections.abc import Iterator, Sequence
from math import comb

import numpy as np
import pandas as pd
from scipy.special import bdtrc

from ..analysis.intervals import FEWEST_IMAGES, is_at_chance, wilson_interval
from ..analysis.outcomes import JobOutcomes, evaluated_pairs, job_outcomes, under, with_defence
from ..analysis.transfer_rates import WHITE_BOX, relation
from ..artifacts.tables import Alarm
from ..utils.formats import format_cell
from ..utils.model_names import NO_DEFENCE, TARGET_COLUMNS, ModelRef
from ..utils.refusals import class_order

ZERO_GRADIENTS = 0.01
"""Raise an alarm if more than this share of gradients is zero in every pixel."""
LOSS_NOT_RISING = 0.05
"""Raise an alarm if the loss does not rise at any budget for more than this share of images."""
ABSTENTIONS = 0.2
"""Raise an alarm if a target abstains on more than this share of images."""
COPIES = 0.01
"""Raise an alarm if more than this share of the images are copies of others."""
LARGEST_P = 0.05
"""Raise an alarm if a paired test has at most this p-value."""
RENUMBERED = 0.2
"""Raise an alarm if other numbers of the classes raise the clean accuracy by this or more."""
CHANCE_P = 0.001
"""Largest p-value of such a rise; small, because every network of every job is tested."""

CAUSES = {
    "zero_gradients": "usual causes: masked gradients (a saturated softmax, quantisation or "
    "rounding inside the model) or a precision too low for them",
    "gradients_not_finite": "they count as 0; usual causes: a square root, norm or logarithm at 0, "
    "acos at 1, or an overflow in the network or in the attack",
    "gradients_not_as_stated": "the count is reported; plans need the right number in `about`",
    "steps_too_short": "usual cause: attack.step_size_255 in another unit (2 stands for 2/255)",
    "steps_too_long": "usual cause: another unit (step_size_255 counts grey levels; eps and alpha "
    "of another library are in [0, 1])",
    "loss_not_rising": "usual causes: masked gradients, wrong normalisation, a wrong sign of the "
    "loss, or steps so long that they overshoot at every budget",
    "above_chance": "usual causes: masked gradients, wrong normalisation, too few steps, or a "
    "small largest budget",
    "clean_at_chance": "usual causes: wrong mean or std, another order of the labels, weights of "
    "other classes or of none (not trained), a wrong input size",
    "labels_permuted": "the network seems to number the classes in another order, such as that of "
    "timm or torchvision, than the images; without class names, renumber the labels",
    "copies_of_images": "each copy counts, so intervals are too narrow; usual causes: one image "
    "under several names or in several classes, or frames of a film",
    "trained_on_images": "its accuracy on them says nothing of new images; usual cause: one folder "
    "for training and test. A few copies are in some public data sets",
    "over_budget": "the rates are listed at the stated budget; usual causes: eps_255 in another "
    "unit or norm, other clean images, resizing or JPEG after the attack",
    "clipped": "the rates are those of the clipped images; usual causes: a budget that the attack "
    "ignores, another unit (eps is in [0, 1]) or another norm",
    "few_images": f"rates of fewer than {FEWEST_IMAGES} images mean little: give more images, or "
    "models that classify more of them correctly",
    "weaker_at_larger_budget": "usual causes: a single step that overshoots, or masked gradients",
    "abstentions": "the rates are over the images that are left; usual causes: too few copies, or "
    "a network that was not trained with noise",
    "idle_defence": "the images may have passed it before, such as JPEG files of its quality; off "
    "its grid (defence.jpeg.offset=4) it may gain less",
    "random_model": "usual causes: dropout or noise that stays on, a counter; the numbers of this "
    "model hold for this run alone",
    "probabilities": "usual cause: the network ends in a softmax or a sigmoid, whose gradients "
    "vanish where it is confident; attacks, losses and ensembles here are of logits: return those",
}
"""Usual causes of each alarm, by the alarm's name."""


def explained(alarm: Alarm) -> str:
    """Return an alarm's finding and its usual causes as one sentence."""
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
) -> Iterator[Alarm]:
    """Run the sanity checks on one job's predictions and yield the alarms.

    - `clean_at_chance`: see the function of this name.
    - `few_images`: the protocol counts fewer than 10 images for a pair.
    - `zero_gradients`: more than 1 % of the gradients are zero in every pixel. The share is the
      argument of this name; NaN means unknown.
    - `loss_not_rising`: for more than 5 % of the images that the white box classifies correctly
      when clean, no budget lowers the `true_confidence` below its clean value (or, for targeted
      attacks, reaches the target label).
    - `above_chance`: the white box's accuracy under an untargeted iterative attack, over all
      images at the largest budget, is above 1 / `num_classes`.
    - `weaker_at_larger_budget`: in the white box a larger budget succeeds on fewer images. The
      budget with the most successes and the larger one with the fewest are compared by a one-sided
      exact McNemar test, with p <= 0.05 after Bonferroni's correction for all pairs of budgets and
      all white boxes.

    A share raises an alarm only if the lower end of its interval is above the limit.
    """
    result = job_outcomes(table, source, list(map(ModelRef.parse, targets)), protocol)
    correct = under(result, "target_correct")
    yield from clean_at_chance(table, num_classes)
    if zero_gradients > ZERO_GRADIENTS:
        finding = f"{source}: {zero_gradients:.2%} of the gradients are zero in every pixel"
        yield Alarm("zero_gradients", finding)
    white_box = [relation(result.source, target) == WHITE_BOX for target in result.targets]
    for place, is_white_box in enumerate(white_box):
        if (n := int(result.counted[place].sum())) < FEWEST_IMAGES:
            finding = f"{_pair(result, place)}: images counted: {n} ({protocol})"
            yield Alarm("few_images", finding)
        if is_white_box:
            yield from _loss_not_rising(correct, place)
            yield from _weaker_at_larger_budget(correct, place, sum(white_box))
            if iterative and result.target_labels is None:
                yield from _above_chance(result, place, num_classes)


def many_abstentions(
    table: pd.DataFrame, source: str, targets: Sequence[str], protocol: str
) -> Iterator[Alarm]:
    """Yield an alarm per target and defence that abstains on over 20 % of images at any budget.

    These are the images of the protocol, or all: a protocol of images that are classified correctly
    when clean counts none of those on which a target abstains when clean.
    """
    whole = job_outcomes(table, source, evaluated_pairs(table, targets), "all")
    for place, target in enumerate(whole.targets):
        worst = (0.0, "")
        for part in (under(whole, protocol), whole):
            counted = part.counted[place, :, None]
            k = np.count_nonzero(part.abstained[place] & counted, axis=0)
            n = k + np.count_nonzero(part.present[place] & counted, axis=0)
            at = int(np.argmax(share := k / np.maximum(n, 1)))
            finding = f"{target}: abstains on {format_cell(k[at], n[at])} of the images at "
            worst = max(worst, (share[at], f"{finding}{whole.eps_255[at]:g}/255"))
        if worst[0] > ABSTENTIONS:
            yield Alarm("abstentions", worst[1])


def clean_at_chance(table: pd.DataFrame, num_classes: int) -> Iterator[Alarm]:
    """Yield an alarm for each model that is no better than guessing on clean images.

    For such a model, the lower end of the accuracy's interval over all clean images (eps_255 = 0)
    is at most 1 / `num_classes`.
    """
    clean = with_defence(table[table["eps_255"] == 0])
    correct = clean["predicted"] == clean["label"]
    names = [clean[name].astype(object) for name in TARGET_COLUMNS]
    for pair, right in correct.groupby(names, sort=False):
        k, n = int(right.sum()), len(right)
        if is_at_chance(k, n, num_classes):
            counts = f"correct on {format_cell(k, n)} of the clean images"
            finding = f"{ModelRef.parse(*pair)}: {counts}, chance is {_chance(num_classes)}"
            yield Alarm("clean_at_chance", finding)


def copies_of_images(digests: np.ndarray) -> Iterator[Alarm]:
    """Yield an alarm if over 1 % of the images are copies, by the digests of their pixels."""
    n, distinct = len(digests), len(np.unique(digests))
    if n - distinct > COPIES * n:
        yield Alarm("copies_of_images", f"{distinct} of the {n} images are distinct")


def labels_permuted(table: pd.DataFrame, class_names: Sequence[str]) -> Iterator[Alarm]:
    """Yield an alarm for each network that seems to number the classes in another order.

    Each half of the clean images, every second one of a class, gives each class the number that the
    network predicts for it most often, a different one for each. With the numbers from the other
    half, 20 points more of the images are correct (p <= 0.001, one-sided exact McNemar test), at
    least half of them, and more than are in the largest class. The stated count is that with the
    numbers from all images.
    """
    clean = with_defence(table[(table["eps_255"] == 0) & (table["predicted"] >= 0)])
    for name, rows in clean[clean["defence"] == NO_DEFENCE].groupby("target", observed=True):
        rows = rows.sort_values("index")
        classes, places = np.unique(rows[["label", "predicted"]], return_inverse=True)
        true, predicted = places.reshape(-1, 2).T
        first = (rows.groupby("label").cumcount() % 2 == 0).to_numpy()
        renumbered, right, n = true.copy(), true == predicted, len(rows)
        for half in (first, ~first):
            renumbered[half] = _numbers(true[~half], predicted[~half], len(classes))[true[half]]
        better = renumbered == predicted
        k, k_right, only = (int(mask.sum()) for mask in (better, right, better & ~right))
        p = bdtrc(only - 1, int((better ^ right).sum()), 0.5)
        largest = np.bincount(true).max() / n
        clear = k - k_right >= RENUMBERED * n and p <= CHANCE_P and 2 * k >= n
        if not clear or wilson_interval(k, n)[0] <= largest:
            continue
        whole = _numbers(true, predicted, len(classes))
        k = int((whole[true] == predicted).sum())
        numbers = np.arange(len(class_names))
        numbers[classes] = classes[whole]
        way = class_order([class_names[number] for number in np.argsort(numbers)])
        finding = f"{name}: correct on {format_cell(k_right, n)} of the clean images, but on "
        yield Alarm("labels_permuted", f"{finding}{format_cell(k, n)} with {way}")


def _numbers(true: np.ndarray, predicted: np.ndarray, count: int) -> np.ndarray:
    """Return a different number for each class, with the most predictions right in total."""
    from scipy.optimize import linear_sum_assignment  # slow to import

    table = 1e-6 * np.eye(count)  # classes without images keep their number
    np.add.at(table, (true, predicted), 1)
    numbers: np.ndarray = linear_sum_assignment(table, maximize=True)[1]
    return numbers


def over_budget(
    attack: str, stated: float, measured: float, count: int, total: int, norm: str
) -> Alarm:
    """Return the alarm that `count` of `total` images exceed the stated budget; both in 1/255."""
    finding = (
        f"{attack}: {format_cell(count, total)} of the images exceed the "
        f"stated {stated:g}/255, by up to {measured:g}/255 ({norm})"
    )
    return Alarm("over_budget", finding)


def _loss_not_rising(result: JobOutcomes, place: int) -> Iterator[Alarm]:
    """Count the images whose true class never gets less likely than on the clean image."""
    confidence, present = result.true_confidence[place], result.present[place, :, 1:]
    risen = ~(confidence[:, 1:] >= confidence[:, :1])
    if result.target_labels is not None:
        risen |= result.success[place, :, 1:]
    counted = result.counted[place] & present.any(axis=1)
    k = int(np.count_nonzero(counted & ~(present & risen).any(axis=1)))
    n = int(np.count_nonzero(counted))
    if wilson_interval(k, n)[0] > LOSS_NOT_RISING:  # NaN if n = 0
        finding = "white box: at no budget is the true class less likely than when clean on"
        yield Alarm("loss_not_rising", f"{_pair(result, place)}, {finding} {format_cell(k, n)}")


def _weaker_at_larger_budget(result: JobOutcomes, place: int, white_boxes: int) -> Iterator[Alarm]:
    """Compare the budget with the most successes with the one above it with the fewest."""
    success = result.success[place] & result.counted[place][:, None]
    counts = success.sum(axis=0)
    best = int(counts.argmax())
    worst = best + int(counts[best:].argmin())
    if best in (0, worst):
        return
    only, back = ((success[:, a] & ~success[:, b]).sum() for a, b in ((best, worst), (worst, best)))
    # One-sided exact McNemar test: P(X >= only) for X from Binomial(only + back, 1/2).
    tests = comb(len(counts) - 1, 2) * white_boxes  # pairs of budgets above 0
    if bdtrc(int(only) - 1, int(only + back), 0.5) <= LARGEST_P / tests:
        n, eps = int(result.counted[place].sum()), result.eps_255
        cells = [f"{format_cell(int(counts[at]), n)} at {eps[at]:g}/255" for at in (best, worst)]
        finding = f"white box: succeeds on {cells[0]}, but on {cells[1]}"
        yield Alarm("weaker_at_larger_budget", f"{_pair(result, place)}, {finding}")


def _above_chance(result: JobOutcomes, place: int, num_classes: int) -> Iterator[Alarm]:
    """Compare the accuracy at the largest budget with that of guessing."""
    eps = result.eps_255[-1]
    k, n = (int(mask[place, :, -1].sum()) for mask in (result.correct, result.present))
    if wilson_interval(k, n)[0] > 1 / num_classes:
        cell = f"still correct on {format_cell(k, n)}, chance is {_chance(num_classes)}"
        yield Alarm("above_chance", f"{_pair(result, place)}, white box at {eps:g}/255: {cell}")


def _pair(result: JobOutcomes, place: int) -> str:
    return f"{result.source} -> {result.targets[place]}"


def _chance(num_classes: int) -> str:
    return f"1 / {num_classes} = {1 / num_classes:.2%}"
