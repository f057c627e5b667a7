import numpy as np
import pytest
from statsmodels.stats.contingency_tables import mcnemar

from src.analysis import excess, excess_matrix, rates
from src.analysis.intervals import paired_interval

# Label 0, eight images; b is correct on the clean images 0 to 6, a on all.
CLEAN = {("a", 0): [0] * 8, ("b", 0): [0, 0, 0, 0, 0, 0, 0, 1]}
ATTACK = {("b", 4): [1, 0, 0, 0, 0, 0, 0, 1], ("b", 8): [1, 1, 1, 1, 2, 0, 0, 1]}
NOISE = {("b", 4): [1, 0, 0, 0, 0, 0, 0, 0], ("b", 8): [1, 0, 0, 0, 0, 0, 2, 1]}


def test_excess_subtracts_the_controls_successes_on_the_same_images(make_table):
    attacked = make_table(CLEAN | ATTACK)
    control = make_table(CLEAN | NOISE)
    table = excess(attacked, control.sample(frac=1, random_state=0), "a", ["b"])
    assert list(table["eps_255"]) == [4, 8] and list(table["denominator"]) == [7, 7]
    assert list(table["success"]) == [1, 5] and list(table["control_success"]) == [1, 2]
    assert list(table["attack_only"]) == [0, 4] and list(table["control_only"]) == [0, 1]
    np.testing.assert_allclose(table["excess"], [0, 3 / 7])
    np.testing.assert_allclose(
        table["excess"], table["success_rate"] - table["control_success_rate"]
    )
    low, high = paired_interval([0, 4], [0, 1], [7, 7])
    np.testing.assert_array_equal(table["excess_low"], low)
    np.testing.assert_array_equal(table["excess_high"], high)


@pytest.mark.parametrize("protocol", ["all", "source_correct", "target_correct", "joint"])
def test_excess_agrees_with_the_rates_of_both_tables(make_table, protocol):
    generator = np.random.default_rng(0)
    keys = [(model, eps) for model in "abc" for eps in (0, 2, 8)]
    attack = {key: generator.integers(0, 3, 200) for key in keys}
    noise = {key: attack[key] if key[1] == 0 else generator.integers(0, 3, 200) for key in keys}
    for labels in (None, generator.integers(0, 3, 200)):
        tables = [make_table(predictions, target_label=labels) for predictions in (attack, noise)]
        table = excess(*tables, "a", ["c", "b"], protocol)
        expected = [rates(one, "a", ["c", "b"], protocol).query("eps_255 > 0") for one in tables]
        for frame, name in zip(expected, ("success", "control_success"), strict=True):
            np.testing.assert_array_equal(table[name], frame["success"])
            np.testing.assert_array_equal(table[f"{name}_rate"], frame["success_rate"])
            np.testing.assert_array_equal(table["denominator"], frame["denominator"])
        assert list(table["target"]) == ["c", "c", "b", "b"]
        assert set(table["targeted"]) == {labels is not None}
        for row in table.itertuples():
            assert row.success - row.control_success == row.attack_only - row.control_only
            test = mcnemar(
                [[0, row.attack_only], [row.control_only, 0]], exact=False, correction=False
            )
            assert (row.excess_low <= 0 <= row.excess_high) == (test.pvalue >= 0.05)


def test_targeted_excess_counts_each_images_target_label(make_table):
    labels = [1, 1, 1, 2, 2, 2, 2, 2]
    attacked = make_table(CLEAN | ATTACK, target_label=labels)
    control = make_table(CLEAN | NOISE, target_label=labels)
    row = excess(attacked, control, "a", ["b"]).iloc[1]
    assert (row["success"], row["control_success"], row["denominator"]) == (4, 2, 7)


def test_excess_of_an_empty_denominator_is_nan(make_table):
    wrong = {("a", 0): [1] * 8}
    tables = [make_table(CLEAN | predictions | wrong) for predictions in (ATTACK, NOISE)]
    table = excess(*tables, "a", ["b"])
    assert (table["denominator"] == 0).all()
    assert table[["excess", "excess_low", "excess_high", "success_rate"]].isna().all(axis=None)
    assert list(excess_matrix({"a": table}, 8)["cell"]) == ["(0 - 0) / 0 = n/a"]


def test_excess_matrix_holds_both_counts(make_table):
    predictions = CLEAN | {("a", 8): [1] * 8}
    tables = [make_table(predictions | {("b", 8): one["b", 8]}) for one in (ATTACK, NOISE)]
    by_source = {source: excess(*tables, source, ["a", "b"]) for source in ("a", "b")}
    cells = excess_matrix(by_source, 8)
    assert list(zip(cells["source"], cells["target"], strict=True)) == [
        *(("a", "a"), ("a", "b"), ("b", "a"), ("b", "b"))
    ]
    assert list(cells["success"]) == [8, 5, 7, 5] and list(cells["control"]) == [8, 2, 7, 2]
    assert cells["cell"].iloc[1].startswith("(5 - 2) / 7 = 42.86% [")
    with pytest.raises(ValueError, match=r"source 'a' has no rates at eps_255 = 4"):
        excess_matrix(by_source, 4)
