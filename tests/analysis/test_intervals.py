import numpy as np
import pytest
from scipy.optimize import brentq, minimize_scalar
from scipy.stats import binomtest, norm
from statsmodels.stats.contingency_tables import mcnemar

from src.analysis.intervals import mcnemar_p, paired_interval, wilson_interval


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
    """Maximise the likelihood by brute force under p12 - p21 = difference, then Tango's Z."""
    smallest, largest = max(0.0, -difference), (1 - difference) / 2

    def loss(q):
        with np.errstate(divide="ignore", invalid="ignore"):
            terms = [
                k * np.log(p) if k else 0.0
                for k, p in ((b, q + difference), (c, q), (n - b - c, 1 - 2 * q - difference))
            ]
        return -sum(terms) if np.isfinite(sum(terms)) else 1e300

    fit = minimize_scalar(
        loss, (smallest, largest), (smallest, largest), method="bounded", options={"xatol": 1e-13}
    )
    q = min((smallest, largest, fit.x), key=loss)
    variance = n * (2 * q + difference * (1 - difference))
    return (b - c - n * difference) / np.sqrt(variance)


@pytest.mark.parametrize(
    ("b", "c", "n"),
    [
        *((1, 7, 21), (40, 20, 160), (0, 1, 44), (12, 2, 50), (5, 0, 5), (0, 0, 10), (3, 3, 6)),
        *((1, 0, 1), (700, 12, 1000), (0, 9, 30), (4000, 30, 8139)),
    ],
)
def test_paired_interval_inverts_the_score_test_on_brute_force_likelihoods(b, c, n):
    z = norm.ppf(0.975)
    low, high = (float(bound) for bound in paired_interval(b, c, n))
    estimate, end = (b - c) / n, 1 - 1e-9

    def solve(sign, start, stop):
        return brentq(lambda d: score_statistic(b, c, n, d) - sign * z, start, stop, xtol=1e-12)

    if b - c == n:
        assert high == 1.0
    else:
        assert high == pytest.approx(solve(-1, estimate + 1e-9, end), abs=2e-6)
    if c - b == n:
        assert low == -1.0
    else:
        assert low == pytest.approx(solve(1, -end, estimate - 1e-9), abs=2e-6)
    assert -1 <= low <= estimate <= high <= 1


def test_paired_interval_turns_round_with_its_arguments_and_is_wilsons_without_discord():
    low, high = paired_interval([12, 0], [2, 0], [50, 50])
    turned_low, turned_high = paired_interval([2, 0], [12, 0], [50, 50])
    np.testing.assert_allclose(low, -turned_high)
    np.testing.assert_allclose(high, -turned_low)
    assert high[1] == pytest.approx(float(wilson_interval(0, 50)[1]), abs=1e-12)
    assert np.isnan(paired_interval(0, 0, 0)).all()


def test_the_exact_test_equals_scipy_and_statsmodels():
    pairs = [(0, 0), (0, 5), (5, 0), (7, 3), (3, 7), (4, 4), (40, 20), (900, 800)]
    for (b, c), p in zip(pairs, mcnemar_p(*zip(*pairs, strict=True)), strict=True):
        assert p == pytest.approx(binomtest(b, b + c).pvalue if b + c else 1.0, rel=1e-9)
        if b != c:  # at b = c statsmodels' twice the tail is more than 1
            assert p == pytest.approx(mcnemar([[0, b], [c, 0]], exact=True).pvalue, rel=1e-9)
    assert mcnemar_p(5000, 0) == 0.0  # 2 to the power of -4999 is no double
