import pandas as pd
import pytest
from scipy.stats import binomtest

from src.analysis import CLEAN, PROTOCOLS, is_white_box, matrix, rates


def two_models(make_table, target_label=None):
    """Label 0. Clean: a is correct on images 0, 1, 2; b on 0, 1, 3. At 8: a on 0; b on 0, 2, 3."""
    predictions = {
        ("a", 0): [0, 0, 0, 1],
        ("a", 8): [0, 1, 1, 1],
        ("b", 0): [0, 0, 1, 0],
        ("b", 8): [0, 1, 0, 0],
    }
    return make_table(predictions, target_label=target_label)


def test_matrix_holds_the_clean_row_and_a_cell_for_each_pair(make_table):
    by_source = {source: rates(two_models(make_table), source, ["a", "b"]) for source in ("b", "a")}
    cells = matrix(by_source, 8.0)
    assert list(zip(cells["source"], cells["target"], cells["cell"], strict=True)) == [
        (CLEAN, "a", "3 / 4 = 75.00%"),
        (CLEAN, "b", "3 / 4 = 75.00%"),
        ("b", "a", "1 / 2 = 50.00%"),
        ("b", "b", "2 / 3 = 66.67%"),
        ("a", "a", "1 / 3 = 33.33%"),
        ("a", "b", "1 / 2 = 50.00%"),
    ]
    assert list(cells["eps_255"]) == [0, 0, 8, 8, 8, 8]
    clean = binomtest(3, 4).proportion_ci(method="wilson")
    assert cells["robust_accuracy_low"].iloc[0] == pytest.approx(clean.low, abs=1e-12)


def test_matrix_clean_row_does_not_depend_on_the_protocol(make_table):
    table = two_models(make_table)
    for protocol in PROTOCOLS:
        cells = matrix({"a": rates(table, "a", ["b"], protocol)}, 8)
        assert cells["cell"].iloc[0] == "3 / 4 = 75.00%" and cells["source"].iloc[0] == CLEAN


def test_matrix_refuses_what_it_cannot_compare(make_table):
    table = rates(two_models(make_table), "a", ["a", "b"])
    with pytest.raises(ValueError, match=r"source 'a' has no rates at eps_255 = 4; .* are 0, 8\."):
        matrix({"a": table}, 4)
    with pytest.raises(ValueError, match="cannot be called 'clean'"):
        matrix({"clean": table}, 8)
    with pytest.raises(ValueError, match=r"different numbers of images: \[3, 4\]"):
        matrix({"a": table, "b": table.assign(n=3)}, 8)
    targeted = rates(two_models(make_table, [1, 1, 1, 1]), "b", ["a", "b"])
    with pytest.raises(ValueError, match="attacks on b are targeted and the others are not"):
        matrix({"a": table, "b": targeted}, 8)


def test_a_matrix_without_clean_predictions_has_no_clean_cells(make_table):
    table = two_models(make_table)
    blind = rates(table[(table["eps_255"] > 0) | (table["target"] == "a")], "a", ["b"], "all")
    assert list(matrix({"a": blind}, 8)["source"]) == ["a"]
    seeing = rates(table, "a", ["a"], "all")
    cells = matrix({"a": pd.concat([seeing, blind])}, 8)
    assert list(zip(cells["source"], cells["target"], strict=True)) == [
        *((CLEAN, "a"), ("a", "a"), ("a", "b"))
    ]
    assert cells["still_correct"].dtype == "int64"


def test_success_matrix_counts_errors_and_its_clean_row_the_clean_errors(make_table):
    table = rates(two_models(make_table), "a", ["a", "b"])
    cells = matrix({"a": table}, 8.0, "success_rate")
    assert list(cells["cell"]) == [*["1 / 4 = 25.00%"] * 2, "2 / 3 = 66.67%", "1 / 2 = 50.00%"]
    assert list(cells["success"]) == [1, 1, 2, 1] and not cells["targeted"].any()
    interval = binomtest(2, 3).proportion_ci(method="wilson")
    assert cells["success_rate_low"].iloc[2] == pytest.approx(interval.low, abs=1e-12)
    assert "robust_accuracy" not in cells and "still_correct" not in cells


def test_targeted_matrix_counts_what_reached_its_target_class(make_table):
    # Image 0 has its own label as target label and is not counted.
    table = rates(two_models(make_table, [0, 1, 1, 2]), "a", ["a", "b"])
    cells = matrix({"a": table}, 8.0)
    assert cells["targeted"].all()
    assert list(zip(cells["source"], cells["target"], cells["cell"], strict=True)) == [
        (CLEAN, "a", "0 / 3 = 0.00%"),
        (CLEAN, "b", "1 / 3 = 33.33%"),  # b classifies the clean image 2 as class 1
        ("a", "a", "2 / 2 = 100.00%"),
        ("a", "b", "1 / 1 = 100.00%"),
    ]
    still = matrix({"a": table}, 8.0, "robust_accuracy")
    assert list(still["cell"]) == [*["3 / 4 = 75.00%"] * 2, "0 / 2 = 0.00%", "0 / 1 = 0.00%"]


def test_a_member_of_an_ensemble_is_white_box():
    pair = "vgg16+resnet50"
    for source, target in (("vgg16", "vgg16"), (pair, "resnet50"), (pair, pair)):
        assert is_white_box(source, target)
    for source, target in (("vgg16", "resnet50"), (pair, "resnet5"), ("vgg16", pair)):
        assert not is_white_box(source, target) and not is_white_box(CLEAN, target)
