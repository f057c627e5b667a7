"""Agreement of stated predictions with the same predictions computed again."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

TOLERANCE, ATTACKED, WIDE = 0.01, 0.1, 0.4
"""Largest difference of two probabilities that counts as rounding.

The first is for clean images, the second for adversarial ones: an iterative attack follows the
signs of small gradients, which rounding changes. The third is for adversarial images of more than
64 pixels, and for other formats than float32.
"""
HONEST, HONEST_WIDE = 0.0005, 0.002
"""Largest share of an honest card's outcomes that differ by more on another machine.

The second is for outcomes with the tolerance `WIDE`, and for another type of device.
"""
KEYS = ["target", "defence", "eps_255", "index"]
"""Columns that name an outcome."""
_MANY = 10  # passes, of which one hardly matters
_ROUNDING = 1e-6  # of float32, in a sum of probabilities
_SMALL = 3 * 64**2  # numbers of an image, up to which rounding hardly changes an attack


def agreement(
    stated: pd.DataFrame, computed: pd.DataFrame, values: int, exact: bool, other_device: bool
) -> NDArray[np.float64]:
    """Count the computed outcomes: wrong ones, all, and wrong ones expected in an honest card.

    Args:
        stated: Rows of a table of predictions.
        computed: The same rows for some images, with the five likeliest classes.
        values: Numbers per image, three per pixel.
        exact: Whether the outcomes are stated for float32.
        other_device: Whether they are stated for another type of device.
    """
    # The presets state the middles of 16 steps, and cards of version 0.5.0 multiples of 0.001.
    coarse = (32 * stated["confidence"].dropna() % 2 == 1).all()
    wide = np.where(computed["eps_255"] > 0, not exact or values > _SMALL, not exact)
    wrong = wrong_outcomes(stated, computed, 1 / 16 if coarse else 0.001, wide)
    honest = honest_shares(computed, wide, other_device)
    return np.array([wrong.sum(), len(wrong), honest.sum()])


def wrong_outcomes(
    stated: pd.DataFrame, computed: pd.DataFrame, step: float, wide: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Return for each computed outcome whether the stated one differs by more than rounding.

    Two outcomes differ if the probability of their predicted class or of the true class differs by
    more than a limit, or if the computed probability of the stated class is that far below the
    likeliest one's. An outcome that is not stated differs, and so does one of another image or
    label, of other gradients per image, of another number of passes through a defence, or with
    other correct passes: ten passes, and `wide` outcomes, may differ by one. An outcome also
    differs if its own probabilities or passes exclude its class.

    Args:
        stated: Rows of a table of predictions.
        computed: The same rows for some images, with the five likeliest classes.
        step: Size of the steps in which probabilities are stated.
        wide: Whether the limit of a computed outcome is `WIDE`, bool (n,).
    """
    both = computed.merge(stated, "left", KEYS, suffixes=("", "_stated"))
    usual = np.where(both["eps_255"] > 0, ATTACKED, TOLERANCE)
    limit = step / 2 + np.where(wide, WIDE, usual)
    likely = zip(both["top5_classes"], both["top5_confidences"], strict=True)
    chances = [dict(zip(*pair, strict=True)) for pair in likely]
    classes = both["predicted_stated"]
    of_stated = [chance.get(name, 0.0) for chance, name in zip(chances, classes, strict=True)]
    wrong = (both["predicted"] < 0) != (classes < 0)  # one of the two abstains
    wrong |= both["confidence"].isna() != both["confidence_stated"].isna()
    wrong |= both["confidence"] - of_stated > limit
    for name in ("confidence", "true_confidence"):  # NaN: unknown
        wrong |= (both[name] - both[f"{name}_stated"]).abs() > limit
    passes = both["draws_correct"] - both["draws_correct_stated"].fillna(np.inf)
    wrong |= passes.abs() > np.where(wide | (both["draws"] >= _MANY), 1, 0)
    wrong |= ~np.isclose(both["gradients"], both["gradients_stated"], equal_nan=True)
    for name in ("label", "target_label", "image", "iteration", "draws"):
        pair = both[[name, f"{name}_stated"]]
        wrong |= (pair[name] != pair[f"{name}_stated"]) & pair.notna().any(axis=1)
    return (wrong | _contradicts(both, step)).to_numpy(bool)


def _contradicts(both: pd.DataFrame, step: float) -> "pd.Series[bool]":
    """Return for each stated outcome whether its own probabilities or passes exclude its class.

    Of one pass, the class is the likeliest one, and the pass is correct if the class is. Of
    several, no class has more passes than the predicted one.
    """
    names = ("predicted", "label", "confidence", "true_confidence", "draws", "draws_correct")
    predicted, label, highest, true, draws, passes = (both[f"{name}_stated"] for name in names)
    correct, single = predicted == label, draws == 1
    too_likely = (true > highest) | (true + highest > 1 + step + _ROUNDING)
    wrong = single & (passes != correct)
    wrong |= single & ((correct & (true != highest)) | (~correct & too_likely))
    return wrong | (correct & (passes < 1)) | (~correct & (2 * passes > draws))


def honest_shares(
    computed: pd.DataFrame, wide: NDArray[np.bool_], other_device: bool
) -> NDArray[np.float64]:
    """Return for each computed outcome the largest probability that an honest one is wrong.

    Each pass through a random defence may differ where all must be equal.

    Args:
        computed: Computed rows of a table of predictions.
        wide: As in `wrong_outcomes`.
        other_device: Whether the outcomes are stated for another type of device.
    """
    shares, draws = np.where(wide | other_device, HONEST_WIDE, HONEST), computed["draws"].to_numpy()
    return shares * np.where(wide | (draws >= _MANY), 1, draws)


def most_wrong(honest: float, tests: int) -> int:
    """Return how many outcomes rounding may make wrong; honest ones exceed it in 1 % / tests.

    Args:
        honest: Expected number of wrong outcomes in an honest card, a sum of `honest_shares`.
        tests: Number of such counts that are tested together.
    """
    from scipy import stats  # slow to import

    return int(stats.poisson.isf(0.01 / tests, honest)) if honest else 0
