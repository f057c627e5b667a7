import numpy as np
import pytest
from scipy.stats import norm
from statsmodels.genmod.families import Binomial
from statsmodels.genmod.generalized_linear_model import GLM

from src.analysis import logistic
from src.analysis.logistic import odds_ratio


def test_the_odds_ratio_equals_another_fit():
    generator = np.random.default_rng(1)
    x = generator.uniform(0, 0.5, 90)
    success = generator.random(90) < 1 / (1 + np.exp(1 - 5 * x))
    fit = GLM(success.astype(float), np.column_stack([np.ones(90), x]), Binomial()).fit(tol=1e-12)
    low, high = fit.params[1] + norm.ppf([0.025, 0.975]) * fit.bse[1]
    for step in (0.1, 0.5):
        found = odds_ratio(x, success, step)
        expected = np.exp(step * np.array([fit.params[1], low, high]))
        np.testing.assert_allclose(found[:3], expected, rtol=1e-5)
        assert found.p == pytest.approx(fit.pvalues[1], rel=1e-4) and found.why == ""


RISING = np.linspace(0, 1, 12)
MIXED = np.arange(12) % 2 == 0


@pytest.mark.parametrize(
    ("x", "success", "why"),
    [
        (RISING[:9], MIXED[:9], "fewer than 10 images"),
        (np.r_[np.nan, np.inf, RISING[2:]], MIXED, "the number of 2 images is not a number"),
        (0.5 + 0.0009 * RISING, MIXED, "the number is the same for all images, or nearly so"),
        (RISING, MIXED | True, "it takes images that win and images that do not"),
        (RISING, MIXED & False, "it takes images that win and images that do not"),
        (RISING, RISING > 0.5, "the number separates the images that win from the others"),
        (RISING, RISING < 0.5, "the number separates the images that win from the others"),
        (np.repeat([0, 0.5, 1], 4), np.arange(12) > 5, "separates"),  # but for a tie
    ],
)
def test_why_there_is_no_odds_ratio(x, success, why):
    found = odds_ratio(x, success, 0.1, "the number", "win")
    assert np.isnan(found[:4]).all() and why in found.why


def test_little_variation_is_enough():
    assert odds_ratio(0.5 + 0.0011 * RISING, MIXED, 1e-4).why == ""


def test_fits_that_fail_have_no_odds_ratio(monkeypatch):
    # Far more than a number can hold: the interval of a step that is far too large.
    found = odds_ratio(RISING, MIXED, 1e4)
    assert np.isnan(found[:4]).all() and found.why == "the fit did not converge"

    class Singular:
        def __init__(self, *_):
            pass

        def fit(self, **_):
            raise np.linalg.LinAlgError

    monkeypatch.setattr(logistic, "Logit", Singular)
    assert odds_ratio(RISING, MIXED, 0.1).why == "the fit did not converge"
