from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from src.analysis import rates

# Four images, label 0. Clean: a is correct on images 0, 1, 2; b on 0, 1, 3 - so both on 0 and 1.
# At 8/255: a is correct on image 0 only; b on 0, 2 and 3.
TABLE = {
    ("a", 0): ([0, 0, 0, 1], [0.9, 0.8, 0.7, 0.6], [0.9, 0.8, 0.7, 0.1]),
    ("a", 8): ([0, 1, 1, 1], [0.5, 0.6, 0.7, 0.8], [0.5, 0.2, 0.1, 0.0]),
    ("b", 0): ([0, 0, 1, 0], [0.8, 0.6, 0.9, 0.7], [0.8, 0.6, 0.05, 0.7]),
    ("b", 8): ([0, 1, 0, 0], [0.4, 0.8, 0.6, 0.5], [0.4, 0.1, 0.6, 0.5]),
}
# protocol -> target -> (denominator, still correct, confidence, true confidence) at 8/255
BY_HAND = {
    "all": {"a": (4, 1, 2.6 / 4, 0.8 / 4), "b": (4, 3, 2.3 / 4, 1.6 / 4)},
    "source_correct": {"a": (3, 1, 1.8 / 3, 0.8 / 3), "b": (3, 2, 1.8 / 3, 1.1 / 3)},
    "target_correct": {"a": (3, 1, 1.8 / 3, 0.8 / 3), "b": (3, 2, 1.7 / 3, 1.0 / 3)},
    "joint": {"a": (3, 1, 1.8 / 3, 0.8 / 3), "b": (2, 1, 1.2 / 2, 0.5 / 2)},
}
# The same with target labels; that of image 3 is its own label.
TARGET_LABELS = [1, 2, 1, 0]
TARGETED = {
    **{("a", 0): [0, 0, 1, 0], ("a", 8): [1, 1, 1, 0]},
    **{("b", 0): [0, 2, 0, 0], ("b", 8): [1, 2, 0, 0]},
}
# protocol -> target -> (denominator, still correct, successes) at 8/255
TARGETED_BY_HAND = {
    "all": {"a": (3, 0, 2), "b": (3, 1, 2)},
    "source_correct": {"a": (2, 0, 1), "b": (2, 0, 2)},
    "target_correct": {"a": (2, 0, 1), "b": (2, 1, 1)},
    "joint": {"a": (2, 0, 1), "b": (1, 0, 1)},
}
# Likewise, the confidences of the successes alone.
SUCCESS_CONFIDENCE = {
    "all": {"a": 2.1 / 3, "b": 0.8},
    "source_correct": {"a": 1.3 / 2, "b": 0.8},
    "target_correct": {"a": 1.3 / 2, "b": 0.8},
    "joint": {"a": 1.3 / 2, "b": 0.8},
}
CASES = list(product(BY_HAND, "ab"))


@pytest.fixture(scope="module")
def table(make_table):
    predicted, confidence, true = ({k: v[i] for k, v in TABLE.items()} for i in range(3))
    return make_table(predicted, confidence=confidence, true_confidence=true)


def at_8(found, target):
    return found[(found["target"] == target) & (found["eps_255"] == 8)].iloc[0]


@pytest.mark.parametrize(("protocol", "target"), CASES)
def test_rates_equal_the_hand_computed_ones(table, protocol, target):
    row = at_8(rates(table, "a", ["a", "b"], protocol), target)
    denominator, still_correct, confidence, true_confidence = BY_HAND[protocol][target]
    assert (row["denominator"], row["still_correct"]) == (denominator, still_correct)
    assert row["success"] == denominator - still_correct and not row["targeted"]
    assert row["robust_accuracy"] == still_correct / denominator
    assert row["success_rate"] == pytest.approx(1 - still_correct / denominator)
    assert row["confidence"] == pytest.approx(confidence)
    assert row["true_confidence"] == pytest.approx(true_confidence)
    assert row["success_confidence"] == pytest.approx(SUCCESS_CONFIDENCE[protocol][target])
    interval = binomtest(still_correct, denominator).proportion_ci(method="wilson")
    found = row[["robust_accuracy_low", "robust_accuracy_high"]].tolist()
    assert found == pytest.approx([interval.low, interval.high])
    found = row[["success_rate_high", "success_rate_low"]].tolist()
    assert found == pytest.approx([1 - interval.low, 1 - interval.high])


@pytest.mark.parametrize(("protocol", "target"), CASES)
def test_targeted_success_is_to_reach_the_target_label(make_table, protocol, target):
    table = make_table(TARGETED, target_label=TARGET_LABELS)
    row = at_8(rates(table, "a", ["a", "b"], protocol), target)
    denominator, still_correct, success = TARGETED_BY_HAND[protocol][target]
    counts = row[["targeted", "denominator", "still_correct", "success"]].tolist()
    assert counts == [True, denominator, still_correct, success]
    interval = binomtest(success, denominator).proportion_ci(method="wilson")
    found = row[["success_rate", "success_rate_low", "success_rate_high"]].tolist()
    assert found == pytest.approx([success / denominator, interval.low, interval.high])


