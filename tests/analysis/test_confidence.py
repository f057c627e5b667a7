import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest
from statsmodels.stats.proportion import proportion_confint

from src.analysis.confidence import (
    by_initial_confidence,
    class_confidence,
    class_counts,
    confidence_profiles,
    top_k,
)
from src.analysis.intervals import bounded_mean_interval

# Six images of four classes; the top five of each, as a model with six classes gives them.
LABELS = [3, 1, 1, 7, 7, 0]
TOP = [
    ([3, 1, 7, 0, 5], [0.99, 0.005, 0.003, 0.001, 0.001]),  # right
    ([1, 3, 7, 0, 5], [0.975, 0.01, 0.005, 0.004, 0.003]),  # right
    ([7, 1, 3, 0, 5], [0.60, 0.20, 0.10, 0.05, 0.03]),  # the second is right
    ([7, 1, 3, 0, 5], [0.62, 0.20, 0.10, 0.05, 0.02]),  # right
    ([3, 1, 7, 0, 5], [0.94, 0.03, 0.02, 0.005, 0.004]),  # the third is right
    ([3, 1, 7, 2, 5], [0.3, 0.25, 0.2, 0.1, 0.1]),  # not among the five
]
TRUE = [0.99, 0.975, 0.20, 0.62, 0.02, 0.05]


def clean_rows(labels=LABELS, top=TOP, true=TRUE):
    return pd.DataFrame(
        {
            "index": np.arange(len(labels)),
            "label": labels,
            "target": "vgg16",
            "eps_255": 0.0,
            "predicted": [classes[0] for classes, _ in top],
            "confidence": np.array([values[0] for _, values in top], dtype=np.float32),
            "true_confidence": np.array(true, dtype=np.float32),
            "top5_classes": pd.Series([np.array(c) for c, _ in top], dtype=object),
            "top5_confidences": pd.Series(
                [np.array(v, dtype=np.float32) for _, v in top], dtype=object
            ),
        }
    )


def test_class_counts_come_by_number_and_then_by_class():
    counts = class_counts(clean_rows().sample(frac=1, random_state=0))
    assert counts["label"].tolist() == [1, 7, 0, 3]
    assert counts["images"].tolist() == [2, 2, 1, 1]
    np.testing.assert_allclose(counts["share"], [2 / 6, 2 / 6, 1 / 6, 1 / 6])


def test_class_confidence_is_the_groups_mean():
    frame = class_confidence(clean_rows().sample(frac=1, random_state=0))
    assert frame["label"].tolist() == [3, 1, 7, 0]
    assert frame["images"].tolist() == [1, 2, 2, 1]
    np.testing.assert_allclose(frame["confidence"], [0.99, 0.7875, 0.78, 0.3], rtol=1e-6)
    np.testing.assert_allclose(frame["accuracy"], [1, 0.5, 0.5, 0])


def test_a_level_takes_its_lower_bound_and_not_its_upper_one():
    frame = confidence_profiles(clean_rows())
    assert len(frame) == 9 * 5 and frame["rank"].tolist() == [1, 2, 3, 4, 5] * 9
    images = frame[frame["rank"] == 1].set_index("level")["images"]
    # 0.975 is of level 1.0, not of 0.95; 0.60 and 0.62 are of 0.6; 0.3 of none.
    assert images.to_dict() == {
        **{1.0: 2, 0.95: 1, 0.6: 2},
        **dict.fromkeys([0.9, 0.85, 0.8, 0.75, 0.7, 0.65], 0),
    }
    highest = frame[frame["level"] == 1.0]
    top = np.array([TOP[0][1], TOP[1][1]])
    np.testing.assert_allclose(highest["confidence"], top.mean(axis=0), rtol=1e-5)
    low = top.min(axis=0) + 0.1 * np.ptp(top, axis=0)
    np.testing.assert_allclose(highest["confidence_low"], low, rtol=1e-5)
    np.testing.assert_allclose(highest["confidence_high"], top.sum(axis=0) - low, rtol=1e-5)
    without = frame[frame["images"] == 0]
    assert without[["confidence", "confidence_low", "confidence_high"]].isna().all(axis=None)


def test_a_bound_in_float32_is_the_bound():
    rows = clean_rows([0], [([0], [0.825])], [0.825])  # 0.82499999
    frame = confidence_profiles(rows)
    assert frame.loc[frame["images"] == 1, "level"].unique().tolist() == [0.85]


