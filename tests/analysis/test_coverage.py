"""Coverage of intervals in simulation."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom, norm, spearmanr

from src.analysis.confidence import initial_confidence_effect
from src.analysis.ranking import rankings
from tests.analysis.conftest import outcomes_of_arrays


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


@pytest.mark.parametrize(
    "share", [0.03, *(pytest.param(share, marks=pytest.mark.slow) for share in (0.01, 0.3, 0.97))]
)
@pytest.mark.parametrize("alike", [pytest.param(0.3, marks=pytest.mark.slow), 0.9])
def test_the_interval_of_mean_success_covers_it(share, alike):
    """Each of 300 sources is a sample of 150 images on four targets, which fall together."""
    samples, targets, images = 300, 4, 150
    random = np.random.default_rng(7)
    difficulty = random.standard_normal((samples, 1, images))
    noise = random.standard_normal((samples, targets, images))
    fooled = np.sqrt(alike) * difficulty + np.sqrt(1 - alike) * noise > norm.isf(share)
    jobs = [("mi", f"source {number}") for number in range(samples)]
    ranked = rankings(outcomes_of_arrays(jobs, [f"target {at}" for at in range(targets)], fooled))
    ranked = ranked[ranked["source"].str.startswith("source")]
    covered = ((ranked["low"] <= share) & (share <= ranked["high"])).mean()
    assert len(ranked) == samples and covered >= 0.92
    assert (ranked["high"] > ranked["low"]).all()
