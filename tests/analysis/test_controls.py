import numpy as np
import pytest
from scipy.stats import chi2

from src.analysis import excess, excess_by_control, rates
from src.analysis.intervals import paired_interval

# Label 0, eight images; b is correct on the clean images 0 to 6, a on all.
CLEAN = {("a", 0): [0] * 8, ("b", 0): [0, 0, 0, 0, 0, 0, 0, 1]}
ATTACK = {("b", 4): [1, 0, 0, 0, 0, 0, 0, 1], ("b", 8): [1, 1, 1, 1, 2, 0, 0, 1]}
NOISE = {("b", 4): [1, 0, 0, 0, 0, 0, 0, 0], ("b", 8): [1, 0, 0, 0, 0, 0, 2, 1]}


def test_excess_subtracts_the_controls_successes_on_the_same_images(make_table):
    attacked = make_table(CLEAN | ATTACK)
    control = make_table(CLEAN | NOISE).sample(frac=1, random_state=0)
    table = excess(attacked, control, "a", ["b"])
    assert list(table["eps_255"]) == [4, 8] and list(table["denominator"]) == [7, 7]
    assert list(table["success"]) == [1, 5] and list(table["control_success"]) == [1, 2]
    assert list(table["attack_only"]) == [0, 4] and list(table["control_only"]) == [0, 1]
    np.testing.assert_allclose(table["excess"], [0, 3 / 7])
    interval = paired_interval([0, 4], [0, 1], [7, 7])
    np.testing.assert_array_equal(table[["excess_low", "excess_high"]].T, interval)
    tables = {"float32": attacked, "shuffled": control, "noise": control}
    both = excess_by_control(tables, "float32", "a", ["b"], "joint")
    assert both["control"].tolist() == ["noise", "noise", "shuffled", "shuffled"]
    assert both["excess"].tolist() == table["excess"].tolist() * 2


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
            b, c = row.attack_only, row.control_only
            p = chi2.sf((b - c) ** 2 / (b + c), 1)  # McNemar's test
            assert (row.excess_low <= 0 <= row.excess_high) == (p >= 0.05)


def test_a_control_that_lacks_a_row_is_refused(make_table):
    table = make_table({("a", 0): [0, 0], ("a", 8): [1, 1]})
    with pytest.raises(ValueError, match="target 'a' and image 1 at eps_255 = 8"):
        excess(table, table[table["index"] == 0], "a", ["a"])
