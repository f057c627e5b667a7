import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest
from statsmodels.stats.inter_rater import cohens_kappa

from src.analysis.errors import error_agreement


def test_agreement_equals_statsmodels(make_table):
    generator = np.random.default_rng(0)
    for n, classes in ((7, 2), (40, 3), (300, 10)):
        first, second = generator.integers(0, classes, (2, n))
        second = np.where(generator.random(n) < 0.5, first, second)
        agreement = error_agreement(make_table({("a", 0): first, ("b", 0): second}), "a", "b")
        right, also = first == 0, second == 0
        table = np.histogram2d(right, also, bins=2)[0]
        assert agreement.kappa == pytest.approx(cohens_kappa(table).kappa)
        assert agreement.n == n
        assert agreement.first_accuracy == pytest.approx(right.mean())
        assert agreement.second_accuracy == pytest.approx(also.mean())
        both = ~right & ~also
        same = int((both & (first == second)).sum())
        assert agreement.both_wrong == both.sum()
        assert agreement.same_wrong_class == pytest.approx(same / both.sum())
        interval = binomtest(same, int(both.sum())).proportion_ci(method="wilson")
        assert (agreement.same_wrong_low, agreement.same_wrong_high) == pytest.approx(interval)


def test_a_case_worked_by_hand(make_table):
    # Both right on 2 of 5 images, both wrong on 2 (once alike): observed 4/5,
    # expected (3 * 2 + 2 * 3) / 25.
    table = make_table({("a", 0): [0, 0, 0, 1, 1], ("b", 0): [0, 0, 2, 1, 2]})
    agreement = error_agreement(table, "a", "b")
    assert agreement.kappa == pytest.approx((4 / 5 - 12 / 25) / (1 - 12 / 25))
    assert (agreement.both_wrong, agreement.same_wrong_class) == (2, 0.5)
    assert agreement[1:3] == (0.6, 0.4)


def test_attacked_rows_and_the_order_of_rows_do_not_count(make_table):
    answers = {("a", 0): [0, 1, 2, 0], ("b", 0): [0, 1, 0, 1]}
    table = make_table({**answers, ("a", 8): [3, 3, 3, 3], ("b", 8): [0, 0, 0, 0]})
    shuffled = table.sample(frac=1, random_state=1)
    assert error_agreement(shuffled, "a", "b") == error_agreement(make_table(answers), "a", "b")


def test_extremes(make_table):
    one = make_table({("a", 0): [0, 1, 0, 2], ("b", 0): [1, 0, 1, 0]})
    assert error_agreement(one, "a", "a").kappa == 1
    assert error_agreement(one, "a", "b").kappa == -1
    assert np.isnan(error_agreement(one, "a", "b").same_wrong_low)
    for same in ([0, 0], [1, 2]):
        agreement = error_agreement(make_table({("a", 0): same, ("b", 0): same}), "a", "b")
        assert np.isnan(agreement.kappa)


def test_tables_that_do_not_fit_are_refused(make_table):
    table = make_table({("a", 0): [0, 1], ("b", 0): [0, 1], ("b", 8): [0, 1], ("c", 8): [0, 1]})
    with pytest.raises(ValueError, match="no clean rows of c; the table holds a, b, c"):
        error_agreement(table, "a", "c")
    with pytest.raises(ValueError, match="not shown the same clean images: image 1"):
        error_agreement(table.drop(3), "a", "b")
    with pytest.raises(ValueError, match="image 0 has several clean rows of a"):
        error_agreement(pd.concat([table, table.iloc[:1]]), "a", "b")
    table.loc[2, "label"] = 1
    with pytest.raises(ValueError, match="other labels"):
        error_agreement(table, "a", "b")
