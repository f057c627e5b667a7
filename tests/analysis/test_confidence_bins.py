import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.proportion import proportion_confint

from src.analysis.confidence_bins import by_initial_confidence
from src.analysis.intervals import bounded_mean_interval


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
    np.testing.assert_allclose(
        frame["true_confidence"], [0.96, 0.3, 0.9499, 0.7, 0.05, 0.1], rtol=1e-6
    )


def test_the_protocol_decides_which_images_are_counted():
    table = table_of(ANSWERS, CONFIDENCE, SOURCE)
    for protocol, n in (("all", 3), ("target_correct", 3), ("joint", 2), ("source_correct", 2)):
        frame = by_initial_confidence(table, "a", "b", protocol)
        assert frame["n"].iloc[0] == n
        assert frame.groupby("eps_255")["n"].sum().tolist() == [n + 2, n + 2]  # never image 3


def test_intervals_equal_wilsons_and_gaffkes():
    generator = np.random.default_rng(0)
    n = 40
    initial = generator.uniform(0.8, 1, n)
    later, wrong = generator.random(n), generator.integers(0, 2, n)
    table = table_of({0: [0] * n, 4: wrong}, {0: initial, 4: later})
    frame = by_initial_confidence(table, "a", "b", width=0.1)
    assert frame["bin_low"].tolist() == [0.9, 0.9, 0.8, 0.8]
    for row in frame[frame["eps_255"] == 4].itertuples():
        chosen = (initial >= row.bin_low) & (initial < row.bin_high)
        k = int((wrong[chosen] == 0).sum())
        assert (row.n, row.still_correct) == (chosen.sum(), k)
        low, high = bounded_mean_interval(later[chosen][None])
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


def test_a_width_that_does_not_divide_1_leaves_a_narrow_last_bin():
    table = table_of({0: [0] * 4}, {0: [0.05, 0.1, 0.7, 0.69]})
    frame = by_initial_confidence(table, "a", "b", width=0.3)
    assert list(zip(frame["bin_low"], frame["bin_high"], frame["n"], strict=True)) == [
        *((0.7, 1.0, 1), (0.4, 0.7, 1), (0.1, 0.4, 1), (0.0, 0.1, 1)),
    ]
    whole = by_initial_confidence(table, "a", "b", width=1)
    assert whole[["bin_low", "bin_high", "n"]].to_numpy().tolist() == [[0, 1, 4]]


def test_images_aimed_at_their_own_label_are_left_out():
    table = table_of({0: [0, 0], 4: [1, 0]}, {0: [0.99, 0.98], 4: [0.5, 0.6]})
    aims = table["index"].map({0: 1, 1: 0}).where(table["eps_255"] > 0).astype("Int64")
    frame = by_initial_confidence(table.assign(target_label=aims), "a", "b")
    assert frame["n"].tolist() == [1, 1] and frame["still_correct"].tolist() == [1, 0]


def test_a_target_that_is_never_right_gives_no_bins():
    table = table_of({0: [1, 1], 4: [0, 1]}, {0: [0.9, 0.8], 4: [0.5, 0.6]})
    assert by_initial_confidence(table, "a", "b").empty


def test_what_cannot_be_binned_is_refused():
    table = table_of(ANSWERS, CONFIDENCE)
    for width in (0, -0.1, 1.5):
        with pytest.raises(ValueError, match=rf"width .*\(0, 1\], not {width}"):
            by_initial_confidence(table, "a", "b", width=width)
    attacked = table[(table["eps_255"] > 0) | (table["target"] == "a")]
    with pytest.raises(ValueError, match=r"lacks the clean prediction .* of target 'b'"):
        by_initial_confidence(attacked, "a", "b", "all")
    nothing = table.assign(confidence=table["confidence"].where(table["eps_255"] > 0))
    with pytest.raises(ValueError, match="image 0 has no confidence on its clean row of 'b'"):
        by_initial_confidence(nothing, "a", "b")