def test_top_k_counts_the_true_class_among_the_likeliest():
    frame = top_k(clean_rows())
    assert frame["k"].tolist() == [1, 5] and frame["n"].tolist() == [6, 6]
    assert frame["correct"].tolist() == [3, 5]
    np.testing.assert_allclose(frame["accuracy"], [3 / 6, 5 / 6])
    for row in frame.itertuples():
        interval = binomtest(row.correct, row.n).proportion_ci(method="wilson")
        assert (row.accuracy_low, row.accuracy_high) == pytest.approx(interval)
    expected = [np.mean([values[0] for _, values in TOP]), np.mean(TRUE[:5])]
    np.testing.assert_allclose(frame["confidence"], expected, rtol=1e-6)


def test_fewer_than_five_classes_are_enough():
    rows = clean_rows([0, 1], [([1, 0], [0.98, 0.02]), ([1, 0], [0.99, 0.01])], [0.02, 0.99])
    frame = top_k(rows)
    assert frame["correct"].tolist() == [1, 2]
    assert frame["confidence"].iloc[1] == pytest.approx((0.02 + 0.99) / 2)
    profile = confidence_profiles(rows).query("level == 1")
    nan = np.nan
    np.testing.assert_allclose(profile["confidence"], [0.985, 0.015, nan, nan, nan], rtol=1e-5)
    assert profile["images"].tolist() == [2] * 5


def test_no_images_give_no_classes_and_no_rates():
    rows = clean_rows().iloc[:0]
    assert class_counts(rows).empty and class_confidence(rows).empty
    assert confidence_profiles(rows)["images"].eq(0).all()
    frame = top_k(rows)
    assert frame["n"].tolist() == [0, 0]
    assert frame[["accuracy", "accuracy_low", "confidence"]].isna().all(axis=None)


def table_of(answers, confidence, source_answers=None):
    """Rows of target `b` (label 0, images 0, 1, ...) at each budget, and of source `a` clean."""
    parts = [
        pd.DataFrame(
            {
                "index": np.arange(len(predicted)),
                "label": 0,
                "target": "b",
                "eps_255": float(eps),
                "predicted": predicted,
                "confidence": np.array(confidence[eps], dtype=np.float32),
                "true_confidence": np.where(np.array(predicted) == 0, confidence[eps], 0.1).astype(
                    np.float32
                ),
            }
        )
        for eps, predicted in answers.items()
    ]
    n = len(answers[0])
    source = parts[0].assign(target="a", predicted=source_answers or [0] * n, confidence=0.123)
    return pd.concat([*parts, source], ignore_index=True)


# Initial confidences 0.97, 1.0, 0.95 | 0.94 (wrong at first) | 0.9499 | 0.05; the source errs on
# image 1.
ANSWERS = {0: [0, 0, 0, 1, 0, 0], 4: [0, 1, 1, 0, 0, 1]}
CONFIDENCE = {0: [0.97, 1.0, 0.95, 0.94, 0.9499, 0.05], 4: [0.5, 0.6, 0.8, 0.9, 0.7, 0.3]}
SOURCE = [0, 1, 0, 0, 0, 0]


def test_images_are_split_by_the_targets_clean_confidence():
    frame = by_initial_confidence(table_of(ANSWERS, CONFIDENCE, SOURCE), "a", "b")
    bins = list(zip(frame["bin_low"], frame["bin_high"], frame["eps_255"], strict=True))
    assert bins == [
        *((0.95, 1.0, 0), (0.95, 1.0, 4), (0.9, 0.95, 0), (0.9, 0.95, 4)),
        *((0.05, 0.1, 0), (0.05, 0.1, 4)),
    ]
    assert frame["n"].tolist() == [2, 2, 1, 1, 1, 1]
    assert frame["still_correct"].tolist() == [2, 1, 1, 1, 1, 0]
    np.testing.assert_allclose(frame["robust_accuracy"], [1, 0.5, 1, 1, 1, 0])
    np.testing.assert_allclose(frame["confidence"], [0.96, 0.65, 0.9499, 0.7, 0.05, 0.3], rtol=1e-6)


def test_the_protocol_decides_which_images_are_counted():
    table = table_of(ANSWERS, CONFIDENCE, SOURCE)
    for protocol, n in (("all", 3), ("target_correct", 3), ("joint", 2), ("source_correct", 2)):
        frame = by_initial_confidence(table, "a", "b", protocol)
        assert frame["n"].iloc[0] == n
        assert frame.groupby("eps_255")["n"].sum().tolist() == [n + 2, n + 2]  # never image 3


