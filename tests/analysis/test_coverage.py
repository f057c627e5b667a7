"""Coverage of intervals in simulation."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom, norm, spearmanr

from src.analysis.confidence import initial_confidence_effect
from src.analysis.ranking import rankings
from tests.analysis.conftest import outcomes_of_arrays


@pytest.mark.slow
@pytest.mark.parametrize("n", [40, 300])
@pytest.mark.parametrize("never", [0.0, 0.9])
@pytest.mark.parametrize("rho", [0.0, 0.6])
def test_the_interval_of_rho_covers_it_on_tied_budgets(n, never, rho):
    """Of initial confidence and the first of seven budgets that flips; the last is never."""
    generator, samples = np.random.default_rng(n), 500
    latent = 2 * np.sin(np.pi * rho / 6)  # Pearson's of two normal variables with that Spearman's
    one, other = generator.standard_normal((2, 1000 * n))
    rank = norm.cdf(latent * one + np.sqrt(1 - latent**2) * other)
    shares = np.cumsum([0.55, 0.15, 0.1, 0.08, 0.05, 0.04, 0.03]) * (1 - never)
    budget = np.searchsorted(shares, rank).astype(float)
    truth = spearmanr(one, budget).statistic
    ways = pd.DataFrame({"initial_confidence": norm.cdf(one), "first_flip_eps_255": budget})
    ways = ways.mask(ways == 7)[: samples * n].assign(target=np.repeat(np.arange(samples), n))
    found = initial_confidence_effect(ways).dropna(subset="rho")
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
