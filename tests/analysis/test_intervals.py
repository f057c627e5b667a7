import numpy as np
import pytest
from scipy.special import xlogy
from scipy.stats import binomtest, norm

from findings.paired_tests import mcnemar_p
from src.analysis.intervals import paired_interval, wilson_interval


def test_wilson_interval_equals_scipy():
    cases = [(k, n) for n in (1, 2, 7, 100, 8139) for k in sorted({0, 1, n // 3, n - 1, n})]
    low, high = wilson_interval(*zip(*cases, strict=True))
    for (k, n), lower, upper in zip(cases, low, high, strict=True):
        expected = binomtest(k, n).proportion_ci(method="wilson")
        assert lower == pytest.approx(expected.low, abs=1e-12)
        assert upper == pytest.approx(expected.high, abs=1e-12)
        assert (lower == 0.0) == (k == 0) and (upper == 1.0) == (k == n)
    assert np.isnan(wilson_interval(0, 0)).all()


def score_statistic(b, c, n, difference):
    """Return Tango's Z, the likelihood being maximised over a fine grid."""
    q = np.linspace(max(0.0, -difference), (1 - difference) / 2, 1_000_001)[1:-1]
    likelihood = xlogy(b, q + difference) + xlogy(c, q)
    likelihood += xlogy(n - b - c, 1 - 2 * q - difference)
    variance = n * (2 * q[likelihood.argmax()] + difference * (1 - difference))
    return (b - c - n * difference) / np.sqrt(variance)


@pytest.mark.parametrize(
    ("b", "c", "n"),
    [
        *((1, 7, 21), (40, 20, 160), (0, 1, 44), (12, 2, 50), (5, 0, 5), (0, 0, 10), (3, 3, 6)),
        *((1, 0, 1), (700, 12, 1000), (0, 9, 30), (4000, 30, 8139)),
    ],
)
def test_paired_interval_inverts_the_score_test_on_brute_force_likelihoods(b, c, n):
    low, high = (float(bound) for bound in paired_interval(b, c, n))
    for sign, end in ((1, low), (-1, high)):
        if c - b == sign * n:  # all images are discordant one way
            assert end == -sign
        else:
            assert score_statistic(b, c, n, end) == pytest.approx(sign * norm.ppf(0.975), abs=1e-3)
    assert low <= (b - c) / n <= high


def test_paired_interval_turns_round_with_its_arguments_and_is_wilsons_without_discord():
    low, high = paired_interval([12, 0], [2, 0], [50, 50])
    turned_low, turned_high = paired_interval([2, 0], [12, 0], [50, 50])
    np.testing.assert_allclose(low, -turned_high)
    np.testing.assert_allclose(high, -turned_low)
    assert high[1] == pytest.approx(float(wilson_interval(0, 50)[1]), abs=1e-12)
    assert np.isnan(paired_interval(0, 0, 0)).all()


def test_the_exact_test_equals_scipy():
    pairs = [(0, 0), (0, 5), (5, 0), (7, 3), (3, 7), (4, 4), (40, 20), (900, 800)]
    for (b, c), p in zip(pairs, mcnemar_p(*zip(*pairs, strict=True)), strict=True):
        assert p == pytest.approx(binomtest(b, b + c).pvalue if b + c else 1.0, rel=1e-9)
    assert mcnemar_p(5000, 0) == 0.0  # 2 to the power of -4999 is no double
