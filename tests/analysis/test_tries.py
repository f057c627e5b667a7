"""Success within q candidates: by hand, by loops, in simulations."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from src.analysis.tries import success_within
from tests.analysis.conftest import outcomes_of_arrays
from tests.conftest import REPOSITORY, run_words


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
    found = success_within(outcomes_of_arrays(JOBS, "tb", MATRIX), [10, 10, 10])
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
    found = success_within(outcomes_of_arrays(JOBS, "t", matrix), [10, 25, 10])
    assert list(found["attack"]) == ["di", "ti", "mi"]
    assert found["single"].tolist() == pytest.approx([0.5] * 3)
    matrix = [[images((0, 110))], [images((0, 100))], [images((100, 130))]]
    found = success_within(outcomes_of_arrays(JOBS, "t", matrix), [10, 25, 10])
    assert found["single"].tolist() == pytest.approx([0.55] * 3)
    assert found[["unseen", "unseen_low"]].isna().all(axis=None)  # there is no other target


def test_a_unit_is_an_image_that_all_candidates_of_a_target_count():
    counted = np.ones((3, 2, 200), bool)
    counted[1, 0, 120:] = False  # b is wrong from image 120 on
    counted[1, 1, :] = False  # the white box does not matter
    found = success_within(outcomes_of_arrays(JOBS, "tb", MATRIX, counted), [1, 1, 1])
    assert found["images"].iloc[0] == 200
    assert found["fooled"].iloc[0] == pytest.approx((100 / 120 + 0.8) / 2)
    counted[0] = False
    with pytest.raises(ValueError, match="No image is left"):
        success_within(outcomes_of_arrays(JOBS, "tb", MATRIX, counted), [1, 1, 1])


def test_each_image_is_judged_by_the_order_learned_on_the_next_five_parts():
    """A loop over the eleven parts of the images; among equals the better one alone comes first."""
    fooled = np.random.default_rng(4).random((6, 1, 110)) < 0.3
    found = success_within(
        outcomes_of_arrays([(f"x{at}", "a") for at in range(6)], "t", fooled), [1] * 6
    )
    part, total = np.random.default_rng(1).permutation(110) * 11 // 110, np.zeros(6)
    for number in range(11):
        learned = np.isin((part - number) % 11, [1, 2, 3, 4, 5])
        alone, left, order = (fooled[:, 0] & learned).sum(axis=1), learned.copy(), []
        while len(order) < 6:
            rest = [at for at in range(6) if at not in order]
            order.append(max(rest, key=lambda at: ((fooled[at, 0] & left).sum(), alone[at], -at)))
            left &= ~fooled[order[-1], 0]
        total += [fooled[order[: q + 1], 0].any(axis=0)[part == number].sum() for q in range(6)]
    assert found["fooled"].tolist() == pytest.approx(total / 110)


def covered(candidates, images, worlds, alike=0.0):
    """Return the share of worlds in which the interval has the truth, for each q.

    Equal candidates fool 30 % of the images. With `alike` above 0, images are hard or easy for all
    of them, so the truth is the same for every order.
    """
    random, jobs = np.random.default_rng(1), [(f"x{at:02}", "a") for at in range(candidates)]
    latent = norm.sf(
        (norm.isf(0.3) - np.sqrt(alike) * norm.ppf(np.arange(0.5, 500) / 500)) / np.sqrt(1 - alike)
    )
    truth = np.array([np.mean(1 - (1 - latent) ** q) for q in range(1, candidates + 1)])
    hits = []
    for _ in range(worlds):
        fooled = random.random((candidates, 1, images)) < random.choice(latent, images)
        found = success_within(outcomes_of_arrays(jobs, "t", fooled), [1.0] * candidates)
        hits.append(found["fooled_low"].le(truth) & found["fooled_high"].ge(truth))
    return np.mean(hits, axis=0)


def test_intervals_of_equal_candidates_cover():
    """Orders that judge each other's images need wider intervals than their scores show."""
    assert (np.abs(covered(5, 60, worlds=1_000)[[0, -1]] - 0.95) <= 0.02).all()


@pytest.mark.slow
@pytest.mark.parametrize(("images", "alike"), [(130, 0.0), (130, 0.5), (40, 0.5)])
def test_intervals_cover_93_to_97_percent_of_worlds(images, alike):
    """At q = 1, 2, 5 and the last q; not where nearly every image is fooled."""
    found = covered(15, images, 1000, alike)[[0, 1, 4, 14] if alike else [0, 1, 4]]
    assert ((found > 0.93) & (found < 0.97)).all()


def test_the_table_names_the_order_and_refuses_other_budgets(tmp_path, capsys):
    demo = str(REPOSITORY / "docs" / "results" / "demo")
    words = [demo, "--as", "tries", "--names", "mi=MI", "--protocol", "joint"]
    assert run_words(tmp_path, *words, "--to", "csv", "--out", "a.csv", module="src.table") == 0
    frame = pd.read_csv(tmp_path / "a.csv")
    assert frame["q"].tolist() == [1, 2, 3, 4, 5, 6]  # a source is tried by none of its own
    assert frame["attack"][0] == "MI" and frame["source"][0] == "resnet_small"
    for more, said in ((["--eps", "3"], "eps_255=3"), (["--protocol", "jiont"], "jiont")):
        assert run_words(tmp_path, *words, *more, module="src.table") == 2
        assert said in capsys.readouterr().err
