import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from src.analysis.confidence import initial_confidence_effect

BUDGETS = np.array([1, 2, 4, 8])


def ways(confidence, first, target="b"):
    """Rows of `trajectories`: initial confidences and flipping budgets, NaN for never."""
    return pd.DataFrame(
        {"target": target, "initial_confidence": confidence, "first_flip_eps_255": first}
    )


def effect(confidence, first):
    (row,) = initial_confidence_effect(ways(confidence, first)).to_dict("records")
    return row


@pytest.fixture(scope="module")
def noisy():
    """80 images; the more confident flip later, on the whole; some never."""
    generator = np.random.default_rng(0)
    confidence = generator.uniform(0.4, 1, 80)
    flip = generator.exponential(12 * confidence**4)
    place = np.searchsorted(BUDGETS, flip)
    return confidence, np.append(BUDGETS, np.nan)[place]


def test_rho_and_interval_are_scipys_with_never_above_every_budget(noisy):
    confidence, first = noisy
    found = effect(confidence, first)
    expected = spearmanr(confidence, np.nan_to_num(first, nan=1e9)).statistic
    assert (found["n"], found["flipped"]) == (80, int(np.isfinite(first).sum()))
    assert 0 < found["flipped"] < 80
    assert found["rho"] == pytest.approx(expected, abs=1e-12)
    # Bonett and Wright (2000): Fisher's z, with the variance of ranks.
    half = 1.96 * np.sqrt((1 + expected**2 / 2) / 77)
    ends = np.tanh(np.arctanh(expected) + np.array([-half, half]))
    assert [found["rho_low"], found["rho_high"]] == pytest.approx(ends, abs=1e-4)


def test_verdicts_go_by_the_interval(noisy):
    confidence, first = noisy
    supported, turned = effect(confidence, first), effect(-confidence, first)
    assert supported["verdict"] == "supported" and supported["rho_low"] > 0
    assert turned["verdict"] == "contradicted" and turned["rho"] == -supported["rho"]
    assert turned["rho_high"] == pytest.approx(-supported["rho_low"])
    chance = effect(confidence, np.random.default_rng(1).permutation(first))
    assert chance["verdict"] == "undecided" and chance["rho_low"] < 0 < chance["rho_high"]
    exact = effect(np.arange(20), np.arange(1.0, 21))
    assert exact["rho"] == 1 and 0.9 < exact["rho_low"] <= exact["rho_high"] <= 1


@pytest.mark.parametrize(
    ("confidence", "first"),
    [
        (np.linspace(0.4, 1, 9), [1] * 4 + [np.nan] * 5),
        (np.linspace(0.4, 1, 12), [np.nan] * 12),
        (np.linspace(0.4, 1, 12), [2] * 12),
        (np.full(12, 0.8), [1] * 5 + [np.nan] * 7),
        ([np.nan] * 2 + [0.5, 0.6] * 5, [1] * 5 + [2] * 7),
    ],
)
def test_few_images_and_equal_values_have_no_rho(confidence, first):
    found = effect(confidence, first)
    assert (found["n"], found["flipped"]) == (len(first), np.isfinite(first).sum())
    assert found["verdict"] == "not computable"
    assert np.isnan([found[name] for name in ("rho", "rho_low", "rho_high")]).all()