def test_intervals_equal_wilsons_and_gaffkes():
    generator = np.random.default_rng(0)
    n = 60
    initial = generator.uniform(0.9, 1, n)
    later, wrong = generator.random(n), generator.integers(0, 2, n)
    frame = by_initial_confidence(
        table_of({0: [0] * n, 4: wrong}, {0: initial, 4: later}), "a", "b"
    )
    assert frame["bin_low"].tolist() == [0.95, 0.95, 0.9, 0.9]
    for row in frame[frame["eps_255"] == 4].itertuples():
        chosen = (initial >= row.bin_low) & (initial < row.bin_high)
        k = int((wrong[chosen] == 0).sum())
        assert (row.n, row.still_correct) == (chosen.sum(), k)
        low, high = bounded_mean_interval(later[None, chosen])
        found = row.confidence_low, row.confidence_high
        assert found == pytest.approx((low[0], high[0]), rel=1e-5)
        expected = proportion_confint(k, row.n, method="wilson")
        assert (row.robust_accuracy_low, row.robust_accuracy_high) == pytest.approx(expected)


def test_mean_confidences_of_fewer_than_ten_images_have_no_interval():
    initial, later = [0.97] * 10 + [0.5] * 9, [0.9] * 19
    frame = by_initial_confidence(
        table_of({0: [0] * 19, 4: [0] * 19}, {0: initial, 4: later}), "a", "b"
    )
    assert frame["n"].tolist() == [10, 10, 9, 9]
    assert frame[["confidence_low", "confidence_high"]].isna().all(axis=1).tolist() == [
        *(False, False, True, True)
    ]
    assert frame["robust_accuracy_low"].notna().all()


def test_clean_confidences_are_known_to_lie_in_their_bin():
    table = table_of({0: [0] * 12, 4: [0] * 12}, {0: [0.97] * 12, 4: [0.97] * 12})
    clean, attacked = by_initial_confidence(table, "a", "b").to_dict("records")
    assert 0.95 < clean["confidence_low"] < 0.97 < clean["confidence_high"] < 1
    assert attacked["confidence_low"] < 0.75  # a twelfth image more might have fallen to 0


def test_every_bin_takes_its_lower_bound_and_not_its_upper_one():
    confidence = np.repeat(np.arange(20) / 20, 2) + np.tile([0, 0.0499], 20)  # float32 of 0.95, ...
    confidence[-1] = 1
    table = table_of({0: [0] * 41}, {0: [*confidence, np.nan]})  # the last is of no bin
    frame = by_initial_confidence(table, "a", "b")
    np.testing.assert_array_equal(frame["bin_low"], np.arange(20)[::-1] / 20)
    np.testing.assert_array_equal(frame["bin_high"], np.arange(1, 21)[::-1] / 20)
    assert frame["n"].eq(2).all()


def test_a_budget_that_an_image_was_not_shown_at_is_left_out():
    table = table_of({0: [0] * 12, 4: [0] * 12}, {0: [0.97] * 12, 4: [0.9] * 6 + [0.8] * 6})
    gone = (table["eps_255"] == 4) & (table["index"] == 0)
    clean, attacked = by_initial_confidence(table[~gone], "a", "b").to_dict("records")
    assert (clean["n"], attacked["n"], attacked["still_correct"]) == (12, 11, 11)
    assert attacked["confidence"] == pytest.approx((5 * 0.9 + 6 * 0.8) / 11)
    low, high = bounded_mean_interval(np.repeat([[0.9, 0.8]], [5, 6], axis=1))
    assert attacked["confidence_low"] == pytest.approx(low[0], abs=0.01)
    assert attacked["confidence_high"] == pytest.approx(high[0], abs=0.01)


def test_images_aimed_at_their_own_label_are_left_out():
    table = table_of({0: [0, 0], 4: [1, 0]}, {0: [0.99, 0.98], 4: [0.5, 0.6]})
    aims = table["index"].map({0: 1, 1: 0}).where(table["eps_255"] > 0).astype("Int64")
    frame = by_initial_confidence(table.assign(target_label=aims), "a", "b")
    assert frame["n"].tolist() == [1, 1] and frame["still_correct"].tolist() == [1, 0]


def test_a_target_that_is_never_right_gives_no_bins():
    table = table_of({0: [1, 1], 4: [0, 1]}, {0: [0.9, 0.8], 4: [0.5, 0.6]})
    assert by_initial_confidence(table, "a", "b").empty


def test_without_clean_rows_there_are_no_bins():
    table = table_of(ANSWERS, CONFIDENCE)
    attacked = table[(table["eps_255"] > 0) | (table["target"] == "a")]
    with pytest.raises(ValueError, match=r"lacks the clean prediction .* of target 'b'"):
        by_initial_confidence(attacked, "a", "b", "all")
