import numpy as np
import pytest
from scipy.integrate import simpson, trapezoid
from scipy.stats import binomtest

from src.analysis import rates
from src.analysis.areas import curve_areas
from src.analysis.intervals import bounded_mean_interval

NAME = "robust_accuracy_area"
ENDS = [f"{NAME}_low", f"{NAME}_high"]
# Label 0; image 2 is wrong when clean.
PREDICTIONS = {("a", 0): [0, 0, 1], ("a", 1): [0, 1, 1], ("a", 4): [0, 1, 1]}


@pytest.fixture
def random_table(make_table):
    generator = np.random.default_rng(5)
    keys = [(model, eps) for model in "ab" for eps in (0, 0.5, 2, 3, 8)]
    predictions = {key: generator.integers(0, 3, 300) // (1 + (key[1] < 3)) for key in keys}
    return lambda **more: make_table(predictions, **more).sample(frac=1, random_state=6)


def test_areas_equal_those_worked_out_by_hand(make_table):
    (row,) = curve_areas(make_table(PREDICTIONS), "a", ["a"]).to_dict("records")
    assert (row["target"], row["n"]) == ("a", 2)
    # Image 0 stays correct; 1 falls from 1 to 0 between budgets 0 and 1: area 1/2 of 4.
    assert row[NAME] == pytest.approx((1 + 0.125) / 2)


@pytest.mark.parametrize("protocol", ["all", "source_correct", "target_correct", "joint"])
def test_areas_equal_the_trapezoids_under_the_rates(random_table, protocol):
    for labels in (None, np.random.default_rng(7).integers(0, 3, 300)):
        table = random_table(target_label=labels)
        found = curve_areas(table, "a", ["b", "a"], protocol).set_index("target")
        assert list(found.index) == ["b", "a"]
        for target, curve in rates(table, "a", ["a", "b"], protocol).groupby("target"):
            assert found.loc[target, "n"] == curve["denominator"].iloc[0]
            heights, eps = curve["robust_accuracy"], curve["eps_255"]
            assert found.loc[target, NAME] == pytest.approx(trapezoid(heights, eps) / 8, rel=1e-12)
            assert found.loc[target, NAME] != pytest.approx(simpson(heights, x=eps) / 8)


def test_intervals_are_those_of_the_images_own_areas_whatever_the_other_targets(random_table):
    table = random_table()
    both = curve_areas(table, "a", ["a", "b"], "all")
    alone = curve_areas(table, "a", ["b"], "all").iloc[0]
    values = table.query("target == 'b'").sort_values(["eps_255", "index"])
    curves = (values["predicted"] == 0).to_numpy(float).reshape(5, 300)
    own = trapezoid(curves, np.unique(values["eps_255"]), axis=0) / 8
    expected = [float(end[0]) for end in bounded_mean_interval(own[None])]
    for row in (alone, both.iloc[1]):
        assert row[ENDS].tolist() == pytest.approx(expected)
    assert 0.01 < expected[1] - expected[0] < 0.2


def test_fewer_than_thirty_images_have_no_interval(make_table):
    for n in (29, 30):
        few = curve_areas(make_table({("a", eps): [0] * n for eps in (0, 8)}), "a", ["a"]).iloc[0]
        assert few["n"] == n and few[NAME] == 1 and few[ENDS].isna().all() == (n < 30)
    none = curve_areas(make_table(PREDICTIONS | {("a", 0): [1] * 3}), "a", ["a"]).iloc[0]
    assert none["n"] == 0 and none[[NAME, *ENDS]].isna().all()


def test_alike_curves_still_leave_a_doubt(make_table):
    row = curve_areas(make_table({("a", eps): [0] * 40 for eps in (0, 8)}), "a", ["a"]).iloc[0]
    exact = binomtest(40, 40).proportion_ci(method="exact")
    assert row[ENDS].tolist() == [pytest.approx(exact.low, abs=0.005), 1]
