import numpy as np
import pandas as pd
import pytest
from scipy.integrate import simpson, trapezoid
from scipy.stats import binomtest

from src.analysis import rates
from src.analysis.areas import curve_areas
from src.analysis.intervals import bounded_mean_interval

NAMES = ("robust_accuracy", "success_rate", "true_confidence")
# Label 0; image 2 is wrong when clean.
ANSWERS = {
    ("a", 0): [0, 0, 1],
    ("a", 1): [0, 1, 1],
    ("a", 4): [0, 1, 1],
}
CONFIDENCES = {("a", 0): [0.9, 0.8, 0.1], ("a", 1): [0.7, 0.2, 0.1], ("a", 4): [0.5, 0.0, 0.1]}


@pytest.fixture
def random_table(make_table):
    generator = np.random.default_rng(5)
    keys = [(model, eps) for model in "ab" for eps in (0, 0.5, 2, 3, 8)]
    answers = {key: generator.integers(0, 3, 300) // (1 + (key[1] < 3)) for key in keys}
    confidences = {key: generator.beta(2, 1 + key[1] / 3, 300) for key in keys}

    def make(**changes):
        table = make_table(answers, true_confidence=confidences, **changes)
        return table.sample(frac=1, random_state=6)

    return make


def test_areas_equal_those_worked_out_by_hand(make_table):
    (row,) = curve_areas(make_table(ANSWERS, true_confidence=CONFIDENCES), "a", ["a"]).to_dict(
        "records"
    )
    assert (row["target"], row["n"]) == ("a", 2)
    # Image 0 stays right; 1 falls from 1 to 0 between budgets 0 and 1: area 1/2 of 4.
    assert row["robust_accuracy_area"] == pytest.approx((1 + 0.125) / 2)
    assert row["success_rate_area"] == pytest.approx((0 + 0.875) / 2)
    confidence = [(0.8 * 1 + 0.6 * 3) / 4, (0.5 * 1 + 0.1 * 3) / 4]
    assert row["true_confidence_area"] == pytest.approx(np.mean(confidence))


@pytest.mark.parametrize("protocol", ["all", "source_correct", "target_correct", "joint"])
def test_areas_equal_the_trapezoids_under_the_rates(random_table, protocol):
    for aims in (None, np.random.default_rng(7).integers(0, 3, 300)):
        table = random_table(target_label=aims)
        found = curve_areas(table, "a", ["b", "a"], protocol).set_index("target")
        assert list(found.index) == ["b", "a"]
        whole = rates(table, "a", ["a", "b"], protocol)
        for target, curve in whole.groupby("target"):
            assert found.loc[target, "n"] == curve["denominator"].iloc[0]
            for name in NAMES:
                area = trapezoid(curve[name], curve["eps_255"]) / 8
                assert found.loc[target, f"{name}_area"] == pytest.approx(area, rel=1e-12)
                assert simpson(curve[name], x=curve["eps_255"]) / 8 != pytest.approx(area)


def test_intervals_are_those_of_the_images_own_areas(random_table):
    table = random_table()
    row = curve_areas(table, "a", ["b"], "all").iloc[0]
    values = table.query("target == 'b'").sort_values(["eps_255", "index"])
    values = values.assign(
        robust_accuracy=values["predicted"] == 0, success_rate=values["predicted"] != 0
    )
    for name in NAMES:
        curves = values[name].to_numpy(dtype=float).reshape(5, 300)
        own = trapezoid(curves, np.unique(values["eps_255"]), axis=0) / 8
        expected = [float(end[0]) for end in bounded_mean_interval(own[None])]
        found = row[[f"{name}_area_low", f"{name}_area_high"]].tolist()
        assert found == pytest.approx(expected) and 0.01 < found[1] - found[0] < 0.2


def test_the_seed_decides_and_other_targets_do_not(random_table):
    table = random_table()
    both = curve_areas(table, "a", ["a", "b"], seed=3)
    again = curve_areas(table.sort_values("index"), "a", ["b"], seed=3)
    pd.testing.assert_frame_equal(both.iloc[1:].reset_index(drop=True), again)
    other = curve_areas(table, "a", ["b"], seed=4)
    assert (other["true_confidence_area"] == again["true_confidence_area"]).all()
    assert (other["true_confidence_area_low"] != again["true_confidence_area_low"]).all()


def test_fewer_than_thirty_images_have_no_interval(make_table):
    for n in (29, 30):
        few = curve_areas(make_table({("a", eps): [0] * n for eps in (0, 8)}), "a", ["a"]).iloc[0]
        assert few["n"] == n and few["robust_accuracy_area"] == 1
        assert np.isnan(few["robust_accuracy_area_low"]) == (n < 30)
    none = curve_areas(make_table(ANSWERS | {("a", 0): [1] * 3}), "a", ["a"]).iloc[0]
    assert none["n"] == 0
    for name in NAMES:
        columns = [f"{name}_area", f"{name}_area_low", f"{name}_area_high"]
        assert none[columns].isna().all()


def test_alike_curves_still_leave_a_doubt_and_unknown_confidences_show(make_table):
    same = make_table({("a", eps): [0] * 40 for eps in (0, 8)})
    row = curve_areas(same, "a", ["a"]).iloc[0]
    exact = binomtest(40, 40).proportion_ci(method="exact")
    assert row["robust_accuracy_area_low"] == pytest.approx(exact.low, abs=0.005)
    assert row["robust_accuracy_area_high"] == 1
    same.loc[3, "true_confidence"] = np.nan
    row = curve_areas(same, "a", ["a"]).iloc[0]
    assert row[["true_confidence_area", "true_confidence_area_low"]].isna().all()
    assert row["robust_accuracy_area"] == 1


def test_incomplete_curves_are_refused(make_table):
    table = make_table(ANSWERS)
    with pytest.raises(ValueError, match="image 1 was not shown to 'a' at 4/255"):
        curve_areas(table.query("not (index == 1 and eps_255 == 4)"), "a", ["a"])
    curve_areas(table.query("not (index == 2 and eps_255 == 4)"), "a", ["a"])  # not counted
    with pytest.raises(ValueError, match="image 0 was not shown to 'a' at 0/255"):
        curve_areas(table.query("eps_255 > 0"), "a", ["a"], "all")
    with pytest.raises(ValueError, match="were shown no attacked images"):
        curve_areas(table.query("eps_255 == 0"), "a", ["a"])
