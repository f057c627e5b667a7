import numpy as np
import pandas as pd
import pytest
from statsmodels.duration.survfunc import SurvfuncRight

from src.analysis import first_flips, flip_summary

# Label 0. Image 0 flips at 0.5 and bounces back at 2; 1 flips at 2; 2 never; 3 is wrong when clean;
# 4 flips at 0.5 for good.
ANSWERS = {
    ("a", 0): [0, 0, 0, 1, 0],
    ("a", 0.5): [1, 0, 0, 1, 1],
    ("a", 2): [0, 1, 0, 1, 1],
    ("b", 0): [1, 1, 1, 1, 0],
    ("b", 0.5): [1, 1, 1, 1, 0],
    ("b", 2): [1, 1, 1, 1, 0],
}
ROUNDED = {**ANSWERS, ("a", 0.5): [0, 0, 0, 1, 0]}


def test_first_flips_equal_those_seen_by_eye(make_table):
    table = make_table(ANSWERS).sample(frac=1, random_state=1)
    table["target"] = pd.Categorical(table["target"], ["b", "a"])
    flips = first_flips(table.sort_values("target", ascending=False, kind="stable"))
    assert list(zip(flips["target"], flips["index"], strict=True)) == [
        *(("a", 0), ("a", 1), ("a", 2), ("a", 4), ("b", 4))
    ]
    np.testing.assert_array_equal(flips["first_flip_eps_255"], [0.5, 2, np.nan, 0.5, np.nan])
    assert list(flips["below_8_bits"]) == [True, False, False, True, False]
    assert flips["flips_at_8_bits"].isna().all()


def test_a_source_that_is_no_target_is_passed_over(make_table):
    clean_alone = make_table({("c", 0): [0, 0, 0, 0, 0]})
    whole = pd.concat([clean_alone, make_table(ANSWERS)])
    pd.testing.assert_frame_equal(first_flips(whole), first_flips(make_table(ANSWERS)))


def test_flips_are_looked_up_in_the_8_bit_table(make_table):
    flips = first_flips(make_table(ANSWERS), make_table(ROUNDED).sample(frac=1, random_state=2))
    assert flips["flips_at_8_bits"].tolist() == [False, True, pd.NA, False, pd.NA]
    assert flips["flips_at_8_bits"].dtype == "boolean"
    gone = make_table(ROUNDED).query("not (eps_255 == 2 and index == 1)")
    with pytest.raises(ValueError, match=r"lacks 1 of 3 first flips, first index 1, .*eps_255 2"):
        first_flips(make_table(ANSWERS), gone)


def test_flip_summary_gives_counts_and_shares(make_table):
    tables = make_table(ANSWERS), make_table(ROUNDED)
    a, b = flip_summary(first_flips(*tables)).to_dict("records")
    assert a == {
        "target": "a",
        "initially_correct": 4,
        "flipped": 3,
        "median_first_flip_eps_255": 0.5,
        "below_8_bits": 2,
        "flips_at_8_bits": 1,
        "flipped_share": 0.75,
        "below_8_bits_share": 2 / 3,
        "flips_at_8_bits_share": 1 / 3,
    }
    assert (b["initially_correct"], b["flipped"], b["flips_at_8_bits"]) == (1, 0, 0)
    assert np.isnan([b["median_first_flip_eps_255"], b["below_8_bits_share"]]).all()
    without = flip_summary(first_flips(tables[0]))
    assert without["flips_at_8_bits"].isna().all()
    assert without["flips_at_8_bits_share"].isna().all()


def test_what_8_bits_hold_is_not_told_of_budgets_in_l2(make_table):
    tables = make_table(ANSWERS), make_table(ROUNDED)
    flips = first_flips(*tables, norm="l2")
    assert flips["below_8_bits"].isna().all()
    summary = flip_summary(flips)
    assert summary[["below_8_bits", "below_8_bits_share"]].isna().all(axis=None)
    same = ["flipped", "flips_at_8_bits", "flips_at_8_bits_share"]
    pd.testing.assert_frame_equal(summary[same], flip_summary(first_flips(*tables))[same])


def test_the_median_is_kaplan_and_meiers(make_table):
    generator = np.random.default_rng(0)
    budgets = [0.25, 0.5, 1, 2, 4, 8]
    for n in (1, 2, 7, 20, 51):
        first = generator.choice([*budgets, np.inf], n)
        answers = {("a", 0): [0] * n} | {("a", eps): (first <= eps) * 1 for eps in budgets}
        summary = flip_summary(first_flips(make_table(answers)))
        status = np.isfinite(first)
        curve = SurvfuncRight(np.where(status, first, 8.0), status.astype(int))
        reached = curve.surv_times[curve.surv_prob <= 0.5 + 1e-9]
        expected = reached[0] if len(reached) else np.nan
        np.testing.assert_equal(summary["median_first_flip_eps_255"].iloc[0], expected)


def test_a_target_that_is_never_right_gives_no_rows(make_table):
    flips = first_flips(make_table({("a", 0): [1, 1], ("a", 8): [1, 0]}))
    assert flips.empty and flip_summary(flips).empty
