"""Intervals of proportions and paired differences against SciPy, and the paired tests of sweeps."""

import numpy as np
import pytest
from scipy.special import xlogy
from scipy.stats import binomtest, chi2, norm

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


def test_paired_interval_inverts_the_score_test_on_brute_force_likelihoods():
    counts = [(1, 7, 21), (40, 20, 160), (0, 1, 44), (12, 2, 50), (5, 0, 5), (0, 0, 10), (3, 3, 6)]
    for b, c, n in [*counts, (1, 0, 1), (700, 12, 1000), (0, 9, 30), (4000, 30, 8139)]:
        low, high = (float(bound) for bound in paired_interval(b, c, n))
        for sign, end in ((1, low), (-1, high)):
            if c - b == sign * n:  # all images are discordant one way
                assert end == -sign
            else:
                score = score_statistic(b, c, n, end)
                assert score == pytest.approx(sign * norm.ppf(0.975), abs=1e-3)
        assert low <= (b - c) / n <= high


def test_paired_interval_turns_round_and_agrees_with_mcnemars_test():
    counts = [(b, c) for b in range(0, 25, 4) for c in range(0, 25, 4)]
    b, c = np.array(counts).T
    low, high = paired_interval(b, c, 50)
    turned_low, turned_high = paired_interval(c, b, 50)
    np.testing.assert_allclose([low, high], [-turned_high, -turned_low], atol=1e-9)
    p = chi2.sf((b - c) ** 2 / np.maximum(b + c, 1), 1)
    assert (((low <= 0) & (high >= 0)) == (p >= 0.05)).all()
    assert high[0] == pytest.approx(float(wilson_interval(0, 50)[1]), abs=1e-12)
    assert np.isnan(paired_interval(0, 0, 0)).all()


def test_the_exact_test_equals_scipy():
    pairs = [(0, 0), (0, 5), (5, 0), (7, 3), (3, 7), (4, 4), (40, 20), (900, 800)]
    for (b, c), p in zip(pairs, mcnemar_p(*zip(*pairs, strict=True)), strict=True):
        assert p == pytest.approx(binomtest(b, b + c).pvalue if b + c else 1.0, rel=1e-9)
    assert mcnemar_p(5000, 0) == 0.0  # 2 to the power of -4999 is no double
