import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from src.analysis.confidence import by_class, by_initial_confidence, confidence_profiles, top_k
from src.analysis.intervals import wilson_interval

# Six images of four classes; the top five of each, as a model with six classes gives them.
LABELS = [3, 1, 1, 7, 7, 0]
TOP = [
    ([3, 1, 7, 0, 5], [0.99, 0.005, 0.003, 0.001, 0.001]),  # correct
    ([1, 3, 7, 0, 5], [0.975, 0.01, 0.005, 0.004, 0.003]),  # correct
    ([7, 1, 3, 0, 5], [0.60, 0.20, 0.10, 0.05, 0.03]),  # the second is correct
    ([7, 1, 3, 0, 5], [0.62, 0.20, 0.10, 0.05, 0.02]),  # correct
    ([3, 1, 7, 0, 5], [0.94, 0.03, 0.02, 0.005, 0.004]),  # the third is correct
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
            "top5_classes": [np.array(c) for c, _ in top],
            "top5_confidences": [np.array(v, dtype=np.float32) for _, v in top],
        }
    )


def test_classes_are_counted_and_their_confidence_averaged():
    means = by_class(clean_rows().sample(frac=1, random_state=0))
    assert means["label"].tolist() == [3, 1, 7, 0] and means["images"].tolist() == [1, 2, 2, 1]
    np.testing.assert_allclose(means["confidence"], [0.99, 0.7875, 0.78, 0.3], rtol=1e-6)
    np.testing.assert_allclose(means["accuracy"], [1, 0.5, 0.5, 0])


def test_a_level_takes_its_lower_bound_and_not_its_upper_one():
    frame = confidence_profiles(clean_rows())
    # 0.975 is of level 1.0, not of 0.95; 0.60 and 0.62 are of 0.6; 0.3 of none.
    images = frame[frame["rank"] == 1].set_index("level")["images"]
    assert images.to_dict() == {1.0: 2, 0.95: 1, 0.6: 2}
    assert frame["rank"].tolist() == [1, 2, 3, 4, 5] * 3
    highest = frame[frame["level"] == 1.0]
    top = np.array([TOP[0][1], TOP[1][1]])
    np.testing.assert_allclose(highest["confidence"], top.mean(axis=0), rtol=1e-5)


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


@pytest.fixture
def table_of(make_table):
    """Make rows of target `b` (label 0) at each budget, and of source `a` clean."""

    def make(predicted_by_budget, confidence, source=None, **more):
        rows = {("b", eps): predicted for eps, predicted in predicted_by_budget.items()}
        rows["a", 0] = source or [0] * len(predicted_by_budget[0])
        known = {("b", eps): np.array(its, dtype=np.float32) for eps, its in confidence.items()}
        return make_table(rows, confidence=known, **more)

    return make


def test_intervals_are_wilsons(table_of):
    generator = np.random.default_rng(0)
    initial, later = generator.uniform(0.95, 1, 60), generator.random(60)
    wrong = generator.integers(0, 2, 60)
    table = table_of({0: [0] * 60, 4: wrong}, {0: initial, 4: later})
    clean, row = (one for _, one in by_initial_confidence(table, "a", ["b"], groups=1).iterrows())
    assert 0.95 < clean["confidence_low"] < initial.mean() < clean["confidence_high"] < 1
    expected = wilson_interval(later.sum(), 60)
    found = row[["confidence_low", "confidence_high"]].tolist()
    assert found == pytest.approx(np.ravel(expected), rel=1e-5)
    expected = binomtest((wrong == 0).sum(), 60).proportion_ci(method="wilson")
    found = row[["robust_accuracy_low", "robust_accuracy_high"]].tolist()
    assert found == pytest.approx([expected.low, expected.high])


def test_groups_have_equally_many_images_and_no_image_is_left_out(table_of):
    confidence = np.random.default_rng(0).uniform(0.3, 1, 41)
    table = table_of({0: [0] * 42}, {0: [*confidence, np.nan]})  # the last has no confidence
    frame = by_initial_confidence(table, "a", ["b"])
    assert frame["group"].tolist() == [1, 2, 3] and frame["n"].sum() == 41
    assert frame["n"].between(13, 14).all()
    ranked = np.sort(confidence)[::-1]
    starts = np.cumsum([0, *frame["n"]])
    np.testing.assert_allclose(frame["highest"], ranked[starts[:-1]], atol=1e-6)
    np.testing.assert_allclose(frame["lowest"], ranked[starts[1:] - 1], atol=1e-6)
    five = by_initial_confidence(table, "a", ["b"], groups=5)
    assert five["n"].between(8, 9).all() and len(five) == 5


def test_equal_confidences_are_in_one_group(table_of):
    table = table_of({0: [0] * 9}, {0: [1.0] * 7 + [0.5, 0.6]})
    frame = by_initial_confidence(table, "a", ["b"])
    assert frame["n"].tolist() == [7, 2] and frame["n"].sum() == 9
    assert (frame["lowest"][0], frame["highest"][0]) == (1, 1)


def test_images_that_are_wrong_when_clean_or_have_their_own_target_label_are_left_out(table_of):
    rows = {0: [0, 0], 4: [1, 0]}, {0: [0.99, 0.98], 4: [0.5, 0.6]}
    frame = by_initial_confidence(table_of(*rows, target_label=[1, 0]), "a", ["b"])
    assert frame["n"].tolist() == [1, 1] and frame["still_correct"].tolist() == [1, 0]
    assert by_initial_confidence(table_of({0: [1, 1], 4: [0, 1]}, rows[1]), "a", ["b"]).empty


def test_images_on_which_a_model_abstains_are_left_out():
    rows = clean_rows().assign(predicted=[3, -1, -1, -1, 3, -1])
    rows.loc[rows["predicted"] == -1, "confidence"] = np.nan
    assert top_k(rows)[["n", "correct"]].to_numpy().tolist() == [[2, 1], [2, 2]]
    means = by_class(rows)
    assert means[["label", "images", "accuracy"]].to_numpy().tolist() == [[3, 1, 1], [7, 1, 0]]
    nothing = rows[rows["predicted"] == -1]
    assert top_k(nothing)["n"].tolist() == [0, 0] and by_class(nothing).empty
