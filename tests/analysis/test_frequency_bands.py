import numpy as np
import pandas as pd
import pytest

from src.analysis.diagnostics import filtered_rates, low_pass_accuracy
from src.analysis.intervals import wilson_interval

EDGES = {"all": (0, 0.7), "low": (0, 0.125), "mid": (0.125, 0.25), "high": (0.25, 0.7)}


@pytest.fixture
def make_filtered(make_table):
    """Make the filtered table of predictions in every band, of attack and noise."""

    def make(predictions):
        parts = []
        for (target, band), kinds in predictions.items():
            low, high = EDGES[band]
            what = {"band": band, "frequency_low": low, "frequency_high": high}
            for kind, predicted in zip(("attack", "noise"), kinds, strict=True):
                parts.append(make_table({(target, 8): predicted}).assign(kind=kind, **what))
        return pd.concat(parts, ignore_index=True).sample(frac=1, random_state=0)

    return make


# Label 0; both are correct when clean on images 0, 1 and 3.
PREDICTIONS = {
    ("a", 0): [0, 0, 0, 0, 1],
    ("b", 0): [0, 0, 2, 0, 1],
    ("a", 8): [1, 1, 0, 1, 1],
    ("b", 8): [1, 0, 2, 0, 1],
}
FILTERED = {
    ("b", "low"): ([1, 1, 0, 0, 0], [1, 0, 1, 2, 1]),
    ("b", "high"): ([0, 0, 1, 0, 1], [0, 2, 0, 2, 0]),
    ("b", "mid"): ([0, 3, 3, 3, 0], [0, 0, 3, 3, 3]),
    ("b", "all"): (PREDICTIONS["b", 8], [0, 0, 0, 0, 0]),
    ("a", "all"): (PREDICTIONS["a", 8], [0, 0, 0, 0, 0]),
}


def test_successes_are_counted_on_the_protocols_images(make_table, make_filtered):
    table, filtered = make_table(PREDICTIONS), make_filtered(FILTERED)
    frame = filtered_rates(filtered, table, "a", ["b", "a"])
    places = list(zip(frame["target"], frame["band"], strict=True))
    assert places == [("b", "all"), ("b", "low"), ("b", "mid"), ("b", "high"), ("a", "all")]
    assert frame["denominator"].tolist() == [3, 3, 3, 3, 4]
    assert frame["success"].tolist() == [1, 2, 2, 0, 3]
    assert frame["frequency_low"].tolist() == [0, 0, 0.125, 0.25, 0]
    # Noise is subtracted image by image.
    assert frame["control_success"].tolist() == [0, 2, 1, 2, 0]
    assert frame["attack_only"].tolist() == [1, 1, 1, 0, 3]
    assert frame["control_only"].tolist() == [0, 1, 0, 2, 0]
    np.testing.assert_allclose(frame["excess"], [1 / 3, 0, 1 / 3, -2 / 3, 3 / 4])


def low_passed_of(predictions):
    names = ["index", "label", "target", "cutoff", "predicted"]
    rows = [(i, 0, *key, one) for key, row in predictions.items() for i, one in enumerate(row)]
    return pd.DataFrame(rows, columns=names)


def test_low_passed_images_are_counted_beside_the_same_ones_unfiltered():
    low_passed = low_passed_of(
        {("b", 0.375): [0, 0, 1], ("b", 0.0625): [1, 2, 0], ("a", 0.25): [0, 0, 0]}
    )
    clean = low_passed_of({("a", 0): [0, 0, 0, 0], ("b", 0): [0, 0, 1, 0], ("c", 0): [0, 0, 0]})
    clean = clean.drop(columns="cutoff").sample(frac=1, random_state=0)
    frame = low_pass_accuracy(low_passed, clean)
    frame = frame.sort_values(["target", "cutoff"], ascending=[False, True])
    assert frame["target"].tolist() == ["b", "b", "b", "a", "a"]
    assert frame["cutoff"].tolist() == [0.0625, 0.375, np.inf, 0.25, np.inf]
    assert frame["n"].eq(3).all() and frame["correct"].tolist() == [1, 2, 2, 3, 3]
    np.testing.assert_allclose(frame["accuracy"], [1 / 3, 2 / 3, 2 / 3, 1, 1])
    interval = wilson_interval(frame["correct"], 3)
    np.testing.assert_allclose(frame[["accuracy_low", "accuracy_high"]].T, interval, atol=1e-12)
    assert low_pass_accuracy(low_passed.iloc[:0], clean).empty
