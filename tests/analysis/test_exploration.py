import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from src.analysis.exploration import class_confidence, class_counts, confidence_profiles, top_k

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
    np.testing.assert_allclose(
        frame["confidence_sd"],
        [np.nan, np.std([0.975, 0.6], ddof=1), np.std([0.62, 0.94], ddof=1), np.nan],
        rtol=1e-6,
    )
    np.testing.assert_allclose(frame["true_confidence"], [0.99, 0.5875, 0.32, 0.05], rtol=1e-6)
    assert frame["correct"].tolist() == [1, 1, 1, 0]
    np.testing.assert_allclose(frame["accuracy"], [1, 0.5, 0.5, 0])


def test_class_confidence_equals_pandas_on_many_images():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 20, 300)
    values = generator.random((300, 1))
    rows = clean_rows(labels, [([3], value) for value in values], values[:, 0])
    expected = rows.groupby("label")["confidence"].agg(["mean", "std"]).sort_values("mean")[::-1]
    frame = class_confidence(rows)
    assert frame["label"].tolist() == expected.index.tolist()
    np.testing.assert_allclose(frame["confidence"], expected["mean"], rtol=1e-5)
    np.testing.assert_allclose(frame["confidence_sd"], expected["std"], rtol=1e-5)


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


def test_levels_and_widths_are_free():
    frame = confidence_profiles(clean_rows(), levels=[0.4, 0.9], half_width=0.1)
    assert frame["level"].tolist() == [0.4] * 5 + [0.9] * 5
    assert frame["images"].tolist() == [1] * 5 + [3] * 5


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
    profile = confidence_profiles(rows, levels=[1.0])
    np.testing.assert_allclose(
        profile["confidence"], [0.985, 0.015, np.nan, np.nan, np.nan], rtol=1e-5
    )
    assert profile["images"].tolist() == [2] * 5


def test_no_images_give_no_classes_and_no_rates():
    rows = clean_rows().iloc[:0]
    assert class_counts(rows).empty and class_confidence(rows).empty
    assert confidence_profiles(rows)["images"].eq(0).all()
    frame = top_k(rows)
    assert frame["n"].tolist() == [0, 0]
    assert frame[["accuracy", "accuracy_low", "confidence"]].isna().all(axis=None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.drop(columns="label"), "lacks the columns label"),
        (lambda rows: rows.assign(eps_255=8.0), r"clean rows alone .*not eps_255 8"),
        (lambda rows: rows.assign(target=["a", "b"] * 3), "one model, not a, b"),
        (lambda rows: rows.assign(index=4), "image 4 has several clean rows"),
    ],
)
def test_other_rows_than_one_models_clean_ones_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        class_counts(change(clean_rows()))


def test_levels_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match=r"level of initial confidence .*\(0, 1\], not 1\.5"):
        confidence_profiles(clean_rows(), levels=[1.5])
    with pytest.raises(ValueError, match=r"half_width .*not 0"):
        confidence_profiles(clean_rows(), half_width=0)
    with pytest.raises(ValueError, match=r"must be in \[0, 1\], not nan"):
        confidence_profiles(clean_rows().assign(confidence=np.nan))
