"""Success within q candidates: by hand on small matrices, and without optimism in simulations."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from src import load_sweep, tries
from src.analysis.image_outcomes import ImageOutcomes
from src.analysis.tries import success_within
from src.utils.model_names import ModelRef
from tests.conftest import REPOSITORY, run_words

DEMO = REPOSITORY / "docs" / "results" / "demo"
CURVES = ["fooled", "unseen", "single"]


def outcomes_of(jobs, targets, fooled, counted=None) -> ImageOutcomes:
    """Return outcomes from successes of shape (J, T, N); all images count by default."""
    fooled = np.asarray(fooled, bool)
    counted = np.ones_like(fooled) if counted is None else counted
    return ImageOutcomes(
        jobs,
        [ModelRef.parse(target) for target in targets],
        np.arange(fooled.shape[2]),
        [None] * len(jobs),
        np.ones(fooled.shape[:2], bool),
        np.packbits(counted, axis=-1),
        np.packbits(fooled & counted, axis=-1),
    )


def images(*parts: tuple[int, int]) -> np.ndarray:
    """Return a mask of 200 images that is True from each start to each end."""
    return np.isin(np.arange(200), np.concatenate([np.arange(*part) for part in parts]))


JOBS = [("mi", "a"), ("di", "b"), ("ti", "a")]
MATRIX = [
    # on target t    on target b
    [images((0, 120)), images((0, 40))],
    [images((120, 200)), images((0, 200))],  # a white box on b
    [images((0, 100)), images((40, 200))],
]


def test_greedy_orders_are_those_worked_out_by_hand():
    """`ti` fools 65 % as a mean over t and b, `mi` 40 % and `di`, which b skips, 40 % of t.

    After `ti`, `di` gains 40 %, and `mi` 15 %: 10 % of t and 20 % of b.
    """
    found = success_within(outcomes_of(JOBS, "tb", MATRIX), [10, 10, 10])
    assert list(found["attack"]) == ["ti", "di"] and list(found["source"]) == ["a", "b"]
    assert found["fooled"].tolist() == pytest.approx([0.65, (0.9 + 1.0) / 2])
    # Learned on b alone: ti, mi. Learned on t alone: mi, di, ti.
    assert found["unseen"].tolist() == pytest.approx([(0.5 + 0.2) / 2, (0.6 + 1.0) / 2])
    assert found["single"].tolist() == pytest.approx([0.65, 0.65])
    assert found["gradients"].tolist() == [10, 20]
    assert (found[["images", "targets", "candidates"]] == [200, 2, 3]).all(axis=None)
    assert (found["fooled_low"] < found["fooled"]).all()


def test_the_best_single_candidate_needs_no_more_gradients():
    """`di` alone is better on t than `mi`, but needs more gradients than both others."""
    matrix = [[images((0, 80))], [images((0, 100))], [images((100, 110))]]
    found = success_within(outcomes_of(JOBS, "t", matrix), [10, 25, 10])
    assert list(found["attack"]) == ["di", "ti", "mi"]
    assert found["single"].tolist() == pytest.approx([0.5] * 3)
    matrix = [[images((0, 110))], [images((0, 100))], [images((100, 130))]]
    found = success_within(outcomes_of(JOBS, "t", matrix), [10, 25, 10])
    assert found["single"].tolist() == pytest.approx([0.55] * 3)
    assert np.isnan(
        success_within(outcomes_of(JOBS, "t", matrix), [10, np.nan, 10])["single"]
    ).all()
    assert found[["unseen", "unseen_low"]].isna().all(axis=None)  # there is no other target


def test_units_are_right_on_the_target_and_all_sources_that_it_tries():
    counted = np.ones((3, 2, 200), bool)
    counted[1, 0, 120:] = False  # b is wrong from image 120 on
    counted[1, 1, :] = False  # the white box does not matter
    found = success_within(outcomes_of(JOBS, "tb", MATRIX, counted), [1, 1, 1])
    assert found["images"].iloc[0] == 200
    assert found["fooled"].iloc[0] == pytest.approx((100 / 120 + 0.8) / 2)
    counted[0] = False
    with pytest.raises(ValueError, match="No image is left"):
        success_within(outcomes_of(JOBS, "tb", MATRIX, counted), [1, 1, 1])


def test_the_order_of_jobs_does_not_matter():
    random = np.random.default_rng(5)
    fooled, jobs = random.random((6, 3, 90)) < 0.3, [(f"x{i}", "a") for i in range(6)]
    found = success_within(outcomes_of(jobs, "tuv", fooled), np.arange(6.0))
    other = random.permutation(6)
    again = outcomes_of([jobs[at] for at in other], "tuv", fooled[other])
    pd.testing.assert_frame_equal(success_within(again, np.arange(6.0)[other]), found)


@pytest.mark.slow
def test_equal_candidates_are_judged_without_optimism():
    """The best of 20 equal candidates on the same images seems several points better."""
    random, totals, hindsight, worlds = np.random.default_rng(2), 0, 0, 60
    rate, jobs = 0.3, [(f"x{number:02}", "a") for number in range(20)]
    for _ in range(worlds):
        fooled = np.sqrt(0.5) * random.standard_normal((1, 3, 200))
        fooled = fooled + np.sqrt(0.5) * random.standard_normal((20, 3, 200)) > norm.isf(rate)
        found = success_within(outcomes_of(jobs, "tuv", fooled), [1.0] * 20)
        totals = totals + found[CURVES].to_numpy() / worlds
        hindsight += fooled.mean(axis=(1, 2)).max() / worlds
    latent = norm.sf(
        (norm.isf(rate) - np.sqrt(0.5) * norm.ppf(np.arange(0.5, 2000) / 2000)) / np.sqrt(0.5)
    )
    truth = np.array([np.mean(1 - (1 - latent) ** q) for q in range(1, 21)])
    assert np.abs(totals[:, :2] - truth[:, None]).max() < 0.012
    assert np.abs(totals[:, 2] - rate).max() < 0.012 and hindsight > rate + 0.015


@pytest.mark.slow
def test_a_sweep_is_judged_at_its_reference_budget_without_relatives():
    frame = load_sweep(DEMO)
    frame = frame[frame["eps_255"].isin([0, 1, 4])]
    found = tries(frame)
    assert (found["targets"] == 5).all() and (found["candidates"] == 9).all()
    assert list(found["q"]) == [1, 2, 3, 4, 5, 6]  # a source is tried by none of its own
    rows = frame[frame["eps_255"].isin([0, 4])]
    right = rows["predicted"] == rows["label"]
    clean = rows[right & (rows["eps_255"] == 0)].groupby("index")["target"].agg(set)
    sources = {*frame["source"].unique()}
    shares = []
    for target in frame["target"].unique():
        units = [index for index, models in clean.items() if {target, *sources} <= models]
        mine = rows[
            (rows["target"] == target) & (rows["source"] != target) & (rows["eps_255"] == 4)
        ]
        wrong = mine[mine["predicted"] != mine["label"]]
        shares.append(np.mean([index in {*wrong["index"]} for index in units]))
    assert found["fooled"].iloc[0] < found["fooled"].iloc[-1] <= np.mean(shares)
    assert found["fooled"].iloc[-1] > 0.9 * np.mean(shares)
    smaller = tries(frame, eps_255=1)
    assert (smaller["fooled"] < found["fooled"]).all()


def test_other_options_and_budgets_are_refused(tmp_path, capsys):
    for words, said in ((["--eps", "3"], "eps_255=3"), (["--rows", "attack"], "takes only --eps")):
        assert run_words(tmp_path, str(DEMO), "--tries", *words, module="src.table") == 2
        assert said in capsys.readouterr().err


def test_the_table_names_the_order(tmp_path, capsys):
    words = [str(DEMO), "--tries", "--names", "mi=MI"]
    assert run_words(tmp_path, *words, module="src.table") == 0
    printed = capsys.readouterr().out
    assert [line.split("|")[1].strip() for line in printed.splitlines()[2:6]] == [
        "1",
        "2",
        "5",
        "6",
    ]
    assert "1. MI from resnet_small" in printed.replace("\\", "")
    assert run_words(tmp_path, *words, "--to", "csv", "--out", "a.csv", module="src.table") == 0
    assert len(pd.read_csv(tmp_path / "a.csv")) == 6
    assert run_words(tmp_path, *words, "--to", "latex", module="src.table") == 0
    assert r"\midrule" in capsys.readouterr().out
