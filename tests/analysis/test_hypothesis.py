import numpy as np
import pandas as pd
import pytest
from scipy.stats import bootstrap, spearmanr

from src.analysis.hypothesis import initial_confidence_effect
from src.analysis.trajectories import trajectories

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
    interval = bootstrap(
        (confidence, np.nan_to_num(first, nan=99)),
        lambda x, y: spearmanr(x, y).statistic,
        paired=True,
        vectorized=False,
        n_resamples=999,
        method="percentile",
        rng=1,
    ).confidence_interval
    assert found["rho_low"] == pytest.approx(interval.low, abs=0.05)
    assert found["rho_high"] == pytest.approx(interval.high, abs=0.05)
    assert found["rho_low"] < found["rho"] < found["rho_high"]


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
    ("confidence", "first", "why"),
    [
        (np.linspace(0.4, 1, 9), [1] * 4 + [np.nan] * 5, "fewer than 10 images"),
        (np.linspace(0.4, 1, 12), [np.nan] * 12, "no image flips at any budget"),
        (np.linspace(0.4, 1, 12), [2] * 12, "every image first flips at 2/255"),
        (np.full(12, 0.8), [1] * 5 + [np.nan] * 7, "all images have the same initial confidence"),
        ([np.nan] * 2 + [0.5] * 10, [1] * 5 + [2] * 7, "an initial confidence is not a number"),
    ],
)
def test_without_a_rho_it_says_why(confidence, first, why):
    found = effect(confidence, first)
    assert (found["n"], found["flipped"]) == (len(first), np.isfinite(first).sum())
    assert found["why"] == why and found["verdict"] == "undecided"
    assert np.isnan([found[name] for name in ("rho", "rho_low", "rho_high")]).all()


def test_each_target_has_a_row_in_the_order_of_the_table(noisy):
    confidence, first = noisy
    both = pd.concat([ways(confidence, first, "z"), ways(confidence[:9], first[:9], "a")])
    found = initial_confidence_effect(both)
    assert found["target"].tolist() == ["z", "a"] and found["n"].tolist() == [80, 9]
    assert (found["why"] == "").tolist() == [True, False]
    assert found["rho"].iloc[0] == effect(confidence, first)["rho"]
    none = initial_confidence_effect(both.iloc[:0])
    assert none.empty and list(none.columns) == list(found.columns)


def test_rows_of_trajectories_are_taken_as_they_are(make_table):
    generator = np.random.default_rng(3)
    flips = np.sort(generator.integers(0, 2, (2, 40)), axis=0)
    predictions = {("b", 0): np.zeros(40, int), ("b", 4): flips[0], ("b", 8): flips[1]}
    table = make_table(predictions).assign(confidence=generator.random(120))
    found = initial_confidence_effect(trajectories(table, "b", ["b"])).iloc[0]
    first = np.where(flips[0], 4, np.where(flips[1], 8, np.inf))
    assert (found["n"], found["flipped"]) == (40, np.isfinite(first).sum())
    initial = table.loc[table["eps_255"] == 0, "confidence"]
    assert found["rho"] == pytest.approx(spearmanr(initial, first).statistic)
