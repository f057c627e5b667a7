"""How often intervals hold the truth in simulation."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom, binomtest, norm, spearmanr

from src.analysis.hypothesis import initial_confidence_effect
from src.analysis.intervals import bounded_mean_interval

REPLICATES = 2000
LEAST = 0.95
# A method that covers 95 % stays above this in 2,000 replicates in all but one of 1,000 cases.
LEAST_SEEN = binom.ppf(0.001, REPLICATES, LEAST) / REPLICATES


def confidences(fallen):
    """Confidences near 1, of which a share has fallen to anything above 0.2."""

    def draw(generator, shape):
        sure = 1 - 0.05 * generator.beta(0.5, 2, shape)
        fell = generator.random(shape) < fallen
        return np.where(fell, generator.uniform(0.2, 0.9, shape), sure)

    return draw


BINS = {
    "as sure as before": confidences(0.0),
    "one in 20 has fallen": confidences(0.05),
    "one in 7 has fallen": confidences(0.15),
    "spread": lambda generator, shape: generator.beta(2, 0.7, shape),
}


@pytest.mark.slow
@pytest.mark.parametrize("n", [10, 30])
@pytest.mark.parametrize("draw", BINS.values(), ids=BINS)
def test_the_interval_covers_means_of_skewed_values(draw, n):
    generator = np.random.default_rng(0)
    truth = draw(generator, (2_000_000,)).mean()
    low, high = whole(draw(generator, (REPLICATES, n)))
    assert np.mean((low <= truth) & (truth <= high)) >= LEAST_SEEN


def whole(values, low=0.0, high=1.0):
    return bounded_mean_interval(values, np.ones(values.shape, bool), low, high)


def test_of_zeros_and_ones_the_interval_is_clopper_and_pearsons():
    for k, n in ((0, 30), (3, 30), (30, 30), (40, 113)):
        ends = whole(np.repeat([[0.0, 1.0]], [n - k, k], axis=1))
        expected = binomtest(k, n).proportion_ci(method="exact")
        assert np.ravel(ends) == pytest.approx((expected.low, expected.high), abs=0.012)


def test_the_interval_moves_with_the_range_and_every_sample_has_its_own():
    generator = np.random.default_rng(2)
    values = generator.random((3, 40))
    low, high = whole(values)
    assert ((low < values.mean(axis=1)) & (values.mean(axis=1) < high)).all()
    moved = whole(2 * values - 1, np.full(3, -1.0), 1.0)
    np.testing.assert_allclose(moved, (2 * low - 1, 2 * high - 1))
    kept = generator.random(values.shape) < 0.7
    masked = np.transpose(bounded_mean_interval(np.where(kept, values, np.nan), kept))
    for one, mine in enumerate(kept):
        bounds = np.ravel(whole(values[one : one + 1, mine]))
        np.testing.assert_allclose(masked[one], bounds, atol=0.02)
    assert np.isnan(whole(values[:, :9])).all()
    values[1, 3] = np.nan
    low, high = whole(values)
    assert np.isnan([low[1], high[1]]).all() and np.isfinite(low[[0, 2]]).all()


def test_of_many_values_the_interval_is_students():
    values = np.random.default_rng(3).random((1, 3000))  # more than are drawn for at once
    half = 1.96 * values.std() / np.sqrt(3000)
    expected = values.mean() + np.array([[-half], [half]])
    np.testing.assert_allclose(whole(values), expected, atol=half / 10)


def test_the_first_weights_are_drawn_once(monkeypatch):
    values, drawn = np.full((1, 3000), 0.5), []  # three blocks
    whole(values)
    real = np.random.default_rng
    monkeypatch.setattr("numpy.random.default_rng", lambda seed: drawn.append(seed) or real(seed))
    whole(values)
    assert not drawn


def confidences_and_budgets(generator, n, rho, never, shares):
    """Draw n initial confidences, and places of the budgets that flip them; the last is never."""
    latent = 2 * np.sin(np.pi * rho / 6)  # Pearson's of two normal variables with that Spearman's
    one, other = generator.standard_normal((2, n))
    rank = norm.cdf(latent * one + np.sqrt(1 - latent**2) * other)
    return norm.cdf(one), np.searchsorted(np.cumsum(shares) * (1 - never), rank).astype(float)


@pytest.mark.slow
@pytest.mark.parametrize("n", [40, 300])
@pytest.mark.parametrize("never", [0.0, 0.9])
@pytest.mark.parametrize("rho", [0.0, 0.6])
@pytest.mark.parametrize("shares", [[1 / 7] * 7, [0.55, 0.15, 0.1, 0.08, 0.05, 0.04, 0.03]])
def test_the_interval_of_rho_covers_it_on_tied_budgets(n, never, rho, shares):
    generator, replicates = np.random.default_rng(n), 500
    truth = spearmanr(*confidences_and_budgets(generator, 500_000, rho, never, shares)).statistic
    confidence, budget = confidences_and_budgets(generator, replicates * n, rho, never, shares)
    ways = {"target": np.repeat(np.arange(replicates), n), "initial_confidence": confidence}
    ways["first_flip_eps_255"] = np.where(budget < 7, budget, np.nan)
    found = initial_confidence_effect(pd.DataFrame(ways)).dropna(subset="rho")
    covered = ((found["rho_low"] <= truth) & (truth <= found["rho_high"])).mean()
    assert binom.ppf(0.001, len(found), 0.93) / len(found) <= covered
    assert covered <= binom.ppf(0.999, len(found), 0.98) / len(found)