def test_rows_follow_the_order_of_the_targets_and_the_rising_budget(table):
    expected = rates(table, "a", ["b", "a"])
    places = list(zip(expected["target"], expected["eps_255"], strict=True))
    assert places == [("b", 0.0), ("b", 8.0), ("a", 0.0), ("a", 8.0)]
    shuffled = table.sample(frac=1.0, random_state=0)
    shuffled["target"] = pd.Categorical(shuffled["target"], categories=["a", "b", "unused"])
    shuffled["target_label"] = pd.array([pd.NA] * len(table), dtype="Int64")  # of no image
    pd.testing.assert_frame_equal(rates(shuffled, "a", ["b", "a"]), expected)


def test_an_empty_denominator_gives_nan_rates_and_zero_counts(table):
    wrong = table["predicted"].mask((table["target"] == "a") & (table["eps_255"] == 0), 1)
    row = at_8(rates(table.assign(predicted=wrong), "a", ["b"]), "b")
    assert (row["denominator"], row["still_correct"]) == (0, 0)
    names = ["robust_accuracy", "success_rate", "robust_accuracy_low", "robust_accuracy_high"]
    assert row[[*names, "confidence", "true_confidence"]].isna().all()


def test_a_nan_confidence_shows_only_where_its_image_counts(table):
    broken = (table["target"] == "b") & (table["eps_255"] == 8) & (table["index"] == 2)
    table = table.assign(confidence=table["confidence"].mask(broken))
    assert at_8(rates(table, "a", ["b"], "joint"), "b")["confidence"] == pytest.approx(0.6)
    assert np.isnan(at_8(rates(table, "a", ["b"], "all"), "b")["confidence"])


def test_lacking_clean_rows_are_refused(table):
    with pytest.raises(ValueError, match=r"of target 'b' for image 0"):
        rates(table.query("not (target == 'b' and eps_255 == 0)"), "a", ["a", "b"])
    one_image_short = table.query("not (target == 'a' and eps_255 == 0 and index == 0)")
    for protocol in ("source_correct", "joint"):
        with pytest.raises(ValueError, match=f"{protocol}.*'a\\+c'"):
            rates(table, "a+c", ["b"], protocol)
        with pytest.raises(ValueError, match="source 'a' for every image"):
            rates(one_image_short, "a", ["b"], protocol)


def test_rows_that_mean_nothing_together_are_refused(table):
    with pytest.raises(ValueError, match="several rows for one image"):
        rates(pd.concat([table, table]), "a", ["b"])
    with pytest.raises(ValueError, match="protocol Joint"):
        rates(table, "a", ["b"], "Joint")
    with pytest.raises(ValueError, match="target b, c"):
        rates(table, "a", ["b", "c"])
    with pytest.raises(ValueError, match=r"target \(none\)"):
        rates(table, "a", [])


def test_models_are_rated_behind_each_defence_that_they_were_attacked_behind(table):
    behind = table[table["target"] == "b"].assign(defence="jpeg", predicted=[0] * 4 + [1] * 4)
    of_source = table.query("target == 'a' and eps_255 == 0")
    of_source = of_source.assign(defence="median", predicted=[1, 0, 1, 1])
    every = pd.concat([of_source, behind, table.assign(defence="none")], ignore_index=True)
    found = rates(every, "a", ["b", "a"], "joint")
    pairs = list(zip(found["target"], found["defence"], strict=True))[::2]
    assert pairs == [("b", "none"), ("a", "none"), ("b", "jpeg")]
    plain = found[found["defence"] == "none"]
    pd.testing.assert_frame_equal(plain, rates(table, "a", ["b", "a"]))
    counts = ["denominator", "still_correct"]
    assert found[counts].iloc[-1].tolist() == [3, 0]
    adaptive = rates(every, "a@median", ["b"], "source_correct")
    assert adaptive.set_index(["defence", "eps_255"])[counts].loc[("none", 8.0)].tolist() == [1, 0]


def test_an_image_that_was_not_attacked_is_not_counted(make_table):
    table = make_table({("a", 0): [0, 0, 0], ("a", 8): [1, 0, 1]}, target_label=[1, pd.NA, 1])
    row = rates(table, "a", ["a"]).query("eps_255 == 8").iloc[0]
    assert (row["denominator"], row["success"]) == (2, 2)
    table = make_table({("a", 0): [0, 0, 0], ("a", 8): [1, 0, 1]}, target_label=[1] * 3)
    without = table[(table["eps_255"] == 0) | (table["index"] < 2)]
    row = rates(without, "a", ["a"]).query("eps_255 == 8").iloc[0]
    assert (row["denominator"], row["success"]) == (2, 1)
