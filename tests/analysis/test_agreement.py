"""Agreement of outcomes: exact bounds, the power against few changes, and what contradicts."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from src.analysis.agreement import (
    HONEST,
    HONEST_WIDE,
    honest_shares,
    most_wrong,
    wrong_outcomes,
)


@pytest.mark.parametrize("tests", [1, 7, 100])
def test_the_bound_is_the_smallest_that_honest_cards_rarely_exceed(tests):
    for honest in (0.05, 0.18, 0.75, 40.0):
        most = most_wrong(honest, tests)
        assert stats.poisson.sf(most, honest) <= 0.01 / tests
        assert most == 0 or stats.poisson.sf(most - 1, honest) > 0.01 / tests
    assert most_wrong(0, tests) == 0


def test_few_outcomes_show_two_percent_of_changes():
    for count, power in {150: 0.579, 360: 0.976}.items():
        most = most_wrong(count * HONEST, 7)  # six jobs and their total
        assert stats.binom.sf(most, count, 0.02) == pytest.approx(power, abs=0.001)


def rows(**columns) -> pd.DataFrame:
    """Return rows of one image each, by default a correct single pass."""
    common = {
        **{"target": "a", "defence": "none", "eps_255": 8.0, "image": "digest", "label": 0},
        **{"target_label": None, "iteration": None, "draws": 1, "draws_correct": 1},
        **{"predicted": 0, "confidence": 0.6, "true_confidence": 0.6, "gradients": 3.0},
        **{"top5_classes": [0, 1, 2], "top5_confidences": [0.6, 0.3, 0.1]},
    }
    return pd.DataFrame([common | columns]).assign(index=[3])


def is_wrong(computed: pd.DataFrame, wide: bool = False, step: float = 0.001, **changes) -> bool:
    """Return whether stated rows differ that are the computed ones but for some changes."""
    stated = computed.drop(columns=["top5_classes", "top5_confidences"]).assign(**changes)
    (wrong,) = wrong_outcomes(stated, computed, step, np.array([wide]))
    return bool(wrong)


FOOLED = {"predicted": 1, "draws_correct": 0, "confidence": 0.6, "true_confidence": 0.3}
FOOLED |= {"top5_classes": [1, 0, 2]}
ABSTAINS = {"predicted": -1, "draws_correct": 0, "confidence": math.nan}
VOTES = {"draws": 5, "draws_correct": 5}


SURE = {"draws": 10, "draws_correct": 10}


@pytest.mark.parametrize(
    ("computed", "changes", "wrong", "wide"),
    [
        *((equal, {}, False, False) for equal in ({}, FOOLED, ABSTAINS, VOTES)),
        (VOTES | {"draws_correct": 3}, {}, False, False),
        # What contradicts the rest of its outcome:
        ({}, {"draws_correct": 0}, True, True),  # one pass is correct if its class is
        ({}, {"predicted": 1, "draws_correct": 0}, True, True),  # the true class is as likely
        ({}, {"true_confidence": 0.4}, True, True),
        ({}, {"gradients": math.nan}, True, True),
        (FOOLED, {"predicted": 0, "draws_correct": 1, "confidence": 0.5}, True, True),
        (FOOLED, {"iteration": 1}, True, True),
        (ABSTAINS, {"predicted": 2}, True, True),
        (VOTES, {"draws_correct": math.nan}, True, True),
        (VOTES, {"draws": 1}, True, True),
        (VOTES, {"predicted": 1}, True, True),  # five of five passes predict the true class
        # What differs by rounding, more when attacked and most when wide:
        (VOTES, {"draws_correct": 3}, True, True),
        (VOTES, {"draws_correct": 4}, True, False),
        (SURE, {"draws_correct": 9}, False, False),
        (SURE, {"draws_correct": 8}, True, True),
        ({"eps_255": 0}, {"confidence": 0.55, "true_confidence": 0.55}, True, False),
        ({}, {"confidence": 0.501, "true_confidence": 0.501}, False, False),
        ({}, {"confidence": 0.45, "true_confidence": 0.45}, True, False),
        ({}, {"confidence": 0.195, "true_confidence": 0.195}, True, True),
    ],
)
def test_an_outcome_is_wrong_that_differs_by_more_than_rounding(computed, changes, wrong, wide):
    assert is_wrong(rows(**computed), **changes) == wrong
    assert is_wrong(rows(**computed), True, **changes) == wide


def test_limits_grow_by_half_a_step_of_the_stated_probabilities():
    for change, wrong in ((0.131, False), (0.132, True)):  # 0.1 + 1 / 32
        less = 0.6 - change
        assert is_wrong(rows(), step=1 / 16, confidence=less, true_confidence=less) == wrong


def test_honest_shares_are_larger_for_wide_limits_other_devices_and_several_passes():
    computed, narrow = pd.DataFrame({"draws": [1, 5, 10]}), np.zeros(3, bool)
    assert honest_shares(computed, narrow, False) == pytest.approx(HONEST * np.array([1, 5, 1]))
    other = HONEST_WIDE * np.array([1, 5, 1])
    assert honest_shares(computed, narrow, True) == pytest.approx(other)
    assert honest_shares(computed, ~narrow, False) == pytest.approx([HONEST_WIDE] * 3)
